//! Values that each worker decodes once, however many items are given to it with them.

use std::sync::{Arc, Mutex};

use super::error::{Payload, TaskError};
use super::memory::{Block, Memory, Short};
use super::record::{Name, Stretch, VALUE_HEAD};
use crate::handle::{self, Passed, Transport};
use crate::kin;
use crate::message::{self, Count, EncodeError, Message};

/// A value in the pool's memory that workers decode once.
pub(super) struct Context {
    memory: Arc<Memory>,
    block: Block,
    /// What the value names stays alive as long as it does.
    _passed: Mutex<Passed>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // It is the parent's, in a forked copy.
        if kin::forked() {
            return;
        }
        // An idle worker that keeps the value sees that its name is gone, and forgets it too.
        let head = [0; VALUE_HEAD as usize];
        self.memory.bytes.copy_in(self.block.place as usize, &head);
    }
}

impl Context {
    /// Writes a value into the pool's memory, behind its name and its length. `take` gives the bytes.
    pub(super) fn place<C: Message>(
        memory: &Arc<Memory>,
        take: impl FnOnce(u64) -> Result<Block, Short>,
        name: Name,
        value: &C,
    ) -> Result<Arc<Context>, TaskError> {
        let unsendable = |error| TaskError::Encode {
            item: 0,
            pid: None,
            name: None,
            what: Payload::Context,
            error,
        };
        // Any number of workers decode it, for as long as it is here.
        let (len, _) = handle::collect(Transport::Kept, || message::encode(value, &mut Count));
        let needed = len.map_err(unsendable)?;
        let no_memory = |short: Short| TaskError::NoMemory {
            item: 0,
            why: short.why(),
        };
        let block = take(VALUE_HEAD + needed as u64).map_err(no_memory)?;
        let at = block.place as usize;
        let mut to = Stretch::new(&memory.bytes, at + VALUE_HEAD as usize, needed);
        let (len, passed) = handle::collect(Transport::Kept, || message::encode(value, &mut to));
        let written = len.map_err(unsendable)?;
        if written != needed {
            return Err(unsendable(EncodeError::WrongLength { written, needed }));
        }
        let head = [name[0], name[1], written as u64];
        memory.bytes.copy_in(at, bytemuck::cast_slice(&head));
        Ok(Arc::new(Context {
            memory: Arc::clone(memory),
            block,
            _passed: Mutex::new(passed),
        }))
    }

    /// Where it is.
    pub(super) fn at(&self) -> u64 {
        self.block.place
    }
}
