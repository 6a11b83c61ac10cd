//! Two machines joined by a cable, as network namespaces: one for the cluster's node, one for whoever is outside of it.

use super::Fallible;
use network::netns::Namespace;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The node's address.
pub const NODE: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Machines {
    name: String,
}

impl Machines {
    pub fn new(cluster: &str) -> Fallible<Self> {
        let machines = Self::apart(cluster)?;
        let (node, outside) = (machines.node(), machines.outside());
        ip(&["-n", &node, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &outside])?;
        for (machine, address) in [(&node, NODE), (&outside, OUTSIDE)] {
            ip(&["-n", machine, "addr", "add", &format!("{address}/24"), "dev", "eth0"])?;
            ip(&["-n", machine, "link", "set", "eth0", "up"])?;
        }
        ip(&["-n", &node, "route", "add", "default", "via", OUTSIDE])?;
        Ok(machines)
    }

    /// The same before the cable: machines that have loopback only.
    pub fn apart(cluster: &str) -> Fallible<Self> {
        // Clusters name their own namespaces after themselves: these must not look like theirs.
        let machines = Machines { name: format!("lab-{cluster}") };
        for machine in [machines.node(), machines.outside()] {
            ip(&["netns", "add", &machine])?;
            ip(&["-n", &machine, "link", "set", "lo", "up"])?;
        }
        Ok(machines)
    }

    fn node(&self) -> String {
        self.name.clone()
    }

    fn outside(&self) -> String {
        format!("{}-out", self.name)
    }

    /// A program on the node.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.node())).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// What a program on the node prints.
    pub fn run(&self, program: &str, args: &[&str]) -> Fallible<String> {
        let output = self.command(program).args(args).output()?;
        if !output.status.success() {
            return Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The body of a web server's answer to one on the node.
    pub fn ask(&self, address: &str, path: &str) -> Fallible<String> {
        ask_in(&self.node(), address, path)
    }

    /// The same for somebody outside.
    pub fn ask_from_outside(&self, address: &str, path: &str) -> Fallible<String> {
        ask_in(&self.outside(), address, path)
    }

    /// All that the node's kernel knows about networks, but counters.
    pub fn network_state(&self) -> Fallible<BTreeSet<String>> {
        let mut state = BTreeSet::new();
        for (program, args) in [
            ("nft", ["list", "ruleset"].as_slice()),
            ("ip", &["-br", "link"]),
            // Of IPv4: the kernel makes its own IPv6 addresses and routes when it likes.
            ("ip", &["-4", "-br", "addr"]),
            ("ip", &["-4", "route", "show", "table", "all"]),
            ("ip", &["-4", "rule"]),
            ("ip", &["-4", "neigh", "show", "nud", "permanent"]),
        ] {
            let text = self.run(program, args)?;
            state.extend(text.lines().map(|line| format!("{program} {}: {}", args.join(" "), line.trim())));
        }
        Ok(state)
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for machine in [self.node(), self.outside()] {
            // One that was never made can't be deleted; nothing else can be done about it here.
            drop(Command::new("ip").args(["netns", "delete", &machine]).stderr(Stdio::null()).status());
        }
    }
}

fn ip(args: &[&str]) -> Fallible {
    let output = Command::new("ip").args(args).output()?;
    if !output.status.success() {
        return Err(format!("ip {args:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(())
}

fn ask_in(machine: &str, address: &str, path: &str) -> Fallible<String> {
    let namespace = Namespace::open(&PathBuf::from("/run/netns").join(machine))?;
    namespace.run(|| ask(address, path))?
}

fn ask(address: &str, path: &str) -> Fallible<String> {
    let exchange = || {
        let mut stream = TcpStream::connect_timeout(&address.parse().map_err(std::io::Error::other)?, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().map_err(|e: std::io::Error| format!("GET {address}{path}: {e}"))?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200") => Ok(body.trim().to_owned()),
        _ => Err(format!("{address}{path} answered {answer:?}").into()),
    }
}
