//! Tickets for streams: a URL with a secret that is good once, for a minute.
//!
//! The streaming server listens on loopback only, and knows nobody: whoever shows a ticket may have its
//! stream. Tickets are given out over the CRI socket, which only root can open.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use super::{
    error::{Result, RuntimeError},
    state::lock,
};

/// How long a ticket is good.
const LIFETIME: Duration = Duration::from_secs(60);

/// Most tickets at a time; a kubelet uses each at once.
const MOST: usize = 1000;

/// What a ticket is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ticket {
    Exec { container: String, command: Vec<String>, terminal: bool, streams: Wanted },
    Attach { container: String, terminal: bool, streams: Wanted },
    PortForward { sandbox: String, ports: Vec<u16> },
}

/// Which standard streams are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

impl Wanted {
    /// Refuses what makes no sense.
    pub(crate) fn check(self, terminal: bool) -> Result<Self> {
        if terminal && self.stderr {
            return Err(RuntimeError::InvalidArgument("tty and stderr cannot both be true".into()));
        }
        if !self.stdin && !self.stdout && !self.stderr {
            return Err(RuntimeError::InvalidArgument("one of stdin, stdout, or stderr must be set".into()));
        }
        Ok(self)
    }
}

/// Tickets that haven't been used.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    address: OnceLock<SocketAddr>,
    tickets: Mutex<HashMap<String, (Instant, Ticket)>>,
}

impl Streams {
    /// Tells where the server listens.
    pub(crate) fn set_address(&self, address: SocketAddr) {
        // There is one server in a runtime's life.
        let _ = self.address.set(address);
    }

    /// Makes a ticket; the URL to open.
    pub(crate) fn issue(&self, ticket: Ticket) -> Result<String> {
        let Some(address) = self.address.get() else {
            return Err(RuntimeError::FailedPrecondition("the streaming server is not running".into()));
        };
        let kind = ticket.kind();
        // 244 random bits from the system's generator.
        let secret = super::names::new_id();
        let now = Instant::now();
        let mut tickets = lock(&self.tickets);
        tickets.retain(|_, (issued, _)| now.duration_since(*issued) < LIFETIME);
        if tickets.len() >= MOST {
            return Err(RuntimeError::FailedPrecondition(
                "maximum number of in-flight streaming requests exceeded".into(),
            ));
        }
        tickets.insert(secret.clone(), (now, ticket));
        Ok(format!("http://{address}/{kind}/{secret}"))
    }

    /// Takes a ticket back for its use.
    pub(crate) fn redeem(&self, kind: &str, secret: &str) -> Option<Ticket> {
        let mut tickets = lock(&self.tickets);
        let (issued, ticket) = tickets.get(secret)?;
        if ticket.kind() != kind {
            return None;
        }
        let fresh = issued.elapsed() < LIFETIME;
        let (_, ticket) = tickets.remove(secret)?;
        fresh.then_some(ticket)
    }
}

impl Ticket {
    fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once_and_for_one_thing() {
        let streams = Streams::default();
        let ticket = Ticket::PortForward { sandbox: "s".into(), ports: vec![] };
        assert!(streams.issue(ticket.clone()).is_err());
        streams.set_address(SocketAddr::from(([127, 0, 0, 1], 1234)));
        let url = streams.issue(ticket.clone()).unwrap();
        let secret = url.strip_prefix("http://127.0.0.1:1234/portforward/").unwrap();
        assert_eq!(streams.redeem("exec", secret), None);
        assert_eq!(streams.redeem("portforward", "guess"), None);
        assert_eq!(streams.redeem("portforward", secret), Some(ticket));
        assert_eq!(streams.redeem("portforward", secret), None);
    }

    #[test]
    fn senseless_wishes_are_refused() {
        let wanted = |stdin, stdout, stderr| Wanted { stdin, stdout, stderr };
        assert!(wanted(false, false, false).check(false).is_err());
        assert!(wanted(true, true, true).check(true).is_err());
        assert!(wanted(true, true, true).check(false).is_ok());
    }
}
