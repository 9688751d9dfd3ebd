//! A few nodes in memory, each a real `Core` with its ledger and catalogue, and a clock that only the test moves.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use alliance_protocol::{
    authority::{Ban, Expert, LawPack, Status},
    charter::WitnessRule,
    core::{
        BulkEvent, CatalogueChange, Config, Core, Effects, Input, Keep, MeshEvent, Origin, RequestId, StartError,
        admin::{AdminCall, CrossingState, CrossingView, LocalModel, NodeStatus, OfferDraft, PullCall, Reply},
    },
    envelope::Signed,
    gate::{Pack, PackOwner},
    id::{CrossingId, ManifestId, StatementId},
    key::{PublicKey, SecretKey},
    ledger::{Entry, Record},
    manifest::Part,
    offer::{Provenance, Terms},
    time::{Timestamp, Validity},
    vocabulary::{Artefact, Country, Label, Purpose, Use},
};

use crate::{
    alliance::{Alliance, DAWN, STATUS_MS, accreditation_of, country, key, status_of},
    invariants::Invariants,
    routes::Wires,
    tabled_gate::TabledGate,
};

/// Bytes of every model in a test.
pub(crate) const MODEL_BYTES: u64 = 1_000;

pub(crate) struct Cluster {
    connections: u32,
    pub(crate) alliance: Alliance,
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<Node>,
    pub(crate) wires: Wires,
    in_force: BTreeMap<Country, InForce>,
    invariants: Invariants,
    calls: u64,
}

/// One node and what outlives its daemon.
pub(crate) struct Node {
    pub(crate) seed: u8,
    pub(crate) member: Country,
    pub(crate) organisation: String,
    pub(crate) accreditation: Vec<u8>,
    /// None while the daemon is down.
    pub(crate) core: Option<Core>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) catalogue: BTreeMap<StatementId, Vec<u8>>,
    /// What it has signed of others' ledgers, and others of its own.
    pub(crate) held: BTreeMap<PublicKey, String>,
    pub(crate) witnessed: Option<String>,
    /// The accreditations of those who signed that.
    pub(crate) witnesses: Vec<Vec<u8>>,
    pub(crate) house: Option<Pack>,
    pub(crate) approvers: BTreeSet<PublicKey>,
    pub(crate) baseline: Pack,
    /// The signed binding of the key with which it signs models.
    pub(crate) model_key: Option<Vec<u8>>,
    /// A test speaks in this node's name, so that its ledger says nothing about what it did.
    pub(crate) lies: bool,
    starts: u8,
}

/// What a member's authority has said so far.
struct InForce {
    serial: u64,
    pack: Signed<LawPack>,
    revoked: BTreeSet<PublicKey>,
    bans: BTreeSet<Ban>,
    experts: Vec<Expert>,
    grace_ms: u64,
}

impl Node {
    pub(crate) fn key(&self) -> SecretKey {
        key(self.seed)
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.key().public()
    }

    /// How many records of the ledger are of this sort.
    pub(crate) fn count(&self, sort: impl Fn(&Record) -> bool) -> usize {
        self.entries.iter().filter(|entry| sort(&entry.record)).count()
    }

    pub(crate) fn last(&self) -> &Record {
        &self.entries.last().expect("a ledger begins with the charter").record
    }
}

impl Cluster {
    /// Nodes of these members and organisations, connected, and every member's law in force everywhere.
    pub(crate) fn new(nodes: &[(&str, &str)]) -> Self {
        Self::over(1, nodes)
    }

    /// As [`Cluster::new`]; each pulls what is large over so many connections.
    pub(crate) fn over(connections: u32, nodes: &[(&str, &str)]) -> Self {
        Self::of(Alliance::found(), connections, nodes)
    }

    /// As [`Cluster::new`]; ledgers are witnessed as the rule demands.
    pub(crate) fn witnessed(rule: WitnessRule, nodes: &[(&str, &str)]) -> Self {
        Self::of(Alliance::found_under(rule), 1, nodes)
    }

    fn of(alliance: Alliance, connections: u32, nodes: &[(&str, &str)]) -> Self {
        let mut cluster = Self {
            now: DAWN,
            connections,
            nodes: Vec::new(),
            wires: Wires::default(),
            in_force: BTreeMap::new(),
            invariants: Invariants::default(),
            calls: 0,
            alliance,
        };
        for (member, organisation) in nodes {
            cluster.join(member, organisation);
        }
        for member in crate::alliance::MEMBERS {
            cluster.enact(country(member), "");
        }
        cluster
    }

    /// One exporter in Brazil, one importer in India.
    pub(crate) fn pair() -> Self {
        Self::new(&[("BR", "usp"), ("IN", "iitb")])
    }

    /// A new node, connected to all others.
    pub(crate) fn join(&mut self, member: &str, organisation: &str) -> usize {
        let at = self.accredit(member, organisation);
        self.restart(at);
        at
    }

    /// A new node, connected to these others alone.
    pub(crate) fn join_beside(&mut self, member: &str, organisation: &str, others: &[usize]) -> usize {
        let at = self.accredit(member, organisation);
        self.try_start(at).expect("starts");
        for other in others {
            self.connect(at, *other);
        }
        self.run();
        at
    }

    /// A new node that does not run yet.
    fn accredit(&mut self, member: &str, organisation: &str) -> usize {
        let at = self.nodes.len();
        let seed = 100 + u8::try_from(at).expect("few nodes");
        let member = country(member);
        let accreditation = accreditation_of(member, key(seed).public(), organisation);
        self.nodes.push(Node {
            seed,
            member,
            organisation: organisation.into(),
            accreditation: self.alliance.spoken(member, &accreditation).bytes().to_vec(),
            core: None,
            entries: Vec::new(),
            catalogue: BTreeMap::new(),
            held: BTreeMap::new(),
            witnessed: None,
            witnesses: Vec::new(),
            house: None,
            model_key: None,
            approvers: BTreeSet::new(),
            baseline: Pack::new(PackOwner::Alliance, 1, "", ""),
            lies: false,
            starts: 0,
        });
        at
    }

    /// Starts the daemon from what it left behind.
    pub(crate) fn try_start(&mut self, at: usize) -> Result<(), StartError> {
        let node = &mut self.nodes[at];
        node.starts += 1;
        let config = Config {
            version: "test".into(),
            model_key: node.model_key.clone(),
            mesh_addresses: vec![format!("/memory/{at}")],
            bulk_addresses: vec![format!("10.0.0.{at}:4001")],
            baseline: node.baseline.clone(),
            house: node.house.clone(),
            approvers: node.approvers.clone(),
            connections: self.connections,
            connection_bytes: MODEL_BYTES / 4,
            seed: *blake3::hash(&[node.seed, node.starts]).as_bytes(),
        };
        let origin = Origin {
            key: node.key(),
            charter: self.alliance.charter.clone(),
            accreditation: node.accreditation.clone(),
            entries: node.entries.clone(),
            catalogue: node.catalogue.values().cloned().collect(),
            held: node.held.values().cloned().collect(),
            witnessed: node.witnessed.clone(),
            witnesses: node.witnesses.clone(),
        };
        let (core, effects) = Core::start(origin, config, self.now, &TabledGate)?;
        node.core = Some(core);
        self.commit(at, &effects);
        self.route(at, effects);
        Ok(())
    }

    /// Starts the daemon and connects it to all that are up.
    pub(crate) fn restart(&mut self, at: usize) {
        self.try_start(at).expect("starts from what it left behind");
        for other in 0..self.nodes.len() {
            if other != at {
                self.connect(at, other);
            }
        }
        self.run();
    }

    /// Hands an input to a node, makes its effects last, checks the invariants; carries nothing out.
    pub(crate) fn tell(&mut self, at: usize, input: Input) -> Effects {
        let core = self.nodes[at].core.as_mut().expect("the daemon is up");
        let effects = core.handle(input, self.now, &TabledGate);
        self.commit(at, &effects);
        effects
    }

    pub(crate) fn tell_mesh(&mut self, at: usize, event: MeshEvent) -> Effects {
        self.tell(at, Input::Mesh(event))
    }

    pub(crate) fn tell_bulk(&mut self, at: usize, event: BulkEvent) -> Effects {
        self.tell(at, Input::Bulk(event))
    }

    fn commit(&mut self, at: usize, effects: &Effects) {
        let now = self.now;
        let node = &mut self.nodes[at];
        node.entries.extend(effects.persist.iter().map(|record| Entry { at: now, record: record.clone() }));
        for kept in &effects.keep {
            match kept {
                Keep::Held { log, note } => drop(node.held.insert(*log, note.clone())),
                Keep::Witnessed { note, witnesses } => {
                    node.witnessed = Some(note.clone());
                    node.witnesses = witnesses.iter().map(|(_, accreditation)| accreditation.clone()).collect();
                }
            }
        }
        for change in &effects.catalogue {
            match change {
                CatalogueChange::Put { id, bytes } => drop(node.catalogue.insert(*id, bytes.clone())),
                CatalogueChange::Remove { id } => drop(node.catalogue.remove(id)),
            }
        }
        self.invariants.check(&self.nodes, at, effects);
    }

    /// Asks in the operator's name and carries out what follows, but not what others answer.
    pub(crate) fn call(&mut self, at: usize, call: AdminCall) -> Reply {
        self.calls += 1;
        let mut effects = self.tell(at, Input::Admin(RequestId(self.calls), call));
        let replies = std::mem::take(&mut effects.replies);
        self.route(at, effects);
        match &replies[..] {
            [(id, reply)] if id.0 == self.calls => reply.clone(),
            other => panic!("one call, one reply: {other:?}"),
        }
    }

    pub(crate) fn adopt(&mut self, at: usize, statements: &[&[u8]]) -> Reply {
        let statements = statements.iter().map(|bytes| bytes.to_vec().into()).collect();
        self.call(at, AdminCall::Adopt(statements))
    }

    /// The authority publishes a law of the next epoch and a status that puts it into force; the first node that is up
    /// hears of it first.
    pub(crate) fn enact(&mut self, member: Country, law: &str) {
        let epoch = self.in_force.get(&member).map_or(1, |known| known.pack.body().epoch + 1);
        let pack = self.alliance.law(member, epoch, law);
        let known = self.in_force.remove(&member);
        let next = match known {
            Some(known) => InForce { pack: pack.clone(), ..known },
            None => InForce {
                serial: 0,
                pack: pack.clone(),
                revoked: BTreeSet::new(),
                bans: BTreeSet::new(),
                experts: Vec::new(),
                grace_ms: 0,
            },
        };
        self.in_force.insert(member, next);
        let first = self.first_up();
        assert!(matches!(self.adopt(first, &[pack.bytes()]), Reply::Adopted { accepted: 1, .. }), "the pack is adopted");
        self.run();
        self.renew(member);
    }

    /// The status that the authority would publish next.
    pub(crate) fn next_status(&self, member: Country) -> Status {
        let known = &self.in_force[&member];
        Status {
            validity: Validity::lasting_ms(self.now, STATUS_MS),
            revoked: known.revoked.clone(),
            bans: known.bans.clone(),
            experts: known.experts.clone(),
            grace_ms: known.grace_ms,
            ..status_of(member, known.serial + 1, &known.pack)
        }
    }

    /// The law pack that is in force.
    pub(crate) fn pack(&self, member: Country) -> &Signed<LawPack> {
        &self.in_force[&member].pack
    }

    /// The authority publishes a new status.
    pub(crate) fn renew(&mut self, member: Country) {
        let status = self.alliance.status(&self.next_status(member));
        self.in_force.get_mut(&member).expect("a member").serial += 1;
        let first = self.first_up();
        let reply = self.adopt(first, &[status.bytes()]);
        assert!(matches!(reply, Reply::Adopted { accepted: 1, .. }), "the status is adopted: {reply:?}");
        self.run();
    }

    pub(crate) fn revoke(&mut self, member: Country, node: PublicKey) {
        self.in_force.get_mut(&member).expect("a member").revoked.insert(node);
        self.renew(member);
    }

    pub(crate) fn ban_in_status(&mut self, member: Country, ban: Ban) {
        self.in_force.get_mut(&member).expect("a member").bans.insert(ban);
        self.renew(member);
    }

    /// The authority names those who approve for it, in its next status.
    pub(crate) fn name_experts(&mut self, member: Country, experts: &[(&SecretKey, &str)]) {
        let mut experts: Vec<_> =
            experts.iter().map(|(key, name)| Expert { key: key.public(), name: (*name).to_owned() }).collect();
        experts.sort();
        self.in_force.get_mut(&member).expect("a member").experts = experts;
        self.renew(member);
    }

    /// The authority lets what runs outlast its statuses for so long, from its next one on.
    pub(crate) fn grant_grace(&mut self, member: Country, ms: u64) {
        self.in_force.get_mut(&member).expect("a member").grace_ms = ms;
        self.renew(member);
    }

    fn first_up(&self) -> usize {
        self.nodes.iter().position(|node| node.core.is_some()).expect("a node is up")
    }

    /// Moves the clock and wakes nobody.
    pub(crate) fn let_pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
    }

    /// Moves the clock to an instant, waking each node whenever it asked to be woken.
    pub(crate) fn advance_to(&mut self, until: Timestamp) {
        loop {
            let up = self.nodes.iter().filter_map(|node| node.core.as_ref());
            let wake = up.map(Core::next_wake).min().unwrap_or(until);
            self.now = self.now.max(wake.min(until));
            self.tick();
            if self.now >= until {
                return;
            }
        }
    }

    /// Wakes every node that is up, once.
    pub(crate) fn tick(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].core.is_some() {
                let effects = self.tell(at, Input::Tick);
                self.route(at, effects);
            }
        }
        self.run();
    }

    pub(crate) fn status(&mut self, at: usize) -> NodeStatus {
        match self.call(at, AdminCall::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn view(&mut self, at: usize, crossing: CrossingId) -> CrossingView {
        match self.call(at, AdminCall::Crossing(crossing)) {
            Reply::Crossing(view) => *view,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn state(&mut self, at: usize, crossing: CrossingId) -> CrossingState {
        self.view(at, crossing).state
    }

    /// Whether an offer stands at a node.
    pub(crate) fn knows(&mut self, at: usize, offer: StatementId) -> bool {
        match self.call(at, AdminCall::Offers) {
            Reply::Offers(offers) => offers.iter().any(|view| view.offer == offer),
            other => panic!("{other:?}"),
        }
    }

    /// Imports a model with these labels at a node and offers it to everybody; everybody hears of it.
    pub(crate) fn offer(&mut self, at: usize, labels: &[Label]) -> StatementId {
        let model = self.model(at, labels);
        self.offer_of(at, model, OPEN)
    }

    pub(crate) fn offer_of(&mut self, at: usize, model: LocalModel, terms: Terms) -> StatementId {
        let name = model.name.clone();
        let reply = self.call(at, AdminCall::Import(Box::new(model)));
        assert!(matches!(reply, Reply::Imported(_)), "{reply:?}");
        let draft = OfferDraft { name, compute: None, terms, ttl_ms: 30 * crate::alliance::DAY };
        let reply = self.call(at, AdminCall::Publish(draft));
        self.run();
        match reply {
            Reply::Published(view) => view.offer,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn model(&self, at: usize, labels: &[Label]) -> LocalModel {
        let node = &self.nodes[at];
        LocalModel {
            name: format!("{}/model", node.organisation),
            manifest: ManifestId([7; 32]),
            artefact: Artefact::Weights,
            labels: labels.iter().copied().collect(),
            parts: Part::alone(labels.iter().copied().collect(), 1, MODEL_BYTES),
            origin: node.member,
            subjects: labels.iter().filter(|label| label.is_personal()).map(|_| node.member).collect(),
            provenance: Provenance::default(),
            licence: "Apache-2.0".into(),
            bytes: MODEL_BYTES,
            files: 1,
            tensors: 1,
            path: PathBuf::from("/models/model"),
            crossing: None,
            signed: None,
        }
    }

    /// Begins a pull for research, to a directory of its own.
    pub(crate) fn pull(&mut self, at: usize, offer: StatementId) -> CrossingId {
        let call = self.pull_call(offer);
        self.pull_with(at, call)
    }

    pub(crate) fn pull_call(&mut self, offer: StatementId) -> PullCall {
        self.calls += 1;
        PullCall {
            offer: offer.to_string(),
            purpose: Purpose::Research,
            use_: Use::Inference,
            circumstances: BTreeSet::new(),
            safeguards: Vec::new(),
            to: PathBuf::from(format!("/pulled/{}", self.calls)),
            sources: 1,
            onward: false,
            tensors: Vec::new(),
            read_meanwhile: false,
        }
    }

    pub(crate) fn pull_with(&mut self, at: usize, call: PullCall) -> CrossingId {
        match self.call(at, AdminCall::Pull(call)) {
            Reply::Pulling { crossing } => crossing,
            other => panic!("{other:?}"),
        }
    }
}

/// Terms that add nothing to the law.
pub(crate) const OPEN: Terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: false };

/// Terms that besides let an artefact be offered on.
pub(crate) const ONWARD: Terms = Terms { purposes: BTreeSet::new(), to: BTreeSet::new(), onward: true };
