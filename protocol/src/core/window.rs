//! How often something may happen in a while, for each of many: what keeps anyone from filling the ledger.

use std::collections::BTreeMap;

use crate::time::Timestamp;

/// Counts by key within windows of time. Keys are those that an authority accredited, or members: their number is bounded.
#[derive(Debug)]
pub(super) struct Window<K> {
    /// Since when, and how many.
    counts: BTreeMap<K, (Timestamp, u32)>,
    count_max: u32,
    length_ms: u64,
}

impl<K: Ord + Copy> Window<K> {
    pub(super) fn new(count_max: u32, length_ms: u64) -> Self {
        Self { counts: BTreeMap::new(), count_max, length_ms }
    }

    /// Whether one more is within the bound; counts it if so.
    pub(super) fn admits(&mut self, key: K, now: Timestamp) -> bool {
        let (since, count) = self.counts.entry(key).or_insert((now, 0));
        if now >= since.plus_ms(self.length_ms) {
            (*since, *count) = (now, 0);
        }
        let admitted = *count < self.count_max;
        *count += u32::from(admitted);
        admitted
    }

    /// Whether the bound is reached.
    pub(super) fn is_spent(&self, key: K, now: Timestamp) -> bool {
        self.counts.get(&key).is_some_and(|(since, count)| now < since.plus_ms(self.length_ms) && *count >= self.count_max)
    }

    /// Forgets what has no effect any more.
    pub(super) fn expire(&mut self, now: Timestamp) {
        self.counts.retain(|_, (since, _)| now < since.plus_ms(self.length_ms));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_admits_so_many_and_then_none_until_it_is_over() {
        let now = Timestamp(1_000_000);
        let mut window = Window::new(64, 1000);
        assert_eq!((0..1000).filter(|_| window.admits('a', now)).count(), 64);
        assert!(window.is_spent('a', now) && !window.is_spent('b', now));
        assert!(window.admits('b', now), "one does not use up what another may");
        let later = now.plus_ms(1000);
        assert!(!window.admits('a', later.minus_ms(1)));
        assert!(!window.is_spent('a', later) && window.admits('a', later));
        window.expire(later.plus_ms(1000));
        assert!(window.counts.is_empty());
    }
}
