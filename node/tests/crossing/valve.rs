//! A path between two bulk planes that the test can shut: nothing comes back through it after so many bytes, until it is
//! opened. What is held up waits in the kernel or is lost, as on any path.

use std::net::SocketAddr;

use tokio::{net::UdpSocket, sync::watch};

pub(crate) struct Valve {
    address: SocketAddr,
    /// Bytes that may come back; beyond that it is shut.
    limit: watch::Sender<u64>,
    shut: watch::Receiver<bool>,
}

impl Valve {
    /// A path to `target` that shuts when `limit` bytes have come back. Must be called within a tokio runtime.
    pub(crate) async fn new(target: SocketAddr, limit: u64) -> Self {
        let (front, back) = (bind().await, bind().await);
        back.connect(target).await.expect("an address");
        let address = front.local_addr().expect("bound");
        let (limit, limits) = watch::channel(limit);
        let (shutting, shut) = watch::channel(false);
        tokio::spawn(carry(front, back, limits, shutting));
        Self { address, limit, shut }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) async fn shut(&self) {
        self.shut.clone().wait_for(|shut| *shut).await.expect("it lives as long as this");
    }

    pub(crate) fn open(&self) {
        self.limit.send_replace(u64::MAX);
    }
}

async fn bind() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.expect("a free port")
}

/// Ends when the valve is dropped.
async fn carry(front: UdpSocket, back: UdpSocket, mut limits: watch::Receiver<u64>, shut: watch::Sender<bool>) {
    let (mut there, mut here) = (vec![0; 65_536], vec![0; 65_536]);
    let (mut client, mut carried) = (None, 0_u64);
    loop {
        let open = carried < *limits.borrow_and_update();
        shut.send_replace(!open);
        tokio::select! {
            Ok((bytes, from)) = front.recv_from(&mut there) => {
                client = Some(from);
                // A datagram that is not taken is lost, as any may be.
                let _lost = back.send(&there[..bytes]).await;
            }
            Ok(bytes) = back.recv(&mut here), if open => {
                carried += bytes as u64;
                if let Some(client) = client {
                    let _lost = front.send_to(&here[..bytes], client).await;
                }
            }
            changed = limits.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
