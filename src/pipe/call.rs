//! Pipes between unrelated programs: one listens at a name, others connect to it.
//!
//! The listener makes a named queue of calls. Who connects makes a named pipe of its own, has the second end of it
//! and the first one on its way, and sends a call with the pipe's name. The listener opens that pipe, takes
//! the first end, and gives the name up, which nobody needs any more.
//!
//! | killed | what the other sees |
//! |---|---|
//! | the caller, before it is accepted | nothing: the call leads nowhere, and the listener goes on to the next |
//! | the caller, after that | an end whose other end is gone |
//! | the listener, before it accepts | that the queue of calls has no receiver |

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{RecvError, SegmentError, SendError};
use crate::message::Message;
use crate::named;
use crate::queue::{Queue, QueueError, Receiver, Sender};
use crate::roster::{self, Owner};
use crate::segment::{Commit, Segment};
use crate::signal::Patience;
use crate::sync::Ordering;

use super::end::PipeEnd;
use super::error::PipeError;
use super::link::Link;
use super::plan::{Side, lay_out, shape};

/// How many may wait to be accepted.
const CALLERS: u32 = 64;

/// Where a caller's pipe is, and the owner word of the end that is the listener's.
///
/// The types are those of the pipe, so that the queue of calls is of another shape where they differ.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Call<Up, Down> {
    name: String,
    owner: u64,
    _values: PhantomData<fn(Up, Down)>,
}

/// A name at which others connect, each by a pipe of its own; see [`Pipe::listen`](crate::Pipe::listen).
///
/// # If a process dies
///
/// When the listening process ends, the name is free for the next, and those who wait to be accepted are told that
/// it is gone. Pipes that were accepted have nothing to do with the listener any more.
pub struct Listener<Up, Down> {
    calls: Receiver<Call<Up, Down>>,
    /// The most bytes that a message may have, whatever limit a caller has set.
    message_limit: usize,
    /// With this one the queue is never without a sender, so that waiting for one is simply waiting.
    _own: Sender<Call<Up, Down>>,
}

impl<Up: Message, Down: Message> Listener<Up, Down> {
    pub(super) fn new(name: &str, message_limit: usize) -> Result<Listener<Up, Down>, PipeError> {
        let queue = Queue::<Call<Up, Down>>::builder().capacity(16);
        let queue = queue.senders(CALLERS as usize + 1).receivers(1);
        let (own, calls) = queue.create(name).map_err(PipeError::from_queue)?;
        Ok(Listener {
            calls,
            message_limit,
            _own: own,
        })
    }

    /// The end of the next pipe that somebody connects by.
    ///
    /// # Blocking
    ///
    /// Until somebody connects.
    ///
    /// # Errors
    ///
    /// [`PipeError::Evicted`]; in [`PipeError::Segment`]: [`SegmentError::Forked`],
    /// [`SegmentError::TooManyDescriptors`], after which who called is told that the listener is gone.
    ///
    /// [`SegmentError::Forked`]: crate::SegmentError::Forked
    /// [`SegmentError::TooManyDescriptors`]: crate::SegmentError::TooManyDescriptors
    pub fn accept(&mut self) -> Result<PipeEnd<Up, Down>, PipeError> {
        self.accept_until(None)
    }

    /// As [`accept`](Listener::accept), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`PipeError::TimedOut`] when nobody connected in that time, else as [`accept`](Listener::accept).
    pub fn accept_timeout(&mut self, timeout: Duration) -> Result<PipeEnd<Up, Down>, PipeError> {
        self.accept_until(Instant::now().checked_add(timeout))
    }

    fn accept_until(&mut self, deadline: Option<Instant>) -> Result<PipeEnd<Up, Down>, PipeError> {
        loop {
            let call = match deadline {
                None => self.calls.recv(),
                Some(end) => self
                    .calls
                    .recv_timeout(end.saturating_duration_since(Instant::now())),
            };
            let end = match call {
                Ok(call) => answer(
                    &call,
                    self.message_limit,
                    deadline.unwrap_or_else(named::patience),
                )?,
                // What is no call is nobody's.
                Err(RecvError::Decode(_)) => None,
                Err(error) => return Err(PipeError::from_recv(error)),
            };
            match end {
                Some(end) => return Ok(end),
                // However many calls lead nowhere.
                None if deadline.is_some_and(|end| Instant::now() >= end) => {
                    return Err(PipeError::TimedOut);
                }
                None => {}
            }
        }
    }
}

/// Takes the first end of a caller's pipe; `None` if it is gone, is none, or is kept busy until `deadline`.
fn answer<Up: Message, Down: Message>(
    call: &Call<Up, Down>,
    message_limit: usize,
    deadline: Instant,
) -> Result<Option<PipeEnd<Up, Down>>, PipeError> {
    let segment = match named::open(&call.name, deadline) {
        Ok(segment) => segment,
        // What concerns this process is not the caller's fault.
        Err(
            error @ (SegmentError::TooManyDescriptors { .. }
            | SegmentError::NoSpace { .. }
            | SegmentError::Forked
            | SegmentError::Evicted),
        ) => return Err(error.into()),
        Err(_) => return Ok(None),
    };
    let Owner::OnItsWay { tag, .. } = Owner::from_word(call.owner) else {
        return Ok(None);
    };
    if segment.expect(&shape::<Up, Down>(Side::First)).is_err() {
        return Ok(None);
    }
    let Ok(Some(mut link)) = Link::arrive(segment, Side::First, tag) else {
        return Ok(None);
    };
    link.plan.message_limit = link.plan.message_limit.min(message_limit);
    link.segment.hide();
    link.out.ready.notify_all();
    Ok(PipeEnd::over(link).map(Some)?)
}

/// Calls the listener of that name and waits until it answers.
pub(super) fn connect<Up: Message, Down: Message>(
    name: &str,
    bytes: u64,
    message_limit: usize,
    deadline: Option<Instant>,
) -> Result<PipeEnd<Down, Up>, PipeError> {
    let patience = deadline.unwrap_or_else(named::patience);
    let calls = Queue::<Call<Up, Down>>::builder().open_sender(name, patience);
    // With a limit of the caller's, that others are busy is that the time is up.
    let late = |error| match error {
        PipeError::Segment(SegmentError::Busy { .. }) if deadline.is_some() => PipeError::TimedOut,
        error => error,
    };
    let mut calls = calls.map_err(|error| late(PipeError::from_queue(error)))?;
    let called = call::<Up, Down>(name, bytes, message_limit, patience);
    let Waiting { link, away } = called.map_err(late)?;
    let call = Call {
        name: link.segment.name().unwrap_or_default().to_owned(),
        owner: away.word(),
        _values: PhantomData,
    };
    // There is room, unless many have called and given up.
    let sent = match deadline {
        None => calls.send(call),
        Some(end) => calls.send_timeout(call, end.saturating_duration_since(Instant::now())),
    };
    sent.map_err(PipeError::from_send)?;
    let first = &link.out.owner;
    // Edge E, looking end.
    let look = || match Owner::from_word(first.load(Ordering::Acquire)) == away {
        true => Ok(None),
        false => Ok(Some(())),
    };
    let check = |_| match calls.is_closed() {
        true => Err(PipeError::Closed),
        false if link.is_evicted() => Err(PipeError::Evicted),
        false => Ok(None),
    };
    let mut patience = Patience::new();
    let answered = link
        .inn
        .ready
        .wait(&mut patience, deadline, link.deaths, look, check);
    let refusal = match answered {
        Ok(Some(())) => None,
        Ok(None) => Some(PipeError::TimedOut),
        Err(error) => Some(error),
    };
    // Given up only if it is not accepted at this very moment.
    match refusal {
        Some(refusal) if roster::hand_over(first, away, Owner::Free) => Err(refusal),
        _ => Ok(PipeEnd::over(link)?),
    }
}

/// A caller's end, and the other one, which is on its way.
struct Waiting {
    link: Link,
    away: Owner,
}

/// Makes a caller's pipe: the first name that nobody waits at, so that what the dead left is used again.
fn call<Up: Message, Down: Message>(
    name: &str,
    bytes: u64,
    message_limit: usize,
    deadline: Instant,
) -> Result<Waiting, PipeError> {
    let shape = shape::<Up, Down>(Side::First);
    let prepare = |segment: &Segment| {
        let plan = lay_out(segment, message_limit)?;
        let link = Link::take(segment, plan, Side::Second)?;
        let away = Owner::OnItsWay {
            from: link.me(),
            tag: 0,
        };
        link.out.owner.store(away.word(), Ordering::Release);
        Ok(Waiting { link, away })
    };
    for number in 0..CALLERS {
        let name = format!("{name}.{number}");
        match named::create(&name, &shape, bytes, Commit::All, deadline, prepare) {
            Err(SegmentError::AlreadyExists { .. }) => {}
            other => return other.map_err(PipeError::Segment),
        }
    }
    Err(PipeError::TooManyCallers { limit: CALLERS })
}

impl PipeError {
    fn from_queue(error: QueueError) -> PipeError {
        match error {
            QueueError::Segment(SegmentError::Evicted) => PipeError::Evicted,
            QueueError::Segment(error) => PipeError::Segment(error),
            // Who listens has one sender and the only receiver.
            _ => PipeError::TooManyCallers { limit: CALLERS },
        }
    }

    fn from_recv(error: RecvError) -> PipeError {
        match error {
            RecvError::TimedOut => PipeError::TimedOut,
            RecvError::Evicted => PipeError::Evicted,
            RecvError::Forked => PipeError::Segment(SegmentError::Forked),
            RecvError::Corrupt(corrupt) => PipeError::Segment(corrupt.into()),
            _ => PipeError::Closed,
        }
    }

    fn from_send<T>(error: SendError<T>) -> PipeError {
        match error {
            SendError::TimedOut(_) => PipeError::TimedOut,
            SendError::Evicted(_) => PipeError::Evicted,
            SendError::Forked(_) => PipeError::Segment(SegmentError::Forked),
            _ => PipeError::Closed,
        }
    }
}

impl<Up, Down> fmt::Debug for Listener<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
