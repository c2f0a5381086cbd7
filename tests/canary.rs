//! No byte of a process's own memory goes along with a value: what a segment holds beside it is zero.

#![cfg(not(loom))]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;

use bytemuck::{AnyBitPattern, NoUninit};
use multiproc::{Frozen, Lock, Message, Pipe, Plain, Pool, Queue};
use rustix::fs::{SeekFrom, seek};

/// What memory is full of before anything is sent.
const CANARY: u8 = 0xC5;
/// So many of them in a row are no accident.
const ROW: usize = 4;

/// Fills the stack below, and the heap's free places, with canaries.
#[inline(never)]
fn fill() {
    let stack = black_box([CANARY; 64 << 10]);
    black_box(&stack);
    let heap: Vec<Vec<u8>> = (0..200).map(|n| vec![CANARY; 8 << (n % 12)]).collect();
    black_box(&heap);
}

/// The bytes of a file that have memory: it may be as long as the machine's.
fn memory(file: &File) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut at = 0;
    // Behind the last of them there is nothing to seek.
    while let Ok(from) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(from)).unwrap();
        let before = bytes.len();
        bytes.resize(before + (at - from) as usize, 0);
        file.read_exact_at(&mut bytes[before..], from).unwrap();
    }
    bytes
}

/// Looks for canaries in every segment that this process has.
fn search(what: &str) {
    let mut searched = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.display().to_string();
        // Never the roster: closing it again would drop this process's proof of life.
        if !target.contains("memfd:multiproc:") || target.contains("roster") {
            continue;
        }
        let bytes = memory(&File::open(entry.path()).unwrap());
        let found = bytes.windows(ROW).position(|row| row == [CANARY; ROW]);
        assert_eq!(found, None, "{what}: this process's bytes in {target}");
        searched += 1;
    }
    assert!(searched >= 2, "the segments were not found");
}

/// Sends values each of which is short for its place.
fn through_all<T: Message + Clone>(what: &str, values: &[T]) {
    let (mut tx, mut rx) = Queue::<T>::builder()
        .capacity(8)
        .message_size(120)
        .build()
        .unwrap();
    let in_place = Queue::<T>::builder()
        .capacity(8)
        .message_size(500)
        .in_place(4);
    let (mut tx_block, mut rx_block) = in_place.build().unwrap();
    let (mut here, mut there) = Pipe::<T, T>::builder().size(4096).build().unwrap();
    for _ in 0..3 {
        for value in values {
            fill();
            tx.send(value.clone()).unwrap();
            fill();
            tx_block.send(value.clone()).unwrap();
            fill();
            here.send(value.clone()).unwrap();
            search(what);
            rx.recv().unwrap();
            rx_block.recv().unwrap();
            there.recv().unwrap();
        }
        fill();
        tx.send_many(values.iter().take(3).cloned()).unwrap();
        search(what);
        while rx.try_recv().is_ok() {}
    }
}

#[derive(Clone, Copy, NoUninit, AnyBitPattern)]
#[repr(C)]
struct Odd([u8; 7]);

/// One after the other, since each looks at all that this process has.
#[test]
fn nothing_but_values_is_shared() {
    values_alone();
    locked_values_alone();
    frozen_values_alone();
    arguments_and_results_alone();
    a_canary_would_be_found();
}

fn values_alone() {
    through_all("u8", &[1_u8, 2, 3]);
    through_all("u16", &[1_u16]);
    through_all("an odd number of bytes", &[Plain(Odd([1; 7]))]);
    through_all(
        "text",
        &["".to_owned(), "a".to_owned(), "abcdefghi".to_owned()],
    );
    through_all("bytes", &[vec![], vec![1_u8], vec![2; 13]]);
    through_all("options", &[None, Some((1_u8, 2_u64)), Some((3, 4))]);
    through_all("results", &[Ok(1_u8), Err("no".to_owned())]);
    through_all("lists", &[vec![Some(1_u8), None], vec![]]);
}

fn locked_values_alone() {
    fill();
    let lock = Lock::new(Odd([1; 7])).unwrap();
    search("lock");
    fill();
    lock.lock().unwrap().0[3] = 2;
    search("lock");
}

fn frozen_values_alone() {
    fill();
    let few = Frozen::from_slice(&[1_u8, 2, 3]).unwrap();
    fill();
    let odd = Frozen::from_slice(&[Odd([1; 7]); 700]).unwrap();
    fill();
    let made = Frozen::build(5, |slice: &mut [u32]| slice.fill(7)).unwrap();
    search("frozen");
    drop((few, odd, made));
}

/// What the pool sends, and what its worker does, whose memory is full of canaries too.
fn arguments_and_results_alone() {
    let pool = Pool::new(1).unwrap();
    fill();
    pool.map(
        |number: u8| {
            fill();
            number + 1
        },
        1..=100,
    )
    .unwrap();
    search("a pool's numbers");
    fill();
    pool.map(
        |Plain(Odd(bytes))| {
            fill();
            Plain(Odd(bytes.map(|byte| byte + 1)))
        },
        vec![Plain(Odd([1; 7])); 100],
    )
    .unwrap();
    search("a pool's odd numbers of bytes");
    fill();
    let texts = ["".to_owned(), "a".to_owned(), "b".repeat(1000)];
    pool.map(
        |text: String| {
            fill();
            text + "!"
        },
        texts,
    )
    .unwrap();
    search("a pool's texts");
    fill();
    pool.apply(
        |text: String| {
            fill();
            assert!(text.is_empty(), "{text}");
        },
        ("a reason".to_owned(),),
    )
    .unwrap_err();
    search("a pool's errors");
}

fn a_canary_would_be_found() {
    let (mut tx, _rx) = Queue::<Vec<u8>>::new(4).unwrap();
    tx.send(vec![CANARY; ROW]).unwrap();
    let found = std::panic::catch_unwind(|| search("planted"));
    assert!(found.is_err());
}
