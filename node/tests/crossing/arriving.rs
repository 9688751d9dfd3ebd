//! A node that gives to others what is still on its way to it (CROSSING-46): they get it as it comes, and nothing of it where it
//! does not come.

use std::path::PathBuf;

use alliance_node::bulk::Deadlines;
use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, LocalModel, Reply},
    crossing::{CrossingRequest, LedgerHead, RefusalCode},
    id::{CrossingId, Sha256, StatementId},
    vocabulary::{Purpose, Use},
};

use crate::{
    artefact::{Goods, plain, tree},
    raw::{BAD_REQUEST, CLEARANCE, DAMAGED, GROUPS, Guest, HAVE, MANIFEST, REQUEST, RawExporter, RawImporter, runs_of},
    scene::assert_undelivered,
    valve::Valve,
    world::{EXPORTER, IMPORTER, World},
};

const MODEL_GROUPS: usize = 48;

/// Bytes that come from the first exporter before it is held up.
const BEFORE_SHUT: u64 = 4 * 1024 * 1024;

/// The node between pulls from the first exporter, over a path that is shut after a part, and offers on what comes.
struct Chain {
    world: World,
    valve: Valve,
    between: usize,
    root: StatementId,
    onward: StatementId,
    model: LocalModel,
    /// The pull of the node between.
    first: CrossingId,
    to: PathBuf,
}

impl Chain {
    async fn new() -> Self {
        let mut world = World::pair();
        let between = world.join("ZA", "uct", Deadlines::default());
        let (root, model) = world.offer_onward(EXPORTER, |dir| plain(dir, MODEL_GROUPS));
        let valve = Valve::new(world.nodes[EXPORTER].bulk.local_addr(), BEFORE_SHUT).await;
        world.move_to(EXPORTER, valve.address());
        let to = world.fresh(between);
        let first = world.pull_from(between, root, &to, 1, true);
        world.during(valve.shut()).await;
        world.some_progress(between).await;
        let onward = onward_of(&mut world, between, root).expect("it offers it on");
        Self { world, valve, between, root, onward, model, first, to }
    }

    /// The importer has verified some of what the node between sends, which has not all of it itself.
    async fn in_the_middle(&mut self) {
        self.world.some_progress(IMPORTER).await;
        assert!(self.world.nodes[self.between].sent() > 0);
        assert_undelivered("it is still on its way", &self.to);
    }
}

fn onward_of(world: &mut World, at: usize, root: StatementId) -> Option<StatementId> {
    match world.call(at, AdminCall::Offers) {
        Reply::Offers(offers) => offers.into_iter().find(|view| view.own && view.root == Some(root)).map(|view| view.offer),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_is_still_arriving_is_given_on_as_it_comes() {
    // One that asks only the node between wants everything at once; one that may ask others too, what that one has.
    for sources in [1, 2] {
        let mut chain = Chain::new().await;
        let to = chain.world.fresh(IMPORTER);
        let crossing = chain.world.pull_from(IMPORTER, chain.onward, &to, sources, false);
        chain.in_the_middle().await;
        chain.valve.open();
        let views = [(chain.between, chain.first), (IMPORTER, crossing), (chain.between, crossing)];
        for (at, crossing) in views {
            let view = chain.world.settle(at, crossing).await;
            assert_eq!(view.state, CrossingState::Done, "{sources}, {at}: {view:?}");
        }
        for to in [&to, &chain.to] {
            assert!(tree(to) == tree(&chain.model.path));
        }
        let receipt = chain.world.receipt(IMPORTER, crossing).body().clone();
        assert_eq!(receipt.bytes, chain.world.nodes[chain.between].sent());
        assert_eq!(receipt.bytes + receipt.held_bytes, chain.model.bytes);
        assert!(sources > 1 || receipt.held_bytes == 0);
        assert!(onward_of(&mut chain.world, chain.between, chain.root).is_some(), "it goes on offering it");
    }
}

#[tokio::test]
async fn a_node_whose_own_pull_is_cut_ends_what_it_gives_on() {
    type Cut = fn(&Chain) -> AdminCall;
    let cuts: [(&str, Cut); 2] = [
        ("cancelled", |chain| AdminCall::Cancel(chain.first)),
        ("withdrawn", |chain| AdminCall::Withdraw { offer: chain.onward, reason: String::new() }),
    ];
    for (what, cut) in cuts {
        let mut chain = Chain::new().await;
        let to = chain.world.fresh(IMPORTER);
        let crossing = chain.world.pull(IMPORTER, chain.onward, &to);
        chain.in_the_middle().await;
        // The importer hears of it by the crossing alone.
        let reply = chain.world.call_unheard(chain.between, cut(&chain));
        assert!(matches!(reply, Reply::Cancelled { .. } | Reply::Withdrawn { .. }), "{what}: {reply:?}");
        for at in [IMPORTER, chain.between] {
            let view = chain.world.settle(at, crossing).await;
            assert_eq!(view.state, CrossingState::Failed, "{what}, {at}: {view:?}");
            assert!(!chain.world.nodes[at].failure(crossing).2, "{what}: nobody lied");
        }
        let (_, problem, _) = chain.world.nodes[IMPORTER].failure(crossing);
        assert!(problem.contains("the other side ended it: ended"), "{what}: {problem}");
        assert_undelivered(what, &to);
        assert_eq!(chain.world.running(IMPORTER), 0);
    }
}

#[tokio::test]
async fn what_was_given_on_by_one_whose_pull_is_cut_comes_from_the_others_then() {
    let mut chain = Chain::new().await;
    let to = chain.world.fresh(IMPORTER);
    // Both are asked; the first exporter is held up.
    let lead = chain.world.pull_from(IMPORTER, chain.onward, &to, 2, false);
    chain.in_the_middle().await;
    chain.world.call_unheard(chain.between, AdminCall::Cancel(chain.first));
    let view = chain.world.settle(IMPORTER, lead).await;
    assert_eq!(view.state, CrossingState::Failed, "{view:?}");
    chain.valve.open();
    let Reply::Crossings(views) = chain.world.call(IMPORTER, AdminCall::Sources(lead)) else { panic!("no sources") };
    let other = views.into_iter().find(|view| view.crossing != lead).expect("the first exporter");
    let view = chain.world.settle(IMPORTER, other.crossing).await;
    assert_eq!(view.state, CrossingState::Done, "{view:?}");
    assert!(tree(&to) == tree(&chain.model.path));
    assert!(chain.world.receipt(IMPORTER, other.crossing).body().held_bytes > 0, "and what came before is not sent again");
}

#[tokio::test]
async fn a_node_that_is_lied_to_gives_on_nothing_of_the_lie() {
    let mut world = World::pair();
    let between = world.join("ZA", "uct", Deadlines::default());
    let (root, model) = world.offer_onward(EXPORTER, |dir| plain(dir, MODEL_GROUPS));
    let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
    let raw = RawExporter::open(&world.nodes[EXPORTER].key, world.alliance.id);
    world.move_to(EXPORTER, raw.address());
    let first = {
        let to = world.fresh(between);
        world.pull_from(between, root, &to, 1, true)
    };
    let half = goods.groups.iter().take(MODEL_GROUPS / 2).map(Vec::len).sum::<usize>();
    let mut guest: Guest = world
        .during(async {
            let mut guest = raw.accept().await;
            guest.clear().await;
            guest.wire.frame(MANIFEST, &goods.manifest.encode()).await;
            guest.wire.groups(&goods.stream(&[])[..half]).await;
            guest
        })
        .await;
    world.some_progress(between).await;
    let onward = onward_of(&mut world, between, root).expect("it offers it on");
    let to = world.fresh(IMPORTER);
    let crossing = world.pull(IMPORTER, onward, &to);
    world.some_progress(IMPORTER).await;
    let wrong: Vec<u8> = goods.stream(&[])[half..].iter().map(|byte| !byte).collect();
    let told = world
        .during(async {
            guest.wire.groups(&wrong).await;
            guest.wire.told().await
        })
        .await;
    assert_eq!(told, DAMAGED);
    assert!(world.settle(between, first).await.refusal == Some(RefusalCode::Damaged));
    let view = world.settle(IMPORTER, crossing).await;
    assert_eq!((view.state, view.refusal), (CrossingState::Failed, None), "nobody lied to it: {view:?}");
    assert_undelivered("half of it", &to);
    assert!(view.bytes <= u64::try_from(half).expect("small"), "{view:?}");
    assert_eq!(onward_of(&mut world, between, root), None, "it is taken back");
}

#[tokio::test]
async fn one_that_asks_what_is_arriving_is_told_of_each_group_once_and_sent_what_it_wants() {
    let mut chain = Chain::new().await;
    let goods = Goods::of(&chain.model, &chain.world.nodes[EXPORTER].manifests());
    let raw = RawImporter::open(&chain.world.nodes[IMPORTER].key);
    let address = chain.world.nodes[chain.between].bulk.local_addr();
    let mut wire = chain.world.during(raw.connect(address, 64 * 1024 * 1024)).await;
    let request = CrossingRequest {
        crossing: CrossingId([1; 32]),
        importer: raw.key.public(),
        exporter: chain.world.nodes[chain.between].public(),
        offer: chain.onward,
        manifest: chain.model.manifest,
        parts: None,
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: [].into(),
        safeguards: Vec::new(),
        accreditation: chain.world.nodes[IMPORTER].accreditation.clone(),
        verdicts: StatementId([0; 32]),
        session: wire.session,
        ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
        asked: chain.world.now,
    };
    let request = chain.world.alliance.signed(&raw.key, &request);
    let count = goods.manifest.group_count();
    let told = chain
        .world
        .during(async {
            wire.frame(REQUEST, request.bytes()).await;
            assert_eq!(wire.read().await.expect("an answer").0, CLEARANCE);
            assert_eq!(wire.read().await.expect("a manifest").0, MANIFEST);
            wire.runs(HAVE).await
        })
        .await;
    let told_groups = |runs: &[(u64, u64)]| runs.iter().map(|(first, end)| end - first).sum::<u64>();
    let before = told_groups(&told);
    assert!((1..count).contains(&before), "{told:?}: a part of it");
    chain.valve.open();
    // The last group, before and after it is there: it waits until it is.
    let last = goods.groups.last().expect("some").len();
    let (bytes, after) = chain
        .world
        .during(async {
            wire.want(&[(count - 1, count)]).await;
            let (mut after, mut bytes) = (0, Vec::new());
            while bytes.len() < last || before + after < count {
                match wire.next().await {
                    (HAVE, runs) => after += told_groups(&runs_of(&runs)),
                    (GROUPS, groups) => bytes.extend(groups),
                    other => panic!("{other:?}"),
                }
            }
            (bytes, after)
        })
        .await;
    assert_eq!((before + after, bytes.as_slice()), (count, goods.groups.last().expect("some").as_slice()));
    wire.want(&[(count - 1, count)]).await;
    assert_eq!(chain.world.during(wire.told()).await, BAD_REQUEST, "a group is sent once");
}
