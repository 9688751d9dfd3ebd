//! Runs of groups, `[first, end)`: how one end says which it wants, and the other which it has.

use crate::limits;

/// Bytes of a run on the wire: its first group and the one after its last, 8 bytes each, big endian.
pub const RUN_BYTES: usize = 16;

/// Writes runs as they stand in a frame.
#[must_use]
pub fn encode_runs(runs: &[(u64, u64)]) -> Vec<u8> {
    runs.iter().flat_map(|(first, end)| first.to_be_bytes().into_iter().chain(end.to_be_bytes())).collect()
}

/// Reads runs of the `group_count` groups of a manifest. An end beyond the last group stands for the last, so that all can be
/// meant before their number is known. None where they are not what the protocol allows: each not empty and with a first
/// group that exists, ascending, apart from each other, and not more than [`limits::RUNS_PER_FRAME_MAX`].
#[must_use]
pub fn decode_runs(bytes: &[u8], group_count: u64) -> Option<Vec<(u64, u64)>> {
    let (numbers, rest) = bytes.as_chunks::<8>();
    let (pairs, half) = numbers.as_chunks::<2>();
    if !rest.is_empty() || !half.is_empty() || pairs.len() > limits::RUNS_PER_FRAME_MAX {
        return None;
    }
    let mut least = 0;
    let mut runs = Vec::with_capacity(pairs.len());
    for [first, end] in pairs {
        let (first, end) = (u64::from_be_bytes(*first), u64::from_be_bytes(*end));
        if (group_count, first) == (0, 0) && end > 0 {
            // All of nothing.
            continue;
        }
        let end = end.min(group_count);
        if first < least || first >= end {
            return None;
        }
        least = end;
        runs.push((first, end));
    }
    Some(runs)
}

/// The groups, counted from the first, for which there is a `true`.
#[must_use]
pub fn runs_of(flags: impl IntoIterator<Item = bool>) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (index, set) in (0_u64..).zip(flags) {
        match runs.last_mut() {
            _ if !set => {}
            Some((_, end)) if *end == index => *end = index.saturating_add(1),
            _ => runs.push((index, index.saturating_add(1))),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    type Runs = [(u64, u64)];

    #[test]
    fn only_ordered_runs_are_read() {
        let table: &[(&Runs, u64, Option<&Runs>)] = &[
            (&[], 0, Some(&[])),
            (&[], 9, Some(&[])),
            (&[(0, 9)], 9, Some(&[(0, 9)])),
            (&[(0, 3), (3, 4), (8, 9)], 9, Some(&[(0, 3), (3, 4), (8, 9)])),
            (&[(2, u64::MAX)], 9, Some(&[(2, 9)])),
            (&[(0, 0)], 9, None),
            (&[(2, 1)], 9, None),
            (&[(9, 10)], 9, None),
            (&[(0, u64::MAX)], 0, Some(&[])),
            (&[(1, u64::MAX)], 0, None),
            (&[(0, 4), (3, 5)], 9, None),
            (&[(0, 12), (9, 12)], 9, None),
            (&[(5, 6), (0, 1)], 9, None),
        ];
        for (runs, count, read) in table {
            assert_eq!(decode_runs(&encode_runs(runs), *count).as_deref(), *read, "{runs:?}");
        }
        let many = |count: u64| (0..count).map(|at| (2 * at, 2 * at + 1)).collect::<Vec<(u64, u64)>>();
        let most = limits::RUNS_PER_FRAME_MAX as u64;
        assert!(decode_runs(&encode_runs(&many(most)), u64::MAX).is_some());
        assert!(decode_runs(&encode_runs(&many(most + 1)), u64::MAX).is_none());
        let bytes = encode_runs(&[(1, 2)]);
        assert_eq!(bytes, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        for cut in 1..RUN_BYTES {
            assert_eq!(decode_runs(&bytes[..cut], 9), None, "{cut}");
        }
    }

    #[test]
    fn flags_that_stand_together_are_a_run() {
        let table: &[(&[bool], &Runs)] = &[
            (&[], &[]),
            (&[false], &[]),
            (&[true, true], &[(0, 2)]),
            (&[false, true, true, false, true], &[(1, 3), (4, 5)]),
        ];
        for (flags, runs) in table {
            assert_eq!(runs_of(flags.iter().copied()), *runs, "{flags:?}");
        }
    }
}
