//! What a new text of a pack changes: asked over crossings that were recorded, and over a grid of crossings that is spanned by
//! every word that either text names.
//!
//! The grid shows examples and counts; that nothing else changes is for a proof to say, not for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use alliance_protocol::{
    gate::{Action, Facts, Gate, Grant, Pack, PackError, PackOwner, Party, People, Verdict, Volume},
    time::Timestamp,
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};
use serde::{Deserialize, Serialize};

use crate::CedarGate;

/// Crossings of one grid. More are not asked, and it is said.
const GRID_MAX: usize = 400_000;

/// Which part of the grid is asked; an empty set is no limit.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub from: Option<Country>,
    pub to: Option<Country>,
    pub labels: BTreeSet<Label>,
    pub artefacts: BTreeSet<Artefact>,
    pub purposes: BTreeSet<Purpose>,
}

/// What changed, of one kind of change.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub what: Changed,
    /// The rules that decided, before and after.
    pub old_rules: BTreeSet<String>,
    pub new_rules: BTreeSet<String>,
    /// How many of the crossings asked change in this way.
    pub crossings: u64,
    /// One of them.
    pub example: Facts,
    pub action: Action,
    pub at: Timestamp,
}

/// How an answer changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Changed {
    NewlyAllowed,
    NewlyDenied,
    /// Allowed as before, under other duties.
    OtherDuties,
    /// Denied as before, by other rules.
    OtherRules,
}

/// The changes that were found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Difference {
    pub asked: u64,
    /// Whether the grid was cut off at its bound.
    pub cut_off: bool,
    pub changes: Vec<Change>,
}

/// Puts crossings to both texts of a pack.
pub fn compare(
    gate: &CedarGate,
    old: &Pack,
    new: &Pack,
    crossings: impl IntoIterator<Item = (Action, Facts, Timestamp)>,
) -> Difference {
    let mut found: BTreeMap<(Changed, BTreeSet<String>, BTreeSet<String>), Change> = BTreeMap::new();
    let mut asked = 0_u64;
    for (action, facts, at) in crossings {
        asked = asked.saturating_add(1);
        let verdicts = [old, new].map(|pack| gate.judge_anew(pack, action, &facts, at));
        let [before, after] = &verdicts;
        let Some(what) = changed(before, after) else { continue };
        let (old_rules, new_rules) = (ids(before), ids(after));
        let change = found.entry((what, old_rules.clone(), new_rules.clone())).or_insert_with(|| Change {
            what,
            old_rules,
            new_rules,
            crossings: 0,
            example: facts,
            action,
            at,
        });
        change.crossings = change.crossings.saturating_add(1);
    }
    Difference { asked, cut_off: false, changes: found.into_values().collect() }
}

fn changed(before: &Verdict, after: &Verdict) -> Option<Changed> {
    match (before.permits(), after.permits()) {
        (false, true) => Some(Changed::NewlyAllowed),
        (true, false) => Some(Changed::NewlyDenied),
        (true, true) => (before.obligations != after.obligations).then_some(Changed::OtherDuties),
        (false, false) => (ids(before) != ids(after)).then_some(Changed::OtherRules),
    }
}

fn ids(verdict: &Verdict) -> BTreeSet<String> {
    verdict.rules.iter().map(|rule| rule.id.clone()).collect()
}

/// As [`compare`], over the grid at an instant.
///
/// # Errors
/// A text cannot be used.
pub fn over_the_grid(
    gate: &CedarGate,
    old: &Pack,
    new: &Pack,
    filter: &Filter,
    at: Timestamp,
) -> Result<Difference, PackError> {
    let grid = Grid::spanned(gate, old, new, filter)?;
    let mut all = grid.crossings(old.owner, at).peekable();
    let difference = compare(gate, old, new, all.by_ref().take(GRID_MAX));
    Ok(Difference { cut_off: all.peek().is_some(), ..difference })
}

/// The values that each fact takes: every word that either text names, and one that neither does.
#[derive(Debug)]
struct Grid {
    actions: Vec<Action>,
    routes: Vec<(Country, Country)>,
    labels: Vec<BTreeSet<Label>>,
    artefacts: Vec<Artefact>,
    purposes: Vec<Purpose>,
    uses: Vec<Use>,
    /// Roles of both ends, circumstances, volumes, zones, bans, control: one special case at a time.
    cases: Vec<Case>,
    safeguards: Vec<BTreeMap<SafeguardKind, Grant>>,
}

#[derive(Clone, Debug, Default)]
struct Case {
    from_roles: BTreeSet<OrganisationRole>,
    to_roles: BTreeSet<OrganisationRole>,
    circumstances: BTreeSet<Circumstance>,
    volume: Volume,
    zones: (Option<Zone>, Option<Zone>),
    banned: bool,
    foreign_control: bool,
    state_controlled: bool,
    foreign_origin: bool,
    tier: Tier,
    /// Whether it is proven that all of it was trained at home.
    trained_at_home: bool,
}

impl Grid {
    fn spanned(gate: &CedarGate, old: &Pack, new: &Pack, filter: &Filter) -> Result<Self, PackError> {
        let mut named = gate.words(old)?;
        named.extend(gate.words(new)?);
        let of =
            |kind: &str| named.iter().filter(|(k, _)| k == kind).map(|(_, word)| word.clone()).collect::<BTreeSet<_>>();
        fn vary<T: Copy + Ord + std::str::FromStr>(named: &BTreeSet<String>, all: &[T], only: &BTreeSet<T>) -> Vec<T> {
            if !only.is_empty() {
                return only.iter().copied().collect();
            }
            let mut values: Vec<T> = named.iter().filter_map(|word| word.parse().ok()).collect();
            values.extend(all.iter().copied().find(|other| !values.contains(other)));
            values
        }
        let labels: Vec<Label> = vary(&of("Label"), Label::ALL, &BTreeSet::new());
        let labels = match filter.labels.is_empty() {
            true => labels.into_iter().map(|label| [label].into()).collect(),
            false => vec![filter.labels.clone()],
        };
        let kinds: Vec<SafeguardKind> = of("Safeguard").iter().filter_map(|word| word.parse().ok()).collect();
        Ok(Self {
            actions: vec![Action::Export, Action::Import, Action::Concern],
            routes: routes(old.owner, &of("Country"), filter),
            labels,
            artefacts: vary(&of("Artefact"), Artefact::ALL, &filter.artefacts),
            purposes: vary(&of("Purpose"), Purpose::ALL, &filter.purposes),
            uses: vary(&of("Use"), Use::ALL, &BTreeSet::new()),
            cases: cases(&of("Role"), &of("Circumstance"), &of("Zone"), &of("Tier")),
            safeguards: presented(gate, [old, new], &kinds)?,
        })
    }

    /// What differs most between two texts comes first, so that a grid that is cut off still shows it.
    fn crossings(&self, owner: PackOwner, at: Timestamp) -> impl Iterator<Item = (Action, Facts, Timestamp)> {
        let member = match owner {
            PackOwner::Member(country) => Some(country),
            PackOwner::Alliance | PackOwner::House => None,
        };
        let words = self.cases.iter().flat_map(move |case| {
            self.safeguards.iter().flat_map(move |safeguards| {
                self.uses.iter().flat_map(move |use_| {
                    self.purposes.iter().flat_map(move |purpose| {
                        self.artefacts.iter().map(move |artefact| (case, safeguards, *use_, *purpose, *artefact))
                    })
                })
            })
        });
        words.flat_map(move |(case, safeguards, use_, purpose, artefact)| {
            self.labels.iter().flat_map(move |labels| {
                self.routes.iter().flat_map(move |(from, to)| {
                    let facts = case.facts((*from, *to), member, labels, artefact, purpose, use_, safeguards);
                    let concerned = |action: &Action| is_asked(*action, &facts, member);
                    let asked: Vec<Action> = self.actions.iter().copied().filter(concerned).collect();
                    asked.into_iter().map(move |action| (action, facts.clone(), at))
                })
            })
        })
    }
}

/// Whether a pack is ever asked this: a member about what leaves it, enters it or is about its people, and everybody only
/// about zones that lie in their country.
fn is_asked(action: Action, facts: &Facts, member: Option<Country>) -> bool {
    let concerned = member.is_none_or(|member| match action {
        Action::Export => facts.from.country == member,
        Action::Import => facts.to.country == member,
        Action::Concern => facts.subjects.contains(&member),
    });
    let lies = |party: &Party| party.zone.is_none_or(|zone| zone.country() == party.country);
    concerned && lies(&facts.from) && lies(&facts.to)
}

impl Case {
    #[expect(clippy::too_many_arguments, reason = "the dimensions of the grid")]
    fn facts(
        &self,
        (from, to): (Country, Country),
        member: Option<Country>,
        labels: &BTreeSet<Label>,
        artefact: Artefact,
        purpose: Purpose,
        use_: Use,
        safeguards: &BTreeMap<SafeguardKind, Grant>,
    ) -> Facts {
        let party = |country, roles: &BTreeSet<OrganisationRole>, zone, controlled_by| Party {
            country,
            zone,
            organisation: String::new(),
            roles: roles.clone(),
            controlled_by,
            state_controlled: self.state_controlled,
            tier: self.tier,
        };
        let subjects = member.unwrap_or(from);
        Facts {
            from: party(from, &self.from_roles, self.zones.0, from),
            to: party(to, &self.to_roles, self.zones.1, if self.foreign_control { from } else { to }),
            artefact,
            labels: labels.clone(),
            origin: if self.foreign_origin { to } else { from },
            trained_in: self.trained_at_home.then(|| [from].into()),
            subjects: if self.foreign_origin { [to].into() } else { [subjects].into() },
            purpose,
            use_,
            circumstances: self.circumstances.clone(),
            volume: self.volume,
            bans: if self.banned { [member.unwrap_or(from)].into() } else { BTreeSet::new() },
            safeguards: match (member, safeguards.is_empty()) {
                (_, true) => BTreeMap::new(),
                (Some(member), false) => [(member, safeguards.clone())].into(),
                (None, false) => [(from, safeguards.clone()), (to, safeguards.clone())].into(),
            },
        }
    }
}

/// From and to the member whose pack it is, and between others, over every country that a text names and one more.
fn routes(owner: PackOwner, named: &BTreeSet<String>, filter: &Filter) -> Vec<(Country, Country)> {
    let mut countries: BTreeSet<Country> = named.iter().filter_map(|word| word.parse().ok()).collect();
    countries.extend(["BR", "DE"].iter().filter_map(|code| code.parse::<Country>().ok()));
    let ends: Vec<Country> = match owner {
        PackOwner::Member(country) => vec![country],
        PackOwner::Alliance | PackOwner::House => countries.iter().copied().take(2).collect(),
    };
    let mut routes = BTreeSet::new();
    for end in &ends {
        routes.extend(countries.iter().map(|other| (*end, *other)));
        routes.extend(countries.iter().map(|other| (*other, *end)));
    }
    let kept = |(from, to): &(Country, Country)| {
        filter.from.is_none_or(|only| only == *from) && filter.to.is_none_or(|only| only == *to)
    };
    let mut routes: Vec<_> = routes.into_iter().filter(kept).collect();
    if let (true, Some(from), Some(to)) = (routes.is_empty(), filter.from, filter.to) {
        routes.push((from, to));
    }
    routes
}

fn cases(
    roles: &BTreeSet<String>,
    circumstances: &BTreeSet<String>,
    zones: &BTreeSet<String>,
    tiers: &BTreeSet<String>,
) -> Vec<Case> {
    let mut cases = vec![Case::default()];
    for role in roles.iter().filter_map(|word| word.parse::<OrganisationRole>().ok()) {
        cases.push(Case { from_roles: [role].into(), ..Case::default() });
        cases.push(Case { to_roles: [role].into(), ..Case::default() });
    }
    for one in circumstances.iter().filter_map(|word| word.parse::<Circumstance>().ok()) {
        cases.push(Case { circumstances: [one].into(), ..Case::default() });
    }
    let people =
        |people, sensitive_people| Volume { people: People::new(people), sensitive_people: People::new(sensitive_people) };
    for volume in [people(100_000, 0), people(1_000_000, 0), people(0, 1), people(0, 10_000)] {
        cases.push(Case { volume, ..Case::default() });
    }
    for zone in zones.iter().filter_map(|word| word.parse::<Zone>().ok()) {
        cases.push(Case { zones: (Some(zone), None), ..Case::default() });
        cases.push(Case { zones: (Some(zone), Some(zone)), ..Case::default() });
    }
    for tier in tiers.iter().filter_map(|word| word.parse().ok()) {
        cases.push(Case { tier, ..Case::default() });
    }
    cases.push(Case { trained_at_home: true, ..Case::default() });
    cases.push(Case { banned: true, ..Case::default() });
    cases.push(Case { foreign_control: true, ..Case::default() });
    cases.push(Case { state_controlled: true, ..Case::default() });
    cases.push(Case { foreign_origin: true, ..Case::default() });
    cases
}

/// Nothing, each kind alone, and everything, each for every rule that names it.
fn presented(
    gate: &CedarGate,
    packs: [&Pack; 2],
    kinds: &[SafeguardKind],
) -> Result<Vec<BTreeMap<SafeguardKind, Grant>>, PackError> {
    let mut grants = BTreeMap::new();
    for kind in kinds {
        let mut rules = BTreeSet::new();
        for pack in packs {
            rules.extend(gate.rules_that_name(pack, *kind)?);
        }
        grants.insert(*kind, Grant { rules, since: Timestamp(0), filed: Some(Timestamp(0)) });
    }
    let alone = grants.iter().map(|(kind, grant)| [(*kind, grant.clone())].into());
    Ok([BTreeMap::new(), grants.clone()].into_iter().chain(alone).collect())
}

/// The verdicts of both texts on one crossing, for those who show it.
#[must_use]
pub fn both(gate: &CedarGate, old: &Pack, new: &Pack, change: &Change) -> [Arc<Verdict>; 2] {
    [old, new].map(|pack| gate.judge(pack, change.action, &change.example, change.at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::founding_pack_text;

    fn pack(text: &str) -> Pack {
        Pack::new(PackOwner::Member("ZA".parse().expect("assigned")), 1, text, "")
    }

    fn between(old: &str, new: &str) -> Difference {
        let at = "2026-11-23".parse().expect("a date");
        over_the_grid(&CedarGate::new(), &pack(old), &pack(new), &Filter::default(), at).expect("both can be used")
    }

    #[test]
    fn what_a_member_is_never_asked_changes_nothing() {
        let law = |from: &str| {
            format!(
                "@id(\"ZA-00\") @title(\"t\") @design(\"d\") @status(\"residual\") permit (principal, action, resource);\n\
                 @id(\"ZA-01\") @title(\"t\") @law(\"l\") @native(\"n\") @from(\"2020-01-01\") @status(\"in_force\")\n\
                 @confidence(\"high\") @source(\"s\") forbid (principal, action == Action::\"export\", resource)\n\
                 when {{ context.time >= datetime(\"2020-01-01\") && {from} context.labels.contains(Label::\"health\") }};"
            )
        };
        let found = between(&law(""), &law("context.from.country == Country::\"ZA\" &&"));
        assert!(found.changes.is_empty() && found.asked > 0, "{found:?}");
        let found = between(&law(""), &law("context.to.country == Country::\"BR\" &&"));
        assert!(!found.changes.is_empty());
    }

    #[test]
    fn the_same_text_changes_nothing_and_a_rule_less_shows() {
        let (law, _) = founding_pack_text("ZA".parse().expect("assigned")).expect("a pack");
        let same = between(law, law);
        assert!(same.changes.is_empty() && same.asked > 1000, "{same:?}");
        let without = law.replace("Label::\"controlled_tech\"", "Label::\"commercial_secret\"");
        let found = between(law, &without);
        let whats: BTreeSet<_> = found.changes.iter().map(|change| change.what).collect();
        assert!(whats.contains(&Changed::NewlyAllowed) && whats.contains(&Changed::NewlyDenied), "{found:?}");
        let back = between(&without, law);
        assert_eq!(back.asked, found.asked);
        let allowed = found.changes.iter().find(|change| change.what == Changed::NewlyAllowed).expect("found");
        assert!(allowed.old_rules.contains("ZA-08"));
        assert!(allowed.example.labels.contains(&Label::ControlledTech));
    }
}
