//! Programs that are not of this tree: copies of this one, started as any program starts another.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{costs, faults, hosts, named, places, surroundings, waiting};

/// What a stranger does with the name it is given.
pub(crate) type Part = fn(&str);

const PARTS: &[&[(&str, Part)]] = &[
    named::STRANGERS,
    faults::STRANGERS,
    costs::STRANGERS,
    surroundings::STRANGERS,
    waiting::STRANGERS,
    hosts::STRANGERS,
    places::STRANGERS,
];

/// The parts of a module, with their names.
macro_rules! strangers {
    ($($name:ident),* $(,)?) => {
        pub(crate) const STRANGERS: &[(&str, crate::strangers::Part)] = &[$((stringify!($name), $name)),*];
    };
}
pub(crate) use strangers;

/// The part of that name.
pub(crate) fn of(scenario: &str) -> Option<Part> {
    let mut parts = PARTS.iter().copied().flatten();
    Some(parts.find(|(name, _)| *name == scenario)?.1)
}

/// Plays a part: the whole life of a stranger.
pub(crate) fn play(part: Part) {
    part(&std::env::var("MULTIPROC_TEST_NAME").unwrap());
}

/// A stranger; it is killed when this is dropped.
pub(crate) struct Stranger {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Stranger {
    /// Starts one that plays that part.
    pub(crate) fn start(part: &str, name: &str) -> Stranger {
        Stranger::start_by(&mut Command::new("/proc/self/exe"), part, name)
    }

    /// Starts one by a command that executes this program.
    pub(crate) fn start_by(command: &mut Command, part: &str, name: &str) -> Stranger {
        let mut child = command
            .env("MULTIPROC_TEST_SCENARIO", part)
            .env("MULTIPROC_TEST_NAME", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Stranger { child, out }
    }

    /// Starts one and waits until it says that it is ready.
    pub(crate) fn ready(part: &str, name: &str) -> Stranger {
        let mut stranger = Stranger::start(part, name);
        stranger.says("ready");
        stranger
    }

    /// The next line it says; empty if it ended.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Checks what it says next.
    pub(crate) fn says(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    /// Lets it go on from where it pauses.
    pub(crate) fn go_on(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"\n").unwrap();
    }

    /// Lets it go on to its end, and checks that it ends well.
    pub(crate) fn finish(mut self) {
        drop(self.child.stdin.take());
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}, {rest}");
        assert_eq!(rest, "");
    }

    /// Kills it, and waits until it is dead.
    pub(crate) fn kill(mut self) {
        // `wait` closes it, at which one that has not died yet, behind the command that started it, would go on.
        let _input = self.child.stdin.take();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stranger says.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

/// Where a stranger waits until it may go on, or whoever started it is gone.
pub(crate) fn pause() {
    std::io::stdin().read_exact(&mut [0]).unwrap_or_default();
}

/// A name no other test uses.
pub(crate) fn fresh(tag: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{tag}-{}-{number}", std::process::id())
}

/// Where a name appears.
pub(crate) fn path(name: &str) -> PathBuf {
    let user = nix::unistd::geteuid();
    let own = PathBuf::from(format!("/run/user/{user}"));
    let folder = match own.is_dir() {
        true => own,
        false => PathBuf::from("/dev/shm"),
    };
    folder.join(format!("multiproc-{user}-{name}"))
}
