//! Where a model was trained: a signed statement about each step, and the attestation that they make together.
//!
//! A step says on whose node it ran and when, with what code, from which weights and on which data with which labels. It is an
//! in-toto statement with the predicate SLSA provenance v1, in a DSSE envelope that the node signed ([`SignedStep`]). An
//! [`Attestation`] is an in-toto bundle, one envelope a line: what was found, then the steps it was found in, back to the
//! first weights. With each step stands the accreditation of its node, so that it can be told in which country it ran.
//!
//! To hold one proves that every line was signed by the key it names, that no step is missing, and that the findings follow
//! from the steps. Whether the accreditations count is for [`Attestation::prove`]: officers and revocations change. A step is
//! the word of the node that signed it; that it says the truth is what its operator is accountable for.
//! Specified in `specs/07-training.md`.

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use crate::{
    authority::Accreditation,
    dsse::{Envelope, EnvelopeError, IN_TOTO, SealError, Shape, Signer, Verifier},
    id::{AllianceId, ManifestId, Sha256},
    key::{PublicKey, SecretKey},
    limits,
    manifest::is_printable,
    model_signing::ModelPath,
    offer::{ModelOffer, split_name},
    time::{NotValid, Timestamp},
    trust::{Distrust, Trust},
    vocabulary::{Country, Label, Process},
};

/// Bytes of one step in its envelope: its product, code, weights and data by name and hash, a few of each.
pub const STEP_BYTES_MAX: usize = 16 * 1024;

/// Steps behind one model: a pre-training in a few phases, a merge and some tuning.
pub const STEPS_MAX: usize = 16;

/// Code, parents and data of one step, each.
pub const MATERIALS_MAX: usize = 32;

/// Files of a product that are named besides the whole, for tools that look up a single file.
pub const FILES_NAMED_MAX: usize = 32;

/// An artefact as steps name it: by its manifest, which binds every byte and label, and by the hash that other tools use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    pub name: String,
    pub manifest: ManifestId,
    /// [`crate::model_signing::ModelFiles::root_without`] the signature.
    pub root: Sha256,
}

/// Code that ran, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// The name of a file, or where a repository is.
    pub name: String,
    pub digest: CodeDigest,
}

/// How code is named.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeDigest {
    Sha256(Sha256),
    /// The name of a commit: 40 or 64 hexadecimal digits.
    GitCommit(String),
}

/// Data that a step used, with what is declared of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub name: String,
    pub manifest: ManifestId,
    pub labels: BTreeSet<Label>,
    pub subjects: BTreeSet<Country>,
}

/// One step of the making of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// On whose node it ran, and who signs.
    pub node: PublicKey,
    /// The member that has accredited the node, where it ran. A node may be accredited by two; it says itself which it is.
    pub country: Country,
    pub process: Process,
    pub product: Named,
    /// Files of the product, for other tools.
    pub files: Vec<(ModelPath, Sha256)>,
    pub code: Vec<Code>,
    /// The weights that it began with.
    pub parents: Vec<Named>,
    pub data: Vec<Data>,
    /// To the second.
    pub started: Timestamp,
    pub finished: Timestamp,
}

/// A step that the key which it names has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedStep {
    step: Step,
    line: String,
    payload: Sha256,
}

/// Steps that lead from the first weights to a model, with what follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    text: Arc<str>,
    digest: Sha256,
    by: PublicKey,
    product: Named,
    steps: Vec<Attested>,
    findings: Findings,
}

/// A step with the accreditation of its node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    pub step: SignedStep,
    pub organisation: String,
    accreditation: Vec<u8>,
}

/// What follows from all steps together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    pub countries: BTreeSet<Country>,
    pub labels: BTreeSet<Label>,
    pub subjects: BTreeSet<Country>,
}

/// Why there is no such step or attestation.
#[derive(Debug, thiserror::Error)]
pub enum TrainingError {
    #[error("{bytes} bytes are more than the {max} that it may have")]
    TooLarge { bytes: usize, max: usize },
    #[error("it has more than the {STEPS_MAX} steps that it may have")]
    Steps,
    #[error("it has no step")]
    NoStep,
    #[error("a step is one line; this has several: give the steps one by one")]
    Lines,
    #[error("it is not text, a signed statement on each line")]
    Text,
    #[error("line {line}: the envelope is not one of the key that it names")]
    Envelope {
        line: usize,
        #[source]
        source: EnvelopeError,
    },
    #[error("line {line}: the envelope names no key of a node")]
    Key { line: usize },
    #[error("what is signed is not a statement of this kind: {0}")]
    Shape(Shape),
    #[error("what is signed is a statement of another kind, or not in its one form")]
    Form,
    #[error("it is of another alliance")]
    Alliance,
    #[error("the step to `{name}` {why}")]
    Step { name: String, why: &'static str },
    #[error("the step that made `{name}` (manifest {manifest}) is missing: ask for it whoever made that")]
    Missing { name: String, manifest: ManifestId },
    #[error(
        "nothing says that {country} had accredited the node {node} when it made `{name}`: add its accreditation of then"
    )]
    Unaccredited { name: String, node: PublicKey, country: Country },
    #[error("the steps are not those that it names, in their order")]
    OtherSteps,
    #[error("a step is there twice, or leads nowhere")]
    Needless,
    #[error("models are made from each other in a circle")]
    Circle,
    #[error("what it says does not follow from its steps")]
    Findings,
    #[error("the statement could not be signed")]
    Seal(#[source] SealError),
}

/// Why an attestation proves nothing about a model now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotProven {
    #[error("it is about another artefact")]
    OtherArtefact,
    #[error("the accreditation with the step to `{name}` does not count")]
    Accreditation {
        name: String,
        #[source]
        why: Distrust,
    },
    #[error("the accreditation with the step to `{name}` is of another node, organisation or country")]
    OtherNode { name: String },
    #[error("{organisation} was not accredited when it made `{name}`: {why}")]
    NotThen { name: String, organisation: String, why: NotValid },
    #[error("{country} has revoked the node of {organisation}, which made `{name}`")]
    Revoked { name: String, organisation: String, country: Country },
    #[error("no status of {0} is known, so that nobody can tell whom its authority has revoked")]
    NoStatus(Country),
    #[error("it was trained on what is labelled `{0}`, and does not have that label")]
    Label(Label),
    #[error("it was trained on data about people of {0}, and does not say so")]
    Subject(Country),
}

impl Step {
    /// What no step may lack or have.
    fn check(&self) -> Result<(), TrainingError> {
        let fail = |why| Err(TrainingError::Step { name: self.product.name.clone(), why });
        let counts = [self.code.len(), self.parents.len(), self.data.len()];
        let [_, parents, data] = counts;
        if counts.iter().any(|count| *count > MATERIALS_MAX) || self.files.len() > FILES_NAMED_MAX {
            return fail("has more code, parents, data or files than a step may");
        }
        let names = self.parents.iter().chain([&self.product]).map(|named| &named.name);
        if names.chain(self.data.iter().map(|data| &data.name)).any(|name| split_name(name).is_err()) {
            return fail("has a name that is not of the form organisation/name");
        }
        let plain = |name: &str| !name.is_empty() && name.len() <= limits::TEXT_BYTES_MAX && is_printable(name);
        let commit = |commit: &str| {
            matches!(commit.len(), 40 | 64) && commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let named = |code: &Code| match &code.digest {
            CodeDigest::Sha256(_) => plain(&code.name),
            CodeDigest::GitCommit(digest) => plain(&code.name) && commit(digest),
        };
        if self.code.is_empty() || !self.code.iter().all(named) {
            return fail("names no code, or not by a printable name and a hash or commit");
        }
        if self.data.iter().any(|data| data.labels.is_empty()) {
            return fail("has data without a label");
        }
        match (self.process, self.parents.len(), self.data.len()) {
            (Process::PreTraining, 1.., _) => {
                return fail("is a pre-training and begins with weights: then it is a fine-tuning");
            }
            (Process::FineTuning, 0, _) => return fail("is a fine-tuning and names no weights that it began with"),
            (Process::PreTraining | Process::FineTuning, _, 0) => return fail("names no data"),
            (Process::Merging, 0 | 1, _) => return fail("is a merging and names fewer than two models"),
            (Process::Quantisation | Process::Conversion, parents, _) if parents != 1 => {
                return fail("has one parent, if it is a quantisation or conversion");
            }
            _ => {}
        }
        let used = || self.parents.iter().map(|parent| parent.manifest).chain(self.data.iter().map(|data| data.manifest));
        if used().any(|manifest| manifest == self.product.manifest) {
            return fail("has its own product among what it was made from");
        }
        if used().collect::<BTreeSet<_>>().len() != parents.saturating_add(data) {
            return fail("is made from the same thing twice");
        }
        let whole = |at: Timestamp| at.0.is_multiple_of(1000);
        if self.started > self.finished || !whole(self.started) || !whole(self.finished) {
            return fail("ends before it begins, or is not dated to the second");
        }
        Ok(())
    }
}

impl SignedStep {
    /// Signs a step with the key of the node on which it ran.
    ///
    /// # Errors
    /// The step lacks something, or is another node's.
    pub fn sign(step: Step, alliance: AllianceId, key: &SecretKey) -> Result<Self, TrainingError> {
        step.check()?;
        if step.node != key.public() {
            return Err(TrainingError::Step { name: step.product.name, why: "is another node's" });
        }
        let payload = wire::step(&step, alliance)?;
        let envelope = Envelope::sign(IN_TOTO, &payload, Signer::Ed25519(key)).map_err(TrainingError::Seal)?;
        let line = envelope.to_json().map_err(TrainingError::Seal)?;
        within(line.len(), STEP_BYTES_MAX)?;
        Ok(Self { step, line, payload: Sha256(sha2::Sha256::digest(&payload).into()) })
    }

    /// Reads a step: an envelope in JSON, signed by the node that it names.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(line: &str, alliance: AllianceId) -> Result<Self, TrainingError> {
        let line = line.trim_end();
        if line.contains('\n') { Err(TrainingError::Lines) } else { Self::open_line(line, 1, alliance) }
    }

    fn open_line(line: &str, number: usize, alliance: AllianceId) -> Result<Self, TrainingError> {
        within(line.len(), STEP_BYTES_MAX)?;
        let (key, payload) = verified(line, number)?;
        let step = wire::read_step(&payload, alliance)?;
        step.check()?;
        if step.node != key {
            return Err(TrainingError::Step { name: step.product.name, why: "is signed by another node" });
        }
        if wire::step(&step, alliance)? != payload {
            return Err(TrainingError::Form);
        }
        let payload = Sha256(sha2::Sha256::digest(&payload).into());
        Ok(Self { step, line: line.to_owned(), payload })
    }

    #[must_use]
    pub fn step(&self) -> &Step {
        &self.step
    }

    /// The envelope: one line of JSON.
    #[must_use]
    pub fn line(&self) -> &str {
        &self.line
    }
}

impl Attestation {
    /// Rolls up the steps that lead to `product`, of those that are known. `accreditation` gives that of the node of a
    /// step, by the member that it names and at its time, with the organisation in it.
    ///
    /// # Errors
    /// A step or an accreditation is missing, or the whole is too large.
    pub fn make(
        product: Named,
        known: &BTreeMap<ManifestId, SignedStep>,
        accreditation: impl Fn(&Step) -> Option<(Vec<u8>, String)>,
        alliance: AllianceId,
        key: &SecretKey,
        now: Timestamp,
    ) -> Result<Self, TrainingError> {
        let mut steps: Vec<Attested> = Vec::new();
        let mut wanted = vec![product.clone()];
        let mut next = 0_usize;
        while let Some(named) = wanted.get(next).cloned() {
            next = next.saturating_add(1);
            let missing = || TrainingError::Missing { name: named.name.clone(), manifest: named.manifest };
            let step = known.get(&named.manifest).ok_or_else(missing)?.clone();
            let (node, country) = (step.step.node, step.step.country);
            let unaccredited = || TrainingError::Unaccredited { name: named.name.clone(), node, country };
            let (accreditation, organisation) = accreditation(&step.step).ok_or_else(unaccredited)?;
            for parent in &step.step.parents {
                if !wanted.iter().any(|other| other.manifest == parent.manifest) {
                    wanted.push(parent.clone());
                }
            }
            steps.push(Attested { step, organisation, accreditation });
            if steps.len() > STEPS_MAX {
                return Err(TrainingError::Steps);
            }
        }
        let made = Timestamp(now.0.saturating_sub(now.0 % 1000));
        let payload = wire::attestation(&product, &steps, &Findings::of(&steps), alliance, made)?;
        let envelope = Envelope::sign(IN_TOTO, &payload, Signer::Ed25519(key)).map_err(TrainingError::Seal)?;
        let mut text = envelope.to_json().map_err(TrainingError::Seal)?;
        for attested in &steps {
            text.push('\n');
            text.push_str(&attested.step.line);
        }
        text.push('\n');
        // What others would refuse is not made.
        Self::open(text.as_bytes(), alliance)
    }

    /// Reads an attestation: an in-toto bundle, the findings first.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn open(bytes: &[u8], alliance: AllianceId) -> Result<Self, TrainingError> {
        within(bytes.len(), limits::ATTESTATION_BYTES_MAX)?;
        let text = std::str::from_utf8(bytes).map_err(|_| TrainingError::Text)?;
        let lines: Vec<&str> = text.strip_suffix('\n').ok_or(TrainingError::Text)?.split('\n').collect();
        let (first, rest) = lines.split_first().ok_or(TrainingError::Text)?;
        if rest.is_empty() {
            return Err(TrainingError::NoStep);
        }
        if rest.len() > STEPS_MAX {
            return Err(TrainingError::Steps);
        }
        let (by, payload) = verified(first, 1)?;
        let found = wire::read_attestation(&payload, alliance)?;
        if found.steps.len() != rest.len() {
            return Err(TrainingError::OtherSteps);
        }
        let mut steps = Vec::with_capacity(rest.len());
        for ((number, line), named) in (2..).zip(rest).zip(found.steps) {
            let step = SignedStep::open_line(line, number, alliance)?;
            if step.payload != named.payload || step.step.node != named.node {
                return Err(TrainingError::OtherSteps);
            }
            let wire::StepNamed { organisation, accreditation, .. } = named;
            steps.push(Attested { step, organisation, accreditation });
        }
        check_chain(&found.product, &steps)?;
        let findings = Findings::of(&steps);
        if findings != found.findings {
            return Err(TrainingError::Findings);
        }
        if wire::attestation(&found.product, &steps, &findings, alliance, found.made)? != payload {
            return Err(TrainingError::Form);
        }
        let digest = Sha256(sha2::Sha256::digest(bytes).into());
        Ok(Self { text: text.into(), digest, by, product: found.product, steps, findings })
    }

    /// The bundle.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The SHA-256 of the bundle: what offers name it by.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Who rolled it up. Nothing rests on that.
    #[must_use]
    pub fn by(&self) -> PublicKey {
        self.by
    }

    #[must_use]
    pub fn product(&self) -> &Named {
        &self.product
    }

    /// The last step first, and each before those that made its parents.
    #[must_use]
    pub fn steps(&self) -> &[Attested] {
        &self.steps
    }

    #[must_use]
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// In which countries a model that is offered was trained, if this proves it by those who speak for the members now.
    ///
    /// # Errors
    /// Why it does not.
    pub fn prove(&self, model: &ModelOffer, trust: &Trust) -> Result<&BTreeSet<Country>, NotProven> {
        if self.product.manifest != model.manifest {
            return Err(NotProven::OtherArtefact);
        }
        if let Some(label) = self.findings.labels.difference(&model.labels).next() {
            return Err(NotProven::Label(*label));
        }
        if let Some(subject) = self.findings.subjects.difference(&model.subjects).next() {
            return Err(NotProven::Subject(*subject));
        }
        // Without a status it is not known whom its authority has revoked.
        if let Some(country) = self.findings.countries.iter().find(|country| !trust.has_status(**country)) {
            return Err(NotProven::NoStatus(*country));
        }
        self.check_nodes(trust)?;
        Ok(&self.findings.countries)
    }

    /// Whether each step ran on a node that was accredited then, by those who speak for its member now.
    ///
    /// # Errors
    /// The first one of which that is not so.
    pub fn check_nodes(&self, trust: &Trust) -> Result<(), NotProven> {
        self.steps.iter().try_for_each(|attested| attested.check(trust))
    }
}

impl Attested {
    fn check(&self, trust: &Trust) -> Result<(), NotProven> {
        let step = &self.step.step;
        let name = || step.product.name.clone();
        let accreditation =
            trust.accreditation(&self.accreditation).map_err(|why| NotProven::Accreditation { name: name(), why })?;
        let body = accreditation.body();
        self.is_of(body)?;
        if trust.has_revoked(body.member, &step.node) {
            let organisation = body.organisation.name.clone();
            return Err(NotProven::Revoked { name: name(), organisation, country: body.member });
        }
        Ok(())
    }

    /// Whether it ran on the node of this accreditation while that counted.
    ///
    /// # Errors
    /// What does not go together.
    pub fn is_of(&self, accreditation: &Accreditation) -> Result<(), NotProven> {
        let step = &self.step.step;
        let (name, organisation) = (step.product.name.clone(), &accreditation.organisation.name);
        if (accreditation.node, accreditation.member, organisation) != (step.node, step.country, &self.organisation) {
            return Err(NotProven::OtherNode { name });
        }
        let counted = [step.started, step.finished].into_iter().find_map(|at| accreditation.validity.check(at).err());
        counted.map_or(Ok(()), |why| Err(NotProven::NotThen { name, organisation: organisation.clone(), why }))
    }

    /// The bytes of the accreditation of its node.
    #[must_use]
    pub fn accreditation(&self) -> &[u8] {
        &self.accreditation
    }
}

impl Findings {
    fn of(steps: &[Attested]) -> Self {
        let mut all = Self::default();
        for attested in steps {
            all.countries.insert(attested.step.step.country);
            for data in &attested.step.step.data {
                all.labels.extend(&data.labels);
                all.subjects.extend(&data.subjects);
            }
        }
        all
    }
}

/// Every step makes the product or a parent of a step before it, each once; no parent is without a step, and each was there
/// before it was used.
fn check_chain(product: &Named, steps: &[Attested]) -> Result<(), TrainingError> {
    let mut wanted: Vec<(&Named, Timestamp)> = vec![(product, Timestamp(u64::MAX))];
    let mut made: BTreeSet<ManifestId> = BTreeSet::new();
    for attested in steps {
        let step = &attested.step.step;
        let uses: Vec<_> = wanted.iter().filter(|(named, _)| named.manifest == step.product.manifest).collect();
        if uses.is_empty() || !made.insert(step.product.manifest) {
            return Err(TrainingError::Needless);
        }
        let fail = |why| Err(TrainingError::Step { name: step.product.name.clone(), why });
        if uses.iter().any(|(named, _)| named.root != step.product.root) {
            return fail("made something else than what is used");
        }
        // Two nodes, two clocks.
        if uses.iter().any(|(_, used)| step.finished.minus_ms(limits::CLOCK_SKEW_MS_MAX) > *used) {
            return fail("ended after its product was used");
        }
        wanted.extend(step.parents.iter().map(|parent| (parent, step.started)));
    }
    if let Some((named, _)) = wanted.into_iter().find(|(named, _)| !made.contains(&named.manifest)) {
        return Err(TrainingError::Missing { name: named.name.clone(), manifest: named.manifest });
    }
    // From the first weights on: what is made of what is there already. Clocks alone do not exclude a circle.
    let mut there: BTreeSet<ManifestId> = BTreeSet::new();
    while there.len() < made.len() {
        let ready = |step: &&Step| {
            !there.contains(&step.product.manifest) && step.parents.iter().all(|parent| there.contains(&parent.manifest))
        };
        let next = steps.iter().map(|attested| &attested.step.step).find(ready);
        there.insert(next.ok_or(TrainingError::Circle)?.product.manifest);
    }
    Ok(())
}

/// The key that an envelope names, and what it signed.
fn verified(line: &str, number: usize) -> Result<(PublicKey, Vec<u8>), TrainingError> {
    let failed = |source| TrainingError::Envelope { line: number, source };
    let envelope = Envelope::parse(line.as_bytes()).map_err(failed)?;
    let mut keys = envelope.key_ids();
    let (Some(key), None) = (keys.next(), keys.next()) else { return Err(TrainingError::Key { line: number }) };
    // Hexadecimal has more than one spelling, and a key one.
    let key = key.parse().ok().filter(|parsed: &PublicKey| parsed.to_string() == key);
    let key = key.ok_or(TrainingError::Key { line: number })?;
    let payload = envelope.verify(IN_TOTO, &Verifier::Ed25519(key)).map_err(failed)?;
    Ok((key, payload.to_vec()))
}

fn within(bytes: usize, max: usize) -> Result<(), TrainingError> {
    if bytes > max { Err(TrainingError::TooLarge { bytes, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
