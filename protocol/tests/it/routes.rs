//! The wires of a test: an honest mesh and an honest bulk plane, one queue for all, and hands to reach into it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
};

use alliance_protocol::{
    core::{
        AskId, BulkEvent, BulkFailure, BulkOrder, Effects, Input, Judgement, MeshEvent, MeshOrder, MessageId, PartTaken,
        SyncAnswer, SyncId, SyncRequest, WitnessAnswer, WitnessAsk,
    },
    id::{CrossingId, ManifestId, SessionBinding},
    key::PublicKey,
};

use crate::cluster::{Cluster, MODEL_BYTES};

/// What each pull of a part brings here.
pub(crate) fn part_taken() -> PartTaken {
    PartTaken { manifest: ManifestId([77; 32]), bytes: 120, files: 1, tensors: 3, left_out: 1 }
}

/// Something on its way to a node.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) to: usize,
    pub(crate) said: Said,
}

/// What is said, in a form that a test can copy and alter.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    Introduced {
        from: PublicKey,
        record: Vec<u8>,
    },
    Gossiped {
        from: PublicKey,
        bytes: Vec<u8>,
    },
    SyncAsked {
        from: PublicKey,
        request: SyncRequest,
    },
    SyncAnswered {
        from: PublicKey,
        answer: SyncAnswer,
    },
    WitnessAsked {
        from: PublicKey,
        number: u64,
        ask: WitnessAsk,
    },
    WitnessAnswered {
        number: u64,
        answer: Option<WitnessAnswer>,
    },
    Deleted {
        crossing: CrossingId,
        problem: Option<String>,
    },
    Reached {
        crossing: CrossingId,
        session: SessionBinding,
    },
    Asked {
        importer: usize,
        crossing: CrossingId,
        peer: PublicKey,
        session: SessionBinding,
        request: Vec<u8>,
    },
    Answered {
        crossing: CrossingId,
        answer: Vec<u8>,
    },
    Received {
        crossing: CrossingId,
        bytes: u64,
        held_bytes: u64,
        part: Option<PartTaken>,
    },
    /// The receipt is presented once this is reported.
    Delivered {
        crossing: CrossingId,
        receipt: Vec<u8>,
    },
    ReceiptOffered {
        ask: AskId,
        bytes: u64,
        receipt: Vec<u8>,
    },
    Settled {
        crossing: CrossingId,
        receipt: Vec<u8>,
    },
    ServeFailed {
        ask: AskId,
        bytes: u64,
        failure: BulkFailure,
    },
    PullFailed {
        crossing: CrossingId,
        failure: BulkFailure,
    },
}

impl Said {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Introduced { .. } => "introduced",
            Self::Gossiped { .. } => "gossiped",
            Self::SyncAsked { .. } => "sync asked",
            Self::SyncAnswered { .. } => "sync answered",
            Self::WitnessAsked { .. } => "witness asked",
            Self::WitnessAnswered { .. } => "witness answered",
            Self::Deleted { .. } => "deleted",
            Self::Reached { .. } => "reached",
            Self::Asked { .. } => "asked",
            Self::Answered { .. } => "answered",
            Self::Received { .. } => "received",
            Self::Delivered { .. } => "delivered",
            Self::ReceiptOffered { .. } => "receipt offered",
            Self::Settled { .. } => "settled",
            Self::ServeFailed { .. } => "serve failed",
            Self::PullFailed { .. } => "pull failed",
        }
    }

    /// The bytes that a liar on the wire would alter.
    pub(crate) fn payload(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            Self::Introduced { record: bytes, .. }
            | Self::Gossiped { bytes, .. }
            | Self::Asked { request: bytes, .. }
            | Self::Answered { answer: bytes, .. }
            | Self::ReceiptOffered { receipt: bytes, .. }
            | Self::Settled { receipt: bytes, .. } => Some(bytes),
            Self::SyncAsked { .. }
            | Self::SyncAnswered { .. }
            | Self::WitnessAsked { .. }
            | Self::WitnessAnswered { .. }
            | Self::Deleted { .. }
            | Self::Reached { .. }
            | Self::Received { .. }
            | Self::Delivered { .. }
            | Self::ServeFailed { .. }
            | Self::PullFailed { .. } => None,
        }
    }
}

#[derive(Default)]
pub(crate) struct Wires {
    pub(crate) queue: VecDeque<Parcel>,
    pub(crate) connected: BTreeSet<(usize, usize)>,
    /// Who expelled whom.
    pub(crate) expelled: BTreeSet<(usize, usize)>,
    admitted: BTreeSet<(usize, usize)>,
    records: BTreeMap<usize, Vec<u8>>,
    messages: BTreeMap<MessageId, (PublicKey, Vec<u8>)>,
    syncs: BTreeMap<SyncId, PublicKey>,
    questions: BTreeMap<SyncId, (PublicKey, u64)>,
    lines: BTreeMap<AskId, Line>,
    reached: BTreeMap<(usize, CrossingId), (usize, SessionBinding)>,
    /// Where a pull writes, and how much came by it.
    places: BTreeMap<(usize, CrossingId), PathBuf>,
    /// Pulls of a part.
    partial: BTreeSet<(usize, CrossingId)>,
    moved: BTreeMap<(usize, CrossingId), u64>,
    /// Of each hundred messages of the mesh so many are lost.
    pub(crate) lost_percent: u8,
    /// Nodes stay connected to whom the test connects them.
    pub(crate) sparse: bool,
    /// Numbers asks, messages, syncs and sessions.
    drawn: u64,
}

/// One bulk stream between two nodes.
struct Line {
    importer: usize,
    exporter: usize,
    crossing: CrossingId,
    released: bool,
}

/// Parcels after which a test is taken to run in circles.
const PARCELS_MAX: usize = 20_000;

impl Cluster {
    pub(crate) fn node_of(&self, key: PublicKey) -> Option<usize> {
        self.nodes.iter().position(|node| node.public() == key)
    }

    fn up(&self, at: usize) -> bool {
        self.nodes[at].core.is_some()
    }

    fn draw(&mut self) -> u64 {
        self.wires.drawn += 1;
        self.wires.drawn
    }

    pub(crate) fn draw_session(&mut self) -> SessionBinding {
        SessionBinding(*blake3::hash(&self.draw().to_be_bytes()).as_bytes())
    }

    pub(crate) fn draw_ask(&mut self) -> AskId {
        AskId(self.draw())
    }

    fn send(&mut self, to: usize, said: Said) {
        let may_be_lost = matches!(said, Said::Gossiped { .. } | Said::SyncAsked { .. } | Said::SyncAnswered { .. });
        if may_be_lost && self.wires.lost_percent > 0 {
            // The same ones in each run.
            let [byte, ..] = *blake3::hash(&self.draw().to_be_bytes()).as_bytes();
            if u32::from(byte) * 100 < 256 * u32::from(self.wires.lost_percent) {
                return;
            }
        }
        self.wires.queue.push_back(Parcel { to, said });
    }

    /// Connects two nodes that are up; each presents its record.
    pub(crate) fn connect(&mut self, a: usize, b: usize) {
        let expelled = [(a, b), (b, a)].iter().any(|pair| self.wires.expelled.contains(pair));
        if !self.up(a) || !self.up(b) || expelled || !self.wires.connected.insert((a.min(b), a.max(b))) {
            return;
        }
        for (me, other) in [(a, b), (b, a)] {
            let peer = self.nodes[other].public();
            let effects = self.tell_mesh(me, MeshEvent::Connected { peer });
            self.route(me, effects);
            if let Some(record) = self.wires.records.get(&other).cloned() {
                self.send(me, Said::Introduced { from: peer, record });
            }
        }
    }

    pub(crate) fn disconnect(&mut self, a: usize, b: usize) {
        if !self.wires.connected.remove(&(a.min(b), a.max(b))) {
            return;
        }
        for (me, other) in [(a, b), (b, a)] {
            self.wires.admitted.remove(&(me, other));
            if self.up(me) {
                let peer = self.nodes[other].public();
                let effects = self.tell_mesh(me, MeshEvent::Disconnected { peer });
                self.route(me, effects);
            }
        }
    }

    /// The daemon dies: what was on its way to it is lost, and its peers lose their connections.
    pub(crate) fn crash(&mut self, at: usize) {
        self.nodes[at].core = None;
        let asks = |said: &Said| matches!(said, Said::Asked { importer, .. } if *importer == at);
        self.wires.queue.retain(|parcel| parcel.to != at && !asks(&parcel.said));
        for other in 0..self.nodes.len() {
            self.disconnect(at, other);
        }
        let lost = || BulkFailure::Lost("reset by peer".into());
        let lines = std::mem::take(&mut self.wires.lines);
        for (ask, line) in lines {
            if line.importer == at {
                self.send(line.exporter, Said::ServeFailed { ask, bytes: 0, failure: lost() });
            } else if line.exporter != at {
                self.wires.lines.insert(ask, line);
            }
        }
        for ((importer, crossing), (exporter, session)) in std::mem::take(&mut self.wires.reached) {
            if exporter == at {
                self.send(importer, Said::PullFailed { crossing, failure: lost() });
            } else if importer != at {
                self.wires.reached.insert((importer, crossing), (exporter, session));
            }
        }
        self.wires.records.remove(&at);
    }

    /// Every stream goes silent: neither end hears of the other again.
    pub(crate) fn silence_streams(&mut self) {
        self.wires.lines.clear();
        self.wires.reached.clear();
    }

    /// Delivers everything until nothing is on its way.
    pub(crate) fn run(&mut self) {
        for _ in 0..PARCELS_MAX {
            let Some(parcel) = self.wires.queue.pop_front() else { return };
            self.deliver(parcel);
        }
        panic!("the nodes talk in circles");
    }

    /// Delivers everything up to the next parcel of this name, and takes that one off the wire.
    pub(crate) fn run_to(&mut self, name: &str) -> Parcel {
        for _ in 0..PARCELS_MAX {
            let parcel = self.wires.queue.pop_front().unwrap_or_else(|| panic!("nothing was `{name}`"));
            if parcel.said.name() == name {
                return parcel;
            }
            self.deliver(parcel);
        }
        panic!("the nodes talk in circles");
    }

    pub(crate) fn deliver(&mut self, parcel: Parcel) {
        let at = parcel.to;
        if !self.up(at) {
            return;
        }
        let delivered = match &parcel.said {
            Said::Delivered { crossing, receipt } => self.line_of(at, *crossing).map(|line| (line, receipt.clone())),
            _ => None,
        };
        let moved = match &parcel.said {
            Said::Delivered { crossing, .. } => self.wires.moved.get(&(at, *crossing)).copied().unwrap_or_default(),
            _ => 0,
        };
        if let Said::Received { crossing, bytes, .. } = parcel.said {
            self.wires.moved.insert((at, crossing), bytes);
        }
        let input = self.input(parcel);
        let effects = self.tell(at, input);
        self.route(at, effects);
        if let Some(((ask, exporter), receipt)) = delivered {
            self.send(exporter, Said::ReceiptOffered { ask, bytes: moved, receipt });
        }
    }

    /// The event that the node's mesh or bulk plane would report.
    pub(crate) fn input(&mut self, Parcel { to, said }: Parcel) -> Input {
        let mesh = Input::Mesh;
        let bulk = Input::Bulk;
        match said {
            Said::Introduced { from: peer, record } => mesh(MeshEvent::Introduced { peer, record }),
            Said::Gossiped { from, bytes } => {
                let message = MessageId(self.draw());
                self.wires.messages.insert(message, (from, bytes.clone()));
                mesh(MeshEvent::Gossiped { message, from, bytes })
            }
            Said::SyncAsked { from: peer, request } => {
                let sync = SyncId(self.draw());
                self.wires.syncs.insert(sync, peer);
                mesh(MeshEvent::SyncAsked { sync, peer, request })
            }
            Said::SyncAnswered { from: peer, answer } => mesh(MeshEvent::SyncAnswered { peer, answer }),
            Said::WitnessAsked { from: peer, number, ask } => {
                let question = SyncId(self.draw());
                self.wires.questions.insert(question, (peer, number));
                mesh(MeshEvent::WitnessAsked { question, peer, ask })
            }
            Said::WitnessAnswered { number, answer } => mesh(MeshEvent::WitnessAnswered { number, answer }),
            Said::Deleted { crossing, problem } => bulk(BulkEvent::Deleted { crossing, problem }),
            Said::Reached { crossing, session } => bulk(BulkEvent::Reached { crossing, session }),
            Said::Asked { importer, crossing, peer, session, request } => {
                let ask = self.draw_ask();
                self.wires.lines.insert(ask, Line { importer, exporter: to, crossing, released: false });
                bulk(BulkEvent::Asked { ask, peer, session, request })
            }
            Said::Answered { crossing, answer } => bulk(BulkEvent::Answered { crossing, answer }),
            Said::Received { crossing, bytes, held_bytes, part } => {
                bulk(BulkEvent::Received { crossing, bytes, held_bytes, part })
            }
            Said::Delivered { crossing, .. } => bulk(BulkEvent::Delivered { crossing }),
            Said::ReceiptOffered { ask, bytes, receipt } => bulk(BulkEvent::ReceiptOffered { ask, bytes, receipt }),
            Said::Settled { crossing, receipt } => bulk(BulkEvent::Settled { crossing, receipt }),
            Said::ServeFailed { ask, bytes, failure } => bulk(BulkEvent::ServeFailed { ask, bytes, failure }),
            Said::PullFailed { crossing, failure } => bulk(BulkEvent::PullFailed { crossing, failure }),
        }
    }

    /// Carries out what a node ordered.
    pub(crate) fn route(&mut self, at: usize, effects: Effects) {
        for order in effects.mesh {
            self.route_mesh(at, order);
        }
        for order in effects.bulk {
            self.route_bulk(at, order);
        }
    }

    fn route_mesh(&mut self, at: usize, order: MeshOrder) {
        let from = self.nodes[at].public();
        match order {
            MeshOrder::Introduce { record } => {
                self.wires.records.insert(at, record.clone());
                for other in self.neighbours(at) {
                    self.send(other, Said::Introduced { from, record: record.clone() });
                }
            }
            MeshOrder::Admit { peer } => {
                if let Some(other) = self.node_of(peer) {
                    self.wires.admitted.insert((at, other));
                }
            }
            MeshOrder::Expel { peer } => {
                if let Some(other) = self.node_of(peer) {
                    self.wires.expelled.insert((at, other));
                    self.disconnect(at, other);
                }
            }
            MeshOrder::Dismiss { peer } => {
                if let Some(other) = self.node_of(peer) {
                    self.disconnect(at, other);
                }
            }
            MeshOrder::Dial { .. } if self.wires.sparse => {}
            MeshOrder::Dial { peer, .. } => {
                if let Some(other) = self.node_of(peer) {
                    self.connect(at, other);
                }
            }
            MeshOrder::Judge { message, judgement } => {
                let (source, bytes) = self.wires.messages.remove(&message).expect("a message is judged once");
                if judgement == Judgement::Accept {
                    self.gossip(at, Some(source), &bytes);
                }
            }
            MeshOrder::Publish { bytes } => self.gossip(at, None, &bytes),
            MeshOrder::AskSync { peer, request } => {
                if let Some(other) = self.node_of(peer).filter(|other| self.neighbours(at).contains(other)) {
                    self.send(other, Said::SyncAsked { from, request });
                }
            }
            MeshOrder::AskWitness { number, peer, ask } => {
                match self.node_of(peer).filter(|other| self.neighbours(at).contains(other) && self.up(*other)) {
                    Some(other) => self.send(other, Said::WitnessAsked { from, number, ask }),
                    None => self.send(at, Said::WitnessAnswered { number, answer: None }),
                }
            }
            MeshOrder::AnswerWitness { question, answer } => {
                let (peer, number) = self.wires.questions.remove(&question).expect("a question is answered once");
                if let Some(other) = self.node_of(peer) {
                    self.send(other, Said::WitnessAnswered { number, answer: Some(answer) });
                }
            }
            MeshOrder::AnswerSync { sync, answer } => {
                let peer = self.wires.syncs.remove(&sync).expect("a sync is answered once");
                if let Some(other) = self.node_of(peer) {
                    self.send(other, Said::SyncAnswered { from, answer });
                }
            }
        }
    }

    fn neighbours(&self, at: usize) -> Vec<usize> {
        let pairs = self.wires.connected.iter();
        pairs.filter_map(|(a, b)| if *a == at { Some(*b) } else { (*b == at).then_some(*a) }).collect()
    }

    fn gossip(&mut self, at: usize, source: Option<PublicKey>, bytes: &[u8]) {
        let from = self.nodes[at].public();
        for other in self.neighbours(at) {
            if self.wires.admitted.contains(&(at, other)) && Some(self.nodes[other].public()) != source {
                self.send(other, Said::Gossiped { from, bytes: bytes.to_vec() });
            }
        }
    }

    fn route_bulk(&mut self, at: usize, order: BulkOrder) {
        match order {
            BulkOrder::Reach { crossing, peer, to, tensors, .. } => {
                self.wires.places.insert((at, crossing), to);
                if !tensors.is_empty() {
                    self.wires.partial.insert((at, crossing));
                }
                match self.node_of(peer).filter(|other| self.up(*other)) {
                    Some(exporter) => {
                        let session = self.draw_session();
                        self.wires.reached.insert((at, crossing), (exporter, session));
                        self.send(at, Said::Reached { crossing, session });
                    }
                    None => {
                        let failure = BulkFailure::Unreachable("no answer".into());
                        self.send(at, Said::PullFailed { crossing, failure });
                    }
                }
            }
            BulkOrder::Ask { crossing, request, .. } => {
                let Some((exporter, session)) = self.wires.reached.get(&(at, crossing)).copied() else { return };
                let peer = self.nodes[at].public();
                self.send(exporter, Said::Asked { importer: at, crossing, peer, session, request });
            }
            BulkOrder::Serve { ask, clearance, .. } => self.answer(ask, clearance, true),
            BulkOrder::Refuse { ask, refusal } => self.answer(ask, refusal, false),
            BulkOrder::Receive { crossing, .. } => {
                let here = |line: &&Line| (line.importer, line.crossing) == (at, crossing);
                let released = self.wires.lines.values().any(|line| here(&line) && line.released);
                if released && self.wires.partial.contains(&(at, crossing)) {
                    self.send(at, Said::Received { crossing, bytes: 100, held_bytes: 20, part: Some(part_taken()) });
                } else if released {
                    // Of several sources the first brings everything, unless the test divides the work.
                    let bytes = if self.comes_from_another(at, crossing) { 0 } else { MODEL_BYTES };
                    let held_bytes = MODEL_BYTES - bytes;
                    self.send(at, Said::Received { crossing, bytes, held_bytes, part: None });
                }
            }
            BulkOrder::Deliver { crossing, receipt } => {
                self.send(at, Said::Delivered { crossing, receipt });
            }
            BulkOrder::Countersign { ask, receipt } => {
                if let Some(line) = self.wires.lines.remove(&ask) {
                    self.send(line.importer, Said::Settled { crossing: line.crossing, receipt });
                }
            }
            BulkOrder::AbortServe { ask, code } => {
                if let Some(line) = self.wires.lines.remove(&ask) {
                    self.send(at, Said::ServeFailed { ask, bytes: 0, failure: BulkFailure::EndedHere(code) });
                    let failure = BulkFailure::EndedByPeer(code);
                    self.send(line.importer, Said::PullFailed { crossing: line.crossing, failure });
                }
            }
            BulkOrder::Delete { crossing, .. } | BulkOrder::Discard { crossing, .. } => {
                self.send(at, Said::Deleted { crossing, problem: None })
            }
            BulkOrder::AbortPull { crossing, code } => {
                self.wires.reached.remove(&(at, crossing));
                if let Some((ask, exporter)) = self.line_of(at, crossing) {
                    self.wires.lines.remove(&ask);
                    self.send(exporter, Said::ServeFailed { ask, bytes: 0, failure: BulkFailure::EndedByPeer(code) });
                }
            }
        }
    }

    /// Whether what a crossing is for came, or comes, by another one.
    fn comes_from_another(&self, at: usize, crossing: CrossingId) -> bool {
        let place = |crossing: CrossingId| self.wires.places.get(&(at, crossing));
        let brings = |of: CrossingId, bytes: u64| bytes > 0 && of != crossing && place(of) == place(crossing);
        let coming = self.wires.queue.iter().any(|parcel| {
            matches!(parcel.said, Said::Received { crossing: of, bytes, .. } if parcel.to == at && brings(of, bytes))
        });
        coming || self.wires.moved.iter().any(|((node, of), bytes)| *node == at && brings(*of, *bytes))
    }

    /// The newest stream of a crossing: its number and the exporter.
    fn line_of(&self, importer: usize, crossing: CrossingId) -> Option<(AskId, usize)> {
        let lines = self.wires.lines.iter().rev();
        let mut of = lines.filter(|(_, line)| (line.importer, line.crossing) == (importer, crossing));
        of.next().map(|(ask, line)| (*ask, line.exporter))
    }

    fn answer(&mut self, ask: AskId, answer: Vec<u8>, released: bool) {
        if let Some(line) = self.wires.lines.get_mut(&ask) {
            line.released = released;
            let (to, crossing) = (line.importer, line.crossing);
            self.send(to, Said::Answered { crossing, answer });
        }
    }
}
