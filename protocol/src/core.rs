//! What a node decides: one pure function from an input, the time and the state to effects.
//!
//! Reads no clock, opens no file, sends nothing. Whatever must last goes through `Core::record`, which puts it into the
//! effects *and* applies it to the state; after a restart the same records, replayed, give the same state.
//!
//! - `local`: what the operator asks          - `exchange`: what the mesh brings
//! - `exporting`, `importing`: the two ends of a crossing    - `sources`: one artefact from several peers
//! - `history`: crossings as recorded    - `outlook`: what law that is adopted ahead will end
//! - `rotating`: keys that make way for others, this node's own among them

use std::collections::{BTreeMap, BTreeSet};

pub mod admin;
mod approvals;
mod effects;
mod exchange;
mod exporting;
mod history;
mod importing;
mod local;
mod offers;
mod outlook;
mod peers;
mod placing;
mod provenance;
mod retention;
mod rotating;
mod sources;
mod start;
pub mod transfers;
mod volumes;
mod watching;
mod window;
mod witnessing;

pub use effects::*;
use exporting::Export;
use history::History;
use importing::Pull;
use offers::Offers;
use peers::Peers;
use placing::Placing;
use provenance::Provenances;
use retention::{Place, Retention};
use sources::Wanted;
pub use start::{Origin, StartError};
use volumes::Volumes;
use watching::Watch;
use window::Window;
use witnessing::{Asked, Witnessing};

use self::admin::LocalModel;
use crate::{
    authority::{Accreditation, Approval},
    border::{Border, Denial},
    charter::{CharterError, Chartered},
    crossing::{ClearanceGiven, RefusalCode},
    envelope::recorded_body,
    envelope::{OpenError, Signed},
    gate::{Facts, Gate, Pack, PackError, Volume},
    id::{CrossingId, StatementId},
    key::{PublicKey, SecretKey},
    ledger::{Entry, Record},
    limits,
    offer::{NodeRecord, Offer},
    time::{Timestamp, Validity},
    trust::{Accepted, Distrust, NoStanding, Trust},
    vocabulary::Country,
};

/// A node's mind. Owned by the one loop of the daemon.
#[derive(Debug)]
pub struct Core {
    key: SecretKey,
    config: Config,
    accreditation: Signed<Accreditation>,
    trust: Trust,
    /// This node's own record, as presented to peers.
    own_record: Signed<NodeRecord>,
    peers: Peers,
    offers: Offers,
    models: BTreeMap<String, LocalModel>,
    history: History,
    /// Crossings that this node serves, by ask.
    exports: BTreeMap<AskId, Export>,
    /// Crossings that this node pulls.
    pulls: BTreeMap<CrossingId, Pull>,
    /// What the operator asked for and those serve, by the first of them.
    wanted: BTreeMap<CrossingId, Wanted>,
    /// Ids of requests that this node has answered, until they are too old to be asked again (I4).
    answered: BTreeMap<CrossingId, Timestamp>,
    /// How often what goes back to an offer was offered on, since the start.
    onward_published: BTreeMap<StatementId, u32>,
    /// Approvals of officers, until they run out, by the hash of their bytes.
    approvals: BTreeMap<StatementId, Signed<Approval>>,
    volumes: Volumes,
    retention: Retention,
    /// Crossings of each peer that came to nothing.
    fruitless: Window<PublicKey>,
    /// Statements of each authority that were new.
    heard: Window<Country>,
    /// The own ledger before its witnesses.
    witnessing: Witnessing,
    /// The ledgers of others.
    watch: Watch,
    /// Where models were trained.
    provenances: Provenances,
    /// Where others cannot be.
    placing: Placing,
    /// Questions about ledgers that wait for their answer, by number.
    witness_asks: BTreeMap<u64, (PublicKey, Asked)>,
    asked_witnesses: u64,
    randomness: Randomness,
    next_round: Timestamp,
    /// The highest version of the charter that a node named which this one cannot believe without it.
    charter_ahead: u32,
}

/// What the shell knows and Core must be told.
#[derive(Clone, Debug)]
pub struct Config {
    pub version: String,
    /// Multiaddrs at which the mesh endpoint can be reached.
    pub mesh_addresses: Vec<String>,
    /// Socket addresses at which the bulk endpoint can be reached.
    pub bulk_addresses: Vec<String>,
    /// The signed binding of the key with which this node signs models, if it has one.
    pub model_key: Option<Vec<u8>>,
    pub baseline: Pack,
    pub house: Option<Pack>,
    /// Whose approval counts where a rule of the house demands one.
    pub approvers: BTreeSet<PublicKey>,
    /// Connections over which a large artefact is pulled from one node, at the most; 1 where one uses all that there is.
    pub connections: u32,
    /// Bytes of an artefact for each of these connections, at the least.
    pub connection_bytes: u64,
    /// 32 unpredictable bytes, fresh for each start; crossing ids are drawn from them.
    pub seed: [u8; 32],
}

#[derive(Debug)]
struct Randomness {
    seed: [u8; 32],
    drawn: u64,
}

impl Core {
    /// Everything that happens to a node passes here.
    pub fn handle(&mut self, input: Input, now: Timestamp, gate: &dyn Gate) -> Effects {
        let mut effects = Effects::default();
        let pulls = self.pulls.len();
        match input {
            Input::Admin(id, call) => self.on_admin(id, call, now, gate, &mut effects),
            Input::Mesh(event) => self.on_mesh(event, now, gate, &mut effects),
            Input::Bulk(event) => self.on_bulk(event, now, gate, &mut effects),
            Input::Tick => {}
        }
        if self.pulls.len() < pulls {
            // While others still bring the rest: a pull ends when nobody is left who does.
            self.ask_more_sources(now, gate, &mut effects);
        }
        if now >= self.next_wake() {
            self.round(now, gate, &mut effects);
        }
        effects
    }

    /// When `Input::Tick` is due at the latest.
    #[must_use]
    pub fn next_wake(&self) -> Timestamp {
        self.next_round
    }

    fn on_bulk(&mut self, event: BulkEvent, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        match event {
            BulkEvent::Asked { ask, peer, session, request } => {
                self.asked(ask, peer, session, &request, now, gate, effects)
            }
            BulkEvent::ReceiptOffered { ask, bytes, receipt } => self.receipt_offered(ask, bytes, &receipt, now, effects),
            BulkEvent::ServeFailed { ask, bytes, failure } => {
                self.see_why(&failure, now, gate, effects);
                self.serve_failed(ask, bytes, &failure, now, effects);
            }
            BulkEvent::Reached { crossing, session } => self.reached(crossing, session, now, gate, effects),
            BulkEvent::Answered { crossing, answer } => self.answered(crossing, &answer, now, gate, effects),
            BulkEvent::Progressed { crossing, bytes, total } => self.history.progress(crossing, bytes, total),
            BulkEvent::Received { crossing, bytes, held_bytes, part } => {
                self.received(crossing, (bytes, held_bytes), part, now, gate, effects);
            }
            BulkEvent::Delivered { crossing } => self.delivered(crossing, now, effects),
            BulkEvent::Settled { crossing, receipt } => self.settled(crossing, &receipt, now, effects),
            BulkEvent::PullFailed { crossing, failure } => {
                self.see_why(&failure, now, gate, effects);
                self.pull_failed(crossing, &failure, now, effects);
            }
            BulkEvent::Deleted { crossing, problem } => self.deleted(crossing, problem, now, effects),
        }
    }

    /// What is done whenever time has passed: drop what ran out, decide running crossings again, keep up with the mesh.
    fn round(&mut self, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        let old = now.minus_ms(ANSWERED_KEPT_MS);
        self.answered.retain(|_, at| *at >= old);
        self.fruitless.expire(now);
        self.heard.expire(now);
        effects.catalogue.extend(self.offers.expire(now).into_iter().map(|id| CatalogueChange::Remove { id }));
        self.drop_expired(now, effects);
        // A refusal takes back every earlier word of its signer, also when it has run out itself: none of those revives.
        self.approvals.retain(|_, approval| {
            let body = approval.body();
            let ends = if body.granted { body.validity.until } else { body.validity.from.plus_ms(limits::OFFER_MS_MAX) };
            ends > now
        });
        self.onward_published.retain(|root, _| self.offers.get(*root).is_some());
        self.delete_due(now, effects);
        if self.own_record.body().validity.until < now.plus_ms(RECORD_MS / 2) {
            self.renew_record(now);
            self.present_record(effects);
        }
        self.drop_unseated(now, effects);
        self.decide_running_again(now, gate, effects);
        self.ask_more_sources(now, gate, effects);
        self.take_back_onward(now, effects);
        self.keep_up_with_mesh(now, effects);
        self.keep_watch(now, effects);
        self.keep_witnessed(now, effects);
        let ends = [
            self.trust.next_change(now),
            self.next_turn_of_law(now, gate),
            self.offers.next_expiry(),
            self.next_deadline(now),
            self.retention.next(),
            self.next_watch_time(now),
            self.next_witness_time(now),
        ];
        // What ends or begins sooner than the next regular round is looked at when it does.
        self.next_round = ends.into_iter().flatten().fold(now.plus_ms(ROUND_MS), Timestamp::min).max(now.plus_ms(1));
    }

    /// Draws up this node's record anew, with what it knows now.
    fn renew_record(&mut self, now: Timestamp) {
        let serial = now.0.max(self.own_record.body().serial.saturating_add(1));
        let charter = (self.trust.alliance(), self.trust.chartered().charter().version, serial);
        // The start has made one with these addresses, so that it is not too large; the serial rises with the time.
        if let Ok(record) = own_record(&self.key, &self.accreditation, &self.config, charter, now) {
            self.own_record = record;
        }
    }

    /// Makes something last: into the effects, to be made durable before anything else happens, and into the state.
    fn record(&mut self, record: Record, now: Timestamp, effects: &mut Effects) {
        self.apply(&record, now);
        let entry = Entry { at: now, record };
        self.witnessing.append(leaf_of(&entry), now);
        self.next_round = self.next_round.min(self.next_witness_time(now).unwrap_or(self.next_round));
        effects.persist.push(entry.record);
    }

    /// What a record changes, live and after a restart alike.
    fn apply(&mut self, record: &Record, at: Timestamp) {
        self.history.apply(record, at);
        self.apply_provenance(record);
        match record {
            Record::Cleared { clearance, decision, .. } => {
                let abroad = |facts: &Facts| facts.from.country != facts.to.country;
                if let (Some(given), true) =
                    (recorded_body::<ClearanceGiven>(clearance), decision.facts.as_ref().is_some_and(abroad))
                {
                    let own = Volume::of(&given.labels, given.people);
                    self.volumes.count(given.manifest, given.people, own, at);
                }
            }
            // From here on the files may stand in their place, whether or not the daemon lives to say so.
            Record::Received { crossing, .. } => {
                self.keep_until(*crossing, Place::Destination, at);
            }
            Record::ClearanceAccepted { crossing, .. } => self.keep_until(*crossing, Place::Staging, at),
            Record::PartDelivered { crossing } => self.keep_until(*crossing, Place::Destination, at),
            Record::ModelImported { model } => {
                if let Some(crossing) = model.crossing {
                    self.keep_until(crossing, Place::Destination, at);
                }
            }
            Record::Deleted { crossing } => self.forget_deleted(*crossing),
            Record::PlaceContradicted { node, place, seen_from, round_trip_us } => {
                self.placing.recorded(*node, *place, *seen_from, *round_trip_us);
            }
            Record::ForkFound { node, first, second } => self.watch.fork_recorded(*node, first, second),
            Record::RotationAccepted { rotation } => self.inherit_fork(rotation),
            Record::Founded { .. }
            | Record::CharterAccepted { .. }
            | Record::Accredited { .. }
            | Record::RulesLoaded { .. }
            | Record::StatusAccepted { .. }
            | Record::PackAccepted { .. }
            | Record::KeyRotated { .. }
            | Record::ApprovalAccepted { .. }
            | Record::StepRecorded { .. }
            | Record::TrainingAttested { .. }
            | Record::OfferPublished { .. }
            | Record::OfferWithdrawn { .. }
            | Record::Requested { .. }
            | Record::RequestDenied { .. }
            | Record::Refused { .. }
            | Record::RefusalAccepted { .. }
            | Record::Settled { .. }
            | Record::ClearanceDeclined { .. }
            | Record::CrossingFailed { .. } => {}
        }
    }

    /// Notes what has to be deleted at some time, where a duty of the crossing says so.
    fn keep_until(&mut self, crossing: CrossingId, what: Place, at: Timestamp) {
        let due = self.history.get(crossing).and_then(|view| self.retention.keep(crossing, what, view, at));
        if let Some(due) = due {
            self.history.delete_by(crossing, due);
        }
    }

    /// Keeps a model under its name. One that came by a crossing does not displace one that was imported here: that stays
    /// what this node's offers say it is.
    fn keep_model(&mut self, model: &LocalModel) {
        let displaces =
            model.crossing.is_none() || self.models.get(&model.name).is_none_or(|known| known.crossing.is_some());
        if displaces {
            self.models.insert(model.name.clone(), model.clone());
        }
    }

    fn me(&self) -> PublicKey {
        self.key.public()
    }

    fn border<'a>(&'a self, gate: &'a dyn Gate, now: Timestamp) -> Border<'a> {
        Border {
            trust: &self.trust,
            gate,
            baseline: &self.config.baseline,
            house: self.config.house.as_ref(),
            home: self.accreditation.body().member,
            approvals: &self.approvals,
            approvers: &self.config.approvers,
            outlook: None,
            ledger: self.ledger_problem(now),
            doubts: self.watch.doubts(now),
            misplaced: self.placing.misplaced(self.accreditation.body().place),
            now,
        }
    }

    fn running(&self) -> usize {
        self.exports.len() + self.pulls.len()
    }

    /// Decides every running crossing again, with the law, offers and accreditations of now; what is no longer allowed ends.
    fn decide_running_again(&mut self, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        let late = |began: Timestamp| now >= began.plus_ms(limits::CROSSING_MS_MAX);
        let border = self.border(gate, now);
        let root = |offer: &Signed<Offer>| self.root_of(offer.body());
        let training = |offer: &Signed<Offer>| self.attestation_of(offer.body());
        let why = |allowed: Result<(), Denial>, began| match allowed {
            Err(denial) => Some(denial.problem),
            Ok(()) if late(began) => Some(LATE.to_owned()),
            Ok(()) => None,
        };
        let exports = self.exports.iter().filter(|(_, export)| export.ended.is_none());
        let exports: Vec<_> = exports
            .filter_map(|(ask, export)| {
                let allowed = export.still_allowed(
                    &border,
                    &self.accreditation,
                    &self.offers,
                    root(export.offer()),
                    training(export.offer()),
                );
                Some((*ask, why(allowed, export.began)?))
            })
            .collect();
        let still_allowed = |pull: &Pull| match pull.is_delivered() {
            true => Ok(()),
            false => pull.still_allowed(&border, &self.accreditation, &self.offers, root(pull.offer())),
        };
        let pulls = self.pulls.iter().filter(|(_, pull)| pull.ended.is_none());
        let pulls: Vec<_> =
            pulls.filter_map(|(crossing, pull)| Some((*crossing, why(still_allowed(pull), pull.began)?))).collect();
        for (ask, why) in exports {
            self.cut_export(ask, format!("ended while it ran: {why}"), effects);
        }
        for (crossing, why) in pulls {
            self.cut_pull(crossing, format!("ended while it ran: {why}"), now, effects);
        }
    }

    /// The other side says that it has ended what ran, and never why. Where this side would have ended it now as well, that is
    /// the reason that both record.
    fn see_why(&mut self, failure: &BulkFailure, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        if *failure == BulkFailure::EndedByPeer(RefusalCode::Ended) {
            self.decide_running_again(now, gate, effects);
        }
    }

    /// Ends a serving that runs. It stays known until the bulk plane says how many bytes had left by then.
    fn cut_export(&mut self, ask: AskId, why: String, effects: &mut Effects) {
        if let Some(export) = self.exports.get_mut(&ask) {
            export.ended = Some(why);
        }
        effects.bulk.push(BulkOrder::AbortServe { ask, code: RefusalCode::Ended });
    }

    /// Ends a pull that runs.
    fn cut_pull(&mut self, crossing: CrossingId, why: String, now: Timestamp, effects: &mut Effects) {
        effects.bulk.push(BulkOrder::AbortPull { crossing, code: RefusalCode::Ended });
        match self.pulls.get_mut(&crossing) {
            Some(pull) if pull.is_being_delivered() => pull.ended = Some(why),
            _ => self.end_pull(crossing, why, false, now, effects),
        }
    }

    /// Every version of the charter in one piece (`Chartered::to_log`).
    #[must_use]
    pub fn charter_log(&self) -> Vec<u8> {
        self.trust.chartered().to_log()
    }

    /// Whose node a peer is, as its authority says.
    #[must_use]
    pub fn member_of(&self, peer: &PublicKey) -> Option<Country> {
        self.peers.get(peer).map(|known| known.accreditation.body().member)
    }

    /// When the first running crossing has taken too long, or rests on a paper that runs out.
    fn next_deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let exports = self.exports.values().filter(|export| export.ended.is_none());
        let exports = exports.map(|export| (export.began, export.papers_until));
        let pulls = self.pulls.values().filter(|pull| pull.ended.is_none()).map(|pull| (pull.began, pull.papers_until));
        let end = |(began, until): (Timestamp, Timestamp)| began.plus_ms(limits::CROSSING_MS_MAX).min(until);
        // One that has passed has been looked at; waiting for it again would be waiting for nothing.
        exports.chain(pulls).map(end).filter(|end| *end > now).min()
    }
}

impl Randomness {
    /// Draws a new id: BLAKE3 keyed with the seed, over a counter.
    fn crossing(&mut self) -> CrossingId {
        self.drawn += 1;
        CrossingId(*blake3::keyed_hash(&self.seed, &self.drawn.to_be_bytes()).as_bytes())
    }
}

/// The leaf of the tree for an entry. One that cannot be encoded stops the node when it is to be committed, before its leaf
/// counts for anything.
fn leaf_of(entry: &Entry) -> crate::id::Sha256 {
    let leaf = entry.encode().and_then(|bytes| entry.leaf_hash(&bytes));
    leaf.unwrap_or_else(|_| crate::ledger::leaf_hash(&[]))
}

fn own_record(
    key: &SecretKey,
    accreditation: &Signed<Accreditation>,
    config: &Config,
    (alliance, charter, serial): (crate::id::AllianceId, u32, u64),
    now: Timestamp,
) -> Result<Signed<NodeRecord>, OpenError> {
    let record = NodeRecord {
        node: key.public(),
        accreditation: accreditation.bytes().to_vec(),
        mesh: config.mesh_addresses.iter().take(limits::ADDRESSES_MAX).cloned().collect(),
        bulk: config.bulk_addresses.iter().take(limits::ADDRESSES_MAX).cloned().collect(),
        model_key: config.model_key.clone().map(Into::into),
        charter,
        serial,
        validity: Validity::lasting_ms(now, RECORD_MS),
    };
    Signed::sign(&record, alliance, key)
}

/// Milliseconds for which a node record counts; renewed at half of it.
const RECORD_MS: u64 = 24 * 60 * 60 * 1000;

/// Milliseconds between two regular rounds: how late a lost gossip message is made up for.
const ROUND_MS: u64 = 10_000;

/// Milliseconds for which answered requests are remembered: longer than a request may be old.
const ANSWERED_KEPT_MS: u64 = 4 * limits::CLOCK_SKEW_MS_MAX;

const LATE: &str = "it took longer than a crossing may";
