//! What the tests share: deadlines, isolation, and finding processes.

use std::fs::File;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Child, Function, Message, Process, ProcessBuilder, SpawnError, StartMethod};

/// A test and its name.
pub(crate) type Test = (&'static str, fn());

/// The tests of a module, with their names.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[crate::help::Test] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use tests;

/// No test may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// The two ends of a pipe, to read and to write. (`std::io::pipe` is of Rust 1.87.)
pub(crate) fn pipe() -> (File, File) {
    let ends = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let (read, write) = ends.expect("a pipe can be made");
    (read.into(), write.into())
}

/// Runs a test, and fails when it hangs.
pub(crate) fn with_deadline(test: fn()) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        test();
        // The test has not been given up.
        let _ = tell.send(());
    });
    if told.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs: not done after {LIMIT:?}");
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// The variable that says how [`process`] and [`spawn`] make processes, here and in all of them.
pub(crate) const METHOD: &str = "MULTIPROC_START_TESTED";

/// A process to be, made as this run of the tests wants it.
pub(crate) fn process() -> ProcessBuilder {
    match std::env::var(METHOD).as_deref() {
        Ok("zygote") => Process::builder().start_method(StartMethod::Zygote),
        Ok("exec") => Process::builder().start_method(StartMethod::Exec),
        _ => Process::builder(),
    }
}

/// Starts a process, made as this run of the tests wants it.
pub(crate) fn spawn<F, A>(function: F, arguments: A) -> Result<Child<F::Output>, SpawnError>
where
    F: Function<A>,
    A: Message,
    F::Output: Message,
{
    process().spawn(function, arguments)
}

/// Runs `body` in a process of its own, where it disturbs nobody.
pub(crate) fn isolated<F: Function<(), Output = ()>>(body: F) {
    let child = spawn(body, ()).unwrap();
    match child.join_timeout(LIMIT) {
        Ok(Some(())) => {}
        Ok(None) => panic!("it hangs: not done after {LIMIT:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until `done` says so; fails after `limit`.
pub(crate) fn wait_until(limit: Duration, what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sleeps long enough for any test to be over.
pub(crate) fn sleep_long() {
    thread::sleep(Duration::from_secs(600));
}

/// The variable that marks all processes of one test, whoever starts them.
pub(crate) const TREE: &str = "MULTIPROC_TEST_TREE";

/// A value of [`TREE`] that nobody else has.
pub(crate) fn tree_mark() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

/// The processes that have this mark in their environment, zygotes and their spares left out.
pub(crate) fn family(mark: &str) -> Vec<u32> {
    let mut all = marked(mark);
    all.retain(|pid| !is_zygote(*pid));
    all
}

/// Whether it is a zygote, or a child of one that waits.
pub(crate) fn is_zygote(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.starts_with("zygote-"))
}

/// The living processes that have this mark in their environment.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let wanted = format!("{TREE}={mark}");
    pids()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
                all.split(|byte| *byte == 0)
                    .any(|one| one == wanted.as_bytes())
            })
        })
        .collect()
}

/// The children of this process, dead ones that nobody has reaped among them; a living zygote and its
/// spares are left out.
pub(crate) fn own_children() -> Vec<u32> {
    let is_dead = |pid| stat(pid).is_none_or(|fields| fields[0] == "Z");
    all_children()
        .into_iter()
        .filter(|pid| !is_zygote(*pid) || is_dead(*pid))
        .collect()
}

/// The children of this process, all of them.
pub(crate) fn all_children() -> Vec<u32> {
    let me = std::process::id();
    pids().filter(|pid| parent_of(*pid) == Some(me)).collect()
}

pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of `/proc/PID/stat` after the name: state, parent, …
pub(crate) fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(String::from).collect())
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The descriptors of this process, with what they lead to.
pub(crate) fn descriptors() -> Vec<(u32, String)> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let mut all: Vec<(u32, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                target.display().to_string(),
            ))
        })
        .filter(|(_, target)| !target.ends_with("/fd"))
        .collect();
    all.sort();
    all
}

/// The descriptors of this process once it has had a child.
pub(crate) fn after_first_child() -> Vec<(u32, String)> {
    spawn(|| (), ()).unwrap().join().unwrap();
    // The reaper holds the child's descriptor a moment longer than the child lives, and spares are made.
    thread::sleep(Duration::from_millis(200));
    descriptors()
}

/// Checks that this process has as many descriptors of each kind as those, and no children.
pub(crate) fn settles_to(before: &[(u32, String)]) {
    let kinds = |all: &[(u32, String)]| {
        // The numbers in `socket:[1234]`, and of the descriptors, change with every spare.
        let kind = |(_, target): &(u32, String)| target.split(":[").next().map(String::from);
        let mut kinds: Vec<_> = all.iter().map(kind).collect();
        kinds.sort();
        kinds
    };
    let before = kinds(before);
    let end = Instant::now() + Duration::from_secs(10);
    while kinds(&descriptors()) != before {
        let (now, given) = (descriptors(), &before);
        assert!(Instant::now() < end, "not as before, {given:?}: {now:?}");
        thread::sleep(Duration::from_millis(1));
    }
    wait_until(Duration::from_secs(2), "no child is left", || {
        own_children().is_empty()
    });
}

/// How many descriptors beside the standard streams every program started from here inherits.
pub(crate) fn inheritable() -> usize {
    let kept = |number: u32| {
        let flags = format!("/proc/self/fdinfo/{number}");
        let text = std::fs::read_to_string(flags).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
        flags.is_some_and(|flags| flags & nix::libc::O_CLOEXEC as u32 == 0)
    };
    descriptors()
        .iter()
        .filter(|(number, _)| *number > 2 && kept(*number))
        .count()
}
