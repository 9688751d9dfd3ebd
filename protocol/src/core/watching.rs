//! Other nodes' ledgers: signed as a witness, and compared, so that two histories of one ledger do not stay unseen.
//!
//! Heads of ledgers are gossiped, by the log itself and, where it keeps silent, by the witness that signed. Whoever hears two
//! that differ asks the log how one continues the other. Two of one size with different roots are proof of a fork; two
//! that the log does not connect are a doubt, and nothing crosses to or from it meanwhile.

use std::collections::{BTreeMap, VecDeque};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use sha2::{Digest as _, Sha256 as Hasher};

use super::{
    Core, Effects, Keep, MeshOrder, SyncId, WitnessAnswer, WitnessAsk, admin::Reply, exchange::NotTaken, window::Window,
    witnessing::Asked,
};
use crate::{
    id::Sha256,
    key::PublicKey,
    ledger::{Checkpoint, NotCosigned, Origin, Record, Witness, verify_consistency},
    limits,
    time::Timestamp,
    trust::Accepted,
};

/// Milliseconds after which a witness gossips a head that it signed and that it has not heard of from the log itself.
const SILENCE_MS: u64 = 10_000;

/// Milliseconds within which a log must show how two of its heads belong together. With [`SILENCE_MS`], the time of a commit
/// and of gossip, a fork shows within a minute.
const PROOF_MS: u64 = 40_000;

/// Milliseconds after which it is asked again.
const ASK_AGAIN_MS: u64 = 10_000;

/// Milliseconds after a peer has come until the heads that this node has signed are gossiped again.
const AGAIN_MS: u64 = 5_000;

/// Of so many ledgers at a time.
const HELD_AGAIN_MAX: usize = 256;

/// Heads of each ledger that are remembered as belonging to it, so that old ones that are passed on again cost nothing.
const EARLIER_MAX: usize = 64;

#[derive(Debug)]
pub(super) struct Watch {
    pub(super) witness: Witness,
    /// The newest head of each ledger that is known to continue those before.
    seen: BTreeMap<PublicKey, Head>,
    /// Earlier ones of each that are known to belong to it, the last few.
    earlier: BTreeMap<PublicKey, VecDeque<(u64, Sha256)>>,
    /// Heads of which that is not known yet.
    open: BTreeMap<PublicKey, Open>,
    /// Nodes of which two histories are known.
    forked: BTreeMap<PublicKey, String>,
    /// Heads that this node signed and that the log has not gossiped, and when this node will.
    unheard: BTreeMap<PublicKey, (Head, Timestamp)>,
    /// Heads that each peer passed on and that had to be verified.
    heard: Window<PublicKey>,
    /// When the heads that this node has signed are gossiped again, so that peers that have come since hear of them.
    again: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Head {
    size: u64,
    root: Sha256,
    note: String,
}

/// A head that has to be connected with the one that is known.
#[derive(Debug)]
struct Open {
    head: Head,
    since: Timestamp,
    asked: Timestamp,
    /// The newest that came after it.
    next: Option<Head>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            witness: Witness::default(),
            seen: BTreeMap::new(),
            earlier: BTreeMap::new(),
            open: BTreeMap::new(),
            forked: BTreeMap::new(),
            unheard: BTreeMap::new(),
            heard: Window::new(limits::CHECKPOINTS_PER_WINDOW_MAX, limits::WINDOW_MS),
            again: None,
        }
    }
}

impl Head {
    fn new(checkpoint: &Checkpoint, note: String) -> Self {
        Self { size: checkpoint.size, root: checkpoint.root, note }
    }
}

impl Watch {
    /// Takes up what this node has signed of others' ledgers before the start. False if it is no such note.
    pub(super) fn restore(&mut self, note: &str, me: &PublicKey) -> bool {
        let restored = self.witness.restore(note, me);
        if let Ok(checkpoint) = Checkpoint::parse_self_named(note)
            && let Some(node) = checkpoint.origin.node().filter(|_| restored)
        {
            self.known(node, Head::new(&checkpoint, note.to_owned()));
        }
        restored
    }

    pub(super) fn is_forked(&self, node: &PublicKey) -> bool {
        self.forked.contains_key(node)
    }

    pub(super) fn fork_recorded(&mut self, node: PublicKey, first: &str, second: &str) {
        let size = |note| Checkpoint::parse_self_named(note).map_or(0, |checkpoint| checkpoint.size);
        let why = format!(
            "its ledger has forked: it has signed two histories of it, of {} and of {} entries; its authority must be asked",
            size(first),
            size(second)
        );
        self.forked.insert(node, why);
        self.open.remove(&node);
        self.unheard.remove(&node);
    }

    /// Nodes whose ledgers are not to be relied on now, and why.
    pub(super) fn doubts(&self, now: Timestamp) -> BTreeMap<PublicKey, String> {
        let late = self.open.iter().filter(|(_, open)| now >= open.since.plus_ms(PROOF_MS));
        let late = late.map(|(node, open)| {
            let known = self.seen.get(node).map_or(0, |head| head.size);
            let why = format!("it does not show how {known} and {} entries of its ledger belong together", open.head.size);
            (*node, why)
        });
        self.forked.iter().map(|(node, why)| (*node, why.clone())).chain(late).collect()
    }

    /// Takes a head that is known to belong to what is known of its ledger.
    fn known(&mut self, node: PublicKey, head: Head) {
        let earlier = self.earlier.entry(node).or_default();
        if earlier.len() >= EARLIER_MAX {
            earlier.pop_front();
        }
        earlier.push_back((head.size, head.root));
        if self.seen.get(&node).is_none_or(|seen| seen.size < head.size) {
            self.seen.insert(node, head);
        }
    }

    /// A node has another key.
    pub(super) fn inherit_fork(&mut self, old: &PublicKey, new: PublicKey) {
        if let Some(why) = self.forked.get(old).cloned() {
            self.forked.insert(new, why);
        }
    }

    /// What is known of a ledger under one key is from here on known of it under another. Gives what was known under that.
    fn carry(&mut self, old: PublicKey, new: PublicKey) -> Vec<Head> {
        self.witness.carry(&Origin::of(&old), &Origin::of(&new));
        self.unheard.remove(&old);
        // A node that has been away is forgotten, but for what this one has signed of its ledger.
        let held = self.witness.held(&Origin::of(&old));
        let held = held.map(|held| Head { size: held.size, root: held.root, note: held.note.clone() });
        let Some(seen) = self.seen.remove(&old).or(held) else { return Vec::new() };
        let (open, earlier) = (self.open.remove(&old), self.earlier.remove(&old));
        let before = (self.seen.insert(new, seen), self.open.remove(&new));
        self.earlier.insert(new, earlier.unwrap_or_default());
        self.open.extend(open.map(|open| (new, open)));
        let unproved = before.1.into_iter().flat_map(|open| [Some(open.head), open.next]).flatten();
        before.0.into_iter().chain(unproved).collect()
    }

    /// A node is not known any more. What this node has signed of its ledger, and that it has forked, stays.
    pub(super) fn forget(&mut self, node: &PublicKey) {
        self.seen.remove(node);
        self.earlier.remove(node);
        self.open.remove(node);
    }

    fn is_known(&self, node: &PublicKey, head: &Head) -> bool {
        self.earlier.get(node).is_some_and(|earlier| earlier.contains(&(head.size, head.root)))
    }

    fn next_time(&self, now: Timestamp) -> Option<Timestamp> {
        let unheard = self.unheard.values().map(|(_, due)| *due);
        let asked = self.open.values().map(|open| open.asked.plus_ms(ASK_AGAIN_MS));
        // A doubt that stands was looked at when it began; waiting for that again would be waiting for nothing.
        let doubted = self.open.values().map(|open| open.since.plus_ms(PROOF_MS)).filter(|doubted| *doubted > now);
        unheard.chain(asked).chain(doubted).chain(self.again).min()
    }
}

impl Core {
    /// The node whose ledger this names, if it is one whose ledger this node follows.
    fn log_of(&self, origin: &Origin, now: Timestamp) -> Option<PublicKey> {
        let node = origin.node()?;
        let known = self.peers.get(&node)?;
        self.trust.admission(&known.accreditation, &node, now).ok().map(|()| node)
    }

    /// A peer asks something of this node as a witness, or of its ledger.
    pub(super) fn witness_asked(
        &mut self,
        question: SyncId,
        peer: PublicKey,
        ask: WitnessAsk,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let text = |status, body: String| WitnessAnswer { status, body: body.into_bytes() };
        let answer = match ask {
            _ if !self.peers.is_admitted(&peer) => text(403, String::new()),
            WitnessAsk::Held { log } => {
                let held = log.parse().ok().and_then(|origin| self.watch.witness.held(&origin));
                held.map_or_else(|| text(404, String::new()), |held| text(200, held.note.clone()))
            }
            WitnessAsk::Add { body } => {
                let (status, _, body) = self.add_checkpoint(body.as_bytes(), now, effects);
                text(status, body)
            }
            WitnessAsk::Prove { first, second } => {
                let lines = |proof: Vec<Sha256>| proof.iter().map(|hash| BASE64_STANDARD.encode(hash.0) + "\n").collect();
                let proof = self.witnessing.tiles.prove_consistency(first, second).map(lines);
                proof.map_or_else(|| text(404, String::new()), |proof| text(200, proof))
            }
        };
        effects.mesh.push(MeshOrder::AnswerWitness { question, answer });
    }

    /// `add-checkpoint` of C2SP `tlog-witness`: status, content type and body of the answer.
    pub(super) fn add_checkpoint(
        &mut self,
        body: &[u8],
        now: Timestamp,
        effects: &mut Effects,
    ) -> (u16, &'static str, String) {
        let mut witness = std::mem::take(&mut self.watch.witness);
        let signs_for = |origin: &Origin| self.log_of(origin, now).filter(|node| !self.watch.is_forked(node));
        let outcome = witness.add_checkpoint(body, signs_for, &self.key, now);
        self.watch.witness = witness;
        match outcome {
            Ok(cosigned) => {
                let node = cosigned.checkpoint.origin.node();
                let head = Head::new(&cosigned.checkpoint, cosigned.note.clone());
                if let Some(node) = node {
                    effects.keep.push(Keep::Held { log: node, note: cosigned.note });
                    let due = now.plus_ms(SILENCE_MS);
                    let known = self.watch.seen.get(&node);
                    if known.is_none_or(|known| known.size < head.size) {
                        self.watch.unheard.insert(node, (head.clone(), due));
                        self.next_round = self.next_round.min(due);
                    }
                    // That it continues what was signed before is proved. If that is not all that is known, the log is asked.
                    match self.watch.seen.get(&node) {
                        Some(seen) if (seen.size, seen.root) == cosigned.before && !self.watch.open.contains_key(&node) => {
                            self.watch.known(node, head);
                        }
                        _ => {
                            self.compare(node, head, now, effects);
                        }
                    }
                }
                (200, "text/plain; charset=utf-8", cosigned.line)
            }
            Err(refused) => {
                self.keep_contradiction(&refused, body, now, effects);
                let (kind, text) = refused.answer();
                (refused.status(), kind, text)
            }
        }
    }

    /// The retrieval of a checkpoint by a monitor (C2SP `tlog-witness`).
    pub(super) fn held_checkpoint(&self, origin_hash: &str) -> Reply {
        let hash = |origin: &str| hex::encode(Hasher::digest(origin.as_bytes()));
        // What was carried over from another name is no checkpoint of that log.
        let own = |(origin, held): &(&str, &crate::ledger::Held)| held.note.split('\n').next() == Some(*origin);
        let held = self.watch.witness.iter().filter(own).find(|(origin, _)| hash(origin) == origin_hash);
        let (status, body) = held.map_or_else(
            || (404, "this witness has signed nothing of that log\n".to_owned()),
            |(_, held)| (200, held.note.clone()),
        );
        Reply::Witness { status, content_type: "text/plain; charset=utf-8".to_owned(), body }
    }

    /// A log that asks for a signature under another history than was signed before has shown that it has two.
    fn keep_contradiction(&mut self, refused: &NotCosigned, body: &[u8], now: Timestamp, effects: &mut Effects) {
        if !matches!(refused, NotCosigned::OtherRoot { .. } | NotCosigned::Proof { .. }) {
            return;
        }
        let note = crate::ledger::AddCheckpoint::parse(body).map(|request| request.checkpoint);
        let Ok(Ok(checkpoint)) = note.as_deref().map(Checkpoint::parse_self_named) else { return };
        if let (Some(node), Ok(note)) = (self.log_of(&checkpoint.origin, now), note) {
            self.compare(node, Head::new(&checkpoint, note), now, effects);
        }
    }

    /// A head of a ledger was gossiped.
    pub(super) fn take_checkpoint(
        &mut self,
        bytes: &[u8],
        from: PublicKey,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Accepted, NotTaken> {
        let bad = |why: String| NotTaken::Bad(why);
        if bytes.len() > limits::CHECKPOINT_GOSSIP_BYTES_MAX {
            return Err(bad("a checkpoint that is too long".to_owned()));
        }
        let note = std::str::from_utf8(bytes).map_err(|_| bad("a checkpoint that is not UTF-8".to_owned()))?;
        let named = note.split('\n').next().unwrap_or_default();
        let node = named.parse::<Origin>().ok().and_then(|origin| origin.node());
        let node = node.ok_or_else(|| bad("a checkpoint of no node".to_owned()))?;
        if node != self.me() && self.peers.get(&node).is_none() {
            return Err(NotTaken::Useless("a checkpoint of a node that is not known".to_owned()));
        }
        // Each costs a verification, so that whoever passes them on may not do so without end.
        if !self.watch.heard.admits(from, now) {
            return Err(NotTaken::Useless("too many checkpoints of one peer".to_owned()));
        }
        let checkpoint = Checkpoint::parse_self_named(note).map_err(|error| bad(error.to_string()))?;
        if node == self.me() {
            self.own_checkpoint(&checkpoint);
            return Ok(Accepted::Known);
        }
        if self.log_of(&checkpoint.origin, now).is_none() {
            return Err(NotTaken::Useless("a checkpoint of a node without standing".to_owned()));
        }
        let head = Head::new(&checkpoint, note.to_owned());
        // One that this node has signed is passed on when it is first heard: the log may have told nobody else. A larger one
        // stands for it only where that it continues it is known; else those who signed the larger one would not hear of this.
        let known = self.watch.is_known(&node, &head);
        let unheard = self.watch.unheard.get(&node).is_some_and(|(waiting, _)| {
            (waiting.size, waiting.root) == (head.size, head.root) || (known && waiting.size < head.size)
        });
        if unheard {
            self.watch.unheard.remove(&node);
        }
        if known {
            return Ok(if unheard { Accepted::New } else { Accepted::Known });
        }
        let changed = self.compare(node, head, now, effects);
        Ok(if changed || unheard { Accepted::New } else { Accepted::Known })
    }

    /// Compares a head that its log has signed with the newest that is known. False if it says nothing new, or nothing that
    /// there is room for.
    fn compare(&mut self, node: PublicKey, head: Head, now: Timestamp, effects: &mut Effects) -> bool {
        if self.watch.is_forked(&node) {
            return false;
        }
        let open = self.watch.open.get(&node);
        let known = [self.watch.seen.get(&node), open.map(|open| &open.head), open.and_then(|open| open.next.as_ref())];
        let held = self.watch.witness.held(&Origin::of(&node));
        let held = held.map(|held| Head { size: held.size, root: held.root, note: held.note.clone() });
        let fork =
            known.into_iter().flatten().chain(&held).find(|known| known.size == head.size && known.root != head.root);
        if let Some(other) = fork {
            let (first, second) = (other.note.clone(), head.note);
            self.found_fork(node, first, second, now, effects);
            return true;
        }
        let Some(seen) = self.watch.seen.get(&node) else {
            self.watch.known(node, head);
            return true;
        };
        if seen.size == head.size || self.watch.is_known(&node, &head) {
            return false;
        }
        if let Some(open) = self.watch.open.get_mut(&node) {
            let newer = open.head.size != head.size && open.next.as_ref().is_none_or(|next| next.size < head.size);
            if newer {
                open.next = Some(head);
            }
            return newer;
        }
        let sizes = (seen.size.min(head.size), seen.size.max(head.size));
        self.watch.open.insert(node, Open { head, since: now, asked: now, next: None });
        self.ask_proof(node, sizes, now, effects);
        true
    }

    /// A node's ledger goes on under another key: its heads there have to continue what is known of it. What comes under the
    /// old key from now on may be anybody's word, and says nothing of this ledger.
    pub(super) fn follow_ledger(&mut self, old: PublicKey, new: PublicKey, now: Timestamp, effects: &mut Effects) {
        for head in self.watch.carry(old, new) {
            self.compare(new, head, now, effects);
        }
    }

    /// Asks a log how one head of it continues another.
    fn ask_proof(&mut self, node: PublicKey, (first, second): (u64, u64), now: Timestamp, effects: &mut Effects) {
        if self.peers.is_admitted(&node) {
            let asked = Asked::Prove { first, second };
            self.ask_witness(node, asked, WitnessAsk::Prove { first, second }, effects);
        }
        self.next_round = self.next_round.min(now.plus_ms(ASK_AGAIN_MS));
    }

    /// A log has shown, or not, how two heads of it belong together.
    pub(super) fn proof_came(
        &mut self,
        node: PublicKey,
        sizes: (u64, u64),
        body: Option<&str>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let (Some(seen), Some(open)) = (self.watch.seen.get(&node), self.watch.open.get(&node)) else { return };
        let pair = |head: &Head| (head.size, head.root);
        let (first, second) = (pair(seen).min(pair(&open.head)), pair(seen).max(pair(&open.head)));
        let hash = |line: &str| Some(Sha256(BASE64_STANDARD.decode(line).ok()?.try_into().ok()?));
        let proof = body.and_then(|body| body.lines().take(64).map(hash).collect::<Option<Vec<_>>>());
        let shown =
            (first.0, second.0) == sizes && proof.is_some_and(|proof| verify_consistency(first, second, &proof).is_ok());
        if !shown {
            return;
        }
        let Some(open) = self.watch.open.remove(&node) else { return };
        self.watch.known(node, open.head);
        if let Some(next) = open.next {
            self.compare(node, next, now, effects);
        }
    }

    /// Two heads of one ledger contradict each other. Both go into the ledger, and to everybody.
    fn found_fork(&mut self, node: PublicKey, first: String, second: String, now: Timestamp, effects: &mut Effects) {
        for note in [&first, &second] {
            effects.mesh.push(MeshOrder::Publish { bytes: note.clone().into_bytes() });
        }
        self.record(Record::ForkFound { node, first, second }, now, effects);
        self.next_round = self.next_round.min(now.plus_ms(1));
    }

    /// What time demands of this: gossip what its log has kept silent about, ask again.
    pub(super) fn keep_watch(&mut self, now: Timestamp, effects: &mut Effects) {
        self.watch.heard.expire(now);
        let due: Vec<_> = self.watch.unheard.iter().filter(|(_, (_, due))| *due <= now).map(|(node, _)| *node).collect();
        for node in due {
            if let Some((head, _)) = self.watch.unheard.remove(&node) {
                effects.mesh.push(MeshOrder::Publish { bytes: head.note.into_bytes() });
            }
        }
        // It has time to answer only while it can be asked.
        for (node, open) in &mut self.watch.open {
            if !self.peers.is_admitted(node) {
                open.since = now;
            }
        }
        if self.watch.again.is_some_and(|due| due <= now) {
            self.watch.again = None;
            let held: Vec<_> = self.watch.witness.iter().map(|(_, held)| held.note.clone()).take(HELD_AGAIN_MAX).collect();
            effects.mesh.extend(held.into_iter().map(|note| MeshOrder::Publish { bytes: note.into_bytes() }));
        }
        let again = self.watch.open.iter().filter(|(_, open)| now >= open.asked.plus_ms(ASK_AGAIN_MS));
        let again: Vec<_> =
            again.filter_map(|(node, open)| Some((*node, self.watch.seen.get(node)?.size, open.head.size))).collect();
        for (node, seen, open) in again {
            if let Some(open) = self.watch.open.get_mut(&node) {
                open.asked = now;
            }
            self.ask_proof(node, (seen.min(open), seen.max(open)), now, effects);
        }
    }

    /// A peer has come: it hears what this node has signed, and is asked what it has to show.
    pub(super) fn meet_log(&mut self, peer: PublicKey, now: Timestamp, effects: &mut Effects) {
        let due = now.plus_ms(AGAIN_MS);
        if self.watch.again.is_none() && self.watch.witness.iter().next().is_some() {
            self.watch.again = Some(due);
            self.next_round = self.next_round.min(due);
        }
        if let (Some(seen), Some(open)) = (self.watch.seen.get(&peer), self.watch.open.get(&peer)) {
            let sizes = (seen.size.min(open.head.size), seen.size.max(open.head.size));
            self.ask_proof(peer, sizes, now, effects);
        }
    }

    pub(super) fn next_watch_time(&self, now: Timestamp) -> Option<Timestamp> {
        self.watch.next_time(now).map(|time| time.max(now.plus_ms(1)))
    }
}
