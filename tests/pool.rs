//! The pool under the ordinary test harness: every method, every way a task can end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use multiproc::{Frozen, OnDeath, Pool, PoolError, Segment, StartMethod, TaskError, WorkerExit};

fn square(x: u64) -> u64 {
    x * x
}

fn multiply(x: u64, y: u64) -> u64 {
    x * y
}

fn die(x: u64) -> u64 {
    if x == 3 {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    x
}

/// Runs `test` on a thread of its own, and fails if it takes too long.
fn within(limit: Duration, test: impl FnOnce() + Send + 'static) {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        test();
        let _ = tell.send(());
    });
    if told.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("not done within {limit:?}");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

const SOON: Duration = Duration::from_secs(30);

#[test]
fn every_method_gives_the_results_in_order() {
    within(SOON, || {
        let pool = Pool::new(3).unwrap();
        let pairs = [(1, 2), (3, 4), (5, 6)];
        assert_eq!(pool.apply(square, (5,)).unwrap(), 25);
        assert_eq!(pool.apply(multiply, (5, 6)).unwrap(), 30);
        assert_eq!(pool.apply_async(square, (6,)).get().unwrap(), 36);
        assert_eq!(
            pool.map(square, [1, 2, 3, 4, 5]).unwrap(),
            [1, 4, 9, 16, 25]
        );
        assert_eq!(
            pool.map_async(square, 1..=5).get().unwrap(),
            [1, 4, 9, 16, 25]
        );
        assert_eq!(pool.starmap(multiply, pairs).unwrap(), [2, 12, 30]);
        assert_eq!(
            pool.starmap_async(multiply, pairs).get().unwrap(),
            [2, 12, 30]
        );
        let in_order: Vec<u64> = pool.imap(square, 1..=100).map(Result::unwrap).collect();
        assert_eq!(in_order, (1..=100).map(square).collect::<Vec<_>>());
        let mut any_order: Vec<u64> = pool
            .imap_unordered(square, 1..=100)
            .map(Result::unwrap)
            .collect();
        any_order.sort_unstable();
        assert_eq!(any_order, in_order);
        pool.close();
        pool.join().unwrap();
    });
}

#[test]
fn nothing_is_mapped_to_nothing() {
    within(SOON, || {
        let pool = Pool::new(1).unwrap();
        assert_eq!(pool.map(square, []).unwrap(), []);
        assert_eq!(
            pool.map(|x: String| x, Vec::new()).unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(pool.map_async(square, []).get().unwrap(), []);
        assert_eq!(pool.imap(square, []).count(), 0);
    });
}

#[test]
fn many_items_of_a_fixed_size_keep_their_order() {
    within(SOON, || {
        let pool = Pool::new(4).unwrap();
        let results = pool.map(square, 0..1_000_000_u64).unwrap();
        assert!((0..1_000_000).map(square).eq(results));
        let results = pool.chunk_size(1).map(square, 0..20_000_u64).unwrap();
        assert!((0..20_000).map(square).eq(results));
        let results = pool.map_async(square, 0..300_000_u64).get().unwrap();
        assert!((0..300_000).map(square).eq(results));
    });
}

#[test]
fn items_and_results_may_be_of_any_size() {
    within(SOON, || {
        let pool = Pool::new(3).unwrap();
        let words: Vec<String> = (0..50_000).map(|i| "x".repeat(i % 50)).collect();
        let lengths = pool.map(|word: String| word.len(), words.clone()).unwrap();
        assert!(words.iter().map(String::len).eq(lengths));
        let longer = pool.map(|word: String| word + "!", words.clone()).unwrap();
        assert!(words.iter().map(|word| format!("{word}!")).eq(longer));
        // Results far larger than expected, one at a time and many.
        let large = |len: usize| vec![len as u8; len];
        assert_eq!(pool.apply(large, (3_000_000,)).unwrap(), large(3_000_000));
        let sizes = [0, 1, 100, 5_000, 1_000_000, 10, 2_000_000, 3];
        let results = pool.map(large, sizes).unwrap();
        assert!(sizes.map(large).into_iter().eq(results));
        let results = pool.chunk_size(8).imap(large, sizes);
        assert!(sizes.map(large).into_iter().eq(results.map(Result::unwrap)));
        // Arguments far larger than a window.
        let sums = pool.map(
            |bytes: Vec<u8>| bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>(),
            (1..=20).map(|i| vec![i as u8; 1 << 20]),
        );
        assert!((1..=20).map(|i| i << 20).eq(sums.unwrap()));
        let map: HashMap<String, u64> = pool
            .apply(|n: u64| HashMap::from([(n.to_string(), n)]), (7,))
            .unwrap();
        assert_eq!(map["7"], 7);
        assert_eq!(pool.map(|()| (), [(), ()]).unwrap(), [(), ()]);
    });
}

#[test]
fn items_may_be_lent() {
    within(SOON, || {
        let pool = Pool::new(3).unwrap();
        let numbers: Vec<u64> = (0..100_000).collect();
        let squares: Vec<u64> = numbers.iter().copied().map(square).collect();
        assert_eq!(pool.map(square, &numbers).unwrap(), squares);
        assert_eq!(pool.map(square, &numbers[..3]).unwrap(), squares[..3]);
        assert_eq!(pool.map(square, &[1, 2, 3]).unwrap(), [1, 4, 9]);
        assert_eq!(pool.map_async(square, &numbers).get().unwrap(), squares);
        let lent = pool.chunk_size(100).imap(square, &numbers);
        assert!(lent.map(Result::unwrap).eq(squares));
        let words = ["a".to_owned(), "bc".repeat(100_000), String::new()];
        let lengths = pool.map(|word: String| word.len(), &words).unwrap();
        assert_eq!(lengths, [1, 200_000, 0]);
        let pairs = vec![(2, 3), (4, 5)];
        assert_eq!(pool.starmap(multiply, &pairs).unwrap(), [6, 20]);
        assert_eq!(
            pool.with(7_u64)
                .map(|c: &u64, x: u64| c + x, &[1, 2])
                .unwrap(),
            [8, 9]
        );
    });
}

#[test]
fn items_of_a_frozen_array_are_read_in_place() {
    within(SOON, || {
        let pool = Pool::new(3).unwrap();
        let numbers = Frozen::from_iter(0..200_000_u64).unwrap();
        let squares: Vec<u64> = numbers.iter().copied().map(square).collect();
        assert_eq!(pool.map(square, &numbers).unwrap(), squares);
        assert_eq!(pool.chunk_size(100).map(square, &numbers).unwrap(), squares);
        assert_eq!(pool.map_async(square, &numbers).get().unwrap(), squares);
        let texts = pool.map(|x: u64| x.to_string(), &numbers).unwrap();
        assert!(numbers.iter().map(u64::to_string).eq(texts));
        let context = pool
            .with(1_u64)
            .chunk_size(3)
            .imap(|c: &u64, x: u64| c + x, &numbers);
        let plus_one = context.take(100).map(Result::unwrap);
        assert!((1..=100).eq(plus_one));
        // Another array, also while tasks over the first are under way, and of another type.
        let first = pool.map_async(square, &numbers);
        let letters = Frozen::from_slice(&['a', 'b', 'c']).unwrap();
        let upper = |letter: char| letter.to_ascii_uppercase();
        assert_eq!(pool.map(upper, &letters).unwrap(), ['A', 'B', 'C']);
        drop(numbers);
        assert_eq!(first.get().unwrap(), squares);
        assert_eq!(
            pool.map(square, &Frozen::from_slice(&[]).unwrap()).unwrap(),
            []
        );
    });
}

#[test]
fn a_death_in_a_frozen_array_is_that_items_error() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let numbers = Frozen::from_iter(0..100_u64).unwrap();
        let results: Vec<_> = pool.chunk_size(20).imap(die, &numbers).collect();
        for (n, result) in (0..).zip(results) {
            match result {
                Ok(same) => assert_eq!(same, n),
                Err(TaskError::WorkerDied { item: 3, .. }) => assert_eq!(n, 3),
                Err(error) => panic!("{error}"),
            }
        }
        match pool.map(die, &numbers) {
            Err(TaskError::WorkerDied { item: 3, .. }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn the_time_at_work_is_counted() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let nap = Duration::from_millis(20);
        let sleep = |x: u64| std::thread::sleep(Duration::from_millis(x));
        pool.chunk_size(1).map(sleep, [20; 4]).unwrap();
        let busy = pool.stats().busy;
        assert!(busy >= nap * 4, "{busy:?}");
        // Also that of a worker that is still at work, and that of one that has died.
        let task = pool.apply_async(sleep, (60_000,));
        while pool.stats().busy < busy + nap {
            std::thread::sleep(Duration::from_millis(1));
        }
        for worker in pool.workers() {
            let pid = nix::unistd::Pid::from_raw(worker.pid() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        }
        assert!(matches!(task.get(), Err(TaskError::WorkerDied { .. })));
        let after = pool.stats().busy;
        assert!(after >= busy + nap && pool.stats().busy == after);
    });
}

/// Also at the moment when it replaces a worker.
#[test]
fn a_pool_ends_at_any_moment() {
    within(SOON, || {
        for moment in 0..400 {
            let pool = Pool::builder().workers(1).start_method(StartMethod::Exec);
            let pool = pool.build().unwrap();
            let pid = nix::unistd::Pid::from_raw(pool.workers()[0].pid() as i32);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            std::thread::sleep(Duration::from_micros(moment % 200 * 10));
        }
    });
}

#[test]
fn a_panic_is_that_items_error_and_the_worker_goes_on() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let before = pool.workers();
        let careful = |x: u64| {
            assert!(x % 10 != 7, "I do not like {x}");
            x
        };
        let error = pool.map(careful, 0..100).unwrap_err();
        match &error {
            TaskError::Panicked {
                item: 7,
                message,
                location,
                backtrace,
                pid,
                name,
            } => {
                assert_eq!(message, "I do not like 7");
                assert!(location.contains("pool.rs"), "{location}");
                assert!(!backtrace.is_empty());
                assert!(before.iter().any(|w| w.pid() == *pid && w.name() == name));
            }
            other => panic!("{other:?}"),
        }
        for (x, result) in (0..100).zip(pool.chunk_size(9).imap(careful, 0..100)) {
            match result {
                Ok(same) => assert!(same == x && x % 10 != 7),
                Err(error) => assert_eq!((error.item() as u64, x % 10), (x, 7)),
            }
        }
        let odd = |x: u64| {
            if x == 1 {
                std::panic::panic_any(5_u8)
            } else {
                x.to_string()
            }
        };
        let results: Vec<_> = pool.chunk_size(3).imap(odd, 0..3).collect();
        assert!(
            matches!(&results[1], Err(TaskError::Panicked { item: 1, .. })),
            "{results:?}"
        );
        assert_eq!(results[2].as_ref().unwrap(), "2");
        assert_eq!(pool.workers(), before);
    });
}

#[test]
fn a_death_is_that_items_error_and_the_worker_is_replaced() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        match pool.apply(die, (3,)) {
            Err(TaskError::WorkerDied {
                item: 0,
                how: WorkerExit::Signalled(9),
                attempt: 1,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        for (x, result) in (0..20).zip(pool.chunk_size(7).imap(die, 0..20)) {
            match result {
                Ok(same) => assert!(same == x && x != 3),
                Err(TaskError::WorkerDied { item: 3, .. }) => assert_eq!(x, 3),
                Err(error) => panic!("{error}"),
            }
        }
        let strange = |x: u64| {
            if x == 5 {
                std::process::exit(3);
            }
            x.to_string()
        };
        let error = pool.map(strange, 0..100).unwrap_err();
        assert!(
            matches!(
                error,
                TaskError::WorkerDied {
                    item: 5,
                    how: WorkerExit::Exited(3),
                    ..
                }
            ),
            "{error:?}"
        );
        let results: Vec<_> = pool.chunk_size(20).imap(strange, 0..100).collect();
        for (x, result) in results.iter().enumerate() {
            assert_eq!(result.is_err(), x == 5, "{x}: {result:?}");
        }
        assert_eq!(pool.map(square, 0..1000).unwrap().len(), 1000);
        while pool.workers().len() < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

#[test]
fn an_item_that_kills_is_begun_again_as_often_as_allowed() {
    within(SOON, || {
        let pool = Pool::builder()
            .workers(2)
            .on_worker_death(OnDeath::Retry(3))
            .build()
            .unwrap();
        let results: Vec<_> = pool.chunk_size(50).imap(die, 0..1000).collect();
        for (x, result) in results.iter().enumerate() {
            match result {
                Ok(same) => assert!(*same == x as u64 && x != 3),
                Err(TaskError::WorkerDied {
                    item: 3,
                    attempt: 4,
                    ..
                }) => assert_eq!(x, 3),
                Err(error) => panic!("{error}"),
            }
        }
        let deadline = Instant::now() + SOON;
        while pool.stats().restarts < 4 {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(pool.stats().restarts, 4);
    });
}

#[test]
fn what_takes_too_long_is_ended() {
    within(SOON, || {
        let limit = Duration::from_millis(100);
        let pool = Pool::builder()
            .workers(2)
            .task_timeout(limit)
            .build()
            .unwrap();
        let sleepy = |x: u64| {
            if x == 2 {
                std::thread::sleep(Duration::from_secs(60));
            }
            x
        };
        let start = Instant::now();
        let results: Vec<_> = pool.imap(sleepy, 0..5).collect();
        assert!(start.elapsed() < Duration::from_secs(5));
        for (x, result) in results.iter().enumerate() {
            match result {
                Ok(same) => assert!(*same == x as u64 && x != 2),
                Err(TaskError::TimedOut { item: 2, .. }) => assert_eq!(x, 2),
                Err(error) => panic!("{error}"),
            }
        }
    });
}

#[test]
fn workers_are_replaced_after_so_many_tasks() {
    within(SOON, || {
        let pool = Pool::builder()
            .workers(2)
            .max_tasks_per_worker(3)
            .build()
            .unwrap();
        let pids: Vec<u32> = pool
            .imap(|_: u64| std::process::id(), 0..30)
            .map(Result::unwrap)
            .collect();
        for pid in &pids {
            assert!(pids.iter().filter(|other| *other == pid).count() <= 3);
        }
        assert_eq!(pool.map(square, 0..10_000).unwrap().len(), 10_000);
    });
}

#[test]
fn the_initializer_runs_first_in_every_worker() {
    static SET: AtomicU64 = AtomicU64::new(0);
    within(SOON, || {
        let pool = Pool::builder()
            .workers(2)
            .name("tester")
            .initializer(|n: u64| SET.store(n, Ordering::Relaxed), (7,))
            .build()
            .unwrap();
        let seen = pool
            .map(|_: u64| SET.load(Ordering::Relaxed), 0..100)
            .unwrap();
        assert_eq!(seen, [7; 100]);
        let mut names: Vec<_> = pool.workers().iter().map(|w| w.name().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["tester-1", "tester-2"]);
        assert_eq!(SET.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn an_initializer_that_panics_breaks_the_pool_and_says_so() {
    within(SOON, || {
        let pool = Pool::builder()
            .workers(2)
            .initializer(|| panic!("not today"), ())
            .build()
            .unwrap();
        match pool.map(square, 0..10) {
            Err(TaskError::PoolBroken { why, .. }) => assert!(why.contains("not today"), "{why}"),
            other => panic!("{other:?}"),
        }
        match pool.join() {
            Err(PoolError::Broken { why }) => assert!(why.contains("not today"), "{why}"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn workers_that_never_begin_break_the_pool() {
    within(SOON, || {
        let pool = Pool::builder()
            .workers(2)
            .initializer(|| std::process::exit(9), ())
            .build()
            .unwrap();
        match pool.apply(square, (1,)) {
            Err(TaskError::PoolBroken { why, .. }) => {
                assert!(why.contains("exited with code 9"), "{why}");
            }
            other => panic!("{other:?}"),
        }
        assert!(pool.stats().restarts <= 5);
    });
}

#[test]
fn tasks_can_be_waited_for_asked_and_awaited() {
    within(SOON, || {
        let pool = Pool::new(1).unwrap();
        let gate = Segment::new(16).unwrap();
        let open = |word: usize| gate.words()[word].store(1, Ordering::Relaxed);
        let wait = |gate: Segment, word: usize| {
            while gate.words()[word].load(Ordering::Relaxed) == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        let task = pool.apply_async(wait, (gate.clone(), 0));
        assert!(!task.is_ready());
        let too_soon = task.get_timeout(Duration::from_millis(20)).unwrap_err();
        assert!(
            matches!(too_soon, TaskError::TimedOut { pid: None, .. }),
            "{too_soon}"
        );
        open(0);
        assert!(task.wait(SOON));
        assert!(task.is_ready());
        task.get().unwrap();

        let (tell, told) = channel();
        pool.apply_async(square, (9,))
            .on_done(move |result| tell.send(result).unwrap());
        assert_eq!(told.recv_timeout(SOON).unwrap().unwrap(), 81);

        assert_eq!(block_on(pool.apply_async(square, (11,))).unwrap(), 121);
        assert_eq!(block_on(pool.map_async(square, 1..4)).unwrap(), [1, 4, 9]);
        let first = pool.apply_async(wait, (gate.clone(), 1));
        let never = pool.apply_async(square, (1,));
        assert!(never.cancel());
        assert!(matches!(never.get(), Err(TaskError::Cancelled { item: 0 })));
        open(1);
        first.get().unwrap();
        for n in 0..400 {
            drop(pool.apply_async(square, (n,)));
        }
        let tasks: Vec<_> = (0..400).map(|n| pool.apply_async(square, (n,))).collect();
        for (n, task) in (0..).zip(tasks) {
            assert_eq!(task.get().unwrap(), square(n));
        }
    });
}

fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park();
    }
}

#[test]
fn infinite_items_are_read_as_results_are_taken() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        static READ: AtomicU64 = AtomicU64::new(0);
        let items = (0..).inspect(|_| {
            READ.fetch_add(1, Ordering::Relaxed);
        });
        let first: Vec<u64> = pool
            .imap(square, items)
            .take(10)
            .map(Result::unwrap)
            .collect();
        assert!(first.into_iter().eq((0..10).map(square)));
        assert!(READ.load(Ordering::Relaxed) <= 30);
        assert_eq!(pool.imap_unordered(square, 0..).take(100).count(), 100);
        pool.join().unwrap();
    });
}

#[test]
fn a_context_is_sent_once_to_each_worker() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let table: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
        let look_up = |table: &Vec<String>, i: usize| table[i].clone();
        let with = pool.with(table.clone());
        let found = with.map(look_up, 0..1_000_usize).unwrap();
        assert_eq!(found, table);
        let found: Vec<_> = with
            .chunk_size(10)
            .imap(look_up, 0..1_000_usize)
            .map(Result::unwrap)
            .collect();
        assert_eq!(found, table);
        assert_eq!(
            pool.with(10_u64).map(|n, x: u64| n * x, [1, 2]).unwrap(),
            [10, 20]
        );
    });
}

#[test]
fn a_closed_pool_finishes_what_it_has_and_takes_no_more() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let tasks: Vec<_> = (0..100).map(|n| pool.apply_async(square, (n,))).collect();
        pool.close();
        assert!(matches!(
            pool.apply(square, (1,)),
            Err(TaskError::PoolClosed { item: 0 })
        ));
        assert!(matches!(
            pool.map(square, [1]),
            Err(TaskError::PoolClosed { item: 0 })
        ));
        pool.join().unwrap();
        for (n, task) in (0..).zip(tasks) {
            assert!(task.is_ready());
            assert_eq!(task.get().unwrap(), square(n));
        }
    });
}

#[test]
fn a_terminated_pool_ends_all_at_once() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let start = Instant::now();
        let sleep = |_: u64| std::thread::sleep(Duration::from_secs(60));
        let tasks: Vec<_> = (0..5).map(|n| pool.apply_async(sleep, (n,))).collect();
        let pids: Vec<_> = pool.workers().iter().map(|w| w.pid()).collect();
        std::thread::sleep(Duration::from_millis(50));
        drop(pool);
        assert!(start.elapsed() < Duration::from_secs(5));
        for task in tasks {
            assert!(matches!(task.get(), Err(TaskError::PoolClosed { .. })));
        }
        for pid in pids {
            assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
        }
    });
}

#[test]
fn many_threads_use_one_pool() {
    within(SOON, || {
        let pool = Pool::new(3).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let pool = &pool;
                scope.spawn(move || {
                    for n in 0..300 {
                        assert_eq!(pool.apply(multiply, (thread, n)).unwrap(), thread * n);
                    }
                    for _ in 0..5 {
                        let results = pool.map(square, thread..thread + 5_000).unwrap();
                        assert!((thread..thread + 5_000).map(square).eq(results));
                    }
                });
            }
        });
        let stats = pool.stats();
        assert_eq!((stats.done, stats.failed), (8 * 300 + 8 * 5 * 5_000, 0));
    });
}

#[test]
fn a_scope_drains_on_return_and_terminates_on_a_panic() {
    within(SOON, || {
        let task = Pool::scope(2, |pool| pool.apply_async(square, (4,))).unwrap();
        assert!(task.is_ready());
        assert_eq!(task.get().unwrap(), 16);
        let start = Instant::now();
        static STARTED: AtomicBool = AtomicBool::new(false);
        let panic = std::panic::catch_unwind(|| {
            Pool::scope(2, |pool| {
                let _task = pool.apply_async(|| std::thread::sleep(Duration::from_secs(60)), ());
                STARTED.store(true, Ordering::Relaxed);
                panic!("as planned");
            })
        });
        assert!(panic.is_err() && STARTED.load(Ordering::Relaxed));
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn a_pool_in_a_worker_works() {
    within(SOON, || {
        let pool = Pool::new(2).unwrap();
        let nested = |n: u64| {
            let pool = Pool::new(2).unwrap();
            pool.map(square, 0..n).unwrap().into_iter().sum::<u64>()
        };
        let sums = pool.map(nested, [1, 2, 3]).unwrap();
        assert_eq!(sums, [0, 1, 5]);
    });
}

#[test]
fn a_pool_of_nobody_is_refused() {
    assert!(matches!(Pool::new(0), Err(PoolError::NoWorkers)));
    assert!(matches!(
        Pool::new(1 << 20),
        Err(PoolError::TooManyWorkers { limit: 4096, .. })
    ));
}
