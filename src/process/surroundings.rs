//! What a process is given by the one that executes it, apart from what travels in its first word.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::sys;

/// User, groups, capabilities, umask, process group, session, limits and root directory: a zygote that was
/// made in others makes no children for these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    status: String,
    limits: Vec<[Option<u64>; 2]>,
    root: (u64, u64),
}

/// Lines of the kernel's own account of a process.
const WATCHED: &[&str] = &[
    "Umask:",
    "Uid:",
    "Gid:",
    "Groups:",
    "NSpgid:",
    "NSsid:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Seccomp:",
];

impl Surroundings {
    /// As they are now.
    pub(super) fn now() -> io::Result<Surroundings> {
        let mut text = String::with_capacity(4096);
        File::open("/proc/self/status")?.read_to_string(&mut text)?;
        let mut status = String::with_capacity(512);
        for line in text.lines() {
            if WATCHED.iter().any(|name| line.starts_with(name)) {
                status.push_str(line);
                status.push('\n');
            }
        }
        let root = std::fs::metadata("/")?;
        Ok(Surroundings {
            status,
            limits: sys::limits(),
            root: (root.dev(), root.ino()),
        })
    }
}
