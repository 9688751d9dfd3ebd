//! Datagrams that go to the kernel in one call.
//!
//! The kernel takes up to 64 datagrams of one size for one destination in a call and walks its network stack once for all
//! of them (generic segmentation offload; `UDP_SEGMENT` in udp(7)). quinn hands over ten at a time. What comes from it in
//! one go is collected here: at Ethernet's packet size four to five times fewer calls, and on the way as many times fewer
//! wake-ups of the receiver.

use std::net::{IpAddr, SocketAddr};

use quinn::udp::{EcnCodepoint, Transmit};

/// Bytes that the kernel takes in a call: the length field of UDP over IPv4 counts 16 bits, headers of 28 bytes included.
pub(super) const BATCH_BYTES_MAX: usize = 65_507;

/// What the datagrams of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    segment_size: usize,
    src_ip: Option<IpAddr>,
}

/// What became of datagrams that were offered to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// They are in it, and more fit.
    Held,
    /// They are in it, and it should go now: nothing more fits, or the sender has come to its end.
    Full,
    /// They do not go with what is in it, or do not make a batch.
    Apart,
}

/// Datagrams of one size for one destination. All but the last have that size exactly.
#[derive(Debug, Default)]
pub(super) struct Batch {
    head: Option<Head>,
    contents: Vec<u8>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.contents.is_empty()
    }

    /// Takes datagrams in, if all that is in the batch can then go in one call of at most `segments_max` datagrams.
    pub(super) fn offer(&mut self, transmit: &Transmit<'_>, segments_max: usize) -> Offered {
        let Some(segment_size) = transmit.segment_size.filter(|size| *size > 0) else { return Offered::Apart };
        let head = Head { destination: transmit.destination, ecn: transmit.ecn, segment_size, src_ip: transmit.src_ip };
        let bytes = self.contents.len().saturating_add(transmit.contents.len());
        let bytes_max = BATCH_BYTES_MAX.min(segment_size.saturating_mul(segments_max));
        if self.head.is_some_and(|own| own != head) || bytes > bytes_max {
            return Offered::Apart;
        }
        self.head = Some(head);
        self.contents.extend_from_slice(transmit.contents);
        // A shorter datagram can only be the last of a call, and where one more set of this size does not fit, waiting for
        // it brings nothing.
        let is_whole = bytes.is_multiple_of(segment_size);
        let more = bytes.saturating_add(transmit.contents.len());
        if is_whole && more <= bytes_max { Offered::Held } else { Offered::Full }
    }

    /// What is in it, as one transmit; none if it is empty.
    pub(super) fn transmit(&self) -> Option<Transmit<'_>> {
        let Head { destination, ecn, segment_size, src_ip } = self.head?;
        Some(Transmit { destination, ecn, contents: &self.contents, segment_size: Some(segment_size), src_ip })
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.head = None;
        self.contents.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transmit(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
        let destination = SocketAddr::from(([127, 0, 0, 1], 4340));
        Transmit { destination, ecn: None, contents, segment_size, src_ip: None }
    }

    #[test]
    fn whole_datagrams_are_collected_until_no_more_fit() {
        let ten = vec![7; 10 * 1452];
        let mut batch = Batch::default();
        assert!(batch.is_empty() && batch.transmit().is_none());
        let offered: Vec<_> = (0..5).map(|_| batch.offer(&transmit(&ten, Some(1452)), 64)).collect();
        // 45 datagrams of 1452 bytes are the most that the kernel takes; a fifth set of ten does not fit.
        assert_eq!(offered, [Offered::Held, Offered::Held, Offered::Held, Offered::Full, Offered::Apart]);
        let whole = batch.transmit().expect("datagrams");
        assert_eq!((whole.contents.len(), whole.segment_size), (40 * 1452, Some(1452)));
        batch.clear();
        assert!(batch.is_empty() && batch.transmit().is_none());
        assert_eq!(batch.offer(&transmit(&ten, Some(1452)), 10), Offered::Full, "where the kernel takes no more");
    }

    #[test]
    fn a_short_datagram_ends_a_batch() {
        let (long, short) = (vec![1; 3000], vec![2; 2500]);
        let mut batch = Batch::default();
        assert_eq!(batch.offer(&transmit(&long, Some(1000)), 64), Offered::Held);
        assert_eq!(batch.offer(&transmit(&short, Some(1000)), 64), Offered::Full);
        let whole = batch.transmit().expect("datagrams");
        assert_eq!(whole.contents, [long, short].concat());
    }

    #[test]
    fn only_what_is_alike_goes_together() {
        let contents = vec![1; 2000];
        let like = |change: fn(&mut Transmit<'_>)| {
            let mut batch = Batch::default();
            assert_eq!(batch.offer(&transmit(&contents, Some(1000)), 64), Offered::Held);
            let mut other = transmit(&contents, Some(1000));
            change(&mut other);
            let offered = batch.offer(&other, 64);
            assert_eq!(batch.transmit().expect("datagrams").contents.len(), 2000, "nothing else is in it");
            offered
        };
        assert_eq!(like(|other| other.destination.set_port(1)), Offered::Apart);
        assert_eq!(like(|other| other.ecn = Some(EcnCodepoint::Ect0)), Offered::Apart);
        assert_eq!(like(|other| other.segment_size = Some(500)), Offered::Apart);
        assert_eq!(like(|other| other.segment_size = None), Offered::Apart);
        assert_eq!(like(|other| other.src_ip = Some(IpAddr::from([127, 0, 0, 1]))), Offered::Apart);
        let mut batch = Batch::default();
        assert_eq!(batch.offer(&transmit(&contents, None), 64), Offered::Apart, "a datagram of its own");
        assert_eq!(batch.offer(&transmit(&contents, Some(0)), 64), Offered::Apart);
        assert!(batch.is_empty());
    }
}
