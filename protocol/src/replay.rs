//! Deciding a recorded crossing again, from the ledger alone: the law, the statuses and the rules that were in force at that
//! entry are taken from the entries before it, and asked about the facts that it records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    border::{Border, Decision},
    charter::{CharterError, Chartered},
    envelope::{OpenError, Signed},
    gate::{Gate, Pack, PackOwner, Verdict},
    id::CrossingId,
    ledger::{Entry, PackText, Record},
    time::Timestamp,
    trust::{Distrust, Trust},
    vocabulary::Country,
};

/// One decision of a crossing, as recorded and as it comes out again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// The number of the entry.
    pub entry: u64,
    pub at: Timestamp,
    /// What sort of entry.
    pub kind: &'static str,
    /// Whether it was allowed.
    pub allowed: bool,
    /// Why not, as recorded.
    pub problem: Option<String>,
    pub again: Again,
}

/// What came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Again {
    /// Every verdict, on the whole and on each part, is the one that is recorded.
    Same { verdicts: Vec<Arc<Verdict>> },
    /// Other verdicts came out.
    Different { recorded: Vec<Arc<Verdict>>, again: Vec<Arc<Verdict>> },
    /// It was denied before any law was asked; there is no verdict to compare.
    NotAsked,
    /// The law that has to be asked is not in force by this ledger.
    NoLaw { why: String },
}

/// Why nothing can be decided again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayed {
    #[error("the ledger has no decision of the crossing {0}")]
    NotThere(CrossingId),
    #[error("the ledger does not begin with a charter")]
    NoCharter,
    #[error("the charter in the ledger does not hold")]
    Charter(#[source] CharterError),
    #[error("entry {entry} holds a statement that does not hold")]
    Statement {
        entry: u64,
        #[source]
        source: Distrust,
    },
    #[error("the accreditation in entry {entry} cannot be opened")]
    Accreditation {
        entry: u64,
        #[source]
        source: OpenError,
    },
    #[error("the rules of the node and the baseline are not recorded before entry {entry}")]
    NoRules { entry: u64 },
}

/// What a node went by at some entry.
struct State {
    trust: Trust,
    home: Option<Country>,
    rules: Option<(Pack, Option<Pack>)>,
}

/// Decides every recorded decision of a crossing again.
///
/// # Errors
/// The crossing is not there, or the ledger does not hold what it was decided by.
pub fn replay(entries: &[Entry], crossing: CrossingId, gate: &dyn Gate) -> Result<Vec<Replayed>, NotReplayed> {
    let mut state: Option<State> = None;
    let mut found = Vec::new();
    for (number, entry) in (0..).zip(entries) {
        if let Record::Founded { charter } = &entry.record {
            let chartered = Chartered::found(charter).map_err(NotReplayed::Charter)?;
            state = Some(State { trust: Trust::new(chartered), home: None, rules: None });
            continue;
        }
        let state = state.as_mut().ok_or(NotReplayed::NoCharter)?;
        state.take(number, &entry.record, gate)?;
        if let (Some(decision), true) = (entry.record.decision(), entry.record.crossing() == Some(crossing)) {
            let again = state.decide(number, decision, entry.at, gate)?;
            found.push(Replayed {
                entry: number,
                at: entry.at,
                kind: entry.record.kind(),
                allowed: decision.denial.is_none(),
                problem: decision.denial.as_ref().map(|denial| denial.problem.clone()),
                again,
            });
        }
    }
    if found.is_empty() { Err(NotReplayed::NotThere(crossing)) } else { Ok(found) }
}

impl State {
    /// What a record changes in what the node goes by.
    fn take(&mut self, entry: u64, record: &Record, gate: &dyn Gate) -> Result<(), NotReplayed> {
        let failed = |source| NotReplayed::Statement { entry, source };
        match record {
            Record::CharterAccepted { charter } => drop(self.trust.accept_charter(charter).map_err(failed)?),
            Record::StatusAccepted { status } => drop(self.trust.accept_status(status).map_err(failed)?),
            Record::PackAccepted { pack } => match self.trust.accept_pack(pack, gate) {
                Ok(_) | Err(Distrust::Older { .. }) => {}
                Err(source) => return Err(failed(source)),
            },
            Record::Accredited { accreditation } => {
                let opened = Signed::<crate::authority::Accreditation>::open(accreditation, self.trust.alliance());
                let opened = opened.map_err(|source| NotReplayed::Accreditation { entry, source })?;
                self.home = Some(opened.body().member);
            }
            Record::RulesLoaded { baseline, house } => {
                self.rules =
                    Some((baseline.pack(PackOwner::Alliance), house.as_ref().map(|house| house.pack(PackOwner::House))));
            }
            _ => {}
        }
        Ok(())
    }

    fn decide(&self, entry: u64, recorded: &Decision, at: Timestamp, gate: &dyn Gate) -> Result<Again, NotReplayed> {
        if recorded.facts.is_none() {
            return Ok(Again::NotAsked);
        }
        let (Some((baseline, house)), Some(home)) = (&self.rules, self.home) else {
            return Err(NotReplayed::NoRules { entry });
        };
        let border = Border {
            trust: &self.trust,
            gate,
            baseline,
            house: house.as_ref(),
            home,
            approvals: &BTreeMap::new(),
            approvers: &BTreeSet::new(),
            outlook: None,
            ledger: None,
            doubts: BTreeMap::new(),
            // Facts are recorded as they were seen then.
            misplaced: BTreeMap::new(),
            now: at,
        };
        Ok(match border.judge_again(recorded) {
            Err(denial) => Again::NoLaw { why: denial.problem },
            Ok(again) if (&again.verdicts, &again.parts) == (&recorded.verdicts, &recorded.parts) => {
                Again::Same { verdicts: again.verdicts }
            }
            Ok(again) => Again::Different { recorded: recorded.verdicts.clone(), again: again.verdicts },
        })
    }
}

impl PackText {
    /// The pack with this text.
    fn pack(&self, owner: PackOwner) -> Pack {
        Pack::new(owner, self.epoch, &self.law, &self.directives)
    }
}
