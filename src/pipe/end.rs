//! What users hold: one end of a pipe.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crate::error::{RecvError, SegmentError, SendError};
use crate::handle::{self, Time};
use crate::kin;
use crate::message::{self, Message};
use crate::segment::Bytes;
use crate::stream::{Bulk, Lines, SMALL};
use crate::sync::Ordering;

use super::Waiting;
use super::inlet::Inlet;
use super::link::{Bar, Link};
use super::outlet::{Direct, Outlet, Small, Word};

/// More than a small message has.
const LARGER: usize = SMALL + 1;
/// Looks, at a thousand pieces each, with which `is_closed` clears away what a dead writer had begun.
const PIECES: usize = 64;

/// One end of a [`Pipe`](crate::Pipe): sends `S`, receives `R`.
///
/// Messages larger than the pipe's memory, up to its
/// [`message_limit`](crate::PipeBuilder::message_limit), stream through it while the other end
/// receives them. Values and byte strings may be mixed: a value's message is its bytes.
///
/// # If a process dies
///
/// What the other end had sent is received, then every call says `Closed`. A message that was being sent is
/// received whole or not at all.
#[doc(alias = "Connection")]
pub struct PipeEnd<S, R> {
    link: Link,
    outlet: Outlet,
    inlet: Inlet,
    /// What had been sent when something was last waited for.
    said: u64,
    _values: PhantomData<fn(S) -> R>,
}

impl<S: Message, R: Message> PipeEnd<S, R> {
    /// The end that a link is of.
    pub(super) fn over(link: Link) -> Result<PipeEnd<S, R>, SegmentError> {
        Ok(PipeEnd {
            outlet: Outlet::over(&link)?,
            inlet: Inlet::over(&link)?,
            link,
            said: 0,
            _values: PhantomData,
        })
    }

    /// Sends a value; waits while there is no room.
    ///
    /// # Blocking
    ///
    /// Until the other end has received enough, or is gone.
    ///
    /// # Errors
    ///
    /// The value comes back in [`SendError::Closed`] when the other end is gone: dropped, exited or
    /// killed; in [`SendError::TooLarge`] when it has more bytes than the pipe's
    /// [`message_limit`](crate::PipeBuilder::message_limit); in [`SendError::Encode`] when it
    /// cannot be a message.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::Pipe;
    /// let (mut a, mut b) = Pipe::<String, ()>::new()?;
    /// a.send("hello".to_string())?;
    /// assert_eq!(b.recv()?, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn send(&mut self, value: S) -> Result<(), SendError<S>> {
        self.send_within(value, || Waiting::Until(None))
    }

    /// Sends a value if there is room for all of it now.
    ///
    /// To call it again and again until there is room takes the other end's attention away from receiving;
    /// [`send`](PipeEnd::send) waits without that.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when there is no room; [`SendError::TooLarge`] also when the message is
    /// larger than the pipe's memory and can only stream through it; else as
    /// [`send`](PipeEnd::send).
    #[inline]
    pub fn try_send(&mut self, value: S) -> Result<(), SendError<S>> {
        let time = Time::AtMost(Duration::ZERO);
        message::in_time::<S, _>(time, || self.send_within(value, || Waiting::Not))
    }

    /// Sends a value; waits at most `timeout` for room.
    ///
    /// If the time is up in the middle of a message, all of it is taken back: the other end never sees any of it.
    ///
    /// # Errors
    ///
    /// [`SendError::TimedOut`] when there was no room in that time, else as [`send`](PipeEnd::send).
    #[inline]
    pub fn send_timeout(&mut self, value: S, timeout: Duration) -> Result<(), SendError<S>> {
        message::in_time::<S, _>(Time::AtMost(timeout), || {
            self.send_within(value, || Waiting::at_most(timeout))
        })
    }

    /// Sends a string of bytes as one message; waits while there is no room.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] when the other end is gone, [`SendError::TooLarge`] when there are
    /// more bytes than the pipe's [`message_limit`](crate::PipeBuilder::message_limit).
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError<()>> {
        let waiting = Waiting::Until(None);
        let Self { outlet, link, .. } = self;
        let clear = outlet.clear(link, waiting);
        clear
            .and_then(|()| outlet.send(link, bytes, waiting))
            .map_err(|refusal| refusal.of(()))
    }

    /// Receives a value; waits while there is none.
    ///
    /// # Blocking
    ///
    /// Until a value is there, or the other end is gone.
    ///
    /// # Errors
    ///
    /// [`RecvError::Closed`] when the other end is gone (dropped, exited or killed) and all it sent
    /// has been received; [`RecvError::Decode`] when a message was not a value of the type: it is
    /// gone, the next call goes on behind it; [`RecvError::TooLarge`] when a message has more bytes
    /// than the pipe's [`message_limit`](crate::PipeBuilder::message_limit), which a sender of this
    /// crate never sends: it is told once, and what there is of that message is thrown away as it
    /// comes.
    ///
    /// # Panics
    ///
    /// If the type's own `Deserialize` does: that message is gone, the next call goes on behind it.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Pipe, RecvError};
    /// let (mut a, mut b) = Pipe::<u64, ()>::new()?;
    /// a.send(1)?;
    /// drop(a);
    /// assert_eq!(b.recv(), Ok(1));
    /// assert_eq!(b.recv(), Err(RecvError::Closed));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn recv(&mut self) -> Result<R, RecvError> {
        match self.take_here() {
            Some(found) => found,
            None => self.receive(Waiting::Until(None)),
        }
    }

    /// Receives a value if there is one now.
    ///
    /// Of a message larger than the pipe's memory, each call takes what is there; the value comes with its end.
    ///
    /// # Errors
    ///
    /// [`RecvError::Empty`] when there is none, else as [`recv`](PipeEnd::recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<R, RecvError> {
        match self.take_here_in(Duration::ZERO) {
            Some(found) => found,
            None => self.receive(Waiting::Not),
        }
    }

    /// Receives a value; waits at most `timeout` for one.
    ///
    /// If the time is up in the middle of a message, what is there is kept, and a later call goes on with it.
    ///
    /// # Errors
    ///
    /// [`RecvError::TimedOut`] when there was none in that time, else as [`recv`](PipeEnd::recv).
    #[inline]
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<R, RecvError> {
        match self.take_here_in(timeout) {
            Some(found) => found,
            None => self.receive(Waiting::at_most(timeout)),
        }
    }

    /// Waits at most `timeout` until a receiving call would not have to wait: a message is here, or the other end
    /// is gone.
    ///
    /// # Errors
    ///
    /// What a receiving call would say, but for the two above.
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::Pipe;
    /// # use std::time::Duration;
    /// let (mut a, mut b) = Pipe::<u64, ()>::new()?;
    /// assert!(!b.poll(Duration::ZERO)?);
    /// a.send(1)?;
    /// assert!(b.poll(Duration::ZERO)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn poll(&mut self, timeout: Duration) -> Result<bool, RecvError> {
        let waiting = match timeout.is_zero() {
            true => Waiting::Not,
            false => Waiting::at_most(timeout),
        };
        match self.fetch(waiting) {
            Ok(()) | Err(RecvError::Closed) => Ok(true),
            Err(RecvError::Empty | RecvError::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Receives a message as a string of bytes; waits while there is none.
    ///
    /// # Errors
    ///
    /// As [`recv`](PipeEnd::recv), but any message will do.
    pub fn recv_bytes(&mut self) -> Result<Vec<u8>, RecvError> {
        self.fetch(Waiting::Until(None))?;
        let message = self.inlet.take_message();
        self.decoded();
        Ok(message)
    }

    /// Receives a message into `buffer` and returns how many bytes it has; waits while there is none.
    ///
    /// The fastest way to receive large messages: nothing is allocated, and nothing copied twice. What lies
    /// in `buffer` behind the message, or after an error, is not defined.
    ///
    /// # Errors
    ///
    /// [`RecvError::TooSmall`] with the size that is needed when the message does not fit: it is kept, for this or
    /// any other receiving call. Else as [`recv_bytes`](PipeEnd::recv_bytes).
    ///
    /// # Examples
    ///
    /// ```
    /// # use multiproc::{Pipe, RecvError};
    /// let (mut a, mut b) = Pipe::<(), ()>::new()?;
    /// a.send_bytes(b"hello")?;
    /// let mut buffer = [0; 8];
    /// let too_small = RecvError::TooSmall { needed: 5, given: 2 };
    /// assert_eq!(b.recv_bytes_into(&mut buffer[..2]), Err(too_small));
    /// assert_eq!(b.recv_bytes_into(&mut buffer), Ok(5));
    /// assert_eq!(&buffer[..5], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn recv_bytes_into(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        let spoke = self.listen()?;
        self.inlet.fetch_into(&mut self.link, buffer, spoke)
    }

    /// Whether every further call on this end fails with `Closed`: the other end is gone (dropped, exited or
    /// killed), and everything it sent has been received.
    ///
    /// False may be outdated at once; true stays true. As for the ends of a queue: see
    /// [`Receiver::is_closed`](crate::Receiver::is_closed).
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Pipe;
    ///
    /// let (mut a, mut b) = Pipe::<u64, u64>::new()?;
    /// a.send(1)?;
    /// drop(a);
    /// assert!(!b.is_closed());
    /// assert_eq!(b.recv(), Ok(1));
    /// assert!(b.is_closed());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_closed(&mut self) -> bool {
        // Each round takes in a piece of a message that is not whole, if there is one. Of a dead writer's, such
        // pieces are in the way of the end; a living one's are not looked at.
        for _ in 0..PIECES {
            match self.fetch(Waiting::Not) {
                Err(RecvError::Closed) => return true,
                Err(RecvError::Empty) if self.link.ask() => {}
                _ => return false,
            }
        }
        false
    }

    #[inline(always)]
    fn send_within(
        &mut self,
        value: S,
        waiting: impl FnOnce() -> Waiting,
    ) -> Result<(), SendError<S>> {
        let Self { outlet, link, .. } = self;
        // What a type of fixed size needs is known when compiling.
        let written = match message::fixed_size::<S>() {
            Some(size @ 1..=8) => {
                let mut word = Word::default();
                match message::encode(&value, &mut word) {
                    Ok(_) if word.is_whole(size) && outlet.put_word(link, word.bits(), size) => {
                        Ok(())
                    }
                    Ok(_) => return self.send_slowly(value, waiting()),
                    Err(error) => Err(error),
                }
            }
            Some(9..=SMALL) if outlet.is_clear(link, 2) => {
                let mut small = Small::default();
                message::encode(&value, &mut small).map(|_| outlet.put_small(link, &small))
            }
            Some(size @ (LARGER..=Lines::LEAST_PIECE))
                if outlet.is_clear(link, Lines::run_ahead(size)) =>
            {
                let mut direct = Direct::new(outlet, link, size);
                match message::encode(&value, &mut direct) {
                    Ok(_) if direct.is_whole() => {
                        outlet.publish_run(link, size);
                        Ok(())
                    }
                    // Its `Serialize` wrote it in several parts.
                    Ok(_) => return self.send_slowly(value, waiting()),
                    Err(error) => Err(error),
                }
            }
            _ => return self.send_slowly(value, waiting()),
        };
        written.map_err(|error| SendError::Encode { value, error })
    }

    #[inline(never)]
    fn send_slowly(&mut self, value: S, waiting: Waiting) -> Result<(), SendError<S>> {
        let Self { outlet, link, .. } = self;
        let clear = outlet.clear(link, waiting);
        match clear.and_then(|()| outlet.send_value(link, &value, waiting)) {
            Ok(()) => Ok(()),
            Err(refusal) => Err(refusal.of(value)),
        }
    }

    /// The next value, if it is here and small.
    #[inline(always)]
    fn take_here(&mut self) -> Option<Result<R, RecvError>> {
        if !self.link.is_here() || !self.inlet.is_clean() {
            return None;
        }
        match message::fixed_size::<R>() {
            Some(size @ 1..=8) => {
                let word = self.inlet.take_word(&self.link, size)?;
                Some(message::decode(&word.to_ne_bytes()[..size]).map_err(RecvError::Decode))
            }
            Some(size @ LARGER..=64) => self.take_run::<64>(size),
            Some(size @ LARGER..=128) => self.take_run::<128>(size),
            Some(size @ LARGER..=256) => self.take_run::<256>(size),
            _ => {
                let is_named = self.link.segment.is_named();
                let found = self
                    .inlet
                    .take_small(&self.link, |bytes| decode(is_named, bytes))?;
                self.decoded();
                Some(found)
            }
        }
    }

    /// The next value, if it is here, of so many bytes, and in one run.
    #[inline(always)]
    fn take_run<const SPACE: usize>(&mut self, size: usize) -> Option<Result<R, RecvError>> {
        let mut space = [0; SPACE];
        let bytes = space.get_mut(..size)?;
        self.inlet.take_run(&self.link, bytes)?;
        Some(message::decode(bytes).map_err(RecvError::Decode))
    }

    #[inline(always)]
    fn take_here_in(&mut self, timeout: Duration) -> Option<Result<R, RecvError>> {
        message::in_time::<R, _>(Time::AtMost(timeout), || self.take_here())
    }

    #[inline(never)]
    fn receive(&mut self, waiting: Waiting) -> Result<R, RecvError> {
        message::in_time::<R, _>(waiting.into(), || self.receive_in_time(waiting))
    }

    fn receive_in_time(&mut self, waiting: Waiting) -> Result<R, RecvError> {
        let spoke = self.listen()?;
        self.inlet.await_any(&mut self.link, waiting, spoke)?;
        if let Some(found) = self.take_here() {
            return found;
        }
        self.inlet.fetch(&mut self.link, waiting, spoke)?;
        if let Some(value) = message::decode_owned(|| self.inlet.take_message()) {
            return value.map_err(RecvError::Decode);
        }
        // The message is gone before the type's own code sees it: if that panics, it does not come
        // again.
        let message = self.inlet.take_out();
        let value = decode(self.link.segment.is_named(), &message);
        self.inlet.keep(message);
        self.decoded();
        value
    }

    /// Says that all that was taken is decoded: its sender need not hold what handles in it lead to any more.
    #[inline(always)]
    fn decoded(&self) {
        // A type of which no serde is asked can hold none.
        if !message::is_raw::<R>() {
            self.link
                .inn
                .decoded
                .store(self.inlet.progress(), Ordering::Release);
        }
    }

    fn fetch(&mut self, waiting: Waiting) -> Result<(), RecvError> {
        let spoke = self.listen()?;
        self.inlet.fetch(&mut self.link, waiting, spoke)
    }

    /// To be called before anything is waited for: whether something was sent since the last time.
    fn listen(&mut self) -> Result<bool, RecvError> {
        self.link.check()?;
        if self.link.bars.has(Bar::Over) {
            return Err(RecvError::Closed);
        }
        let said = self.outlet.writer.position();
        let spoke = said != self.said;
        self.said = said;
        Ok(spoke)
    }

    /// Where this end is, said aloud for whoever takes it up; an error if it cannot be taken up.
    pub(super) fn park(&self) -> Result<&Link, &'static str> {
        // One that was sent to this very process is another end's now, whose place would be overwritten.
        if self.link.bars.has(Bar::Away) {
            return Err("this end has been sent away already");
        }
        if !self.inlet.is_clean() {
            return Err("an end that holds a message received in part cannot be sent");
        }
        self.outlet.writer.park(&self.link.out);
        self.inlet.reader.park(&self.link.inn);
        Ok(&self.link)
    }
}

/// The value of a message; over a pipe that was connected by a name it may name what is to be opened by a name.
#[inline(always)]
fn decode<R: Message>(is_named: bool, bytes: &[u8]) -> Result<R, RecvError> {
    let value = match is_named && !message::is_raw::<R>() {
        false => message::decode(bytes),
        true => handle::with_names(true, || message::decode(bytes)),
    };
    value.map_err(RecvError::Decode)
}

impl Bulk for Bytes {
    #[inline]
    fn copy_in(&self, at: usize, from: &[u8]) {
        Bytes::copy_in(self, at, from);
    }

    #[inline]
    fn copy_out(&self, at: usize, to: &mut [u8]) {
        Bytes::copy_out(self, at, to);
    }

    #[inline]
    fn append(&self, at: usize, len: usize, to: &mut Vec<u8>) {
        self.append_to(at, len, to);
    }
}

impl<S, R> Drop for PipeEnd<S, R> {
    fn drop(&mut self) {
        // A forked copy owns nothing.
        if !kin::forked() {
            self.link.leave();
        }
    }
}

impl<S, R> fmt::Debug for PipeEnd<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeEnd")
            .field("side", &self.link.side)
            .finish_non_exhaustive()
    }
}
