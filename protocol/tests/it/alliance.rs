//! What authorities and officers say in a test: keys, charter, accreditations, packs, statuses, safeguards.

use std::collections::{BTreeMap, BTreeSet};

use alliance_protocol::{
    authority::{Accreditation, LawPack, Organisation, Safeguard, Status},
    charter::{Authority, Charter, Chartered, WitnessRule},
    envelope::{Draft, Signed, Statement},
    id::{AllianceId, StatementId},
    key::{PublicKey, SecretKey},
    time::{Timestamp, Validity},
    vocabulary::{Country, Label, NodeRole, OrganisationRole, SafeguardKind, Tier},
};

/// 2026-10-01T00:00:00Z, when every test begins.
pub(crate) const DAWN: Timestamp = Timestamp(1_790_812_800_000);
pub(crate) const SECOND: u64 = 1_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;
pub(crate) const DAY: u64 = 24 * HOUR;

/// How long the statuses of the first day count.
pub(crate) const STATUS_MS: u64 = 6 * HOUR;

pub(crate) fn country(code: &str) -> Country {
    code.parse().expect("an assigned code")
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// A key that is nobody's in the alliance.
pub(crate) fn stranger() -> SecretKey {
    key(251)
}

/// Four members, each with three officers of whom two speak; three members founded it.
pub(crate) struct Alliance {
    pub(crate) charter: Vec<u8>,
    pub(crate) id: AllianceId,
    officers: BTreeMap<Country, Vec<SecretKey>>,
}

pub(crate) const MEMBERS: [&str; 4] = ["BR", "IN", "CN", "ZA"];

impl Alliance {
    pub(crate) fn found() -> Self {
        Self::found_under(WitnessRule::NONE)
    }

    /// Ledgers are witnessed as this rule demands.
    pub(crate) fn found_under(witnesses: WitnessRule) -> Self {
        let officers: BTreeMap<_, Vec<_>> = (0u8..)
            .zip(MEMBERS)
            .map(|(at, code)| (country(code), (0..3).map(|seat| key(10 + 10 * at + seat)).collect()))
            .collect();
        let authority = |(member, keys): (&Country, &Vec<SecretKey>)| {
            let officers = keys.iter().map(SecretKey::public).collect();
            (*member, Authority { name: format!("Authority of {member}"), officers, threshold: 2 }.into())
        };
        let members = officers.iter().map(authority).collect();
        let charter = Charter {
            name: "Test alliance".into(),
            version: 1,
            issued: DAWN,
            threshold: 3,
            previous: None,
            witnesses,
            members,
        };
        let draft = Chartered::draft(&charter).expect("a sound charter");
        let signers = officers.values().take(3).flat_map(|keys| keys.iter().take(2));
        let charter = signers.fold(draft, Draft::sign).to_bytes();
        let id = Chartered::found(&charter).expect("enough signed").alliance();
        Self { charter, id, officers }
    }

    pub(crate) fn chartered(&self) -> Chartered {
        Chartered::found(&self.charter).expect("enough signed")
    }

    /// Gives a country officers, three of whom two speak, whether it is a member or not.
    pub(crate) fn appoint(&mut self, member: Country, seed: u8) -> Authority {
        let keys: Vec<_> = (0..3).map(|seat| key(seed + seat)).collect();
        let officers = keys.iter().map(SecretKey::public).collect();
        self.officers.insert(member, keys);
        Authority { name: format!("Authority of {member}"), officers, threshold: 2 }
    }

    /// The body of the version after the one in force.
    pub(crate) fn next(charter: &Chartered, change: impl FnOnce(&mut Charter)) -> Charter {
        let now = charter.charter();
        let (version, previous) = (now.version + 1, Some(charter.latest().id()));
        let mut next = Charter { version, previous, issued: now.issued.plus_ms(1), ..now.clone() };
        change(&mut next);
        next
    }

    /// Signed by two officers of each of these members.
    pub(crate) fn signed_by(&self, charter: &Charter, members: &[&str]) -> Vec<u8> {
        let keys = members.iter().flat_map(|code| self.officers[&country(code)].iter().take(2));
        keys.fold(Draft::new(charter, self.id), Draft::sign).to_bytes()
    }

    pub(crate) fn officer(&self, member: Country, seat: usize) -> &SecretKey {
        &self.officers[&member][seat]
    }

    /// Signed by two officers of the member's authority.
    pub(crate) fn spoken<T: Statement>(&self, member: Country, body: &T) -> Signed<T> {
        let draft = Draft::new(body, self.id).sign(self.officer(member, 0)).sign(self.officer(member, 1));
        draft.finish().expect("small enough")
    }

    pub(crate) fn signed<T: Statement>(&self, key: &SecretKey, body: &T) -> Signed<T> {
        Signed::sign(body, self.id, key).expect("small enough")
    }

    pub(crate) fn law(&self, member: Country, epoch: u64, law: &str) -> Signed<LawPack> {
        self.spoken(member, &LawPack { member, epoch, issued: DAWN, law: law.into(), directives: String::new() })
    }

    pub(crate) fn status(&self, status: &Status) -> Signed<Status> {
        self.spoken(status.member, status)
    }
}

/// A status that is good for the first hours.
pub(crate) fn status_of(member: Country, serial: u64, pack: &Signed<LawPack>) -> Status {
    Status {
        member,
        serial,
        validity: Validity::lasting_ms(DAWN, STATUS_MS),
        law_pack: pack.id(),
        epoch: pack.body().epoch,
        upcoming: Vec::new(),
        revoked: BTreeSet::new(),
        bans: BTreeSet::new(),
        experts: Vec::new(),
        grace_ms: 0,
    }
}

/// An accreditation for both ends of a crossing, for a year.
pub(crate) fn accreditation_of(member: Country, node: PublicKey, organisation: &str) -> Accreditation {
    Accreditation {
        member,
        node,
        organisation: Organisation {
            name: organisation.into(),
            roles: BTreeSet::from([OrganisationRole::University]),
            controlled_by: None,
            state_controlled: false,
        },
        zone: None,
        roles: BTreeSet::from([NodeRole::Exporter, NodeRole::Importer]),
        tier: Tier::default(),
        place: None,
        validity: Validity::lasting_ms(DAWN, 365 * DAY),
    }
}

/// A standard contract filed in Brazil for personal data on its way to India.
pub(crate) fn contract_of(issuer: Country, from: Country, to: Country) -> Safeguard {
    Safeguard {
        issuer,
        kind: SafeguardKind::SccBr,
        reference: "ANPD 12/2026".into(),
        from,
        to,
        labels: BTreeSet::from([Label::Personal]),
        recipient: None,
        rules: BTreeSet::from(["BR-01".to_owned()]),
        filed: None,
        validity: Validity::lasting_ms(DAWN, 30 * DAY),
    }
}

/// Any id that is not in use.
pub(crate) fn some_id(n: u8) -> StatementId {
    StatementId([n; 32])
}
