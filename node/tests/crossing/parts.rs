//! A part of a model: what fits patterns and may cross lies at the importer as a model by itself, and nothing else does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use alliance_node::models::{load_manifest, verify};
use alliance_protocol::{
    core::{
        PartTaken,
        admin::{AdminCall, CrossingState, CrossingView, LocalModel, Reply},
    },
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead},
    envelope::Signed,
    id::{CrossingId, Sha256, StatementId},
    vocabulary::{Label, Purpose, Use},
};

use crate::{
    alliance::HOUR,
    artefact::{GROUP, awkward, many_small, safetensors, tree},
    raw::{BAD_REQUEST, CLEARANCE, MANIFEST, REQUEST, RawImporter},
    valve::Valve,
    world::{EXPORTER, IMPORTER, World},
};

/// The tensors of a safetensors file, by name.
fn tensors_of(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let bytes = fs::read(path).expect("read");
    let (length, rest) = bytes.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(usize::try_from(u64::from_le_bytes(*length)).expect("small"));
    let header: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(header).expect("JSON");
    let tensors = header.iter().filter(|(name, _)| *name != "__metadata__").map(|(name, entry)| {
        let range: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).expect("two numbers");
        (name.clone(), data[range[0]..range[1]].to_vec())
    });
    tensors.collect()
}

/// A model of which the tensors `layer.00002` and `layer.00003` are about people in Brazil, whose law lets them go nowhere
/// without a safeguard.
struct Parted {
    world: World,
    model: LocalModel,
    offer: StatementId,
    to: PathBuf,
}

const TENSORS: [usize; 5] = [GROUP + 1, 3, 2 * GROUP, 1000, 5 * GROUP];

impl Parted {
    fn new() -> Self {
        let mut world = World::pair();
        let model = world.import_labelled(EXPORTER, &[Label::Public], &["layer.0000[23]=personal"], |dir| {
            fs::write(dir.join("a.safetensors"), safetensors(&TENSORS)).expect("written");
            fs::write(dir.join("b.safetensors"), safetensors(&TENSORS[..2])).expect("written");
            fs::write(dir.join("config.json"), b"{}").expect("written");
        });
        let (offer, to) = (world.publish(EXPORTER, &model), world.fresh(IMPORTER));
        Self { world, model, offer, to }
    }

    async fn pull(&mut self, tensors: &[&str]) -> CrossingView {
        let crossing = self.world.pull_part(IMPORTER, self.offer, &self.to, tensors);
        let view = self.world.settle(IMPORTER, crossing).await;
        if view.state == CrossingState::Done {
            assert_eq!(self.world.settle(EXPORTER, crossing).await.state, CrossingState::Done);
        }
        view
    }

    /// A pull that goes well; gives what came, and the bytes that crossed.
    async fn pull_well(&mut self, tensors: &[&str]) -> (PartTaken, u64) {
        let (sent, received) = (self.world.nodes[EXPORTER].sent(), self.world.nodes[IMPORTER].received());
        let view = self.pull(tensors).await;
        assert_eq!(view.state, CrossingState::Done, "{:?} {:?}", view.problem, self.world.nodes[IMPORTER].heard);
        let part = view.part.clone().expect("a part");
        let receipt = self.world.receipt(EXPORTER, view.crossing).body().clone();
        assert_eq!(self.world.nodes[EXPORTER].sent() - sent, receipt.bytes, "what was sent");
        assert_eq!(self.world.nodes[IMPORTER].received() - received, receipt.bytes, "what was received");
        let manifest = load_manifest(&self.world.nodes[IMPORTER].manifests(), part.manifest).expect("kept");
        let report = verify(&self.to, &manifest, &mut |_, _| {}).expect("read");
        assert!(report.is_intact(), "{report:?}");
        assert_eq!((manifest.bytes(), manifest.tensors()), (part.bytes, part.tensors));
        let theirs = self.world.view(EXPORTER, view.crossing).expect("known");
        assert!(theirs.left_out.is_empty(), "it was not asked about what may not come");
        assert_eq!((theirs.partial, view.partial), (true, true));
        assert_eq!(theirs.parts, view.parts);
        let beside = fs::read_dir(self.to.parent().expect("inside")).expect("there").count();
        assert_eq!(beside, 1, "nothing is left beside it");
        (part, receipt.bytes)
    }

    /// Begins a pull and runs it until some of it has come and no more does.
    async fn halfway(&mut self, tensors: &[&str]) -> CrossingId {
        let valve = Valve::new(self.world.nodes[EXPORTER].bulk.local_addr(), 8 * GROUP as u64).await;
        self.world.move_to(EXPORTER, valve.address());
        let crossing = self.world.pull_part(IMPORTER, self.offer, &self.to, tensors);
        self.world.during(valve.shut()).await;
        self.world.nodes[IMPORTER].heard.clear();
        self.world.some_progress(IMPORTER).await;
        crossing
    }

    /// What lies at the importer: names of tensors in each file, and the bytes of each compared with those at the origin.
    fn found(&self) -> Vec<(String, Vec<String>)> {
        let files = tree(&self.to).into_keys().map(|path| {
            let names = if path.extension().is_some_and(|end| end == "safetensors") {
                let (here, there) = (tensors_of(&self.to.join(&path)), tensors_of(&self.model.path.join(&path)));
                assert!(here.iter().all(|(name, bytes)| there[name] == *bytes), "{path:?}");
                here.into_keys().collect()
            } else {
                Vec::new()
            };
            (path.display().to_string(), names)
        });
        files.collect()
    }
}

fn files(expected: &[(&str, &[u32])]) -> Vec<(String, Vec<String>)> {
    let tensors = |numbers: &[u32]| numbers.iter().map(|number| format!("layer.{number:05}")).collect();
    expected.iter().map(|(path, numbers)| ((*path).to_owned(), tensors(numbers))).collect()
}

#[tokio::test]
async fn what_fits_crosses_and_nothing_else() {
    let mut parted = Parted::new();
    let (part, bytes) = parted.pull_well(&["a.safetensors::*.0000[04]", "config.json"]).await;
    assert_eq!(parted.found(), files(&[("a.safetensors", &[0, 4]), ("config.json", &[])]));
    assert_eq!(bytes, (TENSORS[0] + TENSORS[4] + 2) as u64);
    assert_eq!((part.files, part.tensors, part.left_out), (2, 2, 0));
    let Reply::Models(models) = parted.world.call(IMPORTER, AdminCall::Models) else { panic!("models") };
    assert!(models.is_empty(), "a part is not the model: {models:?}");
}

#[tokio::test]
async fn what_may_not_cross_is_left_out_of_a_part_and_forbids_the_whole() {
    let mut parted = Parted::new();
    let whole = parted.world.pull(IMPORTER, parted.offer, &parted.to);
    let view = parted.world.settle(IMPORTER, whole).await;
    assert_eq!((view.state, view.left_out.len()), (CrossingState::Denied, 0));

    let (part, bytes) = parted.pull_well(&["*"]).await;
    assert_eq!(parted.found(), files(&[("a.safetensors", &[0, 1, 4]), ("b.safetensors", &[0, 1]), ("config.json", &[])]));
    assert_eq!((part.files, part.tensors, part.left_out), (3, 5, 2));
    let header = fs::metadata(parted.model.path.join("b.safetensors")).expect("there").len();
    assert_eq!(bytes, (TENSORS[0] + TENSORS[1] + TENSORS[4] + 2) as u64 + header);
    let view = parted.world.nodes[IMPORTER].kinds(whole);
    assert_eq!(view, ["request_denied"]);
}

#[tokio::test]
async fn the_record_says_what_was_left_out_and_why() {
    let mut parted = Parted::new();
    let view = parted.pull(&["*"]).await;
    // The header names tensors of both kinds.
    let [header, left_out] = &view.left_out[..] else { panic!("{:?}", view.left_out) };
    assert_eq!((header.part.tensors, header.part.labels.clone()), (0, [Label::Public, Label::Personal].into()));
    assert_eq!((left_out.part.tensors, left_out.part.labels.clone()), (2, [Label::Personal].into()));
    let denying: Vec<_> = left_out.of(&view.against).filter(|verdict| !verdict.permits()).collect();
    assert!(!denying.is_empty() && denying.iter().any(|verdict| !verdict.rules.is_empty()), "{denying:?}");
    assert!(view.verdicts.iter().all(|verdict| verdict.permits()), "what crossed was allowed");
    let kinds = ["requested", "clearance_accepted", "received", "part_delivered", "settled"];
    assert_eq!(parted.world.nodes[IMPORTER].kinds(view.crossing), kinds);
}

#[tokio::test]
async fn nothing_comes_where_nothing_fits_or_all_that_fits_may_not_cross() {
    let table = [
        (vec!["layer.99*"], "`layer.99*` fits no tensor and no file of it"),
        (vec!["*", "nothing"], "`nothing` fits no tensor and no file of it"),
        (vec!["layer.00002", "layer.00003"], "all that fits, 2 tensors or files, may not cross"),
        (vec!["a[ "], "cannot be used"),
    ];
    for (tensors, why) in table {
        let mut parted = Parted::new();
        let view = parted.pull(&tensors).await;
        assert_eq!(view.state, CrossingState::Failed, "{tensors:?}");
        assert!(view.problem.as_deref().is_some_and(|problem| problem.contains(why)), "{tensors:?}: {:?}", view.problem);
        assert!(!parted.to.exists());
        assert_eq!(parted.world.nodes[EXPORTER].sent(), 0, "{tensors:?}");
        let beside =
            parted.to.parent().filter(|parent| parent.exists()).map(|parent| fs::read_dir(parent).expect("read").count());
        assert_eq!(beside.unwrap_or_default(), 0, "{tensors:?}");
    }
}

#[tokio::test]
async fn the_same_part_again_moves_nothing_and_another_is_refused_there() {
    let mut parted = Parted::new();
    let (first, bytes) = parted.pull_well(&["a.safetensors::layer.*"]).await;
    assert!(bytes > 0);
    let before = tree(&parted.to);
    let (again, bytes) = parted.pull_well(&["a.safetensors::layer.*"]).await;
    assert_eq!((again, bytes), (first, 0));
    let view = parted.pull(&["layer.00001"]).await;
    assert_eq!(view.state, CrossingState::Failed);
    assert!(view.problem.as_deref().is_some_and(|problem| problem.contains("holds other files")), "{:?}", view.problem);
    assert!(tree(&parted.to) == before);
}

#[tokio::test]
async fn a_part_that_broke_off_goes_on_and_what_came_of_another_is_kept_apart() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| {
        fs::write(dir.join("a.safetensors"), safetensors(&[40 * GROUP, 40 * GROUP, 40 * GROUP])).expect("written");
    });
    let to = world.fresh(IMPORTER);
    let mut parted = Parted { world, model, offer, to };
    let home = parted.world.nodes[EXPORTER].bulk.local_addr();
    for tensors in [&["*.0000[01]"], &["*.0000[12]"]] {
        let crossing = parted.halfway(tensors).await;
        let cancelled = parted.world.call(IMPORTER, AdminCall::Cancel(crossing));
        assert!(matches!(cancelled, Reply::Cancelled { .. }));
        assert_eq!(parted.world.settle(IMPORTER, crossing).await.state, CrossingState::Failed);
    }
    parted.world.move_to(EXPORTER, home.to_string());
    let beside = || fs::read_dir(parted.to.parent().expect("inside")).expect("there").count();
    assert_eq!(beside(), 2, "one for each part");
    let crossing = parted.world.pull_part(IMPORTER, offer, &parted.to, &["*.0000[12]"]);
    let view = parted.world.settle(IMPORTER, crossing).await;
    assert_eq!(view.state, CrossingState::Done, "{:?}", view.problem);
    assert_eq!(parted.found(), files(&[("a.safetensors", &[1, 2])]));
    let receipt = parted.world.receipt(IMPORTER, crossing).body().clone();
    assert!(receipt.held_bytes > 0, "{receipt:?}");
    assert_eq!(receipt.bytes + receipt.held_bytes, 80 * GROUP as u64);
}

#[tokio::test]
async fn a_part_that_is_in_thousands_of_pieces_comes() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| {
        fs::write(dir.join("a.safetensors"), safetensors(&vec![9; 10_001])).expect("written");
    });
    let to = world.fresh(IMPORTER);
    let mut parted = Parted { world, model, offer, to };
    let (part, bytes) = parted.pull_well(&["*[02468]"]).await;
    assert_eq!((part.tensors, bytes), (5001, 9 * 5001));
    assert_eq!(parted.found()[0].1.len(), 5001);
}

#[tokio::test]
async fn a_part_of_awkward_models_comes() {
    for make in [awkward as fn(&Path), many_small] {
        for tensors in [&["*"][..], &["*[13579]"], &["model*::*", "empty.txt"], &["*0*"]] {
            let mut world = World::pair();
            let (offer, model) = world.offer(EXPORTER, make);
            let to = world.fresh(IMPORTER);
            let mut parted = Parted { world, model, offer, to };
            let view = parted.pull(tensors).await;
            if view.state == CrossingState::Failed {
                assert!(view.problem.expect("why").contains("fits no tensor"), "{tensors:?}");
                continue;
            }
            parted.found();
            if tensors == ["*"] {
                assert!(tree(&parted.to) == tree(&parted.model.path), "all of it, as it is");
                assert_eq!(view.part.expect("a part").manifest, parted.model.manifest);
            }
        }
    }
}

#[tokio::test]
async fn what_lies_here_in_another_version_is_copied_into_a_part() {
    let mut world = World::pair();
    let (offer, first) = world.offer(EXPORTER, |dir| {
        fs::write(dir.join("a.safetensors"), safetensors(&[4 * GROUP, 2 * GROUP])).expect("written");
    });
    let to = world.fresh(IMPORTER);
    world.pull_well(IMPORTER, offer, &first, &to).await;
    let (offer, model) = world.offer(EXPORTER, |dir| {
        fs::write(dir.join("b.safetensors"), safetensors(&[4 * GROUP, 2 * GROUP, GROUP])).expect("written");
    });
    let to = world.fresh(IMPORTER);
    let mut parted = Parted { world, model, offer, to };
    let (part, bytes) = parted.pull_well(&["*.0000[02]"]).await;
    assert_eq!((part.tensors, bytes), (2, GROUP as u64));
}

#[tokio::test]
async fn a_law_that_changes_ends_a_part_that_is_coming() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| {
        fs::write(dir.join("a.safetensors"), safetensors(&[80 * GROUP, 80 * GROUP])).expect("written");
    });
    let to = world.fresh(IMPORTER);
    let mut parted = Parted { world, model, offer, to };
    let crossing = parted.halfway(&["*.00001"]).await;
    let (member, key) = (parted.world.nodes[IMPORTER].member, parted.world.nodes[IMPORTER].public());
    parted.world.renew(member, 6 * HOUR, &[key]);
    for at in [EXPORTER, IMPORTER] {
        assert_eq!(parted.world.settle(at, crossing).await.state, CrossingState::Failed);
    }
    assert!(!parted.to.exists());
    assert!(parted.world.nodes[EXPORTER].sent() < parted.model.bytes);
}

#[tokio::test]
async fn one_that_wants_what_was_not_cleared_gets_none_of_it() {
    // Groups of `a.safetensors`: header 0, then 1..3, 3, and 4..6, 6 of people, 7..12; of the rest 12..17.
    let table: [(&[(u64, u64)], bool); 7] = [
        (&[(1, 4), (7, 17)], true),
        (&[(0, 1)], false),
        (&[(4, 5)], false),
        (&[(3, 5)], false),
        (&[(6, 8)], false),
        (&[(1, 2), (5, 6)], false),
        (&[(0, u64::MAX)], false),
    ];
    for (wanted, given) in table {
        let mut parted = Parted::new();
        let raw = RawImporter::open(&parted.world.nodes[IMPORTER].key);
        let address = parted.world.nodes[EXPORTER].bulk.local_addr();
        let mut wire = parted.world.during(raw.connect(address, 16 * 1024 * 1024)).await;
        let request = CrossingRequest {
            crossing: CrossingId([1; 32]),
            importer: raw.key.public(),
            exporter: parted.world.nodes[EXPORTER].public(),
            offer: parted.offer,
            manifest: parted.model.manifest,
            // It asks for all of it; the exporter leaves out what its law forbids.
            parts: Some(parted.model.parts.iter().map(|part| part.labels.clone()).collect()),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: [].into(),
            safeguards: Vec::new(),
            accreditation: parted.world.nodes[IMPORTER].accreditation.clone(),
            verdicts: StatementId([0; 32]),
            session: wire.session,
            ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
            asked: parted.world.now,
        };
        let request = parted.world.alliance.signed(&raw.key, &request);
        let manifest = load_manifest(&parted.world.nodes[EXPORTER].manifests(), parted.model.manifest).expect("kept");
        let bytes = usize::try_from(manifest.bytes_of_runs(wanted)).expect("small");
        let alliance = parted.world.alliance.id;
        let taken = parted
            .world
            .during(async {
                wire.frame(REQUEST, request.bytes()).await;
                let (kind, clearance) = wire.read().await.expect("an answer");
                assert_eq!(kind, CLEARANCE);
                let clearance = Signed::<ClearanceGiven>::open(&clearance, alliance).expect("a clearance");
                assert_eq!(clearance.body().parts, Some([[Label::Public].into()].into()));
                assert_eq!(clearance.body().labels, [Label::Public].into());
                assert_eq!(wire.read().await.expect("a manifest").0, MANIFEST);
                wire.want(wanted).await;
                wire.take(bytes).await
            })
            .await;
        match taken {
            Ok(taken) => assert!(given && taken.len() == bytes, "{wanted:?}"),
            Err(code) => assert!(!given && code == BAD_REQUEST, "{wanted:?}: {code}"),
        }
        assert_eq!(parted.world.nodes[EXPORTER].sent() > 0, given, "{wanted:?}");
    }
}
