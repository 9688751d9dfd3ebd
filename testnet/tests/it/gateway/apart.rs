//! A test in a network of its own, in which nothing but this machine answers and every packet to anywhere else is counted.
//!
//! The test runs itself again, as root, with a loopback of its own and one further device to which all other addresses lead, the
//! name server among them. The device takes packets and brings none back.

use std::{env, fs, process::Stdio};

use tokio::process::Command;

/// Says to a test that it runs in such a network.
const INSIDE: &str = "ALLIANCE_TEST_APART";

/// What is run before the test: $1 is the file with the name server.
const SETUP: &str = "set -e
ip link set lo up
ip link add abroad0 type veth peer name nobody0
for device in abroad0 nobody0; do
    echo 1 > /proc/sys/net/ipv6/conf/$device/disable_ipv6
    ip link set $device arp off
    ip link set $device up
done
ip addr add 192.0.2.1/24 dev abroad0
ip route add default dev abroad0
mount --bind \"$1\" /etc/resolv.conf
shift
exec \"$@\"";

/// Where a test runs.
pub(super) enum Place {
    /// In a network of its own.
    Inside,
    /// In that of this machine: it takes root to make one.
    Outside,
    /// It was run inside, and is over.
    Done,
}

/// Runs the test of this name in a network of its own, if that can be made.
pub(super) async fn run(test: &str) -> Place {
    if env::var_os(INSIDE).is_some() {
        return Place::Inside;
    }
    if !rustix::process::geteuid().is_root() {
        println!("not root: the packets to other hosts are not counted");
        return Place::Outside;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let resolver = dir.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 192.0.2.53\noptions timeout:1 attempts:1\n").expect("written");
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "sh", "-c", SETUP, "sh"]).arg(&resolver);
    command.arg(env::current_exe().expect("this test")).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let ran = command.stdin(Stdio::null()).kill_on_drop(true).output().await.expect("util-linux and iproute2 are there");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}\n{err}");
    assert!(out.contains("test result: ok. 1 passed"), "it did not run: {out}\n{err}");
    println!("{out}");
    Place::Done
}

/// Packets that were sent to any other host.
pub(super) fn packets_abroad() -> u64 {
    let devices = fs::read_to_string("/proc/self/net/dev").expect("read");
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("abroad0:")).expect("the device");
    // Eight numbers of what came, then those of what went: bytes, packets, ...
    line.split_whitespace().nth(9).and_then(|number| number.parse().ok()).expect("a number")
}
