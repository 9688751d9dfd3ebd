//! Where nodes are: the tiers that authorities give, and answers that come sooner than light.

use alliance_protocol::{
    authority::Accreditation,
    core::{
        MeshEvent,
        admin::{AdminCall, CrossingState, PeerView, Reply},
    },
    ledger::Record,
    limits,
    place::Place,
    trust::{Distrust, Trust},
    vocabulary::{Label, Tier},
};

use crate::{
    alliance::{Alliance, accreditation_of, country},
    cluster::Cluster,
};

const SAO_PAULO: &str = "-23.551,-46.633";
const BENGALURU: &str = "12.972,77.594";
const CHENNAI: &str = "13.083,80.271";

fn place(text: &str) -> Place {
    text.parse().expect("a place")
}

/// Gives a node a place and a tier, by its authority, and starts it anew.
fn put(cluster: &mut Cluster, at: usize, tier: Tier, place: Option<&str>) {
    let (member, node) = (cluster.nodes[at].member, cluster.nodes[at].public());
    let body = Accreditation {
        tier,
        place: place.map(self::place),
        ..accreditation_of(member, node, &cluster.nodes[at].organisation)
    };
    cluster.nodes[at].accreditation = cluster.alliance.spoken(member, &body).bytes().to_vec();
    cluster.crash(at);
    cluster.let_pass(1_000);
    cluster.restart(at);
}

/// Brazil and India, each with a place, both of the second highest tier.
fn placed() -> Cluster {
    let mut cluster = Cluster::pair();
    put(&mut cluster, 0, Tier::Corroborated, Some(SAO_PAULO));
    put(&mut cluster, 1, Tier::Corroborated, Some(BENGALURU));
    cluster
}

fn measure(cluster: &mut Cluster, at: usize, other: usize, round_trip_us: u64) {
    let event = MeshEvent::Measured { peer: cluster.nodes[other].public(), round_trip_us };
    let effects = cluster.tell_mesh(at, event);
    cluster.route(at, effects);
    cluster.run();
}

fn peer(cluster: &mut Cluster, at: usize) -> PeerView {
    let Reply::Peers(peers) = cluster.call(at, AdminCall::Peers) else { panic!("peers") };
    peers.into_iter().next().expect("one")
}

fn contradicted(cluster: &Cluster, at: usize) -> usize {
    cluster.nodes[at].count(|record| matches!(record, Record::PlaceContradicted { .. }))
}

fn least_us() -> u64 {
    place(SAO_PAULO).round_trip_us_at_least(&place(BENGALURU))
}

/// LAW-10: a rule can demand a tier.
#[test]
fn a_rule_demands_a_tier() {
    for (tier, at, expected) in [
        (Tier::Declared, None, CrossingState::Denied),
        (Tier::Accredited, None, CrossingState::Denied),
        (Tier::Corroborated, Some(BENGALURU), CrossingState::Done),
        (Tier::Attested, Some(BENGALURU), CrossingState::Done),
    ] {
        let mut cluster = Cluster::pair();
        put(&mut cluster, 1, tier, at);
        cluster.enact(country("BR"), "deny export to-below:corroborated");
        let offer = cluster.offer(0, &[Label::Public]);
        let crossing = cluster.pull(1, offer);
        cluster.run();
        assert_eq!(cluster.state(1, crossing), expected, "{tier}");
    }
}

/// STATEMENT-17: what nobody can contradict is corroborated by nobody.
#[test]
fn a_high_tier_needs_a_place() {
    let alliance = Alliance::found();
    let trust = Trust::new(alliance.chartered());
    let body = accreditation_of(country("BR"), crate::alliance::key(100).public(), "usp");
    for (tier, at, good) in [
        (Tier::Declared, None, true),
        (Tier::Accredited, Some(SAO_PAULO), true),
        (Tier::Corroborated, None, false),
        (Tier::Attested, None, false),
        (Tier::Attested, Some(SAO_PAULO), true),
    ] {
        let body = Accreditation { tier, place: at.map(place), ..body.clone() };
        let found = trust.accreditation(alliance.spoken(country("BR"), &body).bytes());
        match found {
            Ok(_) => assert!(good, "{tier}"),
            Err(error) => assert!(!good && matches!(error, Distrust::Malformed(_)), "{tier}: {error}"),
        }
    }
}

/// LAW-46.
#[test]
fn an_answer_that_is_faster_than_light_lowers_the_tier_and_alarms() {
    let mut cluster = placed();
    cluster.enact(country("BR"), "deny export to-below:corroborated");
    let offer = cluster.offer(0, &[Label::Public]);
    measure(&mut cluster, 0, 1, least_us());
    assert_eq!((contradicted(&cluster, 0), peer(&mut cluster, 0).place_alarm), (0, None));
    let crossing = cluster.pull(1, offer);
    cluster.run_to("received");
    assert_eq!(cluster.state(0, crossing), CrossingState::Cleared);

    // It ends what runs, on both sides, and what would begin.
    measure(&mut cluster, 0, 1, least_us() - 1);
    assert_eq!(cluster.state(0, crossing), CrossingState::Failed);
    cluster.run();
    assert_eq!(cluster.state(1, crossing), CrossingState::Failed);
    let again = cluster.pull(1, offer);
    cluster.run();
    assert_eq!(cluster.state(1, again), CrossingState::Denied);
    let alarm = peer(&mut cluster, 0).place_alarm.expect("an alarm");
    assert!(alarm.contains(BENGALURU) && alarm.contains("light"), "{alarm}");
    let Record::Refused { decision, .. } = cluster.nodes[0].last() else { panic!("refused") };
    assert_eq!(
        decision.facts.as_ref().map(|facts| (facts.from.tier, facts.to.tier)),
        Some((Tier::Corroborated, Tier::Declared))
    );

    // Once is enough, and a slow answer proves nothing.
    for us in [1, least_us() + 1, u64::MAX] {
        measure(&mut cluster, 0, 1, us);
    }
    assert_eq!(contradicted(&cluster, 0), 1);
    assert_eq!(contradicted(&cluster, 1), 0, "each believes what it measured itself");
    cluster.crash(0);
    cluster.restart(0);
    assert!(peer(&mut cluster, 0).place_alarm.is_some(), "it is recorded");
}

/// LAW-46: the measurement was of one place, seen from another.
#[test]
fn another_place_is_another_matter() {
    let mut cluster = placed();
    measure(&mut cluster, 0, 1, 7);
    assert!(peer(&mut cluster, 0).place_alarm.is_some());
    put(&mut cluster, 1, Tier::Corroborated, Some(CHENNAI));
    assert_eq!(peer(&mut cluster, 0).place_alarm, None);
    measure(&mut cluster, 0, 1, 7);
    assert!(peer(&mut cluster, 0).place_alarm.is_some());
    // It was this node that had been said to be elsewhere.
    put(&mut cluster, 0, Tier::Corroborated, Some(CHENNAI));
    assert_eq!(peer(&mut cluster, 0).place_alarm, None);
    measure(&mut cluster, 0, 1, 7);
    assert_eq!(peer(&mut cluster, 0).place_alarm, None, "they are neighbours");
}

/// LAW-46: who is said to be now here, now there fills no ledger, and is believed to be nowhere in the end.
#[test]
fn a_node_that_is_said_to_be_at_one_place_after_the_other_is_recorded_a_few_times() {
    let mut cluster = placed();
    let places = [BENGALURU, CHENNAI, "19.076,72.878", "28.614,77.209", "22.573,88.364", BENGALURU, CHENNAI];
    for (at, place) in places.into_iter().enumerate() {
        put(&mut cluster, 1, Tier::Corroborated, Some(place));
        measure(&mut cluster, 0, 1, 7);
        measure(&mut cluster, 0, 1, 7);
        assert_eq!(contradicted(&cluster, 0), limits::PLACES_CONTRADICTED_MAX.min(at + 1));
        assert!(peer(&mut cluster, 0).place_alarm.is_some(), "{place}");
    }
    // The fifth was never measured against, and is not believed either, now and after a restart.
    put(&mut cluster, 1, Tier::Corroborated, Some("22.573,88.364"));
    cluster.crash(0);
    cluster.restart(0);
    cluster.run();
    let why = peer(&mut cluster, 0).place_alarm.expect("alarmed");
    assert!(why.contains("4 places"), "{why}");
}

#[test]
fn without_places_nothing_is_contradicted() {
    let mut cluster = Cluster::pair();
    measure(&mut cluster, 0, 1, 0);
    put(&mut cluster, 0, Tier::Accredited, Some(SAO_PAULO));
    measure(&mut cluster, 0, 1, 0);
    measure(&mut cluster, 1, 0, 0);
    assert_eq!((contradicted(&cluster, 0), contradicted(&cluster, 1)), (0, 0));
}
