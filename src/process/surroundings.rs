//! What a process is given by the one that executes it, apart from what travels in its first word.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use crate::sys;

/// User, groups, capabilities, umask, process group, session, limits and root directory: a zygote that was
/// made in others makes no children for these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Surroundings {
    status: Vec<u8>,
    limits: Vec<[Option<u64>; 2]>,
    root: (u64, u64),
}

/// Lines of the kernel's own account of a process.
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
];

impl Surroundings {
    /// As they are now.
    pub(super) fn now() -> io::Result<Surroundings> {
        let mut file = File::open("/proc/self/status")?;
        let mut text = vec![0; 4096];
        let mut len = 0;
        loop {
            let read = file.read(&mut text[len..])?;
            len += read;
            // One read gives all that there is room for.
            if len < text.len() {
                break;
            }
            text.resize(2 * len, 0);
        }
        let mut status = Vec::with_capacity(1024);
        for line in text[..len].split_inclusive(|byte| *byte == b'\n') {
            if WATCHED.iter().any(|name| line.starts_with(name)) {
                status.extend_from_slice(line);
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
