//! The board: shared memory through which the processes of one sample agree when to start and stop, and where each keeps
//! its count.
//!
//! Why this file may use unsafe: it turns a mapping into a reference. The mapping lives as long as the value that holds it,
//! is as large as the type, starts on a page, and the type is made of atomics, for which all bytes are valid.

use anyhow::{Context, Result, bail};
use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::{File, OpenOptions};
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

/// # Safety
///
/// Every part is an atomic: any bytes are a valid value, and any process may write them at any time.
pub unsafe trait Common: Sync {}

/// A `T` in memory that several processes map.
pub struct Shared<T: Common> {
    file: File,
    map: MmapRaw,
    kind: PhantomData<T>,
}

impl<T: Common> Shared<T> {
    /// All zero.
    pub fn new() -> Result<Shared<T>> {
        let file = File::from(
            memfd_create(c"peers", MFdFlags::MFD_CLOEXEC).context("making shared memory")?,
        );
        file.set_len(size_of::<T>().max(1) as u64)?;
        Shared::over(file)
    }

    /// The one whose `path` another process gave.
    pub fn open(path: &str) -> Result<Shared<T>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .with_context(|| format!("opening {path}"))?;
        Shared::over(file)
    }

    fn over(file: File) -> Result<Shared<T>> {
        if file.metadata()?.len() < size_of::<T>() as u64 || align_of::<T>() > 4096 {
            bail!("shared memory of the wrong size");
        }
        let map = MmapOptions::new().map_raw(&file)?;
        Ok(Shared {
            file,
            map,
            kind: PhantomData,
        })
    }

    /// Where another process of the same user finds it while this value lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }
}

impl<T: Common> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: checked in `over` to be large enough and aligned; mapped as long as `self`; `Common` allows any bytes and
        // writes by others.
        unsafe { &*self.map.as_ptr().cast::<T>() }
    }
}

/// A word on a line of its own.
#[repr(C, align(128))]
#[derive(Default)]
pub struct Line(pub AtomicU64);

/// Where one participant keeps what the others and the coordinator read.
#[repr(C, align(128))]
pub struct Seat {
    /// Messages sent or received, or times locked: published now and then, exact when `done`.
    pub count: AtomicU64,
    /// Sum of the numbers sent or received.
    pub sum: AtomicU64,
    /// 1 when nothing more will change.
    pub done: AtomicU64,
    /// Results of a seat that measures by itself.
    pub results: [AtomicU64; 2],
}

pub const SEATS: usize = 8;

#[repr(C)]
pub struct Control {
    pub ready: Line,
    pub go: Line,
    pub stop: Line,
    pub failed: Line,
    pub seats: [Seat; SEATS],
}

// SAFETY: atomics only.
unsafe impl Common for Control {}
// SAFETY: an atomic.
unsafe impl Common for Line {}
// SAFETY: atomics only.
unsafe impl<const N: usize> Common for [Line; N] {}
// SAFETY: atomics only.
unsafe impl<const N: usize> Common for [AtomicU64; N] {}

pub type Board = Shared<Control>;

/// No participant takes longer than this to get ready or to finish.
const PATIENCE: Duration = Duration::from_secs(20);

impl Control {
    /// Called by each participant when it has attached to everything: waits until all others have.
    pub fn wait_for_go(&self) {
        self.ready.0.fetch_add(1, AcqRel);
        while self.go.0.load(Acquire) == 0 {
            std::hint::spin_loop();
        }
    }

    pub fn stopped(&self) -> bool {
        self.stop.0.load(Relaxed) != 0
    }

    /// Called by the coordinator: all `seats` participants start together.
    pub fn start(&self, seats: usize) -> Result<()> {
        self.wait_until("a participant to get ready", || {
            self.ready.0.load(Acquire) == seats as u64
        })?;
        self.go.0.store(1, Release);
        Ok(())
    }

    /// Waits until seat `seat` is done.
    pub fn finished(&self, seat: usize) -> Result<()> {
        self.wait_until("a participant to finish", || {
            self.seats[seat].done.load(Acquire) != 0
        })
    }

    /// Looks every now and then, for as long as everybody lives.
    pub fn wait_until(&self, what: &str, reached: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !reached() {
            if self.failed.0.load(Acquire) != 0 {
                bail!("a participant failed");
            }
            if start.elapsed() > PATIENCE {
                bail!("waited {PATIENCE:?} for {what}");
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

impl Seat {
    pub fn publish(&self, count: u64) {
        self.count.store(count, Relaxed);
    }

    pub fn finish(&self, count: u64, sum: u64) {
        self.count.store(count, Relaxed);
        self.sum.store(sum, Relaxed);
        self.done.store(1, Release);
    }
}
