//! The importer's side of a crossing: one task per pull, from the first connection to the countersigned receipt.
//!
//! Core may cut it at any moment but one: a delivery that has begun is carried through, so that what is reported is what
//! is on disk.

use std::{
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
    endpoint::{Line, session_of},
    frame::{Inbox, Kind},
    gathering::Seat,
    lanes::Lane,
    receive::{Alive, Debt, Received, Usage, ask_ahead, deliver_artefact, receive_artefact},
    task::{Desk, Link, OpenConnection, Plane, Report},
};
use crate::models::TensorPattern;

/// What Core orders an importer's task.
#[derive(Debug)]
pub(super) enum PullOrder {
    Ask { request: Vec<u8>, ahead: bool },
    Receive { inbound: Box<Inbound> },
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
    /// What is wanted of it; all, where none.
    pub(super) tensors: Vec<TensorPattern>,
    pub(super) usage: Usage,
}

pub(super) async fn pull_task(plane: Arc<Plane>, lane: Arc<Lane>, reach: Reach, desk: Desk<PullOrder>) {
    let crossing = reach.crossing;
    let open = OpenConnection::default();
    let (alive, mut all_gone) = mpsc::channel(1);
    let seat = plane.gatherings.join(&reach);
    let outcome = Box::pin(pull_impl((&plane, lane.line()), reach, &seat, desk, &open, alive)).await;
    seat.over();
    open.close(outcome.as_ref().map_or_else(Ending::after, |()| Ending::Done));
    // A thread may still be at a group: the next attempt must not meet it.
    all_gone.recv().await;
    let gathering = Arc::clone(seat.gathering());
    drop(seat);
    if let Err(failure) = gathering.let_go().await {
        tracing::warn!(%failure, "what was received is not given back cleanly");
    }
    if let Err(failure) = outcome {
        plane.tell(BulkEvent::PullFailed { crossing, failure }).await;
    }
    plane.report(Report::PullOver(crossing)).await;
}

async fn pull_impl(
    (plane, line): (&Plane, &Line),
    reach: Reach,
    seat: &Arc<Seat>,
    mut desk: Desk<PullOrder>,
    open: &OpenConnection,
    alive: Alive,
) -> Result<(), BulkFailure> {
    let Desk { orders, cut } = &mut desk;
    let crossing = reach.crossing;
    let _running = plane.start_running()?;
    plane.gauges.admits(Side::Importer, reach.peer)?;
    let taken = cut.or(open, Box::pin(take_artefact((plane, line), reach, seat, orders, open, &alive))).await?;
    let Some((mut link, received, receipt)) = taken else {
        return Ok(());
    };
    cut.check()?;
    deliver_artefact(plane, seat, received.inbound, alive).await?;
    plane.tell(BulkEvent::Delivered { crossing }).await;
    cut.or(open, settle(plane, crossing, &mut link, receipt)).await
}

/// From nothing to a verified artefact and the order to deliver it; none where the exporter refused.
async fn take_artefact(
    (plane, line): (&Plane, &Line),
    reach: Reach,
    seat: &Arc<Seat>,
    orders: &mut mpsc::Receiver<PullOrder>,
    open: &OpenConnection,
    alive: &Alive,
) -> Result<Option<(Link, Received, Vec<u8>)>, BulkFailure> {
    let Reach { crossing, peer, addresses, manifest, to: _, tensors: _, usage } = reach;
    seat.open(&plane.manifests, alive).await?;
    let mut link = connect((plane, line), peer, &addresses, open).await?;
    plane.tell(BulkEvent::Reached { crossing, session: link.session }).await;

    let PullOrder::Ask { request, ahead } = link.order(orders, plane.deadlines.order).await? else {
        return Err(out_of_turn(crossing));
    };
    link.write(Kind::Request, request).await?;
    let debt = if ahead { ask_ahead(&mut link, seat, &usage).await? } else { Debt::default() };
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
    if (inbound.crossing(), inbound.exporter(), inbound.manifest()) != (crossing, peer, manifest) {
        tracing::error!(%crossing, "the permission is not for this connection; nothing is taken");
        return Err(BulkFailure::EndedHere(RefusalCode::BadRequest));
    }
    let received = match Box::pin(receive_artefact(plane, &mut link, *inbound, (seat, usage, debt), alive)).await {
        Ok(received) => received,
        Err(failure) => {
            link.give_up(&failure, plane.deadlines.linger).await;
            return Err(failure);
        }
    };
    let (bytes, held_bytes, part) = (received.bytes, received.held_bytes, received.part.clone());
    plane.tell(BulkEvent::Received { crossing, bytes, held_bytes, part }).await;
    match link.order(orders, plane.deadlines.order).await? {
        PullOrder::Deliver { receipt } => Ok(Some((link, received, receipt))),
        PullOrder::Ask { .. } | PullOrder::Receive { inbound: _ } => Err(out_of_turn(crossing)),
    }
}

/// Presents the receipt and takes the countersigned one.
async fn settle(plane: &Plane, crossing: CrossingId, link: &mut Link, receipt: Vec<u8>) -> Result<(), BulkFailure> {
    link.write(Kind::Receipt, receipt).await?;
    let receipt = link.receipt_within(plane.deadlines.answer).await?;
    plane.tell(BulkEvent::Settled { crossing, receipt }).await;
    Ok(())
}

/// Tries the addresses in turn until `peer` answers at one of them, and opens the stream.
async fn connect(
    (plane, line): (&Plane, &Line),
    peer: PublicKey,
    addresses: &[String],
    open: &OpenConnection,
) -> Result<Link, BulkFailure> {
    let mut reasons = Vec::new();
    for address in addresses.iter().take(limits::ADDRESSES_MAX) {
        match connect_to((plane, line), peer, address).await {
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

async fn connect_to((plane, line): (&Plane, &Line), peer: PublicKey, address: &str) -> Result<Connection, String> {
    let address: SocketAddr = address.parse().map_err(|_| "not a socket address".to_owned())?;
    let limit = plane.deadlines.connect;
    match timeout(limit, line.connect(peer, address)).await {
        Ok(connected) => connected,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn open_stream(connection: Connection, peer: PublicKey) -> Result<Link, BulkFailure> {
    let session = session_of(&connection).ok_or_else(|| BulkFailure::Protocol("the session has no binding".to_owned()))?;
    let (send, recv) = connection.open_bi().await.map_err(|error| connection_ended(&error))?;
    Ok(Link { connection, peer, session, send, inbox: Inbox::new(recv), activity: AtomicU64::new(0) })
}

fn out_of_turn(crossing: CrossingId) -> BulkFailure {
    tracing::error!(%crossing, "an order came out of turn");
    BulkFailure::EndedHere(RefusalCode::Ended)
}
