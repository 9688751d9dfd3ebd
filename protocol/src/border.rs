//! The one door. Only this module makes an [`Outbound`] or an [`Inbound`]; the functions that put artefact bytes on a wire
//! or hand received bytes to anyone take one by value.
//!
//! A decision asks, separately: the standing of both ends, the law of the exporter's and of the importer's country, the law of
//! every member whose people the data is about, the alliance's baseline, the rules of this house and the terms of the offer.
//! All must allow, at both ends of the interval in which the true time lies. What cannot be asked denies.
//! Specified in `specs/03-crossing.md`.

mod counted;
mod decision;
mod duties;
mod portion;
mod question;
mod training;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub(crate) use self::{
    counted::{Counted, InYear},
    duties::{Said, ToApprove},
    portion::Portion,
    training::Training,
};
use self::{
    decision::keep,
    question::{Question, scope},
    training::given_training,
};
pub use self::{
    decision::{Decision, Denial, PartDecided},
    portion::{Cleared, PartLabels},
};
use crate::{
    authority::{Accreditation, Approval},
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, RefusalCode},
    envelope::{OpenError, Signed},
    gate::{Action, Facts, Gate, Pack, Volume},
    id::{CrossingId, ManifestId, SessionBinding, StatementId},
    key::{PublicKey, SecretKey},
    limits,
    manifest::{Manifest, ManifestError, Part},
    offer::{Offer, Offered},
    place::Misplacement,
    time::{Timestamp, Validity},
    training::Attestation,
    trust::{Course, Trust},
    vocabulary::{Artefact, Circumstance, Country, Label, NodeRole, Purpose, Use},
};

/// What a border decision is made from. Everything in it is verified or this node's own.
pub(crate) struct Border<'a> {
    pub(crate) trust: &'a Trust,
    pub(crate) gate: &'a dyn Gate,
    pub(crate) baseline: &'a Pack,
    pub(crate) house: Option<&'a Pack>,
    /// The country that this node is in.
    pub(crate) home: Country,
    /// Approvals that were given to this node.
    pub(crate) approvals: &'a BTreeMap<StatementId, Signed<Approval>>,
    /// Whose approval counts where a rule of this house demands one.
    pub(crate) approvers: &'a BTreeSet<PublicKey>,
    /// Where it is set, the law of that instant is asked about what stands now. Nothing is cleared then.
    pub(crate) outlook: Option<Timestamp>,
    /// Why nothing crosses because of this node's own ledger, if nothing does.
    pub(crate) ledger: Option<Denial>,
    /// Nodes whose ledgers are not relied on, and why.
    pub(crate) doubts: BTreeMap<PublicKey, String>,
    /// Nodes that cannot be where they are said to be, by what was measured.
    pub(crate) misplaced: BTreeMap<PublicKey, Misplacement>,
    pub(crate) now: Timestamp,
}

/// One crossing, as it is put to a decision. The accreditations are the authorities'; whether they count now is decided here.
pub(crate) struct Attempt<'a> {
    /// Whether it is to begin, or runs. What runs is only looked at again: nothing is cleared for it.
    pub(crate) course: Course,
    pub(crate) exporter: &'a Signed<Accreditation>,
    pub(crate) importer: &'a Signed<Accreditation>,
    pub(crate) offer: &'a Signed<Offer>,
    /// What the offer goes back to, where it says so and that is known here.
    pub(crate) root: Option<Root<'a>>,
    pub(crate) portion: &'a Portion,
    pub(crate) purpose: Purpose,
    pub(crate) use_: Use,
    /// What the importer declares of the movement.
    pub(crate) circumstances: &'a BTreeSet<Circumstance>,
    /// What the exporter has counted this year.
    pub(crate) counted: Counted,
    pub(crate) safeguards: &'a [serde_bytes::ByteBuf],
    pub(crate) training: Training<'a>,
}

/// The first exporter of an artefact that another node offers on.
#[derive(Clone, Copy)]
pub(crate) struct Root<'a> {
    pub(crate) offer: &'a Signed<Offer>,
    pub(crate) exporter: &'a Signed<Accreditation>,
}

/// An export that was decided, cleared and is ready to be recorded and carried out.
pub(crate) struct Exporting {
    pub(crate) outbound: Outbound,
    pub(crate) clearance: Signed<ClearanceGiven>,
    pub(crate) decision: Decision,
}

/// An import whose clearance was verified and that this side still allows.
pub(crate) struct Importing {
    pub(crate) inbound: Inbound,
    pub(crate) clearance: Signed<ClearanceGiven>,
    /// What this side decided with the volume that the exporter counted, and with the attestation that it gave.
    pub(crate) decision: Decision,
    pub(crate) training: Option<Attestation>,
}

/// Why a clearance does not let anything in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotCleared {
    #[error("the exporter's answer is not a clearance: {0}")]
    Open(#[from] OpenError),
    #[error("the clearance is for another crossing: its {0} does not match")]
    Mismatch(&'static str),
    #[error("the clearance does not count: {0}")]
    Expired(#[from] crate::time::NotValid),
    #[error("{0}")]
    Shut(&'static str),
    #[error("denied here with what came with the clearance")]
    Declined(Box<Declined>),
}

/// A clearance that was verified, and this side's no to what it brought.
#[derive(Debug)]
pub(crate) struct Declined {
    pub(crate) clearance: Signed<ClearanceGiven>,
    pub(crate) decision: Decision,
}

/// The exporter's permission to put the bytes of one artefact on one session, once. Cannot be copied.
#[derive(Debug)]
pub struct Outbound {
    crossing: CrossingId,
    importer: PublicKey,
    manifest: ManifestId,
    session: SessionBinding,
    cleared: Cleared,
}

/// The importer's verified clearance: permission to take the bytes of one artefact and to deliver them, once. Cannot be copied.
#[derive(Debug)]
pub struct Inbound {
    crossing: CrossingId,
    clearance: StatementId,
    exporter: PublicKey,
    manifest: ManifestId,
    artefact: Artefact,
    bytes: u64,
    /// Files and tensors.
    counts: (u32, u32),
    labels: BTreeSet<Label>,
    parts: Vec<Part>,
    cleared: Cleared,
}

/// Why a manifest that the exporter sent is not the one that was cleared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OtherManifest {
    #[error("manifest {found} instead of {cleared}")]
    Id { found: ManifestId, cleared: ManifestId },
    #[error(transparent)]
    Malformed(#[from] ManifestError),
    #[error("the manifest and what was decided on do not agree on the label `{0}`")]
    Label(Label),
    #[error("the manifest has {} files and {} tensors, the offer {} and {}", found.0, found.1, offered.0, offered.1)]
    Counts { found: (u32, u32), offered: (u32, u32) },
    #[error("the manifest does not give its tensors the labels that were decided on")]
    Parts,
    #[error("the manifest is of `{found}`, what was decided on is `{cleared}`")]
    Class { found: Artefact, cleared: Artefact },
    #[error("the manifest is of {found} bytes, the offer of {offered}")]
    Length { found: u64, offered: u64 },
}

impl Outbound {
    #[must_use]
    pub fn crossing(&self) -> CrossingId {
        self.crossing
    }

    /// The key that the session's certificate must prove.
    #[must_use]
    pub fn importer(&self) -> PublicKey {
        self.importer
    }

    #[must_use]
    pub fn manifest(&self) -> ManifestId {
        self.manifest
    }

    /// The session that this permission is bound to.
    #[must_use]
    pub fn session(&self) -> SessionBinding {
        self.session
    }

    /// What may be sent.
    #[must_use]
    pub fn cleared(&self) -> &Cleared {
        &self.cleared
    }
}

impl Inbound {
    #[must_use]
    pub fn crossing(&self) -> CrossingId {
        self.crossing
    }

    #[must_use]
    pub fn clearance(&self) -> StatementId {
        self.clearance
    }

    #[must_use]
    pub fn exporter(&self) -> PublicKey {
        self.exporter
    }

    #[must_use]
    pub fn manifest(&self) -> ManifestId {
        self.manifest
    }

    /// What may be taken.
    #[must_use]
    pub fn cleared(&self) -> &Cleared {
        &self.cleared
    }

    /// Reads the manifest that the exporter sent: it must be the one that was cleared, declare the labels that were decided
    /// on, and be of the class, the length and the parts that were offered.
    ///
    /// # Errors
    /// What does not match.
    pub fn open_manifest(&self, bytes: &[u8]) -> Result<Manifest, OtherManifest> {
        let manifest = Manifest::decode(bytes)?;
        if manifest.id() != self.manifest {
            return Err(OtherManifest::Id { found: manifest.id(), cleared: self.manifest });
        }
        if let Some(label) = manifest.labels().symmetric_difference(&self.labels).next() {
            return Err(OtherManifest::Label(*label));
        }
        if manifest.artefact() != self.artefact {
            return Err(OtherManifest::Class { found: manifest.artefact(), cleared: self.artefact });
        }
        if manifest.bytes() != self.bytes {
            return Err(OtherManifest::Length { found: manifest.bytes(), offered: self.bytes });
        }
        let counts = (u32::try_from(manifest.files().len()).unwrap_or(u32::MAX), manifest.tensors());
        if counts != self.counts {
            return Err(OtherManifest::Counts { found: counts, offered: self.counts });
        }
        if manifest.parts() != self.parts {
            return Err(OtherManifest::Parts);
        }
        Ok(manifest)
    }
}

/// Why an outlook opens no door.
const OUTLOOK: &str = "the law of another instant was asked";

/// Why what runs opens no other door: by the grace of a status nothing begins.
const RUNNING: &str = "a crossing that runs is not cleared again";

impl Border<'_> {
    /// Decides one crossing. Pure: the same attempt, trust and time give the same decision on both sides, but for the house.
    pub(crate) fn decide(&self, attempt: &Attempt<'_>) -> Decision {
        let mut decision = Decision::default();
        if let Err(denial) = self.ask(attempt, &mut decision) {
            decision.denial = Some(denial);
        }
        decision.fit();
        decision
    }

    /// Whether what was decided of a whole artefact stays so with whatever a clearance brings: a proof of where it was trained,
    /// and how many people the exporter has counted this year, of other artefacts too.
    pub(crate) fn is_settled(&self, attempt: &Attempt<'_>) -> bool {
        let (Offered::Model(model), Portion::All) = (&attempt.offer.body().what, attempt.portion) else { return false };
        if model.provenance.training.is_some() {
            return false;
        }
        let facts = self.facts(attempt, model, &mut Vec::new());
        let Ok(questions) = self.all_questions(attempt, model, &facts) else { return false };
        let sets: BTreeSet<&BTreeSet<Label>> = model.parts.iter().map(|part| &part.labels).chain([&model.labels]).collect();
        !sets.into_iter().any(|labels| questions.iter().any(|question| self.heeds_volume(question, labels)))
    }

    fn ask(&self, attempt: &Attempt<'_>, decision: &mut Decision) -> Result<(), Denial> {
        let (exporter, importer) = (attempt.exporter.body(), attempt.importer.body());
        let deny = |code, problem: String| Denial { code, problem };
        let course = attempt.course;
        self.trust.standing(attempt.exporter, &exporter.node, NodeRole::Exporter, course, self.now)?;
        self.trust.standing(attempt.importer, &importer.node, NodeRole::Importer, course, self.now)?;
        if let Some(denial) = &self.ledger {
            return Err(denial.clone());
        }
        for node in [exporter.node, importer.node] {
            if let Some(why) = self.doubts.get(&node) {
                let organisation = if node == exporter.node { &exporter.organisation } else { &importer.organisation };
                return Err(deny(RefusalCode::Unproven, format!("{}: {why}", organisation.name)));
            }
        }

        let offer = attempt.offer.body();
        let Offered::Model(model) = &offer.what else {
            return Err(deny(RefusalCode::BadRequest, "the offer is of compute; there is nothing to move".to_owned()));
        };
        if offer.node != exporter.node {
            return Err(deny(RefusalCode::NoOffer, "the offer is another node's".to_owned()));
        }
        offer
            .validity
            .check(self.now)
            .map_err(|why| deny(RefusalCode::NoOffer, format!("the offer does not stand: {why}")))?;
        self.follows_root(attempt)?;
        if model.labels.is_empty() {
            return Err(deny(RefusalCode::DeniedByLaw, "the artefact has no label; nothing unlabelled crosses".to_owned()));
        }

        let model = match attempt.portion {
            Portion::AllowedOf(_) => self.leave_out(attempt, &attempt.portion.of(model), decision)?,
            Portion::All | Portion::Only(_) => attempt.portion.of(model).into_owned(),
        };
        let facts = self.facts(attempt, &model, &mut decision.ignored);
        let questions = self.all_questions(attempt, &model, &facts)?;
        let direct = questions.iter().find(|question| *question.facts != facts);
        decision.direct = direct.map(|question| Facts::clone(&question.facts));
        self.put(&questions, &facts.labels, &model.parts, decision);
        decision.facts = Some(facts);
        if let Some(packs) = decision.deniers(false) {
            return Err(deny(RefusalCode::DeniedByLaw, format!("denied by the rules of {packs}")));
        }
        if let Some(packs) = decision.deniers(true) {
            return Err(deny(RefusalCode::DeniedByTerms, format!("denied by the rules of this {packs}")));
        }
        let terms = [Some(&offer.terms), attempt.root.map(|root| &root.offer.body().terms)];
        let objection = terms.into_iter().flatten().find_map(|terms| terms.objection(attempt.purpose, importer.member));
        if let Some(objection) = objection {
            return Err(deny(RefusalCode::DeniedByTerms, objection));
        }
        match self.unmet(attempt, &model, &decision.verdicts) {
            Some(problem) => Err(deny(RefusalCode::ObligationUnmet, problem)),
            None => Ok(()),
        }
    }

    /// Whether what another node's offer goes back to lets it be offered on: the same artefact with the same facts, by its
    /// first exporter, whose offer still stands and says so.
    fn follows_root(&self, attempt: &Attempt<'_>) -> Result<(), Denial> {
        let offer = attempt.offer.body();
        let deny = |code, problem: &str| Err(Denial { code, problem: problem.to_owned() });
        let root = match (offer.root, attempt.root) {
            (None, None) => return Ok(()),
            (Some(id), Some(root)) if root.offer.id() == id => root,
            (Some(_), _) => return deny(RefusalCode::NoOffer, "the offer that this one goes back to does not stand"),
            (None, Some(_)) => return deny(RefusalCode::NoOffer, "the offer goes back to no other"),
        };
        // It could have lent its offer to be carried to where its own country's law would not let it go itself.
        let exporter = root.exporter.body();
        self.trust.standing(root.exporter, &exporter.node, NodeRole::Exporter, attempt.course, self.now)?;
        let root = root.offer.body();
        if root.root.is_some() || root.node == offer.node || root.node != exporter.node {
            return deny(RefusalCode::NoOffer, "the offer does not go back to one of the artefact's first exporter");
        }
        if root.validity.check(self.now).is_err() {
            return deny(RefusalCode::NoOffer, "the offer that this one goes back to does not stand");
        }
        if root.what != offer.what || root.name != offer.name {
            return deny(RefusalCode::NoOffer, "the offer is not of what the one says that it goes back to");
        }
        if !root.terms.onward {
            return deny(RefusalCode::DeniedByTerms, "the offer that this one goes back to does not admit offering on");
        }
        Ok(())
    }

    /// Puts the questions about the artefact as a whole, and about each of its parts by itself: once for each set of labels,
    /// however many tensors have it.
    fn put(&self, questions: &[Question<'_>], whole: &BTreeSet<Label>, parts: &[Part], decision: &mut Decision) {
        let of_whole: BTreeSet<u32> = questions
            .iter()
            .map(|question| keep(&mut decision.verdicts, self.judge(question.pack, question.action, &question.facts)))
            .collect();
        for part in parts {
            let verdicts = if part.labels == *whole {
                of_whole.clone()
            } else {
                let asked = questions.iter().map(|question| {
                    let facts = Facts { labels: part.labels.clone(), ..Facts::clone(&question.facts) };
                    keep(&mut decision.verdicts, self.judge(question.pack, question.action, &facts))
                });
                asked.collect()
            };
            decision.parts.push(PartDecided { part: part.clone(), verdicts });
        }
    }

    /// Asks again what was asked for a recorded decision, of the law that is in force here now: verdicts on the whole and on
    /// each part. Says nothing about terms and duties, and clears nothing.
    pub(crate) fn judge_again(&self, recorded: &Decision) -> Result<Decision, Denial> {
        let mut again = Decision { facts: recorded.facts.clone(), direct: recorded.direct.clone(), ..Decision::default() };
        let Some(facts) = &recorded.facts else { return Ok(again) };
        let mut questions = self.questions(facts, Course::New)?;
        if let Some(direct) = &recorded.direct {
            let facts = Arc::new(direct.clone());
            let asked = |pack| Question { pack, action: Action::Export, facts: Arc::clone(&facts) };
            questions.extend(self.laws(direct.from.country, Course::New)?.into_iter().map(asked));
        }
        let parts: Vec<_> = recorded.parts.iter().map(|decided| decided.part.clone()).collect();
        self.put(&questions, &facts.labels, &parts, &mut again);
        // What did not fit was cut in the record, and is cut alike.
        again.against.clone_from(&recorded.against);
        again.fit();
        Ok(again)
    }

    /// When the first of the papers that a decision rests on runs out: accreditations, offer, and the safeguards that count.
    /// What does not count is anybody's word, and sets no clock here.
    pub(crate) fn papers_until(&self, attempt: &Attempt<'_>) -> Timestamp {
        // Of a portion it is not known yet which parts it will be, so that what counts for any of them sets the clock.
        let sets: Vec<BTreeSet<Label>> = match &attempt.offer.body().what {
            Offered::Model(model) => {
                let model = attempt.portion.of(model);
                let alone = model.parts.iter().map(|part| part.labels.clone());
                std::iter::once(model.labels.clone()).chain(alone).collect()
            }
            Offered::Compute(_) => Vec::new(),
        };
        let direct = attempt.root.map(|root| Attempt { exporter: root.exporter, ..*attempt });
        let ways = || std::iter::once(attempt).chain(&direct);
        let scopes: Vec<_> = ways().flat_map(|way| sets.iter().map(move |labels| scope(way, labels))).collect();
        let presented = attempt.safeguards.iter().take(limits::SAFEGUARDS_PER_REQUEST_MAX);
        let counting =
            presented.filter_map(|bytes| scopes.iter().find_map(|scope| self.trust.safeguard(bytes, scope, self.now).ok()));
        let safeguards = counting.map(|safeguard| safeguard.body().validity.until);
        let papers = [attempt.exporter.body().validity, attempt.importer.body().validity, attempt.offer.body().validity];
        let root = attempt.root.into_iter().flat_map(|root| [root.offer.body().validity, root.exporter.body().validity]);
        papers
            .into_iter()
            .chain(root)
            .map(|validity| validity.until)
            .chain(safeguards)
            .fold(Timestamp(u64::MAX), Timestamp::min)
    }

    /// Why the answer to this lets nothing begin, if that is so.
    fn opens_nothing(&self, attempt: &Attempt<'_>) -> Option<&'static str> {
        match (self.outlook, attempt.course) {
            (Some(_), _) => Some(OUTLOOK),
            (None, Course::Running) => Some(RUNNING),
            (None, Course::New) => None,
        }
    }

    /// The exporter's door: decides, and makes the permission to send and the clearance that says so.
    ///
    /// The caller has matched the request to the offer and to the session's peer; `session` is the session it came in, and
    /// `ledger` the head of this node's.
    pub(crate) fn clear_export(
        &self,
        key: &SecretKey,
        request: &Signed<CrossingRequest>,
        attempt: &Attempt<'_>,
        session: SessionBinding,
        ledger: LedgerHead,
    ) -> Result<Exporting, Box<Decision>> {
        if let Some(why) = self.opens_nothing(attempt) {
            return Err(Box::new(Decision::denied(RefusalCode::BadRequest, why.to_owned())));
        }
        let decision = self.decide(attempt);
        let body = request.body();
        let (Offered::Model(model), None, Some(facts)) = (&attempt.offer.body().what, &decision.denial, &decision.facts)
        else {
            return Err(Box::new(decision));
        };
        if (body.session, body.manifest, body.importer) != (session, model.manifest, attempt.importer.body().node) {
            let problem = "the request is not for this session, offer or peer".to_owned();
            return Err(Box::new(Decision::denied(RefusalCode::BadRequest, problem)));
        }
        let parts = body.parts.as_ref().map(|_| decision.allowed_parts());
        let clearance = ClearanceGiven {
            crossing: body.crossing,
            request: request.id(),
            exporter: key.public(),
            importer: body.importer,
            manifest: model.manifest,
            labels: facts.labels.clone(),
            parts: parts.clone(),
            purpose: body.purpose,
            epochs: decision.epochs(),
            people: model.provenance.people,
            volume: facts.volume,
            session,
            training: attempt.training.to_give(model),
            ledger,
            validity: Validity::lasting_ms(self.now, limits::CLEARANCE_TTL_MS_MAX),
        };
        let clearance = Signed::sign(&clearance, self.trust.alliance(), key)
            .map_err(|error| Box::new(Decision::denied(RefusalCode::CannotRecord, error.to_string())))?;
        let (crossing, importer, manifest) = (body.crossing, body.importer, model.manifest);
        let outbound = Outbound { crossing, importer, manifest, session, cleared: Cleared(parts) };
        Ok(Exporting { outbound, clearance, decision })
    }

    /// The importer's door: the clearance must answer this request of this node, and this side must still allow.
    pub(crate) fn clear_import(
        &self,
        request: &Signed<CrossingRequest>,
        attempt: &Attempt<'_>,
        answer: &[u8],
    ) -> Result<Importing, NotCleared> {
        if let Some(why) = self.opens_nothing(attempt) {
            return Err(NotCleared::Shut(why));
        }
        let clearance = Signed::<ClearanceGiven>::open(answer, self.trust.alliance())?;
        let (given, asked) = (clearance.body(), request.body());
        let model = match &attempt.offer.body().what {
            Offered::Model(model) => model,
            Offered::Compute(_) => return Err(NotCleared::Mismatch("offer")),
        };
        let cleared = Portion::cleared(given.parts.as_ref());
        if !cleared.fits(model) {
            return Err(NotCleared::Mismatch("parts"));
        }
        let matches = [
            ("signer", clearance.signed_only_by(&asked.exporter) && given.exporter == asked.exporter),
            ("crossing", given.crossing == asked.crossing),
            ("request", given.request == request.id()),
            ("importer", given.importer == asked.importer),
            ("manifest", given.manifest == asked.manifest),
            ("parts", is_of(given.parts.as_ref(), asked.parts.as_ref())),
            ("labels", given.labels == cleared.of(model).labels),
            ("people", given.people == model.provenance.people),
            ("purpose", given.purpose == asked.purpose),
            ("session", given.session == asked.session),
        ];
        if let Some((what, _)) = matches.into_iter().find(|(_, same)| !same) {
            return Err(NotCleared::Mismatch(what));
        }
        given.validity.check(self.now)?;
        if given.validity.until > given.validity.from.plus_ms(limits::CLEARANCE_TTL_MS_MAX) {
            return Err(NotCleared::Mismatch("validity"));
        }
        // Only the exporter can know what it counted this year; its law is asked again with that.
        let attempt = Attempt { counted: Counted::Said(given.volume), portion: &cleared, ..*attempt };
        if given.volume.larger(Volume::of(&given.labels, model.provenance.people)) != given.volume {
            return Err(NotCleared::Mismatch("volume"));
        }
        let training = given_training(given.training.as_ref().map(|bytes| bytes.as_slice()), model, self.trust.alliance())?;
        let attempt = Attempt { training: Training::Shown(training.as_ref()), ..attempt };
        let decision = self.decide(&attempt);
        if decision.denial.is_some() {
            return Err(NotCleared::Declined(Box::new(Declined { clearance, decision })));
        }
        let inbound = Inbound {
            crossing: given.crossing,
            clearance: clearance.id(),
            exporter: given.exporter,
            manifest: given.manifest,
            artefact: model.artefact,
            bytes: model.bytes,
            counts: (model.files, model.tensors),
            labels: model.labels.clone(),
            parts: model.parts.clone(),
            cleared: Cleared(given.parts.clone()),
        };
        Ok(Importing { inbound, clearance, decision, training })
    }
}

/// Whether what was cleared is all, where all was asked for, or parts of what was.
fn is_of(cleared: Option<&PartLabels>, asked: Option<&PartLabels>) -> bool {
    match (cleared, asked) {
        (None, None) => true,
        (Some(cleared), Some(asked)) => cleared.is_subset(asked),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests;
