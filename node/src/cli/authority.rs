//! `alliance authority`: what the officers of a member's supervisory body do.

mod expert;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alliance_policy::CedarGate;
use alliance_proofs::{Outcome, Proofs};
use alliance_protocol::{
    authority::{self, Accreditation, LawPack, Organisation, Safeguard, Status},
    charter::Chartered,
    core::admin::{AdminCall, Reply},
    envelope::{Signed, Statement},
    gate::{Gate as _, Pack},
    id::StatementId,
    key::PublicKey,
    limits,
    place::Place,
    time::Timestamp,
    vocabulary::{Country, Label, NodeRole, OrganisationRole, SafeguardKind, Tier, Zone},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::{
    Context, Problem, figures,
    policy::prove::{newly_allowed, setup},
    problem::unexpected,
    screen::{Fields, Table},
    words::Span,
};
use crate::{
    api::ApiClient,
    authority::{
        AccreditRequest, AuthorityDir, AuthorityError, PublicAuthority, PublishRequest, Published, SafeguardRequest,
    },
    durable::{self, Existing, Readers},
    exit::Exit,
    home::Home,
};

#[derive(Debug, Subcommand)]
pub(super) enum Authority {
    /// Make the directory of a member's authority, with a key for each of its officers
    ///
    /// The directory then holds officer-N.key (to be kept apart and offline where more than one must sign), authority.toml
    /// (what was said last) and authority.json, which is public: those who draw up the charter need it.
    #[command(
        after_help = "Example:\n  alliance authority init --member BR --name ANPD --officers 3 --threshold 2 --dir br"
    )]
    Init {
        /// The member
        #[arg(long, value_name = "CC")]
        member: Country,
        /// The authority's name, for people
        #[arg(long)]
        name: String,
        /// How many officers it has
        #[arg(long, default_value_t = 1, value_name = "N")]
        officers: u32,
        /// How many of them must sign
        #[arg(long, default_value_t = 1, value_name = "K")]
        threshold: u32,
        /// The directory to make
        #[arg(long)]
        dir: PathBuf,
        /// Encrypt the keys with one passphrase; give each officer another one later (alliance key protect)
        #[arg(long)]
        protect: bool,
    },
    Accredit(Accredit),
    /// Withdraw a node's accreditation; it takes effect when the next status is published
    #[command(after_help = "Example:\n  alliance authority revoke --dir br --node 4f0c...\n  \
        alliance authority publish --dir br --charter charter.alliance --node-home /var/lib/alliance")]
    Revoke {
        /// The authority's directory
        #[arg(long)]
        dir: PathBuf,
        /// The node's public key
        #[arg(long, value_name = "KEY")]
        node: PublicKey,
    },
    IssueSafeguard(IssueSafeguard),
    Ban(Ban),
    Expert(expert::Command),
    Publish(Publish),
    /// Draw keys for officers who shall come after those of now
    ///
    /// Those of now speak until a version of the charter names the next ones; both sign it. Statements of the authority count
    /// on where enough of those who signed them are still officers; publish again, and accredit again, where they do not.
    #[command(
        after_help = "Example:\n  alliance authority rotate --dir br --charter charter.alliance --officers 3 --threshold 2\n  \
        alliance charter propose --officers BR=br/authority.next.json --out next.alliance"
    )]
    Rotate {
        /// The authority's directory
        #[arg(long)]
        dir: PathBuf,
        /// The charter of the alliance: the log of its versions
        #[arg(long, value_name = "FILE")]
        charter: PathBuf,
        /// How many officers there will be
        #[arg(long, default_value_t = 1, value_name = "N")]
        officers: u32,
        /// How many of them must sign
        #[arg(long, default_value_t = 1, value_name = "K")]
        threshold: u32,
        /// Give up officers who wait to be adopted, and draw others
        #[arg(long)]
        again: bool,
        /// Encrypt the new keys with one passphrase
        #[arg(long)]
        protect: bool,
    },
}

/// Ban a destination or a recipient, or lift the ban; it takes effect when the next status is published
///
/// What a ban does is what the law says of banned crossings (RU-05, ET-05), and by the baseline of the alliance nothing that
/// an authority concerned has banned crosses. Crossings that run are cut.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  alliance authority ban --dir ru --to ZA\n  alliance authority ban --dir ru --node 4f0c... --lift"
)]
pub(super) struct Ban {
    /// The authority's directory
    #[arg(long)]
    dir: PathBuf,
    /// The country to which nothing may go
    #[arg(long, value_name = "CC", conflicts_with = "node", required_unless_present = "node")]
    to: Option<Country>,
    /// The node to which nothing may go
    #[arg(long, value_name = "KEY")]
    node: Option<PublicKey>,
    /// Lift the ban
    #[arg(long)]
    lift: bool,
}

/// Sign that a node's key is an organisation's, in this country, with these roles
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  alliance authority accredit --dir br --charter charter.alliance --node 4f0c... \\\n    \
    --organisation usp --organisation-roles university --out usp.alliance"
)]
pub(super) struct Accredit {
    /// The authority's directory
    #[arg(long)]
    dir: PathBuf,
    /// The charter of the alliance
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The node's public key; `alliance init` prints it
    #[arg(long, value_name = "KEY")]
    node: PublicKey,
    /// The organisation's name, as in ORGANISATION/MODEL
    #[arg(long, value_name = "NAME")]
    organisation: String,
    /// What the node may do, with commas: exporter, importer, witness
    #[arg(long, value_delimiter = ',', default_value = "exporter,importer", value_name = "ROLES")]
    roles: Vec<NodeRole>,
    /// What the organisation is in the eyes of the law, with commas: controller, university, ...
    #[arg(long, value_delimiter = ',', value_name = "ROLES")]
    organisation_roles: Vec<OrganisationRole>,
    /// A zone with its own law inside the member, such as AE-DIFC
    #[arg(long)]
    zone: Option<Zone>,
    /// The country whose state can compel the operator, if not the member
    #[arg(long, value_name = "CC")]
    controlled_by: Option<Country>,
    /// The operator is owned or controlled by a state
    #[arg(long)]
    state_controlled: bool,
    /// How well it is established where the node is: declared (its operator says so), accredited (papers were seen),
    /// corroborated (others measured or checked it on the spot) or attested (its hardware proves it)
    #[arg(long, default_value_t, value_name = "TIER")]
    tier: Tier,
    /// Where the node stands, in degrees; a tier above accredited needs it. Everybody will know it
    #[arg(long, value_name = "LATITUDE,LONGITUDE", allow_hyphen_values = true)]
    place: Option<Place>,
    /// From when on it counts, as 2026-10-01: before today where it is to cover training that ran before [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<Timestamp>,
    /// For how many days, from then on
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=1098))]
    days: u64,
    /// Where the accreditation goes; hand it to the operator of the node
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Sign that a legal ground exists for one kind of crossing
///
/// A safeguard counts before the law of this member only, for the route, labels and time that it names.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  alliance authority issue-safeguard --dir br --charter charter.alliance --kind tia --from BR \
    --to IN \\\n    --labels personal,health --reference 'ANPD 00261.001234/2026' --out tia.alliance"
)]
pub(super) struct IssueSafeguard {
    /// The authority's directory
    #[arg(long)]
    dir: PathBuf,
    /// The charter of the alliance
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The kind of ground: standard_contract_filed, regulator_notification, tia, ...
    #[arg(long)]
    kind: SafeguardKind,
    /// The country of the exporter
    #[arg(long, value_name = "CC")]
    from: Country,
    /// The country of the importer
    #[arg(long, value_name = "CC")]
    to: Country,
    /// The labels it covers, with commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "LABELS")]
    labels: Vec<Label>,
    /// The importing node it is limited to [default: any]
    #[arg(long, value_name = "KEY")]
    recipient: Option<PublicKey>,
    /// The rules it may satisfy, with commas [default: every rule in force that names the kind]
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    rules: Vec<String>,
    /// When what it confirms was filed; waiting periods are counted from that day
    #[arg(long, value_name = "DATE")]
    filed: Option<Timestamp>,
    /// For how many days
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=1098))]
    days: u64,
    /// Where it is filed: a case number, for people and auditors
    #[arg(long)]
    reference: String,
    /// Where the safeguard goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Publish what is in force: a new status, and a new law pack if the text changed
///
/// A status counts for a short time; publish again before it runs out, or no crossing that involves the member begins, and those
/// that run are cut, at once or when the grace is over that the status grants them (--grace). Without
/// --law, the text in force is kept; the first time, it is the founding pack of this release. A text that does not pass the
/// strict checks is not signed.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  alliance authority publish --dir br --charter charter.alliance --node-home /var/lib/alliance\n  \
    alliance authority publish --dir br --charter charter.alliance --law br.cedar --status-hours 24 --out public/\n  \
    alliance authority publish --dir br --charter charter.alliance --grace 5m --node-home /var/lib/alliance\n  \
    alliance authority publish --dir br --charter charter.alliance --law br.cedar --from 2027-01-01 --node-home ...   # ahead"
)]
pub(super) struct Publish {
    /// The authority's directory
    #[arg(long)]
    dir: PathBuf,
    /// The charter of the alliance
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The Cedar text of the law
    #[arg(long, value_name = "FILE")]
    law: Option<PathBuf>,
    /// The Cedar text of the authority's directives
    #[arg(long, value_name = "FILE")]
    directives: Option<PathBuf>,
    /// When the new text comes into force: a date, or an instant such as 2026-12-31T21:00:00Z [default: at once]
    #[arg(long, value_name = "DATE")]
    from: Option<Timestamp>,
    /// Take back what was to come into force later
    #[arg(long)]
    drop_upcoming: bool,
    /// Publish a new text only if it is proven to allow nothing that the one in force denies; needs cvc5
    #[arg(long)]
    nothing_newly_allowed: bool,
    /// For how many hours the status counts
    #[arg(long, default_value_t = 1, value_name = "HOURS", value_parser = clap::value_parser!(u64).range(1..=744))]
    status_hours: u64,
    /// How long crossings that run may go on after the status has run out, such as 5m; 0 cuts them at once [default: as before,
    /// at first 0]
    #[arg(long, value_name = "SPAN", value_parser = grace)]
    grace: Option<u64>,
    /// The home of a running node to hand it to, which passes it on; may be repeated
    #[arg(long, value_name = "HOME")]
    node_home: Vec<PathBuf>,
    /// A directory for copies of both statements
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Time for the proof of a new text.
const PROOF_MAX: Duration = Duration::from_secs(60);

const DAY_MS: u64 = 24 * 60 * 60 * 1000;
const HOUR_MS: u64 = 60 * 60 * 1000;

#[derive(Debug, Serialize)]
struct Written<'a, T> {
    file: &'a Path,
    id: StatementId,
    body: &'a T,
}

#[derive(Debug, Serialize)]
struct Revoked {
    node: PublicKey,
    new: bool,
}

#[derive(Debug, Serialize)]
struct Banned {
    ban: authority::Ban,
    banned: bool,
    changed: bool,
}

#[derive(Debug, Serialize)]
struct PublishedView {
    member: Country,
    epoch: u64,
    serial: u64,
    upcoming: Vec<authority::Adoption>,
    new_law: bool,
    /// Of a new text: whether it allows anything that the old one denies, with a crossing that shows it.
    newly_allowed: Option<Outcome>,
    status_until: Timestamp,
    grace_ms: u64,
    law_pack: PathBuf,
    status: PathBuf,
    nodes: Vec<HandedOver>,
}

/// How handing over to one node went.
#[derive(Debug, Serialize)]
struct HandedOver {
    home: PathBuf,
    accepted: u32,
    known: u32,
    error: Option<String>,
}

impl Authority {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::Init { member, name, officers, threshold, dir, protect } => {
                let protection = context.protection(protect, &dir)?;
                let made = AuthorityDir::create_with(&dir, member, &name, (officers, threshold), &protection)?;
                let public = made.public();
                Ok(context.screen.one(&public, || {
                    let mut fields = Fields::default();
                    fields.add("authority", format!("{name}, {member}"));
                    fields.add("officers", format!("{officers}, of whom {threshold} must sign"));
                    fields.add("public file", made.public_path().display());
                    format!("{fields}\nKeep the officer keys safe; hand the public file to those who draw up the charter.")
                }))
            }
            Self::Accredit(command) => command.run(context),
            Self::Revoke { dir, node } => {
                let new = context.authority(&dir)?.revoke(node)?;
                Ok(context.screen.one(&Revoked { node, new }, || {
                    let known = if new { "revoked" } else { "was revoked before" };
                    format!("{node} {known}\nIt takes effect with the next status: alliance authority publish")
                }))
            }
            Self::IssueSafeguard(command) => command.run(context),
            Self::Ban(command) => command.run(context),
            Self::Expert(command) => command.run(context),
            Self::Publish(command) => command.run(context).await,
            Self::Rotate { dir, charter: file, officers, threshold, again, protect } => {
                let mut authority = context.authority(&dir)?;
                let protection = context.protection(protect, &dir)?;
                let public = authority.rotate(&charter(&file)?, officers, threshold, again, &protection)?;
                let view = PublicAuthority::read(&public)?;
                Ok(context.screen.one(&view, || {
                    let member = view.member;
                    let mut fields = Fields::default();
                    fields.add("next officers", format!("{officers}, of whom {threshold} must sign"));
                    fields.add("public file", public.display());
                    let next = format!("alliance charter propose --officers {member}={} --out FILE", public.display());
                    format!("{fields}\nThey speak once the charter says so: {next}")
                }))
            }
        }
    }
}

impl Accredit {
    fn run(self, context: &Context) -> Result<Exit, Problem> {
        let charter = charter(&self.charter)?;
        let organisation = Organisation {
            name: self.organisation,
            roles: self.organisation_roles.into_iter().collect(),
            controlled_by: self.controlled_by,
            state_controlled: self.state_controlled,
        };
        let roles = self.roles.into_iter().collect();
        let valid_ms = self.days.saturating_mul(DAY_MS);
        let request = AccreditRequest {
            node: self.node,
            organisation,
            zone: self.zone,
            roles,
            tier: self.tier,
            place: self.place,
            from: self.from,
            valid_ms,
        };
        let signed: Signed<Accreditation> = context.authority(&self.dir)?.accredit(&charter, &request, context.now)?;
        written(context, &self.out, &signed, |body| {
            let until = figures::instant(body.validity.until, context.now);
            let place = body.place.map(|place| format!(" at {place}")).unwrap_or_default();
            let (node, name, member, tier) = (body.node, &body.organisation.name, body.member, body.tier);
            let since = match body.validity.from {
                from if from == context.now => String::new(),
                from => format!("from {from} "),
            };
            format!("accredited {node} as {name}, {member}, {since}until {until}; its place is {tier}{place}")
        })
    }
}

impl IssueSafeguard {
    fn run(self, context: &Context) -> Result<Exit, Problem> {
        let charter = charter(&self.charter)?;
        let request = SafeguardRequest {
            kind: self.kind,
            from: self.from,
            to: self.to,
            labels: self.labels.into_iter().collect(),
            recipient: self.recipient,
            rules: self.rules.into_iter().collect(),
            filed: self.filed,
            valid_ms: self.days.saturating_mul(DAY_MS),
            reference: self.reference,
        };
        let signed: Signed<Safeguard> = context.authority(&self.dir)?.issue_safeguard(&charter, &request, context.now)?;
        written(context, &self.out, &signed, |body| {
            let until = figures::instant(body.validity.until, context.now);
            format!(
                "issued {} before the law of {}, from {} to {}, until {until}\nit may satisfy {}",
                body.kind,
                body.issuer,
                body.from,
                body.to,
                figures::words(&body.rules, "nothing"),
            )
        })
    }
}

impl Ban {
    fn run(self, context: &Context) -> Result<Exit, Problem> {
        let ban = match (self.to, self.node) {
            (Some(country), _) => authority::Ban::Destination(country),
            (None, Some(node)) => authority::Ban::Recipient(node),
            (None, None) => return Err(Problem::new(Exit::Usage, "say what is banned: --to CC or --node KEY")),
        };
        let banned = !self.lift;
        let changed = context.authority(&self.dir)?.set_ban(ban, banned)?;
        Ok(context.screen.one(&Banned { ban, banned, changed }, || {
            let what = match ban {
                authority::Ban::Destination(country) => country.to_string(),
                authority::Ban::Recipient(node) => node.to_string(),
            };
            let how = match (banned, changed) {
                (true, true) => "banned",
                (true, false) => "was banned before",
                (false, true) => "no longer banned",
                (false, false) => "was not banned",
            };
            format!("{what} {how}\nIt takes effect with the next status: alliance authority publish")
        }))
    }
}

impl Publish {
    async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let charter = charter(&self.charter)?;
        let text = |path: &Option<PathBuf>| {
            path.as_deref().map(|path| durable::read_text(path, limits::LAW_PACK_BYTES_MAX)).transpose()
        };
        let (law, directives) = (text(&self.law)?, text(&self.directives)?);
        let status_ms = self.status_hours.saturating_mul(HOUR_MS);
        let (from, drop_upcoming, grace_ms) = (self.from, self.drop_upcoming, self.grace);
        let request = PublishRequest { law, directives, from, drop_upcoming, status_ms, grace_ms };
        if let Some(out) = &self.out {
            // Before anything is signed, so that no number is spent on what cannot be handed out.
            std::fs::create_dir_all(out).map_err(durable::at("make the directory", out))?;
        }
        let mut authority = context.authority(&self.dir)?;
        let newly_allowed = self.newly_allowed(&authority, &charter, &request, context.now).await?;
        let published = authority.publish(&charter, &request, context.now, &CedarGate::new())?;
        let (mut pack_path, mut status_path) = (authority.law_pack_path(), authority.status_path());
        if let Some(out) = &self.out {
            let member = authority.member();
            pack_path = out.join(format!("law-pack-{member}.alliance"));
            status_path = out.join(format!("status-{member}.alliance"));
            durable::write(&pack_path, published.law_pack.bytes(), Readers::All, Existing::Replace)?;
            for pack in &published.upcoming {
                let path = out.join(format!("law-pack-{member}-{}.alliance", pack.body().epoch));
                durable::write(&path, pack.bytes(), Readers::All, Existing::Replace)?;
            }
            durable::write(&status_path, published.status.bytes(), Readers::All, Existing::Replace)?;
        }
        let mut exit = Exit::Done;
        let mut nodes = Vec::new();
        for home in &self.node_home {
            let (accepted, known, error) = match hand_over(home, &published).await {
                Ok((accepted, known)) => (accepted, known, None),
                Err(problem) => {
                    // Every node is tried; the first failure is the exit code.
                    exit = if exit == Exit::Done { problem.exit } else { exit };
                    (0, 0, Some(problem.message))
                }
            };
            nodes.push(HandedOver { home: home.clone(), accepted, known, error });
        }
        let Published { law_pack, upcoming: _, status, new_law } = published;
        let (pack, body): (&LawPack, &Status) = (law_pack.body(), status.body());
        let view = PublishedView {
            member: body.member,
            epoch: pack.epoch,
            serial: body.serial,
            upcoming: body.upcoming.clone(),
            new_law,
            newly_allowed,
            status_until: body.validity.until,
            grace_ms: body.grace_ms,
            law_pack: pack_path,
            status: status_path,
            nodes,
        };
        context.screen.one(&view, || text_of(context, &view));
        Ok(exit)
    }
}

impl Publish {
    /// What a new text would newly allow, told before anything is signed. Where that was forbidden, it has to be proven.
    async fn newly_allowed(
        &self,
        authority: &AuthorityDir,
        charter: &Chartered,
        request: &PublishRequest,
        now: Timestamp,
    ) -> Result<Option<Outcome>, Problem> {
        // What is taken back is not what the new text follows.
        let at = request.from.filter(|_| !request.drop_upcoming).unwrap_or(now).max(now);
        let before = authority.in_force(charter, at)?;
        let (Some(old), true) = (before, request.law.is_some() || request.directives.is_some()) else {
            return Ok(None);
        };
        let text = |new: &Option<String>, old: &str| new.clone().unwrap_or_else(|| old.to_owned());
        let (law, directives) = (text(&request.law, &old.law), text(&request.directives, &old.directives));
        let new = Pack::new(old.owner, old.epoch.saturating_add(1), &law, &directives);
        // What a node refuses is refused first, with its line.
        CedarGate::new().check(&new).map_err(AuthorityError::Pack)?;
        let mut proofs = Proofs::new(PROOF_MAX).map_err(setup)?;
        let outcome = newly_allowed(&mut proofs, &old, &new).await?.outcome;
        if self.nothing_newly_allowed && !outcome.is_proven() {
            let message = format!("not published: that the new text allows nothing new is {outcome}");
            return Err(Problem::new(Exit::Denied, message).hint("alliance policy diff shows all that changes"));
        }
        Ok(Some(outcome))
    }
}

async fn hand_over(home: &Path, published: &Published) -> Result<(u32, u32), Problem> {
    let daemon = ApiClient::connect(&Home::at(home)?).await?;
    let bytes = |bytes: &[u8]| ByteBuf::from(bytes.to_vec());
    // The packs first: a status that names a pack that is not there yet would stop crossings for a moment.
    let packs = published.upcoming.iter().chain([&published.law_pack]).map(|pack| bytes(pack.bytes()));
    let mut handed = (0, 0);
    // Each by itself: together they may be more than one call carries.
    for statement in packs.chain([bytes(published.status.bytes())]) {
        match daemon.call(&AdminCall::Adopt(vec![statement])).await? {
            Reply::Adopted { accepted, known } => handed = (handed.0 + accepted, handed.1 + known),
            _ => return Err(unexpected()),
        }
    }
    Ok(handed)
}

fn text_of(context: &Context, view: &PublishedView) -> String {
    let mut fields = Fields::default();
    fields.add("member", view.member);
    let new = if view.new_law && view.upcoming.is_empty() { "new" } else { "unchanged" };
    fields.add("law", format!("epoch {}, {new}", view.epoch));
    for next in &view.upcoming {
        fields.add("to come", format!("epoch {}, {}", next.epoch, figures::instant(next.from, context.now)));
    }
    match &view.newly_allowed {
        Some(Outcome::Proven) => fields.add("newly allowed", "nothing, proven"),
        Some(Outcome::Refuted { counterexample }) => fields.add("newly allowed", format!("for example {counterexample}")),
        Some(Outcome::NotProven { reason }) => fields.add("newly allowed", format!("not known, not proven: {reason}")),
        None => {}
    }
    fields.add("status", format!("serial {}, until {}", view.serial, figures::instant(view.status_until, context.now)));
    if view.grace_ms > 0 {
        fields.add("grace", format!("{} for what runs then", figures::lasting(view.grace_ms)));
    }
    fields.add("law pack", view.law_pack.display());
    fields.add("status file", view.status.display());
    if view.nodes.is_empty() {
        return fields.to_string();
    }
    let mut table = Table::new(["node", "handed over"]);
    for node in &view.nodes {
        let how = match &node.error {
            Some(error) => format!("no: {error}"),
            None => format!("{} new, {} known", node.accepted, node.known),
        };
        table.row([node.home.display().to_string(), how]);
    }
    format!("{fields}\n{table}")
}

/// Reads how long what runs may outlast a status.
fn grace(text: &str) -> Result<u64, String> {
    match text {
        "0" => Ok(0),
        _ => text.parse().map(|span: Span| span.ms).map_err(|error| format!("{error}, or 0 for none")),
    }
}

/// Writes a signed statement to a file and says so.
fn written<T: Statement>(
    context: &Context,
    out: &Path,
    signed: &Signed<T>,
    text: impl FnOnce(&T) -> String,
) -> Result<Exit, Problem> {
    durable::write(out, signed.bytes(), Readers::All, Existing::Replace)?;
    let view = Written { file: out, id: signed.id(), body: signed.body() };
    Ok(context.screen.one(&view, || format!("{}\nwritten to {}", text(view.body), out.display())))
}

/// Reads a charter that enough members signed.
pub(super) fn charter(path: &Path) -> Result<Chartered, Problem> {
    Ok(Chartered::open(&durable::read(path, limits::CHARTER_LOG_BYTES_MAX)?)?)
}
