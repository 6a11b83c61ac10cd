//! The shim's loop: requests of the server, reports of starting processes, output and ends of containers.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
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

use super::{
    connection::{Connection, Read},
    container::{Container, Containers},
    control::{self, Next, Report, Reports},
    create, exec,
    log_file::{LogFile, Stream},
    memory,
    output::Outputs,
    protocol::{ContainerPlan, ContainerState, ErrorKind, Event, ExecPlan, Request, Response, SandboxPlan, VERSION},
    reactor::{Interest, Reactor, Ready, Source},
    sandbox::{self, Namespaces},
    terminal,
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
    shutting_down: Option<(u64, u64)>,
    next: u64,
}

/// A process that is being started.
struct Start {
    reports: Reports,
    connection: u64,
    request: u64,
    kind: Kind,
    pid: Option<i32>,
    log: Vec<String>,
    failed: Option<String>,
    terminal: Option<OwnedFd>,
    /// It has ended already.
    exit: Option<i32>,
}

enum Kind {
    Container {
        name: String,
        /// The process that runs libcontainer.
        helper: i32,
    },
    Exec,
}

/// A refusal.
type Refusal = (ErrorKind, String);

fn other(error: impl ToString) -> Refusal {
    (ErrorKind::Other, error.to_string())
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
            shutting_down: None,
            next: 0,
        })
    }

    /// Serves until told to shut down.
    pub(crate) fn run(mut self) -> io::Result<()> {
        loop {
            let ready = self.reactor.wait(memory::trim)?;
            for ready in ready {
                self.handle(&ready)?;
            }
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

    fn request(&mut self, connection: u64, id: u64, request: Request, fds: Vec<OwnedFd>) {
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
                self.shut_down(connection, id);
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

    fn start(&mut self, connection: u64, request: u64, plan: ContainerPlan) -> Result<(), Refusal> {
        if self.containers.get(&plan.id).is_some() {
            return Err((ErrorKind::State, format!("container {} was started already", plan.id)));
        }
        let log = match &plan.log_path {
            Some(path) => {
                Some(LogFile::open(path.clone()).map_err(|e| other(format!("open the log {}: {e}", path.display())))?)
            }
            None => None,
        };
        let mut container = Container::new(&plan, log);
        let mut theirs = None;
        if !plan.process.terminal {
            let pipe = || control::pipe().map_err(|e| other(format!("pipe: {e}")));
            let (stdout, out) = pipe()?;
            let (stderr, err) = pipe()?;
            let stdin = if plan.stdin {
                let (reader, writer) = pipe()?;
                container.stdin = Some(writer);
                reader
            } else {
                File::open("/dev/null").map_err(other)?.into()
            };
            theirs = Some([stdin, out, err]);
            for (stream, fd) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
                self.outputs.add(&self.reactor, &plan.id, stream, fd).map_err(other)?;
            }
        }
        let started = create::spawn(&plan, &self.namespaces, theirs).and_then(|(reports, helper)| {
            let kind = Kind::Container { name: plan.id.clone(), helper };
            self.watch_start(connection, request, reports, kind)
        });
        if let Err(error) = started {
            self.outputs.close(&plan.id);
            return Err(other(error));
        }
        self.containers.insert(container);
        Ok(())
    }

    fn exec(&mut self, connection: u64, request: u64, plan: &ExecPlan, fds: Vec<OwnedFd>) -> Result<(), Refusal> {
        let container = self.running(&plan.container)?;
        let Some(pidfd) = &container.pidfd else {
            return Err((ErrorKind::State, "container is not running".into()));
        };
        let mut fds = fds.into_iter();
        let stdio = [plan.stdin, plan.stdout, plan.stderr].map(|announced| if announced { fds.next() } else { None });
        let target = exec::Target { pidfd: pidfd.as_fd(), cgroup_dirs: &container.cgroup_dirs };
        let reports = exec::spawn(&target, &plan.process, stdio).map_err(other)?;
        self.watch_start(connection, request, reports, Kind::Exec).map_err(other)
    }

    fn watch_start(&mut self, connection: u64, request: u64, reports: Reports, kind: Kind) -> io::Result<()> {
        self.next += 1;
        self.reactor.add(&reports, &Source::Start(self.next), Interest::Read)?;
        self.starts.insert(
            self.next,
            Start {
                reports,
                connection,
                request,
                kind,
                pid: None,
                log: Vec::new(),
                failed: None,
                terminal: None,
                exit: None,
            },
        );
        Ok(())
    }

    fn reports(&mut self, id: u64) {
        let Some(start) = self.starts.get_mut(&id) else {
            return;
        };
        loop {
            match start.reports.next() {
                Next::Report(Report::Pid(pid), _) => {
                    start.pid = Some(pid);
                    start.exit = self.unclaimed.remove(&pid);
                    // While it isn't reaped the number is its own.
                    if let Kind::Container { name, .. } = &start.kind
                        && let Some(container) = self.containers.get_mut(name)
                    {
                        container.set_pid(pid);
                    }
                }
                Next::Report(Report::Terminal, fd) => start.terminal = fd,
                Next::Report(Report::Log(line), _) => start.log.push(line),
                Next::Report(Report::Failed(message), _) => {
                    start.failed.get_or_insert(message);
                }
                Next::Wait => return,
                Next::End => break,
            }
        }
        if let Some(start) = self.starts.remove(&id) {
            self.started(start);
        }
        if self.starts.is_empty() {
            self.unclaimed = HashMap::new();
        }
    }

    fn started(&mut self, mut start: Start) {
        let result = match (start.failed.take(), start.pid) {
            (Some(message), _) => Err(explain(message, &start.log)),
            (None, None) => Err(explain("the process that starts the container died".into(), &start.log)),
            (None, Some(pid)) => Ok(pid),
        };
        match (&start.kind, result) {
            (Kind::Container { name, .. }, Ok(pid)) => {
                let name = name.clone();
                if let Some(terminal) = start.terminal {
                    self.take_terminal(&name, terminal);
                }
                let started_at = self.containers.get(&name).map_or(0, |c| c.started_at);
                let response = Response::Started { pid, started_at };
                self.respond(start.connection, start.request, response, Vec::new());
                if let Some(code) = start.exit {
                    self.container_exited(&name, code);
                }
            }
            (Kind::Container { name, .. }, Err(mut message)) => {
                let name = name.clone();
                self.outputs.close(&name);
                if let Some(container) = self.containers.remove(&name) {
                    if container.oom_killed() {
                        message += ": container init was OOM-killed (memory limit too low?)";
                    }
                    container.clean_cgroup();
                }
                self.refuse(&start, message);
            }
            (Kind::Exec, Ok(pid)) => {
                let fds = start.terminal.into_iter().collect();
                let response = Response::Executing { pid };
                self.respond(start.connection, start.request, response, fds);
                self.executed.insert(pid, start.connection);
                if let Some(code) = start.exit {
                    self.exec_exited(pid, code);
                } else if !self.connections.contains_key(&start.connection) {
                    kill_session(pid);
                }
            }
            (Kind::Exec, Err(message)) => self.refuse(&start, message),
        }
    }

    fn refuse(&mut self, start: &Start, message: String) {
        let response = Response::Error { kind: ErrorKind::Other, message };
        self.respond(start.connection, start.request, response, Vec::new());
    }

    fn take_terminal(&mut self, name: &str, master: OwnedFd) {
        let Some(container) = self.containers.get_mut(name) else {
            return;
        };
        if let Ok(copy) = control::duplicate(&master) {
            container.terminal = Some(copy);
        }
        // Fails only for want of memory; the container then runs without a log.
        let _ = self.outputs.add(&self.reactor, name, Stream::Stdout, master);
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

    fn running(&self, name: &str) -> Result<&Container, Refusal> {
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

    fn shut_down(&mut self, connection: u64, request: u64) {
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
        self.shutting_down = Some((connection, request));
    }

    /// Answers and ends when no child is left.
    fn finished_shutting_down(&mut self) -> bool {
        let Some((connection, request)) = self.shutting_down else {
            return false;
        };
        if self.reap() {
            return false;
        }
        for container in self.containers.all() {
            container.clean_cgroup();
        }
        self.respond(connection, request, Response::Done, Vec::new());
        self.flush();
        true
    }
}

/// A failed start in one line: libcontainer's causes are only in what it logged.
fn explain(message: String, log: &[String]) -> String {
    match log.first() {
        Some(cause) if !message.contains(cause.as_str()) => format!("{message}: {cause}"),
        _ => message,
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
