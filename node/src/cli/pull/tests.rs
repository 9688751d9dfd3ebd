//! The exit code of each way in which a pull can end.

use alliance_protocol::{core::admin::Side, crossing::RefusalCode, id::ManifestId, key::PublicKey, time::Timestamp};

use super::*;

fn view(state: CrossingState, refusal: Option<RefusalCode>, problem: &str) -> CrossingView {
    CrossingView {
        crossing: CrossingId([1; 32]),
        side: Side::Importer,
        state,
        peer: PublicKey([1; 32]),
        offer: StatementId([2; 32]),
        name: "usp/amazonia".into(),
        manifest: ManifestId([3; 32]),
        facts: None,
        verdicts: vec![],
        parts: vec![],
        partial: false,
        left_out: vec![],
        against: vec![],
        part: None,
        refusal,
        problem: Some(problem.into()),
        safeguards_ignored: vec![],
        began: Timestamp(0),
        ended: Some(Timestamp(1)),
        bytes: 0,
        total: 0,
        to: None,
        lead: None,
        delete_by: None,
        deleted: None,
    }
}

#[test]
fn each_end_has_its_exit_code() {
    let disk = BulkFailure::Disk("full".into()).to_string();
    let lost = BulkFailure::Lost("reset".into()).to_string();
    let nothing_fits = BulkFailure::Unwanted("`x` fits no tensor and no file of it".into()).to_string();
    let denied = alliance_protocol::manifest::SelectionError::Nothing { left_out: 3 };
    let all_denied = BulkFailure::Barred(denied.to_string()).to_string();
    let table = [
        (CrossingState::Done, None, "", None),
        (CrossingState::DoneUnsettled, None, "", None),
        (CrossingState::Denied, Some(RefusalCode::DeniedByLaw), "no", Some(Exit::Denied)),
        (CrossingState::Denied, Some(RefusalCode::DeniedByTerms), "no", Some(Exit::Denied)),
        (CrossingState::Denied, Some(RefusalCode::Stale), "no", Some(Exit::Untrusted)),
        (CrossingState::Denied, Some(RefusalCode::NoOffer), "no", Some(Exit::NotFound)),
        (CrossingState::Denied, Some(RefusalCode::Busy), "no", Some(Exit::TryAgain)),
        (CrossingState::Denied, None, "no", Some(Exit::Denied)),
        (CrossingState::Failed, Some(RefusalCode::Damaged), "bytes", Some(Exit::Damaged)),
        (CrossingState::Failed, Some(RefusalCode::Ended), "law changed", Some(Exit::Denied)),
        (CrossingState::Failed, None, &disk, Some(Exit::Disk)),
        (CrossingState::Failed, None, &lost, Some(Exit::TryAgain)),
        (CrossingState::Failed, None, &nothing_fits, Some(Exit::NotFound)),
        (CrossingState::Failed, None, &all_denied, Some(Exit::Denied)),
    ];
    for (state, refusal, problem, exit) in table {
        assert_eq!(ended(&view(state, refusal, problem)).map(|problem| problem.exit), exit, "{state:?} {refusal:?}");
    }
}

#[test]
fn only_names_and_ids_become_directories() {
    for good in ["usp/amazonia", &"0a".repeat(32)] {
        assert!(is_name_or_id(good), "{good}");
    }
    for bad in ["", "..", "/etc", "../x", "usp", "a/../b"] {
        assert!(!is_name_or_id(bad), "{bad}");
    }
}

#[test]
fn a_lost_connection_is_taken_up_again_and_nothing_else_is() {
    let lost = BulkFailure::Lost("reset".into()).to_string();
    let away = BulkFailure::Unreachable("no answer".into()).to_string();
    let failed = |problem: &str| view(CrossingState::Failed, None, problem);
    let waits = |attempts: &mut Attempts, problem: &str| attempts.wait_after(&failed(problem)).map(|wait| wait.as_secs());

    let mut attempts = Attempts::new(3);
    assert_eq!(waits(&mut attempts, &away), None, "it was never there");
    let said: Vec<_> = [&lost, &away, &lost, &lost].map(|problem| waits(&mut attempts, problem)).into();
    assert_eq!(said, [Some(1), Some(2), Some(4), None]);
    // Where more came, it counts from the beginning.
    let mut attempts = Attempts::new(1);
    for _ in 0..5 {
        assert_eq!(attempts.wait_after(&CrossingView { bytes: 1, ..failed(&lost) }), Some(Attempts::WAIT));
    }
    assert_eq!(attempts.wait_after(&failed(&lost)), None);
    let mut attempts = Attempts::new(100);
    let longest = (0..20).filter_map(|_| attempts.wait_after(&failed(&lost))).max();
    assert_eq!(longest, Some(Attempts::WAIT_MAX));

    let disk = BulkFailure::Disk("full".into()).to_string();
    for other in [
        failed(&disk),
        failed("cancelled by the operator"),
        view(CrossingState::Failed, Some(RefusalCode::Ended), &lost),
        view(CrossingState::Denied, None, &lost),
        view(CrossingState::Done, None, ""),
    ] {
        assert_eq!(Attempts::new(5).wait_after(&other), None, "{other:?}");
    }
    assert_eq!(Attempts::new(0).wait_after(&failed(&lost)), None);
}
