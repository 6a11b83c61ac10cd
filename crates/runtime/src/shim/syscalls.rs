//! System calls that no crate of ours wraps.

#![allow(unsafe_code, reason = "thin wrappers; every pointer passed lives across its call")]

use std::{
    ffi::{CStr, CString},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
        unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    },
    path::Path,
};

use nix::errno::Errno;

/// Takes over a descriptor that a system call has just returned.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the callers pass what the kernel has just made for them and keep no copy.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn path_string(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

/// A detached copy of the tree at `path`.
pub(crate) fn open_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let path = path_string(path)?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE as libc::c_uint;
    }
    // SAFETY: the string outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    Ok(own(Errno::result(fd)? as RawFd))
}

/// The argument of `mount_setattr`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MountAttributes {
    pub(crate) set: u64,
    pub(crate) clear: u64,
    pub(crate) propagation: u64,
    pub(crate) user_namespace: u64,
}

/// Changes a mount's flags and propagation, also of those below when `recursive`.
pub(crate) fn mount_setattr(tree: BorrowedFd<'_>, recursive: bool, attributes: MountAttributes) -> io::Result<()> {
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the structure has the kernel's layout and its size is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Attaches a detached tree at `to`.
pub(crate) fn move_mount(tree: BorrowedFd<'_>, to: &Path) -> io::Result<()> {
    let to = path_string(to)?;
    // SAFETY: both strings outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Attaches a detached tree on top of the file that `to` refers to.
pub(crate) fn move_mount_onto(tree: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both strings are static.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            to.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// A descriptor that only stands for the path.
pub(crate) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
    Ok(file.into())
}

/// Opens a path below `root`, taking `root` for `/` whatever links say. An empty path is the root itself.
pub(crate) fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct How {
        flags: u64,
        mode: u64,
        resolve: u64,
    }
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let path = path_string(path)?;
    let how = How {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: 0,
        resolve: libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS,
    };
    // SAFETY: string and structure outlive the call, and the structure's size is passed.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat2, root.as_raw_fd(), path.as_ptr(), &raw const how, size_of::<How>()) };
    Ok(own(Errno::result(fd)? as RawFd))
}

/// Whether a descriptor stands for a directory.
pub(crate) fn is_dir(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let stat = nix::sys::stat::fstat(fd.as_raw_fd())?;
    Ok(stat.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// A descriptor of a child process, which keeps its number from being reused while we hold it.
pub(crate) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    Ok(own(Errno::result(fd)? as RawFd))
}

/// Closes all descriptors from `first` on, or marks them to be closed on exec.
pub(crate) fn close_from(first: RawFd, on_exec: bool) -> io::Result<()> {
    let flags = if on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: the callers no longer use what they close here.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    Errno::result(result)?;
    Ok(())
}

/// What [`fork`] returns.
pub(crate) enum Fork {
    Child,
    Parent(i32),
}

/// Forks this single-threaded process.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: a shim has one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        0 => Ok(Fork::Child),
        pid if pid > 0 => Ok(Fork::Parent(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends this process at once, running nothing that belongs to its parent's copy.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Puts `title` in the place of the arguments that this process was started with, which others may read.
///
/// # Errors
/// When the kernel does not tell where they are in memory, or they are shorter than the title.
pub(crate) fn set_title(title: &CStr) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields 48 and 49; those behind the name, which may have anything in it, begin with the third.
    let mut places = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(45);
    let mut place = || places.next().and_then(|place| place.parse::<usize>().ok()).unwrap_or(0);
    let (start, end) = (place(), place());
    let bytes = title.to_bytes_with_nul();
    if start == 0 || end < start + bytes.len() {
        return Err(io::Error::other("there is no room for the title"));
    }
    let arguments = std::ptr::with_exposed_provenance_mut::<u8>(start);
    // SAFETY: from `start` to `end` the kernel wrote the arguments, on the stack, for this process to use as it likes. All of
    // it becomes NUL but the title, so that they stay strings.
    unsafe {
        arguments.write_bytes(0, end - start);
        arguments.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
    }
    // SAFETY: takes numbers only.
    let shortened = unsafe {
        libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_ARG_END as libc::c_ulong, start + bytes.len(), 0_usize, 0_usize)
    };
    // Who may not say where they end shows empty ones behind the title, which tell nothing.
    match Errno::result(shortened) {
        Ok(_) | Err(Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Joins the namespaces `kinds` of the process behind `pidfd`, at once.
pub(crate) fn set_namespaces(pidfd: BorrowedFd<'_>, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::setns(pidfd.as_raw_fd(), kinds) })?;
    Ok(())
}

/// Header and data of the capability calls, in their third version.
#[repr(C)]
pub(crate) struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CapabilityData {
    pub(crate) effective: u32,
    pub(crate) permitted: u32,
    pub(crate) inheritable: u32,
}

static CALLING_PROCESS: CapabilityHeader = CapabilityHeader { version: 0x2008_0522, pid: 0 };

/// The capability sets of the calling process: low and high half.
pub(crate) fn get_capabilities() -> io::Result<[CapabilityData; 2]> {
    let mut data = [CapabilityData::default(); 2];
    // SAFETY: version 3 takes a header and fills two data blocks, which is what is passed.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw const CALLING_PROCESS, data.as_mut_ptr()) };
    Errno::result(result)?;
    Ok(data)
}

/// Sets the capability sets of the calling process.
pub(crate) fn put_capabilities(data: &[CapabilityData; 2]) -> Result<(), Errno> {
    // SAFETY: version 3 takes a header and two data blocks, which is what is passed.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const CALLING_PROCESS, data.as_ptr()) };
    Errno::result(result).map(drop)
}

/// Gives the calling process exactly this user and these groups, and keeps its capabilities for now.
pub(crate) fn set_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: raw calls act on this thread, the only one; the list outlives the call.
    unsafe {
        Errno::result(libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0))?;
        Errno::result(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        Errno::result(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        Errno::result(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
        Errno::result(libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0))?;
    }
    // Kept are the permitted ones only; the next steps need them in effect.
    let kept = get_capabilities()?.map(|half| CapabilityData { effective: half.permitted, ..half });
    Ok(put_capabilities(&kept)?)
}
