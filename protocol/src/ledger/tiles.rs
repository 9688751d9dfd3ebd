//! The whole tree as C2SP `tlog-tiles` has it: hashes in rows of 256, from which any proof is a few hundred hashes away.
//!
//! A row ("level") holds the hashes of all complete subtrees of 256^level leaves. A tile is 256 hashes of a row, or what there
//! is of them at the right edge of a tree. 32 bytes an entry and little more: a node with a million records needs 33 MB.

use std::fmt;

use super::merkle::{Merkle, node_hash};
use crate::id::Sha256;

/// Leaves below one hash of the next row, as a power of two (C2SP `tlog-tiles`).
const TILE_HEIGHT: u32 = 8;

/// Hashes of a full tile.
pub const TILE_WIDTH: u64 = 1 << TILE_HEIGHT;

/// A tree that can only grow, with every hash that a proof may need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tiles {
    /// By level; the first holds the leaf hashes.
    rows: Vec<Vec<Sha256>>,
    /// The same tree as its edge alone, which has the root at hand.
    edge: Merkle,
}

/// Where a tile is in a tree: its row, its place in the row, and how many hashes of it there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileAt {
    pub level: u8,
    pub index: u64,
    /// 256 for a full tile, else 1 to 255.
    pub width: u16,
}

/// The place of a bundle of entries, as [`TileAt`] of the leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BundleAt {
    pub index: u64,
    pub width: u16,
}

impl Tiles {
    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.edge.size()
    }

    /// Adds a leaf by its [`super::leaf_hash`].
    pub fn append(&mut self, leaf: Sha256) {
        self.edge.append(leaf);
        let mut hash = leaf;
        for level in 0.. {
            if self.rows.len() <= level {
                self.rows.push(Vec::new());
            }
            let Some(row) = self.rows.get_mut(level) else { return };
            row.push(hash);
            if !(row.len() as u64).is_multiple_of(TILE_WIDTH) {
                return;
            }
            let full = row.len().saturating_sub(usize::from(TileAt::FULL));
            hash = row.get(full..).unwrap_or_default().iter().copied().collect::<Merkle>().root();
        }
    }

    /// The root over all leaves.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        self.edge.root()
    }

    /// The root over the first `size` leaves, or none if there are not so many.
    #[must_use]
    pub fn root_at(&self, size: u64) -> Option<Sha256> {
        if size == 0 { Some(Merkle::default().root()) } else { self.over(0, size) }
    }

    /// The audit path of the leaf at `index` in the tree of the first `size` leaves (RFC 9162 section 2.1.3.1), or none if
    /// there is no such leaf.
    #[must_use]
    pub fn prove_inclusion(&self, index: u64, size: u64) -> Option<Vec<Sha256>> {
        if index >= size || size > self.size() {
            return None;
        }
        let (mut proof, mut from, mut to) = (Vec::new(), 0, size);
        while let Some(middle) = split(from, to) {
            if index < middle {
                proof.push(self.over(middle, to)?);
                to = middle;
            } else {
                proof.push(self.over(from, middle)?);
                from = middle;
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the tree of the first `first` leaves is a prefix of that of the first `second` (RFC 9162 section
    /// 2.1.4.1), or none if there are not so many. Empty for `first` = 0, with which every tree is consistent.
    #[must_use]
    pub fn prove_consistency(&self, first: u64, second: u64) -> Option<Vec<Sha256>> {
        if first > second || second > self.size() {
            return None;
        }
        let (mut proof, mut from, mut to) = (Vec::new(), 0, second);
        if first == 0 {
            return Some(proof);
        }
        while first < to {
            let middle = split(from, to)?;
            if first <= middle {
                proof.push(self.over(middle, to)?);
                to = middle;
            } else {
                proof.push(self.over(from, middle)?);
                from = middle;
            }
        }
        // What begins at the left edge is the first tree itself, which the verifier has.
        if from > 0 {
            proof.push(self.over(from, to)?);
        }
        proof.reverse();
        Some(proof)
    }

    /// The hashes of a tile, or none if there are not so many.
    #[must_use]
    pub fn tile(&self, at: TileAt) -> Option<&[Sha256]> {
        let from = usize::try_from(at.index.checked_mul(TILE_WIDTH)?).ok()?;
        self.rows.get(usize::from(at.level))?.get(from..from.checked_add(usize::from(at.width))?)
    }

    /// The hash over the leaves from `from` to before `to`, which lie in a tree as RFC 6962 divides it.
    fn over(&self, from: u64, to: u64) -> Option<Sha256> {
        let count = to.checked_sub(from).filter(|count| *count > 0)?;
        if count.is_power_of_two() && from.is_multiple_of(count) {
            return self.subtree(from, count.trailing_zeros());
        }
        let middle = split(from, to)?;
        Some(node_hash(&self.over(from, middle)?, &self.over(middle, to)?))
    }

    /// The hash of the complete subtree of 2^height leaves that begins at `from`.
    fn subtree(&self, from: u64, height: u32) -> Option<Sha256> {
        let (level, above) = (height / TILE_HEIGHT, height % TILE_HEIGHT);
        let first = usize::try_from(from >> (level * TILE_HEIGHT)).ok()?;
        let row = self.rows.get(usize::try_from(level).ok()?)?;
        let hashes = row.get(first..first.checked_add(1 << above)?)?;
        Some(hashes.iter().copied().collect::<Merkle>().root())
    }
}

/// Where RFC 6962 divides a range of two or more leaves: the largest power of two below their number.
fn split(from: u64, to: u64) -> Option<u64> {
    let last = to.checked_sub(from)?.checked_sub(1)?;
    Some(from + (1 << last.checked_ilog2()?))
}

impl FromIterator<Sha256> for Tiles {
    /// The tree over leaf hashes.
    fn from_iter<I: IntoIterator<Item = Sha256>>(leaves: I) -> Self {
        let mut tiles = Self::default();
        leaves.into_iter().for_each(|leaf| tiles.append(leaf));
        tiles
    }
}

impl TileAt {
    /// The width of a full tile.
    pub const FULL: u16 = 1 << TILE_HEIGHT;

    /// The tiles of a tree of `size` leaves that one of `old` leaves does not have, row by row.
    pub fn new_between(old: u64, size: u64) -> impl Iterator<Item = Self> {
        let levels = (0_u8..).map_while(move |level| {
            let below = |leaves: u64| leaves.checked_shr(u32::from(level) * TILE_HEIGHT).unwrap_or(0);
            (below(size) > 0).then(|| (level, below(old), below(size)))
        });
        levels.filter(|(_, had, has)| had != has).flat_map(|(level, had, has)| {
            let full = (had / TILE_WIDTH..has / TILE_WIDTH).map(move |index| Self { level, index, width: Self::FULL });
            let rest = u16::try_from(has % TILE_WIDTH).unwrap_or_default();
            full.chain((rest > 0).then_some(Self { level, index: has / TILE_WIDTH, width: rest }))
        })
    }
}

impl BundleAt {
    /// The bundles of a tree of `size` leaves that one of `old` leaves does not have.
    pub fn new_between(old: u64, size: u64) -> impl Iterator<Item = Self> {
        let leaves = TileAt::new_between(old, size).filter(|tile| tile.level == 0);
        leaves.map(|TileAt { index, width, .. }| Self { index, width })
    }

    /// The numbers of its entries.
    #[must_use]
    pub fn entries(&self) -> std::ops::Range<u64> {
        let from = self.index.saturating_mul(TILE_WIDTH);
        from..from.saturating_add(self.width.into())
    }
}

/// Three digits to a path element, all but the last with an `x`; a partial tile in a folder beside the full one.
fn place(f: &mut fmt::Formatter<'_>, index: u64, width: u16) -> fmt::Result {
    let mut groups = vec![index % 1000];
    let mut rest = index / 1000;
    while rest > 0 {
        groups.push(rest % 1000);
        rest /= 1000;
    }
    for group in groups.iter().skip(1).rev() {
        write!(f, "x{group:03}/")?;
    }
    write!(f, "{:03}", index % 1000)?;
    if width < TileAt::FULL { write!(f, ".p/{width}") } else { Ok(()) }
}

impl fmt::Display for TileAt {
    /// The path below the prefix of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tile/{}/", self.level)?;
        place(f, self.index, self.width)
    }
}

impl fmt::Display for BundleAt {
    /// The path below the prefix of the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tile/entries/")?;
        place(f, self.index, self.width)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::merkle::{leaf_hash, prove_consistency, prove_inclusion};

    fn leaves(count: u64) -> Vec<Sha256> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    fn tiles(count: u64) -> Tiles {
        leaves(count).into_iter().collect()
    }

    /// The example of the specification: a tree of 70,000 leaves.
    #[test]
    fn the_tiles_of_the_specification() {
        let all: Vec<_> = TileAt::new_between(0, 70_000).collect();
        let of = |level: u8| all.iter().filter(move |tile| tile.level == level);
        assert_eq!((of(0).count(), of(1).count(), of(2).count(), all.len()), (274, 2, 1, 277));
        assert_eq!(all[273], TileAt { level: 0, index: 273, width: 112 });
        assert_eq!(all[275], TileAt { level: 1, index: 1, width: 17 });
        assert_eq!(all[276], TileAt { level: 2, index: 0, width: 1 });
        let of_256: Vec<_> = TileAt::new_between(0, 256).map(|tile| tile.to_string()).collect();
        assert_eq!(of_256, ["tile/0/000", "tile/1/000.p/1"]);
        assert_eq!(TileAt::new_between(0, 0).count(), 0);
        assert_eq!(TileAt::new_between(70_000, 70_000).count(), 0);
    }

    #[test]
    fn paths() {
        let at = |index, width| TileAt { level: 0, index, width }.to_string();
        assert_eq!(at(1_234_067, 256), "tile/0/x001/x234/067");
        assert_eq!(at(1_000, 3), "tile/0/x001/000.p/3");
        assert_eq!(at(999, 255), "tile/0/999.p/255");
        assert_eq!(BundleAt { index: 1_234_067, width: 7 }.to_string(), "tile/entries/x001/x234/067.p/7");
    }

    #[test]
    fn a_tree_of_several_rows_is_the_tree_of_the_reference() {
        let all = leaves(66_000);
        let tiles: Tiles = all.iter().copied().collect();
        assert_eq!(tiles.rows.iter().map(Vec::len).collect::<Vec<_>>(), [66_000, 257, 1]);
        assert_eq!(tiles.root(), all.iter().copied().collect::<Merkle>().root());
        for (first, second) in [(1, 65_536), (65_535, 65_537), (255, 66_000), (65_536, 66_000), (300, 40_000)] {
            let proof = prove_consistency(&all[..usize::try_from(second).expect("small")], first);
            assert_eq!(tiles.prove_consistency(first, second), proof, "{first} to {second}");
        }
        for (index, size) in [(0, 66_000), (65_535, 65_536), (65_536, 66_000), (300, 301)] {
            let proof = prove_inclusion(&all[..usize::try_from(size).expect("small")], index);
            assert_eq!(tiles.prove_inclusion(index, size), proof, "{index} of {size}");
        }
    }

    #[test]
    fn what_is_not_there_is_not_proved() {
        let tiles = tiles(10);
        assert_eq!(tiles.root_at(11), None);
        assert_eq!(tiles.root_at(0), Some(Merkle::default().root()));
        assert_eq!(tiles.prove_inclusion(10, 10), None);
        assert_eq!(tiles.prove_inclusion(0, 11), None);
        assert_eq!(tiles.prove_consistency(5, 11), None);
        assert_eq!(tiles.prove_consistency(6, 5), None);
        assert_eq!(tiles.prove_consistency(0, 10), Some(Vec::new()));
        assert_eq!(tiles.tile(TileAt { level: 0, index: 0, width: 11 }), None);
        assert_eq!(tiles.tile(TileAt { level: 1, index: 0, width: 1 }), None);
        assert_eq!(Tiles::default().root(), Merkle::default().root());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn proofs_are_those_of_the_reference(size in 1_u64..1_100, a in 0_u64..1_100, b in 0_u64..1_100) {
            let all = leaves(size);
            let tiles: Tiles = all.iter().copied().collect();
            let (first, second) = (a.min(b) % (size + 1), a.max(b) % (size + 1));
            let (first, second) = (first.min(second), first.max(second));
            let part = &all[..usize::try_from(second).expect("small")];
            prop_assert_eq!(tiles.root_at(second), Some(part.iter().copied().collect::<Merkle>().root()));
            prop_assert_eq!(tiles.prove_consistency(first, second), prove_consistency(part, first));
            prop_assert_eq!(tiles.prove_inclusion(first, second), prove_inclusion(part, first));
        }

        #[test]
        fn tiles_written_as_a_tree_grows_are_those_of_the_tree(steps in prop::collection::vec(1_u64..400, 1..6)) {
            let size = steps.iter().sum();
            let tiles = tiles(size);
            let mut at = 0;
            let mut written = std::collections::BTreeSet::new();
            for step in steps {
                written.extend(TileAt::new_between(at, at + step));
                at += step;
            }
            for tile in TileAt::new_between(0, size) {
                prop_assert!(written.contains(&tile), "{}", tile);
                prop_assert!(tiles.tile(tile).is_some(), "{}", tile);
            }
        }
    }
}
