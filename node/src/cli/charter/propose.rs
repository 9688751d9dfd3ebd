//! `alliance charter propose`: the draft of the version that follows.

use std::path::PathBuf;

use alliance_protocol::{
    charter::{Charter, WitnessRule},
    vocabulary::{Country, Seat},
};
use clap::Args;

use super::{Witnesses, add, authority_of, log, majority, view};
use crate::{
    cli::{
        Context, Problem,
        words::{MemberFile, MemberSeat},
    },
    durable::{self, Existing, Readers},
    exit::Exit,
};

/// Draw up the version of the charter that follows, to be signed as this one and the new one demand
///
/// An authority that is new, or has new officers, signs as well: nobody becomes a member by what others say.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    alliance charter propose --admit EG=eg/authority.json --out next.alliance\n  \
    alliance charter propose --after charter.alliance --partner KZ=kz/authority.json --out next.alliance\n  \
    alliance charter propose --seat ZA=suspended --out next.alliance\n  \
    alliance charter propose --officers BR=br/authority.next.json --out next.alliance\n\n\
    Then: alliance charter sign next.alliance --dir DIR, by as many as must; alliance charter submit next.alliance")]
pub(in crate::cli) struct Propose {
    /// The log of the versions before [default: that of the daemon]
    #[arg(long, value_name = "FILE")]
    after: Option<PathBuf>,
    /// A new full member and the public file of its authority; may be repeated
    #[arg(long, value_name = "CC=FILE")]
    admit: Vec<MemberFile>,
    /// A new member without a vote and the public file of its authority; may be repeated
    #[arg(long, value_name = "CC=FILE")]
    partner: Vec<MemberFile>,
    /// What a member may do from now on: full, partner (no vote) or suspended (no vote and no crossings); may be repeated
    #[arg(long, value_name = "CC=SEAT")]
    seat: Vec<MemberSeat>,
    /// A member that leaves; may be repeated
    #[arg(long, value_name = "CC")]
    withdraw: Vec<Country>,
    /// A member's new officers, as in a public file of its authority; may be repeated
    #[arg(long, value_name = "CC=FILE")]
    officers: Vec<MemberFile>,
    /// What people call the alliance, if that changes
    #[arg(long)]
    name: Option<String>,
    /// How many full members must sign [default: as before, or more than half where that is not possible any more]
    #[arg(long, value_name = "K")]
    threshold: Option<u32>,
    #[command(flatten)]
    witnesses: Witnesses,
    /// Where the draft goes
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Propose {
    pub(super) async fn run(self, context: &Context) -> Result<Exit, Problem> {
        let before = log(context, self.after.as_deref()).await?;
        let next = self.body(before.charter(), before.latest().id(), context.now)?;
        let says =
            |charter: &Charter| (charter.name.clone(), charter.threshold, charter.witnesses, charter.members.clone());
        if says(&next) == says(before.charter()) {
            let hint = "say what changes: --admit, --partner, --seat, --withdraw, --officers, --name, --threshold, --witnesses or \
                        --witness-grace";
            return Err(Problem::new(Exit::Usage, "it would say what the charter says already").hint(hint));
        }
        let draft = before.draft_next(&next).map_err(|error| Problem::of(Exit::Usage, &error))?;
        durable::write(&self.out, &draft.to_bytes(), Readers::All, Existing::Keep)?;
        view::show(context, &draft.to_bytes(), Some(&before))
    }

    fn body(
        &self,
        before: &Charter,
        id: alliance_protocol::id::StatementId,
        now: alliance_protocol::time::Timestamp,
    ) -> Result<Charter, Problem> {
        let mut members = before.members.clone();
        let stranger = |member: &Country| Problem::new(Exit::Usage, format!("{member} is not a member"));
        for member in &self.withdraw {
            members.remove(member).ok_or_else(|| stranger(member))?;
        }
        for MemberSeat { member, seat } in &self.seat {
            members.get_mut(member).ok_or_else(|| stranger(member))?.seat = *seat;
        }
        for file in &self.officers {
            let (member, authority) = authority_of(file)?;
            members.get_mut(&member).ok_or_else(|| stranger(&member))?.authority = authority;
        }
        add(&mut members, &self.admit, Seat::Full)?;
        add(&mut members, &self.partner, Seat::Partner)?;
        let (least, full) = (majority(&members), members.values().filter(|member| member.seat == Seat::Full).count());
        let others = members.len().saturating_sub(1);
        let most = u32::try_from(full).unwrap_or(u32::MAX).max(least);
        Ok(Charter {
            name: self.name.clone().unwrap_or_else(|| before.name.clone()),
            version: before.version.saturating_add(1),
            // Not before the one that it follows, whatever clock that was drawn up by.
            issued: now.max(before.issued),
            threshold: self.threshold.unwrap_or(before.threshold.clamp(least, most)),
            previous: Some(id),
            witnesses: self.witnesses.rule(WitnessRule {
                countries: before.witnesses.countries.min(u32::try_from(others).unwrap_or(u32::MAX)),
                ..before.witnesses
            }),
            members,
        })
    }
}
