//! A job with a caller.

use std::ops::Deref;
use std::sync::Arc;

use super::error::TaskError;
use super::job::{Job, Record};
use super::shared::{PoolShared, Slot};
use crate::kin;

/// A job that its caller waits for; given up when this is dropped: what was not begun never will be.
pub(super) struct Waited<P: Deref<Target = PoolShared>> {
    shared: P,
    pub(super) job: Arc<Job>,
}

impl<P: Deref<Target = PoolShared>> Drop for Waited<P> {
    fn drop(&mut self) {
        // A forked copy has no jobs, and the lock may have been held at the fork.
        if !kin::forked() && !self.job.has_ended() {
            self.shared.with_board(|board, after| {
                board.cancel(&self.job, after);
                board.own(&self.job, 0, after);
            });
        }
    }
}

impl<P: Deref<Target = PoolShared>> Waited<P> {
    pub(super) fn submit(
        shared: P,
        mut record: Box<Record>,
        slot: &Slot<impl Deref<Target = PoolShared>>,
    ) -> Result<Waited<P>, TaskError> {
        record.owner = slot.number;
        let job = Arc::clone(&record.job);
        match shared.submit(record) {
            Ok(()) => Ok(Waited { shared, job }),
            Err(ending) => Err(ending.error(job.first)),
        }
    }
}
