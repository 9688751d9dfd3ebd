//! Keys that make way for others: those of other nodes, and this node's own.
//!
//! This node's own key is changed while its daemon is down: the record is the last thing that the ledger has when it starts
//! under the new key. What names a key, and not a crossing or an artefact, was said of the old one. Of that offers are made
//! again, and refusals, bans and doubts hold on; yeses, safeguards and accreditations have to be given again.

use super::{Core, Effects, MeshOrder, StartError, exchange::NotTaken};
use crate::{
    envelope::{Signed, recorded_body},
    gate::Gate,
    key::PublicKey,
    ledger::Record,
    offer::Offer,
    rotation::{KeyRotation, NotRotated},
    time::{Timestamp, Validity},
    trust::Accepted,
};

impl From<NotRotated> for NotTaken {
    fn from(error: NotRotated) -> Self {
        match error {
            NotRotated::SameKey
            | NotRotated::Signers { .. }
            | NotRotated::Reason
            | NotRotated::OtherKey(_)
            | NotRotated::OtherOrganisation { .. }
            | NotRotated::NotAccredited(_) => Self::Bad(error.to_string()),
            // What one node knows of charters, clocks and other rotations, another may not know yet.
            NotRotated::NeverAccredited(_)
            | NotRotated::Future(_)
            | NotRotated::Back(_)
            | NotRotated::TooOften
            | NotRotated::TooMany(_)
            | NotRotated::Contested(_) => Self::Useless(error.to_string()),
        }
    }
}

impl Core {
    /// A node's key has made way for another. From here on the old one has no standing, and what is known of its ledger counts
    /// for that of the new one.
    pub(super) fn take_rotation(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<Accepted, NotTaken> {
        let accepted = self.trust.accept_rotation(bytes, now)?;
        if let (Accepted::New, Some(body)) = (accepted, recorded_body::<KeyRotation>(bytes)) {
            self.record(Record::RotationAccepted { rotation: bytes.to_vec().into() }, now, effects);
            // However it came here: until they hear of it, others serve whoever has the old key.
            effects.mesh.push(MeshOrder::Publish { bytes: bytes.to_vec() });
            self.follow_ledger(body.old, body.new, now, effects);
            self.drop_revoked(now, effects);
            self.decide_running_again(now, gate, effects);
        }
        Ok(accepted)
    }

    /// Who has forked does not shake that off with a new key.
    pub(super) fn inherit_fork(&mut self, rotation: &[u8]) {
        if let Some(body) = recorded_body::<KeyRotation>(rotation) {
            self.watch.inherit_fork(&body.old, body.new);
        }
    }

    pub(super) fn remember_rotation(&mut self, rotation: &[u8]) -> Result<Signed<KeyRotation>, StartError> {
        let rotation = Signed::<KeyRotation>::open(rotation, self.trust.alliance());
        let rotation = rotation.map_err(|error| StartError::Record("key-rotation", error))?;
        self.trust.remember_rotation(rotation.clone());
        Ok(rotation)
    }

    /// This node's own key made way for another; gives that one, and the offers that ended with the old one.
    pub(super) fn took_over(&mut self, rotation: &[u8]) -> Result<(PublicKey, Vec<Signed<Offer>>), StartError> {
        let rotation = self.remember_rotation(rotation)?;
        let (old, new) = (rotation.body().old, rotation.body().new);
        let ended = self.offers.iter().filter(|offer| offer.body().node == old).cloned().collect();
        self.offers.purge(&old);
        Ok((new, ended))
    }

    /// Makes the offers that ended with the old key under the new one: the same, until the same end.
    pub(super) fn make_offers_again(
        &mut self,
        ended: Vec<Signed<Offer>>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), StartError> {
        for offer in ended.into_iter().filter(|offer| offer.body().validity.until > now) {
            let validity = Validity { from: now, until: offer.body().validity.until };
            let again = Offer { node: self.me(), validity, ..offer.body().clone() };
            let again = Signed::sign(&again, self.trust.alliance(), &self.key);
            let again = again.map_err(|error| StartError::Record("offer", error))?;
            // It takes the place of the one that ended, so that there is room for it.
            let _room = self.enter_own_offer(&again, now, effects);
        }
        Ok(())
    }

    /// What is known of ledgers under keys that ended counts for them under the keys of now, also after a restart.
    pub(super) fn follow_ledgers(&mut self, now: Timestamp, effects: &mut Effects) {
        for (old, new) in self.trust.successions() {
            self.follow_ledger(old, new, now, effects);
        }
    }
}

/// Whether a recorded offer is one that ended with a key, made again.
pub(super) fn is_made_again(ended: &Signed<Offer>, recorded: &[u8]) -> bool {
    let ended = ended.body();
    recorded_body::<Offer>(recorded).is_some_and(|offer| {
        let same = (&offer.name, &offer.what, &offer.terms, offer.root, offer.validity.until)
            == (&ended.name, &ended.what, &ended.terms, ended.root, ended.validity.until);
        offer.node != ended.node && same
    })
}
