//! Ledgers as evidence, with real daemons: an auditor's files, an old copy of a home, two histories of one ledger, witnesses
//! that are away.

use std::{fs, path::Path, time::Duration};

use alliance_node::{
    keys, ledger,
    ledger::LedgerFile,
    mesh::{Mesh, MeshConfig},
};
use alliance_protocol::{
    charter::WitnessRule,
    core::{Judgement, MeshEvent, MeshOrder, SyncAnswer, WitnessAnswer, WitnessAsk, admin::CrossingState},
    envelope::Signed,
    id::{AllianceId, Sha256},
    key::{PublicKey, SecretKey},
    ledger::{AddCheckpoint, Checkpoint, Origin, Tiles, leaf_hash},
    offer::NodeRecord,
    time::{Timestamp, Validity},
};
use sha2::Digest as _;

use crate::harness::{HANG, SMALL, Stage, begin_pull, copy, over, text, until, write_noise};

/// Waits until everything in a node's ledger is witnessed.
async fn witnessed(stage: &Stage, country: &str) -> u64 {
    let done = |status: &alliance_protocol::core::admin::NodeStatus| status.witnessed.size == status.ledger_size;
    stage.node(country).until("a ledger that is witnessed", done).await.expect("witnessed").ledger_size
}

async fn export(stage: &Stage, home: &Path, out: &Path) -> crate::harness::Ran {
    let words = ["audit", "export", "--country", "CN", "--since", "2026-01-01", "-o"];
    let mut all = vec!["--home", text(home)];
    all.extend(words);
    all.push(text(out));
    stage.bin.alliance(all).await
}

#[tokio::test]
async fn an_auditor_checks_both_halves_from_files_alone_and_names_what_is_wrong() {
    let mut stage = Stage::up(&["BR", "IN", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("pulled"))]).await.good();
    stage.cli("CN", &["pull", &name, "--purpose", "military", "--to", text(&stage.path("no"))]).await.with(3);
    for country in ["BR", "CN"] {
        witnessed(&stage, country).await;
        // Each decision comes out again from the ledger, under the real law.
        let ids = stage.cli_json(country, &["crossing", "list"]).await.good().lines();
        assert!(!ids.is_empty());
        for crossing in ids {
            let id = crossing["crossing"].as_str().expect("an id");
            let answer = stage.cli_json(country, &["crossing", "replay", id]).await.good().json();
            assert_eq!(answer["same"], true, "{answer}");
            assert!(answer["decisions"].as_array().is_some_and(|all| !all.is_empty()), "{answer}");
        }
        stage.cli(country, &["crossing", "replay", "nothing"]).await.with(4);
    }
    let (exporter, importer) = (stage.path("br.audit"), stage.path("cn.audit"));
    export(&stage, &stage.home("BR"), &exporter).await.good();
    export(&stage, &stage.home("CN"), &importer).await.good();
    export(&stage, &stage.home("CN"), &importer).await.with(5);
    let charter = stage.network.root().join("charter.alliance");
    stage.network.stop_all().await;

    // From here on there is no network and no daemon.
    let verify = ["-o", "json", "audit", "verify", text(&exporter), text(&importer), "--charter", text(&charter)];
    let report = stage.bin.alliance(verify).await.good().json();
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    let crossings = report["crossings"].as_array().expect("an array");
    let settled: Vec<_> = crossings.iter().filter(|found| found["outcome"] == "settled").collect();
    assert_eq!(settled.len(), 1, "{report}");
    assert_eq!(
        (&settled[0]["halves"], &settled[0]["from"], &settled[0]["to"]),
        (&"both".into(), &"BR".into(), &"CN".into())
    );
    assert!(settled[0]["bytes"].as_u64().is_some_and(|bytes| bytes >= SMALL), "{report}");
    assert!(crossings.iter().any(|found| found["outcome"] == "denied_at_home"), "{report}");
    for file in report["files"].as_array().expect("an array") {
        assert!(!file["witnessed"]["by"].as_array().expect("an array").is_empty(), "{report}");
    }
    stage.bin.alliance(["audit", "verify", text(&exporter)]).await.good().shows(&["one given"]);

    let bytes = fs::read(&exporter).expect("read");
    for at in (0..bytes.len()).step_by(bytes.len() / 20) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let flipped = stage.path("flipped.audit");
        fs::write(&flipped, bytes).expect("written");
        stage.bin.alliance(["audit", "verify", text(&flipped), text(&importer)]).await.with(8);
    }

    // The operator of the exporter, who has its key, forgets the crossing.
    let (home, forged) = (stage.home("BR"), stage.path("forged"));
    copy(&home, &forged);
    let key = keys::read(&home.join("node.key"), &mut keys::no_passphrase).expect("a key");
    let (_, mut entries) = ledger::whole(&home.join("ledger"), &key.public()).expect("whole");
    entries.retain(|entry| entry.record.crossing().is_none());
    // And something else took its place.
    let accredited = entries.iter().find(|entry| entry.record.kind() == "accredited").cloned();
    entries.extend(accredited.map(|entry| alliance_protocol::ledger::Entry { at: now(), ..entry }));
    fs::remove_dir_all(forged.join("ledger")).expect("removed");
    let (mut rewritten, _) = LedgerFile::open(&forged.join("ledger"), &key).expect("begun");
    rewritten.commit(&entries).expect("written");
    drop(rewritten);
    let forged_file = stage.path("forged.audit");
    export(&stage, &forged, &forged_file).await.with(8).says(&["witnesses"]);
    fs::remove_dir_all(forged.join("witness")).expect("removed");
    fs::create_dir(forged.join("witness")).expect("made");
    export(&stage, &forged, &forged_file).await.good();
    let ran = stage.bin.alliance(["audit", "verify", text(&forged_file), text(&importer)]).await.with(8);
    let organisation = stage.node("BR").organisation();
    ran.shows(&["missing", "unwitnessed", organisation, "its ledger has nothing of"]);
    let ran = stage.bin.alliance(["audit", "verify", text(&forged_file), text(&exporter)]).await.with(8);
    ran.shows(&["forked"]);
    stage.stop().await;
}

/// A reader that knows RFC 6962 and C2SP tlog-tiles, and nothing of this program.
fn root_of(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => sha2::Sha256::digest([]).into(),
        [leaf] => *leaf,
        many => {
            let (left, right) = many.split_at(many.len().next_power_of_two() / 2);
            sha2::Sha256::digest([&[1][..], &root_of(left), &root_of(right)].concat()).into()
        }
    }
}

#[tokio::test]
async fn another_reader_finds_the_same_tree_in_the_published_tiles() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    // More than one tile: every denial is an entry.
    let denials = (0..260).map(|_| ["pull", &name, "--purpose", "military", "--to", "/nowhere"]);
    for words in denials {
        stage.cli("CN", &words).await.with(3);
    }
    let size = witnessed(&stage, "CN").await;
    assert!(size > 256, "{size}");
    let log = stage.path("tlog");
    let published = stage.cli_json("CN", &["ledger", "publish", text(&log), "--entries"]).await.good().json();
    assert_eq!(published["entries"], size);
    let again = stage.cli_json("CN", &["ledger", "publish", text(&log), "--entries"]).await.good().json();
    assert_eq!(again["files"], 0, "what is there does not change");

    let checkpoint = fs::read_to_string(log.join("checkpoint")).expect("read");
    let lines: Vec<_> = checkpoint.lines().collect();
    assert_eq!(lines[0], format!("alliance/{}", stage.node("CN").key()));
    assert_eq!((lines[1], lines[3]), (size.to_string().as_str(), ""));
    assert!(lines.len() > 5, "with the signature of a witness: {checkpoint}");
    let rest = size - 256;
    let bytes = [fs::read(log.join("tile/0/000")), fs::read(log.join(format!("tile/0/001.p/{rest}")))];
    let bytes: Vec<u8> = bytes.into_iter().flat_map(|tile| tile.expect("read")).collect();
    let leaves: Vec<[u8; 32]> = bytes.chunks(32).map(|hash| hash.try_into().expect("a hash")).collect();
    let root = Sha256(root_of(&leaves));
    let signed = Checkpoint::parse_self_named(&checkpoint).expect("signed");
    assert_eq!((signed.size, signed.root), (size, root));
    let above = fs::read(log.join("tile/1/000.p/1")).expect("read");
    assert_eq!(above, root_of(&leaves[..256]));
    let mut entries = Vec::new();
    for bundle in ["tile/entries/000".to_owned(), format!("tile/entries/001.p/{rest}")] {
        let bundle = fs::read(log.join(bundle)).expect("read");
        let mut rest = &bundle[..];
        while let Some((length, after)) = rest.split_first_chunk::<2>() {
            let (entry, after) = after.split_at(usize::from(u16::from_be_bytes(*length)));
            entries.push(<[u8; 32]>::from(sha2::Sha256::digest([&[0], entry].concat())));
            rest = after;
        }
    }
    assert_eq!(entries, leaves);
    // Another node's ledger does not go there.
    stage.cli("BR", &["ledger", "publish", text(&log)]).await.with(5);
    stage.stop().await;
}

#[tokio::test]
async fn a_home_of_yesterday_is_recognised_and_clears_nothing_until_it_is_the_newest() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    witnessed(&stage, "BR").await;
    let (home, yesterday, today) = (stage.home("BR"), stage.path("yesterday"), stage.path("today"));
    stage.node_mut("BR").stop().await;
    copy(&home, &yesterday);
    crate::crash::restart(&mut stage, "BR").await;
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("pulled"))]).await.good();
    let size = witnessed(&stage, "BR").await;
    stage.node_mut("BR").stop().await;
    fs::rename(&home, &today).expect("moved");
    copy(&yesterday, &home);

    stage.node_mut("BR").launch().expect("started");
    let old = |status: &alliance_protocol::core::admin::NodeStatus| {
        status.witnessed.problem.as_ref().is_some_and(|problem| problem.contains("older copy of itself"))
    };
    let status = stage.node("BR").until("an alarm", old).await.expect("recognised");
    let problem = status.witnessed.problem.expect("a problem");
    assert!(problem.contains(&format!("a checkpoint of {size} entries")), "{problem}");
    stage.cli("BR", &["status"]).await.good().shows(&["Nothing crosses from or to here", "bring back the newest copy"]);
    // It has another port by now, and is asked there once that is known.
    let now = stage.node("BR").status().await.expect("a status");
    until("where the old copy answers", || async {
        let mut peers = stage.peers("CN").await.into_iter();
        peers.find(|peer| peer.node == now.node && peer.bulk_addresses == now.bulk_addresses)
    })
    .await;
    let ran = stage.cli("CN", &["pull", &name, "--to", text(&stage.path("again")), "--retries", "0"]).await;
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(!stage.path("again").exists());

    stage.node_mut("BR").stop().await;
    fs::remove_dir_all(&home).expect("removed");
    fs::rename(&today, &home).expect("moved");
    crate::crash::restart(&mut stage, "BR").await;
    witnessed(&stage, "BR").await;
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("again"))]).await.good();
    for country in ["BR", "CN"] {
        let status = stage.node(country).status().await.expect("a status");
        assert!(status.witnessed.doubts.is_empty(), "{:?}", status.witnessed.doubts);
    }
    stage.stop().await;
}

/// A node that signs two histories of its ledger and shows one to each of two others.
struct Liar {
    mesh: Mesh,
    key: SecretKey,
    /// The history that each of them is shown.
    histories: Vec<(PublicKey, Tiles)>,
    asked: Vec<PublicKey>,
    signed: Vec<PublicKey>,
}

impl Liar {
    async fn start(home: &Path, alliance: AllianceId, histories: Vec<(PublicKey, Tiles)>, now: Timestamp) -> Self {
        let key = keys::read(&home.join("node.key"), &mut keys::no_passphrase).expect("a key");
        let config = MeshConfig { listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".to_owned()], ..MeshConfig::new(alliance) };
        let mut mesh = Mesh::start(&key, config).await.expect("started");
        let record = NodeRecord {
            model_key: None,
            node: key.public(),
            accreditation: fs::read(home.join("accreditation.alliance")).expect("read"),
            mesh: mesh.listen_addresses(),
            bulk: vec!["127.0.0.1:1".to_owned()],
            charter: 1,
            serial: now.0,
            validity: Validity::lasting_ms(now, 60 * 60 * 1000),
        };
        let record = Signed::sign(&record, alliance, &key).expect("signed").bytes().to_vec();
        mesh.apply(MeshOrder::Introduce { record });
        Self { mesh, key, histories, asked: Vec::new(), signed: Vec::new() }
    }

    fn ask(&mut self, peer: PublicKey, ask: WitnessAsk) {
        self.asked.push(peer);
        let number = self.asked.len() as u64;
        self.mesh.apply(MeshOrder::AskWitness { number, peer, ask });
    }

    /// Asks each for what it holds, and then for a signature under what it is shown.
    fn answered(&mut self, number: u64, answer: Option<WitnessAnswer>) {
        let peer = self.asked[usize::try_from(number).expect("small") - 1];
        let origin = Origin::of(&self.key.public());
        let answer = answer.unwrap_or_default();
        let body = String::from_utf8(answer.body).expect("text");
        let held = Checkpoint::parse_verified(&body, &self.key.public(), &origin).map(|held| held.size);
        match (answer.status, held) {
            // Not admitted yet, or it has not signed anything.
            (0, _) => self.ask(peer, WitnessAsk::Held { log: origin.to_string() }),
            (200, Ok(old)) => self.show(peer, old),
            (404, _) => self.show(peer, 0),
            (200, Err(_)) => self.signed.push(peer),
            other => panic!("{other:?}: {body}"),
        }
    }

    fn show(&mut self, peer: PublicKey, old: u64) {
        let (_, tiles) = self.histories.iter().find(|(of, _)| *of == peer).expect("one of the two");
        let origin = Origin::of(&self.key.public());
        let proof = tiles.prove_consistency(old, tiles.size()).expect("it continues what was signed");
        let checkpoint = Checkpoint::sign(&self.key, &origin, tiles.size(), tiles.root());
        self.ask(peer, WitnessAsk::Add { body: AddCheckpoint { old, proof, checkpoint }.to_body() });
    }

    /// Takes part in the mesh; shows nobody how its histories belong together.
    async fn go_on(&mut self) {
        let event = match tokio::time::timeout(Duration::from_millis(100), self.mesh.next()).await {
            Ok(event) => event,
            Err(_) => return,
        };
        match event {
            MeshEvent::Introduced { peer, .. } => {
                self.mesh.apply(MeshOrder::Admit { peer });
                if self.histories.iter().any(|(of, _)| *of == peer) && !self.asked.contains(&peer) {
                    self.ask(peer, WitnessAsk::Held { log: Origin::of(&self.key.public()).to_string() });
                }
            }
            MeshEvent::SyncAsked { sync, .. } => {
                self.mesh.apply(MeshOrder::AnswerSync { sync, answer: SyncAnswer::default() });
            }
            MeshEvent::WitnessAsked { question, .. } => {
                let answer = WitnessAnswer { status: 404, body: Vec::new() };
                self.mesh.apply(MeshOrder::AnswerWitness { question, answer });
            }
            MeshEvent::Gossiped { message, .. } => {
                self.mesh.apply(MeshOrder::Judge { message, judgement: Judgement::Ignore });
            }
            MeshEvent::WitnessAnswered { number, answer } => self.answered(number, answer),
            MeshEvent::Measured { .. } => {}
            MeshEvent::Connected { .. } | MeshEvent::Disconnected { .. } | MeshEvent::SyncAnswered { .. } => {}
        }
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp(u64::try_from(since.as_millis()).expect("before the end of time"))
}

/// A daemon is stopped, and a liar takes its key. `different` histories have different sizes too.
async fn two_histories(different: bool, expected: &str) {
    let mut stage = Stage::up(&["BR", "IN", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    witnessed(&stage, "BR").await;
    let alliance = stage.node("CN").status().await.expect("a status").alliance;
    stage.node_mut("BR").stop().await;
    let home = stage.home("BR");
    let liar = stage.node("BR").key();
    let (_, entries) = ledger::whole(&home.join("ledger"), &liar).expect("whole");
    let history = |tale: &[u8], more: usize| -> Tiles {
        let leaf =
            |entry: &alliance_protocol::ledger::Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
        entries.iter().map(leaf).chain((0..more).map(|_| leaf_hash(tale))).collect()
    };
    let histories = vec![
        (stage.node("IN").key(), history(b"one", 3)),
        (stage.node("CN").key(), history(b"other", if different { 5 } else { 3 })),
    ];
    let mut dial = Vec::new();
    for country in ["IN", "CN"] {
        let status = stage.node(country).status().await.expect("a status");
        dial.push((status.node, status.mesh_addresses));
    }
    let mut node = Liar::start(&home, alliance, histories, now()).await;
    for (peer, addresses) in dial {
        node.mesh.apply(MeshOrder::Dial { peer, addresses });
    }
    let began = std::time::Instant::now();
    let mut shown = None;
    let found = async {
        loop {
            node.go_on().await;
            if node.signed.len() == 2 && shown.is_none() {
                shown = Some(std::time::Instant::now());
            }
            let mut all = true;
            for country in ["IN", "CN"] {
                let doubts = stage.node(country).status().await.expect("a status").witnessed.doubts;
                all &= doubts.get(&liar).is_some_and(|why| why.contains(expected));
            }
            if all {
                return;
            }
        }
    };
    tokio::time::timeout(HANG, found).await.expect("it comes out");
    let took = shown.expect("both have signed").elapsed();
    println!("found {:?} after both had signed, {:?} after the liar began", took, began.elapsed());
    assert!(took < Duration::from_secs(60) + HANG, "only a hang is an error of time here");
    // Nothing crosses from it any more; the other country is told why.
    let to = stage.path("pulled");
    let crossing = begin_pull(stage.node("CN"), &name, &to).await;
    let view = over(stage.node("CN"), crossing).await;
    assert_eq!(view.state, CrossingState::Denied, "{view:?}");
    assert!(view.problem.as_ref().is_some_and(|problem| problem.contains(expected)), "{view:?}");
    stage.cli("CN", &["status"]).await.good().shows(&["Nothing crosses from or to node", expected]);
    stage.stop().await;
}

#[tokio::test]
async fn two_histories_of_one_size_are_proof_of_a_fork() {
    two_histories(false, "its ledger has forked").await;
}

#[tokio::test]
async fn two_histories_of_different_sizes_are_a_doubt_that_ends_all_crossings() {
    two_histories(true, "it does not show how").await;
}

#[tokio::test]
async fn egress_stops_on_both_sides_when_witnesses_are_away_for_longer_than_the_grace() {
    let rule = WitnessRule { countries: 2, grace_ms: 60_000 };
    let mut stage = Stage::found_under(&["BR", "IN", "CN"], Some(rule));
    stage.network.start().await.expect("started");
    let bytes = 64 * 1024 * 1024;
    let (name, dir) = (format!("{}/slow", stage.node("BR").organisation()), stage.path("slow"));
    write_noise(&dir, bytes);
    stage.cli("BR", &["model", "import", text(&dir), "--name", &name, "--labels", "public,non_personal"]).await.good();
    stage.cli("BR", &["offer", "publish", &name]).await.good();
    stage.known("CN", &name).await;
    for country in ["BR", "CN"] {
        witnessed(&stage, country).await;
    }
    // Slow enough not to be over by then.
    stage.cli("CN", &["transfer", "limit", "--in", "4M"]).await.good();
    stage.node_mut("IN").stop().await;
    let crossing = begin_pull(stage.node("CN"), &name, &stage.path("pulled")).await;
    let view = over(stage.node("CN"), crossing).await;
    assert_eq!(view.state, CrossingState::Failed, "{view:?}");
    let exported = until("the end of the export", || async {
        let view = stage.crossing("BR", crossing).await;
        view.state.is_final().then_some(view)
    })
    .await;
    let unwitnessed = |view: &alliance_protocol::core::admin::CrossingView| {
        view.problem
            .as_ref()
            .is_some_and(|problem| problem.contains("has not been witnessed by nodes of 2 other countries"))
    };
    assert!(unwitnessed(&view) || unwitnessed(&exported), "{view:?}\n{exported:?}");
    assert!(!stage.path("pulled").exists());
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("pulled")), "--retries", "0"]).await.with(10);
    crate::crash::restart(&mut stage, "IN").await;
    for country in ["BR", "CN"] {
        witnessed(&stage, country).await;
    }
    stage.cli("CN", &["transfer", "limit", "--in", "40G"]).await.good();
    stage.cli("CN", &["pull", &name, "--to", text(&stage.path("pulled"))]).await.good();
    stage.stop().await;
}

/// What a program that knows HTTP and C2SP tlog-witness gets: status, content type and body.
async fn ask_http(address: &str, request: &str) -> (u16, String, String) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    (status, kind.to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_witness_answers_other_programs_as_its_specification_says() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    stage.offer("BR", "CN", SMALL, &[]).await;
    let size = witnessed(&stage, "BR").await;
    // The daemon of China becomes a witness for everybody who can reach it.
    let config = stage.home("CN").join("config.toml");
    let text_of = fs::read_to_string(&config).expect("read");
    assert!(text_of.contains("[witness]\n"), "{text_of}");
    let on = text_of.replace("# listen = \"127.0.0.1:4342\"", "listen = \"127.0.0.1:0\"");
    fs::write(&config, on).expect("written");
    stage.node_mut("CN").stop().await;
    crate::crash::restart(&mut stage, "CN").await;
    let log = fs::read_to_string(stage.node("CN").log_path()).expect("a log");
    let line = log.lines().rfind(|line| line.contains("the witness listens")).expect("it says where").to_owned();
    let address = line.split("address=").nth(1).expect("an address").trim().to_owned();
    let address: String = address.chars().filter(|letter| letter.is_ascii_digit() || ".:".contains(*letter)).collect();

    let key = keys::read(&stage.home("BR").join("node.key"), &mut keys::no_passphrase).expect("a key");
    let (_, entries) = ledger::whole(&stage.home("BR").join("ledger"), &key.public()).expect("whole");
    let leaf =
        |entry: &alliance_protocol::ledger::Entry| entry.leaf_hash(&entry.encode().expect("encodes")).expect("a leaf");
    let tiles: Tiles = entries.iter().map(leaf).collect();
    let origin = Origin::of(&key.public());
    let get = |path: &str| format!("GET /{path}/checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\n\r\n");
    let hash =
        sha2::Sha256::digest(origin.as_str().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(ask_http(&address, &get(&"0".repeat(64))).await.0, 404);

    let post = |body: &str| {
        let length = body.len();
        format!("POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    let signed = |size: u64| Checkpoint::sign(&key, &origin, size, tiles.root_at(size).expect("so many"));
    let request = |old: u64, size: u64| {
        let proof = tiles.prove_consistency(old, size).unwrap_or_default();
        AddCheckpoint { old, proof, checkpoint: signed(size) }
    };
    // It may have signed for the daemon, or another node of its country has.
    let (status, _, held) = ask_http(&address, &get(&hash)).await;
    let held = match status {
        200 => Checkpoint::parse_verified(&held, &key.public(), &origin).expect("a checkpoint").size,
        _ => {
            assert_eq!(status, 404, "{held}");
            let first = request(0, tiles.size() - 1).to_body();
            assert_eq!(ask_http(&address, &post(&first)).await.0, 200);
            tiles.size() - 1
        }
    };
    assert!(held <= size);
    let good = request(held, tiles.size()).to_body();
    let stranger = SecretKey::from_seed(&[5; 32]);
    let unknown = Checkpoint::sign(&stranger, &Origin::of(&stranger.public()), 1, leaf_hash(b"x"));
    let forged = Checkpoint::sign(&key, &origin, tiles.size(), leaf_hash(b"another history"));
    let unsigned = signed(held).replace("\u{2014} alliance", "\u{2014} nobody");
    let mut longer = request(held, tiles.size());
    longer.proof.push(leaf_hash(b"one more"));
    let cases = [
        (400, "nonsense".to_owned()),
        (400, AddCheckpoint { old: held + 9, proof: vec![], checkpoint: signed(held) }.to_body()),
        (403, AddCheckpoint { old: held, proof: vec![], checkpoint: unsigned }.to_body()),
        (404, AddCheckpoint { old: 0, proof: vec![], checkpoint: unknown }.to_body()),
        (409, request(held - 1, held).to_body()),
        (422, longer.to_body()),
    ];
    for (expected, body) in &cases {
        let (status, kind, said) = ask_http(&address, &post(body)).await;
        assert_eq!(status, *expected, "{said}");
        if status == 409 {
            assert_eq!((kind.as_str(), said), ("text/x.tlog.size", format!("{held}\n")));
        }
    }
    let (status, _, line) = ask_http(&address, &post(&good)).await;
    assert_eq!(status, 200, "{line}");
    let note = Checkpoint::with_cosignatures(&signed(tiles.size()), [line.as_str()]).expect("a note");
    assert!(Checkpoint::cosignature(&note, &stage.node("CN").key()).is_some());
    // Another root of the same size is refused, and remembered: the log has two histories.
    let fork = AddCheckpoint { old: tiles.size(), proof: vec![], checkpoint: forged }.to_body();
    assert_eq!(ask_http(&address, &post(&fork)).await.0, 422);
    let liar = key.public();
    let forked = |status: &alliance_protocol::core::admin::NodeStatus| status.witnessed.doubts.contains_key(&liar);
    stage.node("CN").until("an alarm", forked).await.expect("found");
    stage.stop().await;
}
