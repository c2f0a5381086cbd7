//! A segment whose bytes somebody else has chosen: before it is attached, between any two operations, *during* them (by
//! another thread), and at the very moment at which a text in it is being decoded.

#![no_main]

use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytemuck::{CheckedBitPattern, NoUninit};
use libfuzzer_sys::fuzz_target;
use multiproc::{InPlace, Lock, LockError, Message, Queue, Receiver, Segment, Sender, door};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// No call may take longer, whatever it reads.
const BOUND: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, NoUninit, CheckedBitPattern)]
#[repr(u32)]
#[allow(dead_code, reason = "the bytes choose")]
enum Light {
    Red = 7,
    Green = 1_048_576,
}

type Ends<T> = (Sender<T>, Receiver<T>);

/// A value as it travels, and the bytes of its segment.
struct Template {
    wire: Vec<u8>,
    segment: Vec<u8>,
}

impl Template {
    fn of<T: Message>(value: T) -> Template {
        let (wire, files) = door::pack(&value).unwrap();
        let [file] = <[OwnedFd; 1]>::try_from(files).unwrap();
        let file = File::from(file);
        let mut segment = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut segment, 0).unwrap();
        Template { wire, segment }
    }
}

/// The fuzzer's bytes, taken one after another.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn word(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*first))
    }

    /// Where a word is to be changed in so many bytes, and how.
    fn change(&mut self, length: usize) -> Option<(usize, Change)> {
        let at = usize::from(self.byte()?) | usize::from(self.byte()?) << 8;
        let at = at * 8 % (length - 7);
        let byte = self.byte()?;
        let near = u64::from(self.byte()?);
        let change = match byte % 8 {
            0 => Change::By(near),
            1 => Change::By(near.wrapping_neg()),
            2 => Change::To(0),
            3 => Change::To(u64::MAX - near),
            4 => Change::To(1 << (near % 64)),
            5 => Change::To(near),
            6 => Change::To(near << 32),
            _ => Change::To(self.word()?),
        };
        Some((at, change))
    }
}

enum Change {
    To(u64),
    By(u64),
}

impl Change {
    fn apply(&self, word: &mut [u8; 8]) {
        let now = u64::from_ne_bytes(*word);
        let then = match self {
            Change::To(value) => *value,
            Change::By(difference) => now.wrapping_add(*difference),
        };
        *word = then.to_ne_bytes();
    }
}

/// A value that is looked at as bytes when it has come: whether it is one of its type.
trait Looked {
    fn look(self);
}

impl Looked for u64 {
    fn look(self) {}
}

impl Looked for [u64; 6] {
    fn look(self) {}
}

impl Looked for String {
    fn look(self) {
        let bytes = black_box(self.into_bytes());
        assert!(String::from_utf8(bytes).is_ok(), "a text is none");
    }
}

/// A text that has the segment written over while it is being decoded.
#[derive(Default)]
struct Held(String);

thread_local! {
    /// What is written over then, and where.
    static MEANWHILE: RefCell<Option<(File, usize)>> = const { RefCell::new(None) };
}

impl Looked for Held {
    fn look(self) {
        assert_eq!(self.0, "", "a text has changed while it was being decoded");
    }
}

impl Serialize for Held {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("a text of some length, as it is written")
    }
}

impl<'de> Deserialize<'de> for Held {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(HeldVisitor)
    }
}

struct HeldVisitor;

impl de::Visitor<'_> for HeldVisitor {
    type Value = Held;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Held, E> {
        let before = text.to_owned();
        MEANWHILE.with_borrow(|offered| {
            if let Some((file, length)) = offered {
                let mut bytes = vec![0; *length];
                file.read_exact_at(&mut bytes, 0).unwrap();
                // Each word in turn is another, all of them at once; then as they were.
                let changed: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
                file.write_all_at(&changed, 0).unwrap();
                let stayed = black_box(text.as_bytes()) == before.as_bytes();
                file.write_all_at(&bytes, 0).unwrap();
                if !stayed {
                    return Ok(Held("changed".to_owned()));
                }
            }
            Ok(Held::default())
        })
    }
}

/// The segment, as whoever offered it still sees it.
struct Offered {
    file: File,
    length: usize,
}

impl Offered {
    fn scribble(&self, input: &mut Input) {
        if let Some((at, change)) = input.change(self.length) {
            let mut word = [0; 8];
            self.file.read_exact_at(&mut word, at as u64).unwrap();
            change.apply(&mut word);
            self.file.write_all_at(&word, at as u64).unwrap();
        }
    }
}

impl Offered {
    /// Acts while another thread writes over some words again and again.
    fn beside(&self, input: &mut Input, act: impl FnOnce(&mut Input)) {
        let mut changes = Vec::new();
        let count = input.byte().unwrap_or(0) % 8;
        for _ in 0..count {
            changes.extend(input.change(self.length));
        }
        let over = AtomicBool::new(changes.is_empty());
        thread::scope(|scope| {
            // Whatever becomes of the act, the thread is to end.
            let _end = End(&over);
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    for (at, change) in &changes {
                        let mut word = [0; 8];
                        self.file.read_exact_at(&mut word, *at as u64).unwrap();
                        change.apply(&mut word);
                        self.file.write_all_at(&word, *at as u64).unwrap();
                    }
                }
            });
            act(input);
        });
    }
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn bounded<R>(call: impl FnOnce() -> R) -> R {
    let start = Instant::now();
    let result = call();
    assert!(start.elapsed() < BOUND, "a call took {:?}", start.elapsed());
    result
}

/// Changes the template as the input says, and attaches it.
fn offer<T: Message>(template: &Template, input: &mut Input) -> Option<(T, Offered)> {
    let mut bytes = template.segment.clone();
    let mut wire = template.wire.clone();
    for _ in 0..input.byte()? % 8 {
        match input.byte()? % 8 {
            0 => {
                let at = usize::from(input.byte()?) % wire.len();
                wire[at] = input.byte()?;
            }
            1 => bytes.truncate(usize::from(input.byte()?) * 64),
            _ if bytes.len() < 8 => {}
            _ => {
                let (at, change) = input.change(bytes.len())?;
                let word: &mut [u8; 8] = (&mut bytes[at..at + 8]).try_into().ok()?;
                change.apply(word);
            }
        }
    }
    let file = door::sealed(&bytes).unwrap();
    let offered = Offered {
        file: File::from(file.try_clone().unwrap()),
        length: bytes.len(),
    };
    let value = bounded(|| door::unpack::<T>(&wire, vec![file])).ok()?;
    Some((value, offered))
}

fn play_queue<T: Message + Default + Looked>(template: &Template, input: &mut Input) {
    let Some((ends, offered)) = offer::<Ends<T>>(template, input) else {
        return;
    };
    let own = offered.file.try_clone().unwrap();
    MEANWHILE.set(Some((own, offered.length)));
    offered.beside(input, |input| use_queue(ends, &offered, input));
    MEANWHILE.set(None);
}

fn use_queue<T: Message + Default + Looked>(
    (mut tx, mut rx): Ends<T>,
    offered: &Offered,
    input: &mut Input,
) {
    let mut more_tx = Vec::new();
    let mut more_rx = Vec::new();
    for _ in 0..64 {
        let Some(operation) = input.byte() else { break };
        match operation % 16 {
            0 | 1 => _ = bounded(|| tx.try_send(T::default())),
            2 => _ = bounded(|| tx.send_timeout(T::default(), SHORT)),
            3 => _ = bounded(|| rx.recv_timeout(SHORT)).map(Looked::look),
            4 | 5 => _ = bounded(|| rx.try_recv()).map(Looked::look),
            6 => more_tx.extend(bounded(|| tx.try_clone())),
            7 => more_rx.extend(bounded(|| rx.try_clone())),
            8 => _ = bounded(|| (tx.len(), rx.stats())),
            9 => _ = bounded(|| (tx.is_closed(), rx.is_closed())),
            10 => _ = bounded(|| more_tx.pop()),
            11 => _ = bounded(|| more_rx.pop()),
            12 => {
                if let Ok(lease) = bounded(|| rx.try_lease()) {
                    let _ = bounded(|| lease.read()).map(Looked::look);
                    bounded(|| lease.ack());
                }
            }
            _ => offered.scribble(input),
        }
    }
}

fn play_in_place<T: InPlace + Default>(template: &Template, input: &mut Input)
where
    T::View: AsRef<[u64]>,
{
    let Some((ends, offered)) = offer::<Ends<T>>(template, input) else {
        return;
    };
    offered.beside(input, |input| use_in_place(ends, &offered, input));
}

fn use_in_place<T: InPlace + Default>(
    (mut tx, mut rx): Ends<T>,
    offered: &Offered,
    input: &mut Input,
) where
    T::View: AsRef<[u64]>,
{
    let mut leases = Vec::new();
    for _ in 0..64 {
        let Some(operation) = input.byte() else { break };
        match operation % 8 {
            0 => {
                if let Ok(loan) = bounded(|| tx.try_loan()) {
                    let _ = bounded(|| loan.commit());
                }
            }
            1 => _ = bounded(|| tx.try_send(T::default())),
            2 => leases.extend(bounded(|| rx.try_lease())),
            3 => _ = leases.pop().map(|lease| bounded(|| lease.ack())),
            4 => _ = leases.pop(),
            5 => {
                for lease in &leases {
                    std::hint::black_box(lease.get().as_ref().iter().sum::<u64>());
                }
            }
            6 => _ = bounded(|| rx.try_recv()),
            _ => offered.scribble(input),
        }
    }
}

fn play_lock<T: NoUninit + CheckedBitPattern>(template: &Template, input: &mut Input) {
    let Some((lock, offered)) = offer::<Lock<T>>(template, input) else {
        return;
    };
    offered.beside(input, |input| use_lock(&lock, &offered, input));
}

fn use_lock<T: NoUninit + CheckedBitPattern>(lock: &Lock<T>, offered: &Offered, input: &mut Input) {
    for _ in 0..16 {
        let Some(operation) = input.byte() else { break };
        match operation % 4 {
            0 => _ = bounded(|| lock.try_lock().map(|guard| *guard)),
            1 => match bounded(|| lock.lock_timeout(SHORT)) {
                Err(LockError::Abandoned(_)) => drop(bounded(|| lock.recover_timeout(SHORT))),
                other => drop(other),
            },
            _ => offered.scribble(input),
        }
    }
}

thread_local! {
    static TEMPLATES: RefCell<Vec<Template>> = RefCell::new(vec![
        Template::of(small::<u64>(false)),
        Template::of(small::<String>(false)),
        Template::of(small::<[u64; 6]>(false)),
        Template::of(small::<Vec<u64>>(true)),
        Template::of(Lock::new(5_u64).unwrap()),
        Template::of(Lock::new(Light::Red).unwrap()),
        Template::of(Segment::new(64).unwrap()),
        Template::of(small::<String>(true)),
        Template::of(small::<Held>(false)),
        Template::of(small::<Held>(true)),
    ]);
}

fn small<T: Message + Default>(in_place: bool) -> Ends<T> {
    let mut builder = Queue::<T>::builder()
        .capacity(4)
        .message_size(48)
        .senders(4)
        .receivers(4);
    if in_place {
        builder = builder.in_place(4);
    }
    let (mut tx, rx) = builder.build().unwrap();
    for _ in 0..2 {
        let _ = tx.try_send(T::default());
    }
    (tx, rx)
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let Some(kind) = input.byte() else { return };
    TEMPLATES.with_borrow(|templates| {
        let kind = usize::from(kind) % templates.len();
        let template = &templates[kind];
        match kind {
            0 => play_queue::<u64>(template, &mut input),
            1 => play_queue::<String>(template, &mut input),
            2 => play_queue::<[u64; 6]>(template, &mut input),
            3 => play_in_place::<Vec<u64>>(template, &mut input),
            4 => play_lock::<u64>(template, &mut input),
            5 => play_lock::<Light>(template, &mut input),
            7 => play_queue::<String>(template, &mut input),
            8 | 9 => play_queue::<Held>(template, &mut input),
            _ => {
                if let Some((segment, offered)) = offer::<Segment>(template, &mut input) {
                    offered.scribble(&mut input);
                    std::hint::black_box(segment.words().len());
                }
            }
        }
    });
});
