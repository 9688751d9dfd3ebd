//! How a connection ends: the closed list of application codes, and what an error of the transport means to Core.
//!
//! One connection carries one crossing, so that cutting the connection cuts the crossing, buffered bytes included.

use alliance_protocol::{core::BulkFailure, crossing::RefusalCode};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};

/// Why one side closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All was said.
    Done,
    /// Something failed here that is no business of the other side.
    GaveUp,
    /// The crossing is cut, for a reason that the other side may know.
    Refused(RefusalCode),
}

impl Ending {
    /// The code on the wire.
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Done => 0,
            Self::GaveUp => 1,
            Self::Refused(RefusalCode::BadRequest) => 16,
            Self::Refused(RefusalCode::NotAccredited) => 17,
            Self::Refused(RefusalCode::Stale) => 18,
            Self::Refused(RefusalCode::NoOffer) => 19,
            Self::Refused(RefusalCode::DeniedByLaw) => 20,
            Self::Refused(RefusalCode::DeniedByTerms) => 21,
            Self::Refused(RefusalCode::Damaged) => 22,
            Self::Refused(RefusalCode::Busy) => 23,
            Self::Refused(RefusalCode::CannotRecord) => 24,
            Self::Refused(RefusalCode::Ended) => 25,
            Self::Refused(RefusalCode::ObligationUnmet) => 26,
            Self::Refused(RefusalCode::Unproven) => 27,
        }
    }

    /// What a code of the other side means; none for a code that is not in the list.
    pub(super) const fn from_code(code: u64) -> Option<Self> {
        match code {
            0 => Some(Self::Done),
            1 => Some(Self::GaveUp),
            16 => Some(Self::Refused(RefusalCode::BadRequest)),
            17 => Some(Self::Refused(RefusalCode::NotAccredited)),
            18 => Some(Self::Refused(RefusalCode::Stale)),
            19 => Some(Self::Refused(RefusalCode::NoOffer)),
            20 => Some(Self::Refused(RefusalCode::DeniedByLaw)),
            21 => Some(Self::Refused(RefusalCode::DeniedByTerms)),
            22 => Some(Self::Refused(RefusalCode::Damaged)),
            23 => Some(Self::Refused(RefusalCode::Busy)),
            24 => Some(Self::Refused(RefusalCode::CannotRecord)),
            25 => Some(Self::Refused(RefusalCode::Ended)),
            26 => Some(Self::Refused(RefusalCode::ObligationUnmet)),
            27 => Some(Self::Refused(RefusalCode::Unproven)),
            _ => None,
        }
    }

    /// What the other side is told when this side fails with `failure`.
    pub(super) const fn after(failure: &BulkFailure) -> Self {
        match failure {
            BulkFailure::EndedHere(code) => Self::Refused(*code),
            BulkFailure::Protocol(_) => Self::Refused(RefusalCode::BadRequest),
            BulkFailure::Tampered(_) => Self::Refused(RefusalCode::Damaged),
            BulkFailure::Unreachable(_)
            | BulkFailure::Lost(_)
            | BulkFailure::Unwanted(_)
            | BulkFailure::Barred(_)
            | BulkFailure::Disk(_)
            | BulkFailure::EndedByPeer(_) => Self::GaveUp,
        }
    }
}

impl From<Ending> for VarInt {
    fn from(ending: Ending) -> Self {
        Self::from_u32(ending.code())
    }
}

/// The other side closed or reset with `code` before all was said.
pub(super) fn ended_by_peer(code: VarInt) -> BulkFailure {
    match Ending::from_code(code.into_inner()) {
        Some(Ending::Refused(code)) => BulkFailure::EndedByPeer(code),
        Some(Ending::Done) => BulkFailure::Lost("the peer closed before all was said".to_owned()),
        Some(Ending::GaveUp) => BulkFailure::Lost("the peer gave up".to_owned()),
        None => BulkFailure::Lost(format!("the peer closed with the unknown code {code}")),
    }
}

/// What the end of a connection means.
pub(super) fn connection_ended(error: &ConnectionError) -> BulkFailure {
    match error {
        ConnectionError::ApplicationClosed(close) => ended_by_peer(close.error_code),
        ConnectionError::VersionMismatch
        | ConnectionError::TransportError(_)
        | ConnectionError::ConnectionClosed(_)
        | ConnectionError::Reset
        | ConnectionError::TimedOut
        | ConnectionError::LocallyClosed
        | ConnectionError::CidsExhausted => BulkFailure::Lost(error.to_string()),
    }
}

pub(super) fn read_failed(error: &ReadError) -> BulkFailure {
    match error {
        ReadError::Reset(code) => ended_by_peer(*code),
        ReadError::ConnectionLost(error) => connection_ended(error),
        ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected => {
            BulkFailure::Lost(error.to_string())
        }
    }
}

pub(super) fn write_failed(error: &WriteError) -> BulkFailure {
    match error {
        WriteError::Stopped(code) => ended_by_peer(*code),
        WriteError::ConnectionLost(error) => connection_ended(error),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => BulkFailure::Lost(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODES: [RefusalCode; 12] = [
        RefusalCode::BadRequest,
        RefusalCode::NotAccredited,
        RefusalCode::Stale,
        RefusalCode::NoOffer,
        RefusalCode::DeniedByLaw,
        RefusalCode::DeniedByTerms,
        RefusalCode::Damaged,
        RefusalCode::Busy,
        RefusalCode::CannotRecord,
        RefusalCode::Ended,
        RefusalCode::ObligationUnmet,
        RefusalCode::Unproven,
    ];

    #[test]
    fn codes_map_both_ways_and_no_others() {
        let mut known: Vec<u64> = Vec::new();
        for ending in CODES.into_iter().map(Ending::Refused).chain([Ending::Done, Ending::GaveUp]) {
            let code = u64::from(ending.code());
            assert_eq!(Ending::from_code(code), Some(ending));
            assert!(!known.contains(&code), "{code} twice");
            known.push(code);
        }
        for code in (0..1000).chain([u64::MAX]).filter(|code| !known.contains(code)) {
            assert_eq!(Ending::from_code(code), None, "{code}");
        }
    }

    #[test]
    fn what_the_peer_says_is_kept_apart_from_what_happened_here() {
        let busy = VarInt::from(Ending::Refused(RefusalCode::Busy));
        assert_eq!(ended_by_peer(busy), BulkFailure::EndedByPeer(RefusalCode::Busy));
        assert!(matches!(ended_by_peer(VarInt::from_u32(999)), BulkFailure::Lost(text) if text.contains("999")));
        let here = BulkFailure::EndedHere(RefusalCode::Ended);
        assert_eq!(Ending::after(&here), Ending::Refused(RefusalCode::Ended));
        assert_eq!(Ending::after(&BulkFailure::Disk("full".to_owned())), Ending::GaveUp);
    }
}
