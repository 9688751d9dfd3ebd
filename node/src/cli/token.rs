//! `alliance token`: who may use the node over its gateway. `alliance env`: what the clients of this machine need for it.

use std::{collections::BTreeMap, env};

use alliance_protocol::{
    time::Timestamp,
    vocabulary::{Circumstance, Purpose, Use},
};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    Context, Problem,
    problem::disk,
    screen::{Table, plain},
    status,
};
use crate::{
    config::GATEWAY_PORT,
    exit::Exit,
    tokens::{self, Declared, Scope, Token as Kept, TokenError},
};

/// What Hugging Face clients are told, besides where the node is: to use plain HTTP and to ask nobody else.
const QUIET: [&str; 4] =
    ["HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_UPDATE_CHECK", "DISABLE_SAFETENSORS_CONVERSION"];

/// Seconds for which they wait for the next byte. What comes from far away may come slowly; of their own accord they wait for ten.
const PATIENCE: (&str, &str) = ("HF_HUB_DOWNLOAD_TIMEOUT", "60");

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Create a token; it is shown once
    ///
    /// Without `--scope` its holder can see what there is and read what lies here. With `pull`, asking for what another node
    /// offers starts a crossing: what is said here of its purpose and use is what the law is asked about. With `write`, what its
    /// holder uploads becomes a model of the organisation, with the labels that its card says, and is offered to all members.
    #[command(
        after_help = "Examples:\n  alliance token create maria\n  alliance token create ci --scope read,pull --days 90\n  \
        alliance token create lab --scope read,pull --purpose evaluation --use fine_tuning"
    )]
    Create {
        /// Who will use it
        name: String,
        /// What its holder may do, with commas
        #[arg(long, value_enum, value_delimiter = ',', default_value = "read", value_name = "SCOPES")]
        scope: Vec<Scope>,
        /// What the holder wants models for: research, evaluation, commercial, ...
        #[arg(long, default_value_t = Purpose::Research, value_name = "PURPOSE")]
        purpose: Purpose,
        /// What will be done with them: inference, fine_tuning, training, ...
        #[arg(long = "use", default_value_t = Use::Inference, value_name = "USE")]
        use_: Use,
        /// What is true of it, with commas: public_audience where it will reach the public here, ...
        #[arg(long, value_delimiter = ',', value_name = "WORDS")]
        circumstances: Vec<Circumstance>,
        /// How many days it counts; without it, until it is revoked
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3650))]
        days: Option<u64>,
    },
    /// List the tokens
    #[command(after_help = "Example:\n  alliance token list")]
    List,
    /// Revoke a token: it opens nothing from then on
    #[command(after_help = "Example:\n  alliance token revoke 4f0c12ab")]
    Revoke {
        /// Its id, or the beginning of it; or the token itself
        id: String,
    },
}

/// Print what the clients on this machine need to use the node as their Hugging Face Hub
///
/// They are told where it is, to use it alone, and a token. For the owner of the home that is one of its own, which may do
/// everything, and starts crossings for research and inference; it is made when there is none, and kept as it is in the home. For
/// others give the one that was created for them. The token goes to whoever
/// listens there: on a machine with other users keep the daemon running, or its port to itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  eval \"$(alliance env)\"\n  alliance env --shell fish | source\n  \
    alliance env --shell powershell | Out-String | Invoke-Expression\n\n\
    Then, for example:\n  hf download usp/amazonia-7b")]
pub(super) struct Env {
    /// The shell that shall read it
    #[arg(long, value_enum, default_value = "bash")]
    shell: Shell,
    /// The token to use
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    /// And sh, zsh, dash
    Bash,
    Fish,
    Powershell,
}

/// A token that was made, with its secret.
#[derive(Serialize)]
struct Created<'a> {
    token: &'a str,
    #[serde(flatten)]
    kept: &'a Kept,
}

impl Token {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let file = tokens::of_home(home.root());
        match self {
            Self::Create { name, scope, purpose, use_, circumstances, days } => {
                let until = days.map(|days| context.now.plus_ms(days.saturating_mul(DAY_MS)));
                let declared = Declared { purpose, use_, circumstances: circumstances.into_iter().collect() };
                // Who may start crossings sees what there is.
                let may = (scope.into_iter().chain([Scope::Read]).collect(), declared);
                let (kept, secret) = file.create(&name, may, until, context.now)?;
                let created = Created { token: &secret, kept: &kept };
                Ok(context.screen.one(&created, || {
                    format!("{}\nit is not shown again; what its holder needs: alliance env --token TOKEN", secret.as_str())
                }))
            }
            Self::List => {
                let all = file.read()?;
                Ok(context.screen.list(&all, || table(&all, context.now)))
            }
            Self::Revoke { id } => {
                let revoked = file.revoke(&id)?;
                Ok(context.screen.one(&revoked, || format!("the token of {} opens nothing any more", plain(&revoked.user))))
            }
        }
    }
}

fn table(all: &[Kept], now: Timestamp) -> String {
    let mut table = Table::new(["id", "user", "may", "for", "created", "until"]);
    for token in all {
        let until = match token.until {
            None => "no end".to_owned(),
            Some(until) if until <= now => format!("{until} (over)"),
            Some(until) => until.to_string(),
        };
        let may = token.scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
        let Declared { purpose, use_, circumstances } = &token.declared;
        let said = [purpose.to_string(), use_.to_string()].into_iter().chain(circumstances.iter().map(ToString::to_string));
        let wanted = if token.scopes.contains(&Scope::Pull) { said.collect::<Vec<_>>().join(", ") } else { String::new() };
        table.row([token.id.clone(), plain(&token.user), may, wanted, token.created.to_string(), until]);
    }
    table.to_string()
}

impl Env {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let address = status::ask(&context.daemon().await?).await?.gateway.ok_or_else(|| {
            Problem::new(Exit::NotFound, "this node has no gateway").hint(format!(
                "say where it listens, `listen = \"127.0.0.1:{GATEWAY_PORT}\"` under `[gateway]` in {}, and restart the daemon",
                home.config_path().display()
            ))
        })?;
        let token = match self.token {
            Some(given) => Zeroizing::new(given),
            None => tokens::of_home(home.root()).own(context.now)?,
        };
        if !token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(Problem::new(Exit::Usage, "a token has letters, digits and `_`").hint("alliance token create NAME"));
        }
        let endpoint = format!("http://{address}/hf");
        let mut set =
            vec![("HF_ENDPOINT", endpoint.clone()), ("MODEL_ENDPOINT", endpoint), ("HF_TOKEN", token.to_string())];
        set.extend(QUIET.map(|name| (name, "1".to_owned())));
        set.push((PATIENCE.0, PATIENCE.1.to_owned()));
        // A proxy would be asked for this machine too.
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        let apart = apart(host);
        set.extend(["NO_PROXY", "no_proxy"].map(|name| (name, apart.clone())));
        let line = |(name, value): &(&str, String)| self.shell.line(name, value);
        let variables: BTreeMap<&str, &String> = set.iter().map(|(name, value)| (*name, value)).collect();
        Ok(context.screen.one(&variables, || set.iter().map(line).collect::<Vec<_>>().join("\n")))
    }
}

/// The hosts that are reached without a proxy: this one, and those that were so before, in either spelling.
fn apart(host: &str) -> String {
    let before = ["NO_PROXY", "no_proxy"].map(|name| env::var(name).unwrap_or_default()).join(",");
    let mut hosts = vec![host];
    for known in before.split([',', ' ']).filter(|known| !known.is_empty()) {
        if !hosts.contains(&known) {
            hosts.push(known);
        }
    }
    hosts.join(",")
}

impl Shell {
    /// The line that sets a variable to this text and nothing else.
    fn line(self, name: &str, value: &str) -> String {
        match self {
            Self::Bash => format!("export {name}='{}'", value.replace('\'', r"'\''")),
            Self::Fish => format!("set -gx {name} '{}'", value.replace('\\', r"\\").replace('\'', r"\'")),
            Self::Powershell => format!("$env:{name} = '{}'", value.replace('\'', "''")),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match &error {
            TokenError::File(file) => Self::of(disk(&file.source), &error),
            TokenError::Syntax { .. } => Self::of(Exit::Damaged, &error),
            TokenError::User | TokenError::Ambiguous => Self::of(Exit::Usage, &error),
            TokenError::TooMany => Self::of(Exit::Conflict, &error),
            TokenError::Unknown => Self::of(Exit::NotFound, &error).hint("alliance token list"),
            TokenError::Randomness(_) => Self::of(Exit::Failed, &error),
        }
    }
}
