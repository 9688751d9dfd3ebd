//! `alliance authority expert`: who approves crossings for the authority.

use std::path::PathBuf;

use alliance_protocol::{authority::Expert, key::PublicKey};
use clap::Args;
use serde::Serialize;

use crate::{
    cli::{Context, Problem, screen::Table},
    exit::Exit,
};

/// Name an expert who approves crossings for the authority, or remove one; without --key, list them
///
/// Where its rules demand `approval(N)`, N of the named experts must have approved; of its officers, as long as none is named.
/// It takes effect when the next status is published, and a removed expert's word counts no more from then on.
#[derive(Debug, Args)]
#[command(
    name = "expert",
    after_help = "Examples:\n  alliance approval new-key --out ana.key\n  \
    alliance authority expert --dir br --key 4f0c... --name 'Ana Souza'\n  alliance authority expert --dir br --key 4f0c... --remove\n  \
    alliance authority expert --dir br"
)]
pub(in crate::cli) struct Command {
    /// The authority's directory
    #[arg(long)]
    dir: PathBuf,
    /// The expert's public key
    #[arg(long, value_name = "KEY")]
    key: Option<PublicKey>,
    /// The expert's name
    #[arg(long, requires = "key")]
    name: Option<String>,
    /// No longer
    #[arg(long, requires = "key", conflicts_with = "name")]
    remove: bool,
}

#[derive(Debug, Serialize)]
struct Named {
    expert: PublicKey,
    name: Option<String>,
    changed: bool,
}

impl Command {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let mut authority = context.authority(&self.dir)?;
        let Some(expert) = self.key else {
            return Ok(context.screen.list(authority.experts(), || table(authority.experts())));
        };
        if self.name.is_none() && !self.remove {
            return Err(
                Problem::new(Exit::Usage, "say the expert's name, or that it is no longer one").hint("--name or --remove")
            );
        }
        let changed = authority.name_expert(expert, self.name.as_deref())?;
        let named = Named { expert, name: self.name, changed };
        Ok(context.screen.one(&named, || {
            let how = match (&named.name, changed) {
                (Some(name), true) => format!("{name} is named"),
                (Some(name), false) => format!("{name} was named before"),
                (None, true) => "no longer an expert".to_owned(),
                (None, false) => "was no expert".to_owned(),
            };
            format!("{expert} {how}\nIt takes effect with the next status: alliance authority publish")
        }))
    }
}

fn table(experts: &[Expert]) -> String {
    let mut table = Table::new(["name", "key"]);
    for expert in experts {
        table.row([expert.name.clone(), expert.key.to_string()]);
    }
    table.to_string()
}
