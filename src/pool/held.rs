//! A job with an owner.

use std::sync::Arc;

use super::engine::Engine;
use super::error::TaskError;
use super::work::{Parcel, Work};

/// A job that is given up when its owner is dropped: what was not begun never will be.
pub(super) struct Held<'p> {
    engine: &'p Arc<Engine>,
    pub(super) work: Arc<Work>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if !self.work.has_ended() {
            self.engine.cancel(&self.work);
        }
        self.work.let_go(self.engine);
    }
}

impl<'p> Held<'p> {
    pub(super) fn submit(engine: &'p Arc<Engine>, parcel: Parcel) -> Result<Held<'p>, TaskError> {
        let work = Arc::clone(&parcel.work);
        match engine.submit(parcel) {
            Ok(()) => Ok(Held { engine, work }),
            Err(ending) => {
                work.never(engine);
                Err(ending.error(work.first))
            }
        }
    }
}
