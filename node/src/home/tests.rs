//! A home that is good, and every way in which it can be bad.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use alliance_protocol::{
    authority::Organisation,
    charter::{Authority, Charter, WitnessRule},
    envelope::Draft,
    time::Validity,
    vocabulary::{Country, NodeRole, Tier},
};

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn officer(n: u8) -> SecretKey {
    SecretKey::from_seed(&[n; 32])
}

fn country(code: &str) -> Country {
    code.parse().expect("a country")
}

fn charter(name: &str) -> Chartered {
    let authority =
        |n| Authority { name: format!("Authority {n}"), officers: vec![officer(n).public()], threshold: 1 }.into();
    let members = BTreeMap::from([(country("BR"), authority(1)), (country("IN"), authority(2))]);
    let charter = Charter {
        name: name.into(),
        version: 1,
        issued: NOW,
        threshold: 2,
        previous: None,
        witnesses: WitnessRule::NONE,
        members,
    };
    let draft = Chartered::draft(&charter).expect("well formed").sign(&officer(1)).sign(&officer(2));
    Chartered::found(draft.finish().expect("signed").bytes()).expect("founded")
}

fn accredited(charter: &Chartered, node: PublicKey, signer: &SecretKey, days: u64) -> Vec<u8> {
    let organisation = Organisation { name: "usp".into(), roles: [].into(), controlled_by: None, state_controlled: false };
    let body = Accreditation {
        member: country("BR"),
        node,
        organisation,
        zone: None,
        roles: [NodeRole::Exporter].into(),
        tier: Tier::default(),
        place: None,
        validity: Validity::lasting_ms(NOW, days * DAY_MS),
    };
    Draft::new(&body, charter.alliance()).sign(signer).to_bytes()
}

/// A home that a daemon can open, in a temporary directory.
fn good_home() -> (tempfile::TempDir, Home) {
    let dir = tempfile::tempdir().expect("a directory");
    let home = Home::at(&dir.path().join("home")).expect("a path");
    let created = home.create(&Config::default(), false).expect("created");
    let charter = charter("Test");
    let accreditation = accredited(&charter, created.node, &officer(1), 1);
    home.install(Some(&charter.to_log()), Some(&accreditation), NOW).expect("installed");
    (dir, home)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

#[test]
fn a_good_home_opens_and_creating_it_again_changes_nothing() {
    let (_dir, home) = good_home();
    let open = home.open_in(false, NOW).expect("opens");
    assert_eq!(open.accreditation.body().organisation.name, "usp");
    assert_eq!(open.house, None);
    let again = home.create(&Config::default(), false).expect("created");
    assert_eq!(again, Created { node: open.key.public(), new_key: false, new_config: false });
    assert_eq!(fs::metadata(home.root()).expect("there").permissions().mode() & 0o777, 0o700);
}

#[test]
fn two_daemons_do_not_share_a_home() {
    let (_dir, home) = good_home();
    let first = home.open_in(false, NOW).expect("opens");
    let error = home.open_in(false, NOW).expect_err("locked");
    assert!(error.to_string().contains(&format!("(pid {})", std::process::id())), "{error}");
    drop(first);
    home.open_in(false, NOW).expect("free again");
}

#[test]
fn what_must_not_be_is_refused_with_a_next_step() {
    type Break = fn(&Home);
    let table: [(&str, Break, &str); 12] = [
        ("open home", |home| chmod(home.root(), 0o750), "can be entered or changed by others (mode 750)"),
        ("readable key", |home| chmod(&home.key_path(), 0o640), "can be read or changed by others (mode 640)"),
        ("no key", |home| fs::remove_file(home.key_path()).expect("removed"), "there is no key"),
        ("bad config", |home| fs::write(home.config_path(), "[mseh]").expect("written"), "line 1"),
        ("no charter", |home| fs::remove_file(home.charter_path()).expect("removed"), "no charter"),
        ("no accreditation", |home| fs::remove_file(home.accreditation_path()).expect("removed"), "no accreditation"),
        ("damaged charter", |home| fs::write(home.charter_path(), "x").expect("written"), "charter does not hold"),
        (
            "stranger's accreditation",
            |home| {
                let node = home.key().expect("a key").public();
                let bytes = accredited(&charter("Test"), node, &officer(2), 1);
                fs::write(home.accreditation_path(), bytes).expect("written");
            },
            "not to be believed",
        ),
        (
            "another node's accreditation",
            |home| {
                let bytes = accredited(&charter("Test"), officer(9).public(), &officer(1), 1);
                fs::write(home.accreditation_path(), bytes).expect("written");
            },
            "does not let this node take part",
        ),
        (
            "accreditation that ran out",
            |home| {
                let node = home.key().expect("a key").public();
                let bytes = accredited(&charter("Test"), node, &officer(1), 0);
                fs::write(home.accreditation_path(), bytes).expect("written");
            },
            "does not let this node take part",
        ),
        ("no home", |home| fs::remove_dir_all(home.root()).expect("removed"), "there is no home"),
        (
            "a file",
            |home| {
                fs::remove_dir_all(home.root()).expect("removed");
                fs::write(home.root(), "").expect("written");
            },
            "is not a directory",
        ),
    ];
    for (what, damage, message) in table {
        let (_dir, home) = good_home();
        damage(&home);
        let error = home.open_in(false, NOW).expect_err(what);
        assert!(error.to_string().contains(message), "{what}: {error}");
        assert!(!error.next_step().is_empty(), "{what}");
    }
}

#[test]
fn a_corrupt_key_is_refused_and_kept() {
    let (_dir, home) = good_home();
    fs::write(home.key_path(), "alliance-ed25519-seed 00ff\n").expect("written");
    let corrupt = |error: &HomeError| matches!(error, HomeError::Key(KeyFileError::Corrupt(_)));
    assert!(corrupt(&home.open_in(false, NOW).expect_err("corrupt")));
    assert!(corrupt(&home.create(&Config::default(), false).expect_err("corrupt")));
    assert_eq!(fs::read_to_string(home.key_path()).expect("kept"), "alliance-ed25519-seed 00ff\n");
}

#[test]
fn a_key_log_is_refused() {
    let (_dir, home) = good_home();
    assert!(matches!(home.open_in(true, NOW), Err(HomeError::KeyLog)));
}

#[test]
fn the_charter_of_another_alliance_is_not_installed() {
    let (_dir, home) = good_home();
    let before = fs::read(home.charter_path()).expect("there");
    let error = home.install(Some(&charter("Other").to_log()), None, NOW).expect_err("another");
    assert!(matches!(error, HomeError::Papers(PapersError::OtherAlliance)), "{error}");
    assert_eq!(fs::read(home.charter_path()).expect("there"), before);
}

#[test]
fn a_bad_accreditation_is_not_installed() {
    let (_dir, home) = good_home();
    let before = fs::read(home.accreditation_path()).expect("there");
    let bad = accredited(&charter("Test"), officer(9).public(), &officer(1), 1);
    home.install(None, Some(&bad), NOW).expect_err("another node's");
    assert_eq!(fs::read(home.accreditation_path()).expect("there"), before);
}
