//! What CPython's own tests of its multiprocessing check and no other test of ours: see `tests/python_parity.md`.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::{
    Lock, Pipe, PipeEnd, Pool, Process, Queue, RecvError, Sender, StartMethod, TaskError,
};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::Pid;
use rustix::process::{Resource, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::help::{self, isolated, sleep_long, spawn, tests, wait_until};
use crate::limits::limit;

tests![
    items_that_panic_end_the_call_alone,
    ten_thousand_sleepers_are_terminated,
    callbacks_hear_of_errors,
    large_panics_do_not_keep_the_pool,
    items_and_results_are_let_go,
    workers_of_one_task_finish_what_there_is,
    a_pool_never_dropped_ends_with_its_program,
    a_pool_that_cannot_be_made_leaves_nothing,
    a_terminated_pool_takes_nothing,
    a_process_echoes_bytes_of_all_sizes,
    polling_takes_nothing_and_merges_nothing,
    said_and_gone_before_it_is_accepted,
    signals_end_no_wait,
];

/// Nothing here takes longer.
const SOON: Duration = Duration::from_secs(60);

fn square(x: u64) -> u64 {
    x * x
}

/// Has a zygote made, which stays; until it has its name it would be taken for somebody who was left.
fn make_zygote() {
    let zygote = Process::builder().start_method(StartMethod::Zygote);
    zygote.spawn(|| (), ()).unwrap().join().unwrap();
}

/// Numbers, and a panic in place of one of them.
fn numbers(count: u64, bad: u64) -> impl ExactSizeIterator<Item = u64> {
    (0..count as usize).map(move |n| {
        assert!(n as u64 != bad, "no number {n}");
        n as u64
    })
}

fn items_that_panic_end_the_call_alone() {
    isolated(|| {
        make_zygote();
        std::panic::set_hook(Box::new(|_| ()));
        let pool = Pool::new(2).unwrap();
        let panics = |call: &dyn Fn()| catch_unwind(AssertUnwindSafe(call)).is_err();
        for bad in [0, 3, 9] {
            assert!(panics(&|| drop(pool.map(square, numbers(10, bad)))));
            assert!(panics(&|| drop(pool.map_async(square, numbers(10, bad)))));
            assert!(panics(&|| {
                drop(pool.chunk_size(2).map(square, numbers(10, bad)));
            }));
            assert!(panics(&|| {
                pool.imap(square, numbers(10, bad)).for_each(drop);
            }));
            assert!(panics(&|| {
                pool.imap_unordered(square, numbers(10, bad)).for_each(drop);
            }));
            assert_eq!(pool.map(square, 0..1000).unwrap().len(), 1000);
        }
        pool.join().unwrap();
        assert_eq!(help::own_children(), Vec::<u32>::new());
    });
}

fn ten_thousand_sleepers_are_terminated() {
    isolated(|| {
        make_zygote();
        let pool = Pool::new(3).unwrap();
        let sleep = |_: u64| sleep_long();
        let task = pool.chunk_size(1).map_async(sleep, 0..10_000);
        pool.terminate();
        assert!(matches!(task.get(), Err(TaskError::PoolClosed { .. })));
        drop(pool);
        assert_eq!(help::own_children(), Vec::<u32>::new());
    });
}

fn callbacks_hear_of_errors() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        let (tell, told) = channel();
        let fail = |n: u64| {
            assert!(n != 7, "seven");
            n
        };
        for n in [7, 8] {
            let tell = tell.clone();
            let task = pool.apply_async(fail, (n,));
            task.on_done(move |result| tell.send((n, result.map(|n| vec![n]))).unwrap());
            match told.recv_timeout(SOON).unwrap() {
                (7, Err(TaskError::Panicked { message, .. })) => assert_eq!(message, "seven"),
                (8, Ok(result)) => assert_eq!(result, [8]),
                other => panic!("{other:?}"),
            }
        }
        for count in [7, 8] {
            let tell = tell.clone();
            let task = pool.map_async(fail, 0..count);
            task.on_done(move |result| tell.send((count, result)).unwrap());
            match told.recv_timeout(SOON).unwrap() {
                (7, Ok(results)) => assert_eq!(results, [0, 1, 2, 3, 4, 5, 6]),
                (8, Err(TaskError::Panicked { item: 7, .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        // Whoever is told may use the pool.
        let square_again = pool.apply_async(square, (3,)).get().unwrap();
        assert_eq!(square_again, 9);
    });
}

fn large_panics_do_not_keep_the_pool() {
    isolated(|| {
        let pool = Pool::new(2).unwrap();
        // Without a word on standard error.
        let fail = |n: usize| -> u64 {
            std::panic::resume_unwind(Box::new("x".repeat((1 << 20) + n)));
        };
        let tasks: Vec<_> = (0..20).map(|n| pool.apply_async(fail, (n,))).collect();
        assert!(pool.map(fail, [0, 1]).is_err());
        pool.close();
        // Nobody has looked at what the tasks have said.
        pool.join().unwrap();
        for (n, task) in tasks.into_iter().enumerate() {
            match task.get() {
                Err(TaskError::Panicked { message, .. }) => {
                    assert_eq!(message.len(), (1 << 20) + n);
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

/// How many [`Counted`] there are in this process.
static COUNTED: AtomicU64 = AtomicU64::new(0);

struct Counted(u64);

impl Counted {
    fn new(n: u64) -> Counted {
        COUNTED.fetch_add(1, Ordering::Relaxed);
        Counted(n)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        COUNTED.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Counted, D::Error> {
        u64::deserialize(deserializer).map(Counted::new)
    }
}

fn items_and_results_are_let_go() {
    isolated(|| {
        let here = || COUNTED.load(Ordering::Relaxed);
        let pool = Pool::new(1).unwrap();
        let same = |counted: Counted| counted;
        let fail = |counted: Counted| -> Counted { std::process::exit(counted.0 as i32) };
        drop(pool.map(same, (0..100).map(Counted::new)).unwrap());
        drop(pool.imap(same, (0..100).map(Counted::new)).take(10));
        drop(pool.apply_async(same, (Counted::new(1),)));
        assert!(pool.apply(fail, (Counted::new(1),)).is_err());
        pool.apply(same, (Counted::new(1),)).unwrap();
        assert_eq!(here(), 0);
        // This one looks while nothing else is under way in its process.
        assert_eq!(
            pool.apply(|| COUNTED.load(Ordering::Relaxed), ()).unwrap(),
            0
        );
    });
}

fn workers_of_one_task_finish_what_there_is() {
    isolated(|| {
        let pool = Pool::builder().workers(3).max_tasks_per_worker(1);
        let pool = pool.build().unwrap();
        let slow = |n: u64| {
            thread::sleep(Duration::from_millis(30));
            square(n)
        };
        let tasks: Vec<_> = (0..12).map(|n| pool.apply_async(slow, (n,))).collect();
        pool.close();
        pool.join().unwrap();
        for (n, task) in (0..).zip(tasks) {
            assert_eq!(task.get().unwrap(), square(n));
        }
    });
}

fn a_pool_never_dropped_ends_with_its_program() {
    let mark = help::tree_mark();
    let program = help::process().env(help::TREE, &mark).spawn(
        || {
            let pool = Pool::new(2).unwrap();
            pool.map(square, 0..10).unwrap();
            std::mem::forget(pool);
        },
        (),
    );
    program.unwrap().join().unwrap();
    wait_until(Duration::from_secs(1), "all are gone", || {
        help::marked(&mark).is_empty()
    });
}

fn a_pool_that_cannot_be_made_leaves_nothing() {
    isolated(|| {
        drop(Pool::new(1).unwrap());
        wait_until(SOON, "the first is gone", || {
            help::own_children().is_empty()
        });
        let before = limit(Resource::Nofile, help::descriptors().len() as u64 + 20);
        let pool = Pool::builder().workers(100);
        let made = pool.start_method(StartMethod::Exec).build();
        assert!(made.is_err(), "{made:?}");
        setrlimit(Resource::Nofile, before).unwrap();
        assert_eq!(help::own_children(), Vec::<u32>::new());
        assert_eq!(Pool::new(2).unwrap().apply(square, (4,)).unwrap(), 16);
    });
}

fn a_terminated_pool_takes_nothing() {
    isolated(|| {
        let pool = Pool::new(1).unwrap();
        pool.terminate();
        let refused = |error| matches!(error, TaskError::PoolClosed { .. });
        assert!(pool.apply(square, (1,)).is_err_and(refused));
        assert!(pool.map(square, [1]).is_err_and(refused));
        assert!(pool.map_async(square, [1]).get().is_err_and(refused));
        assert!(pool.imap(square, [1]).next().unwrap().is_err_and(refused));
    });
}

fn a_process_echoes_bytes_of_all_sizes() {
    fn echo(mut end: PipeEnd<(), ()>) -> usize {
        let mut count = 0;
        while let Ok(bytes) = end.recv_bytes() {
            end.send_bytes(&bytes).unwrap();
            count += 1;
        }
        count
    }
    let (mut here, there) = Pipe::<(), ()>::new().unwrap();
    let child = spawn(echo, (there,)).unwrap();
    for len in [0, 1, 11, 4096, 1 << 24] {
        let bytes: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        here.send_bytes(&bytes).unwrap();
        assert!(here.recv_bytes().unwrap() == bytes, "{len}");
    }
    drop(here);
    assert_eq!(child.join().unwrap(), 5);
}

fn polling_takes_nothing_and_merges_nothing() {
    const SAID: [&[u8]; 8] = [b"hello", b"", b"a", b"b", b"", b"bye", b"", b"lop"];
    fn say(mut end: PipeEnd<(), ()>) {
        for bytes in SAID {
            end.send_bytes(bytes).unwrap();
        }
    }
    let (mut here, there) = Pipe::<(), ()>::new().unwrap();
    assert!(!here.poll(Duration::ZERO).unwrap());
    let child = spawn(say, (there,)).unwrap();
    for bytes in SAID {
        for _ in 0..3 {
            assert!(here.poll(SOON).unwrap());
        }
        assert!(here.poll(Duration::ZERO).unwrap());
        assert_eq!(here.recv_bytes().unwrap(), bytes);
    }
    child.join().unwrap();
    assert_eq!(here.recv_bytes().unwrap_err(), RecvError::Closed);
}

fn said_and_gone_before_it_is_accepted() {
    fn call(name: String) {
        let mut end = Pipe::<String, ()>::connect(&name).unwrap();
        let _: &mut PipeEnd<(), String> = &mut end;
        end.send(()).unwrap();
    }
    let name = format!("multiproc-parity-{}", std::process::id());
    let mut listener = Pipe::<String, ()>::listen(&name).unwrap();
    let child = spawn(call, (name,)).unwrap();
    let mut end = listener.accept_timeout(SOON).unwrap();
    end.recv_timeout(SOON).unwrap();
    child.join().unwrap();
    assert_eq!(end.recv_timeout(SOON), Err(RecvError::Closed));
}

fn signals_end_no_wait() {
    fn late(mut sender: Sender<u64>, mut end: PipeEnd<Vec<u8>, ()>, lock: Lock<u64>) -> u64 {
        let nap = || thread::sleep(Duration::from_millis(40));
        let mut guard = lock.lock().unwrap();
        nap();
        sender.send(1).unwrap();
        nap();
        *guard = 3;
        drop(guard);
        end.send(vec![2; 1 << 22]).unwrap();
        nap();
        4
    }
    isolated(|| {
        static OVER: AtomicBool = AtomicBool::new(false);
        static SEEN: AtomicU64 = AtomicU64::new(0);
        extern "C" fn note(_: i32) {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        let handler = SigHandler::Handler(note);
        // Calls that a signal interrupts are not begun again by the system.
        let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler only counts.
        unsafe { sigaction(Signal::SIGUSR1, &action) }.unwrap();
        let me = Pid::this();
        let pester = thread::spawn(move || {
            while !OVER.load(Ordering::Relaxed) {
                kill(me, Signal::SIGUSR1).unwrap();
                thread::sleep(Duration::from_micros(700));
            }
        });
        for _ in 0..5 {
            let (sender, mut receiver) = Queue::new(4).unwrap();
            let (mut here, there) = Pipe::<(), Vec<u8>>::new().unwrap();
            let lock = Lock::new(0).unwrap();
            let child = spawn(late, (sender, there, lock.clone())).unwrap();
            assert_eq!(receiver.recv(), Ok(1));
            assert_eq!(*lock.lock().unwrap(), 3);
            assert_eq!(here.recv().unwrap(), vec![2; 1 << 22]);
            assert_eq!(child.join().unwrap(), 4);
            let short = Duration::from_millis(20);
            let begin = Instant::now();
            let (_sender, mut receiver) = Queue::<u64>::new(4).unwrap();
            assert_eq!(receiver.recv_timeout(short), Err(RecvError::TimedOut));
            let sleeper = spawn(sleep_long, ()).unwrap();
            assert!(sleeper.join_timeout(short).unwrap().is_none());
            assert!(begin.elapsed() >= 2 * short);
        }
        let pool = Pool::new(2).unwrap();
        assert_eq!(pool.map(square, 0..100_000).unwrap().len(), 100_000);
        for n in 0..100 {
            assert_eq!(pool.apply(square, (n,)).unwrap(), square(n));
        }
        OVER.store(true, Ordering::Relaxed);
        pester.join().unwrap();
        assert!(SEEN.load(Ordering::Relaxed) > 100);
    });
}
