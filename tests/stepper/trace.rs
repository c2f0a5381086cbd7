//! A victim under the single-stepper.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use multiproc::{Child, Function, JoinError, Message, Process};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{self, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use rustix::fs::{SeekFrom, seek};

use crate::stage::Stage;

/// No victim may take longer to come to its operation.
const LIMIT: Duration = Duration::from_secs(60);

/// Who a victim is to those that are not: how it is found, and what becomes of it.
pub(crate) trait Who {
    /// What it says at its end.
    type Said;

    fn pid(&self) -> u32;

    /// It was killed: waits until it is gone.
    fn bury(self);

    /// It goes on: waits until it has done so.
    fn join(self) -> Self::Said;
}

impl<R: Message> Who for Child<R> {
    type Said = R;

    fn pid(&self) -> u32 {
        Child::pid(self)
    }

    fn bury(self) {
        let end = Child::join(self);
        assert!(
            matches!(end, Err(JoinError::Signalled(9))),
            "killed, the victim ended otherwise"
        );
    }

    fn join(self) -> R {
        match self.join_timeout(LIMIT) {
            Ok(Some(result)) => result,
            Ok(None) => panic!("released, the victim hangs"),
            Err(error) => panic!("released, the victim failed: {error}"),
        }
    }
}

/// A process that is stopped right before its operation, and then after each instruction asked for.
///
/// Traced by the thread that made it, and only by that.
pub(crate) struct Victim<W> {
    who: W,
    stage: Stage,
    pid: Pid,
}

impl<R: Message> Victim<Child<R>> {
    /// A process of its own, for a function that calls [`Stage::act`].
    pub(crate) fn start<F, A>(function: F, ends: A) -> Victim<Child<R>>
    where
        F: Function<(Stage, A), Output = R>,
        A: Message,
    {
        let stage = Stage::new();
        let child = Process::spawn(function, (stage.clone(), ends)).unwrap();
        stage.wait_until_ready();
        Victim::seize(child, stage)
    }
}

impl<W: Who> Victim<W> {
    /// One that is ready for its operation.
    pub(crate) fn seize(who: W, stage: Stage) -> Victim<W> {
        let pid = Pid::from_raw(who.pid() as i32);
        crate::run::to_own_cpu(pid);
        let refused = "the system refuses ptrace, without which nothing can be stepped";
        ptrace::seize(pid, Options::empty()).expect(refused);
        ptrace::interrupt(pid).unwrap();
        let mut victim = Victim { who, stage, pid };
        assert!(
            victim.wait_for_stop(),
            "the victim died before its operation"
        );
        victim.stage.go();
        while !victim.stage.has_begun() {
            assert!(victim.step(), "the victim died before its operation");
        }
        victim
    }

    /// Whether it has stopped; false if it has died.
    fn wait_for_stop(&mut self) -> bool {
        // Left to be reaped by whoever made it.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        loop {
            match waitid(Id::Pid(self.pid), flags | WaitPidFlag::__WALL) {
                Err(nix::errno::Errno::EINTR) => continue,
                Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) => return false,
                Ok(_) => return true,
                Err(error) => panic!("waiting for the victim: {error}"),
            }
        }
    }

    /// Runs one instruction; false if it died of it.
    pub(crate) fn step(&mut self) -> bool {
        ptrace::step(self.pid, None).unwrap();
        self.wait_for_stop()
    }

    /// Runs `count` instructions, or as many as there are until the operation has returned; how many.
    pub(crate) fn steps(&mut self, count: usize) -> usize {
        for done in 0..count {
            if self.is_done() {
                return done;
            }
            assert!(self.step(), "the victim died of instruction {done}");
        }
        count
    }

    /// Runs it until shared memory has changed so often.
    pub(crate) fn changes(&mut self, count: usize) {
        let mut shared = self.shared();
        for _ in 0..count {
            while !shared.has_changed() {
                assert_eq!(self.steps(1), 1, "done, with fewer changes");
            }
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.stage.is_done()
    }

    /// Kills it where it stands.
    pub(crate) fn kill(self) {
        signal::kill(self.pid, Signal::SIGKILL).unwrap();
        self.who.bury();
    }

    /// Lets it go on to its end; what it returned.
    pub(crate) fn release(self) -> W::Said {
        self.stage.leave();
        ptrace::detach(self.pid, None).unwrap();
        self.who.join()
    }

    /// What it shares with others, to be looked at from outside.
    pub(crate) fn shared(&self) -> Shared {
        let folder = format!("/proc/{}/fd", self.pid);
        // Never the roster: closing a descriptor of it would drop this process's own proof of life.
        let wanted = |target: &str| {
            target.contains("memfd:multiproc:")
                && !["roster", "tree", "segment"]
                    .iter()
                    .any(|not| target.contains(not))
        };
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .flatten()
            .filter_map(|entry| {
                Some((
                    std::fs::read_link(entry.path()).ok()?.display().to_string(),
                    entry.path(),
                ))
            })
            .filter(|(target, _)| wanted(target))
            .collect();
        files.sort();
        let files: Vec<_> = files
            .into_iter()
            .map(|(_, path)| File::open(path).unwrap())
            .collect();
        assert!(!files.is_empty(), "the victim shares nothing");
        let mut shared = Shared {
            before: vec![Vec::new(); files.len()],
            files,
            now: Vec::new(),
        };
        shared.has_changed();
        shared
    }
}

/// The shared memory of a victim.
pub(crate) struct Shared {
    files: Vec<File>,
    before: Vec<Vec<u8>>,
    now: Vec<u8>,
}

impl Shared {
    /// Whether anything has changed since the last call.
    pub(crate) fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (file, before) in self.files.iter().zip(&mut self.before) {
            read_whole(file, &mut self.now).unwrap();
            if self.now != *before {
                changed = true;
                std::mem::swap(&mut self.now, before);
            }
        }
        changed
    }
}

/// Reads all of a file but its holes, one stretch behind the other.
fn read_whole(file: &File, into: &mut Vec<u8>) -> io::Result<()> {
    let mut filled = 0;
    let mut at = 0;
    while let Ok(from) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(from))?;
        let end = filled + (at - from) as usize;
        if into.len() < end {
            into.resize(end, 0);
        }
        file.read_exact_at(&mut into[filled..end], from)?;
        filled = end;
    }
    into.truncate(filled);
    Ok(())
}
