//! A wide-area network on one machine: every node in a network namespace of its own, and between them lines with a rate and
//! a queue, delay and loss.
//!
//! - [`link`]: what becomes of packets, a pure function of them and of time
//! - `namespace`: where a node's programs run, made and removed with `ip`
//! - `carrier`: the thread that takes packets from the nodes and gives them what is due
//! - [`atlas`]: how far the members' capitals are from each other
//!
//! Both TCP and UDP go through it, packet by packet as a router sees them. It needs Linux, root and `ip`. Nothing of it is
//! left when a [`Wan`] is dropped; what a killed one left is removed by the next.

pub mod atlas;
mod carrier;
pub mod link;
mod namespace;

use std::{
    ffi::OsStr,
    io,
    net::Ipv4Addr,
    sync::mpsc::{SyncSender, sync_channel},
    thread::JoinHandle,
};

use tokio::{
    process::Command,
    sync::{mpsc, oneshot},
};
use tokio_tun::Tun;

pub use self::carrier::Carried;
use self::{
    carrier::{Order, carry},
    link::{PLACES_MAX, Place, Terrain},
    namespace::{Names, Namespace},
};

/// Orders that wait for the carrier. Whoever gives one waits for the answer.
const ORDERS_WAITING_MAX: usize = 4;

/// Bytes of an IP packet: what Ethernet carries.
const MTU_BYTES: i32 = 1500;

/// Why there is no such network.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    #[error("a wide-area network takes root: it makes network namespaces and devices; try `sudo`")]
    NotRoot,
    #[error("a wide-area network takes the program `ip`; install the package `iproute2`")]
    NoIp,
    #[error("a wide-area network has from 2 to {PLACES_MAX} nodes, or as many as it was made with, and not {0}")]
    Places(usize),
    #[error("`{command}` failed: {problem}")]
    Ip { command: String, problem: String },
    #[error("cannot {what}")]
    Io {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("the network between the nodes is gone")]
    Gone,
}

/// Places connected by a link, each a network namespace. Dropping removes all of it; what still runs there is cut off.
#[derive(Debug)]
pub struct Wan {
    /// Their names.
    namespaces: Vec<String>,
    /// None only while it is dropped.
    orders: Option<mpsc::Sender<Order>>,
    carrier: Option<JoinHandle<()>>,
}

impl Wan {
    /// Makes the namespaces and begins to carry packets. Blocks for the moments that this takes.
    ///
    /// # Errors
    /// This is not root, `ip` is missing, or the machine does not permit it.
    pub fn up(terrain: Terrain) -> Result<Self, WanError> {
        let places = terrain.lines.len();
        if !(2..=PLACES_MAX).contains(&places) {
            return Err(WanError::Places(places));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(WanError::NotRoot);
        }
        namespace::remove_abandoned()?;
        let names: Vec<_> = (0..places).map(|_| Names::new()).collect();
        let namespaces = names.iter().map(|names| names.namespace.clone()).collect();
        let (orders, given) = mpsc::channel(ORDERS_WAITING_MAX);
        let (ready, is_ready) = sync_channel(1);
        let carrier = std::thread::Builder::new()
            .name("wan".to_owned())
            .spawn(move || live(&names, &terrain, given, &ready))
            .map_err(|source| WanError::Io { what: "start a thread".to_owned(), source })?;
        let wan = Self { namespaces, orders: Some(orders), carrier: Some(carrier) };
        is_ready.recv().map_err(|_| WanError::Gone)??;
        Ok(wan)
    }

    #[must_use]
    pub fn places(&self) -> usize {
        self.namespaces.len()
    }

    /// The address of a place, for those that are in another.
    #[must_use]
    pub fn address(place: Place) -> Ipv4Addr {
        let [a, b, c] = namespace::SUBNET;
        // The first host of a network is 1.
        Ipv4Addr::new(a, b, c, u8::try_from(place + 1).unwrap_or(u8::MAX))
    }

    /// Starts a program at a place. The process is the program itself: `ip` becomes it.
    ///
    /// # Errors
    /// There is no such place.
    pub fn command(&self, place: Place, program: impl AsRef<OsStr>) -> Result<Command, WanError> {
        let name = self.namespaces.get(place).ok_or(WanError::Places(place + 1))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", name]).arg(program);
        Ok(command)
    }

    /// Begins anew, as if nothing had ever been sent: the same packets are lost again. What is under way is gone. Returns
    /// what became of the packets until now.
    ///
    /// # Errors
    /// The network is gone.
    pub async fn renew(&self) -> Result<Carried, WanError> {
        let (answer, answered) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or(WanError::Gone)?;
        orders.send(Order::Renew(answer)).await.map_err(|_| WanError::Gone)?;
        answered.await.map_err(|_| WanError::Gone)
    }
}

impl Drop for Wan {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(carrier) = self.carrier.take() {
            // It has said what went wrong, if anything did.
            let _ = carrier.join();
        }
    }
}

/// One place: its namespace, and the end of its device on which its packets come out.
struct Site {
    tun: Tun,
    _namespace: Namespace,
}

/// The life of the carrier: makes everything, carries until there is nobody to give orders, removes everything.
fn live(names: &[Names], terrain: &Terrain, orders: mpsc::Receiver<Order>, ready: &SyncSender<Result<(), WanError>>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let cannot = |source| WanError::Io { what: "start a thread".to_owned(), source };
    let said = runtime.map_err(cannot).and_then(|runtime| {
        runtime.block_on(async {
            let sites = names.iter().enumerate().map(|(place, names)| site(place, names)).collect::<Result<Vec<_>, _>>()?;
            // Nobody waits when the other thread is gone; then nobody gives orders either.
            let _ = ready.send(Ok(()));
            let tuns: Vec<_> = sites.iter().map(|site| &site.tun).collect();
            if let Err(error) = carry(&tuns, terrain, orders).await {
                eprintln!("alliance-testnet: the network between the nodes is gone: {error}");
            }
            Ok(())
        })
    });
    if let Err(error) = said {
        let _ = ready.send(Err(error));
    }
}

/// Makes a place. Its device is made here, where its other end stays, and then moved into the namespace.
fn site(place: Place, names: &Names) -> Result<Site, WanError> {
    let namespace = Namespace::make(&names.namespace)?;
    let device = &names.device;
    let cannot = |error: tokio_tun::Error| WanError::Io {
        what: format!("make the device `{device}`"),
        source: io::Error::other(error.to_string()),
    };
    let tuns = Tun::builder().name(device).mtu(MTU_BYTES).build().map_err(cannot)?;
    let tun = tuns.into_iter().next().ok_or(WanError::Gone)?;
    namespace.take_in(device, Wan::address(place))?;
    Ok(Site { tun, _namespace: namespace })
}

#[cfg(test)]
mod tests;
