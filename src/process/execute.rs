//! Executing the running image once more: how a child is made when no zygote makes it, and a zygote itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reaper::{Record, reaper};
use crate::kin::{self, Kin};
use crate::sys;

/// The running program, also when its file has been replaced or removed.
const IMAGE: &str = "/proc/self/exe";

/// What every child needs to find its place in the tree: the tree's roster and page, and its parent.
pub(super) struct Place {
    kin: &'static Kin,
    myself: OwnedFd,
}

impl Place {
    pub(super) fn for_children() -> io::Result<Place> {
        Ok(Place {
            kin: kin::kin()?,
            myself: sys::process_descriptor(std::process::id())?,
        })
    }

    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = self.kin.descriptors().to_vec();
        all.push(self.myself.as_fd());
        all
    }
}

/// The image with this program's arguments and a socket.
pub(super) fn command(socket: OwnedFd) -> Command {
    let mut command = Command::new(IMAGE);
    command.args(std::env::args_os().skip(1)).stdin(socket);
    command
}

/// Executes the image. To be run on a thread that lives as long as the process.
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

/// Kills a child and waits until it is reaped.
pub(super) fn end_now(record: &Record) {
    // Refused only when it has ended.
    let _ = sys::send_signal(record.process(), nix::libc::SIGKILL);
    // A process in the hands of a broken device may outlast its kill; the reaper gets it when it goes.
    record.wait(Some(Instant::now() + Duration::from_secs(5)));
}
