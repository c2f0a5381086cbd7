//! A pipe: two ends, both ways, messages of any size.
//!
//! | file | what it holds |
//! |---|---|
//! | `builder` | what can be asked for, and where everything lies because of it |
//! | `link` | the segment and the two owner words: who is there, who is gone |
//! | `outlet`, `inlet` | the sending and the receiving half of an end |
//! | `lull` | how long to leave a busy writer alone |
//! | `end` | what users hold |
//! | `travel` | ends inside messages |

mod builder;
mod end;
mod inlet;
mod link;
mod lull;
mod outlet;
mod travel;

use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

use crate::message::Message;

pub use self::builder::{PipeBuilder, PipeError};
pub use self::end::PipeEnd;

/// Two connected ends, each of which sends to the other and receives from it.
///
/// Messages come in the order they were sent, each whole, and may have any size: what is larger than the pipe's memory
/// streams through it. Each end belongs to one thread of one process at a time, and can be sent to any
/// process of the tree, as an argument, in a result or inside a message; on its way it counts as there.
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

impl<Up: Message, Down: Message> Pipe<Up, Down> {
    /// A pipe: the first end sends `Up` and receives `Down`, the other end mirrors it.
    ///
    /// # Errors
    ///
    /// [`PipeError::Segment`] when there is no memory.
    #[expect(clippy::new_ret_no_self, reason = "a pipe is its two ends")]
    pub fn new() -> Result<(PipeEnd<Up, Down>, PipeEnd<Down, Up>), PipeError> {
        Pipe::builder().build()
    }

    /// A pipe with more to choose.
    pub fn builder() -> PipeBuilder<Up, Down> {
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

impl Waiting {
    /// The end of a wait that starts now.
    fn at_most(timeout: Duration) -> Waiting {
        Waiting::Until(Instant::now().checked_add(timeout))
    }
}
