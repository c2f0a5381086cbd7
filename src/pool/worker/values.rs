//! Values that a worker decodes once and keeps: contexts, and the array that items lie in.

use std::any::Any;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::frozen::Frozen;
use crate::message::{self, DecodeError, Message, PlainData};
use crate::pool::error::{Failure, Payload};
use crate::pool::record::{self, Name, VALUE_HEAD as HEAD};
use crate::segment::Bytes;

/// Contexts a worker keeps decoded.
const CONTEXTS: usize = 4;

/// How long a worker is idle before it looks whether what it keeps is still wanted.
const IDLE: Duration = Duration::from_millis(500);

struct Kept {
    name: Name,
    place: u64,
    value: Rc<dyn Any>,
}

/// What a worker keeps.
pub(super) struct Values {
    contexts: Vec<Kept>,
    /// The array that items lay in last.
    array: Option<Kept>,
    /// What a function without a context is given.
    nothing: Rc<dyn Any>,
}

impl Values {
    pub(super) fn new() -> Values {
        Values {
            contexts: Vec::new(),
            array: None,
            nothing: Rc::new(()),
        }
    }

    /// When an idle worker looks whether what it keeps is still wanted.
    pub(super) fn look_again_at(&self) -> Option<Instant> {
        let has_some = !self.contexts.is_empty() || self.array.is_some();
        has_some.then(|| Instant::now() + IDLE)
    }

    /// Forgets what the pool has let go of: its name stands at its place no more.
    pub(super) fn forget_dead(&mut self, bytes: &Bytes) {
        let lives =
            |kept: &Kept| head(bytes, kept.place).is_some_and(|(name, _)| name == kept.name);
        self.contexts.retain(lives);
        self.array = self.array.take().filter(lives);
    }
}

fn head(bytes: &Bytes, place: u64) -> Option<(Name, u64)> {
    let at = record::inside(bytes, place, HEAD)?;
    let mut head = [0; HEAD as usize];
    bytes.copy_out(at, &mut head);
    let [name, more, len] = bytemuck::cast::<[u8; HEAD as usize], [u64; 3]>(head);
    Some(([name, more], len))
}

impl Values {
    /// The context at a place, decoded once and kept; 0 for none.
    pub(super) fn context<C: Message>(
        &mut self,
        bytes: &Bytes,
        place: u64,
    ) -> Result<Rc<C>, Failure> {
        let unreadable = |error| Failure::Decode(Payload::Context, error);
        if place == 0 {
            if let Ok(nothing) = Rc::clone(&self.nothing).downcast() {
                return Ok(nothing);
            }
            return message::decode::<C>(&[]).map(Rc::new).map_err(unreadable);
        }
        let (name, len) = head(bytes, place).ok_or_else(lost)?;
        let known = self.contexts.iter().find(|known| known.name == name);
        if let Some(context) = known.and_then(|known| Rc::clone(&known.value).downcast().ok()) {
            return Ok(context);
        }
        let context = Rc::new(body::<C>(bytes, place, len)?.map_err(unreadable)?);
        self.contexts.truncate(CONTEXTS - 1);
        let value = Rc::clone(&context) as Rc<dyn Any>;
        self.contexts.insert(0, Kept { name, place, value });
        Ok(context)
    }

    /// The array whose handle is at a place; the last one is kept.
    pub(super) fn array<A>(&mut self, bytes: &Bytes, place: u64) -> Result<Rc<Frozen<A>>, Failure>
    where
        A: PlainData,
    {
        let (name, len) = head(bytes, place).ok_or_else(lost)?;
        let known = self.array.as_ref().filter(|known| known.name == name);
        if let Some(array) = known.and_then(|known| Rc::clone(&known.value).downcast().ok()) {
            return Ok(array);
        }
        let array = body::<Frozen<A>>(bytes, place, len)?;
        let array = array.map_err(|error| Failure::Decode(Payload::Arguments, error))?;
        let array = Rc::new(array);
        let value = Rc::clone(&array) as Rc<dyn Any>;
        self.array = Some(Kept { name, place, value });
        Ok(array)
    }
}

fn body<T: Message>(
    bytes: &Bytes,
    place: u64,
    len: u64,
) -> Result<Result<T, DecodeError>, Failure> {
    let at = record::inside(bytes, place.saturating_add(HEAD), len).ok_or_else(lost)?;
    let mut body = Vec::new();
    bytes.append_to(at, len as usize, &mut body);
    Ok(message::decode::<T>(&body))
}

fn lost() -> Failure {
    let reason = "it is not where the pool's memory says that it is";
    Failure::Decode(Payload::Context, DecodeError::Refused(reason.to_owned()))
}
