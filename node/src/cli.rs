//! The command `alliance`: what the operator of a node and the officers of an authority type.
//!
//! Each noun has its own file. A command reads its arguments, asks the daemon or the files, and prints what came back; it
//! decides nothing about crossings. With `-o json` every command prints JSON, and errors are JSON as well.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use alliance_protocol::time::Timestamp;
use clap::{CommandFactory as _, Parser, Subcommand, error::ErrorKind};

use crate::{
    api::ApiClient,
    authority::{AuthorityDir, AuthorityError},
    exit::Exit,
    home::Home,
    keys::{KeyFileError, PassphraseFrom, Protection},
};

mod approval;
mod audit;
mod authority;
mod charter;
mod crossing;
mod denial;
mod figures;
mod init;
mod key;
mod label;
mod ledger;
mod model;
mod offer;
mod policy;
mod problem;
mod progress;
mod pull;
mod screen;
mod shell;
mod status;
mod token;
mod training;
mod transfer;
mod words;

pub use problem::Problem;
use screen::{Format, Screen};

/// Share AI models and compute across borders, under the law of both countries.
///
/// A node lives in a home directory and runs as the daemon `allianced`. This command talks to the daemon over a socket in
/// the home, or works on files (policy, ledger, authority, charter) without one.
#[derive(Debug, Parser)]
#[command(name = "alliance", version, propagate_version = true, after_help = Exit::table(), max_term_width = 100)]
pub struct Cli {
    /// The node's home [default: $ALLIANCE_HOME, or ~/.alliance]
    #[arg(long, global = true, value_name = "DIR")]
    home: Option<PathBuf>,

    /// How to print: a `table` for people, or `json` (a list as one object per line)
    #[arg(short, long, global = true, default_value = "table", value_parser = output, value_name = "FORMAT")]
    output: Output,

    /// The file that holds the passphrase of a key that has one, on one line [default: $ALLIANCE_PASSPHRASE_FILE, or the
    /// terminal]
    #[arg(long, global = true, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,

    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    Init(init::Init),
    /// Show the state of the node: who it is, what is in force, what it holds
    #[command(after_help = "Example:\n  alliance status\n  alliance -o json status | jq .ledger_size")]
    Status,
    /// List the nodes that this one knows, and whether they have standing
    #[command(after_help = "Example:\n  alliance peers")]
    Peers,
    /// Import, list and check the models at this node
    #[command(subcommand)]
    Model(model::Model),
    /// Record what made a model, and prove where it was trained
    #[command(subcommand)]
    Training(training::Training),
    /// Publish, list and withdraw offers of models and compute
    #[command(subcommand)]
    Offer(offer::Offer),
    Pull(pull::Pull),
    /// Ask what the law says, and check the text of law packs; needs no daemon
    #[command(subcommand)]
    Policy(policy::Policy),
    /// Approve crossings, where the rules demand the approval of officers
    #[command(subcommand)]
    Approval(approval::Approval),
    /// List and show crossings, with the reasons of each decision
    #[command(subcommand)]
    Crossing(crossing::Crossing),
    /// See what is moving now, end it, and limit how much it may take
    #[command(subcommand)]
    Transfer(transfer::Transfer),
    /// Say who may use the node over its gateway, with the clients of the Hugging Face Hub
    #[command(subcommand)]
    Token(token::Token),
    Env(token::Env),
    Label(Box<label::Label>),
    /// Read, verify and publish the node's ledger; needs no daemon
    #[command(subcommand)]
    Ledger(ledger::Ledger),
    /// Give an auditor a part of the ledger that proves itself, and check such files; needs no daemon
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Show a key file, encrypt it with a passphrase, take that off, or give the node another key; needs no daemon
    #[command(subcommand)]
    Key(key::Key),
    /// For officers of an authority: accredit, revoke, issue safeguards, publish law
    #[command(subcommand)]
    Authority(authority::Authority),
    /// Draw up, sign, hand in and show the charter of an alliance and its versions
    #[command(subcommand)]
    Charter(charter::Charter),
    #[command(hide = true)]
    Completions(shell::Completions),
    #[command(hide = true)]
    Manpage(shell::Manpage),
}

/// How to print; or where what a command writes goes, of the one command that takes that here too.
#[derive(Clone, Debug)]
enum Output {
    Print(Format),
    File(PathBuf),
}

/// What stands behind `-o`. A name with a dot or a slash is of a file.
fn output(text: &str) -> Result<Output, String> {
    match <Format as clap::ValueEnum>::from_str(text, false) {
        Ok(format) => Ok(Output::Print(format)),
        Err(_) if text.contains(['.', '/']) => Ok(Output::File(text.into())),
        Err(_) => Err("write `table` or `json`".to_owned()),
    }
}

/// What every command has at hand.
#[derive(Debug)]
struct Context {
    home: Option<PathBuf>,
    screen: Screen,
    /// The file named by `-o`.
    out: Option<PathBuf>,
    /// Where passphrases of keys come from.
    passphrases: PassphraseFrom,
    now: Timestamp,
}

impl Context {
    fn home(&self) -> Result<Home, Problem> {
        Ok(Home::locate(self.home.as_deref())?.with_passphrases(self.passphrases.clone()))
    }

    /// How a new key is kept: with a passphrase, where that was asked for.
    fn protection(&self, protect: bool, key: &Path) -> Result<Protection, Problem> {
        if !protect {
            return Ok(Protection::Plain);
        }
        Ok(Protection::Passphrase(self.passphrases.choose(key).map_err(KeyFileError::from)?))
    }

    /// The directory of an authority.
    fn authority(&self, path: &Path) -> Result<AuthorityDir, AuthorityError> {
        Ok(AuthorityDir::open(path)?.with_passphrases(self.passphrases.clone()))
    }

    async fn daemon(&self) -> Result<ApiClient, Problem> {
        Ok(ApiClient::connect(&self.home()?).await?)
    }
}

/// Runs the command line `arguments` (the program's name first) to its end.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&arguments, &error),
    };
    let (format, out) = match cli.output {
        Output::Print(format) => (format, None),
        Output::File(path) => (Format::default(), Some(path)),
    };
    let passphrases = PassphraseFrom::locate(cli.passphrase_file.as_deref());
    let context = Context { home: cli.home, screen: Screen::new(format), out, passphrases, now: clock() };
    if context.out.is_some() && !matches!(cli.noun, Noun::Audit(audit::Audit::Export { .. })) {
        let message = "-o says how to print: `table` or `json`; only `audit export` takes a file there";
        return context.screen.problem(&Problem::new(Exit::Usage, message));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(run(&context, cli.noun)),
        Err(error) => Err(Problem::new(Exit::Failed, format!("cannot start: {error}"))),
    };
    done.unwrap_or_else(|problem| context.screen.problem(&problem))
}

async fn run(context: &Context, noun: Noun) -> Result<Exit, Problem> {
    match noun {
        Noun::Init(command) => command.run(context),
        Noun::Status => status::status(context).await,
        Noun::Peers => status::peers(context).await,
        Noun::Model(command) => command.run(context).await,
        Noun::Training(command) => command.run(context).await,
        Noun::Offer(command) => command.run(context).await,
        Noun::Pull(command) => command.run(context).await,
        Noun::Policy(command) => command.run(context).await,
        Noun::Approval(command) => command.run(context).await,
        Noun::Crossing(command) => command.run(context).await,
        Noun::Transfer(command) => command.run(context).await,
        Noun::Token(command) => command.run(context),
        Noun::Label(command) => command.run(context).await,
        Noun::Env(command) => command.run(context).await,
        Noun::Ledger(command) => command.run(context),
        Noun::Audit(command) => command.run(context),
        Noun::Key(command) => command.run(context),
        Noun::Authority(command) => command.run(context).await,
        Noun::Charter(command) => command.run(context).await,
        Noun::Completions(command) => Ok(command.run(Cli::command())),
        Noun::Manpage(command) => command.run(Cli::command()),
    }
}

/// Help and the version go to stdout; a mistake goes to stderr, as JSON if that was asked for.
fn not_parsed(arguments: &[OsString], error: &clap::Error) -> Exit {
    let shown = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if shown || !wants_json(arguments) {
        // Nothing is left to be done if the terminal is gone.
        let _ = error.print();
        return if shown { Exit::Done } else { Exit::Usage };
    }
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let message = lines.next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    let hint = lines.collect::<Vec<_>>().join("; ");
    Screen::new(Format::Json).problem(&Problem::new(Exit::Usage, message).hint(hint))
}

fn wants_json(arguments: &[OsString]) -> bool {
    let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    text.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
        || text.iter().any(|word| matches!(*word, "-ojson" | "-o=json" | "--output=json"))
}

/// The instant now. A clock before 1970 reads as 1970, when nothing is valid.
fn clock() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
