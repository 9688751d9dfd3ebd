//! The QUIC endpoint of the bulk plane: its limits, how a peer is reached, and what a connection proves.
//!
//! It never resumes a session, never follows a peer to another address, never accepts a datagram or a one-way stream, and
//! never opens a window without an end.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use alliance_protocol::{
    id::SessionBinding,
    key::{PublicKey, SecretKey},
};
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, Endpoint, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;

use super::{
    BulkError,
    congestion::PathControlFactory,
    socket::{self, SocketCounters},
    timer::PreciseRuntime,
    tls::{self, Identity},
};

/// The label under which both ends derive the value that binds a request to its session.
const SESSION_LABEL: &[u8] = b"EXPORTER-alliance-crossing-v1";

/// Bytes that may be on their way from an exporter, all of which are sent again if the importer is killed. On a short path
/// what 10 Gbit/s have in flight, less what the first round trip has besides, and no more than the socket's buffer holds, so
/// that flow control holds the sender and not loss; on a long one twice what 800 Mbit/s have in flight, which at 150 ms are
/// 30 MB. At the least so much that, with a group that is half here and what is sent ahead, it is a thousandth of 1 GiB.
const WINDOW_BYTES_MIN: u32 = 128 * 1024;
const WINDOW_BYTES_NEAR_MIN: u32 = 640 * 1024;
const WINDOW_BYTES_NEAR: u32 = 3 * 1024 * 1024;
const WINDOW_BYTES_PER_US_NEAR: u32 = 1250;
const WINDOW_BYTES_MAX: u32 = 32 * 1024 * 1024;
const WINDOW_BYTES_PER_MS: u32 = 200_000;

/// Microseconds of the first round trip that both ends spend on the handshake's signatures.
const SIGNING_US: u32 = 500;

/// Bytes that an importer may have in flight to this node: one request, and then what it wants.
const REQUEST_WINDOW_BYTES: u32 = 512 * 1024;

/// Bytes of artefact handed to a connection and not yet acknowledged, beyond those that the importer's window holds: enough
/// for the next packets.
const SEND_AHEAD_BYTES: u32 = 128 * 1024;

/// Milliseconds of silence after which a connection is dead, and between two signs of life.
const IDLE_MS: u32 = 20_000;
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Connection attempts that wait for the accept loop; more are refused.
const INCOMING_MAX: usize = 1024;

/// Bytes buffered for one attempt and for all while they wait: a handshake, no more.
const INCOMING_BYTES: u64 = 16 * 1024;
const INCOMING_BYTES_TOTAL: u64 = 4 * 1024 * 1024;

/// Bytes of UDP payload that every Ethernet carries (1500 less the headers of IPv6 and UDP).
pub const MTU_ETHERNET: u16 = 1452;

/// The same of Ethernet with jumbo frames of 9000 bytes; fewer packets cost less. Not the default, for what finds out whether
/// a path carries them is padding, which a refused peer gets too.
pub const MTU_JUMBO: u16 = 8952;

/// Packets that may arrive before the importer has to acknowledge: as many as arrive in a few batches. Each acknowledgement
/// costs both sides as much as several packets.
const PACKETS_PER_ACK: u32 = 100;

/// How long an acknowledgement may wait for more packets: short, since it is also what time is measured by.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);

/// Packets by which the path may reorder before an acknowledgement is sent at once.
const REORDERING_PACKETS: u32 = 3;

/// A name that TLS wants and nobody looks at: the certificate is judged by its key.
const SERVER_NAME: &str = "alliance";

/// What an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    Both,
    /// Others may share its address.
    Answering,
    Calling,
}

/// An endpoint.
#[derive(Debug)]
pub(super) struct Line {
    endpoint: Endpoint,
    identity: Identity,
    mtu: u16,
    /// Bytes that may be on their way to this node over a short path, at the most.
    window: u32,
}

impl Line {
    /// Binds the socket and starts to listen, if it is for that. `open` is dropped when the socket is closed.
    pub(super) fn open(
        key: &SecretKey,
        listen: SocketAddr,
        mtu: u16,
        use_: Use,
        counters: Arc<SocketCounters>,
        open: mpsc::Sender<Infallible>,
    ) -> Result<Self, BulkError> {
        let identity = Identity::new(key)?;
        let mtu = mtu.max(MTU_ETHERNET);
        let (socket, granted) = socket::bind(listen, mtu, use_ == Use::Answering, counters, open)
            .map_err(|source| BulkError::of_socket(listen, source))?;
        let mut config = EndpointConfig::default();
        config.max_udp_payload_size(mtu.saturating_add(20)).map_err(|_| BulkError::Mtu(mtu))?;
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            if use_ == Use::Calling { None } else { Some(server_config(&identity, mtu)?) },
            socket,
            Arc::new(PreciseRuntime::start().map_err(BulkError::Thread)?),
        )
        .map_err(|source| BulkError::Socket { address: listen, source })?;
        // The kernel counts what a packet takes in memory, which is up to twice what is in it.
        let window = u32::try_from(granted / 8 * 3).unwrap_or(u32::MAX).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_NEAR);
        Ok(Self { endpoint, identity, mtu, window })
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Connects to `address`, where `peer` must answer, or says why not.
    pub(super) async fn connect(&self, peer: PublicKey, address: SocketAddr) -> Result<Connection, String> {
        let config = self.client_config(peer).map_err(|error| error.to_string())?;
        let connecting = self.endpoint.connect_with(config, address, SERVER_NAME).map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| error.to_string())?;
        // The handshake has refused every other key; the certificate is read again so that this does not rest on the
        // settings of the TLS library alone.
        if peer_of(&connection) != Some(peer) {
            return Err("another key answered".to_owned());
        }
        connection.set_receive_window(VarInt::from_u32(window(connection.rtt(), self.window)));
        Ok(connection)
    }

    fn client_config(&self, peer: PublicKey) -> Result<ClientConfig, BulkError> {
        let crypto = QuicClientConfig::try_from(self.identity.client(peer)?).map_err(|_| BulkError::CipherSuite)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = transport(self.mtu);
        // The connection has one stream; its window grows to the path when that is known.
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(0))
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES_MAX))
            .receive_window(VarInt::from_u32(self.window))
            .send_window(u64::from(REQUEST_WINDOW_BYTES));
        config.transport_config(Arc::new(transport));
        Ok(config)
    }
}

fn server_config(identity: &Identity, mtu: u16) -> Result<ServerConfig, BulkError> {
    let crypto = QuicServerConfig::try_from(identity.server()?).map_err(|_| BulkError::CipherSuite)?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport(mtu);
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements
        .ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK))
        .max_ack_delay(Some(ACK_DELAY_MAX))
        .reordering_threshold(VarInt::from_u32(REORDERING_PACKETS));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .stream_receive_window(VarInt::from_u32(REQUEST_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(REQUEST_WINDOW_BYTES))
        .send_window(u64::from(WINDOW_BYTES_NEAR.saturating_add(SEND_AHEAD_BYTES)))
        .ack_frequency_config(Some(acknowledgements));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BYTES)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL);
    Ok(config)
}

/// Lets an exporter have as much under way to the importer as the path takes, now that its round trip is known.
pub(super) fn open_send_window(connection: &Connection) {
    let window = window_near(connection.rtt());
    connection.set_send_window(u64::from(window.saturating_add(SEND_AHEAD_BYTES)));
}

/// Bytes on their way at a time that a path with this round trip takes, if the receiver's socket holds them.
pub(super) fn window_near(round_trip: Duration) -> u32 {
    window(round_trip, WINDOW_BYTES_NEAR)
}

/// Bytes on their way at a time that a path with this round trip takes, where a short one takes `near` at the most.
fn window(round_trip: Duration, near: u32) -> u32 {
    let us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
    let near = us.saturating_sub(SIGNING_US).saturating_mul(WINDOW_BYTES_PER_US_NEAR).max(WINDOW_BYTES_NEAR_MIN).min(near);
    (us / 1000).saturating_mul(WINDOW_BYTES_PER_MS).min(WINDOW_BYTES_MAX).max(near)
}

/// What holds on both sides.
fn transport(mtu: u16) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_mtu(MTU_ETHERNET)
        .mtu_discovery_config(Some(discovery))
        .congestion_controller_factory(Arc::new(PathControlFactory));
    transport
}

/// The key that the other side's certificate proves; none before the handshake is over.
pub(super) fn peer_of(connection: &Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    match identity.downcast_ref::<Vec<CertificateDer<'static>>>()?.as_slice() {
        [certificate] => tls::key_of(certificate).ok(),
        _ => None,
    }
}

/// What binds statements to this session: both ends compute the same, and no other session does.
pub(super) fn session_of(connection: &Connection) -> Option<SessionBinding> {
    let mut binding = [0; 32];
    connection.export_keying_material(&mut binding, SESSION_LABEL, b"").ok()?;
    Some(SessionBinding(binding))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_is_on_its_way_as_the_path_holds() {
        let windows = [0, 100, 900, 1500, 3000, 20_000, 150_000, 10_000_000]
            .map(|us| window(Duration::from_micros(us), WINDOW_BYTES_NEAR) / 1024);
        assert_eq!(windows, [640, 640, 640, 1220, 3051, 3906, 29_296, 32_768]);
        assert_eq!(window(Duration::from_micros(5000), WINDOW_BYTES_MIN), 1_000_000, "the socket's buffer is short");
        assert_eq!(window(Duration::from_micros(50), WINDOW_BYTES_MIN), WINDOW_BYTES_MIN);
    }
}
