//! The profile behind `RuntimeDefault`: what the kernel offers to ordinary programs, by topic, and what comes
//! with a capability. Everything else fails with EPERM.

use super::profile::{Action, Argument, Operator, Profile, Rule};
use crate::capabilities as caps;

/// Allowed to everybody.
const FILES: &str = "
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat
    fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs
    fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lchown32 lgetxattr link linkat
    listmount listxattr listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat
    mknod mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename renameat renameat2 rmdir
    sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs statfs64 statmount statx symlink
    symlinkat sync sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat
    utimensat_time64 utimes vmsplice write writev cachestat
";
const MEMORY: &str = "
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 mprotect
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
    remap_file_pages
";
const PROCESSES: &str = "
    capget capset execve execveat exit exit_group fork get_robust_list get_thread_area getcpu getegid getegid32
    geteuid geteuid32 getgid getgid32 getgroups getgroups32 getpgid getpgrp getpid getppid getpriority
    getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid gettid getuid getuid32 ioprio_get
    ioprio_set kill pause pidfd_open pidfd_send_signal prctl prlimit64 process_vm_readv process_vm_writev ptrace
    restart_syscall rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend
    rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid
    setgid32 setgroups setgroups32 setpgid setpriority setregid setregid32 setresgid setresgid32 setresuid
    setresuid32 setreuid setreuid32 setrlimit setsid setuid setuid32 sigaltstack signalfd signalfd4 sigprocmask
    sigreturn sysinfo tgkill time times tkill ugetrlimit uname vfork wait4 waitid waitpid landlock_add_rule
    landlock_create_ruleset landlock_restrict_self
";
const COMMUNICATION: &str = "
    accept accept4 alarm bind clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 connect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2
    epoll_wait epoll_wait_old eventfd eventfd2 futex futex_requeue futex_time64 futex_wait futex_waitv
    futex_wake getitimer getpeername getrandom getsockname getsockopt gettimeofday io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ipc listen membarrier mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink msgctl
    msgget msgrcv msgsnd nanosleep _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg select semctl semget semop semtimedop semtimedop_time64 send
    sendmmsg sendmsg sendto setitimer setsockopt shmat shmctl shmdt shmget shutdown socketcall socketpair
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64
";

#[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
const ARCHITECTURE: &str = "arch_prctl modify_ldt";
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: &str = "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls";
#[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
const ARCHITECTURE: &str = "";

/// Allowed to those whose bounding set has the capability.
const BY_CAPABILITY: [(u8, &str); 14] = [
    (caps::DAC_READ_SEARCH, "open_by_handle_at"),
    (
        caps::SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr \
         move_mount open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname \
         setns umount umount2 unshare lsm_get_self_attr lsm_set_self_attr lsm_list_modules",
    ),
    (caps::SYS_BOOT, "reboot"),
    (caps::SYS_CHROOT, "chroot"),
    (caps::SYS_MODULE, "delete_module init_module finit_module"),
    (caps::SYS_PACCT, "acct"),
    (caps::SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (caps::SYS_RAWIO, "iopl ioperm"),
    (caps::SYS_TIME, "settimeofday stime adjtimex clock_adjtime clock_adjtime64 clock_settime clock_settime64"),
    (caps::SYS_TTY_CONFIG, "vhangup"),
    (caps::SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (caps::SYSLOG, "syslog"),
    (caps::BPF, "bpf"),
    (caps::PERFMON, "perf_event_open"),
];

/// Execution domains that change nothing about security.
const PERSONALITIES: [u64; 5] = [0x0, 0x0008, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Everything that `clone` may make a namespace of.
const NAMESPACE_FLAGS: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP) as u64;

/// The profile for a process with this bounding set.
pub(crate) fn default_profile(bounding: u64) -> Profile {
    let mut rules = Vec::new();
    for topic in [FILES, MEMORY, PROCESSES, COMMUNICATION, ARCHITECTURE] {
        rules.push(Rule::allow(topic.split_whitespace()));
    }
    for personality in PERSONALITIES {
        rules.push(Rule::allow(["personality"]).when(0, Operator::Equal, personality));
    }
    // Sockets between machines and their hosts know no network namespaces.
    rules.push(Rule::allow(["socket"]).when(0, Operator::NotEqual, libc::AF_VSOCK as u64));
    for (capability, names) in BY_CAPABILITY {
        if bounding & (1 << capability) != 0 {
            rules.push(Rule::allow(names.split_whitespace()));
        }
    }
    if bounding & (1 << caps::SYS_ADMIN) == 0 {
        let mut clone = Rule::allow(["clone"]);
        clone.args.push(Argument {
            // The flags' place, except on s390.
            index: if cfg!(target_arch = "s390x") { 1 } else { 0 },
            operator: Operator::MaskedEqual,
            value: NAMESPACE_FLAGS,
            value_two: 0,
        });
        rules.push(clone);
        // Its flags are in memory, where a filter can't look: libraries then use clone.
        rules.push(Rule { action: Action::Errno(libc::ENOSYS), ..Rule::allow(["clone3"]) });
    }
    Profile {
        default_action: Action::Errno(libc::EPERM),
        architectures: super::profile::native_architectures(),
        rules,
        log: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Profile, name: &str) -> bool {
        profile
            .rules
            .iter()
            .any(|r| r.action == Action::Allow && r.args.is_empty() && r.names.iter().any(|n| n == name))
    }

    #[test]
    fn capabilities_widen_it() {
        let plain = default_profile(0);
        let admin = default_profile(1 << caps::SYS_ADMIN);
        for name in ["mount", "unshare", "setns", "bpf", "clone3"] {
            assert!(!allowed(&plain, name) && allowed(&admin, name), "{name}");
        }
        for name in ["read", "execve", "futex", "openat2"] {
            assert!(allowed(&plain, name), "{name}");
        }
        for name in ["kexec_load", "add_key", "keyctl", "io_uring_setup", "userfaultfd", "swapon", "init_module"] {
            assert!(!allowed(&plain, name) && !allowed(&admin, name), "{name}");
        }
    }
}
