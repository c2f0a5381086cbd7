//! Locks through the public door, among the threads of one process. What processes do to each other is in
//! `tests/processes`.

#![allow(unsafe_code, reason = "one test forks")]

mod fork_advice;

use std::mem::forget;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{Guard, Lock, LockError};

/// Longer than anything here takes, also on a busy machine.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(30);

fn refused(result: Result<impl Sized, LockError>) -> LockError {
    result.map(|_| ()).expect_err("should have been refused")
}

#[test]
fn one_at_a_time() {
    let pair = Lock::new([0u64; 2]).unwrap();
    thread::scope(|scope| {
        for _ in 0..8 {
            let pair = pair.clone();
            scope.spawn(move || {
                for _ in 0..10_000 {
                    let mut guard = pair.lock_timeout(LONG).unwrap();
                    guard[0] += 1;
                    assert_eq!(guard[0], guard[1] + 1);
                    guard[1] += 1;
                }
            });
        }
    });
    assert_eq!(*pair.lock().unwrap(), [80_000; 2]);
}

#[test]
fn clones_are_the_same_lock() {
    let first = Lock::new(1u32).unwrap();
    let second = first.clone();
    *second.lock().unwrap() += 1;
    let guard = first.lock().unwrap();
    assert_eq!(*guard, 2);
    assert!(matches!(refused(second.try_lock()), LockError::WouldBlock));
    drop(guard);
    drop(first);
    assert_eq!(
        *second.lock().unwrap(),
        2,
        "the value lives until the last handle is gone"
    );
}

#[test]
fn any_plain_value_fits() {
    #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
    #[repr(C, align(4096))]
    struct Page([u8; 4096]);
    #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
    #[repr(u8)]
    enum Light {
        Red = 1,
        Green = 2,
    }
    fn holds<T: NoUninit + CheckedBitPattern + PartialEq + std::fmt::Debug>(first: T, second: T) {
        let lock = Lock::new(first).unwrap();
        assert_eq!(*lock.lock().unwrap(), first);
        *lock.lock().unwrap() = second;
        let guard = lock.lock().unwrap();
        assert_eq!(*guard, second);
        assert_eq!(
            &raw const *guard as usize % align_of::<T>(),
            0,
            "{}",
            std::any::type_name::<T>()
        );
    }
    holds((), ());
    holds(1u8, 2);
    holds([1u8; 3], [2; 3]);
    holds(u128::MAX, 1);
    holds('a', 'ß');
    holds(true, false);
    holds(Light::Red, Light::Green);
    holds([1.5f64; 5_000], [2.5; 5_000]);
    holds(Page([1; 4096]), Page([2; 4096]));
}

#[test]
fn busy_lock_is_not_entered() {
    let lock = Lock::new(()).unwrap();
    let (held, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        scope.spawn(|| {
            let _guard = lock.lock().unwrap();
            held.wait();
            done.wait();
        });
        held.wait();
        assert!(matches!(refused(lock.try_lock()), LockError::WouldBlock));
        let start = Instant::now();
        assert!(matches!(
            refused(lock.lock_timeout(SHORT)),
            LockError::TimedOut
        ));
        assert!(
            start.elapsed() >= SHORT && start.elapsed() < LONG,
            "{:?}",
            start.elapsed()
        );
        assert!(matches!(
            refused(lock.lock_timeout(Duration::ZERO)),
            LockError::TimedOut
        ));
        done.wait();
        drop(lock.lock_timeout(Duration::MAX).unwrap());
    });
    drop(lock.try_lock().unwrap());
}

#[test]
fn waiting_is_asleep() {
    let lock = Lock::new(()).unwrap();
    let _guard = lock.lock().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(
                refused(lock.lock_timeout(Duration::from_millis(500))),
                LockError::TimedOut
            ));
            let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let used = Duration::new(used.tv_sec as u64, used.tv_nsec as u32);
            assert!(
                used < Duration::from_millis(50),
                "{used:?} of processor time in half a second of waiting"
            );
        });
    });
}

#[test]
fn leaving_wakes_each_who_waits() {
    let lock = Lock::new(0u32).unwrap();
    let guard = lock.lock().unwrap();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    *lock.lock_timeout(LONG).unwrap() += 1;
                    Instant::now()
                })
            })
            .collect();
        thread::sleep(SHORT);
        let left = Instant::now();
        drop(guard);
        for woken in waiting {
            let after = woken.join().unwrap() - left;
            assert!(after < LONG / 2, "woken only after {after:?}");
        }
    });
    assert_eq!(*lock.lock().unwrap(), 4);
}

#[test]
fn thread_never_waits_for_itself() {
    let lock = Lock::new(()).unwrap();
    let guard = lock.lock().unwrap();
    assert!(matches!(refused(lock.lock()), LockError::Deadlock));
    assert!(matches!(
        refused(lock.clone().lock_timeout(LONG)),
        LockError::Deadlock
    ));
    assert!(matches!(refused(lock.try_lock()), LockError::WouldBlock));
    drop(guard);
    drop(lock.lock().unwrap());
}

#[test]
fn forgotten_guard_stays_inside() {
    let lock = Lock::new(()).unwrap();
    forget(lock.lock().unwrap());
    assert!(matches!(refused(lock.lock()), LockError::Deadlock));
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(matches!(
                refused(lock.lock_timeout(SHORT)),
                LockError::TimedOut
            ))
        });
    });
}

#[test]
fn panic_inside_abandons() {
    let lock = Lock::new([1u8, 1]).unwrap();
    let half = catch_unwind(AssertUnwindSafe(|| {
        let mut guard = lock.lock().unwrap();
        guard[0] = 2;
        panic!("half done");
    }));
    assert!(half.is_err());
    // Not recovered, it stays abandoned, for whoever asks and however.
    assert!(matches!(refused(lock.lock()), LockError::Abandoned(_)));
    assert!(matches!(refused(lock.try_lock()), LockError::Abandoned(_)));
    assert!(matches!(
        refused(lock.lock_timeout(LONG)),
        LockError::Abandoned(_)
    ));
    match lock.lock() {
        Err(LockError::Abandoned(who)) => {
            // It lives: one of its threads panicked.
            assert_eq!((who.pid(), who.death()), (Some(std::process::id()), None));
            // Whoever is told is not inside.
            thread::scope(|scope| {
                scope
                    .spawn(|| assert!(matches!(refused(lock.try_lock()), LockError::Abandoned(_))));
            });
            let mut guard = lock.recover().unwrap();
            assert!(Guard::was_abandoned(&guard));
            assert_eq!(*guard, [2, 1]);
            guard[1] = 2;
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(*lock.lock().unwrap(), [2, 2]);
}

/// Of two that were told of one death, the second finds the value repaired and must not repair it again.
#[test]
fn only_the_first_repairs() {
    let lock = Lock::new([1u8, 1]).unwrap();
    let half = catch_unwind(AssertUnwindSafe(|| {
        lock.lock().unwrap()[0] = 2;
        let _guard = lock.lock().unwrap();
        panic!("half done");
    }));
    assert!(half.is_err());
    let (first, second) = (lock.lock(), lock.clone());
    assert!(matches!(first, Err(LockError::Abandoned(_))));
    let mut guard = lock.lock_or_repair(|pair| pair[1] = pair[0]).unwrap();
    assert!(Guard::was_abandoned(&guard));
    *guard = [3, 3];
    drop(guard);
    let guard = second.lock_or_repair(|_| panic!("it is whole")).unwrap();
    assert_eq!((*guard, Guard::was_abandoned(&guard)), ([3, 3], false));
    drop(guard);
    assert!(!Guard::was_abandoned(&lock.recover().unwrap()));
}

#[test]
fn panic_in_repair_leaves_it_abandoned() {
    let lock = Lock::new(0u8).unwrap();
    for _ in 0..2 {
        let half = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.lock_or_repair(|_| ()).unwrap();
            panic!("again");
        }));
        assert!(half.is_err());
        let half = catch_unwind(AssertUnwindSafe(|| {
            drop(lock.lock_or_repair(|_| panic!("in repair")));
        }));
        assert!(half.is_err());
        assert!(matches!(refused(lock.lock()), LockError::Abandoned(_)));
    }
}

#[test]
fn panic_while_repairing_abandons_again() {
    let lock = Lock::new(0u8).unwrap();
    for round in 0..3 {
        let half = catch_unwind(AssertUnwindSafe(|| {
            let mut guard = match lock.lock() {
                Ok(guard) => guard,
                Err(LockError::Abandoned(_)) => lock.recover().unwrap(),
                Err(other) => panic!("{other}"),
            };
            *guard += 1;
            panic!("again");
        }));
        assert!(half.is_err());
        assert!(
            matches!(refused(lock.lock()), LockError::Abandoned(_)),
            "round {round}"
        );
    }
}

#[test]
fn entering_during_a_panic_and_finishing_does_not_abandon() {
    struct CountsAtTheEnd(Lock<u8>);
    impl Drop for CountsAtTheEnd {
        fn drop(&mut self) {
            *self.0.lock().unwrap() += 1;
        }
    }
    let lock = Lock::new(0u8).unwrap();
    let counts = CountsAtTheEnd(lock.clone());
    let ended = catch_unwind(AssertUnwindSafe(move || {
        let _counts = counts;
        panic!("elsewhere");
    }));
    assert!(ended.is_err());
    assert_eq!(*lock.lock().unwrap(), 1);
}

#[test]
fn abandoned_wakes_the_next() {
    let lock = Lock::new(()).unwrap();
    let held = Barrier::new(2);
    thread::scope(|scope| {
        let dies = scope.spawn(|| {
            let _guard = lock.lock().unwrap();
            held.wait();
            thread::sleep(SHORT);
            panic!("inside");
        });
        held.wait();
        let waits: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| matches!(refused(lock.lock_timeout(LONG)), LockError::Abandoned(_)))
            })
            .collect();
        assert!(dies.join().is_err());
        for told in waits {
            assert!(
                told.join().unwrap(),
                "each that comes is told, as long as nobody recovers"
            );
        }
    });
}

#[test]
fn errors_outlive_the_handle_and_go_to_other_threads()
-> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    fn abandon(lock: &Lock<u8>) {
        let half = catch_unwind(AssertUnwindSafe(|| {
            let _guard = lock.lock().unwrap();
            panic!("half done");
        }));
        assert!(half.is_err());
    }
    fn entered(lock: Lock<u8>) -> Result<u8, Box<dyn std::error::Error + Send + Sync>> {
        Ok(*lock.lock()?)
    }
    let lock = Lock::new(7u8)?;
    abandon(&lock);
    let kept = lock.clone();
    assert_eq!(
        entered(lock).unwrap_err().to_string(),
        format!(
            "process {} panicked inside the lock: its value may be half changed, until somebody enters by \
             `recover` or `lock_or_repair`",
            std::process::id()
        )
    );
    let Err(LockError::Abandoned(who)) = kept.lock() else {
        panic!("it was not recovered")
    };
    assert_eq!(*kept.recover()?, 7);
    drop(kept);
    assert_eq!(who.pid(), Some(std::process::id()));
    Ok(())
}

#[test]
fn guards_stay_on_their_thread_and_locks_do_not() {
    /// `Type as Either<_>` is decided only if the type is not `Send`.
    trait Either<A> {
        fn not_send() {}
    }
    impl<T: ?Sized> Either<()> for T {}
    impl<T: ?Sized + Send> Either<u8> for T {}
    <multiproc::Guard<'static, u8> as Either<_>>::not_send();

    fn shared<T: Send + Sync>() {}
    shared::<Lock<u8>>();
    shared::<LockError>();
}

/// The file of the lock with that value, as another process of the tree may have it, and where the value is.
fn file_with(value: char) -> (std::fs::File, u64) {
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let path = entry.unwrap().path();
        if !std::fs::read_link(&path)
            .is_ok_and(|to| to.to_string_lossy().contains("multiproc:lock"))
        {
            continue;
        }
        let Ok(bytes) = std::fs::read(&path) else {
            continue;
        };
        if let Some(at) = bytes
            .windows(4)
            .position(|window| window == u32::from(value).to_ne_bytes())
        {
            return (
                std::fs::File::options().write(true).open(path).unwrap(),
                at as u64,
            );
        }
    }
    panic!("no lock holds {value:?}");
}

#[test]
fn scribbled_value_is_an_error() {
    let lock = Lock::new('\u{a66e}').unwrap();
    let (file, at) = file_with('\u{a66e}');
    file.write_all_at(&0x11_0000u32.to_ne_bytes(), at).unwrap();
    for _ in 0..2 {
        assert!(matches!(refused(lock.lock()), LockError::Corrupt(_)));
        assert!(matches!(refused(lock.try_lock()), LockError::Corrupt(_)));
    }
    // A value again: whole it is not, and so the next one is told.
    file.write_all_at(&u32::from('x').to_ne_bytes(), at)
        .unwrap();
    match lock.lock() {
        Err(LockError::Abandoned(_)) => assert_eq!(*lock.recover().unwrap(), 'x'),
        other => panic!("{other:?}"),
    }
    assert_eq!(*lock.lock().unwrap(), 'x');
}

/// Whatever stands in the lock's own words, a call ends: in time, with the lock or an error.
#[test]
fn scribbled_words_end_every_call() {
    let lock = Lock::new('\u{a66f}').unwrap();
    let (file, at) = file_with('\u{a66f}');
    let mut random = 1u64;
    for round in 0..300 {
        let mut words = [0u8; 16];
        for byte in &mut words {
            random = random
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            *byte = (random >> 56) as u8 >> (round % 8);
        }
        file.write_all_at(&words, at - 16).unwrap();
        let start = Instant::now();
        for limit in [Duration::ZERO, SHORT / 10] {
            match lock.lock_timeout(limit) {
                Ok(_)
                | Err(LockError::Abandoned(_) | LockError::TimedOut | LockError::Deadlock) => {}
                Err(other) => panic!("{other}"),
            }
        }
        assert!(start.elapsed() < LONG, "round {round}: {words:?}");
    }
}

/// In a process the user forked, a lock answers `Forked`, and what the copy does harms nobody.
#[test]
fn forked_copy_is_refused_and_harmless() {
    if !fork_advice::is_followed() {
        return;
    }
    let lock = Lock::new(5u8).unwrap();
    let guard = lock.lock().unwrap();
    let other = Lock::new(6u8).unwrap();
    // SAFETY: the child allocates nothing and ends by `_exit`.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = [
                other.lock().map(forget),
                other.try_lock().map(forget),
                lock.lock().map(forget),
            ];
            drop(guard);
            let code = refused
                .iter()
                .all(|result| matches!(result, Err(LockError::Forked)));
            // SAFETY: ends this process without running what belongs to the parent.
            unsafe { nix::libc::_exit(if code { 0 } else { 1 }) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
    thread::scope(|scope| {
        scope.spawn(|| assert!(matches!(refused(lock.try_lock()), LockError::WouldBlock)));
    });
    drop(guard);
    assert_eq!(*lock.lock().unwrap() + *other.lock().unwrap(), 11);
}
