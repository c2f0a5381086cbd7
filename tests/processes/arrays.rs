//! Frozen arrays between processes.

use std::fs::{File, read_to_string};
use std::os::unix::fs::FileExt;

use bytemuck::{CheckedBitPattern, NoUninit};
use multiproc::{Frozen, Process, Queue, Receiver};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::help::{descriptors, isolated, tests};

tests![
    travels_in_arguments_and_results,
    travels_between_grandchildren,
    sender_may_let_go_at_once,
    is_mapped_once,
    lives_on_without_its_maker,
    others_cannot_write,
    another_type_is_refused,
    bits_are_checked_on_arrival,
    few_descriptors_are_enough,
    empty_travels_too,
];

fn sum(numbers: Frozen<u64>, from: usize, to: usize) -> u64 {
    numbers[from..to].iter().sum()
}

fn travels_in_arguments_and_results() {
    let numbers = Frozen::from_iter(0..100_000u64).unwrap();
    let children: Vec<_> = (0..4)
        .map(|n| n * 25_000)
        .map(|from| Process::spawn(sum, (numbers.clone(), from, from + 25_000)).unwrap())
        .collect();
    let sums = children.into_iter().map(|child| child.join().unwrap());
    assert_eq!(sums.sum::<u64>(), numbers.iter().sum());

    let made = Process::spawn(|| Frozen::from_slice(&['x'; 5]).unwrap(), ());
    assert_eq!(*made.unwrap().join().unwrap(), ['x'; 5]);
}

fn travels_between_grandchildren() {
    fn makes() -> Frozen<u64> {
        let grandchild = Process::spawn(|| Frozen::from_iter(0..10u64).unwrap(), ()).unwrap();
        grandchild.join().unwrap()
    }
    let made = Process::spawn(makes, ()).unwrap().join().unwrap();
    let took = Process::spawn(
        |made| Process::spawn(sum, (made, 0, 10)).unwrap().join().unwrap(),
        (made,),
    );
    assert_eq!(took.unwrap().join().unwrap(), 45);
}

/// An array in a queue lives until it is received, whoever still has it.
fn sender_may_let_go_at_once() {
    let (mut tx, rx) = Queue::<Frozen<u64>>::new(8).unwrap();
    let child = |mut rx: Receiver<Frozen<u64>>| {
        rx.iter()
            .map(|items| items.iter().sum::<u64>())
            .sum::<u64>()
    };
    let child = Process::spawn(child, (rx,)).unwrap();
    for n in 1..=100 {
        tx.send(Frozen::from_slice(&[n; 100]).unwrap()).unwrap();
    }
    drop(tx);
    assert_eq!(child.join().unwrap(), 505_000);
}

/// The mappings of sealed memory in this process.
fn mappings() -> usize {
    read_to_string("/proc/self/maps")
        .unwrap()
        .matches("multiproc:sealed")
        .count()
}

fn is_mapped_once() {
    fn receives(mut rx: Receiver<Frozen<u64>>, first: Frozen<u64>) -> (usize, usize, bool) {
        let before = descriptors().len();
        let all: Vec<_> = rx.iter().collect();
        let same = all.iter().all(|one| one.as_ptr() == first.as_ptr());
        // The queue's own descriptors are gone with it, so there may be fewer.
        (mappings(), descriptors().len().saturating_sub(before), same)
    }
    let numbers = Frozen::from_slice(&[5u64; 1000]).unwrap();
    let (mut tx, rx) = Queue::new(8).unwrap();
    let child = Process::spawn(receives, (rx, numbers.clone())).unwrap();
    for _ in 0..1000 {
        tx.send(numbers.clone()).unwrap();
    }
    drop(tx);
    assert_eq!(child.join().unwrap(), (1, 0, true));
}

fn lives_on_without_its_maker() {
    let (tx, mut rx) = Queue::<Frozen<u64>>::new(1).unwrap();
    let maker = |mut tx: multiproc::Sender<Frozen<u64>>, wait: Receiver<()>| {
        tx.send(Frozen::from_iter(0..1000).unwrap()).unwrap();
        let mut wait = wait;
        // Ends when the parent has the array and says so by dropping its end.
        let _ = wait.recv();
    };
    let (alive, wait) = Queue::<()>::new(1).unwrap();
    let maker = Process::spawn(maker, (tx, wait)).unwrap();
    let numbers = rx.recv().unwrap();
    drop(alive);
    maker.join().unwrap();
    assert_eq!(numbers.iter().sum::<u64>(), 499_500);
    let took = Process::spawn(sum, (numbers, 0, 1000)).unwrap();
    assert_eq!(took.join().unwrap(), 499_500);
}

fn others_cannot_write() {
    fn tries(numbers: Frozen<u64>) -> usize {
        let mut refused = 0;
        for (number, target) in descriptors() {
            if target.contains("multiproc:sealed") {
                let path = format!("/proc/self/fd/{number}");
                let file = File::options().read(true).write(true).open(path);
                refused += usize::from(file.unwrap().write_at(b"x", 100).is_err());
            }
        }
        let page = numbers.as_ptr() as usize & !4095;
        let both = nix::libc::PROT_READ | nix::libc::PROT_WRITE;
        // SAFETY: changes nothing if it is refused, as it must be.
        refused += usize::from(unsafe { nix::libc::mprotect(page as *mut _, 4096, both) } == -1);
        refused
    }
    let numbers = Frozen::from_slice(&[7u64; 100]).unwrap();
    let child = Process::spawn(tries, (numbers.clone(),)).unwrap();
    assert_eq!(child.join().unwrap(), 2);
    assert_eq!(*numbers, [7; 100]);
}

/// Writes one type and reads another: what came of it.
fn swapped<A, B>(sent: Frozen<A>) -> Result<usize, String>
where
    A: NoUninit + CheckedBitPattern,
    B: NoUninit + CheckedBitPattern,
{
    enum Swapped<A, B> {
        Sent(Frozen<A>),
        Got(Result<Frozen<B>, String>),
    }
    impl<A, B> Serialize for Swapped<A, B> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Swapped::Sent(frozen) => frozen.serialize(serializer),
                Swapped::Got(_) => unreachable!("only read"),
            }
        }
    }
    impl<'de, A, B: NoUninit + CheckedBitPattern> Deserialize<'de> for Swapped<A, B> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let got = Frozen::deserialize(deserializer);
            Ok(Swapped::Got(got.map_err(|error| error.to_string())))
        }
    }
    let (mut tx, mut rx) = Queue::<Swapped<A, B>>::new(1).unwrap();
    tx.send(Swapped::Sent(sent)).unwrap();
    match rx.recv().unwrap() {
        Swapped::Sent(_) => unreachable!("only sent"),
        Swapped::Got(got) => got.map(|got| got.len()),
    }
}

fn another_type_is_refused() {
    let why = swapped::<u64, i64>(Frozen::from_slice(&[1]).unwrap()).unwrap_err();
    assert!(why.contains("u64") && why.contains("i64"), "{why}");
    let why = swapped::<u8, [u8; 2]>(Frozen::from_slice(&[1, 2]).unwrap()).unwrap_err();
    assert!(why.contains("1 bytes") && why.contains("2 bytes"), "{why}");
}

/// Two types of one name and size, as two versions of a program may have: their bits tell.
fn bits_are_checked_on_arrival() {
    mod old {
        #[derive(Clone, Copy, bytemuck::NoUninit, bytemuck::CheckedBitPattern)]
        #[repr(u8)]
        pub(super) enum Light {
            Red = 1,
            Blue = 9,
        }
    }
    mod new {
        #[derive(Clone, Copy, bytemuck::NoUninit, bytemuck::CheckedBitPattern)]
        #[repr(u8)]
        pub(super) enum Light {
            Red = 1,
            Green = 2,
        }
    }
    assert_eq!([new::Light::Red as u8, new::Light::Green as u8], [1, 2]);
    let fits = Frozen::from_slice(&[old::Light::Red; 3]).unwrap();
    assert_eq!(swapped::<_, new::Light>(fits), Ok(3));
    let does_not = Frozen::from_slice(&[old::Light::Red, old::Light::Blue]).unwrap();
    let why = swapped::<_, new::Light>(does_not.clone()).unwrap_err();
    assert!(why.contains("bits that its type never has"), "{why}");
    assert_eq!(swapped::<_, old::Light>(does_not), Ok(2));
    let other = Frozen::from_slice(&[new::Light::Green]).unwrap();
    assert!(swapped::<_, old::Light>(other).is_err());
}

/// However many arrays a process sends or receives, it never has many descriptors.
fn few_descriptors_are_enough() {
    fn few() {
        let limit = Rlimit {
            current: Some(64),
            maximum: Some(64),
        };
        setrlimit(Resource::Nofile, limit).unwrap();
        let (mut tx, rx) = Queue::<Frozen<u64>>::new(4).unwrap();
        let child = |mut rx: Receiver<Frozen<u64>>| rx.iter().map(|items| items[0]).sum::<u64>();
        let child = Process::spawn(child, (rx,)).unwrap();
        for n in 0..5_000 {
            tx.send(Frozen::from_slice(&[n]).unwrap()).unwrap();
        }
        drop(tx);
        assert_eq!(child.join().unwrap(), 12_497_500);
    }
    isolated(few);
}

fn empty_travels_too() {
    let none = Frozen::<u64>::from_slice(&[]).unwrap();
    let child = Process::spawn(|none: Frozen<u64>| none.is_empty(), (none,)).unwrap();
    assert!(child.join().unwrap());
}
