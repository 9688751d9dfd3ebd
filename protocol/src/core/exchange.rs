//! What the mesh brings: records, offers, withdrawals, statuses and law packs of others. Each is verified before it is
//! stored, and stored before it is forwarded.

use super::{CatalogueChange, Core, Effects, Judgement, MeshEvent, MeshOrder, SyncAnswer, SyncRequest, peers::Known};
use crate::{
    authority::{LawPack, Status},
    charter::{Charter, CharterError},
    envelope::{OpenError, Signed, Statement, kind_of, recorded_body},
    gate::Gate,
    id::StatementId,
    key::PublicKey,
    ledger::{Checkpoint, Record},
    limits,
    model_key::ModelKeyBinding,
    offer::{NodeRecord, Offer, Withdrawal, split_name},
    rotation::KeyRotation,
    time::Timestamp,
    trust::{Accepted, Distrust, NoStanding},
    vocabulary::Country,
};

/// Why a statement of another node or authority is not taken in.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTaken {
    /// It breaks a rule that every honest sender keeps: it counts against who sent it.
    #[error("{0}")]
    Bad(String),
    /// It may be honest and is of no use here now.
    #[error("{0}")]
    Useless(String),
    /// Whoever it claims to be of has no seat in the charter that is known here. It may have one in a later version.
    #[error("{0}")]
    Unseated(String),
}

impl From<OpenError> for NotTaken {
    fn from(error: OpenError) -> Self {
        Self::Bad(error.to_string())
    }
}

impl From<Distrust> for NotTaken {
    fn from(error: Distrust) -> Self {
        match error {
            // The sender may not have heard of the newer one yet.
            Distrust::Older { .. } | Distrust::Expired(_) => Self::Useless(error.to_string()),
            // The authority did wrong, or writes for another release; the node that passed it on may not know.
            Distrust::Equivocation { .. } | Distrust::Pack(_) => Self::Useless(error.to_string()),
            Distrust::NotAMember(_) | Distrust::NotTheAuthority(_) => Self::Unseated(error.to_string()),
            Distrust::Rotation(rotation) => rotation.into(),
            Distrust::Charter(charter) => charter.into(),
            Distrust::Open(_) | Distrust::Malformed(_) => Self::Bad(error.to_string()),
        }
    }
}

impl From<CharterError> for NotTaken {
    fn from(error: CharterError) -> Self {
        match error {
            // One is behind, or members did wrong; the node that passed it on may not know.
            CharterError::Older { .. }
            | CharterError::Skipped { .. }
            | CharterError::Forked { .. }
            | CharterError::OtherPast { .. }
            | CharterError::TooManyVersions => Self::Useless(error.to_string()),
            CharterError::Open(_)
            | CharterError::Malformed(_)
            | CharterError::TooFewMembers { .. }
            | CharterError::TooFewOf { .. }
            | CharterError::NotFounding { .. }
            | CharterError::Stranger(_)
            | CharterError::BackDated { .. }
            | CharterError::Moved { .. }
            | CharterError::Unwilling(_)
            | CharterError::Log(_) => Self::Bad(error.to_string()),
        }
    }
}

impl From<NoStanding> for NotTaken {
    fn from(error: NoStanding) -> Self {
        match error {
            NoStanding::Accreditation(distrust) => distrust.into(),
            NoStanding::OtherKey(_) => Self::Bad(error.to_string()),
            // What one node knows of revocations and time, another may not know yet.
            NoStanding::NotValid { .. }
            | NoStanding::Revoked { .. }
            | NoStanding::Replaced { .. }
            | NoStanding::Contested { .. }
            | NoStanding::Role { .. }
            | NoStanding::Stale(_) => Self::Useless(error.to_string()),
        }
    }
}

impl Core {
    pub(super) fn on_mesh(&mut self, event: MeshEvent, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        match event {
            MeshEvent::Connected { peer } => self.peers.connect(peer),
            MeshEvent::Disconnected { peer } => {
                self.peers.disconnect(&peer);
                self.witnessing.left(&peer);
            }
            MeshEvent::WitnessAsked { question, peer, ask } => self.witness_asked(question, peer, ask, now, effects),
            MeshEvent::WitnessAnswered { number, answer } => self.witness_answered(number, answer, now, effects),
            MeshEvent::Measured { peer, round_trip_us } => self.measured(peer, round_trip_us, now, gate, effects),
            MeshEvent::Introduced { peer, record } => self.introduced(peer, &record, now, effects),
            MeshEvent::Gossiped { message, from, bytes } => {
                let judgement = if self.peers.is_admitted(&from) {
                    let taken = if Checkpoint::may_be(&bytes) {
                        self.take_checkpoint(&bytes, from, now, effects)
                    } else {
                        self.take_in(&bytes, now, gate, effects)
                    };
                    match taken {
                        Ok(Accepted::New) => Judgement::Accept,
                        Ok(Accepted::Known) | Err(NotTaken::Useless(_)) => Judgement::Ignore,
                        Err(NotTaken::Unseated(_)) if !self.knows_the_same(&from) => Judgement::Ignore,
                        Err(NotTaken::Unseated(_) | NotTaken::Bad(_)) => Judgement::Reject,
                    }
                } else {
                    Judgement::Ignore
                };
                effects.mesh.push(MeshOrder::Judge { message, judgement });
            }
            MeshEvent::SyncAsked { sync, peer, request } => {
                let answer = if self.peers.is_admitted(&peer) { self.page(&request) } else { SyncAnswer::default() };
                effects.mesh.push(MeshOrder::AnswerSync { sync, answer });
            }
            MeshEvent::SyncAnswered { peer, answer } => {
                if !self.peers.is_admitted(&peer) {
                    return;
                }
                self.take_in_all(answer.statements.iter().map(|bytes| bytes.as_slice()), now, gate, effects);
                // It has admitted this node, since it answers.
                self.meet_witness(peer, now, effects);
                if let Some(after) = self.peers.next_page(peer, answer.next) {
                    let request = SyncRequest { digest: self.digest(), after: Some(after) };
                    effects.mesh.push(MeshOrder::AskSync { peer, request });
                }
            }
        }
    }

    /// Whether a version of the charter is one that has not come here yet.
    fn is_later(&self, charter: u32) -> bool {
        charter > self.trust.chartered().charter().version
    }

    /// Whether a peer says that it knows the same version of the charter, so that what has no seat here has none there.
    fn knows_the_same(&self, peer: &PublicKey) -> bool {
        let here = self.trust.chartered().charter().version;
        self.peers.get(peer).is_some_and(|known| known.record.body().charter == here)
    }

    /// What the operator should know of the charter: the members have split, or this node is behind.
    pub(super) fn charter_alarm(&self) -> Option<String> {
        let behind = || {
            let (ahead, here) = (self.charter_ahead, self.trust.chartered().charter().version);
            (ahead > here).then(|| {
                format!(
                    "a node that cannot be believed here names version {ahead} of the charter; if the members have agreed on \
                     it, hand it over (alliance charter submit LOG)"
                )
            })
        };
        self.trust.charter_alarm().or_else(behind)
    }

    /// A peer says who it is. It is admitted if its authority says the same.
    fn introduced(&mut self, peer: PublicKey, record: &[u8], now: Timestamp, effects: &mut Effects) {
        let mut charter = 0;
        let taken = Signed::<NodeRecord>::open(record, self.trust.alliance()).map_err(NotTaken::from).and_then(|record| {
            charter = record.body().charter;
            if record.body().node == peer {
                self.take_record(record, now, effects)
            } else {
                Err(NotTaken::Bad("another node's".to_owned()))
            }
        });
        match taken {
            Ok(_) if self.peers.admit(peer) => {
                effects.mesh.push(MeshOrder::Admit { peer });
                self.meet_log(peer, now, effects);
                let request = SyncRequest { digest: self.digest(), after: None };
                effects.mesh.push(MeshOrder::AskSync { peer, request });
            }
            // One that is of no use yet may be a moment later; the mesh cuts it if it does not come again.
            Ok(_) | Err(NotTaken::Useless(_)) => {}
            // The version of the charter that it knows comes from others.
            Err(NotTaken::Unseated(_)) if self.is_later(charter) => self.charter_ahead = self.charter_ahead.max(charter),
            // It may come back with an accreditation by those who speak for its member now.
            Err(NotTaken::Unseated(_)) => effects.mesh.push(MeshOrder::Dismiss { peer }),
            Err(NotTaken::Bad(_)) => effects.mesh.push(MeshOrder::Expel { peer }),
        }
    }

    /// Takes in many statements, those first that others depend on.
    pub(super) fn take_in_all<'a>(
        &mut self,
        statements: impl Iterator<Item = &'a [u8]>,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let order = [
            Charter::KIND,
            LawPack::KIND,
            Status::KIND,
            KeyRotation::KIND,
            NodeRecord::KIND,
            Offer::KIND,
            Withdrawal::KIND,
        ];
        let rank = |bytes: &[u8]| {
            let kind = kind_of(bytes).unwrap_or_default();
            // Versions of the charter follow each other; only they are looked into.
            let charter = (kind == Charter::KIND).then(|| recorded_body::<Charter>(bytes)).flatten();
            let place = order.iter().position(|known| *known == kind).unwrap_or(order.len());
            (place, charter.map_or(0, |charter| charter.version))
        };
        let mut statements: Vec<_> = statements.map(|bytes| (rank(bytes), bytes)).collect();
        statements.sort_by_key(|(rank, _)| *rank);
        for (_, bytes) in statements {
            // What is not taken in leaves no trace; the peers that hold it may know more or less than this node.
            let _useless_or_bad = self.take_in(bytes, now, gate, effects);
        }
    }

    /// Verifies one statement and takes it into the state.
    pub(super) fn take_in(
        &mut self,
        bytes: &[u8],
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<Accepted, NotTaken> {
        let alliance = self.trust.alliance();
        match kind_of(bytes)?.as_str() {
            Status::KIND => {
                let member = self.not_too_often(recorded_body::<Status>(bytes).map(|status| status.member), now)?;
                let accepted = self.trust.accept_status(bytes)?;
                if accepted == Accepted::New {
                    let _counted = self.heard.admits(member, now);
                    self.record(Record::StatusAccepted { status: bytes.to_vec().into() }, now, effects);
                    self.drop_revoked(now, effects);
                    self.decide_running_again(now, gate, effects);
                    self.next_round = self.next_round.min(self.trust.next_change(now).unwrap_or(self.next_round));
                }
                Ok(accepted)
            }
            Charter::KIND => {
                let accepted = self.trust.accept_charter(bytes)?;
                if accepted == Accepted::New {
                    self.record(Record::CharterAccepted { charter: bytes.to_vec().into() }, now, effects);
                    self.decide_running_again(now, gate, effects);
                    self.renew_record(now);
                    self.present_record(effects);
                    // Nodes that lose their standing by it are let go a moment later, so that they hear why.
                    self.next_round = self.next_round.min(now.plus_ms(FAREWELL_MS));
                }
                Ok(accepted)
            }
            LawPack::KIND => {
                let member = self.not_too_often(recorded_body::<LawPack>(bytes).map(|pack| pack.member), now)?;
                let accepted = self.trust.accept_pack(bytes, gate)?;
                if accepted == Accepted::New {
                    let _counted = self.heard.admits(member, now);
                    self.record(Record::PackAccepted { pack: bytes.to_vec().into() }, now, effects);
                    self.decide_running_again(now, gate, effects);
                }
                Ok(accepted)
            }
            KeyRotation::KIND => self.take_rotation(bytes, now, gate, effects),
            NodeRecord::KIND => self.take_record(Signed::open(bytes, alliance)?, now, effects),
            Offer::KIND => {
                let taken = self.take_offer(Signed::open(bytes, alliance)?, now, effects)?;
                if taken == Accepted::New {
                    self.ask_more_sources(now, gate, effects);
                }
                Ok(taken)
            }
            Withdrawal::KIND => {
                let withdrawal = Signed::<Withdrawal>::open(bytes, alliance)?;
                if !withdrawal.signed_only_by(&withdrawal.body().node) {
                    return Err(NotTaken::Bad("a withdrawal that its node did not sign".to_owned()));
                }
                if withdrawal.body().reason.len() > limits::TEXT_BYTES_MAX {
                    return Err(NotTaken::Bad("a withdrawal beyond its bounds".to_owned()));
                }
                let (id, offer) = (withdrawal.id(), withdrawal.body().offer);
                if self.offers.is_withdrawn(offer) {
                    return Ok(Accepted::Known);
                }
                if !self.offers.withdraw(withdrawal) {
                    return Err(NotTaken::Useless("a withdrawal of an offer that is not known".to_owned()));
                }
                effects.catalogue.push(CatalogueChange::Remove { id: offer });
                effects.catalogue.push(CatalogueChange::Put { id, bytes: bytes.to_vec() });
                self.decide_running_again(now, gate, effects);
                Ok(Accepted::New)
            }
            other => Err(NotTaken::Bad(format!("a `{other}` has no place on the mesh"))),
        }
    }

    /// The member whose authority a statement claims to be of, unless so many of it were new of late that it has to wait.
    /// Nothing is believed yet; only what is believed later is counted.
    fn not_too_often(&self, claimed: Option<Country>, now: Timestamp) -> Result<Country, NotTaken> {
        let member = claimed.ok_or_else(|| NotTaken::Bad("not a statement of an authority".to_owned()))?;
        if self.heard.is_spent(member, now) {
            return Err(NotTaken::Useless(format!(
                "the authority of {member} has said too much of late; it is heard again later"
            )));
        }
        Ok(member)
    }

    fn take_record(
        &mut self,
        record: Signed<NodeRecord>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Accepted, NotTaken> {
        let body = record.body();
        let node = body.node;
        if node == self.me() {
            return Ok(Accepted::Known);
        }
        if !record.signed_only_by(&node) {
            return Err(NotTaken::Bad("a node record that its node did not sign".to_owned()));
        }
        let addresses = body.mesh.iter().chain(&body.bulk);
        if body.mesh.len() > limits::ADDRESSES_MAX
            || body.bulk.len() > limits::ADDRESSES_MAX
            || addresses.into_iter().any(|address| address.len() > limits::NAME_BYTES_MAX)
            || body.validity.until > body.validity.from.plus_ms(7 * super::RECORD_MS)
        {
            return Err(NotTaken::Bad("a node record beyond its bounds".to_owned()));
        }
        let bound = |bytes: &serde_bytes::ByteBuf| ModelKeyBinding::key_of(bytes, &node, self.trust.alliance()).is_ok();
        if !body.model_key.iter().all(bound) {
            return Err(NotTaken::Bad("a node record with a model key that is not bound to its node".to_owned()));
        }
        let accreditation = self.trust.accreditation(&body.accreditation)?;
        self.trust.admission(&accreditation, &node, now)?;
        body.validity.check(now).map_err(|why| NotTaken::Useless(why.to_string()))?;
        match self.peers.get(&node).map(|known| known.record.body().serial) {
            Some(serial) if serial == body.serial => return Ok(Accepted::Known),
            Some(serial) if serial > body.serial => return Ok(Accepted::Known),
            Some(_) => {}
            None if self.peers.of_member(accreditation.body().member) >= limits::NODES_PER_MEMBER_MAX => {
                return Err(NotTaken::Useless("its member has as many nodes as are kept".to_owned()));
            }
            None => {}
        }
        if let Some(old) = self.peers.get(&node) {
            effects.catalogue.push(CatalogueChange::Remove { id: old.record.id() });
        }
        effects.catalogue.push(CatalogueChange::Put { id: record.id(), bytes: record.bytes().to_vec() });
        if !self.peers.is_connected(&node) {
            effects.mesh.push(MeshOrder::Dial { peer: node, addresses: body.mesh.clone() });
        }
        self.peers.insert(Known { record, accreditation });
        Ok(Accepted::New)
    }

    fn take_offer(&mut self, offer: Signed<Offer>, now: Timestamp, effects: &mut Effects) -> Result<Accepted, NotTaken> {
        let body = offer.body();
        if body.node == self.me() {
            return Ok(Accepted::Known);
        }
        if !offer.signed_only_by(&body.node) {
            return Err(NotTaken::Bad("an offer that its node did not sign".to_owned()));
        }
        let (organisation, _) = split_name(&body.name).map_err(|error| NotTaken::Bad(error.to_string()))?;
        body.what.within_bounds().map_err(|why| NotTaken::Bad(format!("an offer beyond its bounds: {why}")))?;
        if body.validity.until > body.validity.from.plus_ms(limits::OFFER_MS_MAX) {
            return Err(NotTaken::Bad("an offer beyond its bounds: it stands for too long".to_owned()));
        }
        body.validity.check(now).map_err(|why| NotTaken::Useless(why.to_string()))?;
        let Some(known) = self.peers.get(&body.node) else {
            return Err(NotTaken::Useless("an offer of a node that is not known".to_owned()));
        };
        let accreditation = known.accreditation.body();
        // What a node offers on has the name that its first exporter gave it; the offer that it goes back to shows whether it has.
        if body.root.is_none() && accreditation.organisation.name != organisation {
            return Err(NotTaken::Bad("an offer in the name of another organisation".to_owned()));
        }
        self.trust.admission(&known.accreditation, &body.node, now)?;
        let member = accreditation.member;
        match self.offers.admits(offer.id(), &body.node, member) {
            Err(super::offers::OfferRefused::Known) => return Ok(Accepted::Known),
            Err(why) => return Err(NotTaken::Useless(why.to_string())),
            Ok(()) => {}
        }
        effects.catalogue.push(CatalogueChange::Put { id: offer.id(), bytes: offer.bytes().to_vec() });
        self.next_round = self.next_round.min(body.validity.until);
        self.offers.insert(offer, member);
        Ok(Accepted::New)
    }

    /// Forgets and expels every node that has been revoked, or whose key has ended.
    pub(super) fn drop_revoked(&mut self, now: Timestamp, effects: &mut Effects) {
        for node in self.lost(now, is_over) {
            self.purge_offers(&node, effects);
            self.expel(node, effects);
        }
    }

    /// Forgets every node whose accreditation those signed who do not speak for a member any more. It may come back with
    /// another one.
    pub(super) fn drop_unseated(&mut self, now: Timestamp, effects: &mut Effects) {
        for node in self.lost(now, |why| matches!(why, NoStanding::Accreditation(_))) {
            self.purge_offers(&node, effects);
            if self.forget(node, effects) {
                effects.mesh.push(MeshOrder::Dismiss { peer: node });
            }
        }
    }

    /// The nodes that are not admitted any more, for such a reason.
    fn lost(&self, now: Timestamp, reason: impl Fn(&NoStanding) -> bool) -> Vec<PublicKey> {
        let lost = |known: &&Known| {
            let node = known.record.body().node;
            self.trust.admission(&known.accreditation, &node, now).is_err_and(|why| reason(&why))
        };
        self.peers.iter().filter(lost).map(|known| known.record.body().node).collect()
    }

    fn purge_offers(&mut self, node: &PublicKey, effects: &mut Effects) {
        let offers = self.offers.purge(node);
        effects.catalogue.extend(offers.into_iter().map(|id| CatalogueChange::Remove { id }));
    }

    /// Forgets and expels every node that has not renewed its record in time, or whose accreditation has run out.
    pub(super) fn drop_expired(&mut self, now: Timestamp, effects: &mut Effects) {
        for node in self.peers.expired(now) {
            // It may come back as soon as it has renewed them.
            if self.forget(node, effects) {
                effects.mesh.push(MeshOrder::Dismiss { peer: node });
            }
        }
    }

    fn expel(&mut self, node: PublicKey, effects: &mut Effects) {
        if self.forget(node, effects) {
            effects.mesh.push(MeshOrder::Expel { peer: node });
        }
    }

    /// Forgets a node; says whether it was connected.
    fn forget(&mut self, node: PublicKey, effects: &mut Effects) -> bool {
        let (record, connected) = self.peers.purge(&node);
        self.watch.forget(&node);
        effects.catalogue.extend(record.map(|id| CatalogueChange::Remove { id }));
        connected
    }

    /// Presents this node's record to all peers, unless the charter does not know who accredited it: they would hold that
    /// against it.
    pub(super) fn present_record(&self, effects: &mut Effects) {
        if !self.trust.is_spoken(&self.accreditation) {
            return;
        }
        let record = self.own_record.bytes().to_vec();
        effects.mesh.push(MeshOrder::Introduce { record: record.clone() });
        effects.mesh.push(MeshOrder::Publish { bytes: record });
    }

    /// Asks the next peer for what was missed, and dials nodes that are not connected.
    pub(super) fn keep_up_with_mesh(&mut self, _now: Timestamp, effects: &mut Effects) {
        if let Some(peer) = self.peers.next_turn() {
            effects.mesh.push(MeshOrder::AskSync { peer, request: SyncRequest { digest: self.digest(), after: None } });
        }
        for known in self.peers.next_absent(DIALS_PER_ROUND_MAX) {
            let body = known.record.body();
            effects.mesh.push(MeshOrder::Dial { peer: body.node, addresses: body.mesh.clone() });
        }
    }

    /// All statements that this node shares, ascending by id.
    fn shared(&self) -> std::collections::BTreeMap<StatementId, &[u8]> {
        let own = std::iter::once((self.own_record.id(), self.own_record.bytes()));
        let records = self.peers.iter().map(|known| (known.record.id(), known.record.bytes()));
        own.chain(records).chain(self.trust.statements()).chain(self.offers.statements()).collect()
    }

    fn digest(&self) -> StatementId {
        let mut hasher = blake3::Hasher::new();
        for id in self.shared().keys() {
            hasher.update(&id.0);
        }
        StatementId(*hasher.finalize().as_bytes())
    }

    /// One page of what this node shares.
    fn page(&self, request: &SyncRequest) -> SyncAnswer {
        let shared = self.shared();
        if request.after.is_none() && request.digest == self.digest() {
            return SyncAnswer::default();
        }
        let mut answer = SyncAnswer::default();
        let mut size = 0;
        for (id, bytes) in &shared {
            if request.after.is_some_and(|after| *id <= after) {
                continue;
            }
            size += bytes.len();
            if size > limits::SYNC_BYTES_MAX {
                break;
            }
            answer.statements.push(serde_bytes::ByteBuf::from(bytes.to_vec()));
            answer.next = Some(*id);
        }
        if answer.next == shared.last_key_value().map(|(id, _)| *id) {
            answer.next = None;
        }
        answer
    }
}

/// Whether a key that lost its standing for this reason never has it again.
const fn is_over(why: &NoStanding) -> bool {
    matches!(why, NoStanding::Revoked { .. } | NoStanding::Replaced { .. } | NoStanding::Contested { .. })
}

/// Milliseconds for which nodes that a version of the charter unseats stay connected, so that they get that version: it has to
/// be read and checked, not more.
const FAREWELL_MS: u64 = 2_000;

/// Connection attempts of one regular round.
const DIALS_PER_ROUND_MAX: usize = 16;
