//! A sender, one end of a pipe, or the holder of a lock is killed, and whoever waits for it is told.

use super::Ours;
use crate::group::death::{BETWEEN, IN_A_TREE, told};
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Result, bail, ensure};
use multiproc::{Lock, LockError, Pipe, PipeEnd, Process, Queue, Receiver, RecvError, Sender};
use std::cell::RefCell;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

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
        Err(LockError::Abandoned(abandoned)) => {
            abandoned.recover();
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
