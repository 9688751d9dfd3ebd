//! `alliance init`: makes a home and its key, and installs the papers of the node.

use std::{net::SocketAddr, path::PathBuf};

use alliance_protocol::{id::AllianceId, key::PublicKey, limits, time::Timestamp, vocabulary::Country};
use clap::Args;
use serde::Serialize;

use super::{Context, Problem, figures, screen::Fields};
use crate::{
    config::{Config, MeshAddress},
    durable,
    exit::Exit,
    home::Created,
};

/// Make the node's home and key, and install its charter and accreditation
///
/// The first time, this draws the node's key and prints its public half: hand that to the authority of your country. Run it
/// again with the charter and the accreditation that come back; both are verified before they are installed. A key is never
/// overwritten.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    alliance init\n  \
    alliance init --charter charter.alliance --accreditation usp.alliance\n  \
    alliance init --mesh-listen /ip4/0.0.0.0/udp/4340/quic-v1 --mesh-announce /ip4/192.0.2.7/udp/4340/quic-v1 \\\n    \
    --bulk-listen 0.0.0.0:4341 --bulk-announce 192.0.2.7:4341")]
pub(super) struct Init {
    /// The charter of the alliance, signed by enough of its members
    #[arg(long, value_name = "FILE")]
    charter: Option<PathBuf>,

    /// The accreditation of this node, signed by its authority
    #[arg(long, value_name = "FILE")]
    accreditation: Option<PathBuf>,

    /// Where the mesh listens, as a multiaddr; may be repeated [default: /ip4/127.0.0.1/udp/4340/quic-v1]
    #[arg(long, value_name = "ADDR")]
    mesh_listen: Vec<MeshAddress>,

    /// Where others reach the mesh, if not where it listens; may be repeated
    #[arg(long, value_name = "ADDR")]
    mesh_announce: Vec<MeshAddress>,

    /// Where artefacts come and go, as IP:PORT [default: 127.0.0.1:4341]
    #[arg(long, value_name = "ADDR")]
    bulk_listen: Option<SocketAddr>,

    /// Where others reach the bulk endpoint, if not where it listens; may be repeated
    #[arg(long, value_name = "ADDR")]
    bulk_announce: Vec<SocketAddr>,

    /// Where the people and programs of this machine reach the node, as IP:PORT [default: 127.0.0.1:4343]
    #[arg(long, value_name = "ADDR")]
    gateway_listen: Option<SocketAddr>,

    /// The mesh address of a node to meet first; may be repeated
    #[arg(long, value_name = "ADDR")]
    bootstrap: Vec<MeshAddress>,

    /// Encrypt the node's key with a passphrase; the daemon then needs it at every start (allianced --passphrase-file)
    #[arg(long)]
    protect: bool,
}

#[derive(Debug, Serialize)]
struct Made {
    home: PathBuf,
    node: PublicKey,
    new_key: bool,
    alliance: Option<AllianceId>,
    member: Option<Country>,
    organisation: Option<String>,
    accredited_until: Option<Timestamp>,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Problem> {
        let home = context.home()?;
        let configures = self.configures();
        if configures && home.config_path().exists() {
            let message = format!("`{}` exists already and is not changed", home.config_path().display());
            return Err(Problem::new(Exit::Conflict, message).hint("edit the file, or leave the addresses out"));
        }
        let read = |path: &Option<PathBuf>, max| path.as_deref().map(|path| durable::read(path, max)).transpose();
        let charter = read(&self.charter, limits::CHARTER_LOG_BYTES_MAX)?;
        let accreditation = read(&self.accreditation, limits::STATEMENT_BYTES_MAX)?;
        let config = self.config();
        // What was put together must read back, or the daemon would be the first to complain.
        Config::parse(&config.to_text(), &home.config_path())
            .map_err(|error| Problem::of(Exit::Usage, &error).hint("see alliance init --help"))?;
        let Created { node, new_key, .. } = home.create(&config, self.protect)?;
        let papers = if charter.is_some() || accreditation.is_some() {
            home.install(charter.as_deref(), accreditation.as_deref(), context.now)?
        } else {
            home.papers(node, context.now).ok()
        };
        let accredited = papers.as_ref().map(|papers| papers.accreditation.body());
        let made = Made {
            home: home.root().to_owned(),
            node,
            new_key,
            alliance: papers.as_ref().map(|papers| papers.charter.alliance()),
            member: accredited.map(|body| body.member),
            organisation: accredited.map(|body| body.organisation.name.clone()),
            accredited_until: accredited.map(|body| body.validity.until),
        };
        Ok(context.screen.one(&made, || text(&made, context.now)))
    }

    fn configures(&self) -> bool {
        !self.mesh_listen.is_empty()
            || !self.mesh_announce.is_empty()
            || self.bulk_listen.is_some()
            || self.gateway_listen.is_some()
            || !self.bulk_announce.is_empty()
            || !self.bootstrap.is_empty()
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        if !self.mesh_listen.is_empty() {
            config.mesh.listen.clone_from(&self.mesh_listen);
        }
        config.mesh.announce.clone_from(&self.mesh_announce);
        config.mesh.bootstrap.clone_from(&self.bootstrap);
        config.bulk.listen = self.bulk_listen.unwrap_or(config.bulk.listen);
        config.bulk.announce.clone_from(&self.bulk_announce);
        config.gateway.listen = self.gateway_listen.or(config.gateway.listen);
        config
    }
}

fn text(made: &Made, now: Timestamp) -> String {
    let mut fields = Fields::default();
    fields.add("home", made.home.display());
    fields.add("node", made.node);
    let next = match (&made.organisation, made.member, made.accredited_until) {
        (Some(organisation), Some(member), Some(until)) => {
            fields.add("accredited", format!("{organisation}, {member}, until {}", figures::instant(until, now)));
            format!("Start the daemon: allianced --home {}", made.home.display())
        }
        _ => format!(
            "Hand the node's public key to the authority of your country. When the charter and the accreditation come \
             back, install them:\n  alliance --home {} init --charter FILE --accreditation FILE",
            made.home.display()
        ),
    };
    format!("{fields}\n{next}")
}
