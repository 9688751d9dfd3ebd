//! Memory that is read into, sent from, and read into again.

use std::collections::VecDeque;

use alliance_protocol::limits;
use bytes::{Bytes, BytesMut};

/// What is sent, until nobody else has it and it can be overwritten: memory that was never used costs more than what is read
/// into it, and memory that was used lately is still in the processor's cache.
pub(crate) struct Buffers {
    lent: VecDeque<Bytes>,
    kept_max: usize,
}

impl Buffers {
    /// At most `kept_max` are kept to be used again.
    pub(crate) fn new(kept_max: usize) -> Self {
        Self { lent: VecDeque::new(), kept_max }
    }

    /// A buffer of this length, with any content.
    pub(crate) fn take(&mut self, bytes: usize) -> BytesMut {
        // What was sent first is let go of first.
        let is_free = self.lent.front().is_some_and(Bytes::is_unique);
        let free = if is_free { self.lent.pop_front() } else { None };
        let free = free.and_then(|oldest| oldest.try_into_mut().ok());
        let mut buffer = free.filter(|free| free.capacity() >= bytes).unwrap_or_else(|| {
            BytesMut::with_capacity(usize::try_from(limits::GROUP_BYTES).unwrap_or_default().max(bytes))
        });
        buffer.resize(bytes, 0);
        buffer
    }

    /// The bytes to be sent. They come back when nobody else has them any more.
    pub(crate) fn lend(&mut self, buffer: BytesMut) -> Bytes {
        let bytes = buffer.freeze();
        if self.lent.len() < self.kept_max {
            self.lent.push_back(bytes.clone());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_when_nobody_else_has_them() {
        let mut buffers = Buffers::new(80);
        let mut lent = Vec::new();
        for n in 0..3_u8 {
            let mut buffer = buffers.take(1000);
            buffer.fill(n);
            lent.push(buffers.lend(buffer));
        }
        let places: Vec<*const u8> = lent.iter().map(|bytes| bytes.as_ptr()).collect();
        assert_eq!(buffers.take(2000).len(), 2000, "a new one, while all are lent");
        assert!(lent.iter().zip(0..3).all(|(bytes, n)| bytes.iter().all(|byte| *byte == n)), "nobody writes into them");
        lent.clear();
        for place in places {
            let buffer = buffers.take(1500);
            assert_eq!((buffer.as_ptr(), buffer.len()), (place, 1500), "the oldest first");
            drop(buffer);
        }
        assert!(buffers.lent.is_empty());
    }
}
