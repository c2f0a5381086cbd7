//! Atomics whose every load returns what somebody else chose: a peer that writes anything at any time.
//!
//! The pure protocols are compiled on these by `tests/hostile/main.rs` (seeded random choices) and by the
//! fuzz target `ring_hostile` (the fuzzer's choices). They also count loads, so that a test can say that
//! a field is read once for one decision.

use std::cell::RefCell;
use std::time::Duration;

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::atomic::Ordering;

thread_local! {
    static CHOICES: RefCell<Choices> = const { RefCell::new(Choices { bytes: Vec::new(), at: 0, loads: 0 }) };
}

struct Choices {
    bytes: Vec<u8>,
    at: usize,
    loads: usize,
}

/// From now on loads return what these bytes say; when they are used up, they start again.
pub(crate) fn choose(bytes: &[u8]) {
    CHOICES.with(|cell| {
        *cell.borrow_mut() = Choices {
            bytes: bytes.to_vec(),
            at: 0,
            loads: 0,
        }
    });
}

/// Loads since the last call.
pub(crate) fn loads() -> usize {
    CHOICES.with(|cell| std::mem::take(&mut cell.borrow_mut().loads))
}

/// The next chosen value: near something plausible as often as anywhere, since that is what breaks code.
fn next(near: u64) -> u64 {
    CHOICES.with(|cell| {
        let choices = &mut *cell.borrow_mut();
        choices.loads += 1;
        if choices.bytes.is_empty() {
            return near;
        }
        let mut byte = || {
            let byte = choices.bytes[choices.at % choices.bytes.len()];
            choices.at += 1;
            byte
        };
        match byte() % 8 {
            0 => near,
            1 => near.wrapping_add(u64::from(byte())),
            2 => near.wrapping_sub(u64::from(byte())),
            3 => 0,
            4 => u64::MAX - u64::from(byte()),
            5 => 1 << (byte() % 64),
            _ => u64::from_le_bytes(std::array::from_fn(|_| byte())),
        }
    })
}

/// A word that remembers what this side stored, and tells it or a lie.
#[derive(Debug, Default)]
pub(crate) struct AtomicU64(std::sync::atomic::AtomicU64);

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        AtomicU64(value.into())
    }

    pub(crate) fn load(&self, _: Ordering) -> u64 {
        next(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn store(&self, value: u64, _: Ordering) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn fetch_or(&self, value: u64, _: Ordering) -> u64 {
        self.0.fetch_or(value, Ordering::Relaxed);
        next(0)
    }

    pub(crate) fn compare_exchange(
        &self,
        expected: u64,
        value: u64,
        _: Ordering,
        _: Ordering,
    ) -> Result<u64, u64> {
        let found = next(expected);
        if found == expected {
            self.0.store(value, Ordering::Relaxed);
            Ok(found)
        } else {
            Err(found)
        }
    }
}

/// The 32-bit twin; none of the protocols under test decides anything on one.
pub(crate) type AtomicU32 = std::sync::atomic::AtomicU32;

/// A futex that never really sleeps: the peer may wake us at any time.
#[derive(Debug, Default)]
pub(crate) struct Futex(std::sync::atomic::AtomicU32);

impl Futex {
    pub(crate) fn load(&self, _: Ordering) -> u32 {
        next(u64::from(self.0.load(Ordering::Relaxed))) as u32
    }

    pub(crate) fn fetch_add(&self, n: u32, _: Ordering) -> u32 {
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    pub(crate) fn compare_exchange(
        &self,
        expected: u32,
        value: u32,
        _: Ordering,
        _: Ordering,
    ) -> Result<u32, u32> {
        let found = next(u64::from(expected)) as u32;
        if found == expected {
            self.0.store(value, Ordering::Relaxed);
            Ok(found)
        } else {
            Err(found)
        }
    }

    pub(crate) fn wake(&self, _: u32) -> usize {
        next(0) as usize
    }

    pub(crate) fn wait(&self, _: u32, _: Duration) {}

    pub(crate) fn wait_either(&self, _: u32, _: &Futex, _: u32, _: Duration) {}
}

pub(crate) fn asymmetric() -> bool {
    true
}

pub(crate) fn light() {}

pub(crate) fn heavy() {}

pub(crate) fn fence() {}

pub(crate) fn has_one_processor() -> bool {
    false
}

pub(crate) fn processor() -> Option<u32> {
    None
}
