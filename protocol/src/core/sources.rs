//! One artefact from several peers: which crossings belong to one pull, whom else to ask, and offering on what comes.
//!
//! Each source is a crossing of its own, decided, recorded and cleared like any other. They share the directory that the
//! artefact goes to; the bulk plane divides the work among those that are cleared.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    BulkOrder, Core, Effects, MeshOrder,
    admin::{CrossingView, LocalModel, PullCall},
    importing::{Pull, reaching},
};
use crate::{
    border::{Decision, Root},
    envelope::Signed,
    gate::Gate,
    id::{CrossingId, ManifestId, StatementId},
    key::PublicKey,
    ledger::Record,
    limits,
    offer::{ModelOffer, Offer, Offered, Terms, split_name},
    time::{Timestamp, Validity},
    vocabulary::NodeRole,
};

/// What the operator asked for, while any crossing for it runs. Named by the first of them.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) call: PullCall,
    pub(super) name: String,
    pub(super) model: ModelOffer,
    /// The offer of the first exporter.
    root: StatementId,
    /// Nodes that were asked, or that a decision here has ruled out.
    tried: BTreeMap<PublicKey, Tried>,
    /// Nodes to which further connections were ordered, where one does not use all that there is.
    widened: BTreeSet<PublicKey>,
    /// Whether any of its crossings was cleared.
    pub(super) cleared: bool,
    /// Whether the artefact is in its place.
    pub(super) delivered: bool,
}

/// How often a node was asked in one pull, and from when on it may be again.
#[derive(Clone, Copy, Debug)]
struct Tried {
    times: u32,
    again: Timestamp,
}

/// Milliseconds until a node whose connection was lost is asked again; twice as long each time.
const ASK_AGAIN_MS: u64 = 15_000;

impl Wanted {
    /// Notes that a node is asked. It is not again, unless its connection is lost.
    fn ask(&mut self, node: PublicKey) {
        let times = self.tried.get(&node).map_or(0, |tried| tried.times).saturating_add(1);
        self.tried.insert(node, Tried { times, again: Timestamp(u64::MAX) });
    }

    /// Whether a node may be asked now: not twice at a time, and not without end.
    fn may_ask(&self, node: &PublicKey, now: Timestamp) -> bool {
        let asked: u32 = self.tried.values().map(|tried| tried.times).fold(0, u32::saturating_add);
        asked < limits::SOURCES_ASKED_MAX && self.tried.get(node).is_none_or(|tried| now >= tried.again)
    }

    /// The connection to a node was lost; it may come back.
    fn lost(&mut self, node: &PublicKey, now: Timestamp) {
        if let Some(tried) = self.tried.get_mut(node) {
            tried.again = now.plus_ms(ASK_AGAIN_MS.saturating_mul(1 << tried.times.min(10)));
        }
    }

    pub(super) fn new(call: PullCall, offer: &Signed<Offer>, model: ModelOffer) -> Self {
        let (body, root) = (offer.body(), offer.body().root.unwrap_or(offer.id()));
        let (name, tried) = (body.name.clone(), BTreeMap::new());
        let widened = BTreeSet::new();
        let mut wanted = Self { call, name, model, root, tried, widened, cleared: false, delivered: false };
        wanted.ask(body.node);
        wanted
    }
}

impl Core {
    /// What an offer goes back to, as far as it is known here.
    pub(super) fn root_of(&self, offer: &Offer) -> Option<Root<'_>> {
        let root = self.offers.get(offer.root?)?;
        let node = root.body().node;
        let exporter = match node == self.me() {
            true => &self.accreditation,
            false => &self.peers.get(&node)?.accreditation,
        };
        Some(Root { offer: root, exporter })
    }

    /// Whether the first exporter lets an artefact be offered on, and the operator wants to use it.
    pub(super) fn may_have_more(&self, wanted: &Wanted) -> bool {
        let onward = self.offers.get(wanted.root).is_some_and(|root| root.body().terms.onward);
        // Of a part each source could clear something else.
        onward && wanted.call.sources > 1 && wanted.call.tensors.is_empty()
    }

    /// Asks further peers for what is being pulled, up to the number that the operator wants.
    pub(super) fn ask_more_sources(&mut self, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        for lead in self.wanted.keys().copied().collect::<Vec<_>>() {
            while let Some(offer) = self.next_source(lead, now) {
                if let Some(wanted) = self.wanted.get_mut(&lead) {
                    wanted.ask(offer.body().node);
                }
                self.ask_source(lead, &offer, now, gate, effects);
            }
        }
    }

    /// Connections over which what is wanted is pulled from one node.
    fn connections(&self, wanted: &Wanted) -> u32 {
        let useful = u32::try_from(wanted.model.bytes / self.config.connection_bytes.max(1)).unwrap_or(u32::MAX);
        // Of a part each connection could clear something else.
        if wanted.call.tensors.is_empty() { useful.clamp(1, self.config.connections.max(1)) } else { 1 }
    }

    /// A node has cleared a crossing: more of them, over connections of their own, share the load of what is large. Each is
    /// decided, cleared and recorded by itself.
    pub(super) fn widen(&mut self, crossing: CrossingId, now: Timestamp, gate: &dyn Gate, effects: &mut Effects) {
        let Some(pull) = self.pulls.get(&crossing) else { return };
        let (lead, offer) = (pull.lead, pull.offer().clone());
        let Some(wanted) = self.wanted.get(&lead) else { return };
        let more = self.connections(wanted).saturating_sub(1);
        let is_first = self.wanted.get_mut(&lead).is_some_and(|wanted| wanted.widened.insert(offer.body().node));
        for _ in 0..if is_first { more } else { 0 } {
            if self.running() < limits::CROSSINGS_RUNNING_MAX {
                self.ask_source(lead, &offer, now, gate, effects);
            }
        }
    }

    /// A peer that offers what is being pulled and was not asked yet.
    fn next_source(&self, lead: CrossingId, now: Timestamp) -> Option<Signed<Offer>> {
        let wanted = self.wanted.get(&lead)?;
        let running =
            self.pulls.values().filter(|pull| pull.lead == lead).map(Pull::exporter).collect::<BTreeSet<_>>().len();
        let enough = usize::try_from(wanted.call.sources.min(limits::SOURCES_MAX)).unwrap_or(usize::MAX);
        if wanted.delivered || !self.may_have_more(wanted) || running >= enough {
            return None;
        }
        if self.running() >= limits::CROSSINGS_RUNNING_MAX {
            return None;
        }
        let offers = self.offers.iter().filter(|offer| {
            let body = offer.body();
            body.root.unwrap_or(offer.id()) == wanted.root
                && body.what == Offered::Model(wanted.model.clone())
                && body.node != self.me()
                && wanted.may_ask(&body.node, now)
                && body.validity.check(now).is_ok()
                && self.peers.get(&body.node).is_some()
        });
        offers.min_by_key(|offer| offer.id()).cloned()
    }

    /// Begins one more crossing for what is being pulled, if this side allows it. Nobody has asked for this peer by name, so
    /// that a denial needs no record.
    fn ask_source(
        &mut self,
        lead: CrossingId,
        offer: &Signed<Offer>,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let Some(wanted) = self.wanted.get(&lead) else { return };
        let Some(known) = self.peers.get(&offer.body().node) else { return };
        let pull = Pull::new(lead, &wanted.call, offer.clone(), known.accreditation.clone(), now);
        let attempt = pull.attempt(&self.accreditation, self.root_of(offer.body()));
        let decision = self.border(gate, now).decide(&attempt);
        if decision.denial.is_some() {
            return;
        }
        let crossing = self.randomness.crossing();
        self.set_out(crossing, pull, decision, now, gate, effects);
    }

    /// This side allows a pull: its exporter is reached. What it is for is among the wanted already, and its exporter known.
    pub(super) fn set_out(
        &mut self,
        crossing: CrossingId,
        mut pull: Pull,
        decision: Decision,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let attempt = pull.attempt(&self.accreditation, self.root_of(pull.offer().body()));
        let papers_until = self.border(gate, now).papers_until(&attempt);
        pull.papers_until = papers_until;
        self.next_round = self.next_round.min(papers_until);
        let Some(wanted) = self.wanted.get(&pull.lead) else { return };
        let Some(known) = self.peers.get(&pull.exporter()) else { return };
        let addresses = known.record.body().bulk.clone();
        self.history.begin(reaching(crossing, &pull, wanted.name.clone(), decision, now, wanted.model.bytes));
        let (manifest, to) = (wanted.model.manifest, wanted.call.to.clone());
        // What another offers on may still be on its way to there, and come in any order.
        let several = self.may_have_more(wanted) || pull.offer().body().root.is_some() || self.connections(wanted) > 1;
        let piecewise = several || wanted.call.read_meanwhile;
        let (peer, local) = (pull.exporter(), self.lies_here(wanted));
        let tensors = wanted.call.tensors.clone();
        effects.bulk.push(BulkOrder::Reach { crossing, peer, addresses, manifest, to, piecewise, local, tensors });
        self.pulls.insert(crossing, pull);
    }

    /// The artefacts of this node in which parts of another may be found: those of the same organisation about which the same is
    /// declared. What was decided about the one then holds for what the other has of it; labels cannot be changed by way of a
    /// copy, and nobody finds out by offering it what else lies here.
    fn lies_here(&self, wanted: &Wanted) -> Vec<(ManifestId, PathBuf)> {
        let organisation = |name: &str| split_name(name).ok().map(|(organisation, _)| organisation.to_owned());
        let declared = |model: &ModelOffer| {
            let parts: BTreeSet<_> = model.parts.iter().map(|part| part.labels.clone()).collect();
            (model.labels.clone(), parts, model.origin, model.subjects.clone(), model.provenance.clone())
        };
        let same = |model: &&LocalModel| {
            model.manifest != wanted.model.manifest
                && organisation(&model.name) == organisation(&wanted.name)
                && declared(&model.offered()) == declared(&wanted.model)
        };
        let mut largest: Vec<&LocalModel> = self.models.values().filter(same).collect();
        largest.sort_by_key(|model| std::cmp::Reverse(model.bytes));
        largest.into_iter().take(limits::LOCAL_ARTEFACTS_MAX).map(|model| (model.manifest, model.path.clone())).collect()
    }

    /// A crossing's connection was lost while others may go on: its node may be asked again some time.
    pub(super) fn ask_again_later(&mut self, crossing: CrossingId, now: Timestamp) {
        let Some(pull) = self.pulls.get(&crossing) else { return };
        let (lead, node) = (pull.lead, pull.exporter());
        if let Some(wanted) = self.wanted.get_mut(&lead) {
            wanted.lost(&node, now);
        }
    }

    /// Forgets a pull; when it was the last for what the operator asked for, that too.
    pub(super) fn forget_pull(&mut self, crossing: CrossingId) -> Option<Pull> {
        let pull = self.pulls.remove(&crossing)?;
        if !self.pulls.values().any(|other| other.lead == pull.lead) {
            self.wanted.remove(&pull.lead);
        }
        Some(pull)
    }

    /// The crossings that serve the same pull as this one, the first of them first.
    pub(super) fn sources_of(&self, crossing: CrossingId) -> Option<Vec<CrossingView>> {
        let asked = self.history.get(crossing)?;
        let lead = asked.lead.unwrap_or(crossing);
        let same = |view: &&CrossingView| view.crossing == lead || view.lead == Some(lead);
        Some(self.history.iter().filter(same).cloned().collect())
    }

    /// Where an artefact that is coming to this node is received, if it is the one that is offered. It comes from its first
    /// clearance on (CROSSING-46).
    pub(super) fn arrives_at(&self, offer: &Offer) -> Option<&Path> {
        let wanted = self.wanted.values().find(|wanted| {
            let all = wanted.call.tensors.is_empty() && wanted.cleared && !wanted.delivered;
            Some(wanted.root) == offer.root && Offered::Model(wanted.model.clone()) == offer.what && all
        })?;
        Some(&wanted.call.to)
    }

    /// Offers on what is coming, where the operator has said so and the first exporter permits it.
    pub(super) fn offer_on(&mut self, lead: CrossingId, now: Timestamp, effects: &mut Effects) {
        let Some(wanted) = self.wanted.get(&lead).filter(|wanted| wanted.call.onward) else { return };
        let Some(root) = self.offers.get(wanted.root).cloned() else { return };
        let (terms, until) = (root.body().terms.clone(), root.body().validity.until);
        if let Err(why) = self.publish_onward(&root, terms, until, now, effects) {
            self.history.remark(lead, format!("it is not offered on: {why}"));
        }
    }

    /// Publishes an offer of what came from another node, or will have. Gives the one that stands already in these terms, if
    /// one does.
    pub(super) fn publish_onward(
        &mut self,
        root: &Signed<Offer>,
        terms: Terms,
        until: Timestamp,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Signed<Offer>, String> {
        let (me, body) = (self.me(), root.body());
        let same = |offer: &&Signed<Offer>| {
            let offer = offer.body();
            (offer.node, offer.root, &offer.terms) == (me, Some(root.id()), &terms) && offer.validity.check(now).is_ok()
        };
        if let Some(standing) = self.offers.iter().find(same) {
            return Ok(standing.clone());
        }
        self.may_offer_on(body)?;
        let published = self.onward_published.entry(root.id()).or_default();
        if *published >= limits::ONWARD_OFFERS_MAX {
            return Err(format!("it was offered on and taken back {published} times"));
        }
        *published = published.saturating_add(1);
        let lasting = limits::OFFER_MS_MAX.min(until.0.min(body.validity.until.0).saturating_sub(now.0));
        let (name, what) = (body.name.clone(), body.what.clone());
        let offer =
            Offer { node: me, name, what, terms, root: Some(root.id()), validity: Validity::lasting_ms(now, lasting) };
        let offer = Signed::sign(&offer, self.trust.alliance(), &self.key).map_err(|error| error.to_string())?;
        self.enter_own_offer(&offer, now, effects).map_err(|why| why.to_string())?;
        Ok(offer)
    }

    /// Why what was got under an offer may not be offered on by this node, if it may not.
    pub(super) fn may_offer_on(&self, root: &Offer) -> Result<(), String> {
        if !root.terms.onward {
            return Err(format!("the terms of `{}` do not admit that it is offered on", root.name));
        }
        if !self.accreditation.body().roles.contains(&NodeRole::Exporter) {
            return Err("this node is not accredited as an exporter".to_owned());
        }
        Ok(())
    }

    /// Records and spreads an offer of this node.
    pub(super) fn enter_own_offer(
        &mut self,
        offer: &Signed<Offer>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), super::offers::OfferRefused> {
        let (me, member) = (self.me(), self.accreditation.body().member);
        self.offers.admits(offer.id(), &me, member)?;
        self.offers.insert(offer.clone(), member);
        self.next_round = self.next_round.min(offer.body().validity.until);
        self.record(Record::OfferPublished { offer: offer.bytes().to_vec().into() }, now, effects);
        effects.mesh.push(MeshOrder::Publish { bytes: offer.bytes().to_vec() });
        Ok(())
    }

    /// Whether what is offered lies here, with the facts with which it is offered.
    pub(super) fn lies_here_as(&self, offer: &Offer) -> bool {
        match (&offer.what, self.models.get(&offer.name)) {
            (Offered::Model(offered), Some(model)) => model.is_offered_as(offered),
            (Offered::Model(_) | Offered::Compute(_), _) => false,
        }
    }

    /// Takes back what this node offers on and does not have, or not any more.
    pub(super) fn take_back_onward(&mut self, now: Timestamp, effects: &mut Effects) {
        let me = self.me();
        let gone = |offer: &&Signed<Offer>| {
            let body = offer.body();
            let here = self.lies_here_as(body) || self.arrives_at(body).is_some();
            body.node == me && body.root.is_some() && !here
        };
        let gone: Vec<StatementId> = self.offers.iter().filter(gone).map(Signed::id).collect();
        for offer in gone {
            // It is small and its own node signs it; were that to fail, nobody could be served under it all the same.
            let _ = self.take_back(offer, "it is not here any more".to_owned(), now, effects);
            let served = self.exports.iter().filter(|(_, export)| export.offer().id() == offer && export.ended.is_none());
            for ask in served.map(|(ask, _)| *ask).collect::<Vec<_>>() {
                self.cut_export(ask, "ended while it ran: it is not here any more".to_owned(), effects);
            }
        }
    }

    /// The running crossings that serve the same pull as this one, itself among them.
    pub(super) fn group_of(&self, crossing: CrossingId) -> Vec<CrossingId> {
        let lead = self.pulls.get(&crossing).map(|pull| pull.lead);
        let same = self.pulls.iter().filter(|(_, pull)| Some(pull.lead) == lead);
        same.map(|(crossing, _)| *crossing).collect()
    }
}
