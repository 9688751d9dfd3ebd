//! The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1): SHA-256, `0x00` before a leaf, `0x01` before a node.
//!
//! [`Merkle`] keeps one hash per complete subtree, so that appending needs memory logarithmic in the size. What is needed to
//! prove something of it is [`super::Tiles`].

use sha2::{Digest as _, Sha256 as Hasher};

use crate::id::Sha256;

/// A proof does not prove what it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the Merkle proof does not hold")]
pub struct BadProof;

/// A tree that can only grow. Cheap to clone: at most 64 hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merkle {
    size: u64,
    /// The roots of the complete subtrees, largest first: one for each bit that is set in `size`.
    peaks: Vec<Sha256>,
}

/// The hash of a leaf.
#[must_use]
pub fn leaf_hash(bytes: &[u8]) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update([0x00]);
    hasher.update(bytes);
    Sha256(hasher.finalize().into())
}

pub(super) fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut hasher = Hasher::new();
    hasher.update([0x01]);
    hasher.update(left.0);
    hasher.update(right.0);
    Sha256(hasher.finalize().into())
}

impl Merkle {
    /// How many leaves it has.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf by its [`leaf_hash`].
    pub fn append(&mut self, leaf: Sha256) {
        let mut hash = leaf;
        // Each complete subtree at the right edge that is as large as what is being added merges with it.
        for _ in 0..self.size.trailing_ones() {
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
        }
        self.peaks.push(hash);
        self.size = self.size.saturating_add(1);
    }

    /// The root. That of the empty tree is the SHA-256 of nothing.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        let mut peaks = self.peaks.iter().rev();
        match peaks.next() {
            Some(smallest) => peaks.fold(*smallest, |right, left| node_hash(left, &right)),
            None => Sha256(Hasher::digest([]).into()),
        }
    }
}

impl FromIterator<Sha256> for Merkle {
    /// The tree over leaf hashes.
    fn from_iter<I: IntoIterator<Item = Sha256>>(leaves: I) -> Self {
        let mut tree = Self::default();
        leaves.into_iter().for_each(|leaf| tree.append(leaf));
        tree
    }
}

/// Goes up one level, or, from a left edge that is also the right edge, to the level where it is a right child.
fn ascend(node: &mut u64, last: &mut u64, joined_left: bool) {
    if joined_left {
        while *node & 1 == 0 && *node != 0 {
            *node >>= 1;
            *last >>= 1;
        }
    }
    *node >>= 1;
    *last >>= 1;
}

/// Checks that the tree of `size` leaves with this root has `leaf` at `index` (RFC 9162 section 2.1.3.2).
///
/// # Errors
/// The proof does not show it.
pub fn verify_inclusion(leaf: Sha256, index: u64, size: u64, root: Sha256, proof: &[Sha256]) -> Result<(), BadProof> {
    if index >= size {
        return Err(BadProof);
    }
    let (mut node, mut last, mut hash) = (index, size - 1, leaf);
    for sibling in proof {
        if last == 0 {
            return Err(BadProof);
        }
        let joins_left = node & 1 == 1 || node == last;
        hash = if joins_left { node_hash(sibling, &hash) } else { node_hash(&hash, sibling) };
        ascend(&mut node, &mut last, joins_left);
    }
    if last == 0 && hash == root { Ok(()) } else { Err(BadProof) }
}

/// Checks that the tree `second` continues the tree `first`, each given as size and root (RFC 9162 section 2.1.4.2).
///
/// # Errors
/// The proof does not show it.
pub fn verify_consistency(first: (u64, Sha256), second: (u64, Sha256), proof: &[Sha256]) -> Result<(), BadProof> {
    let ((first_size, first_root), (second_size, second_root)) = (first, second);
    let holds = |yes: bool| if yes { Ok(()) } else { Err(BadProof) };
    if first_size > second_size {
        return Err(BadProof);
    }
    if first_size == second_size {
        return holds(proof.is_empty() && first_root == second_root);
    }
    if first_size == 0 {
        return holds(proof.is_empty() && first_root == Merkle::default().root());
    }
    let (start, rest) =
        if first_size.is_power_of_two() { (&first_root, proof) } else { proof.split_first().ok_or(BadProof)? };
    let (mut node, mut last) = (first_size - 1, second_size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut older, mut newer) = (*start, *start);
    for sibling in rest {
        if last == 0 {
            return Err(BadProof);
        }
        let joins_left = node & 1 == 1 || node == last;
        if joins_left {
            older = node_hash(sibling, &older);
            newer = node_hash(sibling, &newer);
        } else {
            newer = node_hash(&newer, sibling);
        }
        ascend(&mut node, &mut last, joins_left);
    }
    holds(last == 0 && older == first_root && newer == second_root)
}

#[cfg(test)]
pub(super) use reference::{prove_consistency, prove_inclusion};

/// The proofs as RFC 9162 defines them, over all leaf hashes: what the quick ones are compared with.
#[cfg(test)]
mod reference {
    use super::*;

    pub(super) fn root_of(leaves: &[Sha256]) -> Sha256 {
        leaves.iter().copied().collect::<Merkle>().root()
    }

    /// Splits two or more leaves at the largest power of two below their number.
    fn split(leaves: &[Sha256]) -> Option<(&[Sha256], &[Sha256])> {
        let last = leaves.len().checked_sub(1)?;
        leaves.split_at_checked(1 << last.checked_ilog2()?)
    }

    /// The audit path of the leaf at `index` in the tree over `leaves` (RFC 9162 section 2.1.3.1), or none if there is no such
    /// leaf. Takes time linear in the number of leaves.
    #[must_use]
    pub(in crate::ledger) fn prove_inclusion(leaves: &[Sha256], index: u64) -> Option<Vec<Sha256>> {
        let mut index = usize::try_from(index).ok().filter(|index| *index < leaves.len())?;
        let (mut proof, mut rest) = (Vec::new(), leaves);
        while let Some((left, right)) = split(rest) {
            if index < left.len() {
                proof.push(root_of(right));
                rest = left;
            } else {
                proof.push(root_of(left));
                rest = right;
                index -= left.len();
            }
        }
        proof.reverse();
        Some(proof)
    }

    /// The proof that the tree over the first `first` leaves is a prefix of the tree over all of them (RFC 9162 section
    /// 2.1.4.1), or none if there are not so many. Empty for `first` = 0, with which every tree is consistent. Takes time
    /// linear in the number of leaves.
    #[must_use]
    pub(in crate::ledger) fn prove_consistency(leaves: &[Sha256], first: u64) -> Option<Vec<Sha256>> {
        let mut first = usize::try_from(first).ok().filter(|first| *first <= leaves.len())?;
        let (mut proof, mut rest, mut known) = (Vec::new(), leaves, true);
        if first == 0 {
            return Some(proof);
        }
        while first < rest.len() {
            let (left, right) = split(rest)?;
            if first <= left.len() {
                proof.push(root_of(right));
                rest = left;
            } else {
                proof.push(root_of(left));
                rest = right;
                first -= left.len();
                known = false;
            }
        }
        if !known {
            proof.push(root_of(rest));
        }
        proof.reverse();
        Some(proof)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{reference::root_of, *};

    /// The eight leaves of the certificate transparency reference tests, in hexadecimal.
    const LEAVES: [&str; 8] =
        ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

    /// Roots of the trees over the first 0, 1, ... 8 of them.
    const ROOTS: [&str; 9] = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    fn hash(text: &str) -> Sha256 {
        text.parse().expect("a hash")
    }

    fn leaves(count: usize) -> Vec<Sha256> {
        LEAVES[..count].iter().map(|leaf| leaf_hash(&hex::decode(leaf).expect("hex"))).collect()
    }

    #[test]
    fn the_roots_of_the_reference_tests() {
        for (size, root) in ROOTS.iter().enumerate() {
            assert_eq!(root_of(&leaves(size)), hash(root), "size {size}");
        }
    }

    #[test]
    fn the_inclusion_proofs_of_the_reference_tests() {
        // Leaf counted from 0, size, path.
        let vectors: [(u64, usize, &[&str]); 4] = [
            (0, 1, &[]),
            (
                0,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                5,
                8,
                &[
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (2, 3, &["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]),
        ];
        for (index, size, path) in vectors {
            let path: Vec<_> = path.iter().map(|text| hash(text)).collect();
            assert_eq!(prove_inclusion(&leaves(size), index), Some(path), "leaf {index} of {size}");
        }
    }

    #[test]
    fn the_consistency_proofs_of_the_reference_tests() {
        let vectors: [(u64, usize, &[&str]); 4] = [
            (1, 1, &[]),
            (
                1,
                8,
                &[
                    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
                ],
            ),
            (
                6,
                8,
                &[
                    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
                    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
                    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                ],
            ),
            (
                2,
                5,
                &[
                    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
                    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
                ],
            ),
        ];
        for (first, size, path) in vectors {
            let path: Vec<_> = path.iter().map(|text| hash(text)).collect();
            assert_eq!(prove_consistency(&leaves(size), first), Some(path), "{first} to {size}");
        }
    }

    #[test]
    fn nothing_is_proved_of_what_is_not_there() {
        assert_eq!(prove_inclusion(&[], 0), None);
        assert_eq!(prove_inclusion(&leaves(3), 3), None);
        assert_eq!(prove_consistency(&leaves(3), 4), None);
        let empty = (0, Merkle::default().root());
        assert_eq!(verify_consistency(empty, (3, root_of(&leaves(3))), &[]), Ok(()));
        assert_eq!(verify_consistency((0, root_of(&leaves(1))), (3, root_of(&leaves(3))), &[]), Err(BadProof));
        assert_eq!(verify_inclusion(leaves(1)[0], 0, 0, empty.1, &[]), Err(BadProof));
    }

    fn some_leaves(count: usize) -> Vec<Sha256> {
        (0..count).map(|n| leaf_hash(&n.to_be_bytes())).collect()
    }

    /// A proof with one thing wrong: a hash changed, one too few, one too many.
    fn spoilt(proof: &[Sha256], at: usize) -> Vec<Vec<Sha256>> {
        let mut longer = proof.to_vec();
        longer.insert(at % (proof.len() + 1), leaf_hash(&at.to_be_bytes()));
        let mut all = vec![longer];
        if !proof.is_empty() {
            let at = at % proof.len();
            let (mut changed, mut shorter) = (proof.to_vec(), proof.to_vec());
            changed[at].0[7] ^= 1;
            shorter.remove(at);
            all.extend([changed, shorter]);
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn inclusion_is_proved_and_nothing_else_is(size in 1_usize..130, pick in 0_usize..1000) {
            let (all, index) = (some_leaves(size), pick % size);
            let (root, place, count) = (root_of(&all), index as u64, size as u64);
            let proof = prove_inclusion(&all, place).expect("a leaf of the tree");
            prop_assert_eq!(verify_inclusion(all[index], place, count, root, &proof), Ok(()));
            prop_assert!(verify_inclusion(leaf_hash(b"other"), place, count, root, &proof).is_err());
            prop_assert!(verify_inclusion(all[index], place, count, Sha256([0; 32]), &proof).is_err());
            prop_assert!(verify_inclusion(all[index], count, count, root, &proof).is_err());
            if size > 1 {
                let elsewhere = (place + 1) % count;
                prop_assert!(verify_inclusion(all[index], elsewhere, count, root, &proof).is_err());
            }
            for bad in spoilt(&proof, pick) {
                prop_assert!(verify_inclusion(all[index], place, count, root, &bad).is_err());
            }
        }

        #[test]
        fn consistency_is_proved_and_nothing_else_is(size in 1_usize..130, pick in 0_usize..1000) {
            let (all, first) = (some_leaves(size), 1 + pick % size);
            let older = (first as u64, root_of(&all[..first]));
            let newer = (size as u64, root_of(&all));
            let proof = prove_consistency(&all, older.0).expect("a prefix of the tree");
            prop_assert_eq!(verify_consistency(older, newer, &proof), Ok(()));
            prop_assert!(verify_consistency((older.0, Sha256([0; 32])), newer, &proof).is_err());
            prop_assert!(verify_consistency(older, (newer.0, Sha256([0; 32])), &proof).is_err());
            if first < size {
                prop_assert!(verify_consistency(newer, older, &proof).is_err());
            }
            for bad in spoilt(&proof, pick) {
                prop_assert!(verify_consistency(older, newer, &bad).is_err());
            }
        }

        #[test]
        fn a_rewritten_past_is_not_consistent(size in 2_usize..130, pick in 0_usize..1000, change in 0_usize..1000) {
            let (all, first) = (some_leaves(size), 1 + pick % (size - 1));
            let mut other = all.clone();
            other[change % first] = leaf_hash(b"rewritten");
            let proof = prove_consistency(&other, first as u64).expect("a prefix of the tree");
            let (older, newer) = ((first as u64, root_of(&all[..first])), (size as u64, root_of(&other)));
            prop_assert!(verify_consistency(older, newer, &proof).is_err());
        }
    }
}
