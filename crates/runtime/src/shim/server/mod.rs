//! The shim's loop: requests of the server, reports of starting processes, output and ends of containers.

mod requests;
mod starts;

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixListener},
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use self::starts::{Kind, Start};
use super::{
    connection::{Connection, Read},
    container::Containers,
    memory,
    output::Outputs,
    protocol::{ContainerState, Event, Response},
    reactor::{Interest, Reactor, Ready, Source},
    sandbox::Namespaces,
};

pub(crate) struct Server {
    reactor: Reactor,
    listener: UnixListener,
    signals: SignalFd,
    connections: HashMap<u64, Connection>,
    starts: HashMap<u64, Start>,
    containers: Containers,
    outputs: Outputs,
    namespaces: Namespaces,
    /// Executed processes that run, by number.
    executed: HashMap<i32, u64>,
    /// Ends of processes that nobody claims yet, while some start is under way.
    unclaimed: HashMap<i32, i32>,
    /// Everything is killed, and the shim ends when nothing is left.
    ending: bool,
    /// The request that waits for the end.
    asked_to_end: Option<(u64, u64)>,
    next: u64,
}

impl Server {
    pub(crate) fn new(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let reactor = Reactor::new()?;
        reactor.add(&listener, &Source::Listener, Interest::Read)?;
        reactor.add(&signals, &Source::Signals, Interest::Read)?;
        Ok(Self {
            reactor,
            listener,
            signals,
            connections: HashMap::new(),
            starts: HashMap::new(),
            containers: Containers::default(),
            outputs: Outputs::default(),
            namespaces: Namespaces::default(),
            executed: HashMap::new(),
            unclaimed: HashMap::new(),
            ending: false,
            asked_to_end: None,
            next: 0,
        })
    }

    /// Serves until told to shut down.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.reactor.wait(memory::trim, self.outputs.deadline())?;
            for ready in ready {
                self.handle(&ready)?;
            }
            self.outputs.drop_stalled(&self.reactor, Instant::now());
            self.outputs.collect_finished();
            self.flush();
            if self.finished_shutting_down() {
                return Ok(());
            }
        }
    }

    fn handle(&mut self, ready: &Ready) -> io::Result<()> {
        match ready.source {
            Source::Listener => self.accept()?,
            Source::Signals => {
                while self.signals.read_signal()?.is_some() {}
                self.reap();
            }
            Source::Connection(id) => self.read(id),
            Source::Start(id) => self.reports(id),
            Source::Output(id) => self.outputs.readable(&self.reactor, id, &mut self.containers),
            Source::Client(id) => self.outputs.client_ready(&self.reactor, id, ready.writable),
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    self.next += 1;
                    let connection = Connection::new(stream)?;
                    let source = Source::Connection(self.next);
                    self.reactor.add(&connection.stream, &source, Interest::Read)?;
                    self.connections.insert(self.next, connection);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer gave up, or descriptors are short: the next one may do better.
                Err(_) => return Ok(()),
            }
        }
    }

    fn read(&mut self, id: u64) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.read() {
            Read::Requests(requests) => {
                for (frame, fds) in requests {
                    self.request(id, frame.id, frame.body, fds);
                }
            }
            Read::Closed => self.close(id),
        }
    }

    fn close(&mut self, id: u64) {
        self.connections.remove(&id);
        let orphans = self.executed.iter().filter(|(_, c)| **c == id);
        for (pid, _) in orphans {
            kill_session(*pid);
        }
        for start in self.starts.values() {
            if start.connection == id
                && matches!(start.kind, Kind::Exec)
                && let Some(pid) = start.pid
            {
                kill_session(pid);
            }
        }
    }

    fn respond(&mut self, connection: u64, request: u64, response: Response, fds: Vec<OwnedFd>) {
        if let Some(connection) = self.connections.get_mut(&connection) {
            connection.respond(request, response, fds);
        }
    }

    fn flush(&mut self) {
        let mut gone = Vec::new();
        for (id, connection) in &mut self.connections {
            let interest = match connection.flush() {
                Ok(true) => Interest::ReadWrite,
                Ok(false) => Interest::Read,
                Err(_) => {
                    gone.push(*id);
                    continue;
                }
            };
            let source = Source::Connection(*id);
            if self.reactor.change(&connection.stream, &source, interest).is_err() {
                gone.push(*id);
            }
        }
        for id in gone {
            self.close(id);
        }
    }

    /// Learns of every child that has ended; whether any is left.
    fn reap(&mut self) -> bool {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid.as_raw(), code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid.as_raw(), 128 + signal as i32),
                Err(Errno::EINTR) => continue,
                Ok(WaitStatus::StillAlive) => return true,
                Err(_) => return false,
                Ok(_) => continue,
            };
            let starting = self.starts.values_mut().find(|s| s.pid == Some(pid));
            if let Some(start) = starting {
                start.exit = Some(code);
            } else if self.executed.contains_key(&pid) {
                self.exec_exited(pid, code);
            } else if self.namespaces.pause == Some(pid) {
                // The pod's process ids are gone with their first one, and nothing can be started any more.
                self.namespaces.pause = None;
                self.shut_down();
            } else if let Some(name) = self.containers.by_pid(pid) {
                self.container_exited(&name, code);
            } else if !self.starts.is_empty() {
                self.unclaimed.insert(pid, code);
            }
        }
    }

    fn exec_exited(&mut self, pid: i32, code: i32) {
        let connection = self.executed.remove(&pid);
        if let Some(connection) = connection.and_then(|c| self.connections.get_mut(&c)) {
            connection.tell(Event::ExecExited { code });
        }
    }

    fn container_exited(&mut self, name: &str, code: i32) {
        self.outputs.drain(&self.reactor, name, &mut self.containers);
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        let exit = container.exited(code);
        for connection in self.connections.values_mut().filter(|c| c.subscribed) {
            connection.tell(Event::Exited { container: name.to_owned(), exit: exit.clone() });
        }
    }

    /// Kills everything, and ends when it is dead.
    fn shut_down(&mut self) {
        for container in self.containers.all() {
            if container.exit.is_none() {
                // What can't be killed now keeps the shim alive, and the server asks again.
                let _ = container.kill(libc::SIGKILL, true);
            }
        }
        for start in self.starts.values() {
            if let Kind::Container { helper, .. } = start.kind {
                // It may hang in a mount, and has usually ended.
                let _ = kill(Pid::from_raw(helper), Signal::SIGKILL);
            }
        }
        if let Some(pause) = self.namespaces.pause.take() {
            let _ = kill(Pid::from_raw(pause), Signal::SIGKILL);
        }
        self.ending = true;
    }

    /// Answers and ends when no child is left.
    fn finished_shutting_down(&mut self) -> bool {
        if !self.ending || self.reap() {
            return false;
        }
        for container in self.containers.all() {
            container.clean_cgroup();
        }
        if let Some((connection, request)) = self.asked_to_end.take() {
            self.respond(connection, request, Response::Done, Vec::new());
            self.flush();
        }
        true
    }
}

/// Ends an executed process and what it started in its session's first group.
fn kill_session(pid: i32) {
    let pid = Pid::from_raw(pid);
    // It may have ended by itself.
    let _ = nix::sys::signal::killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
}

impl Containers {
    fn states(&self) -> Vec<ContainerState> {
        self.all()
            .map(|c| ContainerState {
                id: c.id.clone(),
                pid: c.pid.unwrap_or(0),
                started_at: c.started_at,
                exit: c.exit.clone(),
            })
            .collect()
    }
}
