//! Processes killed at random moments, thousands of times, while the others work on.
//!
//! Run in release: `cargo test --release --test kill`. `MULTIPROC_KILLS` says how many are killed, instead of a
//! number that takes some seconds for each test; `MULTIPROC_SECONDS` says for how long. Everything at once, a million
//! times:
//!
//! ```text
//! MULTIPROC_KILLS=1000000 cargo test --release --test kill everything_at_once
//! ```
//!
//! Built with `--cfg planted`, the crate has bugs that these tests must find.

mod lock;
mod pipe;
mod pool;
mod queue;
mod soak;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use rustix::time::{ClockId, clock_gettime};

/// A test and its name.
type Test = (&'static str, fn() -> Result<(), Failed>);

fn main() {
    let mut arguments = Arguments::from_args();
    // Each fills the machine by itself.
    arguments.test_threads = Some(1);
    Pace::start();
    let tests = [
        queue::TESTS,
        lock::TESTS,
        pipe::TESTS,
        pool::TESTS,
        soak::TESTS,
    ];
    let trials = tests
        .into_iter()
        .flatten()
        .map(|&(name, test)| Trial::test(name, test))
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

/// Long enough for anything that happens at all.
const LONG: Duration = Duration::from_secs(60);

/// What a variable says, if there is one of that name.
fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is not a number")),
    )
}

/// How many kills a test makes, of the number that it makes usually.
fn kills(usual: u64) -> u64 {
    asked("MULTIPROC_KILLS").unwrap_or(usual)
}

/// How many are still to be killed, and until when; shared by all who kill.
struct Toll {
    left: AtomicU64,
    end: Option<Instant>,
}

impl Toll {
    /// As many as are asked for, else `usual`.
    fn of(usual: u64) -> Toll {
        match asked("MULTIPROC_SECONDS") {
            Some(seconds) if asked("MULTIPROC_KILLS").is_none() => {
                Toll::during(Duration::from_secs(seconds))
            }
            _ => Toll {
                left: AtomicU64::new(kills(usual)),
                end: None,
            },
        }
    }

    /// As many as can be in that time.
    fn during(time: Duration) -> Toll {
        Toll {
            left: AtomicU64::new(u64::MAX),
            end: Some(Instant::now() + time),
        }
    }

    /// Whether one more is to be killed, by whoever asks.
    fn take_one(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.end.is_none_or(|end| Instant::now() < end)
            && (self.left)
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
                .is_ok()
    }

    /// Whether none is to be killed any more.
    fn is_paid(&self) -> bool {
        self.left.load(Ordering::Relaxed) == 0 || self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// Nobody kills any more.
    fn give_up(&self) {
        self.left.store(0, Ordering::Relaxed);
    }
}

/// Those who are killed let those who kill, and make others, go first: on a crowded machine more of them die.
fn give_way() {
    // At worst they die more slowly.
    let _ = rustix::process::nice(9);
}

/// Time as those see it who give way. On a crowded machine they run seldom, and that nothing goes on while none of
/// them can run is nobody's fault: so what is counted is the time in which one like them, who wants a twentieth of a
/// processor, gets it.
struct Pace;

/// Microseconds of it.
static PACE: AtomicU64 = AtomicU64::new(0);

impl Pace {
    const TICK: Duration = Duration::from_millis(10);
    const WORK: Duration = Duration::from_micros(500);

    fn start() {
        thread::spawn(|| {
            // Only this thread does.
            give_way();
            loop {
                let start = Instant::now();
                thread::sleep(Pace::TICK - Pace::WORK);
                // Who only sleeps is served before those who work.
                let used = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
                let enough = used() + Pace::WORK;
                while used() < enough {
                    std::hint::spin_loop();
                }
                let seen = start.elapsed().min(2 * Pace::TICK);
                PACE.fetch_add(seen.as_micros() as u64, Ordering::Relaxed);
            }
        });
    }

    fn now() -> Duration {
        Duration::from_micros(PACE.load(Ordering::Relaxed))
    }
}

/// Watches that a count goes on, from a thread of its own.
struct Watch {
    /// Microseconds, as [`Pace`] counts them, of the longest time without.
    longest: Arc<AtomicU64>,
    watching: Arc<()>,
}

impl Watch {
    const TICK: Duration = Duration::from_millis(1);
    /// Some four times the longest pause ever seen, of all tests at once on two crowded processors.
    const HUNG: Duration = Duration::from_secs(1);

    fn start(count: impl Fn() -> u64 + Send + 'static) -> Watch {
        let watch = Watch {
            longest: Arc::default(),
            watching: Arc::default(),
        };
        let (longest, watching) = (watch.longest.clone(), Arc::downgrade(&watch.watching));
        thread::spawn(move || {
            let (mut last, mut since) = (count(), Pace::now());
            while watching.strong_count() > 0 {
                thread::sleep(Watch::TICK);
                // The time before the count: what comes between the two is no pause.
                let pace = Pace::now();
                let now = count();
                if now != last {
                    (last, since) = (now, pace);
                }
                let still = pace.saturating_sub(since);
                longest.fetch_max(still.as_micros() as u64, Ordering::Relaxed);
            }
        });
        watch
    }

    fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    /// An error if they hang.
    fn check(&self, what: &str, kills: u64) -> Result<(), Failed> {
        match self.longest() {
            longest if longest > Watch::HUNG => {
                Err(format!("not {what} in {longest:?}, after {kills} kills").into())
            }
            _ => Ok(()),
        }
    }
}

/// A small generator of numbers.
struct Random(u64);

impl Random {
    /// Another one every time.
    fn new() -> Random {
        Random(RandomState::new().hash_one(0) | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
