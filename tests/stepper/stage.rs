//! Where a victim waits, and says how far it is: four words that it shares with its tracer.

use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use multiproc::Segment;
use serde::{Deserialize, Serialize};

/// No victim may take longer to come to its operation.
const LIMIT: Duration = Duration::from_secs(60);

const READY: usize = 0;
const GO: usize = 1;
const BEGUN: usize = 2;
const DONE: usize = 3;
const LEAVE: usize = 4;

/// Both sides' handle to the words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stage(Segment);

impl Stage {
    pub(crate) fn new() -> Stage {
        Stage(Segment::new(64).unwrap())
    }

    fn is_set(&self, word: usize) -> bool {
        self.0.words()[word].load(SeqCst) != 0
    }

    fn set(&self, word: usize) {
        self.0.words()[word].store(1, SeqCst);
    }

    fn wait_for(&self, word: usize) {
        while !self.is_set(word) {
            thread::yield_now();
        }
    }

    /// In the victim: waits for the tracer, does the operation, and waits until it may go on.
    pub(crate) fn act<R>(&self, operation: impl FnOnce() -> R) -> R {
        self.begin();
        let result = operation();
        self.end();
        result
    }

    /// In the victim: waits for the tracer. The operation begins.
    pub(crate) fn begin(&self) {
        self.set(READY);
        self.wait_for(GO);
        self.set(BEGUN);
    }

    /// In the victim: the operation has ended. Waits until it may go on.
    pub(crate) fn end(&self) {
        self.set(DONE);
        self.wait_to_leave();
    }

    /// Waits until it may go on.
    pub(crate) fn wait_to_leave(&self) {
        self.wait_for(LEAVE);
    }

    /// Waits until the victim waits for its tracer.
    pub(crate) fn wait_until_ready(&self) {
        let end = Instant::now() + LIMIT;
        while !self.is_set(READY) {
            assert!(
                Instant::now() < end,
                "the victim does not come to its operation"
            );
            thread::sleep(Duration::from_micros(20));
        }
    }

    /// Lets it come to its operation.
    pub(crate) fn go(&self) {
        self.set(GO);
    }

    /// Whether it is at its first instruction, or behind.
    pub(crate) fn has_begun(&self) -> bool {
        self.is_set(BEGUN)
    }

    /// Whether the operation has returned.
    pub(crate) fn is_done(&self) -> bool {
        self.is_set(DONE)
    }

    /// Lets it do what comes behind the operation.
    pub(crate) fn leave(&self) {
        self.set(LEAVE);
    }
}
