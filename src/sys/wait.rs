//! Sleeping on words that other processes change.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec, Wait, WaitFlags, WaitvFlags};
use rustix::thread::{ClockId, MembarrierCommand, membarrier as command};
use rustix::time::clock_gettime;

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Sleeps while `word` is `expected`, at most `limit`. Returns early on any signal.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, limit: Duration) {
    // Any outcome (woken, changed, interrupted, timed out) sends the caller back to look again.
    let _ = futex::wait(word, Flags::empty(), expected, Some(&timespec(limit)));
}

/// Sleeps while both words are as expected, at most `limit`. Returns early on any signal.
///
/// A kernel without `futex_waitv` (before 5.16) sleeps on the first word alone.
pub(crate) fn futex_wait_two(
    a: &AtomicU32,
    a_expected: u32,
    b: &AtomicU32,
    b_expected: u32,
    limit: Duration,
) {
    static MISSING: AtomicBool = AtomicBool::new(false);
    if MISSING.load(Ordering::Relaxed) {
        return futex_wait(a, a_expected, limit);
    }
    let waiter = |word: &AtomicU32, expected: u32| {
        let mut wait = Wait::new();
        wait.val = u64::from(expected);
        wait.uaddr = word.as_ptr().cast::<core::ffi::c_void>().into();
        wait.flags = WaitFlags::SIZE_U32;
        wait
    };
    let end = now().saturating_add(limit);
    let waiters = [waiter(a, a_expected), waiter(b, b_expected)];
    if futex::waitv(
        &waiters,
        WaitvFlags::empty(),
        Some(&timespec(end)),
        ClockId::Monotonic,
    ) == Err(Errno::NOSYS)
    {
        MISSING.store(true, Ordering::Relaxed);
        futex_wait(a, a_expected, limit);
    }
}

/// Time since some moment that is the same for all processes.
pub(crate) fn now() -> Duration {
    let now = clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.max(0) as u64, now.tv_nsec as u32)
}

/// Wakes up to `n` sleepers on `word`; the number really woken.
pub(crate) fn futex_wake(word: &AtomicU32, n: u32) -> usize {
    futex::wake(word, Flags::empty(), n.min(i32::MAX as u32)).unwrap_or(0)
}

/// Lets other processes' [`membarrier`] reach this one; false where the kernel or a sandbox refuses.
pub(crate) fn membarrier_register() -> bool {
    command(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// A full fence in every registered process that is running now.
pub(crate) fn membarrier() {
    // Cannot fail once registration has succeeded; before that the caller's own fence stands alone.
    let _ = command(MembarrierCommand::GlobalExpedited);
}

/// Processors of the machine that are in use; 2 where that cannot be told.
pub(crate) fn processors() -> u64 {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    online.ok().flatten().map_or(2, |count| count.max(1) as u64)
}
