//! 1 MiB alone, in a tuple and in a struct, through queues, a pipe and a pool. Whoever gets a value
//! sends it back as it is.

use super::Ours;
use crate::group::bytes::*;
use crate::rig::cpu;
use crate::rig::row::{Ask, Group};
use crate::rig::{Pace, Sample};
use anyhow::{Context, Result, ensure};
use multiproc::{Message, Pipe, PipeEnd, Pool, Process, Queue, Receiver, Sender};
use serde::{Deserialize, Serialize};
use std::cell::Cell;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Named {
    id: u64,
    data: Vec<u8>,
    name: String,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct Reals {
    id: u8,
    data: Vec<f32>,
}

fn bytes() -> Vec<u8> {
    (0..SIZE).map(|n| (n % 251) as u8).collect()
}

fn named() -> Named {
    Named {
        id: 7,
        data: bytes(),
        name: "name".to_owned(),
    }
}

fn reals() -> Reals {
    Reals {
        id: 7,
        data: (0..SIZE / size_of::<f32>()).map(|n| n as f32).collect(),
    }
}

pub fn add(ours: &mut Ours) {
    add_of(ours, "struct with Vec<f32>", Some(1.0 / 3.0), reals);
    add_of(ours, "struct with Vec<u8>, String", Some(1.0 / 3.0), named);
    add_of(ours, "(u64, Vec<u8>)", Some(1.0 / 3.0), || (7_u64, bytes()));
    add_of(ours, ALONE, None, bytes);
}

fn add_of<T: Message + Clone + PartialEq>(
    ours: &mut Ours,
    name: &str,
    ask: Option<f64>,
    value: fn() -> T,
) {
    let ask = ask.map(Ask::Times);
    ours.cell(Group::Bytes, QUEUE, name, ask, move |pace| {
        queues(value(), pace)
    });
    ours.cell(Group::Bytes, PIPE, name, ask, move |pace| {
        pipe(value(), pace)
    });
    ours.cell(Group::Bytes, POOL, name, ask, move |pace| {
        pool(value(), pace)
    });
}

/// Times one way there and back; the value that comes back is the next to go.
fn each<T: Clone + PartialEq>(
    value: T,
    pace: &Pace,
    mut there_and_back: impl FnMut(T) -> Result<T>,
) -> Result<Sample> {
    let next = Cell::new(Some(value.clone()));
    let once = || there_and_back(next.take().context("it did not come back")?);
    let nanos = pace.each_checked(3, once, |back| {
        ensure!(back == value, "it came back as another");
        next.set(Some(back));
        Ok(())
    })?;
    Ok(Sample::of_nanos(&nanos))
}

fn returns<T: Message>(cpu: usize, mut rx: Receiver<T>, mut tx: Sender<T>) {
    cpu::pin(cpu).expect("pinning");
    while let Ok(value) = rx.recv() {
        if tx.send(value).is_err() {
            return;
        }
    }
}

fn queues<T: Message + Clone + PartialEq>(value: T, pace: &Pace) -> Result<Sample> {
    let seats = cpu::seats(2)?;
    let queue = || {
        Queue::<T>::builder()
            .capacity(2)
            .message_size(SIZE + 1024)
            .build()
    };
    let (mut tx, there) = queue()?;
    let (back, mut rx) = queue()?;
    let other = Process::spawn(returns::<T>, (seats[1], there, back))?;
    cpu::pin(seats[0])?;
    let sample = each(value, pace, |value| {
        tx.send(value).ok().context("a receiver")?;
        Ok(rx.recv()?)
    })?;
    drop(tx);
    other.join()?;
    Ok(sample)
}

fn answers<T: Message>(cpu: usize, mut end: PipeEnd<T, T>) {
    cpu::pin(cpu).expect("pinning");
    while let Ok(value) = end.recv() {
        if end.send(value).is_err() {
            return;
        }
    }
}

fn pipe<T: Message + Clone + PartialEq>(value: T, pace: &Pace) -> Result<Sample> {
    let seats = cpu::seats(2)?;
    let (mut end, other) = Pipe::<T, T>::new()?;
    let other = Process::spawn(answers::<T>, (seats[1], other))?;
    cpu::pin(seats[0])?;
    let sample = each(value, pace, |value| {
        end.send(value).ok().context("the other side")?;
        Ok(end.recv()?)
    })?;
    drop(end);
    other.join()?;
    Ok(sample)
}

fn same<T>(value: T) -> T {
    value
}

fn pool<T: Message + Clone + PartialEq>(value: T, pace: &Pace) -> Result<Sample> {
    let pool = Pool::new(1)?;
    each(value, pace, |value| Ok(pool.apply(same::<T>, (value,))?))
}
