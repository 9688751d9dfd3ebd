//! Where an artefact was trained, as a fact to decide on: what an attestation proves, and until it is there what the offer claims.

use std::collections::BTreeSet;

use super::{Attempt, NotCleared, question::IGNORED_CHARS_MAX};
use crate::{
    id::AllianceId,
    offer::{ModelOffer, Offered, TrainingClaim},
    training::Attestation,
    trust::Trust,
    vocabulary::Country,
};

/// What is at hand of where an artefact was trained.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Training<'a> {
    /// What the offer claims; the importer sees the proof with the clearance, and decides again with it.
    Claimed,
    /// The attestation, if there is one.
    Shown(Option<&'a Attestation>),
}

impl Training<'_> {
    /// What goes with a clearance: the attestation that the offer names.
    pub(super) fn to_give(self, model: &ModelOffer) -> Option<serde_bytes::ByteBuf> {
        let named = |attestation: &&Attestation| is_named(model.provenance.training.as_deref(), attestation);
        match self {
            Self::Claimed => None,
            Self::Shown(attestation) => {
                attestation.filter(named).map(|attestation| attestation.text().as_bytes().to_vec().into())
            }
        }
    }
}

/// The countries in which the artefact was trained; none where that is not proven, and then it is noted why.
pub(super) fn trained_in(trust: &Trust, attempt: &Attempt<'_>, ignored: &mut Vec<String>) -> Option<BTreeSet<Country>> {
    let Offered::Model(model) = &attempt.offer.body().what else { return None };
    let claim = model.provenance.training.as_deref()?;
    let shown = match attempt.training {
        Training::Claimed => return Some(claim.countries.clone()),
        Training::Shown(shown) => shown,
    };
    let why = match shown.filter(|attestation| is_named(Some(claim), attestation)) {
        None => "it is not here".to_owned(),
        Some(attestation) => match attestation.prove(model, trust) {
            Ok(countries) if *countries == claim.countries => return Some(countries.clone()),
            Ok(_) => "the offer claims other countries than it proves".to_owned(),
            Err(why) => why.to_string(),
        },
    };
    ignored.push(format!("the attestation of training: {why}").chars().take(IGNORED_CHARS_MAX).collect());
    None
}

/// The attestation that came with a clearance: the one that the offer names, and there is one exactly if it does.
pub(super) fn given_training(
    given: Option<&[u8]>,
    model: &ModelOffer,
    alliance: AllianceId,
) -> Result<Option<Attestation>, NotCleared> {
    match (given, model.provenance.training.as_deref()) {
        (None, None) => Ok(None),
        (Some(bytes), Some(claim)) => {
            let attestation = Attestation::open(bytes, alliance).map_err(|_| NotCleared::Mismatch("training"))?;
            let named = is_named(Some(claim), &attestation);
            if named { Ok(Some(attestation)) } else { Err(NotCleared::Mismatch("training")) }
        }
        (Some(_), None) | (None, Some(_)) => Err(NotCleared::Mismatch("training")),
    }
}

fn is_named(claim: Option<&TrainingClaim>, attestation: &Attestation) -> bool {
    claim.is_some_and(|claim| claim.attestation == attestation.digest())
}
