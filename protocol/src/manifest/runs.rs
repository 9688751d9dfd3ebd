//! Runs of groups, `[first, end)`: how a resumed pull says what it holds.

use crate::limits;

/// Whether the runs are what the protocol allows: not empty, ascending, apart from each other, within the manifest's groups,
/// and not more than a request may list.
#[must_use]
pub fn runs_valid(runs: &[(u64, u64)], group_count: u64) -> bool {
    let mut least = 0;
    runs.len() <= limits::HELD_RUNS_MAX
        && runs.iter().all(|(first, end)| {
            let valid = *first >= least && first < end && *end <= group_count;
            least = *end;
            valid
        })
}

/// The groups, of `group_count`, that lie in none of the runs; right for any runs, valid or not.
#[must_use]
pub fn runs_missing(held: &[(u64, u64)], group_count: u64) -> Vec<(u64, u64)> {
    let mut held: Vec<(u64, u64)> = held.iter().copied().filter(|(first, end)| first < end).collect();
    held.sort_unstable();
    let mut missing = Vec::new();
    let mut next = 0;
    for (first, end) in held {
        if first.min(group_count) > next {
            missing.push((next, first.min(group_count)));
        }
        next = next.max(end.min(group_count));
    }
    if next < group_count {
        missing.push((next, group_count));
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    type Runs = [(u64, u64)];

    #[test]
    fn only_ordered_runs_are_valid() {
        let table: &[(&Runs, u64, bool)] = &[
            (&[], 0, true),
            (&[], 9, true),
            (&[(0, 9)], 9, true),
            (&[(0, 3), (3, 4), (8, 9)], 9, true),
            (&[(0, 0)], 9, false),
            (&[(2, 1)], 9, false),
            (&[(0, 10)], 9, false),
            (&[(0, 4), (3, 5)], 9, false),
            (&[(5, 6), (0, 1)], 9, false),
            (&[(0, u64::MAX)], 9, false),
        ];
        for (runs, count, valid) in table {
            assert_eq!(runs_valid(runs, *count), *valid, "{runs:?}");
        }
        let many: Vec<(u64, u64)> = (0..=limits::HELD_RUNS_MAX as u64).map(|at| (2 * at, 2 * at + 1)).collect();
        assert!(!runs_valid(&many, u64::MAX));
    }

    #[test]
    fn missing_is_the_complement() {
        let table: &[(&Runs, u64, &Runs)] = &[
            (&[], 0, &[]),
            (&[], 5, &[(0, 5)]),
            (&[(0, 5)], 5, &[]),
            (&[(1, 2), (4, 5)], 6, &[(0, 1), (2, 4), (5, 6)]),
            (&[(4, 9), (1, 2)], 6, &[(0, 1), (2, 4)]),
            (&[(0, 3), (1, 2)], 5, &[(3, 5)]),
            (&[(9, 12)], 5, &[(0, 5)]),
            (&[(3, 1)], 5, &[(0, 5)]),
        ];
        for (held, count, missing) in table {
            assert_eq!(runs_missing(held, *count), *missing, "{held:?}");
        }
    }
}
