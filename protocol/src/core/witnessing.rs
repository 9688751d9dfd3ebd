//! This node's own ledger before others: its head is signed by nodes of other countries, or nothing crosses.
//!
//! A witness signs each head once it has seen that it continues the one before (C2SP `tlog-witness`, asked over the mesh).
//! After a start, witnesses are first asked what they signed last: that shows a home that was restored from an old copy,
//! before anything that it adds is shown to anyone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{Core, Effects, Keep, MeshOrder, WitnessAnswer, WitnessAsk, admin::WitnessedView};
use crate::{
    border::Denial,
    charter::WitnessRule,
    crossing::{LedgerHead, RefusalCode},
    key::PublicKey,
    ledger::{AddCheckpoint, Checkpoint, Origin, Tiles},
    limits,
    time::Timestamp,
    vocabulary::Country,
};

/// Milliseconds for which new entries are collected before their head is shown to witnesses: one signature for all of them.
const COLLECT_MS: u64 = 3_000;

/// Milliseconds for which witnesses are waited for; then others are asked.
const ROUND_MS: u64 = 10_000;

/// Countries that are asked beyond those that are needed, so that one that does not answer costs no time.
const SPARE_COUNTRIES: usize = 1;

/// Instants that are kept of entries that nobody has signed. Beyond that, entries count as old as the last instant kept.
const MARKS_MAX: usize = 4_096;

/// Milliseconds between two of them.
const MARK_EVERY_MS: u64 = 1_000;

/// The own ledger, and what others have signed of it.
#[derive(Debug)]
pub(super) struct Witnessing {
    pub(super) tiles: Tiles,
    origin: Origin,
    /// When entries that are not witnessed yet were recorded, ascending by number.
    marks: VecDeque<Mark>,
    /// The newest head that enough countries signed.
    witnessed: Option<Witnessed>,
    round: Option<Round>,
    /// Peers that may be witnesses, and what they hold of this ledger.
    talks: BTreeMap<PublicKey, Talk>,
    /// Countries that have said since the start what they signed last, and it is part of this ledger.
    confirmed: BTreeSet<Country>,
    /// When the node started.
    started: Timestamp,
    /// Who signed the newest head that was kept before the start, by key, and how many entries it has. They may have signed
    /// more since a backup was made, so that they are waited for.
    signers: BTreeMap<PublicKey, Country>,
    kept: u64,
    /// The number of entries of a checkpoint of this node that is not part of its ledger.
    lost: Option<u64>,
    /// The same of one under a key that this node had before. Somebody else may have that key, so that it is no proof.
    disowned: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    index: u64,
    at: Timestamp,
}

#[derive(Debug)]
struct Witnessed {
    size: u64,
    by: BTreeSet<Country>,
    at: Timestamp,
}

/// One head on its way to the witnesses.
#[derive(Debug)]
struct Round {
    size: u64,
    note: String,
    began: Timestamp,
    /// Whether it was gossiped.
    published: bool,
    /// The signature lines that came, by country, and from whom.
    lines: BTreeMap<Country, (PublicKey, String)>,
}

/// What is known of a peer as a witness.
#[derive(Debug)]
struct Talk {
    /// Where it is.
    member: Country,
    /// The size of the last head that it signed; none until it said.
    size: Option<u64>,
    /// When it did not do what it was asked to last.
    failed: Option<Timestamp>,
}

/// A question that waits for its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// What it holds of this ledger under this node's key of now, or one that it had before.
    Held { of: PublicKey },
    /// To sign this many entries.
    Add { size: u64 },
    /// How a head of its own ledger continues another.
    Prove { first: u64, second: u64 },
}

impl Witnessing {
    pub(super) fn new(me: &PublicKey, started: Timestamp) -> Self {
        Self {
            tiles: Tiles::default(),
            origin: Origin::of(me),
            marks: VecDeque::new(),
            witnessed: None,
            round: None,
            talks: BTreeMap::new(),
            confirmed: BTreeSet::new(),
            started,
            signers: BTreeMap::new(),
            kept: 0,
            lost: None,
            disowned: None,
        }
    }

    /// An entry was recorded.
    pub(super) fn append(&mut self, leaf: crate::id::Sha256, at: Timestamp) {
        let index = self.tiles.size();
        self.tiles.append(leaf);
        let due = self.marks.back().is_none_or(|last| at >= last.at.plus_ms(MARK_EVERY_MS));
        if due && self.marks.len() < MARKS_MAX {
            self.marks.push_back(Mark { index, at });
        }
    }

    pub(super) fn head(&self) -> LedgerHead {
        LedgerHead { size: self.tiles.size(), root: self.tiles.root() }
    }

    /// Whether a checkpoint of this node is part of its ledger.
    fn has(&self, checkpoint: &Checkpoint) -> bool {
        self.tiles.root_at(checkpoint.size) == Some(checkpoint.root)
    }

    /// When the oldest entry was recorded that not enough countries have signed.
    fn unwitnessed_since(&self) -> Option<Timestamp> {
        (self.witnessed.as_ref().map_or(0, |known| known.size) < self.tiles.size())
            .then(|| self.marks.front().map_or(Timestamp(0), |mark| mark.at))
    }

    /// Forgets the instants of what is witnessed now, but for the last before what is not: entries count as old as that.
    fn forget_marks(&mut self, size: u64) {
        while self.marks.get(1).is_some_and(|next| next.index <= size) {
            self.marks.pop_front();
        }
        if size >= self.tiles.size() {
            self.marks.clear();
        }
    }

    pub(super) fn left(&mut self, peer: &PublicKey) {
        self.talks.remove(peer);
    }
}

impl Core {
    fn witness_rule(&self) -> WitnessRule {
        self.trust.chartered().charter().witnesses
    }

    /// The member that a peer signs for as a witness of this node: one of another country.
    fn witness_of(&self, peer: &PublicKey, now: Timestamp) -> Option<Country> {
        let known = self.peers.get(peer)?;
        let member = known.accreditation.body().member;
        let counts = member != self.accreditation.body().member
            && self.trust.admission(&known.accreditation, peer, now).is_ok()
            && self.trust.certain(known.accreditation.body()).is_ok()
            && !self.watch.is_forked(peer);
        counts.then_some(member)
    }

    /// Asks a peer what it has signed of this ledger, if that is not known.
    pub(super) fn meet_witness(&mut self, peer: PublicKey, now: Timestamp, effects: &mut Effects) {
        let Some(member) = self.witness_of(&peer, now).filter(|_| self.witness_rule().countries > 0) else { return };
        let of_member = self.witnessing.talks.values().filter(|talk| talk.member == member).count();
        if !self.witnessing.talks.contains_key(&peer) && of_member < limits::WITNESSES_PER_MEMBER_MAX {
            self.witnessing.talks.insert(peer, Talk { member, size: None, failed: None });
            self.ask_held(peer, self.me(), effects);
        }
    }

    fn ask_held(&mut self, peer: PublicKey, of: PublicKey, effects: &mut Effects) {
        let ask = WitnessAsk::Held { log: Origin::of(&of).as_str().to_owned() };
        self.ask_witness(peer, Asked::Held { of }, ask, effects);
    }

    /// A checkpoint of this ledger, under this node's key of now or one that it had before.
    fn own_head(&self, note: &str) -> Option<Checkpoint> {
        let me = self.me();
        let keys = std::iter::once(me).chain(self.trust.former_keys(&me));
        keys.into_iter().find_map(|key| Checkpoint::parse_verified(note, &key, &Origin::of(&key)).ok())
    }

    pub(super) fn ask_witness(&mut self, peer: PublicKey, asked: Asked, ask: WitnessAsk, effects: &mut Effects) {
        self.asked_witnesses += 1;
        let number = self.asked_witnesses;
        self.witness_asks.insert(number, (peer, asked));
        effects.mesh.push(MeshOrder::AskWitness { number, peer, ask });
    }

    /// A peer answered what it was asked as a witness, or did not.
    pub(super) fn witness_answered(
        &mut self,
        number: u64,
        answer: Option<WitnessAnswer>,
        now: Timestamp,
        effects: &mut Effects,
    ) {
        let Some((peer, asked)) = self.witness_asks.remove(&number) else { return };
        let answer = answer.unwrap_or_default();
        let body = std::str::from_utf8(&answer.body).unwrap_or_default();
        match (asked, answer.status) {
            (Asked::Prove { first, second }, status) => {
                self.proof_came(peer, (first, second), (status == 200).then_some(body), now, effects);
            }
            // It may have signed this ledger before it went on under the key of now.
            (Asked::Held { of }, 404) => match self.trust.former_keys(&of).first() {
                Some(before) => self.ask_held(peer, *before, effects),
                None => self.witness_holds(peer, 0, now),
            },
            (Asked::Held { .. }, 200) => match self.own_head(body) {
                Some(checkpoint) if self.witnessing.has(&checkpoint) => self.witness_holds(peer, checkpoint.size, now),
                // This node has signed it and does not have it: what it has is older, or other.
                Some(checkpoint) if checkpoint.origin == self.witnessing.origin => self.found_lost(checkpoint.size),
                Some(checkpoint) => {
                    self.witnessing.disowned = self.witnessing.disowned.max(Some(checkpoint.size));
                    self.witness_failed(peer, now);
                }
                None => self.witness_failed(peer, now),
            },
            (Asked::Add { size }, 200) => self.cosigned(peer, size, body, now, effects),
            (Asked::Add { .. }, 409) => match body.trim_end().parse::<u64>() {
                Ok(size) if size <= self.witnessing.tiles.size() => {
                    if let Some(talk) = self.witnessing.talks.get_mut(&peer) {
                        // Once more in this round; if it goes wrong again, in the next.
                        let began = self.witnessing.round.as_ref().map_or(now, |round| round.began);
                        let again = talk.failed.is_none_or(|failed| failed < began);
                        (talk.size, talk.failed) = (Some(size), Some(now));
                        if again {
                            self.show_head(peer, effects);
                        }
                    }
                }
                // It claims to have signed more than there is: let it show it.
                Ok(_) => self.ask_held(peer, self.me(), effects),
                Err(_) => self.witness_failed(peer, now),
            },
            (Asked::Held { .. } | Asked::Add { .. }, _) => self.witness_failed(peer, now),
        }
        // What was waited for may be decided now.
        self.next_round = self.next_round.min(self.next_witness_time(now).unwrap_or(self.next_round));
    }

    fn witness_holds(&mut self, peer: PublicKey, size: u64, now: Timestamp) {
        let member = self.witness_of(&peer, now);
        // One that holds less than it has signed has forgotten, or lies.
        let keys = || std::iter::once(peer).chain(self.trust.former_keys(&peer));
        let forgot = size < self.witnessing.kept && keys().any(|key| self.witnessing.signers.contains_key(&key));
        if let Some(talk) = self.witnessing.talks.get_mut(&peer) {
            (talk.size, talk.failed) = (Some(size), None);
            self.witnessing.confirmed.extend(member.filter(|_| !forgot));
        }
    }

    fn witness_failed(&mut self, peer: PublicKey, now: Timestamp) {
        if let Some(talk) = self.witnessing.talks.get_mut(&peer) {
            talk.failed = Some(now);
        }
    }

    /// A checkpoint turned up that this node has signed and that its ledger does not contain.
    pub(super) fn found_lost(&mut self, size: u64) {
        self.witnessing.lost = self.witnessing.lost.max(Some(size));
    }

    /// Whether a checkpoint of this node, however it came here, is part of its ledger.
    pub(super) fn own_checkpoint(&mut self, checkpoint: &Checkpoint) {
        if !self.witnessing.has(checkpoint) {
            self.found_lost(checkpoint.size);
        }
    }

    /// Takes up what was witnessed before the start. False if it is no checkpoint of this node.
    pub(super) fn restore_witnessed(&mut self, note: &str, witnesses: &[Vec<u8>]) -> bool {
        let Some(checkpoint) = self.own_head(note) else { return false };
        let papers = witnesses.iter().filter_map(|bytes| self.trust.accreditation(bytes).ok());
        let places: BTreeMap<_, _> = papers.map(|paper| (paper.body().node, paper.body().member)).collect();
        let signed = Checkpoint::cosignatures(note).into_iter().map(|signature| signature.witness);
        self.witnessing.signers = signed.filter_map(|key| Some((key, *places.get(&key)?))).collect();
        self.witnessing.kept = checkpoint.size;
        if !self.witnessing.has(&checkpoint) {
            self.found_lost(checkpoint.size);
            return true;
        }
        // By whom is asked again of those who are known then; that it counted when it was kept is enough for its age.
        let (size, by) = (checkpoint.size, BTreeSet::new());
        self.witnessing.witnessed = Some(Witnessed { size, by, at: Timestamp(0) });
        self.witnessing.forget_marks(size);
        true
    }

    /// A witness signed.
    fn cosigned(&mut self, peer: PublicKey, size: u64, line: &str, now: Timestamp, effects: &mut Effects) {
        let Some(member) = self.witness_of(&peer, now) else { return };
        let needed = usize::try_from(self.witness_rule().countries).unwrap_or(usize::MAX);
        let Some(round) = self.witnessing.round.as_mut().filter(|round| round.size == size) else {
            return self.witness_holds(peer, size, now);
        };
        // One line, in its own name, and nothing else: whatever more a witness writes would go out under this node's name.
        let one = Checkpoint::is_cosignature_line(line, &peer);
        let note = Checkpoint::with_cosignatures(&round.note, [line]).ok().filter(|_| one);
        let cosignature = note.and_then(|note| Checkpoint::cosignature(&note, &peer));
        let skewed = |at: Timestamp| at > now.plus_ms(limits::CLOCK_SKEW_MS_MAX);
        if cosignature.is_none_or(|found| skewed(found.at)) {
            return self.witness_failed(peer, now);
        }
        round.lines.insert(member, (peer, line.to_owned()));
        let by: BTreeSet<_> = round.lines.keys().copied().collect();
        let note = Checkpoint::with_cosignatures(&round.note, round.lines.values().map(|(_, line)| line.as_str()));
        let accreditation = |peer: &PublicKey| Some((*peer, self.peers.get(peer)?.accreditation.bytes().to_vec()));
        let witnesses = round.lines.values().filter_map(|(peer, _)| accreditation(peer)).collect();
        let enough = by.len() >= needed;
        let first = enough && !std::mem::replace(&mut round.published, true);
        self.witness_holds(peer, size, now);
        if !enough {
            return;
        }
        self.witnessing.witnessed = Some(Witnessed { size, by, at: now });
        self.witnessing.forget_marks(size);
        if let Ok(note) = note {
            if first {
                effects.mesh.push(MeshOrder::Publish { bytes: note.clone().into_bytes() });
            }
            effects.keep.push(Keep::Witnessed { note, witnesses });
        }
    }

    /// Shows the head to witnesses when it is time.
    pub(super) fn keep_witnessed(&mut self, now: Timestamp, effects: &mut Effects) {
        let rule = self.witness_rule();
        if rule.countries == 0 || self.witnessing.lost.is_some() {
            return;
        }
        // Peers that could not say what they hold are asked again.
        let unknown = |talk: &Talk| talk.size.is_none() && talk.failed.is_some_and(|at| now >= at.plus_ms(ROUND_MS));
        let again: Vec<_> = self.witnessing.talks.iter().filter(|(_, talk)| unknown(talk)).map(|(peer, _)| *peer).collect();
        for peer in again {
            if let Some(talk) = self.witnessing.talks.get_mut(&peer) {
                talk.failed = None;
            }
            self.ask_held(peer, self.me(), effects);
        }
        if let Some(round) = &self.witnessing.round {
            let witnessed = self.witnessing.witnessed.as_ref().is_some_and(|known| known.size >= round.size);
            if !witnessed && now < round.began.plus_ms(ROUND_MS) {
                return;
            }
            if !witnessed {
                // Those who were asked and said nothing come last next time.
                let (size, began) = (round.size, round.began);
                let late = self.witnessing.talks.values_mut().filter(|talk| talk.size.is_some_and(|held| held < size));
                late.for_each(|talk| talk.failed = talk.failed.max(Some(began)));
            }
            self.witnessing.round = None;
        }
        let due = self.witnessing.unwitnessed_since().map(|since| since.plus_ms(COLLECT_MS));
        if due.is_none_or(|due| now < due) {
            return;
        }
        let chosen = self.choose_witnesses(usize::try_from(rule.countries).unwrap_or(usize::MAX), now);
        if chosen.is_empty() {
            return;
        }
        let (size, root) = (self.witnessing.tiles.size(), self.witnessing.tiles.root());
        let note = Checkpoint::sign(&self.key, &self.witnessing.origin, size, root);
        self.witnessing.round = Some(Round { size, note, began: now, published: false, lines: BTreeMap::new() });
        for peer in chosen {
            self.show_head(peer, effects);
        }
    }

    /// One peer of each country, of as many countries as are needed and one more: those that did what they were asked to
    /// first. None, if there are not enough.
    fn choose_witnesses(&self, needed: usize, now: Timestamp) -> Vec<PublicKey> {
        // Each log begins elsewhere among its peers, so that they share the work.
        let place = |peer: &PublicKey| *blake3::hash(&[self.me().0, peer.0].concat()).as_bytes();
        let known = self.witnessing.talks.iter().filter(|(_, talk)| talk.size.is_some());
        let mut all: Vec<_> =
            known.filter_map(|(peer, talk)| Some((talk.failed, place(peer), *peer, self.witness_of(peer, now)?))).collect();
        all.sort_unstable();
        let mut countries = BTreeSet::new();
        let chosen = all.into_iter().filter(|(.., member)| countries.insert(*member)).map(|(_, _, peer, _)| peer);
        let chosen: Vec<_> = chosen.take(needed.saturating_add(SPARE_COUNTRIES)).collect();
        if chosen.len() < needed { Vec::new() } else { chosen }
    }

    /// Asks a witness to sign the head of the round.
    fn show_head(&mut self, peer: PublicKey, effects: &mut Effects) {
        let (Some(round), Some(talk)) = (&self.witnessing.round, self.witnessing.talks.get(&peer)) else { return };
        let (old, size) = (talk.size.unwrap_or(0), round.size);
        let Some(proof) = self.witnessing.tiles.prove_consistency(old, size) else { return };
        let body = AddCheckpoint { old, proof, checkpoint: round.note.clone() }.to_body();
        self.ask_witness(peer, Asked::Add { size }, WitnessAsk::Add { body }, effects);
    }

    /// When something is to be done about witnesses next.
    pub(super) fn next_witness_time(&self, now: Timestamp) -> Option<Timestamp> {
        let rule = self.witness_rule();
        if rule.countries == 0 || self.witnessing.lost.is_some() {
            return None;
        }
        let waits = self.silent().next().map(|_| self.witnessing.started.plus_ms(rule.grace_ms));
        let since = self.witnessing.unwitnessed_since();
        let times = [
            since.map(|since| since.plus_ms(COLLECT_MS)),
            since.map(|since| since.plus_ms(rule.grace_ms)),
            self.witnessing.round.as_ref().map(|round| round.began.plus_ms(ROUND_MS)),
            waits,
        ];
        times.into_iter().flatten().filter(|time| *time > now).min()
    }

    /// Whether witnesses have not yet said, since the start, that the ledger is the newest: a matter of moments.
    pub(super) fn is_unconfirmed(&self, now: Timestamp) -> bool {
        let rule = self.witness_rule();
        let needed = usize::try_from(rule.countries).unwrap_or(usize::MAX);
        let too_few = self.witnessing.confirmed.len() < needed;
        let waits = needed > 0 && now < self.witnessing.started.plus_ms(rule.grace_ms) && self.silent().next().is_some();
        self.witnessing.lost.is_none() && (too_few || waits)
    }

    /// Members in which somebody has signed the newest head that was kept before the start, and that have not confirmed it
    /// since.
    fn silent(&self) -> impl Iterator<Item = Country> {
        let members = &self.trust.chartered().charter().members;
        let signers = self.witnessing.signers.values().copied();
        signers.filter(|country| members.contains_key(country) && !self.witnessing.confirmed.contains(country))
    }

    /// Why nothing may cross because of this node's ledger, if nothing may.
    pub(super) fn ledger_problem(&self, now: Timestamp) -> Option<Denial> {
        // What passes by itself is a ledger in which nothing counts as recorded now.
        let deny = |problem| Some(Denial { code: RefusalCode::CannotRecord, problem });
        if let Some(size) = self.witnessing.lost {
            let code = RefusalCode::Unproven;
            let problem = format!(
                "this node has signed a checkpoint of {size} entries that its ledger of {} does not contain: the home is an \
                 older copy of itself; bring back the newest copy of its ledger. If that is what it has, two histories of it were \
                 signed: ask the authority",
                self.witnessing.tiles.size()
            );
            return Some(Denial { code, problem });
        }
        let rule = self.witness_rule();
        let needed = usize::try_from(rule.countries).unwrap_or(usize::MAX);
        if needed == 0 {
            return None;
        }
        if self.is_unconfirmed(now) {
            let confirmed = self.witnessing.confirmed.len();
            let silent: BTreeSet<_> = self.silent().map(|country| country.to_string()).collect();
            let until = self.witnessing.started.plus_ms(rule.grace_ms);
            let waits = if silent.is_empty() || confirmed < needed {
                "wait until more peers are connected".to_owned()
            } else {
                let silent = silent.into_iter().collect::<Vec<_>>().join(", ");
                format!("those of {silent}, who signed it last, are waited for until {until}")
            };
            let disowned = self.witnessing.disowned.map_or_else(String::new, |size| {
                format!(
                    "; a head of {size} entries that a key signed which this node had before is not part of its ledger of {}: \
                     bring back the newest copy of the home; if that is what it has, ask the authority",
                    self.witnessing.tiles.size()
                )
            });
            return deny(format!(
                "nodes of {confirmed} other countries have confirmed since the start that this ledger is the newest, and \
                 {needed} must; {waits}{disowned}"
            ));
        }
        let since = self.witnessing.unwitnessed_since()?;
        if now < since.plus_ms(rule.grace_ms) {
            return None;
        }
        deny(format!(
            "the ledger has not been witnessed by nodes of {needed} other countries since {since}, and {} seconds are allowed",
            rule.grace_ms / 1000
        ))
    }

    /// What the operator is shown.
    pub(super) fn witnessed_view(&self, now: Timestamp) -> WitnessedView {
        let known = self.witnessing.witnessed.as_ref();
        WitnessedView {
            needed: self.witness_rule().countries,
            grace_ms: self.witness_rule().grace_ms,
            size: known.map_or(0, |known| known.size),
            by: known.map(|known| known.by.clone()).unwrap_or_default(),
            at: known.map(|known| known.at).filter(|at| at.0 > 0),
            unwitnessed_since: self.witnessing.unwitnessed_since(),
            problem: self.ledger_problem(now).map(|denial| denial.problem),
            doubts: self.watch.doubts(now),
        }
    }
}
