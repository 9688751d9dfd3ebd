//! BLAKE3 of a segment in one pass, with a chaining value for each group, so that any group verifies alone.
//!
//! A segment of one group is verified by its hash. One of several groups is verified by the chaining values of the subtrees
//! that the groups are; merged, they give the segment's hash. A group is a power of two of BLAKE3 chunks, which makes each
//! group a whole subtree whatever the length of the segment.

use blake3::{
    Hasher,
    hazmat::{ChainingValue, HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

use crate::{id::ContentId, limits::GROUP_BYTES};

/// Bytes of one chaining value.
pub(super) const CHAINING_VALUE_BYTES: usize = 32;

/// Hashes one segment as its bytes come.
#[derive(Debug, Default)]
pub struct SegmentHasher {
    /// Chaining values of the groups before the current one.
    groups: Vec<u8>,
    /// Bytes before the current group.
    offset: u64,
    /// The current group, which begins at `offset`.
    group: Hasher,
}

impl SegmentHasher {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the segment.
    pub fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            // A full group is closed only when more comes: the hash of a segment of one group is a root, not a subtree.
            if self.group.count() == GROUP_BYTES {
                self.groups.extend_from_slice(&self.group.finalize_non_root());
                self.offset = self.offset.saturating_add(GROUP_BYTES);
                self.group = Hasher::new();
                self.group.set_input_offset(self.offset);
            }
            let room = GROUP_BYTES.saturating_sub(self.group.count());
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            self.group.update(now);
            bytes = later;
        }
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.offset.saturating_add(self.group.count())
    }

    /// The hash of the segment, and the chaining values of its groups, 32 bytes each; none where it has one group or less.
    #[must_use]
    pub fn finish(mut self) -> (ContentId, Vec<u8>) {
        if self.groups.is_empty() {
            return (ContentId(*self.group.finalize().as_bytes()), Vec::new());
        }
        self.groups.extend_from_slice(&self.group.finalize_non_root());
        // More than one group stands here, so there is a root.
        let root = merge(&self.groups).unwrap_or(ContentId([0; 32]));
        (root, self.groups)
    }
}

/// The hash of the segment whose groups have these chaining values; none for fewer than two, or for a broken length.
pub(super) fn merge(groups: &[u8]) -> Option<ContentId> {
    let (values, rest) = groups.as_chunks::<CHAINING_VALUE_BYTES>();
    if !rest.is_empty() {
        return None;
    }
    let mut level: Vec<ChainingValue> = values.to_vec();
    while level.len() > 2 {
        // Pairs side by side; an odd one moves up. This is BLAKE3's tree, since all groups but the last are full.
        level = level
            .chunks(2)
            .filter_map(|pair| match pair {
                [left, right] => Some(merge_subtrees_non_root(left, right, Mode::Hash)),
                [last] => Some(*last),
                _ => None,
            })
            .collect();
    }
    match level.as_slice() {
        [left, right] => Some(ContentId(*merge_subtrees_root(left, right, Mode::Hash).as_bytes())),
        _ => None,
    }
}

/// The chaining value of a group that begins `offset` bytes into its segment, a multiple of [`GROUP_BYTES`].
pub(super) fn subtree(offset: u64, bytes: &[u8]) -> Option<ChainingValue> {
    // The library asserts these; bytes from a peer must not reach an assertion.
    let fits = !bytes.is_empty() && u64::try_from(bytes.len()).is_ok_and(|length| length <= GROUP_BYTES);
    (fits && offset.is_multiple_of(GROUP_BYTES))
        .then(|| Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        let mut out = vec![0; bytes];
        Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
        out
    }

    #[test]
    fn hashes_are_blake3_at_every_boundary() {
        let group = usize::try_from(GROUP_BYTES).expect("fits");
        let sizes = [
            0,
            1,
            1024,
            group - 1,
            group,
            group + 1,
            2 * group - 1,
            2 * group,
            2 * group + 1,
            3 * group + 7,
            4 * group,
            5 * group,
            7 * group + 1025,
        ];
        for size in sizes {
            let bytes = noise(size, 1);
            for step in [1 << 20, group, 65_537, 1000] {
                let mut hasher = SegmentHasher::new();
                bytes.chunks(step).for_each(|part| hasher.update(part));
                assert_eq!(hasher.bytes(), size as u64);
                let (id, groups) = hasher.finish();
                assert_eq!(id.0, *blake3::hash(&bytes).as_bytes(), "{size} bytes in steps of {step}");
                let expected = if size <= group { 0 } else { size.div_ceil(group) };
                assert_eq!(groups.len(), 32 * expected, "{size} bytes");
                for (at, (part, value)) in bytes.chunks(group).zip(groups.chunks(32)).enumerate() {
                    assert_eq!(subtree((at * group) as u64, part).expect("a group"), value, "{size} bytes, group {at}");
                }
            }
        }
    }

    #[test]
    fn merging_needs_two_whole_values() {
        assert_eq!(merge(&[]), None);
        assert_eq!(merge(&[0; 32]), None);
        assert_eq!(merge(&[0; 65]), None);
        assert!(merge(&[0; 64]).is_some());
        assert_eq!(subtree(0, &[]), None);
        assert_eq!(subtree(1, &[1]), None);
        assert_eq!(subtree(0, &vec![0; usize::try_from(GROUP_BYTES).expect("fits") + 1]), None);
    }
}
