//! Sleeping on words that other processes change.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec, Wait, WaitFlags, WaitvFlags};
use rustix::thread::{
    ClockId, MembarrierCommand, membarrier as command, sched_getaffinity, sched_getcpu,
};
use rustix::time::clock_gettime;

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Whether a sleep came to its end as sleeps do. Anything else says that the call itself is not to
/// be had: a kernel that lacks it says `ENOSYS`, a sandbox whatever its authors chose, mostly
/// `EPERM`.
fn has_slept<T>(outcome: Result<T, Errno>) -> bool {
    matches!(
        outcome,
        Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT)
    )
}

/// The longest sleep that nobody can end.
const BLIND: Duration = Duration::from_millis(1);

/// Sleeps while `word` is `expected`, at most `limit`. Returns early on any signal.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, limit: Duration) {
    // Woken, changed, interrupted or timed out: the caller looks again in any case.
    let outcome = futex::wait(word, Flags::empty(), expected, Some(&timespec(limit)));
    if !has_slept(outcome) {
        // Where no futex is to be had, a wait is slow, but it still burns no processor.
        std::thread::sleep(limit.min(BLIND));
    }
}

/// Sleeps while both words are as expected, at most `limit`. Returns early on any signal.
///
/// Without `futex_waitv` (Linux before 5.16, some sandboxes) it sleeps on the first word alone.
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
    let outcome = futex::waitv(
        &waiters,
        WaitvFlags::empty(),
        Some(&timespec(end)),
        ClockId::Monotonic,
    );
    if !has_slept(outcome) {
        // Asked once: who refuses it once refuses it always, and each attempt is a system call.
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

/// Lets other processes' [`membarrier`] reach this one; false where the kernel or a sandbox
/// refuses.
pub(crate) fn membarrier_register() -> bool {
    command(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// A full fence in every registered process that is running now.
pub(crate) fn membarrier() {
    // Cannot fail once registration has succeeded; before that the caller's own fence stands alone.
    let _ = command(MembarrierCommand::GlobalExpedited);
}

/// How many threads of different processes can run at once; 2 where that cannot be told.
///
/// The machine's processors count and what the control group may use of them. Those that this
/// thread is bound to do not: the other side of a wait may be bound to others.
pub(crate) fn processors() -> usize {
    let online = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    let online = online
        .ok()
        .flatten()
        .map_or(2, |count| count.max(1) as usize);
    let bound = sched_getaffinity(None).map_or(online, |set| set.count() as usize);
    match std::thread::available_parallelism() {
        // Less than it is bound to: what the group may use.
        Ok(allowed) if allowed.get() < bound => allowed.get().min(online),
        _ => online,
    }
}

/// The processor that this thread runs on, or ran on a moment ago.
pub(crate) fn processor() -> u32 {
    sched_getcpu() as u32
}
