//! Stop signals: by the CRI's enumeration, by the image's words, by number.

use cri::v1::Signal;

/// Real-time signals as C libraries hand them out.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The CRI's first and last numbered ones of the two real-time rows.
const CRI_RTMIN: i32 = Signal::Sigrtmin as i32;
const CRI_RTMAX_MINUS_14: i32 = Signal::Sigrtmaxminus14 as i32;
const CRI_RTMAX: i32 = Signal::Sigrtmax as i32;

const TABLE: [(Signal, &str, i32); 34] = [
    (Signal::Sigabrt, "ABRT", libc::SIGABRT),
    (Signal::Sigalrm, "ALRM", libc::SIGALRM),
    (Signal::Sigbus, "BUS", libc::SIGBUS),
    (Signal::Sigchld, "CHLD", libc::SIGCHLD),
    (Signal::Sigcld, "CLD", libc::SIGCHLD),
    (Signal::Sigcont, "CONT", libc::SIGCONT),
    (Signal::Sigfpe, "FPE", libc::SIGFPE),
    (Signal::Sighup, "HUP", libc::SIGHUP),
    (Signal::Sigill, "ILL", libc::SIGILL),
    (Signal::Sigint, "INT", libc::SIGINT),
    (Signal::Sigio, "IO", libc::SIGIO),
    (Signal::Sigiot, "IOT", libc::SIGABRT),
    (Signal::Sigkill, "KILL", libc::SIGKILL),
    (Signal::Sigpipe, "PIPE", libc::SIGPIPE),
    (Signal::Sigpoll, "POLL", libc::SIGPOLL),
    (Signal::Sigprof, "PROF", libc::SIGPROF),
    (Signal::Sigpwr, "PWR", libc::SIGPWR),
    (Signal::Sigquit, "QUIT", libc::SIGQUIT),
    (Signal::Sigsegv, "SEGV", libc::SIGSEGV),
    (Signal::Sigstkflt, "STKFLT", libc::SIGSTKFLT),
    (Signal::Sigstop, "STOP", libc::SIGSTOP),
    (Signal::Sigsys, "SYS", libc::SIGSYS),
    (Signal::Sigterm, "TERM", libc::SIGTERM),
    (Signal::Sigtrap, "TRAP", libc::SIGTRAP),
    (Signal::Sigtstp, "TSTP", libc::SIGTSTP),
    (Signal::Sigttin, "TTIN", libc::SIGTTIN),
    (Signal::Sigttou, "TTOU", libc::SIGTTOU),
    (Signal::Sigurg, "URG", libc::SIGURG),
    (Signal::Sigusr1, "USR1", libc::SIGUSR1),
    (Signal::Sigusr2, "USR2", libc::SIGUSR2),
    (Signal::Sigvtalrm, "VTALRM", libc::SIGVTALRM),
    (Signal::Sigwinch, "WINCH", libc::SIGWINCH),
    (Signal::Sigxcpu, "XCPU", libc::SIGXCPU),
    (Signal::Sigxfsz, "XFSZ", libc::SIGXFSZ),
];

/// The number of a signal that a request names; `None` leaves it to the image.
pub(crate) fn from_cri(signal: i32) -> Option<i32> {
    if signal == Signal::RuntimeDefault as i32 {
        return None;
    }
    if let Some((_, _, number)) = TABLE.iter().find(|(s, _, _)| *s as i32 == signal) {
        return Some(*number);
    }
    match signal {
        CRI_RTMIN..CRI_RTMAX_MINUS_14 => Some(RTMIN + signal - CRI_RTMIN),
        CRI_RTMAX_MINUS_14..=CRI_RTMAX => Some(RTMAX - (CRI_RTMAX - signal)),
        _ => None,
    }
}

/// The request's name for a number.
pub(crate) fn to_cri(number: i32) -> Signal {
    let named = TABLE.iter().find(|(_, _, n)| *n == number).map(|(s, ..)| *s);
    let real_time = match number {
        RTMIN..=49 => Signal::try_from(CRI_RTMIN + number - RTMIN).ok(),
        50..=RTMAX => Signal::try_from(CRI_RTMAX - (RTMAX - number)).ok(),
        _ => None,
    };
    named.or(real_time).unwrap_or(Signal::RuntimeDefault)
}

/// The number of an image's stop signal: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.
pub(crate) fn parse(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, _, number)) = TABLE.iter().find(|(_, n, _)| *n == name) {
        return Some(*number);
    }
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, '+')?
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        RTMAX - offset(rest, '-')?
    } else {
        return None;
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    digits.parse().ok().filter(|n| (0..=30).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_words() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMAX", Some(64)),
            ("0", None),
            ("65", None),
            ("SIGNOPE", None),
            ("RTMIN-1", None),
        ] {
            assert_eq!(parse(text), number, "{text}");
        }
    }

    #[test]
    fn numbers_survive_the_enumeration() {
        for signal in 1..=CRI_RTMAX {
            let number = from_cri(signal).unwrap();
            assert_eq!(from_cri(to_cri(number) as i32), Some(number), "{signal}");
        }
        assert_eq!(from_cri(0), None);
        assert_eq!(from_cri(Signal::Sigrtminplus3 as i32), Some(37));
        assert_eq!(from_cri(Signal::Sigrtmax as i32), Some(64));
    }
}
