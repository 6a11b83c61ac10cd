//! What the server asks, and what it gets.

use std::os::fd::OwnedFd;

use super::{
    super::{
        container::Container,
        control,
        log_file::Stream,
        protocol::{ErrorKind, Request, Response, SandboxPlan, VERSION},
        sandbox, terminal,
    },
    Server,
};

/// A refusal.
pub(super) type Refusal = (ErrorKind, String);

pub(super) fn other(error: impl ToString) -> Refusal {
    (ErrorKind::Other, error.to_string())
}

impl Server {
    pub(super) fn request(&mut self, connection: u64, id: u64, request: Request, fds: Vec<OwnedFd>) {
        let result = match request {
            Request::Start(plan) => match self.start(connection, id, *plan) {
                // Answered when it runs.
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Exec(plan) => match self.exec(connection, id, &plan, fds) {
                Ok(()) => return,
                Err(refusal) => Err(refusal),
            },
            Request::Shutdown => {
                self.asked_to_end = Some((connection, id));
                self.shut_down();
                return;
            }
            Request::Attach { container, stdin, stdout, stderr } => {
                self.attach(&container, stdin, [stdout, stderr], fds)
            }
            Request::Hello { .. } => {
                Ok((Response::Hello { version: VERSION, pid: std::process::id() as i32 }, Vec::new()))
            }
            Request::CreateSandbox(plan) => self.create_sandbox(&plan),
            Request::Kill { container, signal, all } => self.kill(&container, signal, all),
            Request::Delete { container } => self.delete(&container),
            Request::Resize { container, width, height } => self.resize(&container, width, height),
            Request::ReopenLog { container } => self.reopen_log(&container),
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&connection) {
                    connection.subscribed = true;
                }
                let containers = self.containers.states();
                Ok((Response::State { containers }, Vec::new()))
            }
        };
        let (response, fds) = result.unwrap_or_else(|(kind, message)| (Response::Error { kind, message }, Vec::new()));
        self.respond(connection, id, response, fds);
    }

    fn create_sandbox(&mut self, plan: &SandboxPlan) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        self.namespaces = sandbox::create(plan).map_err(other)?;
        let pause = self.namespaces.pause;
        Ok((Response::Sandbox { pause }, Vec::new()))
    }

    pub(super) fn running(&self, name: &str) -> Result<&Container, Refusal> {
        let container = self.known(name)?;
        if container.exit.is_some() {
            return Err((ErrorKind::State, format!("container {name} is not running")));
        }
        Ok(container)
    }

    fn known(&self, name: &str) -> Result<&Container, Refusal> {
        self.containers
            .get(name)
            .ok_or_else(|| (ErrorKind::NotFound, format!("container {name} is not known to its shim")))
    }

    fn kill(&mut self, name: &str, signal: i32, all: bool) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        let container = self.running(name)?;
        container.kill(signal, all).map_err(other)?;
        Ok((Response::Done, Vec::new()))
    }

    fn delete(&mut self, name: &str) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        if self.known(name)?.exit.is_none() {
            return Err((ErrorKind::State, format!("container {name} is running")));
        }
        self.outputs.close(name);
        if let Some(container) = self.containers.remove(name) {
            container.clean_cgroup();
        }
        Ok((Response::Done, Vec::new()))
    }

    fn attach(
        &mut self,
        name: &str,
        stdin: bool,
        outputs: [bool; 2],
        fds: Vec<OwnedFd>,
    ) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        let container = self.running(name)?;
        let terminal = container.terminal.is_some();
        let stdin_once = container.stdin_once;
        let mut brought = Vec::new();
        if stdin {
            let source = container.terminal.as_ref().or(container.stdin.as_ref());
            if let Some(fd) = source {
                brought.push(control::duplicate(fd).map_err(other)?);
            }
        }
        let mut fds = fds.into_iter();
        for (wanted, stream) in outputs.into_iter().zip([Stream::Stdout, Stream::Stderr]) {
            if let Some(fd) = wanted.then(|| fds.next()).flatten() {
                self.outputs.attach(&self.reactor, name, stream, fd).map_err(other)?;
            }
        }
        if stdin
            && stdin_once
            && let Some(container) = self.containers.get_mut(name)
        {
            // The client now holds the only one, so that its end is the container's end of input.
            container.stdin = None;
        }
        let response = Response::Attached { terminal, stdin_once };
        Ok((response, brought))
    }

    fn resize(&mut self, name: &str, width: u16, height: u16) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        let container = self.running(name)?;
        let Some(master) = &container.terminal else {
            return Err((ErrorKind::State, format!("container {name} has no terminal")));
        };
        let master = std::os::fd::AsRawFd::as_raw_fd(master);
        terminal::resize(master, width, height).map_err(other)?;
        Ok((Response::Done, Vec::new()))
    }

    fn reopen_log(&mut self, name: &str) -> Result<(Response, Vec<OwnedFd>), Refusal> {
        self.running(name)?;
        if let Some(log) = self.containers.get_mut(name).and_then(|c| c.log.as_mut()) {
            log.reopen().map_err(other)?;
        }
        Ok((Response::Done, Vec::new()))
    }
}
