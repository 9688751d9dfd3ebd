//! Asking for the files of what another node offers: they cross, and are read while they come; or the law says why not.

use std::{fs, time::Duration};

use alliance_protocol::core::admin::{AdminCall, CrossingState, CrossingView, Reply};

use super::client::Client;
use crate::{
    crash::restart,
    harness::{SMALL, Stage, digests, signal, text, until},
};

/// Every crossing of a node, by its own record.
pub(super) async fn crossings(stage: &Stage, country: &str) -> Vec<CrossingView> {
    match stage.node(country).call(&AdminCall::Crossings).await.expect("an answer") {
        Reply::Crossings(crossings) => crossings,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_another_country_offers_crosses_once_and_is_read_while_it_comes() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, dir) = stage.offer("BR", "CN", 12_000_000, &[]).await;
    // Slowly, so that it is read while it comes, however fast this machine is.
    stage.cli("BR", &["transfer", "limit", "--out", "20M"]).await.good();
    let client = Client::of(&stage, "CN").await;
    let files: Vec<String> = digests(&dir).into_keys().map(|path| text(&path).to_owned()).collect();
    let content = |file: &str| fs::read(dir.join(file)).expect("read");
    let largest = files.iter().max_by_key(|file| content(file).len()).expect("files").clone();

    // The end of the largest file first: it comes before what lies before it.
    let (place, whole) = (format!("/{name}/resolve/main/{largest}"), content(&largest));
    let head = client.send("HEAD", &place, &[], "").await.with(200);
    assert_eq!(head.header("content-length"), whole.len().to_string());
    let from = whole.len() - 100_000;
    let end = client.send("GET", &place, &[("range", &format!("bytes={from}-"))], "").await.with(206);
    assert_eq!(end.body, whole[from..]);
    let running = crossings(&stage, "CN").await;
    assert_eq!(running.len(), 1, "one crossing, however much is asked for: {running:?}");
    assert_eq!(running[0].state, CrossingState::Cleared, "the end was read while the rest was still to come");
    // Ten at a time, all of it.
    let readers = (0..10).map(|_| async {
        for file in &files {
            let read = client.get(&format!("/{name}/resolve/main/{file}")).await.with(200);
            assert!(read.whole && read.body == content(file), "{file}");
        }
    });
    futures::future::join_all(readers).await;
    let done = until("the end of the crossing", || async {
        let all = crossings(&stage, "CN").await;
        (all[0].state == CrossingState::Done).then_some(all)
    })
    .await;
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].bytes, done[0].total, "each byte crossed once");
    assert_eq!(digests(done[0].to.as_deref().expect("a place")), digests(&dir));
    // From the disk, with the exporter gone.
    let mut stage = stage;
    stage.node_mut("BR").kill().await.expect("killed");
    let again = client.get(&place).await.with(200);
    assert!(again.whole && again.body == whole);
    stage.stop().await;
}

#[tokio::test]
async fn a_denial_names_the_country_the_rule_the_citation_and_the_way_out() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let name = format!("{}/clinic", stage.node("BR").organisation());
    let dir = stage.path("clinic");
    alliance_testnet::sample::write_sample(&dir, 5, SMALL).expect("written");
    let import = ["model", "import", text(&dir), "--name", &name, "--labels", "personal,health", "--subjects", "BR"];
    stage.cli("BR", &import).await.good();
    stage.cli("BR", &["offer", "publish", &name]).await.good();
    stage.known("CN", &name).await;
    let client = Client::of(&stage, "CN").await;
    let listed = client.get("/api/models?search=clinic").await.with(200).json();
    let tags = listed[0]["tags"].as_array().expect("tags");
    assert!(tags.contains(&"alliance:may-not-cross-for:research".into()), "{tags:?}");
    client.get(&format!("/api/models/{name}")).await.with(200);
    for path in [
        format!("/api/models/{name}/revision/main"),
        format!("/api/models/{name}/tree/main?recursive=true"),
        format!("/{name}/resolve/main/config.json"),
    ] {
        let command = [("user-agent", "huggingface-cli/None; hf_hub/2.4.0")];
        let (library, command) =
            (client.get(&path).await.with(403), client.send("GET", &path, &command, "").await.with(403));
        assert_eq!((library.header("x-error-code"), command.header("x-error-code")), ("GatedRepo", "PolicyDenied"));
        let line = library.header("x-error-message");
        for part in [
            &name,
            "the law of BR denies by BR-",
            "(LGPD (Law 13.709",
            "satisfied by ",
            " more of BR",
            "alliance crossing show ",
        ] {
            assert!(line.contains(part), "`{part}` is missing: {line}");
        }
        assert!(line.len() <= 300 && library.header("x-hf-warning").ends_with(line), "{library:?}");
        let body = library.json();
        assert_eq!((&body["error"], &body["alliance"]["crossing"]), (&line.into(), &library.header("x-request-id").into()));
        assert!(body["alliance"]["rules"][0]["citation"].as_str().is_some_and(|citation| !citation.is_empty()), "{body}");
    }
    let denied = crossings(&stage, "CN").await;
    assert_eq!(denied.len(), 1, "asked and recorded once: {denied:?}");
    let id = denied[0].crossing.to_string();
    stage.cli("CN", &["crossing", "show", &id]).await.good().shows(&["BR-"]);
    assert!(!stage.home("CN").join("models").join(&name).exists(), "nothing of it is here");
    stage.stop().await;
}

#[tokio::test]
async fn law_that_ends_a_crossing_ends_what_is_read_of_it() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, dir) = stage.offer("BR", "CN", 40_000_000, &[]).await;
    stage.cli("BR", &["transfer", "limit", "--out", "32M"]).await.good();
    let client = Client::of(&stage, "CN").await;
    let tree = client.get(&format!("/api/models/{name}/tree/main?recursive=true")).await.with(200).json();
    let files = tree.as_array().expect("files").iter();
    let largest =
        files.max_by_key(|file| file["size"].as_u64()).expect("a file")["path"].as_str().expect("text").to_owned();
    let place = format!("/{name}/resolve/main/{largest}");
    let offer = stage.known("CN", &name).await.offer.to_string();
    let (read, ()) = tokio::join!(client.get(&place), async {
        until("bytes", || async { (crossings(&stage, "CN").await[0].bytes > 0).then_some(()) }).await;
        stage.cli("BR", &["offer", "withdraw", &offer, "--reason", "a test"]).await.good();
    });
    assert!(!read.whole && read.body.len() < fs::read(dir.join(&largest)).expect("read").len());
    let gone = until("the end of the offer", || async {
        let answer = client.get(&place).await;
        (answer.status == 404).then_some(answer)
    });
    assert_eq!(gone.await.header("x-error-code"), "RepoNotFound");
    stage.stop().await;
}

#[tokio::test]
async fn an_exporter_that_is_away_is_said_to_be_and_what_came_is_kept() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, dir) = stage.offer("BR", "CN", 40_000_000, &[]).await;
    stage.cli("BR", &["transfer", "limit", "--out", "64M"]).await.good();
    let client = Client::of(&stage, "CN").await;
    let largest = digests(&dir).into_keys().max_by_key(|path| fs::metadata(dir.join(path)).expect("there").len());
    let largest = text(&largest.expect("files")).to_owned();
    let (place, whole) = (format!("/{name}/resolve/main/{largest}"), fs::read(dir.join(&largest)).expect("read"));
    let (cut, ()) = tokio::join!(client.get(&place), async {
        until("bytes", || async { crossings(&stage, "CN").await.first().filter(|it| it.bytes > 8_000_000).map(|_| ()) })
            .await;
        signal(stage.node("BR").pid().expect("running"), "KILL").await;
    });
    assert!(!cut.whole && !cut.body.is_empty());
    assert_eq!(cut.body, whole[..cut.body.len()]);
    let away = client.get(&place).await.with(503);
    assert!(away.header("x-error-message").contains("from BR"), "{away:?}");
    stage.node_mut("BR").kill().await.expect("collected");
    restart(&mut stage, "BR").await;
    // As the client does: from where it was.
    let from = cut.body.len();
    let rest = until("the rest", || async {
        let rest = client.send("GET", &place, &[("range", &format!("bytes={from}-"))], "").await;
        (rest.status == 206 && rest.whole).then_some(rest)
    });
    let rest = tokio::time::timeout(Duration::from_secs(100), rest).await.expect("it comes");
    assert_eq!(rest.body, whole[from..]);
    stage.stop().await;
}
