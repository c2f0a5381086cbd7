//! Arbitrary bytes as values of many types: an error or a value, never more; and what is a value goes round.
//!
//! Handles too: bytes that came without any descriptor, and with some that are of the wrong kind or say that they are
//! large. (Segments whose bytes are chosen are the matter of `segment_bytes`.)

#![no_main]

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use bytemuck::{CheckedBitPattern, NoUninit};
use libfuzzer_sys::fuzz_target;
use multiproc::{Frozen, Lock, Message, PipeEnd, Plain, Receiver, Segment, Sender, door};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
#[repr(C)]
struct Point {
    x: f64,
    y: f32,
    colour: Colour,
}

#[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
#[repr(u32)]
#[allow(dead_code, reason = "the bytes choose")]
enum Colour {
    Red = 1,
    Green = 2,
}

#[derive(Serialize, Deserialize)]
enum Command {
    Quit,
    Rename(String),
    Resize { width: u32, height: Option<i16> },
    Mix(u8, char, Box<Command>),
    Paint(Plain<[f32; 4]>),
    All(Everything),
}

#[derive(Serialize, Deserialize)]
struct Everything {
    small: (i8, u8, bool, char),
    signed: (i16, i32, i64, i128),
    unsigned: (u16, u32, u64, u128),
    real: (f32, f64),
    text: String,
    bytes: Vec<u8>,
    option: Option<Option<u32>>,
    result: Vec<Result<u8, String>>,
    map: BTreeMap<String, Vec<i64>>,
    unit: (),
    array: [u16; 3],
    time: Duration,
}

#[derive(Serialize, Deserialize)]
struct Chain(u8, Option<Box<Chain>>);

#[derive(Serialize, Deserialize)]
struct Tree(Vec<Tree>);

/// Reads a value; if there is one, what is written of it is read as the same.
fn try_as<T: Message>(bytes: &[u8]) {
    let Ok(value) = door::decode::<T>(bytes) else {
        return;
    };
    let written = door::encode(&value).unwrap_or_else(|error| panic!("was a value: {error}"));
    let again = door::decode::<T>(&written).unwrap_or_else(|error| panic!("was written: {error}"));
    assert_eq!(door::encode(&again).ok(), Some(written));
}

/// No message may take longer, whatever its handles name.
const BOUND: Duration = Duration::from_secs(1);

/// Descriptors that may come beside a message.
fn files(kind: u8, bytes: &[u8]) -> Vec<OwnedFd> {
    let mut files = Vec::new();
    if kind & 1 != 0 {
        files.push(door::sealed(bytes).unwrap());
    }
    if kind & 2 != 0 {
        files.push(door::hole(1 << (bytes.len() % 47)).unwrap());
    }
    if kind & 4 != 0 {
        files.push(File::open("/dev/null").unwrap().into());
    }
    files
}

/// Reads a message with handles in it; whether it gives any is not the question.
fn try_handles<T: Message>(kind: u8, bytes: &[u8]) {
    let start = Instant::now();
    let value = match kind & 8 {
        0 => door::decode::<T>(bytes).ok(),
        _ => door::unpack::<T>(bytes, files(kind, bytes)).ok(),
    };
    assert!(start.elapsed() < BOUND, "took {:?}", start.elapsed());
    drop(value);
}

macro_rules! handles {
    ($kind:expr, $bytes:expr, $($ty:ty),* $(,)?) => {{
        let all = [$(try_handles::<$ty>),*];
        all[usize::from($kind >> 4) % all.len()]($kind, $bytes);
    }};
}

macro_rules! types {
    ($kind:expr, $bytes:expr, $($ty:ty),* $(,)?) => {{
        let all = [$(try_as::<$ty>),*];
        all[usize::from($kind) % all.len()]($bytes);
    }};
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, bytes)) = input.split_first() else {
        return;
    };
    if kind >= 0xc0
        && let Some((&kind, bytes)) = bytes.split_first()
    {
        return handles!(
            kind,
            bytes,
            Segment,
            Frozen<u8>,
            Frozen<u64>,
            Lock<u64>,
            Lock<bool>,
            Sender<u8>,
            Receiver<String>,
            PipeEnd<u8, String>,
            Vec<Segment>,
            (String, Option<Segment>, Vec<u64>),
        );
    }
    types!(
        kind,
        bytes,
        Command,
        Everything,
        Chain,
        Tree,
        String,
        Vec<u8>,
        Vec<u64>,
        Vec<f32>,
        Vec<String>,
        Vec<Vec<u16>>,
        Vec<()>,
        [u64; 4],
        u8,
        u64,
        i128,
        f32,
        bool,
        char,
        (),
        Option<char>,
        Result<bool, String>,
        (u8, u64, String),
        BTreeMap<u8, Vec<u8>>,
        Plain<Point>,
        Plain<[u8; 3]>,
        Vec<Plain<Point>>,
        Vec<Plain<[u8; 3]>>,
        Box<str>,
    );
    // A map has no order, so only its number of entries can be compared.
    if let Ok(map) = door::decode::<HashMap<String, u32>>(bytes) {
        let again = door::decode::<HashMap<String, u32>>(&door::encode(&map).unwrap());
        assert_eq!(again, Ok(map));
    }
});
