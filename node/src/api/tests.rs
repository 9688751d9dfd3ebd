//! Client and server over a real socket, with a task in the place of the node.

use std::path::PathBuf;

use alliance_protocol::{
    core::admin::{Failure, FailureKind},
    id::StatementId,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::mpsc,
};

use super::*;
use crate::home::Home;

fn home() -> (tempfile::TempDir, Home, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::at(dir.path()).expect("a path");
    let socket = home.socket_for_daemon().expect("a place");
    (dir, home, socket)
}

/// Answers withdrawals with their own offer, and everything else with a failure.
fn fake_node() -> mpsc::Sender<Waiting> {
    let (sender, mut calls) = mpsc::channel::<Waiting>(4);
    tokio::spawn(async move {
        while let Some((call, reply)) = calls.recv().await {
            let answer = match call {
                AdminCall::Withdraw { offer, .. } => Reply::Withdrawn { offer },
                AdminCall::Adopt(statements) => {
                    Reply::Adopted { accepted: u32::try_from(statements.len()).expect("few"), known: 0 }
                }
                _ => Reply::Failed(Failure { kind: FailureKind::NotFound, message: "no such thing".into() }),
            };
            let _ = reply.send(answer);
        }
    });
    sender
}

#[tokio::test]
async fn a_call_comes_back_with_its_reply() {
    let (_dir, home, socket) = home();
    let _server = ApiServer::start(&socket, fake_node()).expect("serves");
    let client = ApiClient::connect(&home).await.expect("connects");
    let offer = StatementId([7; 32]);
    let reply = client.call(&AdminCall::Withdraw { offer, reason: "sold".into() }).await.expect("an answer");
    assert_eq!(reply, Reply::Withdrawn { offer });
    let refused = client.call(&AdminCall::Status).await.expect_err("a failure");
    assert!(matches!(refused, ClientError::Refused(Failure { kind: FailureKind::NotFound, .. })), "{refused}");
}

#[tokio::test]
async fn the_largest_statements_fit_and_larger_calls_do_not() {
    let (_dir, home, socket) = home();
    let _server = ApiServer::start(&socket, fake_node()).expect("serves");
    let client = ApiClient::connect(&home).await.expect("connects");
    let statements = vec![
        serde_bytes::ByteBuf::from(vec![255; alliance_protocol::limits::LAW_PACK_BYTES_MAX]),
        serde_bytes::ByteBuf::from(vec![255; alliance_protocol::limits::STATEMENT_BYTES_MAX]),
    ];
    let reply = client.call(&AdminCall::Adopt(statements.clone())).await.expect("fits");
    assert_eq!(reply, Reply::Adopted { accepted: 2, known: 0 });
    let twice = AdminCall::Adopt([statements.clone(), statements].concat());
    assert!(matches!(client.call(&twice).await, Err(ClientError::TooLarge { .. })));
}

#[tokio::test]
async fn nonsense_is_refused_with_a_reply() {
    let (_dir, _home, socket) = home();
    let _server = ApiServer::start(&socket, fake_node()).expect("serves");
    for (request, status) in [
        ("POST /v1/call HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nconnection: close\r\n\r\n{\"a\"", "400"),
        ("POST /v1/call HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\nconnection: close\r\n\r\n", "413"),
        ("GET /v1/nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "404"),
    ] {
        let mut stream = UnixStream::connect(&socket).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{request} -> {answer}");
    }
}

#[tokio::test]
async fn without_a_daemon_the_error_says_so() {
    let (_dir, home, socket) = home();
    assert!(matches!(ApiClient::connect(&home).await, Err(ClientError::NotRunning { .. })), "no socket");
    drop(ApiServer::start(&socket, fake_node()).expect("serves"));
    assert!(matches!(ApiClient::connect(&home).await, Err(ClientError::NotRunning { .. })), "the socket is removed");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("binds"));
    assert!(matches!(ApiClient::connect(&home).await, Err(ClientError::NotRunning { .. })), "a dead socket");
}

#[tokio::test]
async fn a_full_queue_and_a_stopping_node_are_told_apart() {
    let (_dir, home, socket) = home();
    let (sender, calls) = mpsc::channel::<Waiting>(1);
    let (waiting, _never) = oneshot::channel();
    sender.try_send((AdminCall::Status, waiting)).expect("room for one");
    let _server = ApiServer::start(&socket, sender).expect("serves");
    let client = ApiClient::connect(&home).await.expect("connects");
    let busy = client.call(&AdminCall::Peers).await.expect_err("full");
    assert!(matches!(busy, ClientError::Refused(Failure { kind: FailureKind::Busy, .. })), "{busy}");
    drop(calls);
    let ended = client.call(&AdminCall::Peers).await.expect_err("ended");
    assert!(matches!(ended, ClientError::Refused(Failure { kind: FailureKind::Internal, .. })), "{ended}");
}

#[test]
fn only_the_owner_and_root_may_call() {
    for (user, owner, may) in [(1000, 1000, true), (0, 1000, true), (1001, 1000, false), (1000, 0, false)] {
        assert_eq!(server::may_call(user, owner), may, "{user} {owner}");
    }
}

#[tokio::test]
async fn the_socket_is_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_dir, _home, socket) = home();
    let _server = ApiServer::start(&socket, fake_node()).expect("serves");
    assert_eq!(std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777, 0o600);
}
