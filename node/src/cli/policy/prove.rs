//! `alliance policy prove`: what a solver can say of packs, and of a new text of one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use alliance_policy::{CedarGate, FOUNDING_MEMBERS, baseline, founding_pack_text};
use alliance_proofs::{Outcome, Proof, Proofs, pairs};
use alliance_protocol::{
    gate::{Gate as _, Pack, PackOwner},
    limits,
    vocabulary::Country,
};
use clap::Args;
use serde::Serialize;

use super::super::{
    Context, Problem,
    screen::{Tone, plain},
    words::MemberFile,
};
use crate::{durable, exit::Exit};

/// Prove that packs keep what they must, or what a new text of one would newly allow
///
/// Proven is what no crossing breaks, whatever its labels, safeguards and instant. A proof that cannot run, because there is
/// no solver or it gives no answer in time, is told as not proven. The solver is cvc5; CVC5 names another binary.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance policy prove\n  alliance policy prove --member CN --member RU --pairs\n  \
    alliance policy prove --pack ZA=za.cedar\n  \
    alliance policy prove --member ZA --old za-1.cedar --new za-2.cedar\n\n\
    Exits with 0 if everything is proven, and 1 if anything is refuted or not proven.")]
pub(in crate::cli) struct Prove {
    /// Only the packs of these members; may be repeated [default: all that come with the program, and the baseline]
    #[arg(long, value_name = "CC")]
    member: Vec<Country>,
    /// Also every pair of these members
    #[arg(long)]
    pairs: bool,
    /// The law of a member instead of its founding pack: CC=FILE; may be repeated
    #[arg(long, value_name = "CC=FILE")]
    pack: Vec<MemberFile>,
    /// The text in force, to compare with --new
    #[arg(long, value_name = "FILE", requires = "new", requires = "member")]
    old: Option<PathBuf>,
    /// The new text: prove what it newly allows
    #[arg(long, value_name = "FILE", requires = "old")]
    new: Option<PathBuf>,
    /// Seconds for one question
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    limit: u64,
}

#[derive(Debug, Serialize)]
struct View {
    proven: usize,
    refuted: usize,
    not_proven: usize,
    proofs: Vec<Proof>,
}

impl Prove {
    pub(in crate::cli) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let mut proofs = Proofs::new(Duration::from_secs(self.limit)).map_err(setup)?;
        let found = match (&self.old, &self.new, self.member.as_slice()) {
            (Some(old), Some(new), [member]) => {
                let (old, new) = (read(*member, old)?, read(*member, new)?);
                vec![newly_allowed(&mut proofs, &old, &new).await?]
            }
            (Some(_), ..) => return Err(Problem::new(Exit::Usage, "--old and --new are texts of one --member")),
            (None, ..) => self.all(&mut proofs).await?,
        };
        let count = |wanted: fn(&Outcome) -> bool| found.iter().filter(|proof| wanted(&proof.outcome)).count();
        let view = View {
            proven: count(Outcome::is_proven),
            refuted: count(|outcome| matches!(outcome, Outcome::Refuted { .. })),
            not_proven: count(|outcome| matches!(outcome, Outcome::NotProven { .. })),
            proofs: found,
        };
        context.screen.one(&view, || text(context, &view));
        Ok(if view.proven == view.proofs.len() { Exit::Done } else { Exit::Failed })
    }

    async fn all(&self, proofs: &mut Proofs) -> Result<Vec<Proof>, Problem> {
        let members: Vec<Country> = match self.member.is_empty() {
            true => FOUNDING_MEMBERS.iter().filter_map(|code| code.parse().ok()).collect(),
            false => self.member.clone(),
        };
        let mut packs = Vec::new();
        for member in &members {
            let pack = match self.pack.iter().find(|given| given.member == *member) {
                Some(given) => read(*member, &given.file)?,
                None => founding(*member)?,
            };
            packs.push((*member, pack));
        }
        let mut found = Vec::new();
        for (_, pack) in &packs {
            found.extend(proofs.pack(pack).await.map_err(setup)?);
        }
        found.extend(proofs.pack(&baseline()).await.map_err(setup)?);
        if self.pairs {
            let of = |wanted: Country| packs.iter().find(|(member, _)| *member == wanted).map(|(_, pack)| pack);
            for (from, to) in pairs(&members) {
                if let (Some(from), Some(to)) = (of(from), of(to)) {
                    found.extend(proofs.pair(from, to, &baseline()).await.map_err(setup)?);
                }
            }
        }
        Ok(found)
    }
}

/// Whether a new text allows nothing that the old one denies.
pub(in crate::cli) async fn newly_allowed(proofs: &mut Proofs, old: &Pack, new: &Pack) -> Result<Proof, Problem> {
    let outcome = proofs.newly_allowed(old, new).await.map_err(setup)?;
    Ok(Proof {
        about: new.owner.to_string(),
        property: "the new text allows nothing that the old one denies".to_owned(),
        outcome,
    })
}

pub(in crate::cli) fn setup(error: alliance_proofs::ProofError) -> Problem {
    Problem::of(Exit::Failed, &error)
}

fn founding(member: Country) -> Result<Pack, Problem> {
    let (law, directives) = founding_pack_text(member).ok_or_else(|| {
        Problem::new(Exit::NotFound, format!("no pack of {member} comes with this program")).hint("--pack CC=FILE")
    })?;
    Ok(Pack::new(PackOwner::Member(member), 1, law, directives))
}

/// A text that a node would take; what a node refuses is not worth a proof.
fn read(member: Country, path: &Path) -> Result<Pack, Problem> {
    let text = durable::read_text(path, limits::LAW_PACK_BYTES_MAX)?;
    let pack = Pack::new(PackOwner::Member(member), 1, &text, "");
    CedarGate::new()
        .check(&pack)
        .map_err(|error| Problem::of(Exit::Failed, &error).hint(format!("mend the text (law is `{}`)", path.display())))?;
    Ok(pack)
}

fn text(context: &Context, view: &View) -> String {
    let mut text = String::new();
    let mut about = "";
    for proof in &view.proofs {
        if proof.about != about {
            text.push_str(&format!("{}\n", proof.about));
            about = &proof.about;
        }
        let outcome = match &proof.outcome {
            Outcome::Proven => context.screen.paint(Tone::Good, "proven"),
            Outcome::Refuted { counterexample } => {
                let refuted = context.screen.paint(Tone::Bad, "refuted");
                format!("{refuted}, by this crossing: {}", plain(counterexample))
            }
            Outcome::NotProven { reason } => {
                let unknown = context.screen.paint(Tone::Bad, "not proven");
                format!("{unknown}: {}", plain(reason))
            }
        };
        text.push_str(&format!("  {}: {outcome}\n", proof.property));
    }
    text.push_str(&format!("{} proven, {} refuted, {} not proven", view.proven, view.refuted, view.not_proven));
    text
}
