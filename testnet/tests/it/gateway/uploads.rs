//! Uploads, call by call: what belongs to a model, what does not, and what becomes of it.

use std::fs;

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::client::{Answer, Client};
use crate::harness::{SMALL, Stage, digests, text, until};

const CARD: &str = "---\nlicense: mit\nalliance:\n  labels: [public, non_personal]\n---\n# A model\n";

/// A person who uploads to one name.
struct Uploader {
    client: Client,
    name: String,
}

impl Uploader {
    async fn create(&self, more: Value) -> Answer {
        let (organisation, name) = self.name.split_once('/').expect("a name");
        let mut asked = json!({ "name": name, "organization": organisation, "type": "model" });
        asked.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        self.client.send("POST", "/api/repos/create", &[], &asked.to_string()).await
    }

    async fn commit(&self, lines: &[Value]) -> Answer {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        self.client.send("POST", &format!("/api/models/{}/commit/main", self.name), &[], &body).await
    }

    /// Asks where a file is to be sent; none where it is here.
    async fn place_for(&self, content: &[u8]) -> Option<String> {
        let object = json!({ "oid": oid(content), "size": content.len() });
        let asked = json!({ "operation": "upload", "transfers": ["basic", "multipart"], "objects": [object] });
        let path = format!("/{}.git/info/lfs/objects/batch", self.name);
        let answer = self.client.send("POST", &path, &[], &asked.to_string()).await.with(200).json();
        let href = answer["objects"][0]["actions"]["upload"]["href"].as_str()?;
        Some(href.split_once("/hf").expect("of this node").1.to_owned())
    }

    async fn tree(&self) -> Vec<String> {
        let path = format!("/api/models/{}/tree/main?recursive=true", self.name);
        let entries = self.client.get(&path).await.with(200).json();
        let files = entries.as_array().expect("entries").iter().filter(|entry| entry["type"] == "file");
        files.map(|file| file["path"].as_str().expect("text").to_owned()).collect()
    }
}

fn oid(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn header() -> Value {
    json!({ "key": "header", "value": { "summary": "a test", "description": "" } })
}

fn file(path: &str, content: &[u8]) -> Value {
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    json!({ "key": "file", "value": { "path": path, "content": content, "encoding": "base64" } })
}

fn large(path: &str, content: &[u8]) -> Value {
    json!({ "key": "lfsFile", "value": { "path": path, "algo": "sha256", "oid": oid(content), "size": content.len() } })
}

async fn uploader(stage: &Stage, word: &str) -> Uploader {
    let name = format!("{}/{word}", stage.node("BR").organisation());
    Uploader { client: Client::of(stage, "BR").await, name }
}

#[tokio::test]
async fn files_come_in_a_commit_or_before_it_and_become_a_model_that_is_offered() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let uploader = uploader(&stage, "m").await;
    let url = uploader.create(json!({})).await.with(200).json()["url"].clone();
    assert_eq!(uploader.create(json!({})).await.with(409).json()["url"], url, "clients read it there too");
    let (organisation, word) = uploader.name.split_once('/').expect("a name");
    let asked = json!({ "name": word, "organization": organisation }).to_string();
    let old = [("user-agent", "unknown/None; hf_hub/0.34.4; python/3.11.7")];
    let told = uploader.client.send("POST", "/api/repos/create", &old, &asked).await.with(409).json();
    assert_eq!(told["url"], uploader.name.as_str(), "the old client makes nothing of a longer one");
    let announced = json!({ "files": [
        { "path": "config.json", "size": 2, "sample": "" },
        { "path": "model.bin", "size": 100_000_000, "sample": "" },
        { "path": ".gitattributes", "size": 2, "sample": "" },
    ] });
    let preupload = format!("/api/models/{}/preupload/main", uploader.name);
    let said = uploader.client.send("POST", &preupload, &[], &announced.to_string()).await.with(200).json();
    let modes: Vec<_> = said["files"].as_array().expect("files").iter().map(|file| &file["uploadMode"]).collect();
    assert_eq!(modes, ["regular", "lfs", "regular"]);
    assert_eq!(said["files"][2]["shouldIgnore"], true);

    let weights = vec![7; 3_000_000];
    let place = uploader.place_for(&weights).await.expect("it is not here");
    let stranger = uploader.client.with("");
    let content = String::from_utf8(weights.clone()).expect("ASCII");
    // Not what was announced: nothing is kept.
    for wrong in [content.trim_end_matches("\u{7}"), &format!("{content}!"), &content.replace('\u{7}', "\u{8}")] {
        stranger.send("PUT", &place, &[], wrong).await.with(400);
    }
    let early =
        uploader.commit(&[header(), file("README.md", CARD.as_bytes()), large("model.bin", &weights)]).await.with(400);
    assert!(early.header("x-error-message").contains("was not uploaded"), "{early:?}");
    stranger.send("PUT", &place, &[], &content).await.with(200);
    stranger.send("PUT", &place, &[], &content).await.with(403);
    stranger.send("PUT", "/lfs/0000", &[], "x").await.with(403);
    assert_eq!(uploader.place_for(&weights).await, None, "it is here now");
    let verified = json!({ "oid": oid(&weights), "size": weights.len() }).to_string();
    uploader.client.send("POST", "/lfs-verify", &[], &verified).await.with(200);
    stranger.send("POST", "/lfs-verify", &[], &verified).await.with(401);

    let lines = [header(), file("README.md", CARD.as_bytes()), file("a/config.json", b"{}"), large("model.bin", &weights)];
    let made = uploader.commit(&lines).await.with(200).json();
    assert!(made["hookOutput"].as_str().is_some_and(|said| said.contains("is offered until")), "{made}");
    let offer = stage.known("CN", &uploader.name).await;
    assert_eq!(made["commitOid"], offer_commit(&offer), "what others see is what was committed");
    assert_eq!(uploader.tree().await, ["README.md", "a/config.json", "model.bin"]);
    let read = uploader.client.get(&format!("/{}/resolve/main/model.bin", uploader.name)).await.with(200);
    assert!(read.body == weights, "as it was sent");
    let there = Client::of(&stage, "CN").await;
    let seen = there.get(&format!("/api/models/{}/revision/main", uploader.name)).await.with(200);
    assert!(seen.json()["sha"] == made["commitOid"] && !seen.headers.contains_key("x-hf-warning"), "{seen:?}");
    until("the end of the crossing", || async {
        stage.cli("CN", &["model", "list"]).await.good().out.contains(&uploader.name).then_some(())
    })
    .await;

    // The next version keeps what it does not name; the offer of the one before is over.
    let parent = json!({ "key": "header", "value": { "summary": "", "parentCommit": "0".repeat(40) } });
    uploader.commit(&[parent, file("x", b"x")]).await.with(412);
    let folder = json!({ "key": "deletedFolder", "value": { "path": "a/" } });
    let next = uploader.commit(&[header(), file("b.txt", b"b"), folder]).await.with(200).json();
    assert_ne!(next["commitOid"], made["commitOid"]);
    assert_eq!(uploader.tree().await, ["README.md", "b.txt", "model.bin"]);
    let shown = stage.cli("BR", &["offer", "list"]).await.good();
    assert_eq!(shown.out.matches(&uploader.name).count(), 1, "{shown:?}");
    // Where the one before lies, it is read on, and that there is another is said.
    until("the other offer", || async {
        let seen = there.get(&format!("/api/models/{}/revision/main", uploader.name)).await.with(200);
        assert_eq!(seen.json()["sha"], made["commitOid"]);
        seen.headers.get("x-hf-warning").filter(|told| told.contains("another version")).map(|_| ())
    })
    .await;
    // What was sent is there for another name too. The version before stays until the next one, for those who still read it.
    assert_eq!(uploader.place_for(&weights).await, None);
    let named = stage.home("BR").join("uploads/named").join(&uploader.name);
    assert_eq!(fs::read_dir(named).expect("read").count(), 3, "the state, and two versions");
    // Who got it by a crossing cannot make it a model of their own under its name.
    let importer = Uploader { client: Client::of(&stage, "CN").await, name: uploader.name.clone() };
    importer.commit(&[header(), file("x", b"x")]).await.with(403);
    stage.cli("CN", &["label", &uploader.name, "--labels", "public"]).await.with(2).says(&["came by a crossing"]);
    stage.cli("BR", &["model", "verify", &uploader.name]).await.good();
    stage.stop().await;
}

/// How clients name the version of an offer.
fn offer_commit(offer: &alliance_protocol::core::admin::OfferView) -> String {
    match &offer.what {
        alliance_protocol::offer::Offered::Model(model) => model.manifest.to_string().chars().take(40).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_makes_no_model_is_refused_with_words_and_changes_nothing() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let uploader = uploader(&stage, "m").await;
    uploader.commit(&[header(), file("README.md", CARD.as_bytes()), file("config.json", b"{}")]).await.with(200);
    let before = (uploader.tree().await, stage.ledger_size("BR").await);
    let deleted = |path: &str| json!({ "key": "deletedFile", "value": { "path": path } });
    for (lines, said) in [
        (vec![file("../../escape", b"x")], "cannot be a path"),
        (vec![file("/etc/passwd", b"x")], "cannot be a path"),
        (vec![file(".git/config", b"x")], "cannot be a path"),
        (vec![file("config.json/x", b"x")], "in the way"),
        (vec![deleted("none")], "no `none`"),
        (vec![deleted("README.md"), deleted("config.json")], "would have no files"),
        (vec![file("README.md", b"---\nalliance:\n  labels: [public]\n---\n")], "drops non_personal"),
        (vec![file("README.md", b"---\nalliance:\n  labels: [public, non_personal]\n  origin: CN\n---\n")], "origin"),
        (vec![large("m.bin", b"never sent")], "was not uploaded"),
        (vec![json!({ "key": "file", "value": { "path": "a", "content": "%%", "encoding": "base64" } })], "no base64"),
        (vec![json!({ "key": "copyFile", "value": {} })], "a line of the commit"),
        (vec![json!("nonsense")], "a line of the commit"),
        (vec![file("README.md", b"---\nalliance:\n  labels: [publik]\n---\n")], "publik"),
        (vec![file("README.md", b"---\nalliance:\n  labels: [public, non_personal, personal]\n---\n")], "--subjects"),
        (vec![file("weights.bin", b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.")], "pickle"),
        (vec![file("m.safetensors", b"\xff\xff\xff\xff\xff\xff\xff\xff{}")], "m.safetensors"),
    ] {
        let refused = uploader.commit(&[&[header()][..], &lines].concat()).await.with(400);
        assert!(refused.header("x-error-message").contains(said), "`{said}` is missing: {refused:?}");
    }
    let path = format!("/api/models/{}/commit", uploader.name);
    uploader.client.send("POST", &format!("{path}/main?create_pr=1"), &[], "").await.with(400);
    uploader.client.send("POST", &format!("{path}/dev"), &[], "").await.with(400);
    uploader.client.send("POST", &format!("{path}/main"), &[], &"x".repeat(12 * 1024 * 1024)).await.with(413);
    let xet = uploader.client.get(&format!("/api/models/{}/xet-write-token/main", uploader.name)).await.with(403);
    assert!(xet.header("x-error-message").contains("HF_HUB_DISABLE_XET=1"), "{xet:?}");
    // Who may read and pull may not write; and nobody writes under the name of others.
    let made = stage.cli_json("BR", &["token", "create", "reader", "--scope", "read,pull"]).await.good().json();
    let reader = uploader.client.with(made["token"].as_str().expect("a token"));
    let reader = Uploader { client: reader, name: uploader.name.clone() };
    let refused = reader.commit(&[header(), file("x", b"x")]).await.with(403);
    assert!(refused.header("x-error-message").contains("--scope read,write"), "{refused:?}");
    reader.create(json!({})).await.with(403);
    let other = Uploader { client: Client::of(&stage, "BR").await, name: format!("{}/m", stage.node("CN").organisation()) };
    other.commit(&[header(), file("x", b"x")]).await.with(403);
    for name in ["..", ".hidden", "a b", "%2e%2e", "x".repeat(300).as_str()] {
        let body = json!({ "name": name, "organization": stage.node("BR").organisation() }).to_string();
        uploader.client.send("POST", "/api/repos/create", &[], &body).await.with(400);
    }
    assert_eq!((uploader.tree().await, stage.ledger_size("BR").await), before);
    stage.stop().await;
}

#[tokio::test]
async fn what_has_no_labels_is_read_by_nobody_until_it_has() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let mut uploader = uploader(&stage, "plain").await;
    let lines = [header(), file("README.md", b"# no labels"), file("config.json", b"{}")];
    let told = uploader.commit(&lines).await.with(200);
    assert!(told.header("x-hf-warning").contains(&format!("alliance label {}", uploader.name)), "{told:?}");
    let info = uploader.client.get(&format!("/api/models/{}", uploader.name)).await.with(200).json();
    assert_eq!((&info["private"], info["siblings"].as_array()), (&true.into(), None), "{info}");
    let revision = uploader.client.get(&format!("/api/models/{}/revision/main", uploader.name)).await.with(200).json();
    assert_eq!(revision, info, "no more than that it is there");
    uploader.client.get(&format!("/api/models/{}/tree/main", uploader.name)).await.with(403);
    let refused = uploader.client.get(&format!("/{}/resolve/main/config.json", uploader.name)).await.with(403);
    assert!(refused.header("x-error-message").contains("alliance label"), "{refused:?}");
    let listed = uploader.client.get("/api/models?search=plain").await.with(200).json();
    assert_eq!(listed[0]["tags"][0], "alliance:unlabelled", "{listed}");
    assert!(!stage.cli("BR", &["offer", "list"]).await.good().out.contains("plain"));
    stage.cli("BR", &["label", &uploader.name]).await.with(2).says(&["--labels"]);
    stage.cli("BR", &["label", "ipe-lab/none", "--labels", "public"]).await.with(4).says(&["nothing was uploaded"]);
    let label = ["label", &uploader.name, "--labels", "public,non_personal"];
    stage.cli("BR", &label).await.good().shows(&["offered until", "public, non_personal"]);
    stage.known("CN", &uploader.name).await;
    assert_eq!(uploader.tree().await, ["README.md", "config.json"]);
    // From then on its labels are known, and a card without any leaves them.
    uploader.commit(&[header(), file("x.txt", b"x")]).await.with(200);
    stage.cli("BR", &["model", "show", &uploader.name]).await.good().shows(&["public, non_personal"]);
    // A first upload that is refused leaves nothing behind.
    uploader.name = format!("{}/never", stage.node("BR").organisation());
    uploader.commit(&[header()]).await.with(400);
    uploader.client.get(&format!("/api/models/{}", uploader.name)).await.with(404);

    // Private is private, with labels too.
    uploader.name = format!("{}/own", stage.node("BR").organisation());
    uploader.create(json!({ "private": true })).await.with(200);
    let made = uploader.commit(&[header(), file("README.md", CARD.as_bytes())]).await.with(200).json();
    assert!(made["hookOutput"].as_str().is_some_and(|said| said.contains("offered to nobody")), "{made}");
    assert!(!stage.cli("BR", &["offer", "list"]).await.good().out.contains("/own"));
    uploader.client.get(&format!("/{}/resolve/main/README.md", uploader.name)).await.with(200);

    stage.stop().await;
}

#[tokio::test]
async fn an_upload_leaves_to_the_operator_what_is_offered_to_whom() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let mut uploader = uploader(&stage, "m").await;
    // What an operator imported from a directory of their own is taken over, and that directory left as it is. The offer of it
    // goes on, on its terms.
    let (name, dir) = stage.offer("BR", "CN", SMALL, &["--purposes", "research", "--to", "CN", "--ttl", "2h"]).await;
    let before = digests(&dir);
    uploader.name = name;
    uploader.commit(&[header(), file("notes.txt", b"x"), file("config.json", b"{}")]).await.with(200);
    assert_eq!(digests(&dir), before);
    assert!(uploader.tree().await.contains(&"notes.txt".to_owned()));
    let path = stage.cli_json("BR", &["model", "show", &uploader.name]).await.good().json()["path"].clone();
    assert!(path.as_str().is_some_and(|path| !path.starts_with(text(&dir))), "{path}");
    let offers = || async {
        let all = stage.cli_json("BR", &["offer", "list"]).await.good().lines();
        all.into_iter().filter(|offer| offer["name"] == uploader.name.as_str()).collect::<Vec<_>>()
    };
    let again = offers().await;
    assert_eq!(again.len(), 1, "{again:?}");
    assert_eq!((&again[0]["terms"]["purposes"], &again[0]["terms"]["to"]), (&json!(["research"]), &json!(["CN"])));
    let left = again[0]["until"].as_u64().expect("a time") - again[0]["from"].as_u64().expect("a time");
    assert!(left <= 2 * 60 * 60 * 1000, "{again:?}");
    // The same files once more change nothing.
    let same = uploader.commit(&[header(), file("notes.txt", b"x")]).await.with(200).json();
    assert!(same["hookOutput"].as_str().is_some_and(|said| said.contains("as before")), "{same}");
    assert_eq!(offers().await, again);
    // What was taken back stays so.
    stage.cli("BR", &["offer", "withdraw", &uploader.name]).await.good();
    let told = uploader.commit(&[header(), file("notes.txt", b"y")]).await.with(200).json();
    assert!(told["hookOutput"].as_str().is_some_and(|said| said.contains("offered to nobody, as before")), "{told}");
    assert!(offers().await.is_empty());

    // Labelled anew by its operator, with what is known of it and not what its card says.
    let card = b"---\nalliance:\n  labels: [public, non_personal]\n  subjects: [CN]\n---\n";
    let strict = stage.path("strict");
    alliance_testnet::sample::write_sample(&strict, 4, SMALL).expect("written");
    fs::write(strict.join("README.md"), card).expect("written");
    let name = format!("{}/strict", stage.node("BR").organisation());
    let import = ["model", "import", text(&strict), "--name", &name, "--labels", "personal,health", "--subjects", "BR"];
    stage.cli("BR", &import).await.good();
    let labelled = stage.cli_json("BR", &["label", &name, "--people", "10"]).await.good().json();
    assert_eq!((&labelled["labels"], &labelled["subjects"]), (&json!(["personal", "health"]), &json!(["BR"])));

    // A directory that is gone is said to be.
    let gone = stage.path("gone");
    alliance_testnet::sample::write_sample(&gone, 3, SMALL).expect("written");
    uploader.name = format!("{}/gone", stage.node("BR").organisation());
    let import = ["model", "import", text(&gone), "--name", &uploader.name, "--labels", "personal", "--subjects", "BR"];
    stage.cli("BR", &import).await.good();
    fs::remove_dir_all(&gone).expect("removed");
    let refused = uploader.commit(&[header(), file("x", b"x")]).await.with(400);
    assert!(refused.header("x-error-message").contains("import it again"), "{refused:?}");

    // A token that is revoked while a commit comes.
    uploader.name = format!("{}/late", stage.node("BR").organisation());
    let made = stage.cli_json("BR", &["token", "create", "late", "--scope", "write"]).await.good().json();
    let late = made["token"].as_str().expect("a token").to_owned();
    let (client, path) = (uploader.client.with(&late), format!("/api/models/{}/commit/main", uploader.name));
    let revoked = async {
        stage.cli("BR", &["token", "revoke", &late]).await.good();
    };
    client.send_slowly(&path, revoked).await.with(401);
    uploader.client.get(&format!("/api/models/{}", uploader.name)).await.with(404);
    stage.stop().await;
}
