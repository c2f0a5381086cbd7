//! Atomics, fences and sleeping: the real ones, or loom's twins under `--cfg loom`.
//!
//! Everything that orders memory between processes is imported from here, so that the protocols of
//! [`ring`](crate::ring), [`signal`](crate::signal) and [`roster`](crate::roster) run unchanged in a model.

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;

#[cfg(not(loom))]
mod real {
    pub(crate) use std::hint::spin_loop;
    use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::sync::atomic::{compiler_fence, fence as full_fence};
    use std::time::Duration;

    use crate::sys;

    /// A word that processes can sleep on.
    #[repr(transparent)]
    #[derive(Debug, Default)]
    pub(crate) struct Futex(AtomicU32);

    impl Futex {
        #[inline]
        pub(crate) fn load(&self, order: Ordering) -> u32 {
            self.0.load(order)
        }

        #[inline]
        pub(crate) fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
            self.0.fetch_add(n, order)
        }

        #[inline]
        pub(crate) fn compare_exchange(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            self.0.compare_exchange(current, new, success, failure)
        }

        /// Wakes up to `n` sleepers; the number really woken.
        pub(crate) fn wake(&self, n: u32) -> usize {
            sys::futex_wake(&self.0, n)
        }

        /// Sleeps while both words are as expected, at most `limit`; may wake for no reason.
        pub(crate) fn wait_either(
            &self,
            expected: u32,
            other: &Futex,
            other_expected: u32,
            limit: Duration,
        ) {
            sys::futex_wait_two(&self.0, expected, &other.0, other_expected, limit);
        }
    }

    /// Whether this process takes part in the asymmetric barrier: registered once, then true for ever.
    pub(crate) fn asymmetric() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(sys::membarrier_register)
    }

    /// Whether spinning is useless. The machine's processors count, not those this process may run on: the
    /// other side may run on others.
    pub(crate) fn has_one_processor() -> bool {
        static ONE: OnceLock<bool> = OnceLock::new();
        *ONE.get_or_init(|| sys::processors() == 1)
    }

    /// The cheap half of the barrier pair: keeps the compiler from moving a load above a store.
    /// Its other end is [`heavy`].
    #[inline]
    pub(crate) fn light() {
        compiler_fence(Ordering::SeqCst);
    }

    /// The dear half of the barrier pair: makes every registered process pass a full fence now.
    pub(crate) fn heavy() {
        full_fence(Ordering::SeqCst);
        if asymmetric() {
            sys::membarrier();
        }
    }

    /// A full fence, for processes that cannot rely on the other side's [`heavy`].
    pub(crate) fn fence() {
        full_fence(Ordering::SeqCst);
    }
}

#[cfg(loom)]
mod model {
    pub(crate) use loom::hint::spin_loop;
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use loom::sync::{Condvar, Mutex};
    use std::time::Duration;

    /// A futex with a true queue of sleepers: only [`wake`](Futex::wake) ends a wait.
    #[derive(Debug)]
    pub(crate) struct Futex {
        word: AtomicU32,
        asleep: Mutex<usize>,
        awake: Condvar,
    }

    impl Default for Futex {
        fn default() -> Self {
            Futex {
                word: AtomicU32::new(0),
                asleep: Mutex::new(0),
                awake: Condvar::new(),
            }
        }
    }

    impl Futex {
        pub(crate) fn load(&self, order: Ordering) -> u32 {
            self.word.load(order)
        }

        pub(crate) fn fetch_add(&self, n: u32, order: Ordering) -> u32 {
            self.word.fetch_add(n, order)
        }

        pub(crate) fn compare_exchange(
            &self,
            current: u32,
            new: u32,
            success: Ordering,
            failure: Ordering,
        ) -> Result<u32, u32> {
            self.word.compare_exchange(current, new, success, failure)
        }

        pub(crate) fn wake(&self, n: u32) -> usize {
            let asleep = self.asleep.lock().unwrap();
            let woken = (*asleep).min(n as usize);
            for _ in 0..woken {
                self.awake.notify_one();
            }
            woken
        }

        pub(crate) fn wait(&self, expected: u32, _limit: Duration) {
            let mut asleep = self.asleep.lock().unwrap();
            if self.word.load(Ordering::Relaxed) != expected {
                return;
            }
            *asleep += 1;
            asleep = self.awake.wait(asleep).unwrap();
            *asleep -= 1;
        }

        /// In a model nobody dies of himself, so the second word never changes.
        pub(crate) fn wait_either(
            &self,
            expected: u32,
            _other: &Futex,
            _other_expected: u32,
            limit: Duration,
        ) {
            self.wait(expected, limit);
        }
    }

    pub(crate) fn asymmetric() -> bool {
        true
    }

    pub(crate) fn has_one_processor() -> bool {
        false
    }

    pub(crate) fn light() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn heavy() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}
