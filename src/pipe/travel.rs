//! Ends inside messages: an end leaves its process when it is encoded, and is another's when it is decoded.
//!
//! | owner word of the end | when |
//! |---|---|
//! | on its way, from the process that sent it | from the encoding of the message |
//! | held by the process it was sent to | from its decoding |
//! | held again by the process that sent it | if the message was not sent, or who was to receive it died before |
//! | free | if it was held again and nobody had it any more; if its sender died before it was decoded, and the other end has seen that |

use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::SegmentError;
use crate::handle::{self, Ticket};
use crate::message::Message;
use crate::roster::Owner;
use crate::segment::Segment;

use super::end::PipeEnd;
use super::link::{Away, Link};
use super::plan::{Side, shape};

/// An end on the wire: the pipe's segment, and which of its ends.
#[derive(Serialize, Deserialize)]
struct Wire<S> {
    segment: S,
    second: bool,
    /// The owner word that says it is on its way.
    owner: u64,
}

/// A segment that is serialized together with what brings the end back if it is not sent.
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

impl Ticket for Away {
    fn undo(&self) {
        self.bring_back();
    }
}

/// Tells ends on their way from one process apart.
static TAG: AtomicU32 = AtomicU32::new(0);

/// Sends this end away: it is the receiving process's from then on.
impl<S: Message, R: Message> Serialize for PipeEnd<S, R> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        if crate::kin::forked() {
            return Err(Z::Error::custom(SegmentError::Forked));
        }
        let link = self.park().map_err(Z::Error::custom)?;
        if link.segment.is_named() {
            // Its name is given up, so nobody could find it.
            return Err(Z::Error::custom(
                "an end that was connected by a name stays in its process",
            ));
        }
        let tag = TAG.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1);
        let Some(away) = link.send_away(tag) else {
            return Err(Z::Error::custom(
                "this end has been sent away, or its process was taken for dead",
            ));
        };
        let owner = away.word.word();
        let segment = Going {
            segment: &link.segment,
            ticket: Cell::new(Some(Box::new(away))),
        };
        let sent = Wire {
            segment: &segment,
            second: link.side == Side::Second,
            owner,
        }
        .serialize(serializer);
        // Still here: the segment could not be named, so nothing else will bring the end back.
        if let Some(away) = segment.ticket.take() {
            away.undo();
        }
        sent
    }
}

impl<'de, S: Message, R: Message> Deserialize<'de> for PipeEnd<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire {
            segment: Come(segment),
            second,
            owner,
        } = Wire::deserialize(deserializer)?;
        let side = match second {
            false => Side::First,
            true => Side::Second,
        };
        segment
            .expect(&shape::<S, R>(side))
            .map_err(D::Error::custom)?;
        let away = Owner::from_word(owner);
        if !matches!(away, Owner::OnItsWay { .. }) {
            return Err(D::Error::custom("an end that is not on its way"));
        }
        match Link::arrive(segment, side, away).map_err(D::Error::custom)? {
            Some(link) => PipeEnd::over(link).map_err(D::Error::custom),
            None => Err(D::Error::custom(
                "the end was given up: the process that sent it is gone",
            )),
        }
    }
}
