//! How a queue lies in its segment: every size and offset, worked out from seven numbers.
//!
//! Each slot, or each block if there are any, has an *annex* in the segment's tail, where a message lies that does not
//! fit there. An annex has memory from when its sender writes there until the message has been received: that of a
//! block is emptied by whoever holds the block, that of a slot by the sender, since it is the sender's again as soon as
//! the head has passed it.
//!
//! The maker stores the numbers; whoever attaches reads each once, works out everything else as the
//! maker did, and checks the result against the segment's length. Nothing else of the shape is ever read
//! from shared memory.

use std::fmt;

use crate::error::SegmentError;
use crate::layout::{APART, HEADER, LaneHeader, QueueHeader};
use crate::message::{self, Message};
use crate::ring::Geometry;
use crate::segment::Commit;
use crate::sync::Ordering;
use crate::sys;

use super::blocks::MAX_FAILURES;
use super::error::QueueError;

/// Messages in flight per sender, unless asked otherwise.
const CAPACITY: usize = 1024;
/// Messages up to this many bytes lie in the slots themselves.
const INLINE: usize = 256;
/// Set in a message's length word if the message names handles.
pub(super) const CARRIES: u64 = 1 << 63;
/// Set there if the message lies in the annex of its slot or block.
pub(super) const LONG: u64 = 1 << 62;
/// Bytes a message of a type without a fixed size may have, unless asked otherwise.
const LIMIT: usize = 64 << 20;
/// Senders and receivers there may be, unless asked otherwise; and senders where address space is short.
const SENDERS: u32 = 256;
const FEW_SENDERS: u32 = 16;
const RECEIVERS: u32 = 256;
/// Bytes of address space that a queue of so many senders may take.
const ROOMY: u64 = if cfg!(target_pointer_width = "64") {
    16 << 30
} else {
    256 << 20
};
/// Bytes of all annexes of a queue: files can be no longer.
const MAX_TAIL: u64 = if cfg!(target_pointer_width = "64") {
    1 << 60
} else {
    1 << 40
};
/// Receivers that may fail with the same message in their hands, unless asked otherwise.
const DELIVERY_LIMIT: u32 = 16;
/// Memory comes in pages of at least this many bytes.
const PAGE: u64 = 4096;
/// Bytes of a block's two words, in front of the message.
const BLOCK_WORDS: u64 = 16;
/// Messages in blocks are aligned to as many bytes as their type, up to this.
pub(super) const ALIGNED: usize = APART;

pub(super) const MAX_CAPACITY: u64 = 1 << 32;
pub(super) const MAX_MESSAGE: usize = 1 << 40;
pub(super) const MAX_LANES: u32 = 1 << 16;
pub(super) const MAX_SEATS: u32 = 1 << 16;
pub(super) const MAX_BLOCKS: u32 = 1 << 24;

/// What the user asked for; `None` where he did not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wishes {
    pub(super) capacity: Option<usize>,
    pub(super) message_size: Option<usize>,
    pub(super) message_limit: Option<usize>,
    pub(super) senders: Option<usize>,
    pub(super) receivers: Option<usize>,
    pub(super) blocks: Option<usize>,
    pub(super) delivery_limit: Option<usize>,
}

/// Where everything lies. Offsets are of the segment's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) capacity: u64,
    /// Bytes of a message that fits in its slot or block.
    pub(super) message_size: usize,
    /// Bytes a message may have.
    pub(super) message_limit: usize,
    pub(super) lanes: u32,
    pub(super) seats: u32,
    /// Blocks of each lane; 0 if messages lie in the slots.
    pub(super) blocks: u32,
    /// Receivers that may fail with the same message in their hands.
    pub(super) delivery_limit: u32,
    /// Words of a slot.
    stride: usize,
    /// Bytes from one block to the next.
    block: u64,
    /// Bytes from one lane to the next.
    lane: u64,
    /// Offset of the message in its block.
    message_at: u64,
    /// Offset of the first block in its lane.
    blocks_at: u64,
    /// Offset of the first lane.
    lanes_at: u64,
    /// Bytes of the tail in which the message of one slot or block lies that does not fit there; 0 if none may be
    /// longer.
    annex: u64,
}

impl Plan {
    /// The plan for a queue of `T`.
    pub(super) fn new<T: Message>(wishes: Wishes) -> Result<Plan, QueueError> {
        let asked = wishes.capacity.unwrap_or(CAPACITY);
        let capacity = asked as u64;
        if capacity == 0 || capacity > MAX_CAPACITY {
            return Err(QueueError::Capacity {
                asked,
                largest: MAX_CAPACITY,
            });
        }
        let smallest = message::fixed_size::<T>().unwrap_or(0);
        let message_size = wishes.message_size.unwrap_or_else(message::size_hint::<T>);
        if message_size < smallest || message_size > MAX_MESSAGE {
            return Err(QueueError::MessageSize {
                asked: message_size,
                smallest,
                largest: MAX_MESSAGE,
            });
        }
        let within = |asked: Option<usize>, usual: u32, largest: u32| match asked {
            None => Ok(usual),
            Some(asked) => match u32::try_from(asked) {
                Ok(count) if (1..=largest).contains(&count) => Ok(count),
                _ => Err(asked),
            },
        };
        let lanes =
            within(wishes.senders, SENDERS, MAX_LANES).map_err(|asked| QueueError::Senders {
                asked,
                largest: MAX_LANES,
            })?;
        let seats = within(wishes.receivers, RECEIVERS, MAX_SEATS).map_err(|asked| {
            QueueError::Receivers {
                asked,
                largest: MAX_SEATS,
            }
        })?;
        // Large messages lie in blocks, one for each message that may be in flight.
        let usual = match message_size {
            0..=INLINE => 0,
            _ => capacity.min(u64::from(MAX_BLOCKS)) as u32,
        };
        let blocks =
            within(wishes.blocks, usual, MAX_BLOCKS).map_err(|asked| QueueError::Blocks {
                asked,
                largest: MAX_BLOCKS,
            })?;
        let delivery_limit =
            within(wishes.delivery_limit, DELIVERY_LIMIT, MAX_FAILURES).map_err(|asked| {
                QueueError::DeliveryLimit {
                    asked,
                    largest: MAX_FAILURES,
                }
            })?;
        let lay_out = |lanes| Plan::lay_out::<T>(capacity, message_size, lanes, seats, blocks);
        let mut plan = lay_out(lanes);
        if wishes.senders.is_none() {
            let roomy = sys::longest_file().map_or(ROOMY, |longest| longest.min(ROOMY));
            let is_large = |plan: &Plan| plan.bytes() > roomy && plan.lanes > FEW_SENDERS;
            if plan.as_ref().is_none_or(is_large) {
                plan = lay_out(FEW_SENDERS);
            }
        }
        let no_space = SegmentError::NoSpace { needed: u64::MAX };
        let plan = plan.ok_or(no_space)?;
        let message_limit = plan.limit::<T>(wishes)?;
        Ok(Plan {
            delivery_limit,
            ..plan.with_limit(message_limit)
        })
    }

    /// Bytes a message may have.
    fn limit<T: Message>(&self, wishes: Wishes) -> Result<usize, QueueError> {
        if message::fixed_size::<T>().is_some() {
            return Ok(self.message_size);
        }
        let room = sys::longest_file().map_or(MAX_TAIL, |longest| {
            MAX_TAIL.min(longest.saturating_sub(self.bytes() + HEADER as u64))
        });
        let annex = room / u64::from(self.lanes) / self.annexes();
        let largest = usize::try_from(annex - annex % PAGE).map_or(MAX_MESSAGE, |annex| {
            annex.clamp(self.message_size, MAX_MESSAGE)
        });
        match wishes.message_limit {
            Some(asked) if asked < self.message_size || asked > largest => {
                Err(QueueError::MessageLimit {
                    asked,
                    smallest: self.message_size,
                    largest,
                })
            }
            Some(asked) => Ok(asked),
            // Whoever says what room there is wants to take no more.
            None if wishes.message_size.or(wishes.blocks).is_some() => Ok(self.message_size),
            None => Ok(LIMIT.max(self.message_size).min(largest)),
        }
    }

    /// The same for messages of at most so many bytes.
    fn with_limit(self, message_limit: usize) -> Plan {
        let annex = match message_limit > self.message_size {
            true => (message_limit as u64).next_multiple_of(PAGE),
            false => 0,
        };
        Plan {
            message_limit,
            annex,
            ..self
        }
    }

    /// The plan of a queue that exists, from its header; `None` if no queue has such numbers.
    pub(super) fn read<T: Message>(header: &QueueHeader, length: u64, tail: u64) -> Option<Plan> {
        let capacity = header.capacity.load(Ordering::Relaxed);
        let message_size = header.message_size.load(Ordering::Relaxed);
        let lanes = header.lanes.load(Ordering::Relaxed);
        let seats = header.seats.load(Ordering::Relaxed);
        let blocks = header.blocks.load(Ordering::Relaxed);
        let delivery_limit = header.delivery_limit.load(Ordering::Relaxed);
        let message_size = usize::try_from(message_size).ok()?;
        let message_limit = header.message_limit.load(Ordering::Relaxed);
        let message_limit = usize::try_from(message_limit).ok()?;
        let possible = (1..=MAX_CAPACITY).contains(&capacity)
            && (message::fixed_size::<T>().unwrap_or(0)..=MAX_MESSAGE).contains(&message_size)
            && (message_size..=MAX_MESSAGE).contains(&message_limit)
            && (1..=MAX_LANES).contains(&lanes)
            && (1..=MAX_SEATS).contains(&seats)
            && (1..=MAX_FAILURES).contains(&delivery_limit)
            && blocks <= MAX_BLOCKS
            && (blocks > 0 || message_size <= INLINE);
        let plan = Plan::lay_out::<T>(capacity, message_size, lanes, seats, blocks)?;
        let plan = Plan {
            delivery_limit,
            ..plan.with_limit(message_limit)
        };
        (possible && plan.bytes() == length && plan.tail() == Some(tail)).then_some(plan)
    }

    /// Refuses the plan of a queue that exists if something else was asked for.
    pub(super) fn check<T: Message>(&self, wishes: Wishes) -> Result<(), QueueError> {
        let there = Wishes {
            capacity: Some(self.capacity as usize),
            message_size: Some(self.message_size),
            message_limit: None,
            senders: Some(self.lanes as usize),
            receivers: Some(self.seats as usize),
            blocks: (self.blocks > 0).then_some(self.blocks as usize),
            delivery_limit: Some(self.delivery_limit as usize),
        };
        let wanted = Plan::new::<T>(Wishes {
            capacity: wishes.capacity.or(there.capacity),
            message_size: wishes.message_size.or(there.message_size),
            message_limit: None,
            senders: wishes.senders.or(there.senders),
            receivers: wishes.receivers.or(there.receivers),
            blocks: wishes.blocks.or(there.blocks),
            delivery_limit: wishes.delivery_limit.or(there.delivery_limit),
        })?;
        // Not as `new` does it: how long files of this process may be has nothing to say here.
        let wanted = wanted.with_limit(match wishes.message_limit {
            Some(limit) if message::fixed_size::<T>().is_none() => limit,
            _ if wanted.message_size == self.message_size => self.message_limit,
            _ => wanted.message_limit,
        });
        if wanted == *self {
            return Ok(());
        }
        Err(QueueError::Segment(SegmentError::WrongShape {
            found: self.to_string(),
            wanted: wanted.to_string(),
        }))
    }

    /// Stores the numbers from which [`read`](Plan::read) works out the plan.
    pub(super) fn write(&self, header: &QueueHeader) {
        header.capacity.store(self.capacity, Ordering::Relaxed);
        header
            .message_size
            .store(self.message_size as u64, Ordering::Relaxed);
        header
            .message_limit
            .store(self.message_limit as u64, Ordering::Relaxed);
        header.lanes.store(self.lanes, Ordering::Relaxed);
        header.seats.store(self.seats, Ordering::Relaxed);
        header.blocks.store(self.blocks, Ordering::Relaxed);
        header
            .delivery_limit
            .store(self.delivery_limit, Ordering::Relaxed);
    }

    /// `None` if it would not fit into any memory.
    fn lay_out<T: Message>(
        capacity: u64,
        message_size: usize,
        lanes: u32,
        seats: u32,
        blocks: u32,
    ) -> Option<Plan> {
        let payload = message_size.div_ceil(8);
        let stride = match (blocks, message::fixed_size::<T>()) {
            (0, Some(_)) => 1 + payload,
            (0, None) => 2 + payload,
            _ => 2,
        };
        let in_flight = match blocks {
            0 => capacity,
            blocks => capacity.min(u64::from(blocks)),
        };
        let slots = in_flight
            .checked_next_power_of_two()?
            .checked_mul(stride as u64 * 8)?;
        // The words and the first bytes of the message share a cache line, unless the type's alignment forbids.
        let message_at = BLOCK_WORDS.max(align_of::<T>().min(ALIGNED) as u64);
        let block = (message_size as u64)
            .checked_add(message_at)?
            .checked_next_multiple_of(APART as u64)?;
        let blocks_at = (size_of::<LaneHeader>() as u64)
            .checked_add(slots)?
            .checked_next_multiple_of(APART as u64)?;
        let lane = blocks_at
            .checked_add(block.checked_mul(u64::from(blocks))?)?
            .checked_next_multiple_of(PAGE)?;
        // Lanes start on pages, so that each can be allocated alone; the body starts behind the header.
        let seats_end = size_of::<QueueHeader>() as u64 + 16 * u64::from(seats);
        let lanes_at = (HEADER as u64 + seats_end).next_multiple_of(PAGE) - HEADER as u64;
        lane.checked_mul(u64::from(lanes))?
            .checked_add(lanes_at)
            .filter(|bytes| *bytes <= isize::MAX as u64)?;
        Some(Plan {
            capacity,
            message_size,
            message_limit: message_size,
            lanes,
            seats,
            blocks,
            delivery_limit: DELIVERY_LIMIT,
            stride,
            block,
            lane,
            message_at,
            blocks_at,
            lanes_at,
            annex: 0,
        })
    }

    pub(super) fn geometry(&self) -> Geometry {
        Geometry {
            capacity: self.in_flight(),
            stride: self.stride,
        }
    }

    /// Messages a lane holds at most: as many as were asked for, and as there are blocks for.
    pub(super) fn in_flight(&self) -> u64 {
        match self.blocks {
            0 => self.capacity,
            blocks => self.capacity.min(u64::from(blocks)),
        }
    }

    /// Bytes of the whole body.
    pub(super) fn bytes(&self) -> u64 {
        self.lanes_at + self.lane * u64::from(self.lanes)
    }

    /// Annexes of a lane: one for each slot, or each block.
    pub(super) fn annexes(&self) -> u64 {
        match self.blocks {
            0 => self.capacity.next_power_of_two(),
            blocks => u64::from(blocks),
        }
    }

    /// Bytes of an annex.
    pub(super) fn annex(&self) -> u64 {
        self.annex
    }

    /// The annex of the slot at a position.
    pub(super) fn annex_of(&self, position: u64) -> u64 {
        position & (self.annexes() - 1)
    }

    /// Offset of an annex in the tail.
    pub(super) fn annex_at(&self, lane: u32, index: u64) -> u64 {
        (u64::from(lane) * self.annexes() + index) * self.annex
    }

    /// Bytes of the tail; `None` if no file is that long.
    fn tail(&self) -> Option<u64> {
        let annexes = u64::from(self.lanes).checked_mul(self.annexes())?;
        let bytes = annexes.checked_mul(self.annex)?;
        (bytes <= MAX_TAIL).then_some(bytes)
    }

    /// What has memory from the start, and how long the tail is.
    pub(super) fn commit(&self) -> Commit {
        Commit::First {
            bytes: self.front(),
            tail: self.tail().unwrap_or(0),
        }
    }

    /// Bytes in front of the lanes.
    pub(super) fn front(&self) -> u64 {
        self.lanes_at
    }

    pub(super) fn seats_at(&self) -> u64 {
        size_of::<QueueHeader>() as u64
    }

    /// Offset of the seats' hands: whether the receiver of each has a message in hand that names handles.
    pub(super) fn hands_at(&self) -> u64 {
        self.seats_at() + 8 * u64::from(self.seats)
    }

    /// Offset and bytes of a lane.
    pub(super) fn lane(&self, lane: u32) -> (u64, u64) {
        (self.lanes_at + self.lane * u64::from(lane), self.lane)
    }

    /// Offset, within its lane, of the slots.
    pub(super) fn slots_at(&self) -> u64 {
        size_of::<LaneHeader>() as u64
    }

    /// Offset, within its lane, of the blocks, and their bytes together.
    pub(super) fn blocks(&self) -> (u64, u64) {
        (self.blocks_at, self.block * u64::from(self.blocks))
    }

    /// Offset of a block among the blocks of its lane.
    #[inline]
    pub(super) fn block_at(&self, block: u32) -> usize {
        (self.block * u64::from(block)) as usize
    }

    /// Offset of the message in a block among the blocks of its lane.
    #[inline]
    pub(super) fn message_at(&self, block: u32) -> usize {
        self.block_at(block) + self.message_at as usize
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan {
            capacity,
            message_size,
            message_limit,
            lanes,
            seats,
            blocks,
            delivery_limit,
            ..
        } = self;
        write!(
            f,
            "a queue of capacity {capacity}, message size {message_size}, {lanes} senders, {seats} receivers"
        )?;
        if message_limit > message_size {
            write!(f, ", message limit {message_limit}")?;
        }
        match blocks {
            0 => Ok(()),
            _ => write!(f, ", in place with {blocks} blocks"),
        }?;
        match *delivery_limit {
            DELIVERY_LIMIT => Ok(()),
            limit => write!(f, ", delivery limit {limit}"),
        }
    }
}
