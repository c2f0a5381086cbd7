//! The atomics of shuttle, on each of which a participant may die, and a futex with a true queue of sleepers.

use std::time::Duration;

pub(crate) use shuttle::hint::spin_loop;
use shuttle::sync::{Condvar, Mutex};
pub(crate) use std::sync::atomic::Ordering;

use crate::death::tick;

macro_rules! atomic {
    ($name:ident of $value:ident: $($method:ident)*) => {
        #[derive(Debug, Default)]
        pub(crate) struct $name(shuttle::sync::atomic::$name);

        impl $name {
            pub(crate) fn new(value: $value) -> $name {
                $name(shuttle::sync::atomic::$name::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> $value {
                tick();
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: $value, order: Ordering) {
                tick();
                self.0.store(value, order);
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                tick();
                self.0.compare_exchange(current, new, success, failure)
            }

            $(
                pub(crate) fn $method(&self, value: $value, order: Ordering) -> $value {
                    tick();
                    self.0.$method(value, order)
                }
            )*
        }
    };
}

atomic!(AtomicU32 of u32: fetch_add);
atomic!(AtomicU64 of u64: fetch_add fetch_or fetch_and swap);

shuttle::lazy_static! {
    /// Where all sleep: the words of each, by their addresses, and whether it was woken.
    static ref ASLEEP: Mutex<Vec<Sleeper>> = Mutex::new(Vec::new());
    static ref AWAKE: Condvar = Condvar::new();
}

struct Sleeper {
    words: [usize; 2],
    woken: bool,
    left: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Futex(AtomicU32);

impl Futex {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

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

    pub(crate) fn wake(&self, n: u32) -> usize {
        tick();
        let mut asleep = ASLEEP.lock().unwrap();
        let mine = asleep
            .iter_mut()
            .filter(|sleeper| !sleeper.woken && sleeper.words.contains(&self.address()));
        let woken = mine
            .take(n as usize)
            .map(|sleeper| sleeper.woken = true)
            .count();
        AWAKE.notify_all();
        woken
    }

    /// Used only by those who know a processor, of whom there are none here.
    pub(crate) fn wait(&self, _expected: u32, _limit: Duration) {
        unreachable!("a sleep that no death ends");
    }

    /// No slice ever ends: a wake that is lost, and not made good by a death, is a wait for ever.
    pub(crate) fn wait_either(
        &self,
        expected: u32,
        other: &Futex,
        other_expected: u32,
        _limit: Duration,
    ) {
        tick();
        let mut asleep = ASLEEP.lock().unwrap();
        let now = [&self.0, &other.0].map(|word| word.0.load(Ordering::Relaxed));
        if now != [expected, other_expected] {
            return;
        }
        let me = asleep.len();
        asleep.push(Sleeper {
            words: [self.address(), other.address()],
            woken: false,
            left: false,
        });
        while !asleep[me].woken {
            asleep = AWAKE.wait(asleep).unwrap();
        }
        asleep[me].left = true;
        while asleep.last().is_some_and(|last| last.left) {
            asleep.pop();
        }
    }
}

pub(crate) fn has_one_processor() -> bool {
    false
}

pub(crate) fn processor() -> Option<u32> {
    None
}

pub(crate) fn asymmetric() -> bool {
    true
}

/// Shuttle runs one thread at a time, in the order of the program: what barriers are for is loom's to show.
pub(crate) fn light() {}

pub(crate) fn heavy() {}

pub(crate) fn fence() {}
