//! A home that cannot be trusted, or that another daemon has: the daemon does not start, says what is wrong and what to do,
//! and changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use alliance_node::authority::{AccreditRequest, AuthorityDir};
use alliance_protocol::{
    authority::Organisation,
    charter::{Charter, Chartered, WitnessRule},
    key::PublicKey,
    time::Timestamp,
    vocabulary::{Country, NodeRole, OrganisationRole, Tier},
};

use crate::harness::{Bin, Ran, Stage, copy, digests, ended, text};

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("before the end of time"))
}

/// Copies of one good home, each to be spoilt in one way.
struct Homes {
    stage: Stage,
    copies: usize,
}

impl Homes {
    fn new() -> Self {
        Self { stage: Stage::found(&["BR", "CN"]), copies: 0 }
    }

    fn bin(&self) -> &Bin {
        &self.stage.bin
    }

    /// A copy of the home of a member's node.
    fn copy_of(&mut self, country: &str) -> PathBuf {
        self.copies += 1;
        let place = self.stage.path(&format!("home-{}", self.copies));
        copy(&self.stage.home(country), &place);
        place
    }

    fn charter(&self) -> Chartered {
        Chartered::found(&fs::read(self.stage.network.root().join("charter.alliance")).expect("read")).expect("holds")
    }

    fn authority(&self, country: &str) -> AuthorityDir {
        AuthorityDir::open(&self.stage.network.root().join("authorities").join(country)).expect("opened")
    }

    /// Starts a daemon on the home, which must end with this code, say all of this, and leave the home as it was.
    async fn refused(&self, home: &Path, code: i32, says: &[&str]) -> Ran {
        check_refused(home, code, says, || self.bin().allianced(home)).await
    }
}

/// Everything in a home but the file that the lock is on, with content and mode.
fn state(home: &Path) -> BTreeMap<PathBuf, (String, u32)> {
    let mode = |path: &Path| fs::metadata(home.join(path)).expect("there").permissions().mode();
    let files = digests(home).into_iter().filter(|(path, _)| path != Path::new("allianced.lock"));
    files
        .map(|(path, digest)| {
            let mode = mode(&path);
            (path, (digest, mode))
        })
        .collect()
}

async fn check_refused<F: Future<Output = Ran>>(home: &Path, code: i32, says: &[&str], start: impl FnOnce() -> F) -> Ran {
    let before = state(home);
    let ran = start().await;
    assert_eq!(ran.code, Some(code), "{says:?}: {ran:?}");
    assert!(ran.out.is_empty(), "{ran:?}");
    let ran = ran.says(&["allianced: "]).says(says);
    assert!(!ran.err.contains("panicked"), "{ran:?}");
    assert_eq!(state(home), before, "the home is as it was: {ran:?}");
    ran
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

#[tokio::test]
async fn what_others_could_have_read_or_changed_is_not_trusted() {
    let mut homes = Homes::new();
    for mode in [0o750, 0o705, 0o777] {
        let home = homes.copy_of("BR");
        set_mode(&home, mode);
        homes.refused(&home, 6, &[&format!("(mode {mode:03o})"), "next: close it: chmod 700 ", text(&home)]).await;
    }
    for mode in [0o640, 0o604, 0o666] {
        let home = homes.copy_of("BR");
        set_mode(&home.join("node.key"), mode);
        let ran = homes.refused(&home, 6, &["node.key", "can be read or changed by others", "chmod 600"]).await;
        let secret = fs::read_to_string(home.join("node.key")).expect("read");
        let seed = secret.split_whitespace().last().expect("a seed");
        assert!(!ran.err.contains(seed), "a key is never printed");
    }
}

#[tokio::test]
async fn a_key_that_is_none_is_not_used() {
    let mut homes = Homes::new();
    let good = fs::read_to_string(homes.stage.home("BR").join("node.key")).expect("read");
    let table = [
        String::new(),
        good.chars().take(84).collect(),
        good.replace("alliance-ed25519-seed", "alliance-ed25519-sead"),
        format!("{good}{good}"),
        "\u{0}".repeat(86),
        good.replace(' ', "  "),
    ];
    for text in table {
        let home = homes.copy_of("BR");
        fs::write(home.join("node.key"), &text).expect("written");
        homes.refused(&home, 8, &["is not a key", "next: restore it from a copy"]).await;
    }
    let home = homes.copy_of("BR");
    fs::remove_file(home.join("node.key")).expect("removed");
    homes.refused(&home, 4, &["there is no key", "next: make the key: alliance init"]).await;
    // Another key, good in itself, has no accreditation.
    let home = homes.copy_of("BR");
    fs::copy(homes.stage.home("CN").join("node.key"), home.join("node.key")).expect("copied");
    homes.refused(&home, 6, &["for the key", "not for this node", "ask the authority"]).await;
}

#[tokio::test]
async fn papers_that_do_not_hold_let_no_daemon_start() {
    let mut homes = Homes::new();
    let accreditation = "accreditation.alliance";

    let home = homes.copy_of("BR");
    fs::remove_file(home.join(accreditation)).expect("removed");
    homes.refused(&home, 4, &["no accreditation", "next: hand the node's public key"]).await;
    let home = homes.copy_of("BR");
    fs::remove_file(home.join("charter.alliance")).expect("removed");
    homes.refused(&home, 4, &["no charter", "next: get the alliance's charter"]).await;

    let chartered = homes.charter();
    let (node, other) = (homes.stage.node("BR").key(), homes.stage.node("CN").key());
    let request = |node: PublicKey, valid_ms| AccreditRequest {
        node,
        organisation: Organisation {
            name: "ipe-lab".to_owned(),
            roles: BTreeSet::from([OrganisationRole::Controller]),
            controlled_by: None,
            state_controlled: false,
        },
        zone: None,
        roles: BTreeSet::from([NodeRole::Exporter]),
        tier: Tier::default(),
        place: None,
        from: None,
        valid_ms,
    };
    let br = homes.authority("BR");
    let ended = br.accredit(&chartered, &request(node, 1), now().minus_ms(DAY_MS)).expect("signed");
    let early = br.accredit(&chartered, &request(node, DAY_MS), Timestamp(now().0 + 2 * DAY_MS)).expect("signed");
    let others = br.accredit(&chartered, &request(other, DAY_MS), now()).expect("signed");
    // An authority of the same member that the charter does not know: it can sign only what it has founded itself.
    let foreign = foreign(&homes.stage.path("foreign"), &request(node, DAY_MS));
    let mut damaged = br.accredit(&chartered, &request(node, DAY_MS), now()).expect("signed").bytes().to_vec();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let table: [(&[u8], &[&str]); 6] = [
        (ended.bytes(), &["does not count", "it ran out"]),
        (early.bytes(), &["does not count"]),
        (others.bytes(), &["for the key", &other.to_string()]),
        (&foreign, &["not to be believed"]),
        (&damaged, &["not to be believed"]),
        (b"", &["not to be believed"]),
    ];
    for (bytes, says) in table {
        let home = homes.copy_of("BR");
        fs::write(home.join(accreditation), bytes).expect("written");
        homes.refused(&home, 6, says).await.says(&["next: ask the authority for an accreditation"]);
    }
}

/// An accreditation that an authority of another alliance signed for the member BR.
fn foreign(dir: &Path, request: &AccreditRequest) -> Vec<u8> {
    let mut seats = BTreeMap::new();
    for country in ["BR", "CN"] {
        let country: Country = country.parse().expect("a country");
        let made = AuthorityDir::create(&dir.with_extension(country.as_str()), country, "Foreign", 1, 1);
        seats.insert(country, made.expect("made").public().into());
    }
    let charter = Charter {
        name: "Foreign".to_owned(),
        version: 1,
        issued: now(),
        threshold: 2,
        previous: None,
        witnesses: WitnessRule::NONE,
        members: seats,
    };
    let mut bytes = Chartered::draft(&charter).expect("well formed").to_bytes();
    for country in ["BR", "CN"] {
        let authority = AuthorityDir::open(&dir.with_extension(country)).expect("opened");
        bytes = authority.sign_charter(&bytes, None).expect("signed").bytes().to_vec();
    }
    let chartered = Chartered::found(&bytes).expect("holds");
    let br = AuthorityDir::open(&dir.with_extension("BR")).expect("opened");
    br.accredit(&chartered, request, now()).expect("signed").bytes().to_vec()
}

#[tokio::test]
async fn a_charter_that_too_few_signed_or_of_others_is_none() {
    let mut homes = Homes::new();
    let chartered = homes.charter();
    let draft = Chartered::draft(chartered.charter()).expect("well formed").to_bytes();
    let half = homes.authority("BR").sign_charter(&draft, None).expect("signed").bytes().to_vec();
    let mut damaged = chartered.to_log();
    damaged[100] ^= 1;
    let table: [(&[u8], &str); 4] = [
        (&draft, "charter"),
        (&half, "1 of 2 members have signed; 2 must"),
        (&damaged, "charter"),
        (b"\xff\xff", "charter"),
    ];
    for (bytes, says) in table {
        let home = homes.copy_of("BR");
        fs::write(home.join("charter.alliance"), bytes).expect("written");
        homes.refused(&home, 6, &["the charter does not hold", says, "next: get the charter"]).await;
    }
}

#[tokio::test]
async fn what_the_operator_wrote_must_make_sense() {
    let mut homes = Homes::new();
    let table: [(&str, &[&str]); 5] = [
        ("[mesh\nlisten = []\n", &["config.toml", "line 1"]),
        ("[mesh]\nlisten = [\"/ip4/127.0.0.1/tcp/0\"]\n", &["line 2", "is not a mesh address"]),
        ("[mesh]\n\nbotstrap = []\n", &["line 3", "botstrap"]),
        ("[mesh]\nlisten = [\"/ip4/0.0.0.0/udp/0/quic-v1\"]\n", &["mesh.announce"]),
        ("[bulk]\nlisten = \"0.0.0.0:0\"\n", &["bulk.announce"]),
    ];
    for (text, says) in table {
        let home = homes.copy_of("BR");
        fs::write(home.join("config.toml"), text).expect("written");
        homes.refused(&home, 2, says).await.says(&["config.toml", "next: mend the file"]);
    }
    let residual =
        "@id(\"HOUSE-00\") @title(\"a\") @house(\"b\") @status(\"residual\")\npermit (principal, action, resource);\n";
    let table: [(&str, &[&str]); 3] = [
        ("forbid (principal, action", &["house"]),
        ("forbid (principal, action, resource) when { context.purpose == 7 };", &["house"]),
        ("forbid (principal, action, resource) when { context.purpos == Purpose::\"research\" };", &["house", "purpos"]),
    ];
    for (rule, says) in table {
        let home = homes.copy_of("BR");
        let rule = format!("{residual}@id(\"HOUSE-01\") @title(\"a\") @house(\"b\") @status(\"house\")\n{rule}\n");
        fs::write(home.join("house.cedar"), rule).expect("written");
        homes.refused_before_it_runs(&home, says).await;
    }
    let home = homes.copy_of("BR");
    fs::write(home.join("house.cedar"), b"\xff\xfe").expect("written");
    homes.refused(&home, 2, &["house.cedar", "utf-8"]).await;
}

impl Homes {
    /// As [`Homes::refused`], of what is found after the ledger was opened: an empty one may have been made.
    async fn refused_before_it_runs(&self, home: &Path, says: &[&str]) {
        let ran = self.bin().allianced(home).await.with(2).says(&["allianced: ", "next: mend house.cedar"]).says(says);
        assert!(!ran.err.contains("panicked"), "{ran:?}");
        let report = self.bin().alliance(["-o", "json", "--home", text(home), "ledger", "verify"]).await.good().json();
        assert_eq!(report["entries"], 0, "nothing was recorded");
    }
}

#[tokio::test]
async fn a_home_or_a_port_that_is_taken_is_left_to_whoever_has_it() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let home = stage.home("BR");
    let pid = stage.node("BR").pid().expect("running");
    let ran = stage.bin.allianced(&home).await.with(5);
    let ran = ran.says(&["another allianced", &format!("(pid {pid})"), text(&home), "next: stop that one first"]);
    assert!(!ran.err.contains("panicked"));
    assert_eq!(stage.node("BR").status().await.expect("the first goes on").country.as_str(), "BR");

    stage.node_mut("CN").kill().await.expect("killed");
    let home = stage.home("CN");
    let taken = UdpSocket::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("bound").port();
    let table = [
        (format!("[mesh]\nlisten = [\"/ip4/127.0.0.1/udp/{port}/quic-v1\"]\n[bulk]\nlisten = \"127.0.0.1:0\"\n"), "mesh"),
        (format!("[mesh]\nlisten = [\"/ip4/127.0.0.1/udp/0/quic-v1\"]\n[bulk]\nlisten = \"127.0.0.1:{port}\"\n"), "bulk"),
    ];
    for (config, which) in table {
        fs::write(home.join("config.toml"), config).expect("written");
        let ledger = digests(&home.join("ledger"));
        let ran = stage.bin.allianced(&home).await.with(5);
        ran.says(&[&port.to_string(), "next: stop what uses the port", &format!("`{which}.listen`")]);
        assert_eq!(digests(&home.join("ledger")), ledger);
    }
    stage.stop().await;
}

#[tokio::test]
async fn session_keys_are_never_written_to_a_file() {
    let mut homes = Homes::new();
    let home = homes.copy_of("BR");
    let log = homes.stage.path("keys.log");
    let start = || async {
        let mut command = homes.bin().command("allianced");
        ended(command.arg("--home").arg(&home).env("SSLKEYLOGFILE", &log)).await
    };
    check_refused(&home, 2, &["SSLKEYLOGFILE is set", "next: unset SSLKEYLOGFILE"], start).await;
    assert!(!log.exists());
}

#[tokio::test]
async fn where_no_home_is_the_daemon_says_how_to_make_one() {
    let bin = Bin::new();
    let dir = tempfile::tempdir().expect("a directory");
    let none = dir.path().join("none");
    bin.allianced(&none).await.with(4).says(&["there is no home at", text(&none), "next: make one: alliance", "init"]);
    let file = dir.path().join("file");
    fs::write(&file, "text").expect("written");
    bin.allianced(&file).await.with(2).says(&["is not a directory", "next: give another --home"]);
    assert_eq!(crate::harness::names(dir.path()), ["file"]);
    let mut command = bin.command("allianced");
    ended(command.env_remove("HOME")).await.with(2).says(&["neither --home, ALLIANCE_HOME nor HOME"]);
}
