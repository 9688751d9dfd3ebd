//! What authorities say: the charter, accreditations, the founding law packs, statuses.

use std::collections::{BTreeMap, BTreeSet};

use alliance_policy::{FOUNDING_MEMBERS, founding_pack_text};
use alliance_protocol::{
    authority::{Accreditation, LawPack, Organisation, Status},
    charter::{Authority, Charter, Chartered, WitnessRule},
    envelope::{Draft, Signed, Statement},
    id::AllianceId,
    key::{PublicKey, SecretKey},
    time::{Timestamp, Validity},
    vocabulary::{Country, NodeRole, OrganisationRole, Tier},
};

/// 2026-10-01T00:00:00Z, when every test begins.
pub(crate) const DAWN: Timestamp = Timestamp(1_790_812_800_000);
pub(crate) const HOUR: u64 = 3_600_000;
pub(crate) const DAY: u64 = 24 * HOUR;

pub(crate) fn country(code: &str) -> Country {
    code.parse().expect("an assigned code")
}

pub(crate) fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

/// The founding members, each with two officers of whom one speaks.
pub(crate) struct Alliance {
    pub(crate) charter: Vec<u8>,
    pub(crate) id: AllianceId,
    officers: BTreeMap<Country, SecretKey>,
    packs: BTreeMap<Country, Signed<LawPack>>,
    serials: BTreeMap<Country, u64>,
}

impl Alliance {
    pub(crate) fn found() -> Self {
        let officers: BTreeMap<_, _> =
            FOUNDING_MEMBERS.iter().take(5).zip(10..).map(|(code, seed)| (country(code), key(seed))).collect();
        let authority = |(member, key): (&Country, &SecretKey)| {
            (
                *member,
                Authority { name: format!("Authority of {member}"), officers: vec![key.public()], threshold: 1 }.into(),
            )
        };
        let members = officers.iter().map(authority).collect();
        let charter = Charter {
            name: "Test alliance".into(),
            version: 1,
            issued: DAWN,
            threshold: 3,
            previous: None,
            witnesses: WitnessRule::NONE,
            members,
        };
        let draft = Chartered::draft(&charter).expect("a sound charter");
        let charter = officers.values().fold(draft, Draft::sign).to_bytes();
        let id = Chartered::found(&charter).expect("enough signed").alliance();
        let mut alliance = Self { charter, id, officers, packs: BTreeMap::new(), serials: BTreeMap::new() };
        for member in alliance.members() {
            let (law, directives) = founding_pack_text(member).expect("a founding member");
            let (law, directives) = (law.to_owned(), directives.to_owned());
            let pack = alliance.spoken(member, &LawPack { member, epoch: 1, issued: DAWN, law, directives });
            alliance.packs.insert(member, pack);
        }
        alliance
    }

    pub(crate) fn members(&self) -> Vec<Country> {
        self.officers.keys().copied().collect()
    }

    fn spoken<T: Statement>(&self, member: Country, body: &T) -> Signed<T> {
        self.signed(&self.officers[&member], body)
    }

    pub(crate) fn signed<T: Statement>(&self, key: &SecretKey, body: &T) -> Signed<T> {
        Signed::sign(body, self.id, key).expect("small enough")
    }

    pub(crate) fn pack(&self, member: Country) -> Vec<u8> {
        self.packs[&member].bytes().to_vec()
    }

    /// The next status of a member.
    pub(crate) fn status(&mut self, member: Country, validity: Validity, revoked: &[PublicKey]) -> Vec<u8> {
        let serial = self.serials.entry(member).or_default();
        *serial += 1;
        let (serial, pack) = (*serial, &self.packs[&member]);
        let (law_pack, epoch) = (pack.id(), pack.body().epoch);
        let revoked = revoked.iter().copied().collect();
        self.spoken(
            member,
            &Status {
                member,
                serial,
                validity,
                law_pack,
                epoch,
                upcoming: Vec::new(),
                revoked,
                bans: BTreeSet::new(),
                experts: Vec::new(),
                grace_ms: 0,
            },
        )
        .bytes()
        .to_vec()
    }

    /// An accreditation for both ends of a crossing.
    pub(crate) fn accreditation(&self, member: Country, node: PublicKey, organisation: &str) -> Vec<u8> {
        let organisation = Organisation {
            name: organisation.into(),
            roles: BTreeSet::from([OrganisationRole::University]),
            controlled_by: None,
            state_controlled: false,
        };
        let roles = BTreeSet::from([NodeRole::Exporter, NodeRole::Importer]);
        let validity = Validity::lasting_ms(DAWN, 365 * DAY);
        let tier = Tier::default();
        let body = Accreditation { member, node, organisation, zone: None, roles, tier, place: None, validity };
        self.spoken(member, &body).bytes().to_vec()
    }
}
