//! What the world around does to processes: signals without end, numbers that come back, clocks and numbers of others.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    JoinError, Lock, LockError, Pipe, Pool, Process, Queue, Receiver, RecvError, Sender,
    StartMethod,
};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use rustix::time::{ClockId, clock_gettime};

use crate::help::{isolated, sleep_long, tests};
use crate::strangers::{Stranger, fresh, pause, say, strangers};

tests![
    a_storm_of_signals,
    a_number_that_comes_back,
    neighbours_of_the_same_number,
    a_clock_a_day_ahead,
];

strangers![hold_as_number_one, want_as_number_one];

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count_signal(_: nix::libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// From now on every such signal interrupts whatever call is being made.
fn be_interrupted() {
    let handler = SigHandler::Handler(count_signal);
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler adds to an atomic, and does nothing else.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
}

/// Sends this process signals, thousands a second, while `work` runs.
fn in_a_storm<R>(work: impl FnOnce() -> R) -> R {
    be_interrupted();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                kill(Pid::this(), Signal::SIGUSR1).unwrap();
                thread::sleep(Duration::from_micros(50));
            }
        });
        let _over = Over(&over);
        work()
    })
}

/// Ends the storm, also when the work fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Adds one to every number, in a storm of its own.
fn add_one(mut rx: Receiver<u64>, mut tx: Sender<u64>, lock: Lock<u64>) -> u64 {
    in_a_storm(|| {
        while let Ok(number) = rx.recv() {
            *lock.lock().unwrap() += 1;
            tx.send(number + 1).unwrap();
        }
        SIGNALS.load(Ordering::Relaxed)
    })
}

fn a_storm_of_signals() {
    const MESSAGES: u64 = 20_000;
    isolated(|| {
        let (mut tx, there) = Queue::new(64).unwrap();
        let (back, mut rx) = Queue::new(64).unwrap();
        let lock = Lock::new(0).unwrap();
        let child = Process::spawn(add_one, (there, back, lock.clone())).unwrap();
        in_a_storm(|| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    (0..MESSAGES).for_each(|number| tx.send(number).unwrap());
                    drop(tx);
                });
                for number in 0..MESSAGES {
                    assert_eq!(rx.recv_timeout(LONG), Ok(number + 1));
                    *lock.lock().unwrap() += 1;
                }
            });
            assert!(child.join().unwrap() > 0);
            assert_eq!(*lock.lock().unwrap(), 2 * MESSAGES);

            let (_tx, mut rx) = Queue::<u64>::new(4).unwrap();
            let (mut here, mut end) = Pipe::<Vec<u8>, u64>::new().unwrap();
            for _ in 0..20 {
                let begun = Instant::now();
                assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
                assert_eq!(here.recv_timeout(SHORT), Err(RecvError::TimedOut));
                assert!(begun.elapsed() >= 2 * SHORT, "a signal ended a wait");
            }
            thread::scope(|scope| {
                scope.spawn(|| here.send(vec![7; 8 << 20]).unwrap());
                assert_eq!(end.recv_timeout(LONG).unwrap().len(), 8 << 20);
            });
            for number in 0..20 {
                let child = Process::spawn(|number: u64| number, (number,)).unwrap();
                assert_eq!(child.join().unwrap(), number);
            }
            let pool = Pool::new(2).unwrap();
            let doubled = pool.map(|number: u64| number * 2, 0..50_000).unwrap();
            assert!(doubled.into_iter().eq((0..50_000).map(|number| number * 2)));
            pool.join().unwrap();
        });
        assert!(SIGNALS.load(Ordering::Relaxed) > 100);
    });
}

fn hold(lock: Lock<u64>, mut held: Sender<()>) {
    let _guard = lock.lock().unwrap();
    held.send(()).unwrap();
    sleep_long();
}

/// Whoever comes to have the number of a dead process is not taken for it.
fn a_number_that_comes_back() {
    isolated(|| {
        let lock = Lock::new(0).unwrap();
        let (held, mut is_held) = Queue::new(1).unwrap();
        let child = Process::spawn(hold, (lock.clone(), held)).unwrap();
        is_held.recv_timeout(LONG).unwrap();
        child.kill().unwrap();
        assert!(matches!(
            child.join_timeout(LONG),
            Err(JoinError::Signalled(9))
        ));
        // Others start processes too, so it may take several tries.
        let same = (0..200).find_map(|_| {
            fs::write(
                "/proc/sys/kernel/ns_last_pid",
                (child.pid() - 1).to_string(),
            )
            .ok()?;
            let mut other = Command::new("sleep").arg("600").spawn().unwrap();
            if other.id() == child.pid() {
                return Some(other);
            }
            other.kill().unwrap();
            other.wait().unwrap();
            None
        });
        let Some(mut same) = same else {
            return println!("SKIPPED: a number that comes back, for it does not come back here");
        };
        assert!(!child.is_alive());
        child.kill().unwrap();
        child.terminate().unwrap();
        match lock.lock_timeout(LONG) {
            Err(LockError::Abandoned(_)) => drop(lock.recover().unwrap()),
            other => panic!("{other:?}"),
        }
        drop(child);
        assert_eq!(same.try_wait().unwrap(), None, "a stranger came to harm");
        same.kill().unwrap();
        same.wait().unwrap();
    });
}

fn hold_as_number_one(name: &str) {
    assert_eq!(std::process::id(), 1);
    let lock = Lock::<u64>::open(name).unwrap();
    let _guard = lock.lock().unwrap();
    say("ready");
    pause();
}

fn want_as_number_one(name: &str) {
    assert_eq!(std::process::id(), 1);
    let lock = Lock::<u64>::open(name).unwrap();
    assert!(matches!(
        lock.lock_timeout(5 * SHORT),
        Err(LockError::TimedOut)
    ));
    say("held");
    pause();
    match lock.lock_timeout(LONG) {
        Err(LockError::Abandoned(_)) => drop(lock.recover().unwrap()),
        other => panic!("{other:?}"),
    }
    say("abandoned");
}

/// Two processes in two containers, each of which is number one there.
fn neighbours_of_the_same_number() {
    let apart = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--"]);
        command
    };
    let possible = apart().arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED: neighbours of the same number, for there can be none here");
    }
    let start = |part, name: &str| {
        Stranger::start_by(apart().arg(std::env::current_exe().unwrap()), part, name)
    };
    let name = fresh("neighbours");
    let lock = Lock::create(&name, 0_u64).unwrap();
    let mut holder = start("hold_as_number_one", &name);
    holder.says("ready");
    let mut wants = start("want_as_number_one", &name);
    wants.says("held");
    assert!(matches!(lock.try_lock(), Err(LockError::WouldBlock)));
    holder.kill();
    wants.go_on();
    wants.says("abandoned");
    wants.finish();
    drop(lock.lock_timeout(LONG).unwrap());
}

/// Hours since some moment, as this process counts them.
fn hours() -> i64 {
    clock_gettime(ClockId::Monotonic).tv_sec / 3600
}

fn wait_a_day_ahead(mut rx: Receiver<u64>, mut tx: Sender<i64>, lock: Lock<u64>) {
    tx.send(hours()).unwrap();
    let begun = Instant::now();
    assert_eq!(rx.recv_timeout(SHORT), Err(RecvError::TimedOut));
    assert!(matches!(lock.lock_timeout(SHORT), Err(LockError::TimedOut)));
    assert!(begun.elapsed() >= 2 * SHORT);
    tx.send(0).unwrap();
    assert_eq!(rx.recv_timeout(LONG), Ok(7));
    drop(lock.lock_timeout(LONG).unwrap());
}

/// Processes whose clocks differ by a day wait for each other as long as they say.
fn a_clock_a_day_ahead() {
    isolated(|| {
        // SAFETY: changes nothing but where the children of this process will be.
        let code = unsafe { nix::libc::unshare(nix::libc::CLONE_NEWTIME) };
        let shifted = nix::Error::result(code)
            .map_err(std::io::Error::from)
            .and_then(|_| fs::write("/proc/self/timens_offsets", "monotonic 86400 0\n"));
        if let Err(error) = shifted {
            return println!("SKIPPED: a clock a day ahead, for there is but one here: {error}");
        }
        let (mut tx, there) = Queue::new(4).unwrap();
        let (back, mut rx) = Queue::new(4).unwrap();
        let lock = Lock::new(0).unwrap();
        let guard = lock.lock().unwrap();
        let child = Process::builder()
            .start_method(StartMethod::Exec)
            .spawn(wait_a_day_ahead, (there, back, lock.clone()))
            .unwrap();
        let theirs = rx.recv_timeout(LONG).unwrap();
        if theirs < hours() + 23 {
            println!("SKIPPED: a clock a day ahead, for children have that of their parents here");
        }
        assert_eq!(rx.recv_timeout(LONG), Ok(0));
        tx.send(7).unwrap();
        thread::sleep(SHORT);
        drop(guard);
        child.join().unwrap();
    });
}
