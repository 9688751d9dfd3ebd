//! The law of a crossing, in Cedar: the schema, the baseline and the founding packs, and the [`Gate`] that asks them.
//!
//! Pure: the instant is an argument, and nothing here reads a clock, a file or the network. It never decides by itself:
//! whether a crossing is allowed is what Cedar says of the pack, and whatever goes wrong on the way denies.

mod baseline;
mod calendar;
mod conditions;
mod coverage;
mod decide;
pub mod diff;
mod explain;
mod language;
mod pack;
mod rule;
mod shelf;
mod sight;
mod slice;

use std::{collections::BTreeSet, sync::Arc};

use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackError, PackSummary, Verdict},
    time::Timestamp,
    vocabulary::SafeguardKind,
};

pub use crate::{
    baseline::{FOUNDING_MEMBERS, baseline, founding_pack_text},
    coverage::{Covered, Disposition, Standing, coverage},
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
    fn judge(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Arc<Verdict> {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => decide::judge(pack, compiled, action, facts, at),
            Err(error) => Verdict::failed(pack.owner, pack.epoch, action, error.to_string()).into(),
        }
    }

    fn heeds_volume(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> bool {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => decide::heeds_volume(compiled, action, facts, at),
            // It says no to everything; who asks is to be told so by `judge`.
            Err(_) => true,
        }
    }

    fn check(&self, pack: &Pack) -> Result<PackSummary, PackError> {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => Ok(PackSummary { owner: pack.owner, rules: compiled.summary() }),
            Err(error) => Err(error.clone()),
        }
    }

    fn next_turn(&self, pack: &Pack, after: Timestamp) -> Option<Timestamp> {
        self.shelf.compiled(pack).as_ref().as_ref().ok()?.next_turn(after)
    }
}

impl CedarGate {
    /// As [`Gate::judge`], without looking at remembered answers and without remembering this one: for measuring.
    #[must_use]
    pub fn judge_anew(&self, pack: &Pack, action: Action, facts: &Facts, at: Timestamp) -> Verdict {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => decide::evaluate(pack, compiled, action, facts, at, &mut sight::Span::ALWAYS.clone()),
            Err(error) => Verdict::failed(pack.owner, pack.epoch, action, error.to_string()),
        }
    }

    /// Every word that a pack names, with its type: `("Label", "health")`.
    ///
    /// # Errors
    /// The pack cannot be used.
    pub fn words(&self, pack: &Pack) -> Result<BTreeSet<(String, String)>, PackError> {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => Ok(compiled.laws().iter().flat_map(|law| law.words.iter().cloned()).collect()),
            Err(error) => Err(error.clone()),
        }
    }

    /// The ids of the rules of a pack that look at a kind of safeguard: those that a token of it can be issued for.
    ///
    /// # Errors
    /// The pack cannot be used.
    pub fn rules_that_name(&self, pack: &Pack, kind: SafeguardKind) -> Result<BTreeSet<String>, PackError> {
        match &*self.shelf.compiled(pack) {
            Ok(compiled) => {
                let naming = compiled.laws().iter().filter(|law| law.names(kind));
                Ok(naming.map(|law| law.rule.id.clone()).collect())
            }
            Err(error) => Err(error.clone()),
        }
    }
}
