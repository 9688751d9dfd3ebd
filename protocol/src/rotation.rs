//! A node's key makes way for another: what both keys sign, and who is whose successor by what was accepted.
//!
//! A rotation counts with the signatures of both keys and an accreditation of the new one by the same member for the same
//! organisation, so that whoever has stolen a key cannot hand it on. The old key ends with it. Two successors of one key
//! contradict each other: none of them has standing until the authority has revoked the others. Who has standing is
//! [`crate::trust`]'s question. Specified in `specs/01-statements.md`, section "Keys that end".

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    authority::Accreditation,
    charter::Chartered,
    crossing::LedgerHead,
    envelope::{Draft, Signed, Statement},
    id::StatementId,
    key::{PublicKey, SecretKey},
    limits,
    time::{NotValid, Timestamp},
    trust::{Accepted, Distrust, Trust},
    vocabulary::Country,
};

/// "From here on this node is the other key, and its ledger goes on under that one."
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRotation {
    pub old: PublicKey,
    pub new: PublicKey,
    pub at: Timestamp,
    /// Why, for people.
    pub reason: String,
    /// The last head of the ledger under the old key. The entry behind it is this statement.
    pub ledger: LedgerHead,
    /// The bytes of the signed accreditation of the old key.
    #[serde(with = "serde_bytes")]
    pub old_accreditation: Vec<u8>,
    /// The bytes of the signed accreditation of the new key.
    #[serde(with = "serde_bytes")]
    pub new_accreditation: Vec<u8>,
}

impl Statement for KeyRotation {
    const KIND: &'static str = "key-rotation";
    /// Two accreditations, and itself.
    const BYTES_MAX: usize = 3 * limits::STATEMENT_BYTES_MAX;
    /// The old key's and the new key's.
    const SIGNATURES_MAX: usize = 2;
}

/// Why a rotation does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRotated {
    #[error("a key cannot be its own successor")]
    SameKey,
    #[error("it has to be signed by both keys, {old} and {new}")]
    Signers { old: PublicKey, new: PublicKey },
    #[error("the reason has more than {max} bytes", max = limits::TEXT_BYTES_MAX)]
    Reason,
    #[error("no authority of the alliance has accredited the key {0} that it ends")]
    NeverAccredited(PublicKey),
    #[error("an accreditation in it is for the key {0}, which is neither")]
    OtherKey(PublicKey),
    #[error("the new key is accredited for {found}, the old one for {expected}")]
    OtherOrganisation { expected: String, found: String },
    #[error("the accreditation of the new key does not count when it takes over: {0}")]
    NotAccredited(NotValid),
    #[error("it is dated {0}, which has not come yet")]
    Future(Timestamp),
    #[error("the key {0} has made way for another before; a key that ended does not come back")]
    Back(PublicKey),
    #[error("a node changes its key at most {max} times", max = limits::KEY_ROTATIONS_MAX)]
    TooOften,
    #[error("{0} has as many keys that ended as are kept")]
    TooMany(Country),
    #[error("as many successors of the key {0} are known as are kept, or as many keys before the new one")]
    Contested(PublicKey),
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// This one has taken its place; none, where two say so.
    By(Option<PublicKey>),
    /// It took over from this one, as another says too; or it, or one before it, took over from two.
    Contested(PublicKey),
}

/// The rotations that were accepted.
#[derive(Debug, Default)]
pub(crate) struct Rotations {
    /// By the key that ended: one, or two that contradict each other.
    links: BTreeMap<PublicKey, Vec<Link>>,
    /// The keys that each took over from: one, or two that contradict each other.
    before: BTreeMap<PublicKey, BTreeSet<PublicKey>>,
}

#[derive(Debug)]
struct Link {
    statement: Signed<KeyRotation>,
    new: PublicKey,
    /// The accreditation of the new key: whose authority it is of, and who signed it.
    paper: Option<Signed<Accreditation>>,
}

/// Successors of one key that are not revoked, and predecessors of one: two show the contradiction.
const CONTRADICTING_MAX: usize = 2;

/// Successors of one key that are kept, with those that its authority has revoked.
const SUCCESSORS_KEPT_MAX: usize = 4;

/// Whether a member has revoked a key.
pub(crate) type Revoked<'a> = &'a dyn Fn(Country, &PublicKey) -> bool;

/// Makes the statement by which a key makes way for another, once it is certain that others will believe it. `recorded` are
/// the rotations that the node has behind it, from its ledger.
///
/// # Errors
/// Why they would not.
pub fn sign<'a>(
    chartered: &Chartered,
    recorded: impl IntoIterator<Item = &'a [u8]>,
    body: &KeyRotation,
    (old, new): (&SecretKey, &SecretKey),
    now: Timestamp,
) -> Result<Signed<KeyRotation>, Distrust> {
    let mut trust = Trust::new(chartered.clone());
    for bytes in recorded {
        trust.remember_rotation(Signed::open(bytes, chartered.alliance())?);
    }
    let signed = Draft::new(body, chartered.alliance()).sign(old).sign(new).finish()?;
    match trust.accept_rotation(signed.bytes(), now)? {
        Accepted::New => Ok(signed),
        Accepted::Known => Err(NotRotated::Back(body.new).into()),
    }
}

impl KeyRotation {
    /// What needs no more than the statement and its papers.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub(crate) fn check(
        signed: &Signed<Self>,
        old: &Accreditation,
        new: &Accreditation,
        now: Timestamp,
    ) -> Result<(), NotRotated> {
        let body = signed.body();
        if body.old == body.new {
            return Err(NotRotated::SameKey);
        }
        if signed.signers().len() != 2 || !signed.signed_by(&body.old) || !signed.signed_by(&body.new) {
            return Err(NotRotated::Signers { old: body.old, new: body.new });
        }
        if body.reason.len() > limits::TEXT_BYTES_MAX {
            return Err(NotRotated::Reason);
        }
        for (paper, key) in [(old, body.old), (new, body.new)] {
            if paper.node != key {
                return Err(NotRotated::OtherKey(paper.node));
            }
        }
        let whose = |paper: &Accreditation| format!("{} in {}", paper.organisation.name, paper.member);
        if whose(old) != whose(new) {
            return Err(NotRotated::OtherOrganisation { expected: whose(old), found: whose(new) });
        }
        if body.at > now.plus_ms(limits::CLOCK_SKEW_MS_MAX) {
            return Err(NotRotated::Future(body.at));
        }
        // Asked of the instant that it names, and not of now: the new key's next accreditation stands in its records, and
        // those who come years later must know all the same that the old key has ended.
        new.validity.check(body.at).map_err(NotRotated::NotAccredited)
    }
}

impl Rotations {
    /// Whether it is known that one key took over from another.
    pub(crate) fn has(&self, old: &PublicKey, new: &PublicKey) -> bool {
        self.links.get(old).is_some_and(|links| links.iter().any(|link| link.new == *new))
    }

    /// Whether a rotation that is not known goes with those that are.
    ///
    /// # Errors
    /// It would bring a key back, or is beyond a bound.
    pub(crate) fn admits(&self, body: &KeyRotation, member: Country, revoked: Revoked<'_>) -> Result<(), NotRotated> {
        let links = self.links.get(&body.old).map_or(&[][..], Vec::as_slice);
        let (earlier, later) = (self.former(&body.old), self.later(&body.new));
        if later.contains(&body.old) {
            return Err(NotRotated::Back(body.new));
        }
        if earlier.len() + later.len() >= limits::KEY_ROTATIONS_MAX {
            return Err(NotRotated::TooOften);
        }
        let live = links.iter().filter(|link| !link.is_revoked(revoked)).count();
        let takes_over = self.before.get(&body.new).map_or(0, BTreeSet::len);
        // One that is revoked would change nothing, but be new again each time it is heard of.
        let in_vain = links.len() >= SUCCESSORS_KEPT_MAX && revoked(member, &body.new);
        if live >= CONTRADICTING_MAX && !revoked(member, &body.new) || in_vain || takes_over >= CONTRADICTING_MAX {
            return Err(NotRotated::Contested(body.old));
        }
        let of_member = self.links.values().flatten().filter(|link| link.member() == Some(member)).count();
        if of_member >= limits::KEY_ROTATIONS_PER_MEMBER_MAX {
            return Err(NotRotated::TooMany(member));
        }
        Ok(())
    }

    /// Takes in a rotation that was admitted, now or before a restart.
    pub(crate) fn insert(&mut self, statement: Signed<KeyRotation>, revoked: Revoked<'_>) {
        let (old, new) = (statement.body().old, statement.body().new);
        let paper = Signed::open(&statement.body().new_accreditation, statement.alliance()).ok();
        if self.has(&old, &new) {
            return;
        }
        let links = self.links.entry(old).or_default();
        // One whose key the authority has revoked makes room; it had lost already. That it came after this one is remembered,
        // so that those who follow it have lost as well.
        while links.len() >= SUCCESSORS_KEPT_MAX {
            links.remove(links.iter().position(|link| link.is_revoked(revoked)).unwrap_or(0));
        }
        links.push(Link { statement, new, paper });
        self.before.entry(new).or_default().insert(old);
    }

    /// What ended a key, or makes it unsure whose it is.
    pub(crate) fn ended(&self, key: &PublicKey, revoked: Revoked<'_>) -> Option<Ended> {
        if self.links.contains_key(key) {
            return Some(Ended::By(self.successor(key, revoked)));
        }
        let mut at = *key;
        for _ in 0..=limits::KEY_ROTATIONS_MAX {
            let before = self.before.get(&at).filter(|before| !before.is_empty())?;
            match before.first().filter(|_| before.len() == 1) {
                Some(old) if self.successor(old, revoked) == Some(at) => at = *old,
                Some(old) => return Some(Ended::Contested(*old)),
                None => return Some(Ended::Contested(at)),
            }
        }
        Some(Ended::Contested(at))
    }

    /// The one key that took over from another, if there is one.
    fn successor(&self, key: &PublicKey, revoked: Revoked<'_>) -> Option<PublicKey> {
        let links = self.links.get(key)?;
        // Revoking a key that followed alone ends that key; it does not bring back the one before.
        let live: Vec<_> = links.iter().filter(|link| links.len() == 1 || !link.is_revoked(revoked)).collect();
        match live[..] {
            [only] if self.before.get(&only.new).is_some_and(|before| before.len() == 1) => Some(only.new),
            _ => None,
        }
    }

    /// The key that a node has now whose key this was.
    pub(crate) fn newest(&self, key: &PublicKey, revoked: Revoked<'_>) -> PublicKey {
        let mut at = *key;
        for _ in 0..limits::KEY_ROTATIONS_MAX {
            match self.successor(&at, revoked) {
                Some(next) => at = next,
                None => break,
            }
        }
        at
    }

    /// All keys that this one took over from, the nearest first.
    pub(crate) fn former(&self, key: &PublicKey) -> Vec<PublicKey> {
        walk(key, |at| self.before.get(at).into_iter().flatten().copied().collect())
    }

    fn later(&self, key: &PublicKey) -> Vec<PublicKey> {
        walk(key, |at| self.links.get(at).into_iter().flatten().map(|link| link.new).collect())
    }

    /// The statements, of those whose accreditation of the new key holds: others could not take in the rest, and would be
    /// offered it again and again.
    pub(crate) fn statements(
        &self,
        holds: impl Fn(&Signed<Accreditation>) -> bool,
    ) -> impl Iterator<Item = (StatementId, &[u8])> {
        let links = self.links.values().flatten().filter(move |link| link.paper.as_ref().is_some_and(&holds));
        links.map(|link| (link.statement.id(), link.statement.bytes()))
    }

    /// Every pair of a key and one that took over from it, each chain from its beginning.
    pub(crate) fn pairs(&self) -> Vec<(PublicKey, PublicKey)> {
        let firsts = self.links.keys().filter(|key| self.before.get(key).is_none_or(BTreeSet::is_empty));
        let mut pairs = Vec::new();
        for first in firsts {
            for old in std::iter::once(*first).chain(self.later(first)) {
                pairs.extend(self.links.get(&old).into_iter().flatten().map(|link| (old, link.new)));
            }
        }
        pairs
    }
}

impl Link {
    fn member(&self) -> Option<Country> {
        self.paper.as_ref().map(|paper| paper.body().member)
    }

    fn is_revoked(&self, revoked: Revoked<'_>) -> bool {
        self.member().is_some_and(|member| revoked(member, &self.new))
    }
}

/// What can be reached from a key, each key once, the nearest first.
fn walk(from: &PublicKey, next: impl Fn(&PublicKey) -> Vec<PublicKey>) -> Vec<PublicKey> {
    let (mut found, mut at) = (Vec::new(), vec![*from]);
    while !at.is_empty() {
        let mut further = Vec::new();
        for key in at.iter().flat_map(&next) {
            if key != *from && !found.contains(&key) {
                found.push(key);
                further.push(key);
            }
        }
        at = further;
    }
    found
}
