//! What the operator can see of transfers that run, and how they can be limited. None of it bears on what may cross.

use serde::{Deserialize, Serialize};

use super::admin::Side;
use crate::{id::CrossingId, key::PublicKey, vocabulary::Country};

/// A question or an order about transfers. The shell answers it: nothing of it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum TransferCall {
    List,
    Limits,
    /// Sets a limit in the place of an earlier one; an empty one removes it.
    Limit(ScopedLimit),
}

/// A transfer that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferView {
    pub crossing: CrossingId,
    pub side: Side,
    pub peer: PublicKey,
    /// The peer's member, where it is known.
    pub member: Option<Country>,
    /// Bytes of the artefact that were moved, and that there are to move in this crossing.
    pub bytes: u64,
    pub total: u64,
    /// Over the last seconds.
    pub bytes_per_second: u64,
    /// Milliseconds since the first byte could move.
    pub running_ms: u64,
}

impl TransferView {
    /// Seconds until it is done, at the present rate; none while nothing moves.
    #[must_use]
    pub fn seconds_left(&self) -> Option<u64> {
        let left = self.total.saturating_sub(self.bytes);
        if self.bytes_per_second == 0 { None } else { Some(left.div_ceil(self.bytes_per_second)) }
    }
}

/// What a limit is for. A transfer keeps every limit that it falls under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// All transfers of the node together.
    All,
    /// Those with the nodes of a member, together.
    Member(Country),
    /// Those with one node.
    Peer(PublicKey),
}

/// How much transfers may take. What is not set is not limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferLimit {
    /// Bits per second that leave this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out: Option<u64>,
    /// Bits per second that come to this node.
    #[serde(default, rename = "in", skip_serializing_if = "Option::is_none")]
    pub in_: Option<u64>,
    /// Transfers that run at a time, both ways together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_a_time: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
}

/// Who gets more of a limited rate: each step four times as much as the one below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
}

/// A limit and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScopedLimit {
    pub scope: LimitScope,
    pub limit: TransferLimit,
}

/// The slowest rate that can be set, in bits per second: slower, and a transfer looks like one that has stalled.
pub const RATE_BITS_MIN: u64 = 1_000_000;

/// Limits that a node keeps.
pub const LIMITS_MAX: usize = 1024;

impl TransferLimit {
    /// Whether it limits nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it, if anything.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let slow = [self.out, self.in_].into_iter().flatten().find(|rate| *rate < RATE_BITS_MIN);
        if let Some(rate) = slow {
            return Some(format!("{rate} bit/s is too slow for a transfer to stay alive; the least is {RATE_BITS_MIN}"));
        }
        (self.at_a_time == Some(0)).then(|| "at least one transfer at a time; to stop all, stop the daemon".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_follows_from_the_rate() {
        let view = |bytes, total, bytes_per_second| TransferView {
            crossing: CrossingId([1; 32]),
            side: Side::Importer,
            peer: PublicKey([2; 32]),
            member: None,
            bytes,
            total,
            bytes_per_second,
            running_ms: 0,
        };
        assert_eq!(view(0, 1000, 100).seconds_left(), Some(10));
        assert_eq!(view(1, 1000, 100).seconds_left(), Some(10), "rounded up");
        assert_eq!(view(1000, 1000, 100).seconds_left(), Some(0));
        assert_eq!(view(0, 1000, 0).seconds_left(), None);
    }

    #[test]
    fn limits_that_stop_everything_are_refused() {
        let limit = TransferLimit::default();
        assert!(limit.is_empty() && limit.problem().is_none());
        assert!(TransferLimit { out: Some(RATE_BITS_MIN), ..limit }.problem().is_none());
        assert!(TransferLimit { out: Some(RATE_BITS_MIN - 1), ..limit }.problem().is_some());
        assert!(TransferLimit { in_: Some(0), ..limit }.problem().is_some());
        assert!(TransferLimit { at_a_time: Some(0), ..limit }.problem().is_some());
    }
}
