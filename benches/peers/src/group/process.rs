//! Starting a function in another process and waiting for its end, from a small parent and from large ones.
//!
//! Why this file may use unsafe: it forks. The process has one thread then, and the child only ends.

use crate::peer::{procspawn, python};
use crate::rig::row::{Group, Row};
use crate::rig::units::Unit;
use crate::rig::{Pace, Sample, cpu};
use anyhow::{Result, ensure};
use memmap2::{Advice, MmapOptions};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use std::io::{Read, Write, pipe};
use std::process::Command;
use std::time::{Duration, Instant};

/// Name and memory of the parent.
pub const PARENTS: [(&str, usize); 3] = [
    ("small parent", 0),
    ("parent of 64 MiB", 64 << 20),
    ("parent of 2 GiB", 2 << 30),
];

/// Long enough to get something ready for the next one; caches and processors have gone to others meanwhile.
pub const PAUSE: Duration = Duration::from_millis(2);

/// How often a large parent is made: touching its memory takes longer than everything else.
const LARGE_ROUNDS: usize = 3;

pub fn title(parent: &str) -> String {
    format!("start and join, {parent}")
}

pub fn rows() -> Vec<Row> {
    let [small, medium, large] = PARENTS;
    let row = |(name, size): (&str, usize)| {
        Row::new(Group::Process, title(name), Unit::Time)
            .beside("p99")
            .rival("fork and waitpid")
            .cell("fork and waitpid", move |pace| {
                in_parent(size, || forked(pace, Duration::ZERO))
            })
            .cell("fork and waitpid, after a pause", move |pace| {
                in_parent(size, || forked(pace, PAUSE))
            })
            .cell("forked in advance, and waitpid", move |pace| {
                in_parent(size, || forked_in_advance(pace))
            })
            .cell("std::process::Command", move |pace| {
                in_parent(size, || command(pace))
            })
            .cell("procspawn", move |pace| {
                in_parent(size, || procspawn::start(pace))
            })
            .cell("Python multiprocessing, fork", move |_| {
                python::script(&python::start(size))
            })
    };
    vec![row(small), row(medium), row(large).rounds(LARGE_ROUNDS)]
}

/// Runs `what` while this process owns `size` bytes in pages of the usual size, all of them touched.
pub fn in_parent(size: usize, what: impl FnOnce() -> Result<Sample>) -> Result<Sample> {
    ensure!(
        cpu::memory_available() > size as u64 + (512 << 20),
        "not enough memory for a parent of {} MiB",
        size >> 20
    );
    if size == 0 {
        return what();
    }
    let memory = MmapOptions::new().len(size).map_anon()?;
    memory.advise(Advice::NoHugePage)?;
    memory.advise(Advice::PopulateWrite)?;
    let sample = what();
    drop(memory);
    sample
}

fn forked(pace: &Pace, pause: Duration) -> Result<Sample> {
    let nanos = after_pauses(pace, pause, || {
        // SAFETY: this process has one thread, and the child only ends.
        match unsafe { fork() }? {
            ForkResult::Child => {
                // SAFETY: ends the process.
                unsafe { libc::_exit(7) }
            }
            ForkResult::Parent { child } => {
                ensure!(
                    waitpid(child, None)? == WaitStatus::Exited(child, 7),
                    "the wrong status"
                );
                Ok(())
            }
        }
    })?;
    Ok(Sample::of_nanos(&nanos))
}

/// What is left of a start when the process waits already: a byte tells it to begin, another that it is done, and it ends.
fn forked_in_advance(pace: &Pace) -> Result<Sample> {
    let mut nanos = Vec::new();
    let start = Instant::now();
    while start.elapsed() < pace.warm + pace.window || nanos.len() < 20 {
        let (mut order, tell) = pipe()?;
        let (mut done, say) = pipe()?;
        // SAFETY: this process has one thread, and the child only reads, writes and ends.
        let child = match unsafe { fork() }? {
            ForkResult::Child => {
                let told = order
                    .read_exact(&mut [0])
                    .and_then(|()| (&say).write_all(&[0]));
                // SAFETY: ends the process.
                unsafe { libc::_exit(if told.is_ok() { 7 } else { 8 }) }
            }
            ForkResult::Parent { child } => child,
        };
        drop((order, say));
        std::thread::sleep(PAUSE);
        let at = Instant::now();
        (&tell).write_all(&[0])?;
        done.read_exact(&mut [0])?;
        let status = waitpid(child, None)?;
        let took = at.elapsed();
        ensure!(status == WaitStatus::Exited(child, 7), "the wrong status");
        if start.elapsed() > pace.warm {
            nanos.push(took.as_nanos() as u64);
        }
    }
    Ok(Sample::of_nanos(&nanos))
}

/// The nanoseconds of each call of `once`, before each of which this process sleeps for `pause`.
pub fn after_pauses(
    pace: &Pace,
    pause: Duration,
    mut once: impl FnMut() -> Result<()>,
) -> Result<Vec<u64>> {
    let mut nanos = Vec::new();
    let start = Instant::now();
    while start.elapsed() < pace.warm + pace.window || nanos.len() < 20 {
        std::thread::sleep(pause);
        let at = Instant::now();
        once()?;
        let took = at.elapsed();
        if start.elapsed() > pace.warm {
            nanos.push(took.as_nanos() as u64);
        }
    }
    Ok(nanos)
}

fn command(pace: &Pace) -> Result<Sample> {
    let nanos = pace.each(10, || {
        ensure!(
            Command::new("/bin/true").status()?.success(),
            "the wrong status"
        );
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}
