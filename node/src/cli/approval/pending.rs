//! `alliance approval list`, `show`, `grant` and `refuse`: what waits for approval, and a word on it.

use std::path::PathBuf;

use alliance_protocol::{
    authority::Approval as Body,
    core::admin::{AdminCall, ApprovalView, NeededApproval, PendingApproval, Reply},
    envelope::Draft,
    gate::PackOwner,
    key::SecretKey,
    limits,
    time::Validity,
};
use clap::Args;
use serde::Serialize;
use serde_bytes::ByteBuf;

use crate::{
    cli::{
        Context, Problem, figures,
        problem::unexpected,
        screen::{Fields, Table},
        words::Span,
    },
    durable::{self, Existing, Readers},
    exit::Exit,
    keys,
};

/// What is said of a crossing that waits.
#[derive(Debug, Args)]
pub(in crate::cli) struct Word {
    /// The crossing that was denied, by its id or the beginning of it (alliance approval list)
    #[arg(value_name = "ID")]
    crossing: String,
    /// The key of the officer or the expert
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For how long it counts
    #[arg(long = "for", default_value = "7d", value_name = "SPAN")]
    span: Span,
    /// Not only for this recipient, but for everybody to whom the law lets it go
    #[arg(long)]
    to_all: bool,
    /// Write it to a file (for `alliance approval submit`) and do not hand it to the daemon
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Listed<'a> {
    pending: &'a [PendingApproval],
    standing: &'a [ApprovalView],
}

#[derive(Debug, Serialize)]
struct Said<'a> {
    body: &'a Body,
    file: Option<PathBuf>,
}

async fn ask(context: &Context) -> Result<(Vec<PendingApproval>, Vec<ApprovalView>), Problem> {
    match context.daemon().await?.call(&AdminCall::Approvals).await? {
        Reply::Approvals { pending, standing } => Ok((pending, standing)),
        _ => Err(unexpected()),
    }
}

pub(super) async fn list(context: &Context) -> Result<Exit, Problem> {
    let (pending, standing) = ask(context).await?;
    let listed = Listed { pending: &pending, standing: &standing };
    Ok(context.screen.one(&listed, || {
        let mut waits = Table::new(["waits", "artefact", "from", "to", "purpose", "use", "needed", "denied"]);
        for one in &pending {
            waits.row([
                one.crossing.short(),
                one.name.clone(),
                one.from.to_string(),
                one.to.to_string(),
                one.purpose.to_string(),
                one.use_.to_string(),
                figures::words(one.needed.iter().map(needed), ""),
                figures::instant(one.denied, context.now),
            ]);
        }
        let mut given = Table::new(["approval", "word", "by", "for", "manifest", "to", "purpose", "until", "reason"]);
        for one in &standing {
            let by = one.by.iter().map(|by| if by.name.is_empty() { by.key.short() } else { by.name.clone() });
            given.row([
                one.approval.to_string().chars().take(8).collect(),
                if one.body.granted { "yes" } else { "no" }.to_owned(),
                figures::words(by, ""),
                one.body.on_behalf.to_string(),
                one.body.manifest.to_string().chars().take(8).collect(),
                one.body.importer.map_or_else(|| "all".to_owned(), |importer| importer.short()),
                one.body.purpose.to_string(),
                figures::instant(one.body.validity.until, context.now),
                one.body.reason.clone(),
            ]);
        }
        let mut out = if pending.is_empty() { "nothing waits for approval\n".to_owned() } else { format!("{waits}\n") };
        if !standing.is_empty() {
            out.push_str(&format!("\n{given}\n"));
        }
        out
    }))
}

/// How far one of the approvals is that are needed.
fn needed(needed: &NeededApproval) -> String {
    let word = |wanted| needed.approvers.iter().filter(|approver| approver.granted == Some(wanted)).count();
    let (granted, refused) = (word(true), word(false));
    let refused = if refused > 0 { format!(", {refused} refused") } else { String::new() };
    format!("{granted} of {} for {}{refused}", needed.officers, needed.on_behalf)
}

pub(super) async fn show(context: &Context, begins: &str) -> Result<Exit, Problem> {
    let (pending, _) = ask(context).await?;
    let one = find(pending, begins)?;
    Ok(context.screen.one(&one, || {
        let mut fields = Fields::default();
        fields.add("crossing", one.crossing);
        fields.add("artefact", &one.name);
        fields.add("manifest", one.manifest);
        fields.add("from", format!("{}, node {}", one.from, one.exporter));
        fields.add("to", format!("{}, node {}", one.to, one.importer));
        fields.add("purpose", one.purpose);
        fields.add("use", one.use_);
        fields.add("denied", figures::instant(one.denied, context.now));
        let mut table = Table::new(["for", "needed", "who", "key", "word"]);
        for needed in &one.needed {
            for approver in &needed.approvers {
                let word = approver.granted.map_or("none", |granted| if granted { "yes" } else { "no" });
                table.row([
                    needed.on_behalf.to_string(),
                    needed.officers.to_string(),
                    approver.name.clone(),
                    approver.key.to_string(),
                    word.to_owned(),
                ]);
            }
        }
        format!("{fields}\n{table}\n")
    }))
}

fn find(pending: Vec<PendingApproval>, begins: &str) -> Result<PendingApproval, Problem> {
    let fits = |one: &PendingApproval| {
        let mut ids = one.earlier.iter().chain([&one.crossing]);
        !begins.is_empty() && ids.any(|id| id.to_string().starts_with(begins))
    };
    let mut found: Vec<_> = pending.into_iter().filter(fits).collect();
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        (None, _) => {
            let message = format!("no crossing `{begins}` waits for approval here");
            Err(Problem::new(Exit::NotFound, message).hint("alliance approval list"))
        }
        (Some(_), false) => {
            Err(Problem::new(Exit::Usage, format!("several crossings begin with `{begins}`; give more of the id")))
        }
    }
}

impl Word {
    /// Signs a yes or a no, and hands it to the daemon.
    pub(super) async fn say(self, context: &Context, granted: bool, reason: String) -> Result<Exit, Problem> {
        if self.span.ms > limits::OFFER_MS_MAX {
            return Err(Problem::new(Exit::Usage, "it counts for at most 366 days"));
        }
        if reason.len() > limits::TEXT_BYTES_MAX {
            return Err(Problem::new(Exit::Usage, format!("a reason has at most {} bytes", limits::TEXT_BYTES_MAX)));
        }
        let daemon = context.daemon().await?;
        let (pending, _) = ask(context).await?;
        let one = find(pending, &self.crossing)?;
        let key = keys::read(&self.key, &mut |key| context.passphrases.ask(key))?;
        let body = Body {
            on_behalf: speaks_for(&one, &key)?,
            manifest: one.manifest,
            exporter: one.exporter,
            importer: (!self.to_all).then_some(one.importer),
            purpose: one.purpose,
            use_: one.use_,
            granted,
            reason,
            validity: Validity::lasting_ms(context.now, self.span.ms),
        };
        let alliance = super::super::status::ask(&daemon).await?.alliance;
        let signed = Draft::new(&body, alliance).sign(&key).finish()?;
        match &self.out {
            Some(out) => durable::write(out, signed.bytes(), Readers::All, Existing::Replace)?,
            None => match daemon.call(&AdminCall::Adopt(vec![ByteBuf::from(signed.bytes().to_vec())])).await? {
                Reply::Adopted { .. } => {}
                _ => return Err(unexpected()),
            },
        }
        let said = Said { body: &body, file: self.out.clone() };
        Ok(context.screen.one(&said, || {
            let until = figures::instant(body.validity.until, context.now);
            let word = if granted { "approved" } else { "refused" };
            let to = if body.importer.is_some() { one.to.to_string() } else { "all to whom the law lets it go".to_owned() };
            format!("{word} for {}: `{}` to {to}, for {}, until {until}", body.on_behalf, one.name, body.purpose)
        }))
    }
}

/// For whom the holder of a key speaks, of those whose approval is needed.
fn speaks_for(one: &PendingApproval, key: &SecretKey) -> Result<PackOwner, Problem> {
    let public = key.public();
    let counts = |needed: &&NeededApproval| needed.approvers.iter().any(|approver| approver.key == public);
    one.needed.iter().find(counts).map(|needed| needed.on_behalf).ok_or_else(|| {
        let message = format!("the key {public} is of nobody whose approval is needed here");
        Problem::new(Exit::Untrusted, message).hint(format!("alliance approval show {}", one.crossing.short()))
    })
}
