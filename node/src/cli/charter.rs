//! `alliance charter`: drawing up, signing and reading the founding document.

use std::{collections::BTreeMap, path::PathBuf};

use alliance_protocol::{
    charter::{self, Chartered},
    envelope::{Draft, Signed},
    id::{AllianceId, StatementId},
    key::{PublicKey, SecretKey},
    limits,
    vocabulary::Country,
};
use clap::Subcommand;
use serde::Serialize;

use super::{
    Context, Problem, figures,
    screen::{Fields, Table},
    words::MemberFile,
};
use crate::{
    authority::{AuthorityDir, PublicAuthority},
    durable::{self, Existing, Readers},
    exit::Exit,
};

#[derive(Debug, Subcommand)]
pub(super) enum Charter {
    /// Draw up the charter of a new alliance, to be signed by its members
    #[command(after_help = "Example:\n  alliance charter new --name 'BRICS AI' --member BR=br/authority.json \
        --member IN=in/authority.json --out charter.alliance")]
    New {
        /// What people call the alliance
        #[arg(long)]
        name: String,
        /// A member and the public file of its authority; repeat for each
        #[arg(long, required = true, value_name = "CC=FILE")]
        member: Vec<MemberFile>,
        /// How many members must sign [default: more than half]
        #[arg(long, value_name = "K")]
        threshold: Option<u32>,
        /// Where the draft goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Sign a charter with an authority's officer keys
    ///
    /// Read it first: alliance charter show FILE. Each member signs in turn; the order does not matter.
    #[command(after_help = "Example:\n  alliance charter sign charter.alliance --dir br")]
    Sign {
        /// The charter, or the draft of it
        #[arg(value_name = "FILE")]
        charter: PathBuf,
        /// The authority's directory
        #[arg(long)]
        dir: PathBuf,
        /// Where the signed charter goes [default: the same file]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what a charter says, who has signed it and whether it holds
    #[command(after_help = "Example:\n  alliance charter show charter.alliance")]
    Show {
        #[arg(value_name = "FILE")]
        charter: PathBuf,
    },
}

#[derive(Debug, Serialize)]
struct View {
    name: String,
    version: u32,
    issued: String,
    threshold: u32,
    members: Vec<MemberLine>,
    /// The id of the charter, which is the alliance's once the charter holds.
    id: StatementId,
    holds: bool,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct MemberLine {
    member: Country,
    authority: String,
    officers: Vec<PublicKey>,
    threshold: u32,
    signatures: usize,
    signed: bool,
}

impl Charter {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::New { name, member, threshold, out } => {
                let members = members(&member)?;
                let majority = u32::try_from(members.len()).unwrap_or(u32::MAX) / 2 + 1;
                let threshold = threshold.unwrap_or(majority);
                let (version, previous) = (1, None);
                let body = charter::Charter { name, version, issued: context.now, threshold, previous, members };
                let draft = Chartered::draft(&body).map_err(|error| Problem::of(Exit::Usage, &error))?;
                durable::write(&out, &draft.to_bytes(), Readers::All, Existing::Keep)?;
                show(context, &draft.to_bytes())
            }
            Self::Sign { charter, dir, out } => {
                let draft = durable::read(&charter, limits::CHARTER_BYTES_MAX)?;
                let signed = AuthorityDir::open(&dir)?.sign_charter(&draft)?;
                durable::write(&out.unwrap_or(charter), signed.bytes(), Readers::All, Existing::Replace)?;
                show(context, signed.bytes())
            }
            Self::Show { charter } => show(context, &durable::read(&charter, limits::CHARTER_BYTES_MAX)?),
        }
    }
}

fn members(files: &[MemberFile]) -> Result<BTreeMap<Country, charter::Authority>, Problem> {
    let mut members = BTreeMap::new();
    for MemberFile { member, file } in files {
        let public = PublicAuthority::read(file)?;
        if public.member != *member {
            let message = format!("`{}` is of the authority of {}, not of {member}", file.display(), public.member);
            return Err(Problem::new(Exit::Usage, message));
        }
        if members.insert(*member, public.into()).is_some() {
            return Err(Problem::new(Exit::Usage, format!("{member} is named twice")));
        }
    }
    Ok(members)
}

/// Reads a charter with any number of signatures, none included. One is added that is thrown away with the copy, because a
/// body is only given out from under a signature.
fn opened(bytes: &[u8]) -> Result<(Signed<charter::Charter>, Vec<PublicKey>), Problem> {
    let untrusted = |error| Problem::of(Exit::Untrusted, &error);
    let reader = SecretKey::from_seed(blake3::hash(bytes).as_bytes());
    let draft = Draft::<charter::Charter>::open(bytes).map_err(untrusted)?;
    let copy = draft.sign(&reader).finish().map_err(untrusted)?;
    let signers = copy.signers().iter().copied().filter(|key| *key != reader.public()).collect();
    Ok((copy, signers))
}

fn show(context: &Context, bytes: &[u8]) -> Result<Exit, Problem> {
    let (charter, signers) = opened(bytes)?;
    let body = charter.body();
    let line = |(member, authority): (&Country, &charter::Authority)| MemberLine {
        member: *member,
        authority: authority.name.clone(),
        officers: authority.officers.clone(),
        threshold: authority.threshold,
        signatures: authority.officers.iter().filter(|officer| signers.contains(officer)).count(),
        signed: authority.spoke(&signers),
    };
    let holds = Chartered::found(bytes);
    let view = View {
        name: body.name.clone(),
        version: body.version,
        issued: body.issued.to_string(),
        threshold: body.threshold,
        members: body.members.iter().map(line).collect(),
        id: charter.id(),
        holds: holds.is_ok(),
        problem: holds.err().map(|error| super::problem::chain(&error)),
    };
    Ok(context.screen.one(&view, || text(&view)))
}

fn text(view: &View) -> String {
    let mut fields = Fields::default();
    fields.add("name", &view.name);
    fields.add("version", view.version);
    fields.add("issued", &view.issued);
    fields.add("id", AllianceId(view.id.0));
    fields.add("must sign", format!("{} of {} members", view.threshold, view.members.len()));
    fields.add(
        "holds",
        match &view.problem {
            Some(problem) => format!("not yet: {problem}"),
            None => "yes".to_owned(),
        },
    );
    let mut table = Table::new(["member", "authority", "officers", "signatures", "signed"]);
    for member in &view.members {
        table.row([
            member.member.to_string(),
            member.authority.clone(),
            member.officers.len().to_string(),
            format!("{} of {}", member.signatures, member.threshold),
            figures::yes(member.signed),
        ]);
    }
    format!("{fields}\n{table}")
}
