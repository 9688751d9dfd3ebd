//! The door on its own: what its callers have checked already, it checks again.

mod parts;

use super::*;
use crate::{
    authority::{LawPack, Organisation, Status},
    charter::{Authority, Charter, Chartered, WitnessRule},
    envelope::encode,
    gate::{PackError, PackOwner, PackSummary, Verdict},
    id::Sha256,
    offer::{ModelOffer, Provenance, Terms},
    vocabulary::Tier,
};

/// The head of a ledger; the door does not look into it.
const HEAD: LedgerHead = LedgerHead { size: 0, root: Sha256([0; 32]) };

const NOW: Timestamp = Timestamp(1_790_812_800_000);

struct Yes;

impl Gate for Yes {
    fn judge(&self, pack: &Pack, action: Action, _: &Facts, _: Timestamp) -> Arc<Verdict> {
        let (rules, obligations) = (Vec::new(), BTreeSet::new());
        Verdict { pack: pack.owner, epoch: pack.epoch, action, allowed: true, rules, obligations, error: None }.into()
    }

    fn heeds_volume(&self, _: &Pack, _: Action, _: &Facts, _: Timestamp) -> bool {
        false
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        Ok(PackSummary { owner: pack.owner, rules: Vec::new() })
    }

    fn next_turn(&self, _: &Pack, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// Brazil and India with one officer each, laws in force, an exporter, an importer and an offer.
struct Scene {
    trust: Trust,
    /// What the authority of India said last.
    status: Status,
    baseline: Pack,
    exporter: Signed<Accreditation>,
    importer: Signed<Accreditation>,
    offer: Offer,
    /// What the offer goes back to, as far as this side knows, and by whom it was made.
    root: Option<(Offer, Signed<Accreditation>)>,
    request: CrossingRequest,
}

impl Scene {
    fn new() -> Self {
        let members = [("BR", 1), ("IN", 2)].map(|(code, seed)| (code.parse::<Country>().expect("assigned"), key(seed)));
        let authority =
            |officer: &SecretKey| Authority { name: "A".into(), officers: vec![officer.public()], threshold: 1 };
        let charter = Charter {
            name: "Test".into(),
            version: 1,
            issued: NOW,
            threshold: 2,
            previous: None,
            witnesses: WitnessRule::NONE,
            members: members.iter().map(|(member, officer)| (*member, authority(officer).into())).collect(),
        };
        let draft = Chartered::draft(&charter).expect("a sound charter");
        let signed = members.iter().fold(draft, |draft, (_, officer)| draft.sign(officer)).to_bytes();
        let mut trust = Trust::new(Chartered::found(&signed).expect("all signed"));
        let alliance = trust.alliance();
        let (validity, mut statuses) = (Validity::lasting_ms(NOW, 3_600_000), Vec::new());
        for (member, officer) in &members {
            let (law, directives) = (String::new(), String::new());
            let pack = LawPack { member: *member, epoch: 1, issued: NOW, law, directives };
            let pack = Signed::sign(&pack, alliance, officer).expect("signs");
            trust.accept_pack(pack.bytes(), &Yes).expect("accepted");
            let (law_pack, revoked) = (pack.id(), BTreeSet::new());
            let status = Status {
                member: *member,
                serial: 1,
                validity,
                law_pack,
                epoch: 1,
                upcoming: Vec::new(),
                revoked,
                bans: BTreeSet::new(),
                experts: Vec::new(),
                grace_ms: 0,
            };
            trust.accept_status(Signed::sign(&status, alliance, officer).expect("signs").bytes()).expect("accepted");
            statuses.push(status);
        }
        let accredited = |at: usize, node: u8| accredited(&trust, &members[at], node);
        let model = ModelOffer {
            artefact: Artefact::Weights,
            manifest: ManifestId([7; 32]),
            bytes: 1,
            files: 1,
            tensors: 1,
            labels: BTreeSet::from([Label::Public]),
            parts: Part::alone(BTreeSet::from([Label::Public]), 1, 1),
            origin: members[0].0,
            subjects: BTreeSet::new(),
            provenance: Provenance::default(),
            licence: "MIT".into(),
        };
        let terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false };
        let node = key(11).public();
        let offer = Offer { node, name: "usp/model".into(), what: Offered::Model(model), terms, root: None, validity };
        let (exporter, importer) = (accredited(0, 11), accredited(1, 12));
        let request = CrossingRequest {
            crossing: CrossingId([1; 32]),
            importer: key(12).public(),
            exporter: node,
            offer: StatementId([2; 32]),
            manifest: ManifestId([7; 32]),
            parts: None,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            accreditation: importer.bytes().to_vec(),
            verdicts: StatementId([3; 32]),
            session: SessionBinding([4; 32]),
            ledger: HEAD,
            asked: NOW,
        };
        let baseline = Pack::new(PackOwner::Alliance, 1, "", "");
        let status = statuses.pop().expect("two members");
        Self { trust, status, baseline, exporter, importer, offer, root: None, request }
    }

    /// The exporter offers on what it got from a node in India.
    fn offered_on() -> Self {
        let mut scene = Self::new();
        let terms = Terms { onward: true, ..scene.offer.terms.clone() };
        let root = Offer { node: key(13).public(), terms, ..scene.offer.clone() };
        let india = ("IN".parse().expect("assigned"), key(2));
        let accreditation = accredited(&scene.trust, &india, 13);
        scene.offer.root = Some(scene.signed(&root, 13).id());
        scene.root = Some((root, accreditation));
        scene
    }

    /// The authority of India revokes a node.
    fn revoke(&mut self, node: PublicKey) {
        let status = Status { serial: 2, revoked: BTreeSet::from([node]), ..self.status.clone() };
        let status = Signed::sign(&status, self.trust.alliance(), &key(2)).expect("signs");
        self.trust.accept_status(status.bytes()).expect("accepted");
    }

    fn signed(&self, offer: &Offer, by: u8) -> Signed<Offer> {
        Signed::sign(offer, self.trust.alliance(), &key(by)).expect("signs")
    }

    fn clear(&self) -> Result<Exporting, RefusalCode> {
        self.clear_with(&Yes)
    }

    fn clear_with(&self, gate: &dyn Gate) -> Result<Exporting, RefusalCode> {
        let alliance = self.trust.alliance();
        let offer = self.signed(&self.offer, 11);
        let lent = self.root.as_ref().map(|(offer, exporter)| (self.signed(offer, 13), exporter));
        let request = Signed::sign(&self.request, alliance, &key(12)).expect("signs");
        let border = Border {
            outlook: None,
            ledger: None,
            doubts: BTreeMap::new(),
            misplaced: BTreeMap::new(),
            trust: &self.trust,
            gate,
            baseline: &self.baseline,
            house: None,
            home: self.exporter.body().member,
            approvals: &BTreeMap::new(),
            approvers: &BTreeSet::new(),
            now: NOW,
        };
        let attempt = Attempt {
            course: Course::New,
            exporter: &self.exporter,
            importer: &self.importer,
            root: lent.as_ref().map(|(offer, exporter)| Root { offer, exporter }),
            offer: &offer,
            portion: &Portion::asked(self.request.parts.as_ref()),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: &BTreeSet::new(),
            counted: Counted::NOTHING,
            safeguards: &[],
            training: Training::Claimed,
        };
        let cleared = border.clear_export(&key(11), &request, &attempt, SessionBinding([4; 32]), HEAD);
        cleared.map_err(|decision| decision.denial.expect("a reason").code)
    }
}

fn accredited(trust: &Trust, (member, officer): &(Country, SecretKey), node: u8) -> Signed<Accreditation> {
    let (roles, name) = (BTreeSet::new(), "usp".to_owned());
    let organisation = Organisation { name, roles, controlled_by: None, state_controlled: false };
    let roles = BTreeSet::from([NodeRole::Exporter, NodeRole::Importer]);
    let (node, validity) = (key(node).public(), Validity::lasting_ms(NOW, 3_600_000));
    let tier = Tier::default();
    let body = Accreditation { member: *member, node, organisation, zone: None, roles, tier, place: None, validity };
    Signed::sign(&body, trust.alliance(), officer).expect("signs")
}

#[test]
fn the_door_opens_for_what_matches() {
    let scene = Scene::new();
    let exporting = scene.clear().expect("cleared");
    assert_eq!(exporting.outbound.importer(), key(12).public());
    assert_eq!(exporting.outbound.session(), SessionBinding([4; 32]));
    assert!(exporting.clearance.signed_only_by(&key(11).public()));
    assert_eq!(exporting.decision.denial, None);
}

/// Says yes, and counts the questions about each set of labels.
#[derive(Default)]
struct Counting(std::sync::Mutex<BTreeMap<BTreeSet<Label>, usize>>);

impl Gate for Counting {
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict> {
        *self.0.lock().expect("counts").entry(facts.labels.clone()).or_default() += 1;
        Yes.judge(pack, action, facts, at)
    }

    fn heeds_volume(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> bool {
        Yes.heeds_volume(pack, action, facts, at)
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        Yes.check(pack)
    }

    fn next_turn(&self, pack: &Pack, after: Timestamp) -> Option<Timestamp> {
        Yes.next_turn(pack, after)
    }
}

#[test]
fn a_manifest_of_a_hundred_thousand_tensors_is_asked_about_once_for_each_set_of_labels() {
    let sets = [vec![Label::Public], vec![Label::Personal, Label::Health], vec![Label::Dp]];
    let sets = sets.map(|labels| labels.into_iter().collect::<BTreeSet<_>>());
    let whole: BTreeSet<Label> = sets.iter().flatten().copied().collect();
    let mut scene = Scene::new();
    if let Offered::Model(model) = &mut scene.offer.what {
        model.labels.clone_from(&whole);
        model.parts = sets.iter().map(|labels| Part { labels: labels.clone(), tensors: 100_000, bytes: 1 }).collect();
        (model.tensors, model.bytes) = (300_000, 3);
    }
    let gate = Counting::default();
    let decision = scene.clear_with(&gate).expect("cleared").decision;
    // The baseline both ways, the exporter's and the importer's law, each at both ends of the interval.
    let expected: BTreeMap<_, _> = sets.iter().cloned().chain([whole]).map(|labels| (labels, 2 * 4)).collect();
    assert_eq!(*gate.0.lock().expect("counts"), expected);
    // What was said of every part is the same, so it stands in the record once.
    assert_eq!(decision.verdicts.len(), 4);
    assert!(decision.parts.iter().all(|decided| decided.verdicts == BTreeSet::from([0, 1, 2, 3])));
    assert_eq!(decision.parts.iter().map(|decided| decided.part.tensors).sum::<u32>(), 300_000);
}

#[test]
fn the_door_stays_shut_for_another_session_manifest_peer_or_offer() {
    type Change = fn(&mut Scene);
    let cases: [(Change, RefusalCode); 4] = [
        (|scene| scene.request.session = SessionBinding([5; 32]), RefusalCode::BadRequest),
        (|scene| scene.request.manifest = ManifestId([8; 32]), RefusalCode::BadRequest),
        (|scene| scene.request.importer = key(13).public(), RefusalCode::BadRequest),
        (|scene| scene.offer.node = key(12).public(), RefusalCode::NoOffer),
    ];
    for (at, (change, code)) in cases.into_iter().enumerate() {
        let mut scene = Scene::new();
        change(&mut scene);
        assert_eq!(scene.clear().err(), Some(code), "case {at}");
    }
}

#[test]
fn the_door_opens_for_what_follows_its_root_and_for_nothing_else() {
    // CROSSING-45. The id is that of the root as it was changed, unless it is the offer that names another.
    type Change = fn(&mut Scene, &mut (Offer, Signed<Accreditation>));
    let cases: [(&str, Change, Option<RefusalCode>); 12] = [
        ("as it should be", |_, _| {}, None),
        ("another name", |_, root| root.0.name = "usp/other".into(), Some(RefusalCode::NoOffer)),
        ("other facts", |_, root| licence_of(&mut root.0, "other"), Some(RefusalCode::NoOffer)),
        ("a root of its own", |_, root| root.0.root = Some(StatementId([9; 32])), Some(RefusalCode::NoOffer)),
        ("another's accreditation", |scene, root| root.1 = scene.importer.clone(), Some(RefusalCode::NoOffer)),
        ("the exporter's own", |scene, root| root.0.node = scene.offer.node, Some(RefusalCode::NoOffer)),
        ("ended", |_, root| root.0.validity = Validity { from: NOW, until: NOW }, Some(RefusalCode::NoOffer)),
        ("not onward", |_, root| root.0.terms.onward = false, Some(RefusalCode::DeniedByTerms)),
        (
            "for another purpose",
            |_, root| root.0.terms.purposes = [Purpose::Commercial].into(),
            Some(RefusalCode::DeniedByTerms),
        ),
        (
            "for another country",
            |scene, root| root.0.terms.to = [scene.exporter.body().member].into(),
            Some(RefusalCode::DeniedByTerms),
        ),
        ("revoked", |scene, root| scene.revoke(root.0.node), Some(RefusalCode::NotAccredited)),
        ("in these terms", |_, root| root.0.terms.purposes = [Purpose::Research].into(), None),
    ];
    for (what, change, code) in cases {
        let mut scene = Scene::offered_on();
        let mut root = scene.root.take().expect("it goes back to one");
        change(&mut scene, &mut root);
        scene.offer.root = Some(scene.signed(&root.0, 13).id());
        scene.root = Some(root);
        assert_eq!(scene.clear().err(), code, "{what}");
    }
    let mut unknown = Scene::offered_on();
    unknown.root = None;
    let mut another = Scene::offered_on();
    another.offer.root = Some(StatementId([9; 32]));
    let mut unasked = Scene::offered_on();
    unasked.offer.root = None;
    for scene in [unknown, another, unasked] {
        assert_eq!(scene.clear().err(), Some(RefusalCode::NoOffer));
    }
}

fn licence_of(offer: &mut Offer, licence: &str) {
    if let Offered::Model(model) = &mut offer.what {
        model.licence = licence.into();
    }
}

#[test]
fn what_is_too_long_to_record_keeps_the_duties_that_a_node_enforces() {
    let duties = ["told", "delete_within(24h)", "retain_at_most(30d)", "approval(2)", "require(ai_label)"];
    let rule = |n: usize| crate::gate::RuleCited {
        id: format!("HOUSE-{n}"),
        title: "t".repeat(1000),
        role: crate::gate::RuleRole::Permits,
        nature: crate::gate::RuleNature::House,
        citation: "c".repeat(1000),
        native: String::new(),
        since: String::new(),
        confidence: String::new(),
        remedies: Vec::new(),
    };
    let verdict = Verdict {
        pack: PackOwner::House,
        epoch: 0,
        action: Action::Import,
        allowed: true,
        rules: (0..500).map(rule).map(Arc::new).collect(),
        obligations: duties.iter().map(|duty| duty.parse().expect("a duty")).collect(),
        error: None,
    };
    let mut decision = Decision { verdicts: vec![verdict.into()], ..Decision::default() };
    decision.fit();
    assert!(encode(&decision.verdicts).len() <= limits::VERDICTS_BYTES_MAX);
    let kept: Vec<&str> = decision.verdicts[0].obligations.iter().map(|duty| duty.as_str()).collect();
    assert_eq!(kept, ["approval(2)", "delete_within(24h)", "require(ai_label)"]);
}
