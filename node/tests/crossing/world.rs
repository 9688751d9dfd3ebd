//! A few nodes: each a real Core, a real bulk plane and a directory. The test is the loop between them, and their mesh.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    future::{Future, poll_fn},
    path::{Path, PathBuf},
    pin::pin,
    task::Poll,
    time::Duration,
};

use alliance_node::{
    bulk::{Bulk, BulkConfig, Deadlines},
    models::{ImportRequest, import},
};
use alliance_policy::CedarGate;
use alliance_protocol::{
    core::{
        BulkEvent, CatalogueChange, Config, Core, Effects, Input, MeshOrder, Origin, RequestId,
        admin::{AdminCall, CrossingState, CrossingView, LocalModel, OfferDraft, PullCall, Reply},
    },
    crossing::Receipt,
    envelope::Signed,
    id::{CrossingId, StatementId},
    key::{PublicKey, SecretKey},
    ledger::{Entry, Record},
    offer::{NodeRecord, Provenance, Terms},
    time::{Timestamp, Validity},
    vocabulary::{Artefact, Country, Label, Purpose, Use},
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    alliance::{Alliance, DAWN, DAY, HOUR, country, key},
    artefact::tree,
};

/// Longer than anything here takes; a test that meets it hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

/// The exporter and the importer of [`World::pair`].
pub(crate) const EXPORTER: usize = 0;
pub(crate) const IMPORTER: usize = 1;

pub(crate) struct World {
    pub(crate) alliance: Alliance,
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<Node>,
    /// Nodes that do not look at what their bulk plane reports.
    pub(crate) paused: BTreeSet<usize>,
    gate: CedarGate,
    /// Statements on their way from one node to all others.
    gossip: VecDeque<(usize, Vec<u8>)>,
    numbers: u64,
    /// Threads for packets of each bulk plane, and connections between two.
    pub(crate) lanes: usize,
}

pub(crate) struct Node {
    pub(crate) key: SecretKey,
    pub(crate) member: Country,
    organisation: String,
    pub(crate) accreditation: Vec<u8>,
    pub(crate) bulk: Bulk,
    pub(crate) entries: Vec<Entry>,
    pub(crate) home: TempDir,
    /// Every report of the bulk plane, in a word.
    pub(crate) heard: Vec<String>,
    core: Core,
    catalogue: BTreeMap<StatementId, Vec<u8>>,
}

impl Node {
    pub(crate) fn public(&self) -> PublicKey {
        self.key.public()
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.home.path().join("manifests")
    }

    /// Bytes of artefacts that were handed to connections.
    pub(crate) fn sent(&self) -> u64 {
        self.bulk.counters().artefact_bytes_sent
    }

    pub(crate) fn received(&self) -> u64 {
        self.bulk.counters().artefact_bytes_received
    }

    /// The last records of a crossing, by kind.
    pub(crate) fn kinds(&self, crossing: CrossingId) -> Vec<&'static str> {
        let about = |entry: &&Entry| entry.record.crossing() == Some(crossing);
        self.entries.iter().filter(about).map(|entry| entry.record.kind()).collect()
    }

    /// How the crossing failed: bytes, problem, tampered.
    #[track_caller]
    pub(crate) fn failure(&self, crossing: CrossingId) -> (u64, String, bool) {
        let failed = self.entries.iter().find_map(|entry| match &entry.record {
            Record::CrossingFailed { crossing: of, bytes, problem, tampered, .. } if *of == crossing => {
                Some((*bytes, problem.clone(), *tampered))
            }
            _ => None,
        });
        failed.unwrap_or_else(|| panic!("no failure: {:?}", self.kinds(crossing)))
    }
}

impl World {
    /// An exporter in Brazil and an importer in India, who know each other, and the founding law in force.
    pub(crate) fn pair() -> Self {
        Self::with(Deadlines::default())
    }

    pub(crate) fn with(deadlines: Deadlines) -> Self {
        Self::with_lanes(deadlines, 1)
    }

    pub(crate) fn with_lanes(deadlines: Deadlines, lanes: usize) -> Self {
        let mut world = Self {
            lanes,
            alliance: Alliance::found(),
            now: DAWN,
            nodes: Vec::new(),
            paused: BTreeSet::new(),
            gate: CedarGate::new(),
            gossip: VecDeque::new(),
            numbers: 0,
        };
        world.join("BR", "usp", deadlines);
        world.join("IN", "iitb", deadlines);
        for member in world.alliance.members() {
            let pack = world.alliance.pack(member);
            world.adopt(EXPORTER, pack);
            world.renew(member, 6 * HOUR, &[]);
        }
        world
    }

    /// A new node, which knows what the others know.
    pub(crate) fn join(&mut self, member: &str, organisation: &str, deadlines: Deadlines) -> usize {
        let at = self.nodes.len();
        let key = key(100 + u8::try_from(at).expect("few nodes"));
        let member = country(member);
        let accreditation = self.alliance.accreditation(member, key.public(), organisation);
        let home = tempfile::tempdir().expect("a directory");
        let known = self.nodes.first().map(|node| node.catalogue.clone()).unwrap_or_default();
        let bulk = start_bulk(&key, home.path(), deadlines, self.lanes);
        let (core, effects) = self.start_core(&key, &accreditation, &bulk, Vec::new(), known.values().cloned().collect());
        let (entries, heard, catalogue) = (Vec::new(), Vec::new(), BTreeMap::new());
        let organisation = organisation.to_owned();
        self.nodes.push(Node { key, member, organisation, accreditation, bulk, entries, home, heard, core, catalogue });
        self.apply(at, effects);
        let first = self.nodes[0].entries.clone();
        for entry in first.into_iter().filter(|_| at > 0) {
            match entry.record {
                Record::StatusAccepted { status: bytes } | Record::PackAccepted { pack: bytes } => {
                    self.adopt(at, bytes.to_vec());
                }
                _ => {}
            }
        }
        self.introduce();
        at
    }

    /// Stops a daemon and starts it again on what it left behind, at another port.
    pub(crate) async fn restart(&mut self, at: usize, deadlines: Deadlines) {
        let node = &mut self.nodes[at];
        let bulk = start_bulk(&node.key, node.home.path(), deadlines, self.lanes);
        let old = std::mem::replace(&mut node.bulk, bulk);
        old.close().await;
        wait_for_writers(&node.home.path().join("pulled"));
        let (entries, catalogue) = (node.entries.clone(), node.catalogue.values().cloned().collect());
        let node = &self.nodes[at];
        self.now = self.now.plus_ms(1);
        let (core, effects) = self.start_core(&node.key, &node.accreditation, &node.bulk, entries, catalogue);
        self.nodes[at].core = core;
        self.apply(at, effects);
        self.introduce();
    }

    fn start_core(
        &self,
        key: &SecretKey,
        accreditation: &[u8],
        bulk: &Bulk,
        entries: Vec<Entry>,
        catalogue: Vec<Vec<u8>>,
    ) -> (Core, Effects) {
        let config = Config {
            model_key: None,
            version: "test".into(),
            mesh_addresses: Vec::new(),
            bulk_addresses: vec![bulk.local_addr().to_string()],
            baseline: alliance_policy::baseline(),
            house: None,
            approvers: BTreeSet::new(),
            connections: u32::try_from(self.lanes).expect("few"),
            connection_bytes: 1024 * 1024,
            seed: *blake3::hash(&[&key.public().0[..], &self.now.0.to_be_bytes()].concat()).as_bytes(),
        };
        let origin = Origin {
            key: SecretKey::from_seed(&key.to_seed()),
            charter: self.alliance.charter.clone(),
            accreditation: accreditation.to_vec(),
            entries,
            catalogue,
            held: Vec::new(),
            witnessed: None,
            witnesses: Vec::new(),
        };
        Core::start(origin, config, self.now, &self.gate).expect("it starts")
    }

    /// Everybody hears where everybody is.
    fn introduce(&mut self) {
        for at in 0..self.nodes.len() {
            let address = self.nodes[at].bulk.local_addr().to_string();
            self.move_to(at, address);
        }
    }

    /// All others believe that the node is at this address.
    pub(crate) fn move_to(&mut self, at: usize, address: String) {
        self.numbers += 1;
        let node = &self.nodes[at];
        let record = NodeRecord {
            model_key: None,
            charter: 1,
            node: node.public(),
            accreditation: node.accreditation.clone(),
            mesh: Vec::new(),
            bulk: vec![address],
            serial: self.now.0 + self.numbers,
            validity: Validity::lasting_ms(self.now, DAY),
        };
        let record = self.alliance.signed(&node.key, &record).bytes().to_vec();
        self.gossip.push_back((at, record));
        self.spread();
    }

    pub(crate) fn move_home(&mut self, at: usize) {
        let address = self.nodes[at].bulk.local_addr().to_string();
        self.move_to(at, address);
    }

    /// Everybody hears what was published.
    pub(crate) fn spread(&mut self) {
        while let Some((from, bytes)) = self.gossip.pop_front() {
            for at in (0..self.nodes.len()).filter(|at| *at != from) {
                self.call(at, AdminCall::Adopt(vec![bytes.clone().into()]));
            }
        }
    }

    /// Decides, makes it last, carries it out.
    pub(crate) fn tell(&mut self, at: usize, input: Input) -> Vec<Reply> {
        let effects = self.nodes[at].core.handle(input, self.now, &self.gate);
        self.apply(at, effects)
    }

    fn apply(&mut self, at: usize, effects: Effects) -> Vec<Reply> {
        let (node, now) = (&mut self.nodes[at], self.now);
        node.entries.extend(effects.persist.into_iter().map(|record| Entry { at: now, record }));
        for change in effects.catalogue {
            match change {
                CatalogueChange::Put { id, bytes } => drop(node.catalogue.insert(id, bytes)),
                CatalogueChange::Remove { id } => drop(node.catalogue.remove(&id)),
            }
        }
        for order in effects.bulk {
            node.bulk.apply(order);
        }
        for order in effects.mesh {
            if let MeshOrder::Publish { bytes } = order {
                self.gossip.push_back((at, bytes));
            }
        }
        effects.replies.into_iter().map(|(_, reply)| reply).collect()
    }

    pub(crate) fn call(&mut self, at: usize, call: AdminCall) -> Reply {
        self.numbers += 1;
        let id = RequestId(self.numbers);
        self.tell(at, Input::Admin(id, call)).pop().expect("an answer")
    }

    /// As [`World::call`]; what is published then reaches nobody.
    pub(crate) fn call_unheard(&mut self, at: usize, call: AdminCall) -> Reply {
        let reply = self.call(at, call);
        self.gossip.clear();
        reply
    }

    /// One node hears of a statement, and nobody else.
    #[track_caller]
    pub(crate) fn whisper(&mut self, at: usize, statement: Vec<u8>) {
        let reply = self.call(at, AdminCall::Adopt(vec![statement.into()]));
        self.gossip.clear();
        assert!(matches!(reply, Reply::Adopted { .. }), "{reply:?}");
    }

    /// Everybody hears of a statement, this node first.
    #[track_caller]
    pub(crate) fn adopt(&mut self, at: usize, statement: Vec<u8>) {
        let reply = self.call(at, AdminCall::Adopt(vec![statement.into()]));
        assert!(matches!(reply, Reply::Adopted { .. }), "{reply:?}");
        self.spread();
    }

    /// The member's authority publishes a status, and everybody hears of it.
    pub(crate) fn renew(&mut self, member: Country, lasting_ms: u64, revoked: &[PublicKey]) {
        let status = self.alliance.status(member, Validity::lasting_ms(self.now, lasting_ms), revoked);
        self.adopt(EXPORTER, status);
    }

    /// Moves the clock and wakes everybody.
    pub(crate) fn let_pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        for at in 0..self.nodes.len() {
            self.tell(at, Input::Tick);
        }
        self.spread();
    }

    /// Imports what `make` writes at a node, without an offer.
    pub(crate) fn import(&mut self, at: usize, labels: &[Label], make: impl FnOnce(&Path)) -> LocalModel {
        self.import_labelled(at, labels, &[], make)
    }

    /// As [`World::import`], with labels of their own for what fits patterns.
    pub(crate) fn import_labelled(
        &mut self,
        at: usize,
        labels: &[Label],
        labels_of: &[&str],
        make: impl FnOnce(&Path),
    ) -> LocalModel {
        self.numbers += 1;
        let node = &self.nodes[at];
        let dir = node.home.path().join(format!("models/{}", self.numbers));
        std::fs::create_dir_all(&dir).expect("made");
        make(&dir);
        let personal =
            labels.iter().any(|label| label.is_personal()) || labels_of.iter().any(|of| of.ends_with("=personal"));
        let request = ImportRequest {
            name: format!("{}/model-{}", node.organisation, self.numbers),
            artefact: Artefact::Weights,
            labels: labels.iter().copied().collect(),
            labels_of: labels_of.iter().map(|of| of.parse().expect("labels of a pattern")).collect(),
            origin: node.member,
            // Nobody, where nobody's data is in it.
            subjects: if personal { [node.member].into() } else { BTreeSet::new() },
            provenance: Provenance::default(),
            licence: "Apache-2.0".into(),
            crossing: None,
        };
        let model = import(&dir, request, &node.manifests(), &mut |_, _| {}).expect("imported");
        let reply = self.call(at, AdminCall::Import(Box::new(model.clone())));
        assert!(matches!(reply, Reply::Imported(_)), "{reply:?}");
        model
    }

    /// Imports and offers to everybody a public model that `make` writes.
    pub(crate) fn offer(&mut self, at: usize, make: impl FnOnce(&Path)) -> (StatementId, LocalModel) {
        let model = self.import(at, &[Label::Public], make);
        (self.publish(at, &model), model)
    }

    /// As [`World::offer`], of what may be offered on.
    pub(crate) fn offer_onward(&mut self, at: usize, make: impl FnOnce(&Path)) -> (StatementId, LocalModel) {
        let model = self.import(at, &[Label::Public], make);
        (self.publish_as(at, &model, true), model)
    }

    pub(crate) fn publish(&mut self, at: usize, model: &LocalModel) -> StatementId {
        self.publish_as(at, model, false)
    }

    fn publish_as(&mut self, at: usize, model: &LocalModel, onward: bool) -> StatementId {
        let terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward };
        let draft = OfferDraft { name: model.name.clone(), compute: None, terms, ttl_ms: 30 * DAY };
        let reply = self.call(at, AdminCall::Publish(draft));
        self.spread();
        match reply {
            Reply::Published(view) => view.offer,
            other => panic!("{other:?}"),
        }
    }

    /// A directory that nothing was pulled to yet.
    pub(crate) fn fresh(&mut self, at: usize) -> PathBuf {
        self.numbers += 1;
        self.nodes[at].home.path().join(format!("pulled/{}/model", self.numbers))
    }

    #[track_caller]
    pub(crate) fn pull(&mut self, at: usize, offer: StatementId, to: &Path) -> CrossingId {
        self.pull_from(at, offer, to, 1, false)
    }

    /// A pull from up to so many peers, and whether what comes is offered on.
    #[track_caller]
    pub(crate) fn pull_from(&mut self, at: usize, offer: StatementId, to: &Path, sources: u32, onward: bool) -> CrossingId {
        let call = PullCall { sources, onward, ..Self::call_for(offer, to) };
        self.order(at, call)
    }

    /// A pull of what fits these patterns.
    #[track_caller]
    pub(crate) fn pull_part(&mut self, at: usize, offer: StatementId, to: &Path, tensors: &[&str]) -> CrossingId {
        let tensors = tensors.iter().map(|pattern| (*pattern).to_owned()).collect();
        let call = PullCall { tensors, ..Self::call_for(offer, to) };
        self.order(at, call)
    }

    fn call_for(offer: StatementId, to: &Path) -> PullCall {
        PullCall {
            offer: offer.to_string(),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            to: to.to_owned(),
            sources: 1,
            onward: false,
            tensors: Vec::new(),
            read_meanwhile: false,
        }
    }

    #[track_caller]
    fn order(&mut self, at: usize, call: PullCall) -> CrossingId {
        match self.call(at, AdminCall::Pull(call)) {
            Reply::Pulling { crossing } => crossing,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn view(&mut self, at: usize, crossing: CrossingId) -> Option<CrossingView> {
        match self.call(at, AdminCall::Crossing(crossing)) {
            Reply::Crossing(view) => Some(*view),
            _ => None,
        }
    }

    pub(crate) fn running(&mut self, at: usize) -> u32 {
        match self.call(at, AdminCall::Status) {
            Reply::Status(status) => status.crossings_running,
            other => panic!("{other:?}"),
        }
    }

    /// The next report of any node that is not paused.
    async fn next(&mut self) -> (usize, BulkEvent) {
        let paused = &self.paused;
        let awake = self.nodes.iter_mut().enumerate().filter(|(at, _)| !paused.contains(at));
        let mut reports: Vec<_> = awake.map(|(at, node)| (at, Box::pin(node.bulk.next()))).collect();
        poll_fn(|context| {
            for (at, report) in &mut reports {
                if let Poll::Ready(event) = report.as_mut().poll(context) {
                    return Poll::Ready((*at, event));
                }
            }
            Poll::Pending
        })
        .await
    }

    fn hear(&mut self, at: usize, event: BulkEvent) {
        self.nodes[at].heard.push(format!("{event:?}").chars().take(200).collect());
        self.tell(at, Input::Bulk(event));
        self.spread();
    }

    /// Runs all nodes until `done`.
    pub(crate) async fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let work = async {
            while !done(self) {
                let (at, event) = self.next().await;
                self.hear(at, event);
            }
        };
        let finished = timeout(HANG, work).await;
        let heard = || self.nodes.iter().map(|node| node.heard.clone()).collect::<Vec<_>>();
        assert!(finished.is_ok(), "it hangs: {what}: {:#?}", heard());
    }

    /// Runs all nodes until a script of the test has come to its end.
    pub(crate) async fn during<T>(&mut self, script: impl Future<Output = T>) -> T {
        let mut script = pin!(script);
        let work = async {
            loop {
                tokio::select! {
                    outcome = &mut script => return outcome,
                    (at, event) = self.next() => self.hear(at, event),
                }
            }
        };
        match timeout(HANG, work).await {
            Ok(outcome) => outcome,
            Err(_) => panic!("it hangs: {:#?}", self.nodes.iter().map(|node| &node.heard).collect::<Vec<_>>()),
        }
    }

    /// Runs all nodes until this one has verified some of what it pulls.
    pub(crate) async fn some_progress(&mut self, at: usize) {
        let some = |world: &mut Self| world.nodes[at].heard.iter().any(|report| report.starts_with("Progressed"));
        self.run_until("some progress", some).await;
    }

    /// Runs all nodes until the crossing is over at this one.
    pub(crate) async fn settle(&mut self, at: usize, crossing: CrossingId) -> CrossingView {
        let over = |world: &mut Self| world.view(at, crossing).is_some_and(|view| view.state.is_final());
        self.run_until(&format!("crossing at {at}"), over).await;
        self.view(at, crossing).expect("known")
    }

    /// A pull that goes well: the bytes are those of the model, both ledgers end with the same receipt, and it counts what
    /// the exporter sent.
    pub(crate) async fn pull_well(&mut self, at: usize, offer: StatementId, model: &LocalModel, to: &Path) -> Receipt {
        let (sent, received) = (self.nodes[EXPORTER].sent(), self.nodes[at].received());
        let crossing = self.pull(at, offer, to);
        let view = self.settle(at, crossing).await;
        assert_eq!(view.state, CrossingState::Done, "{:?} {:?}", view.problem, self.nodes[at].heard);
        assert_eq!(self.settle(EXPORTER, crossing).await.state, CrossingState::Done);
        assert!(tree(&model.path) == tree(to), "the files are other files");
        let beside: Vec<_> = std::fs::read_dir(to.parent().expect("inside")).expect("there").collect();
        assert_eq!(beside.len(), 1, "nothing is left beside it: {beside:?}");
        let receipt = self.receipt(EXPORTER, crossing);
        assert_eq!(receipt.bytes(), self.receipt(at, crossing).bytes(), "both keep the same");
        assert_eq!(receipt.signers().len(), 2);
        let receipt = receipt.body().clone();
        assert_eq!(self.nodes[EXPORTER].sent() - sent, receipt.bytes, "what was sent");
        assert_eq!(self.nodes[at].received() - received, receipt.bytes, "what was received");
        assert_eq!(receipt.bytes + receipt.held_bytes, model.bytes);
        assert_eq!((view.bytes, view.total.max(receipt.bytes)), (receipt.bytes, view.total));
        receipt
    }

    pub(crate) fn receipt(&self, at: usize, crossing: CrossingId) -> Signed<Receipt> {
        let settled = self.nodes[at].entries.iter().find_map(|entry| match &entry.record {
            Record::Settled { crossing: of, receipt } if *of == crossing => Some(receipt),
            _ => None,
        });
        Signed::open(settled.expect("settled"), self.alliance.id).expect("a receipt")
    }
}

fn start_bulk(key: &SecretKey, home: &Path, deadlines: Deadlines, lanes: usize) -> Bulk {
    let listen = "127.0.0.1:0".parse().expect("an address");
    Bulk::start(key, BulkConfig { deadlines, lanes, ..BulkConfig::new(listen, home.join("manifests")) })
        .expect("a free port")
}

/// A daemon that stops waits for its threads. Here they may still be at a group, and hold the lock of its directory.
fn wait_for_writers(pulled: &Path) {
    for parent in std::fs::read_dir(pulled).into_iter().flatten() {
        for entry in std::fs::read_dir(parent.expect("read").path()).expect("read") {
            if let Ok(lock) = std::fs::File::open(entry.expect("read").path().join("lock")) {
                lock.lock().expect("locked");
            }
        }
    }
}

/// Nothing stands under the final name.
#[track_caller]
pub(crate) fn assert_absent(to: &Path) {
    assert!(std::fs::symlink_metadata(to).is_err(), "something stands at `{}`: {:?}", to.display(), tree(to).keys());
}
