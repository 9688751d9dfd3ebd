//! The node as a Hugging Face Hub: what its clients ask for, with and without a token, across a border, and the programs
//! themselves that people use.

mod apart;
mod client;
mod crossings;
mod programs;
mod uploads;

use std::{collections::BTreeMap, fs, path::PathBuf};

use self::client::Client;
use crate::harness::{SMALL, Stage, digests, text};

#[tokio::test]
async fn what_lies_here_is_read_file_by_file_and_range_by_range() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, dir) = stage.offer("BR", "CN", SMALL, &[]).await;
    let to = stage.path("pulled");
    let client = Client::of(&stage, "CN").await;
    // Offered, and not here yet: seen with its origin and what the law makes of it, and not read without leave to start a crossing.
    let found = client.get("/api/models?search=MODEL").await.with(200).json();
    for tag in ["alliance:origin:BR", "alliance:offered-by:BR", "alliance:may-cross-for:research"] {
        assert!(found[0]["tags"].as_array().expect("tags").contains(&tag.into()), "{found}");
    }
    assert_eq!(client.get(&format!("/api/models/{name}")).await.with(200).json()["id"], name.as_str());
    let made = stage.cli_json("CN", &["token", "create", "reader"]).await.good().json();
    let reader = client.with(made["token"].as_str().expect("a token"));
    let revision = format!("/api/models/{name}/revision/main");
    for path in [&revision, &format!("/api/models/{name}/tree/main"), &format!("/{name}/resolve/main/config.json")] {
        let refused = reader.get(path).await.with(403);
        assert!(refused.header("x-hf-warning").contains(&format!("alliance pull {name}")), "{refused:?}");
    }
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();

    let info = client.get(&revision).await.with(200).json();
    let commit = info["sha"].as_str().expect("a commit").to_owned();
    assert!(commit.len() == 40 && info["id"] == name.as_str(), "{info}");
    let refs = client.get(&format!("/api/models/{name}/refs")).await.with(200).json();
    assert_eq!(refs["branches"][0]["targetCommit"], commit.as_str());
    let tree = client.get(&format!("/api/models/{name}/tree/{commit}?recursive=true&expand=false")).await.with(200).json();
    let files: BTreeMap<PathBuf, String> = tree
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["type"] == "file")
        .map(|entry| (entry["path"].as_str().expect("text").into(), entry["lfs"]["oid"].as_str().expect("text").to_owned()))
        .collect();
    assert_eq!(files, digests(&dir));
    for (path, sha256) in &files {
        let place = format!("/{name}/resolve/{commit}/{}", text(path));
        let content = fs::read(dir.join(path)).expect("read");
        let head = client.send("HEAD", &place, &[], "").await.with(200);
        assert_eq!(
            (head.header("content-length"), head.header("x-linked-size")),
            (&*content.len().to_string(), head.header("content-length"))
        );
        assert_eq!((head.header("etag"), head.header("x-repo-commit")), (&*format!("\"{sha256}\""), &*commit));
        let whole = client.get(&place).await.with(200);
        assert!(whole.whole && whole.body == content, "{path:?}");
        let half = content.len() / 2;
        let range = format!("bytes={half}-");
        let part = client.send("GET", &place, &[("range", &range)], "").await.with(206);
        assert_eq!(part.body, content[half..], "{path:?}");
        assert_eq!(part.header("content-range"), format!("bytes {half}-{}/{}", content.len() - 1, content.len()));
        // Of another version a client has the beginning of something else.
        let other = client.send("GET", &place, &[("range", &range), ("if-range", "\"0\"")], "").await.with(200);
        assert_eq!(other.body, content);
        client.send("GET", &place, &[("range", "bytes=999999999999-")], "").await.with(416);
    }
    let asked =
        client.send("POST", &format!("/api/models/{name}/paths-info/main"), &[], r#"{"paths":["config.json","x"]}"#).await;
    assert_eq!(asked.with(200).json().as_array().expect("entries").len(), 1);
    // As the Python client asks.
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let place = format!("/api/models/{name}/paths-info/main");
    let asked = client.send("POST", &place, &form, "paths=config.json&paths=x&expand=False").await.with(200).json();
    assert_eq!(asked[0]["path"], "config.json");
    client.send("POST", &place, &[], "{").await.with(400);
    let many: String = (0..1001).map(|number| format!("paths={number}&")).collect();
    client.send("POST", &place, &form, &many).await.with(413);

    what_is_not_there(&client, &name, &commit).await;

    // What was written over since is not given out, whatever its length.
    let path = to.join("model.safetensors");
    let content = fs::read(&path).expect("read");
    let place = format!("/{name}/resolve/main/model.safetensors");
    let altered = |at: usize| {
        let mut content = content.clone();
        content[at] ^= 1;
        fs::write(&path, content).expect("written");
    };
    altered(0);
    let damaged = client.get(&place).await.with(409);
    assert!(damaged.header("x-hf-warning").contains("alliance model verify"), "{damaged:?}");
    // Behind what is read before the answer begins; there it is the end of the body that says so.
    altered(content.len() - 1);
    let cut = client.get(&place).await;
    assert!(cut.status == 409 || !cut.whole, "a client must not take it for the whole");
    fs::write(&path, "short").expect("written");
    client.get(&format!("/{name}/resolve/main/model.safetensors")).await.with(409);
    client.get(&format!("/{name}/resolve/main/config.json")).await.with(200);
    stage.stop().await;
}

/// Files, versions and repositories that are not there, and paths that lead out of one.
async fn what_is_not_there(client: &Client, name: &str, commit: &str) {
    let missing = client.get(&format!("/{name}/resolve/main/absent.json")).await.with(404);
    assert_eq!((missing.header("x-error-code"), missing.header("x-repo-commit")), ("EntryNotFound", commit));
    for revision in ["main", "HEAD", "refs%2Fheads%2Fmain", commit] {
        client.get(&format!("/{name}/resolve/{revision}/config.json")).await.with(200);
    }
    let missing = client.get(&format!("/{name}/resolve/v2/config.json")).await.with(404);
    assert_eq!(missing.header("x-error-code"), "RevisionNotFound");
    for path in ["/usp/none/resolve/main/config.json", "/api/models/usp/none", &format!("/api/datasets/{name}")] {
        assert_eq!(client.get(path).await.with(404).header("x-error-code"), "RepoNotFound", "{path}");
    }
    for path in ["../config.json", "%2e%2e/config.json", "/etc/passwd", "%2fetc%2fpasswd"] {
        client.get(&format!("/{name}/resolve/main/{path}")).await.with(404);
    }
    for path in ["/api/agent-harnesses", "/", "/api/spaces/a/b"] {
        assert!((400..500).contains(&client.get(path).await.status), "{path}");
    }
}

#[tokio::test]
async fn nobody_reads_without_a_token_that_counts() {
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    let owner = Client::of(&stage, "BR").await;
    let path = format!("/{name}/resolve/main/config.json");
    owner.get(&path).await.with(200);
    assert_eq!(Client::of(&stage, "BR").await.token, owner.token, "it is made once");
    for token in ["", "hf_", "hf_0000000000000000000000000000000000000000", owner.token.trim_start_matches("hf_")] {
        let refused = owner.with(token).get(&path).await.with(401);
        assert!(refused.header("x-error-message").contains("alliance token create"), "{refused:?}");
    }
    let made = stage.cli_json("BR", &["token", "create", "maria", "--days", "7"]).await.good().json();
    let maria = owner.with(made["token"].as_str().expect("a token"));
    assert_eq!(maria.get("/api/whoami-v2").await.with(200).json()["name"], "maria");
    maria.get(&path).await.with(200);
    stage.cli("BR", &["token", "list"]).await.good().shows(&["maria", "read", "owner of the node"]);
    let id = made["id"].as_str().expect("an id");
    stage.cli("BR", &["token", "revoke", id]).await.good().shows(&["maria"]);
    maria.get(&path).await.with(401);
    owner.get(&path).await.with(200);
    stage.cli("BR", &["token", "revoke", id]).await.with(4).says(&["alliance token list"]);
    stage.cli("BR", &["token", "create", ""]).await.with(2);
    // Tokens that cannot be read let nobody in, and it is said.
    let tokens = stage.home("BR").join("tokens.json");
    fs::write(&tokens, "{").expect("written");
    owner.get(&path).await.with(500);
    stage.cli("BR", &["token", "list"]).await.with(8).says(&["tokens.json"]);
    fs::remove_file(&tokens).expect("removed");
    owner.get(&path).await.with(401);
    let again = Client::of(&stage, "BR").await;
    assert_ne!(again.token, owner.token);
    again.get(&path).await.with(200);
    stage.stop().await;
}
