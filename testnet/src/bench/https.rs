//! HTTPS over TCP: hyper with rustls, a file served, a file written, and its BLAKE3, which is what makes it comparable.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::{Request, Response, body::Frame, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use alliance_node::bulk::crypto_provider;

use super::process::{EndError, say, until_dismissed};

const ALPN: &[u8] = b"http/1.1";

/// Bytes read, and hashed, at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Chunks read ahead of the wire.
const CHUNKS_AHEAD: usize = 8;

/// Serves one file to whoever asks for anything, once.
pub(super) async fn serve(file: &Path) -> Result<(), EndError> {
    let (tls, certificate) = server_tls(ALPN)?;
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    say(&format!("ready {} {certificate}", listener.local_addr()?))?;
    let (stream, _) = listener.accept().await?;
    let stream = TlsAcceptor::from(Arc::new(tls)).accept(stream).await?;
    let file = file.to_owned();
    let service = service_fn(move |_: Request<hyper::body::Incoming>| {
        let file = file.clone();
        async move {
            let bytes = file.metadata()?.len();
            let (chunks, ahead) = mpsc::channel::<std::io::Result<Frame<Bytes>>>(CHUNKS_AHEAD);
            tokio::task::spawn_blocking(move || read_ahead(&file, &chunks));
            let body = StreamBody::new(futures::stream::unfold(ahead, async |mut ahead| {
                let chunk = ahead.recv().await?;
                Some((chunk, ahead))
            }));
            Response::builder().header("content-length", bytes).body(body.boxed_unsync()).map_err(std::io::Error::other)
        }
    });
    // The taker hangs up when it has everything; that is no failure.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    until_dismissed().await;
    Ok(())
}

fn read_ahead(file: &Path, chunks: &mpsc::Sender<std::io::Result<Frame<Bytes>>>) {
    let read = || {
        let mut file = File::open(file)?;
        loop {
            let mut chunk = vec![0; CHUNK_BYTES];
            let bytes = file.read(&mut chunk)?;
            chunk.truncate(bytes);
            if bytes == 0 || chunks.blocking_send(Ok(Frame::data(Bytes::from(chunk)))).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(error) = read() {
        // Nobody to tell means that the taker is gone.
        let _ = chunks.blocking_send(Err(error));
    }
}

/// Takes the file, writes it to `to`, and hashes what was written.
pub(super) async fn take(from: SocketAddr, certificate: &str, to: &Path) -> Result<(), EndError> {
    let tls = Arc::new(client_tls(certificate, ALPN)?);
    let mut file = File::create(to)?;
    let began = Instant::now();
    let stream = TcpStream::connect(from).await?;
    let stream = TlsConnector::from(tls).connect(ServerName::try_from("localhost")?, stream).await?;
    let (mut ask, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::builder().uri("/").header("host", "localhost").body(Empty::<Bytes>::new())?;
    let mut body = ask.send_request(request).await?.into_body();
    let mut bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            file.write_all(&data)?;
            bytes += u64::try_from(data.len())?;
        }
    }
    drop(file);
    let mut hasher = blake3::Hasher::new();
    let (mut file, mut chunk) = (File::open(to)?, vec![0; CHUNK_BYTES]);
    loop {
        let read = file.read(&mut chunk)?;
        let Some(data) = chunk.get(..read).filter(|data| !data.is_empty()) else { break };
        hasher.update(data);
    }
    std::hint::black_box(hasher.finalize());
    say(&format!("done {bytes} {}", began.elapsed().as_secs_f64()))?;
    until_dismissed().await;
    Ok(())
}

/// A certificate made up on the spot, with the same ciphers as ours, and the settings of a server that has it; the certificate in hexadecimal, for the
/// other end.
pub(super) fn server_tls(alpn: &[u8]) -> Result<(ServerConfig, String), EndError> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.key_pair.serialize_der())?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok((config, certificate.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// The settings of a client that believes this certificate only.
pub(super) fn client_tls(certificate: &str, alpn: &[u8]) -> Result<ClientConfig, EndError> {
    let digits = |at: usize| certificate.get(2 * at..2 * at + 2).ok_or("a certificate is cut off");
    let bytes: Vec<u8> =
        (0..certificate.len() / 2).map(|at| Ok(u8::from_str_radix(digits(at)?, 16)?)).collect::<Result<_, EndError>>()?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(bytes))?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}
