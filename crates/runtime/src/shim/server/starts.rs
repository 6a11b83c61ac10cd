//! Processes that are being started, until they run or have failed.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use super::{
    super::{
        container::Container,
        control::{self, Next, Report, Reports},
        create, exec,
        log_file::{LogFile, Stream},
        protocol::{ContainerPlan, ErrorKind, ExecPlan, Response},
        reactor::{Interest, Source},
    },
    Server, kill_session,
    requests::{Refusal, other},
};

/// A process that is being started.
pub(super) struct Start {
    reports: Reports,
    pub(super) connection: u64,
    request: u64,
    pub(super) kind: Kind,
    pub(super) pid: Option<i32>,
    log: Vec<String>,
    failed: Option<String>,
    terminal: Option<OwnedFd>,
    /// It has ended already.
    pub(super) exit: Option<i32>,
}

pub(super) enum Kind {
    Container {
        name: String,
        /// The process that runs libcontainer.
        helper: i32,
    },
    Exec,
}

impl Server {
    pub(super) fn start(&mut self, connection: u64, request: u64, plan: ContainerPlan) -> Result<(), Refusal> {
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

    pub(super) fn exec(
        &mut self,
        connection: u64,
        request: u64,
        plan: &ExecPlan,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
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

    pub(super) fn reports(&mut self, id: u64) {
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
            self.unclaimed.clear();
            self.unclaimed.shrink_to_fit();
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
}

/// A failed start in one line: libcontainer's causes are only in what it logged.
fn explain(message: String, log: &[String]) -> String {
    match log.first() {
        Some(cause) if !message.contains(cause.as_str()) => format!("{message}: {cause}"),
        _ => message,
    }
}
