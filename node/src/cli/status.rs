//! `alliance status` and `alliance peers`.

use alliance_protocol::{
    core::admin::{AdminCall, MemberView, Misplaced, NodeStatus, PeerView, Reply},
    time::Timestamp,
    vocabulary::Seat,
};

use super::{
    Context, Problem, figures,
    problem::unexpected,
    screen::{Fields, Screen, Table, Tone},
};
use crate::{api::ApiClient, exit::Exit};

/// Asks the daemon for its state.
pub(super) async fn ask(daemon: &ApiClient) -> Result<NodeStatus, Problem> {
    match daemon.call(&AdminCall::Status).await? {
        Reply::Status(status) => Ok(*status),
        _ => Err(unexpected()),
    }
}

pub(super) async fn status(context: &Context) -> Result<Exit, Problem> {
    let status = ask(&context.daemon().await?).await?;
    Ok(context.screen.one(&status, || text(&context.screen, &status)))
}

fn text(screen: &Screen, status: &NodeStatus) -> String {
    let mut fields = Fields::default();
    fields.add("node", status.node);
    if !status.former.is_empty() {
        fields.add("keys before", figures::words(&status.former, ""));
    }
    fields.add("version", &status.version);
    fields.add("alliance", format!("{} ({})", status.alliance_name, status.alliance));
    fields.add("charter", format!("version {}", status.charter));
    fields.add("country", status.country);
    fields.add("organisation", &status.organisation);
    fields.add("roles", figures::words(&status.roles, "none"));
    fields.add("accredited until", figures::instant(status.accredited_until, status.now));
    fields.add("mesh", figures::words(&status.mesh_addresses, "none"));
    fields.add("bulk", figures::words(&status.bulk_addresses, "none"));
    if let Some(gateway) = &status.gateway {
        fields.add("gateway", format!("http://{gateway}/hf"));
    }
    fields.add("peers", status.peers_admitted);
    fields.add("offers", status.offers);
    fields.add("models", status.models);
    fields.add("crossings running", status.crossings_running);
    fields.add("ledger entries", status.ledger_size);
    fields.add("witnessed", witnessed(status));
    fields.add("artefact bytes sent", figures::size(status.artefact_bytes_sent));
    fields.add("bulk socket sent", figures::size(status.bulk_socket_bytes_sent));
    fields.add("time deciding", figures::span(status.deciding_us));
    fields.add("time recording", figures::span(status.recording_us));
    let mut members = Table::new(["member", "seat", "authority", "law epoch", "status until", "crossings", "revoked"]);
    let unknown = || "unknown".to_owned();
    for member in &status.members {
        members.row([
            member.country.to_string(),
            member.seat.to_string(),
            member.authority.clone(),
            member.epoch.map_or_else(unknown, |epoch| epoch.to_string()),
            member.status_until.map_or_else(unknown, |until| figures::instant(until, status.now)),
            match (member.fresh, grace_of(member, status.now)) {
                (true, _) => "possible",
                (false, Some(_)) => "only running",
                (false, None) => "stopped",
            }
            .to_owned(),
            member.revoked.to_string(),
        ]);
    }
    let waits = |member: &&MemberView| !member.fresh && member.seat != Seat::Suspended;
    let stale: Vec<_> = status.members.iter().filter(waits).map(|member| member.country).collect();
    let suspended = status.members.iter().filter(|member| member.seat == Seat::Suspended);
    let mut text = format!("{fields}\n{members}\n");
    if let Some(problem) = &status.problem {
        text.push_str(&screen.paint(Tone::Bad, &format!("\nThis node may take part in nothing now: {problem}.")));
    }
    for member in suspended {
        let line = format!("\nNothing crosses from or to {}: it is suspended by the charter.", member.country);
        text.push_str(&screen.paint(Tone::Warning, &line));
    }
    if !stale.is_empty() {
        let stopped = figures::words(&stale, "");
        let line = format!("\nNothing crosses from or to {stopped} until its authority publishes a fresh status.");
        text.push_str(&screen.paint(Tone::Warning, &line));
    }
    for (member, until) in status.members.iter().filter_map(|member| Some((member.country, grace_of(member, status.now)?)))
    {
        let until = figures::instant(until, status.now);
        let line = format!("\nWhat runs already from or to {member} is cut at {until} unless there is one by then.");
        text.push_str(&screen.paint(Tone::Warning, &line));
    }
    if let Some(problem) = &status.witnessed.problem {
        text.push_str(&screen.paint(Tone::Bad, &format!("\nNothing crosses from or to here: {problem}.")));
    }
    for (node, why) in &status.witnessed.doubts {
        text.push_str(&screen.paint(Tone::Bad, &format!("\nNothing crosses from or to node {}: {why}.", node.short())));
    }
    for Misplaced { node, organisation, why } in &status.misplaced {
        let text_of = format!(
            "\nNode {} ({organisation}) is not where it is said to be, and counts as declared: {why}.",
            node.short()
        );
        text.push_str(&screen.paint(Tone::Warning, &text_of));
    }
    let alarms = status.members.iter().filter_map(|member| member.alarm.as_ref());
    for alarm in alarms.chain(&status.charter_alarm) {
        text.push_str(&screen.paint(Tone::Warning, &format!("\nAsk at once: {alarm}.")));
    }
    text
}

/// Until when crossings that run with a member may go on, where its status has run out and grants them that.
fn grace_of(member: &MemberView, now: Timestamp) -> Option<Timestamp> {
    let until = member.status_until.filter(|_| !member.fresh && member.seat != Seat::Suspended)?;
    Some(until.plus_ms(member.grace_ms)).filter(|over| until <= now && now < *over)
}

/// What others have signed of the ledger, in a line.
fn witnessed(status: &NodeStatus) -> String {
    let view = &status.witnessed;
    if view.needed == 0 {
        return "not demanded by the charter".to_owned();
    }
    let by = match (view.by.is_empty(), view.at) {
        (false, Some(at)) => format!(", by {}, {}", figures::words(&view.by, ""), figures::instant(at, status.now)),
        _ => String::new(),
    };
    format!("{} entries{by}", view.size)
}

pub(super) async fn peers(context: &Context) -> Result<Exit, Problem> {
    let peers = match context.daemon().await?.call(&AdminCall::Peers).await? {
        Reply::Peers(peers) => peers,
        _ => return Err(unexpected()),
    };
    Ok(context.screen.list(&peers, || table(&peers)))
}

fn table(peers: &[PeerView]) -> String {
    let mut table = Table::new(["node", "country", "organisation", "connected", "standing", "where", "mesh", "bulk"]);
    for peer in peers {
        table.row([
            peer.node.short(),
            peer.country.to_string(),
            peer.organisation.clone(),
            figures::yes(peer.connected),
            peer.problem.clone().unwrap_or_else(|| "good".to_owned()),
            where_it_is(peer),
            figures::words(&peer.mesh_addresses, "none"),
            figures::words(&peer.bulk_addresses, "none"),
        ]);
    }
    table.to_string()
}

fn where_it_is(peer: &PeerView) -> String {
    let tier = peer.tier.to_string();
    match (&peer.place_alarm, peer.place) {
        (Some(alarm), _) => format!("declared, not {tier}: {alarm}"),
        (None, Some(place)) => format!("{tier}, {place}"),
        (None, None) => tier,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_is_told_from_the_end_of_the_status_until_its_own() {
        let until = Timestamp(1_800_000_000_000);
        let member = MemberView {
            country: "BR".parse().expect("a country"),
            authority: String::new(),
            seat: Seat::Full,
            epoch: Some(1),
            status_until: Some(until),
            grace_ms: 1_000,
            fresh: false,
            revoked: 0,
            alarm: None,
        };
        let over = until.plus_ms(1_000);
        assert_eq!(grace_of(&member, until), Some(over));
        assert_eq!(grace_of(&member, over.minus_ms(1)), Some(over));
        assert_eq!(grace_of(&member, over), None);
        assert_eq!(grace_of(&member, until.minus_ms(1)), None, "it stopped for another reason");
        for other in [
            MemberView { fresh: true, ..member.clone() },
            MemberView { seat: Seat::Suspended, ..member.clone() },
            MemberView { grace_ms: 0, ..member.clone() },
            MemberView { status_until: None, ..member },
        ] {
            assert_eq!(grace_of(&other, until), None, "{other:?}");
        }
    }
}
