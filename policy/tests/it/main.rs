//! The packs, the loader and the gate, seen from outside.
#![expect(
    clippy::expect_used,
    reason = "a test that cannot be set up fails; outside of test functions this has to be said"
)]

mod differential;
mod gate;
mod loader;
mod mutants;
mod properties;
mod stories;
mod vectors;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS, baseline, founding_pack_text};
use alliance_protocol::{
    gate::{Facts, Grant, Pack, PackOwner, Party, Volume},
    time::Timestamp,
    vocabulary::{Artefact, Country, Label, Purpose, SafeguardKind, Tier, Use},
};

/// A day on which every rule that is in force today is in force.
const TODAY: &str = "2026-11-23";

fn country(code: &str) -> Country {
    code.parse().expect("a country")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// The founding pack of a member, or the baseline.
fn pack(owner: &str) -> Pack {
    if owner == "alliance" {
        return baseline();
    }
    let (law, directives) = founding_pack_text(country(owner)).expect("a founding member");
    Pack::new(PackOwner::Member(country(owner)), 1, law, directives)
}

fn packs() -> Vec<Pack> {
    FOUNDING_MEMBERS.iter().copied().chain(["alliance"]).map(pack).collect()
}

fn party(code: &str) -> Party {
    Party {
        country: country(code),
        zone: None,
        organisation: format!("Institute of {code}"),
        roles: BTreeSet::new(),
        controlled_by: country(code),
        state_controlled: false,
        tier: Tier::default(),
    }
}

/// An open model that goes from one country to another for research.
fn open_model(from: &str, to: &str) -> Facts {
    Facts {
        from: party(from),
        to: party(to),
        artefact: Artefact::Weights,
        labels: [Label::Public, Label::NonPersonal].into(),
        origin: country(from),
        trained_in: None,
        subjects: BTreeSet::new(),
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: BTreeSet::new(),
        volume: Volume::default(),
        bans: BTreeSet::new(),
        safeguards: BTreeMap::new(),
    }
}

/// A token of today for every rule that looks at its kind, of the issuer's own pack and of the baseline.
fn issue(facts: &mut Facts, issuer: Country, kinds: impl IntoIterator<Item = SafeguardKind>) {
    static GATE: LazyLock<CedarGate> = LazyLock::new(CedarGate::new);
    let mut packs = vec![baseline()];
    packs.extend(founding_pack_text(issuer).map(|_| pack(issuer.as_str())));
    for kind in kinds {
        let naming = packs.iter().flat_map(|pack| GATE.rules_that_name(pack, kind).expect("a pack that can be used"));
        let grant = Grant { rules: naming.collect(), since: at("2026-01-01"), filed: Some(at("2026-01-01")) };
        facts.safeguards.entry(issuer).or_default().insert(kind, grant);
    }
}
