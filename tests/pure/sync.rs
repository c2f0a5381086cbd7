//! The atomics of the standard library, and a futex that needs no system call: what Miri and the thread
//! sanitizer can follow.

use std::cell::Cell;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

pub(crate) use std::hint::spin_loop;
use std::sync::atomic::fence as full_fence;
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Where all sleep, whatever word they sleep on.
static ASLEEP: Mutex<()> = Mutex::new(());
static AWAKE: Condvar = Condvar::new();

#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    pub(crate) fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }

    pub(crate) fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
        self.0.fetch_add(n, order)
    }

    pub(crate) fn compare_exchange(
        &self,
        current: u32,
        new: u32,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u32, u32> {
        self.0.compare_exchange(current, new, success, failure)
    }

    /// Wakes all: to wake for no reason is allowed.
    pub(crate) fn wake(&self, n: u32) -> usize {
        drop(ASLEEP.lock().unwrap());
        AWAKE.notify_all();
        n as usize
    }

    pub(crate) fn wait(&self, expected: u32, limit: Duration) {
        self.wait_either(expected, &Futex::default(), 0, limit);
    }

    pub(crate) fn wait_either(&self, expected: u32, _: &Futex, _: u32, limit: Duration) {
        LONGEST.set(LONGEST.get().max(limit));
        let asleep = ASLEEP.lock().unwrap();
        if self.0.load(Ordering::Relaxed) == expected {
            drop(AWAKE.wait_timeout(asleep, limit).unwrap());
        }
    }
}

pub(crate) fn has_one_processor() -> bool {
    false
}

thread_local! {
    /// The processor that a thread is on, as a test wants it.
    static PROCESSOR: Cell<Option<u32>> = const { Cell::new(None) };
    /// The longest sleep that a thread has asked for.
    static LONGEST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

pub(crate) fn processor() -> Option<u32> {
    PROCESSOR.get()
}

/// This thread goes on on that processor.
pub(crate) fn move_to(processor: u32) {
    PROCESSOR.set(Some(processor));
}

pub(crate) fn longest_sleep() -> Duration {
    LONGEST.get()
}

pub(crate) fn asymmetric() -> bool {
    true
}

pub(crate) fn light() {
    full_fence(Ordering::SeqCst);
}

pub(crate) fn heavy() {
    full_fence(Ordering::SeqCst);
}

pub(crate) fn fence() {
    full_fence(Ordering::SeqCst);
}
