//! TCP, memory to memory: one connection, nothing encrypted, nothing verified. Buffers are the kernel's own choice, which
//! fits them to the path up to a limit.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout_at,
};

use super::process::{EndError, say, until_dismissed};

/// Bytes handed to the kernel at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Sends so many bytes to whoever connects.
pub(super) async fn send(listen: SocketAddr, bytes: u64, congestion: &str) -> Result<(), EndError> {
    let listener = TcpListener::bind(listen).await?;
    // Connections have it from their listener.
    socket2::SockRef::from(&listener).set_tcp_congestion(congestion.as_bytes())?;
    say(&format!("ready {}", listener.local_addr()?))?;
    let (mut stream, _) = listener.accept().await?;
    let chunk = vec![7; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        match stream.write(chunk.get(..take).unwrap_or_default()).await {
            Ok(sent) => left -= u64::try_from(sent)?,
            // The taker has no more time.
            Err(_) => break,
        }
    }
    // As above.
    let _ = stream.shutdown().await;
    until_dismissed().await;
    Ok(())
}

/// Takes all that comes in time.
pub(super) async fn take(from: SocketAddr, within: Duration) -> Result<(), EndError> {
    let began = Instant::now();
    let until = tokio::time::Instant::from_std(began) + within;
    let mut stream = TcpStream::connect(from).await?;
    let (mut chunk, mut bytes) = (vec![0; CHUNK_BYTES], 0_u64);
    while let Ok(read) = timeout_at(until, stream.read(&mut chunk)).await {
        match read? {
            0 => break,
            read => bytes += u64::try_from(read)?,
        }
    }
    say(&format!("done {bytes} {}", began.elapsed().as_secs_f64()))?;
    until_dismissed().await;
    Ok(())
}
