//! Making an audit file from a whole ledger.

use std::collections::{BTreeMap, BTreeSet};

use serde_bytes::ByteBuf;

use super::{AuditFile, Disclosed, FORMAT, ProvedHead, WitnessedHead};
use crate::{
    border::Decision,
    crossing::{ClearanceGiven, CrossingRequest, Receipt},
    envelope::recorded_body,
    gate::PackOwner,
    id::{CrossingId, ManifestId, Sha256},
    key::PublicKey,
    ledger::{Checkpoint, CheckpointError, Entry, EntryError, Origin, Record, Tiles},
    time::Timestamp,
    vocabulary::Country,
};

/// What an audit file is made from.
#[derive(Debug)]
pub struct Source<'a> {
    pub node: PublicKey,
    /// The log of the charter.
    pub charter: Vec<u8>,
    /// The node's signed accreditation.
    pub accreditation: Vec<u8>,
    /// The member that the node belongs to: crossings of which not more is known concern this country.
    pub home: Country,
    /// The whole ledger.
    pub entries: &'a [Entry],
    /// Its signed head.
    pub checkpoint: String,
    /// The newest head that witnesses signed, and their accreditations.
    pub witnessed: Option<String>,
    pub witnesses: Vec<Vec<u8>>,
}

/// Why no audit file can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotExported {
    #[error("entry {index} of the ledger cannot be read")]
    Entry {
        index: u64,
        #[source]
        source: EntryError,
    },
    #[error("the head of the ledger is not signed by its node")]
    Checkpoint(#[source] CheckpointError),
    #[error("the {size} entries are not those that the head of the ledger signs")]
    OtherRoot { size: u64 },
    #[error("the head that witnesses signed is not one of this ledger")]
    Witnessed,
}

impl Source<'_> {
    /// The crossings that concern `country`, or all, that began at `since` or later, with what is needed to check them.
    ///
    /// # Errors
    /// The ledger is not whole, or not the newest.
    pub fn export(self, country: Option<Country>, since: Timestamp, made: Timestamp) -> Result<AuditFile, NotExported> {
        let mut encoded = Vec::with_capacity(self.entries.len());
        let mut tiles = Tiles::default();
        for (index, entry) in (0..).zip(self.entries) {
            let bytes = entry.encode().map_err(|source| NotExported::Entry { index, source })?;
            tiles.append(entry.leaf_hash(&bytes).map_err(|source| NotExported::Entry { index, source })?);
            encoded.push(bytes);
        }
        let origin = Origin::of(&self.node);
        let former = self.entries.iter().filter_map(|entry| Some(entry.record.key_rotation()?.old));
        let keys: BTreeSet<_> = former.chain([self.node]).collect();
        let head = Checkpoint::parse_verified(&self.checkpoint, &self.node, &origin).map_err(NotExported::Checkpoint)?;
        if (head.size, head.root) != (tiles.size(), tiles.root()) {
            return Err(NotExported::OtherRoot { size: tiles.size() });
        }
        let proved = |size: u64| -> Option<(Sha256, Vec<Sha256>)> {
            Some((tiles.root_at(size)?, tiles.prove_consistency(size, tiles.size())?))
        };
        let witnessed = match self.witnessed {
            None => None,
            Some(note) => {
                let signed = super::head_of(&note, &keys).map_err(NotExported::Checkpoint)?;
                let (root, proof) = proved(signed.size).ok_or(NotExported::Witnessed)?;
                if root != signed.root {
                    return Err(NotExported::Witnessed);
                }
                Some(WitnessedHead { note, proof })
            }
        };
        let chosen = chosen(self.entries, self.home, country, since);
        let mut sizes = BTreeSet::new();
        let mut entries = Vec::new();
        for ((index, entry), bytes) in (0..).zip(self.entries).zip(encoded) {
            if !chosen.holds(&entry.record) {
                continue;
            }
            sizes.extend(own_heads(&entry.record, &keys));
            let proof = tiles.prove_inclusion(index, tiles.size()).unwrap_or_default();
            entries.push(Disclosed { index, entry: ByteBuf::from(bytes), proof });
        }
        let head = |size| proved(size).map(|(root, proof)| ProvedHead { size, root, proof });
        Ok(AuditFile {
            format: FORMAT.to_owned(),
            node: self.node,
            country,
            since,
            made,
            charter: ByteBuf::from(self.charter),
            accreditation: ByteBuf::from(self.accreditation),
            checkpoint: self.checkpoint,
            witnessed,
            witnesses: self.witnesses.into_iter().map(ByteBuf::from).collect(),
            heads: sizes.into_iter().filter_map(head).collect(),
            entries,
        })
    }
}

/// Which entries are disclosed.
struct Chosen {
    crossings: BTreeSet<CrossingId>,
    /// The law packs that these crossings were decided by.
    packs: BTreeSet<(Country, u64)>,
    /// The artefacts that they are of.
    manifests: BTreeSet<ManifestId>,
}

/// What of a crossing decides whether it is chosen.
struct Begun {
    at: Timestamp,
    concerned: Option<BTreeSet<Country>>,
    /// The countries of both ends, by their accreditations.
    home: BTreeSet<Country>,
    packs: BTreeSet<(Country, u64)>,
    manifests: BTreeSet<ManifestId>,
}

fn chosen(entries: &[Entry], home: Country, country: Option<Country>, since: Timestamp) -> Chosen {
    let mut begun: BTreeMap<CrossingId, Begun> = BTreeMap::new();
    for entry in entries {
        let Some(crossing) = entry.record.crossing() else { continue };
        let of = begun.entry(crossing).or_insert(Begun {
            at: entry.at,
            concerned: None,
            home: BTreeSet::from([home]),
            packs: BTreeSet::new(),
            manifests: BTreeSet::new(),
        });
        of.manifests.extend(manifest_of(&entry.record));
        of.home.extend(asked_from(&entry.record));
        if let Some(decision) = entry.record.decision() {
            if let Some(countries) = concerned(decision) {
                of.concerned.get_or_insert_default().extend(countries);
            }
            of.packs.extend(decision.verdicts.iter().filter_map(|verdict| match verdict.pack {
                PackOwner::Member(member) => Some((member, verdict.epoch)),
                PackOwner::Alliance | PackOwner::House => None,
            }));
        }
    }
    // What was refused before law was asked concerns the countries of both ends, as far as they are known.
    let concerns = |of: &Begun, country| {
        of.concerned.as_ref().is_some_and(|known| known.contains(&country)) || of.home.contains(&country)
    };
    begun.retain(|_, of| of.at >= since && country.is_none_or(|country| concerns(of, country)));
    let packs = begun.values().flat_map(|of| of.packs.iter().copied()).collect();
    let manifests = begun.values().flat_map(|of| of.manifests.iter().copied()).collect();
    Chosen { crossings: begun.into_keys().collect(), packs, manifests }
}

impl Chosen {
    fn holds(&self, record: &Record) -> bool {
        match record {
            Record::Founded { .. }
            | Record::CharterAccepted { .. }
            | Record::Accredited { .. }
            | Record::RulesLoaded { .. }
            | Record::KeyRotated { .. }
            | Record::ForkFound { .. }
            | Record::PlaceContradicted { .. } => true,
            Record::ApprovalAccepted { approval } => recorded_body::<crate::authority::Approval>(approval)
                .is_some_and(|approval| self.manifests.contains(&approval.manifest)),
            Record::PackAccepted { pack } => recorded_body::<crate::authority::LawPack>(pack)
                .is_some_and(|pack| self.packs.contains(&(pack.member, pack.epoch))),
            other => other.crossing().is_some_and(|crossing| self.crossings.contains(&crossing)),
        }
    }
}

/// The artefact that a record of a crossing is about.
fn manifest_of(record: &Record) -> Option<ManifestId> {
    match record {
        Record::Requested { request, .. } | Record::Cleared { request, .. } | Record::Refused { request, .. } => {
            recorded_body::<CrossingRequest>(request).map(|request| request.manifest)
        }
        Record::RequestDenied { manifest, .. } => Some(*manifest),
        _ => None,
    }
}

/// The country from which a request came, by the accreditation in it.
fn asked_from(record: &Record) -> Option<Country> {
    let (Record::Cleared { request, .. } | Record::Refused { request, .. }) = record else { return None };
    let request = recorded_body::<CrossingRequest>(request)?;
    recorded_body::<crate::authority::Accreditation>(&request.accreditation).map(|paper| paper.member)
}

/// The countries that a crossing concerns: of both ends, and of the people whom the data is about.
pub(super) fn concerned(decision: &Decision) -> Option<BTreeSet<Country>> {
    let facts = decision.facts.as_ref()?;
    let ends = [facts.from.country, facts.to.country, facts.origin];
    Some(facts.subjects.iter().copied().chain(ends).collect())
}

/// The sizes of the heads of this node's ledger that it signed, with one of its keys, into the statements of a record.
fn own_heads(record: &Record, keys: &BTreeSet<PublicKey>) -> BTreeSet<u64> {
    let request = |bytes: &[u8]| {
        let request = recorded_body::<CrossingRequest>(bytes)?;
        keys.contains(&request.importer).then_some(request.ledger.size)
    };
    let clearance = |bytes: &[u8]| {
        let clearance = recorded_body::<ClearanceGiven>(bytes)?;
        keys.contains(&clearance.exporter).then_some(clearance.ledger.size)
    };
    let receipt = |bytes: &[u8]| {
        let receipt = recorded_body::<Receipt>(bytes)?;
        keys.contains(&receipt.importer).then_some(receipt.ledger.size)
    };
    let sizes = match record {
        Record::Requested { request: bytes, .. } | Record::Refused { request: bytes, .. } => vec![request(bytes)],
        Record::Cleared { request: asked, clearance: given, .. } => vec![request(asked), clearance(given)],
        Record::ClearanceAccepted { clearance: given, .. } | Record::ClearanceDeclined { clearance: given, .. } => {
            vec![clearance(given)]
        }
        Record::Received { receipt: bytes, .. } | Record::Settled { receipt: bytes, .. } => vec![receipt(bytes)],
        Record::KeyRotated { .. } => vec![record.key_rotation().map(|rotation| rotation.ledger.size)],
        _ => Vec::new(),
    };
    sizes.into_iter().flatten().collect()
}
