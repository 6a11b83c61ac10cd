//! A real registry with images made of Debian's packages, on the loopback of a cluster's machine.

use super::Fallible;
use super::machines::Machines;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/images/test-images");
const REPOSITORIES: [&str; 2] = ["nginx", "busybox"];

#[derive(Debug)]
pub struct Registry {
    process: Child,
    address: String,
}

impl Registry {
    pub fn start(machines: &Machines) -> Fallible<Self> {
        // Packages come over the host's network, which a machine of ours does not have.
        let built = Command::new(SCRIPT).arg("--build").args(REPOSITORIES).stdin(Stdio::null()).output()?;
        if !built.status.success() {
            return Err(format!("the images can't be made: {}", String::from_utf8_lossy(&built.stderr)).into());
        }
        // It ends with this test, even if that is killed.
        let mut process = machines
            .command("setpriv")
            .args(["--pdeathsig", "TERM", SCRIPT, "--serve", "127.0.0.1:0"])
            .args(REPOSITORIES)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut said = String::new();
        if let Some(stdout) = process.stdout.as_mut() {
            BufReader::new(stdout).read_line(&mut said)?;
        }
        match said.trim().strip_prefix("serving at ") {
            Some(address) => Ok(Registry { process, address: address.to_owned() }),
            None => Err(format!("the registry did not start: {:?}", process.wait_with_output()?).into()),
        }
    }

    /// What makes a cluster pull from it.
    pub fn flag(&self) -> String {
        format!("--registry-mirror=docker.io=http://{}", self.address)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        super::end(&mut self.process, nix::sys::signal::Signal::SIGTERM);
    }
}
