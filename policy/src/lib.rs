//! The law of a crossing, in Cedar: the schema, the baseline and the founding packs, and the [`Gate`] that asks them.
//!
//! Pure: the instant is an argument, and nothing here reads a clock, a file or the network. It never decides by itself:
//! whether a crossing is allowed is what Cedar says of the pack, and whatever goes wrong on the way denies.

mod baseline;
mod conditions;
mod decide;
mod explain;
mod language;
mod pack;
mod rule;
mod shelf;

use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackError, PackSummary, Verdict},
    time::Timestamp,
};

pub use crate::{
    baseline::{FOUNDING_MEMBERS, baseline, founding_pack_text},
    explain::{Remedy, remedies},
    language::SCHEMA,
};

/// Asks law packs with Cedar. Remembers a bounded number of compiled packs by their digest, and nothing else.
#[derive(Debug, Default)]
pub struct CedarGate {
    shelf: shelf::Shelf,
}

impl CedarGate {
    /// A gate that remembers no pack yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Gate for CedarGate {
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Verdict {
        let verdict = match &*self.shelf.compiled(pack) {
            Ok(compiled) => decide::judge(compiled, action, facts, at).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match verdict {
            Ok(decision) => Verdict {
                pack: pack.owner,
                epoch: pack.epoch,
                action,
                allowed: decision.allowed,
                rules: decision.rules,
                obligations: decision.obligations,
                error: None,
            },
            Err(error) => Verdict::failed(pack.owner, pack.epoch, action, error),
        }
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => Ok(PackSummary { owner: pack.owner, rules: compiled.summary() }),
            Err(error) => Err(error.clone()),
        }
    }
}
