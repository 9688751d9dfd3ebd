//! The exporter's side of a crossing: one task per connection, from the handshake to the countersigned receipt.
//!
//! It knows nothing of law: it hands the request to Core as it came and does what Core orders, once.

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alliance_protocol::{
    border::Outbound,
    core::{AskId, BulkEvent, BulkFailure},
    crossing::RefusalCode,
    key::PublicKey,
};
use quinn::{Endpoint, Incoming};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};

use super::{
    admission::Place,
    ending::{Ending, connection_ended},
    endpoint::{open_send_window, peer_of, session_of},
    frame::{Inbox, Kind},
    send::{open_artefact, send_artefact},
    task::{Desk, Handle, Link, OpenConnection, Plane, Report},
};

/// What Core orders an exporter's task.
#[derive(Debug)]
pub(super) enum ServeOrder {
    Refuse { refusal: Vec<u8> },
    Serve { clearance: Vec<u8>, outbound: Outbound, path: PathBuf, arriving: bool },
    Countersign { receipt: Vec<u8> },
}

/// A peer with its request, not decided on yet.
struct Asker {
    link: Link,
    request: Vec<u8>,
    peer_place: Place<PublicKey>,
}

/// Takes connections of an endpoint until it closes.
pub(super) async fn accept_task(plane: Arc<Plane>, endpoint: Endpoint) {
    let mut serving = JoinSet::new();
    loop {
        tokio::select! {
            incoming = endpoint.accept() => match incoming {
                Some(incoming) => admit(&plane, &mut serving, incoming),
                None => return,
            },
            Some(ended) = serving.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a serving broke off");
                }
            }
        }
    }
}

/// Gives the attempt a place and a task, or turns it away.
fn admit(plane: &Arc<Plane>, serving: &mut JoinSet<()>, incoming: Incoming) {
    if plane.admission.crowded() && incoming.may_retry() && !incoming.remote_address_validated() {
        if let Err(error) = incoming.retry() {
            error.into_incoming().refuse();
        }
        return;
    }
    match plane.admission.source(incoming.remote_address().ip()) {
        Some(place) => {
            serving.spawn(Box::pin(serve_task(Arc::clone(plane), incoming, place)));
        }
        None => incoming.refuse(),
    }
}

async fn serve_task(plane: Arc<Plane>, incoming: Incoming, source_place: Place<IpAddr>) {
    let from = incoming.remote_address();
    let open = OpenConnection::default();
    let asker = match timeout(plane.deadlines.request, meet(&plane, incoming, &open)).await {
        Ok(Ok(asker)) => asker,
        Ok(Err(failure)) => {
            tracing::debug!(%from, %failure, "a connection came to nothing");
            return open.close(Ending::after(&failure));
        }
        Err(_) => {
            tracing::debug!(%from, "a connection brought no request in time");
            return open.close(Ending::Refused(RefusalCode::BadRequest));
        }
    };
    let ask = AskId(plane.asks.fetch_add(1, Ordering::Relaxed));
    let (handle, mut desk) = Handle::new();
    let Asker { mut link, request, peer_place: _until_the_end } = asker;
    let asked = BulkEvent::Asked { ask, peer: link.peer, session: link.session, request };
    plane.report(Report::Asked(ask, handle, asked)).await;

    let sent = AtomicU64::new(0);
    let Desk { orders, cut } = &mut desk;
    // Not closed by the cut: the reset that says why is repeated until it arrives, a close is not.
    let unclosed = OpenConnection::default();
    let outcome = cut.or(&unclosed, serve_impl(&plane, ask, &mut link, orders, source_place, &sent)).await;
    if let Err(failure) = outcome {
        link.give_up(&failure, plane.deadlines.linger).await;
        let bytes = sent.load(Ordering::Relaxed);
        plane.tell(BulkEvent::ServeFailed { ask, bytes, failure }).await;
    }
    plane.report(Report::ServeOver(ask)).await;
}

/// Completes the handshake and reads the request.
async fn meet(plane: &Plane, incoming: Incoming, open: &OpenConnection) -> Result<Asker, BulkFailure> {
    let connecting = incoming.accept().map_err(|error| connection_ended(&error))?;
    let connection = connecting.await.map_err(|error| connection_ended(&error))?;
    open.is(&connection);
    open_send_window(&connection);
    let peer = peer_of(&connection).ok_or_else(|| BulkFailure::Protocol("no key was proved".to_owned()))?;
    let session = session_of(&connection).ok_or_else(|| BulkFailure::Protocol("the session has no binding".to_owned()))?;
    let peer_place = plane.admission.peer(peer).ok_or(BulkFailure::EndedHere(RefusalCode::Busy))?;
    let (send, recv) = connection.accept_bi().await.map_err(|error| connection_ended(&error))?;
    let mut link = Link { connection, peer, session, send, inbox: Inbox::new(recv), activity: AtomicU64::new(0) };
    let (_, request) = link.read(&[Kind::Request]).await?;
    Ok(Asker { link, request, peer_place })
}

async fn serve_impl(
    plane: &Plane,
    ask: AskId,
    link: &mut Link,
    orders: &mut mpsc::Receiver<ServeOrder>,
    source_place: Place<IpAddr>,
    sent: &AtomicU64,
) -> Result<(), BulkFailure> {
    let (clearance, outbound, path, arriving) = match link.order(orders, plane.deadlines.order).await? {
        ServeOrder::Serve { clearance, outbound, path, arriving } => (clearance, outbound, path, arriving),
        ServeOrder::Refuse { refusal } => {
            refuse(plane, link, refusal).await;
            return Ok(());
        }
        ServeOrder::Countersign { receipt: _ } => return Err(out_of_turn("countersign")),
    };
    let _running = plane.start_running()?;
    drop(source_place);
    let artefact = open_artefact(plane, outbound.manifest(), &path, arriving).await?;
    let receipt = Box::pin(send_artefact(plane, link, outbound, clearance, artefact, sent)).await?;
    let bytes = sent.load(Ordering::Relaxed);
    plane.tell(BulkEvent::ReceiptOffered { ask, bytes, receipt }).await;
    match link.order(orders, plane.deadlines.order).await? {
        ServeOrder::Countersign { receipt } => {
            // The receipt stands with both signatures from here on, whether or not the importer still listens.
            match link.write(Kind::Receipt, receipt).await {
                Ok(()) => link.finish(plane.deadlines.linger).await,
                Err(failure) => tracing::debug!(%failure, "the countersigned receipt was not taken"),
            }
            Ok(())
        }
        ServeOrder::Refuse { refusal: _ } => Err(out_of_turn("refuse")),
        ServeOrder::Serve { .. } => Err(out_of_turn("serve")),
    }
}

/// The refusal is recorded already; a peer that does not wait for it misses it.
async fn refuse(plane: &Plane, link: &mut Link, refusal: Vec<u8>) {
    match link.write(Kind::Refusal, refusal).await {
        Ok(()) => link.finish(plane.deadlines.linger).await,
        Err(failure) => tracing::debug!(%failure, "a refusal was not taken"),
    }
}

fn out_of_turn(order: &str) -> BulkFailure {
    tracing::error!(order, "an order came out of turn");
    BulkFailure::EndedHere(RefusalCode::Ended)
}
