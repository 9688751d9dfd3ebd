//! A pull that is under way when it stops being allowed: the offer is withdrawn, or the importer is revoked. It ends on
//! both sides with the reason, and no byte of it is sent after that, while others are served as before.
//!
//! How long that takes is printed and asserted nowhere.

use std::{fs, path::PathBuf, time::SystemTime};

use alliance_node::authority::{AuthorityDir, PublishRequest};
use alliance_protocol::{
    charter::Chartered,
    core::admin::{AdminCall, CrossingState, CrossingView, Reply},
    time::Timestamp,
};
use alliance_testnet::network::TestNode;

use crate::{
    crash::under_way,
    harness::{SMALL, Stage, begin_pull, digests, names, over},
};

/// Bytes that take far longer at the limit that is set than anything else here.
const LARGE: u64 = 256 * 1024 * 1024;

const HOUR_MS: u64 = 3_600_000;

/// Who hears of it first.
#[derive(Clone, Copy, Debug)]
enum Told {
    Exporter,
    Onlooker,
}

/// A pull by the first node of China from the one of Brazil, at a limited rate; the second node of China looks on.
struct Pulling {
    stage: Stage,
    name: String,
    /// Another artefact of the same exporter.
    other: (String, PathBuf),
    view: CrossingView,
}

impl Pulling {
    async fn new() -> Self {
        let stage = Stage::up(&["BR", "CN"]).await;
        let (name, _) = stage.offer("BR", "CN", LARGE, &[]).await;
        let other = stage.offer("BR", "CN", SMALL, &[]).await;
        stage.cli("BR", &["transfer", "limit", "--out", "100M"]).await.good();
        let view = under_way(&stage, "CN", &name, &stage.path("pulled")).await;
        Self { stage, name, other, view }
    }

    fn onlooker(&self) -> &TestNode {
        self.stage.network.nodes_all().last().expect("three nodes")
    }

    async fn sent(&self) -> u64 {
        self.stage.node("BR").status().await.expect("a status").artefact_bytes_sent
    }

    /// A status of the importer's authority that revokes the importer, and the law pack that it names.
    fn revocation(&self) -> AdminCall {
        let root = self.stage.network.root();
        let charter = Chartered::found(&fs::read(root.join("charter.alliance")).expect("read")).expect("a charter");
        let mut authority = AuthorityDir::open(&root.join("authorities/CN")).expect("an authority");
        authority.revoke(self.stage.node("CN").key()).expect("revoked");
        let request = PublishRequest { status_ms: HOUR_MS, ..PublishRequest::default() };
        let gate = alliance_policy::CedarGate::default();
        let published = authority.publish(&charter, &request, now(), &gate).expect("published");
        let statements = [published.law_pack.bytes(), published.status.bytes()];
        AdminCall::Adopt(statements.map(|bytes| bytes.to_vec().into()).into())
    }

    /// Both sides end it and say why, from what a node is told at this moment; nothing more of it leaves.
    async fn ends(self, told: Told, call: AdminCall, exporter_says: &[&str], importer_says: &[&str]) {
        let crossing = self.view.crossing;
        let running = self.sent().await;
        let began = now();
        let told = match told {
            Told::Exporter => self.stage.node("BR"),
            Told::Onlooker => self.onlooker(),
        };
        let reply = told.call(&call).await.expect("an answer");
        assert!(matches!(reply, Reply::Withdrawn { .. } | Reply::Adopted { .. }), "{reply:?}");
        let (mut took, mut sent) = (Vec::new(), None);
        for (country, says) in [("BR", exporter_says), ("CN", importer_says)] {
            let ended = over(self.stage.node(country), crossing).await;
            // From when the exporter is over with it.
            if sent.is_none() {
                sent = Some(self.sent().await);
            }
            let problem = ended.problem.clone().unwrap_or_default();
            assert_eq!(ended.state, CrossingState::Failed, "{country}: {ended:?}");
            assert!(says.iter().any(|says| problem.contains(says)), "{country}: {problem}");
            println!("{country}: {problem}");
            took.push(ended.ended.expect("over").0.saturating_sub(began.0));
        }
        let sent = sent.expect("seen");
        println!("ended after {took:?} ms at the exporter and the importer, {} bytes", sent - running);

        // Another may have another thing, and at full speed; that is all that is sent.
        self.stage.cli("BR", &["transfer", "limit", "--remove"]).await.good();
        let (name, original) = &self.other;
        self.stage.network.until_offered(self.onlooker(), name).await.expect("known");
        let to = self.stage.path("other-pulled");
        let other = begin_pull(self.onlooker(), name, &to).await;
        for node in [self.onlooker(), self.stage.node("BR")] {
            let view = over(node, other).await;
            assert_eq!(view.state, CrossingState::Done, "{view:?}");
        }
        assert_eq!(digests(&to), digests(original));
        let bytes: u64 = digests(original).keys().map(|file| fs::metadata(original.join(file)).expect("there").len()).sum();
        assert_eq!(self.sent().await, sent + bytes, "no byte of what was taken back");

        let id = crossing.to_string();
        let words = ["ledger", "list", "--crossing", &id, "--kind", "crossing_failed"];
        let failed = self.stage.cli_json("BR", &words).await.good().lines();
        assert_eq!(failed[0]["record"]["bytes"], sent, "what may have left is recorded: {failed:?}");
        assert!(sent < self.view.total);
        self.check_undelivered().await;
        self.stage.verify_ledgers().await;
        self.stage.stop().await;
    }

    /// Nothing stands under the final name, and it is not to be had any more.
    async fn check_undelivered(&self) {
        let found: Vec<_> = names(self.stage.dir.path())
            .into_iter()
            .filter(|name| name.contains("pulled") && !name.contains("other"))
            .collect();
        assert!(found.len() <= 1 && found.iter().all(|name| name.starts_with('.')), "{found:?}");
        let to = self.stage.path("pulled");
        let ran = self.stage.cli("CN", &["pull", &self.name, "--to", to.to_str().expect("UTF-8")]).await;
        // Denied, unknown or not trusted, by what and by whom it is heard of first.
        assert!(matches!(ran.code, Some(3 | 4 | 6)), "{ran:?}");
        assert!(!to.exists());
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("later");
    Timestamp(u64::try_from(since.as_millis()).expect("in range"))
}

/// What the side says that hears of it from the other end of the connection first.
const PEER: &str = "the other side ended it: ended";

#[tokio::test]
async fn an_offer_that_is_withdrawn_ends_what_is_under_way() {
    let pulling = Pulling::new().await;
    let call = AdminCall::Withdraw { offer: pulling.view.offer, reason: "a mistake".into() };
    pulling.ends(Told::Exporter, call, &["withdrawn"], &["withdrawn", PEER]).await;
}

#[tokio::test]
async fn an_importer_that_is_revoked_gets_no_more_from_an_exporter_that_hears_of_it() {
    let pulling = Pulling::new().await;
    let call = pulling.revocation();
    pulling.ends(Told::Exporter, call, &["revoked"], &["revoked", PEER]).await;
}

#[tokio::test]
async fn an_importer_that_is_revoked_gets_no_more_when_its_neighbour_says_so() {
    let pulling = Pulling::new().await;
    let call = pulling.revocation();
    pulling.ends(Told::Onlooker, call, &["revoked", PEER], &["revoked", PEER]).await;
}
