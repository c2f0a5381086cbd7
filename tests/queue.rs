//! What `Queue` promises, in one process: threads stand for processes wherever death is not the matter.

use std::thread;
use std::time::{Duration, Instant};

use multiproc::{Queue, RecvError, SendError};

#[test]
fn values_come_in_order() {
    let (mut tx, mut rx) = Queue::<u64>::new(8).unwrap();
    let sender = thread::spawn(move || (0..100_000).for_each(|n| tx.send(n).unwrap()));
    for n in 0..100_000 {
        assert_eq!(rx.recv(), Ok(n));
    }
    assert_eq!(rx.recv(), Err(RecvError::Closed));
    sender.join().unwrap();
}
