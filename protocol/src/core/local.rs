//! What the operator asks: views of the state, and orders in this node's name.

use super::{
    Core, Effects, MeshOrder, RequestId,
    admin::{AdminCall, Failure, FailureKind, LocalModel, MemberView, NodeStatus, OfferDraft, OfferView, PeerView, Reply},
    exchange::NotTaken,
    importing::Pull,
};
use std::collections::BTreeSet;

use crate::{
    authority::Approval,
    border::{Attempt, Border, Counted, Portion, Training},
    envelope::{OpenError, Signed, Statement as _, kind_of},
    gate::Gate,
    id::{CrossingId, StatementId},
    ledger::Record,
    limits,
    manifest::check_parts,
    model_key::ModelKeyBinding,
    offer::{Offer, Offered, Withdrawal, split_name},
    time::{Timestamp, Validity},
    trust::{Accepted, Course},
    vocabulary::{NodeRole, Purpose, Seat, Use},
};

/// Purposes for which an offer whose terms name none is previewed; others are asked with `alliance policy check`.
pub(super) const PREVIEWED: [Purpose; 3] = [Purpose::Research, Purpose::Commercial, Purpose::PublicService];

/// Offers of one list that are previewed; each costs a few decisions.
const PREVIEWS_MAX: usize = 200;

impl Core {
    fn readable_models(&self, now: Timestamp) -> Vec<LocalModel> {
        let overdue = self.retention.overdue(now);
        let readable = self.models.values().filter(|model| !overdue.contains(&(model.manifest, model.path.as_path())));
        readable.cloned().collect()
    }

    pub(super) fn on_admin(
        &mut self,
        id: RequestId,
        call: AdminCall,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) {
        let answer = match call {
            AdminCall::Status => Ok(Reply::Status(Box::new(self.status(now)))),
            AdminCall::Charter => Ok(Reply::Charter { log: self.trust.chartered().to_log().into() }),
            AdminCall::Outlook => Ok(Reply::Outlook(self.outlook(now, gate))),
            AdminCall::Peers => Ok(Reply::Peers(self.peer_views(now))),
            AdminCall::Offers => Ok(Reply::Offers(self.offer_views(now, gate))),
            AdminCall::Models => Ok(Reply::Models(self.models.values().cloned().collect())),
            AdminCall::ReadableModels => Ok(Reply::Models(self.readable_models(now))),
            AdminCall::Crossings => Ok(Reply::Crossings(self.history.iter().cloned().collect())),
            AdminCall::Crossing(crossing) => match self.history.get(crossing) {
                Some(view) => Ok(Reply::Crossing(Box::new(view.clone()))),
                None => Err(not_found(format!("no crossing {crossing} is recorded here"))),
            },
            AdminCall::Sources(crossing) => {
                let missing = || not_found(format!("no crossing {crossing} is recorded here"));
                self.sources_of(crossing).map(Reply::Crossings).ok_or_else(missing)
            }
            AdminCall::Approvals => {
                Ok(Reply::Approvals { pending: self.pending_approvals(now, gate), standing: self.approval_views() })
            }
            AdminCall::AddCheckpoint(body) => {
                let (status, content_type, body) = self.add_checkpoint(&body, now, effects);
                Ok(Reply::Witness { status, content_type: content_type.to_owned(), body })
            }
            AdminCall::HeldCheckpoint { origin_hash } => Ok(self.held_checkpoint(&origin_hash)),
            AdminCall::Import(model) => self.import(*model, now, effects),
            AdminCall::Replace { model, before } => self.replace(*model, before.as_deref(), now, effects),
            AdminCall::RecordStep(draft) => self.record_step(*draft, now, effects),
            AdminCall::Attest { name, steps, accreditations } => self.attest(&name, &steps, &accreditations, now, effects),
            AdminCall::Training { name } => self.training_of(&name),
            AdminCall::Publish(draft) => self.publish(draft, now, gate, effects),
            AdminCall::Withdraw { offer, reason } => self.withdraw(offer, reason, now, gate, effects),
            AdminCall::Pull(call) => return self.pull(id, call, now, gate, effects),
            AdminCall::Cancel(crossing) => self.cancel(crossing, now, effects),
            // The shell owns the transfers and answers this; it never comes here.
            AdminCall::Transfers(_) => Err(usage("transfers are not asked about here".to_owned())),
            AdminCall::Adopt(statements) => self.adopt(&statements, now, gate, effects),
        };
        effects.replies.push((id, answer.unwrap_or_else(Reply::Failed)));
    }

    /// The operator ends a crossing that runs, on whichever side.
    fn cancel(&mut self, crossing: CrossingId, now: Timestamp, effects: &mut Effects) -> Result<Reply, Failure> {
        const WHY: &str = "cancelled by the operator";
        let serving = self.exports.iter().find(|(_, export)| export.crossing() == crossing && export.ended.is_none());
        if let Some(ask) = serving.map(|(ask, _)| *ask) {
            self.cut_export(ask, WHY.to_owned(), effects);
            return Ok(Reply::Cancelled { crossing });
        }
        // What the operator asked for ends, from whomever it comes.
        let group = self.group_of(crossing);
        let arrives = |pull: &Pull| pull.is_delivered() || pull.is_being_delivered();
        match self.pulls.get(&crossing) {
            Some(_) if group.iter().filter_map(|crossing| self.pulls.get(crossing)).any(arrives) => {
                Err(conflict(format!("everything of {crossing} has come, and is being put in its place")))
            }
            Some(_) => {
                for crossing in group {
                    self.cut_pull(crossing, WHY.to_owned(), now, effects);
                }
                self.take_back_onward(now, effects);
                Ok(Reply::Cancelled { crossing })
            }
            None if self.history.get(crossing).is_some() => Err(conflict(format!("{crossing} does not run any more"))),
            None => Err(not_found(format!("no crossing {crossing} is recorded here"))),
        }
    }

    fn status(&self, now: Timestamp) -> NodeStatus {
        let accreditation = self.accreditation.body();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let charter = self.trust.chartered().charter();
        let member = |(country, status, fresh): (_, Option<&crate::authority::Status>, bool)| MemberView {
            country,
            authority: charter.members.get(&country).map(|member| member.authority.name.clone()).unwrap_or_default(),
            seat: charter.members.get(&country).map_or(Seat::Suspended, |member| member.seat),
            epoch: status.map(|status| status.in_force(now).0),
            status_until: status.map(|status| status.validity.until),
            grace_ms: status.map_or(0, |status| status.grace_ms),
            fresh,
            alarm: self.trust.alarm(country),
            revoked: count(status.map_or(0, |status| status.revoked.len())),
        };
        NodeStatus {
            version: self.config.version.clone(),
            node: self.me(),
            former: self.trust.former_keys(&self.me()),
            alliance: self.trust.alliance(),
            alliance_name: charter.name.clone(),
            country: accreditation.member,
            organisation: accreditation.organisation.name.clone(),
            roles: accreditation.roles.clone(),
            accredited_until: accreditation.validity.until,
            charter: charter.version,
            charter_alarm: self.charter_alarm(),
            problem: self.own_problem(now),
            mesh_addresses: self.config.mesh_addresses.clone(),
            bulk_addresses: self.config.bulk_addresses.clone(),
            gateway: None,
            peers_admitted: count(self.peers.admitted()),
            offers: count(self.offers.len()),
            models: count(self.models.len()),
            crossings_running: count(self.running()),
            ledger_size: self.witnessing.tiles.size(),
            witnessed: self.witnessed_view(now),
            volume: self.volumes.so_far(now),
            misplaced: self.misplaced(),
            members: self.trust.members(now).map(member).collect(),
            // The shell owns the sockets and the clocks, and fills these in.
            artefact_bytes_sent: 0,
            bulk_socket_bytes_sent: 0,
            deciding_us: 0,
            recording_us: 0,
            now,
        }
    }

    /// Why this node may take part in nothing now, if it may not.
    fn own_problem(&self, now: Timestamp) -> Option<String> {
        let admitted = self.trust.admission(&self.accreditation, &self.me(), now);
        admitted.and_then(|()| self.trust.certain(self.accreditation.body())).err().map(|why| why.to_string())
    }

    fn peer_views(&self, now: Timestamp) -> Vec<PeerView> {
        let view = |known: &super::peers::Known| {
            let (record, accreditation) = (known.record.body(), known.accreditation.body());
            let standing = self.trust.standing(&known.accreditation, &record.node, NodeRole::Exporter, Course::New, now);
            let standing = standing
                .or_else(|_| self.trust.standing(&known.accreditation, &record.node, NodeRole::Importer, Course::New, now));
            PeerView {
                node: record.node,
                country: accreditation.member,
                organisation: accreditation.organisation.name.clone(),
                connected: self.peers.is_connected(&record.node),
                problem: standing.err().map(|problem| problem.to_string()),
                tier: accreditation.tier,
                place: accreditation.place,
                place_alarm: self.place_alarm(accreditation),
                model_key: record.model_key.as_ref().and_then(|bytes| {
                    let key = ModelKeyBinding::key_of(bytes, &record.node, self.trust.alliance()).ok()?;
                    Some(key.pem().to_owned())
                }),
                mesh_addresses: record.mesh.clone(),
                bulk_addresses: record.bulk.clone(),
            }
        };
        self.peers.iter().map(view).collect()
    }

    fn offer_views(&self, now: Timestamp, gate: &dyn Gate) -> Vec<OfferView> {
        // An offer of a node that is not known any more, or not yet again, cannot be shown for what it is.
        let known = |offer: &&Signed<Offer>| {
            let body = offer.body();
            let goes_back = |root: &Signed<Offer>| (&root.body().name, &root.body().what) == (&body.name, &body.what);
            let rooted = body.root.is_none() || self.offers.root_of(body).is_some_and(goes_back);
            rooted && (body.node == self.me() || self.peers.get(&body.node).is_some())
        };
        let standing = self.offers.iter().filter(|offer| offer.body().validity.check(now).is_ok()).filter(known);
        standing.enumerate().map(|(at, offer)| self.offer_view(offer, at < PREVIEWS_MAX, now, gate)).collect()
    }

    fn offer_view(&self, offer: &Signed<Offer>, previewed: bool, now: Timestamp, gate: &dyn Gate) -> OfferView {
        let body = offer.body();
        let own = body.node == self.me();
        let exporter =
            if own { Some(&self.accreditation) } else { self.peers.get(&body.node).map(|known| &known.accreditation) };
        let mut preview = Vec::new();
        if let (Some(exporter), Offered::Model(_), false, true) = (exporter, &body.what, own, previewed) {
            // What the law says; whether this node can prove what it does is another matter.
            let border = Border { ledger: None, ..self.border(gate, now) };
            let admitted: Vec<Purpose> = match body.terms.purposes.is_empty() {
                true => PREVIEWED.to_vec(),
                false => body.terms.purposes.iter().copied().collect(),
            };
            preview.extend(admitted.into_iter().map(|purpose| {
                let attempt = Attempt {
                    course: Course::New,
                    exporter,
                    importer: &self.accreditation,
                    offer,
                    root: self.root_of(body),
                    portion: &Portion::All,
                    purpose,
                    use_: Use::Inference,
                    circumstances: &BTreeSet::new(),
                    counted: Counted::NOTHING,
                    safeguards: &[],
                    training: Training::Claimed,
                };
                (purpose, border.decide(&attempt).denial.is_none())
            }));
        }
        OfferView {
            offer: offer.id(),
            name: body.name.clone(),
            node: body.node,
            country: exporter.unwrap_or(&self.accreditation).body().member,
            organisation: exporter.map(|exporter| exporter.body().organisation.name.clone()).unwrap_or_default(),
            own,
            what: body.what.clone(),
            terms: body.terms.clone(),
            from: body.validity.from,
            until: body.validity.until,
            root: body.root,
            preview,
        }
    }

    fn own_name(&self, name: &str) -> Result<(), Failure> {
        let (organisation, _) = split_name(name).map_err(|error| usage(error.to_string()))?;
        let accredited = &self.accreditation.body().organisation.name;
        if organisation == accredited {
            return Ok(());
        }
        Err(usage(format!("this node is accredited for `{accredited}`; it can name and offer only `{accredited}/...`")))
    }

    fn replace(
        &mut self,
        model: LocalModel,
        before: Option<&LocalModel>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        if self.models.get(&model.name) != before {
            return Err(conflict(format!("`{}` was imported anew in the meantime", model.name)));
        }
        self.import(model, now, effects)
    }

    fn import(&mut self, mut model: LocalModel, now: Timestamp, effects: &mut Effects) -> Result<Reply, Failure> {
        self.own_name(&model.name)?;
        if model.labels.is_empty() {
            return Err(usage("a model needs at least one label, for example `public,non_personal`".to_owned()));
        }
        if model.subjects.is_empty() && model.labels.iter().any(|label| label.is_personal()) {
            return Err(usage("name the countries whose people the personal data is about (--subjects)".to_owned()));
        }
        check_parts(&model.parts, &model.labels, model.tensors, model.bytes)
            .map_err(|why| usage(format!("what the model says of its parts does not hold: {why}")))?;
        model
            .provenance
            .check_card()
            .map_err(|why| usage(format!("what is said of the model card does not hold: {why}")))?;
        self.keep_attested(&mut model);
        if self.models.get(&model.name) == Some(&model) {
            return Ok(Reply::Imported(Box::new(model)));
        }
        self.withdraw_replaced(&model, now, effects)?;
        self.keep_model(&model);
        self.record(Record::ModelImported { model: model.clone() }, now, effects);
        Ok(Reply::Imported(Box::new(model)))
    }

    /// Takes back the offers of what was imported under the same name before: nobody could pull them any more.
    pub(super) fn withdraw_replaced(
        &mut self,
        model: &LocalModel,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let stale = |offer: &&Signed<Offer>| {
            let body = offer.body();
            let same = match &body.what {
                Offered::Model(offered) => model.is_offered_as(offered),
                Offered::Compute(_) => true,
            };
            body.node == self.me() && body.name == model.name && !same
        };
        let stale: Vec<StatementId> = self.offers.iter().filter(stale).map(Signed::id).collect();
        for offer in stale {
            self.take_back(offer, "imported again with other content or facts".to_owned(), now, effects)?;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        draft: OfferDraft,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        if draft.ttl_ms == 0 || draft.ttl_ms > limits::OFFER_MS_MAX {
            return Err(usage("an offer stands for more than nothing and for at most 366 days".to_owned()));
        }
        if let Some(root) = self.came_under(&draft) {
            let until = now.plus_ms(draft.ttl_ms);
            let offer = self.publish_onward(&root, draft.terms, until, now, effects);
            let offer = offer.map_err(|why| conflict(format!("not published: {why}")))?;
            return Ok(Reply::Published(Box::new(self.offer_view(&offer, false, now, gate))));
        }
        self.own_name(&draft.name)?;
        let what = match draft.compute {
            Some(compute) if compute.accelerator.is_empty() => {
                return Err(usage("say which accelerator is offered, for example `H200` or `cpu`".to_owned()));
            }
            Some(compute) if compute.count == 0 || compute.memory_mib == 0 || compute.hours == 0 => {
                return Err(usage("the count, memory and hours of compute that is offered are more than 0".to_owned()));
            }
            Some(compute) => Offered::Compute(compute),
            None => {
                let missing = || not_found(format!("no model `{}` is imported here (`alliance model import`)", draft.name));
                let model = self.models.get(&draft.name).ok_or_else(missing)?;
                Offered::Model(model.offered())
            }
        };
        what.within_bounds().map_err(|why| usage(format!("not published: {why}")))?;
        let validity = Validity::lasting_ms(now, draft.ttl_ms);
        let offer = Offer { node: self.me(), name: draft.name, what, terms: draft.terms, root: None, validity };
        let offer = Signed::sign(&offer, self.trust.alliance(), &self.key).map_err(|error| match error {
            OpenError::TooLarge { bytes, limit } => usage(format!(
                "the offer would have {bytes} bytes; at most {limit} are allowed: shorten its terms or licence, or give more tensors the same labels"
            )),
            other => internal(other.to_string()),
        })?;
        self.enter_own_offer(&offer, now, effects).map_err(|why| conflict(format!("not published: {why}")))?;
        Ok(Reply::Published(Box::new(self.offer_view(&offer, false, now, gate))))
    }

    /// The offer of the first exporter of what a draft names, where it came from another node and the offer still stands.
    fn came_under(&self, draft: &OfferDraft) -> Option<Signed<Offer>> {
        let model = self.models.get(&draft.name).filter(|_| draft.compute.is_none())?;
        model.crossing?;
        let same = |offer: &&Signed<Offer>| {
            let body = offer.body();
            let is_it = matches!(&body.what, Offered::Model(offered) if model.is_offered_as(offered));
            body.root.is_none() && body.name == draft.name && body.node != self.me() && is_it
        };
        self.offers.iter().find(same).cloned()
    }

    fn withdraw(
        &mut self,
        offer: StatementId,
        reason: String,
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        if reason.len() > limits::TEXT_BYTES_MAX {
            return Err(usage(format!("the reason has more than {} bytes", limits::TEXT_BYTES_MAX)));
        }
        match self.offers.get(offer) {
            None if self.offers.is_withdrawn(offer) => return Err(conflict("the offer was withdrawn before".to_owned())),
            None => return Err(not_found(format!("no offer {offer} stands"))),
            Some(standing) if standing.body().node != self.me() => {
                return Err(usage("only the node that published an offer can withdraw it".to_owned()));
            }
            Some(_) => {}
        }
        self.take_back(offer, reason, now, effects)?;
        self.decide_running_again(now, gate, effects);
        Ok(Reply::Withdrawn { offer })
    }

    pub(super) fn take_back(
        &mut self,
        offer: StatementId,
        reason: String,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), Failure> {
        let withdrawal = Withdrawal { node: self.me(), offer, at: now, reason };
        let withdrawal =
            Signed::sign(&withdrawal, self.trust.alliance(), &self.key).map_err(|error| internal(error.to_string()))?;
        self.offers.withdraw(withdrawal.clone());
        self.record(Record::OfferWithdrawn { withdrawal: withdrawal.bytes().to_vec().into() }, now, effects);
        effects.mesh.push(MeshOrder::Publish { bytes: withdrawal.bytes().to_vec() });
        Ok(())
    }

    /// Takes in statements that an authority handed over as files, and passes on what is new.
    fn adopt(
        &mut self,
        statements: &[serde_bytes::ByteBuf],
        now: Timestamp,
        gate: &dyn Gate,
        effects: &mut Effects,
    ) -> Result<Reply, Failure> {
        let (mut accepted, mut known) = (0, 0);
        for bytes in statements {
            if kind_of(bytes).is_ok_and(|kind| kind == Approval::KIND) {
                match self.take_approval(bytes, now, effects)? {
                    Accepted::New => accepted += 1,
                    Accepted::Known => known += 1,
                }
                continue;
            }
            match self.take_in(bytes, now, gate, effects) {
                Ok(Accepted::New) => {
                    accepted += 1;
                    effects.mesh.push(MeshOrder::Publish { bytes: bytes.to_vec() });
                }
                Ok(Accepted::Known) => known += 1,
                Err(NotTaken::Bad(why) | NotTaken::Useless(why) | NotTaken::Unseated(why)) => {
                    return Err(Failure { kind: FailureKind::Untrusted, message: format!("not adopted: {why}") });
                }
            }
        }
        Ok(Reply::Adopted { accepted, known })
    }
}

pub(super) fn usage(message: String) -> Failure {
    Failure { kind: FailureKind::Usage, message }
}

pub(super) fn not_found(message: String) -> Failure {
    Failure { kind: FailureKind::NotFound, message }
}

pub(super) fn conflict(message: String) -> Failure {
    Failure { kind: FailureKind::Conflict, message }
}

fn internal(message: String) -> Failure {
    Failure { kind: FailureKind::Internal, message }
}
