//! The one thread that takes packets from the nodes' devices, and gives them those that the link says are due.
//!
//! Two ends of a measurement share the machine with it, so it comes by at intervals and takes whatever is there: no lock, and
//! no waking for a packet. Nodes that say nothing cost nothing.

use std::{
    future::pending,
    io,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use futures::future::select_all;
use serde::Serialize;
use tokio::sync::{
    mpsc::{self, error::TryRecvError},
    oneshot,
};
use tokio_tun::Tun;

use super::{
    link::{Link, Nanos, Place, Tally, Terrain},
    namespace::SUBNET,
};

/// How often it comes by while packets are under way. A packet is late by half of this on average, a line lets pass twice as
/// much at once ([`super::link::Line::new`]), and 2,000 wakings a second take about 2 % of a core.
const INTERVAL: Duration = Duration::from_micros(500);

/// More than this is late: what a line lets pass at once.
const LATE: Duration = Duration::from_millis(1);

/// Its niceness where it cannot have a real-time priority.
const NICENESS: i32 = -15;

/// Packets taken from one device before the others have their turn.
const BATCH_PACKETS: usize = 1024;

/// Bytes of a packet, the largest that a device gives.
const PACKET_BYTES_MAX: usize = 2048;

/// What it is told from outside.
#[derive(Debug)]
pub(super) enum Order {
    /// Begin with a new link, and say what the old one has carried.
    Renew(oneshot::Sender<Carried>),
}

/// What became of packets, and how punctual the carrier was.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Carried {
    /// By the place that sent.
    pub tallies: Vec<Tally>,
    /// Packets that were given later than a line makes up for: the machine had no time for it.
    pub late: u64,
    /// How late one of them was at the most, in milliseconds.
    pub late_ms_max: f64,
}

/// Carries packets until nobody can give orders any more.
pub(super) async fn carry(tuns: &[&Tun], terrain: &Terrain, mut orders: mpsc::Receiver<Order>) -> io::Result<()> {
    hurry();
    let mut carrier = Carrier::new(terrain);
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        match orders.try_recv() {
            Ok(order) => carrier.obey(order, terrain),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
        let taken = carrier.take(tuns, &mut buffer)?;
        carrier.give(tuns);
        if taken > 0 || carrier.link.next().is_some() {
            // Nothing else is on this thread, and the runtime's clock is too coarse.
            std::thread::sleep(INTERVAL);
            continue;
        }
        tokio::select! {
            first = first_packet(tuns) => {
                let (from, packet) = first?;
                carrier.offer(from, &packet);
            }
            order = orders.recv() => match order {
                Some(order) => carrier.obey(order, terrain),
                None => return Ok(()),
            },
        }
    }
}

/// Puts this thread ahead of the ends that it carries for, which would otherwise measure their own hunger for the processor as
/// slowness of the network. It is at rest most of the time, so they lose little by it.
fn hurry() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let real_time = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
    if !real_time.is_ok_and(|ran| ran.status.success()) {
        // The next best. On Linux this is of the calling thread. Whoever measures is told how many packets are late.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }
}

/// A packet from whichever device has one first.
async fn first_packet(tuns: &[&Tun]) -> io::Result<(Place, Vec<u8>)> {
    let packets = tuns.iter().enumerate().map(|(place, tun)| {
        Box::pin(async move {
            let mut packet = vec![0; PACKET_BYTES_MAX];
            let bytes = tun.recv(&mut packet).await?;
            packet.truncate(bytes);
            Ok((place, packet))
        })
    });
    if tuns.is_empty() { pending().await } else { select_all(packets).await.0 }
}

struct Carrier {
    began: Instant,
    link: Link<Box<[u8]>>,
    late: u64,
    late_max: Duration,
}

impl Carrier {
    fn new(terrain: &Terrain) -> Self {
        Self { began: Instant::now(), link: Link::new(terrain), late: 0, late_max: Duration::ZERO }
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(Nanos::MAX)
    }

    fn obey(&mut self, order: Order, terrain: &Terrain) {
        match order {
            Order::Renew(answer) => {
                let carried = Carried {
                    tallies: self.link.tallies().to_vec(),
                    late: self.late,
                    late_ms_max: self.late_max.as_secs_f64() * 1000.0,
                };
                *self = Self::new(terrain);
                // Whoever asked may have gone.
                let _ = answer.send(carried);
            }
        }
    }

    /// Takes what the nodes have sent. Returns how many packets.
    fn take(&mut self, tuns: &[&Tun], buffer: &mut [u8]) -> io::Result<usize> {
        let mut taken = 0;
        for (from, tun) in tuns.iter().enumerate() {
            for _ in 0..BATCH_PACKETS {
                match tun.try_recv(buffer) {
                    Ok(bytes) => {
                        taken += 1;
                        self.offer(from, buffer.get(..bytes).unwrap_or_default());
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(taken)
    }

    fn offer(&mut self, from: Place, packet: &[u8]) {
        if let (Some(to), Ok(bytes)) = (destination(packet), u32::try_from(packet.len())) {
            self.link.offer(self.now(), from, to, bytes, packet.into());
        }
    }

    /// Gives the nodes what is due.
    fn give(&mut self, tuns: &[&Tun]) {
        let now = self.now();
        while let Some((since, to, packet)) = self.link.due(now) {
            let late = Duration::from_nanos(now.saturating_sub(since));
            self.late += u64::from(late > LATE);
            self.late_max = self.late_max.max(late);
            if let Some(tun) = tuns.get(to) {
                // A node whose device takes nothing loses packets, as one would whose memory is full.
                let _ = tun.try_send(&packet);
            }
        }
    }
}

/// The place that an IPv4 packet is for.
fn destination(packet: &[u8]) -> Option<Place> {
    // RFC 791: the version is the upper half of the first byte, the destination is at 16.
    if packet.first()? >> 4 != 4 {
        return None;
    }
    let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let [a, b, c, host] = Ipv4Addr::from(address).octets();
    if [a, b, c] == SUBNET { usize::from(host).checked_sub(1) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wan::Wan;

    #[test]
    fn only_packets_for_a_place_have_a_destination() {
        let packet = |version: u8, to: Ipv4Addr| {
            let mut packet = vec![0; 20];
            packet[0] = version << 4 | 5;
            packet[16..].copy_from_slice(&to.octets());
            packet
        };
        for place in [0, 1, 11] {
            assert_eq!(destination(&packet(4, Wan::address(place))), Some(place));
        }
        for stranger in [Ipv4Addr::LOCALHOST, Ipv4Addr::BROADCAST, Ipv4Addr::new(10, 77, 0, 0)] {
            assert_eq!(destination(&packet(4, stranger)), None);
        }
        assert_eq!(destination(&packet(6, Wan::address(1))), None);
        assert_eq!(destination(&packet(4, Wan::address(1))[..19]), None);
        assert_eq!(destination(&[]), None);
    }
}
