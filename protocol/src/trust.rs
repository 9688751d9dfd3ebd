//! Who has standing now: the charter, what the authorities said last, and what follows from it.
//!
//! Nothing older than what was accepted is ever accepted again. Where a member's status has run out, nothing that involves
//! the member is possible until it is fresh. Specified in `specs/01-statements.md`, section "Trust".

mod given;

use std::collections::{BTreeMap, BTreeSet};

pub use given::{SafeguardIgnored, Scope};

use crate::{
    authority::{Accreditation, Adoption, Ban, Expert, LawPack, Status},
    charter::{CharterError, Chartered},
    crossing::RefusalCode,
    envelope::{OpenError, Signed},
    gate::{Gate, Pack, PackError, PackOwner},
    id::{AllianceId, StatementId},
    key::PublicKey,
    limits,
    rotation::{Ended, KeyRotation, NotRotated, Rotations},
    time::{NotValid, Timestamp},
    vocabulary::{Country, NodeRole, Seat, Tier},
};

/// What a node believes of the alliance. The only owner of this state; `Core` holds one.
#[derive(Debug)]
pub struct Trust {
    chartered: Chartered,
    members: BTreeMap<Country, Member>,
    /// A version of the charter of which two were signed, if that ever happened.
    forked: Option<u32>,
    /// Keys of nodes that made way for others.
    rotations: Rotations,
}

/// What a member's authority said last. It is kept when the member leaves: one that comes back does not go back.
#[derive(Debug, Default)]
struct Member {
    /// The newest status, while those who signed it speak for the authority.
    status: Option<Signed<Status>>,
    /// The newest status that was ever accepted: what must never be gone below.
    last: Option<Signed<Status>>,
    /// Packs that are in force or may come into force, by epoch.
    packs: BTreeMap<u64, (Signed<LawPack>, Pack)>,
    /// Packs whose signers do not speak for the authority any more: under their epochs there will be no others.
    let_go: BTreeMap<u64, StatementId>,
    /// A number under which its authority has said two different things, if it ever did.
    equivocated: Option<u64>,
}

/// How far a crossing is about which something is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// It is to begin.
    New,
    /// Both sides have allowed it, and its bytes are on their way: the grace of a status that has run out counts.
    Running,
}

/// Whether an accepted statement changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    New,
    Known,
}

/// Why a statement of an authority is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{0} is not a member")]
    NotAMember(Country),
    #[error("not signed by enough officers of the authority of {0}")]
    NotTheAuthority(Country),
    #[error("{what} {found} of {member} is older than {known}, which was accepted before")]
    Older { what: &'static str, member: Country, found: u64, known: u64 },
    #[error("two different statements of {member} carry the same number {number}: the authority must be asked")]
    Equivocation { member: Country, number: u64 },
    #[error(transparent)]
    Expired(#[from] NotValid),
    #[error("the statement is malformed: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("the charter does not hold")]
    Charter(#[from] CharterError),
    #[error("the change of a node's key does not count: {0}")]
    Rotation(#[from] NotRotated),
}

/// Why a node has no standing for a crossing now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoStanding {
    #[error(transparent)]
    Accreditation(#[from] Distrust),
    #[error("the accreditation is for the key {0}, not for this node")]
    OtherKey(PublicKey),
    #[error("the accreditation of {organisation} in {member} does not count: {why}")]
    NotValid { organisation: String, member: Country, why: NotValid },
    #[error("{member} has revoked the accreditation of {organisation}")]
    Revoked { organisation: String, member: Country },
    #[error("the key of {organisation} in {member} was replaced by {by}, and counts for nothing any more")]
    Replaced { organisation: String, member: Country, by: PublicKey },
    #[error(
        "{organisation} in {member} has signed two successions of the key {key} that contradict each other; neither counts \
         until the authority of {member} has revoked the wrong one"
    )]
    Contested { organisation: String, member: Country, key: PublicKey },
    #[error("{organisation} is not accredited as {role}")]
    Role { organisation: String, role: NodeRole },
    #[error(transparent)]
    Stale(#[from] Stale),
}

/// Why nothing can be decided for a member now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stale {
    #[error("{0} is not a member")]
    NotAMember(Country),
    #[error("{member} is suspended by version {version} of the charter")]
    Suspended { member: Country, version: u32 },
    #[error("no status of {0} is known; ask its authority to publish one")]
    NoStatus(Country),
    #[error("the status of {member} does not count: {why}; its authority must publish a new one")]
    Status { member: Country, why: NotValid },
    #[error("the law pack of {member}, epoch {epoch}, is not known here")]
    NoPack { member: Country, epoch: u64 },
}

impl NoStanding {
    /// What the other side may know of it.
    #[must_use]
    pub fn code(&self) -> RefusalCode {
        match self {
            Self::Stale(stale) => stale.code(),
            Self::Accreditation(_)
            | Self::OtherKey(_)
            | Self::NotValid { .. }
            | Self::Revoked { .. }
            | Self::Replaced { .. }
            | Self::Contested { .. }
            | Self::Role { .. } => RefusalCode::NotAccredited,
        }
    }
}

impl Stale {
    /// What the other side may know of it.
    #[must_use]
    pub const fn code(&self) -> RefusalCode {
        match self {
            Self::NotAMember(_) | Self::Suspended { .. } => RefusalCode::NotAccredited,
            Self::NoStatus(_) | Self::Status { .. } | Self::NoPack { .. } => RefusalCode::Stale,
        }
    }
}

impl Trust {
    #[must_use]
    pub fn new(chartered: Chartered) -> Self {
        let members = chartered.charter().members.keys().map(|country| (*country, Member::default())).collect();
        Self { chartered, members, forked: None, rotations: Rotations::default() }
    }

    #[must_use]
    pub fn alliance(&self) -> AllianceId {
        self.chartered.alliance()
    }

    #[must_use]
    pub fn chartered(&self) -> &Chartered {
        &self.chartered
    }

    fn spoken(&self, member: Country, signers: &[PublicKey]) -> Result<(), Distrust> {
        let authority = self.chartered.authority(member).ok_or(Distrust::NotAMember(member))?;
        if authority.spoke(signers) { Ok(()) } else { Err(Distrust::NotTheAuthority(member)) }
    }

    /// Opens an accreditation that the member's authority signed. Says nothing of its validity now.
    ///
    /// # Errors
    /// It is not a statement of that authority.
    pub fn accreditation(&self, bytes: &[u8]) -> Result<Signed<Accreditation>, Distrust> {
        let statement = Signed::<Accreditation>::open(bytes, self.alliance())?;
        let body = statement.body();
        self.spoken(body.member, statement.signers())?;
        let name = &body.organisation.name;
        if crate::offer::split_name(&format!("{name}/x")).is_err() {
            return Err(Distrust::Malformed("the organisation's name has characters that a name may not have"));
        }
        if body.zone.is_some_and(|zone| zone.country() != body.member) {
            return Err(Distrust::Malformed("the zone lies in another country"));
        }
        if body.tier > Tier::Accredited && body.place.is_none() {
            return Err(Distrust::Malformed(
                "its tier is above `accredited`, and it names no place that could be contradicted",
            ));
        }
        Ok(statement)
    }

    /// Takes in the next version of the charter. What members said counts on where enough of those who signed it speak for
    /// them now; otherwise they say it again. Numbers stay, also those of a member that leaves and comes back.
    ///
    /// # Errors
    /// It does not follow the version that is known here.
    pub fn accept_charter(&mut self, bytes: &[u8]) -> Result<Accepted, Distrust> {
        let accepted = match self.chartered.succeed(bytes) {
            Ok(accepted) => accepted,
            Err(error) => {
                if let CharterError::Forked { version } = error {
                    self.forked = Some(version);
                }
                return Err(error.into());
            }
        };
        for country in self.chartered.charter().members.keys() {
            self.members.entry(*country).or_default();
        }
        for (country, member) in &mut self.members {
            let authority = self.chartered.authority(*country);
            let holds = |signers: &[PublicKey]| authority.is_some_and(|authority| authority.spoke(signers));
            member.status = member.status.take().filter(|status| holds(status.signers()));
            let packs = std::mem::take(&mut member.packs).into_iter();
            let (stay, go): (BTreeMap<_, _>, BTreeMap<_, _>) = packs.partition(|(_, (pack, _))| holds(pack.signers()));
            member.packs = stay;
            member.let_go.extend(go.into_iter().map(|(epoch, (pack, _))| (epoch, pack.id())));
        }
        Ok(accepted)
    }

    /// Whether those who signed an accreditation speak for its member now.
    #[must_use]
    pub fn is_spoken(&self, accreditation: &Signed<Accreditation>) -> bool {
        self.spoken(accreditation.body().member, accreditation.signers()).is_ok()
    }

    /// Whether the node may take part in the mesh: accredited, not run out, not revoked as far as is known. A node that has
    /// just started knows no status yet, so freshness is not asked here; a crossing asks [`Trust::standing`].
    ///
    /// # Errors
    /// Why not.
    pub fn admission(
        &self,
        accreditation: &Signed<Accreditation>,
        node: &PublicKey,
        now: Timestamp,
    ) -> Result<(), NoStanding> {
        let body = accreditation.body();
        let (organisation, member) = (body.organisation.name.clone(), body.member);
        if body.node != *node {
            return Err(NoStanding::OtherKey(body.node));
        }
        // Those who signed it may have spoken for the authority then and not now.
        self.spoken(member, accreditation.signers())?;
        if let Err(why) = body.validity.check(now) {
            return Err(NoStanding::NotValid { organisation, member, why });
        }
        if self.has_revoked(member, node) {
            return Err(NoStanding::Revoked { organisation, member });
        }
        match self.ended(node) {
            Some(Ended::By(Some(by))) => Err(NoStanding::Replaced { organisation, member, by }),
            Some(Ended::By(None)) => Err(NoStanding::Contested { organisation, member, key: *node }),
            // It hears what its authority says of that.
            Some(Ended::Contested(_)) | None => Ok(()),
        }
    }

    fn ended(&self, node: &PublicKey) -> Option<Ended> {
        self.rotations.ended(node, &|member, key| self.has_revoked(member, key))
    }

    /// Whether it is certain whose successor the node is (STATEMENT-63).
    ///
    /// # Errors
    /// Another has been named, too.
    pub fn certain(&self, accreditation: &Accreditation) -> Result<(), NoStanding> {
        let (organisation, member) = (accreditation.organisation.name.clone(), accreditation.member);
        match self.ended(&accreditation.node) {
            Some(Ended::Contested(key)) => Err(NoStanding::Contested { organisation, member, key }),
            Some(Ended::By(_)) | None => Ok(()),
        }
    }

    /// Whether the node may be an end of a crossing now: admitted, in the role, and its member's status is fresh, or as good as
    /// that for a crossing that runs.
    ///
    /// # Errors
    /// Why not.
    pub fn standing(
        &self,
        accreditation: &Signed<Accreditation>,
        node: &PublicKey,
        role: NodeRole,
        course: Course,
        now: Timestamp,
    ) -> Result<(), NoStanding> {
        self.admission(accreditation, node, now)?;
        let body = accreditation.body();
        self.certain(body)?;
        if !body.roles.contains(&role) {
            return Err(NoStanding::Role { organisation: body.organisation.name.clone(), role });
        }
        self.fresh(body.member, course, now)?;
        Ok(())
    }

    /// Whether a member has withdrawn a node's accreditation.
    #[must_use]
    pub fn has_revoked(&self, member: Country, node: &PublicKey) -> bool {
        self.revoked(member).is_some_and(|revoked| revoked.contains(node))
    }

    /// Whether any status of a member was ever accepted.
    #[must_use]
    pub fn has_status(&self, member: Country) -> bool {
        self.revoked(member).is_some()
    }

    fn revoked(&self, member: Country) -> Option<&BTreeSet<PublicKey>> {
        // Also where those who signed it do not speak any more: who was revoked stays so until they are told otherwise.
        Some(&self.members.get(&member)?.last.as_ref()?.body().revoked)
    }

    /// Takes in that a node's key made way for another (STATEMENT-60).
    ///
    /// # Errors
    /// It is not signed by both, or the new key is not accredited as the old one was, or it contradicts what is known.
    pub fn accept_rotation(&mut self, bytes: &[u8], now: Timestamp) -> Result<Accepted, Distrust> {
        let rotation = Signed::<KeyRotation>::open(bytes, self.alliance())?;
        let body = rotation.body();
        // Who comes after whom is what counts; said in other words, it is nothing new.
        if self.rotations.has(&body.old, &body.new) {
            return Ok(Accepted::Known);
        }
        let new = self.accreditation(&body.new_accreditation)?;
        // Those who accredited the old key may long have been replaced; it only shows whose it was.
        let old = self.chartered.accredited(&body.old_accreditation).ok_or(NotRotated::NeverAccredited(body.old))?;
        KeyRotation::check(&rotation, &old, new.body(), now)?;
        self.rotations.admits(body, old.member, &|member, key| self.has_revoked(member, key))?;
        self.remember_rotation(rotation);
        Ok(Accepted::New)
    }

    /// Takes up a rotation that was accepted before a restart, when those who signed its papers spoke.
    pub(crate) fn remember_rotation(&mut self, rotation: Signed<KeyRotation>) {
        let mut rotations = std::mem::take(&mut self.rotations);
        rotations.insert(rotation, &|member, key| self.has_revoked(member, key));
        self.rotations = rotations;
    }

    /// All keys that this one took over from, the nearest first.
    #[must_use]
    pub fn former_keys(&self, key: &PublicKey) -> Vec<PublicKey> {
        self.rotations.former(key)
    }

    /// The key that a node has now whose key this was; itself, where it has not ended.
    #[must_use]
    pub fn newest_key(&self, key: &PublicKey) -> PublicKey {
        self.rotations.newest(key, &|member, key| self.has_revoked(member, key))
    }

    /// Every key that ended, with one that took over from it, each chain from its beginning.
    pub(crate) fn successions(&self) -> Vec<(PublicKey, PublicKey)> {
        self.rotations.pairs()
    }

    /// The members, of those that a crossing concerns, whose authorities have banned its destination or its recipient. A
    /// recipient is at both: in the country that accredited it and in the one whose law can compel it.
    pub fn bans(&self, concerned: impl IntoIterator<Item = Country>, importer: &Accreditation) -> BTreeSet<Country> {
        let countries = std::iter::once(importer.member).chain(importer.organisation.controlled_by);
        // Who is banned does not shake that off with a new key.
        let mut keys = self.former_keys(&importer.node);
        keys.push(importer.node);
        let banned = |member: &Country| {
            let status = self.members.get(member).and_then(|known| known.status.as_ref());
            status.is_some_and(|status| {
                let bans = &status.body().bans;
                keys.iter().any(|key| bans.contains(&Ban::Recipient(*key)))
                    || countries.clone().any(|country| bans.contains(&Ban::Destination(country)))
            })
        };
        concerned.into_iter().filter(banned).collect()
    }

    /// The member's status, if it counts now for a crossing that is so far. It is the newest in either case, so that nothing
    /// which a newer one takes back goes on.
    fn fresh(&self, member: Country, course: Course, now: Timestamp) -> Result<&Signed<Status>, Stale> {
        match self.chartered.seat(member).ok_or(Stale::NotAMember(member))? {
            Seat::Suspended => return Err(Stale::Suspended { member, version: self.chartered.charter().version }),
            Seat::Full | Seat::Partner => {}
        }
        let known = self.members.get(&member).ok_or(Stale::NotAMember(member))?;
        let status = known.status.as_ref().ok_or(Stale::NoStatus(member))?;
        match (status.body().validity.check(now), course) {
            (Ok(()), _) => Ok(status),
            (Err(NotValid::AnyMore(_)), Course::Running) if now < status.body().grace_until() => Ok(status),
            (Err(why), _) => Err(Stale::Status { member, why }),
        }
    }

    /// The member's law in force now.
    ///
    /// # Errors
    /// Its status is not fresh, or the pack that the status names is not here.
    pub fn law(&self, member: Country, now: Timestamp) -> Result<&Pack, Stale> {
        self.pack(member, self.fresh(member, Course::New, now)?.body().in_force(now))
    }

    /// The member's law in force in the interval in which the true time lies: more than one pack while one follows another.
    ///
    /// # Errors
    /// As [`Self::law`]; for a crossing that runs, the status may have run out less than its grace ago.
    pub fn laws(&self, member: Country, course: Course, now: Timestamp) -> Result<Vec<&Pack>, Stale> {
        let (early, late) = (now.minus_ms(limits::CLOCK_SKEW_MS_MAX), now.plus_ms(limits::CLOCK_SKEW_MS_MAX));
        self.fresh(member, course, now)?.body().in_force_within(early, late).map(|named| self.pack(member, named)).collect()
    }

    /// The law that will be in force at an instant, by what the member's newest status says now. That it will still be fresh
    /// by then is not asked.
    ///
    /// # Errors
    /// No status is known, or the pack that it names is not here.
    pub fn law_on(&self, member: Country, at: Timestamp) -> Result<&Pack, Stale> {
        let known = self.members.get(&member).ok_or(Stale::NotAMember(member))?;
        let status = known.status.as_ref().ok_or(Stale::NoStatus(member))?;
        self.pack(member, status.body().in_force(at))
    }

    /// What members have adopted ahead: when it comes into force, and whether it is here.
    pub fn upcoming(&self) -> impl Iterator<Item = (Country, Adoption, Option<&Pack>)> {
        let statuses = self.members.iter().filter_map(|(member, known)| Some((*member, known.status.as_ref()?.body())));
        statuses.flat_map(move |(member, status)| {
            status.upcoming.iter().map(move |next| (member, *next, self.pack(member, (next.epoch, next.law_pack)).ok()))
        })
    }

    fn pack(&self, member: Country, (epoch, id): (u64, StatementId)) -> Result<&Pack, Stale> {
        match self.members.get(&member).ok_or(Stale::NotAMember(member))?.packs.get(&epoch) {
            Some((statement, pack)) if statement.id() == id => Ok(pack),
            Some(_) | None => Err(Stale::NoPack { member, epoch }),
        }
    }

    /// Takes in a status. Its validity is not asked: an old one that is newer than what is known still counts its numbers.
    ///
    /// # Errors
    /// It is not the authority's, or older than one accepted before.
    pub fn accept_status(&mut self, bytes: &[u8]) -> Result<Accepted, Distrust> {
        let statement = Signed::<Status>::open(bytes, self.alliance())?;
        let body = statement.body();
        let member = body.member;
        self.spoken(member, statement.signers())?;
        if body.revoked.len() > limits::REVOCATIONS_MAX {
            return Err(Distrust::Malformed("it revokes more keys than one status may"));
        }
        if body.bans.len() > limits::BANS_MAX {
            return Err(Distrust::Malformed("it lists more bans than one status may"));
        }
        let named = |expert: &Expert| !expert.name.is_empty() && expert.name.len() <= limits::NAME_BYTES_MAX;
        let ascending = body.experts.is_sorted_by(|one, other| one.key < other.key);
        if body.experts.len() > limits::EXPERTS_MAX || !ascending || !body.experts.iter().all(named) {
            return Err(Distrust::Malformed(
                "it names more experts than one status may, without a name, or not in their order",
            ));
        }
        if body.grace_ms > limits::STATUS_GRACE_MS_MAX {
            return Err(Distrust::Malformed("it lets what runs go on for longer than a status may"));
        }
        if body.upcoming.len() > limits::UPCOMING_MAX || !body.is_ordered() {
            return Err(Distrust::Malformed("it adopts more law packs ahead than one status may, or not in their order"));
        }
        let known = self.members.get_mut(&member).ok_or(Distrust::NotAMember(member))?;
        if let Some(last) = &known.last {
            let (found, serial) = (body.serial, last.body().serial);
            if found < serial {
                return Err(Distrust::Older { what: "status", member, found, known: serial });
            }
            if found == serial && last.id() != statement.id() {
                known.equivocated = Some(found);
                return Err(Distrust::Equivocation { member, number: found });
            }
            // The same, signed by those who speak for the authority now, stands again.
            if found == serial && known.status.is_some() {
                return Ok(Accepted::Known);
            }
            // What had come into force when it was issued is not taken back; what is yet to come may be.
            let issued = body.validity.from;
            let of_issue = (body.in_force(issued).0, last.body().in_force(issued).0);
            for (found, known) in [of_issue, (body.epoch, last.body().epoch)] {
                if found < known {
                    return Err(Distrust::Older { what: "epoch", member, found, known });
                }
            }
        }
        let in_force = body.epoch;
        known.packs.retain(|epoch, _| *epoch >= in_force);
        known.let_go.retain(|epoch, _| *epoch >= in_force);
        known.last = Some(statement.clone());
        known.status = Some(statement);
        Ok(Accepted::New)
    }

    /// Takes in a law pack whose text the gate can use.
    ///
    /// # Errors
    /// It is not the authority's, older than the one in force, or its text is not usable.
    pub fn accept_pack(&mut self, bytes: &[u8], gate: &dyn Gate) -> Result<Accepted, Distrust> {
        let statement = Signed::<LawPack>::open(bytes, self.alliance())?;
        let body = statement.body();
        let member = body.member;
        self.spoken(member, statement.signers())?;
        let known = self.members.get_mut(&member).ok_or(Distrust::NotAMember(member))?;
        let in_force = known.last.as_ref().map_or(0, |last| last.body().epoch);
        let named = known.last.as_ref().into_iter().flat_map(|last| {
            let status = last.body();
            std::iter::once(status.epoch).chain(status.upcoming.iter().map(|next| next.epoch))
        });
        let named: BTreeSet<u64> = named.collect();
        if body.epoch < in_force {
            return Err(Distrust::Older { what: "law pack", member, found: body.epoch, known: in_force });
        }
        let before = known.packs.get(&body.epoch).map(|(other, _)| other.id());
        if before == Some(statement.id()) {
            return Ok(Accepted::Known);
        }
        if before.or(known.let_go.get(&body.epoch).copied()).is_some_and(|other| other != statement.id()) {
            known.equivocated = Some(body.epoch);
            return Err(Distrust::Equivocation { member, number: body.epoch });
        }
        // Those that the status names, and one that a status is still to name; the oldest beyond that are of no use. What
        // would not be kept is not new: it would be new again each time it is heard of.
        let oldest = known.packs.keys().copied().find(|epoch| !named.contains(epoch));
        let displaced = oldest.filter(|_| known.packs.len() >= PACKS_KEPT_MAX);
        if let Some(oldest) = displaced.filter(|oldest| !named.contains(&body.epoch) && body.epoch < *oldest) {
            return Err(Distrust::Older { what: "law pack", member, found: body.epoch, known: oldest });
        }
        let pack = Pack::new(PackOwner::Member(member), body.epoch, &body.law, &body.directives);
        gate.check(&pack)?;
        if let Some(displaced) = displaced {
            known.packs.remove(&displaced);
        }
        known.packs.insert(body.epoch, (statement, pack));
        Ok(Accepted::New)
    }

    /// The officers who speak for a member.
    #[must_use]
    pub fn officers(&self, member: Country) -> &[PublicKey] {
        self.chartered.authority(member).map_or(&[], |authority| &authority.officers)
    }

    /// The statements that other nodes should have: versions of the charter after the founding one, which a node takes from its
    /// operator alone, newest statuses and packs of members, and which keys have ended.
    pub fn statements(&self) -> impl Iterator<Item = (StatementId, &[u8])> {
        let charters = self.chartered.versions().skip(1).map(|version| (version.id(), version.bytes()));
        let of_members = self.members.values().flat_map(|member| {
            let status = member.status.iter().map(|status| (status.id(), status.bytes()));
            status.chain(member.packs.values().map(|(pack, _)| (pack.id(), pack.bytes())))
        });
        charters.chain(of_members).chain(self.rotations.statements(|paper| self.is_spoken(paper)))
    }

    /// What is known of each member: epoch and end of its status, whether it counts now, and how many keys it revoked.
    pub fn members(&self, now: Timestamp) -> impl Iterator<Item = (Country, Option<&Status>, bool)> {
        let here = |country: &Country| self.chartered.seat(*country).is_some();
        self.members.iter().filter(move |(country, _)| here(country)).map(move |(country, member)| {
            (*country, member.status.as_ref().map(|status| status.body()), self.laws(*country, Course::New, now).is_ok())
        })
    }

    /// What the operator must ask a member's authority about, if there is anything.
    #[must_use]
    pub fn alarm(&self, member: Country) -> Option<String> {
        let number = self.members.get(&member)?.equivocated?;
        Some(format!("the authority of {member} has signed two different statements under the number {number}"))
    }

    /// The version of the charter of which the members have signed two, if they ever did: the alliance must be asked.
    #[must_use]
    pub fn charter_alarm(&self) -> Option<String> {
        Some(CharterError::Forked { version: self.forked? }.to_string())
    }

    /// The next instant at which a status that counts now runs out, or its grace is over, or a law pack may begin to count or
    /// cease to.
    #[must_use]
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        let statuses = self.members.values().filter_map(|member| Some(member.status.as_ref()?.body()));
        let changes = statuses.flat_map(|status| {
            let begins = status.upcoming.iter().flat_map(|next| turns_of(next.from));
            begins.chain([status.validity.until, status.grace_until()])
        });
        changes.filter(|change| *change > now).min()
    }
}

/// When a decision about what changes at an instant may change: it is made for both ends of an interval around the clock.
#[must_use]
pub(crate) fn turns_of(instant: Timestamp) -> [Timestamp; 2] {
    // The later end looks back: from one millisecond on, the instant is behind it.
    [instant.minus_ms(limits::CLOCK_SKEW_MS_MAX), instant.plus_ms(limits::CLOCK_SKEW_MS_MAX)]
}

/// Law packs kept for one member: the one in force, those that are adopted ahead, and one that a status is still to name.
const PACKS_KEPT_MAX: usize = limits::UPCOMING_MAX + 2;
