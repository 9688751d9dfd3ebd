//! The importer's side of a crossing: one task per pull, from the first connection to the countersigned receipt.
//!
//! Core may cut it at any moment but one: a delivery that has begun is carried through, so that what is reported is what
//! is on disk.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
};

use alliance_protocol::{
    border::Inbound,
    core::{BulkEvent, BulkFailure, admin::Side},
    crossing::RefusalCode,
    id::{CrossingId, ManifestId},
    key::PublicKey,
    limits,
};
use quinn::Connection;
use tokio::{sync::mpsc, time::timeout};

use super::{
    ending::{Ending, connection_ended},
    endpoint::session_of,
    frame::Kind,
    receive::{Alive, Received, deliver_artefact, receive_artefact},
    task::{Desk, Link, OpenConnection, Plane, Report, blocking},
};
use crate::models::{Staging, load_manifest};

/// What Core orders an importer's task.
#[derive(Debug)]
pub(super) enum PullOrder {
    Ask { request: Vec<u8> },
    Receive { inbound: Inbound },
    Deliver { receipt: Vec<u8> },
}

/// Whom to reach for what.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) crossing: CrossingId,
    pub(super) peer: PublicKey,
    pub(super) addresses: Vec<String>,
    pub(super) manifest: ManifestId,
    pub(super) to: PathBuf,
}

pub(super) async fn pull_task(plane: Arc<Plane>, reach: Reach, desk: Desk<PullOrder>) {
    let crossing = reach.crossing;
    let open = OpenConnection::default();
    let (alive, mut all_gone) = mpsc::channel(1);
    let outcome = Box::pin(pull_impl(&plane, reach, desk, &open, alive)).await;
    open.close(outcome.as_ref().map_or_else(Ending::after, |()| Ending::Done));
    // A thread may still be at a group: the next attempt must not meet it.
    all_gone.recv().await;
    if let Err(failure) = outcome {
        plane.tell(BulkEvent::PullFailed { crossing, failure }).await;
    }
    plane.report(Report::PullOver(crossing)).await;
}

async fn pull_impl(
    plane: &Plane,
    reach: Reach,
    mut desk: Desk<PullOrder>,
    open: &OpenConnection,
    alive: Alive,
) -> Result<(), BulkFailure> {
    let Desk { orders, cut } = &mut desk;
    let crossing = reach.crossing;
    let _running = plane.start_running()?;
    plane.gauges.admits(Side::Importer, reach.peer)?;
    let taken = cut.or(open, Box::pin(take_artefact(plane, reach, orders, open, &alive))).await?;
    let Some((mut link, received, receipt)) = taken else {
        return Ok(());
    };
    cut.check()?;
    deliver_artefact(plane, received.staging, received.inbound, alive).await?;
    plane.tell(BulkEvent::Delivered { crossing }).await;
    cut.or(open, settle(plane, crossing, &mut link, receipt)).await
}

/// From nothing to a verified artefact and the order to deliver it; none where the exporter refused.
async fn take_artefact(
    plane: &Plane,
    reach: Reach,
    orders: &mut mpsc::Receiver<PullOrder>,
    open: &OpenConnection,
    alive: &Alive,
) -> Result<Option<(Link, Received, Vec<u8>)>, BulkFailure> {
    let Reach { crossing, peer, addresses, manifest, to } = reach;
    let staging = {
        let (alive, manifests) = (alive.clone(), plane.manifests.clone());
        blocking(move || {
            let _alive = alive;
            // A manifest that cannot be read is as good as none: the exporter sends it.
            let known = load_manifest(&manifests, manifest).ok();
            Ok(Staging::open_known(&to, manifest, known)?)
        })
        .await?
    };
    let held = longest_runs(staging.held());
    let mut link = connect(plane, peer, &addresses, open).await?;
    plane.tell(BulkEvent::Reached { crossing, session: link.session, held: held.clone() }).await;

    let PullOrder::Ask { request } = link.order(orders, plane.deadlines.order).await? else {
        return Err(out_of_turn(crossing));
    };
    link.write(Kind::Request, request).await?;
    let (kind, answer) = match timeout(plane.deadlines.answer, link.read(&[Kind::Clearance, Kind::Refusal])).await {
        Ok(read) => read?,
        Err(_) => return Err(BulkFailure::Lost(format!("no answer within {} s", plane.deadlines.answer.as_secs()))),
    };
    if kind == Kind::Refusal {
        // Before Core hears of it: it may take the answer for a clearance, and must then find that nobody takes its order.
        orders.close();
        plane.tell(BulkEvent::Answered { crossing, answer }).await;
        return Ok(None);
    }
    plane.tell(BulkEvent::Answered { crossing, answer }).await;

    let PullOrder::Receive { inbound } = link.order(orders, plane.deadlines.order).await? else {
        return Err(out_of_turn(crossing));
    };
    let is_for = (inbound.crossing(), inbound.exporter(), inbound.manifest(), inbound.held());
    if is_for != (crossing, peer, manifest, held.as_slice()) {
        tracing::error!(%crossing, "the permission is not for this connection; nothing is taken");
        return Err(BulkFailure::EndedHere(RefusalCode::BadRequest));
    }
    let received = match Box::pin(receive_artefact(plane, &mut link, crossing, inbound, staging, alive)).await {
        Ok(received) => received,
        Err(failure) => {
            link.give_up(&failure, plane.deadlines.linger).await;
            return Err(failure);
        }
    };
    let (bytes, held_bytes) = (received.bytes, received.held_bytes);
    plane.tell(BulkEvent::Received { crossing, bytes, held_bytes }).await;
    match link.order(orders, plane.deadlines.order).await? {
        PullOrder::Deliver { receipt } => Ok(Some((link, received, receipt))),
        PullOrder::Ask { request: _ } | PullOrder::Receive { inbound: _ } => Err(out_of_turn(crossing)),
    }
}

/// Presents the receipt and takes the countersigned one.
async fn settle(plane: &Plane, crossing: CrossingId, link: &mut Link, receipt: Vec<u8>) -> Result<(), BulkFailure> {
    link.write(Kind::Receipt, receipt).await?;
    let receipt = link.read_within(plane.deadlines.answer, Kind::Receipt).await?;
    plane.tell(BulkEvent::Settled { crossing, receipt }).await;
    Ok(())
}

/// Tries the addresses in turn until `peer` answers at one of them, and opens the stream.
async fn connect(plane: &Plane, peer: PublicKey, addresses: &[String], open: &OpenConnection) -> Result<Link, BulkFailure> {
    let mut reasons = Vec::new();
    for address in addresses.iter().take(limits::ADDRESSES_MAX) {
        match connect_to(plane, peer, address).await {
            Ok(connection) => {
                open.is(&connection);
                return open_stream(connection, peer).await;
            }
            Err(reason) => reasons.push(format!("`{address}`: {reason}")),
        }
    }
    let reasons = if reasons.is_empty() { "it has no address".to_owned() } else { reasons.join("; ") };
    Err(BulkFailure::Unreachable(reasons))
}

async fn connect_to(plane: &Plane, peer: PublicKey, address: &str) -> Result<Connection, String> {
    let address: SocketAddr = address.parse().map_err(|_| "not a socket address".to_owned())?;
    let limit = plane.deadlines.connect;
    match timeout(limit, plane.line.connect(peer, address)).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn open_stream(connection: Connection, peer: PublicKey) -> Result<Link, BulkFailure> {
    let session = session_of(&connection).ok_or_else(|| BulkFailure::Protocol("the session has no binding".to_owned()))?;
    let (send, recv) = connection.open_bi().await.map_err(|error| connection_ended(&error))?;
    Ok(Link { connection, peer, session, send, recv, activity: AtomicU64::new(0) })
}

/// As many runs as a request may list: the longest, ascending. What is left out is sent again.
fn longest_runs(mut runs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    if runs.len() <= limits::HELD_RUNS_MAX {
        return runs;
    }
    runs.sort_by_key(|(first, end)| std::cmp::Reverse(end.saturating_sub(*first)));
    runs.truncate(limits::HELD_RUNS_MAX);
    BTreeSet::from_iter(runs).into_iter().collect()
}

fn out_of_turn(crossing: CrossingId) -> BulkFailure {
    tracing::error!(%crossing, "an order came out of turn");
    BulkFailure::EndedHere(RefusalCode::Ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_runs_are_listed_in_order() {
        let few = vec![(0, 1), (5, 9)];
        assert_eq!(longest_runs(few.clone()), few);
        let many: Vec<(u64, u64)> = (0..5000).map(|n| (n * 10, n * 10 + if n % 5 == 0 { 1 } else { 2 })).collect();
        let listed = longest_runs(many.clone());
        assert_eq!(listed.len(), limits::HELD_RUNS_MAX);
        assert!(listed.is_sorted());
        let long = many.iter().filter(|(first, end)| end - first == 2).count();
        assert_eq!(listed.iter().filter(|(first, end)| end - first == 2).count(), long.min(limits::HELD_RUNS_MAX));
    }
}
