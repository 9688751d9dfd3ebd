//! Checking audit files: each by itself, and the two halves of every crossing against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AuditFile,
    findings::{CrossingFound, FileFound, Finding, FindingKind, Match, Report, WitnessFound},
    halves::{Half, Ledger},
};
use crate::{
    charter::Chartered,
    crossing::LedgerHead,
    envelope::Signed,
    id::{AllianceId, CrossingId, Sha256},
    key::PublicKey,
    ledger::{Checkpoint, Entry, Origin, leaf_hash, verify_consistency, verify_inclusion},
    limits,
    time::Timestamp,
};

/// A file that was looked at by itself.
struct Looked<'a> {
    file: &'a AuditFile,
    found: FileFound,
    /// The signed head, if it holds.
    head: Option<(u64, Sha256)>,
    /// Heads that the ledger is proved to continue, by their size.
    heads: BTreeMap<u64, Sha256>,
    /// The leaf hashes of disclosed entries.
    leaves: BTreeMap<u64, Sha256>,
    halves: BTreeMap<CrossingId, Half>,
    /// Keys that the node had, and when each ended.
    ended: BTreeMap<PublicKey, Timestamp>,
    findings: Vec<Finding>,
}

/// Checks files of one or several nodes. What is not in `findings` holds. `known` is the charter as the auditor knows it; of the
/// logs of one alliance the longest counts, whoever brought it.
#[must_use]
pub fn verify(files: &[AuditFile], known: Option<&Chartered>) -> Report {
    let opened = files.iter().filter_map(|file| Chartered::open(&file.charter).ok());
    let opened = opened.chain(known.cloned()).collect::<Vec<_>>();
    let longest = |alliance| {
        let of = opened.iter().filter(|chartered| chartered.alliance() == alliance);
        of.max_by_key(|chartered| chartered.versions().count()).cloned()
    };
    let looked: Vec<_> = files.iter().map(|file| look(file, &longest)).collect();
    let mut findings: Vec<_> = looked.iter().flat_map(|file| file.findings.iter().cloned()).collect();
    findings.extend(alliances(&looked));
    for (at, one) in looked.iter().enumerate() {
        let same = |other: &&Looked<'_>| other.has_key(&one.file.node) || one.has_key(&other.file.node);
        let others = looked.iter().skip(at + 1).filter(same);
        findings.extend(others.filter_map(|other| forked(one, other)));
    }
    let mut crossings = BTreeMap::new();
    for file in &looked {
        for half in file.halves.values() {
            findings.extend(against_the_other_side(half, file, &looked));
            crossings.entry(half.crossing).or_insert_with(Vec::new).push(half);
        }
    }
    let wrong: BTreeSet<_> = findings.iter().filter_map(|finding| finding.crossing).collect();
    let given = |half: &Half| looked.iter().any(|file| half.peer.is_some_and(|peer| file.is_of(&peer, half.began)));
    let found = |(crossing, halves): (CrossingId, Vec<&Half>)| found(&halves, &given, wrong.contains(&crossing));
    let mut crossings: Vec<_> = crossings.into_iter().filter_map(found).collect();
    crossings.sort_by_key(|crossing| (crossing.began, crossing.crossing));
    Report { files: looked.into_iter().map(|file| file.found).collect(), crossings, findings }
}

/// Looks at one file by itself.
fn look<'a>(file: &'a AuditFile, longest: &dyn Fn(AllianceId) -> Option<Chartered>) -> Looked<'a> {
    let mut looked = Looked {
        file,
        found: FileFound {
            node: file.node,
            former: Vec::new(),
            organisation: String::new(),
            country: None,
            alliance: None,
            scope: file.country,
            since: file.since,
            disclosed: file.entries.len() as u64,
            entries: 0,
            witnessed: None,
        },
        head: None,
        heads: BTreeMap::new(),
        leaves: BTreeMap::new(),
        halves: BTreeMap::new(),
        ended: BTreeMap::new(),
        findings: Vec::new(),
    };
    let chartered = match Chartered::open(&file.charter) {
        Ok(chartered) => longest(chartered.alliance()).unwrap_or(chartered),
        Err(error) => {
            looked.find(FindingKind::Untrusted, format!("its charter does not hold: {error}"));
            return looked;
        }
    };
    looked.found.alliance = Some(chartered.alliance());
    match chartered.accredited(&file.accreditation) {
        Some(body) if body.node == file.node => {
            looked.found.organisation.clone_from(&body.organisation.name);
            looked.found.country = Some(body.member);
        }
        _ => looked.find(FindingKind::Untrusted, "no authority has accredited this node".to_owned()),
    }
    match Checkpoint::parse_verified(&file.checkpoint, &file.node, &Origin::of(&file.node)) {
        Ok(head) => looked.head = Some((head.size, head.root)),
        Err(error) => {
            looked.find(FindingKind::Untrusted, format!("the head of its ledger is not signed by it: {error}"));
            return looked;
        }
    }
    looked.heads();
    looked.entries(&chartered);
    looked.witnesses(&chartered);
    looked
}

impl Looked<'_> {
    fn find(&mut self, kind: FindingKind, what: String) {
        self.findings.push(Finding { kind, node: self.file.node, crossing: None, what });
    }

    /// Whether the node of this file has, or had, this key.
    fn has_key(&self, key: &PublicKey) -> bool {
        self.file.node == *key || self.found.former.contains(key)
    }

    /// Whether what somebody did with a key at some time is this node's doing: it has the key, or had it then. Whoever uses one
    /// that has ended is somebody else.
    fn is_of(&self, key: &PublicKey, at: Timestamp) -> bool {
        let then = |end: &Timestamp| at <= end.plus_ms(limits::CLOCK_SKEW_MS_MAX);
        self.file.node == *key || self.ended.get(key).is_some_and(then)
    }

    /// The earlier heads that the ledger is shown to continue.
    fn heads(&mut self) {
        let Some(head) = self.head else { return };
        self.found.entries = head.0;
        self.heads.insert(head.0, head.1);
        for proved in &self.file.heads {
            let holds = verify_consistency((proved.size, proved.root), head, &proved.proof).is_ok();
            if !holds || self.heads.insert(proved.size, proved.root).is_some_and(|root| root != proved.root) {
                self.find(
                    FindingKind::Altered,
                    format!("its ledger does not continue its head of {} entries", proved.size),
                );
            }
        }
    }

    /// Whether witnesses in enough other countries have signed.
    fn witnesses(&mut self, chartered: &Chartered) {
        let needed = chartered.charter().witnesses.countries;
        let mut found = WitnessFound { entries: 0, by: BTreeSet::new(), needed, at: None };
        if let (Some(witnessed), Some(head)) = (&self.file.witnessed, self.head) {
            let keys = self.found.former.iter().copied().chain([self.file.node]).collect();
            match super::head_of(&witnessed.note, &keys) {
                Ok(signed) if verify_consistency((signed.size, signed.root), head, &witnessed.proof).is_ok() => {
                    found.entries = signed.size;
                    let papers = self.file.witnesses.iter().filter_map(|bytes| chartered.accredited(bytes));
                    let papers: BTreeMap<_, _> = papers.map(|body| (body.node, body)).collect();
                    for body in papers.values() {
                        let cosignature = Checkpoint::cosignature(&witnessed.note, &body.node);
                        if let (Some(cosignature), true) = (cosignature, Some(body.member) != self.found.country) {
                            found.by.insert(body.member);
                            found.at = found.at.max(Some(cosignature.at));
                        }
                    }
                }
                Ok(signed) => {
                    let what =
                        format!("its ledger does not continue the {} entries that witnesses have signed", signed.size);
                    self.find(FindingKind::Forked, what);
                }
                Err(error) => {
                    self.find(FindingKind::Untrusted, format!("the head that witnesses signed is not its own: {error}"));
                }
            }
        }
        if found.by.len() < usize::try_from(needed).unwrap_or(usize::MAX) {
            let by = found.by.len();
            self.find(
                FindingKind::Unwitnessed,
                format!("nodes in {by} other countries have signed its head, {needed} must"),
            );
        }
        let grace = chartered.charter().witnesses.grace_ms;
        let late = |disclosed: &&super::Disclosed| {
            let at = Entry::decode(&disclosed.entry).map(|entry| entry.at);
            disclosed.index >= found.entries && at.is_ok_and(|at| at.plus_ms(grace) < self.file.made)
        };
        if let (true, Some(first)) = (needed > 0, self.file.entries.iter().find(late)) {
            let what =
                format!("entry {} and those after it are not signed by witnesses, and were to be by then", first.index);
            self.find(FindingKind::Unwitnessed, what);
        }
        self.found.witnessed = Some(found);
    }

    /// Every entry is in its place, in order, and what it holds was signed by whom it must.
    fn entries(&mut self, chartered: &Chartered) {
        let Some((size, root)) = self.head else { return };
        let heads = std::mem::take(&mut self.heads);
        let (node, halves, findings) = (self.file.node, BTreeMap::new(), Vec::new());
        let alliance = chartered.alliance();
        // Entries were signed with the key of their time, the first of which the first rotation names.
        let entries = self.file.entries.iter().filter_map(|disclosed| Entry::decode(&disclosed.entry).ok());
        let first = entries.filter_map(|entry| entry.record.key_rotation()).next().map_or(node, |rotation| rotation.old);
        let mut ledger =
            Ledger { of: node, node: first, former: Vec::new(), alliance, chartered, heads: &heads, halves, findings };
        let mut last: Option<(u64, Timestamp)> = None;
        for disclosed in &self.file.entries {
            let index = disclosed.index;
            let entry = match Entry::decode(&disclosed.entry) {
                Ok(entry) => entry,
                Err(error) => {
                    self.find(FindingKind::Altered, format!("entry {index} cannot be read: {error}"));
                    continue;
                }
            };
            let leaf = entry.leaf_hash(&disclosed.entry).unwrap_or_else(|_| leaf_hash(&[]));
            if verify_inclusion(leaf, index, size, root, &disclosed.proof).is_err() {
                let (kind, crossing) = (FindingKind::Altered, entry.record.crossing());
                let what = format!("entry {index} is not the one that its head has in this place");
                self.findings.push(Finding { kind, node, crossing, what });
            }
            if last.is_some_and(|(before, _)| before >= index) {
                self.find(
                    FindingKind::Reordered,
                    format!("entry {index} stands behind entry {}", last.unwrap_or_default().0),
                );
            }
            // A clock that was put right between two runs is no lie.
            if last.is_some_and(|(_, before)| before > entry.at.plus_ms(limits::CLOCK_SKEW_MS_MAX)) {
                let what = format!("entry {index} has an earlier time than entry {}", last.unwrap_or_default().0);
                self.find(FindingKind::BackDated, what);
            }
            last = Some((index, entry.at));
            self.leaves.insert(index, leaf);
            ledger.take(index, &entry);
        }
        let Ledger { node: last, former, halves, findings, .. } = ledger;
        self.findings.extend(findings);
        self.found.former = former.iter().map(|(key, _)| *key).collect();
        self.ended = former.into_iter().collect();
        if last != node {
            self.find(
                FindingKind::Untrusted,
                "the changes of its key do not lead to the one that signed the file".to_owned(),
            );
        }
        self.halves = halves;
        self.heads = heads;
    }

    /// Whether a crossing of the other side must be in this file too. Where the file is of what concerns a country, that is
    /// asked of the accreditations of both ends, and not of what the other side has written down of the crossing.
    fn covers(&self, half: &Half, file: &Self) -> bool {
        let skew = limits::CLOCK_SKEW_MS_MAX + limits::CLEARANCE_TTL_MS_MAX;
        let in_time = half.began >= self.file.since.plus_ms(2 * skew);
        let ends = [self.found.country, file.found.country];
        in_time && self.file.country.is_none_or(|country| ends.contains(&Some(country)))
    }
}

/// Files of different alliances have nothing to do with each other.
fn alliances(looked: &[Looked<'_>]) -> Option<Finding> {
    let first = looked.iter().find_map(|file| file.found.alliance)?;
    let other = looked.iter().find(|file| file.found.alliance.is_some_and(|alliance| alliance != first))?;
    let what = "it is of another alliance than the first file".to_owned();
    Some(Finding { kind: FindingKind::Untrusted, node: other.file.node, crossing: None, what })
}

/// Two files of one node whose ledgers are not one.
fn forked(one: &Looked<'_>, other: &Looked<'_>) -> Option<Finding> {
    let entry = one.leaves.iter().find(|(index, leaf)| other.leaves.get(index).is_some_and(|found| found != *leaf));
    let head = one.heads.iter().find(|(size, root)| other.heads.get(size).is_some_and(|found| found != *root));
    let what = match (entry, head) {
        (Some((index, _)), _) => format!("two files of it have different entries {index}"),
        (None, Some((size, _))) => format!("two files of it have different heads of {size} entries"),
        (None, None) => return None,
    };
    Some(Finding { kind: FindingKind::Forked, node: one.file.node, crossing: None, what })
}

/// What of one half is not as the other side's file has it. Each difference is named in the ledger of the side that lacks it
/// or contradicts what it has signed itself.
fn against_the_other_side(half: &Half, file: &Looked<'_>, looked: &[Looked<'_>]) -> Vec<Finding> {
    let Some(peer) = half.peer else { return Vec::new() };
    let mut findings = Vec::new();
    let mut find = |kind, node, what: String| findings.push(Finding { kind, node, crossing: Some(half.crossing), what });
    let over = looked.iter().find(|other| other.has_key(&peer) && !other.is_of(&peer, half.began));
    if let (Some(over), true) = (over, half.clearance.is_some()) {
        let what = format!(
            "it was cleared for the key {}, which node {} had given up before",
            peer.short(),
            over.file.node.short()
        );
        find(FindingKind::Untrusted, file.file.node, what);
    }
    let given = |other: &&Looked<'_>| other.is_of(&peer, half.began) && other.covers(half, file);
    let Some(other) = looked.iter().find(given) else { return findings };
    let named = other.file.node;
    for (of, head) in peer_heads(half) {
        match other.heads.get(&head.size) {
            Some(root) if *root == head.root => {}
            Some(_) => find(
                FindingKind::Forked,
                named,
                format!("its ledger is not the one of {} entries that it signed into the {of}", head.size),
            ),
            None => find(
                FindingKind::Missing,
                named,
                format!("its file does not show the head of {} entries that it signed into the {of}", head.size),
            ),
        }
    }
    let Some(theirs) = other.halves.get(&half.crossing) else {
        // Only what the other side has signed must be with it.
        if half.signed_by_both() {
            find(FindingKind::Missing, named, format!("its ledger has nothing of `{}`", half.name));
        }
        return findings;
    };
    let pairs = [
        ("request", half.request.as_ref().map(Signed::id), theirs.request.as_ref().map(Signed::id)),
        ("clearance", half.clearance.as_ref().map(Signed::id), theirs.clearance.as_ref().map(Signed::id)),
        ("refusal", half.refusal.as_ref().map(Signed::id), theirs.refusal.as_ref().map(Signed::id)),
        ("receipt", half.receipt.as_ref().map(Signed::id), theirs.receipt.as_ref().map(Signed::id)),
    ];
    for (what, own, found) in pairs {
        match (own, found) {
            (Some(own), Some(found)) if own != found => {
                // Said once, of the side that signed neither: the other has two of its own.
                find(FindingKind::Altered, named, format!("its {what} is another than the other side's"));
            }
            (Some(_), None) if signed_by_peer(half, what, &peer) => {
                find(FindingKind::Missing, named, format!("its ledger lacks the {what} that it signed"));
            }
            _ => {}
        }
    }
    if half.node < peer && (half.from, half.to) != (theirs.from, theirs.to) && theirs.from.is_some() && half.from.is_some()
    {
        find(FindingKind::Altered, file.file.node, "the two sides name different countries".to_owned());
    }
    let apart = half.began.0.abs_diff(theirs.began.0);
    if half.node < peer && apart > 2 * limits::CLOCK_SKEW_MS_MAX {
        let what = format!("the two sides recorded its beginning {} seconds apart", apart / 1000);
        find(FindingKind::BackDated, file.file.node, what);
    }
    findings
}

/// The heads of the other side's ledger that stand in what it signed for this crossing.
fn peer_heads(half: &Half) -> Vec<(&'static str, LedgerHead)> {
    let importers = || {
        let request = half.request.as_ref().map(|request| ("request", request.body().ledger));
        request.into_iter().chain(half.receipt.as_ref().map(|receipt| ("receipt", receipt.body().ledger)))
    };
    match half.side {
        crate::core::admin::Side::Exporter => importers().collect(),
        crate::core::admin::Side::Importer => {
            half.clearance.iter().map(|clearance| ("clearance", clearance.body().ledger)).collect()
        }
    }
}

/// Whether the other side has signed the statement of a half that its own ledger lacks.
fn signed_by_peer(half: &Half, what: &str, peer: &PublicKey) -> bool {
    match what {
        "request" => half.request.as_ref().is_some_and(|request| request.signed_by(peer)),
        "clearance" => half.clearance.as_ref().is_some_and(|clearance| clearance.signed_by(peer)),
        "refusal" => half.refusal.as_ref().is_some_and(|refusal| refusal.signed_by(peer)),
        _ => half.receipt.as_ref().is_some_and(|receipt| receipt.signed_by(peer)),
    }
}

/// What is shown of a crossing.
fn found(halves: &[&Half], given: &dyn Fn(&Half) -> bool, wrong: bool) -> Option<CrossingFound> {
    let first = *halves.first()?;
    let best =
        halves.iter().copied().max_by_key(|half| (half.receipt.is_some(), half.clearance.is_some(), half.declined))?;
    let moved = || halves.iter().map(|half| half.moved).max().filter(|bytes| *bytes > 0);
    let alone = halves.iter().all(|half| half.node == first.node);
    let other_given = given(first);
    let halves_agree = match (wrong, alone) {
        (true, _) => Match::Wrong,
        (false, false) => Match::Both,
        (false, true) if first.denied_at_home => Match::OneExpected,
        (false, true) if other_given && first.signed_by_both() => Match::NotCovered,
        (false, true) if other_given => Match::OneExpected,
        (false, true) => Match::OneGiven,
    };
    Some(CrossingFound {
        crossing: first.crossing,
        name: first.name.clone(),
        exporter: first.exporter(),
        importer: first.importer(),
        from: halves.iter().find_map(|half| half.from),
        to: halves.iter().find_map(|half| half.to),
        manifest: first.manifest,
        purpose: halves.iter().find_map(|half| half.request.as_ref()).map(|request| request.body().purpose),
        bytes: best.receipt.as_ref().map(|receipt| receipt.body().bytes).or_else(moved),
        began: first.began,
        outcome: best.outcome(),
        halves: halves_agree,
    })
}
