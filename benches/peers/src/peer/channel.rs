//! crossbeam's bounded channel, between threads; both ends wait by its own means.

use crate::rig::roles::{End, Rx, Tx};
use crate::rig::runs::Link;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::Mutex;

/// The senders are handed out and not kept, so that the last one dropped ends the stream.
pub struct Channel<M> {
    senders: Mutex<Vec<Sender<M>>>,
    receiver: Receiver<M>,
}

impl<M> Channel<M> {
    pub fn new(capacity: usize, senders: usize) -> Channel<M> {
        let (sender, receiver) = bounded(capacity);
        Channel {
            senders: Mutex::new(vec![sender; senders]),
            receiver,
        }
    }

    pub fn ends(self) -> (Sender<M>, Receiver<M>) {
        (self.tx(0), self.receiver)
    }
}

impl<M> Link<M> for Channel<M> {
    type Tx = Sender<M>;
    type Rx = Receiver<M>;

    fn tx(&self, _: usize) -> Sender<M> {
        self.senders
            .lock()
            .ok()
            .and_then(|mut all| all.pop())
            .expect("one for each sender")
    }

    fn rx(&self, _: usize) -> Receiver<M> {
        self.receiver.clone()
    }
}

impl<M> Tx<M> for Sender<M> {
    fn send(&mut self, message: M) {
        if Sender::send(self, message).is_err() {
            panic!("no receiver");
        }
    }
}

impl<M> Rx<M> for Receiver<M> {
    fn recv(&mut self, _: &impl End) -> Option<M> {
        Receiver::recv(self).ok()
    }
}
