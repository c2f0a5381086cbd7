//! What the zygote does: it waits for requests and forks, and knows nothing else.
//!
//! It is this program, executed anew and stopped before `main`: one thread, nothing of the user's run
//! but what runs before `main`, no place in the tree and no part in shared memory. Its children are
//! children of its parent (see `sys/fork.rs`): they outlive it, and their statuses go to the parent.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use super::boot;
use super::control::{self, Another, Birth};
use crate::sys::{self, Forker, Image, Stream, Titles};

/// How long a parent may take to end after it has closed its end of the line.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// What the kernel calls the zygote of that number, and its children until they are given a function.
pub(super) fn short_name(pid: u32) -> String {
    format!("zygote-{pid}")
}

/// The zygote whose name that is.
pub(super) fn named_in(name: &str) -> Option<u32> {
    name.strip_prefix("zygote-")?.parse().ok()
}

/// A child of the zygote, in its first moment.
pub(super) struct Newborn {
    pub(super) control: OwnedFd,
    /// It ends when the parent closes the other end.
    pub(super) lifeline: OwnedFd,
    pub(super) titles: Option<Titles>,
}

/// Serves until the parent ends or has no more use for it. Returns in children alone.
pub(super) fn breed(image: &Image, line: OwnedFd, parent: BorrowedFd<'_>) -> Newborn {
    let (forker, titles) = match set_up() {
        Ok(ready) => ready,
        Err(error) => {
            let errno = error.raw_os_error().unwrap_or(nix::libc::ENOTSUP);
            // If nobody hears it, nobody is there.
            let _ = control::send(&line, &Birth::Refused(errno), &[], &[]);
            std::process::exit(0)
        }
    };
    // What it settles once, such as where the libraries' functions are, its children inherit.
    let _ = boot::rehearse(image);
    crate::sync::processors();
    let mut living: Vec<OwnedFd> = Vec::new();
    let mut look_at = 16;
    let mut said = control::send(&line, &Birth::Ready, &[], &[]);
    while said.is_ok() {
        let ready = sys::poll_any(&[line.as_fd(), parent], None);
        if !matches!(ready, Ok(Some(0))) || sys::is_ready(parent) {
            break;
        }
        let mut request = match control::receive::<Another>(&line, false) {
            Ok(Some(request)) => request,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // Without descriptors to spare it is of no use.
            Ok(None) | Err(_) => break,
        };
        let (Some(lifeline), Some(control)) =
            (request.descriptors.pop(), request.descriptors.pop())
        else {
            // It is dismissed. Its parent goes on, and so do the children.
            std::process::exit(0)
        };
        let birth = match forker.fork() {
            Ok(None) => {
                return Newborn {
                    control,
                    lifeline,
                    titles,
                };
            }
            Ok(Some((pid, process))) => {
                living.push(process);
                if living.len() == look_at {
                    living.retain(|process| !sys::is_ready(process.as_fd()));
                    look_at = living.len() * 2 + 16;
                }
                Birth::Born(pid)
            }
            Err(error) => Birth::Refused(error.raw_os_error().unwrap_or(nix::libc::EAGAIN)),
        };
        drop((control, lifeline));
        said = control::send(&line, &birth, &[], &[]);
    }
    // The line of a parent that ends is closed a moment before it has ended.
    let ended = sys::poll_any(&[parent], Some(Instant::now() + LAST_MOMENT));
    if matches!(ended, Ok(Some(_))) {
        // Each has its own ties to the parent; this is for those who have cut them.
        for process in living {
            // Refused only if it has ended.
            let _ = sys::send_signal(process, nix::libc::SIGKILL);
        }
    }
    std::process::exit(0)
}

fn set_up() -> io::Result<(Forker, Option<Titles>)> {
    // It ends when it sees that the parent has ended, and not before it has ended those it made.
    sys::go_on_without_parent()?;
    sys::settle_signals()?;
    // What others wait to see closed must not be held open here.
    for stream in [Stream::Input, Stream::Output, Stream::Error] {
        sys::give_stream(stream, None)?;
    }
    sys::close_inherited()?;
    sys::set_process_name(&short_name(std::process::id()));
    let mut titles = Titles::new();
    if let Some(titles) = &mut titles {
        titles.show(&[OsStr::new("multiproc-zygote")], None);
    }
    Ok((Forker::new()?, titles))
}
