//! Ends inside messages: an end takes its own lane or seat along, and is another process's when it is decoded.
//!
//! | owner word of the lane or seat | when |
//! |---|---|
//! | on its way, from the process that sent it | from the encoding of the message |
//! | held by the process it was sent to | from its decoding |
//! | held again by the process that sent it | if the message was not sent |
//! | free | if the message is over and nobody has taken the end, or whoever answers for it is dead |
//!
//! On its way it counts as somebody, so nobody sees `Closed` in between, and the limits of senders and receivers count
//! ends that exist. If it was freed before it arrived, or has been taken by a decoding before, the end takes
//! another lane or seat.
//!
//! What is kept for any number of processes (arguments of a pool's initializer, a context) reserves a lane or a seat
//! *more*, which stays on its way as long as it is kept: so the pool counts as somebody who has the end. Whoever
//! decodes it attaches another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{cannot_read, cannot_write};
use crate::handle::{self, Moved, Ticket, Travelling};
use crate::message::Message;
use crate::roster::Owner;
use crate::segment::Segment;

use super::error::QueueError;
use super::hub::{Hub, Side};
use super::receiver::Receiver;
use super::sender::Sender;

/// An end on the wire: the queue's segment, and what is on its way in it.
#[derive(Serialize, Deserialize)]
struct Wire<S> {
    segment: S,
    /// The lane or seat, and the tag that its owner word has; none if another one is to be attached.
    moved: Option<(u32, u32)>,
}

const AWAY: u32 = 1;
const DROPPED: u32 = 2;

/// Whether an end that was moved is here, shared with what may bring it back. As the pipe's edge K: who brings it back
/// says first in the owner word that it is here, who drops it looks there afterwards, and of the two the later
/// lets go of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Whereabouts(Arc<AtomicU32>);

impl Whereabouts {
    pub(super) fn is_away(&self) -> bool {
        self.0.load(Ordering::Relaxed) & AWAY != 0
    }

    /// Marks the end as dropped; whether it is to be let go of.
    pub(super) fn drop_here(&self) -> bool {
        self.0.fetch_or(DROPPED, Ordering::AcqRel) & AWAY == 0
    }

    /// The end is here again; false if it has been dropped meanwhile.
    fn come_back(&self) -> bool {
        self.0.fetch_and(!AWAY, Ordering::AcqRel) & DROPPED == 0
    }
}

/// A lane or a seat on its way.
struct Reserved {
    hub: Hub,
    side: Side,
    number: u32,
    owner: Owner,
    /// Of an end that was moved; one more that is kept has none.
    whereabouts: Option<Whereabouts>,
}

impl Ticket for Reserved {
    fn undo(&self) {
        let (hub, side, number) = (&self.hub, self.side, self.number);
        let Some(whereabouts) = &self.whereabouts else {
            return hub.leave(side, number, self.owner);
        };
        let me = Owner::Held(hub.me());
        if hub.hand_over(side, number, self.owner, me) && !whereabouts.come_back() {
            hub.leave(side, number, me);
        }
    }

    fn word(&self) -> (u64, Owner) {
        (self.hub.owner_at(self.side, self.number), self.owner)
    }
}

fn send<S: Serializer>(
    hub: &Hub,
    side: Side,
    number: u32,
    whereabouts: &Whereabouts,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    hub.check_fork().map_err(cannot_write)?;
    let tag = handle::tag().map_err(cannot_write)?;
    let owner = Owner::OnItsWay {
        from: hub.me(),
        tag,
    };
    let moves = handle::moves();
    let number = match (moves, side) {
        (false, Side::Senders) => hub.take_lane(owner).map_err(cannot_write)?,
        (false, Side::Receivers) => hub.take_seat(owner).map_err(cannot_write)?,
        (true, _) => {
            let is_here = !whereabouts.is_away();
            if !(is_here && hub.hand_over(side, number, Owner::Held(hub.me()), owner)) {
                return Err(S::Error::custom(
                    "this end has been sent away, or its process was taken for dead",
                ));
            }
            whereabouts.0.fetch_or(AWAY, Ordering::Relaxed);
            number
        }
    };
    let reserved = Reserved {
        hub: hub.clone(),
        side,
        number,
        owner,
        whereabouts: moves.then(|| whereabouts.clone()),
    };
    let segment = Moved::new(&hub.segment, reserved);
    Wire {
        segment: &segment,
        moved: moves.then_some((number, tag)),
    }
    .serialize(serializer)
}

/// The queue, and the number of the lane or seat that this process now owns.
fn receive<'de, T: Message, D: Deserializer<'de>>(
    side: Side,
    deserializer: D,
) -> Result<(Hub, u32), D::Error> {
    let Wire {
        segment: Travelling(segment),
        moved,
    } = Wire::deserialize(deserializer)?;
    arrive::<T>(segment, side, moved).map_err(cannot_read)
}

fn arrive<T: Message>(
    segment: Segment,
    side: Side,
    moved: Option<(u32, u32)>,
) -> Result<(Hub, u32), QueueError> {
    let hub = Hub::attach::<T>(segment)?;
    let arrived = match moved {
        Some((number, tag)) => hub.arrive(side, number, tag)?.then_some(number),
        None => None,
    };
    let number = match arrived {
        Some(number) => number,
        None => match side {
            Side::Senders => hub.take_lane(Owner::Held(hub.me()))?,
            Side::Receivers => hub.take_seat(Owner::Held(hub.me()))?,
        },
    };
    hub.meet();
    Ok((hub, number))
}

/// Moves the sender, with its lane, to the process that the message goes to; if the message is not sent, it is here
/// as before.
///
/// Among the arguments of a pool's initializer, and in a [`Pool::with`](crate::Pool::with), it stays here, and each
/// worker attaches another one.
impl<T: Message> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (number, whereabouts) = self.place();
        send(self.hub(), Side::Senders, number, whereabouts, serializer)
    }
}

impl<'de, T: Message> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hub, number) = receive::<T, D>(Side::Senders, deserializer)?;
        Sender::in_lane(hub, number).map_err(cannot_read)
    }
}

/// Moves the receiver to the process that the message goes to; as for a sender.
impl<T: Message> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (number, whereabouts) = self.place();
        send(self.hub(), Side::Receivers, number, whereabouts, serializer)
    }
}

impl<'de, T: Message> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hub, seat) = receive::<T, D>(Side::Receivers, deserializer)?;
        Ok(Receiver::in_seat(hub, seat))
    }
}
