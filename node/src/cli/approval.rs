//! `alliance approval`: officers and named experts approve or refuse a crossing, where the rules demand the approval of some of
//! them. Signing needs no daemon, so that each can sign where his key lies.

mod pending;

use std::path::PathBuf;

use alliance_protocol::{
    authority::Approval as Body,
    core::admin::{AdminCall, Reply},
    envelope::Draft,
    gate::PackOwner,
    id::ManifestId,
    key::PublicKey,
    limits,
    time::Validity,
    vocabulary::{Country, Purpose, Use},
};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_bytes::ByteBuf;

use super::{Context, Problem, authority, figures, problem::unexpected, screen::Table, words::Span};
use crate::{
    api::ClientError,
    durable::{self, Existing, Readers},
    exit::Exit,
    keys,
};

#[derive(Debug, Subcommand)]
pub(super) enum Approval {
    /// List what waits for approval at this node, and what was approved and refused and still counts
    #[command(after_help = "Example:\n  alliance approval list")]
    List,
    /// Show who has to approve a crossing, and what they have said
    #[command(after_help = "Example:\n  alliance approval show 4f0c12ab")]
    Show {
        /// The crossing that was denied, by its id or the beginning of it
        #[arg(value_name = "ID")]
        crossing: String,
    },
    /// Approve what waits, and hand that to the node: the same may then be pulled
    #[command(
        after_help = "Example:\n  alliance approval grant 4f0c12ab --key ana.key --reason 'evaluated on 12 May' --for 30d"
    )]
    Grant {
        #[command(flatten)]
        word: pending::Word,
        /// Why
        #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
        reason: String,
    },
    /// Refuse what waits, or take an approval back; running crossings end
    #[command(
        after_help = "Example:\n  alliance approval refuse 4f0c12ab --key ana.key --reason 'it repeats its training data'"
    )]
    Refuse {
        #[command(flatten)]
        word: pending::Word,
        /// Why
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
    /// Make the key of an expert, or of an officer of the house
    ///
    /// Its public half goes to the authority (alliance authority expert), or into the node's config.toml, under [house] approvers.
    #[command(after_help = "Example:\n  alliance approval new-key --out ana.key")]
    NewKey {
        /// Where the key goes
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Encrypt it with a passphrase
        #[arg(long)]
        protect: bool,
    },
    Sign(Sign),
    /// Hand approvals to the node; it keeps them until they run out
    #[command(after_help = "Example:\n  alliance approval submit ana.approval rui.approval")]
    Submit {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
}

/// Approve or refuse, away from any node, that an artefact goes from one node to another for a purpose and a use
///
/// One person signs at a time; the node counts the last word of each. What has to be approved
/// stands in the denial of the crossing (`alliance crossing show`).
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  alliance approval sign --key ana.key --charter charter.alliance --manifest 9c1f... \\\n    \
    --exporter 4f0c... --importer 77ab... --purpose research --use inference --for 7d --out ana.approval"
)]
pub(super) struct Sign {
    /// The officer's key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The charter of the alliance
    #[arg(long, value_name = "FILE")]
    charter: PathBuf,
    /// The member for whose authority the officer speaks [default: the house of the node]
    #[arg(long, value_name = "CC")]
    member: Option<Country>,
    /// The manifest of the artefact
    #[arg(long, value_name = "ID")]
    manifest: ManifestId,
    /// The key of the node that sends
    #[arg(long, value_name = "KEY")]
    exporter: PublicKey,
    /// The key of the node that receives [default: everybody to whom the law lets it go]
    #[arg(long, value_name = "KEY")]
    importer: Option<PublicKey>,
    /// What it is wanted for
    #[arg(long, value_name = "PURPOSE")]
    purpose: Purpose,
    /// What will be done with it
    #[arg(long = "use", default_value_t = Use::Inference, value_name = "USE")]
    use_: Use,
    /// Refuse it instead, which needs a reason
    #[arg(long, requires = "reason")]
    refuse: bool,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// For how long
    #[arg(long = "for", default_value = "7d", value_name = "SPAN")]
    span: Span,
    /// Where the approval goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Serialize)]
struct NewKey {
    file: PathBuf,
    key: PublicKey,
}

#[derive(Debug, Serialize)]
struct Submitted {
    file: PathBuf,
    new: bool,
    problem: Option<String>,
}

impl Approval {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        match self {
            Self::List => pending::list(context).await,
            Self::Show { crossing } => pending::show(context, &crossing).await,
            Self::Grant { word, reason } => word.say(context, true, reason).await,
            Self::Refuse { word, reason } => word.say(context, false, reason).await,
            Self::NewKey { out, protect } => {
                let key = keys::write_new(&out, &keys::generate()?, &context.protection(protect, &out)?)?;
                let made = NewKey { file: out, key };
                Ok(context.screen.one(&made, || {
                    format!(
                        "key {}\nwritten to {}; keep it safe, and give only the public key away",
                        made.key,
                        made.file.display()
                    )
                }))
            }
            Self::Sign(sign) => sign.run(context),
            Self::Submit { files } => {
                let read = |path: &PathBuf| durable::read(path, limits::STATEMENT_BYTES_MAX).map(ByteBuf::from);
                let statements = files.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                let daemon = context.daemon().await?;
                let mut submitted = Vec::new();
                for (file, statement) in files.into_iter().zip(statements) {
                    let problem = match daemon.call(&AdminCall::Adopt(vec![statement])).await {
                        Ok(Reply::Adopted { accepted, .. }) => {
                            submitted.push(Submitted { file, new: accepted > 0, problem: None });
                            continue;
                        }
                        Ok(_) => return Err(unexpected()),
                        Err(ClientError::Refused(failure)) => failure.message,
                        Err(error) => return Err(error.into()),
                    };
                    submitted.push(Submitted { file, new: false, problem: Some(problem) });
                }
                context.screen.list(&submitted, || submitted_table(&submitted));
                let all_taken = submitted.iter().all(|one| one.problem.is_none());
                Ok(if all_taken { Exit::Done } else { Exit::Untrusted })
            }
        }
    }
}

fn submitted_table(submitted: &[Submitted]) -> String {
    let mut table = Table::new(["file", "taken", "why not"]);
    for one in submitted {
        let taken = match (&one.problem, one.new) {
            (Some(_), _) => "no",
            (None, true) => "yes",
            (None, false) => "known before",
        };
        table.row([one.file.display().to_string(), taken.to_owned(), one.problem.clone().unwrap_or_default()]);
    }
    table.to_string()
}

impl Sign {
    fn run(self, context: &Context) -> Result<Exit, Problem> {
        if self.span.ms > limits::OFFER_MS_MAX {
            return Err(Problem::new(Exit::Usage, "an approval counts for at most 366 days"));
        }
        let charter = authority::charter(&self.charter)?;
        let body = Body {
            on_behalf: self.member.map_or(PackOwner::House, PackOwner::Member),
            manifest: self.manifest,
            exporter: self.exporter,
            importer: self.importer,
            purpose: self.purpose,
            use_: self.use_,
            granted: !self.refuse,
            reason: self.reason.unwrap_or_default(),
            validity: Validity::lasting_ms(context.now, self.span.ms),
        };
        let signed = Draft::new(&body, charter.alliance())
            .sign(&keys::read(&self.key, &mut |key| context.passphrases.ask(key))?)
            .finish()?;
        durable::write(&self.out, signed.bytes(), Readers::All, Existing::Replace)?;
        Ok(context.screen.one(&body, || {
            let until = figures::instant(body.validity.until, context.now);
            let word = if body.granted { "approved" } else { "refused" };
            format!("{word} for {}, until {until}\nwritten to {}", body.on_behalf, self.out.display())
        }))
    }
}
