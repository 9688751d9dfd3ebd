//! What the mesh may bring: each statement that must not be taken in, who may talk, and synchronisation.

use std::collections::BTreeSet;

use alliance_protocol::{
    authority::{LawPack, Status},
    core::{
        CatalogueChange, Judgement, MeshEvent, MeshOrder, MessageId, SyncAnswer, SyncId, SyncRequest,
        admin::{AdminCall, Reply},
    },
    envelope::Signed,
    id::{ManifestId, StatementId},
    key::{PublicKey, SecretKey},
    ledger::Record,
    limits,
    manifest::Part,
    offer::{ComputeOffer, ModelOffer, NodeRecord, Offer, Offered, Provenance, Withdrawal},
    time::Validity,
    vocabulary::{Artefact, Label, Zone},
};

use crate::{
    alliance::{DAWN, DAY, HOUR, SECOND, accreditation_of, contract_of, country, key, some_id, status_of, stranger},
    cluster::{Cluster, OPEN},
};

/// The key of a node that exists only in the hands of a test.
const HAND: u8 = 180;

impl Cluster {
    /// What node 1 says of a message that the admitted node 0 passes on.
    pub(crate) fn judged(&mut self, bytes: &[u8]) -> Judgement {
        self.judged_from(self.nodes[0].public(), bytes)
    }

    fn judged_from(&mut self, from: PublicKey, bytes: &[u8]) -> Judgement {
        let message = MessageId(u64::MAX);
        let effects = self.tell_mesh(1, MeshEvent::Gossiped { message, from, bytes: bytes.to_vec() });
        let judgement = |order: &MeshOrder| match order {
            MeshOrder::Judge { message: of, judgement } if *of == message => Some(*judgement),
            _ => None,
        };
        let judgements: Vec<_> = effects.mesh.iter().filter_map(judgement).collect();
        assert_eq!(judgements.len(), 1, "each message is judged once");
        judgements[0]
    }

    pub(crate) fn record_of(&self, key: &SecretKey, organisation: &str) -> NodeRecord {
        let accreditation = accreditation_of(country("CN"), key.public(), organisation);
        NodeRecord {
            model_key: None,
            charter: 1,
            node: key.public(),
            accreditation: self.alliance.spoken(country("CN"), &accreditation).bytes().to_vec(),
            mesh: vec!["/memory/180".into()],
            bulk: vec!["10.0.0.180:4001".into()],
            serial: 1,
            validity: Validity::lasting_ms(self.now, DAY),
        }
    }

    /// Node 1 knows the node in the test's hands.
    pub(crate) fn know_hand(&mut self) -> SecretKey {
        let hand = key(HAND);
        let record = self.alliance.signed(&hand, &self.record_of(&hand, "thu"));
        assert_eq!(self.judged(record.bytes()), Judgement::Accept);
        hand
    }
}

pub(crate) fn offer_of(node: &SecretKey, name: &str) -> Offer {
    Offer {
        node: node.public(),
        name: name.into(),
        what: Offered::Model(ModelOffer {
            artefact: Artefact::Adapter,
            manifest: ManifestId([5; 32]),
            bytes: 10,
            files: 1,
            tensors: 1,
            labels: [Label::Public].into(),
            parts: Part::alone([Label::Public].into(), 1, 10),
            origin: country("CN"),
            subjects: BTreeSet::new(),
            provenance: Provenance::default(),
            licence: "MIT".into(),
        }),
        terms: OPEN,
        root: None,
        validity: Validity::lasting_ms(DAWN, DAY),
    }
}

fn model_of(offer: &mut Offer) -> &mut ModelOffer {
    match &mut offer.what {
        Offered::Model(model) => model,
        Offered::Compute(_) => panic!("a model"),
    }
}

#[test]
fn a_good_statement_is_forwarded_once() {
    let mut cluster = Cluster::pair();
    let hand = cluster.know_hand();
    let record = cluster.alliance.signed(&hand, &cluster.record_of(&hand, "thu"));
    assert_eq!(cluster.judged(record.bytes()), Judgement::Ignore, "known");
    let offer = cluster.alliance.signed(&hand, &offer_of(&hand, "thu/a"));
    assert_eq!(cluster.judged(offer.bytes()), Judgement::Accept);
    assert_eq!(cluster.judged(offer.bytes()), Judgement::Ignore, "known");
    let node = hand.public();
    let taken_back = Withdrawal { node, offer: offer.id(), at: DAWN, reason: String::new() };
    let withdrawal = cluster.alliance.signed(&hand, &taken_back);
    assert_eq!(cluster.judged(withdrawal.bytes()), Judgement::Accept);
    assert_eq!(cluster.judged(withdrawal.bytes()), Judgement::Ignore, "known");
    assert_eq!(cluster.judged(offer.bytes()), Judgement::Ignore, "a withdrawn offer does not come back");
    assert_eq!(cluster.status(1).offers, 0);
}

#[test]
fn gossip_of_peers_that_are_not_admitted_is_not_even_looked_at() {
    let mut cluster = Cluster::pair();
    let hand = cluster.know_hand();
    let offer = cluster.alliance.signed(&hand, &offer_of(&hand, "thu/a"));
    let peer = stranger().public();
    assert_eq!(cluster.judged_from(peer, offer.bytes()), Judgement::Ignore);
    cluster.tell_mesh(1, MeshEvent::Connected { peer });
    assert_eq!(cluster.judged_from(peer, offer.bytes()), Judgement::Ignore);
    let answer = SyncAnswer { statements: vec![offer.bytes().to_vec().into()], next: Some(some_id(1)) };
    let effects = cluster.tell_mesh(1, MeshEvent::SyncAnswered { peer, answer });
    assert!(effects.mesh.is_empty() && effects.catalogue.is_empty());
    let request = SyncRequest { digest: some_id(1), after: None };
    let effects = cluster.tell_mesh(1, MeshEvent::SyncAsked { sync: SyncId(1), peer, request });
    assert!(matches!(&effects.mesh[..], [MeshOrder::AnswerSync { answer, .. }] if *answer == SyncAnswer::default()));
    assert_eq!(cluster.status(1).offers, 0);
}

#[test]
fn records_that_must_not_be_taken_in() {
    use Judgement::{Accept, Ignore, Reject};
    type Change = fn(&mut NodeRecord, &mut SecretKey, &Cluster);
    fn accredit(
        record: &mut NodeRecord,
        cluster: &Cluster,
        by: &str,
        change: impl Fn(&mut alliance_protocol::authority::Accreditation),
    ) {
        let mut body = accreditation_of(country("CN"), record.node, "thu");
        change(&mut body);
        record.accreditation = cluster.alliance.spoken(country(by), &body).bytes().to_vec();
    }
    let cases: &[(&str, Change, Judgement)] = &[
        ("as it should be", |_, _, _| {}, Accept),
        ("signed by another", |_, signer, _| *signer = stranger(), Reject),
        (
            "of another node's accreditation",
            |record, _, cluster| record.accreditation = cluster.nodes[0].accreditation.clone(),
            Reject,
        ),
        ("accredited by a foreign authority", |record, _, cluster| accredit(record, cluster, "BR", |_| {}), Reject),
        (
            "of a member that is none",
            |record, _, cluster| accredit(record, cluster, "CN", |body| body.member = country("FR")),
            Reject,
        ),
        ("without accreditation", |record, _, _| record.accreditation.clear(), Reject),
        (
            "an organisation that cannot be named",
            |record, _, cluster| accredit(record, cluster, "CN", |body| body.organisation.name = "a/b".into()),
            Reject,
        ),
        (
            "a zone of another country",
            |record, _, cluster| accredit(record, cluster, "CN", |body| body.zone = Some(Zone::AeDifc)),
            Reject,
        ),
        (
            "accredited no more",
            |record, _, cluster| accredit(record, cluster, "CN", |body| body.validity.until = DAWN),
            Ignore,
        ),
        (
            "not accredited yet",
            |record, _, cluster| accredit(record, cluster, "CN", |body| body.validity.from = DAWN.plus_ms(HOUR)),
            Ignore,
        ),
        ("run out", |record, _, _| record.validity.until = DAWN, Ignore),
        ("not valid yet", |record, _, _| record.validity = Validity::lasting_ms(DAWN.plus_ms(HOUR), HOUR), Ignore),
        ("valid for too long", |record, _, _| record.validity.until = DAWN.plus_ms(7 * DAY + 1), Reject),
        ("valid for as long as may be", |record, _, _| record.validity.until = DAWN.plus_ms(7 * DAY), Accept),
        ("too many mesh addresses", |record, _, _| record.mesh = vec![String::new(); 9], Reject),
        ("too many bulk addresses", |record, _, _| record.bulk = vec![String::new(); 9], Reject),
        ("an address too long", |record, _, _| record.mesh = vec!["a".repeat(129)], Reject),
        ("a bulk address too long", |record, _, _| record.bulk = vec!["a".repeat(129)], Reject),
        ("as many addresses as may be", |record, _, _| record.bulk = vec!["a".repeat(128); 8], Accept),
    ];
    for (name, change, judgement) in cases {
        let mut cluster = Cluster::pair();
        let mut signer = key(HAND);
        let mut record = cluster.record_of(&signer, "thu");
        change(&mut record, &mut signer, &cluster);
        let bytes = cluster.alliance.signed(&signer, &record);
        assert_eq!(cluster.judged(bytes.bytes()), *judgement, "{name}");
    }
}

#[test]
fn a_record_replaces_only_an_older_one() {
    let mut cluster = Cluster::pair();
    let hand = cluster.know_hand();
    let mut newer = cluster.record_of(&hand, "thu");
    (newer.serial, newer.bulk) = (3, vec!["10.0.0.3:1".into()]);
    let bytes = cluster.alliance.signed(&hand, &newer);
    assert_eq!(cluster.judged(bytes.bytes()), Judgement::Accept);
    for serial in [1, 2, 3] {
        let older = NodeRecord { serial, bulk: Vec::new(), ..newer.clone() };
        let older = cluster.alliance.signed(&hand, &older);
        assert_eq!(cluster.judged(older.bytes()), Judgement::Ignore);
    }
    let Reply::Peers(peers) = cluster.call(1, AdminCall::Peers) else { panic!("peers") };
    let peer = peers.iter().find(|peer| peer.node == hand.public()).expect("known");
    assert_eq!(peer.bulk_addresses, newer.bulk);
    assert_eq!(cluster.nodes[1].catalogue.values().filter(|kept| **kept == bytes.bytes()).count(), 1);
    let records = |bytes: &&Vec<u8>| Signed::<NodeRecord>::open(bytes, cluster.alliance.id).is_ok();
    assert_eq!(cluster.nodes[1].catalogue.values().filter(records).count(), 2, "the old record is gone");
}

#[test]
fn offers_that_must_not_be_taken_in() {
    use Judgement::{Accept, Ignore, Reject};
    type Change = fn(&mut Offer, &mut SecretKey);
    let cases: &[(&str, Change, Judgement)] = &[
        ("as it should be", |_, _| {}, Accept),
        ("signed by another", |_, signer| *signer = stranger(), Reject),
        ("in another organisation's name", |offer, _| offer.name = "usp/a".into(), Reject),
        ("without a name", |offer, _| offer.name = "thu".into(), Reject),
        ("without a label", |offer, _| model_of(offer).labels.clear(), Reject),
        ("of no part", |offer, _| model_of(offer).parts.clear(), Reject),
        ("with a part that is not labelled so", |offer, _| model_of(offer).labels = [Label::Synthetic].into(), Reject),
        ("with fewer bytes than its part", |offer, _| model_of(offer).bytes = 9, Reject),
        ("with more tensors than its part", |offer, _| model_of(offer).tensors = 2, Reject),
        ("a licence too long", |offer, _| model_of(offer).licence = "l".repeat(129), Reject),
        ("a licence as long as may be", |offer, _| model_of(offer).licence = "l".repeat(128), Accept),
        ("for too long", |offer, _| offer.validity.until = DAWN.plus_ms(366 * DAY + 1), Reject),
        ("for as long as may be", |offer, _| offer.validity.until = DAWN.plus_ms(366 * DAY), Accept),
        ("ended", |offer, _| offer.validity.until = DAWN, Ignore),
        ("not yet", |offer, _| offer.validity = Validity::lasting_ms(DAWN.plus_ms(HOUR), HOUR), Ignore),
        (
            "compute with a long name",
            |offer, _| {
                let accelerator = "H".repeat(129);
                offer.what = Offered::Compute(ComputeOffer { accelerator, count: 1, memory_mib: 1, hours: 1 });
            },
            Reject,
        ),
        (
            "of a node that nobody knows",
            |offer, signer| {
                *signer = stranger();
                offer.node = signer.public();
            },
            Ignore,
        ),
    ];
    for (name, change, judgement) in cases {
        let mut cluster = Cluster::pair();
        let mut signer = cluster.know_hand();
        let mut offer = offer_of(&signer, "thu/a");
        change(&mut offer, &mut signer);
        let bytes = cluster.alliance.signed(&signer, &offer);
        assert_eq!(cluster.judged(bytes.bytes()), *judgement, "{name}");
        let expected = u32::from(*judgement == Accept);
        assert_eq!(cluster.status(1).offers, expected, "{name}");
    }
}

#[test]
fn a_node_whose_accreditation_has_run_out_offers_nothing_new() {
    let mut cluster = Cluster::pair();
    let hand = key(HAND);
    let mut record = cluster.record_of(&hand, "thu");
    let mut body = accreditation_of(country("CN"), hand.public(), "thu");
    body.validity.until = DAWN.plus_ms(HOUR);
    record.accreditation = cluster.alliance.spoken(country("CN"), &body).bytes().to_vec();
    let record = cluster.alliance.signed(&hand, &record);
    assert_eq!(cluster.judged(record.bytes()), Judgement::Accept);
    cluster.let_pass(HOUR);
    let offer = cluster.alliance.signed(&hand, &offer_of(&hand, "thu/a"));
    assert_eq!(cluster.judged(offer.bytes()), Judgement::Ignore);
}

#[test]
fn withdrawals_that_must_not_be_taken_in() {
    let mut cluster = Cluster::pair();
    let hand = cluster.know_hand();
    let offer = cluster.alliance.signed(&hand, &offer_of(&hand, "thu/a"));
    cluster.judged(offer.bytes());
    let withdrawal = |node: PublicKey, offer| Withdrawal { node, offer, at: DAWN, reason: String::new() };
    let cases = [
        ("signed by another", stranger(), withdrawal(hand.public(), offer.id()), Judgement::Reject),
        ("by another node", cluster.nodes[0].key(), withdrawal(cluster.nodes[0].public(), offer.id()), Judgement::Ignore),
        ("of an unknown offer", key(HAND), withdrawal(hand.public(), some_id(1)), Judgement::Ignore),
    ];
    for (name, signer, body, judgement) in cases {
        let bytes = cluster.alliance.signed(&signer, &body);
        assert_eq!(cluster.judged(bytes.bytes()), judgement, "{name}");
        assert_eq!(cluster.status(1).offers, 1, "{name}");
    }
}

#[test]
fn what_authorities_did_not_say_is_rejected_and_what_is_old_ignored() {
    use Judgement::{Accept, Ignore, Reject};
    let mut cluster = Cluster::pair();
    cluster.enact(country("CN"), "deny export all");
    let member = country("CN");
    let alliance = crate::alliance::Alliance::found();
    let (next, pack) = (cluster.next_status(member), cluster.pack(member).body().clone());
    let say = |status: &Status| alliance.status(status).bytes().to_vec();
    let one_officer = alliance.signed(alliance.officer(member, 0), &next).bytes().to_vec();
    let foreign = alliance.spoken(country("BR"), &next).bytes().to_vec();
    let revokes_many = Status { revoked: (0u16..257).map(|n| key_of(n).public()).collect(), ..next.clone() };
    let law = |pack: &LawPack| alliance.spoken(member, pack).bytes().to_vec();
    let cases = [
        ("a status by one officer of two", one_officer, Reject),
        ("a status by a foreign authority", foreign, Reject),
        ("an older status", say(&Status { serial: 1, ..next.clone() }), Ignore),
        (
            "the same number, another status",
            say(&Status { serial: next.serial - 1, revoked: [stranger().public()].into(), ..next.clone() }),
            Ignore,
        ),
        ("a newer status with an older epoch", say(&Status { epoch: 1, ..next.clone() }), Ignore),
        ("a status that revokes too many", say(&revokes_many), Reject),
        (
            "a status of no member",
            alliance.spoken(member, &Status { member: country("FR"), ..next.clone() }).bytes().to_vec(),
            Reject,
        ),
        ("an older pack", law(&LawPack { epoch: 1, ..pack.clone() }), Ignore),
        ("the same epoch, another pack", law(&LawPack { law: String::new(), ..pack.clone() }), Ignore),
        ("a pack that cannot be read", law(&LawPack { epoch: 3, law: "unreadable".into(), ..pack.clone() }), Ignore),
        (
            "a pack by a foreign authority",
            alliance.spoken(country("BR"), &LawPack { epoch: 3, ..pack.clone() }).bytes().to_vec(),
            Reject,
        ),
        (
            "a pack of no member",
            alliance.spoken(member, &LawPack { member: country("FR"), ..pack.clone() }).bytes().to_vec(),
            Reject,
        ),
        ("a safeguard", alliance.spoken(member, &contract_of(member, member, member)).bytes().to_vec(), Reject),
        ("an accreditation", cluster.nodes[0].accreditation.clone(), Reject),
        ("the charter", cluster.alliance.charter.clone(), Reject),
        ("nothing", Vec::new(), Reject),
        ("more than any statement has", vec![0; limits::LAW_PACK_BYTES_MAX + 1], Reject),
        ("the next pack", law(&LawPack { epoch: 3, ..pack.clone() }), Accept),
        ("the next pack again", law(&LawPack { epoch: 3, ..pack }), Ignore),
        ("the next status", say(&next), Accept),
        ("the next status again", say(&next), Ignore),
    ];
    for (name, bytes, judgement) in cases {
        let records = cluster.nodes[1].entries.len();
        assert_eq!(cluster.judged(&bytes), judgement, "{name}");
        let recorded = cluster.nodes[1].entries.len() - records;
        assert_eq!(recorded, usize::from(judgement == Accept), "{name}: only what is accepted is recorded");
    }
    let alarmed = cluster.status(1).members.into_iter().filter(|member| member.alarm.is_some());
    assert_eq!(alarmed.map(|view| view.country).collect::<Vec<_>>(), [member], "who contradicted itself is reported");
}

fn key_of(n: u16) -> SecretKey {
    let mut seed = [3; 32];
    seed[..2].copy_from_slice(&n.to_be_bytes());
    SecretKey::from_seed(&seed)
}

#[test]
fn a_peer_is_admitted_for_its_own_good_record_only() {
    let introduced = |change: &dyn Fn(&mut NodeRecord, &Cluster) -> (PublicKey, SecretKey)| {
        let mut cluster = Cluster::pair();
        let hand = key(HAND);
        let mut record = cluster.record_of(&hand, "thu");
        let (peer, signer) = change(&mut record, &cluster);
        cluster.tell_mesh(1, MeshEvent::Connected { peer });
        let record = cluster.alliance.signed(&signer, &record).bytes().to_vec();
        let effects = cluster.tell_mesh(1, MeshEvent::Introduced { peer, record });
        let admitted = effects.mesh.iter().any(|order| matches!(order, MeshOrder::Admit { peer: of } if *of == peer));
        let cut = |order: &MeshOrder| matches!(order, MeshOrder::Expel { peer: of } | MeshOrder::Dismiss { peer: of } if *of == peer);
        assert_ne!(admitted, effects.mesh.iter().any(cut));
        assert_eq!(cluster.status(1).peers_admitted, 1 + u32::from(admitted));
        admitted
    };
    let hand = || key(HAND);
    assert!(introduced(&|_, _| (hand().public(), hand())), "as it should be");
    assert!(!introduced(&|_, _| (stranger().public(), hand())), "another's record");
    assert!(!introduced(&|_, _| (hand().public(), stranger())), "not signed by itself");
    assert!(!introduced(&|record, cluster| {
        let body = accreditation_of(country("CN"), hand().public(), "thu");
        record.accreditation = cluster.alliance.spoken(country("BR"), &body).bytes().to_vec();
        (hand().public(), hand())
    }));
    assert!(!introduced(&|record, cluster| {
        record.accreditation = cluster.nodes[0].accreditation.clone();
        (hand().public(), hand())
    }));
}

#[test]
fn a_revoked_node_is_forgotten_expelled_and_not_let_back() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
    let offer = cluster.offer(2, &[Label::Public]);
    assert_eq!(cluster.status(1).offers, 1);
    cluster.revoke(country("CN"), cluster.nodes[2].public());
    for at in [0, 1] {
        assert_eq!(cluster.status(at).offers, 0, "its offers are gone");
        assert_eq!(cluster.status(at).peers_admitted, 1);
        assert!(cluster.wires.expelled.contains(&(at, 2)));
        assert!(!cluster.nodes[at].catalogue.contains_key(&offer));
        assert_eq!(cluster.nodes[at].catalogue.len(), 1, "the other's record alone");
    }
    cluster.wires.expelled.clear();
    cluster.connect(1, 2);
    cluster.run();
    assert_eq!(cluster.status(1).peers_admitted, 1, "its record does not let it back in");
    let record = cluster.alliance.signed(
        &cluster.nodes[2].key(),
        &NodeRecord {
            serial: u64::MAX,
            accreditation: cluster.nodes[2].accreditation.clone(),
            ..cluster.record_of(&cluster.nodes[2].key(), "thu")
        },
    );
    assert_eq!(cluster.judged(record.bytes()), Judgement::Ignore);
}

#[test]
fn a_node_that_does_not_renew_its_record_is_forgotten_and_let_go() {
    // By its record, and by its accreditation where that ends first.
    for accredited_ms in [365 * DAY, HOUR] {
        let mut cluster = Cluster::pair();
        let hand = key(HAND);
        let peer = hand.public();
        let mut record = cluster.record_of(&hand, "thu");
        let mut body = accreditation_of(country("CN"), peer, "thu");
        body.validity.until = DAWN.plus_ms(accredited_ms);
        record.accreditation = cluster.alliance.spoken(country("CN"), &body).bytes().to_vec();
        let record = cluster.alliance.signed(&hand, &record);
        cluster.tell_mesh(1, MeshEvent::Connected { peer });
        cluster.tell_mesh(1, MeshEvent::Introduced { peer, record: record.bytes().to_vec() });
        assert_eq!(cluster.status(1).peers_admitted, 2);
        cluster.let_pass(accredited_ms.min(DAY) - SECOND);
        let effects = cluster.tell(1, alliance_protocol::core::Input::Tick);
        let expels = |order: &MeshOrder| matches!(order, MeshOrder::Dismiss { peer: of } if *of == peer);
        assert!(!effects.mesh.iter().any(expels), "not before its time");
        cluster.let_pass(12 * SECOND);
        let effects = cluster.tell(1, alliance_protocol::core::Input::Tick);
        assert!(effects.mesh.iter().any(expels));
        assert!(effects.catalogue.contains(&CatalogueChange::Remove { id: record.id() }));
        assert_eq!(
            cluster.status(1).peers_admitted,
            u32::from(accredited_ms == HOUR),
            "node 0 has not renewed after a day"
        );
    }
}

#[test]
fn a_newcomer_catches_up_page_by_page() {
    let mut cluster = Cluster::pair();
    // More than one page: each law fills most of one.
    let filler = "deny export label:state_secret\n".repeat(limits::LAW_PACK_BYTES_MAX / 31 - 40);
    for member in crate::alliance::MEMBERS {
        cluster.enact(country(member), &filler);
    }
    let offer = cluster.offer(0, &[Label::Public]);
    let at = cluster.nodes.len();
    cluster.join("ZA", "uct");
    let status = cluster.status(at);
    assert_eq!((status.offers, status.peers_admitted), (1, 2));
    assert!(status.members.iter().all(|member| member.fresh && member.epoch == Some(2)), "{:?}", status.members);
    let crossing = cluster.pull(at, offer);
    cluster.run();
    assert_eq!(cluster.state(at, crossing), alliance_protocol::core::admin::CrossingState::Done);
}

#[test]
fn pages_are_bounded_ascend_and_end() {
    let mut cluster = Cluster::pair();
    let filler = "deny export label:state_secret\n".repeat(limits::LAW_PACK_BYTES_MAX / 31 - 40);
    for member in crate::alliance::MEMBERS {
        cluster.enact(country(member), &filler);
    }
    let peer = cluster.nodes[0].public();
    let ask = |cluster: &mut Cluster, digest: StatementId, after: Option<StatementId>| {
        let request = SyncRequest { digest, after };
        let effects = cluster.tell_mesh(1, MeshEvent::SyncAsked { sync: SyncId(1), peer, request });
        match effects.mesh.into_iter().next() {
            Some(MeshOrder::AnswerSync { answer, .. }) => answer,
            other => panic!("{other:?}"),
        }
    };
    let mut all = Vec::new();
    let (mut pages, mut after) = (0, None);
    loop {
        let page = ask(&mut cluster, some_id(0), after);
        pages += 1;
        assert!(!page.statements.is_empty());
        assert!(page.statements.iter().map(|bytes| bytes.len()).sum::<usize>() <= limits::SYNC_BYTES_MAX);
        all.extend(page.statements);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(pages >= 4, "{pages}");
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((distinct.len(), all.len()), (2 + 4 + 4, 2 + 4 + 4), "two records, four statuses, four packs");
    // Equal digests mean nothing to send.
    let effects = cluster.tell_mesh(1, MeshEvent::Introduced { peer: stranger().public(), record: Vec::new() });
    assert!(matches!(effects.mesh[..], [MeshOrder::Expel { .. }]));
    cluster.let_pass(10 * SECOND);
    let effects = cluster.tell(1, alliance_protocol::core::Input::Tick);
    let digest = effects.mesh.iter().find_map(|order| match order {
        MeshOrder::AskSync { request, .. } => Some(request.digest),
        _ => None,
    });
    let answer = ask(&mut cluster, digest.expect("it asks in its turn"), None);
    assert_eq!(answer, SyncAnswer::default());
}

#[test]
fn a_lost_message_is_made_up_for_in_the_next_round() {
    let mut cluster = Cluster::pair();
    let model = cluster.model(0, &[Label::Public]);
    cluster.call(0, AdminCall::Import(Box::new(model)));
    let draft =
        alliance_protocol::core::admin::OfferDraft { name: "usp/model".into(), compute: None, terms: OPEN, ttl_ms: DAY };
    cluster.call(0, AdminCall::Publish(draft));
    cluster.run_to("gossiped");
    cluster.run();
    assert_eq!(cluster.status(1).offers, 0);
    cluster.advance_to(cluster.now.plus_ms(25 * SECOND));
    assert_eq!(cluster.status(1).offers, 1);
}

#[test]
fn a_law_pack_that_would_not_be_kept_is_not_new_each_time() {
    // One in force and two to come; an authority that publishes ahead must not fill ledgers.
    let mut cluster = Cluster::pair();
    let member = country("CN");
    let packs: Vec<_> = (2..=6).map(|epoch| cluster.alliance.law(member, epoch, "")).collect();
    for pack in &packs {
        assert_eq!(cluster.judged(pack.bytes()), Judgement::Accept, "epoch {}", pack.body().epoch);
    }
    let records = cluster.nodes[1].entries.len();
    for _ in 0..3 {
        for pack in &packs {
            assert_eq!(cluster.judged(pack.bytes()), Judgement::Ignore, "epoch {}", pack.body().epoch);
        }
    }
    assert_eq!(cluster.nodes[1].entries.len(), records);
    // The newest is there when its status comes; one that was let go comes back once it is in force.
    for (serial, epoch) in [(2, 3), (3, 6)] {
        let pack = &packs[epoch - 2];
        let status = cluster.alliance.status(&status_of(member, serial, pack));
        assert_eq!(cluster.judged(status.bytes()), Judgement::Accept);
        cluster.judged(pack.bytes());
        let status = cluster.status(1);
        let member = status.members.iter().find(|view| view.country == member).expect("a member");
        assert!(member.fresh, "epoch {epoch}");
    }
}

#[test]
fn adopting_reports_what_is_not_believed() {
    let mut cluster = Cluster::pair();
    let status = cluster.alliance.status(&cluster.next_status(country("CN")));
    let reply = cluster.adopt(0, &[status.bytes(), status.bytes()]);
    assert_eq!(reply, Reply::Adopted { accepted: 1, known: 1 });
    cluster.run();
    assert!(matches!(cluster.nodes[1].last(), Record::StatusAccepted { .. }), "and passes it on");
    let forged = cluster.alliance.signed(&stranger(), status.body());
    let reply = cluster.adopt(0, &[forged.bytes()]);
    assert!(
        matches!(reply, Reply::Failed(failure) if failure.kind == alliance_protocol::core::admin::FailureKind::Untrusted)
    );
}
