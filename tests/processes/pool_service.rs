//! Pools in services: limits, what callers that go away leave, shutdown, signals, surroundings of workers.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Full, Pool, PoolError, Segment, Stdio, TaskError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::help::{isolated, own_children, tests, wait_until};

tests![
    a_task_that_is_dropped_with_its_caller_never_runs,
    a_task_that_is_killed_ends_at_once,
    a_task_names_the_worker_that_is_at_it,
    limits_of_calls_and_of_the_pool,
    a_full_queue_gives_back_what_it_is_given,
    a_full_queue_makes_others_wait,
    a_pool_is_ready_when_its_initializers_are_done,
    a_pool_is_joined_from_behind_an_arc,
    a_shutdown_drains_and_then_terminates,
    a_shutdown_waits_for_no_callback_beyond_its_time,
    signals_to_the_group_are_for_the_parent,
    signals_end_workers_where_that_is_asked_for,
    workers_have_the_surroundings_that_were_asked_for,
    a_worker_knows_its_seat,
    a_map_ends_at_the_first_error_of_its_function,
    views_go_together_and_have_every_method,
    too_much_memory_has_its_own_error,
    a_pool_says_where_its_time_goes,
];

const LONG: Duration = Duration::from_secs(60);

fn square(x: u64) -> u64 {
    x * x
}

fn nap(milliseconds: u64) -> u64 {
    thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}

/// Says in the segment that it runs, and takes so long.
fn mark(begun: Segment, milliseconds: u64) -> u64 {
    begun.words()[0].fetch_add(1, Ordering::Relaxed);
    nap(milliseconds)
}

fn runs(begun: &Segment) -> u64 {
    begun.words()[0].load(Ordering::Relaxed)
}

fn a_task_that_is_dropped_with_its_caller_never_runs() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        let begun = Segment::new(8).unwrap();
        let first = pool.apply_async(nap, (200,));
        let second = pool.apply_async(mark, (begun.clone(), 1));
        let third = pool.apply_async(mark, (begun.clone(), 1));
        drop(second.cancel_on_drop());
        drop(third);
        assert_eq!(first.get().unwrap(), 200);
        assert!(pool.wait_idle(LONG));
        assert_eq!(runs(&begun), 1, "only the one without `cancel_on_drop`");
        // One that has ended has its value still.
        let task = pool.apply_async(square, (3,)).cancel_on_drop();
        assert!(task.wait(LONG));
        assert_eq!(task.get().unwrap(), 9);
    });
}

fn a_task_that_is_killed_ends_at_once() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let begun = Segment::new(8).unwrap();
        for _ in 0..5 {
            begun.words()[0].store(0, Ordering::Relaxed);
            let task = pool.apply_async(mark, (begun.clone(), 600_000));
            let innocent = pool.apply_async(nap, (300,));
            wait_until(LONG, "it runs", || runs(&begun) == 1);
            let worker = task.worker().unwrap();
            task.kill();
            match task.get_timeout(LONG) {
                Err(TaskError::Killed { item: 0, pid, .. }) => assert_eq!(pid, worker.pid()),
                other => panic!("{other:?}"),
            }
            assert_eq!(innocent.get().unwrap(), 300);
            wait_until(LONG, "the worker is replaced", || {
                pool.workers().len() == 2 && !pool.workers().contains(&worker)
            });
        }
        // Many items, some of them begun.
        let task = pool.chunk_size(1).map_async(nap, [600_000; 20]);
        wait_until(LONG, "it runs", || pool.stats().running == 2);
        task.kill();
        match task.get_timeout(LONG) {
            Err(TaskError::Killed { .. }) => {}
            other => panic!("{other:?}"),
        }
        // One that has not begun, and one that has ended.
        let busy = pool.chunk_size(1).map_async(nap, [300; 2]);
        wait_until(LONG, "it runs", || pool.stats().running == 2);
        let task = pool.apply_async(square, (3,));
        task.kill();
        match task.get_timeout(LONG) {
            Err(TaskError::Cancelled { .. } | TaskError::Killed { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(busy.get().unwrap(), [300; 2]);
        let task = pool.apply_async(square, (3,));
        assert!(task.wait(LONG));
        task.kill();
        assert_eq!(task.get().unwrap(), 9);
    });
}

fn a_task_names_the_worker_that_is_at_it() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let task = pool.apply_async(
            || {
                nap(300);
                std::process::id()
            },
            (),
        );
        let mut found = None;
        wait_until(LONG, "somebody is at it", || {
            found = task.worker();
            found.is_some()
        });
        assert!(task.wait(LONG));
        assert_eq!(task.worker(), None);
        assert_eq!(task.get().unwrap(), found.unwrap().pid());
    });
}

fn limits_of_calls_and_of_the_pool() {
    isolated(|| {
        let long = Duration::from_secs(30);
        let pool = Pool::builder()
            .workers(2)
            .task_timeout(long)
            .build()
            .unwrap();
        let short = Duration::from_millis(100);
        let quick = pool.with_timeout(short);
        let is_over = |error: &TaskError| matches!(error, TaskError::TimedOut { pid: Some(_), limit, .. } if *limit == short);
        assert!(is_over(&quick.apply(nap, (600_000,)).unwrap_err()));
        let slow = quick.apply_async(nap, (600_000,));
        assert_eq!(
            pool.apply(nap, (300,)).unwrap(),
            300,
            "the pool's own limit"
        );
        assert!(is_over(&slow.get_timeout(LONG).unwrap_err()));
        let error = quick.chunk_size(1).map(nap, [1, 600_000, 1]).unwrap_err();
        assert!(is_over(&error) && error.item() == 1);
        let results: Vec<_> = pool
            .chunk_size(1)
            .with_timeout(short)
            .imap(nap, [1, 600_000, 2])
            .collect();
        assert!(matches!(results[0], Ok(1)) && matches!(results[2], Ok(2)));
        assert!(is_over(results[1].as_ref().unwrap_err()));
        let with = pool.with(7_u64).with_timeout(short);
        let late = |_: &u64, milliseconds: u64| nap(milliseconds);
        assert!(is_over(&with.apply(late, 600_000).unwrap_err()));
        // As long as it never passes.
        let endless = pool.with_timeout(Duration::MAX);
        assert_eq!(endless.apply(nap, (50,)).unwrap(), 50);
    });
}

fn a_full_queue_gives_back_what_it_is_given() {
    isolated(|| {
        let pool = Pool::builder().workers(1).queue_limit(3).build().unwrap();
        let first: Vec<_> = (0..3)
            .map(|_| pool.try_apply_async(nap, (300,)).unwrap())
            .collect();
        match pool.try_apply_async(|text: String| text, ("mine".to_owned(),)) {
            Err(Full { value, limit: 3 }) => assert_eq!(value.0, "mine"),
            other => panic!("{other:?}"),
        }
        match pool.try_map_async(square, vec![1_u64, 2]) {
            Err(Full { value, limit: 3 }) => assert_eq!(value, [1, 2]),
            other => panic!("{other:?}"),
        }
        for task in first {
            assert_eq!(task.get().unwrap(), 300);
        }
        // More than the limit at once, when nothing else is there.
        let task = pool.try_map_async(square, 0..10).unwrap();
        assert_eq!(task.get().unwrap().len(), 10);
    });
}

fn a_full_queue_makes_others_wait() {
    isolated(|| {
        let pool = Pool::builder().workers(1).queue_limit(2).build().unwrap();
        let start = Instant::now();
        let tasks: Vec<_> = (0..5).map(|_| pool.apply_async(nap, (100,))).collect();
        assert!(
            start.elapsed() >= Duration::from_millis(250),
            "it did not wait"
        );
        for task in tasks {
            assert_eq!(task.get().unwrap(), 100);
        }
        // Who waits for room hears of the end.
        let blocked = AtomicBool::new(false);
        thread::scope(|scope| {
            let full: Vec<_> = (0..2).map(|_| pool.apply_async(nap, (600_000,))).collect();
            let waits = scope.spawn(|| {
                blocked.store(true, Ordering::Relaxed);
                pool.apply_async(square, (1,)).get()
            });
            wait_until(LONG, "it waits", || blocked.load(Ordering::Relaxed));
            thread::sleep(Duration::from_millis(50));
            pool.terminate();
            match waits.join().unwrap() {
                Err(TaskError::PoolClosed { .. }) => {}
                other => panic!("{other:?}"),
            }
            for task in full {
                assert!(matches!(task.get(), Err(TaskError::PoolClosed { .. })));
            }
        });
    });
}

fn a_pool_is_ready_when_its_initializers_are_done() {
    isolated(|| {
        let done = Segment::new(8).unwrap();
        let prepare = |done: Segment| {
            nap(200);
            done.words()[0].fetch_add(1, Ordering::Relaxed);
        };
        let pool = Pool::builder()
            .workers(3)
            .initializer(prepare, (done.clone(),))
            .build()
            .unwrap();
        pool.ready().unwrap();
        assert_eq!(runs(&done), 3);
        let broken = Pool::builder()
            .workers(2)
            .initializer(|| panic!("not today"), ())
            .build()
            .unwrap();
        match broken.ready() {
            Err(PoolError::Broken { why }) => assert!(why.contains("not today"), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

fn a_pool_is_joined_from_behind_an_arc() {
    isolated(|| {
        let pool = Arc::new(Pool::new(2).unwrap());
        let its = Arc::clone(&pool);
        let tasks: Vec<_> = (0..20).map(|_| pool.apply_async(nap, (10,))).collect();
        thread::spawn(move || its.join().unwrap()).join().unwrap();
        assert!(tasks.iter().all(|task| task.is_ready()));
        assert!(own_children().is_empty());
        match pool.apply(square, (1,)) {
            Err(TaskError::PoolClosed { .. }) => {}
            other => panic!("{other:?}"),
        }
        // A second time there is nothing to do.
        pool.join().unwrap();
        assert!(tasks.into_iter().all(|task| task.get().unwrap() == 10));
    });
}

fn a_shutdown_drains_and_then_terminates() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let tasks: Vec<_> = (0..10).map(|_| pool.apply_async(nap, (20,))).collect();
        pool.shutdown(LONG).unwrap();
        assert!(tasks.into_iter().all(|task| task.get().unwrap() == 20));
        let pool = Pool::new(2).unwrap();
        let short = pool.apply_async(nap, (20,));
        let long = pool.apply_async(nap, (600_000,));
        let start = Instant::now();
        match pool.shutdown(Duration::from_millis(500)) {
            Err(PoolError::Terminated) => {}
            other => panic!("{other:?}"),
        }
        assert!(start.elapsed() < LONG);
        assert_eq!(short.get().unwrap(), 20);
        assert!(matches!(long.get(), Err(TaskError::PoolClosed { .. })));
        wait_until(LONG, "no worker is left", || own_children().is_empty());
    });
}

fn a_shutdown_waits_for_no_callback_beyond_its_time() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        pool.apply_async(square, (1,)).on_done(|_| {
            nap(5_000);
        });
        assert!(pool.wait_idle(LONG));
        let start = Instant::now();
        match pool.shutdown(Duration::from_millis(200)) {
            Err(PoolError::Terminated) => {}
            other => panic!("{other:?}"),
        }
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
    });
}

/// What a program that a worker starts does at SIGTERM and at SIGINT: the bits of `SigIgn` and `SigCgt`.
fn dispositions() -> (u64, u64) {
    let output = Command::new("cat")
        .arg("/proc/self/status")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    };
    let both = 1 << (Signal::SIGTERM as u64 - 1) | 1 << (Signal::SIGINT as u64 - 1);
    (field("SigIgn:") & both, field("SigCgt:") & both)
}

fn signals_to_the_group_are_for_the_parent() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        pool.ready().unwrap();
        let before = pool.workers();
        let task = pool.chunk_size(1).map_async(nap, [500; 2]);
        wait_until(LONG, "both are at work", || pool.stats().running == 2);
        for worker in &before {
            for signal in [Signal::SIGTERM, Signal::SIGINT] {
                kill(Pid::from_raw(worker.pid() as i32), signal).unwrap();
            }
        }
        assert_eq!(task.get().unwrap(), [500; 2]);
        assert_eq!(pool.workers(), before);
        assert_eq!(pool.apply(dispositions, ()).unwrap(), (0, 0));
        // They end of them as usual.
        let run = || {
            let mut child = Command::new("sleep").arg("600").spawn().unwrap();
            kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).unwrap();
            !child.wait().unwrap().success()
        };
        assert!(pool.apply(run, ()).unwrap());
        pool.join().unwrap();
    });
}

fn signals_end_workers_where_that_is_asked_for() {
    isolated(|| {
        for signal in [Signal::SIGTERM, Signal::SIGINT] {
            let pool = Pool::builder().workers(1).signals(true).build().unwrap();
            let begun = Segment::new(8).unwrap();
            let task = pool.apply_async(mark, (begun.clone(), 600_000));
            // A worker that ends before its task has begun is only replaced.
            wait_until(LONG, "it has begun", || runs(&begun) == 1);
            kill(Pid::from_raw(pool.workers()[0].pid() as i32), signal).unwrap();
            match task.get_timeout(LONG) {
                Err(TaskError::WorkerDied { how, .. }) => {
                    assert_eq!(how, multiproc::WorkerExit::Signalled(signal as i32));
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(pool.apply(dispositions, ()).unwrap(), (0, 0));
        }
    });
}

fn workers_have_the_surroundings_that_were_asked_for() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(2)
            .name("Surrounded")
            .env("MULTIPROC_POOL_TEST", "yes")
            .current_dir("/")
            .stdio(Stdio::Null, Stdio::Null, Stdio::Null)
            .nice(3)
            .affinity(&[0])
            .build()
            .unwrap();
        let look = || {
            let field = |path: &str, at: usize| {
                let text = std::fs::read_to_string(path).unwrap();
                let (_, fields) = text.rsplit_once(')').unwrap();
                fields.split_ascii_whitespace().nth(at).unwrap().to_owned()
            };
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
                .unwrap();
            (
                std::env::var("MULTIPROC_POOL_TEST").unwrap_or_default(),
                std::env::current_dir().unwrap(),
                std::fs::read_link("/proc/self/fd/1").unwrap(),
                field("/proc/self/stat", 16),
                allowed.trim().to_owned(),
            )
        };
        let own: i32 = {
            let text = std::fs::read_to_string("/proc/self/stat").unwrap();
            let (_, fields) = text.rsplit_once(')').unwrap();
            fields
                .split_ascii_whitespace()
                .nth(16)
                .unwrap()
                .parse()
                .unwrap()
        };
        let expected = (
            "yes".to_owned(),
            PathBuf::from("/"),
            PathBuf::from("/dev/null"),
            (own + 3).min(19).to_string(),
            "0".to_owned(),
        );
        let check = || assert_eq!(pool.apply(look, ()).unwrap(), expected);
        check();
        // So has one that takes the place of another.
        for worker in pool.workers() {
            kill(Pid::from_raw(worker.pid() as i32), Signal::SIGKILL).unwrap();
        }
        wait_until(LONG, "both are replaced", || pool.stats().restarts == 2);
        check();
    });
}

fn a_worker_knows_its_seat() {
    isolated(|| {
        assert!(multiproc::current_worker().is_none());
        let pool = Pool::builder().workers(3).name("Seated").build().unwrap();
        let who = |_: u64| {
            nap(20);
            let worker = multiproc::current_worker().unwrap();
            let is_me = worker.pid() == std::process::id();
            (
                worker.pool().to_owned(),
                worker.seat(),
                worker.name(),
                is_me,
            )
        };
        let workers = pool.workers();
        for (pool_name, seat, name, is_me) in pool.chunk_size(1).map(who, 0..30).unwrap() {
            assert_eq!((pool_name.as_str(), is_me), ("Seated", true));
            assert_eq!(workers[seat].name(), name);
        }
        kill(Pid::from_raw(workers[1].pid() as i32), Signal::SIGKILL).unwrap();
        wait_until(LONG, "it is replaced", || {
            pool.workers().len() == 3 && pool.workers()[1] != workers[1]
        });
        let workers = pool.workers();
        for (_, seat, name, _) in pool.chunk_size(1).map(who, 0..30).unwrap() {
            assert_eq!(workers[seat].name(), name);
        }
    });
}

fn a_map_ends_at_the_first_error_of_its_function() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let begun = Segment::new(8).unwrap();
        let check = |n: u64| match n {
            7 | 9 => Err(format!("not {n}")),
            _ => Ok(nap(n % 3)),
        };
        for size in [1, 3, 100] {
            let view = pool.chunk_size(size);
            assert_eq!(
                view.try_map(check, 0..200).unwrap(),
                Err("not 7".to_owned())
            );
            assert_eq!(view.try_map(check, 0..7).unwrap().unwrap().len(), 7);
        }
        // Items behind it are not begun any more.
        let with = pool.with(begun.clone()).chunk_size(1);
        let count = |begun: &Segment, n: u64| -> Result<u64, String> {
            begun.words()[0].fetch_add(1, Ordering::Relaxed);
            match n {
                0 => Err("at once".to_owned()),
                _ => Ok(nap(5)),
            }
        };
        let result = with.try_map(count, 0..2_000).unwrap();
        assert_eq!(result, Err("at once".to_owned()));
        assert!(runs(&begun) < 1_000, "{} begun", runs(&begun));
        // One that fails before it is an error of the pool's.
        let fails = |n: u64| -> Result<u64, String> {
            match n {
                3 => std::process::abort(),
                7 => Err("seven".to_owned()),
                _ => Ok(n),
            }
        };
        match pool.chunk_size(1).try_map(fails, 0..20) {
            Err(TaskError::WorkerDied { item: 3, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

fn views_go_together_and_have_every_method() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let add = |context: &u64, x: u64| context + x;
        let check = |context: &u64, x: u64| if x < *context { Ok(x) } else { Err(x) };
        let limit = Duration::from_secs(60);
        let with = pool.with(100_u64).chunk_size(3).with_timeout(limit);
        let same = pool.chunk_size(3).with_timeout(limit).with(100_u64);
        for with in [with, same] {
            let expected: Vec<u64> = (100..120).collect();
            assert_eq!(with.apply(add, 1).unwrap(), 101);
            assert_eq!(with.apply_async(add, 2).get().unwrap(), 102);
            assert_eq!(with.try_apply_async(add, 2).unwrap().get().unwrap(), 102);
            assert_eq!(with.map(add, 0..20).unwrap(), expected);
            assert_eq!(with.map_async(add, 0..20).get().unwrap(), expected);
            let task = with.try_map_async(add, 0..20).unwrap();
            assert_eq!(task.get().unwrap(), expected);
            assert_eq!(with.try_map(check, 0..20).unwrap().unwrap().len(), 20);
            assert_eq!(with.try_map(check, 90..200).unwrap(), Err(100));
            let results: Result<Vec<_>, _> = with.imap(add, 0..20).collect();
            assert_eq!(results.unwrap(), expected);
            let results: Result<Vec<_>, _> = with.imap_unordered(add, 0..20).collect();
            let mut results = results.unwrap();
            results.sort_unstable();
            assert_eq!(results, expected);
        }
        let view = pool.with_timeout(limit).chunk_size(2);
        let sum = |a: u64, b: u64| a + b;
        assert_eq!(view.apply(sum, (1, 2)).unwrap(), 3);
        assert_eq!(view.starmap(sum, [(1, 2), (3, 4)]).unwrap(), [3, 7]);
        assert_eq!(view.starmap_async(sum, [(1, 2)]).get().unwrap(), [3]);
        assert_eq!(view.map_async(square, 0..3).get().unwrap(), [0, 1, 4]);
        assert_eq!(
            view.try_map_async(square, 0..3).unwrap().get().unwrap(),
            [0, 1, 4]
        );
        assert_eq!(
            view.try_apply_async(square, (3,)).unwrap().get().unwrap(),
            9
        );
        assert_eq!(view.imap_unordered(square, 0..9).count(), 9);
    });
}

fn too_much_memory_has_its_own_error() {
    isolated(|| {
        const LIMIT: u64 = 96 << 20;
        let pool = Pool::builder()
            .workers(2)
            .memory_limit(LIMIT)
            .build()
            .unwrap();
        let take = |bytes: usize| {
            let taken = std::hint::black_box(vec![7_u8; bytes]);
            nap(2_000);
            taken.len()
        };
        assert_eq!(pool.apply(take, (1 << 20,)).unwrap(), 1 << 20);
        match pool.apply(take, (300 << 20,)) {
            Err(TaskError::OutOfMemory {
                item: 0,
                limit: LIMIT,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        let results: Vec<_> = pool.imap(take, [1, 300 << 20, 2]).collect();
        assert!(matches!(results[0], Ok(1)) && matches!(results[2], Ok(2)));
        match &results[1] {
            Err(TaskError::OutOfMemory { item: 1, .. }) => {}
            other => panic!("{other:?}"),
        }
        // One that keeps too much after its task is replaced.
        let leak = || std::mem::forget(std::hint::black_box(vec![7_u8; 300 << 20]));
        let restarts = pool.stats().restarts;
        let _ = pool.apply(leak, ());
        wait_until(LONG, "it is replaced", || pool.stats().restarts > restarts);
        assert_eq!(pool.map(square, 0..100).unwrap().len(), 100);
    });
}

fn a_pool_says_where_its_time_goes() {
    isolated(|| {
        let pool = Pool::builder()
            .workers(2)
            .initializer(nap, (100,))
            .build()
            .unwrap();
        pool.ready().unwrap();
        assert_eq!(pool.chunk_size(1).map(nap, [150; 4]).unwrap(), [150; 4]);
        for n in 0..10 {
            assert_eq!(pool.apply(square, (n,)).unwrap(), square(n));
        }
        let insights = pool.insights();
        assert_eq!(insights.workers.len(), 2);
        for worker in &insights.workers {
            assert!(worker.start_up.unwrap() >= Duration::from_millis(100));
            assert!(worker.working >= Duration::from_millis(140), "{worker:?}");
            assert!(worker.items >= 1);
        }
        let items: u64 = insights.workers.iter().map(|worker| worker.items).sum();
        assert_eq!(items, 14);
        let slowest = &insights.slowest[0];
        assert!(slowest.function.ends_with("nap"), "{slowest:?}");
        assert!(slowest.time >= Duration::from_millis(150));
        assert!(insights.queue_wait.longest >= insights.queue_wait.mean);
        assert!(
            insights
                .slowest
                .iter()
                .any(|task| task.function.ends_with("square"))
        );
    });
}
