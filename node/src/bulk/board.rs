//! Who brings what: the groups that are still missing, in pieces, and the sources that were asked for them. Pure.
//!
//! A piece is asked of one source at a time, so that nothing crosses twice. Where several sources bring an artefact, the
//! piece that fewest of them have is asked for first, so that those who pull the same at the same time soon have something to
//! give to each other; among equals each importer has an order of its own (as BitTorrent does: Cohen, "Incentives Build
//! Robustness in BitTorrent", 2003). One source alone is asked in the order of the files, in which disks are quick.
//!
//! Those who pull the same and give to each other divide among them what they get from the source that has all: each piece is
//! the turn of the one whose key, hashed with the piece, gives the largest number (rendezvous hashing: Thaler, Ravishankar,
//! "Using Name-Based Mappings to Increase Hit Rates", 1998). Nobody has to say so to anyone, and a piece for which two would
//! have asked at once leaves that source once.
//!
//! Whoever reads what comes while it comes goes before all of that: the next piece of each reader, in turn.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use alliance_protocol::manifest::Manifest;

/// Bytes of a piece: small enough that the last ones are spread well, large enough that asking costs nothing.
const PIECE_BYTES: u64 = 1024 * 1024;

/// Pieces of an artefact, at the most: choosing one looks at all that are missing. Those of a large artefact are larger.
const PIECES_MAX: u64 = 16 * 1024;

/// Milliseconds for which a source may owe a piece while another has nothing left to do.
const OVERDUE_MS: u64 = 5_000;

/// Groups that are asked for together: `[first, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
}

/// A source of an artefact, numbered in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SourceId(pub(super) u32);

/// One that reads what comes, numbered likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReaderId(pub(super) u64);

/// What is missing, and who was asked for it.
#[derive(Debug)]
pub(super) struct Board {
    pieces: Vec<Piece>,
    states: Vec<State>,
    /// How many sources have each piece.
    copies: Vec<u32>,
    missing: usize,
    /// Bytes that nobody was asked for.
    free_bytes: u64,
    /// No piece before this one is free.
    cursor: usize,
    sources: BTreeMap<SourceId, Source>,
    /// The importer's own number, by which the others know it.
    me: u64,
    seed: u64,
    /// Whose turn each piece is, and where it stands; the same until a source comes, goes, or has everything.
    turns: Vec<(usize, u64)>,
    /// Who reads what comes; the one whose turn it is first.
    readers: VecDeque<Reader>,
}

/// One that reads pieces in their order, while they come.
#[derive(Debug)]
struct Reader {
    id: ReaderId,
    /// The pieces that it reads.
    pieces: Range<usize>,
    /// None of them before this one is free.
    cursor: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Free,
    Asked(SourceId),
    Here,
}

#[derive(Debug)]
struct Source {
    /// Its number, the same for everyone.
    number: u64,
    /// Which pieces it has, and how many it has not.
    has: Vec<bool>,
    lacks: usize,
    /// How many groups of each piece it has announced.
    announced: Vec<u64>,
    /// What it was asked for, in that order, and when.
    asked: VecDeque<(usize, u64)>,
}

impl Board {
    /// What is missing of an artefact where the groups of the runs are missing. `me` is the importer's number, as the others
    /// know it; `seed` is known to nobody else.
    pub(super) fn new(manifest: &Manifest, missing: Vec<(u64, u64)>, me: u64, seed: u64) -> Self {
        let groups = missing.iter().map(|(first, end)| end.saturating_sub(*first)).sum::<u64>();
        let bytes = manifest.bytes_of_runs(&missing);
        let most = PIECE_BYTES.max(bytes.div_ceil(PIECES_MAX));
        let groups_most = groups.div_ceil(PIECES_MAX).max(PIECE_BYTES / 1024);
        let mut pieces: Vec<Piece> = Vec::new();
        for extent in manifest.extents_in(missing) {
            let bytes = u64::from(extent.bytes);
            match pieces.last_mut() {
                Some(piece)
                    if piece.end == extent.first
                        && piece.bytes.saturating_add(bytes) <= most
                        && extent.end.saturating_sub(piece.first) <= groups_most =>
                {
                    piece.end = extent.end;
                    piece.bytes = piece.bytes.saturating_add(bytes);
                }
                _ => pieces.push(Piece { first: extent.first, end: extent.end, bytes }),
            }
        }
        let count = pieces.len();
        Self {
            states: vec![State::Free; count],
            copies: vec![0; count],
            missing: count,
            free_bytes: bytes,
            cursor: 0,
            sources: BTreeMap::new(),
            me,
            seed,
            turns: Vec::new(),
            readers: VecDeque::new(),
            pieces,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.missing == 0
    }

    /// Bytes that nobody was asked for.
    pub(super) fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Bytes that are not here yet.
    pub(super) fn missing_bytes(&self) -> u64 {
        let missing = self.states.iter().zip(&self.pieces).filter(|(state, _)| **state != State::Here);
        missing.map(|(_, piece)| piece.bytes).sum()
    }

    pub(super) fn sources(&self) -> usize {
        self.sources.len()
    }

    /// A source comes; `number` is the same for everyone who pulls from it, or gives to it.
    pub(super) fn join(&mut self, source: SourceId, number: u64) {
        let lacks = self.pieces.len();
        let (has, announced) = (vec![false; lacks], vec![0; lacks]);
        self.sources.entry(source).or_insert(Source { number, has, lacks, announced, asked: VecDeque::new() });
        self.settle_turns();
    }

    /// A source is gone; what it was asked for and has not brought is free again.
    pub(super) fn leave(&mut self, source: SourceId) {
        let Some(gone) = self.sources.remove(&source) else { return };
        for (copies, has) in self.copies.iter_mut().zip(&gone.has) {
            *copies = copies.saturating_sub(u32::from(*has));
        }
        for (at, _) in gone.asked {
            self.set(at, State::Asked(source), State::Free);
        }
        self.settle_turns();
    }

    /// A source says that it has these groups too, ascending.
    pub(super) fn learn(&mut self, source: SourceId, runs: &[(u64, u64)]) {
        let Some(known) = self.sources.get_mut(&source) else { return };
        let lacked = known.lacks;
        for (first, end) in runs {
            let begin = self.pieces.partition_point(|piece| piece.end <= *first);
            for (at, piece) in self.pieces.iter().enumerate().skip(begin).take_while(|(_, piece)| piece.first < *end) {
                let news = piece.end.min(*end).saturating_sub(piece.first.max(*first));
                let Some(announced) = known.announced.get_mut(at) else { continue };
                *announced = announced.saturating_add(news);
                // One that announces a group twice may be asked too early, and is then waited for.
                let whole = *announced >= piece.end.saturating_sub(piece.first);
                if let (true, Some(has), Some(copies)) = (whole, known.has.get_mut(at), self.copies.get_mut(at)) {
                    *copies = copies.saturating_add(u32::from(!*has));
                    known.lacks = known.lacks.saturating_sub(usize::from(!*has));
                    *has = true;
                }
            }
        }
        if lacked > 0 && known.lacks == 0 {
            self.settle_turns();
        }
    }

    /// Settles for each piece where it stands in the order in which this importer asks for what only one source has. Each has one
    /// whose turn it is, a second, a third, ... among those that lack some pieces as well. The first begins at one end, the others
    /// at the other, so that one who is done with its own helps where the others come to last.
    fn settle_turns(&mut self) {
        let fellows: Vec<u64> =
            self.sources.values().filter(|source| source.lacks > 0).map(|source| source.number).collect();
        let turn = |piece: &Piece| {
            let piece = mixed(piece.first);
            let rank = |number: u64| mixed(number ^ piece);
            let mine = rank(self.me);
            let before = fellows.iter().filter(|fellow| rank(**fellow) > mine).count();
            (before, if before == 0 { piece } else { !piece })
        };
        self.turns = self.pieces.iter().map(turn).collect();
    }

    /// Somebody reads these groups from now on, in their order.
    pub(super) fn read(&mut self, reader: ReaderId, groups: Range<u64>) {
        let first = self.pieces.partition_point(|piece| piece.end <= groups.start);
        let end = self.pieces.partition_point(|piece| piece.first < groups.end);
        self.readers.push_front(Reader { id: reader, pieces: first..end.max(first), cursor: first });
    }

    /// One reads no more.
    pub(super) fn unread(&mut self, reader: ReaderId) {
        self.readers.retain(|known| known.id != reader);
    }

    /// The next piece that a reader waits for, and that a source has and nobody was asked for.
    fn awaited(&mut self, source: SourceId) -> Option<usize> {
        let has = &self.sources.get(&source)?.has;
        for turn in 0..self.readers.len() {
            let reader = self.readers.get_mut(turn)?;
            let is_free = |at: &usize| self.states.get(*at) == Some(&State::Free);
            reader.cursor = (reader.cursor..reader.pieces.end).find(is_free).unwrap_or(reader.pieces.end);
            let next = (reader.cursor..reader.pieces.end).find(|at| is_free(at) && has.get(*at) == Some(&true));
            if next.is_some() {
                self.readers.rotate_left(turn.saturating_add(1));
                return next;
            }
        }
        None
    }

    /// The next piece to ask a source for, if it has one that nobody was asked for. From then on it was.
    pub(super) fn take(&mut self, source: SourceId, now_ms: u64) -> Option<Piece> {
        if let Some(at) = self.awaited(source) {
            return self.ask(source, at, now_ms);
        }
        let alone = self.sources.len() == 1;
        let has = &self.sources.get(&source)?.has;
        let free = self.states.iter().enumerate().skip(self.cursor).filter(|(_, state)| **state == State::Free);
        let mut had = free.map(|(at, _)| at).filter(|at| has.get(*at) == Some(&true));
        let chosen = match alone {
            true => had.next(),
            false => had.min_by_key(|at| match self.copies.get(*at).copied().unwrap_or_default() {
                1 => (1, self.turns.get(*at).copied().unwrap_or_default()),
                // What several have is no trouble to the one that has all.
                copies => (copies, (0, shuffled(self.seed, *at))),
            }),
        };
        self.ask(source, chosen?, now_ms)
    }

    /// Asks a source for all that is missing and that nobody was asked for, as one that is alone and has everything.
    pub(super) fn take_all(&mut self, source: SourceId, now_ms: u64) -> Vec<Piece> {
        if let Some(known) = self.sources.get_mut(&source) {
            for (has, copies) in known.has.iter_mut().zip(&mut self.copies) {
                *copies = copies.saturating_add(u32::from(!*has));
                *has = true;
            }
            known.lacks = 0;
        }
        let free = self.states.iter().enumerate().filter(|(_, state)| **state == State::Free).map(|(at, _)| at);
        let free: Vec<usize> = free.collect();
        free.into_iter().filter_map(|at| self.ask(source, at, now_ms)).collect()
    }

    fn ask(&mut self, source: SourceId, at: usize, now_ms: u64) -> Option<Piece> {
        let piece = *self.pieces.get(at)?;
        self.sources.get_mut(&source)?.asked.push_back((at, now_ms));
        self.set(at, State::Free, State::Asked(source));
        Some(piece)
    }

    /// The piece that a source brings next.
    pub(super) fn expected(&self, source: SourceId) -> Option<Piece> {
        let (at, _) = self.sources.get(&source)?.asked.front()?;
        self.pieces.get(*at).copied()
    }

    /// The piece that a source was to bring next is here.
    pub(super) fn arrived(&mut self, source: SourceId) {
        if let Some((at, _)) = self.sources.get_mut(&source).and_then(|source| source.asked.pop_front()) {
            self.set(at, State::Asked(source), State::Here);
        }
    }

    /// A source that holds everything up: it has owed a piece for long, this one has nothing left to do, and there is nothing
    /// that it could be asked for until the other brings it or is dropped.
    pub(super) fn overdue(&self, idle: SourceId, now_ms: u64) -> Option<SourceId> {
        let waits = self.sources.get(&idle)?;
        if self.free_bytes > 0 || !waits.asked.is_empty() {
            return None;
        }
        self.sources.iter().find_map(|(id, source)| {
            let (at, since) = source.asked.front()?;
            let late = now_ms.saturating_sub(*since) >= OVERDUE_MS;
            (late && waits.has.get(*at) == Some(&true)).then_some(*id)
        })
    }

    fn set(&mut self, at: usize, from: State, to: State) {
        let Some(state) = self.states.get_mut(at).filter(|state| **state == from) else { return };
        *state = to;
        let bytes = self.pieces.get(at).map_or(0, |piece| piece.bytes);
        if from == State::Free {
            self.free_bytes = self.free_bytes.saturating_sub(bytes);
        }
        if to == State::Free {
            self.free_bytes = self.free_bytes.saturating_add(bytes);
            self.cursor = self.cursor.min(at);
            for reader in self.readers.iter_mut().filter(|reader| reader.pieces.contains(&at)) {
                reader.cursor = reader.cursor.min(at);
            }
        }
        if to == State::Here {
            self.missing = self.missing.saturating_sub(1);
        }
        while self.states.get(self.cursor).is_some_and(|state| *state != State::Free) {
            self.cursor = self.cursor.saturating_add(1);
        }
    }
}

/// A number for a piece that differs from importer to importer (the finaliser of SplitMix64: Steele, Lea, Flood, "Fast
/// Splittable Pseudorandom Number Generators", 2014).
fn shuffled(seed: u64, at: usize) -> u64 {
    mixed(seed.wrapping_add(u64::try_from(at).unwrap_or_default().wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
pub(super) mod tests;
