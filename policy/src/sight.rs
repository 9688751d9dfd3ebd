//! Which safeguards a rule sees: tokens that name it, of an issuer that counts before it, and not too old for it.
//!
//! Whether they satisfy the rule is for Cedar to say.

use alliance_protocol::{
    gate::{Facts, Grant, PackOwner},
    time::Timestamp,
    vocabulary::SafeguardKind,
};

use crate::{calendar, rule::Rule};

/// A set of kinds of safeguard, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Kinds(u128);

const _: () = assert!(SafeguardKind::ALL.len() <= 128, "a bit for each kind");

impl Kinds {
    pub(crate) fn insert(&mut self, kind: SafeguardKind) {
        self.0 |= 1 << kind as u32;
    }

    pub(crate) const fn contains(self, kind: SafeguardKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = SafeguardKind> {
        SafeguardKind::ALL.iter().copied().filter(move |kind| self.contains(*kind))
    }
}

impl FromIterator<SafeguardKind> for Kinds {
    fn from_iter<I: IntoIterator<Item = SafeguardKind>>(kinds: I) -> Self {
        let mut set = Self::default();
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
}

/// What one rule sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) safeguards: Kinds,
    /// What the authorities of both ends issued, each for itself.
    pub(crate) mutual: Kinds,
}

impl Sight {
    pub(crate) const NONE: Self = Self { safeguards: Kinds(0), mutual: Kinds(0) };

    pub(crate) const fn is_none(self) -> bool {
        self.safeguards.is_empty() && self.mutual.is_empty()
    }
}

/// A span of time in which an answer stays what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Timestamp,
    pub(crate) until: Timestamp,
}

impl Span {
    pub(crate) const ALWAYS: Self = Self { from: Timestamp(0), until: Timestamp(u64::MAX) };

    /// Ends the span where the answer may change, seen from an instant in it.
    pub(crate) fn turn(&mut self, point: Timestamp, at: Timestamp) {
        if point <= at {
            self.from = self.from.max(point);
        } else {
            self.until = self.until.min(point);
        }
    }

    pub(crate) fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }
}

/// What a rule of this pack sees of the facts at an instant. Notes in `span` until when that holds.
pub(crate) fn of(rule: &Rule, owner: PackOwner, facts: &Facts, at: Timestamp, span: &mut Span) -> Sight {
    let mut sight = Sight::default();
    match owner {
        PackOwner::Member(member) => {
            for (kind, grant) in facts.safeguards.get(&member).into_iter().flatten() {
                see(rule, owner, *kind, grant, at, span, &mut sight.safeguards);
            }
        }
        PackOwner::Alliance | PackOwner::House => {
            for (kind, grant) in facts.safeguards.values().flatten() {
                see(rule, owner, *kind, grant, at, span, &mut sight.safeguards);
            }
            let mut ends = [facts.from.country, facts.to.country].map(|country| {
                let mut kinds = Kinds::default();
                for (kind, grant) in facts.safeguards.get(&country).into_iter().flatten() {
                    see(rule, owner, *kind, grant, at, span, &mut kinds);
                }
                kinds
            });
            let [from, to] = &mut ends;
            sight.mutual = Kinds(from.0 & to.0);
        }
    }
    sight
}

fn see(
    rule: &Rule,
    owner: PackOwner,
    kind: SafeguardKind,
    grant: &Grant,
    at: Timestamp,
    span: &mut Span,
    into: &mut Kinds,
) {
    // An operator may ask for whatever evidence he likes; a law is satisfied only by what was issued for it.
    let named = owner == PackOwner::House || grant.rules.contains(&rule.id);
    if !named || kind == SafeguardKind::WaitingPeriodElapsed {
        return;
    }
    if let Some(years) = rule.valid_for.get(&kind) {
        let end = calendar::years_later(grant.since, *years).unwrap_or(grant.since);
        span.turn(end, at);
        if at >= end {
            return;
        }
    }
    into.insert(kind);
    if let (Some(waits), SafeguardKind::RegulatorNotification, Some(filed)) = (&rule.waits, kind, grant.filed)
        && let Some(end) = calendar::elapsed(filed, waits.working_days, &waits.days_off)
    {
        span.turn(end, at);
        if at >= end {
            into.insert(SafeguardKind::WaitingPeriodElapsed);
        }
    }
}
