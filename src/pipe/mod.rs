//! A pipe: two ends, both ways, messages of any size up to a limit.
//!
//! | file | what it holds |
//! |---|---|
//! | `builder` | what can be asked for, and where everything lies because of it |
//! | `link` | the segment and the two owner words: who is there, who is gone |
//! | `outlet`, `inlet` | the sending and the receiving half of an end |
//! | `lull` | how long to leave a busy writer alone |
//! | `end` | what users hold |
//! | `call` | ends of pipes between unrelated programs |
//! | `travel` | ends inside messages |

mod builder;
mod call;
mod end;
mod error;
mod inlet;
mod link;
mod lull;
mod outlet;
mod plan;
mod travel;

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::handle::Time;
use crate::message::Message;

pub use self::builder::PipeBuilder;
pub use self::call::Listener;
pub use self::end::PipeEnd;
pub use self::error::PipeError;

/// Two connected ends, each of which sends to the other and receives from it.
///
/// Messages come in the order they were sent, each whole, and may have any size up to a
/// [limit](PipeBuilder::message_limit), 1 GiB unless set: what is larger than the pipe's memory
/// streams through it. Each end belongs to one thread of one process at a time, and can be sent to
/// any process of the tree, as an argument, in a result or inside a message; on its way it counts
/// as there.
///
/// # If a process dies
///
/// At any instruction: what its end had sent is received, then the other end gets `Closed`. A message that was
/// being sent is received whole or not at all.
///
/// # Examples
///
/// ```
/// use multiproc::Pipe;
///
/// let (mut here, mut there) = Pipe::<String, usize>::new()?;
/// std::thread::spawn(move || {
///     while let Ok(text) = there.recv() {
///         there.send(text.len()).unwrap();
///     }
/// });
/// here.send("four".to_string())?;
/// assert_eq!(here.recv()?, 4);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Pipe<Up, Down> {
    _values: PhantomData<fn(Up, Down) -> (Up, Down)>,
}

// The bounds stand at the functions: the compiler says what is wrong with a type there, and not at an `impl`.
impl<Up, Down> Pipe<Up, Down> {
    /// A pipe: the first end sends `Up` and receives `Down`, the other end mirrors it.
    ///
    /// # Errors
    ///
    /// [`PipeError::Segment`] when there is no memory.
    #[expect(clippy::new_ret_no_self, reason = "a pipe is its two ends")]
    pub fn new() -> Result<(PipeEnd<Up, Down>, PipeEnd<Down, Up>), PipeError>
    where
        Up: Message,
        Down: Message,
    {
        Pipe::builder().build()
    }

    /// A name at which other programs of this user [`connect`](Pipe::connect), each by a pipe of its own.
    ///
    /// Its side of each pipe sends `Up` and receives `Down`.
    ///
    /// # Errors
    ///
    /// In [`PipeError::Segment`]: [`SegmentError::BadName`], [`SegmentError::AlreadyExists`] when a living process
    /// has the name, [`SegmentError::Foreign`] when something that is not ours stands there.
    ///
    /// # Examples
    ///
    /// ```
    /// use multiproc::Pipe;
    /// # let name = format!("doc-pipe-{}", std::process::id());
    ///
    /// let mut listener = Pipe::<String, usize>::listen(&name)?;
    /// // In another program; here another thread stands for it:
    /// let other = std::thread::spawn(move || {
    ///     let mut end = Pipe::<String, usize>::connect(&name).unwrap();
    ///     let text = end.recv().unwrap();
    ///     end.send(text.len()).unwrap();
    /// });
    /// let mut end = listener.accept()?;
    /// end.send("four".to_string())?;
    /// assert_eq!(end.recv()?, 4);
    /// # other.join().unwrap();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// [`SegmentError::BadName`]: crate::SegmentError::BadName
    /// [`SegmentError::AlreadyExists`]: crate::SegmentError::AlreadyExists
    /// [`SegmentError::Foreign`]: crate::SegmentError::Foreign
    pub fn listen(name: &str) -> Result<Listener<Up, Down>, PipeError>
    where
        Up: Message,
        Down: Message,
    {
        Pipe::builder().listen(name)
    }

    /// Connects to the [`Listener`] of that name: the other end of a new pipe, which sends `Down` and receives `Up`.
    ///
    /// # Blocking
    ///
    /// Until the listener accepts, or is gone; [`PipeBuilder::connect_timeout`] waits for so long only.
    ///
    /// # Errors
    ///
    /// [`PipeError::Closed`] when the listener went away meanwhile; [`PipeError::TooManyCallers`];
    /// in [`PipeError::Segment`]: [`SegmentError::NotFound`] when nobody listens there, [`SegmentError::WrongShape`]
    /// when the types are others, and no memory.
    ///
    /// [`SegmentError::NotFound`]: crate::SegmentError::NotFound
    /// [`SegmentError::WrongShape`]: crate::SegmentError::WrongShape
    #[doc(alias = "Client")]
    pub fn connect(name: &str) -> Result<PipeEnd<Down, Up>, PipeError>
    where
        Up: Message,
        Down: Message,
    {
        Pipe::<Up, Down>::builder().connect(name)
    }

    /// A pipe with more to choose.
    pub fn builder() -> PipeBuilder<Up, Down>
    where
        Up: Message,
        Down: Message,
    {
        PipeBuilder::new()
    }
}

impl<Up, Down> fmt::Debug for Pipe<Up, Down> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipe")
    }
}

/// How long a call waits.
#[derive(Debug, Clone, Copy)]
enum Waiting {
    /// Not at all.
    Not,
    /// Until then, or for ever.
    Until(Option<Instant>),
}

impl From<Waiting> for Time {
    fn from(waiting: Waiting) -> Time {
        match waiting {
            Waiting::Not => Time::AtMost(Duration::ZERO),
            Waiting::Until(None) => Time::Any,
            Waiting::Until(Some(end)) => Time::Until(end),
        }
    }
}

impl Waiting {
    /// The end of a wait that starts now.
    fn at_most(timeout: Duration) -> Waiting {
        Waiting::Until(Instant::now().checked_add(timeout))
    }
}
