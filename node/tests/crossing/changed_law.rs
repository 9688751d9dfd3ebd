//! What was allowed when it began ends when it is not allowed any more, whoever hears of it first.

use std::path::PathBuf;

use alliance_protocol::{
    core::admin::{AdminCall, CrossingState, LocalModel, Reply},
    id::{CrossingId, StatementId},
    time::Validity,
};

use crate::{
    alliance::{HOUR, country},
    artefact::{GROUP, plain},
    valve::Valve,
    world::{EXPORTER, IMPORTER, World, assert_absent},
};

/// A transfer of 16 MiB that has come to a halt after two.
struct Halted {
    world: World,
    valve: Valve,
    offer: StatementId,
    model: LocalModel,
    to: PathBuf,
    crossing: CrossingId,
}

impl Halted {
    async fn new() -> Self {
        let mut world = World::pair();
        let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 64));
        let valve = Valve::new(world.nodes[EXPORTER].bulk.local_addr(), 8 * GROUP as u64).await;
        world.move_to(EXPORTER, valve.address());
        let to = world.fresh(IMPORTER);
        let crossing = world.pull(IMPORTER, offer, &to);
        world.during(valve.shut()).await;
        world.some_progress(IMPORTER).await;
        Self { world, valve, offer, model, to, crossing }
    }

    /// A status that revokes the importer.
    fn revocation(&mut self) -> Vec<u8> {
        let importer = self.world.nodes[IMPORTER].public();
        let validity = Validity::lasting_ms(self.world.now, 6 * HOUR);
        self.world.alliance.status(country("IN"), validity, &[importer])
    }

    /// Both ends are over with it, and nothing was delivered.
    async fn over(&mut self, exporter_says: &str, importer_says: &str) {
        for (at, says) in [(EXPORTER, exporter_says), (IMPORTER, importer_says)] {
            let view = self.world.settle(at, self.crossing).await;
            let problem = view.problem.unwrap_or_default();
            assert_eq!((view.state, view.refusal), (CrossingState::Failed, None), "{at}: {problem}");
            assert!(problem.contains(says), "{at}: {problem}");
            assert!(!self.world.nodes[at].failure(self.crossing).2, "nobody lied");
            assert_eq!(self.world.running(at), 0);
        }
        assert_absent(&self.to);
        let sent = self.world.nodes[EXPORTER].sent();
        assert_eq!(self.world.nodes[EXPORTER].failure(self.crossing).0, sent, "what may have left is recorded");
        assert!(self.world.nodes[IMPORTER].received() <= sent && sent < self.model.bytes, "{sent}");
        assert!(!self.world.nodes[EXPORTER].kinds(self.crossing).contains(&"settled"));
    }

    /// When it is allowed again, what had arrived is not sent again.
    async fn again(&mut self) {
        // Core is over with it at once; its bulk plane has to let go of the directory.
        let gone = |world: &mut World| world.nodes[IMPORTER].heard.iter().any(|report| report.starts_with("PullFailed"));
        self.world.run_until("the end of the task", gone).await;
        for member in self.world.alliance.members() {
            self.world.renew(member, 6 * HOUR, &[]);
        }
        self.world.move_home(EXPORTER);
        self.world.move_home(IMPORTER);
        let receipt = self.world.pull_well(IMPORTER, self.offer, &self.model, &self.to).await;
        assert!(receipt.held_bytes > 0, "{receipt:?}");
    }
}

const LAW: &str = "ended while it ran";
const PEER: &str = "the other side ended it: ended";

#[tokio::test]
async fn both_hear_that_the_importer_is_revoked() {
    let mut halted = Halted::new().await;
    let status = halted.revocation();
    halted.world.adopt(EXPORTER, status);
    halted.valve.open();
    halted.over(LAW, LAW).await;
    halted.again().await;
}

#[tokio::test]
async fn only_the_exporter_hears_that_the_importer_is_revoked() {
    let mut halted = Halted::new().await;
    let status = halted.revocation();
    halted.world.whisper(EXPORTER, status);
    halted.valve.open();
    halted.over(LAW, PEER).await;
}

#[tokio::test]
async fn only_the_importer_hears_that_it_is_revoked() {
    let mut halted = Halted::new().await;
    let status = halted.revocation();
    halted.world.whisper(IMPORTER, status);
    halted.valve.open();
    halted.over(PEER, LAW).await;
}

#[tokio::test]
async fn the_exporter_takes_its_offer_back() {
    let mut halted = Halted::new().await;
    let offer = halted.offer;
    let reply = halted.world.call(EXPORTER, AdminCall::Withdraw { offer, reason: "a mistake".into() });
    assert!(matches!(reply, Reply::Withdrawn { .. }), "{reply:?}");
    halted.world.spread();
    halted.valve.open();
    halted.over("withdrawn", "withdrawn").await;
}

#[tokio::test]
async fn a_status_runs_out_and_nobody_renews_it() {
    let mut halted = Halted::new().await;
    halted.world.let_pass(6 * HOUR - 1);
    assert_eq!((halted.world.running(EXPORTER), halted.world.running(IMPORTER)), (1, 1));
    halted.world.let_pass(1);
    halted.valve.open();
    halted.over(LAW, LAW).await;
    halted.again().await;
}

/// Everything has arrived and is verified, and the importer has not decided to deliver it yet.
#[tokio::test]
async fn what_the_exporter_takes_back_before_the_delivery_is_not_delivered() {
    let mut world = World::pair();
    let (offer, model) = world.offer(EXPORTER, |dir| plain(dir, 8));
    let to = world.fresh(IMPORTER);
    let crossing = world.pull(IMPORTER, offer, &to);
    let asked = |world: &mut World| world.nodes[IMPORTER].kinds(crossing).contains(&"clearance_accepted");
    world.run_until("the clearance", asked).await;
    // From here on the importer's loop is busy with something else.
    world.paused.insert(IMPORTER);
    let bytes = model.bytes;
    let watch = async |world: &mut World| {
        while world.nodes[IMPORTER].received() < bytes {
            world.during(tokio::task::yield_now()).await;
        }
    };
    watch(&mut world).await;
    let importer = world.nodes[IMPORTER].public();
    let status = world.alliance.status(country("IN"), Validity::lasting_ms(world.now, HOUR), &[importer]);
    world.whisper(EXPORTER, status);
    // The exporter is done with it when the importer's plane, whose Core knows nothing yet, has heard of the end.
    let view = world.settle(EXPORTER, crossing).await;
    assert_eq!(view.state, CrossingState::Failed, "{view:?}");
    world.paused.clear();
    let view = world.settle(IMPORTER, crossing).await;
    assert_eq!(view.state, CrossingState::Failed, "{view:?}");
    assert_absent(&to);
}
