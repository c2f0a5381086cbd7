//! Ending a process with everything it has started.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::sys;

/// How long processes may take to stop before they are ended anyway.
const STOPPING: Duration = Duration::from_millis(200);

/// Stops the whole tree from its root down, then kills it.
pub(super) fn kill(root: u32, process: BorrowedFd<'_>) -> io::Result<()> {
    sys::send_signal(process, nix::libc::SIGSTOP)?;
    let mut stopped: HashMap<u32, OwnedFd> = HashMap::new();
    let deadline = Instant::now() + STOPPING;
    loop {
        let table = table();
        let mut settled = true;
        for (pid, row) in &table {
            let inside = |pid: u32| pid == root || stopped.contains_key(&pid);
            if inside(*pid) {
                // A process on its way to a stop may still finish making another.
                settled &= row.at_rest;
                continue;
            }
            if !inside(row.parent) {
                continue;
            }
            if let Some(child) = open(*pid, row.parent) {
                settled = false;
                sys::send_signal(&child, nix::libc::SIGSTOP)?;
                stopped.insert(*pid, child);
            }
        }
        if settled || Instant::now() >= deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let killed = sys::send_signal(process, nix::libc::SIGKILL);
    for child in stopped.values() {
        sys::send_signal(child.as_fd(), nix::libc::SIGKILL)?;
    }
    killed
}

/// A descriptor of the process, if that number still means a child of `parent`.
fn open(pid: u32, parent: u32) -> Option<OwnedFd> {
    let process = sys::process_descriptor(pid).ok()?;
    // The number may have been given to another process before it was opened, not after.
    (row(pid)?.parent == parent).then_some(process)
}

/// The living and dead children of this process that go by that short name.
pub(super) fn children_called(name: &str) -> Vec<u32> {
    let me = std::process::id();
    let table = table().into_iter();
    table
        .filter(|(_, row)| row.parent == me && row.name == name)
        .map(|(pid, _)| pid)
        .collect()
}

struct Row {
    name: String,
    parent: u32,
    /// Stopped, or dead.
    at_rest: bool,
}

fn table() -> HashMap<u32, Row> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, row(pid)?)))
        .collect()
}

fn row(pid: u32) -> Option<Row> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything, also brackets.
    let (before, after) = text.rsplit_once(')')?;
    let mut fields = after.split_ascii_whitespace();
    let state = fields.next()?;
    Some(Row {
        name: before.split_once('(')?.1.to_owned(),
        parent: fields.next()?.parse().ok()?,
        at_rest: matches!(state, "T" | "t" | "Z" | "X"),
    })
}
