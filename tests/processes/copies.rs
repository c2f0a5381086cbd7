//! Copies of a process, made by the user's own `fork`: every public operation there does nothing, or says
//! that it is a copy, and what the parent has is as it was.

use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use multiproc::*;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::fork_advice;
use crate::help::{isolated, process, sleep_long, spawn, tests};

tests![
    every_operation_in_a_copy,
    an_imap_dropped_in_a_copy,
    an_imap_used_on_in_a_copy,
];

/// No operation of a copy takes longer; all together neither.
const LIMIT: Duration = Duration::from_secs(60);

/// What only says what is to be made later, or has no part in anything shared.
const SETTINGS: &[&str] = &[
    "error/mod::into_value",
    // Of a file of the program's, which a copy has as well.
    "handle/fd::into_inner",
    // A death that was told is a private copy.
    "error/death::code",
    "error/death::how",
    "error/death::name",
    "error/death::pid",
    "error/death::signal",
    "lock::death",
    "lock::pid",
    "lock::was_abandoned",
    "pool/error::death",
    "process/error::exit",
    // Of a message that was taken out of its queue: a private copy.
    "error/mod::failures",
    "error/mod::message",
    "pipe/builder::message_limit",
    "queue/builder::delivery_limit",
    "pipe/builder::size",
    "pipe/mod::builder",
    "pool/builder::affinity",
    "pool/builder::current_dir",
    "pool/builder::env",
    "pool/builder::initializer",
    "pool/builder::kill_tree",
    "pool/builder::max_tasks_per_worker",
    "pool/builder::memory_limit",
    "pool/builder::name",
    "pool/builder::nice",
    "pool/builder::on_worker_death",
    "pool/builder::queue_limit",
    "pool/builder::signals",
    "pool/builder::start_method",
    "pool/builder::stdio",
    "pool/builder::task_timeout",
    "pool/builder::workers",
    "pool/error::item",
    "pool/mod::builder",
    // Of a `Worker`, which is a number and a name.
    "pool/seats::name",
    "pool/seats::pid",
    "pool/worker/mod::current_worker",
    "pool/worker/mod::name",
    "pool/worker/mod::pid",
    "pool/worker/mod::pool",
    "pool/worker/mod::seat",
    "process/boot::init",
    "process/builder::affinity",
    "process/builder::current_dir",
    "process/builder::env",
    "process/builder::max_result",
    "process/builder::env_remove",
    "process/builder::name",
    "process/builder::nice",
    "process/builder::start_method",
    "process/builder::stderr",
    "process/builder::stdin",
    "process/builder::stdout",
    // A function of this program, which a copy has as well.
    "process/func::call",
    "process/func::name",
    "process/func::of",
    "process/mod::builder",
    "process/mod::name",
    "process/mod::pid",
    "queue/builder::capacity",
    "queue/builder::in_place",
    "queue/builder::message_limit",
    "queue/builder::message_size",
    "queue/builder::receivers",
    "queue/builder::senders",
    "queue/mod::builder",
    // Shortens what the loan will send.
    "queue/loan::truncate",
];

/// What the copy says, and to whom.
struct Told(OwnedFd);

impl Told {
    /// Does one operation and tells its name, and whether it went wrong.
    fn check(&self, name: &str, right: impl FnOnce() -> bool) {
        self.say(&format!("{name} "));
        self.say(if right() { "right\n" } else { "WRONG\n" });
    }

    fn say(&self, text: &str) {
        // The pipe has room for all of it, and the parent reads it to its end.
        let _ = rustix::io::write(&self.0, text.as_bytes());
    }
}

/// Which of the two processes it is that goes on.
enum Side {
    Copy(Told),
    Parent(Copied),
}

/// A copy, and what it says.
struct Copied(Pid, OwnedFd);

/// Forks.
///
/// # Safety
///
/// As `fork` in a program of several threads: the copy uses nothing that one of them may have locked.
unsafe fn divide() -> Side {
    let (reading, writing) = rustix::pipe::pipe().unwrap();
    // SAFETY: the caller vouches for what the copy does.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => Side::Copy(Told(writing)),
        ForkResult::Parent { child } => Side::Parent(Copied(child, reading)),
    }
}

impl Told {
    fn end(&self) -> ! {
        self.say("end\n");
        // SAFETY: it exits without running anything more.
        unsafe { nix::libc::_exit(0) }
    }
}

impl Copied {
    /// The names of what it did; fails if any of it went wrong.
    fn names(self) -> BTreeSet<String> {
        let Copied(child, reading) = self;
        let status = end_of(child);
        let mut told = String::new();
        std::io::Read::read_to_string(&mut std::fs::File::from(reading), &mut told).unwrap();
        assert_eq!(status, WaitStatus::Exited(child, 0), "after: {told}");
        let wrong: Vec<&str> = told
            .lines()
            .filter(|line| !line.ends_with("right"))
            .collect();
        assert_eq!(wrong, ["end"], "of a copy's operations");
        let names = told.lines().filter_map(|line| line.split_once(' '));
        names.map(|(name, _)| name.to_owned()).collect()
    }
}

/// Waits for a copy; one that hangs is killed.
fn end_of(child: Pid) -> WaitStatus {
    let end = Instant::now() + LIMIT;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::StillAlive if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            WaitStatus::StillAlive => {
                kill(child, Signal::SIGKILL).unwrap();
                return waitpid(child, None).unwrap();
            }
            status => return status,
        }
    }
}

fn nap(x: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(5));
    x
}

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn every_operation_in_a_copy() {
    isolated(|| {
        if fork_advice::is_followed() {
            let done = all_in_copy();
            // What is public, and neither done nor a setting.
            let missing: Vec<String> = public_functions()
                .into_iter()
                .filter(|name| !done.contains(name) && !SETTINGS.contains(&&**name))
                .collect();
            assert_eq!(missing, Vec::<String>::new(), "say what they do in a copy");
        }
    });
}

/// Makes one of everything, does everything with it in a copy, and checks that all of it is as it was.
fn all_in_copy() -> BTreeSet<String> {
    let name = |what: &str| format!("copies-{what}-{}", std::process::id());
    let segment = Segment::new(64).unwrap();
    let lock = Lock::new(1_u64).unwrap();
    let entered = Lock::new(2_u64).unwrap();
    let left = Lock::new(3_u64).unwrap();
    let named_lock = Lock::create(&name("lock"), 4_u64).unwrap();
    let frozen = Frozen::from_slice(&[5_u64, 6]).unwrap();
    let (mut tx, mut rx) = Queue::new(8).unwrap();
    tx.send_many([1_u64, 2, 3]).unwrap();
    let in_place = || Queue::<Vec<u8>>::builder().message_size(64).in_place(4);
    let (mut btx, mut brx) = in_place().build().unwrap();
    btx.send_many([vec![1], vec![2]]).unwrap();
    let lease = brx.lease().unwrap();
    let held_again = brx.lease().unwrap();
    let (mut ltx, mut lrx) = in_place().build().unwrap();
    let (mut otx, orx) = Queue::<u64>::new(2).unwrap();
    drop(orx);
    let (mut a, mut b) = Pipe::<u64, u64>::new().unwrap();
    a.send(7).unwrap();
    let mut listener = Pipe::<u64, u64>::listen(&name("pipe")).unwrap();
    let child = process()
        .stdin(Stdio::Pipe)
        .stdout(Stdio::Pipe)
        .stderr(Stdio::Pipe)
        .spawn(sleep_long, ())
        .unwrap();
    let detached = spawn(sleep_long, ()).unwrap();
    let printing = process().stdout(Stdio::Pipe).spawn(sleep_long, ()).unwrap();
    let pool = Pool::new(2).unwrap();
    let mut ordered = pool.imap(nap, 0..40_u64);
    let mut unordered = pool.imap_unordered(nap, 0..40_u64);
    assert_eq!(ordered.next().unwrap().unwrap(), 0);
    let first = unordered.next().unwrap().unwrap();
    let done = pool.apply_async(add, (1_u64, 2_u64));
    assert!(done.wait(LIMIT));
    let tasks: Vec<Task<u64>> = (0..12).map(|n| pool.apply_async(nap, (n,))).collect();
    let chunked = pool.chunk_size(2);
    let context = pool.with(10_u64);

    let mut loan = ltx.loan().unwrap();
    loan[0] = 9;
    loan.truncate(1);
    let mut guard = entered.lock().unwrap();
    *guard += 1;
    std::thread::scope(|threads| {
        let left = left.clone();
        let panics = move || {
            let _guard = left.lock();
            std::panic::resume_unwind(Box::new(()));
        };
        assert!(threads.spawn(panics).join().is_err());
    });
    let kept = Arc::new(Pool::new(1).unwrap());
    let is_abandoned = |error| matches!(error, LockError::Abandoned(_));
    assert!(is_abandoned(left.lock().unwrap_err()));

    let is_forked = |error: SegmentError| matches!(error, SegmentError::Forked);
    let of_queue = |error: QueueError| matches!(error, QueueError::Segment(SegmentError::Forked));
    let of_pipe = |error: PipeError| matches!(error, PipeError::Segment(SegmentError::Forked));
    let of_pool = |error: PoolError| matches!(error, PoolError::Segment(SegmentError::Forked));
    let is_none = |error: TaskError| matches!(error, TaskError::Forked);
    let short = Duration::from_millis(1);
    // SAFETY: what the copy does is what is tested: it waits for no lock of another thread.
    let copied = match unsafe { divide() } {
        Side::Parent(copied) => copied,
        Side::Copy(told) => {
            let c = |name: &str, right: bool| told.check(name, || right);
            told.check("segment/mod::new", || {
                is_forked(Segment::new(8).unwrap_err())
            });
            c("segment/mod::len", segment.len() == 64);
            c("segment/mod::is_empty", !segment.is_empty());
            c("segment/mod::is_named", !segment.is_named());
            told.check("segment/mod::words", || {
                segment.clone().words()[0].load(Ordering::Relaxed) == 0
            });
            told.check("named::create", || {
                is_forked(Segment::create(&name("c"), 8).unwrap_err())
            });
            told.check("named::open", || {
                is_forked(Segment::open(&name("lock")).unwrap_err())
            });

            told.check("lock::new", || is_forked(Lock::new(1_u8).unwrap_err()));
            told.check("lock::create", || {
                is_forked(Lock::create(&name("c"), 1_u8).unwrap_err())
            });
            told.check("lock::open", || {
                is_forked(Lock::<u64>::open(&name("lock")).unwrap_err())
            });
            told.check("lock::open_or_create", || {
                is_forked(Lock::open_or_create(&name("lock"), 1_u64).unwrap_err())
            });
            for lock in [&lock, &entered, &named_lock, &left] {
                told.check("lock::lock", || {
                    matches!(lock.lock(), Err(LockError::Forked))
                });
                told.check("lock::try_lock", || {
                    matches!(lock.try_lock(), Err(LockError::Forked))
                });
                told.check("lock::lock_timeout", || {
                    matches!(lock.lock_timeout(short), Err(LockError::Forked))
                });
                told.check("lock::recover", || {
                    matches!(lock.recover(), Err(LockError::Forked))
                });
                told.check("lock::recover_timeout", || {
                    matches!(lock.recover_timeout(short), Err(LockError::Forked))
                });
                told.check("lock::lock_or_repair", || {
                    matches!(lock.lock_or_repair(|_| ()), Err(LockError::Forked))
                });
            }
            told.check("lock::Guard::drop", || {
                drop(guard);
                true
            });

            told.check("frozen::from_slice", || {
                is_forked(Frozen::from_slice(&[1_u8]).unwrap_err())
            });
            told.check("frozen::from_iter", || {
                is_forked(Frozen::from_iter(0..9_u8).unwrap_err())
            });
            told.check("frozen::build", || {
                is_forked(Frozen::<u8>::build(1, |_| ()).unwrap_err())
            });
            c("frozen::deref", *frozen == [5, 6]);

            told.check("queue/mod::new", || {
                of_queue(Queue::<u8>::new(1).unwrap_err())
            });
            let builder = Queue::<u8>::builder;
            told.check("queue/builder::build", || {
                of_queue(builder().build().unwrap_err())
            });
            told.check("queue/builder::create", || {
                of_queue(builder().create(&name("q")).unwrap_err())
            });
            told.check("queue/builder::open", || {
                of_queue(builder().open(&name("q")).unwrap_err())
            });
            told.check("queue/builder::open_or_create", || {
                of_queue(builder().open_or_create(&name("q")).unwrap_err())
            });
            told.check("queue/sender::send", || {
                tx.send(4) == Err(SendError::Forked(4))
            });
            told.check("queue/sender::try_send", || {
                tx.try_send(4) == Err(SendError::Forked(4))
            });
            told.check("queue/sender::send_timeout", || {
                tx.send_timeout(4, short) == Err(SendError::Forked(4))
            });
            told.check("queue/sender::send_many", || {
                tx.send_many([4, 5]) == Err(SendError::Forked(4))
            });
            told.check("queue/sender::try_clone", || {
                of_queue(tx.try_clone().unwrap_err())
            });
            c("queue/sender::capacity", tx.capacity() >= 8);
            c("queue/sender::len", tx.len() == 3);
            c("queue/sender::is_empty", !tx.is_empty());
            c("queue/sender::is_closed", !tx.is_closed());
            c("queue/sender::stats", tx.stats().sent == 3);
            // The receiver is gone, which the parent has been told of already.
            told.check("queue/sender::is_closed", || {
                otx.is_closed() && otx.send(1) == Err(SendError::Forked(1))
            });
            told.check("queue/receiver::recv", || {
                rx.recv() == Err(RecvError::Forked)
            });
            told.check("queue/receiver::try_recv", || {
                rx.try_recv() == Err(RecvError::Forked)
            });
            told.check("queue/receiver::recv_timeout", || {
                rx.recv_timeout(short) == Err(RecvError::Forked)
            });
            told.check("queue/receiver::recv_many", || {
                rx.recv_many(2) == Err(RecvError::Forked)
            });
            told.check("queue/receiver::iter", || rx.iter().next().is_none());
            told.check("queue/receiver::try_clone", || {
                of_queue(rx.try_clone().unwrap_err())
            });
            c("queue/receiver::is_closed", !rx.is_closed());
            c("queue/receiver::capacity", rx.capacity() >= 8);
            c("queue/receiver::len", rx.len() == 3);
            c("queue/receiver::is_empty", !rx.is_empty());
            c("queue/receiver::stats", rx.stats().received == 0);
            told.check("queue/Drop", || {
                drop((tx, rx));
                true
            });

            told.check("queue/loan::loan", || {
                matches!(btx.loan(), Err(LoanError::Forked))
            });
            told.check("queue/loan::try_loan", || {
                matches!(btx.try_loan(), Err(LoanError::Forked))
            });
            told.check("queue/loan::loan_timeout", || {
                matches!(btx.loan_timeout(short), Err(LoanError::Forked))
            });
            told.check("queue/loan::commit", || {
                loan.commit() == Err(LoanError::Forked)
            });
            c("queue/loan::redelivered", !lease.redelivered());
            c("queue/loan::failures", lease.failures() == 0);
            c("queue/loan::get", lease.get() == [1]);
            told.check("queue/loan::read", || lease.read() == Ok(vec![1]));
            told.check("queue/loan::ack", || {
                lease.ack();
                true
            });
            told.check("queue/loan::Lease::drop", || {
                drop(held_again);
                true
            });
            told.check("queue/receiver::lease", || {
                matches!(brx.lease(), Err(RecvError::Forked))
            });
            told.check("queue/receiver::try_lease", || {
                matches!(brx.try_lease(), Err(RecvError::Forked))
            });
            told.check("queue/receiver::lease_timeout", || {
                matches!(brx.lease_timeout(short), Err(RecvError::Forked))
            });
            c("queue/receiver::is_closed", !brx.is_closed());

            told.check("pipe/mod::new", || {
                of_pipe(Pipe::<u8, u8>::new().unwrap_err())
            });
            told.check("pipe/mod::listen", || {
                of_pipe(Pipe::<u8, u8>::listen(&name("l")).unwrap_err())
            });
            told.check("pipe/mod::connect", || {
                of_pipe(Pipe::<u64, u64>::connect(&name("pipe")).unwrap_err())
            });
            let builder = Pipe::<u64, u64>::builder;
            told.check("pipe/builder::build", || {
                of_pipe(builder().build().unwrap_err())
            });
            told.check("pipe/builder::listen", || {
                of_pipe(builder().listen(&name("l")).unwrap_err())
            });
            told.check("pipe/builder::connect", || {
                of_pipe(builder().connect(&name("pipe")).unwrap_err())
            });
            told.check("pipe/builder::connect_timeout", || {
                of_pipe(builder().connect_timeout(&name("pipe"), short).unwrap_err())
            });
            told.check("pipe/call::accept", || {
                of_pipe(listener.accept().unwrap_err())
            });
            told.check("pipe/call::accept_timeout", || {
                of_pipe(listener.accept_timeout(short).unwrap_err())
            });
            told.check("pipe/end::send", || a.send(8) == Err(SendError::Forked(8)));
            told.check("pipe/end::try_send", || {
                a.try_send(8) == Err(SendError::Forked(8))
            });
            told.check("pipe/end::send_timeout", || {
                a.send_timeout(8, short) == Err(SendError::Forked(8))
            });
            told.check("pipe/end::send_bytes", || {
                a.send_bytes(b"8") == Err(SendError::Forked(()))
            });
            told.check("pipe/end::recv", || b.recv() == Err(RecvError::Forked));
            told.check("pipe/end::try_recv", || {
                b.try_recv() == Err(RecvError::Forked)
            });
            told.check("pipe/end::recv_timeout", || {
                b.recv_timeout(short) == Err(RecvError::Forked)
            });
            told.check("pipe/end::poll", || b.poll(short) == Err(RecvError::Forked));
            told.check("pipe/end::recv_bytes", || {
                b.recv_bytes() == Err(RecvError::Forked)
            });
            told.check("pipe/end::recv_bytes_into", || {
                b.recv_bytes_into(&mut [0; 8]) == Err(RecvError::Forked)
            });
            c("pipe/end::is_closed", !a.is_closed() && !b.is_closed());
            told.check("pipe/Drop", || {
                drop((a, b, listener));
                true
            });

            told.check("process/mod::spawn", || {
                matches!(Process::spawn(sleep_long, ()), Err(SpawnError::Forked))
            });
            told.check("process/builder::spawn", || {
                matches!(spawn(sleep_long, ()), Err(SpawnError::Forked))
            });
            c("process/mod::active_children", active_children().is_empty());
            c(
                "process/mod::current_process",
                current_process().pid() == std::process::id(),
            );
            c("process/mod::parent_process", parent_process().is_some());
            c("process/child::pid", child.pid() > 0);
            c("process/child::name", !child.name().is_empty());
            c("process/child::is_alive", child.is_alive());
            c("process/child::death", child.death().is_none());
            told.check("process/child::as_fd", || {
                matches!(wait_any(&[&child.as_fd()], short), Ok(None))
            });
            told.check("process/child::wait_any", || {
                matches!(wait_any(&[&child], short), Ok(None))
            });
            told.check("process/child::terminate", || child.terminate().is_err());
            told.check("process/child::kill", || child.kill().is_err());
            told.check("process/child::signal", || {
                child.signal(nix::libc::SIGSTOP).is_err()
            });
            told.check("process/child::kill_tree", || child.kill_tree().is_err());
            told.check("process/child::take_stdin", || child.take_stdin().is_none());
            told.check("process/child::take_stdout", || {
                child.take_stdout().is_none()
            });
            told.check("process/child::take_stderr", || {
                child.take_stderr().is_none()
            });
            told.check("process/child::join_timeout", || {
                matches!(child.join_timeout(short), Err(JoinError::Forked))
            });
            told.check("process/child::join", || {
                matches!(child.join(), Err(JoinError::Forked))
            });
            // They are the original's, and nothing happens to them.
            told.check("process/keeper::end_zygote", || end_zygote().is_ok());
            told.check("process/child::join_with_output", || {
                let output = printing.join_with_output();
                format!("{output:?}").contains("Forked")
            });
            told.check("process/child::detach", || {
                detached.detach();
                true
            });

            told.check("pool/mod::new", || of_pool(Pool::new(1).unwrap_err()));
            told.check("pool/builder::build", || {
                of_pool(Pool::builder().workers(1).build().unwrap_err())
            });
            told.check("pool/mod::scope", || {
                of_pool(Pool::scope(1, |_| ()).unwrap_err())
            });
            told.check("pool/mod::apply", || {
                is_none(pool.apply(nap, (1,)).unwrap_err())
            });
            told.check("pool/mod::apply_async", || {
                is_none(pool.apply_async(nap, (1,)).get().unwrap_err())
            });
            told.check("pool/mod::map", || {
                is_none(pool.map(nap, 0..9).unwrap_err())
            });
            told.check("pool/mod::map_async", || {
                is_none(pool.map_async(nap, 0..9).get().unwrap_err())
            });
            let pairs = || (0..9_u64).map(|n| (n, n));
            told.check("pool/mod::starmap", || {
                is_none(pool.starmap(add, pairs()).unwrap_err())
            });
            told.check("pool/mod::starmap_async", || {
                is_none(pool.starmap_async(add, pairs()).get().unwrap_err())
            });
            let ends = |results: &mut dyn Iterator<Item = Result<u64, TaskError>>| {
                let found: Vec<_> = results.take(100).collect();
                found.len() == 1 && matches!(found[0], Err(TaskError::Forked))
            };
            told.check("pool/mod::try_apply_async", || {
                let task = pool.try_apply_async(nap, (1,)).map_err(|full| full.limit);
                is_none(task.unwrap().get().unwrap_err())
            });
            told.check("pool/mod::try_map_async", || {
                let task = pool.try_map_async(nap, 0..9).map_err(|full| full.limit);
                is_none(task.unwrap().get().unwrap_err())
            });
            let fine = |n: u64| -> Result<u64, u64> { Ok(n) };
            told.check("pool/mod::try_map", || {
                is_none(pool.try_map(fine, 0..9).unwrap_err())
            });
            told.check("pool/mod::with_timeout", || {
                let pool = pool.with_timeout(Duration::from_secs(300));
                is_none(pool.map(nap, 0..9).unwrap_err())
            });
            told.check("pool/mod::ready", || of_pool(pool.ready().unwrap_err()));
            told.check("pool/mod::wait_idle", || {
                !pool.wait_idle(Duration::from_secs(300))
            });
            told.check("pool/mod::shutdown", || {
                of_pool(pool.shutdown(Duration::from_secs(300)).unwrap_err())
            });
            c("pool/mod::insights", pool.insights().workers.is_empty());
            told.check("pool/mod::imap", || ends(&mut pool.imap(nap, 0..9)));
            told.check("pool/mod::imap_unordered", || {
                ends(&mut pool.imap_unordered(nap, 0..9))
            });
            told.check("pool/mod::chunk_size", || {
                is_none(pool.chunk_size(1).map(nap, 0..9).unwrap_err())
            });
            told.check("pool/mod::with", || {
                is_none(
                    pool.with(1_u64)
                        .map(|a: &u64, b: u64| a + b, 0..9)
                        .unwrap_err(),
                )
            });
            c("pool/mod::workers", pool.workers().is_empty());
            c("pool/mod::stats", pool.stats() == PoolStats::default());
            told.check("pool/views::apply", || {
                is_none(chunked.apply(nap, (1,)).unwrap_err())
                    && is_none(context.apply(|a: &u64, b: u64| a + b, 1).unwrap_err())
            });
            told.check("pool/views::apply_async", || {
                let with = context.apply_async(|a: &u64, b: u64| a + b, 1);
                is_none(chunked.apply_async(nap, (1,)).get().unwrap_err())
                    && is_none(with.get().unwrap_err())
            });
            told.check("pool/views::try_apply_async", || {
                let task = chunked
                    .try_apply_async(nap, (1,))
                    .map_err(|full| full.limit);
                is_none(task.unwrap().get().unwrap_err())
            });
            told.check("pool/views::try_map_async", || {
                let task = chunked.try_map_async(nap, 0..9).map_err(|full| full.limit);
                is_none(task.unwrap().get().unwrap_err())
            });
            told.check("pool/views::try_map", || {
                is_none(chunked.try_map(fine, 0..9).unwrap_err())
            });
            told.check("pool/views::with", || {
                let with = chunked.with(1_u64);
                is_none(with.map(|a: &u64, b: u64| a + b, 0..9).unwrap_err())
            });
            told.check("pool/views::with_timeout", || {
                let with = context.clone().with_timeout(Duration::from_secs(300));
                is_none(with.map(|a: &u64, b: u64| a + b, 0..9).unwrap_err())
            });
            told.check("pool/views::map", || {
                is_none(chunked.map(nap, 0..9).unwrap_err())
                    && is_none(context.map(|a: &u64, b: u64| a + b, 0..9).unwrap_err())
            });
            told.check("pool/views::map_async", || {
                is_none(chunked.map_async(nap, 0..9).get().unwrap_err())
            });
            told.check("pool/views::starmap", || {
                is_none(chunked.starmap(add, pairs()).unwrap_err())
            });
            told.check("pool/views::starmap_async", || {
                is_none(chunked.starmap_async(add, pairs()).get().unwrap_err())
            });
            told.check("pool/views::imap", || {
                let mut with = context.imap(|a: &u64, b: u64| a + b, 0..9);
                ends(&mut chunked.imap(nap, 0..9)) && ends(&mut with)
            });
            told.check("pool/views::imap_unordered", || {
                ends(&mut chunked.imap_unordered(nap, 0..9))
            });
            told.check("pool/views::chunk_size", || {
                let context = context.clone().chunk_size(3);
                is_none(context.map(|a: &u64, b: u64| a + b, 0..9).unwrap_err())
            });
            // Results that had arrived are the parent's as well.
            told.check("pool/task::get", || is_none(done.get().unwrap_err()));
            let mut tasks = tasks.into_iter();
            let mut next = || tasks.next().unwrap();
            told.check("pool/task::get", || is_none(next().get().unwrap_err()));
            told.check("pool/task::get_timeout", || {
                is_none(next().get_timeout(Duration::from_secs(300)).unwrap_err())
            });
            told.check("pool/task::wait", || {
                next().wait(Duration::from_secs(300));
                true
            });
            told.check("pool/task::is_ready", || {
                next().is_ready();
                true
            });
            told.check("pool/task::cancel", || !next().cancel());
            told.check("pool/task::kill", || {
                next().kill();
                true
            });
            told.check("pool/task::worker", || next().worker().is_none());
            told.check("pool/task::cancel_on_drop", || {
                drop(next().cancel_on_drop());
                true
            });
            told.check("pool/task::on_done", || {
                let said = Arc::new(AtomicBool::new(false));
                let says = Arc::clone(&said);
                next().on_done(move |value| {
                    says.store(matches!(value, Err(TaskError::Forked)), Ordering::Relaxed);
                });
                said.load(Ordering::Relaxed)
            });
            told.check("pool/task::poll", || {
                let polled = pin!(next()).poll(&mut Context::from_waker(Waker::noop()));
                matches!(polled, Poll::Ready(Err(TaskError::Forked)))
            });
            told.check("pool/task::drop", || {
                drop(tasks);
                true
            });
            told.check("pool/imap::next", || ends(&mut ordered));
            told.check("pool/imap::drop", || {
                drop((ordered, unordered, chunked, context));
                true
            });
            told.check("pool/mod::into_imap", || {
                Arc::clone(&kept)
                    .into_imap(nap, 0..1_u64)
                    .next()
                    .is_some_and(|first| is_none(first.unwrap_err()))
            });
            told.check("pool/mod::into_imap_unordered", || {
                let mut results = Arc::clone(&kept).into_imap_unordered(nap, 0..1_u64);
                results
                    .next()
                    .is_some_and(|first| is_none(first.unwrap_err()))
            });
            told.check("pool/mod::close", || {
                pool.close();
                true
            });
            told.check("pool/mod::terminate", || {
                pool.terminate();
                true
            });
            let other = format!("{pool:?}");
            c("pool/mod::fmt", !other.is_empty());
            told.check("pool/mod::join", || of_pool(pool.join().unwrap_err()));
            told.end();
        }
    };
    let names = copied.names();

    // All of it is the parent's, as it was.
    assert_eq!(*frozen, [5, 6]);
    assert_eq!(segment.words()[0].load(Ordering::Relaxed), 0);
    assert_eq!(*lock.lock().unwrap(), 1);
    assert_eq!(*named_lock.lock().unwrap(), 4);
    assert_eq!(*guard, 3);
    let taken = std::thread::scope(|threads| threads.spawn(|| entered.try_lock().is_ok()).join());
    assert!(!taken.unwrap(), "the guard's lock was left");
    drop(guard);
    assert_eq!(*entered.lock().unwrap(), 3);
    assert!(is_abandoned(left.lock().unwrap_err()));
    assert_eq!(*left.recover().unwrap(), 3);

    tx.send(4).unwrap();
    assert_eq!(rx.recv_many(9), Ok(vec![1, 2, 3, 4]));
    drop(tx);
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    loan.commit().unwrap();
    assert_eq!(lrx.lease().unwrap().get(), [9]);
    assert_eq!(lease.get(), [1]);
    assert_eq!(brx.stats().redelivered, 0);
    lease.ack();
    held_again.ack();
    btx.send(vec![3]).unwrap();
    assert_eq!(brx.recv(), Ok(vec![3]));
    assert_eq!(brx.stats().redelivered, 0);
    assert_eq!(otx.send(1), Err(SendError::Closed(1)));

    assert_eq!(b.recv(), Ok(7));
    b.send(8).unwrap();
    assert_eq!(a.recv(), Ok(8));
    std::thread::scope(|threads| {
        let caller = threads.spawn(|| {
            let builder = Pipe::<u64, u64>::builder();
            let mut end = builder.connect_timeout(&name("pipe"), LIMIT).unwrap();
            end.send(1).unwrap();
        });
        let mut end = listener.accept_timeout(LIMIT).unwrap();
        assert_eq!(end.recv(), Ok(1));
        caller.join().unwrap();
    });

    assert!(child.is_alive() && detached.is_alive());
    assert!(child.take_stdin().is_some() && child.take_stdout().is_some());
    for child in [child, detached, printing] {
        child.kill().unwrap();
        assert!(matches!(child.join(), Err(JoinError::Signalled(9))));
    }

    let mut rest: Vec<u64> = ordered.map(Result::unwrap).collect();
    assert_eq!(rest, (1..40).collect::<Vec<u64>>());
    rest = unordered.map(Result::unwrap).chain([first]).collect();
    rest.sort_unstable();
    assert_eq!(rest, (0..40).collect::<Vec<u64>>());
    assert_eq!(done.get().unwrap(), 3);
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.get().unwrap(), n as u64);
    }
    assert_eq!(chunked.map(nap, 0..4_u64).unwrap(), [0, 1, 2, 3]);
    assert_eq!(
        context.map(|a: &u64, b: u64| a + b, 0..2_u64).unwrap(),
        [10, 11]
    );
    assert_eq!(kept.into_imap(nap, 0..1_u64).next().unwrap().unwrap(), 0);
    pool.join().unwrap();
    names
}

/// Every public function of the sources that users have, by file.
fn public_functions() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let stem = path.strip_prefix(&root).unwrap().with_extension("");
            // Not part of what users have: it is there for the fuzzers.
            if stem == Path::new("door") || stem == Path::new("fuzzing") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for line in text.lines() {
                let line = line.trim_start();
                let line = line
                    .strip_prefix("pub fn ")
                    .or(line.strip_prefix("pub unsafe fn "));
                let name = line.and_then(|line| line.split(['(', '<']).next());
                found.extend(name.map(|name| format!("{}::{name}", stem.display())));
            }
        }
    }
    assert!(found.len() > 100, "{found:?}");
    found
}

fn an_imap_dropped_in_a_copy() {
    isolated(|| imap_in_copy(false));
}

fn an_imap_used_on_in_a_copy() {
    isolated(|| imap_in_copy(true));
}

/// A copy drops an iterator in the middle, or goes on with it; the parent has all of its results.
fn imap_in_copy(use_on: bool) {
    if !fork_advice::is_followed() {
        return;
    }
    let pool = Pool::new(2).unwrap();
    for _ in 0..20 {
        let mut results = pool.imap(nap, 0..30_u64);
        for n in 0..3 {
            assert_eq!(results.next().unwrap().unwrap(), n);
        }
        // SAFETY: as above.
        let copied = match unsafe { divide() } {
            Side::Parent(copied) => copied,
            Side::Copy(told) => {
                if use_on {
                    told.check("next", || {
                        matches!(results.next(), Some(Err(TaskError::Forked)))
                            && results.next().is_none()
                    });
                }
                told.check("drop", || {
                    drop(results);
                    true
                });
                told.end();
            }
        };
        copied.names();
        let rest: Vec<u64> = results.map(Result::unwrap).collect();
        assert_eq!(rest, (3..30).collect::<Vec<u64>>());
    }
}
