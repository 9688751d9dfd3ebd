//! `alliance policy`: what the law says, without a daemon: the founding packs, or packs given as files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use alliance_policy::{CedarGate, Covered, Remedy};
use alliance_protocol::{
    gate::{Action, Facts, Gate as _, Grant, Pack, PackOwner, PackSummary, Party, RuleNature, RuleRole, Verdict, Volume},
    limits,
    obligation::Obligation,
    time::Timestamp,
    vocabulary::{Artefact, Circumstance, Country, Label, OrganisationRole, Purpose, SafeguardKind, Tier, Use, Zone},
};
use clap::{ArgGroup, Args, Subcommand};
use serde::Serialize;

use super::{
    Context, Problem,
    denial::{self, Detail},
    figures,
    screen::{Table, Tone},
    words::Presented,
};
use crate::{durable, exit::Exit};

mod diff;
pub(super) mod prove;
mod upcoming;

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Ask whether something may cross: the baseline, the law of both countries, and that of the people concerned
    ///
    /// The packs asked are the founding packs of this release unless --pack gives others. What a node decides also depends on
    /// what its authority has published, on the terms of the offer and on the rules of the houses.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Question),
    /// As check, with every rule that decided, and the duties that come with the crossing
    #[command(after_help = CHECK_EXAMPLES)]
    Explain(Question),
    /// Show what became of each rule of the researched law: encoded, a duty, not encodable and why, not in force
    #[command(after_help = "Example:\n  alliance policy coverage --country CN")]
    Coverage {
        /// One country only; BX for what concerns all of them
        #[arg(long, value_name = "CC")]
        country: Option<String>,
    },
    /// Show which running crossings and standing offers end when law that is adopted ahead comes into force, and why
    ///
    /// Asks the daemon. Both sides of an offer see it, as far as each knows the law of the other.
    #[command(after_help = "Example:\n  alliance policy upcoming")]
    Upcoming,
    Diff(diff::Diff),
    Prove(prove::Prove),
    /// Check the text of a law pack: syntax, types, annotations
    #[command(
        group = ArgGroup::new("whose").args(["member", "house"]).required(true),
        after_help = "Examples:\n  alliance policy lint za.cedar --member ZA\n  alliance policy lint ~/.alliance/house.cedar --house\n\n\
            Exits with 1 if a node would refuse the pack."
    )]
    Lint {
        /// The Cedar text of the law
        #[arg(value_name = "FILE")]
        law: PathBuf,
        /// The member whose law it is
        #[arg(long, value_name = "CC")]
        member: Option<Country>,
        /// It holds the rules of a house: house.cedar in the home of a node
        #[arg(long)]
        house: bool,
        /// The Cedar text of the authority's directives
        #[arg(long, value_name = "FILE", requires = "member")]
        directives: Option<PathBuf>,
    },
}

const CHECK_EXAMPLES: &str = "Examples:\n  \
    alliance policy check --from BR --to ZA --artefact weights --labels public,non_personal --purpose research\n  \
    alliance policy explain --from IN --to RU --artefact dataset --labels personal --subjects IN --purpose commercial \\\n    \
    --safeguards explicit_consent@IN --at 2027-06-01\n\n\
    Exits with 0 if it is allowed and 3 if it is denied.";

#[derive(Debug, Args)]
pub(super) struct Question {
    /// The country of the exporter
    #[arg(long, value_name = "CC")]
    from: Country,
    /// The country of the importer
    #[arg(long, value_name = "CC")]
    to: Country,
    /// What would cross: weights, adapter, dataset, update, prompt, ...
    #[arg(long, value_name = "KIND")]
    artefact: Artefact,
    /// What it is about, with commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "LABELS")]
    labels: Vec<Label>,
    /// What it is wanted for
    #[arg(long, value_name = "PURPOSE")]
    purpose: Purpose,
    /// What will be done with it
    #[arg(long = "use", default_value_t = Use::Inference, value_name = "USE")]
    use_: Use,
    /// Where it was made [default: the exporter's country]
    #[arg(long, value_name = "CC")]
    origin: Option<Country>,
    /// The countries whose people it is about, with commas
    #[arg(long, value_delimiter = ',', value_name = "CC")]
    subjects: Vec<Country>,
    /// Safeguards at hand, each with the country whose authority issued it: KIND@CC, with commas
    #[arg(long, value_delimiter = ',', value_name = "KIND@CC")]
    safeguards: Vec<Presented>,
    /// What the exporter is in the eyes of the law, with commas: controller, university, ...
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    exporter_roles: Vec<OrganisationRole>,
    /// What the recipient is in the eyes of the law, with commas
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    recipient_roles: Vec<OrganisationRole>,
    /// The country whose state can compel the recipient, if not its own
    #[arg(long, value_name = "CC")]
    recipient_controlled_by: Option<Country>,
    /// How well it is established where the exporter's node is: declared, accredited, corroborated, attested
    #[arg(long, default_value_t, value_name = "TIER")]
    exporter_tier: Tier,
    /// The same of the recipient's node
    #[arg(long, default_value_t, value_name = "TIER")]
    recipient_tier: Tier,
    /// The countries in which it was trained, where that is proven of every step, with commas [default: not proven]
    #[arg(long, value_delimiter = ',', value_name = "CC")]
    trained_in: Vec<Country>,
    /// The recipient is owned or controlled by a state
    #[arg(long)]
    state_controlled: bool,
    /// What is true of the movement, with commas: collection, public_audience, outbound_investment, ...
    #[arg(long, value_delimiter = ',', value_name = "WORDS")]
    circumstances: Vec<Circumstance>,
    /// How many people's data the exporter has sent abroad this year, this crossing included [default: unknown]
    #[arg(long, value_name = "N")]
    people: Option<u64>,
    /// The zone of the exporter with data law of its own
    #[arg(long, value_name = "ZONE")]
    exporter_zone: Option<Zone>,
    /// The zone of the recipient with data law of its own
    #[arg(long, value_name = "ZONE")]
    recipient_zone: Option<Zone>,
    /// Countries whose authorities have banned the destination or the recipient, with commas
    #[arg(long, value_delimiter = ',', value_name = "CC")]
    banned_by: Vec<Country>,
    /// When the notifications at hand were filed [default: they were not]
    #[arg(long, value_name = "DATE")]
    filed: Option<Timestamp>,
    /// The day or instant of the crossing [default: now]
    #[arg(long, value_name = "DATE")]
    at: Option<Timestamp>,
    /// The law of a member instead of its founding pack: CC=FILE; may be repeated
    #[arg(long, value_name = "CC=FILE")]
    pack: Vec<super::words::MemberFile>,
}

#[derive(Debug, Serialize)]
struct Answer {
    allowed: bool,
    at: Timestamp,
    facts: Facts,
    /// Countries whose people it is about and whose law is not here.
    unasked: BTreeSet<Country>,
    verdicts: Vec<Arc<Verdict>>,
    /// What would make it allowed: from each pack one of its sets. None: nothing would. Empty: it is allowed.
    remedies: Option<Vec<Remedy>>,
}

impl Policy {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::Check(question) => question.run(context, Detail::Denials),
            Self::Explain(question) => question.run(context, Detail::All),
            Self::Coverage { country } => coverage(context, country.as_deref()),
            Self::Upcoming => upcoming::run(context).await,
            Self::Diff(diff) => diff.run(context).await,
            Self::Prove(prove) => prove.run(context).await,
            Self::Lint { law, member, house: _, directives } => {
                let owner = member.map_or(PackOwner::House, PackOwner::Member);
                lint(context, &law, owner, directives.as_deref())
            }
        }
    }
}

impl Question {
    fn run(self, context: &Context, detail: Detail) -> Result<Exit, Problem> {
        let at = self.at.unwrap_or(context.now);
        let packs = self.packs()?;
        let gate = CedarGate::new();
        let facts = self.facts(&gate, &packs, at)?;
        let verdicts = ask(&gate, &packs, &facts, at);
        let allowed = verdicts.iter().all(|verdict| verdict.permits());
        let remedies = alliance_policy::remedies(&verdicts);
        let unasked = facts.subjects.iter().copied().filter(|country| !packs.contains_key(country)).collect();
        let answer = Answer { allowed, at, facts, unasked, verdicts, remedies };
        context.screen.one(&answer, || text(context, &answer, detail));
        Ok(if allowed { Exit::Done } else { Exit::Denied })
    }

    fn facts(&self, gate: &CedarGate, packs: &BTreeMap<Country, Pack>, at: Timestamp) -> Result<Facts, Problem> {
        for (zone, country) in [(self.exporter_zone, self.from), (self.recipient_zone, self.to)] {
            if let Some(zone) = zone.filter(|zone| zone.country() != country) {
                return Err(Problem::new(Exit::Usage, format!("the zone {zone} does not lie in {country}")));
            }
        }
        let party = |country: Country, zone, roles: &[OrganisationRole], tier: Tier| Party {
            country,
            zone,
            organisation: String::new(),
            roles: roles.iter().copied().collect(),
            controlled_by: country,
            state_controlled: false,
            tier,
        };
        let mut to = party(self.to, self.recipient_zone, &self.recipient_roles, self.recipient_tier);
        to.controlled_by = self.recipient_controlled_by.unwrap_or(self.to);
        to.state_controlled = self.state_controlled;
        let mut safeguards: BTreeMap<Country, BTreeMap<SafeguardKind, Grant>> = BTreeMap::new();
        for Presented { kind, issuer } in &self.safeguards {
            let mut rules = gate.rules_that_name(&alliance_policy::baseline(), *kind)?;
            if let Some(pack) = packs.get(issuer) {
                rules.extend(gate.rules_that_name(pack, *kind)?);
            }
            let grant = Grant { rules, since: at, filed: self.filed };
            safeguards.entry(*issuer).or_default().insert(*kind, grant);
        }
        let labels: BTreeSet<Label> = self.labels.iter().copied().collect();
        Ok(Facts {
            circumstances: self.circumstances.iter().copied().collect(),
            volume: Volume::of(&labels, self.people),
            bans: self.banned_by.iter().copied().collect(),
            from: party(self.from, self.exporter_zone, &self.exporter_roles, self.exporter_tier),
            to,
            artefact: self.artefact,
            labels,
            origin: self.origin.unwrap_or(self.from),
            trained_in: (!self.trained_in.is_empty()).then(|| self.trained_in.iter().copied().collect()),
            subjects: self.subjects.iter().copied().collect(),
            purpose: self.purpose,
            use_: self.use_,
            safeguards,
        })
    }

    /// The packs given as files, and the founding packs of the other countries that are concerned.
    fn packs(&self) -> Result<BTreeMap<Country, Pack>, Problem> {
        let mut packs = BTreeMap::new();
        for given in &self.pack {
            let law = durable::read_text(&given.file, limits::LAW_PACK_BYTES_MAX)?;
            let pack = Pack::new(PackOwner::Member(given.member), 0, &law, "");
            CedarGate::new().check(&pack).map_err(|error| {
                Problem::of(Exit::Usage, &error).hint(format!("mend the text (law is `{}`)", given.file.display()))
            })?;
            packs.insert(given.member, pack);
        }
        for country in [self.from, self.to].into_iter().chain(self.subjects.iter().copied()) {
            if let (false, Some((law, directives))) =
                (packs.contains_key(&country), alliance_policy::founding_pack_text(country))
            {
                packs.insert(country, Pack::new(PackOwner::Member(country), 1, law, directives));
            }
        }
        Ok(packs)
    }
}

/// Asks the packs that a node would ask, in the same capacities. Countries without a pack are taken for no members: their
/// people are not spoken for, and nothing goes to or from them.
fn ask(gate: &CedarGate, packs: &BTreeMap<Country, Pack>, facts: &Facts, at: Timestamp) -> Vec<Arc<Verdict>> {
    let baseline = alliance_policy::baseline();
    let law = |country: Country, action: Action| match packs.get(&country) {
        Some(pack) => gate.judge(pack, action, facts, at),
        None => {
            Verdict::failed(PackOwner::Member(country), 0, action, format!("there is no law pack for {country}")).into()
        }
    };
    let mut verdicts =
        vec![gate.judge(&baseline, Action::Export, facts, at), gate.judge(&baseline, Action::Import, facts, at)];
    let questions = facts.questions(|country| packs.contains_key(&country));
    verdicts.extend(questions.into_iter().map(|(country, action)| law(country, action)));
    verdicts
}

fn text(context: &Context, answer: &Answer, detail: Detail) -> String {
    let headline = if answer.allowed {
        context.screen.paint(Tone::Good, "allowed")
    } else {
        context.screen.paint(Tone::Bad, "denied")
    };
    let asked = answer.verdicts.iter().map(|verdict| format!("{} ({})", verdict.pack, verdict.action.as_str()));
    let mut text = format!(
        "{headline}: {}\n  labels: {}\n  at {}\n  asked: {}\n\n{}",
        denial::route(&answer.facts),
        figures::words(&answer.facts.labels, "none"),
        answer.at,
        figures::words(asked, "none"),
        denial::verdicts(&answer.verdicts, detail),
    );
    let duties: BTreeSet<&Obligation> = answer.verdicts.iter().flat_map(|verdict| &verdict.obligations).collect();
    if answer.allowed && detail == Detail::Denials && !duties.is_empty() {
        text.push_str("duties that come with it:\n");
        for duty in duties {
            text.push_str(&format!("  {}\n", denial::duty_text(duty)));
        }
    }
    if !answer.allowed {
        text.push_str(&denial::ways_out(answer.remedies.as_deref()));
    }
    if !answer.unasked.is_empty() {
        text.push_str(&format!(
            "\nNot asked, because there is no law pack of it here: {}. Its people are spoken for by nobody.\n",
            figures::words(&answer.unasked, "none")
        ));
    }
    if answer.facts.subjects.is_empty() && answer.facts.labels.iter().any(|label| label.is_personal()) {
        text.push_str(
            "\nWhose people it is about was not said (--subjects). An offer has to say it, and their law is asked too.\n",
        );
    }
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    text.push_str(
        "This says that declared labels and presented safeguards meet encoded conditions. It is not legal advice.",
    );
    text
}

fn lint(context: &Context, law: &Path, owner: PackOwner, directives: Option<&Path>) -> Result<Exit, Problem> {
    let text = durable::read_text(law, limits::LAW_PACK_BYTES_MAX)?;
    let directives_text = match directives {
        Some(path) => durable::read_text(path, limits::LAW_PACK_BYTES_MAX)?,
        None => String::new(),
    };
    let pack = Pack::new(owner, 1, &text, &directives_text);
    let summary = CedarGate::new().check(&pack).map_err(|error| {
        let files = match directives {
            Some(directives) => format!("law is `{}`, directives is `{}`", law.display(), directives.display()),
            None => format!("law is `{}`", law.display()),
        };
        Problem::of(Exit::Failed, &error).hint(format!("mend the text; a node refuses the whole pack until then ({files})"))
    })?;
    let holes = unpermitted(&pack);
    let linted = Linted { summary, unpermitted: holes };
    Ok(context.screen.one(&linted, || {
        let mut text = summary_text(&linted.summary);
        for action in &linted.unpermitted {
            text.push_str(&format!(
                "\nnote: asked about {action}, it denies even an open model, because no rule permits it. What nothing permits is \
                 denied: a rule with @status(\"residual\") permits what no other rule forbids."
            ));
        }
        text
    }))
}

/// A pack that can be used, and for what it permits nothing at all.
#[derive(Debug, Serialize)]
struct Linted {
    #[serde(flatten)]
    summary: PackSummary,
    unpermitted: Vec<&'static str>,
}

/// The actions for which a pack permits not even what nothing forbids: an open model, without safeguards.
fn unpermitted(pack: &Pack) -> Vec<&'static str> {
    let party = |code: &str| {
        let country: Country = code.parse().ok()?;
        Some(Party {
            country,
            zone: None,
            organisation: String::new(),
            roles: BTreeSet::new(),
            controlled_by: country,
            state_controlled: false,
            tier: Tier::default(),
        })
    };
    let (Some(from), Some(to)) = (party("BR"), party("ZA")) else { return Vec::new() };
    let facts = Facts {
        origin: from.country,
        trained_in: None,
        from,
        to,
        artefact: Artefact::Weights,
        labels: [Label::Public, Label::NonPersonal].into(),
        subjects: BTreeSet::new(),
        purpose: Purpose::Research,
        use_: Use::Inference,
        circumstances: BTreeSet::new(),
        volume: Volume::default(),
        bans: BTreeSet::new(),
        safeguards: BTreeMap::new(),
    };
    let gate = CedarGate::new();
    let nothing_permits = |action: &Action| {
        let verdict = gate.judge(pack, *action, &facts, Timestamp(1_790_000_000_000));
        !verdict.allowed && verdict.rules.is_empty() && verdict.error.is_none()
    };
    [Action::Export, Action::Import].into_iter().filter(nothing_permits).map(Action::as_str).collect()
}

#[derive(Debug, Serialize)]
struct Coverage<'a> {
    rules: Vec<&'a Covered>,
    counts: BTreeMap<&'static str, usize>,
}

fn coverage(context: &Context, country: Option<&str>) -> Result<Exit, Problem> {
    if let Some(code) = country.filter(|code| *code != "BX") {
        code.parse::<Country>().map_err(|error| Problem::new(Exit::Usage, error.to_string()))?;
    }
    let table = alliance_policy::coverage().map_err(|error| Problem::new(Exit::Failed, error))?;
    let rules: Vec<&Covered> = table.iter().filter(|entry| country.is_none_or(|only| entry.country == only)).collect();
    if rules.is_empty() {
        let known: BTreeSet<&str> = table.iter().map(|entry| entry.country.as_str()).collect();
        let message = format!(
            "no rule of `{}` was researched; known are {}",
            country.unwrap_or_default(),
            figures::words(known, "none")
        );
        return Err(Problem::new(Exit::NotFound, message));
    }
    let mut counts = BTreeMap::new();
    rules.iter().for_each(|entry| *counts.entry(entry.disposition.as_str()).or_default() += 1);
    let view = Coverage { rules, counts };
    Ok(context.screen.one(&view, || coverage_text(&view)))
}

fn coverage_text(view: &Coverage<'_>) -> String {
    let mut text = String::new();
    let mut countries: Vec<&str> = view.rules.iter().map(|entry| entry.country.as_str()).collect();
    countries.dedup();
    for country in countries {
        let mut table = Table::new(["rule", "stands", "here", "carried by", "title, and why it is not simply encoded"]);
        for entry in view.rules.iter().filter(|entry| entry.country == country) {
            let why = if entry.reason.is_empty() { String::new() } else { format!(": {}", entry.reason) };
            table.row([
                entry.id.clone(),
                entry.status.as_str().to_owned(),
                entry.disposition.as_str().to_owned(),
                figures::words(&entry.rules, "-"),
                format!("{}{why}", entry.title),
            ]);
        }
        text.push_str(&format!("{country}\n{table}\n"));
    }
    let counts = view.counts.iter().map(|(what, count)| format!("{count} {what}"));
    text.push_str(&format!("{} rules: {}", view.rules.len(), figures::words(counts, "none")));
    text
}

fn summary_text(summary: &PackSummary) -> String {
    let mut table = Table::new(["rule", "does", "nature", "since", "title"]);
    for rule in &summary.rules {
        let does = match rule.role {
            RuleRole::Denies => "forbids",
            RuleRole::Satisfied => "satisfied",
            RuleRole::Permits => "permits",
        };
        let nature = match rule.nature {
            RuleNature::Law => "law",
            RuleNature::Directive => "directive",
            RuleNature::DesignChoice => "design choice",
            RuleNature::House => "house",
        };
        table.row([rule.id.clone(), does.to_owned(), nature.to_owned(), rule.since.clone(), rule.title.clone()]);
    }
    format!("good: {} rules\n{table}", summary.rules.len())
}
