//! What the mesh does when something happens: admission, greetings, and what is passed on to Core.
//!
//! It keeps strangers away from everything but greetings. It never looks into a statement.

use std::time::Instant;

use alliance_protocol::core::{MeshEvent, MessageId, SyncId, SyncRequest, WitnessAsk};
use libp2p::{
    PeerId, gossipsub,
    request_response::{OutboundRequestId, ResponseChannel},
    swarm::dial_opts::{DialOpts, PeerCondition},
};

use super::{
    Asked, Mesh, Question, Unjudged, gossip,
    peers::{Held, Peer, Standing},
    translate::{Happening, acceptance, key_of, miss},
    wire::{self, Answer, Request},
};

/// Messages that may wait for their judgement. Core judges within one commit; more means that it cannot keep up.
const UNJUDGED_MAX: usize = 256;

/// Messages of one peer that may wait for their judgement, so that one peer cannot take the places of all.
const UNJUDGED_PER_PEER_MAX: usize = 64;

/// Questions of peers that may wait for Core's answer.
const QUESTIONS_MAX: usize = 256;

/// Questions of one peer that may wait for Core's answer.
const QUESTIONS_PER_PEER_MAX: usize = 4;

impl Mesh {
    pub(super) fn react(&mut self, happening: Happening, now: Instant) {
        match happening {
            Happening::Joined { peer, connection, first } => {
                self.bootstrap.on_connected(connection, peer);
                if first {
                    self.on_joined(peer, now);
                } else if self.peers.get(&peer).is_some_and(|it| matches!(it.standing, Standing::Leaving)) {
                    self.dismiss(peer);
                }
            }
            Happening::Left { peer } => self.on_left(peer, now),
            Happening::NotReached { connection, miss, reason } => {
                tracing::debug!(%reason, "a peer could not be reached");
                self.bootstrap.on_failed(connection, miss, now, random());
            }
            Happening::Identified { peer, protocol } => {
                if protocol != self.protocol {
                    tracing::debug!(%peer, %protocol, "a peer of another alliance");
                    self.dismiss(peer);
                }
            }
            Happening::Measured { peer, round_trip } => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.round_trip = Some(known.round_trip.map_or(round_trip, |shortest| shortest.min(round_trip)));
                    self.report_round_trip(peer);
                }
            }
            Happening::Gossiped { from, id, bytes } => self.on_gossiped(from, id, bytes, now),
            Happening::Asked { peer, request, channel } => match request {
                Request::Hello { record } => self.on_greeted(peer, record.into_vec(), channel, now),
                Request::Sync { request } => self.on_asked(peer, request, channel, now),
                Request::Witness { ask } => self.on_witness_asked(peer, ask, channel, now),
            },
            Happening::Answered { peer, id, answer } => self.on_answered(peer, id, answer, now),
            Happening::NotAnswered { peer, id, foreign, reason } => {
                let asked = self.asked.remove(&id);
                self.not_answered(asked);
                tracing::debug!(%peer, %reason, "a peer did not answer");
                if foreign {
                    self.dismiss(peer);
                }
            }
            Happening::ListenerLost { addresses, reason } => {
                tracing::error!(?addresses, %reason, "the mesh no longer listens");
            }
        }
    }

    /// Tells how fast an admitted peer answered, if that is not told yet.
    pub(super) fn report_round_trip(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer).filter(|known| known.is_admitted()) else { return };
        let Some(round_trip) = known.round_trip.take() else { return };
        let round_trip_us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
        self.events.push_back(MeshEvent::Measured { peer: known.key, round_trip_us });
    }

    /// Does what time demands: cuts strangers, forgets remarks, tries bootstrap addresses.
    pub(super) fn on_time(&mut self, now: Instant) {
        let is_late = |peer: &Peer| peer.deadline().is_some_and(|deadline| deadline <= now);
        let late: Vec<PeerId> = self.peers.iter().filter(|(_, peer)| is_late(peer)).map(|(id, _)| *id).collect();
        for peer in late {
            tracing::debug!(%peer, "a stranger was not admitted in time");
            self.counters.strangers_cut = self.counters.strangers_cut.saturating_add(1);
            self.dismiss(peer);
        }
        while let Some(peer) = self.expelled.pop_due(now) {
            self.swarm.behaviour_mut().blocked.unblock_peer(peer);
        }
        while let Some(peer) = self.grudges.pop_due(now) {
            if self.peers.get(&peer).is_some_and(Peer::is_admitted) {
                self.swarm.behaviour_mut().gossip.set_application_score(&peer, gossip::NEUTRAL_SCORE);
            }
        }
        while let Some(attempt) = self.bootstrap.due(now) {
            let options: DialOpts = match attempt.expected {
                Some(peer) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(vec![attempt.address.clone()])
                    .build(),
                None => DialOpts::unknown_peer_id().address(attempt.address.clone()).build(),
            };
            let connection = options.connection_id();
            match self.swarm.dial(options) {
                Ok(()) => self.bootstrap.dialling(&attempt, connection),
                Err(error) => {
                    tracing::debug!(address = %attempt.address, %error, "a bootstrap address was not tried");
                    self.bootstrap.missed(&attempt, miss(&error), now, random());
                }
            }
        }
    }

    /// The next instant at which [`Self::on_time`] has something to do.
    pub(super) fn next_time(&self) -> Option<Instant> {
        let deadline = self.peers.values().filter_map(Peer::deadline).min();
        [deadline, self.expelled.next_due(), self.grudges.next_due(), self.bootstrap.next_due()].into_iter().flatten().min()
    }

    /// Disconnects a peer. Until it is gone, nothing it says counts.
    pub(super) fn dismiss(&mut self, peer: PeerId) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.standing = Standing::Leaving;
        self.questions.retain(|_, question| question.peer != peer);
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, gossip::STRANGER_SCORE);
        // An error means that the connection is gone already, which will be reported.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Sends our node record, if there is one.
    pub(super) fn greet(&mut self, peer: &PeerId) {
        if let Some(record) = self.record.clone() {
            self.swarm.behaviour_mut().talk.send_request(peer, Request::Hello { record });
        }
    }

    fn on_joined(&mut self, peer: PeerId, now: Instant) {
        // Set before anything that the new peer sends is looked at: the swarm reports a connection before it polls it.
        self.swarm.behaviour_mut().gossip.set_application_score(&peer, gossip::STRANGER_SCORE);
        let Some(key) = key_of(&peer) else {
            let _ = self.swarm.disconnect_peer_id(peer);
            return;
        };
        self.peers.insert(peer, Peer::stranger(key, now, self.limits.admission));
        self.events.push_back(MeshEvent::Connected { peer: key });
        self.greet(&peer);
    }

    fn on_left(&mut self, peer: PeerId, now: Instant) {
        self.bootstrap.on_disconnected(peer, now, random());
        self.questions.retain(|_, question| question.peer != peer);
        let Some(known) = self.peers.remove(&peer) else { return };
        if known.is_admitted() {
            let score = self.swarm.behaviour().gossip.peer_score(&peer).unwrap_or(gossip::NEUTRAL_SCORE);
            if score < gossip::NEUTRAL_SCORE {
                self.grudges.insert(peer, score, now);
            }
        }
        self.events.push_back(MeshEvent::Disconnected { peer: known.key });
    }

    fn on_gossiped(&mut self, from: PeerId, id: gossipsub::MessageId, bytes: Vec<u8>, now: Instant) {
        self.unjudged.retain(|_, waiting| waiting.until > now);
        let waiting = self.unjudged.values().filter(|waiting| waiting.from == from).count();
        let place = self.unjudged.len() < UNJUDGED_MAX && waiting < UNJUDGED_PER_PEER_MAX;
        match self.peers.get(&from) {
            Some(peer) if peer.is_admitted() && place => {
                let message = MessageId(self.next_id());
                self.unjudged.insert(message, Unjudged { id, from, until: now + super::JUDGED_WITHIN });
                let Some(peer) = self.peers.get(&from) else { return };
                self.events.push_back(MeshEvent::Gossiped { message, from: peer.key, bytes });
            }
            Some(_) | None => {
                self.counters.gossip_dropped = self.counters.gossip_dropped.saturating_add(1);
                let ignore = acceptance(alliance_protocol::core::Judgement::Ignore);
                self.swarm.behaviour_mut().gossip.report_message_validation_result(&id, &from, ignore);
            }
        }
    }

    fn on_greeted(&mut self, peer: PeerId, record: Vec<u8>, channel: ResponseChannel<Answer>, now: Instant) {
        let answer = match (&self.record, self.peers.get(&peer).map(|it| &it.standing)) {
            (Some(record), Some(Standing::Stranger { .. } | Standing::Admitted)) => {
                Answer::Hello { record: record.clone() }
            }
            (None, _) | (_, Some(Standing::Leaving) | None) => Answer::Refused,
        };
        self.answer(channel, answer);
        self.on_introduced(peer, record, now);
    }

    fn on_introduced(&mut self, peer: PeerId, record: Vec<u8>, now: Instant) {
        if !wire::record_fits(&record) {
            return self.on_breach(peer, "a node record of a length that is not allowed");
        }
        let Some(known) = self.peers.get_mut(&peer) else { return };
        let digest = blake3::hash(&record);
        if matches!(known.standing, Standing::Leaving) || known.presented == Some(digest) {
            return;
        }
        if !known.greetings.take(now) {
            return self.on_breach(peer, "too many introductions");
        }
        known.presented = Some(digest);
        self.events.push_back(MeshEvent::Introduced { peer: known.key, record });
    }

    fn on_asked(&mut self, peer: PeerId, request: SyncRequest, channel: ResponseChannel<Answer>, now: Instant) {
        let Some(known) = self.peers.get_mut(&peer) else { return self.refuse(channel) };
        match &mut known.standing {
            Standing::Admitted if known.pages.take(now) => self.pass_question(peer, request, channel),
            Standing::Stranger { held: held @ None, .. } => *held = Some(Held { request, channel }),
            Standing::Admitted | Standing::Stranger { .. } | Standing::Leaving => self.refuse(channel),
        }
    }

    /// Passes a question of an admitted peer on to Core, unless too many wait already.
    pub(super) fn pass_question(&mut self, peer: PeerId, request: SyncRequest, channel: ResponseChannel<Answer>) {
        self.questions.retain(|_, question| question.channel.is_open());
        let waiting = self.questions.values().filter(|question| question.peer == peer).count();
        let Some(key) = self.peers.get(&peer).map(|it| it.key) else { return self.refuse(channel) };
        if self.questions.len() >= QUESTIONS_MAX || waiting >= QUESTIONS_PER_PEER_MAX {
            return self.refuse(channel);
        }
        let sync = SyncId(self.next_id());
        self.questions.insert(sync, Question { peer, channel });
        self.events.push_back(MeshEvent::SyncAsked { sync, peer: key, request });
    }

    /// Passes on what an admitted peer asks about a ledger. A stranger has nothing to ask: Core asks only those that have
    /// admitted it.
    fn on_witness_asked(&mut self, peer: PeerId, ask: WitnessAsk, channel: ResponseChannel<Answer>, now: Instant) {
        if !wire::ask_fits(&ask) {
            self.refuse(channel);
            return self.on_breach(peer, "a question about a ledger that is too long");
        }
        self.questions.retain(|_, question| question.channel.is_open());
        let waiting = self.questions.values().filter(|question| question.peer == peer).count();
        let full = self.questions.len() >= QUESTIONS_MAX || waiting >= QUESTIONS_PER_PEER_MAX;
        let known = self.peers.get_mut(&peer).filter(|known| known.is_admitted() && !full);
        let key = known.and_then(|known| known.pages.take(now).then_some(known.key));
        let Some(key) = key else { return self.refuse(channel) };
        let question = SyncId(self.next_id());
        self.questions.insert(question, Question { peer, channel });
        self.events.push_back(MeshEvent::WitnessAsked { question, peer: key, ask });
    }

    /// Tells Core that a question about a ledger stays without an answer.
    fn not_answered(&mut self, asked: Option<Asked>) {
        if let Some(number) = asked.and_then(|asked| asked.witness) {
            self.events.push_back(MeshEvent::WitnessAnswered { number, answer: None });
        }
    }

    fn on_answered(&mut self, peer: PeerId, id: OutboundRequestId, answer: Answer, now: Instant) {
        let asked = self.asked.remove(&id);
        let kind = asked.as_ref().map(|asked| asked.witness.is_some());
        match (answer, kind) {
            (Answer::Hello { record }, None) => self.on_introduced(peer, record.into_vec(), now),
            (Answer::Witness { answer }, Some(true)) if answer.body.len() <= wire::WITNESS_BYTES_MAX => {
                if let Some(number) = asked.and_then(|asked| asked.witness) {
                    self.events.push_back(MeshEvent::WitnessAnswered { number, answer: Some(answer) });
                }
            }
            (Answer::Sync { answer }, Some(false)) => {
                if !wire::page_fits(&answer) {
                    return self.on_breach(peer, "a page of statements that is too long");
                }
                let Some(known) = self.peers.get(&peer).filter(|it| it.is_admitted()) else { return };
                self.events.push_back(MeshEvent::SyncAnswered { peer: known.key, answer });
            }
            (Answer::Refused, _) => {
                tracing::debug!(%peer, "a peer refused");
                self.not_answered(asked);
            }
            (Answer::Hello { .. } | Answer::Sync { .. } | Answer::Witness { .. }, _) => {
                self.not_answered(asked);
                self.on_breach(peer, "an answer to something else");
            }
        }
    }

    /// A peer broke the protocol: a stranger is cut, an accredited node is counted and left to its operator.
    fn on_breach(&mut self, peer: PeerId, what: &'static str) {
        self.counters.breaches = self.counters.breaches.saturating_add(1);
        tracing::debug!(%peer, what, "a peer broke the protocol");
        if !self.peers.get(&peer).is_some_and(Peer::is_admitted) {
            self.dismiss(peer);
        }
    }

    pub(super) fn refuse(&mut self, channel: ResponseChannel<Answer>) {
        self.counters.sync_refused = self.counters.sync_refused.saturating_add(1);
        self.answer(channel, Answer::Refused);
    }

    pub(super) fn answer(&mut self, channel: ResponseChannel<Answer>, answer: Answer) {
        if self.swarm.behaviour_mut().talk.send_response(channel, answer).is_err() {
            tracing::debug!("a peer did not wait for its answer");
        }
    }
}

/// Jitter. Where the system gives no random bytes, waits are a little more regular, which harms nothing.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}
