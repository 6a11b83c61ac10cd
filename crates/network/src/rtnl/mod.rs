//! Links, addresses, routes and neighbours over rtnetlink.
//!
//! The functions of [`Changes`] encode requests; [`Rtnl`] sends them and asks what there is.

mod address;
mod link;
mod route;

use std::net::IpAddr;
use std::time::Duration;

pub use address::Address;
pub use link::{Ipv4Setting, Link, VethPair};
pub use route::{Route, RouteScope};

use crate::netlink::{Batch, NLM_F_DUMP, Protocol, Socket};
use crate::{Error, Result};

/// A 48-bit hardware address.
pub type Mac = [u8; 6];

/// Requests for changes, encoded but not sent.
#[derive(Default)]
pub struct Changes {
    batch: Batch,
}

impl Changes {
    /// No changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }
}

/// A socket for the links, addresses, routes and neighbours of one network namespace: the one in which it
/// was opened.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
}

impl Rtnl {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Protocol::Route)? })
    }

    /// Carries out changes in order and returns the first error. Later changes are tried all the same.
    pub fn apply(&mut self, changes: &Changes) -> Result<()> {
        self.socket.request(&changes.batch)
    }

    /// Carries out changes in order and returns the outcome of each.
    pub fn apply_each(&mut self, changes: &Changes) -> Result<Vec<Result<()>>> {
        self.socket.request_each(&changes.batch)
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<Link>> {
        let mut batch = Batch::new();
        batch.push(libc::RTM_GETLINK, NLM_F_DUMP, "list the network interfaces", |m| m.raw(&link::header(0, 0, 0)));
        self.socket.dump(&batch, |kind, body| (kind == libc::RTM_NEWLINK).then(|| Link::parse(body)).flatten())
    }

    /// The link of this name, if there is one.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut batch = Batch::new();
        batch.push(libc::RTM_GETLINK, 0, format!("look up the network interface {name:?}"), |m| {
            m.raw(&link::header(0, 0, 0));
            m.string(libc::IFLA_IFNAME, name);
        });
        self.socket.get(&batch, Link::parse)
    }

    /// The index of the link of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`] when there is none.
    pub fn index(&mut self, name: &str) -> Result<u32> {
        self.link(name)?.map(|link| link.index).ok_or_else(|| Error::NoSuchLink(name.to_owned()))
    }

    /// Waits until a link whose other end is up can carry packets. The kernel sees to that in its own time,
    /// at once on an idle machine, and silently drops what is sent before.
    ///
    /// # Errors
    /// [`Error::NoSuchLink`] when the link is gone. That it takes more than a second is no error: packets
    /// will flow when the machine finds the time.
    pub fn wait_until_running(&mut self, name: &str) -> Result<()> {
        const STEP: Duration = Duration::from_millis(1);
        for _ in 0..1000 {
            // Asking makes newer kernels do it right away.
            let link = self.link(name)?.ok_or_else(|| Error::NoSuchLink(name.to_owned()))?;
            if link.running {
                return Ok(());
            }
            std::thread::sleep(STEP);
        }
        tracing::warn!(interface = name, "the interface is up but carries no packets yet");
        Ok(())
    }

    /// All addresses of all links.
    pub fn addresses(&mut self) -> Result<Vec<Address>> {
        let mut batch = Batch::new();
        batch.push(libc::RTM_GETADDR, NLM_F_DUMP, "list the addresses", |m| m.raw(&[0; 8]));
        self.socket.dump(&batch, |kind, body| (kind == libc::RTM_NEWADDR).then(|| Address::parse(body)).flatten())
    }

    /// The routes of the main table, of both families.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut batch = Batch::new();
        batch.push(libc::RTM_GETROUTE, NLM_F_DUMP, "list the routes", |m| m.raw(&[0; 12]));
        self.socket.dump(&batch, |kind, body| (kind == libc::RTM_NEWROUTE).then(|| Route::parse(body)).flatten())
    }
}

pub(crate) fn family_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}
