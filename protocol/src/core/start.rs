//! How a node starts: what it is given is verified, its ledger is lived through again, and what is new is recorded.

use std::collections::BTreeMap;

use super::*;

/// What a node starts from. Nothing of it is believed before it is verified.
#[derive(Debug)]
pub struct Origin {
    pub key: SecretKey,
    /// The founding charter, or the log of all versions that the operator has.
    pub charter: Vec<u8>,
    pub accreditation: Vec<u8>,
    /// The ledger, from the beginning.
    pub entries: Vec<Entry>,
    /// Statements of others from the catalogue.
    pub catalogue: Vec<Vec<u8>>,
    /// What was kept by `Keep::Held`.
    pub held: Vec<String>,
    /// What was kept last by `Keep::Witnessed`.
    pub witnessed: Option<String>,
    /// The accreditations of those who signed that.
    pub witnesses: Vec<Vec<u8>>,
}

/// Why a node cannot start from what it was given.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the charter does not hold")]
    Charter(#[source] CharterError),
    #[error("the ledger was begun under another charter; this home belongs to that alliance")]
    OtherCharter,
    #[error("a version of the charter in the home does not go with those in the ledger")]
    Versions(#[source] Distrust),
    #[error("the accreditation does not hold")]
    Accreditation(#[source] NoStanding),
    #[error("the ledger holds a statement that does not hold now")]
    Ledger(#[source] Distrust),
    #[error("the ledger holds a `{0}` that cannot be opened")]
    Record(&'static str, #[source] OpenError),
    #[error("what was kept of the ledger `{0}` is not what this node signed as its witness")]
    Held(String),
    #[error("a pack of this node cannot be used")]
    Pack(#[source] PackError),
    #[error("the ledger goes on under the key {0}, to which this node's key has made way; start it with that one")]
    OtherKey(PublicKey),
    #[error("this node's own record would be too large: it has too many addresses")]
    OwnRecord(#[source] OpenError),
}

/// What a ledger says of the starts before this one.
#[derive(Default)]
struct Known {
    begun: bool,
    /// Whether the last accreditation is the one of now.
    accredited: bool,
    /// The rules that were loaded last.
    rules: Option<Record>,
    /// The key that the last rotation gave this node.
    key: Option<PublicKey>,
    /// Offers under a key that has ended, which the one of now has not made yet.
    ended_offers: Vec<Signed<Offer>>,
}

impl Core {
    /// Verifies what the node starts from and replays its ledger. The effects must be carried out like any others.
    ///
    /// # Errors
    /// What cannot be trusted.
    pub fn start(origin: Origin, config: Config, now: Timestamp, gate: &dyn Gate) -> Result<(Self, Effects), StartError> {
        let Origin { key, charter, accreditation, entries, catalogue, held, witnessed, witnesses } = origin;
        gate.check(&config.baseline).map_err(StartError::Pack)?;
        if let Some(house) = &config.house {
            gate.check(house).map_err(StartError::Pack)?;
        }
        let chartered = Chartered::open(&charter).map_err(StartError::Charter)?;
        let mut core = Self::fresh(key, config, &chartered, &accreditation, now)?;
        let known = core.replay_all(&entries, &chartered, &accreditation, gate)?;
        let me = core.me();
        if let Some(other) = known.key.filter(|key| *key != me) {
            return Err(StartError::OtherKey(other));
        }
        if witnessed.is_some_and(|note| !core.restore_witnessed(&note, &witnesses)) {
            return Err(StartError::Held(crate::ledger::Origin::of(&me).to_string()));
        }
        let mine: Vec<_> = std::iter::once(me).chain(core.trust.former_keys(&me)).collect();
        if let Some(note) = held.iter().find(|note| !mine.iter().any(|key| core.watch.restore(note, key))) {
            return Err(StartError::Held(note.lines().next().unwrap_or_default().to_owned()));
        }
        let mut effects = Effects::default();
        core.record_start(&known, &chartered, accreditation, now, &mut effects)?;
        core.make_offers_again(known.ended_offers, now, &mut effects)?;
        core.follow_ledgers(now, &mut effects);
        core.renew_record(now);
        core.take_in_all(catalogue.iter().map(Vec::as_slice), now, gate, &mut effects);
        // What came from the catalogue is in the catalogue.
        effects.catalogue.retain(|change| matches!(change, CatalogueChange::Remove { .. }));
        core.present_record(&mut effects);
        Ok((core, effects))
    }

    /// A node that has lived through nothing yet, under the founding charter.
    fn fresh(
        key: SecretKey,
        config: Config,
        chartered: &Chartered,
        accreditation: &[u8],
        now: Timestamp,
    ) -> Result<Self, StartError> {
        let trust = Trust::new(Chartered::found(chartered.founding().bytes()).map_err(StartError::Charter)?);
        // Who may sign it is asked later, under the charter that is in force by then.
        let accreditation = Signed::open(accreditation, trust.alliance())
            .map_err(|error| StartError::Accreditation(NoStanding::Accreditation(error.into())))?;
        let own_record =
            own_record(&key, &accreditation, &config, (trust.alliance(), 1, now.0), now).map_err(StartError::OwnRecord)?;
        let randomness = Randomness { seed: config.seed, drawn: 0 };
        Ok(Self {
            witnessing: Witnessing::new(&key.public(), now),
            watch: Watch::default(),
            placing: Placing::default(),
            provenances: Provenances::default(),
            witness_asks: BTreeMap::new(),
            asked_witnesses: 0,
            key,
            config,
            accreditation,
            trust,
            own_record,
            peers: Peers::default(),
            offers: Offers::default(),
            models: BTreeMap::new(),
            history: History::default(),
            exports: BTreeMap::new(),
            pulls: BTreeMap::new(),
            wanted: BTreeMap::new(),
            onward_published: BTreeMap::new(),
            answered: BTreeMap::new(),
            approvals: BTreeMap::new(),
            volumes: Volumes::default(),
            retention: Retention::default(),
            fruitless: Window::new(limits::FRUITLESS_PER_WINDOW_MAX, limits::WINDOW_MS),
            heard: Window::new(limits::AUTHORITY_STATEMENTS_PER_WINDOW_MAX, limits::WINDOW_MS),
            randomness,
            next_round: now,
            charter_ahead: 0,
        })
    }

    /// Lives through the ledger; gives what it says of the start itself.
    fn replay_all(
        &mut self,
        entries: &[Entry],
        chartered: &Chartered,
        accreditation: &[u8],
        gate: &dyn Gate,
    ) -> Result<Known, StartError> {
        let mut known = Known::default();
        for entry in entries {
            self.witnessing.append(leaf_of(entry), entry.at);
            let Entry { at, record } = entry;
            match record {
                Record::Founded { charter: founded } if !is_same_charter(founded, chartered) => {
                    return Err(StartError::OtherCharter);
                }
                Record::Founded { .. } => known.begun = true,
                Record::Accredited { accreditation: recorded } => {
                    known.accredited = *recorded == accreditation;
                    self.provenances.accredited(recorded);
                }
                Record::RulesLoaded { .. } => known.rules = Some(record.clone()),
                Record::KeyRotated { rotation } => {
                    let (key, ended) = self.took_over(rotation)?;
                    known.key = Some(key);
                    known.ended_offers.extend(ended);
                }
                Record::OfferPublished { offer } => {
                    known.ended_offers.retain(|ended| !rotating::is_made_again(ended, offer));
                    self.replay(record, *at, gate)?;
                }
                other => self.replay(other, *at, gate)?,
            }
        }
        Ok(known)
    }

    /// Records what this start brings that the ledger does not have.
    fn record_start(
        &mut self,
        known: &Known,
        chartered: &Chartered,
        accreditation: Vec<u8>,
        now: Timestamp,
        effects: &mut Effects,
    ) -> Result<(), StartError> {
        if !known.begun {
            let charter = chartered.founding().bytes().to_vec().into();
            self.record(Record::Founded { charter }, now, effects);
        }
        for version in chartered.versions().skip(1) {
            if self.trust.accept_charter(version.bytes()).map_err(StartError::Versions)? == Accepted::New {
                let charter = version.bytes().to_vec().into();
                self.record(Record::CharterAccepted { charter }, now, effects);
            }
        }
        let me = self.me();
        let opened = self.trust.accreditation(&accreditation).map_err(NoStanding::Accreditation);
        let stands = opened.and_then(|accreditation| self.trust.admission(&accreditation, &me, now));
        stands.map_err(StartError::Accreditation)?;
        if !known.accredited {
            self.record(Record::Accredited { accreditation: accreditation.into() }, now, effects);
        }
        let rules = Record::RulesLoaded {
            baseline: (&self.config.baseline).into(),
            house: self.config.house.as_ref().map(Into::into),
        };
        if known.rules.as_ref() != Some(&rules) {
            self.record(rules, now, effects);
        }
        for (crossing, side) in self.history.unfinished() {
            let problem = "the daemon stopped during the crossing".to_owned();
            let record = Record::CrossingFailed { crossing, side, bytes: 0, problem, tampered: false };
            self.record(record, now, effects);
        }
        Ok(())
    }

    /// Applies a record of an earlier run.
    fn replay(&mut self, record: &Record, at: Timestamp, gate: &dyn Gate) -> Result<(), StartError> {
        self.apply(record, at);
        let alliance = self.trust.alliance();
        match record {
            Record::StatusAccepted { status } => {
                self.trust.accept_status(status).map_err(StartError::Ledger)?;
            }
            Record::CharterAccepted { charter } => {
                self.trust.accept_charter(charter).map_err(StartError::Ledger)?;
            }
            Record::PackAccepted { pack } => match self.trust.accept_pack(pack, gate) {
                // A pack that was overtaken in the meantime is history; one that cannot be read any more is not in force.
                Ok(_) | Err(Distrust::Older { .. } | Distrust::Pack(_)) => {}
                Err(error) => return Err(StartError::Ledger(error)),
            },
            Record::ModelImported { model } => self.keep_model(model),
            Record::OfferPublished { offer } => {
                let offer = Signed::open(offer, alliance).map_err(|error| StartError::Record("offer", error))?;
                self.offers.insert(offer, self.accreditation.body().member);
            }
            Record::OfferWithdrawn { withdrawal } => {
                let withdrawal =
                    Signed::open(withdrawal, alliance).map_err(|error| StartError::Record("withdrawal", error))?;
                self.offers.withdraw(withdrawal);
            }
            Record::Cleared { crossing, .. } | Record::Refused { crossing, .. } => {
                self.answered.insert(*crossing, at);
            }
            Record::ApprovalAccepted { approval } => {
                let key = approvals::approval_key(approval);
                let approval =
                    Signed::<Approval>::open(approval, alliance).map_err(|error| StartError::Record("approval", error))?;
                self.approvals.insert(key, approval);
            }
            Record::RotationAccepted { rotation } => drop(self.remember_rotation(rotation)?),
            Record::Founded { .. }
            | Record::Accredited { .. }
            | Record::RulesLoaded { .. }
            | Record::KeyRotated { .. }
            | Record::Requested { .. }
            | Record::RequestDenied { .. }
            | Record::ClearanceAccepted { .. }
            | Record::ClearanceDeclined { .. }
            | Record::RefusalAccepted { .. }
            | Record::Received { .. }
            | Record::PartDelivered { .. }
            | Record::Settled { .. }
            | Record::Deleted { .. }
            | Record::ForkFound { .. }
            | Record::PlaceContradicted { .. }
            | Record::StepRecorded { .. }
            | Record::TrainingAttested { .. }
            | Record::CrossingFailed { .. } => {}
        }
        Ok(())
    }
}

/// Whether the charter under which a ledger was begun is the founding one: the same body, whoever of the members signed this copy.
fn is_same_charter(founded: &[u8], chartered: &Chartered) -> bool {
    Chartered::found(founded).is_ok_and(|founded| founded.alliance() == chartered.alliance())
}
