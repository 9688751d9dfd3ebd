//! `alliance key rotate`: draws the key that is to take the place of the node's, and lets it take it.

use std::path::PathBuf;

use alliance_protocol::{authority::Accreditation, key::PublicKey, limits, vocabulary::Country};
use clap::Args;
use serde::Serialize;

use super::{Context, Problem};
use crate::{
    cli::{figures, screen::Fields},
    durable,
    exit::Exit,
    home::{Home, NextKey, Rotated},
    keys::PassphraseFrom,
};

/// Give the node another key, with its ledger, its offers and its duties
///
/// The first time, this draws the new key beside the old one and says what the authority has to accredit; the daemon may run.
/// With the accreditation that comes back, and the daemon stopped, the new key takes over: both keys sign that, the ledger
/// records it, and the old secret is removed from the home. Other nodes hear of it when the daemon has started again, and
/// refuse the old key from then on. If it is interrupted, run it again. To give up a key that waits, remove node.next.key.
///
/// Offers are made again under the new key. Safeguards that are limited to this node as their recipient, and approvals by
/// officers, were given to the old key: have them given again. Copies of the old home and its key are of no more use; if the
/// old key may be in other hands, have the authority revoke it as well (alliance authority revoke).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  alliance key rotate\n  \
    alliance key rotate --accreditation usp.alliance --reason 'a laptop was stolen'")]
pub(in crate::cli) struct Rotate {
    /// The accreditation of the new key, signed by the node's authority: let the new key take over
    #[arg(long, value_name = "FILE")]
    accreditation: Option<PathBuf>,

    /// Why the key is changed, for the record
    #[arg(long, value_name = "TEXT", requires = "accreditation")]
    reason: Option<String>,

    /// Encrypt the new key with a passphrase
    #[arg(long, conflicts_with = "accreditation")]
    protect: bool,

    /// The file that holds the passphrase of the new key, on one line [default: that of the old key, or the terminal]
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
}

/// What waits for the authority.
#[derive(Debug, Serialize)]
struct Waits {
    home: PathBuf,
    old: PublicKey,
    new: PublicKey,
    drawn: bool,
    member: Country,
    organisation: String,
}

/// What was done.
#[derive(Debug, Serialize)]
struct Done {
    home: PathBuf,
    old: PublicKey,
    new: PublicKey,
    entry: u64,
}

impl Rotate {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let passphrases =
            self.new_passphrase_file.clone().map_or_else(|| context.passphrases.clone(), PassphraseFrom::File);
        match &self.accreditation {
            Some(file) => {
                let accreditation = durable::read(file, limits::STATEMENT_BYTES_MAX)?;
                let rotated = home.rotate(&accreditation, self.reason.as_deref().unwrap_or_default(), &passphrases)?;
                Ok(done(context, &home, &rotated))
            }
            None => match home.finish()? {
                Some(rotated) => Ok(done(context, &home, &rotated)),
                None => {
                    let next = home.draw_next_key(self.protect.then_some(&passphrases))?;
                    Ok(waits(context, &home, &next))
                }
            },
        }
    }
}

fn waits(context: &Context, home: &Home, next: &NextKey) -> Exit {
    let NextKey { old, new, drawn, accreditation } = next;
    let waits = Waits {
        home: home.root().to_owned(),
        old: *old,
        new: *new,
        drawn: *drawn,
        member: accreditation.member,
        organisation: accreditation.organisation.name.clone(),
    };
    context.screen.one(&waits, || {
        let mut fields = Fields::default();
        fields.add("home", waits.home.display());
        fields.add("key", waits.old);
        fields.add(if *drawn { "new key" } else { "key that waits" }, waits.new);
        format!(
            "{fields}\nHand the new key to the authority of {}. It accredits it as it did the old one:\n  {}\n\
             With the file that comes back, stop the daemon and run:\n  alliance --home {} key rotate --accreditation FILE",
            waits.member,
            command(&waits.new, accreditation),
            waits.home.display()
        )
    })
}

/// What the authority has to run.
fn command(new: &PublicKey, accreditation: &Accreditation) -> String {
    let of = &accreditation.organisation;
    let mut command = format!(
        "alliance authority accredit --node {new} --organisation {} --roles {}",
        of.name,
        figures::words(&accreditation.roles, "").replace(", ", ",")
    );
    if !of.roles.is_empty() {
        command.push_str(&format!(" --organisation-roles {}", figures::words(&of.roles, "").replace(", ", ",")));
    }
    if let Some(zone) = accreditation.zone {
        command.push_str(&format!(" --zone {zone}"));
    }
    if let Some(country) = of.controlled_by {
        command.push_str(&format!(" --controlled-by {country}"));
    }
    if of.state_controlled {
        command.push_str(" --state-controlled");
    }
    command + " --dir DIR --charter LOG --out FILE"
}

fn done(context: &Context, home: &Home, rotated: &Rotated) -> Exit {
    let done = Done { home: home.root().to_owned(), old: rotated.old, new: rotated.new, entry: rotated.entry };
    context.screen.one(&done, || {
        let mut fields = Fields::default();
        fields.add("home", done.home.display());
        fields.add("key", done.new);
        fields.add("key before", done.old);
        fields.add("recorded", format!("entry {}", done.entry));
        format!(
            "{fields}\nStart the daemon: allianced --home {}\nOthers refuse the old key from when they hear of it, and its \
             offers are made again. Have safeguards that are limited to this node, and approvals, given again for the new \
             key. Nodes that have the old one in `bootstrap` need the new one there.",
            done.home.display()
        )
    })
}
