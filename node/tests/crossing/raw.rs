//! Ends of a crossing that say whatever the test wants. They share no code with the bulk plane, so that they also fix what
//! goes over the wire.

use std::{net::SocketAddr, sync::Arc};

use alliance_protocol::{
    crossing::{ClearanceGiven, CrossingRequest},
    envelope::Signed,
    id::{AllianceId, SessionBinding},
    key::SecretKey,
    limits,
    time::Validity,
    vocabulary::Label,
};
use libp2p::identity::Keypair;
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, ReadExactError, RecvStream, SendStream, ServerConfig,
    TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

pub(crate) const REQUEST: u8 = 1;
pub(crate) const CLEARANCE: u8 = 2;
pub(crate) const REFUSAL: u8 = 3;
pub(crate) const MANIFEST: u8 = 4;
pub(crate) const RECEIPT: u8 = 5;
pub(crate) const WANT: u8 = 6;
pub(crate) const HAVE: u8 = 7;
pub(crate) const GROUPS: u8 = 8;

/// Bytes of groups in one frame, at the most, as these ends send them.
const FRAME_BYTES: usize = 64 * 1024;

/// Codes with which an end closes.
pub(crate) const GAVE_UP: u64 = 1;
pub(crate) const BAD_REQUEST: u64 = 16;
pub(crate) const DAMAGED: u64 = 22;
pub(crate) const BUSY: u64 = 23;
pub(crate) const ENDED: u64 = 25;

const ALPN: &[u8] = b"alliance-bulk/1";

fn keypair(key: &SecretKey) -> Keypair {
    Keypair::ed25519_from_bytes(*key.to_seed()).expect("a key")
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

/// One stream to the other end.
pub(crate) struct Wire {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
    pub(crate) session: SessionBinding,
}

impl Wire {
    fn new(connection: Connection, (send, recv): (SendStream, RecvStream)) -> Self {
        let mut session = [0; 32];
        connection.export_keying_material(&mut session, b"EXPORTER-alliance-crossing-v1", b"").expect("a session");
        Self { connection, send, recv, session: SessionBinding(session) }
    }

    /// Sends a frame; what is announced may differ from what is sent with [`Wire::bytes`].
    pub(crate) async fn frame(&mut self, kind: u8, payload: &[u8]) {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        self.bytes(&[&[kind][..], &length, payload].concat()).await;
    }

    /// Sends groups, in frames.
    pub(crate) async fn groups(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(FRAME_BYTES) {
            self.frame(GROUPS, part).await;
        }
    }

    /// Asks for groups.
    pub(crate) async fn want(&mut self, runs: &[(u64, u64)]) {
        let payload: Vec<u8> =
            runs.iter().flat_map(|(first, end)| [first.to_be_bytes(), end.to_be_bytes()].concat()).collect();
        self.frame(WANT, &payload).await;
    }

    /// What the other end asks for next, or has.
    pub(crate) async fn runs(&mut self, kind: u8) -> Vec<(u64, u64)> {
        let (found, payload) = self.next().await;
        assert_eq!(found, kind);
        runs_of(&payload)
    }

    /// The next frame, whatever it is.
    pub(crate) async fn next(&mut self) -> (u8, Vec<u8>) {
        self.any().await.expect("a frame")
    }

    /// Exactly so many bytes of groups, whatever frames they come in, or the code with which the other end ended before.
    pub(crate) async fn take(&mut self, bytes: usize) -> Result<Vec<u8>, u64> {
        let mut taken = Vec::new();
        while taken.len() < bytes {
            let (kind, groups) = self.read().await?;
            assert_eq!(kind, GROUPS);
            taken.extend(groups);
        }
        assert_eq!(taken.len(), bytes);
        Ok(taken)
    }

    /// Sends bytes. The other end may have had enough already, so a failure is none.
    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        // A write that flow control holds up does not always hear that the other end has stopped.
        let stopped = self.send.stopped();
        tokio::select! {
            _enough = self.send.write_all(bytes) => {}
            Ok(Some(_code)) = stopped => {}
        }
    }

    /// The next frame that is not about which groups are wanted and had, or the code with which the other end ended.
    pub(crate) async fn read(&mut self) -> Result<(u8, Vec<u8>), u64> {
        loop {
            match self.any().await {
                Ok((WANT | HAVE, _)) => {}
                other => return other,
            }
        }
    }

    async fn any(&mut self) -> Result<(u8, Vec<u8>), u64> {
        let mut header = [0; 5];
        match self.recv.read_exact(&mut header).await {
            Ok(()) => {}
            Err(ReadExactError::FinishedEarly(_)) => return Err(0),
            Err(ReadExactError::ReadError(quinn::ReadError::Reset(code))) => return Err(code.into_inner()),
            Err(ReadExactError::ReadError(_)) => return Err(self.closed().await),
        }
        let [kind, length @ ..] = header;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes(length)).expect("fits")];
        match self.recv.read_exact(&mut payload).await {
            Ok(()) => Ok((kind, payload)),
            Err(ReadExactError::ReadError(quinn::ReadError::Reset(code))) => Err(code.into_inner()),
            Err(_) => Err(self.closed().await),
        }
    }

    /// The code with which the other end stops, resets or closes; this end closes then.
    pub(crate) async fn told(&mut self) -> u64 {
        let Self { connection, send, recv, .. } = self;
        let stopped = async {
            match send.stopped().await {
                Ok(Some(code)) => code.into_inner(),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let reset = async {
            match recv.received_reset().await {
                Ok(Some(code)) => code.into_inner(),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let code = tokio::select! {
            code = stopped => code,
            code = reset => code,
            error = connection.closed() => code_of(&error),
        };
        self.close(0);
        code
    }

    pub(crate) fn close(&self, code: u32) {
        self.connection.close(VarInt::from_u32(code), b"");
    }

    async fn closed(&self) -> u64 {
        code_of(&self.connection.closed().await)
    }
}

/// The runs of a frame.
pub(crate) fn runs_of(payload: &[u8]) -> Vec<(u64, u64)> {
    let numbers: Vec<u64> = payload.as_chunks::<8>().0.iter().map(|number| u64::from_be_bytes(*number)).collect();
    numbers.as_chunks::<2>().0.iter().map(|[first, end]| (*first, *end)).collect()
}

fn code_of(error: &ConnectionError) -> u64 {
    match error {
        ConnectionError::ApplicationClosed(close) => close.error_code.into_inner(),
        other => panic!("the connection ended without a code: {other}"),
    }
}

/// An endpoint with a node's real key that answers as the test wants.
pub(crate) struct RawExporter {
    pub(crate) key: SecretKey,
    alliance: AllianceId,
    endpoint: Endpoint,
}

/// An importer that has asked.
pub(crate) struct Guest {
    pub(crate) wire: Wire,
    pub(crate) request: Signed<CrossingRequest>,
    pub(crate) key: SecretKey,
    pub(crate) alliance: AllianceId,
}

impl RawExporter {
    pub(crate) fn open(key: &SecretKey, alliance: AllianceId) -> Self {
        let mut tls = libp2p_tls::make_server_config(&keypair(key)).expect("settings");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicServerConfig::try_from(tls).expect("settings");
        let config = ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = Endpoint::server(config, loopback()).expect("a free port");
        Self { key: SecretKey::from_seed(&key.to_seed()), alliance, endpoint }
    }

    pub(crate) fn address(&self) -> String {
        self.endpoint.local_addr().expect("bound").to_string()
    }

    /// The next importer that asks.
    pub(crate) async fn accept(&self) -> Guest {
        let connection = self.endpoint.accept().await.expect("open").await.expect("a handshake");
        let streams = connection.accept_bi().await.expect("a stream");
        let mut wire = Wire::new(connection, streams);
        let (kind, request) = wire.read().await.expect("a request");
        assert_eq!(kind, REQUEST);
        let request = Signed::<CrossingRequest>::open(&request, self.alliance).expect("a request");
        assert_eq!(request.body().session, wire.session, "bound to this session");
        Guest { wire, request, key: SecretKey::from_seed(&self.key.to_seed()), alliance: self.alliance }
    }
}

impl Guest {
    /// What an honest exporter says.
    pub(crate) fn clearance(&self) -> ClearanceGiven {
        let asked = self.request.body();
        ClearanceGiven {
            crossing: asked.crossing,
            request: self.request.id(),
            exporter: asked.exporter,
            importer: asked.importer,
            manifest: asked.manifest,
            labels: [Label::Public].into(),
            parts: None,
            purpose: asked.purpose,
            epochs: Vec::new(),
            people: None,
            volume: alliance_protocol::gate::Volume::default(),
            session: asked.session,
            ledger: asked.ledger,
            training: None,
            validity: Validity::lasting_ms(asked.asked, limits::CLEARANCE_TTL_MS_MAX),
        }
    }

    /// The bytes of a clearance with the exporter's signature.
    pub(crate) fn signed(&self, clearance: &ClearanceGiven) -> Vec<u8> {
        Signed::sign(clearance, self.alliance, &self.key).expect("small").bytes().to_vec()
    }

    /// Clears as an honest exporter does.
    pub(crate) async fn clear(&mut self) {
        let clearance = self.signed(&self.clearance());
        self.wire.frame(CLEARANCE, &clearance).await;
    }
}

/// An endpoint with some key that asks what the test wants.
pub(crate) struct RawImporter {
    pub(crate) key: SecretKey,
    endpoint: Endpoint,
}

impl RawImporter {
    pub(crate) fn open(key: &SecretKey) -> Self {
        let endpoint = Endpoint::client(loopback()).expect("a free port");
        Self { key: SecretKey::from_seed(&key.to_seed()), endpoint }
    }

    /// Connects, with room for `window` bytes from the other end.
    pub(crate) async fn connect(&self, to: SocketAddr, window: u32) -> Wire {
        self.try_connect(to, window).await.expect("a stream")
    }

    /// As [`RawImporter::connect`], or the code with which the other end closed before there was a stream.
    pub(crate) async fn try_connect(&self, to: SocketAddr, window: u32) -> Result<Wire, u64> {
        let mut tls = libp2p_tls::make_client_config(&keypair(&self.key), None).expect("settings");
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let crypto = QuicClientConfig::try_from(tls).expect("settings");
        let mut config = ClientConfig::new(Arc::new(crypto));
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(VarInt::from_u32(window));
        config.transport_config(Arc::new(transport));
        let connecting = self.endpoint.connect_with(config, to, "alliance").expect("settings");
        let connection = connecting.await.expect("a handshake");
        match connection.open_bi().await {
            Ok(streams) => Ok(Wire::new(connection, streams)),
            Err(ConnectionError::ApplicationClosed(close)) => Err(close.error_code.into_inner()),
            Err(error) => panic!("no stream: {error}"),
        }
    }
}
