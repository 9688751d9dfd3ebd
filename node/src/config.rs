//! `config.toml`: where a node listens, what it tells others, and whom it meets first.
//!
//! A configuration that was read is complete and makes sense; there is nothing to check afterwards. Nothing in it can
//! widen what the law or the charter allows.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use alliance_protocol::{key::PublicKey, limits};
use serde::Deserialize;

use crate::{
    bulk::{LANES_MAX, MTU_ETHERNET, MTU_JUMBO},
    durable::{self, FileError},
};

/// UDP port of the mesh where none is given.
pub const MESH_PORT: u16 = 4340;

/// UDP port of the bulk plane where none is given.
pub const BULK_PORT: u16 = 4341;

/// TCP port of the gateway where `alliance init` writes the configuration.
pub const GATEWAY_PORT: u16 = 4343;

/// Bytes of `config.toml`: a few dozen addresses and comments.
const CONFIG_BYTES_MAX: usize = 64 * 1024;

/// Bootstrap peers. More do not help a mesh of this size to be found.
const BOOTSTRAP_MAX: usize = 64;

/// Bytes of one mesh address.
const ADDRESS_BYTES_MAX: usize = 512;

/// The configuration of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mesh: MeshConfig,
    pub bulk: BulkConfig,
    pub house: HouseConfig,
    pub witness: WitnessConfig,
    pub gateway: GatewayConfig,
}

/// The control plane: offers, law packs, statuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshConfig {
    /// Never empty.
    pub listen: Vec<MeshAddress>,
    /// What others are told instead of the addresses listened on; empty where those can be told as they are.
    pub announce: Vec<MeshAddress>,
    /// Nodes to meet first.
    pub bootstrap: Vec<MeshAddress>,
}

/// The plane on which artefacts move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkConfig {
    pub listen: SocketAddr,
    /// What others are told instead of `listen`; empty where that can be told as it is.
    pub announce: Vec<SocketAddr>,
    /// Threads that move packets; none for the usual number.
    pub threads: Option<usize>,
    /// Bytes of UDP payload in a packet, at the most. What a path carries is found out.
    pub mtu: u16,
}

/// What goes with the rules of the house (`house.cedar`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HouseConfig {
    /// The officers whose approval counts where a rule of the house demands `approval(N)`.
    pub approvers: Vec<PublicKey>,
}

/// Where people and programs of this machine reach the node with the clients that they have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayConfig {
    /// An address of this machine alone. None, and nobody does.
    pub listen: Option<SocketAddr>,
}

/// Where logs of other programs reach this node as a witness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WitnessConfig {
    /// None, and only nodes on the mesh do.
    pub listen: Option<SocketAddr>,
}

/// A multiaddr of the mesh: `/ip4/192.0.2.7/udp/4340/quic-v1`, at a bootstrap peer with `/p2p/<peer id>` if it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshAddress(String);

/// The text is not an address of the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a mesh address; write /ip4/192.0.2.7/udp/4340/quic-v1, or ip6, dns, dns4, dns6 instead of ip4")]
pub struct BadMeshAddress(String);

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("`{}`, line {line}: {reason}", path.display())]
    Syntax { path: PathBuf, line: usize, reason: String },
    #[error("`{}`: {reason}", path.display())]
    Meaning { path: PathBuf, reason: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigText {
    #[serde(default)]
    mesh: MeshText,
    #[serde(default)]
    bulk: BulkText,
    #[serde(default)]
    house: HouseText,
    #[serde(default)]
    witness: WitnessText,
    #[serde(default)]
    gateway: GatewayText,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct GatewayText {
    listen: Option<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct WitnessText {
    listen: Option<SocketAddr>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct HouseText {
    #[serde(default)]
    approvers: Vec<PublicKey>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct MeshText {
    listen: Option<Vec<MeshAddress>>,
    #[serde(default)]
    announce: Vec<MeshAddress>,
    #[serde(default)]
    bootstrap: Vec<MeshAddress>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct BulkText {
    listen: Option<SocketAddr>,
    #[serde(default)]
    announce: Vec<SocketAddr>,
    mtu: Option<u16>,
    threads: Option<usize>,
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// It cannot be read, or what is wrong in which line.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&durable::read_text(path, CONFIG_BYTES_MAX)?, path)
    }

    /// Reads the text of a configuration; `path` is for the messages.
    ///
    /// # Errors
    /// What is wrong in which line.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let text: ConfigText = toml::from_str(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            reason: error.message().to_owned(),
        })?;
        let mesh_listen = text.mesh.listen.unwrap_or_else(default_mesh_listen);
        let mesh = MeshConfig { listen: mesh_listen, announce: text.mesh.announce, bootstrap: text.mesh.bootstrap };
        let bulk = BulkConfig {
            listen: text.bulk.listen.unwrap_or_else(default_bulk_listen),
            announce: text.bulk.announce,
            mtu: text.bulk.mtu.unwrap_or(MTU_ETHERNET),
            threads: text.bulk.threads,
        };
        let house = HouseConfig { approvers: text.house.approvers };
        let witness = WitnessConfig { listen: text.witness.listen };
        let config = Self { mesh, bulk, house, witness, gateway: GatewayConfig { listen: text.gateway.listen } };
        match config.contradiction() {
            Some(reason) => Err(ConfigError::Meaning { path: path.to_owned(), reason }),
            None => Ok(config),
        }
    }

    fn contradiction(&self) -> Option<String> {
        let mesh = &self.mesh;
        let max = limits::ADDRESSES_MAX;
        if mesh.listen.is_empty() || mesh.listen.len() > max || mesh.announce.len() > max || self.bulk.announce.len() > max
        {
            return Some(format!("`mesh.listen` has from 1 to {max} addresses, `announce` up to {max}"));
        }
        if self.house.approvers.len() > limits::OFFICERS_MAX {
            return Some(format!("`house.approvers` has more than {} keys", limits::OFFICERS_MAX));
        }
        if mesh.bootstrap.len() > BOOTSTRAP_MAX {
            return Some(format!("`mesh.bootstrap` has more than {BOOTSTRAP_MAX} addresses"));
        }
        if mesh.announce.is_empty() && mesh.listen.iter().any(MeshAddress::is_unspecified) {
            return Some("`mesh.listen` means every interface; say in `mesh.announce` where others reach this node".into());
        }
        if !(MTU_ETHERNET..=MTU_JUMBO).contains(&self.bulk.mtu) {
            return Some(format!("`bulk.mtu` is from {MTU_ETHERNET} to {MTU_JUMBO}, in bytes of UDP payload"));
        }
        if self.bulk.threads.is_some_and(|threads| !(1..=LANES_MAX).contains(&threads)) {
            return Some(format!("`bulk.threads` is from 1 to {LANES_MAX}"));
        }
        if self.bulk.announce.is_empty() && self.bulk.listen.ip().is_unspecified() {
            return Some("`bulk.listen` means every interface; say in `bulk.announce` where others reach this node".into());
        }
        if self.gateway.listen.is_some_and(|listen| !listen.ip().is_loopback()) {
            return Some(
                "`gateway.listen` is an address of this machine alone, such as 127.0.0.1: what goes over it goes in the clear, \
                 and to whoever is at the other end no law is asked"
                    .into(),
            );
        }
        if mesh.announce.iter().any(MeshAddress::is_unspecified) {
            return Some("`mesh.announce` holds an address that means every interface; nobody can connect to that".into());
        }
        if self.bulk.announce.iter().any(|address| address.ip().is_unspecified() || address.port() == 0) {
            return Some("`bulk.announce` holds an address that nobody can connect to".into());
        }
        None
    }

    /// The text of a `config.toml` with these values, with comments that tell what each is for.
    #[must_use]
    pub fn to_text(&self) -> String {
        let list = |addresses: Vec<String>| {
            let quoted: Vec<_> = addresses.into_iter().map(|text| toml::Value::String(text).to_string()).collect();
            format!("[{}]", quoted.join(", "))
        };
        let mesh = |addresses: &[MeshAddress]| list(addresses.iter().map(ToString::to_string).collect());
        format!(
            "# Configuration of an Alliance node. Read when allianced starts.\n\
             # Addresses: the mesh takes multiaddrs (UDP, QUIC), the bulk plane takes IP:PORT (UDP).\n\
             \n\
             [mesh]\n\
             # Where the control plane listens. 127.0.0.1 is reachable from this machine only; for real use write\n\
             # /ip4/0.0.0.0/udp/{MESH_PORT}/quic-v1 and say in `announce` how others reach this machine.\n\
             listen = {listen}\n\
             # What others are told. Needed when `listen` means every interface (0.0.0.0 or [::]).\n\
             announce = {announce}\n\
             # Nodes to meet first: their announced mesh addresses.\n\
             bootstrap = {bootstrap}\n\
             \n\
             [bulk]\n\
             # Where artefacts come and go. For real use 0.0.0.0:{BULK_PORT}, with `announce`.\n\
             listen = \"{bulk_listen}\"\n\
             announce = {bulk_announce}\n\
             # Bytes of UDP payload in a packet, at the most. Up to {MTU_JUMBO}: what a path carries is then found out.\n\
             mtu = {mtu}\n\
             # Threads that move packets: half of the processors unless said otherwise, at least 1 and at most 4.\n\
             {threads}\n\
             \n\
             [house]\n\
             # Public keys of the officers whose approval counts where house.cedar demands approval(N).\n\
             approvers = {approvers}\n\
             \n\
             [witness]\n\
             # Where logs of other programs ask this node for its signature, over HTTP (C2SP tlog-witness). Nodes of the alliance\n\
             # do so over the mesh, which needs nothing here.\n\
             {witness}\n\
             \n\
             [gateway]\n\
             # Where the people and programs of this machine find the node as a Hugging Face Hub: alliance env. Without\n\
             # `listen` it is off.\n\
             {gateway}\n",
            gateway = match self.gateway.listen {
                Some(listen) => format!("listen = \"{listen}\""),
                None => format!("# listen = \"127.0.0.1:{GATEWAY_PORT}\""),
            },
            witness = match self.witness.listen {
                Some(listen) => format!("listen = \"{listen}\""),
                None => "# listen = \"127.0.0.1:4342\"".to_owned(),
            },
            approvers = list(self.house.approvers.iter().map(ToString::to_string).collect()),
            listen = mesh(&self.mesh.listen),
            announce = mesh(&self.mesh.announce),
            bootstrap = mesh(&self.mesh.bootstrap),
            bulk_listen = self.bulk.listen,
            mtu = self.bulk.mtu,
            threads = match self.bulk.threads {
                Some(threads) => format!("threads = {threads}"),
                None => "# threads = 2".to_owned(),
            },
            bulk_announce = list(self.bulk.announce.iter().map(ToString::to_string).collect()),
        )
    }
}

impl Default for Config {
    /// Reachable from this machine only, on the fixed ports.
    fn default() -> Self {
        Self {
            mesh: MeshConfig { listen: default_mesh_listen(), announce: Vec::new(), bootstrap: Vec::new() },
            bulk: BulkConfig { listen: default_bulk_listen(), announce: Vec::new(), mtu: MTU_ETHERNET, threads: None },
            house: HouseConfig::default(),
            witness: WitnessConfig::default(),
            gateway: GatewayConfig { listen: Some(SocketAddr::from(([127, 0, 0, 1], GATEWAY_PORT))) },
        }
    }
}

fn default_mesh_listen() -> Vec<MeshAddress> {
    vec![MeshAddress(format!("/ip4/127.0.0.1/udp/{MESH_PORT}/quic-v1"))]
}

fn default_bulk_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], BULK_PORT))
}

/// The number of the line that holds the byte at `offset`, from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count().saturating_add(1)
}

impl MeshAddress {
    /// The multiaddr.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it means every interface.
    #[must_use]
    pub fn is_unspecified(&self) -> bool {
        self.0.split('/').nth(2).and_then(|host| host.parse::<IpAddr>().ok()).is_some_and(|ip| ip.is_unspecified())
    }
}

impl FromStr for MeshAddress {
    type Err = BadMeshAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = |host: &str| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, host, port, rest) = match parts.as_slice() {
            ["", kind, host, "udp", port, "quic-v1", rest @ ..] => (*kind, *host, *port, rest),
            _ => return Err(BadMeshAddress(text.chars().take(ADDRESS_BYTES_MAX).collect())),
        };
        let host_fits = match kind {
            "ip4" => host.parse::<std::net::Ipv4Addr>().is_ok(),
            "ip6" => host.parse::<std::net::Ipv6Addr>().is_ok(),
            "dns" | "dns4" | "dns6" => name(host),
            _ => false,
        };
        let rest_fits = match rest {
            [] => true,
            ["p2p", peer] => !peer.is_empty() && peer.bytes().all(|byte| byte.is_ascii_alphanumeric()),
            _ => false,
        };
        if host_fits && rest_fits && port.parse::<u16>().is_ok() && text.len() <= ADDRESS_BYTES_MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(BadMeshAddress(text.chars().take(ADDRESS_BYTES_MAX).collect()))
        }
    }
}

impl fmt::Display for MeshAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MeshAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("config.toml"))
    }

    #[test]
    fn the_written_text_reads_back() {
        let mut config = Config::default();
        assert_eq!(parse(&config.to_text()).expect("reads"), config);
        config.gateway.listen = None;
        assert_eq!(parse(&config.to_text()).expect("reads"), config);
        assert_eq!(parse("").expect("all defaults, and no gateway"), config);
        config.mesh.listen = vec!["/ip6/::/udp/1/quic-v1".parse().expect("an address")];
        config.mesh.announce = vec!["/dns4/node.example.org/udp/4340/quic-v1".parse().expect("an address")];
        config.mesh.bootstrap = vec!["/ip4/192.0.2.7/udp/4340/quic-v1/p2p/12D3KooWabc".parse().expect("an address")];
        config.bulk.listen = "[::]:0".parse().expect("an address");
        config.house.approvers = vec![PublicKey([7; 32])];
        config.gateway.listen = "[::1]:0".parse().ok();
        config.bulk.mtu = 8952;
        config.bulk.threads = Some(3);
        config.bulk.announce = vec!["192.0.2.7:4341".parse().expect("an address")];
        assert_eq!(parse(&config.to_text()).expect("reads"), config);
    }

    #[test]
    fn what_is_wrong_is_said_with_file_and_line() {
        let table = [
            ("[mesh]\nlisten = [\"/ip4/1.2.3/udp/1/quic-v1\"]\n", "line 2", "not a mesh address"),
            ("[mesh]\n\nbotstrap = []\n", "line 3", "expected one of `listen`, `announce`, `bootstrap`"),
            ("[blk]\n", "line 1", "expected one of `mesh`, `bulk`, `house`"),
            ("[bulk]\nlisten = \"here\"\n", "line 2", "socket address"),
            ("[bulk]\nlisten = 4341\n", "line 2", "expected"),
            ("[bulk]\nmtu = 70000\n", "line 2", "u16"),
            ("[bulk]\nthreads = 0\n", "config.toml", "`bulk.threads`"),
            ("[bulk]\nthreads = 9\n", "config.toml", "`bulk.threads`"),
            ("[bulk]\nmtu = 1200\n", "config.toml", "`bulk.mtu`"),
            ("[house]\napprovers = [\"x\"]\n", "line 2", ""),
            ("[mesh\n", "line 1", ""),
            ("[gateway]\nlisten = \"0.0.0.0:4343\"\n", "config.toml", "`gateway.listen`"),
            ("[mesh]\nlisten = []\n", "config.toml", "from 1 to 8 addresses"),
            ("[mesh]\nlisten = [\"/ip4/0.0.0.0/udp/1/quic-v1\"]\n", "config.toml", "`mesh.announce`"),
            ("[bulk]\nlisten = \"0.0.0.0:1\"\n", "config.toml", "`bulk.announce`"),
            ("[bulk]\nlisten = \"0.0.0.0:1\"\nannounce = [\"0.0.0.0:1\"]\n", "config.toml", "nobody can connect"),
        ];
        for (text, place, reason) in table {
            let message = parse(text).expect_err(text).to_string();
            assert!(message.contains("config.toml") && message.contains(place) && message.contains(reason), "{message}");
        }
    }

    #[test]
    fn mesh_addresses_are_udp_and_quic() {
        for good in ["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/4340/quic-v1", "/dns/a.b/udp/1/quic-v1/p2p/12D3"] {
            assert!(good.parse::<MeshAddress>().is_ok(), "{good}");
        }
        let bad = [
            "",
            "127.0.0.1:4340",
            "/ip4/127.0.0.1/tcp/4340",
            "/ip4/::1/udp/1/quic-v1",
            "/ip6/127.0.0.1/udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/65536/quic-v1",
            "/dns//udp/1/quic-v1",
            "/ip4/127.0.0.1/udp/1/quic-v1/",
            "/ip4/127.0.0.1/udp/1/quic-v1/p2p/",
            "/ip4/127.0.0.1/udp/1/quic",
        ];
        for text in bad {
            assert!(text.parse::<MeshAddress>().is_err(), "{text}");
        }
    }
}
