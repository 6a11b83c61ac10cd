//! System call filters: the default profile, profile files, and compiling both to what the kernel loads.
//!
//! The server compiles; a container's process only loads the instructions ([`crate::shim::process`]).

mod default_profile;
mod filters;
mod profile;

use std::{
    collections::HashSet,
    io::{Read, Seek},
};

use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall};

pub(crate) use default_profile::default_profile;
pub(crate) use filters::Filters;
pub(crate) use profile::{Profile, ProfileError, parse};

use profile::{Action, Argument, Operator, Rule};

/// Calls that Linux has got since the library that we build with was made. Their numbers are the same on all
/// architectures.
const NEW_SYSCALLS: [(&str, u32); 19] = [
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
];
const FIRST_NEW: u32 = 451;

/// The flag of x32 calls.
const X32: u32 = 0x4000_0000;

/// Compiles a profile to kernel instructions.
///
/// Calls that are newer than the profile's names fail with ENOSYS where the default is an error number: a
/// library then uses an older one, as it does on an older kernel.
fn compile(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    let mut filter = ScmpFilterContext::new(action(profile.default_action))?;
    filter.set_act_badarch(action(profile.default_action))?;
    // Whether to set it is not the filter's business.
    filter.set_ctl_nnp(false)?;
    // A binary tree: a few comparisons a call, not hundreds. Older libraries lack it.
    if let Err(error) = filter.set_ctl_optimize(2) {
        tracing::debug!(%error, "seccomp filters are not optimized");
    }
    let mut present = HashSet::from([ScmpArch::native()]);
    for name in &profile.architectures {
        let arch: ScmpArch = name.parse().map_err(|_| ProfileError::Architecture(name.clone()))?;
        let arch = if arch == ScmpArch::Native { ScmpArch::native() } else { arch };
        if present.insert(arch) {
            filter.add_arch(arch)?;
        }
    }
    for rule in &profile.rules {
        add(&mut filter, profile, rule)?;
    }
    let mut file = tempfile::tempfile()?;
    filter.export_bpf(&file)?;
    let mut main = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut main)?;
    let mut out = new_calls(profile)?;
    out.append(&mut main);
    let count = out.len() / INSTRUCTION;
    if count > 4096 {
        return Err(ProfileError::TooLong(count));
    }
    Ok(out)
}

fn add(filter: &mut ScmpFilterContext, profile: &Profile, rule: &Rule) -> Result<(), ProfileError> {
    // The library refuses rules that say what the default says.
    if rule.action == profile.default_action {
        return Ok(());
    }
    let compare: Vec<ScmpArgCompare> = rule.args.iter().map(comparator).collect();
    let indexes: HashSet<u32> = rule.args.iter().map(|a| a.index).collect();
    for name in &rule.names {
        // Names that this architecture or this library doesn't have name nothing that could be called.
        let Ok(syscall) = ScmpSyscall::from_name(name) else {
            continue;
        };
        if indexes.len() == compare.len() {
            filter.add_rule_conditional(action(rule.action), syscall, &compare)?;
        } else {
            // Several conditions on one argument are alternatives.
            for one in &compare {
                filter.add_rule_conditional(action(rule.action), syscall, &[*one])?;
            }
        }
    }
    Ok(())
}

fn action(action: Action) -> ScmpAction {
    match action {
        Action::Allow => ScmpAction::Allow,
        Action::Log => ScmpAction::Log,
        Action::Errno(number) => ScmpAction::Errno(number),
        Action::Trace(number) => ScmpAction::Trace(number),
        Action::Trap => ScmpAction::Trap,
        Action::KillThread => ScmpAction::KillThread,
        Action::KillProcess => ScmpAction::KillProcess,
    }
}

fn comparator(argument: &Argument) -> ScmpArgCompare {
    let (operator, datum) = match argument.operator {
        Operator::NotEqual => (ScmpCompareOp::NotEqual, argument.value),
        Operator::Less => (ScmpCompareOp::Less, argument.value),
        Operator::LessOrEqual => (ScmpCompareOp::LessOrEqual, argument.value),
        Operator::Equal => (ScmpCompareOp::Equal, argument.value),
        Operator::GreaterOrEqual => (ScmpCompareOp::GreaterEqual, argument.value),
        Operator::Greater => (ScmpCompareOp::Greater, argument.value),
        Operator::MaskedEqual => (ScmpCompareOp::MaskedEqual(argument.value), argument.value_two),
    };
    ScmpArgCompare::new(argument.index, operator, datum)
}

const INSTRUCTION: usize = 8;
const LOAD: u16 = 0x20;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const JUMP_BITS: u16 = 0x45;
const RETURN: u16 = 0x06;

/// Instructions that decide on calls from [`FIRST_NEW`] on, in front of the library's.
fn new_calls(profile: &Profile) -> Result<Vec<u8>, ProfileError> {
    let known_default =
        matches!(profile.default_action, Action::Errno(_) | Action::Trap | Action::KillProcess | Action::KillThread);
    if !known_default {
        return Ok(Vec::new());
    }
    let mut cases = Vec::new();
    for rule in &profile.rules {
        for name in &rule.names {
            let Some((name, number)) = NEW_SYSCALLS.iter().find(|(n, _)| n == name) else {
                continue;
            };
            if !rule.args.is_empty() {
                return Err(ProfileError::NewSyscall((*name).to_owned()));
            }
            if !cases.iter().any(|(n, _)| n == number) {
                cases.push((*number, rule.action));
            }
        }
    }
    // The default holds for those that the profile could have named; beyond them a call doesn't exist.
    let unknown = FIRST_NEW + NEW_SYSCALLS.len() as u32;
    let body = 2 * cases.len() + 3;
    let mut out = Vec::new();
    let mut emit = |code: u16, yes: usize, no: usize, k: u32| {
        out.extend_from_slice(&code.to_ne_bytes());
        out.extend_from_slice(&[yes as u8, no as u8]);
        out.extend_from_slice(&k.to_ne_bytes());
    };
    emit(LOAD, 0, 0, 0);
    emit(JUMP_BITS, body + 1, 0, X32);
    emit(JUMP_GREATER_OR_EQUAL, 0, body, FIRST_NEW);
    for (number, action) in &cases {
        emit(JUMP_EQUAL, 0, 1, *number);
        emit(RETURN, 0, 0, result(*action));
    }
    emit(JUMP_GREATER_OR_EQUAL, 1, 0, unknown);
    // A call that the profile leaves out on purpose.
    emit(RETURN, 0, 0, result(profile.default_action));
    emit(RETURN, 0, 0, result(Action::Errno(libc::ENOSYS)));
    Ok(out)
}

fn result(action: Action) -> u32 {
    match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Errno(number) => libc::SECCOMP_RET_ERRNO | (number as u32 & 0xffff),
        Action::Trace(number) => libc::SECCOMP_RET_TRACE | u32::from(number),
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a compiled filter as the kernel does.
    fn run(filter: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend_from_slice(&number.to_le_bytes());
        data.extend_from_slice(&arch.to_le_bytes());
        data.extend_from_slice(&[0; 8]);
        for arg in args {
            data.extend_from_slice(&arg.to_le_bytes());
        }
        let program: Vec<(u16, u8, u8, u32)> = filter
            .chunks_exact(INSTRUCTION)
            .map(|c| (u16::from_ne_bytes([c[0], c[1]]), c[2], c[3], u32::from_ne_bytes([c[4], c[5], c[6], c[7]])))
            .collect();
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let (code, yes, no, k) = program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { yes } else { no });
            match code {
                LOAD => {
                    let k = k as usize;
                    accumulator = u32::from_le_bytes(data[k..k + 4].try_into().unwrap());
                }
                RETURN => return k,
                0x05 => at += k as usize,
                JUMP_EQUAL => at += jump(accumulator == k),
                JUMP_GREATER_OR_EQUAL => at += jump(accumulator >= k),
                0x25 => at += jump(accumulator > k),
                JUMP_BITS => at += jump(accumulator & k != 0),
                0x54 => accumulator &= k,
                other => panic!("unexpected instruction {other:#x}"),
            }
        }
    }

    const X86_64: u32 = 0xc000_003e;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_default_profile_decides_as_it_says() {
        let filter = compile(&default_profile(0)).unwrap();
        let decide = |number: i64, first: u64| run(&filter, X86_64, number as u32, [first, 0, 0, 0, 0, 0]);
        assert_eq!(decide(libc::SYS_read, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(libc::SYS_execve, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(libc::SYS_mount, 0), EPERM);
        assert_eq!(decide(libc::SYS_keyctl, 0), EPERM);
        assert_eq!(decide(libc::SYS_clone3, 0), ENOSYS);
        assert_eq!(decide(libc::SYS_clone, libc::CLONE_NEWUSER as u64), EPERM);
        assert_eq!(decide(libc::SYS_clone, libc::SIGCHLD as u64), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(libc::SYS_socket, libc::AF_INET as u64), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(libc::SYS_socket, libc::AF_VSOCK as u64), EPERM);
        assert_eq!(decide(libc::SYS_personality, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(libc::SYS_personality, 0x0040_0000), EPERM);
        // fchmodat2 is allowed, a mount call of the same age isn't, a call of the future doesn't exist.
        assert_eq!(decide(452, 0), libc::SECCOMP_RET_ALLOW);
        assert_eq!(decide(467, 0), EPERM);
        assert_eq!(decide(999, 0), ENOSYS);
        assert_eq!(decide(i64::from(X32) + 1000, 0), EPERM);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn alternatives_on_one_argument() {
        let profile = parse(
            br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":2,"op":"SCMP_CMP_EQ"}]}]}"#,
        )
        .unwrap();
        let filter = compile(&profile).unwrap();
        let decide = |first| run(&filter, X86_64, libc::SYS_socket as u32, [first, 0, 0, 0, 0, 0]);
        assert_eq!(decide(1), EPERM);
        assert_eq!(decide(2), EPERM);
        assert_eq!(decide(3), libc::SECCOMP_RET_ALLOW);
    }
}
