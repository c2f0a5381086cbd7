//! crossbeam's `ArrayQueue`, between threads.

use crate::rig::roles::{End, Rx, RxBytes, Tx, TxBytes, poll};
use crate::rig::runs::{Link, LinkBytes};
use crossbeam_queue::ArrayQueue;
use std::hint::spin_loop;
use std::sync::Arc;

pub struct Queue<M>(Arc<ArrayQueue<M>>);

impl<M> Queue<M> {
    pub fn new(capacity: usize) -> Queue<M> {
        Queue(Arc::new(ArrayQueue::new(capacity)))
    }
}

impl<M> Clone for Queue<M> {
    fn clone(&self) -> Queue<M> {
        Queue(Arc::clone(&self.0))
    }
}

impl<M> Link<M> for Queue<M> {
    type Tx = Queue<M>;
    type Rx = Queue<M>;

    fn tx(&self, _: usize) -> Queue<M> {
        self.clone()
    }

    fn rx(&self, _: usize) -> Queue<M> {
        self.clone()
    }
}

impl<M> Tx<M> for Queue<M> {
    fn send(&mut self, mut message: M) {
        while let Err(back) = self.0.push(message) {
            message = back;
            spin_loop();
        }
    }
}

impl<M> Rx<M> for Queue<M> {
    fn recv(&mut self, end: &impl End) -> Option<M> {
        poll(end, || self.0.pop())
    }
}

/// Large messages as boxes that go round: full ones there, empty ones back, so that nothing is allocated on the way.
pub struct Boxes {
    full: Queue<Box<[u8]>>,
    empty: Queue<Box<[u8]>>,
}

impl Boxes {
    pub fn new(count: usize, size: usize) -> Boxes {
        let (full, empty) = (Queue::new(count), Queue::new(count));
        for _ in 0..count {
            let _ = empty.0.push(vec![0; size].into_boxed_slice());
        }
        Boxes { full, empty }
    }
}

impl Clone for Boxes {
    fn clone(&self) -> Boxes {
        Boxes {
            full: self.full.clone(),
            empty: self.empty.clone(),
        }
    }
}

impl LinkBytes for Boxes {
    type Tx = Boxes;
    type Rx = Boxes;

    fn tx(&self) -> Boxes {
        self.clone()
    }

    fn rx(&self) -> Boxes {
        self.clone()
    }
}

impl TxBytes for Boxes {
    fn send(&mut self, message: &[u8]) {
        let mut box_ = self
            .empty
            .recv(&crate::rig::roles::Never)
            .expect("one comes back");
        box_.copy_from_slice(message);
        self.full.send(box_);
    }
}

impl RxBytes for Boxes {
    fn recv(&mut self, into: &mut [u8], end: &impl End) -> bool {
        let Some(box_) = self.full.recv(end) else {
            return false;
        };
        into.copy_from_slice(&box_);
        self.empty.send(box_);
        true
    }
}
