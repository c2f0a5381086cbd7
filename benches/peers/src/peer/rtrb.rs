//! rtrb, one sender and one receiver, between threads.

use crate::rig::roles::{End, Rx, RxBytes, Tx, TxBytes, poll};
use crate::rig::runs::{Link, LinkBytes};
use rtrb::{Consumer, Producer, RingBuffer};
use std::hint::spin_loop;
use std::sync::Mutex;

type Once<T> = Mutex<Option<T>>;

pub struct Ring<M> {
    tx: Once<Producer<M>>,
    rx: Once<Consumer<M>>,
}

impl<M> Ring<M> {
    pub fn new(capacity: usize) -> Ring<M> {
        let (tx, rx) = RingBuffer::new(capacity);
        Ring {
            tx: Mutex::new(Some(tx)),
            rx: Mutex::new(Some(rx)),
        }
    }
}

fn take<T>(once: &Once<T>) -> T {
    once.lock()
        .ok()
        .and_then(|mut end| end.take())
        .expect("each end is used once")
}

impl<M: Copy> Link<M> for Ring<M> {
    type Tx = Producer<M>;
    type Rx = Consumer<M>;

    fn tx(&self, _: usize) -> Producer<M> {
        take(&self.tx)
    }

    fn rx(&self, _: usize) -> Consumer<M> {
        take(&self.rx)
    }
}

impl<M: Copy> Tx<M> for Producer<M> {
    fn send(&mut self, message: M) {
        while self.push(message).is_err() {
            spin_loop();
        }
    }

    fn send_many(&mut self, messages: &[M]) {
        while self.push_entire_slice(messages).is_err() {
            spin_loop();
        }
    }
}

impl<M: Copy> Rx<M> for Consumer<M> {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        poll(end, || self.pop().ok())
    }

    fn recv_many(&mut self, into: &mut Vec<M>, most: usize, end: &impl End) {
        poll(end, || {
            let count = self.slots().min(most);
            into.extend(self.read_chunk(count).ok()?);
            (count > 0).then_some(())
        });
    }
}

/// Large messages as stretches of bytes, copied into the ring and out of it.
impl LinkBytes for Ring<u8> {
    type Tx = Producer<u8>;
    type Rx = Consumer<u8>;

    fn tx(&self) -> Producer<u8> {
        take(&self.tx)
    }

    fn rx(&self) -> Consumer<u8> {
        take(&self.rx)
    }
}

impl TxBytes for Producer<u8> {
    fn send(&mut self, message: &[u8]) {
        while self.push_entire_slice(message).is_err() {
            spin_loop();
        }
    }
}

impl RxBytes for Consumer<u8> {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        poll(end, || self.pop_entire_slice(into).ok()).is_some()
    }
}
