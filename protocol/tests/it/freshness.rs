//! Statuses that run out: nothing new begins from that instant on, and what runs goes on for the grace that the status states,
//! and no longer. A newer word of the authority counts at once.

use alliance_protocol::{
    authority::{Adoption, Status},
    core::{Core, Input, admin::CrossingState},
    crossing::RefusalCode,
    id::{CrossingId, StatementId},
    limits::{CLOCK_SKEW_MS_MAX, STATUS_GRACE_MS_MAX},
    time::{NotValid, Timestamp, Validity},
    trust::{Accepted, Course, Distrust, Stale, Trust},
    vocabulary::Label,
};

use crate::{
    alliance::{Alliance, DAWN, HOUR, SECOND, STATUS_MS, country, status_of},
    cluster::Cluster,
    routes::Parcel,
    tabled_gate::TabledGate,
};

/// Its end is not that of a regular round.
const GRACE: u64 = 600 * SECOND + 1_234;

/// When the status of India runs out in these tests, and when what runs ends.
const OUT: Timestamp = Timestamp(DAWN.0 + STATUS_MS);
const OVER: Timestamp = Timestamp(OUT.0 + GRACE);

/// A crossing from Brazil to India whose bytes are on their way, and the offer. The authority of India grants a grace; its status
/// runs out, and those of the others do not.
struct Late {
    cluster: Cluster,
    offer: StatementId,
    crossing: CrossingId,
    received: Parcel,
}

impl Late {
    /// At an instant a while before.
    fn before() -> Self {
        let mut cluster = Cluster::new(&[("BR", "usp"), ("IN", "iitb"), ("CN", "thu")]);
        cluster.grant_grace(country("IN"), GRACE);
        let offer = cluster.offer(0, &[Label::Public]);
        cluster.advance_to(OUT.minus_ms(HOUR));
        for member in ["BR", "CN", "ZA"] {
            cluster.renew(country(member));
        }
        let crossing = cluster.pull(1, offer);
        let received = cluster.run_to("received");
        cluster.run();
        Self { cluster, offer, crossing, received }
    }

    /// At the first instant of the grace.
    fn in_grace() -> Self {
        let mut late = Self::before();
        late.cluster.advance_to(OUT);
        late.runs();
        late
    }

    #[track_caller]
    fn runs(&mut self) {
        for at in [0, 1] {
            assert_eq!(self.cluster.state(at, self.crossing), CrossingState::Cleared, "side {at}");
        }
    }

    /// Both sides have ended it; why, at each.
    #[track_caller]
    fn ended(&mut self) -> [String; 2] {
        [0, 1].map(|at| {
            let view = self.cluster.view(at, self.crossing);
            assert_eq!(view.state, CrossingState::Failed, "side {at}: {view:?}");
            view.problem.expect("a reason")
        })
    }

    /// A status of India that follows the one that the cluster knows.
    fn next(&self, change: impl FnOnce(Status) -> Status) -> Vec<u8> {
        let status = change(self.cluster.next_status(country("IN")));
        self.cluster.alliance.status(&status).bytes().to_vec()
    }
}

/// What both sides say of a crossing that the grace of a status of India does not keep running any more.
fn stale() -> String {
    format!("the status of IN does not count: it ran out at {OUT}; its authority must publish a new one")
}

/// CROSSING-33.
#[test]
fn what_runs_goes_on_for_the_grace_and_ends_on_both_sides_with_one_reason() {
    let mut late = Late::in_grace();
    late.cluster.advance_to(OVER.minus_ms(1));
    late.runs();
    let wakes = late.cluster.nodes.iter().filter_map(|node| node.core.as_ref().map(Core::next_wake));
    assert!(wakes.clone().all(|wake| wake <= OVER), "each asked to be woken in time: {:?}", wakes.collect::<Vec<_>>());
    late.cluster.advance_to(OVER);
    let why = format!("ended while it ran: {}", stale());
    assert_eq!(late.ended(), [why.clone(), why]);
    // What arrives after the end is not delivered.
    let input = late.cluster.input(late.received);
    let effects = late.cluster.tell(1, input);
    assert!(effects.bulk.is_empty() && effects.persist.is_empty());
}

/// The side whose timer comes second hears from the other that it ended, without a reason, and finds its own.
#[test]
fn the_side_that_hears_of_the_end_records_the_same_reason() {
    for first in [0, 1] {
        let mut late = Late::in_grace();
        late.cluster.now = OVER;
        let effects = late.cluster.tell(first, Input::Tick);
        late.cluster.route(first, effects);
        late.cluster.run();
        let why = format!("ended while it ran: {}", stale());
        assert_eq!(late.ended(), [why.clone(), why], "{first} was first");
    }
    // Where its own answer is still yes, it says what it was told and no more.
    let mut late = Late::before();
    let call = alliance_protocol::core::admin::AdminCall::Cancel(late.crossing);
    late.cluster.call(1, call);
    late.cluster.run();
    assert!(late.ended()[0].contains("the other side ended it"), "{:?}", late.ended());
}

/// STATEMENT-45: standing for what is new ends with the status, whatever grace it states.
#[test]
fn nothing_new_begins_in_the_grace_at_either_side() {
    let mut late = Late::in_grace();
    let again = late.cluster.pull(1, late.offer);
    late.cluster.run();
    let view = late.cluster.view(1, again);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::Stale)));
    assert_eq!(view.problem, Some(stale()));
    // The importer alone has heard of a fresh status; the exporter decides by what it knows.
    for other in [1, 2] {
        late.cluster.disconnect(0, other);
    }
    let fresh = late.next(|status| status);
    late.cluster.adopt(1, &[&fresh]);
    late.cluster.run();
    let again = late.cluster.pull(1, late.offer);
    late.cluster.run();
    let view = late.cluster.view(1, again);
    assert_eq!((view.state, view.refusal), (CrossingState::Denied, Some(RefusalCode::Stale)));
    assert_eq!(late.cluster.view(0, again).problem, Some(stale()));
    late.runs();
}

/// What both sides have not allowed does not run.
#[test]
fn a_clearance_that_comes_in_the_grace_lets_nothing_in() {
    for step in ["reached", "answered"] {
        let mut late = Late::before();
        late.cluster.advance_to(OUT.minus_ms(1));
        let asked = late.cluster.pull(1, late.offer);
        let parcel = late.cluster.run_to(step);
        late.cluster.let_pass(1);
        late.cluster.deliver(parcel);
        late.cluster.run();
        let view = late.cluster.view(1, asked);
        assert!(matches!(view.state, CrossingState::Denied | CrossingState::Failed), "{step}: {view:?}");
        assert!(view.problem.as_ref().is_some_and(|why| why.contains(&stale())), "{step}: {view:?}");
        late.cluster.tick();
        late.runs();
    }
}

#[test]
fn what_has_come_is_delivered_within_the_grace_and_not_after_it() {
    let mut late = Late::in_grace();
    late.cluster.now = OVER.minus_ms(1);
    late.cluster.deliver(late.received);
    late.cluster.run();
    for at in [0, 1] {
        assert_eq!(late.cluster.state(at, late.crossing), CrossingState::Done);
    }
    // Nobody is woken in between: the last decision is made all the same.
    let mut late = Late::in_grace();
    late.cluster.now = OVER;
    let Late { mut cluster, crossing, received, .. } = late;
    cluster.deliver(received);
    let view = cluster.view(1, crossing);
    assert_eq!((view.state, view.problem), (CrossingState::Failed, Some(format!("not delivered: {}", stale()))));
}

#[test]
fn a_newer_status_counts_at_once_in_the_grace() {
    // One that revokes an end of it.
    let mut late = Late::in_grace();
    let importer = late.cluster.nodes[1].public();
    late.cluster.revoke(country("IN"), importer);
    assert!(late.ended().iter().any(|why| why.contains("IN has revoked the accreditation of iitb")), "{:?}", late.ended());

    // One that revokes an end of it and has run out itself, with a grace of its own.
    let mut late = Late::in_grace();
    let importer = late.cluster.nodes[1].public();
    let validity = Validity { from: DAWN, until: OUT };
    let revoking = late.next(|status| Status { validity, revoked: [importer].into(), ..status });
    late.cluster.adopt(0, &[&revoking]);
    late.cluster.run();
    assert!(late.ended()[0].contains("IN has revoked"), "{:?}", late.ended());

    // One that has run out and states no grace.
    let mut late = Late::in_grace();
    let shorter = late.next(|status| Status { validity, grace_ms: 0, ..status });
    late.cluster.adopt(0, &[&shorter]);
    late.cluster.run();
    let why = format!("ended while it ran: {}", stale());
    assert_eq!(late.ended()[0], why);

    // One that is fresh: what runs goes on, and new ones begin again.
    let mut late = Late::in_grace();
    late.cluster.renew(country("IN"));
    let again = late.cluster.pull(1, late.offer);
    late.cluster.advance_to(OVER.plus_ms(1));
    assert_eq!(late.cluster.state(1, again), CrossingState::Done);
    late.runs();
}

#[test]
fn a_law_that_was_adopted_ahead_begins_in_the_grace_too() {
    let mut late = Late::before();
    let (india, from) = (country("IN"), OUT.plus_ms(GRACE / 2));
    let next = late.cluster.alliance.law(india, 2, "deny import all");
    let until = Validity { from: late.cluster.now, until: OUT };
    let upcoming = vec![Adoption { from, law_pack: next.id(), epoch: 2 }];
    let status = late.next(|status| Status { validity: until, upcoming, ..status });
    late.cluster.adopt(0, &[next.bytes(), &status]);
    late.cluster.run();
    late.cluster.advance_to(from.minus_ms(CLOCK_SKEW_MS_MAX + 1));
    late.runs();
    late.cluster.advance_to(from.minus_ms(CLOCK_SKEW_MS_MAX));
    assert!(late.ended().iter().all(|why| why.contains("denied by the rules of IN")), "{:?}", late.ended());
}

/// CROSSING-32, CROSSING-40: after a restart nothing runs, and what goes on where it was is a new crossing.
#[test]
fn a_node_that_starts_again_in_the_grace_takes_nothing_up() {
    for at in [0, 1] {
        let mut late = Late::in_grace();
        late.cluster.crash(at);
        late.cluster.restart(at);
        assert_eq!(late.cluster.state(at, late.crossing), CrossingState::Failed);
        let again = late.cluster.pull(1, late.offer);
        late.cluster.run();
        assert_eq!(late.cluster.view(1, again).refusal, Some(RefusalCode::Stale), "{at} was down");
    }
}

/// STATEMENT-44, STATEMENT-54: at every instant around both ends.
#[test]
fn the_grace_is_for_what_runs_and_ends_when_it_says() {
    let alliance = Alliance::found();
    let member = country("BR");
    let pack = alliance.law(member, 1, "");
    for (from, life, grace_ms) in
        [(DAWN, HOUR, 0), (DAWN, HOUR, 1), (DAWN, 20 * SECOND, HOUR), (DAWN.plus_ms(HOUR), HOUR, 5)]
    {
        let mut trust = Trust::new(alliance.chartered());
        trust.accept_pack(pack.bytes(), &TabledGate).expect("accepted");
        let status = Status { validity: Validity::lasting_ms(from, life), grace_ms, ..status_of(member, 1, &pack) };
        trust.accept_status(alliance.status(&status).bytes()).expect("accepted");
        let (begin, until) = (from.minus_ms(CLOCK_SKEW_MS_MAX), from.plus_ms(life));
        let over = until.plus_ms(grace_ms);
        for now in [begin.0 - 1, begin.0, until.0 - 1, until.0, until.0 + 1, over.0.saturating_sub(1), over.0, over.0 + 1] {
            let now = Timestamp(now);
            let new = trust.laws(member, Course::New, now);
            let running = trust.laws(member, Course::Running, now);
            assert_eq!(new.is_ok(), begin <= now && now < until, "{now:?}: {new:?}");
            // A status that is not valid yet has no grace before it.
            assert_eq!(running.is_ok(), begin <= now && now < over, "{now:?}: {running:?}");
            if now >= over {
                assert_eq!(running, Err(Stale::Status { member, why: NotValid::AnyMore(until) }));
            }
        }
        assert_eq!(trust.next_change(until), Some(over).filter(|over| *over > until), "it is looked at again then");
    }
}

#[test]
fn a_status_states_a_grace_within_bounds() {
    let alliance = Alliance::found();
    let member = country("BR");
    let pack = alliance.law(member, 1, "");
    let stating = |grace_ms| alliance.status(&Status { grace_ms, ..status_of(member, 1, &pack) });
    let accept = |grace_ms| Trust::new(alliance.chartered()).accept_status(stating(grace_ms).bytes());
    assert_eq!(accept(STATUS_GRACE_MS_MAX), Ok(Accepted::New));
    for grace_ms in [STATUS_GRACE_MS_MAX + 1, u64::MAX] {
        assert!(matches!(accept(grace_ms), Err(Distrust::Malformed(_))), "{grace_ms}");
    }
    assert!(!stating(0).bytes().windows(8).any(|bytes| bytes == b"grace_ms"), "none is not written");
}
