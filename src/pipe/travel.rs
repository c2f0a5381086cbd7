//! Ends inside messages: an end leaves its process when it is encoded, and is another's when it is decoded.
//!
//! | owner word of the end | when |
//! |---|---|
//! | on its way, from the process that sent it | from the encoding of the message |
//! | held by the process it was sent to | from its decoding |
//! | held again by the process that sent it | if the message was not sent and the end is still there |
//! | free | if the message was not sent and the end was dropped meanwhile |
//! | free | if its sender died before it was decoded, and the other end has seen that |

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::SegmentError;
use crate::handle::{self, Ticket};
use crate::layout::StreamHeader;
use crate::message::Message;
use crate::roster::{self, Life, Owner};
use crate::segment::{Segment, View};
use crate::sync;

use super::end::PipeEnd;
use super::link::{Link, let_go};
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

/// An end on its way; held again by whoever sent it if the message was not sent, or free if it is held no more.
struct Back {
    /// Where the end's owner word is.
    inn: View<StreamHeader>,
    out: View<StreamHeader>,
    gone: Arc<AtomicBool>,
    away: Owner,
    me: Owner,
}

impl Ticket for Back {
    fn undo(&self) {
        // Edge E, both ends.
        if roster::hand_over(&self.inn.owner, self.away, self.me) {
            // See `Link::leave`.
            sync::fence();
            if self.gone.load(Ordering::Relaxed) {
                let_go(&self.inn, &self.out, self.me);
            }
        }
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
        let me = link.segment.life().me();
        let away = Owner::OnItsWay {
            from: me,
            tag: TAG.fetch_add(1, Ordering::Relaxed) & (u32::MAX >> 1),
        };
        let back = Back {
            inn: link.inn.clone(),
            out: link.out.clone(),
            gone: Arc::clone(&link.gone),
            away,
            me: Owner::Held(me),
        };
        // Edge E, giving end: where this end is, is said.
        if !roster::hand_over(&back.inn.owner, back.me, away) {
            return Err(Z::Error::custom("this end has been sent away already"));
        }
        let segment = Going {
            segment: &link.segment,
            ticket: Cell::new(Some(Box::new(back))),
        };
        let sent = Wire {
            segment: &segment,
            second: link.side == Side::Second,
            owner: away.word(),
        }
        .serialize(serializer);
        // Still here: the segment could not be named, so nothing else will bring the end back.
        if let Some(back) = segment.ticket.take() {
            back.undo();
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
