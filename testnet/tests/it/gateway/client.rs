//! A plain client of the gateway, over HTTP.

use std::{collections::BTreeMap, convert::Infallible};

use futures::SinkExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::{
    Request,
    body::{Bytes, Frame},
};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::harness::Stage;

/// A client of the gateway of one node.
pub(super) struct Client {
    /// HOST:PORT.
    pub(super) address: String,
    pub(super) token: String,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    /// What came of the body, and whether that was all of it.
    pub(super) body: Vec<u8>,
    pub(super) whole: bool,
}

impl Client {
    /// As `alliance env` says.
    pub(super) async fn of(stage: &Stage, country: &str) -> Self {
        let env = stage.cli_json(country, &["env"]).await.good().json();
        let word = |name: &str| env[name].as_str().expect("text").to_owned();
        let address =
            word("HF_ENDPOINT").strip_prefix("http://").and_then(|rest| rest.strip_suffix("/hf")).map(str::to_owned);
        Self { address: address.expect("on this machine"), token: word("HF_TOKEN") }
    }

    pub(super) fn with(&self, token: &str) -> Self {
        Self { address: self.address.clone(), token: token.to_owned() }
    }

    pub(super) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let stream = tokio::net::TcpStream::connect(&self.address).await.expect("connected");
        let (mut ask, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(format!("/hf{path}")).header("host", &self.address);
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let answer = read(ask.send_request(request).await.expect("answered")).await;
        drop(ask);
        // It ends with an error where the body did, which was looked at.
        let _ = connection.await.expect("no panic");
        answer
    }

    /// Sends one half of a commit, waits for something, and sends the rest.
    pub(super) async fn send_slowly(&self, path: &str, between: impl Future<Output = ()>) -> Answer {
        let (mut parts, body) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
        let line = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let stream = tokio::net::TcpStream::connect(&self.address).await.expect("connected");
        let (mut ask, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        let connection = tokio::spawn(connection);
        let request = Request::builder().method("POST").uri(format!("/hf{path}")).header("host", &self.address);
        let request = request.header("authorization", format!("Bearer {}", self.token));
        let request = request.body(StreamBody::new(body)).expect("a request");
        let sending = async {
            parts.send(line("{\"key\":\"header\",\"value\":{}}\n")).await.expect("taken");
            between.await;
            let rest = "{\"key\":\"file\",\"value\":{\"path\":\"a\",\"content\":\"eA==\",\"encoding\":\"base64\"}}\n";
            // The node may have answered already.
            let _ = parts.send(line(rest)).await;
            drop(parts);
        };
        let (answer, ()) = tokio::join!(ask.send_request(request), sending);
        let answer = read(answer.expect("answered")).await;
        drop(ask);
        let _ = connection.await.expect("no panic");
        answer
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }
}

impl Answer {
    #[track_caller]
    pub(super) fn with(self, status: u16) -> Self {
        let shown = String::from_utf8_lossy(self.body.get(..300).unwrap_or(&self.body));
        assert_eq!(self.status, status, "{:?} {shown}", self.headers);
        self
    }

    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers))
    }
}

/// An answer with all that comes of its body.
async fn read(answer: hyper::Response<hyper::body::Incoming>) -> Answer {
    let (head, mut rest) = answer.into_parts();
    let text = |value: &hyper::header::HeaderValue| value.to_str().expect("ASCII").to_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
    let (mut body, mut whole) = (Vec::new(), true);
    while let Some(frame) = rest.frame().await {
        match frame {
            Ok(frame) => body.extend(frame.into_data().expect("no trailers")),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    Answer { status: head.status.as_u16(), headers, body, whole }
}
