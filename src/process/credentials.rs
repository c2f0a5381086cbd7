//! What a process gets from the thread that executes it, apart from what travels in its first word.

use std::io;

use crate::sys::{self, ThreadState};

/// Users, groups, capabilities, seccomp filters, namespaces, control group, affinity, priority, limits and
/// so on of a thread.
///
/// A child has those of the thread that starts it, as the child of a [`std::process::Command`] has. A
/// zygote has those of the thread that executed it, and makes no children for a thread with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    /// The lines of `status` that tell of them; then control group and willingness to be killed.
    account: Vec<u8>,
    state: ThreadState,
    /// See [`Credentials::could_be_restricted`].
    could_be_restricted: bool,
}

/// Lines of the kernel's own account of a thread.
const WATCHED: &[&[u8]] = &[
    b"Umask:",
    b"Uid:",
    b"Gid:",
    b"Groups:",
    b"NSpgid:",
    b"NSsid:",
    b"CapInh:",
    b"CapPrm:",
    b"CapEff:",
    b"CapBnd:",
    b"CapAmb:",
    b"NoNewPrivs:",
    b"Seccomp:",
    b"Seccomp_filters:",
    b"Speculation_Store_Bypass:",
    b"SpeculationIndirectBranch:",
    b"Cpus_allowed:",
    b"Mems_allowed:",
];

/// As a bit of a set of capabilities.
const CAP_SYS_ADMIN: u64 = 1 << 21;

impl Credentials {
    /// Those of the calling thread, now. Most of the time is the kernel's, for `status` and the control group.
    pub(super) fn now() -> io::Result<Credentials> {
        let folder = sys::own_account()?;
        let status = sys::read_account(&folder, "status")?;
        let mut account = Vec::with_capacity(1024);
        let mut could_be_restricted = false;
        for line in status.split_inclusive(|byte| *byte == b'\n') {
            if WATCHED.iter().any(|name| line.starts_with(name)) {
                account.extend_from_slice(line);
                could_be_restricted |= allows_restriction(line);
            }
            if let Some(set) = ignored_signals(line) {
                account.extend_from_slice(&set.to_ne_bytes());
            }
        }
        // A kernel may be built without control groups.
        for name in ["cgroup", "oom_score_adj"] {
            account.extend(sys::read_account(&folder, name).unwrap_or_default());
        }
        Ok(Credentials {
            account,
            state: ThreadState::now(&folder)?,
            could_be_restricted,
        })
    }

    /// Whether the thread may have restricted itself by Landlock, which the kernel demands one of two
    /// things for: that it can gain no privileges, or that it has the capability.
    pub(super) fn could_be_restricted(&self) -> bool {
        self.could_be_restricted
    }
}

/// The ignored signals, which a program inherits, unlike handlers. Without those of the C library, which uses
/// them from the first thread on.
fn ignored_signals(line: &[u8]) -> Option<u64> {
    const OF_THE_C_LIBRARY: u64 = 0b111 << (32 - 1);
    let set = std::str::from_utf8(line.strip_prefix(b"SigIgn:")?).ok()?;
    let set = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(set & !OF_THE_C_LIBRARY)
}

fn allows_restriction(line: &[u8]) -> bool {
    let text = std::str::from_utf8(line).unwrap_or_default();
    match text.split_once(':') {
        Some(("NoNewPrivs", value)) => value.trim() != "0",
        Some(("CapEff", set)) => {
            u64::from_str_radix(set.trim(), 16).is_ok_and(|set| set & CAP_SYS_ADMIN != 0)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_the_c_library_do_not_count() {
        assert_eq!(
            ignored_signals(b"SigIgn:\t0000000780001000\n"),
            Some(1 << 34 | 1 << 12)
        );
        assert_eq!(ignored_signals(b"SigCgt:\t0000000780001000\n"), None);
    }

    #[test]
    fn who_could_be_restricted() {
        assert!(allows_restriction(b"NoNewPrivs:\t1\n"));
        assert!(!allows_restriction(b"NoNewPrivs:\t0\n"));
        assert!(allows_restriction(b"CapEff:\t000001ffffffffff\n"));
        assert!(!allows_restriction(b"CapEff:\t00000000000000c0\n"));
        assert!(!allows_restriction(b"CapPrm:\t000001ffffffffff\n"));
    }
}
