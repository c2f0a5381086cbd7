//! Values that each worker decodes once, however many items are given to it with them.

use std::sync::{Arc, Mutex};

use super::arena::{Block, Place};
use super::engine::Engine;
use super::error::{TaskError, What};
use super::station::Stretch;
use crate::handle::{self, Passed, Transport};
use crate::message::{self, Count, EncodeError, Message};

/// Tells such a value from every other.
pub(super) type Name = [u64; 2];

/// Bytes in front of an encoded value: its name and its length.
pub(super) const HEAD: u64 = 24;

/// A value in the arena that workers decode once.
pub(super) struct Context {
    engine: Arc<Engine>,
    block: Option<Block>,
    pub(super) place: Place,
    /// What the value names stays alive as long as it does.
    _passed: Mutex<Passed>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.engine.give_back(self.block.take());
    }
}

impl Context {
    /// Writes a value into the arena, behind its name and its length.
    pub(super) fn place<C: Message>(
        engine: &Arc<Engine>,
        name: Name,
        value: &C,
    ) -> Result<Arc<Context>, TaskError> {
        let unsendable = |error| TaskError::Encode {
            item: 0,
            pid: None,
            name: None,
            what: What::Context,
            error,
        };
        // Any number of workers decode it, for as long as it is here.
        let (len, _) = handle::collect(Transport::Kept, || message::encode(value, &mut Count));
        let needed = len.map_err(unsendable)?;
        let (block, bytes) = engine
            .take_block(HEAD + needed as u64)
            .map_err(|why| TaskError::NoMemory { item: 0, why })?;
        let at = block.place.offset as usize;
        let mut to = Stretch::new(&bytes, at + HEAD as usize, needed);
        let (len, passed) = handle::collect(Transport::Kept, || message::encode(value, &mut to));
        let context = Arc::new(Context {
            engine: Arc::clone(engine),
            place: block.place,
            block: Some(block),
            _passed: Mutex::new(passed),
        });
        let written = len.map_err(unsendable)?;
        if written != needed {
            // Dropped with the error, the context gives its block back.
            return Err(unsendable(EncodeError::WrongLength { written, needed }));
        }
        let head = [name[0], name[1], written as u64];
        bytes.copy_in(at, bytemuck::cast_slice(&head));
        Ok(context)
    }
}
