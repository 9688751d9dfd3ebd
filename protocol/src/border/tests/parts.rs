//! What the door lets through of an artefact: whatever the packs say of each part and of all together.

use proptest::prelude::*;

use super::*;

/// What a pack says in a test.
#[derive(Clone, Copy, Debug)]
enum Say {
    Yes,
    No,
    Error,
    /// Yes, and that it met an error.
    LyingError,
    Duty(&'static str),
}

/// Asks a function instead of packs.
struct Asked<F>(F);

impl<F: Fn(&Pack, Action, &BTreeSet<Label>, Timestamp) -> Say + Send + Sync> Gate for Asked<F> {
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict> {
        let yes = Verdict::clone(&Yes.judge(pack, action, facts, at));
        let verdict = match (self.0)(pack, action, &facts.labels, at) {
            Say::Yes => yes,
            Say::No => Verdict { allowed: false, ..yes },
            Say::Error => Verdict::failed(pack.owner, pack.epoch, action, "no such attribute".into()),
            Say::LyingError => Verdict { error: Some("no such attribute".into()), ..yes },
            Say::Duty(words) => Verdict { obligations: [words.parse().expect("a duty")].into(), ..yes },
        };
        verdict.into()
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

/// One end of a crossing, with a house of its own.
struct End<'a> {
    scene: &'a Scene,
    offer: Signed<Offer>,
    gate: &'a dyn Gate,
    house: Pack,
    home: Country,
    approvals: BTreeMap<StatementId, Signed<Approval>>,
    approvers: BTreeSet<PublicKey>,
    circumstances: BTreeSet<Circumstance>,
}

impl<'a> End<'a> {
    fn new(scene: &'a Scene, gate: &'a dyn Gate, member: &str) -> Self {
        Self {
            scene,
            offer: scene.signed(&scene.offer, 11),
            gate,
            house: Pack::new(PackOwner::House, 1, member, ""),
            home: member.parse().expect("assigned"),
            approvals: BTreeMap::new(),
            approvers: BTreeSet::new(),
            circumstances: BTreeSet::new(),
        }
    }

    fn border(&self) -> Border<'_> {
        Border {
            outlook: None,
            ledger: None,
            doubts: BTreeMap::new(),
            misplaced: BTreeMap::new(),
            trust: &self.scene.trust,
            gate: self.gate,
            baseline: &self.scene.baseline,
            house: Some(&self.house),
            home: self.home,
            approvals: &self.approvals,
            approvers: &self.approvers,
            now: NOW,
        }
    }

    fn attempt<'b>(&'b self, portion: &'b Portion) -> Attempt<'b> {
        Attempt {
            course: Course::New,
            exporter: &self.scene.exporter,
            importer: &self.scene.importer,
            offer: &self.offer,
            root: None,
            portion,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: &self.circumstances,
            counted: Counted::NOTHING,
            safeguards: &[],
            training: Training::Claimed,
        }
    }

    fn decide(&self, portion: &Portion) -> Decision {
        self.border().decide(&self.attempt(portion))
    }

    fn clear(&self, parts: Option<PartLabels>) -> (Signed<CrossingRequest>, Result<Exporting, Box<Decision>>) {
        let body = CrossingRequest { parts, ..self.scene.request.clone() };
        let request = Signed::sign(&body, self.scene.trust.alliance(), &key(12)).expect("signs");
        let portion = Portion::asked(body.parts.as_ref());
        let cleared =
            self.border().clear_export(&key(11), &request, &self.attempt(&portion), SessionBinding([4; 32]), HEAD);
        (request, cleared)
    }

    /// Whether each pack allows what has these labels, asked one after the other, and demands nothing that is not there.
    fn allows(&self, labels: &BTreeSet<Label>) -> bool {
        let law = |member: &str| self.scene.trust.law(member.parse().expect("assigned"), NOW).expect("in force");
        let both = |pack| [(pack, Action::Export), (pack, Action::Import)];
        let [baseline, house] = [&self.scene.baseline, &self.house].map(both);
        let laws = [(law("BR"), Action::Export), (law("IN"), Action::Import)];
        let facts = self.decide(&Portion::All).facts.expect("asked");
        baseline.into_iter().chain(laws).chain(house).all(|(pack, action)| {
            let verdict = self.gate.judge(pack, action, &Facts { labels: labels.clone(), ..facts.clone() }, NOW);
            verdict.allowed && verdict.error.is_none() && verdict.obligations.is_empty()
        })
    }

    /// The first of these sets, and those of the others that are allowed by themselves.
    fn left(&self, of: &[BTreeSet<Label>]) -> Vec<BTreeSet<Label>> {
        of.iter()
            .enumerate()
            .filter(|(at, labels)| *at == 0 || self.allows(labels))
            .map(|(_, labels)| labels.clone())
            .collect()
    }

    /// Whether each of these sets is allowed, and all of them together.
    fn allows_all(&self, of: &[BTreeSet<Label>]) -> bool {
        of.iter().all(|labels| self.allows(labels)) && self.allows(&union(of))
    }
}

fn union(of: &[BTreeSet<Label>]) -> BTreeSet<Label> {
    of.iter().flatten().copied().collect()
}

fn set(labels: &[Label]) -> BTreeSet<Label> {
    labels.iter().copied().collect()
}

impl Scene {
    /// The artefact has these parts.
    fn of_parts(parts: &[BTreeSet<Label>]) -> Self {
        let mut scene = Self::new();
        if let Offered::Model(model) = &mut scene.offer.what {
            model.labels = union(parts);
            model.parts = parts.iter().map(|labels| Part { labels: labels.clone(), tensors: 1, bytes: 10 }).collect();
            model.tensors = model.parts.iter().map(|part| part.tensors).sum();
            model.bytes = model.parts.iter().map(|part| part.bytes).sum();
        }
        scene
    }
}

fn labels_of(parts: &[PartDecided]) -> Vec<BTreeSet<Label>> {
    parts.iter().map(|decided| decided.part.labels.clone()).collect()
}

#[test]
fn a_part_is_left_out_for_whatever_is_no_plain_yes_and_for_nothing_else() {
    let soon = |at: Timestamp| if at > NOW { Say::No } else { Say::Yes };
    let no_more = |at: Timestamp| if at < NOW { Say::No } else { Say::Yes };
    type What<'a> = (&'a str, Box<dyn Fn(Timestamp) -> Say + Send + Sync>, bool);
    let said = |say: Say| Box::new(move |_| say);
    let table: [What<'_>; 10] = [
        ("yes", said(Say::Yes), false),
        ("no", said(Say::No), true),
        ("an error", said(Say::Error), true),
        ("yes and an error", said(Say::LyingError), true),
        ("not yet at one end of the interval", Box::new(soon), true),
        ("no more at the other", Box::new(no_more), true),
        ("evidence that is not there", said(Say::Duty("require(ai_label)")), true),
        ("approval that was not given", said(Say::Duty("approval(1)")), true),
        ("a span", said(Say::Duty("delete_within(24h)")), false),
        ("a word", said(Say::Duty("told")), false),
    ];
    for (what, say, leaves_out) in table {
        let parts = [set(&[Label::Public]), set(&[Label::Gov]), set(&[Label::Dp])];
        let scene = Scene::of_parts(&parts);
        // The house of this end says it of what has this one label and no other.
        let gate = Asked(move |pack: &Pack, action, labels: &BTreeSet<Label>, at| {
            let is_it = pack.owner == PackOwner::House && action == Action::Export && *labels == set(&[Label::Gov]);
            if is_it { say(at) } else { Say::Yes }
        });
        let end = End::new(&scene, &gate, "BR");
        let decision = end.decide(&Portion::AllowedOf(parts.iter().cloned().collect()));
        assert_eq!(decision.denial, None, "{what}");
        let expected = if leaves_out { vec![set(&[Label::Gov])] } else { Vec::new() };
        assert_eq!(labels_of(&decision.left_out), expected, "{what}");
        assert_eq!(decision.against.len(), expected.len(), "{what}: {:?}", decision.against);
        assert_eq!(decision.parts.len(), 3 - expected.len(), "{what}");
        let whole = end.decide(&Portion::All);
        assert_eq!((whole.denial.is_some(), whole.left_out.len(), whole.against.len()), (leaves_out, 0, 0), "{what}");
        let only = end.decide(&Portion::Only(parts.iter().cloned().collect()));
        assert_eq!(
            (only.denial.is_some(), only.left_out.len()),
            (leaves_out, 0),
            "{what}: what was cleared is not cut down"
        );
    }
}

#[test]
fn what_was_said_against_several_parts_is_recorded_once() {
    let parts = [set(&[Label::Public]), set(&[Label::Gov]), set(&[Label::Dp]), set(&[Label::Cii])];
    let scene = Scene::of_parts(&parts);
    let gate = Asked(|pack: &Pack, action, labels: &BTreeSet<Label>, _| match (pack.owner, action) {
        (PackOwner::House, Action::Import) if !labels.contains(&Label::Public) => Say::No,
        (PackOwner::Alliance, Action::Export) if labels.contains(&Label::Dp) => Say::Error,
        _ => Say::Yes,
    });
    let decision = End::new(&scene, &gate, "IN").decide(&Portion::AllowedOf(parts.iter().cloned().collect()));
    let against: Vec<_> = decision.against.iter().map(|verdict| (verdict.pack, verdict.action)).collect();
    assert_eq!(against, [(PackOwner::House, Action::Import), (PackOwner::Alliance, Action::Export)]);
    let numbers: Vec<_> = decision.left_out.iter().map(|out| out.verdicts.clone()).collect();
    assert_eq!(numbers, [BTreeSet::from([0]), BTreeSet::from([0, 1]), BTreeSet::from([0])]);
    assert_eq!(labels_of(&decision.parts), parts[..1]);
    assert!(decision.verdicts.iter().all(|verdict| verdict.permits()), "what was decided on is apart from it");
}

#[test]
fn what_speaks_against_a_part_and_is_too_long_to_record_loses_texts_and_then_rules() {
    let rule = |id: String| crate::gate::RuleCited {
        id,
        title: "t".repeat(1000),
        role: crate::gate::RuleRole::Denies,
        nature: crate::gate::RuleNature::House,
        citation: "c".repeat(1000),
        native: String::new(),
        since: String::new(),
        confidence: String::new(),
        remedies: Vec::new(),
    };
    let said = |count: usize, id: &str| {
        let verdict = Verdict::failed(PackOwner::House, 0, Action::Import, String::new());
        let rules = (0..count).map(|n| Arc::new(rule(format!("{id}-{n}")))).collect();
        vec![Arc::new(Verdict { rules, ..verdict })]
    };
    let long = "HOUSE".repeat(600);
    // How many rules each of both has before and after, and whether those against have their texts.
    let table = [
        (said(100, "HOUSE"), said(20, "HOUSE"), [100, 20], true),
        (said(100, "HOUSE"), said(60, "HOUSE"), [100, 60], false),
        (said(0, "HOUSE"), said(200, "HOUSE"), [0, 200], false),
        (said(60, &long), said(60, &long), [32, 32], false),
    ];
    for (at, (verdicts, against, kept, texts)) in table.into_iter().enumerate() {
        let mut decision = Decision { verdicts, against, ..Decision::default() };
        decision.fit();
        let size = encode(&(&decision.verdicts, &decision.against)).len();
        assert!(size <= limits::VERDICTS_BYTES_MAX, "case {at}: {size}");
        let both = [&decision.verdicts[0], &decision.against[0]];
        assert_eq!(both.map(|verdict| verdict.rules.len()), kept, "case {at}");
        assert_eq!(both[1].rules.iter().all(|rule| rule.citation.starts_with("cc")), texts, "case {at}");
        assert!(!both[1].permits());
    }
}

#[test]
fn the_door_clears_no_portion_for_another_session_manifest_or_peer() {
    type Change = fn(&mut Scene);
    let cases: [Change; 3] = [
        |scene| scene.request.session = SessionBinding([5; 32]),
        |scene| scene.request.manifest = ManifestId([8; 32]),
        |scene| scene.request.importer = key(13).public(),
    ];
    for (at, change) in cases.into_iter().enumerate() {
        let parts = [set(&[Label::Public]), set(&[Label::Gov])];
        let mut scene = Scene::of_parts(&parts);
        change(&mut scene);
        let (_, cleared) = End::new(&scene, &Yes, "BR").clear(Some(parts.into()));
        let denial = cleared.err().and_then(|decision| decision.denial).expect("refused");
        assert_eq!(denial.code, RefusalCode::BadRequest, "case {at}");
    }
}

#[test]
fn a_portion_fits_if_it_has_the_first_part_and_no_other_than_are_there() {
    let parts = [set(&[Label::Public]), set(&[Label::Public, Label::Gov]), set(&[Label::Dp])];
    let Offered::Model(model) = Scene::of_parts(&parts).offer.what else { panic!("of a model") };
    let table: [(&[BTreeSet<Label>], bool); 7] = [
        (&[], false),
        (&parts[..1], true),
        (&parts[1..], false),
        (&parts, true),
        (&[parts[0].clone(), parts[2].clone()], true),
        (&[parts[0].clone(), set(&[Label::Gov])], false),
        (&[parts[0].clone(), set(&[])], false),
    ];
    for (of, fits) in table {
        let of: PartLabels = of.iter().cloned().collect();
        for portion in [Portion::AllowedOf(of.clone()), Portion::Only(of.clone())] {
            assert_eq!(portion.fits(&model), fits, "{portion:?}");
        }
    }
    assert!(Portion::All.fits(&model));
    let Portion::AllowedOf(all) = Portion::allowed_of(&model) else { panic!("what may cross") };
    assert_eq!(all, parts.iter().cloned().collect());
    let some = Portion::Only([parts[0].clone(), parts[2].clone()].into());
    let of = some.of(&model);
    assert_eq!((of.bytes, of.tensors, &of.labels), (20, 2, &set(&[Label::Public, Label::Dp])));
    assert_eq!(*Portion::All.of(&model), model);
}

const POOL: [Label; 5] = [Label::Public, Label::Dp, Label::Gov, Label::Cii, Label::Synthetic];

/// Parts with labels of their own, in any order.
fn some_parts() -> impl Strategy<Value = Vec<BTreeSet<Label>>> {
    prop::collection::vec(1_u8..32, 1..7).prop_map(|masks| {
        let mut parts: Vec<BTreeSet<Label>> = Vec::new();
        for mask in masks {
            let labels = POOL.iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, label)| *label).collect();
            if !parts.contains(&labels) {
                parts.push(labels);
            }
        }
        parts
    })
}

/// Says yes but for so many of 256 questions, whatever they are about.
fn dice(seed: u64, of_256: u8) -> Asked<impl Fn(&Pack, Action, &BTreeSet<Label>, Timestamp) -> Say + Send + Sync> {
    Asked(move |pack: &Pack, action: Action, labels: &BTreeSet<Label>, _| {
        let asked = encode(&(seed, pack.digest().to_vec(), action, labels));
        let [falls, which, ..] = *blake3::hash(&asked).as_bytes();
        match which % 4 {
            _ if falls >= of_256 => Say::Yes,
            0 => Say::Error,
            1 => Say::LyingError,
            2 => Say::Duty("require(ai_label)"),
            _ => Say::No,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_crosses_is_what_both_sides_allow_of_what_was_asked_for(
        parts in some_parts(), seed in any::<u64>(), of_256 in 0_u8..48, chosen in any::<u8>(),
    ) {
        let (scene, gate) = (Scene::of_parts(&parts), dice(seed, of_256));
        let (importer, exporter) = (End::new(&scene, &gate, "IN"), End::new(&scene, &gate, "BR"));
        let as_set = |of: &[BTreeSet<Label>]| of.iter().cloned().collect::<PartLabels>();

        // The importer, of all parts.
        let decision = importer.decide(&Portion::AllowedOf(as_set(&parts)));
        let left = importer.left(&parts);
        prop_assert_eq!(labels_of(&decision.parts), left.clone());
        let out: Vec<_> = parts.iter().filter(|labels| !left.contains(labels)).cloned().collect();
        prop_assert_eq!(labels_of(&decision.left_out), out);
        prop_assert!(decision.left_out.iter().all(|out| out.of(&decision.against).count() > 0));
        prop_assert_eq!(decision.denial.is_none(), importer.allows_all(&left));

        // The whole crosses if nothing would be left out, and all is allowed together; it leaves nothing out.
        let whole = importer.decide(&Portion::All);
        prop_assert_eq!(whole.denial.is_none(), decision.left_out.is_empty() && decision.denial.is_none());
        prop_assert!(whole.left_out.is_empty() && whole.against.is_empty());
        let (_, cleared) = exporter.clear(None);
        prop_assert_eq!(cleared.is_ok(), exporter.allows_all(&parts));
        if let Ok(exporting) = cleared {
            prop_assert_eq!((&exporting.clearance.body().parts, exporting.outbound.cleared().is_all()), (&None, true));
        }

        // The exporter, of any that somebody asks for.
        let asked: Vec<_> =
            parts.iter().enumerate().filter(|(at, _)| *at == 0 || chosen >> at & 1 == 1).map(|(_, part)| part.clone()).collect();
        let left = exporter.left(&asked);
        let (request, cleared) = exporter.clear(Some(as_set(&asked)));
        prop_assert_eq!(cleared.is_ok(), exporter.allows_all(&left));
        let Ok(exporting) = cleared else { return Ok(()) };
        let given = exporting.clearance.body();
        let cleared = given.parts.clone().expect("of parts");
        prop_assert_eq!(&cleared, &as_set(&left));
        prop_assert!(cleared.contains(&parts[0]) && cleared.is_subset(&as_set(&asked)));
        prop_assert!(cleared.iter().all(|labels| exporter.allows(labels)));
        prop_assert_eq!(&given.labels, &union(&left));
        prop_assert!(parts.iter().all(|labels| exporting.outbound.cleared().admits(labels) == cleared.contains(labels)));

        // The importer, of exactly these.
        let portion = Portion::AllowedOf(as_set(&parts));
        let bytes = exporting.clearance.bytes();
        let taken = importer.border().clear_import(&request, &importer.attempt(&portion), bytes);
        prop_assert_eq!(taken.is_ok(), importer.allows_all(&left));
        match taken {
            Ok(importing) => {
                prop_assert_eq!(labels_of(&importing.decision.parts), left);
                let admitted = |labels: &BTreeSet<Label>| importing.inbound.cleared().admits(labels);
                prop_assert!(parts.iter().all(|labels| admitted(labels) == cleared.contains(labels)));
            }
            Err(why) => prop_assert!(matches!(why, NotCleared::Declined(_)), "{}", why),
        }
    }
}

#[test]
fn no_door_opens_under_the_law_of_another_instant() {
    let scene = Scene::new();
    let (exporter, importer) = (End::new(&scene, &Yes, "BR"), End::new(&scene, &Yes, "IN"));
    let (request, cleared) = exporter.clear(None);
    let clearance = cleared.expect("cleared under the law of now").clearance;
    let ahead = |end| Border { outlook: Some(NOW), ..end };
    assert!(ahead(exporter.border()).decide(&exporter.attempt(&Portion::All)).denial.is_none(), "it would be allowed then");
    let again = ahead(exporter.border()).clear_export(
        &key(11),
        &request,
        &exporter.attempt(&Portion::All),
        SessionBinding([4; 32]),
        HEAD,
    );
    assert_eq!(again.map(|_| ()).map_err(|decision| decision.denial.expect("a reason").code), Err(RefusalCode::BadRequest));
    let attempt = importer.attempt(&Portion::All);
    assert!(importer.border().clear_import(&request, &attempt, clearance.bytes()).is_ok());
    let taken = ahead(importer.border()).clear_import(&request, &attempt, clearance.bytes());
    assert!(matches!(taken, Err(NotCleared::Shut(_))));
}

#[test]
fn no_door_opens_again_for_what_runs() {
    let scene = Scene::new();
    let (exporter, importer) = (End::new(&scene, &Yes, "BR"), End::new(&scene, &Yes, "IN"));
    let (request, cleared) = exporter.clear(None);
    let clearance = cleared.expect("cleared while it was new").clearance;
    let runs = |end| Attempt { course: Course::Running, ..end };
    let attempt = runs(exporter.attempt(&Portion::All));
    assert!(exporter.border().decide(&attempt).denial.is_none(), "it may go on");
    let again = exporter.border().clear_export(&key(11), &request, &attempt, SessionBinding([4; 32]), HEAD);
    assert_eq!(again.map(|_| ()).map_err(|decision| decision.denial.expect("a reason").code), Err(RefusalCode::BadRequest));
    let attempt = runs(importer.attempt(&Portion::All));
    let taken = importer.border().clear_import(&request, &attempt, clearance.bytes());
    assert!(matches!(taken, Err(NotCleared::Shut(_))));
}
