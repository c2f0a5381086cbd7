//! Executing the running image once more: how a child is made when no zygote makes it, and a zygote itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::error::SpawnError;
use super::reaper::{Record, reaper};
use super::road;
use crate::kin::{self, Kin};
use crate::sys;

/// The running program, also when its file has been replaced or removed.
pub(super) const IMAGE: &str = "/proc/self/exe";

/// What every child needs to find its place in the tree: the tree's roster and page, and its parent.
pub(super) struct Place {
    kin: &'static Kin,
    myself: OwnedFd,
    /// Where they ask for what they cannot open.
    inbox: BorrowedFd<'static>,
}

impl Place {
    pub(super) fn for_children() -> Result<Place, SpawnError> {
        let refused = |call| move |error| SpawnError::of_call(call, error);
        let myself = sys::process_descriptor(std::process::id());
        Ok(Place {
            kin: kin::kin().map_err(refused("memfd_create"))?,
            myself: myself.map_err(refused("pidfd_open"))?,
            inbox: road::for_children().map_err(refused("socketpair"))?,
        })
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = self.kin.descriptors().to_vec();
        all.extend([self.myself.as_fd(), self.inbox]);
        all
    }
}

/// The image with this program's arguments and a socket.
pub(super) fn command(socket: OwnedFd) -> Command {
    let mut command = Command::new(IMAGE);
    let mut arguments = std::env::args_os();
    // The first is this program's own in all its children, whichever way they are made.
    command.arg0(arguments.next().unwrap_or_default());
    command.args(arguments).stdin(socket);
    command
}

/// The most bytes of a variable that goes with an execution: the system takes 128 KiB, name included.
pub(super) const LONGEST_VARIABLE: usize = 100 * 1024;

/// Executes the image, on a thread that ends no earlier than the child: the kernel ties a child's
/// parent-death signal to the thread that made it.
pub(super) fn execute(mut command: Command, control: Option<OwnedFd>) -> io::Result<Arc<Record>> {
    let mut child = command.spawn()?;
    // The child's end of the socket must be closed here, or its death would not close it.
    drop(command);
    let watched = sys::process_descriptor(child.id()).and_then(|process| {
        let record = Record::new(child.id(), process, control);
        reaper()?.watch(&record)?;
        Ok(record)
    });
    if watched.is_err() {
        // Nobody would reap it; it is in its first steps and ends at once.
        let _ = child.kill();
        let _ = child.wait();
    }
    watched
}

type Work = Mutex<Option<(Command, OwnedFd)>>;

fn take(work: &Work) -> Option<(Command, OwnedFd)> {
    work.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Executes the image for the calling thread: the child has what that thread hands on. Says as well whether
/// the child may have itself ended together with the thread that made it.
///
/// The calling thread may end before the child does. A thread that it makes hands on the same, and waits.
pub(super) fn execute_for_caller(
    command: Command,
    control: OwnedFd,
) -> io::Result<(Arc<Record>, bool)> {
    let (tell, told) = mpsc::sync_channel(1);
    let work = Arc::new(Work::new(Some((command, control))));
    let theirs = Arc::clone(&work);
    let thread = std::thread::Builder::new()
        .name("multiproc-parent".into())
        .stack_size(128 * 1024)
        .spawn(move || {
            let Some((command, control)) = take(&theirs) else {
                return;
            };
            sys::block_signals();
            let made = execute(command, Some(control));
            let child = made.as_ref().ok().cloned();
            // Whoever asked waits for the answer.
            let _ = tell.send(made);
            if let Some(child) = child {
                // When the wait is refused the child loses an extra tie.
                let _ = sys::poll_any(&[child.process()], None);
            }
        });
    match thread {
        Ok(_) => {
            let made = told.recv();
            let panicked = |_| io::Error::other("the thread that makes the process has panicked");
            Ok((made.map_err(panicked)??, true))
        }
        // There can be no more threads, or none beside children in another PID namespace.
        Err(error) => {
            let (command, control) = take(&work).ok_or(error)?;
            let made = sys::with_signals_blocked(|| execute(command, Some(control)));
            Ok((made?, false))
        }
    }
}

/// Kills a child and waits until it is reaped.
pub(super) fn end_now(record: &Record) {
    if sys::send_signal(record.process(), nix::libc::SIGKILL).is_err() {
        // One of the two has changed its user since. It still ends when nobody holds its lifeline any more.
        record.close();
    }
    // A process in the hands of a broken device may outlast its kill; the reaper gets it when it goes.
    record.wait(Some(Instant::now() + Duration::from_secs(5)));
}
