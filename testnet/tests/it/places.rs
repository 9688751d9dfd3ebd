//! Nodes that claim to stand where they do not, with real daemons: what is measured contradicts them.

use std::fs;

use alliance_protocol::core::admin::PeerView;

use crate::harness::{SMALL, Stage, text, until};

/// The house takes nothing from where nobody has seen papers.
const HOUSE: &str = r#"
@id("HOUSE-00") @title("the rest") @house("by-laws") @status("residual")
permit (principal, action, resource);
@id("HOUSE-01") @title("From places that are established") @house("by-laws") @status("house")
forbid (principal, action == Action::"import", resource) when { !context.from.tiers.contains(Tier::"corroborated") };
"#;

impl Stage {
    /// A new accreditation by the command line, put into the home of a stopped node.
    async fn put(&self, country: &str, words: &[&str]) {
        let (root, node, home) = (self.network.root(), self.node(country), self.home(country));
        let (dir, charter) = (root.join("authorities").join(country), root.join("charter.alliance"));
        let (key, out) = (node.key().to_string(), self.path(&format!("{country}.accreditation")));
        let accredit = ["authority", "accredit", "--dir", text(&dir), "--charter", text(&charter), "--node", &key];
        let organisation = ["--organisation", node.organisation(), "--out", text(&out)];
        self.bin.alliance(accredit.into_iter().chain(organisation).chain(words.iter().copied())).await.good();
        let install = ["--home", text(&home), "init", "--accreditation", text(&out)];
        self.bin.alliance(install).await.good();
    }

    /// What a node knows of the node of another country.
    async fn peer(&self, at: &str, of: &str) -> Option<PeerView> {
        let node = self.node(of).key();
        self.peers(at).await.into_iter().find(|peer| peer.node == node)
    }
}

#[tokio::test]
async fn an_answer_from_the_next_room_contradicts_a_place_across_the_ocean() {
    let mut stage = Stage::up(&["BR", "CN"]).await;
    let (name, _) = stage.offer("BR", "CN", SMALL, &[]).await;
    for country in ["BR", "CN"] {
        stage.node_mut(country).stop().await;
    }
    // Without a place the authority does not give a tier that rests on one.
    let root = stage.network.root();
    let (dir, charter) = (root.join("authorities/BR"), root.join("charter.alliance"));
    let (key, out) = (stage.node("BR").key().to_string(), stage.path("unplaced"));
    let words = ["authority", "accredit", "--dir", text(&dir), "--charter", text(&charter), "--node", &key];
    let words = words.into_iter().chain(["--organisation", "x", "--out", text(&out), "--tier", "attested"]);
    stage.bin.alliance(words).await.with(2).says(&["tier", "--place"]);
    assert!(!out.exists());

    stage.put("BR", &["--tier", "corroborated", "--place=-23.551,-46.633"]).await;
    stage.put("CN", &["--tier", "corroborated", "--place", "39.904,116.407"]).await;
    fs::write(stage.home("CN").join("house.cedar"), HOUSE).expect("written");
    for country in ["BR", "CN"] {
        stage.node_mut(country).launch().expect("launched");
        stage.node(country).until_up().await.expect("up");
    }

    // Both are on this machine, so that the first answer says it.
    let alarm = until("an alarm", || async { stage.peer("CN", "BR").await.and_then(|peer| peer.place_alarm) }).await;
    assert!(alarm.contains("-23.551,-46.633") && alarm.contains("light"), "{alarm}");
    stage.cli("CN", &["peers"]).await.good().shows(&["declared, not corroborated", "light"]);
    stage.cli("CN", &["status"]).await.good().shows(&["is not where it is said to be"]);
    stage.known("CN", &name).await;
    let to = stage.path("pulled");
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.with(3).shows(&["HOUSE-01"]);
    let entries = stage.cli_json("CN", &["ledger", "list", "--kind", "place_contradicted"]).await.good().lines();
    assert_eq!(entries.len(), 1, "{entries:?}");

    // With the true place it crosses.
    stage.node_mut("BR").stop().await;
    stage.put("BR", &["--tier", "corroborated", "--place", "39.905,116.408"]).await;
    stage.node_mut("BR").launch().expect("launched");
    let good = || async { stage.peer("CN", "BR").await.filter(|peer| peer.connected && peer.place_alarm.is_none()) };
    until("no alarm", good).await;
    stage.known("CN", &name).await;
    stage.cli("CN", &["pull", &name, "--to", text(&to)]).await.good();
    stage.stop().await;
}
