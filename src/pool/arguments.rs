//! How a worker gets the arguments of a chunk's items: decoded from the job's input, or out of an array.

use std::ops::Range;
use std::rc::Rc;

use bytemuck::{CheckedBitPattern, NoUninit};

use super::error::{Failure, What};
use super::station::{Station, truncated};
use super::step::record_len;
use crate::frozen::Frozen;
use crate::message::{self, DecodeError, Message};

/// Bytes of arguments of a fixed size that are copied out of shared memory at a time.
const BATCH: u64 = 16 * 1024;

/// How a worker gets the arguments of a chunk's items.
pub trait Arguments<A>: Sized + 'static {
    /// Those of the station's current chunk.
    fn open(station: &mut Station) -> Result<Self, Failure>;

    /// That of an item; the items are asked for in order, each once.
    fn take(&mut self, station: &mut Station, item: u32) -> Result<A, Failure>;
}

fn unreadable(error: DecodeError) -> Failure {
    Failure::Decode(What::Arguments, error)
}

/// Arguments that stand encoded in the job's input.
pub(super) struct Encoded {
    /// Bytes of records read.
    read: u64,
    /// The items whose arguments, of a fixed size, are in the scratch.
    loaded: Range<u32>,
}

impl<A: Message> Arguments<A> for Encoded {
    fn open(_: &mut Station) -> Result<Encoded, Failure> {
        Ok(Encoded {
            read: 0,
            loaded: 0..0,
        })
    }

    #[inline(always)]
    fn take(&mut self, station: &mut Station, item: u32) -> Result<A, Failure> {
        let Some(size) = message::fixed_size::<A>() else {
            return self.record(station);
        };
        if !self.loaded.contains(&item) {
            self.load(station, item, size as u64)?;
        }
        let at = (item - self.loaded.start) as usize * size;
        message::decode(&station.scratch[at..at + size]).map_err(unreadable)
    }
}

impl Encoded {
    /// Copies the arguments from `item` on into the scratch, as many as are copied at a time.
    #[cold]
    fn load(&mut self, station: &mut Station, item: u32, size: u64) -> Result<(), Failure> {
        let current = station.current;
        let from = item - current.span.start;
        let left = u64::from(current.span.count - from);
        let items = (BATCH / size.max(1)).clamp(1, left);
        let at = u64::from(from) * size;
        let is_there = at + items * size <= current.input_len
            && station.load(current.input.after(at), items * size);
        if !is_there {
            return Err(unreadable(truncated(size, 0)));
        }
        self.loaded = item..item + items as u32;
        Ok(())
    }

    fn record<A: Message>(&mut self, station: &mut Station) -> Result<A, Failure> {
        let current = station.current;
        let left = current.input_len.saturating_sub(self.read);
        let mut head = [0; 8];
        let len = (left >= 8)
            .then(|| station.bytes(current.input.after(self.read), 8))
            .flatten()
            .map(|(bytes, at)| bytes.copy_out(at, &mut head))
            .map(|()| u64::from_ne_bytes(head))
            .filter(|len| *len <= left - 8)
            .ok_or_else(|| unreadable(truncated(8, left)))?;
        let place = current.input.after(self.read + 8);
        self.read = (self.read + record_len(len)).min(current.input_len);
        let (bytes, at) = station
            .bytes(place, len)
            .ok_or_else(|| unreadable(truncated(len, 0)))?;
        let owned = message::decode_owned(|| {
            let mut owned = Vec::new();
            bytes.append_to(at, len as usize, &mut owned);
            owned
        });
        owned
            .unwrap_or_else(|| {
                station.scratch.clear();
                bytes.append_to(at, len as usize, &mut station.scratch);
                message::decode(&station.scratch)
            })
            .map_err(unreadable)
    }
}

/// Arguments that are the items of an array.
pub(super) struct InArray<A> {
    array: Rc<Frozen<A>>,
    /// Which of them is the job's first.
    first: usize,
}

impl<A: NoUninit + CheckedBitPattern> Arguments<A> for InArray<A> {
    fn open(station: &mut Station) -> Result<InArray<A>, Failure> {
        Ok(InArray {
            array: station.array()?,
            first: station.current.input_len as usize,
        })
    }

    #[inline(always)]
    fn take(&mut self, _: &mut Station, item: u32) -> Result<A, Failure> {
        let at = self.first.wrapping_add(item as usize);
        let item = self.array.get(at);
        item.copied()
            .ok_or_else(|| unreadable(truncated(size_of::<A>() as u64, 0)))
    }
}
