//! Whether this machine does with a mapping in a fork what it was advised to: wipe it, or leave it out.

use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

const LEN: usize = 4096;

/// The kernel does. An emulator may take the advice and not follow it: then forks are not known as such, and keep what
/// they should not have, and this says aloud that that is not checked.
pub(crate) fn is_followed() -> bool {
    // SAFETY: a new page, which nothing else knows and which is never unmapped.
    let page = unsafe {
        mmap_anonymous(
            null_mut(),
            LEN,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    let page = page.unwrap();
    // SAFETY: it is that page, and the advice changes only what a copy of this process finds in it.
    unsafe { madvise(page, LEN, Advice::LinuxWipeOnFork) }.unwrap();
    // SAFETY: it begins a page, is zero, and is only ever seen as this one atomic.
    let mark = unsafe { &*page.cast::<AtomicU32>() };
    mark.store(1, Ordering::Relaxed);
    // SAFETY: the copy loads one word and ends.
    let copy = match unsafe { fork() }.unwrap() {
        // SAFETY: it exits without running anything more.
        ForkResult::Child => unsafe { nix::libc::_exit(mark.load(Ordering::Relaxed) as i32) },
        ForkResult::Parent { child } => child,
    };
    let followed = waitpid(copy, None).unwrap() == WaitStatus::Exited(copy, 0);
    if !followed {
        eprintln!("not checked: advice about forks is not followed here");
    }
    followed
}
