//! What people give to a crossing: safeguards that an authority issued, and the words of those who approve. Whether these count.

use std::collections::BTreeSet;

use super::{Distrust, Trust};
use crate::{
    authority::{Approval, Safeguard},
    envelope::Signed,
    gate::PackOwner,
    key::PublicKey,
    limits,
    time::Timestamp,
    vocabulary::{Country, Label, SafeguardKind},
};

/// What a safeguard must cover to count.
#[derive(Debug)]
pub struct Scope<'a> {
    pub from: Country,
    pub to: Country,
    pub recipient: PublicKey,
    pub labels: &'a BTreeSet<Label>,
}

/// Why a presented safeguard does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SafeguardIgnored {
    #[error(transparent)]
    Distrust(#[from] Distrust),
    #[error("it is for crossings from {from} to {to}")]
    OtherRoute { from: Country, to: Country },
    #[error("it is limited to another recipient")]
    OtherRecipient,
    #[error("it is limited to the key {0}, which the recipient had before; have it issued again for its key of now")]
    FormerRecipient(PublicKey),
    #[error("it does not cover the label `{0}`")]
    Label(Label),
    #[error("a waiting period is worked out from the filing that a `regulator_notification` names; no token stands for it")]
    WorkedOut,
    #[error("it names no rule, or too many, that it may satisfy")]
    NoRules,
}

impl Trust {
    /// Opens a safeguard for a crossing: issued by a member's authority, in force, and covering this crossing.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn safeguard(
        &self,
        bytes: &[u8],
        scope: &Scope<'_>,
        now: Timestamp,
    ) -> Result<Signed<Safeguard>, SafeguardIgnored> {
        let statement = Signed::<Safeguard>::open(bytes, self.alliance()).map_err(Distrust::from)?;
        let body = statement.body();
        self.spoken(body.issuer, statement.signers())?;
        if body.kind == SafeguardKind::WaitingPeriodElapsed {
            return Err(SafeguardIgnored::WorkedOut);
        }
        let name = |rule: &String| rule.is_empty() || rule.len() > limits::NAME_BYTES_MAX;
        if body.rules.is_empty() || body.rules.len() > limits::RULES_PER_SAFEGUARD_MAX || body.rules.iter().any(name) {
            return Err(SafeguardIgnored::NoRules);
        }
        body.validity.check(now).map_err(Distrust::from)?;
        if (body.from, body.to) != (scope.from, scope.to) {
            return Err(SafeguardIgnored::OtherRoute { from: body.from, to: body.to });
        }
        if body.recipient.is_some_and(|recipient| recipient != scope.recipient) {
            let former = body.recipient.filter(|named| self.former_keys(&scope.recipient).contains(named));
            return Err(former.map_or(SafeguardIgnored::OtherRecipient, SafeguardIgnored::FormerRecipient));
        }
        let covered = |label: &&Label| body.labels.contains(label) || label.is_open();
        match scope.labels.iter().find(|label| !covered(label)) {
            Some(label) => Err(SafeguardIgnored::Label(*label)),
            None => Ok(statement),
        }
    }

    /// Opens an approval. Who of its signers counts for what is for [`Trust::officers`] and the house to say.
    ///
    /// # Errors
    /// It is not an approval of this alliance, or does not count now.
    pub fn approval(&self, bytes: &[u8], now: Timestamp) -> Result<Signed<Approval>, Distrust> {
        let statement = Signed::<Approval>::open(bytes, self.alliance())?;
        let body = statement.body();
        body.validity.check(now)?;
        if body.reason.len() > limits::TEXT_BYTES_MAX || (!body.granted && body.reason.trim().is_empty()) {
            return Err(Distrust::Malformed("it refuses without a reason, or gives one beyond its bounds"));
        }
        if body.validity.until > body.validity.from.plus_ms(limits::OFFER_MS_MAX) {
            return Err(Distrust::Malformed("it counts for too long"));
        }
        Ok(statement)
    }

    /// Those who approve crossings for a member, and their names: the experts whom its newest status names, or else the
    /// officers of its authority, who have none here.
    pub fn approvers(&self, member: Country) -> impl Iterator<Item = (PublicKey, &str)> {
        let status = self.members.get(&member).and_then(|member| member.status.as_ref());
        let experts = status.map_or(&[][..], |status| &status.body().experts);
        let officers = if experts.is_empty() { self.officers(member) } else { &[] };
        let named = experts.iter().map(|expert| (expert.key, expert.name.as_str()));
        named.chain(officers.iter().map(|officer| (*officer, "")))
    }

    /// Whether a member has named experts.
    #[must_use]
    pub fn has_experts(&self, member: Country) -> bool {
        let status = self.members.get(&member).and_then(|member| member.status.as_ref());
        status.is_some_and(|status| !status.body().experts.is_empty())
    }

    /// What somebody who approves for a pack is called.
    #[must_use]
    pub fn named(&self, pack: PackOwner, key: &PublicKey) -> String {
        let name = match pack {
            PackOwner::Member(member) => self.approvers(member).find(|(known, _)| known == key).map(|(_, name)| name),
            PackOwner::House | PackOwner::Alliance => None,
        };
        name.filter(|name| !name.is_empty()).map_or_else(|| key.short(), str::to_owned)
    }
}
