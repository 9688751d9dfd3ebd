//! `alliance charter`: drawing up, signing, handing in and reading the charter and each version that follows.
//!
//! Everything but `submit` works on files, so that officers sign on machines that no network reaches.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use alliance_protocol::{
    charter::{self, Chartered, Membership, WitnessRule},
    core::admin::{AdminCall, Reply},
    envelope::Signed,
    limits,
    trust::Accepted,
    vocabulary::{Country, Seat},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::{
    Context, Problem,
    problem::unexpected,
    words::{MemberFile, Span},
};
use crate::{
    authority::PublicAuthority,
    durable::{self, Existing, Readers},
    exit::Exit,
};

mod propose;
mod view;

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
        /// A partner, a member without a vote, and the public file of its authority; repeat for each
        #[arg(long, value_name = "CC=FILE")]
        partner: Vec<MemberFile>,
        /// How many full members must sign [default: more than half]
        #[arg(long, value_name = "K")]
        threshold: Option<u32>,
        #[command(flatten)]
        witnesses: Witnesses,
        /// Where the draft goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    Propose(propose::Propose),
    /// Sign a charter with an authority's officer keys
    ///
    /// Read it first: alliance charter show FILE. Each member signs in turn, and each officer who keeps a key apart; the order
    /// does not matter.
    #[command(after_help = "Example:\n  alliance charter sign charter.alliance --dir br")]
    Sign {
        /// The charter, or the draft of it
        #[arg(value_name = "FILE")]
        charter: PathBuf,
        /// The authority's directory
        #[arg(long)]
        dir: PathBuf,
        /// The log of the versions before, to show what the new one changes and who has to sign [default: that of the daemon,
        /// if one runs]
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
        /// Where the signed charter goes [default: the same file]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Hand a version that enough have signed to the daemon, which tells the other nodes
    ///
    /// What it changes takes effect at once: running crossings that it no longer allows are cut on both sides.
    #[command(after_help = "Example:\n  alliance charter submit next.alliance")]
    Submit {
        /// The version, or a log of several
        #[arg(value_name = "FILE")]
        charter: PathBuf,
    },
    /// Show every version of the charter, what each changed and who signed it
    #[command(
        after_help = "Examples:\n  alliance charter log\n  alliance charter log --out charter.alliance   # for a new node"
    )]
    Log {
        /// The log of its versions, or the founding charter [default: that of the daemon]
        #[arg(long, value_name = "FILE")]
        charter: Option<PathBuf>,
        /// Write the log to a file
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show what a charter says, who has signed it and whether it holds
    #[command(after_help = "Examples:\n  alliance charter show charter.alliance\n  \
        alliance charter show next.alliance --after charter.alliance")]
    Show {
        #[arg(value_name = "FILE")]
        charter: PathBuf,
        /// The log of the versions before, where it is not the founding one [default: that of the daemon, if one runs]
        #[arg(long, value_name = "FILE")]
        after: Option<PathBuf>,
    },
}

/// How ledgers are witnessed.
#[derive(Debug, Args)]
pub(super) struct Witnesses {
    /// In how many other countries a node must have signed the head of a node's ledger; 0 for none [default: 2, or as many
    /// as there are]
    #[arg(long, value_name = "N")]
    witnesses: Option<u32>,
    /// How long entries may stand without them before nothing crosses, such as 15m [default: 15m]
    #[arg(long, value_name = "TIME")]
    witness_grace: Option<Span>,
}

impl Witnesses {
    fn rule(&self, before: WitnessRule) -> WitnessRule {
        WitnessRule {
            countries: self.witnesses.unwrap_or(before.countries),
            grace_ms: self.witness_grace.map_or(before.grace_ms, |span| span.ms),
        }
    }
}

/// Milliseconds for which a new charter lets entries stand without witnesses: a restart and a failing link, and no more.
const GRACE_MS: u64 = 15 * 60 * 1000;

#[derive(Debug, Serialize)]
struct Submitted {
    accepted: u32,
    version: u32,
}

impl Charter {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::New { name, member, partner, threshold, witnesses, out } => {
                let mut members = BTreeMap::new();
                add(&mut members, &member, Seat::Full)?;
                add(&mut members, &partner, Seat::Partner)?;
                let threshold = threshold.unwrap_or(majority(&members));
                let (version, previous) = (1, None);
                // Two others are enough, if there are two.
                let others = u32::try_from(members.len()).unwrap_or(u32::MAX).saturating_sub(1);
                let witnesses = witnesses.rule(WitnessRule { countries: others.min(2), grace_ms: GRACE_MS });
                let issued = context.now;
                let body = charter::Charter { name, version, issued, threshold, previous, witnesses, members };
                let draft = Chartered::draft(&body).map_err(|error| Problem::of(Exit::Usage, &error))?;
                durable::write(&out, &draft.to_bytes(), Readers::All, Existing::Keep)?;
                view::show(context, &draft.to_bytes(), None)
            }
            Self::Propose(propose) => propose.run(context).await,
            Self::Sign { charter, dir, after, out } => {
                let draft = durable::read(&charter, limits::CHARTER_BYTES_MAX)?;
                let before = before(context, after.as_deref()).await?;
                let signed = context.authority(&dir)?.sign_charter(&draft, before.as_ref())?;
                durable::write(&out.unwrap_or(charter), signed.bytes(), Readers::All, Existing::Replace)?;
                view::show(context, signed.bytes(), before.as_ref())
            }
            Self::Submit { charter } => submit(context, &charter).await,
            Self::Log { charter, out } => {
                let chartered = log(context, charter.as_deref()).await?;
                if let Some(out) = out {
                    durable::write(&out, &chartered.to_log(), Readers::All, Existing::Replace)?;
                }
                view::log(context, &chartered)
            }
            Self::Show { charter, after } => {
                let bytes = durable::read(&charter, limits::CHARTER_LOG_BYTES_MAX)?;
                view::show(context, &bytes, before(context, after.as_deref()).await?.as_ref())
            }
        }
    }
}

/// Hands each version over by itself, in order, and says which one is in force then.
async fn submit(context: &Context, file: &Path) -> Result<Exit, Problem> {
    let bytes = durable::read(file, limits::CHARTER_LOG_BYTES_MAX)?;
    let known = log(context, None).await?;
    let versions = match Chartered::open(&bytes) {
        Ok(log) if log.alliance() != known.alliance() => {
            let message = format!("`{}` is of alliance {}, not of {}", file.display(), log.alliance(), known.alliance());
            return Err(Problem::new(Exit::Untrusted, message));
        }
        // The founding version is the operator's own; it is never handed over.
        Ok(log) => {
            let is_new = |version: &&Signed<charter::Charter>| known.versions().all(|other| other.id() != version.id());
            log.versions().filter(is_new).map(|version| ByteBuf::from(version.bytes().to_vec())).collect()
        }
        Err(_) => {
            let accepted = known.clone().succeed(&bytes).map_err(|error| {
                let hint = "see who has signed and what is missing: alliance charter show FILE";
                Problem::of(Exit::Untrusted, &error).hint(hint)
            })?;
            if accepted == Accepted::New { vec![ByteBuf::from(bytes)] } else { Vec::new() }
        }
    };
    let daemon = context.daemon().await?;
    let mut handed = 0;
    for version in versions {
        match daemon.call(&AdminCall::Adopt(vec![version])).await? {
            Reply::Adopted { accepted, .. } => handed += accepted,
            _ => return Err(unexpected()),
        }
    }
    let version = log(context, None).await?.charter().version;
    Ok(context.screen.one(&Submitted { accepted: handed, version }, || match handed {
        0 => format!("known already; version {version} of the charter is in force"),
        _ => format!("version {version} of the charter is in force at this node, which tells the others"),
    }))
}

/// A log from a file, or that of the daemon.
async fn log(context: &Context, file: Option<&Path>) -> Result<Chartered, Problem> {
    let bytes = match file {
        Some(file) => durable::read(file, limits::CHARTER_LOG_BYTES_MAX)?,
        None => match context.daemon().await?.call(&AdminCall::Charter).await? {
            Reply::Charter { log } => log.into_vec(),
            _ => return Err(unexpected()),
        },
    };
    Ok(Chartered::open(&bytes)?)
}

/// The versions before the one that is shown: from a file, or those of the daemon if one runs.
async fn before(context: &Context, file: Option<&Path>) -> Result<Option<Chartered>, Problem> {
    match file {
        Some(_) => log(context, file).await.map(Some),
        // Officers sign where there is neither home nor daemon; what cannot be told then is said.
        None => Ok(log(context, None).await.ok()),
    }
}

fn add(members: &mut BTreeMap<Country, Membership>, files: &[MemberFile], seat: Seat) -> Result<(), Problem> {
    for file in files {
        let (member, authority) = authority_of(file)?;
        if members.insert(member, Membership { seat, authority }).is_some() {
            return Err(Problem::new(Exit::Usage, format!("{member} is named twice, or is a member already")));
        }
    }
    Ok(())
}

/// The authority that a public file describes.
fn authority_of(MemberFile { member, file }: &MemberFile) -> Result<(Country, charter::Authority), Problem> {
    let public = PublicAuthority::read(file)?;
    if public.member != *member {
        let message = format!("`{}` is of the authority of {}, not of {member}", file.display(), public.member);
        return Err(Problem::new(Exit::Usage, message));
    }
    Ok((*member, public.into()))
}

/// The least threshold that a charter of these members may have.
fn majority(members: &BTreeMap<Country, Membership>) -> u32 {
    let full = members.values().filter(|member| member.seat == Seat::Full).count();
    u32::try_from(full).unwrap_or(u32::MAX) / 2 + 1
}
