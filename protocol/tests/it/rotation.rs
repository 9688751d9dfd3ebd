//! A node's key makes way for another: what counts, whom it ends, and what goes on under the new one (STATEMENT-60 to 64,
//! LEDGER-33 to 36 and 44).

use alliance_protocol::{
    authority::{Accreditation, Ban, Safeguard, Status},
    core::{
        StartError,
        admin::{AdminCall, CrossingState, LocalModel, Reply},
    },
    crossing::{LedgerHead, RefusalCode},
    envelope::{Draft, Signed},
    gate::PackOwner,
    id::{ManifestId, Sha256},
    key::PublicKey,
    ledger::{Entry, Record, Tiles},
    limits,
    offer::Provenance,
    rotation::{KeyRotation, NotRotated, sign},
    time::{Timestamp, Validity},
    trust::{Accepted, Distrust, NoStanding, SafeguardIgnored, Scope, Trust},
    vocabulary::{Country, Label},
};

use crate::{
    alliance::{Alliance, DAWN, DAY, SECOND, accreditation_of, contract_of, country, key, status_of, stranger},
    cluster::{Cluster, OPEN},
    exporter_refuses::Answer,
};

const HEAD: LedgerHead = LedgerHead { size: 7, root: Sha256([7; 32]) };

fn brazil() -> Country {
    country("BR")
}

fn paper(alliance: &Alliance, member: &str, node: PublicKey, organisation: &str) -> Vec<u8> {
    let member = country(member);
    alliance.spoken(member, &accreditation_of(member, node, organisation)).bytes().to_vec()
}

fn rotation(alliance: &Alliance, old: u8, new: u8) -> KeyRotation {
    let (old, new) = (key(old).public(), key(new).public());
    KeyRotation {
        old,
        new,
        at: DAWN,
        reason: "a laptop was stolen".into(),
        ledger: HEAD,
        old_accreditation: paper(alliance, "BR", old, "usp"),
        new_accreditation: paper(alliance, "BR", new, "usp"),
    }
}

fn signed(alliance: &Alliance, body: &KeyRotation, keys: &[u8]) -> Vec<u8> {
    keys.iter().fold(Draft::new(body, alliance.id), |draft, seed| draft.sign(&key(*seed))).to_bytes()
}

fn good(alliance: &Alliance, old: u8, new: u8) -> Vec<u8> {
    signed(alliance, &rotation(alliance, old, new), &[old, new])
}

/// The alliance, what a node believes of it, and a status of Brazil that revokes these keys.
fn begun() -> (Alliance, Trust) {
    let alliance = Alliance::found();
    let trust = Trust::new(alliance.chartered());
    (alliance, trust)
}

fn revoke(alliance: &Alliance, trust: &mut Trust, serial: u64, seeds: &[u8]) {
    let revoked = seeds.iter().map(|seed| key(*seed).public()).collect();
    let status = Status { revoked, ..status_of(brazil(), serial, &alliance.law(brazil(), 1, "")) };
    assert_eq!(trust.accept_status(alliance.status(&status).bytes()), Ok(Accepted::New));
}

/// Why a node of the organisation has no standing under this key.
fn problem(alliance: &Alliance, trust: &Trust, seed: u8) -> Option<NoStanding> {
    let node = key(seed).public();
    let accreditation = trust.accreditation(&paper(alliance, "BR", node, "usp")).expect("accredited");
    trust.admission(&accreditation, &node, DAWN).and_then(|()| trust.certain(accreditation.body())).err()
}

#[track_caller]
fn contested(alliance: &Alliance, trust: &Trust, seeds: &[u8]) {
    for seed in seeds {
        let why = problem(alliance, trust, *seed);
        assert!(matches!(why, Some(NoStanding::Contested { .. })), "{seed}: {why:?}");
    }
}

pub(crate) const OLD: u8 = 100;
pub(crate) const NEW: u8 = 120;
pub(crate) const THIRD: u8 = 121;

/// STATEMENT-60: whatever is not signed by both and accredited as the old key was changes nothing.
#[test]
fn what_does_not_count() {
    let (alliance, mut trust) = begun();
    let body = |change: &dyn Fn(&mut KeyRotation)| {
        let mut body = rotation(&alliance, OLD, NEW);
        change(&mut body);
        body
    };
    let both = |change: &dyn Fn(&mut KeyRotation)| signed(&alliance, &body(change), &[OLD, NEW]);
    let elsewhere = Draft::new(&rotation(&alliance, OLD, NEW), alliance_protocol::id::AllianceId([9; 32]));
    let (old, new, third) = (key(OLD).public(), key(NEW).public(), key(THIRD).public());
    let unspoken = alliance.signed(&stranger(), &accreditation_of(brazil(), new, "usp")).bytes().to_vec();
    let own = alliance.signed(&key(NEW), &accreditation_of(brazil(), old, "usp")).bytes().to_vec();
    let over =
        Accreditation { validity: Validity { from: Timestamp(0), until: DAWN }, ..accreditation_of(brazil(), new, "usp") };
    let over = alliance.spoken(brazil(), &over).bytes().to_vec();
    let late = DAWN.plus_ms(limits::CLOCK_SKEW_MS_MAX + 1);
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("not signed by both", signed(&alliance, &rotation(&alliance, OLD, NEW), &[OLD])),
        ("not signed by both", signed(&alliance, &rotation(&alliance, OLD, NEW), &[NEW])),
        ("not signed by both", signed(&alliance, &rotation(&alliance, OLD, NEW), &[THIRD])),
        ("not signed by both", signed(&alliance, &rotation(&alliance, OLD, NEW), &[OLD, THIRD])),
        ("too many", signed(&alliance, &rotation(&alliance, OLD, NEW), &[OLD, NEW, THIRD])),
        ("unsigned", signed(&alliance, &rotation(&alliance, OLD, NEW), &[])),
        ("its own successor", good(&alliance, OLD, OLD)),
        ("another alliance", elsewhere.sign(&key(OLD)).sign(&key(NEW)).to_bytes()),
        ("new not accredited", both(&|body| body.new_accreditation = unspoken.clone())),
        ("no paper", both(&|body| body.new_accreditation.clear())),
        ("old never accredited", both(&|body| body.old_accreditation = own.clone())),
        ("another organisation", both(&|body| body.new_accreditation = paper(&alliance, "BR", new, "fiocruz"))),
        ("another member", both(&|body| body.new_accreditation = paper(&alliance, "IN", new, "usp"))),
        ("a third key's paper", both(&|body| body.new_accreditation = paper(&alliance, "BR", third, "usp"))),
        ("a third key's paper", both(&|body| body.old_accreditation = paper(&alliance, "BR", third, "usp"))),
        ("run out", both(&|body| body.new_accreditation = over.clone())),
        ("of tomorrow", both(&|body| body.at = late)),
        ("a long reason", both(&|body| body.reason = "x".repeat(limits::TEXT_BYTES_MAX + 1))),
    ];
    for (why, bytes) in &table {
        let refused = trust.accept_rotation(bytes, DAWN);
        assert!(refused.is_err(), "{why}: {refused:?}");
        assert_eq!((problem(&alliance, &trust, OLD), problem(&alliance, &trust, NEW)), (None, None), "{why}");
        assert_eq!(trust.statements().count(), 0, "{why}");
    }
    revoke(&alliance, &mut trust, 1, &[OLD]);
    assert_eq!(trust.accept_rotation(&good(&alliance, OLD, NEW), DAWN), Ok(Accepted::New), "a lost key is revoked as well");
    assert_eq!(trust.accept_rotation(&good(&alliance, OLD, NEW), DAWN), Ok(Accepted::Known));
    let again = both(&|body| body.reason.clear());
    assert_eq!(trust.accept_rotation(&again, DAWN), Ok(Accepted::Known), "who follows whom is what counts");
    assert_eq!(problem(&alliance, &trust, NEW), None);
}

/// STATEMENT-60: who hears first that the new key is revoked, and then of the rotation, ends the old one all the same.
#[test]
fn a_new_key_that_is_revoked_has_no_standing_and_the_old_one_has_none_any_more() {
    for revoked_first in [true, false] {
        let (alliance, mut trust) = begun();
        if revoked_first {
            revoke(&alliance, &mut trust, 1, &[NEW]);
        }
        assert_eq!(trust.accept_rotation(&good(&alliance, OLD, NEW), DAWN), Ok(Accepted::New));
        if !revoked_first {
            revoke(&alliance, &mut trust, 1, &[NEW]);
        }
        assert!(matches!(problem(&alliance, &trust, OLD), Some(NoStanding::Replaced { .. })), "{revoked_first}");
        assert!(matches!(problem(&alliance, &trust, NEW), Some(NoStanding::Revoked { .. })), "{revoked_first}");
        // The node gets another one.
        assert_eq!(trust.accept_rotation(&good(&alliance, OLD, THIRD), DAWN), Ok(Accepted::New));
        assert_eq!(problem(&alliance, &trust, THIRD), None);
    }
}

/// STATEMENT-61.
#[test]
fn the_old_key_ends_and_is_told_by_what_it_was_replaced() {
    let (alliance, mut trust) = begun();
    trust.accept_rotation(&good(&alliance, OLD, NEW), DAWN).expect("accepted");
    let why = problem(&alliance, &trust, OLD).expect("ended");
    assert!(matches!(why, NoStanding::Replaced { by, .. } if by == key(NEW).public()), "{why:?}");
    assert_eq!(why.code(), RefusalCode::NotAccredited);
    assert!(why.to_string().contains(&key(NEW).public().to_string()), "{why}");
    assert_eq!(problem(&alliance, &trust, NEW), None);
    // It ends for good, whatever becomes of the new one.
    revoke(&alliance, &mut trust, 1, &[NEW]);
    assert!(matches!(problem(&alliance, &trust, OLD), Some(NoStanding::Replaced { .. })));
    assert!(matches!(problem(&alliance, &trust, NEW), Some(NoStanding::Revoked { .. })));
}

/// STATEMENT-63: two successors of one key.
#[test]
fn two_rotations_of_one_key_deny_all_of_them_until_one_is_revoked() {
    for first in [NEW, THIRD] {
        let (alliance, mut trust) = begun();
        let second = NEW + THIRD - first;
        for new in [first, second] {
            assert_eq!(trust.accept_rotation(&good(&alliance, OLD, new), DAWN), Ok(Accepted::New));
        }
        contested(&alliance, &trust, &[OLD, NEW, THIRD]);
        // What followed one of them is in doubt with it.
        assert_eq!(trust.accept_rotation(&good(&alliance, NEW, 123), DAWN), Ok(Accepted::New));
        contested(&alliance, &trust, &[OLD, THIRD, 123]);
        let more = trust.accept_rotation(&good(&alliance, OLD, 122), DAWN);
        assert_eq!(more, Err(Distrust::Rotation(NotRotated::Contested(key(OLD).public()))));

        revoke(&alliance, &mut trust, 1, &[NEW]);
        assert_eq!(problem(&alliance, &trust, THIRD), None, "{first} first");
        assert!(
            matches!(problem(&alliance, &trust, OLD), Some(NoStanding::Replaced { by, .. }) if by == key(THIRD).public())
        );
        contested(&alliance, &trust, &[123]);
        // A third begins the quarrel anew.
        assert_eq!(trust.accept_rotation(&good(&alliance, OLD, 122), DAWN), Ok(Accepted::New));
        contested(&alliance, &trust, &[OLD, THIRD, 122, 123]);
        // It goes on as the authority revokes, and comes to an end: what has lost is not new again.
        revoke(&alliance, &mut trust, 2, &[NEW, 122, 124, 125]);
        for (new, accepted) in [(124, true), (125, false), (126, true), (NEW, false), (122, false), (127, false)] {
            let taken = trust.accept_rotation(&good(&alliance, OLD, new), DAWN);
            let known = [THIRD, 122, 124, 126].contains(&new);
            assert!(
                taken == Ok(Accepted::New) && accepted
                    || taken == Ok(Accepted::Known) && known
                    || taken.is_err() && !accepted,
                "{new}: {taken:?}"
            );
        }
        contested(&alliance, &trust, &[THIRD, 126, 123]);
        assert_eq!(trust.statements().count(), 6, "a status, four successors, and one that follows");
    }
}

#[test]
fn one_key_that_takes_over_from_two_has_none_of_them() {
    let (alliance, mut trust) = begun();
    for old in [OLD, OLD + 1] {
        assert_eq!(trust.accept_rotation(&good(&alliance, old, NEW), DAWN), Ok(Accepted::New));
    }
    contested(&alliance, &trust, &[OLD, OLD + 1, NEW]);
    assert!(trust.accept_rotation(&good(&alliance, OLD + 2, NEW), DAWN).is_err());
}

/// What former officers have accredited cannot be taken in any more, and so is not passed on; what was taken in stays.
#[test]
fn rotations_outlive_the_officers_and_are_passed_on_while_these_speak() {
    let (mut alliance, mut trust) = begun();
    let known = good(&alliance, OLD, NEW);
    trust.accept_rotation(&known, DAWN).expect("accepted");
    assert_eq!(trust.statements().count(), 1);
    let next = crate::versions::rotate(&mut alliance, &trust.chartered().clone(), "BR", 70);
    let mut other = Trust::new(trust.chartered().clone());
    for trust in [&mut trust, &mut other] {
        assert_eq!(trust.accept_charter(&next), Ok(Accepted::New));
    }
    assert_eq!(trust.statements().count(), 1, "the version of the charter alone");
    assert!(matches!(other.accept_rotation(&known, DAWN), Err(Distrust::NotTheAuthority(_))));
    // The old key stays ended, also where those of now accredit it.
    assert!(matches!(problem(&alliance, &trust, OLD), Some(NoStanding::Replaced { .. })));
    assert_eq!(problem(&alliance, &trust, NEW), None);
    // The next change names the officers of now, and a paper of those before for the key that ends.
    let mut body = rotation(&alliance, NEW, THIRD);
    let before = KeyRotation { ..Signed::<KeyRotation>::open(&known, alliance.id).expect("holds").body().clone() };
    body.old_accreditation = before.new_accreditation;
    let next = signed(&alliance, &body, &[NEW, THIRD]);
    assert_eq!(trust.accept_rotation(&next, DAWN), Ok(Accepted::New));
    assert_eq!(trust.newest_key(&key(OLD).public()), key(THIRD).public());
}

/// STATEMENT-62: chains, in whatever order they are heard of, and no way back.
#[test]
fn a_chain_of_rotations_is_one_way() {
    for order in [[(OLD, NEW), (NEW, THIRD)], [(NEW, THIRD), (OLD, NEW)]] {
        let (alliance, mut trust) = begun();
        for (old, new) in order {
            assert_eq!(trust.accept_rotation(&good(&alliance, old, new), DAWN), Ok(Accepted::New));
        }
        assert_eq!(problem(&alliance, &trust, THIRD), None);
        for ended in [OLD, NEW] {
            assert!(matches!(problem(&alliance, &trust, ended), Some(NoStanding::Replaced { .. })));
            assert_eq!(trust.newest_key(&key(ended).public()), key(THIRD).public());
        }
        assert_eq!(trust.former_keys(&key(THIRD).public()), [key(NEW).public(), key(OLD).public()]);
        for back in [OLD, NEW] {
            let refused = trust.accept_rotation(&good(&alliance, THIRD, back), DAWN);
            assert_eq!(refused, Err(Distrust::Rotation(NotRotated::Back(key(back).public()))), "{order:?}");
        }
        // To revoke a key that has ended already changes nothing for those after it.
        revoke(&alliance, &mut trust, 1, &[OLD, NEW]);
        assert_eq!(problem(&alliance, &trust, THIRD), None);
    }
}

#[test]
fn a_node_changes_its_key_so_often_and_no_more() {
    let (alliance, mut trust) = begun();
    let most = u8::try_from(limits::KEY_ROTATIONS_MAX).expect("few");
    for at in 0..most {
        assert_eq!(trust.accept_rotation(&good(&alliance, OLD + at, OLD + at + 1), DAWN), Ok(Accepted::New));
    }
    let refused = trust.accept_rotation(&good(&alliance, OLD + most, OLD + most + 1), DAWN);
    assert_eq!(refused, Err(Distrust::Rotation(NotRotated::TooOften)));
    assert_eq!(problem(&alliance, &trust, OLD + most), None, "the last one stands");
}

/// STATEMENT-64.
#[test]
fn what_an_authority_said_of_the_old_key_and_what_becomes_of_it() {
    let (alliance, mut trust) = begun();
    let importer = |seed: u8| accreditation_of(brazil(), key(seed).public(), "usp");
    let ban = Ban::Recipient(key(OLD).public());
    let status = Status { bans: [ban].into(), ..status_of(brazil(), 1, &alliance.law(brazil(), 1, "")) };
    trust.accept_status(alliance.status(&status).bytes()).expect("accepted");
    let limited = Safeguard { recipient: Some(key(OLD).public()), ..contract_of(brazil(), brazil(), country("IN")) };
    let limited = alliance.spoken(brazil(), &limited);
    let labels = [Label::Personal].into();
    let scope = |seed: u8| Scope { from: brazil(), to: country("IN"), recipient: key(seed).public(), labels: &labels };
    assert_eq!(trust.bans([brazil()], &importer(NEW)), [].into());
    assert!(trust.safeguard(limited.bytes(), &scope(OLD), DAWN).is_ok());
    let refused = trust.safeguard(limited.bytes(), &scope(NEW), DAWN).map(drop);
    assert_eq!(refused, Err(SafeguardIgnored::OtherRecipient));

    trust.accept_rotation(&good(&alliance, OLD, NEW), DAWN).expect("accepted");
    trust.accept_rotation(&good(&alliance, NEW, THIRD), DAWN).expect("accepted");
    assert_eq!(trust.bans([brazil()], &importer(THIRD)), [brazil()].into(), "who is banned stays banned");
    let refused = trust.safeguard(limited.bytes(), &scope(THIRD), DAWN).map(drop).expect_err("given to another key");
    assert!(refused.to_string().contains("have it issued again"), "{refused}");
}

// In the cluster: the daemon is down, the ledger gets its record, and the node starts with its new key.

pub(crate) fn tiles(entries: &[Entry]) -> Tiles {
    entries.iter().map(|entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf")).collect()
}

impl Cluster {
    /// The statement by which a node's key makes way for another, for the ledger that it has.
    pub(crate) fn rotation(&self, at: usize, new: u8) -> Signed<KeyRotation> {
        let (node, tiles) = (&self.nodes[at], tiles(&self.nodes[at].entries));
        let accreditation = accreditation_of(node.member, key(new).public(), &node.organisation);
        let body = KeyRotation {
            old: node.public(),
            new: key(new).public(),
            at: self.now,
            reason: String::new(),
            ledger: LedgerHead { size: tiles.size(), root: tiles.root() },
            old_accreditation: node.accreditation.clone(),
            new_accreditation: self.alliance.spoken(node.member, &accreditation).bytes().to_vec(),
        };
        let recorded = node.entries.iter().filter_map(|entry| match &entry.record {
            Record::KeyRotated { rotation } => Some(rotation.as_slice()),
            _ => None,
        });
        sign(&self.alliance.chartered(), recorded, &body, (&node.key(), &key(new)), self.now).expect("others believe it")
    }

    /// Changes the key of a node whose daemon is down.
    pub(crate) fn rotate(&mut self, at: usize, new: u8) {
        let rotation = self.rotation(at, new);
        let now = self.now;
        let node = &mut self.nodes[at];
        node.entries.push(Entry { at: now, record: Record::KeyRotated { rotation: rotation.bytes().to_vec().into() } });
        node.accreditation.clone_from(&rotation.body().new_accreditation);
        node.seed = new;
    }

    pub(crate) fn stop_and_rotate(&mut self, at: usize, new: u8) {
        self.crash(at);
        self.rotate(at, new);
        self.restart(at);
    }

    pub(crate) fn pulled(&mut self, at: usize, from: usize) -> CrossingState {
        let exporter = self.nodes[from].public();
        let offer = self.offers(at).into_iter().find(|offer| offer.node == exporter).expect("an offer").offer;
        let crossing = self.pull(at, offer);
        self.run();
        self.state(at, crossing)
    }
}

pub(crate) fn settle(cluster: &mut Cluster) {
    cluster.advance_to(cluster.now.plus_ms(15 * SECOND));
}

#[test]
fn offers_people_models_and_duties_go_on_under_the_new_key() {
    let mut cluster = Cluster::pair();
    cluster.enact(brazil(), "duty export delete_within(24h)");
    cluster.enact(country("IN"), "duty export delete_within(48h)");
    let people = LocalModel {
        provenance: Provenance { people: Some(70_000), ..Provenance::default() },
        ..cluster.model(0, &[Label::Personal])
    };
    let first = cluster.offer_of(0, people, OPEN);
    let withdrawn =
        LocalModel { name: "usp/gone".into(), manifest: ManifestId([8; 32]), ..cluster.model(0, &[Label::Public]) };
    let withdrawn = cluster.offer_of(0, withdrawn, OPEN);
    cluster.call(0, AdminCall::Withdraw { offer: withdrawn, reason: String::new() });
    let other = cluster.offer(1, &[Label::Public]);
    let (sent, got) = (cluster.pull(1, first), cluster.pull(0, other));
    cluster.run();
    let due = cluster.view(0, got).delete_by.expect("a duty");
    let before = (cluster.status(0), cluster.offers(0));
    assert_eq!(cluster.status(0).volume.people, alliance_protocol::gate::People::new(70_000));

    cluster.let_pass(SECOND);
    cluster.stop_and_rotate(0, NEW);
    for _ in 0..2 {
        let status = cluster.status(0);
        assert_eq!((status.node, status.former), (key(NEW).public(), vec![key(100).public()]));
        assert_eq!((status.volume, status.models, status.offers), (before.0.volume, before.0.models, before.0.offers));
        assert_eq!(cluster.view(0, got).delete_by, Some(due));
        assert_eq!(cluster.state(0, sent), CrossingState::Done);
        let published = cluster.nodes[0].count(|record| matches!(record, Record::OfferPublished { .. }));
        assert_eq!(published, 3, "each once, and what stood once more");
        cluster.crash(0);
        cluster.restart(0);
    }
    // The same terms until the same end, under the new key; those under the old one are gone everywhere.
    let find = |offers: &[alliance_protocol::core::admin::OfferView], name: &str| {
        offers.iter().find(|offer| offer.name == name).cloned().expect("stands")
    };
    for at in [0, 1] {
        let offers = cluster.offers(at);
        assert_eq!(offers.len(), 2, "node {at}");
        let (was, is) = (find(&before.1, "usp/model"), find(&offers, "usp/model"));
        assert_eq!((&was.what, &was.terms, was.until), (&is.what, &is.terms, is.until));
        assert_eq!((was.node, is.node), (key(100).public(), key(NEW).public()));
        assert!(!cluster.knows(at, first));
    }
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    assert_eq!(cluster.status(0).volume, before.0.volume, "the same people count once");
    // What came under a duty is deleted when it is due.
    cluster.now = due.plus_ms(1);
    cluster.tick();
    assert!(cluster.view(0, got).deleted.is_some());
    // Withdrawn under the new key it stays withdrawn.
    let is = find(&cluster.offers(0), "usp/model").offer;
    cluster.call(0, AdminCall::Withdraw { offer: is, reason: String::new() });
    cluster.crash(0);
    cluster.restart(0);
    assert_eq!(cluster.status(0).offers, 1);
}

/// Somebody with a copy of a home as it was: a node of its own that has the old key, papers and ledger.
pub(crate) fn thief(cluster: &mut Cluster, of: usize) -> usize {
    let node = &cluster.nodes[of];
    let (seed, member, organisation) = (node.seed, node.member, node.organisation.clone());
    let (entries, accreditation) = (node.entries.clone(), node.accreditation.clone());
    let at = cluster.join_beside(member.as_str(), &organisation, &[]);
    cluster.crash(at);
    let thief = &mut cluster.nodes[at];
    (thief.seed, thief.entries, thief.accreditation) = (seed, entries, accreditation);
    at
}

#[test]
fn the_old_key_is_refused_by_those_who_know_also_after_their_restart() {
    let mut cluster = Cluster::pair();
    let offer = cluster.offer(0, &[Label::Public]);
    cluster.offer(1, &[Label::Public]);
    let thief = thief(&mut cluster, 1);
    let (old, paper) = (cluster.nodes[thief].key(), cluster.nodes[thief].accreditation.clone());
    cluster.stop_and_rotate(1, NEW);
    let accepted = |cluster: &Cluster| cluster.nodes[0].count(|record| matches!(record, Record::RotationAccepted { .. }));
    assert_eq!(accepted(&cluster), 1);
    assert_eq!((cluster.pulled(0, 1), cluster.pulled(1, 0)), (CrossingState::Done, CrossingState::Done));
    cluster.crash(1);
    cluster.wires.sparse = true;
    for round in [1, 2] {
        cluster.try_start(thief).expect("as far as it knows, its papers hold");
        cluster.connect(thief, 0);
        cluster.run();
        assert_eq!(cluster.status(0).peers_admitted, 0, "it is not let in");
        let theirs = cluster.offers(0).iter().filter(|offer| offer.node == old.public()).count();
        assert_eq!(theirs, 0, "no offer under the old key");
        // Over the bulk plane, with a request that is good in all else.
        let mut lie = cluster.by_hand(offer, round);
        (lie.body.importer, lie.body.accreditation) = (old.public(), paper.clone());
        (lie.signers, lie.peer) = (vec![key(101)], old.public());
        let (_, answer) = cluster.put(&lie);
        let Answer::Refused(RefusalCode::NotAccredited, Some(why)) = answer else { panic!("{answer:?}") };
        assert!(why.contains("was replaced by") && why.contains(&key(NEW).public().to_string()), "{why}");
        cluster.crash(thief);
        cluster.crash(0);
        cluster.try_start(0).expect("starts");
    }
    assert_eq!(accepted(&cluster), 1, "once");
    // Whoever starts the home with its old key is told, and so is a node whose key was replaced without its doing.
    cluster.nodes[1].seed = 101;
    let refused = cluster.try_start(1);
    assert!(matches!(&refused, Err(StartError::OtherKey(by)) if *by == key(NEW).public()), "{refused:?}");
}

/// A node hears of a rotation of its own key that it did not make: it has no standing, also before itself.
#[test]
fn a_node_that_was_replaced_hears_so() {
    let mut cluster = Cluster::pair();
    let thief = thief(&mut cluster, 1);
    cluster.wires.sparse = true;
    cluster.stop_and_rotate(1, NEW);
    let rotation = cluster.nodes[0].entries.iter().find_map(|entry| match &entry.record {
        Record::RotationAccepted { rotation } => Some(rotation.to_vec()),
        _ => None,
    });
    cluster.try_start(thief).expect("as far as it knows, its papers hold");
    let rotation = rotation.expect("accepted");
    assert!(matches!(cluster.adopt(thief, &[&rotation]), Reply::Adopted { accepted: 1, .. }));
    assert!(cluster.status(thief).problem.is_some_and(|why| why.contains("was replaced by")));
    cluster.crash(thief);
    let refused = cluster.try_start(thief);
    assert!(matches!(&refused, Err(StartError::Accreditation(NoStanding::Replaced { .. }))), "{refused:?}");
}

/// Two rotations of one key, as peers see them.
#[test]
fn a_contested_node_crosses_nothing_until_its_authority_has_spoken() {
    let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("ZA", "uct")]);
    cluster.offer(0, &[Label::Public]);
    let false_one = cluster.rotation(1, THIRD);
    cluster.stop_and_rotate(1, NEW);
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    assert!(matches!(cluster.adopt(2, &[false_one.bytes()]), Reply::Adopted { accepted: 1, .. }));
    cluster.run();
    for at in [0, 1, 2] {
        cluster.crash(at);
        cluster.restart(at);
    }
    assert!(cluster.status(1).problem.is_some_and(|why| why.contains("two successions")));
    assert_eq!(cluster.pulled(1, 0), CrossingState::Denied);
    cluster.revoke(country("IN"), key(THIRD).public());
    assert_eq!(cluster.status(1).problem, None);
    settle(&mut cluster);
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
}

#[test]
fn a_yes_was_said_of_the_old_key_and_a_no_holds_on() {
    let mut cluster = Cluster::pair();
    let officer = key(210);
    cluster.crash(0);
    let house = alliance_protocol::gate::Pack::new(PackOwner::House, 1, "duty export approval(1)", "");
    (cluster.nodes[0].house, cluster.nodes[0].approvers) = (Some(house), [officer.public()].into());
    cluster.restart(0);
    cluster.offer(0, &[Label::Public]);
    let yes = cluster.approval(PackOwner::House, DAY);
    assert!(matches!(cluster.approve(0, &yes, &[&officer]), Reply::Adopted { accepted: 1, .. }));
    assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    let waiting = |cluster: &mut Cluster| match cluster.call(0, AdminCall::Approvals) {
        Reply::Approvals { pending, .. } => pending,
        other => panic!("{other:?}"),
    };
    for (at, new) in [(0, NEW), (1, THIRD)] {
        cluster.stop_and_rotate(at, new);
        assert_eq!(cluster.pulled(1, 0), CrossingState::Denied, "node {at} has another key");
        let Record::Refused { decision, .. } = cluster.nodes[0].last() else { panic!("{:?}", cluster.nodes[0].last()) };
        let why = decision.denial.as_ref().map_or("", |denial| &denial.problem);
        assert!(why.contains("for a key that an end had before: have it given again"), "{why}");
        let asked = waiting(&mut cluster);
        let ends = (cluster.nodes[0].public(), cluster.nodes[1].public());
        assert!(asked.iter().any(|one| (one.exporter, one.importer) == ends), "it is asked for again");
        let yes = cluster.approval(PackOwner::House, DAY);
        assert!(matches!(cluster.approve(0, &yes, &[&officer]), Reply::Adopted { accepted: 1, .. }));
        assert_eq!(cluster.pulled(1, 0), CrossingState::Done);
    }
    cluster.let_pass(1);
    let no = cluster.approval(PackOwner::House, DAY);
    let no = alliance_protocol::authority::Approval { granted: false, reason: "misused".into(), ..no };
    assert!(matches!(cluster.approve(0, &no, &[&officer]), Reply::Adopted { accepted: 1, .. }));
    let other = key(211);
    cluster.crash(0);
    cluster.nodes[0].approvers.insert(other.public());
    cluster.restart(0);
    for (at, new) in [(0, 122), (1, 123)] {
        cluster.stop_and_rotate(at, new);
        assert_eq!(cluster.pulled(1, 0), CrossingState::Denied);
        let asked = waiting(&mut cluster);
        let exporter = cluster.nodes[0].public();
        let asked = asked.iter().find(|one| one.exporter == exporter).expect("is asked for");
        let word = asked.needed[0].approvers.iter().find(|one| one.key == officer.public()).and_then(|one| one.granted);
        assert_eq!(word, Some(false), "the refusal of {officer:?} holds on");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    /// Whatever the order in which nodes hear of rotations, they think the same of every key.
    #[test]
    fn all_orders_give_the_same(links in proptest::collection::btree_set((0u8..6, 1u8..3), 0..7), turn in 0usize..7) {
        let alliance = Alliance::found();
        let named = |links: &[(u8, u8)], revoked_after: usize| {
            let mut trust = Trust::new(alliance.chartered());
            for (at, (old, step)) in links.iter().enumerate() {
                if at == revoked_after {
                    revoke(&alliance, &mut trust, 1, &[OLD + 3]);
                }
                // Each key leads only to later ones, so that none leads back.
                let refused = trust.accept_rotation(&good(&alliance, OLD + old, OLD + old + step), DAWN);
                assert_eq!(refused, Ok(Accepted::New));
            }
            if revoked_after >= links.len() {
                revoke(&alliance, &mut trust, 1, &[OLD + 3]);
            }
            (0..9).map(|at| problem(&alliance, &trust, OLD + at)).collect::<Vec<_>>()
        };
        let mut links: Vec<_> = links.into_iter().collect();
        let one = named(&links, links.len());
        let by = turn.min(links.len());
        links.rotate_left(by);
        proptest::prop_assert_eq!(&named(&links, turn), &one);
        links.reverse();
        proptest::prop_assert_eq!(&named(&links, 0), &one);
    }
}
