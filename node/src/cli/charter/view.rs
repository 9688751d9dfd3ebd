//! What is shown of a charter: what it says and changes, who signed, and what is missing until it holds.

use std::collections::BTreeSet;

use alliance_protocol::{
    charter::{Authority, Charter, Chartered, Membership, WitnessRule},
    envelope::{Draft, Signed},
    id::{AllianceId, StatementId},
    key::{PublicKey, SecretKey},
    vocabulary::{Country, Seat},
};
use serde::Serialize;

use crate::{
    cli::{
        Context, Problem, figures, problem,
        screen::{Fields, Table},
    },
    exit::Exit,
};

#[derive(Debug, Serialize)]
struct View {
    name: String,
    version: u32,
    issued: String,
    threshold: u32,
    witnesses: WitnessRule,
    members: Vec<MemberLine>,
    /// The id of the version; that of the founding one is the alliance's once it holds.
    id: StatementId,
    /// What it changes, where the version before is known.
    changes: Vec<String>,
    holds: bool,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct MemberLine {
    member: Country,
    seat: Seat,
    authority: String,
    officers: Vec<PublicKey>,
    threshold: u32,
    signatures: usize,
    signed: bool,
}

#[derive(Debug, Serialize)]
struct VersionLine {
    version: u32,
    issued: String,
    id: StatementId,
    changes: Vec<String>,
    /// The members whose authorities signed it.
    signed: BTreeSet<Country>,
}

/// Reads a charter with any number of signatures, none included. One is added that is thrown away with the copy, because a
/// body is only given out from under a signature.
fn opened(bytes: &[u8]) -> Result<(Signed<Charter>, Vec<PublicKey>), Problem> {
    let untrusted = |error| Problem::of(Exit::Untrusted, &error);
    let reader = SecretKey::from_seed(blake3::hash(bytes).as_bytes());
    let draft = Draft::<Charter>::open(bytes).map_err(untrusted)?;
    let copy = draft.sign(&reader).finish().map_err(untrusted)?;
    let signers = copy.signers().iter().copied().filter(|key| *key != reader.public()).collect();
    Ok((copy, signers))
}

/// Shows one version; of a log the one in force.
pub(super) fn show(context: &Context, bytes: &[u8], before: Option<&Chartered>) -> Result<Exit, Problem> {
    if let Ok(log) = Chartered::open(bytes)
        && log.charter().version > 1
    {
        let (versions, latest) = (log.versions().count(), log.latest());
        let earlier = log.versions().nth(versions.saturating_sub(2)).map(Signed::body);
        let changes = earlier.map(|earlier| changes(earlier, latest.body())).unwrap_or_default();
        return Ok(print(context, latest, latest.signers(), changes, None));
    }
    let (charter, signers) = opened(bytes)?;
    let body = charter.body();
    let earlier = before.and_then(|before| before.versions().find(|version| Some(version.id()) == body.previous));
    let changes = earlier.map(|earlier| changes(earlier.body(), body)).unwrap_or_default();
    let problem = match (body.version, before) {
        (1, _) => Chartered::found(bytes).err().map(|error| problem::chain(&error)),
        (_, Some(before)) => before.clone().succeed(bytes).err().map(|error| problem::chain(&error)),
        (_, None) => Some("the version before is not known here; say --after LOG".to_owned()),
    };
    Ok(print(context, &charter, &signers, changes, problem))
}

fn print(
    context: &Context,
    charter: &Signed<Charter>,
    signers: &[PublicKey],
    changes: Vec<String>,
    problem: Option<String>,
) -> Exit {
    let body = charter.body();
    let line = |(member, Membership { seat, authority }): (&Country, &Membership)| MemberLine {
        member: *member,
        seat: *seat,
        authority: authority.name.clone(),
        officers: authority.officers.clone(),
        threshold: authority.threshold,
        signatures: authority.officers.iter().filter(|officer| signers.contains(officer)).count(),
        signed: authority.spoke(signers),
    };
    let view = View {
        name: body.name.clone(),
        version: body.version,
        issued: body.issued.to_string(),
        threshold: body.threshold,
        witnesses: body.witnesses,
        members: body.members.iter().map(line).collect(),
        id: charter.id(),
        changes,
        holds: problem.is_none(),
        problem,
    };
    context.screen.one(&view, || text(&view))
}

fn text(view: &View) -> String {
    let mut fields = Fields::default();
    fields.add("name", &view.name);
    fields.add("version", view.version);
    fields.add("issued", &view.issued);
    fields.add("id", AllianceId(view.id.0));
    let full = view.members.iter().filter(|member| member.seat == Seat::Full).count();
    fields.add("must sign", format!("{} of {full} full members", view.threshold));
    fields.add("witnesses", witnessed(&view.witnesses));
    for change in &view.changes {
        fields.add("changes", change);
    }
    fields.add(
        "holds",
        match &view.problem {
            Some(problem) => format!("not yet: {problem}"),
            None => "yes".to_owned(),
        },
    );
    let mut table = Table::new(["member", "seat", "authority", "officers", "signatures", "signed"]);
    for member in &view.members {
        table.row([
            member.member.to_string(),
            member.seat.to_string(),
            member.authority.clone(),
            member.officers.len().to_string(),
            format!("{}, {} needed", member.signatures, member.threshold),
            figures::yes(member.signed),
        ]);
    }
    format!("{fields}\n{table}")
}

/// Shows all versions.
pub(super) fn log(context: &Context, chartered: &Chartered) -> Result<Exit, Problem> {
    let mut before: Option<&Charter> = None;
    let mut lines = Vec::new();
    for version in chartered.versions() {
        let body = version.body();
        // Who leaves with a version may have signed it, and is no member of it any more.
        let seats = body.members.iter().chain(before.iter().flat_map(|before| &before.members));
        let signed = seats.filter(|(_, member)| member.authority.spoke(version.signers())).map(|(country, _)| *country);
        lines.push(VersionLine {
            version: body.version,
            issued: body.issued.to_string(),
            id: version.id(),
            changes: before.map_or_else(|| vec!["founded".to_owned()], |before| changes(before, body)),
            signed: signed.collect(),
        });
        before = Some(body);
    }
    Ok(context.screen.list(&lines, || {
        let mut table = Table::new(["version", "issued", "what it changed", "signed by"]);
        for line in &lines {
            let signed = line.signed.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            table.row([line.version.to_string(), line.issued.clone(), line.changes.join("; "), signed]);
        }
        table.to_string()
    }))
}

/// What one version says differently from the one before, one line each.
fn changes(old: &Charter, new: &Charter) -> Vec<String> {
    let mut changes = Vec::new();
    for (country, member) in &new.members {
        let Some(was) = old.members.get(country) else {
            changes.push(format!("admits {country} ({})", member.seat));
            continue;
        };
        if was.seat != member.seat {
            changes.push(format!("{country}: {} becomes {}", was.seat, member.seat));
        }
        if !was.authority.speaks_as(&member.authority) {
            changes.push(format!("{country}: {}", officers(&was.authority, &member.authority)));
        } else if was.authority.name != member.authority.name {
            changes.push(format!("{country}: its authority is called {}", member.authority.name));
        }
    }
    let gone = old.members.keys().filter(|country| !new.members.contains_key(country));
    changes.extend(gone.map(|country| format!("{country} leaves")));
    if old.threshold != new.threshold {
        changes.push(format!("{} full members must sign, not {}", new.threshold, old.threshold));
    }
    if old.witnesses != new.witnesses {
        changes.push(format!("witnesses: {}", witnessed(&new.witnesses)));
    }
    if old.name != new.name {
        changes.push(format!("it is called {}", new.name));
    }
    changes
}

/// What a rule about witnesses says.
fn witnessed(rule: &WitnessRule) -> String {
    match rule.countries {
        0 => "none".to_owned(),
        countries => format!("nodes in {countries} other countries, within {} seconds", rule.grace_ms / 1000),
    }
}

fn officers(old: &Authority, new: &Authority) -> String {
    let come = new.officers.iter().filter(|officer| !old.officers.contains(officer)).count();
    let go = old.officers.iter().filter(|officer| !new.officers.contains(officer)).count();
    format!("{come} new officers, {go} gone; {} of {} must sign", new.threshold, new.officers.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charter(members: &[(&str, Seat, u8)], threshold: u32) -> Charter {
        let member = |(code, seat, seed): &(&str, Seat, u8)| {
            let officers = vec![SecretKey::from_seed(&[*seed; 32]).public()];
            let authority = Authority { name: (*code).to_owned(), officers, threshold: 1 };
            (code.parse().expect("a country"), Membership { seat: *seat, authority })
        };
        let members = members.iter().map(member).collect();
        let issued = alliance_protocol::time::Timestamp(0);
        Charter {
            name: "A".to_owned(),
            version: 1,
            issued,
            threshold,
            previous: None,
            witnesses: WitnessRule::NONE,
            members,
        }
    }

    #[test]
    fn each_change_is_named() {
        let old = charter(&[("BR", Seat::Full, 1), ("IN", Seat::Full, 2), ("ZA", Seat::Full, 3), ("RU", Seat::Full, 4)], 3);
        let mut new = charter(
            &[("BR", Seat::Full, 9), ("IN", Seat::Suspended, 2), ("RU", Seat::Full, 4), ("KZ", Seat::Partner, 5)],
            2,
        );
        new.name = "B".to_owned();
        new.members.get_mut(&"RU".parse().expect("a country")).expect("a member").authority.name = "RKN".to_owned();
        let expected = [
            "BR: 1 new officers, 1 gone; 1 of 1 must sign",
            "IN: full becomes suspended",
            "admits KZ (partner)",
            "RU: its authority is called RKN",
            "ZA leaves",
            "2 full members must sign, not 3",
            "it is called B",
        ];
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&old, &old), Vec::<String>::new());
    }
}
