//! What a node knows of where models were trained: the steps that it signed, those of others, and the attestations that they make.

use std::sync::Arc;

use super::{
    admin::{Failure, LocalModel, Reply, StepDraft, TrainingView},
    local::{conflict, not_found, usage},
    *,
};
use crate::{
    envelope::recorded_body,
    id::{ManifestId, Sha256},
    offer::{Offered, TrainingClaim},
    training::{Attestation, Data, Named, NotProven, SignedStep, Step, TrainingError},
    vocabulary::Artefact,
};

/// Steps that this node signed. A node that signed more has to attest what it has.
const STEPS_MAX: usize = 4096;

/// Attestations that are kept: those of the models here, and of what runs. Each has some 10 KiB; if all had as much as one
/// may, it would be 32 MiB.
const ATTESTATIONS_MAX: usize = 256;

/// Accreditations of this node that came to an end, for steps of their time.
const FORMER_MAX: usize = 64;

/// Owner of steps and attestations. All of it is in the ledger.
#[derive(Debug, Default)]
pub(super) struct Provenances {
    /// By what each made.
    steps: BTreeMap<ManifestId, SignedStep>,
    /// By the hash that offers name them by.
    attestations: BTreeMap<Sha256, Arc<Attestation>>,
    /// Accreditations of this node, the newest last.
    own: Vec<Vec<u8>>,
}

impl Provenances {
    pub(super) fn get(&self, claim: Option<&TrainingClaim>) -> Option<&Arc<Attestation>> {
        self.attestations.get(&claim?.attestation)
    }

    pub(super) fn keep_step(&mut self, step: SignedStep) {
        self.steps.insert(step.step().product.manifest, step);
    }

    /// Keeps an attestation. Where there is no room, one goes that belongs to no model here.
    pub(super) fn keep(&mut self, attestation: Arc<Attestation>, models: &BTreeMap<String, LocalModel>) {
        if self.attestations.len() >= ATTESTATIONS_MAX {
            let in_use: BTreeSet<Sha256> =
                models.values().filter_map(|model| Some(model.provenance.training.as_deref()?.attestation)).collect();
            let idle = self.attestations.keys().copied().find(|digest| !in_use.contains(digest));
            let Some(idle) = idle.or_else(|| self.attestations.keys().next().copied()) else { return };
            self.attestations.remove(&idle);
        }
        self.attestations.insert(attestation.digest(), attestation);
    }

    pub(super) fn accredited(&mut self, accreditation: &[u8]) {
        if self.own.last().is_none_or(|last| last != accreditation) {
            self.own.push(accreditation.to_vec());
        }
        if self.own.len() > FORMER_MAX {
            self.own.remove(0);
        }
    }

    /// Every step that is known here: this node's, and those behind the models that it got and that still lie here. What others
    /// have attested of anything else is theirs to say.
    ///
    /// # Errors
    /// Two say different things of one artefact.
    fn known(&self, models: &BTreeMap<String, LocalModel>) -> Result<BTreeMap<ManifestId, SignedStep>, Failure> {
        let mut known = self.steps.clone();
        let claims = models.values().filter_map(|model| self.get(model.provenance.training.as_deref()));
        for attested in claims.flat_map(|attestation| attestation.steps()) {
            let step = attested.step.step();
            let other = known.entry(step.product.manifest).or_insert_with(|| attested.step.clone());
            if other.step() != step {
                let (name, one, two) = (&step.product.name, other.step().node.short(), step.node.short());
                return Err(conflict(format!(
                    "nodes {one} and {two} say different things of what made `{name}`: ask them"
                )));
            }
        }
        Ok(known)
    }
}

impl Core {
    /// Takes in what a ledger holds of it, live and after a restart alike.
    pub(super) fn apply_provenance(&mut self, record: &Record) {
        let alliance = self.trust.alliance();
        let attestation = |bytes: &[u8]| Attestation::open(bytes, alliance).ok().map(Arc::new);
        match record {
            Record::Accredited { accreditation } => self.provenances.accredited(accreditation),
            Record::StepRecorded { step } => {
                let step = std::str::from_utf8(step).ok().and_then(|line| SignedStep::open(line, alliance).ok());
                step.into_iter().for_each(|step| self.provenances.keep_step(step));
            }
            Record::TrainingAttested { attestation: bytes } => {
                attestation(bytes).into_iter().for_each(|one| self.provenances.keep(one, &self.models));
            }
            Record::ClearanceAccepted { clearance, .. } => {
                let given = recorded_body::<ClearanceGiven>(clearance).and_then(|given| given.training);
                let one = given.and_then(|bytes| attestation(&bytes));
                one.into_iter().for_each(|one| self.provenances.keep(one, &self.models));
            }
            _ => {}
        }
    }

    /// The attestation that goes with an offer, if it is here.
    pub(super) fn attestation_of(&self, offer: &Offer) -> Option<&Attestation> {
        match &offer.what {
            Offered::Model(model) => self.provenances.get(model.provenance.training.as_deref()).map(Arc::as_ref),
            Offered::Compute(_) => None,
        }
    }

    /// The operator says what made a model of this node.
    pub(super) fn record_step(
        &mut self,
        draft: StepDraft,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        let product = self.named(&draft.product)?;
        let model = self.own_model(&draft.product.name)?;
        if let Some(came) = self.models.values().find(|other| other.manifest == model.manifest && other.crossing.is_some())
        {
            return Err(conflict(format!(
                "the same files came here as `{}`, by a crossing: who made them says where they were trained",
                came.name
            )));
        }
        if model.provenance.training.is_some() {
            return Err(conflict(format!(
                "what made `{}` is attested already; what was made otherwise has other files",
                model.name
            )));
        }
        if self.provenances.steps.len() >= STEPS_MAX && !self.provenances.steps.contains_key(&product.manifest) {
            return Err(conflict(format!("this node has signed {STEPS_MAX} steps, which is as many as it keeps")));
        }
        let lacks = |labels: &BTreeSet<_>, subjects: &BTreeSet<_>, of: &str| {
            let label = labels.difference(&model.labels).next().map(ToString::to_string);
            let lacking = label.or_else(|| subjects.difference(&model.subjects).next().map(ToString::to_string));
            lacking.map_or(Ok(()), |word| {
                Err(usage(format!(
                    "`{}` is made from `{of}` and does not have `{word}` among its labels or subjects: import it again with it",
                    model.name
                )))
            })
        };
        let mut parents = Vec::new();
        for parent in &draft.parents {
            let known = self.model_here(&parent.name)?;
            lacks(&known.labels, &known.subjects, &parent.name)?;
            parents.push(self.named(parent)?);
        }
        let mut data = Vec::new();
        for name in &draft.data {
            let known = self.model_here(name)?;
            if matches!(known.artefact, Artefact::Weights | Artefact::Adapter | Artefact::OptimizerState) {
                return Err(usage(format!(
                    "`{name}` is {}, and no data: name it as what the step began with (--from)",
                    known.artefact
                )));
            }
            lacks(&known.labels, &known.subjects, name)?;
            data.push(Data {
                name: name.clone(),
                manifest: known.manifest,
                labels: known.labels.clone(),
                subjects: known.subjects.clone(),
            });
        }
        let files = draft.files.iter().map(|(path, sha256)| Some((path.parse().ok()?, *sha256)));
        let step = Step {
            node: self.me(),
            country: self.accreditation.body().member,
            process: draft.process,
            product,
            files: files
                .collect::<Option<_>>()
                .ok_or_else(|| usage("a file has a name that cannot be signed".to_owned()))?,
            code: draft.code,
            parents,
            data,
            started: draft.started,
            finished: draft.finished,
        };
        if step.finished > now.plus_ms(limits::CLOCK_SKEW_MS_MAX) {
            return Err(usage(format!("the step ends at {}, which is yet to come", step.finished)));
        }
        let step = SignedStep::sign(step, self.trust.alliance(), &self.key).map_err(|error| usage(chain(&error)))?;
        let line = step.line().to_owned();
        let covered = self.accreditation_then(step.step(), &[]).is_some();
        let note = (!covered).then(|| {
            "this node was not accredited then, by any accreditation that it knows: to attest the step, have its authority \
             accredit it from that time on (alliance authority accredit --from)"
                .to_owned()
        });
        self.record(Record::StepRecorded { step: line.clone().into_bytes().into() }, now, effects);
        Ok(Reply::Step { line, note })
    }

    /// The operator wants the steps behind a model rolled up, so that its offers can prove where it was trained.
    pub(super) fn attest(
        &mut self,
        name: &str,
        steps: &[String],
        accreditations: &[serde_bytes::ByteBuf],
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        let model = self.own_model(name)?.clone();
        let alliance = self.trust.alliance();
        let mut known = self.provenances.known(&self.models)?;
        for (number, line) in (1..).zip(steps) {
            let step = SignedStep::open(line, alliance)
                .map_err(|error| usage(format!("step {number} of those given does not hold: {}", chain(&error))))?;
            known.insert(step.step().product.manifest, step);
        }
        for (number, bytes) in (1..).zip(accreditations) {
            self.trust
                .accreditation(bytes)
                .map_err(|why| usage(format!("accreditation {number} of those given does not count: {why}")))?;
        }
        let made = known.get(&model.manifest).ok_or_else(|| {
            not_found(format!("no step that made `{name}` is known: record it first (`alliance training record`)"))
        })?;
        let product = made.step().product.clone();
        let accredited = |step: &Step| self.accreditation_then(step, accreditations);
        let attestation = Attestation::make(product, &known, accredited, alliance, &self.key, now)
            .map_err(|error| conflict(format!("not attested: {}", chain(&error))))?;
        attestation.prove(&model.offered(), &self.trust).map_err(|why| conflict(format!("not attested: {why}")))?;
        let claim =
            TrainingClaim { attestation: attestation.digest(), countries: attestation.findings().countries.clone() };
        let text = attestation.text().to_owned();
        self.record(Record::TrainingAttested { attestation: text.clone().into_bytes().into() }, now, effects);
        let mut model = model;
        model.provenance.training = Some(Box::new(claim));
        self.withdraw_replaced(&model, now, effects)?;
        self.keep_model(&model);
        self.record(Record::ModelImported { model }, now, effects);
        Ok(Reply::Training(Box::new(TrainingView { attestation: Some(text), problem: None })))
    }

    /// What is known of where a model here was trained.
    pub(super) fn training_of(&self, name: &str) -> Result<Reply, Failure> {
        let model = self.model_here(name)?;
        let Some(attestation) = self.provenances.get(model.provenance.training.as_deref()) else {
            return Ok(Reply::Training(Box::default()));
        };
        let problem = attestation.prove(&model.offered(), &self.trust).err().map(|why: NotProven| why.to_string());
        Ok(Reply::Training(Box::new(TrainingView { attestation: Some(attestation.text().to_owned()), problem })))
    }

    /// Keeps what is attested of a model when it is imported again as it is; nothing else that an operator says of its
    /// training counts.
    pub(super) fn keep_attested(&self, model: &mut LocalModel) {
        let known = self.models.get(&model.name).filter(|known| known.manifest == model.manifest);
        model.provenance.training = known.and_then(|known| known.provenance.training.clone());
        let attestation = self.provenances.get(model.provenance.training.as_deref());
        let proves = attestation.is_some_and(|one| one.prove(&model.offered(), &self.trust).is_ok());
        if !proves {
            model.provenance.training = None;
        }
    }

    fn model_here(&self, name: &str) -> Result<&LocalModel, Failure> {
        self.models.get(name).ok_or_else(|| not_found(format!("no model `{name}` lies here (`alliance model list`)")))
    }

    fn own_model(&self, name: &str) -> Result<&LocalModel, Failure> {
        let model = self.model_here(name)?;
        if model.crossing.is_some() {
            return Err(conflict(format!("`{name}` came by a crossing: who made it says where it was trained")));
        }
        Ok(model)
    }

    /// What is to be signed about must still be what the operator's program has looked at.
    fn named(&self, seen: &Named) -> Result<Named, Failure> {
        if self.model_here(&seen.name)?.manifest != seen.manifest {
            let message = format!("`{}` was imported again in the meantime: record the step again", seen.name);
            return Err(conflict(message));
        }
        Ok(seen.clone())
    }

    /// The accreditation of the node of a step by the member that it names, of those that are known or given, which covers
    /// the time of the step.
    fn accreditation_then(&self, step: &Step, given: &[serde_bytes::ByteBuf]) -> Option<(Vec<u8>, String)> {
        let own = self.provenances.own.iter().map(Vec::as_slice);
        let peer = self.peers.get(&step.node).map(|known| known.accreditation.bytes());
        let attested = self.provenances.attestations.values().flat_map(|one| one.steps()).map(|one| one.accreditation());
        let all = own.chain(peer).chain(attested).chain(given.iter().map(|bytes| bytes.as_slice()));
        // Thousands may be known: only those that would do are verified.
        let would_do = |body: &Accreditation| {
            let covers = [step.started, step.finished].into_iter().all(|at| body.validity.check(at).is_ok());
            covers && (body.node, body.member) == (step.node, step.country)
        };
        let mut candidates = all.filter(|bytes| recorded_body(bytes).is_some_and(|body| would_do(&body)));
        candidates.find_map(|bytes| {
            let accreditation = self.trust.accreditation(bytes).ok()?;
            Some((bytes.to_vec(), accreditation.body().organisation.name.clone()))
        })
    }
}

/// An error with what caused it.
fn chain(error: &TrainingError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(": {cause}"));
        next = cause.source();
    }
    text
}
