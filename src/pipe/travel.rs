//! Ends inside messages: an end leaves its process when it is encoded, and is another's when it is decoded.
//!
//! | owner word of the end | when |
//! |---|---|
//! | on its way, from the process that sent it | from the encoding of the message |
//! | held by the process it was sent to | from its decoding |
//! | held again by the process that sent it | if the message was not sent, or who was to receive it died before |
//! | free | if it was held again and nobody had it any more; if its sender died before it was decoded, and the other end has seen that |

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{SegmentError, cannot_read, cannot_write};
use crate::handle::{self, Moved, Ticket, Travelling};
use crate::message::Message;
use crate::roster::Owner;

use super::end::PipeEnd;
use super::link::{Away, Link};
use super::plan::{Side, shape};

/// An end on the wire: the pipe's segment, and which of its ends.
#[derive(Serialize, Deserialize)]
struct Wire<S> {
    segment: S,
    second: bool,
    /// The owner word says that it is on its way with this tag.
    tag: u32,
}

impl Ticket for Away {
    fn undo(&self) {
        self.bring_back();
    }

    fn word(&self) -> (u64, Owner) {
        (self.at, self.word)
    }
}

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
        let tag = handle::tag().map_err(cannot_write)?;
        let Some(away) = link.send_away(tag) else {
            return Err(Z::Error::custom(
                "this end has been sent away, or its process was taken for dead",
            ));
        };
        let segment = Moved::new(&link.segment, away);
        Wire {
            segment: &segment,
            second: link.side == Side::Second,
            tag,
        }
        .serialize(serializer)
    }
}

impl<'de, S: Message, R: Message> Deserialize<'de> for PipeEnd<S, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Wire {
            segment: Travelling(segment),
            second,
            tag,
        } = Wire::deserialize(deserializer)?;
        let side = match second {
            false => Side::First,
            true => Side::Second,
        };
        segment.expect(&shape::<S, R>(side)).map_err(cannot_read)?;
        match Link::arrive(segment, side, tag).map_err(cannot_read)? {
            Some(link) => PipeEnd::over(link).map_err(cannot_read),
            None => Err(D::Error::custom(
                "the end was given up: the process that sent it is gone",
            )),
        }
    }
}
