//! Network namespaces, made and removed with the program `ip`: nothing here needs to be taken apart by us.

use std::{
    fs, io,
    net::Ipv4Addr,
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicU32, Ordering},
};

use super::WanError;

/// The first three bytes of every address. No address outside the namespaces is concerned.
pub(super) const SUBNET: [u8; 3] = [10, 77, 0];

/// What the names of namespaces begin with; the process and a number follow.
const PREFIX: &str = "alliance-wan-";

/// Where `ip` keeps the names of namespaces (ip-netns(8)).
const NAMES: &str = "/run/netns";

/// Packets that wait in a device until the carrier comes by: 90 ms of full packets at 500 Mbit/s.
const DEVICE_PACKETS: &str = "4096";

/// Run in a namespace. Windows of TCP may grow to 64 MiB, three times what 500 Mbit/s keep under way for 0.3 s; what TCP
/// learnt of a path is forgotten with the connection, so that runs do not depend on those before them; and nothing but IPv4
/// is sent, so that only what is measured counts as a packet.
const SETTINGS: &str = "set -e; cd /proc/sys/net
echo 4096 131072 67108864 > ipv4/tcp_rmem
echo 4096 131072 67108864 > ipv4/tcp_wmem
echo 1 > ipv4/tcp_no_metrics_save
if [ -e ipv6/conf/all/disable_ipv6 ]; then echo 1 > ipv6/conf/all/disable_ipv6; fi";

/// A namespace, removed when it is dropped.
pub(super) struct Namespace {
    name: String,
}

/// What a namespace and its device are called, unlike any other on this machine.
pub(super) struct Names {
    pub(super) namespace: String,
    /// Before it is in its namespace. At most 15 bytes, as all of them.
    pub(super) device: String,
}

impl Names {
    pub(super) fn new() -> Self {
        /// Namespaces that this process has named.
        static NAMED: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), NAMED.fetch_add(1, Ordering::Relaxed));
        Self { namespace: format!("{PREFIX}{process}-{number}"), device: format!("alw{process}-{number}") }
    }
}

impl Namespace {
    pub(super) fn make(name: &str) -> Result<Self, WanError> {
        ip(&["netns", "add", name])?;
        let namespace = Self { name: name.to_owned() };
        ip(&["netns", "exec", name, "sh", "-c", SETTINGS])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Moves a device here, where it becomes `wan0`, and gives it an address.
    pub(super) fn take_in(&self, device: &str, address: Ipv4Addr) -> Result<(), WanError> {
        let here = self.name.as_str();
        ip(&["link", "set", device, "netns", here, "name", "wan0"])?;
        ip(&["-n", here, "address", "add", &format!("{address}/24"), "dev", "wan0"])?;
        ip(&["-n", here, "link", "set", "wan0", "txqueuelen", DEVICE_PACKETS, "up"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = ip(&["netns", "delete", &self.name]) {
            eprintln!("alliance-testnet: the namespace `{}` is left: {error}", self.name);
        }
    }
}

/// Removes namespaces whose process has gone without doing so.
pub(super) fn remove_abandoned() -> Result<(), WanError> {
    let listed = match fs::read_dir(NAMES) {
        Ok(listed) => listed,
        // There has never been one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(WanError::Io { what: format!("read `{NAMES}`"), source }),
    };
    for name in listed.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists()) {
            ip(&["netns", "delete", &name])?;
        }
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), WanError> {
    let Output { status, stderr, .. } =
        Command::new("ip").args(arguments).output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => WanError::NoIp,
            _ => WanError::Io { what: "run `ip`".to_owned(), source },
        })?;
    if status.success() {
        return Ok(());
    }
    let words = arguments.iter().copied().take_while(|word| *word != SETTINGS).collect::<Vec<_>>().join(" ");
    let problem = String::from_utf8_lossy(&stderr).trim_end().to_owned();
    Err(WanError::Ip { command: format!("ip {words}"), problem })
}
