//! Stock quinn, memory to memory: one connection, one stream, nothing verified, nothing decided.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{
    AckFrequencyConfig, ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
    WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use tokio::time::timeout_at;

use super::{
    https::{client_tls, server_tls},
    process::{EndError, say, until_dismissed},
};

const ALPN: &[u8] = b"bench";

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNKS: usize = 4;

/// The settings of our bulk plane on one machine: a window of half the socket's buffer, and few acknowledgements.
const WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const SEND_WINDOW_BYTES: u64 = 16 * 1024 * 1024;
const PACKETS_PER_ACK: u32 = 10;
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;

/// Sends so many bytes to whoever connects.
pub(super) async fn send(listen: SocketAddr, bytes: u64, ours: bool) -> Result<(), EndError> {
    let (tls, certificate) = server_tls(ALPN)?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(Arc::new(transport(ours)));
    let endpoint = endpoint(listen, Some(config), ours)?;
    say(&format!("ready {} {certificate}", endpoint.local_addr()?))?;
    let connection = endpoint.accept().await.ok_or("nobody connects")?.await?;
    let mut stream = connection.open_uni().await?;
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    let mut left = bytes;
    while left > 0 {
        let mut chunks = Vec::with_capacity(CHUNKS);
        while left > 0 && chunks.len() < CHUNKS {
            let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            chunks.push(chunk.slice(..take));
            left -= u64::try_from(take)?;
        }
        match stream.write_all_chunks(&mut chunks).await {
            // The taker has no more time.
            Err(WriteError::ConnectionLost(_) | WriteError::Stopped(_)) => break,
            sent => sent?,
        }
    }
    // It fails only where the taker has no more time.
    let _ = stream.finish();
    until_dismissed().await;
    Ok(())
}

/// Takes all that comes in time.
pub(super) async fn take(from: SocketAddr, certificate: &str, ours: bool, within: Duration) -> Result<(), EndError> {
    let here = if from.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let endpoint = endpoint(SocketAddr::from((here, 0)), None, ours)?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client_tls(certificate, ALPN)?)?));
    config.transport_config(Arc::new(transport(ours)));
    let began = Instant::now();
    let connection = endpoint.connect_with(config, from, "localhost")?.await?;
    let mut stream = connection.accept_uni().await?;
    let mut chunks = vec![Bytes::new(); 64];
    let mut bytes = 0_u64;
    let until = tokio::time::Instant::from_std(began) + within;
    while let Ok(read) = timeout_at(until, stream.read_chunks(&mut chunks)).await {
        let Some(count) = read? else { break };
        bytes += chunks.iter().take(count).map(|chunk| u64::try_from(chunk.len()).unwrap_or_default()).sum::<u64>();
    }
    say(&format!("done {bytes} {}", began.elapsed().as_secs_f64()))?;
    until_dismissed().await;
    Ok(())
}

fn endpoint(address: SocketAddr, server: Option<ServerConfig>, ours: bool) -> Result<Endpoint, EndError> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, Some(socket2::Protocol::UDP))?;
    if ours {
        socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    }
    socket.bind(&address.into())?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime))?)
}

fn transport(ours: bool) -> TransportConfig {
    let mut transport = TransportConfig::default();
    if ours {
        let mut acknowledgements = AckFrequencyConfig::default();
        acknowledgements.ack_eliciting_threshold(VarInt::from_u32(PACKETS_PER_ACK));
        transport
            .stream_receive_window(VarInt::from_u32(WINDOW_BYTES))
            .receive_window(VarInt::from_u32(WINDOW_BYTES))
            .send_window(SEND_WINDOW_BYTES)
            .initial_mtu(alliance_node::bulk::MTU_ETHERNET)
            .ack_frequency_config(Some(acknowledgements));
    }
    transport
}
