//! What waiting and busy ends cost: time on a processor, and system calls.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Message, Pipe, PipeEnd, Process, Queue, Receiver, RecvError, Sender};
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::help::tests;
use crate::strangers::{Stranger, strangers};

tests![
    an_idle_receiver,
    an_idle_end_of_a_pipe,
    busy_rings_make_no_system_calls,
];

strangers![count_calls];

/// Receives until the other side is gone.
trait Idle: Message {
    fn wait(self);
}

impl Idle for Receiver<u64> {
    fn wait(mut self) {
        assert_eq!(self.recv(), Err(RecvError::Closed));
    }
}

impl Idle for PipeEnd<u64, u64> {
    fn wait(mut self) {
        assert_eq!(self.recv(), Err(RecvError::Closed));
    }
}

/// Checks that a process that waits uses less than a thousandth of a processor, all its threads together.
fn costs_nothing<E: Idle, O>(idle: E, other: O) {
    fn wait<E: Idle>(end: E, mut ready: Sender<()>) {
        ready.send(()).unwrap();
        end.wait();
    }
    let (ready, mut is_ready) = Queue::<()>::new(1).unwrap();
    let child = Process::spawn(wait::<E>, (idle, ready)).unwrap();
    is_ready.recv().unwrap();
    thread::sleep(Duration::from_millis(100));
    // Time on a processor, in nanoseconds.
    let spent = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.pid())).unwrap();
        let of = |task: std::fs::DirEntry| {
            let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
            text.split(' ').next().unwrap().parse::<u64>().unwrap()
        };
        tasks.flatten().map(of).sum()
    };
    let before = spent();
    let start = Instant::now();
    thread::sleep(Duration::from_secs(2));
    let share = (spent() - before) as f64 / start.elapsed().as_nanos() as f64;
    println!("idle: {:.4} % of a processor", share * 100.0);
    // Built without optimisation it may cost some more.
    let limit = if cfg!(debug_assertions) { 0.003 } else { 0.001 };
    assert!(share < limit, "{:.4} % of a processor", share * 100.0);
    drop(other);
    child.join().unwrap();
}

fn an_idle_receiver() {
    let (tx, rx) = Queue::<u64>::new(1).unwrap();
    costs_nothing(rx, tx);
}

fn an_idle_end_of_a_pipe() {
    let (here, there) = Pipe::<u64, u64>::new().unwrap();
    costs_nothing(there, here);
}

const MESSAGES: u64 = 20_000;

/// Sends and receives so much that everything wraps, nothing ever being full or empty.
fn use_rings() {
    fn laps<T: Message + Clone>(
        value: &T,
        mut send: impl FnMut(T),
        mut receive: impl FnMut() -> Option<T>,
    ) {
        for _ in 0..MESSAGES {
            (0..3).for_each(|_| send(value.clone()));
            (0..3).for_each(|_| assert!(receive().is_some()));
        }
    }
    fn all_kinds<T: Message + Clone>(value: &T) {
        let (mut tx, mut rx) = Queue::<T>::new(64).unwrap();
        let (mut here, mut there) = Pipe::<T, T>::builder().size(1 << 16).build().unwrap();
        let (tx, rx, here, there) = (&mut tx, &mut rx, &mut here, &mut there);
        // What comes first may ask for memory.
        for _ in 0..2 {
            laps(
                value,
                |value| assert!(tx.send(value).is_ok()),
                || rx.recv().ok(),
            );
            laps(
                value,
                |value| assert!(tx.try_send(value).is_ok()),
                || rx.try_recv().ok(),
            );
            laps(
                value,
                |value| assert!(here.send(value).is_ok()),
                || there.recv().ok(),
            );
            laps(
                value,
                |value| assert!(there.try_send(value).is_ok()),
                || here.try_recv().ok(),
            );
            raise(Signal::SIGSTOP).unwrap();
        }
    }
    all_kinds(&7_u64);
    all_kinds(&[7_u64; 8]);
    all_kinds(&String::from("a text of some length, in no slot"));
}

/// Counts the system calls of a process from each of its stops to the next.
fn count_calls(_: &str) {
    // SAFETY: this process has one thread, and the copy exits without returning.
    let child = match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            ptrace::traceme().unwrap();
            raise(Signal::SIGSTOP).unwrap();
            raise(Signal::SIGSTOP).unwrap();
            use_rings();
            // SAFETY: ends the copy, and nothing of the original.
            unsafe { libc::_exit(0) }
        }
    };
    let calls = calls_between_stops(child);
    let [_, stopping, kinds @ ..] = calls.as_slice() else {
        panic!("{calls:?}")
    };
    let busy: Vec<usize> = kinds.chunks(2).map(|one| one[1] - stopping).collect();
    assert_eq!(busy, [0, 0, 0], "{} messages each", MESSAGES * 3 * 4);
}

/// Each call counts twice: when it begins and when it ends.
fn calls_between_stops(child: Pid) -> Vec<usize> {
    let (mut calls, mut all) = (0, Vec::new());
    loop {
        match waitpid(child, None).unwrap() {
            WaitStatus::PtraceSyscall(_) => calls += 1,
            WaitStatus::Stopped(_, Signal::SIGSTOP) => {
                ptrace::setoptions(child, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
                all.push(std::mem::take(&mut calls));
            }
            WaitStatus::Exited(_, 0) => return all,
            other => panic!("{other:?}"),
        }
        ptrace::syscall(child, None).unwrap();
    }
}

fn busy_rings_make_no_system_calls() {
    Stranger::start("count_calls", "").finish();
}
