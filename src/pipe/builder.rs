//! What a pipe can be asked to be.

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::message::Message;
use crate::segment::{Commit, Segment};

use super::call;
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
    _values: PhantomData<fn(Up, Down) -> (Up, Down)>,
}

impl<Up: Message, Down: Message> PipeBuilder<Up, Down> {
    pub(super) fn new() -> PipeBuilder<Up, Down> {
        PipeBuilder {
            size: SIZE,
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

    /// Makes the pipe.
    ///
    /// # Errors
    ///
    /// [`PipeError::Size`] for an invalid size, [`PipeError::Segment`] when there is no memory.
    pub fn build(self) -> Result<(PipeEnd<Up, Down>, PipeEnd<Down, Up>), PipeError> {
        let shape = plan::shape::<Up, Down>(Side::First);
        let segment = Segment::build("pipe", &shape, plan::bytes(self.size)?, Commit::All)?;
        let plan = plan::lay_out(&segment)?;
        let first = PipeEnd::over(Link::take(&segment, plan, Side::First)?)?;
        let second = PipeEnd::over(Link::take(&segment, plan, Side::Second)?)?;
        Ok((first, second))
    }

    /// Connects to the [`Listener`](crate::Listener) of that name; see [`Pipe::connect`](crate::Pipe::connect).
    ///
    /// # Errors
    ///
    /// As [`Pipe::connect`](crate::Pipe::connect), and [`PipeError::Size`].
    pub fn connect(self, name: &str) -> Result<PipeEnd<Down, Up>, PipeError> {
        call::connect::<Up, Down>(name, plan::bytes(self.size)?, None)
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
        call::connect::<Up, Down>(
            name,
            plan::bytes(self.size)?,
            Instant::now().checked_add(timeout),
        )
    }
}

impl<Up, Down> fmt::Debug for PipeBuilder<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipeBuilder")
            .field("size", &self.size)
            .finish()
    }
}
