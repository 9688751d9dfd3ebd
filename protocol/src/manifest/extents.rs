//! Groups that cross together.
//!
//! A model of many small tensors has a group for each. What lies one after the other in a file is read, sent, and written as
//! one, so that it costs what one large tensor costs. Each group is still verified on its own.

use std::{iter, ops::Range};

use super::{Group, Manifest, Start};
use crate::{id::ContentId, limits};

/// Bytes that are not what the manifest says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not what the manifest says")]
pub struct Untrue {
    /// The groups before, which are; it may be empty.
    pub good: Extent,
    /// Where the first group lies that is not.
    pub what: String,
}

/// Groups that lie one after the other in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The number of its first group.
    pub first: u64,
    /// The number after that of its last group.
    pub end: u64,
    /// The number of its file in [`Manifest::files`].
    pub file: u32,
    /// Where it begins in its file.
    pub offset: u64,
    /// Its length, at most [`limits::GROUP_BYTES`] and at least 1.
    pub bytes: u32,
}

/// Where a segment that has bytes lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// BLAKE3 of its bytes: what has the same is the same.
    pub hash: ContentId,
    /// The number of its first group.
    pub first: u64,
    /// The number of its file in [`Manifest::files`].
    pub file: u32,
    /// Where it begins in its file.
    pub offset: u64,
    pub bytes: u64,
}

impl Placed {
    /// Its groups, in order, each by itself.
    pub fn groups(&self) -> impl Iterator<Item = Extent> + use<> {
        let Self { first, file, offset, bytes, .. } = *self;
        (0..bytes.div_ceil(limits::GROUP_BYTES)).map_while(move |at| {
            let within = at.checked_mul(limits::GROUP_BYTES)?;
            let index = first.checked_add(at)?;
            let bytes = u32::try_from(bytes.checked_sub(within)?.min(limits::GROUP_BYTES)).ok()?;
            Some(Extent { first: index, end: index.checked_add(1)?, file, offset: offset.checked_add(within)?, bytes })
        })
    }
}

impl From<&Group> for Extent {
    fn from(group: &Group) -> Self {
        let Group { index, file, offset, bytes, .. } = *group;
        Self { first: index, end: index.saturating_add(1), file, offset, bytes }
    }
}

impl Extent {
    /// Takes the next group in, if it follows in the same file and the bound permits it.
    fn take(&mut self, next: &Group) -> bool {
        let end = self.offset.checked_add(u64::from(self.bytes));
        let bytes = self.bytes.checked_add(next.bytes).filter(|bytes| u64::from(*bytes) <= limits::GROUP_BYTES);
        match bytes {
            Some(bytes) if self.file == next.file && self.end == next.index && end == Some(next.offset) => {
                self.bytes = bytes;
                self.end = self.end.saturating_add(1);
                true
            }
            _ => false,
        }
    }
}

impl Manifest {
    /// Every segment that has bytes, in order.
    pub fn placed(&self) -> impl Iterator<Item = Placed> + '_ {
        self.0.starts.iter().filter_map(|start| {
            let segment = self.segment(start.file, start.segment)?;
            let Start { group, file, offset, bytes, .. } = *start;
            Some(Placed { hash: segment.hash, first: group, file, offset, bytes })
        })
    }

    /// The groups of the runs, in their order, as extents.
    pub fn extents_in<'a>(&'a self, runs: Vec<(u64, u64)>) -> impl Iterator<Item = Extent> + use<'a> {
        let groups = runs.into_iter().flat_map(|(first, end)| first..end).map_while(|index| self.group(index));
        let mut groups = groups.peekable();
        iter::from_fn(move || {
            let mut extent = Extent::from(&groups.next()?);
            while groups.next_if(|next| extent.take(next)).is_some() {}
            Some(extent)
        })
    }

    /// The groups that have a byte of a range of a file.
    #[must_use]
    pub fn groups_in(&self, file: u32, range: &Range<u64>) -> Range<u64> {
        let first = |reached: &dyn Fn(&Group) -> bool| {
            let (mut low, mut high) = (0, self.group_count());
            while low < high {
                let middle = low.midpoint(high);
                if self.group(middle).is_some_and(|group| !reached(&group)) {
                    low = middle.saturating_add(1);
                } else {
                    high = middle;
                }
            }
            low
        };
        // The first group that ends behind the start, and the first that begins at the end or behind it.
        let begins = first(&|of| (of.file, of.offset.saturating_add(u64::from(of.bytes))) > (file, range.start));
        let ends = first(&|of| (of.file, of.offset) >= (file, range.end));
        begins..ends.max(begins)
    }

    /// Compares each group of an extent with its bytes.
    ///
    /// # Errors
    /// Where the first group lies that is not what the manifest says, or the extent if it is none of this manifest.
    pub fn verify_extent(&self, extent: &Extent, bytes: &[u8]) -> Result<(), Untrue> {
        let mut good = Extent { end: extent.first, bytes: 0, ..*extent };
        let strange = |good| Untrue { good, what: format!("groups {}..{}", extent.first, extent.end) };
        let mut rest = bytes;
        for index in extent.first..extent.end {
            let offset = good.offset.saturating_add(u64::from(good.bytes));
            let group = self.group(index).filter(|group| group.file == extent.file && group.offset == offset);
            let Some(group) = group else { return Err(strange(good)) };
            let own = usize::try_from(group.bytes).ok().and_then(|bytes| rest.split_at_checked(bytes));
            let Some((own, after)) = own else { return Err(strange(good)) };
            if !self.verify_group(&group, own) {
                return Err(Untrue { good, what: self.describe_group(&group) });
            }
            rest = after;
            good.bytes = good.bytes.saturating_add(group.bytes);
            good.end = index.saturating_add(1);
        }
        if rest.is_empty() { Ok(()) } else { Err(strange(good)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::{
        runs_of,
        tests::{made, opaque, tensors},
    };

    fn manifest(sizes: &[usize]) -> (Manifest, Vec<u8>) {
        let (file, content) = tensors("b.safetensors", sizes);
        (made(vec![file, opaque("a", b"x")]).expect("a manifest"), content)
    }

    #[test]
    fn small_tensors_cross_together() {
        let (manifest, _) = manifest(&[1000; 600]);
        // One file of one byte; then a header and 600 tensors, 262 of them in 256 KiB.
        let count = manifest.group_count();
        let extents: Vec<Extent> = manifest.extents_in(vec![(0, count)]).collect();
        assert_eq!(extents.len(), 4, "{extents:?}");
        assert_eq!(extents.iter().map(|extent| u64::from(extent.bytes)).sum::<u64>(), manifest.bytes());
        assert!(extents.iter().all(|extent| u64::from(extent.bytes) <= limits::GROUP_BYTES));
        // Where one is left out, an extent ends before it.
        let (left, right) = (Some(10), Some(11));
        let extents: Vec<Extent> = manifest.extents_in(vec![(0, 10), (11, count)]).collect();
        assert!(extents.iter().any(|extent| Some(extent.end) == left));
        assert!(extents.iter().any(|extent| Some(extent.first) == right));
    }

    #[test]
    fn a_placed_segment_has_the_groups_of_its_artefact() {
        let (manifest, _) = manifest(&[1000, 700_000, 0, 5, 262_144, 262_145]);
        let groups: Vec<Extent> = manifest.placed().flat_map(|placed| placed.groups()).collect();
        assert_eq!(groups, manifest.groups().map(|group| Extent::from(&group)).collect::<Vec<_>>());
        assert_eq!(manifest.placed().map(|placed| placed.bytes).sum::<u64>(), manifest.bytes());
    }

    #[test]
    fn each_group_of_an_extent_is_compared() {
        let (manifest, content) = manifest(&[1000; 20]);
        let extent = manifest.extents_in(vec![(1, manifest.group_count())]).next().expect("an extent");
        assert_eq!((extent.offset, extent.file), (0, 1));
        assert_eq!(manifest.verify_extent(&extent, &content), Ok(()));
        let mut altered = content.clone();
        let last = altered.len() - 1;
        altered[last] ^= 1;
        let untrue = manifest.verify_extent(&extent, &altered).expect_err("altered");
        assert!(untrue.what.contains("t19"), "{untrue}");
        assert_eq!(
            untrue.good,
            Extent { end: extent.end - 1, bytes: extent.bytes - 1000, ..extent },
            "the others are good"
        );
        assert!(manifest.verify_extent(&extent, &content[..last]).is_err(), "too short");
        assert!(manifest.verify_extent(&extent, &[content.clone(), vec![0]].concat()).is_err(), "too long");
        for strange in [
            Extent { end: extent.end + 1, ..extent },
            Extent { first: extent.first + 1, ..extent },
            Extent { file: 0, ..extent },
            Extent { offset: 1, ..extent },
        ] {
            assert!(manifest.verify_extent(&strange, &content).is_err(), "{strange:?}");
        }
    }

    proptest! {
        #[test]
        fn extents_are_the_groups_in_their_order(
            sizes in prop::collection::vec(1_usize..700_000, 1..8), left_out in prop::collection::btree_set(0_u64..12, 0..6)
        ) {
            let (manifest, _) = manifest(&sizes);
            let wanted = (0..manifest.group_count()).map(|index| !left_out.contains(&index));
            let groups: Vec<u64> = (0..manifest.group_count()).filter(|index| !left_out.contains(index)).collect();
            let extents: Vec<Extent> = manifest.extents_in(runs_of(wanted)).collect();
            let of_extents: Vec<u64> = extents.iter().flat_map(|extent| extent.first..extent.end).collect();
            prop_assert_eq!(groups, of_extents);
            let bytes: u64 = extents.iter().map(|extent| u64::from(extent.bytes)).sum();
            let rest = runs_of((0..manifest.group_count()).map(|index| left_out.contains(&index)));
            prop_assert_eq!(bytes + manifest.bytes_of_runs(&rest), manifest.bytes());
        }
    }
}
