//! The client of the Hub itself.

use crate::harness::{SMALL, Stage, digests, ended, text};

/// The client of PyPI, where the caller says where its `hf` is.
#[tokio::test]
async fn the_client_of_the_hub_downloads_a_model_that_crossed() {
    let Ok(program) = std::env::var("ALLIANCE_HF") else { return };
    // With terms, so that the name does not end with a dash, which that client does not take.
    let stage = Stage::up(&["BR", "CN"]).await;
    let (name, dir) = stage.offer("BR", "CN", SMALL, &["--onward"]).await;
    let env = stage.cli_json("CN", &["env"]).await.good().json();
    let hf = async |words: &[&str], more: &[(&str, &str)]| {
        let mut command = tokio::process::Command::new(&program);
        command.args(words).env("HF_HOME", stage.path("hf"));
        command.envs(env.as_object().expect("variables").iter().map(|(name, value)| (name, value.as_str().expect("text"))));
        ended(command.envs(more.iter().copied())).await
    };
    let into = stage.path("downloaded");
    let download = ["download", &name, "--local-dir", text(&into)];
    let made = stage.cli_json("CN", &["token", "create", "reader"]).await.good().json();
    let reader = made["token"].as_str().expect("a token");
    let refused = hf(&download, &[("HF_TOKEN", reader)]).await;
    assert!(refused.code != Some(0) && refused.err.contains(&format!("alliance pull {name}")), "{refused:?}");
    hf(&download, &[]).await.good();
    let mut found = digests(&into);
    found.retain(|path, _| !path.starts_with(".cache"));
    assert_eq!(found, digests(&dir));
    hf(&["download", &name, "config.json"], &[]).await.good();
    hf(&["models", "ls", "--search", "model", "--format", "json"], &[]).await.good().shows(&[&name, "alliance:origin:BR"]);
    hf(&["auth", "whoami"], &[]).await.good().shows(&["owner of the node"]);
    let refused = hf(&["download", &name, "config.json", "--force-download"], &[("HF_TOKEN", "hf_none")]).await;
    assert!(refused.code != Some(0) && refused.err.contains("alliance token create"), "{refused:?}");
    stage.stop().await;
}
