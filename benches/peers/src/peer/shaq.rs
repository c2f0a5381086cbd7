//! shaq, between processes: its queue for one sender and one receiver, and the one for many.
//!
//! Why this file may use unsafe: shaq asks that the file is initialised once, that it has one sender and one receiver where
//! that is the queue's kind, that both name the same type, and that every reserved slot is written. All of that is fixed here.

use crate::rig::roles::{End, Rx, RxBytes, RxLease, Tx, TxBytes, TxLoan, poll};
use crate::rig::runs::{Link, LinkBytes, LinkLoan};
use bytemuck::{AnyBitPattern, NoUninit};
use nix::sys::memfd::{MFdFlags, memfd_create};
use shaq::{mpmc, spsc};
use std::fs::File;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;

fn file(size: usize) -> (File, usize) {
    let file =
        File::from(memfd_create(c"shaq", MFdFlags::MFD_CLOEXEC).expect("making shared memory"));
    let size = size.next_multiple_of(4096);
    file.set_len(size as u64).expect("sizing shared memory");
    (file, size)
}

/// One sender, one receiver.
pub struct Single<M> {
    file: File,
    kind: PhantomData<fn(M)>,
}

impl<M: Copy> Single<M> {
    pub fn new(capacity: usize) -> Single<M> {
        let (file, size) = file(spsc::minimum_file_size::<M>(capacity));
        // SAFETY: the one initialisation of a new file; dropped before either end joins.
        drop(unsafe { spsc::Producer::<M>::create(&file, size) }.expect("making a shaq queue"));
        Single {
            file,
            kind: PhantomData,
        }
    }
}

impl<M: Copy> Link<M> for Single<M> {
    type Tx = spsc::Producer<M>;
    type Rx = spsc::Consumer<M>;

    fn tx(&self, _: usize) -> spsc::Producer<M> {
        // SAFETY: called in the one sending process; `M` is plain data and the same on both sides.
        unsafe { spsc::Producer::join(&self.file) }.expect("joining a shaq queue")
    }

    fn rx(&self, _: usize) -> spsc::Consumer<M> {
        // SAFETY: called in the one receiving process; `M` is plain data and the same on both sides.
        unsafe { spsc::Consumer::join(&self.file) }.expect("joining a shaq queue")
    }
}

impl<M: Copy> Tx<M> for spsc::Producer<M> {
    fn send(&mut self, message: M) {
        while self.try_write(message).is_err() {
            spin_loop();
        }
    }

    fn send_many(&mut self, messages: &[M]) {
        let mut rest = messages;
        while !rest.is_empty() {
            let mut batch = self.write_batch();
            while let Some((&first, others)) = rest.split_first() {
                if batch.try_write(first).is_err() {
                    break;
                }
                rest = others;
            }
        }
    }
}

impl<M: Copy> Rx<M> for spsc::Consumer<M> {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        poll(end, || self.try_read())
    }

    fn recv_many(&mut self, into: &mut Vec<M>, most: usize, end: &impl End) {
        let most = NonZeroUsize::new(most).expect("a batch is not empty");
        poll(end, || {
            let batch = self.try_reserve_read_batch(most)?;
            let (first, second) = batch.as_slices();
            into.extend_from_slice(first);
            into.extend_from_slice(second);
            Some(())
        });
    }
}

/// Any number of senders and receivers.
pub struct Several<M> {
    file: File,
    kind: PhantomData<fn(M)>,
}

impl<M: Copy> Several<M> {
    pub fn new(capacity: usize) -> Several<M> {
        let (file, size) = file(mpmc::minimum_file_size::<M>(capacity));
        // SAFETY: the one initialisation of a new file.
        drop(unsafe { mpmc::Producer::<M>::create(&file, size) }.expect("making a shaq queue"));
        Several {
            file,
            kind: PhantomData,
        }
    }

    fn producer(&self) -> mpmc::Producer<M> {
        // SAFETY: `M` is plain data and the same in every process.
        unsafe { mpmc::Producer::join(&self.file) }.expect("joining a shaq queue")
    }

    fn consumer(&self) -> mpmc::Consumer<M> {
        // SAFETY: `M` is plain data and the same in every process.
        unsafe { mpmc::Consumer::join(&self.file) }.expect("joining a shaq queue")
    }
}

impl<M: Copy> Link<M> for Several<M> {
    type Tx = mpmc::Producer<M>;
    type Rx = mpmc::Consumer<M>;

    fn tx(&self, _: usize) -> mpmc::Producer<M> {
        self.producer()
    }

    fn rx(&self, _: usize) -> mpmc::Consumer<M> {
        self.consumer()
    }
}

impl<M: Copy> Tx<M> for mpmc::Producer<M> {
    fn send(&mut self, message: M) {
        while self.try_write(message).is_err() {
            spin_loop();
        }
    }

    fn send_many(&mut self, messages: &[M]) {
        while !self.try_write_slice(messages) {
            spin_loop();
        }
    }
}

impl<M: Copy> Rx<M> for mpmc::Consumer<M> {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        poll(end, || self.try_read())
    }

    fn recv_many(&mut self, into: &mut Vec<M>, most: usize, end: &impl End) {
        let most = NonZeroUsize::new(most).expect("a batch is not empty");
        poll(end, || {
            let batch = self.try_reserve_read_batch(most)?;
            let (first, second) = batch.as_slices();
            into.extend_from_slice(first);
            into.extend_from_slice(second);
            Some(())
        });
    }
}

/// Slots of one size, written and read where they lie.
pub struct Slots<M>(Several<M>);

impl<M: Copy> Slots<M> {
    pub fn new(capacity: usize) -> Slots<M> {
        Slots(Several::new(capacity))
    }
}

impl<M: NoUninit + AnyBitPattern> LinkLoan for Slots<M> {
    type Tx = mpmc::Producer<M>;
    type Rx = mpmc::Consumer<M>;

    fn tx(&self) -> mpmc::Producer<M> {
        self.0.producer()
    }

    fn rx(&self) -> mpmc::Consumer<M> {
        self.0.consumer()
    }
}

impl<M: NoUninit + AnyBitPattern> TxLoan for mpmc::Producer<M> {
    fn send(&mut self, size: usize, fill: impl FnOnce(&mut [u8])) {
        assert_eq!(size, size_of::<M>(), "slots have one size");
        let mut guard = loop {
            // SAFETY: the slot holds a valid `M` when the guard is dropped: the file began as zeros, all bytes are valid for
            // `M`, and only bytes are written below.
            match unsafe { self.try_reserve_write() } {
                Some(guard) => break guard,
                None => spin_loop(),
            }
        };
        let slot: &mut MaybeUninit<M> = guard.as_mut();
        // SAFETY: memory of `size_of::<M>()` bytes, all initialised (zeros at first, bytes of an earlier message later), ours
        // until the guard is dropped.
        fill(unsafe { std::slice::from_raw_parts_mut(slot.as_mut_ptr().cast::<u8>(), size) });
    }
}

impl<M: NoUninit + AnyBitPattern> RxLease for mpmc::Consumer<M> {
    fn recv(&mut self, end: &impl End, look: impl FnOnce(&[u8])) -> bool {
        // A batch of one: dropping a single guard would copy the whole value out first.
        let Some(batch) = poll(end, || self.try_reserve_read_batch(NonZeroUsize::MIN)) else {
            return false;
        };
        look(bytemuck::bytes_of(&batch[0]));
        true
    }
}

/// The same slots, copied into and out of.
impl<M: NoUninit + AnyBitPattern> LinkBytes for Slots<M> {
    type Tx = mpmc::Producer<M>;
    type Rx = mpmc::Consumer<M>;

    fn tx(&self) -> mpmc::Producer<M> {
        self.0.producer()
    }

    fn rx(&self) -> mpmc::Consumer<M> {
        self.0.consumer()
    }
}

impl<M: NoUninit + AnyBitPattern> TxBytes for mpmc::Producer<M> {
    fn send(&mut self, message: &[u8]) {
        TxLoan::send(self, message.len(), |slot| slot.copy_from_slice(message));
    }
}

impl<M: NoUninit + AnyBitPattern> RxBytes for mpmc::Consumer<M> {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        RxLease::recv(self, end, |slot| into.copy_from_slice(slot))
    }
}

/// 64 KiB.
pub type Medium = [[u64; 512]; 16];

/// 1 MiB.
pub type Large = [[u64; 512]; 256];
