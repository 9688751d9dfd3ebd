//! Two authorities of one alliance, in temporary directories, and what they may and may not sign.

use std::fs;

use alliance_protocol::{
    charter::{Charter, WitnessRule},
    gate::{Action, Facts, Gate, PackSummary, Verdict},
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// Takes every text but "bad".
#[derive(Debug)]
struct FakeGate;

impl Gate for FakeGate {
    fn judge(&self, pack: &Pack, action: Action, _facts: &Facts, _at: Timestamp) -> std::sync::Arc<Verdict> {
        Verdict::failed(pack.owner, pack.epoch, action, "not asked here".into()).into()
    }

    fn heeds_volume(&self, _: &Pack, _: Action, _: &Facts, _: Timestamp) -> bool {
        false
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        if &*pack.law == "bad" || &*pack.directives == "bad" {
            return Err(PackError { owner: pack.owner, reason: "bad".into() });
        }
        Ok(PackSummary { owner: pack.owner, rules: Vec::new() })
    }

    fn next_turn(&self, _: &Pack, _: Timestamp) -> Option<Timestamp> {
        None
    }
}

fn country(code: &str) -> Country {
    code.parse().expect("a country")
}

/// Two authorities of one alliance; the first has three officers of whom two must sign.
fn alliance() -> (tempfile::TempDir, AuthorityDir, AuthorityDir, Chartered) {
    let dir = tempfile::tempdir().expect("a directory");
    let br = AuthorityDir::create(&dir.path().join("br"), country("BR"), "ANPD", 3, 2).expect("created");
    let india = AuthorityDir::create(&dir.path().join("in"), country("IN"), "DPB", 1, 1).expect("created");
    let members = [&br, &india].map(|authority| (authority.member(), authority.public().into())).into();
    let body = Charter {
        name: "Test".into(),
        version: 1,
        issued: NOW,
        threshold: 2,
        previous: None,
        witnesses: WitnessRule::NONE,
        members,
    };
    let draft = Chartered::draft(&body).expect("well formed").to_bytes();
    let once = br.sign_charter(&draft, None).expect("signs");
    assert!(Chartered::found(once.bytes()).is_err(), "one member is not enough");
    let twice = india.sign_charter(once.bytes(), None).expect("signs");
    let charter = Chartered::found(twice.bytes()).expect("founded");
    (dir, br, india, charter)
}

fn accredit_request(node: PublicKey) -> AccreditRequest {
    let organisation = Organisation { name: "usp".into(), roles: [].into(), controlled_by: None, state_controlled: false };
    AccreditRequest {
        node,
        organisation,
        zone: None,
        roles: [NodeRole::Importer].into(),
        tier: Tier::default(),
        place: None,
        from: None,
        valid_ms: DAY_MS,
    }
}

fn text(law: &str) -> PublishRequest {
    PublishRequest { law: Some(law.into()), status_ms: 3_600_000, ..PublishRequest::default() }
}

#[test]
fn an_accreditation_verifies_against_the_charter() {
    let (_dir, br, _, charter) = alliance();
    let node = SecretKey::from_seed(&[9; 32]).public();
    let signed = br.accredit(&charter, &accredit_request(node), NOW).expect("accredited");
    assert_eq!(signed.signers().len(), 2);
    let trust = Trust::new(charter);
    let read = trust.accreditation(signed.bytes()).expect("believed");
    trust.admission(&read, &node, NOW).expect("admitted");
    assert!(trust.admission(&read, &node, NOW.plus_ms(DAY_MS)).is_err(), "it ends");
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (_dir, br, _, charter) = alliance();
    let node = SecretKey::from_seed(&[9; 32]).public();
    let mut request = accredit_request(node);
    request.organisation.name = "two words".into();
    assert!(matches!(br.accredit(&charter, &request, NOW), Err(AuthorityError::NotBelieved(_))));
    for valid_ms in [0, PAPER_MS_MAX + 1] {
        let request = AccreditRequest { valid_ms, ..accredit_request(node) };
        assert!(matches!(br.accredit(&charter, &request, NOW), Err(AuthorityError::TooLong { .. })), "{valid_ms}");
    }
    let high = AccreditRequest { tier: Tier::Corroborated, ..accredit_request(node) };
    assert!(matches!(br.accredit(&charter, &high, NOW), Err(AuthorityError::NoPlace)));
    let over = AccreditRequest { from: Some(NOW.minus_ms(DAY_MS)), ..accredit_request(node) };
    assert!(matches!(br.accredit(&charter, &over, NOW), Err(AuthorityError::Past(_))));
    let early = AccreditRequest { from: Some(NOW.minus_ms(DAY_MS)), valid_ms: 2 * DAY_MS, ..accredit_request(node) };
    let signed = br.accredit(&charter, &early, NOW).expect("dated back");
    let validity = signed.body().validity;
    assert_eq!((validity.from, validity.until), (NOW.minus_ms(DAY_MS), NOW.plus_ms(DAY_MS)));
    let dir = tempfile::tempdir().expect("a directory");
    for (officers, threshold) in [(0, 0), (1, 0), (1, 2), (17, 1)] {
        let made = AuthorityDir::create(&dir.path().join("x"), country("ZA"), "IR", officers, threshold);
        assert!(matches!(made, Err(AuthorityError::Numbers)), "{officers} {threshold}");
    }
}

#[test]
fn an_authority_outside_the_charter_signs_nothing() {
    let (dir, _, _, charter) = alliance();
    for code in ["ZA", "BR"] {
        let other = AuthorityDir::create(&dir.path().join(format!("other-{code}")), country(code), "?", 1, 1);
        let other = other.expect("created");
        let request = accredit_request(SecretKey::from_seed(&[9; 32]).public());
        assert!(matches!(other.accredit(&charter, &request, NOW), Err(AuthorityError::NotInCharter(_))), "{code}");
        assert!(matches!(other.sign_charter(&charter.to_log(), None), Err(AuthorityError::NotInCharter(_))), "{code}");
    }
}

#[test]
fn numbers_rise_across_restarts_and_unchanged_law_keeps_its_epoch() {
    let (dir, mut br, _, charter) = alliance();
    let first = br.publish(&charter, &text("one"), NOW, &FakeGate).expect("published");
    assert!(first.new_law);
    let refresh = PublishRequest { law: None, ..text("") };
    let second = br.publish(&charter, &refresh, NOW, &FakeGate).expect("published");
    assert!(!second.new_law && second.law_pack.id() == first.law_pack.id());
    drop(br);

    let mut br = AuthorityDir::open(&dir.path().join("br")).expect("opens");
    let third = br.publish(&charter, &text("two"), NOW, &FakeGate).expect("published");
    let numbers = [&first, &second, &third].map(|made| (made.status.body().epoch, made.status.body().serial));
    assert_eq!(numbers, [(1, 1), (1, 2), (2, 3)]);

    let mut trust = Trust::new(charter);
    for made in [&first, &second, &third] {
        trust.accept_pack(made.law_pack.bytes(), &FakeGate).expect("believed");
        trust.accept_status(made.status.bytes()).expect("believed");
    }
    assert_eq!(&*trust.law(country("BR"), NOW).expect("in force").law, "two");
    assert_eq!(fs::read(br.status_path()).expect("there"), third.status.bytes());
    assert_eq!(fs::read(br.law_pack_path()).expect("there"), third.law_pack.bytes());
}

#[test]
fn a_grace_is_stated_until_another_one_is() {
    let (dir, mut br, _, charter) = alliance();
    let stating = |grace_ms| PublishRequest { grace_ms, ..text("one") };
    let states = |br: &mut AuthorityDir, grace_ms| {
        br.publish(&charter, &stating(grace_ms), NOW, &FakeGate).map(|made| made.status.body().grace_ms)
    };
    assert_eq!(states(&mut br, None).expect("published"), 0);
    assert_eq!(states(&mut br, Some(300_000)).expect("published"), 300_000);
    drop(br);
    let mut br = AuthorityDir::open(&dir.path().join("br")).expect("opens");
    assert_eq!(states(&mut br, None).expect("published"), 300_000, "whoever only renews the status keeps it");
    let max = limits::STATUS_GRACE_MS_MAX;
    assert!(matches!(states(&mut br, Some(max + 1)), Err(AuthorityError::Grace)));
    assert_eq!(states(&mut br, Some(max)).expect("published"), max);
    assert_eq!(states(&mut br, Some(0)).expect("published"), 0);
}

#[test]
fn directives_and_law_change_independently() {
    let (_dir, mut br, _, charter) = alliance();
    br.publish(&charter, &text("one"), NOW, &FakeGate).expect("published");
    let directives = PublishRequest { law: None, directives: Some("more".into()), ..text("") };
    let made = br.publish(&charter, &directives, NOW, &FakeGate).expect("published");
    assert_eq!((made.law_pack.body().law.as_str(), made.law_pack.body().directives.as_str()), ("one", "more"));
    let made = br.publish(&charter, &text("two"), NOW, &FakeGate).expect("published");
    assert_eq!((made.law_pack.body().law.as_str(), made.law_pack.body().directives.as_str()), ("two", "more"));
}

#[test]
fn a_bad_pack_is_never_signed() {
    let (_dir, mut br, _, charter) = alliance();
    br.publish(&charter, &text("one"), NOW, &FakeGate).expect("published");
    assert!(matches!(br.publish(&charter, &text("bad"), NOW, &FakeGate), Err(AuthorityError::Pack(_))));
    let next = br.publish(&charter, &text("two"), NOW, &FakeGate).expect("published");
    assert_eq!((next.status.body().epoch, next.status.body().serial), (2, 2));
}

#[test]
fn a_revoked_node_is_in_every_later_status_and_not_accredited_again() {
    let (dir, mut br, _, charter) = alliance();
    let node = SecretKey::from_seed(&[9; 32]).public();
    assert!(br.revoke(node).expect("revoked"));
    assert!(!br.revoke(node).expect("known"));
    drop(br);
    let mut br = AuthorityDir::open(&dir.path().join("br")).expect("opens");
    let made = br.publish(&charter, &text("one"), NOW, &FakeGate).expect("published");
    assert!(made.status.body().revoked.contains(&node));
    assert!(matches!(br.accredit(&charter, &accredit_request(node), NOW), Err(AuthorityError::Revoked(_))));
}

#[test]
fn too_few_keys_sign_nothing() {
    let (dir, br, _, charter) = alliance();
    drop(br);
    for number in [1, 2] {
        fs::remove_file(dir.path().join(format!("br/officer-{number}.key"))).expect("removed");
    }
    let br = AuthorityDir::open(&dir.path().join("br")).expect("opens");
    let request = accredit_request(SecretKey::from_seed(&[9; 32]).public());
    let error = br.accredit(&charter, &request, NOW).expect_err("too few");
    assert!(matches!(error, AuthorityError::TooFewKeys { have: 1, need: 2 }), "{error}");
}

#[test]
fn one_command_at_a_time_and_no_directory_twice() {
    let (dir, br, ..) = alliance();
    let path = dir.path().join("br");
    assert!(matches!(AuthorityDir::open(&path), Err(AuthorityError::Locked(_))));
    drop(br);
    assert!(matches!(AuthorityDir::create(&path, country("BR"), "x", 1, 1), Err(AuthorityError::Exists(_))));
    assert!(matches!(AuthorityDir::open(dir.path()), Err(AuthorityError::Missing(_))));
}

#[test]
fn a_safeguard_counts_for_its_route() {
    let (_dir, br, _, charter) = alliance();
    let recipient = SecretKey::from_seed(&[9; 32]).public();
    let request = SafeguardRequest {
        kind: SafeguardKind::SccBr,
        from: country("BR"),
        to: country("IN"),
        labels: [Label::Personal].into(),
        recipient: Some(recipient),
        rules: BTreeSet::new(),
        filed: None,
        valid_ms: DAY_MS,
        reference: "ANPD 1/2026".into(),
    };
    let signed = br.issue_safeguard(&charter, &request, NOW).expect("issued");
    assert_eq!(signed.body().rules, ["BR-01", "BR-03", "BR-04"].map(str::to_owned).into());
    let one = SafeguardRequest { rules: ["BR-01".to_owned()].into(), ..request.clone() };
    assert_eq!(br.issue_safeguard(&charter, &one, NOW).expect("issued").body().rules, one.rules);
    let refused = |change: fn(&mut SafeguardRequest)| {
        let mut request = request.clone();
        change(&mut request);
        br.issue_safeguard(&charter, &request, NOW).expect_err("refused")
    };
    assert!(matches!(refused(|r| r.rules = ["BR-06".to_owned()].into()), AuthorityError::OtherRule { .. }));
    assert!(matches!(refused(|r| r.kind = SafeguardKind::ElrProgramme), AuthorityError::NoRule { .. }));
    assert!(matches!(refused(|r| r.kind = SafeguardKind::WaitingPeriodElapsed), AuthorityError::WorkedOut));
    assert!(matches!(refused(|r| r.kind = SafeguardKind::RegulatorNotification), AuthorityError::NotFiled));
    let labels = [Label::Personal].into();
    let scope = alliance_protocol::trust::Scope { from: country("BR"), to: country("IN"), recipient, labels: &labels };
    Trust::new(charter).safeguard(signed.bytes(), &scope, NOW).expect("counts");
}

#[test]
fn the_public_file_reads_back() {
    let (_dir, br, ..) = alliance();
    assert_eq!(PublicAuthority::read(&br.public_path()).expect("reads"), br.public());
}

#[test]
fn a_ban_lasts_until_it_is_lifted_and_stands_in_the_status() {
    let (_dir, mut br, _, charter) = alliance();
    let ban = Ban::Destination(country("IN"));
    assert!(br.set_ban(ban, true).expect("kept") && !br.set_ban(ban, true).expect("known"));
    let published = br.publish(&charter, &text("law"), NOW, &FakeGate).expect("published");
    assert_eq!(published.status.body().bans, [ban].into());
    let path = br.public_path().parent().expect("a directory").to_owned();
    drop(br);
    let mut br = AuthorityDir::open(&path).expect("opens");
    assert!(br.set_ban(ban, false).expect("lifted"));
    let published = br.publish(&charter, &text("law"), NOW, &FakeGate).expect("published");
    assert!(published.status.body().bans.is_empty());
}

/// The version after this one, in which the authority has its next officers, signed by both authorities.
fn rotated(br: &AuthorityDir, india: &AuthorityDir, charter: &Chartered) -> Chartered {
    let mut next = charter.charter().clone();
    (next.version, next.previous) = (2, Some(charter.latest().id()));
    let public = PublicAuthority::read(&br.next_public_path()).expect("written");
    next.members.insert(br.member(), public.into());
    let draft = charter.draft_next(&next).expect("follows").to_bytes();
    let once = br.sign_charter(&draft, Some(charter)).expect("signs");
    let twice = india.sign_charter(once.bytes(), Some(charter)).expect("signs");
    let mut after = charter.clone();
    after.succeed(twice.bytes()).expect("holds");
    after
}

#[test]
fn next_officers_speak_from_the_version_that_names_them_and_the_former_ones_until_then() {
    let (dir, mut br, india, charter) = alliance();
    let node = SecretKey::from_seed(&[9; 32]).public();
    let before = br.publish(&charter, &text("law"), NOW, &FakeGate).expect("published");
    br.rotate(&charter, 2, 2, false, &Protection::Plain).expect("drawn");
    assert!(matches!(br.rotate(&charter, 2, 2, false, &Protection::Plain), Err(AuthorityError::RotationWaits(_))));
    assert!(br.accredit(&charter, &accredit_request(node), NOW).is_ok(), "those of now still speak");
    let unchanged = Charter { version: 2, previous: Some(charter.latest().id()), ..charter.charter().clone() };
    let draft = charter.draft_next(&unchanged).expect("follows").to_bytes();
    assert_eq!(
        br.sign_charter(&draft, Some(&charter)).expect("signs").signers().len(),
        2,
        "those who come next have no seat in this one"
    );

    let after = rotated(&br, &india, &charter);
    drop(br);
    let mut br = AuthorityDir::open(&dir.path().join("br")).expect("opened");
    let mut trust = Trust::new(after.clone());
    let accreditation = br.accredit(&after, &accredit_request(node), NOW).expect("accredited");
    trust.admission(&trust.accreditation(accreditation.bytes()).expect("believed"), &node, NOW).expect("admitted");
    let again = br.publish(&after, &text("law"), NOW, &FakeGate).expect("published");
    assert_eq!((again.law_pack.id(), again.new_law), (before.law_pack.id(), false));
    trust.accept_pack(again.law_pack.bytes(), &FakeGate).expect("signed by those of now");
    trust.accept_status(again.status.bytes()).expect("signed by those of now");

    br.rotate(&after, 1, 1, false, &Protection::Plain).expect("drawn");
    assert!(br.accredit(&after, &accredit_request(node), NOW).is_ok());
    assert!(matches!(br.accredit(&charter, &accredit_request(node), NOW), Err(AuthorityError::NotInCharter(_))));
    drop(br);
    AuthorityDir::open(&dir.path().join("br")).expect("the keys of former officers are in nobody's way");
}

#[test]
fn officers_who_keep_their_keys_apart_sign_one_after_the_other() {
    let (dir, br, india, charter) = alliance();
    let draft = Chartered::draft(charter.charter()).expect("well formed").to_bytes();
    drop(br);
    for (gone, signed) in [(["2", "3"], 1), (["1", "3"], 2)] {
        let alone = dir.path().join(format!("alone-{signed}"));
        fs::create_dir(&alone).expect("made");
        for entry in fs::read_dir(dir.path().join("br")).expect("there") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
            if !gone.iter().any(|number| name == format!("officer-{number}.key")) {
                fs::copy(&path, alone.join(name)).expect("copied");
            }
        }
    }
    let first = AuthorityDir::open(&dir.path().join("alone-1")).expect("opened").sign_charter(&draft, None).expect("signs");
    let second =
        AuthorityDir::open(&dir.path().join("alone-2")).expect("opened").sign_charter(first.bytes(), None).expect("signs");
    assert_eq!(second.signers().len(), 2);
    let all = india.sign_charter(second.bytes(), None).expect("signs");
    assert!(Chartered::found(all.bytes()).is_ok());
}

fn ahead(law: &str, from: Timestamp) -> PublishRequest {
    PublishRequest { from: Some(from), ..text(law) }
}

#[test]
fn a_text_that_is_published_ahead_comes_into_force_on_its_date_and_keeps_its_number() {
    let (dir, mut br, _, charter) = alliance();
    let at = |ms: u64| NOW.plus_ms(ms);
    assert!(matches!(br.publish(&charter, &ahead("two", at(9)), NOW, &FakeGate), Err(AuthorityError::NothingInForce)));
    br.publish(&charter, &text("one"), NOW, &FakeGate).expect("published");
    let published = br.publish(&charter, &ahead("two", at(100)), NOW, &FakeGate).expect("published");
    assert_eq!((published.law_pack.body().epoch, published.upcoming.len(), published.new_law), (1, 1, true));
    let named = &published.status.body().upcoming;
    assert_eq!((named[0].epoch, named[0].from, named[0].law_pack), (2, at(100), published.upcoming[0].id()));
    let refused = |br: &mut AuthorityDir, request: &PublishRequest, now| {
        let serial = br.book.serial;
        let error = br.publish(&charter, request, now, &FakeGate).expect_err("refused");
        assert_eq!(br.book.serial, serial, "no number is spent");
        error
    };
    assert!(matches!(refused(&mut br, &ahead("two", at(200)), NOW), AuthorityError::NothingNew));
    assert!(matches!(refused(&mut br, &ahead("three", at(100)), NOW), AuthorityError::FromTooEarly { .. }));
    assert!(matches!(refused(&mut br, &ahead("three", NOW), NOW), AuthorityError::FromTooEarly { .. }));
    assert!(matches!(refused(&mut br, &ahead("bad", at(200)), NOW), AuthorityError::Pack(_)));
    assert!(matches!(refused(&mut br, &text("three"), NOW), AuthorityError::UpcomingWaits { epoch: 2 }));
    br.publish(&charter, &ahead("three", at(200)), NOW, &FakeGate).expect("published");
    assert!(matches!(refused(&mut br, &ahead("four", at(300)), NOW), AuthorityError::TooManyUpcoming));

    // A status alone says the same again; another process reads the same.
    drop(br);
    let mut br = AuthorityDir::open(&dir.path().join("br")).expect("opened");
    let again = br.publish(&charter, &PublishRequest { law: None, ..text("") }, at(99), &FakeGate).expect("published");
    assert_eq!((again.status.body().epoch, again.status.body().upcoming.len(), again.new_law), (1, 2, false));
    let in_force =
        |br: &AuthorityDir, ms| br.in_force(&charter, at(ms)).expect("readable").map(|pack| (pack.epoch, pack.law));
    assert_eq!([99, 100, 200].map(|ms| in_force(&br, ms).expect("some").0), [1, 2, 3]);
    let after = br.publish(&charter, &PublishRequest { law: None, ..text("") }, at(150), &FakeGate).expect("published");
    assert_eq!((after.status.body().epoch, after.status.body().upcoming.len()), (2, 1));

    let dropped = PublishRequest { law: None, drop_upcoming: true, ..text("") };
    let back = br.publish(&charter, &dropped, at(151), &FakeGate).expect("published");
    assert_eq!((back.status.body().epoch, back.status.body().upcoming.len()), (2, 0));
    let next = br.publish(&charter, &text("other"), at(152), &FakeGate).expect("published");
    assert_eq!(next.status.body().epoch, 4, "the number of what was taken back is not given to another");
    let mut trust = Trust::new(charter.clone());
    for one in [&published, &again, &after, &back, &next] {
        trust.accept_pack(one.law_pack.bytes(), &FakeGate).expect("believed");
        trust.accept_status(one.status.bytes()).expect("each follows the one before");
    }
}

/// The version after this one, with another name.
fn renamed(charter: &Chartered) -> Vec<u8> {
    let mut next = charter.charter().clone();
    (next.version, next.previous) = (next.version + 1, Some(charter.latest().id()));
    next.name.push('!');
    charter.draft_next(&next).expect("follows").to_bytes()
}

#[test]
fn after_a_rotation_only_those_sign_who_have_a_seat() {
    let (_dir, mut br, india, charter) = alliance();
    br.rotate(&charter, 2, 2, false, &Protection::Plain).expect("drawn");
    let mut after = rotated(&br, &india, &charter);
    let draft = renamed(&after);
    assert!(matches!(br.sign_charter(&draft, None), Err(AuthorityError::VersionBefore)), "who speaks is not known");
    assert!(matches!(br.sign_charter(&draft, Some(&charter)), Err(AuthorityError::VersionBefore)), "not the one before");
    let once = br.sign_charter(&draft, Some(&after)).expect("signs");
    after.succeed(india.sign_charter(once.bytes(), None).expect("signs").bytes()).expect("no former officer signed");

    let mut leaves = after.charter().clone();
    (leaves.version, leaves.previous) = (leaves.version + 1, Some(after.latest().id()));
    let other = SecretKey::from_seed(&[8; 32]).public();
    leaves.members.insert(country("ZA"), Authority { name: String::new(), officers: vec![other], threshold: 1 }.into());
    leaves.members.remove(&country("BR"));
    let draft = after.draft_next(&leaves).expect("follows").to_bytes();
    let signed = br.sign_charter(&draft, Some(&after)).expect("signs that it leaves");
    let seated = after.authority(country("BR")).expect("a member");
    assert!(signed.signers().len() == 2 && signed.signers().iter().all(|key| seated.officers.contains(key)));
}

#[test]
fn a_rotation_that_was_cut_short_or_whose_keys_are_lost_is_begun_again() {
    let (dir, mut br, _, charter) = alliance();
    br.rotate(&charter, 2, 2, false, &Protection::Plain).expect("drawn");
    let path = dir.path().join("br");
    // As a crash leaves it between the book and the files.
    for number in [4, 5] {
        fs::remove_file(officer_path(&path, number)).expect("they count on from those before");
    }
    fs::remove_file(br.next_public_path()).expect("removed");
    drop(br);
    let mut br = AuthorityDir::open(&path).expect("opens");
    assert!(matches!(br.rotate(&charter, 2, 2, false, &Protection::Plain), Err(AuthorityError::RotationWaits(_))));
    assert!(br.next_public_path().exists(), "written anew");
    br.rotate(&charter, 1, 1, true, &Protection::Plain).expect("drawn again");
    br.publish(&charter, &text("law"), NOW, &FakeGate).expect("those of now speak");
    drop(br);
    let br = AuthorityDir::open(&path).expect("opens");
    assert_eq!(br.next.len(), 1);
}

#[test]
fn keys_that_are_kept_elsewhere_keep_their_numbers() {
    let (dir, mut br, _, charter) = alliance();
    let path = dir.path().join("br");
    for number in 1..=3 {
        fs::rename(officer_path(&path, number), dir.path().join(format!("kept-{number}"))).expect("moved");
    }
    br.rotate(&charter, 2, 2, false, &Protection::Plain).expect("drawn");
    assert_eq!([1, 3, 4, 5].map(|number| officer_path(&path, number).exists()), [false, false, true, true]);
}
