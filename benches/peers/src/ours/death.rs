//! A sender, one end of a pipe, or the holder of a lock is killed, and whoever waits for it is told; or a pool's task
//! fails, in every way there is but for want of memory.
//!
//! Why this file may use unsafe: a task of a pool makes its worker break the rules of memory.

use super::Ours;
use crate::group::death::{BETWEEN, IN_A_TREE, OF_A_TASK, told};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, bail, ensure};
use multiproc::{
    Lock, LockError, Message, Pipe, PipeEnd, Pool, Process, Queue, Receiver, RecvError, Sender,
    TaskError,
};
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Deserializer, Serialize};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// What is allowed: a millisecond in a tree, a hundred between programs.
const NEAR: Option<Ask> = Some(Ask::Figure(1e6));
const FAR: Option<Ask> = Some(Ask::Figure(1e8));

pub fn add(ours: &mut Ours) {
    ours.cell(Group::Death, IN_A_TREE, "Lock", NEAR, holder);
    ours.cell(Group::Death, IN_A_TREE, "Pipe", NEAR, end);
    ours.cell(Group::Death, IN_A_TREE, "Queue", NEAR, sender);
    ours.cell(Group::Death, BETWEEN, "Lock", FAR, foreign_holder);
    ours.cell(Group::Death, BETWEEN, "Pipe", FAR, foreign_end);
    ours.cell(Group::Death, BETWEEN, "Queue", FAR, foreign_sender);
    let mut task = |peer, run: fn(&Pace) -> Result<Sample>| {
        ours.cell(Group::Death, OF_A_TASK, peer, FAR, run);
    };
    task("initializer that panics", initializer);
    task("undecodable result", |pace| failing(pace, undecodable));
    task("stack overflow", |pace| failing(pace, |()| deep(0)));
    task("panic, payload not text", |pace| {
        failing::<()>(pace, |()| std::panic::panic_any(7))
    });
    task("panic", |pace| {
        failing::<()>(pace, |()| panic!("on purpose"))
    });
    task("exit(3)", |pace| {
        failing::<()>(pace, |()| std::process::exit(3))
    });
    task("abort", |pace| {
        failing::<()>(pace, |()| std::process::abort())
    });
    task("SIGSEGV", |pace| failing(pace, segfault));
    task("SIGKILL", |pace| failing(pace, kill));
}

#[derive(Serialize)]
struct Undecodable;

impl<'de> Deserialize<'de> for Undecodable {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("never"))
    }
}

fn undecodable((): ()) -> Undecodable {
    Undecodable
}

/// Takes more stack than there is.
#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deep(level: u64) -> u64 {
    let mut page = [level; 512];
    std::hint::black_box(&mut page);
    deep(level + 1) + page[0]
}

fn kill((): ()) {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

fn segfault((): ()) {
    // SAFETY: there is none: the process ends here.
    unsafe { std::hint::black_box(std::ptr::null_mut::<u8>().wrapping_add(64)).write_volatile(1) }
}

/// How long after its call a failing task's error is there. Then the pool works on.
fn failing<R: Message>(
    pace: &Pace,
    task: impl Fn(()) -> R + Copy + Send + Sync + 'static,
) -> Result<Sample> {
    quietly()?;
    let pool = Pool::new(2)?;
    let nanos = after(pace, || {
        let at = Instant::now();
        let end = pool.apply(task, ((),));
        let took = at.elapsed();
        ensure!(end.is_err(), "it did not fail");
        for n in 0..100 {
            ensure!(
                pool.apply(|n: u64| n + 1, (n,))? == n + 1,
                "the wrong value"
            );
        }
        Ok(took)
    })?;
    Ok(Sample::of_nanos(&nanos))
}

fn initializer(pace: &Pace) -> Result<Sample> {
    quietly()?;
    let nanos = after(pace, || {
        let at = Instant::now();
        let panics = || panic!("on purpose");
        let pool = Pool::builder().workers(1).initializer(panics, ()).build()?;
        let end = pool.apply(|n: u64| n + 1, (1,));
        let took = at.elapsed();
        ensure!(
            matches!(end, Err(TaskError::PoolBroken { .. })),
            "ended with {end:?}"
        );
        Ok(took)
    })?;
    Ok(Sample::of_nanos(&nanos))
}

/// The nanoseconds that each call of `once` gives, as long as the pace says and 20 at least.
fn after(pace: &Pace, mut once: impl FnMut() -> Result<Duration>) -> Result<Vec<u64>> {
    let mut nanos = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < pace.warm + pace.window || nanos.len() < 20 {
        nanos.push(once()?.as_nanos() as u64);
    }
    Ok(nanos)
}

/// No core is dumped.
fn quietly() -> Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}

fn stay() {
    sleep(Duration::from_secs(60));
}

fn closed(rx: &mut Receiver<u8>) -> Result<()> {
    let end = rx.recv();
    ensure!(end == Err(RecvError::Closed), "received {end:?}");
    Ok(())
}

fn abandoned(lock: &Lock<u64>) -> Result<()> {
    match lock.lock() {
        Err(LockError::Abandoned(_)) => {
            lock.recover()?;
            Ok(())
        }
        other => bail!("entered with {other:?}"),
    }
}

fn sends(mut tx: Sender<u8>) {
    tx.send(1).expect("somebody receives");
    stay();
}

fn sender(pace: &Pace) -> Result<Sample> {
    let queue = RefCell::new(None);
    let start = || {
        let (tx, mut rx) = Queue::new(4)?;
        let child = Process::spawn(sends, (tx,))?;
        rx.recv()?;
        *queue.borrow_mut() = Some(rx);
        Ok(child)
    };
    let wait = || closed(queue.borrow_mut().as_mut().expect("it was started"));
    told(pace, start, wait)
}

fn hung_up(end: &mut PipeEnd<u8, u8>) -> Result<()> {
    let end = end.recv();
    ensure!(end == Err(RecvError::Closed), "received {end:?}");
    Ok(())
}

fn talks(mut end: PipeEnd<u8, u8>) {
    end.send(1).expect("somebody receives");
    stay();
}

fn end(pace: &Pace) -> Result<Sample> {
    let end = RefCell::new(None);
    let start = || {
        let (mut here, there) = Pipe::new()?;
        let child = Process::spawn(talks, (there,))?;
        here.recv()?;
        *end.borrow_mut() = Some(here);
        Ok(child)
    };
    let wait = || hung_up(end.borrow_mut().as_mut().expect("it was started"));
    told(pace, start, wait)
}

fn holds(lock: Lock<u64>, mut tx: Sender<u8>) {
    let _guard = lock.lock().expect("nobody is inside");
    tx.send(1).expect("somebody receives");
    stay();
}

fn holder(pace: &Pace) -> Result<Sample> {
    let lock = Lock::new(0)?;
    let start = || {
        let (tx, mut rx) = Queue::new(4)?;
        let child = Process::spawn(holds, (lock.clone(), tx))?;
        rx.recv()?;
        Ok(child)
    };
    told(pace, start, || abandoned(&lock))
}

/// A program of its own, killed when this is dropped.
struct Foreign(Child);

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This program once more, as the one that will be killed.
fn foreign(part: &str, name: &str) -> Result<Foreign> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--victim", part, "--victim", name])
        .stdout(Stdio::piped())
        .spawn()?;
    let out = child.stdout.take();
    let child = Foreign(child);
    let mut line = String::new();
    out.map(|out| BufReader::new(out).read_line(&mut line))
        .transpose()?;
    ensure!(line == "ready\n", "the other program said {line:?}");
    Ok(child)
}

/// What the one that will be killed does.
pub fn victim(part: &str, name: &str) -> Result<()> {
    let ready = || {
        let mut out = std::io::stdout();
        writeln!(out, "ready").and_then(|()| out.flush())
    };
    match part {
        "sender" => {
            let (mut tx, _) = Queue::<u8>::builder().open(name)?;
            tx.send(1)?;
            ready()?;
            stay();
        }
        "end" => {
            ready()?;
            let mut end = Pipe::<u8, u8>::connect(name)?;
            end.send(1)?;
            stay();
        }
        "holder" => {
            let lock = Lock::<u64>::open(name)?;
            let _guard = lock.lock().expect("nobody is inside");
            ready()?;
            stay();
        }
        other => bail!("nobody is called {other}"),
    }
    Ok(())
}

fn foreign_sender(pace: &Pace) -> Result<Sample> {
    let name = format!("peers-sender-{}", std::process::id());
    let (_, rx) = Queue::<u8>::builder().capacity(4).create(&name)?;
    let rx = RefCell::new(rx);
    let start = || {
        let child = foreign("sender", &name)?;
        rx.borrow_mut().recv()?;
        Ok(child)
    };
    told(pace, start, || closed(&mut rx.borrow_mut()))
}

fn foreign_holder(pace: &Pace) -> Result<Sample> {
    let name = format!("peers-holder-{}", std::process::id());
    let lock = Lock::create(&name, 0)?;
    told(pace, || foreign("holder", &name), || abandoned(&lock))
}

fn foreign_end(pace: &Pace) -> Result<Sample> {
    let name = format!("peers-end-{}", std::process::id());
    let mut listener = Pipe::<u8, u8>::listen(&name)?;
    let end = RefCell::new(None);
    let start = || {
        let child = foreign("end", &name)?;
        let mut here = listener.accept()?;
        here.recv()?;
        *end.borrow_mut() = Some(here);
        Ok(child)
    };
    let wait = || hung_up(end.borrow_mut().as_mut().expect("it was started"));
    told(pace, start, wait)
}
