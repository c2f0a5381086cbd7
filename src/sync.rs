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
    use std::sync::atomic::{AtomicBool, compiler_fence, fence as full_fence};
    pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
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

        /// Sleeps while the word is as expected, at most `limit`; may wake for no reason.
        pub(crate) fn wait(&self, expected: u32, limit: Duration) {
            sys::futex_wait(&self.0, expected, limit);
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

    /// True only after this process was registered for the asymmetric barrier.
    static REACHED: AtomicBool = AtomicBool::new(false);

    /// Whether this process takes part in the asymmetric barrier: registered once, then true for
    /// ever.
    pub(crate) fn asymmetric() -> bool {
        static REGISTERED: OnceLock<bool> = OnceLock::new();
        *REGISTERED.get_or_init(|| {
            let registered = sys::membarrier_register();
            REACHED.store(registered, Ordering::Relaxed);
            registered
        })
    }

    /// How many threads run at once at most.
    pub(crate) fn processors() -> usize {
        static ALL: OnceLock<usize> = OnceLock::new();
        *ALL.get_or_init(sys::processors)
    }

    /// Whether spinning is useless: only one process runs at a time.
    pub(crate) fn has_one_processor() -> bool {
        processors() == 1
    }

    /// The processor that this thread runs on; `None` in models, where nobody is on any.
    pub(crate) fn processor() -> Option<u32> {
        Some(sys::processor())
    }

    /// The cheap half of the barrier pair: keeps the compiler from moving a load above a store.
    /// Its other end is [`heavy`]. In a process that [`heavy`] does not reach it is a full fence.
    #[inline]
    pub(crate) fn light() {
        match REACHED.load(Ordering::Relaxed) {
            true => compiler_fence(Ordering::SeqCst),
            false => full_fence(Ordering::SeqCst),
        }
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
    use std::cell::Cell;
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

    /// Which half of the barrier pair a thread of a model has.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Barrier {
        /// Both, like all others: [`light`] and [`heavy`] together are a full fence on both sides.
        Whole,
        /// None: [`heavy`] reaches nobody, and [`light`] is a full fence.
        Refused,
        /// One that waits for nobody but those whose [`heavy`] does not reach it.
        Unreached,
    }

    loom::thread_local! {
        static BARRIER: Cell<Barrier> = Cell::new(Barrier::Whole);
    }

    /// The barrier of this thread, from now on.
    pub(crate) fn have(barrier: Barrier) {
        BARRIER.with(|mine| mine.set(barrier));
    }

    fn barrier() -> Barrier {
        BARRIER.with(Cell::get)
    }

    pub(crate) fn asymmetric() -> bool {
        barrier() != Barrier::Refused
    }

    pub(crate) fn has_one_processor() -> bool {
        false
    }

    pub(crate) fn processor() -> Option<u32> {
        None
    }

    pub(crate) fn light() {
        if barrier() != Barrier::Unreached {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    pub(crate) fn heavy() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }

    pub(crate) fn fence() {
        loom::sync::atomic::fence(Ordering::SeqCst);
    }
}
