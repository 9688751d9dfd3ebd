//! An importer that is cleared and then behaves badly. The exporter knows what may have left, and serves the others.

use std::{collections::BTreeSet, time::Duration};

use alliance_node::bulk::Deadlines;
use alliance_protocol::{
    core::admin::{CrossingState, LocalModel},
    crossing::{ClearanceGiven, CrossingRequest, LedgerHead, Receipt},
    envelope::Signed,
    id::{CrossingId, ManifestId, Sha256, StatementId},
    limits,
    vocabulary::{Purpose, Use},
};

use crate::{
    alliance::key,
    artefact::{Goods, plain, tree},
    raw::{BAD_REQUEST, BUSY, CLEARANCE, GAVE_UP, MANIFEST, RECEIPT, REQUEST, RawImporter, WANT, Wire},
    world::{EXPORTER, IMPORTER, World},
};

/// Room that the rude importer gives for bytes that it has not read.
const WINDOW: u32 = 500_000;

/// Every group there is.
const ALL: [(u64, u64); 1] = [(0, u64::MAX)];

/// Makes the bytes of a false receipt out of a true one.
type Lie = Box<dyn Fn(&Street, Receipt) -> Vec<u8>>;

/// The rude one has the key of the importer; the neighbour is a node in South Africa.
struct Street {
    world: World,
    raw: RawImporter,
    neighbour: usize,
    offer: StatementId,
    model: LocalModel,
    asked: u8,
}

impl Street {
    fn new(deadlines: Deadlines, groups: usize) -> Self {
        let mut world = World::with(deadlines);
        let neighbour = world.join("ZA", "uct", Deadlines::default());
        let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, groups));
        let raw = RawImporter::open(&world.nodes[IMPORTER].key);
        Self { world, raw, neighbour, offer, model, asked: 0 }
    }

    /// Asks for what it may have, and gets a clearance and a manifest; then for these groups of it.
    async fn cleared(&mut self, wanted: &[(u64, u64)]) -> (Wire, Signed<ClearanceGiven>) {
        self.asked += 1;
        let address = self.world.nodes[EXPORTER].bulk.local_addr();
        let mut wire = self.world.during(self.raw.connect(address, WINDOW)).await;
        let request = CrossingRequest {
            crossing: CrossingId([self.asked; 32]),
            importer: self.raw.key.public(),
            exporter: self.world.nodes[EXPORTER].public(),
            offer: self.offer,
            manifest: self.model.manifest,
            parts: None,
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            accreditation: self.world.nodes[IMPORTER].accreditation.clone(),
            verdicts: StatementId([0; 32]),
            session: wire.session,
            ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
            asked: self.world.now,
        };
        let request = self.world.alliance.signed(&self.raw.key, &request);
        let clearance = self
            .world
            .during(async {
                wire.frame(REQUEST, request.bytes()).await;
                let (kind, clearance) = wire.read().await.expect("an answer");
                assert_eq!(kind, CLEARANCE);
                assert_eq!(wire.read().await.expect("a manifest").0, MANIFEST);
                if !wanted.is_empty() {
                    wire.want(wanted).await;
                }
                clearance
            })
            .await;
        (wire, Signed::open(&clearance, self.world.alliance.id).expect("a clearance"))
    }

    /// The exporter has recorded that it failed, and as many bytes as it has sent since `before`.
    async fn failed(&mut self, clearance: &Signed<ClearanceGiven>, before: u64) -> (u64, String) {
        let crossing = clearance.body().crossing;
        let view = self.world.settle(EXPORTER, crossing).await;
        assert_eq!(view.state, CrossingState::Failed, "{view:?}");
        let (bytes, problem, tampered) = self.world.nodes[EXPORTER].failure(crossing);
        assert!(!tampered, "{problem}");
        assert_eq!(self.world.nodes[EXPORTER].kinds(crossing), ["cleared", "crossing_failed"]);
        assert_eq!(bytes, self.world.nodes[EXPORTER].sent() - before, "{problem}");
        (bytes, problem)
    }

    async fn neighbour_pulls(&mut self) {
        let to = self.world.fresh(self.neighbour);
        self.world.pull_well(self.neighbour, self.offer, &self.model, &to).await;
    }
}

/// Takes all bytes. The exporter, which is done when it has handed them over, may cut short what is still on its way; gives
/// the code with which it did.
async fn take_all(wire: &mut Wire, bytes: u64) -> Option<u64> {
    let code = wire.take(usize::try_from(bytes).expect("small")).await.err()?;
    wire.close(0);
    Some(code)
}

#[tokio::test]
async fn one_that_never_reads_holds_up_nobody_and_gets_its_window() {
    let short = Deadlines { stall: Duration::from_millis(1500), ..Deadlines::default() };
    let mut street = Street::new(short, 16);
    let (mut wire, clearance) = street.cleared(&ALL).await;
    let told = {
        let world = &mut street.world;
        world.during(wire.told()).await
    };
    assert_eq!(told, GAVE_UP);
    let (bytes, problem) = street.failed(&clearance, 0).await;
    assert!(problem.contains("no progress"), "{problem}");
    assert!(bytes <= u64::from(WINDOW), "{bytes}: no more than it gave room for");
    street.world.restart(EXPORTER, Deadlines::default()).await;
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn one_that_stops_reading_in_the_middle_gets_what_it_read_and_its_window() {
    let short = Deadlines { stall: Duration::from_millis(1500), ..Deadlines::default() };
    let mut street = Street::new(short, 16);
    let (mut wire, clearance) = street.cleared(&ALL).await;
    let mut some = vec![0; 2_000_000];
    street.world.during(wire.recv.read_exact(&mut some)).await.expect("some bytes");
    let told = street.world.during(wire.told()).await;
    assert_eq!(told, GAVE_UP);
    let (bytes, problem) = street.failed(&clearance, 0).await;
    assert!(problem.contains("no progress"), "{problem}");
    assert!((2_000_000..=2_000_000 + u64::from(WINDOW)).contains(&bytes), "{bytes}");
    street.world.restart(EXPORTER, Deadlines::default()).await;
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn one_that_takes_all_and_never_says_so_is_left_unsettled() {
    let short = Deadlines { receipt: Duration::from_millis(600), ..Deadlines::default() };
    let mut street = Street::new(short, 3);
    for words in [0, 1, 5, 100] {
        let before = street.world.nodes[EXPORTER].sent();
        let (mut wire, clearance) = street.cleared(&ALL).await;
        let all = street.model.bytes;
        // So much of a receipt, and then nothing.
        let receipt = [&[RECEIPT][..], &300_u32.to_be_bytes(), &[0x81; 300]].concat();
        let told = street
            .world
            .during(async {
                if let Some(code) = take_all(&mut wire, all).await {
                    return code;
                }
                wire.bytes(&receipt[..words]).await;
                wire.told().await
            })
            .await;
        let (bytes, problem) = street.failed(&clearance, before).await;
        assert_eq!((bytes, told), (street.model.bytes, GAVE_UP), "{words}: {problem}");
    }
    street.world.restart(EXPORTER, Deadlines::default()).await;
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn one_whose_receipt_is_not_as_long_as_it_says_is_left_unsettled() {
    let frame = |kind: u8, announced: u32, payload: &[u8]| [&[kind][..], &announced.to_be_bytes(), payload].concat();
    let statement = 16 * 1024;
    let lies = [
        Vec::new(),
        vec![RECEIPT, 0, 0],
        frame(RECEIPT, 300, &[0x81; 299]),
        frame(RECEIPT, statement + 1, &[0x81; 20_000]),
        frame(RECEIPT, u32::MAX, &[0x81; 1000]),
        frame(REQUEST, 0, b""),
        frame(MANIFEST, 10, &[0; 10]),
        frame(9, 10, &[0; 10]),
    ];
    let mut street = Street::new(Deadlines::default(), 3);
    // Said when all has come, and said before any of it has.
    for early in [false, true] {
        for lie in &lies {
            let what = format!("early: {early}, {:02x?}", &lie[..lie.len().min(8)]);
            let before = street.world.nodes[EXPORTER].sent();
            let (mut wire, clearance) = street.cleared(&ALL).await;
            let all = street.model.bytes;
            let told = street
                .world
                .during(async {
                    if early {
                        wire.bytes(lie).await;
                        let _stopped = wire.send.finish();
                    }
                    if let Some(code) = take_all(&mut wire, all).await {
                        return code;
                    }
                    if !early {
                        wire.bytes(lie).await;
                    }
                    let _stopped = wire.send.finish();
                    wire.told().await
                })
                .await;
            let (bytes, problem) = street.failed(&clearance, before).await;
            assert_eq!(told, BAD_REQUEST, "{what}: {problem}");
            assert!(bytes == street.model.bytes || early && bytes < street.model.bytes, "{what}: {bytes}");
        }
    }
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn one_that_leaves_in_the_middle_is_recorded() {
    let mut street = Street::new(Deadlines::default(), 16);
    for code in [0, 1, 22, 25, 4711] {
        let before = street.world.nodes[EXPORTER].sent();
        let (mut wire, clearance) = street.cleared(&ALL).await;
        let mut some = vec![0; 700_000];
        street.world.during(wire.recv.read_exact(&mut some)).await.expect("some bytes");
        wire.close(code);
        let crossing = clearance.body().crossing;
        let view = street.world.settle(EXPORTER, crossing).await;
        assert_eq!(view.state, CrossingState::Failed, "{view:?}");
        let (bytes, problem, tampered) = street.world.nodes[EXPORTER].failure(crossing);
        assert_eq!(tampered, code == 22, "{code}: {problem}");
        assert_eq!(bytes, street.world.nodes[EXPORTER].sent() - before);
        assert!((700_000..street.model.bytes).contains(&bytes), "{bytes}");
    }
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn a_slow_one_does_not_hold_up_a_neighbour() {
    let mut street = Street::new(Deadlines::default(), 16);
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(street.cleared(&ALL).await);
    }
    let to = street.world.fresh(street.neighbour);
    let crossing = street.world.pull(street.neighbour, street.offer, &to);
    let view = street.world.settle(street.neighbour, crossing).await;
    assert_eq!(view.state, CrossingState::Done, "{view:?}");
    assert!(tree(&to) == tree(&street.model.path));
    assert_eq!(street.world.running(EXPORTER), 4, "the slow ones are still at it");
    drop(slow);
}

#[tokio::test]
async fn one_that_opens_many_connections_has_its_share_and_no_more() {
    let mut street = Street::new(Deadlines::default(), 1);
    let address = street.world.nodes[EXPORTER].bulk.local_addr();
    let (mut wires, mut told) = (Vec::new(), Vec::new());
    for _ in 0..limits::CROSSINGS_PER_PEER_MAX + 2 {
        match street.world.during(street.raw.try_connect(address, WINDOW)).await {
            Ok(mut wire) => {
                // The first bytes of a request, so that the exporter sees the stream.
                wire.bytes(&[REQUEST, 0]).await;
                wires.push(wire);
            }
            // It may be told before it has a stream.
            Err(code) => told.push(code),
        }
    }
    // Those beyond its share are told so, whichever they are.
    let busy = async {
        let mut rest: Vec<_> = wires.iter_mut().map(|wire| Box::pin(wire.told())).collect();
        while told.len() < 2 {
            let (code, _, others) = futures::future::select_all(rest).await;
            told.push(code);
            rest = others;
        }
        told
    };
    assert_eq!(street.world.during(busy).await, [BUSY, BUSY]);
    street.neighbour_pulls().await;
    assert_eq!(street.world.nodes[EXPORTER].kinds(CrossingId([1; 32])), [""; 0]);
}

#[tokio::test]
async fn a_receipt_that_is_not_true_settles_nothing() {
    type Change = fn(&mut Receipt);
    let changes: [(&str, Change); 8] = [
        ("fewer bytes", |receipt| receipt.bytes -= 1),
        ("more bytes", |receipt| receipt.bytes += 1),
        ("bytes that it held, it says", |receipt| (receipt.bytes, receipt.held_bytes) = (0, receipt.bytes)),
        ("more held", |receipt| receipt.held_bytes = u64::MAX),
        ("another crossing", |receipt| receipt.crossing = CrossingId([99; 32])),
        ("another clearance", |receipt| receipt.clearance = StatementId([99; 32])),
        ("another manifest", |receipt| receipt.manifest = ManifestId([99; 32])),
        ("another importer", |receipt| receipt.importer = key(99).public()),
    ];
    let mut street = Street::new(Deadlines::default(), 3);
    let goods = Goods::of(&street.model, &street.world.nodes[EXPORTER].manifests());
    let honest = |street: &Street, clearance: &Signed<ClearanceGiven>| Receipt {
        crossing: clearance.body().crossing,
        clearance: clearance.id(),
        exporter: clearance.body().exporter,
        importer: clearance.body().importer,
        manifest: clearance.body().manifest,
        bytes: street.model.bytes,
        held_bytes: 0,
        ledger: LedgerHead { size: 0, root: Sha256([0; 32]) },
        finished: street.world.now,
    };
    let mut cases: Vec<(String, Lie)> = Vec::new();
    for (what, change) in changes {
        cases.push((
            what.to_owned(),
            Box::new(move |street, mut receipt| {
                change(&mut receipt);
                street.world.alliance.signed(&street.raw.key, &receipt).bytes().to_vec()
            }),
        ));
    }
    let sign = |seed: u8| {
        move |street: &Street, receipt: Receipt| street.world.alliance.signed(&key(seed), &receipt).bytes().to_vec()
    };
    cases.push(("signed by the exporter".into(), Box::new(sign(100))));
    cases.push(("signed by a third".into(), Box::new(sign(7))));
    cases.push((
        "signed by two".into(),
        Box::new(|street, receipt| {
            let one = street.world.alliance.signed(&street.raw.key, &receipt);
            one.countersign(&key(7)).expect("small").bytes().to_vec()
        }),
    ));
    cases.push(("empty".into(), Box::new(|_, _| Vec::new())));
    cases.push(("garbage".into(), Box::new(|_, _| vec![0x81; 16_000])));
    for (what, lie) in cases {
        let before = street.world.nodes[EXPORTER].sent();
        let (mut wire, clearance) = street.cleared(&ALL).await;
        let lie = lie(&street, honest(&street, &clearance));
        let all = usize::try_from(street.model.bytes).expect("small");
        let (bytes, told) = street
            .world
            .during(async {
                let bytes = wire.take(all).await.expect("all bytes");
                wire.frame(RECEIPT, &lie).await;
                (bytes, wire.told().await)
            })
            .await;
        assert!(bytes == goods.stream(&[]), "the wire carries the groups and nothing else");
        assert_eq!(told, BAD_REQUEST, "{what}");
        let (bytes, problem) = street.failed(&clearance, before).await;
        assert_eq!(bytes, street.model.bytes, "{what}");
        assert!(problem.contains("receipt does not hold"), "{what}: {problem}");
    }
    // The truth is countersigned, over one connection as over the other.
    let (mut wire, clearance) = street.cleared(&[(0, 1), (2, u64::MAX)]).await;
    let held = u64::try_from(goods.groups[1].len()).expect("small");
    let receipt = Receipt { bytes: street.model.bytes - held, held_bytes: held, ..honest(&street, &clearance) };
    let receipt = street.world.alliance.signed(&street.raw.key, &receipt);
    let wanted = usize::try_from(receipt.body().bytes).expect("small");
    let (bytes, settled) = street
        .world
        .during(async {
            let bytes = wire.take(wanted).await.expect("all bytes");
            wire.frame(RECEIPT, receipt.bytes()).await;
            (bytes, wire.read().await.expect("a receipt"))
        })
        .await;
    assert!(bytes == goods.stream(&[(1, 2)]), "what is not wanted is not sent");
    let both = Signed::<Receipt>::open(&settled.1, street.world.alliance.id).expect("a receipt");
    assert_eq!((settled.0, both.id()), (RECEIPT, receipt.id()));
    let signers: BTreeSet<_> = both.signers().iter().copied().collect();
    assert_eq!(signers, BTreeSet::from([street.raw.key.public(), clearance.body().exporter]));
    assert_eq!(street.world.nodes[EXPORTER].kinds(clearance.body().crossing), ["cleared", "settled"]);
    street.neighbour_pulls().await;
}

#[tokio::test]
async fn what_is_none_of_the_artefact_or_was_sent_is_not_sent() {
    let mut street = Street::new(Deadlines::default(), 3);
    let (goods, groups) = (Goods::of(&street.model, &street.world.nodes[EXPORTER].manifests()), street.model.bytes);
    let count = goods.manifest.group_count();
    let wants: [&[(u64, u64)]; 6] =
        [&[(count, count + 1)], &[(u64::MAX - 1, u64::MAX)], &[(2, 1)], &[(1, 2), (0, 1)], &[(0, 2), (1, 3)], &[(0, 0)]];
    for want in wants {
        let (mut wire, clearance) = street.cleared(&[]).await;
        let told = street
            .world
            .during(async {
                wire.want(want).await;
                wire.told().await
            })
            .await;
        assert_eq!(told, BAD_REQUEST, "{want:?}");
        let before = street.world.nodes[EXPORTER].sent();
        assert_eq!(street.failed(&clearance, before).await.0, 0, "{want:?}");
    }
    // Half a run, more runs than fit, and the same group again.
    let many: Vec<u8> = (0..4097_u64).flat_map(|n| [(2 * n).to_be_bytes(), (2 * n + 1).to_be_bytes()].concat()).collect();
    for payload in [vec![0; 8], vec![0; 15], many] {
        let (mut wire, clearance) = street.cleared(&[]).await;
        let told = street
            .world
            .during(async {
                wire.frame(WANT, &payload).await;
                wire.told().await
            })
            .await;
        assert_eq!(told, BAD_REQUEST);
        let before = street.world.nodes[EXPORTER].sent();
        assert_eq!(street.failed(&clearance, before).await.0, 0);
    }
    let before = street.world.nodes[EXPORTER].sent();
    let (mut wire, clearance) = street.cleared(&[(1, 2)]).await;
    let told = street
        .world
        .during(async {
            wire.want(&ALL).await;
            wire.told().await
        })
        .await;
    assert_eq!(told, BAD_REQUEST);
    assert!(street.failed(&clearance, before).await.0 < groups);
    street.neighbour_pulls().await;
}
