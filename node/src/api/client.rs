//! The CLI's side of the local API. Each call has its own connection, so that a daemon that restarts between two calls of
//! a long command is not noticed.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use alliance_protocol::core::admin::{AdminCall, Failure, Reply};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use super::{CALL_BYTES_MAX, REPLY_BYTES_MAX, Version};
use crate::home::Home;

/// How long one call may take. The daemon itself gives up after a minute.
const CALL_WITHIN: Duration = Duration::from_secs(90);

/// A way to a running daemon.
#[derive(Clone, Debug)]
pub struct ApiClient {
    socket: PathBuf,
    home: PathBuf,
}

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon runs on the home `{}`", home.display())]
    NotRunning {
        home: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("this user may not use the socket `{}`", socket.display())]
    NotPermitted {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to `{}`", socket.display())]
    Connect {
        socket: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the connection to the daemon broke off")]
    Lost(#[source] hyper::Error),
    #[error("the daemon did not answer in time")]
    Late,
    #[error("the call has {bytes} bytes as JSON, more than the {CALL_BYTES_MAX} that the daemon reads")]
    TooLarge { bytes: usize },
    #[error("the daemon's answer is too long or broke off")]
    Answer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the daemon is release {daemon} (API {daemon_api}), this program is release {own} (API {own_api})")]
    OtherVersion { daemon: String, daemon_api: u32, own: String, own_api: u32 },
    #[error("the daemon's answer makes no sense")]
    Nonsense(#[source] serde_json::Error),
    #[error("{0}")]
    Refused(Failure),
}

impl ApiClient {
    /// A client of the daemon that runs on a home, after checking that one does and that both are of one version.
    ///
    /// # Errors
    /// No daemon answers, or one with another version of the API.
    pub async fn connect(home: &Home) -> Result<Self, ClientError> {
        let client = Self { socket: home.socket_for_client(), home: home.root().to_owned() };
        let (own, daemon) = (Version::own(), client.version().await?);
        if daemon.api != own.api {
            let (daemon, daemon_api) = (daemon.version, daemon.api);
            return Err(ClientError::OtherVersion { daemon, daemon_api, own: own.version, own_api: own.api });
        }
        Ok(client)
    }

    /// Who answers.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn version(&self) -> Result<Version, ClientError> {
        let request = self.request(Method::GET, "/v1/version", Bytes::new())?;
        serde_json::from_slice(&self.exchange(request).await?).map_err(ClientError::Nonsense)
    }

    /// Makes one call. A reply of `Failed` is an error here.
    ///
    /// # Errors
    /// There is no answer, or the daemon says why it did not do it.
    pub async fn call(&self, call: &AdminCall) -> Result<Reply, ClientError> {
        let body = serde_json::to_vec(call).map_err(ClientError::Nonsense)?;
        if body.len() > CALL_BYTES_MAX {
            return Err(ClientError::TooLarge { bytes: body.len() });
        }
        let request = self.request(Method::POST, "/v1/call", body.into())?;
        match serde_json::from_slice(&self.exchange(request).await?).map_err(ClientError::Nonsense)? {
            Reply::Failed(failure) => Err(ClientError::Refused(failure)),
            reply => Ok(reply),
        }
    }

    /// The socket that is used.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, ClientError> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Answer(error.into()))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        tokio::time::timeout(CALL_WITHIN, self.exchange_unhurried(request)).await.map_err(|_| ClientError::Late)?
    }

    async fn exchange_unhurried(&self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| self.not_connected(source))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ClientError::Lost)?;
        // Ends with the connection; what goes wrong on it, the request is told as well.
        let driver = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(ClientError::Lost);
        let body = match response {
            Ok(response) => {
                Limited::new(response.into_body(), REPLY_BYTES_MAX).collect().await.map_err(ClientError::Answer)
            }
            Err(error) => Err(error),
        };
        driver.abort();
        Ok(body?.to_bytes())
    }

    fn not_connected(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { home: self.home.clone(), source }
            }
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { socket: self.socket.clone(), source },
            _ => ClientError::Connect { socket: self.socket.clone(), source },
        }
    }
}
