//! What a pipe can be asked to be.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::segment::{Commit, Segment};

use super::call::{self, Listener};
use super::end::PipeEnd;
use super::error::PipeError;
use super::link::Link;
use super::plan::{self, Side};

/// Bytes each direction has, unless asked otherwise: measured, see `size`.
const SIZE: usize = 1 << 20;

/// A pipe to be; see [`Pipe::builder`](crate::Pipe::builder).
///
/// # Examples
///
/// ```
/// use multiproc::Pipe;
///
/// let (parent, child) = Pipe::<Vec<f64>, f64>::builder().size(4 << 20).build()?;
/// # Ok::<(), multiproc::PipeError>(())
/// ```
pub struct PipeBuilder<Up, Down> {
    size: usize,
    message_limit: usize,
    _values: PhantomData<fn(Up, Down) -> (Up, Down)>,
}

impl<Up: Message, Down: Message> PipeBuilder<Up, Down> {
    pub(super) fn new() -> PipeBuilder<Up, Down> {
        PipeBuilder {
            size: SIZE,
            message_limit: plan::MESSAGE_LIMIT,
            _values: PhantomData,
        }
    }

    /// Bytes of memory for each of the two directions: 1 MiB unless set. At least 4 KiB are taken, and
    /// always a power of two.
    ///
    /// So much can be sent before it is received; of large messages it decides how fast they stream, and 1 MiB or a
    /// little more is best for most machines. For many pipes with little to say 16 KiB are enough.
    #[must_use]
    pub fn size(mut self, bytes: usize) -> Self {
        self.size = bytes;
        self
    }

    /// The most bytes that a message may have, in both directions: 1 GiB unless set, and at least 1
    /// KiB.
    ///
    /// It bounds the memory that a peer can make this process use: a receiving call gathers a whole
    /// message before it gives it out. A larger one is refused when it is sent
    /// ([`SendError::TooLarge`]); if a peer sends it all the same, the receiver throws it away and
    /// says [`RecvError::TooLarge`] once.
    ///
    /// [`SendError::TooLarge`]: crate::SendError::TooLarge
    /// [`RecvError::TooLarge`]: crate::RecvError::TooLarge
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::{Pipe, SendError};
    ///
    /// let (mut a, _b) = Pipe::<String, ()>::builder().message_limit(1 << 20).build()?;
    /// let error = a.send("x".repeat(1 << 21)).unwrap_err();
    /// assert!(matches!(error, SendError::TooLarge { needed: 2097152, limit: 1048576, .. }));
    /// # Ok::<(), multiproc::PipeError>(())
    /// ```
    #[must_use]
    pub fn message_limit(mut self, bytes: usize) -> Self {
        self.message_limit = bytes;
        self
    }

    /// Makes the pipe.
    ///
    /// # Errors
    ///
    /// [`PipeError::Size`], [`PipeError::MessageLimit`] for an invalid number,
    /// [`PipeError::Segment`] when there is no memory.
    pub fn build(self) -> Result<(PipeEnd<Up, Down>, PipeEnd<Down, Up>), PipeError> {
        let limit = plan::message_limit::<Up, Down>(self.message_limit)?;
        let shape = plan::shape::<Up, Down>(Side::First);
        let segment = Segment::build("pipe", &shape, plan::bytes(self.size)?, Commit::All)?;
        let plan = plan::lay_out(&segment, limit)?;
        let first = PipeEnd::over(Link::take(&segment, plan, Side::First)?)?;
        let second = PipeEnd::over(Link::take(&segment, plan, Side::Second)?)?;
        Ok((first, second))
    }

    /// A name at which others connect, as [`Pipe::listen`](crate::Pipe::listen).
    ///
    /// Who connects chooses the [`size`](PipeBuilder::size) and a limit of its own; of the two
    /// limits the smaller one holds for what the listener's ends send and receive.
    ///
    /// # Errors
    ///
    /// As [`Pipe::listen`](crate::Pipe::listen), and [`PipeError::MessageLimit`].
    pub fn listen(self, name: &str) -> Result<Listener<Up, Down>, PipeError> {
        let limit = plan::message_limit::<Up, Down>(self.message_limit)?;
        Listener::new(name, limit)
    }

    /// Connects to the [`Listener`] of that name; see [`Pipe::connect`](crate::Pipe::connect).
    ///
    /// # Errors
    ///
    /// As [`Pipe::connect`](crate::Pipe::connect), and [`PipeError::Size`],
    /// [`PipeError::MessageLimit`].
    pub fn connect(self, name: &str) -> Result<PipeEnd<Down, Up>, PipeError> {
        self.connect_until(name, None)
    }

    /// As [`connect`](PipeBuilder::connect), but waits at most `timeout`.
    ///
    /// # Errors
    ///
    /// [`PipeError::TimedOut`] when it was not accepted in that time, else as [`connect`](PipeBuilder::connect).
    pub fn connect_timeout(
        self,
        name: &str,
        timeout: Duration,
    ) -> Result<PipeEnd<Down, Up>, PipeError> {
        self.connect_until(name, Instant::now().checked_add(timeout))
    }

    fn connect_until(
        self,
        name: &str,
        deadline: Option<Instant>,
    ) -> Result<PipeEnd<Down, Up>, PipeError> {
        let limit = plan::message_limit::<Up, Down>(self.message_limit)?;
        call::connect::<Up, Down>(name, plan::bytes(self.size)?, limit, deadline)
    }
}

impl<Up, Down> Clone for PipeBuilder<Up, Down> {
    fn clone(&self) -> Self {
        PipeBuilder {
            size: self.size,
            message_limit: self.message_limit,
            _values: PhantomData,
        }
    }
}

impl<Up, Down> fmt::Debug for PipeBuilder<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeBuilder")
            .field("size", &self.size)
            .field("message_limit", &self.message_limit)
            .finish()
    }
}
