//! `alliance completions` and `alliance manpage`: for packagers, hidden from the help.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::{Problem, screen::out};
use crate::exit::Exit;

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  alliance completions bash > /usr/share/bash-completion/completions/alliance")]
pub(super) struct Completions {
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands into a directory
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  alliance manpage --dir /usr/share/man/man1")]
pub(super) struct Manpage {
    /// Write a page for each command here instead
    #[arg(long)]
    dir: Option<PathBuf>,
}

impl Completions {
    pub(super) fn run(self, mut command: Command) -> Exit {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "alliance", &mut script);
        out(&String::from_utf8_lossy(&script));
        Exit::Done
    }
}

impl Manpage {
    pub(super) fn run(self, command: Command) -> Result<Exit, Problem> {
        let failed = |error: std::io::Error| Problem::of(Exit::Disk, &error);
        match self.dir {
            Some(dir) => clap_mangen::generate_to(command, dir).map_err(failed)?,
            None => {
                let mut page = Vec::new();
                clap_mangen::Man::new(command).render(&mut page).map_err(failed)?;
                out(&String::from_utf8_lossy(&page));
            }
        }
        Ok(Exit::Done)
    }
}
