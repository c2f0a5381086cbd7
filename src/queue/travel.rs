//! Ends inside messages: a lane or a seat is reserved when an end is sent, and taken over where it arrives.
//!
//! | owner word of the lane or seat | when |
//! |---|---|
//! | on its way, from the process that sent it | from the encoding of the message |
//! | held by the process it was sent to | from its decoding |
//! | free | if the message was not sent, or its sender died before it was decoded |
//!
//! On its way it counts as somebody, so nobody sees `Closed` in between. If it was freed before it
//! arrived, the end takes another lane or seat.

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::handle::{self, Ticket};
use crate::message::Message;
use crate::roster::Owner;
use crate::segment::Segment;

use super::error::QueueError;
use super::hub::{Hub, Side};
use super::receiver::Receiver;
use super::sender::Sender;

/// An end on the wire: the queue's segment, and what is reserved in it.
#[derive(Serialize, Deserialize)]
struct Wire<S> {
    segment: S,
    number: u32,
    /// The owner word that says it is on its way.
    owner: u64,
}

/// A segment that is serialized together with what is reserved in it.
struct Going<'a> {
    segment: &'a Segment,
    ticket: Cell<Option<Box<dyn Ticket>>>,
}

impl Serialize for Going<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        handle::serialize(self.segment, self.ticket.take(), serializer)
    }
}

/// A segment that has arrived.
struct Come(Segment);

impl<'de> Deserialize<'de> for Come {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Come, D::Error> {
        handle::deserialize(deserializer).map(Come)
    }
}

/// A lane or a seat reserved for an end on its way; given back if it is dropped before it was handed in.
struct Reserved {
    hub: Hub,
    side: Side,
    number: u32,
    owner: Owner,
}

impl Ticket for Reserved {
    fn undo(&self) {
        self.hub.leave(self.side, self.number, self.owner);
    }
}

/// Tells ends on their way from one process apart, so that none is taken for another.
static TAG: AtomicU32 = AtomicU32::new(0);

fn send<S: Serializer>(hub: &Hub, side: Side, serializer: S) -> Result<S::Ok, S::Error> {
    hub.check_fork().map_err(S::Error::custom)?;
    let tag = TAG.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1);
    let owner = Owner::OnItsWay {
        from: hub.me(),
        tag,
    };
    let number = match side {
        Side::Senders => hub.take_lane(owner),
        Side::Receivers => hub.take_seat(owner),
    };
    let number = number.map_err(S::Error::custom)?;
    let reserved = Reserved {
        hub: hub.clone(),
        side,
        number,
        owner,
    };
    let segment = Going {
        segment: &hub.segment,
        ticket: Cell::new(Some(Box::new(reserved))),
    };
    let sent = Wire {
        segment: &segment,
        number,
        owner: owner.word(),
    }
    .serialize(serializer);
    // Still here: the segment could not be named, so nothing else will give it back.
    if let Some(reserved) = segment.ticket.take() {
        reserved.undo();
    }
    sent
}

/// The queue, and the number of the lane or seat that this process now owns.
fn receive<'de, T: Message, D: Deserializer<'de>>(
    side: Side,
    deserializer: D,
) -> Result<(Hub, u32), D::Error> {
    let Wire {
        segment: Come(segment),
        number,
        owner,
    } = Wire::deserialize(deserializer)?;
    arrive::<T>(segment, side, number, Owner::from_word(owner)).map_err(D::Error::custom)
}

fn arrive<T: Message>(
    segment: Segment,
    side: Side,
    number: u32,
    owner: Owner,
) -> Result<(Hub, u32), QueueError> {
    let hub = Hub::attach::<T>(segment)?;
    let on_its_way = matches!(owner, Owner::OnItsWay { .. });
    let number = match on_its_way && hub.arrive(side, number, owner)? {
        true => number,
        false => match side {
            Side::Senders => hub.take_lane(Owner::Held(hub.me()))?,
            Side::Receivers => hub.take_seat(Owner::Held(hub.me()))?,
        },
    };
    hub.meet();
    Ok((hub, number))
}

/// Attaches another sender, for the process that the message goes to.
impl<T: Message> Serialize for Sender<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        send(self.hub(), Side::Senders, serializer)
    }
}

impl<'de, T: Message> Deserialize<'de> for Sender<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hub, number) = receive::<T, D>(Side::Senders, deserializer)?;
        Sender::in_lane(hub, number).map_err(D::Error::custom)
    }
}

/// Attaches another receiver, for the process that the message goes to.
impl<T: Message> Serialize for Receiver<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        send(self.hub(), Side::Receivers, serializer)
    }
}

impl<'de, T: Message> Deserialize<'de> for Receiver<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (hub, seat) = receive::<T, D>(Side::Receivers, deserializer)?;
        Ok(Receiver::in_seat(hub, seat))
    }
}
