//! Operations on a lock.

use std::marker::PhantomData;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use multiproc::{Child, Guard, Lock, LockError};

use crate::run::Case;
use crate::stage::Stage;
use crate::trace::Victim;

/// Longer than any wait that ends.
const LONG: Duration = Duration::from_secs(20);
/// Two numbers that are equal whenever nobody is inside.
type Pair = [u64; 2];

/// How the survivors find the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Whole,
    Abandoned,
}

/// What a process does with a lock.
pub(crate) trait Locking: 'static {
    const AT_MOST: usize = usize::MAX;
    /// Whether a survivor is inside while the victim asks; it leaves after `MEANWHILE` instructions.
    const HELD: bool = false;
    const MEANWHILE: usize = usize::MAX;
    /// Whether a survivor sleeps in front of the lock when the victim leaves it.
    const AWAITED: bool = false;
    /// Whether another process has died inside before.
    const ABANDONED: bool = false;
    /// Whether the lock is whole once the operation has returned; if not, it is abandoned.
    const WHOLE: bool = true;
    /// Whether the victim may have died inside.
    const INSIDE: bool = true;

    /// Returns how often it has raised both numbers.
    fn act(stage: &Stage, lock: Lock<Pair>) -> u64;
}

/// Somebody who has the lock is the victim.
pub(crate) struct HolderDies<L: Locking> {
    lock: Lock<Pair>,
    waiting: Option<JoinHandle<Found>>,
    guard: Option<Guard<'static, Pair>>,
    _of: PhantomData<L>,
}

/// Enters, and says how the lock was found; leaves it whole.
fn enter(lock: &Lock<Pair>) -> Found {
    match lock.lock_timeout(LONG) {
        Ok(guard) => {
            assert_eq!(guard[0], guard[1], "half changed, and nobody was told");
            Found::Whole
        }
        Err(LockError::Abandoned(_)) => {
            *lock.recover().unwrap() = [7, 7];
            Found::Abandoned
        }
        Err(other) => panic!("a survivor cannot enter: {other}"),
    }
}

impl<L: Locking> HolderDies<L> {
    fn check_lock(self, done: bool) {
        let found = match self.waiting {
            Some(waiting) => waiting.join().unwrap(),
            None => enter(&self.lock),
        };
        let expected = match (done, L::WHOLE) {
            (true, true) => Some(Found::Whole),
            (true, false) => Some(Found::Abandoned),
            _ => None,
        };
        assert!(
            expected.is_none_or(|expected| expected == found),
            "the operation had returned, and the lock is found {found:?}"
        );
        assert!(
            L::INSIDE || found == Found::Whole,
            "abandoned, but nobody was inside"
        );
        // It excludes, and it is told of the next death as of this one.
        for _ in 0..3 {
            let guard = self.lock.lock_timeout(LONG).unwrap();
            let lock = self.lock.clone();
            let other =
                thread::spawn(move || matches!(lock.try_lock(), Err(LockError::WouldBlock)));
            assert!(other.join().unwrap(), "two are inside");
            drop(guard);
        }
        assert_eq!(enter(&self.lock), Found::Whole);
    }
}

impl<L: Locking> HolderDies<L> {
    fn act(stage: Stage, lock: Lock<Pair>) -> u64 {
        // The first wait of a process asks the system how many processors there are, which is not looked at here.
        let other = Lock::new(()).unwrap();
        let guard = other.lock().unwrap();
        assert!(matches!(other.lock(), Err(LockError::Deadlock)));
        drop(guard);
        L::act(&stage, lock)
    }
}

impl<L: Locking> Case for HolderDies<L> {
    type Who = Child<u64>;
    const AT_MOST: usize = L::AT_MOST;
    const MEANWHILE: usize = L::MEANWHILE;

    fn set_up() -> (Self, Victim<Self::Who>) {
        let lock = Lock::new([3, 3]).unwrap();
        if L::ABANDONED {
            let mut inside = Victim::start(LockAlone::act_in, lock.clone());
            while inside.steps(1_000) == 1_000 {}
            inside.kill();
        }
        let waiting = L::AWAITED.then(|| {
            let lock = lock.clone();
            thread::spawn(move || {
                // The victim enters first.
                while lock.try_lock().is_ok_and(|guard| guard[0] == 3) {
                    thread::sleep(Duration::from_micros(100));
                }
                enter(&lock)
            })
        });
        // For as long as the test lasts.
        let guard = L::HELD.then(|| Box::leak(Box::new(lock.clone())).lock().unwrap());
        let case = HolderDies {
            lock: lock.clone(),
            waiting,
            guard,
            _of: PhantomData,
        };
        (case, Victim::start(Self::act, lock))
    }

    fn meanwhile(&mut self) {
        self.guard = None;
    }

    fn prove(mut self, done: bool) {
        self.guard = None;
        self.check_lock(done);
    }

    fn prove_stopped(mut self, resume: impl FnOnce() -> u64) {
        self.guard = None;
        // The stopped keep what they have.
        match self.lock.lock_timeout(Duration::from_millis(1)) {
            Ok(guard) => {
                assert_eq!(guard[0], guard[1]);
            }
            Err(LockError::TimedOut) => {}
            Err(other) => assert!(L::ABANDONED, "a stopped holder lost the lock: {other}"),
        }
        resume();
        self.check_lock(L::WHOLE);
    }
}

impl LockAlone {
    fn act_in(stage: Stage, lock: Lock<Pair>) -> u64 {
        Self::act(&stage, lock)
    }
}

macro_rules! operations {
    ($($name:ident { $($constant:ident: $kind:ty = $value:expr),* } $act:expr;)*) => {$(
        pub(crate) struct $name;

        impl Locking for $name {
            $(const $constant: $kind = $value;)*

            fn act(stage: &Stage, lock: Lock<Pair>) -> u64 {
                let act: fn(&Stage, Lock<Pair>) -> u64 = $act;
                act(stage, lock)
            }
        }
    )*};
}

fn raise(pair: &mut Pair) {
    for number in pair {
        // Each store is made, and in this order.
        *std::hint::black_box(number) += 1;
    }
}

/// Instructions after which whoever waits for a lock has slept.
const WAITS: usize = 1_500;

operations! {
    LockAndUnlock {} |stage, lock| {
        stage.act(|| raise(&mut lock.lock().unwrap()));
        1
    };
    TryLockAndUnlock {} |stage, lock| {
        stage.act(|| raise(&mut lock.try_lock().unwrap()));
        1
    };
    LockAlone { WHOLE: bool = false } |stage, lock| {
        let guard = stage.act(|| lock.lock().unwrap());
        drop(guard);
        0
    };
    Unlock {} |stage, lock| {
        let guard = lock.lock().unwrap();
        stage.act(|| drop(guard));
        0
    };
    UnlockAwaited { AWAITED: bool = true } |stage, lock| {
        let mut guard = lock.lock().unwrap();
        raise(&mut guard);
        // Long enough for the one who waits to sleep.
        thread::sleep(Duration::from_millis(2));
        stage.act(|| drop(guard));
        1
    };
    LockHeld { HELD: bool = true, INSIDE: bool = false, AT_MOST: usize = WAITS } |stage, lock| {
        stage.act(|| drop(lock.lock().unwrap()));
        0
    };
    LockHandedOver { HELD: bool = true, MEANWHILE: usize = WAITS } |stage, lock| {
        stage.act(|| raise(&mut lock.lock().unwrap()));
        1
    };
    TryLockHeld { HELD: bool = true, INSIDE: bool = false } |stage, lock| {
        stage.act(|| assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock))));
        0
    };
    Recover { ABANDONED: bool = true } |stage, lock| {
        stage.act(|| match lock.lock() {
            Err(LockError::Abandoned(_)) => *lock.recover().unwrap() = [5, 5],
            _ => panic!("the dead were forgotten"),
        });
        0
    };
    DropAbandoned { ABANDONED: bool = true, WHOLE: bool = false } |stage, lock| {
        stage.act(|| match lock.lock() {
            Err(LockError::Abandoned(_)) => {}
            _ => panic!("the dead were forgotten"),
        });
        0
    };
    DropHandle { INSIDE: bool = false } |stage, lock| {
        stage.act(|| drop(lock));
        0
    };
}
