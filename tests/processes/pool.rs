//! Pools whose workers are killed, and all the ways a task can end its worker.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Frozen, OnDeath, Pool, Process, Segment, StartMethod, TaskError, WorkerExit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::faults::Group;
use crate::fork_advice;
use crate::help::{isolated, own_children, tests, wait_until};

tests![
    every_item_ends_once_while_workers_are_killed,
    items_are_begun_as_often_as_allowed_while_workers_are_killed,
    everything_at_once_while_workers_are_killed,
    every_submission_ends_once_and_is_begun_as_often_as_allowed,
    every_way_to_end_a_worker_has_its_error,
    results_that_cannot_travel,
    a_stopped_worker_is_only_slow,
    handles_travel_in_arguments_and_results,
    items_of_a_frozen_array_take_no_memory_of_the_pool,
    nothing_is_left,
    a_forked_copy_is_refused,
    a_pool_outlives_the_thread_that_made_it,
];

/// How long workers are killed for; longer by the variable, in seconds.
fn killing_time() -> Duration {
    let asked = std::env::var("MULTIPROC_KILL_SECONDS").ok();
    Duration::from_secs(asked.and_then(|asked| asked.parse().ok()).unwrap_or(2))
}

fn square(x: u64) -> u64 {
    x * x
}

/// Kills a worker every 20 ms while `test` runs; how many.
fn while_killing<R>(pool: &Pool, test: impl FnOnce() -> R) -> (R, u64) {
    let over = AtomicBool::new(false);
    let killed = AtomicU64::new(0);
    let result = thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = 12_345_u64;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(20));
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let workers = pool.workers();
                if let Some(worker) = workers.get((random >> 33) as usize % workers.len().max(1)) {
                    // It may have ended since.
                    let _ = kill(Pid::from_raw(worker.pid() as i32), Signal::SIGKILL);
                    killed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let _over = Over(&over);
        test()
    });
    (result, killed.into_inner())
}

/// Ends the killing, also when the test fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Counts that the item was begun, and works on it for some microseconds.
fn count(begun: &Segment, item: u64) -> u64 {
    begun.words()[item as usize].fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(20) {}
    square(item)
}

/// The same for an item and a result of no fixed size.
fn count_text(begun: &Segment, item: String) -> String {
    count(begun, item.parse().unwrap()).to_string()
}

fn begun_by(begun: &Segment, items: u64) -> Vec<u64> {
    let words = &begun.words()[..items as usize];
    words
        .iter()
        .map(|word| word.load(Ordering::Relaxed))
        .collect()
}

fn every_item_ends_once_while_workers_are_killed() {
    isolated(|| {
        const ITEMS: u64 = 3_000;
        let pool = Pool::new(4).unwrap();
        let end = Instant::now() + killing_time();
        let (mut died, mut not_begun) = (0, 0);
        let (rounds, killed) = while_killing(&pool, || {
            let mut rounds = 0_u64;
            while Instant::now() < end {
                let begun = Segment::new(ITEMS as usize * 8).unwrap();
                let pool = pool
                    .with(begun.clone())
                    .chunk_size(1 + rounds as usize % 70);
                let results: Vec<_> = if rounds % 2 == 0 {
                    pool.imap(count, 0..ITEMS).collect()
                } else {
                    let items = (0..ITEMS).map(|item| item.to_string());
                    let results = pool.imap(count_text, items);
                    let number = |text: String| text.parse::<u64>().unwrap();
                    results.map(|result| result.map(number)).collect()
                };
                assert_eq!(results.len() as u64, ITEMS);
                for ((item, result), times) in (0..).zip(&results).zip(begun_by(&begun, ITEMS)) {
                    match result {
                        Ok(result) => assert_eq!((*result, times), (square(item), 1)),
                        Err(TaskError::WorkerDied {
                            item: its,
                            how: WorkerExit::Signalled(9),
                            ..
                        }) => {
                            assert_eq!(*its as u64, item);
                            assert!(times <= 1, "begun {times} times");
                            died += 1;
                            not_begun += 1 - times;
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                rounds += 1;
            }
            rounds
        });
        println!("{rounds} rounds, {killed} killed, {died} items died");
        assert!(killed >= 20 && died <= killed);
        // Only between naming an item and the first instruction of its function.
        assert!(
            not_begun <= 1 + died / 4,
            "{not_begun} items were never begun"
        );
        let stats = pool.stats();
        assert_eq!((stats.done, stats.failed), (rounds * ITEMS - died, died));
        assert_eq!(pool.map(square, 0..1_000).unwrap().len(), 1_000);
        pool.join().unwrap();
        assert_eq!(own_children(), Vec::<u32>::new());
    });
}

fn items_are_begun_as_often_as_allowed_while_workers_are_killed() {
    isolated(|| {
        const ITEMS: u64 = 2_000;
        let pool = Pool::builder()
            .workers(3)
            .on_worker_death(OnDeath::Retry(2))
            .build()
            .unwrap();
        let end = Instant::now() + killing_time();
        let (again, killed) = while_killing(&pool, || {
            let mut again = 0;
            while Instant::now() < end {
                let begun = Segment::new(ITEMS as usize * 8).unwrap();
                match pool.with(begun.clone()).map(count, 0..ITEMS) {
                    Ok(results) => assert!((0..ITEMS).map(square).eq(results)),
                    Err(TaskError::WorkerDied { attempt: 3, .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                let begun = begun_by(&begun, ITEMS);
                assert!(begun.iter().all(|times| *times <= 3));
                again += begun.iter().filter(|times| **times > 1).count();
            }
            again
        });
        println!("{killed} killed, {again} items begun again");
        assert!(killed >= 20 && again > 0);
    });
}

/// A number that is refused when it is written if it ends in 3.
#[derive(Deserialize)]
struct Choosy(u64);

impl Serialize for Choosy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 10 {
            3 => Err(serde::ser::Error::custom("it ends in 3")),
            _ => serializer.serialize_newtype_struct("Choosy", &self.0),
        }
    }
}

fn everything_at_once_while_workers_are_killed() {
    isolated(|| {
        let pool = Pool::new(4).unwrap();
        let words = |n: u64| (n, "x".repeat((n % 300) as usize));
        let slow = |n: u64| {
            thread::sleep(Duration::from_micros(n % 500));
            n
        };
        let end = Instant::now() + killing_time();
        let is_death = |error: &TaskError| matches!(error, TaskError::WorkerDied { .. });
        let (_, killed) = while_killing(&pool, || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while Instant::now() < end {
                        match pool.map(square, 0..100_000) {
                            Ok(results) => assert!((0..100_000).map(square).eq(results)),
                            Err(error) => assert!(is_death(&error), "{error}"),
                        }
                    }
                });
                scope.spawn(|| {
                    while Instant::now() < end {
                        let mut seen = HashSet::new();
                        let mut died = 0;
                        for result in pool.chunk_size(5).imap_unordered(words, 0..2_000) {
                            match result {
                                Ok((n, word)) => {
                                    assert_eq!(words(n).1, word);
                                    assert!(seen.insert(n));
                                }
                                Err(error) => {
                                    assert!(is_death(&error), "{error}");
                                    assert!(seen.insert(error.item() as u64));
                                    died += 1;
                                }
                            }
                        }
                        assert!(seen.len() == 2_000 && died < 2_000);
                    }
                });
                scope.spawn(|| {
                    while Instant::now() < end {
                        let results: Vec<_> = pool.chunk_size(40).imap(Choosy, 0..1_000).collect();
                        for (n, result) in (0..).zip(&results) {
                            match result {
                                Ok(same) => assert!(same.0 == n && n % 10 != 3),
                                Err(TaskError::Encode { .. }) => assert_eq!(n % 10, 3),
                                Err(error) => assert!(is_death(error), "{error}"),
                            }
                        }
                        match pool.map(Choosy, 0..1_000) {
                            Err(TaskError::Encode { item: 3, .. }) => {}
                            Err(error) => assert!(is_death(&error) && error.item() <= 3, "{error}"),
                            Ok(_) => panic!("what was refused is there"),
                        }
                    }
                });
                scope.spawn(|| {
                    while Instant::now() < end {
                        let tasks: Vec<_> =
                            (0..500).map(|n| pool.apply_async(slow, (n,))).collect();
                        for (n, task) in (0..).zip(tasks) {
                            match task.get() {
                                Ok(same) => assert_eq!(same, n),
                                Err(error) => assert!(is_death(&error), "{error}"),
                            }
                        }
                    }
                });
                scope.spawn(|| {
                    for n in 0.. {
                        if Instant::now() >= end {
                            break;
                        }
                        match pool.apply(square, (n,)) {
                            Ok(result) => assert_eq!(result, square(n)),
                            Err(error) => assert!(is_death(&error), "{error}"),
                        }
                    }
                });
            });
        });
        assert!(killed >= 20);
        // A map that failed leaves what its workers were at.
        let is_idle = || pool.stats().queued + pool.stats().running == 0;
        wait_until(Duration::from_secs(30), "the rest is done", is_idle);
        assert!(pool.stats().failed > 0);
        assert_eq!(pool.map(square, 0..1_000).unwrap().len(), 1_000);
        pool.join().unwrap();
        assert_eq!(own_children(), Vec::<u32>::new());
    });
}

/// What became of the items of one way to call.
#[derive(Debug, Default)]
struct Account {
    submitted: u64,
    done: u64,
    died: u64,
    /// Items begun once, twice, and so on.
    begun: [u64; 4],
}

impl Account {
    /// Takes down how one item ended.
    fn ended(&mut self, item: u64, result: Result<u64, TaskError>) {
        match result {
            Ok(result) => {
                assert_eq!(result, square(item));
                self.done += 1;
            }
            Err(TaskError::WorkerDied { .. }) => self.died += 1,
            Err(error) => panic!("{error}"),
        }
    }

    /// Takes down how often each of the items was begun.
    fn were_begun(&mut self, begun: &Segment, items: u64, at_most: u64) {
        for times in begun_by(begun, items) {
            assert!(times <= at_most, "begun {times} times");
            if times > 0 {
                self.begun[times as usize - 1] += 1;
            }
        }
    }
}

/// Counts every item of `map`, `imap` and `apply_async` together, while workers are killed.
fn every_submission_ends_once_and_is_begun_as_often_as_allowed() {
    isolated(|| {
        for (on_death, at_most) in [(OnDeath::Fail, 1), (OnDeath::Retry(2), 3)] {
            const ITEMS: u64 = 400;
            let pool = Pool::builder()
                .workers(4)
                .on_worker_death(on_death)
                .build()
                .unwrap();
            let end = Instant::now() + killing_time();
            let rounds = |mut round: Box<dyn FnMut(&Segment, &mut Account)>| {
                let mut account = Account::default();
                // On a busy machine a kill may meet each round of this time: it goes on until one succeeds.
                while Instant::now() < end || account.done == 0 {
                    let begun = Segment::new(ITEMS as usize * 8).unwrap();
                    account.submitted += ITEMS;
                    round(&begun, &mut account);
                    account.were_begun(&begun, ITEMS, at_most);
                }
                account
            };
            let map = |begun: &Segment, account: &mut Account| {
                match pool.with(begun.clone()).map(count, 0..ITEMS) {
                    Ok(results) => (0..)
                        .zip(results)
                        .for_each(|(item, result)| account.ended(item, Ok(result))),
                    // One has died; what became of the others is not said, but that they end.
                    Err(TaskError::WorkerDied { .. }) => account.died += ITEMS,
                    Err(error) => panic!("{error}"),
                }
            };
            let imap = |begun: &Segment, account: &mut Account| {
                let pool = pool.with(begun.clone()).chunk_size(7);
                let results = pool.imap(count, 0..ITEMS);
                (0..)
                    .zip(results)
                    .for_each(|(item, result)| account.ended(item, result));
            };
            let apply = |begun: &Segment, account: &mut Account| {
                let count = |begun: Segment, item| count(&begun, item);
                let tasks: Vec<_> = (0..ITEMS)
                    .map(|item| pool.apply_async(count, (begun.clone(), item)))
                    .collect();
                (0..)
                    .zip(tasks)
                    .for_each(|(item, task)| account.ended(item, task.get()));
            };
            let (accounts, killed) = while_killing(&pool, || {
                thread::scope(|scope| {
                    [
                        scope.spawn(|| rounds(Box::new(map))),
                        scope.spawn(|| rounds(Box::new(imap))),
                        scope.spawn(|| rounds(Box::new(apply))),
                    ]
                    .map(|thread| thread.join().unwrap())
                })
            });
            let is_idle = || pool.stats().queued + pool.stats().running == 0;
            wait_until(Duration::from_secs(30), "the rest is done", is_idle);
            let stats = pool.stats();
            println!("{on_death:?}: {killed} killed, {stats:?}");
            for (call, account) in ["map", "imap", "apply_async"].iter().zip(&accounts) {
                println!("{call}: {account:?}");
                assert_eq!(account.done + account.died, account.submitted);
            }
            let submitted: u64 = accounts.iter().map(|account| account.submitted).sum();
            assert_eq!(stats.done + stats.failed, submitted);
            assert!(killed >= 20);
            assert!(accounts.iter().all(|account| account.done > 0));
            pool.join().unwrap();
            assert_eq!(own_children(), Vec::<u32>::new());
        }
    });
}

/// A result that is written and cannot be read.
struct Secret;

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Secret, D::Error> {
        Err(serde::de::Error::custom("it is a secret"))
    }
}

/// A result that cannot be written.
struct Stone;

impl Serialize for Stone {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it does not move"))
    }
}

impl<'de> Deserialize<'de> for Stone {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Stone, D::Error> {
        Ok(Stone)
    }
}

fn overflow(depth: u64) -> u64 {
    let waste = [depth; 512];
    if std::hint::black_box(&waste)[7] == u64::MAX {
        return 0;
    }
    overflow(depth + 1) + std::hint::black_box(waste)[3]
}

/// A way for a task to end without a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Way {
    Killed,
    Fault,
    Abort,
    Exit(i32),
    Panic,
    PanicWithoutText,
    StackOverflow,
    NoMemory,
    Unreadable,
}

/// Nanoseconds by the clock that all processes share.
fn clock() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Says when, and ends that way; in a group of little memory, if there is one.
fn end(at: Segment, group: Option<String>, way: Way) -> Option<Secret> {
    let now = || at.words()[0].store(clock(), Ordering::Relaxed);
    if way == Way::NoMemory {
        let take = |bytes| std::hint::black_box(vec![7_u8; bytes]).len();
        match group {
            Some(group) => Group::enter(&group).unwrap(),
            None => {
                let limit = nix::sys::resource::Resource::RLIMIT_AS;
                nix::sys::resource::setrlimit(limit, 1 << 20, 1 << 20).unwrap();
            }
        }
        now();
        take(256 << 20);
    }
    now();
    match way {
        Way::Killed => nix::sys::signal::raise(Signal::SIGKILL).unwrap(),
        Way::Fault => nix::sys::signal::raise(Signal::SIGSEGV).unwrap(),
        Way::Abort => std::process::abort(),
        Way::Exit(code) => std::process::exit(code),
        Way::Panic => panic!("as planned"),
        Way::PanicWithoutText => std::panic::panic_any(vec![1_u8]),
        Way::StackOverflow => assert_eq!(overflow(0), 0),
        Way::NoMemory => {}
        Way::Unreadable => return Some(Secret),
    }
    None
}

fn every_way_to_end_a_worker_has_its_error() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let at = Segment::new(8).unwrap();
        let since = || Duration::from_nanos(clock() - at.words()[0].load(Ordering::Relaxed));
        let group = Group::new(&format!("multiproc-pool-{}", std::process::id()));
        match &group {
            Ok(_) => println!("memory is limited by a control group"),
            Err(error) => println!("memory is limited by RLIMIT_AS; no control group: {error}"),
        }
        let path = group.as_ref().ok().map(|group| group.path().to_owned());
        let ways = [
            Way::Killed,
            Way::Fault,
            Way::Abort,
            Way::Exit(3),
            Way::Exit(0),
            Way::Panic,
            Way::PanicWithoutText,
            Way::StackOverflow,
            Way::NoMemory,
            Way::Unreadable,
        ];
        for way in ways {
            let ended = pool.apply(end, (at.clone(), path.clone(), way));
            let took = since();
            let error = ended.map(drop).unwrap_err();
            let died = |deaths: &[WorkerExit]| matches!(&error, TaskError::WorkerDied { how, .. } if deaths.contains(how));
            let panicked = |text: &str| matches!(&error, TaskError::Panicked { message, .. } if message.contains(text));
            let fits = match way {
                Way::Killed => died(&[WorkerExit::Signalled(9)]),
                Way::Fault => died(&[WorkerExit::Signalled(11)]),
                Way::Abort => died(&[WorkerExit::Signalled(6)]),
                Way::Exit(code) => died(&[WorkerExit::Exited(code)]),
                Way::Panic => panicked("as planned"),
                Way::PanicWithoutText => panicked("not text"),
                Way::StackOverflow => died(&[WorkerExit::Signalled(6), WorkerExit::Signalled(11)]),
                Way::NoMemory => died(&[WorkerExit::Signalled(if path.is_some() { 9 } else { 6 })]),
                Way::Unreadable => matches!(error, TaskError::Decode { .. }),
            };
            assert!(fits, "{way:?}: {error:?}");
            println!("{way:?}: {took:?} from the event to the error");
            for n in 0..1_000 {
                assert_eq!(pool.apply(square, (n,)).unwrap(), square(n));
            }
        }
        let broken = Pool::builder()
            .workers(2)
            .initializer(|at: Segment| end(at, None, Way::Panic), (at.clone(),))
            .build()
            .unwrap();
        match broken.apply(square, (1,)) {
            Err(TaskError::PoolBroken { why, .. }) => assert!(why.contains("as planned"), "{why}"),
            other => panic!("{other:?}"),
        }
        println!("initializer: {:?} from the event to the error", since());
        for n in 0..1_000 {
            assert_eq!(pool.apply(square, (n,)).unwrap(), square(n));
        }
    });
}

fn results_that_cannot_travel() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        match pool.apply(|| Secret, ()).map(drop) {
            Err(TaskError::Decode { error, .. }) => {
                assert!(error.to_string().contains("it is a secret"));
            }
            other => panic!("{other:?}"),
        }
        match pool.apply(|| Stone, ()).map(drop) {
            Err(TaskError::Encode { error, .. }) => {
                assert!(error.to_string().contains("it does not move"));
            }
            other => panic!("{other:?}"),
        }
        match pool.map(|_: Secret| (), [Secret, Secret]) {
            Err(TaskError::Decode {
                item: 0,
                name: Some(name),
                ..
            }) => assert!(name.starts_with("PoolWorker-")),
            other => panic!("{other:?}"),
        }
        match pool.map(|_: Stone| (), [Stone, Stone]) {
            Err(TaskError::Encode { item: 0, .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(pool.map(square, 0..1_000).unwrap().len(), 1_000);
    });
}

fn a_stopped_worker_is_only_slow() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        let stopped = Pid::from_raw(pool.workers()[0].pid() as i32);
        kill(stopped, Signal::SIGSTOP).unwrap();
        // The other one does what there is to do.
        for n in 0..100 {
            assert_eq!(pool.apply(square, (n,)).unwrap(), square(n));
        }
        kill(stopped, Signal::SIGCONT).unwrap();
        assert_eq!(pool.map(square, 0..100_000).unwrap().len(), 100_000);
        assert_eq!(pool.stats().restarts, 0);
    });
}

fn handles_travel_in_arguments_and_results() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let fill = |segment: Segment, n: u64| {
            segment.words()[n as usize].store(n + 1, Ordering::Relaxed);
            segment
        };
        let mine = Segment::new(800).unwrap();
        for n in 0..100 {
            let back = pool.apply(fill, (mine.clone(), n)).unwrap();
            assert_eq!(back.words()[n as usize].load(Ordering::Relaxed), n + 1);
        }
        let make = |n: u64| {
            let segment = Segment::new(8).unwrap();
            segment.words()[0].store(n, Ordering::Relaxed);
            segment
        };
        let made = pool.map(make, 0..200).unwrap();
        for (n, segment) in (0..).zip(&made) {
            assert_eq!(segment.words()[0].load(Ordering::Relaxed), n);
        }
    });
}

/// Bytes of memory that pools of this process have for items and results.
fn arena() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let file = std::fs::read_link(path).unwrap_or_default();
            file.to_string_lossy().contains("multiproc:pool:")
        })
        .map(|path| std::fs::metadata(path).unwrap().blocks() * 512)
        .sum()
}

fn items_of_a_frozen_array_take_no_memory_of_the_pool() {
    isolated(|| {
        let sum = |row: [u64; 32]| row.iter().sum::<u64>();
        let rows = vec![[1_u64; 32]; 100_000];
        let frozen = Frozen::from_slice(&rows).unwrap();
        let pool = Pool::new(2).unwrap();
        let before = arena();
        assert_eq!(pool.map(sum, &frozen).unwrap(), [32; 100_000]);
        let results_only = arena() - before;
        assert!(results_only <= 512 << 10, "{results_only} bytes");
        assert_eq!(pool.map(sum, &rows).unwrap(), [32; 100_000]);
        let both = arena() - before;
        assert!(
            both > 512 << 10,
            "items that are copied are not seen: {both} bytes"
        );
    });
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

fn nothing_is_left() {
    isolated(|| {
        // The zygote stays, and a thread that keeps it.
        let zygote = Process::builder().start_method(StartMethod::Zygote);
        zygote.spawn(|| (), ()).unwrap().join().unwrap();
        drop(Pool::new(1).unwrap());
        thread::sleep(Duration::from_millis(200));
        let (open, running) = (descriptors(), threads());
        for round in 0..10 {
            let pool = Pool::new(3).unwrap();
            let large = |len: usize| vec![0_u8; len];
            assert_eq!(pool.map(large, [1 << 20; 20]).unwrap().len(), 20);
            let _ = pool.apply(|| nix::sys::signal::raise(Signal::SIGKILL).unwrap(), ());
            drop(pool.map_async(square, 0..100_000));
            drop(pool.imap(square, 0..100).next());
            if round % 2 == 0 {
                pool.join().unwrap();
            } else {
                drop(pool);
            }
            assert_eq!(own_children(), Vec::<u32>::new());
        }
        wait_until(Duration::from_secs(5), "threads end", || {
            threads() <= running
        });
        wait_until(Duration::from_secs(5), "descriptors are closed", || {
            descriptors() <= open
        });
    });
}

fn a_forked_copy_is_refused() {
    isolated(|| {
        if !fork_advice::is_followed() {
            return;
        }
        let pool = Pool::new(1).unwrap();
        // SAFETY: the copy only makes calls that are refused, and exits.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let refused = matches!(pool.apply(square, (1,)), Err(TaskError::Forked))
                    && matches!(pool.apply_async(square, (1,)).get(), Err(TaskError::Forked));
                drop(pool);
                // SAFETY: ends the copy at once, as is right for one.
                unsafe { nix::libc::_exit(i32::from(!refused)) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                let status = nix::sys::wait::waitpid(child, None).unwrap();
                assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
            }
        }
        assert_eq!(pool.apply(square, (3,)).unwrap(), 9);
    });
}

fn a_pool_outlives_the_thread_that_made_it() {
    isolated(|| {
        let pool = thread::spawn(|| Pool::new(2).unwrap()).join().unwrap();
        thread::sleep(Duration::from_millis(50));
        let before = pool.workers();
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
        assert_eq!(pool.workers(), before);
    });
}
