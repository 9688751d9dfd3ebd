//! What a member's authority says: who is accredited, what is in force, which safeguards exist.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    envelope::Statement,
    gate::PackOwner,
    id::{ManifestId, StatementId},
    key::PublicKey,
    limits,
    place::Place,
    time::{Timestamp, Validity},
    vocabulary::{Country, Label, NodeRole, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};

/// "This key is this organisation's node, in this country, with these roles, until then."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accreditation {
    pub member: Country,
    pub node: PublicKey,
    pub organisation: Organisation,
    /// A zone with its own law inside the member.
    pub zone: Option<Zone>,
    pub roles: BTreeSet<NodeRole>,
    /// How well the authority has established where the node is.
    #[serde(default, skip_serializing_if = "Tier::is_default")]
    pub tier: Tier,
    /// Where the node stands. A tier above `accredited` needs it: what nobody can contradict is corroborated by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    pub validity: Validity,
}

/// Who operates a node, in the terms that the laws use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organisation {
    /// As in `organisation/model`: letters, digits, `-`, `_`, `.`.
    pub name: String,
    pub roles: BTreeSet<OrganisationRole>,
    /// The country whose state can compel the operator, where it is not the member itself.
    pub controlled_by: Option<Country>,
    /// Whether the operator is owned or controlled by a state.
    pub state_controlled: bool,
}

/// What is in force in a member now. Short-lived: when it runs out, crossings that involve the member stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Status {
    pub member: Country,
    /// Rises with each status; a lower one than seen is never accepted.
    pub serial: u64,
    pub validity: Validity,
    /// The law pack in force.
    pub law_pack: StatementId,
    pub epoch: u64,
    /// Packs that come into force later, the next one first.
    pub upcoming: Vec<Adoption>,
    /// Nodes whose accreditation has been withdrawn.
    pub revoked: BTreeSet<PublicKey>,
    /// What the regulator has banned or limited. Being in the status, it is never older than the status.
    pub bans: BTreeSet<Ban>,
    /// Who approves crossings for the authority, where its rules demand that; its officers, where none is named. Ascending by
    /// key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub experts: Vec<Expert>,
    /// Milliseconds for which crossings that run may go on after the status has run out; nothing new begins in them.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grace_ms: u64,
}

/// Somebody whom an authority has named to supervise what is released.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expert {
    pub key: PublicKey,
    /// The name, for people.
    pub name: String,
}

/// A law pack that comes into force at an instant, whether or not there is another status by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adoption {
    pub from: Timestamp,
    pub law_pack: StatementId,
    pub epoch: u64,
}

impl Status {
    /// The pack in force at an instant, by its epoch and id.
    #[must_use]
    pub fn in_force(&self, at: Timestamp) -> (u64, StatementId) {
        let begun = self.upcoming.iter().rev().find(|next| next.from <= at);
        begun.map_or((self.epoch, self.law_pack), |next| (next.epoch, next.law_pack))
    }

    /// The packs of which each is in force at some instant from `early` to `late`, in their order.
    pub fn in_force_within(&self, early: Timestamp, late: Timestamp) -> impl Iterator<Item = (u64, StatementId)> {
        let begins = self.upcoming.iter().filter(move |next| early < next.from && next.from <= late);
        std::iter::once(self.in_force(early)).chain(begins.map(|next| (next.epoch, next.law_pack)))
    }

    /// Until when crossings that run already may go on.
    #[must_use]
    pub fn grace_until(&self) -> Timestamp {
        self.validity.until.plus_ms(self.grace_ms)
    }

    /// Whether what comes later does so in order: epochs and instants rise.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        let epochs = std::iter::once(self.epoch).chain(self.upcoming.iter().map(|next| next.epoch));
        epochs.is_sorted_by(|one, other| one < other) && self.upcoming.is_sorted_by(|one, other| one.from < other.from)
    }
}

fn is_zero(ms: &u64) -> bool {
    *ms == 0
}

/// A regulator's ban: what the member's law says of banned crossings holds for everything to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Ban {
    /// Every recipient in a country.
    Destination(Country),
    /// One recipient.
    Recipient(PublicKey),
}

/// A member's rules as Cedar text, numbered by epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LawPack {
    pub member: Country,
    /// Rises with each pack; a lower one than seen is never accepted.
    pub epoch: u64,
    pub issued: Timestamp,
    /// Cedar policies that encode law.
    pub law: String,
    /// Cedar policies that encode directives of the authority: binding, but never cited as law.
    pub directives: String,
}

/// A token that evidences a legal ground for one kind of crossing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Safeguard {
    /// The member whose authority issued it; it counts only before that member's law.
    pub issuer: Country,
    pub kind: SafeguardKind,
    /// Where it is filed: a case number, for people and auditors.
    pub reference: String,
    pub from: Country,
    pub to: Country,
    /// The labels it covers. An artefact with any other label than these and the open ones is not covered.
    pub labels: BTreeSet<Label>,
    /// The importing node it is limited to, or any.
    pub recipient: Option<PublicKey>,
    /// The ids of the rules that it may satisfy; one at least. Before every other rule it is not there.
    pub rules: BTreeSet<String>,
    /// When what it confirms was filed, where a law counts a waiting period from then.
    pub filed: Option<Timestamp>,
    pub validity: Validity,
}

/// Named people approve or refuse one kind of crossing, where a pack demands the approval of some of them. The last word of each
/// counts, and as long as it is valid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// For whom its signers speak: a member's authority, or the house of the node that it is given to.
    pub on_behalf: PackOwner,
    pub manifest: ManifestId,
    pub exporter: PublicKey,
    /// To whom; to everybody to whom the law lets it go, where none: an offer is approved.
    pub importer: Option<PublicKey>,
    pub purpose: Purpose,
    /// What will technically be done with it.
    #[serde(rename = "use")]
    pub use_: Use,
    /// Whether it is a yes.
    pub granted: bool,
    /// Why; a refusal has to say it.
    pub reason: String,
    /// From when it was given until it runs out.
    pub validity: Validity,
}

impl Statement for Accreditation {
    const KIND: &'static str = "accreditation";
    const SIGNATURES_MAX: usize = limits::OFFICERS_MAX;
}

impl Statement for Status {
    const KIND: &'static str = "status";
    const SIGNATURES_MAX: usize = limits::OFFICERS_MAX;
}

impl Statement for LawPack {
    const KIND: &'static str = "law-pack";
    const BYTES_MAX: usize = limits::LAW_PACK_BYTES_MAX;
    const SIGNATURES_MAX: usize = limits::OFFICERS_MAX;
}

impl Statement for Safeguard {
    const KIND: &'static str = "safeguard";
    const SIGNATURES_MAX: usize = limits::OFFICERS_MAX;
}

impl Statement for Approval {
    const KIND: &'static str = "approval";
    const SIGNATURES_MAX: usize = limits::OFFICERS_MAX;
}
