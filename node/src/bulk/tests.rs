//! Two planes on this machine, and strangers of every kind.

use std::future::Future;

use alliance_protocol::{
    id::{ManifestId, SessionBinding},
    key::PublicKey,
    limits,
};
use quinn::{ClientConfig, Connection, ConnectionError, crypto::rustls::QuicClientConfig};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use super::{
    endpoint::{Line, Use, peer_of, session_of},
    task::Link,
    *,
};

/// Longer than anything here takes; a test that meets it hangs.
const HANG: Duration = Duration::from_secs(60);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn config() -> BulkConfig {
    BulkConfig::new("127.0.0.1:0".parse().expect("an address"), PathBuf::from("/nonexistent"))
}

fn start(seed: u8, deadlines: Deadlines) -> Bulk {
    Bulk::start(&key(seed), BulkConfig { deadlines, ..config() }).expect("a free port")
}

/// What tasks know, without a task.
pub(super) fn plane() -> Arc<Plane> {
    Arc::clone(&start(8, Deadlines::default()).plane)
}

fn line(seed: u8) -> Line {
    Line::open(&key(seed), config().listen, MTU_ETHERNET, Use::Both, Arc::default(), mpsc::channel(1).0)
        .expect("a free port")
}

pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(HANG, what).await.expect("it hangs")
}

async fn event(bulk: &mut Bulk) -> BulkEvent {
    soon(bulk.next()).await
}

/// Two connected ends of one stream, each on an endpoint that lives as long as the returned lines.
pub(super) async fn links() -> (Link, Link, [Line; 2]) {
    let (server, client) = (line(1), line(2));
    let address = server.endpoint().local_addr().expect("bound");
    let accepting = async {
        let connection = server.endpoint().accept().await.expect("open").await.expect("a handshake");
        let (send, mut recv) = connection.accept_bi().await.expect("a stream");
        recv.read_exact(&mut [0; 1]).await.expect("the first byte");
        link(connection, send, recv)
    };
    let connecting = async {
        let connection = client.connect(key(1).public(), address).await.expect("reached");
        let (mut send, recv) = connection.open_bi().await.expect("a stream");
        send.write_all(&[0]).await.expect("the first byte");
        link(connection, send, recv)
    };
    let (exporter, importer) = soon(futures::future::join(accepting, connecting)).await;
    (exporter, importer, [server, client])
}

fn link(connection: Connection, send: quinn::SendStream, recv: quinn::RecvStream) -> Link {
    let peer = peer_of(&connection).expect("a key");
    let session = session_of(&connection).expect("a session");
    Link { connection, peer, session, send, inbox: frame::Inbox::new(recv), activity: AtomicU64::new(0) }
}

#[tokio::test]
async fn packets_grow_to_what_the_path_carries() {
    let open = |seed, mtu| {
        Line::open(&key(seed), config().listen, mtu, Use::Both, Arc::default(), mpsc::channel(1).0).expect("a free port")
    };
    for mtu in [MTU_ETHERNET, MTU_JUMBO] {
        let (server, client) = (open(1, mtu), open(2, mtu));
        let address = server.endpoint().local_addr().expect("bound");
        let accepting = async { server.endpoint().accept().await.expect("open").await.expect("a handshake") };
        let connecting = async { client.connect(key(1).public(), address).await.expect("reached") };
        let (incoming, connection) = soon(futures::future::join(accepting, connecting)).await;
        let (mut send, _recv) = connection.open_bi().await.expect("a stream");
        let taking = async {
            let (_send, mut recv) = incoming.accept_bi().await.expect("a stream");
            while recv.read_chunk(usize::MAX, true).await.expect("open").is_some() {}
        };
        let sending = async {
            // Loopback carries the largest of them.
            while connection.stats().path.current_mtu < mtu {
                send.write_all(&[7; 4096]).await.expect("taken");
            }
            send.finish().expect("open");
        };
        soon(futures::future::join(taking, sending)).await;
        let path = connection.stats().path;
        assert_eq!((path.current_mtu, path.black_holes_detected), (mtu, 0), "{path:?}");
    }
}

fn crossing(n: u8) -> CrossingId {
    CrossingId([n; 32])
}

fn reach(n: u8, peer: PublicKey, addresses: &[String], to: &TempDir) -> BulkOrder {
    let to = to.path().join(format!("{n}"));
    let (crossing, addresses, manifest) = (crossing(n), addresses.to_vec(), ManifestId([9; 32]));
    BulkOrder::Reach { crossing, peer, addresses, manifest, to, piecewise: false, local: Vec::new(), tensors: Vec::new() }
}

/// The importer reaches the exporter and asks; what the exporter hears.
async fn ask(exporter: &mut Bulk, importer: &mut Bulk, n: u8, peer: PublicKey, to: &TempDir) -> (AskId, SessionBinding) {
    importer.apply(reach(n, peer, &[exporter.local_addr().to_string()], to));
    let BulkEvent::Reached { crossing: reached, session: theirs } = event(importer).await else { panic!("not reached") };
    assert_eq!(reached, crossing(n));
    importer.apply(BulkOrder::Ask { crossing: crossing(n), request: vec![n; 1000], ahead: true });
    let BulkEvent::Asked { ask, peer, session, request } = event(exporter).await else { panic!("not asked") };
    assert_eq!((peer, session, request), (key(2).public(), theirs, vec![n; 1000]));
    (ask, session)
}

#[tokio::test]
async fn a_refusal_moves_no_artefact_byte() {
    let to = TempDir::new().expect("a directory");
    let (mut exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    let mut sessions = Vec::new();
    for n in 1..=3 {
        let (ask, session) = ask(&mut exporter, &mut importer, n, key(1).public(), &to).await;
        assert!(!sessions.contains(&session), "a session is bound to one connection");
        sessions.push(session);
        exporter.apply(BulkOrder::Refuse { ask, refusal: b"no".to_vec() });
        let BulkEvent::Answered { crossing: answered, answer } = event(&mut importer).await else { panic!("not answered") };
        assert_eq!((answered, answer), (crossing(n), b"no".to_vec()));
    }
    let back = importer.counters();
    // Each plane has its own thread: what has arrived was sent, and is counted as sent a moment later at the most.
    let counted = async {
        while exporter.counters().socket_bytes_sent < back.socket_bytes_received {
            tokio::task::yield_now().await;
        }
        exporter.counters()
    };
    let out = soon(counted).await;
    assert_eq!((out.artefact_bytes_sent, back.artefact_bytes_received), (0, 0));
    assert!(out.socket_bytes_sent > 3 * 1200, "three handshakes: {out:?}");
    assert!(out.socket_bytes_sent < 64 * 1024, "a refusal is small: {out:?}");
    assert!(back.socket_bytes_sent > 3 * 1000, "the requests: {back:?}");

    // Core mistakes the refusal for a clearance and goes on: it is told that there is no transfer any more.
    importer.apply(BulkOrder::Deliver { crossing: crossing(1), receipt: Vec::new() });
    let failed = event(&mut importer).await;
    assert!(matches!(failed, BulkEvent::PullFailed { crossing: c, .. } if c == crossing(1)), "{failed:?}");
}

#[tokio::test]
async fn the_largest_request_passes() {
    let to = TempDir::new().expect("a directory");
    let (mut exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    importer.apply(reach(1, key(1).public(), &[exporter.local_addr().to_string()], &to));
    assert!(matches!(event(&mut importer).await, BulkEvent::Reached { .. }));
    importer.apply(BulkOrder::Ask { crossing: crossing(1), request: vec![7; limits::REQUEST_BYTES_MAX], ahead: true });
    let asked = event(&mut exporter).await;
    assert!(matches!(&asked, BulkEvent::Asked { request, .. } if request.len() == limits::REQUEST_BYTES_MAX));

    importer.apply(reach(2, key(1).public(), &[exporter.local_addr().to_string()], &to));
    assert!(matches!(event(&mut importer).await, BulkEvent::Reached { .. }));
    importer.apply(BulkOrder::Ask { crossing: crossing(2), request: vec![7; limits::REQUEST_BYTES_MAX + 1], ahead: true });
    let failed = event(&mut importer).await;
    let refused = BulkFailure::EndedHere(RefusalCode::BadRequest);
    assert!(matches!(&failed, BulkEvent::PullFailed { failure, .. } if *failure == refused), "{failed:?}");
}

#[tokio::test]
async fn only_the_expected_key_is_reached() {
    let to = TempDir::new().expect("a directory");
    let (exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let there = exporter.local_addr().to_string();
    let unreachable: [(&[String], &str); 3] = [
        (std::slice::from_ref(&there), &there),
        (&["not an address".to_owned(), "[::1]:1".to_owned()], "not a socket address"),
        (&[], "no address"),
    ];
    for (n, (addresses, text)) in (1..).zip(unreachable) {
        importer.apply(reach(n, key(3).public(), addresses, &to));
        let failed = event(&mut importer).await;
        let BulkEvent::PullFailed { crossing: c, failure: BulkFailure::Unreachable(why) } = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(c, crossing(n));
        assert!(why.contains(text), "{why}");
    }
    // An address where nobody answers does not hide the next one.
    importer.apply(reach(9, key(1).public(), &[nobody.to_string(), there], &to));
    assert!(matches!(event(&mut importer).await, BulkEvent::Reached { .. }));
}

#[tokio::test]
async fn either_side_cuts_and_says_why() {
    let to = TempDir::new().expect("a directory");
    let (mut exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    let code = RefusalCode::DeniedByLaw;

    let (first, _) = ask(&mut exporter, &mut importer, 1, key(1).public(), &to).await;
    exporter.apply(BulkOrder::AbortServe { ask: first, code });
    let failed = event(&mut exporter).await;
    let expected = BulkFailure::EndedHere(code);
    assert!(matches!(&failed, BulkEvent::ServeFailed { bytes: 0, failure, .. } if *failure == expected), "{failed:?}");
    let failed = event(&mut importer).await;
    let expected = BulkFailure::EndedByPeer(code);
    assert!(matches!(&failed, BulkEvent::PullFailed { failure, .. } if *failure == expected), "{failed:?}");

    let (second, _) = ask(&mut exporter, &mut importer, 2, key(1).public(), &to).await;
    importer.apply(BulkOrder::AbortPull { crossing: crossing(2), code: RefusalCode::Ended });
    let failed = event(&mut importer).await;
    let expected = BulkFailure::EndedHere(RefusalCode::Ended);
    assert!(matches!(&failed, BulkEvent::PullFailed { failure, .. } if *failure == expected), "{failed:?}");
    let failed = event(&mut exporter).await;
    let expected = BulkFailure::EndedByPeer(RefusalCode::Ended);
    assert!(
        matches!(&failed, BulkEvent::ServeFailed { ask, failure, .. } if (*ask, failure) == (second, &expected)),
        "{failed:?}"
    );
}

#[tokio::test]
async fn silence_of_core_is_a_refusal() {
    let to = TempDir::new().expect("a directory");
    let hasty = Deadlines { order: Duration::from_millis(100), ..Deadlines::default() };
    let (mut exporter, mut importer) = (start(1, hasty), start(2, Deadlines::default()));
    let _ = ask(&mut exporter, &mut importer, 1, key(1).public(), &to).await;
    let failed = event(&mut exporter).await;
    let expected = BulkFailure::EndedHere(RefusalCode::Ended);
    assert!(matches!(&failed, BulkEvent::ServeFailed { failure, .. } if *failure == expected), "{failed:?}");
    assert!(matches!(event(&mut importer).await, BulkEvent::PullFailed { .. }));
}

#[tokio::test]
async fn a_peer_has_its_share_of_places() {
    let to = TempDir::new().expect("a directory");
    let (mut exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    let share = u8::try_from(limits::CROSSINGS_PER_PEER_MAX).expect("small");
    for n in 0..share {
        let _ = ask(&mut exporter, &mut importer, n, key(1).public(), &to).await;
    }
    importer.apply(reach(share, key(1).public(), &[exporter.local_addr().to_string()], &to));
    let expected = BulkFailure::EndedByPeer(RefusalCode::Busy);
    let mut next = event(&mut importer).await;
    if matches!(next, BulkEvent::Reached { .. }) {
        next = event(&mut importer).await;
    }
    assert!(matches!(&next, BulkEvent::PullFailed { failure, .. } if *failure == expected), "{next:?}");

    // Another key still finds a place.
    let other = line(5);
    let connection = soon(other.connect(key(1).public(), exporter.local_addr())).await.expect("reached");
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    frame::write(&mut send, frame::Kind::Request, vec![1]).await.expect("sent");
    assert!(matches!(event(&mut exporter).await, BulkEvent::Asked { peer, .. } if peer == key(5).public()));
}

/// How the exporter ends a connection over which `bytes` come and then nothing more.
async fn answer_to(exporter: &Bulk, bytes: &[u8], finish: bool) -> ConnectionError {
    let client = line(3);
    let connection = soon(client.connect(key(1).public(), exporter.local_addr())).await.expect("reached");
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    // The exporter may close before all is taken.
    let _ = send.write_all(bytes).await;
    if finish {
        let _ = send.finish();
    }
    soon(connection.closed()).await
}

fn code_of(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ApplicationClosed(close) => Some(close.error_code.into_inner()),
        _ => None,
    }
}

#[tokio::test]
async fn what_is_not_a_request_ends_the_connection() {
    let mut exporter = start(1, Deadlines::default());
    let bad_request = u64::from(Ending::Refused(RefusalCode::BadRequest).code());
    let cases: [(&str, &[u8], bool); 7] = [
        ("garbage", b"GET / HTTP/1.1\r\n\r\n", false),
        ("no such kind", &[0, 0, 0, 0, 0], false),
        ("out of turn", &[4, 0, 0, 0, 1, 1], false),
        ("too large", &[1, 0, 4, 0, 1], false),
        ("as large as can be said", &[1, 255, 255, 255, 255], false),
        ("cut in the header", &[1, 0], true),
        ("cut in the payload", &[1, 0, 0, 0, 9, 1, 2], true),
    ];
    for (what, bytes, finish) in cases {
        let error = answer_to(&exporter, bytes, finish).await;
        assert_eq!(code_of(&error), Some(bad_request), "{what}: {error}");
    }
    assert_silent(&mut exporter).await;
}

#[tokio::test]
async fn a_peer_that_dawdles_is_cut() {
    let hasty = Deadlines { request: Duration::from_millis(300), ..Deadlines::default() };
    let mut exporter = start(1, hasty);
    let bad_request = u64::from(Ending::Refused(RefusalCode::BadRequest).code());
    for bytes in [&[][..], &[1, 0, 0], &[1, 0, 0, 0, 9, 1]] {
        let error = answer_to(&exporter, bytes, false).await;
        assert_eq!(code_of(&error), Some(bad_request), "{bytes:?}: {error}");
    }
    let client = line(3);
    let connection = soon(client.connect(key(1).public(), exporter.local_addr())).await.expect("reached");
    let error = soon(connection.closed()).await;
    assert_eq!(code_of(&error), Some(bad_request), "no stream at all: {error}");
    assert_silent(&mut exporter).await;
}

/// The next thing that Core hears is of an honest peer: nothing of those before it has reached Core.
async fn assert_silent(exporter: &mut Bulk) {
    let client = line(4);
    let connection = soon(client.connect(key(1).public(), exporter.local_addr())).await.expect("reached");
    let (mut send, _recv) = connection.open_bi().await.expect("a stream");
    frame::write(&mut send, frame::Kind::Request, b"honest".to_vec()).await.expect("sent");
    let heard = event(exporter).await;
    let honest = matches!(&heard, BulkEvent::Asked { peer, request, .. }
        if *peer == key(4).public() && request == b"honest");
    assert!(honest, "{heard:?}");
    assert_eq!(exporter.counters().artefact_bytes_sent, 0);
}

/// A client that believes any server, as a stranger would.
#[derive(Debug)]
struct Gullible;

impl rustls::client::danger::ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        panic!("TLS 1.2")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        vec![rustls::SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn stranger() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
}

/// Connects with settings of its own and asks; how that ends.
async fn ask_as(config: rustls::ClientConfig, exporter: SocketAddr) -> ConnectionError {
    let client = line(6);
    let crypto = QuicClientConfig::try_from(config).expect("settings");
    let config = ClientConfig::new(Arc::new(crypto));
    let connecting = client.endpoint().connect_with(config, exporter, "x").expect("an attempt");
    match soon(connecting).await {
        Err(error) => error,
        // A client is done with its part before the server has looked at its certificate.
        Ok(connection) => {
            if let Ok((mut send, _)) = connection.open_bi().await {
                let _ = frame::write(&mut send, frame::Kind::Request, b"stranger".to_vec()).await;
            }
            soon(connection.closed()).await
        }
    }
}

fn is_refused_in_the_handshake(error: &ConnectionError) -> bool {
    matches!(error, ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) & 0x100 != 0)
}

#[tokio::test]
async fn a_stranger_without_a_proved_key_is_refused() {
    let mut exporter = start(1, Deadlines::default());
    let made = rcgen::generate_simple_self_signed(vec!["x".to_owned()]).expect("a certificate");
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.key_pair.serialize_der()));
    let mut self_signed = stranger().with_client_auth_cert(vec![made.cert.der().clone()], secret).expect("settings");
    self_signed.alpn_protocols = vec![tls::ALPN.to_vec()];
    let mut nothing = stranger().with_no_client_auth();
    nothing.alpn_protocols = vec![tls::ALPN.to_vec()];
    let identity = tls::Identity::new(&key(6)).expect("an identity");
    let mut other_protocol = identity.client(key(1).public()).expect("settings");
    other_protocol.alpn_protocols = vec![b"libp2p".to_vec()];
    let mut no_protocol = identity.client(key(1).public()).expect("settings");
    no_protocol.alpn_protocols = Vec::new();
    let cases = [
        ("a self-signed certificate", self_signed),
        ("no certificate", nothing),
        ("another protocol", other_protocol),
        ("no protocol", no_protocol),
    ];
    for (who, config) in cases {
        let error = ask_as(config, exporter.local_addr()).await;
        assert!(is_refused_in_the_handshake(&error), "{who}: {error:?}");
    }
    // The same client gets through with what it should say, and is the first that Core hears of.
    let honest = identity.client(key(1).public()).expect("settings");
    let heard = tokio::select! {
        error = ask_as(honest, exporter.local_addr()) => panic!("{error}"),
        heard = event(&mut exporter) => heard,
    };
    assert!(matches!(&heard, BulkEvent::Asked { peer, .. } if *peer == key(6).public()), "{heard:?}");
}

#[tokio::test]
async fn one_connection_has_one_stream_and_no_others() {
    let (exporter, importer, _lines) = links().await;
    assert_eq!((exporter.peer, importer.peer), (key(2).public(), key(1).public()));
    assert_eq!(exporter.session, importer.session, "both ends derive the same");
    let brief = Duration::from_millis(200);
    assert!(timeout(brief, importer.connection.open_bi()).await.is_err(), "a second stream");
    assert!(timeout(brief, importer.connection.open_uni()).await.is_err(), "a one-way stream");
    assert!(timeout(brief, exporter.connection.open_bi()).await.is_err(), "a stream of the exporter");
    assert!(importer.connection.max_datagram_size().is_none(), "datagrams");
}

#[tokio::test]
async fn the_socket_is_counted() {
    let counters: [Arc<SocketCounters>; 2] = [Arc::default(), Arc::default()];
    let open = |seed, counters: &Arc<SocketCounters>| {
        Line::open(&key(seed), config().listen, MTU_ETHERNET, Use::Both, Arc::clone(counters), mpsc::channel(1).0)
            .expect("a free port")
    };
    let (server, client) = (open(1, &counters[0]), open(2, &counters[1]));
    let address = server.endpoint().local_addr().expect("bound");
    let bytes = 1_000_000;
    let serving = async {
        let connection = server.endpoint().accept().await.expect("open").await.expect("a handshake");
        let (_send, mut recv) = connection.accept_bi().await.expect("a stream");
        let read = recv.read_to_end(bytes).await.expect("all");
        connection.close(Ending::Done.into(), b"");
        read.len()
    };
    let sending = async {
        let connection = client.connect(key(1).public(), address).await.expect("reached");
        let (mut send, _recv) = connection.open_bi().await.expect("a stream");
        send.write_all(&vec![7; bytes]).await.expect("sent");
        send.finish().expect("open");
        connection.closed().await;
    };
    let (read, ()) = soon(futures::future::join(serving, sending)).await;
    assert_eq!(read, bytes);
    let bytes = u64::try_from(bytes).expect("small");
    assert!(counters[1].sent() > bytes && counters[0].received() > bytes, "{counters:?}");
    assert!(counters[0].received() <= counters[1].sent(), "{counters:?}");
    assert!(counters[0].sent() > 0 && counters[0].sent() < bytes / 2, "{counters:?}");
}

#[tokio::test]
async fn a_port_has_one_plane_and_is_given_back() {
    for (theirs, mine) in [(1, 1), (1, 3), (3, 1), (3, 3)] {
        let first = Bulk::start(&key(1), BulkConfig { lanes: theirs, ..config() }).expect("a free port");
        let listen = first.local_addr();
        let again = || Bulk::start(&key(2), BulkConfig { listen, lanes: mine, ..config() });
        let error = again().expect_err("taken");
        assert!(matches!(error, BulkError::PortInUse { address } if address == listen), "{theirs} {mine}: {error}");
        assert_eq!(error.to_string(), format!("the bulk port `{listen}` is already in use"));
        soon(first.close()).await;
        again().expect("free again");
    }
}

#[tokio::test]
async fn closing_tells_the_peer() {
    let to = TempDir::new().expect("a directory");
    let (mut exporter, mut importer) = (start(1, Deadlines::default()), start(2, Deadlines::default()));
    let _ = ask(&mut exporter, &mut importer, 1, key(1).public(), &to).await;
    soon(exporter.close()).await;
    let failed = event(&mut importer).await;
    assert!(matches!(&failed, BulkEvent::PullFailed { failure: BulkFailure::Lost(_), .. }), "{failed:?}");
}
