//! How long a decision takes, beside plain Cedar over all packs in the same run. `cargo bench -p alliance-policy`.
//!
//! Figures depend on the machine; the ratios are what counts. Nothing is asserted here.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a measurement that cannot be set up ends")]

use std::{
    hint::black_box,
    str::FromStr,
    time::{Duration, Instant},
};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS, SCHEMA, baseline, founding_pack_text};
use alliance_protocol::{
    gate::{Action, Facts, Gate, Pack, PackOwner},
    time::Timestamp,
};
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicyId, PolicySet, Request, Schema};
use serde_json::json;

/// Decisions of one measured batch, and batches of which the median is taken.
const BATCH: u32 = 200;
const BATCHES: usize = 101;

fn pack(code: &str) -> Pack {
    let country = code.parse().expect("a country");
    let (law, directives) = founding_pack_text(country).expect("a pack");
    Pack::new(PackOwner::Member(country), 1, law, directives)
}

/// Personal data from China to Brazil under a filed contract: nine rules speak.
fn facts() -> Facts {
    let party = |country: &str| {
        json!({ "country": country, "zone": null, "organisation": "lab", "roles": ["university"],
                "controlled_by": country, "state_controlled": false })
    };
    serde_json::from_value(json!({
        "from": party("CN"), "to": party("BR"), "artefact": "weights", "labels": ["personal"], "origin": "CN",
        "subjects": ["CN"], "purpose": "research", "use": "inference", "circumstances": [],
        "volume": { "people": 150_000, "sensitive_people": 0 }, "bans": [],
        "safeguards": { "CN": { "standard_contract_filed":
            { "rules": ["CN-04"], "since": 1_780_000_000_000_u64, "filed": null } } }
    }))
    .expect("facts")
}

/// The median of a batch, for one decision.
fn measure(mut decide: impl FnMut()) -> Duration {
    let mut batches: Vec<Duration> = (0..BATCHES)
        .map(|_| {
            let began = Instant::now();
            (0..BATCH).for_each(|_| decide());
            began.elapsed() / BATCH
        })
        .collect();
    batches.sort();
    batches[BATCHES / 2]
}

/// What a node asks of a crossing: the baseline in both capacities, both laws, and the law of the people.
fn crossing(packs: &[(Pack, Action)], mut ask: impl FnMut(&Pack, Action)) {
    packs.iter().for_each(|(pack, action)| ask(pack, *action));
}

/// Rules of countries that no crossing here concerns.
fn strangers(rules: usize) -> Vec<Pack> {
    let packs = ["PT", "DE", "FR", "US", "JP", "KR"];
    let each = rules.div_ceil(packs.len());
    let pack = |code: &str| {
        let rule = |n: usize| {
            format!(
                "@id(\"{code}-{:04}\") @title(\"t\") @law(\"l\") @native(\"n\") @from(\"2020-01-01\") @status(\"in_force\")\n\
                 @confidence(\"low\") @source(\"none\") forbid (principal, action == Action::\"export\", resource)\n\
                 when {{ context.time >= datetime(\"2020-01-01\") && context.labels.contains(Label::\"health\") &&\n\
                 context.to.organisation == Organisation::\"o{n}\" }};\n",
                n + 1
            )
        };
        let text: String = (0..each).map(rule).collect();
        Pack::new(PackOwner::Member(code.parse().expect("a country")), 1, &text, "")
    };
    packs.iter().map(|code| pack(code)).collect()
}

/// All rules in one set, and the question parsed and validated each time, as an application of Cedar would.
fn plain() -> impl FnMut() {
    let (schema, _) = Schema::from_cedarschema_str(SCHEMA).expect("the schema");
    let mut policies = PolicySet::new();
    for pack in FOUNDING_MEMBERS.iter().map(|code| pack(code)).chain([baseline()]) {
        for text in [&pack.law, &pack.directives] {
            let parsed: PolicySet = text.parse().expect("a pack");
            for policy in parsed.policies() {
                let id = policy.annotation("id").expect("an id");
                policies.add(policy.new_id(PolicyId::new(id))).expect("ids are unique");
            }
        }
    }
    let entity = |kind: &str, id: &str| json!({ "__entity": { "type": kind, "id": id } });
    let party = |country: &str| {
        json!({ "organisation": entity("Organisation", "lab"), "country": entity("Country", country),
                "zone": entity("Zone", "none"), "roles": [entity("Role", "university")],
                "controlled_by": entity("Country", country), "state_controlled": false })
    };
    let context = json!({ "time": { "__extn": { "fn": "datetime", "arg": "2026-11-23" } }, "from": party("CN"),
        "to": party("BR"), "labels": [entity("Label", "personal")], "origin": entity("Country", "CN"),
        "subjects": [entity("Country", "CN")], "purpose": entity("Purpose", "research"), "use": entity("Use", "inference"),
        "circumstances": [], "volume": { "people": 150_000, "sensitive_people": 0 }, "regulator_ban": false,
        "safeguards": [entity("Safeguard", "standard_contract_filed")], "mutual_safeguards": [] });
    let action = EntityUid::from_str("Action::\"export\"").expect("an action");
    let (authorizer, entities) = (Authorizer::new(), Entities::empty());
    let context = Context::from_json_value(context, Some((&schema, &action))).expect("a context");
    println!("{} rules in all packs", policies.policies().count());
    move || {
        let request = Request::new(
            EntityUid::from_str("Organisation::\"lab\"").expect("an organisation"),
            action.clone(),
            EntityUid::from_str("Artefact::\"weights\"").expect("an artefact"),
            context.clone(),
            Some(&schema),
        );
        let request = request.expect("fits the schema");
        black_box(authorizer.is_authorized(&request, &policies, &entities));
    }
}

fn main() {
    let facts = facts();
    let at: Timestamp = "2026-11-23".parse().expect("a date");
    let gate = CedarGate::new();
    let (china, brazil, alliance) = (pack("CN"), pack("BR"), baseline());
    let packs = [
        (alliance.clone(), Action::Export),
        (alliance, Action::Import),
        (china.clone(), Action::Export),
        (brazil, Action::Import),
        (china.clone(), Action::Concern),
    ];
    let cedar = measure(plain());
    let one = measure(|| drop(black_box(gate.judge_anew(&china, Action::Export, &facts, at))));
    let cached = measure(|| drop(black_box(gate.judge(&china, Action::Export, &facts, at))));
    let anew = |gate: &CedarGate| {
        measure(|| crossing(&packs, |pack, action| drop(black_box(gate.judge_anew(pack, action, &facts, at)))))
    };
    let whole = anew(&gate);
    let whole_cached = measure(|| crossing(&packs, |pack, action| drop(black_box(gate.judge(pack, action, &facts, at)))));
    let crowded = CedarGate::new();
    for stranger in strangers(3000) {
        crowded.check(&stranger).expect("a pack");
    }
    let few = CedarGate::new();
    for stranger in strangers(30) {
        few.check(&stranger).expect("a pack");
    }
    let (with_few, with_many) = (anew(&few), anew(&crowded));
    let ratio = |time: Duration| cedar.as_secs_f64() / time.as_secs_f64();
    println!("{:<66}{:>12}{:>24}", "", "median", "plain Cedar is slower by");
    println!("{:<66}{:>12?}{:>24}", "plain Cedar, one question to all packs", cedar, "");
    let row = |what: &str, time: Duration| println!("{what:<66}{time:>12.2?}{:>23.1}x", ratio(time));
    row("one pack (CN, export), not remembered", one);
    row("one pack (CN, export), remembered", cached);
    row("a whole crossing (5 questions to 3 packs), not remembered", whole);
    row("a whole crossing, remembered", whole_cached);
    row("a whole crossing, with 30 rules of other countries loaded", with_few);
    row("a whole crossing, with 3,000 rules of other countries loaded", with_many);
}
