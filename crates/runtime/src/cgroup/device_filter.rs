//! The device filter of a version 2 group: a small eBPF program made from the rules.
//!
//! Version 2 has no devices controller; without this program a container with CAP_MKNOD could open the
//! machine's disks.

#![allow(unsafe_code, reason = "bpf(2) has no safe wrapper; the program and its attributes are built here")]

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use super::{DeviceKind, DeviceRule};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

const BPF_DEVCG_ACC_MKNOD: i32 = 1;
const BPF_DEVCG_ACC_READ: i32 = 2;
const BPF_DEVCG_ACC_WRITE: i32 = 4;
const BPF_DEVCG_DEV_BLOCK: i32 = 1;
const BPF_DEVCG_DEV_CHAR: i32 = 2;

/// One instruction, as the kernel reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high one.
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const fn new(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Self {
        Self { code, registers: dst | (src << 4), offset, immediate }
    }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// The context is `{ access_type: u32, major: u32, minor: u32 }`, access in the upper half of its first word.
/// Registers: 2 kind, 3 access, 4 major, 5 minor, 1 scratch.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut out = vec![
        Instruction::new(LOAD_WORD, 2, 1, 0, 0),
        Instruction::new(MOVE, 3, 2, 0, 0),
        Instruction::new(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        Instruction::new(SHIFT_RIGHT, 3, 0, 0, 16),
        Instruction::new(LOAD_WORD, 4, 1, 4, 0),
        Instruction::new(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let mut checks = Vec::new();
        let kind = match rule.kind {
            DeviceKind::Char => BPF_DEVCG_DEV_CHAR,
            DeviceKind::Block => BPF_DEVCG_DEV_BLOCK,
        };
        checks.push(vec![Instruction::new(JUMP_NOT_EQUAL, 2, 0, 0, kind)]);
        let mut allowed = 0;
        for (set, bit) in
            [(rule.read, BPF_DEVCG_ACC_READ), (rule.write, BPF_DEVCG_ACC_WRITE), (rule.mknod, BPF_DEVCG_ACC_MKNOD)]
        {
            if set {
                allowed |= bit;
            }
        }
        // No bit beyond the allowed ones may be asked for.
        checks.push(vec![
            Instruction::new(MOVE, 1, 3, 0, 0),
            Instruction::new(AND_IMMEDIATE, 1, 0, 0, !allowed & 7),
            Instruction::new(JUMP_NOT_EQUAL, 1, 0, 0, 0),
        ]);
        for (register, number) in [(4, rule.major), (5, rule.minor)] {
            if let Some(number) = number {
                checks.push(vec![Instruction::new(JUMP_NOT_EQUAL, register, 0, 0, number as i32)]);
            }
        }
        let mut block: Vec<_> = checks.into_iter().flatten().collect();
        block.push(Instruction::new(MOVE_IMMEDIATE, 0, 0, 0, 1));
        block.push(Instruction::new(EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (at, instruction) in block.iter_mut().enumerate() {
            if instruction.code == JUMP_NOT_EQUAL {
                // Offsets count from the next instruction; a failed check goes to the next rule.
                instruction.offset = (length - at - 1) as i16;
            }
        }
        out.extend(block);
    }
    out.push(Instruction::new(MOVE_IMMEDIATE, 0, 0, 0, 0));
    out.push(Instruction::new(EXIT, 0, 0, 0, 0));
    out
}

/// Loads the program of `rules` and attaches it to the group at `dir`.
pub(super) fn attach(dir: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    #[repr(C)]
    #[derive(Default)]
    struct LoadAttributes {
        program_type: u32,
        instruction_count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    #[repr(C)]
    struct AttachAttributes {
        target: u32,
        program: u32,
        kind: u32,
        flags: u32,
    }

    let instructions = program(rules);
    let license = c"Apache-2.0";
    let load = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the attributes point to an instruction list and a C string that outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadAttributes>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let group = File::open(dir)?;
    let attributes = AttachAttributes {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes are plain numbers, both descriptors are open.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachAttributes>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Runs the few instructions that [`program`] uses.
    fn run(program: &[Instruction], kind: i32, access: i32, major: u32, minor: u32) -> bool {
        let context = [(access as u32) << 16 | kind as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let i = program[at];
            let (dst, src) = ((i.registers & 15) as usize, (i.registers >> 4) as usize);
            at += 1;
            match i.code {
                LOAD_WORD => registers[dst] = u64::from(context[i.offset as usize / 4]),
                MOVE => registers[dst] = registers[src],
                MOVE_IMMEDIATE => registers[dst] = i.immediate as i64 as u64,
                AND_IMMEDIATE => registers[dst] &= i.immediate as i64 as u64,
                SHIFT_RIGHT => registers[dst] >>= i.immediate,
                JUMP_NOT_EQUAL => {
                    if registers[dst] != i.immediate as i64 as u64 {
                        at = (at as i64 + i64::from(i.offset)) as usize;
                    }
                }
                EXIT => return registers[0] != 0,
                other => panic!("unexpected instruction {other:#x}"),
            }
        }
    }

    fn rule() -> impl Strategy<Value = DeviceRule> {
        (any::<bool>(), proptest::option::of(0u32..4), proptest::option::of(0u32..4), any::<[bool; 3]>()).prop_map(
            |(block, major, minor, [read, write, mknod])| DeviceRule {
                kind: if block { DeviceKind::Block } else { DeviceKind::Char },
                major,
                minor,
                read,
                write,
                mknod,
            },
        )
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_rules_say(
            rules in proptest::collection::vec(rule(), 0..6),
            block: bool,
            access in 1i32..8,
            major in 0u32..4,
            minor in 0u32..4,
        ) {
            let kind = if block { BPF_DEVCG_DEV_BLOCK } else { BPF_DEVCG_DEV_CHAR };
            let expected = rules.iter().any(|r| {
                (r.kind == DeviceKind::Block) == block
                    && r.major.is_none_or(|m| m == major)
                    && r.minor.is_none_or(|m| m == minor)
                    && (access & BPF_DEVCG_ACC_READ == 0 || r.read)
                    && (access & BPF_DEVCG_ACC_WRITE == 0 || r.write)
                    && (access & BPF_DEVCG_ACC_MKNOD == 0 || r.mknod)
            });
            prop_assert_eq!(run(&program(&rules), kind, access, major, minor), expected);
        }
    }
}
