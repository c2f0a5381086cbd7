//! The receiving half of an end: words and runs become a message, waiting for what has not come yet.

use std::cell::RefCell;
use std::time::Instant;

use bytemuck::cast_slice;

use crate::error::{Corrupt, RecvError, SegmentError};
use crate::layout::StreamHeader;
use crate::segment::{Bytes, Words};
use crate::signal::Patience;
use crate::stream::{CONTENT, LINE, Next, Reader, Ring};
use crate::sync::spin_loop;

use super::Waiting;
use super::link::{Bar, Link};
use super::lull::Lull;

/// Runs and words that one look takes at most before it asks for the time: a peer may send for ever.
const TAKES: usize = 1000;
/// Looks for an answer before the usual way to wait: about a microsecond.
const ANSWER: usize = 40;
/// Bytes of memory that are kept for the next message: 1 MiB, and what may stand beside it in one
/// value.
const KEEP: usize = (1 << 20) + (4 << 10);

/// The receiving half.
#[derive(Debug)]
pub(super) struct Inlet {
    pub(super) reader: Reader,
    pub(super) words: Words,
    bytes: Bytes,
    patience: Patience,
    lull: Lull,
    /// What is here of a message that could not be handed out yet.
    kept: Vec<u8>,
    /// How much of it: see [`Held`].
    held: Held,
    /// Bytes of the last long message: the next one may be like it.
    usual: usize,
}

/// What `kept` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    /// Nothing.
    Nothing,
    /// The beginning of a message.
    Part,
    /// A message.
    Whole,
    /// Nothing of a message that is longer than one may be, which was told; the rest of it is still
    /// to come.
    Beyond,
}

/// Throws away a message that is longer than one may be, the end of which has come or not.
///
/// # Errors
///
/// Says so, if that has not been said.
#[cold]
fn beyond(held: &mut Held, kept: &mut Vec<u8>, last: bool, limit: usize) -> Result<(), RecvError> {
    let told = *held == Held::Beyond;
    *kept = Vec::new();
    *held = if last { Held::Nothing } else { Held::Beyond };
    match told {
        true => Ok(()),
        false => Err(RecvError::TooLarge { limit }),
    }
}

impl Inlet {
    pub(super) fn over(link: &Link) -> Result<Inlet, SegmentError> {
        let (at, len) = link.plan.ring(link.side.other());
        Ok(Inlet {
            reader: Reader::resume(link.lines(), &link.inn)?,
            words: link.segment.slots(at, len / 8)?,
            bytes: link.segment.bytes(at, len)?,
            patience: Patience::new(),
            lull: Lull::new(),
            kept: Vec::new(),
            held: Held::Nothing,
            usual: 0,
        })
    }

    /// Whether nothing of any message is held here, so that all of it is in the stream.
    #[inline]
    pub(super) fn is_clean(&self) -> bool {
        self.held == Held::Nothing
    }

    /// Up to where messages are taken, in the writer's measure.
    #[inline]
    pub(super) fn progress(&self) -> u64 {
        self.reader.progress()
    }

    /// Takes the next message if it has so many bytes, at most eight.
    #[inline(always)]
    pub(super) fn take_word(&mut self, link: &Link, bytes: usize) -> Option<u64> {
        self.reader.take_word(&link.inn, &self.words, bytes)
    }

    /// Takes the next message into `to` if it is here, in one run, and as long as that.
    #[inline(always)]
    pub(super) fn take_run(&mut self, link: &Link, to: &mut [u8]) -> Option<()> {
        match self.reader.next(&link.inn, &self.words) {
            Ok(Next::Run { bytes, last: true }) if bytes == to.len() => {
                let ring = Ring {
                    header: &link.inn,
                    words: &self.words,
                    bytes: &self.bytes,
                };
                self.reader.take_run(&ring, to);
                Some(())
            }
            _ => None,
        }
    }

    /// Shows `look` the next message if it is here and lies in one piece; takes it.
    #[inline(always)]
    pub(super) fn take_small<R>(
        &mut self,
        link: &Link,
        look: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        if !self.is_clean() {
            return None;
        }
        match self.reader.next(&link.inn, &self.words) {
            Ok(Next::Small(bytes)) => {
                let mut content = [0; CONTENT];
                let (header, words) = (&*link.inn, &*self.words);
                self.reader.take_small(header, words, bytes, &mut content);
                Some(look(&cast_slice(&content)[..bytes]))
            }
            _ => None,
        }
    }

    /// Waits until the beginning of a message is here, if nothing of one is held.
    pub(super) fn await_any(
        &mut self,
        link: &mut Link,
        waiting: Waiting,
        spoke: bool,
    ) -> Result<(), RecvError> {
        if !self.is_clean() || self.reader.next(&link.inn, &self.words)? != Next::Nothing {
            return Ok(());
        }
        self.reader.settle(&link.inn);
        match waiting {
            Waiting::Not => self.nothing_now(link),
            Waiting::Until(deadline) => self.wait(link, deadline, spoke),
        }
    }

    /// Waits until a whole message is held.
    ///
    /// A message that has begun when its writer ends is forgotten.
    pub(super) fn fetch(
        &mut self,
        link: &mut Link,
        waiting: Waiting,
        spoke: bool,
    ) -> Result<(), RecvError> {
        loop {
            let before = self.reader.position();
            self.pull(link)?;
            if self.held == Held::Whole {
                return Ok(());
            }
            let moved = self.reader.position() != before;
            match waiting {
                Waiting::Not if moved => return Err(RecvError::Empty),
                Waiting::Not => return self.nothing_now(link),
                Waiting::Until(Some(end)) if moved && Instant::now() >= end => {
                    return Err(RecvError::TimedOut);
                }
                Waiting::Until(_) if moved => {}
                Waiting::Until(deadline) => self.wait(link, deadline, spoke)?,
            }
        }
    }

    /// Takes what is here of the next message, up to its end.
    fn pull(&mut self, link: &Link) -> Result<(), RecvError> {
        let most = link.lines().most() as usize * LINE;
        let limit = link.plan.message_limit;
        let mut taken = 0;
        let header: &StreamHeader = &link.inn;
        let ring = Ring {
            header,
            words: &self.words,
            bytes: &self.bytes,
        };
        for _ in 0..TAKES {
            // More than there can have been when this look began: a peer may send for ever.
            if self.held == Held::Whole || taken > most {
                return Ok(());
            }
            match self.reader.next(header, &self.words)? {
                Next::Nothing => {
                    self.reader.settle(header);
                    return Ok(());
                }
                Next::Small(_) if self.held != Held::Nothing => {
                    return Err(Corrupt("a message begins inside another").into());
                }
                Next::Small(bytes) => {
                    let mut content = [0; CONTENT];
                    self.reader
                        .take_small(header, &self.words, bytes, &mut content);
                    self.kept.extend_from_slice(&cast_slice(&content)[..bytes]);
                    self.held = Held::Whole;
                }
                Next::Run { bytes, last }
                    if self.held == Held::Beyond || self.kept.len() + bytes > limit =>
                {
                    taken += bytes;
                    self.reader.skip_run(header, bytes);
                    beyond(&mut self.held, &mut self.kept, last, limit)?;
                }
                Next::Run { bytes, last } => {
                    taken += bytes;
                    if self.held == Held::Nothing && !last {
                        self.kept.reserve(self.usual);
                    }
                    self.reader.append_run(&ring, bytes, &mut self.kept);
                    self.held = if last { Held::Whole } else { Held::Part };
                }
                Next::Forget => {
                    self.reader.take_forget(header);
                    self.kept.clear();
                    self.held = Held::Nothing;
                }
            }
        }
        Ok(())
    }

    /// Takes the next message into `buffer` and says how many bytes it has.
    ///
    /// Of a message that is too long, everything is held instead.
    pub(super) fn fetch_into(
        &mut self,
        link: &mut Link,
        buffer: &mut [u8],
        spoke: bool,
    ) -> Result<usize, RecvError> {
        let mut filled = 0;
        let limit = link.plan.message_limit;
        while self.is_clean() {
            let header: &StreamHeader = &link.inn;
            match self.reader.next(header, &self.words)? {
                Next::Nothing => {
                    self.reader.settle(header);
                    self.wait(link, None, spoke)?;
                }
                Next::Small(_) if filled > 0 => {
                    return Err(Corrupt("a message begins inside another").into());
                }
                Next::Small(bytes) => {
                    let mut content = [0; CONTENT];
                    self.reader
                        .take_small(header, &self.words, bytes, &mut content);
                    let message = &cast_slice(&content)[..bytes];
                    if let Some(to) = buffer.get_mut(..bytes) {
                        to.copy_from_slice(message);
                        return Ok(bytes);
                    }
                    self.kept.extend_from_slice(message);
                    self.held = Held::Whole;
                }
                Next::Run { bytes, last } if filled + bytes > limit => {
                    self.reader.skip_run(header, bytes);
                    beyond(&mut self.held, &mut self.kept, last, limit)?;
                }
                Next::Run { bytes, last } => match buffer.get_mut(filled..filled + bytes) {
                    Some(to) => {
                        let ring = Ring {
                            header,
                            words: &self.words,
                            bytes: &self.bytes,
                        };
                        self.reader.take_run(&ring, to);
                        filled += bytes;
                        if last {
                            return Ok(filled);
                        }
                    }
                    None => {
                        self.kept.extend_from_slice(&buffer[..filled]);
                        self.held = Held::Part;
                    }
                },
                Next::Forget => {
                    self.reader.take_forget(header);
                    filled = 0;
                }
            }
        }
        self.fetch(link, Waiting::Until(None), spoke)?;
        let needed = self.kept.len();
        match buffer.get_mut(..needed) {
            Some(to) => {
                to.copy_from_slice(&self.kept);
                self.release();
                Ok(needed)
            }
            None => Err(RecvError::TooSmall {
                needed,
                given: buffer.len(),
            }),
        }
    }

    /// Takes out the message that is held; its memory comes back by [`keep`](Inlet::keep).
    pub(super) fn take_out(&mut self) -> Vec<u8> {
        self.held = Held::Nothing;
        std::mem::take(&mut self.kept)
    }

    /// Keeps the memory of a message for the next one.
    pub(super) fn keep(&mut self, message: Vec<u8>) {
        self.kept = message;
        self.release();
    }

    /// Hands out the message that is held, with its memory.
    pub(super) fn take_message(&mut self) -> Vec<u8> {
        let mut message = std::mem::take(&mut self.kept);
        self.usual = message.len();
        if message.capacity() / 2 > message.len() {
            message.shrink_to_fit();
        }
        self.held = Held::Nothing;
        message
    }

    /// Lets go of what is held.
    pub(super) fn release(&mut self) {
        self.usual = self.kept.len();
        self.kept.clear();
        self.kept.shrink_to(KEEP);
        self.held = Held::Nothing;
    }

    /// Forgets what has begun, and goes on saying that nothing comes any more.
    fn end(&mut self, link: &Link) -> RecvError {
        self.release();
        link.bars.put(Bar::Over);
        RecvError::Closed
    }

    /// What a call that does not wait says when there is nothing.
    fn nothing_now(&mut self, link: &mut Link) -> Result<(), RecvError> {
        if !link.is_alone() {
            return Err(RecvError::Empty);
        }
        // What it sent before it went is seen now.
        self.pull(link)?;
        match self.held {
            Held::Whole => Ok(()),
            Held::Part | Held::Nothing | Held::Beyond => Err(self.end(link)),
        }
    }

    /// Waits until anything more is here.
    #[cold]
    fn wait(
        &mut self,
        link: &Link,
        deadline: Option<Instant>,
        spoke: bool,
    ) -> Result<(), RecvError> {
        let Inlet {
            reader,
            words,
            patience,
            lull,
            ..
        } = self;
        let header: &StreamHeader = &link.inn;
        // To stay away, or to look without end, is for those whose other side runs meanwhile.
        let resting = patience.is_resting();
        if !resting {
            lull.rest(reader.position(), spoke);
        }
        let reader = RefCell::new(reader);
        let something = || -> Result<Option<()>, RecvError> {
            let next = reader.borrow_mut().next(header, words)?;
            Ok((next != Next::Nothing).then_some(()))
        };
        let mut look = || {
            lull.look();
            something()
        };
        if spoke && !resting {
            // Who waits for an answer looks as often as it can: one pause is the least there is.
            for _ in 0..ANSWER {
                if let Some(()) = look()? {
                    lull.over();
                    return Ok(());
                }
                spin_loop();
            }
        }
        let check = |ask: bool| {
            if ask && link.is_evicted() {
                return Err(RecvError::Evicted);
            }
            let alone = if ask { link.ask() } else { link.has_left() };
            if !alone {
                return Ok(None);
            }
            // What it sent before it went is seen now.
            match something()? {
                Some(()) => Ok(Some(())),
                None => Err(RecvError::Closed),
            }
        };
        let waited = header
            .ready
            .wait(patience, deadline, link.deaths, look, check);
        self.lull.over();
        match waited {
            Ok(Some(())) => Ok(()),
            Ok(None) => Err(RecvError::TimedOut),
            Err(RecvError::Closed) => Err(self.end(link)),
            Err(error) => Err(error),
        }
    }
}
