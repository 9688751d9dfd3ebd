//! A peer that speaks libp2p and sends whatever bytes it likes. It shares no code with the mesh, so that it also fixes the
//! names and the encoding on the wire.

use std::{
    io,
    sync::atomic::{AtomicU8, Ordering},
    time::Duration,
};

use alliance_protocol::{
    core::MeshEvent,
    key::{PublicKey, SecretKey},
    limits,
};
use futures::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::{
    Multiaddr, StreamProtocol, Swarm, Transport as _,
    core::muxing::StreamMuxerBox,
    identify,
    identity::Keypair,
    quic,
    request_response::{self, ProtocolSupport},
    swarm::{self, NetworkBehaviour, SwarmEvent},
};

use crate::harness::{ALLIANCE, HANG, Node, next_of};

/// Bytes to send on a stream of one of two protocols.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Request(Vec<u8>),
    Gossip(Vec<u8>),
}

/// Garbage of every kind.
pub(crate) fn garbage() -> Vec<Bytes> {
    let request = |bytes: &[u8]| Bytes::Request(bytes.to_vec());
    let right = statements_topic();
    vec![
        request(b""),
        request(b"\xff\xff\xff\xff"),
        // A map that says it has 2^64 - 1 entries, and a byte string that says it is as long.
        request(b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff"),
        request(b"\xa1\x65hello\xa1\x66record\x5b\xff\xff\xff\xff\xff\xff\xff\xff"),
        // Lists in lists in lists.
        Bytes::Request(vec![0x81; 60_000]),
        // A request that does not exist, a field too many, an empty record.
        request(b"\xa1\x64quit\xa0"),
        request(b"\xa1\x65hello\xa2\x66record\x41\x00\x61x\x00"),
        request(b"\xa1\x65hello\xa1\x66record\x40"),
        // Longer than any request may be, and well-formed otherwise.
        Bytes::Request(hello(&vec![7; 0x1_0000])),
        // No frame, a frame of 2^63 bytes, and one that is longer than any may be.
        Bytes::Gossip(vec![0xff; 1000]),
        Bytes::Gossip(b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f\x12".to_vec()),
        Bytes::Gossip(frame(&message(b"x", &right, &vec![0; limits::GOSSIP_BYTES_MAX]))),
        // A frame that is no message, messages in messages, another topic, and a signature, which nobody asked for.
        Bytes::Gossip(frame(&[0x7f; 100])),
        Bytes::Gossip(frame(&vec![0x12; 10_000])),
        Bytes::Gossip(statement("alliance/other/statements/1", b"on another topic")),
        Bytes::Gossip(frame(&message(b"", &right, b"signed").into_iter().chain(field(5, &[1; 64])).collect::<Vec<_>>())),
    ]
}

/// `{"hello": {"record": record}}` in CBOR.
pub(crate) fn hello(record: &[u8]) -> Vec<u8> {
    let mut bytes = b"\xa1\x65hello\xa1\x66record\x5a".to_vec();
    bytes.extend(u32::try_from(record.len()).expect("short").to_be_bytes());
    bytes.extend(record);
    bytes
}

pub(crate) fn statements_topic() -> String {
    format!("alliance/{ALLIANCE}/statements/1")
}

/// A frame of gossip with one message of content and topic only.
pub(crate) fn statement(topic: &str, data: &[u8]) -> Vec<u8> {
    frame(&message(b"", topic, data))
}

/// The fields of a gossip message in protobuf: author 1, content 2, topic 4.
fn message(author: &[u8], topic: &str, data: &[u8]) -> Vec<u8> {
    let author = if author.is_empty() { Vec::new() } else { field(1, author) };
    [author, field(2, data), field(4, topic.as_bytes())].concat()
}

/// A frame with one message, which is field 2.
fn frame(message: &[u8]) -> Vec<u8> {
    let rpc = field(2, message);
    [varint(rpc.len()), rpc].concat()
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], varint(bytes.len()), bytes.to_vec()].concat()
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(n & 0x7f).expect("seven bits");
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

/// Sends bytes as they are.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.take(1 << 20).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[derive(NetworkBehaviour)]
struct Protocols {
    identify: identify::Behaviour,
    talk: request_response::Behaviour<Raw>,
    gossip: request_response::Behaviour<Raw>,
}

pub(crate) struct Intruder {
    pub(crate) key: PublicKey,
    swarm: Swarm<Protocols>,
}

fn swarm(pair: &Keypair) -> Swarm<Protocols> {
    let name = "/alliance/5a5a5a5a5a5a5a5a/mesh/1";
    // Without an answering side for gossip, the node would give up gossip with this peer altogether.
    let raw = |name: &str| {
        let name = StreamProtocol::try_from_owned(name.to_owned()).expect("a name");
        request_response::Behaviour::new([(name, ProtocolSupport::Full)], request_response::Config::default())
    };
    let behaviour = Protocols {
        talk: raw(name),
        gossip: raw("/meshsub/1.1.0"),
        identify: identify::Behaviour::new(identify::Config::new(name.to_owned(), pair.public())),
    };
    let transport = quic::tokio::Transport::new(quic::Config::new(pair))
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)))
        .boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(Duration::from_secs(600));
    Swarm::new(transport, behaviour, pair.public().to_peer_id(), config)
}

impl Intruder {
    /// Connects with a new key each time.
    pub(crate) async fn connect(node: &mut Node) -> Self {
        static COUNT: AtomicU8 = AtomicU8::new(100);
        let mut seed = [COUNT.fetch_add(1, Ordering::Relaxed); 32];
        let key = SecretKey::from_seed(&seed).public();
        let pair = Keypair::ed25519_from_bytes(&mut seed).expect("a key");
        let address: Multiaddr = node.mesh.listen_addresses()[0].parse().expect("an address");
        let mut intruder = Self { key, swarm: swarm(&pair) };
        intruder.swarm.dial(address).expect("dialled");
        let (mut here, mut there) = (false, false);
        let connected = async {
            let nodes = &mut [node];
            while !(here && there) {
                tokio::select! {
                    event = intruder.swarm.select_next_some() => {
                        here |= matches!(event, SwarmEvent::ConnectionEstablished { .. });
                    }
                    event = next_of(nodes) => {
                        there |= matches!(event, Some((_, MeshEvent::Connected { peer })) if peer == key);
                    }
                }
            }
        };
        tokio::time::timeout(HANG, connected).await.expect("it does not hang");
        intruder
    }

    /// Sends the bytes on a new stream. Returns what the node wrote before it ended the stream, which it does after it has
    /// read everything; none if it reset the stream or closed the connection.
    pub(crate) async fn send(&mut self, bytes: Bytes, nodes: &mut [&mut Node]) -> Option<Vec<u8>> {
        let peer = *self.swarm.connected_peers().next()?;
        let behaviour = self.swarm.behaviour_mut();
        match bytes {
            Bytes::Request(bytes) => behaviour.talk.send_request(&peer, bytes),
            Bytes::Gossip(bytes) => behaviour.gossip.send_request(&peer, bytes),
        };
        let ended = async {
            loop {
                tokio::select! {
                    event = self.swarm.select_next_some() => match event {
                        SwarmEvent::Behaviour(ProtocolsEvent::Talk(event) | ProtocolsEvent::Gossip(event)) => match event {
                            request_response::Event::Message { message, .. } => match message {
                                request_response::Message::Response { response, .. } => return Some(response),
                                request_response::Message::Request { .. } => {}
                            },
                            request_response::Event::OutboundFailure { .. } => return None,
                            request_response::Event::InboundFailure { .. }
                            | request_response::Event::ResponseSent { .. } => {}
                        },
                        SwarmEvent::ConnectionClosed { .. } => return None,
                        _ => {}
                    },
                    _ = next_of(nodes) => {}
                }
            }
        };
        tokio::time::timeout(HANG, ended).await.expect("it does not hang")
    }
}
