//! Ending a process with everything it has started.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc::{SIGKILL, SIGSTOP};

use super::zygote;
use crate::sys;

/// How long processes may take to stop before they are ended anyway.
const STOPPING: Duration = Duration::from_millis(200);

/// A process of the tree that is to be ended.
struct Member {
    name: String,
    /// What it is signalled by; or why there is nothing.
    process: io::Result<OwnedFd>,
}

impl Member {
    fn signal(&self, signal: i32) -> io::Result<()> {
        match &self.process {
            Ok(process) => sys::send_signal(process, signal),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

/// How much longer it is looked for processes while each look finds more.
const LONGEST: Duration = Duration::from_secs(5);

/// Stops the whole tree from its root down, then kills it. What cannot be signalled is left as it is, and
/// does not keep the rest from being ended.
///
/// # Errors
///
/// Names those that are left.
pub(super) fn kill(root: u32, process: BorrowedFd<'_>) -> io::Result<()> {
    let first = Member {
        name: row(root).map_or_else(String::new, |row| row.name),
        process: process.try_clone_to_owned(),
    };
    // Those that may not be stopped may not be ended either; only what they have started may.
    let mut running: HashSet<u32> = HashSet::new();
    if first.signal(SIGSTOP).is_err() {
        running.insert(root);
    }
    let mut members = HashMap::from([(root, first)]);
    let deadline = Instant::now() + STOPPING;
    loop {
        let mut settled = true;
        let known = members.len();
        for (pid, row) in table() {
            if members.contains_key(&pid) {
                // A process on its way to a stop may still finish making another.
                settled &= row.at_rest || running.contains(&pid);
                continue;
            }
            if !members.contains_key(&row.parent) {
                continue;
            }
            if let Some(process) = open(pid, row.parent) {
                let name = row.name;
                let member = Member { name, process };
                match member.signal(SIGSTOP) {
                    Ok(()) => settled = false,
                    Err(_) => _ = running.insert(pid),
                }
                members.insert(pid, member);
            }
        }
        // Where so much runs that a look takes long, those who are found late may have started others.
        let is_late = Instant::now() >= deadline && members.len() == known;
        if settled || is_late || Instant::now() >= deadline + LONGEST {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut left = Vec::new();
    let mut kind = None;
    for (pid, member) in &members {
        if let Err(error) = member.signal(SIGKILL) {
            kind.get_or_insert(error.kind());
            left.push(format!("{} (pid {pid}: {error})", member.name));
        }
    }
    match kind {
        None => Ok(()),
        Some(kind) => {
            let why = format!(
                "not ended, for they cannot be signalled: {}",
                left.join(", ")
            );
            Err(io::Error::new(kind, why))
        }
    }
}

/// A descriptor of the process, if that number still means a child of `parent`.
fn open(pid: u32, parent: u32) -> Option<io::Result<OwnedFd>> {
    let process = sys::process_descriptor(pid);
    // The number may have been given to another process before it was opened, not after.
    (row(pid)?.parent == parent).then_some(process)
}

/// Children of this process that it has not made: zygotes of processes of its tree that have ended, and
/// those of their children that had no function yet. `is_known` are those that it has made.
pub(super) fn orphans(is_known: impl Fn(u32) -> bool) -> Vec<u32> {
    let me = std::process::id();
    let mut found = Vec::new();
    for (pid, row) in table() {
        let of_zygote = zygote::named_in(&row.name);
        // Children of its own zygote have that name before this process knows of them.
        let is_orphan = of_zygote.is_some_and(|zygote| zygote == pid || !is_known(zygote));
        if row.parent == me && is_orphan && !is_known(pid) {
            found.push(pid);
        }
    }
    found
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

/// Whether a process is stopped, or dead.
pub(super) fn is_at_rest(pid: u32) -> bool {
    row(pid).is_none_or(|row| row.at_rest)
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
