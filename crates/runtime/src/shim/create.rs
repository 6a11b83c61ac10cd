//! Starting a container: a helper process that runs libcontainer and goes away.
//!
//! The shim itself never runs libcontainer, so that its memory stays small and a mount that hangs doesn't
//! stop the logs of the pod's other containers. When the helper ends, the container's first process becomes
//! the shim's child, since the shim is a subreaper.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::net::UnixListener,
    },
    path::Path,
    rc::Rc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    oci_spec::runtime::Spec,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};

use super::{
    control::{self, Report, Reporter, Reports},
    exec::{complain, give_stdio},
    image_paths, mounts, oci,
    process::{Filter, Prepared, ProcessSpec, become_process, enter_cwd, set_oom_score},
    protocol::ContainerPlan,
    report_log,
    sandbox::Namespaces,
    syscalls::{self, Fork},
};

/// Stdin, stdout and stderr of the container, `None` with a terminal.
pub(crate) type Stdio = Option<[OwnedFd; 3]>;

/// Forks the helper; its number. How it went is read from the reports.
pub(crate) fn spawn(plan: &ContainerPlan, namespaces: &Namespaces, stdio: Stdio) -> io::Result<(Reports, i32)> {
    let (reports, reporter) = control::pair()?;
    match syscalls::fork()? {
        Fork::Parent(pid) => Ok((reports, pid)),
        Fork::Child => {
            drop(reports);
            report_log::install(control::duplicate(&reporter)?);
            if let Err(message) = start(plan, namespaces, stdio, &reporter) {
                reporter.send(&Report::Failed(message), None);
            }
            syscalls::exit_now(0)
        }
    }
}

fn start(plan: &ContainerPlan, namespaces: &Namespaces, stdio: Stdio, reporter: &Reporter) -> Result<(), String> {
    let io = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    let staging = plan.dir.join("mounts");
    let bundle = plan.dir.join("bundle");
    let state = plan.dir.join("oci");
    for dir in [&staging, &bundle] {
        fs::create_dir_all(dir).map_err(io("create the bundle"))?;
    }
    // A start that was cut short may have left it.
    remove_dir(&state).map_err(io("remove an old state"))?;
    fs::create_dir(&state).map_err(io("create the state"))?;

    let staged = mounts::stage(&plan.mounts, &plan.rootfs, &staging).map_err(|e| e.to_string())?;
    prepare_cwd(plan)?;
    let spec = oci::build(plan, namespaces, &staged).map_err(|e| e.to_string())?;
    spec.save(bundle.join("config.json")).map_err(|e| format!("write config.json: {e}"))?;
    let filter = Filter::of(&plan.process).map_err(io("read the seccomp filter"))?;
    let console = if plan.process.terminal {
        Some(listen_console(&plan.dir).map_err(io("listen for the terminal"))?)
    } else {
        None
    };
    if let Some(score) = plan.process.oom_score_adj {
        set_oom_score(score).map_err(io("set oom_score_adj"))?;
    }
    // As late as possible: from here our own memory counts against the container's limit.
    crate::cgroup::join(&plan.cgroup_dirs).map_err(io("join the cgroup"))?;

    let failed = |e: libcontainer::error::LibcontainerError| error_chain(&e);
    let mut builder = ContainerBuilder::new(plan.id.clone(), SyscallType::default())
        .with_root_path(&state)
        .map_err(failed)?
        .with_executor(LastSteps { process: Rc::new(plan.process.clone()), filter, prepared: Rc::default() });
    if let Some([stdin, stdout, stderr]) = stdio {
        builder = builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr);
    }
    if console.is_some() {
        builder = builder.with_console_socket(Some(plan.dir.join(CONSOLE)));
    }
    let mut container = builder.as_init(&bundle).with_systemd(false).with_detach(true).build().map_err(failed)?;
    let pid = container.pid().ok_or("libcontainer made no process")?;
    reporter.send(&Report::Pid(pid.as_raw()), None);
    if let Some(listener) = console {
        let master = receive_console(&listener).map_err(io("receive the terminal"))?;
        reporter.send(&Report::Terminal, Some(master.as_raw_fd()));
        fs::remove_file(plan.dir.join(CONSOLE)).map_err(io("remove the terminal's socket"))?;
    }
    container.start().map_err(failed)?;
    // Nobody reads libcontainer's state again; the shim knows all.
    remove_dir(&state).map_err(io("remove the state"))
}

fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a missing working directory in the image while it is still writable; one that lies in a volume is
/// made when the process enters it.
fn prepare_cwd(plan: &ContainerPlan) -> Result<(), String> {
    let cwd = &plan.process.cwd;
    if plan.mounts.iter().any(|m| cwd.starts_with(&m.destination)) {
        return Ok(());
    }
    let root = syscalls::open_path(&plan.rootfs).map_err(|e| format!("open the root: {e}"))?;
    image_paths::make_dirs(&root, cwd)
        .or_else(|error| match error.raw_os_error() {
            // A file in the way: entering says so in the right words. A read-only image: likewise.
            Some(libc::ENOTDIR | libc::EROFS) => Ok(()),
            _ => Err(error),
        })
        .map_err(|e| format!("mkdir {}: {e}", cwd.display()))
}

/// The error and its causes, without those that an outer one repeats.
fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

const CONSOLE: &str = "console.sock";

/// A socket's path may have 107 bytes only, so this goes by the current directory.
fn listen_console(dir: &Path) -> io::Result<UnixListener> {
    std::env::set_current_dir(dir)?;
    match fs::remove_file(CONSOLE) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(CONSOLE);
    std::env::set_current_dir("/")?;
    listener
}

fn receive_console(listener: &UnixListener) -> io::Result<OwnedFd> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let (stream, _) = listener.accept()?;
    let mut buffer = [0; 256];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<UnixAddr>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.into_iter().map(syscalls::own).next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("the terminal's socket brought no descriptor"))
}

/// What libcontainer does last in the container's first process.
///
/// The OCI configuration names no capabilities and no filter, so libcontainer leaves all privileges to the
/// process until here, and [`become_process`] takes them in the right order.
#[derive(Clone)]
struct LastSteps {
    process: Rc<ProcessSpec>,
    filter: Option<Filter>,
    prepared: Rc<RefCell<Option<Prepared>>>,
}

impl Executor for LastSteps {
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        let failed = ExecutorValidationError::ArgValidationError;
        give_stdio(self.process.uid).map_err(|e| failed(format!("stdio: {e}")))?;
        enter_cwd(&self.process.cwd, true).map_err(failed)?;
        let prepared = Prepared::new(&self.process, self.filter.clone()).map_err(failed)?;
        self.prepared.replace(Some(prepared));
        Ok(())
    }

    /// The environment is passed to `execve`, this process needs none.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }

    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        let prepared = self.prepared.take().ok_or(ExecutorError::InvalidArg)?;
        complain(&become_process(&prepared));
        syscalls::exit_now(255)
    }
}
