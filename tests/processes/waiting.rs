//! How waits go where the machine or a sandbox gives less than usual: system calls refused, one
//! processor for all.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use multiproc::{Message, Pipe, PipeEnd, Pool, Process, Queue, Receiver, RecvError, Sender};
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::help::{isolated, pipe, tests};
use crate::strangers::{Stranger, fresh, pause, say, strangers};

tests![
    refused_sleeps_burn_nothing,
    a_refused_barrier_keeps_all_from_nothing,
    ends_on_one_processor_do_not_burn_it,
];

strangers![
    sleep_refused_eperm,
    sleep_refused_eacces,
    sleep_refused_enosys,
    echo_without_a_barrier,
    all_without_a_barrier,
];

/// From now on that system call is refused to this thread, and to all that it starts.
fn refuse(call: libc::c_long, error: i32) {
    // What the kernel says of the call's number stands first in what a filter sees.
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(IS, 0, 1, call as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    nix::sys::prctl::set_no_new_privs().unwrap();
    // SAFETY: the filter's steps live until the call returns, and the kernel copies them.
    let code = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    assert_eq!(code, 0, "{}", std::io::Error::last_os_error());
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let mut text = String::new();
    let mut status = std::fs::File::open("/proc/thread-self/status").unwrap();
    status.read_to_string(&mut text).unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.unwrap().trim().parse().unwrap()
}

/// Every wait sleeps, also when the call that it would rather use is refused, for whatever reason.
/// A wait that burns its processor does not sleep at all.
fn refused_sleeps_burn_nothing() {
    for part in [
        "sleep_refused_eperm",
        "sleep_refused_eacces",
        "sleep_refused_enosys",
    ] {
        let mut stranger = Stranger::start(part, "");
        stranger.says("it sleeps");
        stranger.finish();
    }
}

fn sleep_refused_eperm(_: &str) {
    sleep_refused(libc::EPERM);
}

fn sleep_refused_eacces(_: &str) {
    sleep_refused(libc::EACCES);
}

fn sleep_refused_enosys(_: &str) {
    sleep_refused(libc::ENOSYS);
}

fn sleep_refused(error: i32) {
    const WAIT: Duration = Duration::from_millis(500);
    /// Of some 25 there would be.
    const FEW: u64 = 3;
    refuse(libc::SYS_futex_waitv, error);
    let before = sleeps();
    let (tx, mut rx) = Queue::<u64>::new(1).unwrap();
    assert_eq!(rx.recv_timeout(WAIT), Err(RecvError::TimedOut));
    let of_a_queue = sleeps();
    let (here, mut there) = Pipe::<u64, u64>::new().unwrap();
    assert_eq!(there.recv_timeout(WAIT), Err(RecvError::TimedOut));
    let of_a_pipe = sleeps();
    assert!(of_a_queue - before >= FEW, "{before} to {of_a_queue}");
    assert!(of_a_pipe - of_a_queue >= FEW, "{of_a_queue} to {of_a_pipe}");
    drop((tx, here));
    say("it sleeps");
    pause();
}

/// Messages to and fro, so few at once that everybody waits all the time.
const ROUNDS: u64 = 2_000;

/// A process whose barrier is refused, alone or with all its kin, waits for others and is waited
/// for.
fn a_refused_barrier_keeps_all_from_nothing() {
    let (there, back) = (fresh("there"), fresh("back"));
    let queue = || Queue::<u64>::builder().capacity(1);
    let (mut tx, _) = queue().create(&there).unwrap();
    let (_, mut rx) = queue().create(&back).unwrap();
    let mut stranger = Stranger::start("echo_without_a_barrier", &format!("{there} {back}"));
    stranger.says("ready");
    for round in 0..ROUNDS {
        // Three for one: the sender waits for room as well.
        (0..3).for_each(|part| tx.send(3 * round + part).unwrap());
        assert_eq!(rx.recv(), Ok(3 * round + 2));
    }
    drop(tx);
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    stranger.finish();

    let mut family = Stranger::start("all_without_a_barrier", "");
    family.says("all done");
    family.finish();
}

fn echo_without_a_barrier(names: &str) {
    refuse(libc::SYS_membarrier, libc::EPERM);
    let (there, back) = names.split_once(' ').unwrap();
    let (_, mut rx) = Queue::<u64>::builder().open(there).unwrap();
    let (mut tx, _) = Queue::<u64>::builder().open(back).unwrap();
    say("ready");
    while let Ok(number) = rx.recv() {
        if number % 3 == 2 {
            tx.send(number).unwrap();
        }
    }
}

fn all_without_a_barrier(_: &str) {
    refuse(libc::SYS_membarrier, libc::EPERM);
    round_trips();
    let pool = Pool::new(2).unwrap();
    for first in 0..50 {
        let squares: Vec<u64> = pool.map(|n: u64| n * n, first..first + 100).unwrap();
        assert!(
            squares
                .iter()
                .copied()
                .eq((first..first + 100).map(|n| n * n))
        );
    }
    pool.join().unwrap();
    say("all done");
    pause();
}

/// Both directions between two processes.
trait Talk: Message {
    fn say(&mut self, number: u64);
    fn hear(&mut self) -> Option<u64>;
}

impl Talk for (Sender<u64>, Receiver<u64>) {
    fn say(&mut self, number: u64) {
        self.0.send(number).unwrap();
    }

    fn hear(&mut self) -> Option<u64> {
        self.1.recv().ok()
    }
}

impl Talk for PipeEnd<u64, u64> {
    fn say(&mut self, number: u64) {
        self.send(number).unwrap();
    }

    fn hear(&mut self) -> Option<u64> {
        self.recv().ok()
    }
}

fn echo<T: Talk>(mut end: T) -> Duration {
    let before = burned();
    while let Some(number) = end.hear() {
        end.say(number);
    }
    burned() - before
}

/// So many round trips; the time that both sides spent on processors for them.
fn talk<T: Talk>(mut here: T, there: T) -> Duration {
    let child = Process::spawn(echo::<T>, (there,)).unwrap();
    here.say(0);
    assert_eq!(here.hear(), Some(0));
    let before = burned();
    for number in 0..ROUNDS {
        here.say(number);
        assert_eq!(here.hear(), Some(number));
    }
    let mine = burned() - before;
    drop(here);
    mine + child.join().unwrap()
}

/// By queues, and by a pipe.
fn round_trips() -> [Duration; 2] {
    let (tx, their_rx) = Queue::new(1).unwrap();
    let (their_tx, rx) = Queue::new(1).unwrap();
    let (here, there) = Pipe::new().unwrap();
    [talk((tx, rx), (their_tx, their_rx)), talk(here, there)]
}

/// The time that this thread has spent on a processor.
fn burned() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
    let time = |time: nix::sys::time::TimeVal| {
        Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000)
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// The same by two pipes of the system.
fn round_trips_of_the_system() -> Duration {
    let ((mut their_reader, mut writer), (mut reader, mut their_writer)) = (pipe(), pipe());
    let other = thread::spawn(move || {
        let before = burned();
        let mut message = [0; 8];
        while their_reader.read_exact(&mut message).is_ok() {
            their_writer.write_all(&message).unwrap();
        }
        burned() - before
    });
    let before = burned();
    let mut message = [0; 8];
    for _ in 0..ROUNDS {
        writer.write_all(&message).unwrap();
        reader.read_exact(&mut message).unwrap();
    }
    let mine = burned() - before;
    drop(writer);
    mine + other.join().unwrap()
}

/// Two ends that have one processor between them, beside others that are free: a spin keeps the
/// other from running, so there must be next to none. A wait that began with its usual spin would
/// burn 20 times what the system's own pipes do.
fn ends_on_one_processor_do_not_burn_it() {
    fn on_one_processor() {
        let allowed = sched_getaffinity(None).unwrap();
        let first = (0..CpuSet::MAX_CPU).find(|&cpu| allowed.is_set(cpu));
        let mut one = CpuSet::new();
        one.set(first.unwrap());
        sched_setaffinity(None, &one).unwrap();
        let theirs = round_trips_of_the_system();
        for (by, ours) in ["queues", "a pipe"].into_iter().zip(round_trips()) {
            println!("on one processor: {ours:?} of it by {by}, {theirs:?} by the system's");
            assert!(ours < TIMES * theirs, "by {by}: {ours:?}, {theirs:?}");
        }
    }
    // Without optimisation what is not waiting takes longer as well.
    const TIMES: u32 = if cfg!(debug_assertions) { 7 } else { 5 };
    isolated(on_one_processor);
}
