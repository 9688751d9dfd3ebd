//! `alliance transfer`: what is moving now, how fast, and how much it may take.

use std::time::Duration;

use alliance_protocol::{
    core::{
        admin::{AdminCall, Reply},
        transfers::{LimitScope, Priority, ScopedLimit, TransferCall, TransferLimit, TransferView},
    },
    id::CrossingId,
    key::PublicKey,
    vocabulary::Country,
};
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{BinaryBytes, HumanDuration};

use super::{
    Context, Problem, crossing, figures,
    problem::unexpected,
    screen::{Fields, Table},
};
use crate::{api::ApiClient, exit::Exit};

#[derive(Debug, Subcommand)]
pub(super) enum Transfer {
    /// List the transfers that run, with their rates and the time that is left
    #[command(after_help = "Example:\n  alliance transfer list\n  watch alliance transfer list")]
    List,
    /// Show one transfer
    #[command(after_help = "Example:\n  alliance transfer show 4f0c12ab")]
    Show {
        /// The id of its crossing, or the beginning of it
        #[arg(value_name = "ID")]
        crossing: String,
    },
    /// End a transfer; what came is kept, and pulling again goes on after it
    #[command(after_help = "Example:\n  alliance transfer cancel 4f0c12ab")]
    Cancel {
        /// The id of its crossing, or the beginning of it
        #[arg(value_name = "ID")]
        crossing: String,
    },
    Limit(Limit),
}

/// Show or set how much transfers may take
///
/// Without an option this lists the limits. A limit holds for running transfers from the moment it is set, and outlasts a
/// restart of the daemon. It is for all transfers together, for those with one member, or for those with one node; a transfer
/// keeps every limit that it falls under. Setting one replaces what was set for the same.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance transfer limit\n  alliance transfer limit --out 200M --in 1G\n  \
    alliance transfer limit --member BR --out 50M --at-a-time 2 --priority low\n  alliance transfer limit --member BR --remove")]
pub(super) struct Limit {
    /// For the nodes of this member, together
    #[arg(long, value_name = "CC", conflicts_with = "peer")]
    member: Option<Country>,
    /// For this node
    #[arg(long, value_name = "KEY")]
    peer: Option<PublicKey>,
    /// Bits per second that may leave this node: 2M, 200M, 1.5G
    #[arg(long, value_name = "RATE", value_parser = rate)]
    out: Option<u64>,
    /// Bits per second that may come to this node
    #[arg(long = "in", value_name = "RATE", value_parser = rate)]
    in_: Option<u64>,
    /// Transfers that may run at a time, both ways together
    #[arg(long, value_name = "N")]
    at_a_time: Option<u32>,
    /// Who gets more of a limited rate: each step four times as much as the one below
    #[arg(long, value_enum, value_name = "PRIORITY")]
    priority: Option<Level>,
    /// Remove the limit
    #[arg(long, conflicts_with_all = ["out", "in_", "at_a_time", "priority"])]
    remove: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Low,
    Normal,
    High,
}

impl From<Level> for Priority {
    fn from(level: Level) -> Self {
        match level {
            Level::Low => Self::Low,
            Level::Normal => Self::Normal,
            Level::High => Self::High,
        }
    }
}

/// Reads a rate in bits per second, with K, M or G for powers of a thousand.
fn rate(text: &str) -> Result<u64, String> {
    let bad = || format!("`{text}` is not a rate; write bits per second, such as 2M, 200M or 1.5G");
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (text.get(..at), 1_000_u64),
        Some((at, 'm' | 'M')) => (text.get(..at), 1_000_000),
        Some((at, 'g' | 'G')) => (text.get(..at), 1_000_000_000),
        _ => (Some(text), 1),
    };
    let number = number.ok_or_else(bad)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |digits: &str| !digits.is_empty() && digits.len() <= 9 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !(fraction.is_empty() || digits(fraction)) || number.ends_with('.') {
        return Err(bad());
    }
    let whole: u64 = whole.parse().map_err(|_| bad())?;
    let mut bits = whole.checked_mul(unit).ok_or_else(bad)?;
    let mut step = unit;
    for digit in fraction.bytes() {
        step /= 10;
        bits = bits.checked_add(u64::from(digit.saturating_sub(b'0')).saturating_mul(step)).ok_or_else(bad)?;
    }
    Ok(bits)
}

impl Transfer {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let daemon = context.daemon().await?;
        match self {
            Self::List => {
                let transfers = list(&daemon).await?;
                let mut names = Vec::new();
                for transfer in &transfers {
                    names.push(name(&daemon, transfer).await);
                }
                Ok(context.screen.list(&transfers, || table(&transfers, &names)))
            }
            Self::Show { crossing } => {
                let transfer = one(list(&daemon).await?, &crossing)?;
                let name = name(&daemon, &transfer).await;
                Ok(context.screen.one(&transfer, || text(&transfer, &name)))
            }
            Self::Cancel { crossing } => {
                let crossing = match crossing.parse::<CrossingId>() {
                    Ok(id) => id,
                    Err(_) => one(list(&daemon).await?, &crossing)?.crossing,
                };
                match daemon.call(&AdminCall::Cancel(crossing)).await? {
                    Reply::Cancelled { crossing } => {
                        let said = serde_json::json!({ "cancelled": crossing });
                        Ok(context.screen.one(&said, || format!("cancelled {crossing}")))
                    }
                    _ => Err(unexpected()),
                }
            }
            Self::Limit(limit) => limit.run(context, &daemon).await,
        }
    }
}

async fn list(daemon: &ApiClient) -> Result<Vec<TransferView>, Problem> {
    match daemon.call(&AdminCall::Transfers(TransferCall::List)).await? {
        Reply::Transfers(transfers) => Ok(transfers),
        _ => Err(unexpected()),
    }
}

/// What is being moved. One that has just ended has no name any more.
async fn name(daemon: &ApiClient, transfer: &TransferView) -> String {
    crossing::ask(daemon, transfer.crossing).await.map(|view| view.name).unwrap_or_default()
}

fn one(transfers: Vec<TransferView>, begins: &str) -> Result<TransferView, Problem> {
    crossing::that_begins(transfers, begins, "transfer", |transfer| transfer.crossing)
}

fn per_second(transfer: &TransferView) -> String {
    format!("{}/s", BinaryBytes(transfer.bytes_per_second))
}

fn left(transfer: &TransferView) -> String {
    let left = transfer.seconds_left().map(Duration::from_secs);
    left.map_or_else(|| "nothing moves".to_owned(), |left| HumanDuration(left).to_string())
}

fn moved(transfer: &TransferView) -> String {
    format!("{} of {}", figures::size(transfer.bytes), figures::size(transfer.total))
}

fn table(transfers: &[TransferView], names: &[String]) -> String {
    let mut table = Table::new(["crossing", "way", "name", "peer", "member", "moved", "rate", "left"]);
    for (transfer, name) in transfers.iter().zip(names) {
        table.row([
            transfer.crossing.short(),
            crossing::way(transfer.side).to_owned(),
            name.clone(),
            transfer.peer.short(),
            transfer.member.map_or_else(String::new, |member| member.to_string()),
            moved(transfer),
            per_second(transfer),
            left(transfer),
        ]);
    }
    table.to_string()
}

fn text(transfer: &TransferView, name: &str) -> String {
    let mut fields = Fields::default();
    fields.add("crossing", transfer.crossing);
    fields.add("name", name);
    fields.add("way", crossing::way(transfer.side));
    fields.add("peer", transfer.peer);
    if let Some(member) = transfer.member {
        fields.add("member", member);
    }
    fields.add("moved", moved(transfer));
    fields.add("rate", per_second(transfer));
    fields.add("runs for", HumanDuration(Duration::from_millis(transfer.running_ms)));
    fields.add("left", left(transfer));
    fields.to_string()
}

impl Limit {
    async fn run(self, context: &Context, daemon: &ApiClient) -> Result<Exit, Problem> {
        let scope = match (self.peer, self.member) {
            (Some(peer), _) => LimitScope::Peer(peer),
            (None, Some(member)) => LimitScope::Member(member),
            (None, None) => LimitScope::All,
        };
        let priority = self.priority.map(Priority::from);
        let limit = TransferLimit { out: self.out, in_: self.in_, at_a_time: self.at_a_time, priority };
        let call = if limit.is_empty() && !self.remove {
            TransferCall::Limits
        } else {
            TransferCall::Limit(ScopedLimit { scope, limit })
        };
        match daemon.call(&AdminCall::Transfers(call)).await? {
            Reply::Limits(limits) => Ok(context.screen.list(&limits, || limits_table(&limits))),
            _ => Err(unexpected()),
        }
    }
}

fn limits_table(limits: &[ScopedLimit]) -> String {
    if limits.is_empty() {
        return "no limits are set".to_owned();
    }
    let mut table = Table::new(["for", "out", "in", "at a time", "priority"]);
    let bits = |rate: Option<u64>| rate.map_or_else(|| "-".to_owned(), bits);
    for ScopedLimit { scope, limit } in limits {
        table.row([
            match scope {
                LimitScope::All => "all".to_owned(),
                LimitScope::Member(member) => format!("member {member}"),
                LimitScope::Peer(peer) => format!("node {peer}"),
            },
            bits(limit.out),
            bits(limit.in_),
            limit.at_a_time.map_or_else(|| "-".to_owned(), |most| most.to_string()),
            match limit.priority.unwrap_or_default() {
                Priority::Low => "low",
                Priority::Normal => "normal",
                Priority::High => "high",
            }
            .to_owned(),
        ]);
    }
    table.to_string()
}

/// A rate as it would be written.
fn bits(rate: u64) -> String {
    let units = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s"), (1_000, "kbit/s")];
    let unit = units.into_iter().find(|(unit, _)| rate >= *unit);
    let Some((unit, word)) = unit else { return format!("{rate} bit/s") };
    let thousandths = rate / (unit / 1000);
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    format!("{} {word}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use alliance_protocol::core::admin::Side;

    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for (text, bits) in [
            ("1000000", 1_000_000),
            ("500K", 500_000),
            ("200M", 200_000_000),
            ("200m", 200_000_000),
            ("1.5G", 1_500_000_000),
            ("0.25M", 250_000),
            ("1.0005K", 1000),
        ] {
            assert_eq!(rate(text), Ok(bits), "{text}");
        }
        for text in
            ["", "M", "-1M", "1,5M", "1.M", ".5M", "1e6", "fast", "99999999999G", "1 M", "١M", "1.5.5M", "999999999G "]
        {
            let error = rate(text).expect_err(text);
            assert!(error.contains("200M"), "{error}");
        }
        assert_eq!(
            (bits(1_500_000_000), bits(200_000_000), bits(1_250_000)),
            ("1.5 Gbit/s".to_owned(), "200 Mbit/s".to_owned(), "1.25 Mbit/s".to_owned())
        );
    }

    #[test]
    fn a_transfer_that_stands_still_has_no_time_left() {
        let mut transfer = TransferView {
            crossing: CrossingId([1; 32]),
            side: Side::Importer,
            peer: PublicKey([2; 32]),
            member: "BR".parse().ok(),
            bytes: 1024 * 1024,
            total: 10 * 1024 * 1024,
            bytes_per_second: 0,
            running_ms: 90_000,
        };
        assert_eq!(left(&transfer), "nothing moves");
        transfer.bytes_per_second = 1024 * 1024;
        assert_eq!(left(&transfer), "9 seconds");
        let shown = text(&transfer, "usp/amazonia");
        for part in ["usp/amazonia", "1.00 MiB of 10.00 MiB", "1.00 MiB/s", "BR", "in"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(table(&[transfer], &["usp/amazonia".to_owned()]).contains("9 seconds"));
    }
}
