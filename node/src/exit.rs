//! The exit codes of `alliance` and `allianced`: what a script may rely on. It never decides anything.

use std::process::{ExitCode, Termination};

use alliance_protocol::{core::admin::FailureKind, crossing::RefusalCode};

/// How a command ended. The numbers are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; of a check: allowed.
    Done,
    /// Failed for a reason that has no code of its own.
    Failed,
    /// The command line or a configuration file makes no sense.
    Usage,
    /// A law, the terms of an offer or a rule of the house denies.
    Denied,
    /// What was named does not exist.
    NotFound,
    /// It exists already, or its state does not allow this now.
    Conflict,
    /// A signature, an accreditation or a permission is not good enough to be believed.
    Untrusted,
    /// The daemon does not answer.
    NoDaemon,
    /// Data was changed: it is not what its hashes say.
    Damaged,
    /// The disk failed, is full, or does not permit it.
    Disk,
    /// Not now: busy, or the other side cannot be reached. Try again.
    TryAgain,
    /// Interrupted from the keyboard.
    Interrupted,
}

impl Exit {
    /// Every code, in the order of the numbers.
    pub const ALL: &'static [Self] = &[
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::Untrusted,
        Self::NoDaemon,
        Self::Damaged,
        Self::Disk,
        Self::TryAgain,
        Self::Interrupted,
    ];

    /// The number that the shell sees.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Untrusted => 6,
            Self::NoDaemon => 7,
            Self::Damaged => 8,
            Self::Disk => 9,
            Self::TryAgain => 10,
            Self::Interrupted => 130,
        }
    }

    /// The word in the JSON form of an error.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Untrusted => "untrusted",
            Self::NoDaemon => "no_daemon",
            Self::Damaged => "damaged",
            Self::Disk => "disk",
            Self::TryAgain => "try_again",
            Self::Interrupted => "interrupted",
        }
    }

    /// One line for `--help` and the manual.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done; of a check: allowed",
            Self::Failed => "failed for a reason that has no code of its own",
            Self::Usage => "the command line or a configuration file makes no sense",
            Self::Denied => "a law, the terms of an offer or a rule of the house denies",
            Self::NotFound => "what was named does not exist",
            Self::Conflict => "it exists already, or its state does not allow this now",
            Self::Untrusted => "a signature, an accreditation or a file's permissions are not good enough",
            Self::NoDaemon => "the daemon does not answer",
            Self::Damaged => "data was changed: it is not what its hashes say",
            Self::Disk => "the disk failed, is full, or does not permit it",
            Self::TryAgain => "not now: busy, or the other side cannot be reached",
            Self::Interrupted => "interrupted from the keyboard",
        }
    }

    /// The table for `--help`.
    #[must_use]
    pub fn table() -> String {
        let mut out = String::from("Exit codes:\n");
        for exit in Self::ALL {
            out.push_str(&format!("  {:>3}  {}\n", exit.number(), exit.meaning()));
        }
        out
    }
}

impl From<FailureKind> for Exit {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Usage => Self::Usage,
            FailureKind::NotFound => Self::NotFound,
            FailureKind::Conflict => Self::Conflict,
            FailureKind::Untrusted => Self::Untrusted,
            FailureKind::Busy => Self::TryAgain,
            FailureKind::Internal => Self::Failed,
        }
    }
}

impl From<RefusalCode> for Exit {
    fn from(code: RefusalCode) -> Self {
        match code {
            RefusalCode::DeniedByLaw | RefusalCode::DeniedByTerms | RefusalCode::ObligationUnmet | RefusalCode::Ended => {
                Self::Denied
            }
            RefusalCode::NotAccredited | RefusalCode::Stale | RefusalCode::Unproven => Self::Untrusted,
            RefusalCode::NoOffer => Self::NotFound,
            RefusalCode::Damaged => Self::Damaged,
            RefusalCode::Busy | RefusalCode::CannotRecord => Self::TryAgain,
            RefusalCode::BadRequest => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words_are_distinct_and_documented() {
        let table = Exit::table();
        for (at, exit) in Exit::ALL.iter().enumerate() {
            assert!(table.contains(&format!("{:>3}  {}", exit.number(), exit.meaning())), "{exit:?}");
            for earlier in &Exit::ALL[..at] {
                assert!(earlier.number() < exit.number() && earlier.word() != exit.word(), "{exit:?}");
            }
        }
    }
}
