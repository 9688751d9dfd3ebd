//! One artefact from several nodes at once, of which some are not what they say: it arrives as it is, and each crossing counts
//! what came by it (CROSSING-47).

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alliance_node::bulk::Deadlines;
use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, CrossingView, LocalModel, Reply},
    crossing::RefusalCode,
    id::{CrossingId, StatementId},
};
use futures::future::join_all;

use crate::{
    artefact::{GROUP, Goods, plain, tree},
    raw::{BAD_REQUEST, DAMAGED, GAVE_UP, Guest, HAVE, MANIFEST, RawExporter, WANT},
    valve::Valve,
    world::{EXPORTER, IMPORTER, World},
};

/// Groups of the model: enough that no source is asked for all of it at once.
const MODEL_GROUPS: usize = 64;

/// Bytes that come from the first exporter before it is held up: its clearance, its manifest and a part of what it is asked.
const BEFORE_SHUT: u64 = 2 * 1024 * 1024;

/// The first exporter, the importer, and others that got the model and offer it on. The first exporter is held up after a
/// part, until the test lets it go on, so that the others are needed.
struct Street {
    world: World,
    valve: Valve,
    root: StatementId,
    model: LocalModel,
    goods: Goods,
    /// Those that offer it on.
    holders: Vec<usize>,
}

impl Street {
    async fn new(holders: &[(&str, &str)]) -> Self {
        let mut world = World::pair();
        let holders: Vec<usize> =
            holders.iter().map(|(member, name)| world.join(member, name, Deadlines::default())).collect();
        let (root, model) = world.offer_onward(EXPORTER, |dir| plain(dir, MODEL_GROUPS));
        let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
        for holder in &holders {
            let to = world.fresh(*holder);
            let crossing = world.pull_from(*holder, root, &to, 1, true);
            let view = world.settle(*holder, crossing).await;
            assert_eq!(view.state, CrossingState::Done, "{view:?}");
        }
        let valve = Valve::new(world.nodes[EXPORTER].bulk.local_addr(), BEFORE_SHUT).await;
        world.move_to(EXPORTER, valve.address());
        Self { world, valve, root, model, goods, holders }
    }

    /// In the place of a node that offers it on, one with its key that says what the test wants.
    fn replace(&mut self, holder: usize) -> RawExporter {
        let raw = RawExporter::open(&self.world.nodes[holder].key, self.world.alliance.id);
        self.world.move_to(holder, raw.address());
        raw
    }

    /// Begins the pull from all of them.
    fn pull(&mut self) -> (CrossingId, PathBuf) {
        let to = self.world.fresh(IMPORTER);
        let sources = u32::try_from(self.holders.len()).expect("few") + 1;
        (self.world.pull_from(IMPORTER, self.root, &to, sources, false), to)
    }

    /// The crossings of a pull, when all of them are over.
    async fn settle(&mut self, lead: CrossingId) -> Vec<CrossingView> {
        let world = &mut self.world;
        world.run_until("the pull", |world| sources(world, lead).iter().all(|view| view.state.is_final())).await;
        sources(world, lead)
    }

    /// The artefact is there and is what it is, and each receipt counts what its exporter sent since `before`.
    #[track_caller]
    fn assert_arrived(&self, to: &Path, views: &[CrossingView], before: &[u64]) -> u64 {
        assert!(tree(to) == tree(&self.model.path), "the files are other files");
        let beside: Vec<_> = std::fs::read_dir(to.parent().expect("inside")).expect("there").collect();
        assert_eq!(beside.len(), 1, "nothing is left beside it: {beside:?}");
        let done = views.iter().filter(|view| view.state == CrossingState::Done);
        let mut moved = 0;
        for view in done {
            let exporter = self.node(view);
            let receipt = self.world.receipt(IMPORTER, view.crossing);
            assert_eq!(receipt.bytes(), self.world.receipt(exporter, view.crossing).bytes(), "both keep the same");
            assert_eq!(receipt.signers().len(), 2);
            let receipt = receipt.body();
            assert_eq!(receipt.bytes, self.world.nodes[exporter].sent() - before[exporter], "what was sent");
            assert_eq!(receipt.bytes + receipt.held_bytes, self.model.bytes);
            moved += receipt.bytes;
        }
        moved
    }

    fn node(&self, view: &CrossingView) -> usize {
        self.world.nodes.iter().position(|node| node.public() == view.peer).expect("a node")
    }

    fn sent(&self) -> Vec<u64> {
        self.world.nodes.iter().map(crate::world::Node::sent).collect()
    }

    /// A pull that goes well although somebody in the place of the first holder follows this script; gives the code that it
    /// was told, and its crossing.
    async fn well_beside(&mut self, script: impl AsyncFnOnce(Guest, &Goods) -> u64) -> (u64, CrossingView) {
        let liar = self.holders[0];
        let raw = self.replace(liar);
        let before = self.sent();
        let (lead, to) = self.pull();
        let Self { world, goods, valve, .. } = self;
        let told = world
            .during(async {
                let told = script(raw.accept().await, goods).await;
                valve.open();
                told
            })
            .await;
        let views = self.settle(lead).await;
        self.assert_arrived(&to, &views, &before);
        let (of_liar, others): (Vec<_>, Vec<_>) = views.into_iter().partition(|view| self.node(view) == liar);
        assert!(others.iter().all(|view| view.state == CrossingState::Done), "{others:?}");
        assert_eq!(self.world.running(IMPORTER), 0);
        (told, of_liar.into_iter().next().expect("it was asked"))
    }
}

fn sources(world: &mut World, lead: CrossingId) -> Vec<CrossingView> {
    match world.call(IMPORTER, AdminCall::Sources(lead)) {
        Reply::Crossings(views) => views,
        other => panic!("{other:?}"),
    }
}

impl Guest {
    /// Clears, and says that it has these groups.
    async fn offers(&mut self, goods: &Goods, runs: &[(u64, u64)]) {
        self.clear().await;
        self.wire.frame(MANIFEST, &goods.manifest.encode()).await;
        if !runs.is_empty() {
            self.has(runs).await;
        }
    }

    async fn has(&mut self, runs: &[(u64, u64)]) {
        let payload: Vec<u8> =
            runs.iter().flat_map(|(first, end)| [first.to_be_bytes(), end.to_be_bytes()].concat()).collect();
        self.wire.frame(HAVE, &payload).await;
    }

    /// The bytes of what is wanted first: several groups.
    async fn several(&mut self, goods: &Goods) -> Vec<u8> {
        let mut bytes = self.wanted(goods).await;
        while bytes.len() < 3 * GROUP {
            bytes.extend(self.wanted(goods).await);
        }
        bytes
    }

    /// The bytes of what is wanted next, by one frame.
    async fn wanted(&mut self, goods: &Goods) -> Vec<u8> {
        let runs = self.wire.runs(WANT).await;
        let groups = runs.into_iter().flat_map(|(first, end)| first..end);
        groups.flat_map(|group| goods.groups[usize::try_from(group).expect("few")].clone()).collect()
    }
}

#[tokio::test]
async fn several_sources_bring_one_artefact_and_no_byte_of_it_twice() {
    let mut street = Street::new(&[("ZA", "uct"), ("CN", "thu")]).await;
    let before = street.sent();
    let (lead, to) = street.pull();
    let holders = street.holders.clone();
    let both = |world: &mut World| holders.iter().all(|holder| world.nodes[*holder].sent() > before[*holder]);
    street.world.run_until("the others are at it", both).await;
    street.valve.open();
    let views = street.settle(lead).await;
    assert!(views.iter().all(|view| view.state == CrossingState::Done), "{views:?}");
    let moved = street.assert_arrived(&to, &views, &before);
    assert_eq!((views.len(), moved), (3, street.model.bytes), "the receipts add up to the artefact");
    assert!(views.iter().all(|view| view.bytes > 0), "each has brought something");
    assert_eq!(views.iter().map(|view| view.bytes).sum::<u64>(), moved, "and that is what is shown");
    for view in &views {
        let exporter = street.node(view);
        assert_eq!(street.world.nodes[exporter].kinds(view.crossing), ["cleared", "settled"]);
    }
    // What is here already moves nothing, from whomever.
    let (before, sources) = (street.sent(), 3);
    let again = street.world.pull_from(IMPORTER, street.root, &to, sources, false);
    let views = street.settle(again).await;
    assert!(views.iter().any(|view| view.state == CrossingState::Done), "{views:?}");
    assert_eq!((street.assert_arrived(&to, &views, &before), street.sent()), (0, before));
}

#[tokio::test]
async fn a_source_that_sends_wrong_bytes_is_found_out_and_the_others_bring_all() {
    let mut street = Street::new(&[("ZA", "uct")]).await;
    let (told, view) = street
        .well_beside(async |mut guest, goods| {
            guest.offers(goods, &[(0, goods.manifest.group_count())]).await;
            let mut bytes = guest.several(goods).await;
            // The first group is good, the second is not.
            bytes[GROUP + 1000] ^= 1;
            guest.wire.groups(&bytes).await;
            guest.wire.told().await
        })
        .await;
    assert_eq!(told, DAMAGED);
    assert_eq!((view.state, view.refusal), (CrossingState::Failed, Some(RefusalCode::Damaged)), "{view:?}");
    assert!(street.world.nodes[IMPORTER].failure(view.crossing).2, "recorded as tampered");
}

#[tokio::test]
async fn a_source_that_sends_what_nobody_wanted_breaks_the_protocol() {
    type Script = fn(Vec<u8>) -> Vec<u8>;
    // Of what it is first asked for: nothing of it is sent before it is wanted, it is sent twice, or with more behind it.
    let lies: [(&str, Option<Script>); 3] = [
        ("before anything was wanted", None),
        ("twice", Some(|bytes| bytes.repeat(MODEL_GROUPS))),
        ("more behind it", Some(|bytes| [bytes, vec![0; MODEL_GROUPS * GROUP]].concat())),
    ];
    for (what, lie) in lies {
        let mut street = Street::new(&[("ZA", "uct")]).await;
        let (told, view) = street
            .well_beside(async |mut guest, goods| {
                let bytes = match lie {
                    Some(lie) => {
                        guest.offers(goods, &[(0, goods.manifest.group_count())]).await;
                        lie(guest.wanted(goods).await)
                    }
                    None => {
                        guest.offers(goods, &[]).await;
                        goods.groups[0].clone()
                    }
                };
                guest.wire.groups(&bytes).await;
                guest.wire.told().await
            })
            .await;
        // What is sent too much is taken for a group that was asked for since, if one was.
        assert!([BAD_REQUEST, DAMAGED].contains(&told), "{what}: {told}");
        assert_eq!(view.state, CrossingState::Failed, "{what}: {view:?}");
        if lie.is_none() {
            assert!(told == BAD_REQUEST && view.problem.is_some_and(|why| why.contains("more bytes than were wanted")));
        }
    }
}

#[tokio::test]
async fn a_source_that_says_it_has_what_does_not_exist_breaks_the_protocol() {
    let mut street = Street::new(&[("ZA", "uct")]).await;
    let count = street.goods.manifest.group_count();
    let lies = [vec![(count, count + 1)], vec![(0, 1), (u64::MAX - 1, u64::MAX)], vec![(3, 3)], vec![(5, 6), (4, 5)]];
    for runs in lies {
        street.valve = Valve::new(street.world.nodes[EXPORTER].bulk.local_addr(), BEFORE_SHUT).await;
        street.world.move_to(EXPORTER, street.valve.address());
        let (told, view) = street
            .well_beside(async |mut guest, goods| {
                guest.offers(goods, &runs).await;
                guest.wire.told().await
            })
            .await;
        assert_eq!((told, view.state), (BAD_REQUEST, CrossingState::Failed), "{runs:?}: {view:?}");
    }
}

#[tokio::test]
async fn a_source_that_dies_in_the_middle_is_made_up_for() {
    for code in [1, 22, 25, 4711] {
        let mut street = Street::new(&[("ZA", "uct")]).await;
        let (_, view) = street
            .well_beside(async |mut guest, goods| {
                guest.offers(goods, &[(0, goods.manifest.group_count())]).await;
                let bytes = guest.several(goods).await;
                guest.wire.groups(&bytes[..GROUP + GROUP / 2]).await;
                guest.wire.close(code);
                u64::from(code)
            })
            .await;
        assert_eq!(view.state, CrossingState::Failed, "{code}: {view:?}");
        assert_eq!(street.world.nodes[IMPORTER].failure(view.crossing).2, code == 22, "{code}");
    }
}

#[tokio::test]
async fn sources_that_owe_what_they_do_not_bring_are_dropped_when_all_else_is_here() {
    let mut street = Street::new(&[("ZA", "uct"), ("CN", "thu"), ("IN", "iisc")]).await;
    let liars = street.holders.clone();
    let raws: Vec<_> = liars.iter().map(|holder| street.replace(*holder)).collect();
    let before = street.sent();
    let (lead, to) = street.pull();
    // Nothing of what it is asked for, a part of it, all but its last byte.
    let brings: [fn(usize) -> usize; 3] = [|_| 0, |bytes| bytes / 2, |bytes| bytes - 1];
    let Street { world, goods, valve, .. } = &mut street;
    let scripts = raws.iter().zip(brings).map(async |(raw, brings)| {
        let mut guest = raw.accept().await;
        guest.offers(goods, &[(0, goods.manifest.group_count())]).await;
        let bytes = guest.wanted(goods).await;
        guest.wire.groups(&bytes[..brings(bytes.len())]).await;
        guest
    });
    let mut guests = world.during(join_all(scripts)).await;
    valve.open();
    let told = world.during(join_all(guests.iter_mut().map(|guest| guest.wire.told()))).await;
    assert_eq!(told, [GAVE_UP; 3]);
    let views = street.settle(lead).await;
    street.assert_arrived(&to, &views, &before);
    for view in views.iter().filter(|view| liars.contains(&street.node(view))) {
        let (_, problem, tampered) = street.world.nodes[IMPORTER].failure(view.crossing);
        assert!(problem.contains("too slow") && !tampered, "{problem}");
    }
    assert_eq!(views.iter().filter(|view| view.state == CrossingState::Done).count(), 1, "the honest one");
}

#[tokio::test]
async fn nothing_is_wanted_of_a_source_but_what_it_has() {
    let mut street = Street::new(&[("ZA", "uct")]).await;
    let (_, view) = street
        .well_beside(async |mut guest, goods| {
            // Parts of two pieces, and one piece as a whole, told bit by bit.
            guest.offers(goods, &[(0, 1), (10, 11)]).await;
            for group in 20..32 {
                guest.has(&[(group, group + 1)]).await;
            }
            let mut runs = guest.wire.runs(WANT).await;
            assert!(runs.iter().all(|(first, end)| (20..32).contains(first) && *end <= 32), "{runs:?}");
            while let Some((first, end)) = runs.pop() {
                let groups = first..end;
                let bytes: Vec<u8> =
                    groups.flat_map(|group| goods.groups[usize::try_from(group).expect("few")].clone()).collect();
                guest.wire.groups(&bytes).await;
            }
            guest.wire.close(1);
            0
        })
        .await;
    assert_eq!(view.state, CrossingState::Failed, "it gave up: {view:?}");
}

#[tokio::test]
async fn a_source_that_has_nothing_is_not_waited_for_without_end() {
    // Nobody else is there, but others might be, so that nothing is wanted before somebody has it.
    let mut world = World::with(Deadlines { receipt: Duration::from_millis(600), ..Deadlines::default() });
    let (root, model) = world.offer_onward(EXPORTER, |dir| plain(dir, 3));
    let goods = Goods::of(&model, &world.nodes[EXPORTER].manifests());
    for runs in [vec![], vec![(0, 1)]] {
        let raw = RawExporter::open(&world.nodes[EXPORTER].key, world.alliance.id);
        world.move_to(EXPORTER, raw.address());
        let to = world.fresh(IMPORTER);
        let crossing = world.pull_from(IMPORTER, root, &to, 2, false);
        let told = world
            .during(async {
                let mut guest = raw.accept().await;
                guest.offers(&goods, &runs).await;
                guest.wire.told().await
            })
            .await;
        let view = world.settle(IMPORTER, crossing).await;
        assert_eq!((told, view.state), (GAVE_UP, CrossingState::Failed), "{view:?}");
        assert!(view.problem.as_ref().is_some_and(|why| why.contains("no progress")), "{view:?}");
        world.move_home(EXPORTER);
    }
}

#[tokio::test]
async fn a_source_with_the_right_key_and_another_manifest_brings_nothing() {
    let mut street = Street::new(&[("ZA", "uct")]).await;
    let (_, other) = street.world.offer(EXPORTER, |dir| plain(dir, MODEL_GROUPS - 1));
    let other = Goods::of(&other, &street.world.nodes[EXPORTER].manifests());
    let (told, view) = street
        .well_beside(async |mut guest, _| {
            guest.offers(&other, &[(0, 1)]).await;
            guest.wire.told().await
        })
        .await;
    assert_eq!((told, view.refusal), (DAMAGED, Some(RefusalCode::Damaged)), "{view:?}");
}

#[tokio::test]
async fn a_pull_of_which_every_source_fails_delivers_nothing_and_goes_on_later() {
    let mut street = Street::new(&[("ZA", "uct"), ("CN", "thu")]).await;
    let raws: Vec<_> = [EXPORTER].iter().chain(&street.holders.clone()).map(|at| street.replace(*at)).collect();
    let (lead, to) = street.pull();
    let Street { world, goods, .. } = &mut street;
    let scripts = raws.iter().map(async |raw| {
        let mut guest = raw.accept().await;
        guest.offers(goods, &[(0, goods.manifest.group_count())]).await;
        let bytes = guest.wanted(goods).await;
        guest.wire.groups(&bytes[..bytes.len() - 1]).await;
        guest
    });
    let guests = world.during(join_all(scripts)).await;
    // Something of it is here before any of them goes.
    let some = |world: &mut World| sources(world, lead).iter().any(|view| view.bytes > 0);
    world.run_until("something is here", some).await;
    guests.iter().for_each(|guest| guest.wire.close(1));
    let views = street.settle(lead).await;
    assert!(views.iter().all(|view| view.state == CrossingState::Failed), "{views:?}");
    crate::scene::assert_undelivered("all have failed", &to);
    for at in [vec![EXPORTER], street.holders.clone()].concat() {
        street.world.move_home(at);
    }
    let before = street.sent();
    let again = street.world.pull_from(IMPORTER, street.root, &to, 3, false);
    let views = street.settle(again).await;
    let moved = street.assert_arrived(&to, &views, &before);
    assert!(moved < street.model.bytes, "what came from the others is kept");
}
