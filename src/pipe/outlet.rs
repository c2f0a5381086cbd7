//! The sending half of an end: a message becomes words and runs, waiting for room where there is none.

use std::cell::RefCell;

use crate::error::{EncodeError, RecvError, SegmentError, SendError};
use crate::handle::{self, Transport};
use crate::message::{self, Message, Sink};
use crate::segment::{Bytes, Words};
use crate::signal::Patience;
use crate::stream::{CONTENT, Ring, SMALL, Writer};

use super::Waiting;
use super::link::{Bar, Link};

/// While it spins, a sender looks at the reader's true position only this often: that line is the reader's.
const EXACTLY_EVERY: u32 = 32;

/// Why there is no sending now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Full,
    TimedOut,
    Closed,
    TooLarge { needed: usize, limit: usize },
    Encode(EncodeError),
    Forked,
    Evicted,
}

impl Refusal {
    #[cold]
    pub(super) fn of<T>(self, value: T) -> SendError<T> {
        match self {
            Refusal::Full => SendError::Full(value),
            Refusal::TimedOut => SendError::TimedOut(value),
            Refusal::Closed => SendError::Closed(value),
            Refusal::TooLarge { needed, limit } => SendError::TooLarge {
                value,
                needed,
                limit,
            },
            Refusal::Encode(error) => SendError::Encode { value, error },
            Refusal::Forked => SendError::Forked(value),
            Refusal::Evicted => SendError::Evicted(value),
        }
    }
}

/// The sending half.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) writer: Writer,
    words: Words,
    bytes: Bytes,
    patience: Patience,
    /// Bytes of a message that is being encoded; kept for the next one.
    scratch: Vec<u8>,
}

impl Outlet {
    pub(super) fn over(link: &Link) -> Result<Outlet, SegmentError> {
        let (at, len) = link.plan.ring(link.side);
        let (words, bytes) = (
            link.segment.slots(at, len / 8)?,
            link.segment.bytes(at, len)?,
        );
        let ring = Ring {
            header: &link.out,
            words: &words,
            bytes: &bytes,
        };
        let writer = Writer::resume(link.lines(), &ring)?;
        if writer.has_begun() {
            link.bars.put(Bar::Begun);
        }
        Ok(Outlet {
            writer,
            words,
            bytes,
            patience: Patience::new(),
            scratch: Vec::new(),
        })
    }

    /// Whether a message that needs `ahead` lines can be sent now, from what is known without asking anyone.
    #[inline(always)]
    pub(super) fn is_clear(&mut self, link: &Link, ahead: u64) -> bool {
        link.is_up() && self.writer.has_room(&link.out, ahead)
    }

    /// Makes a small message possible: waits for room, asks who is there, takes back what has begun.
    #[inline]
    pub(super) fn clear(&mut self, link: &mut Link, waiting: Waiting) -> Result<(), Refusal> {
        match self.is_clear(link, 2) {
            true => Ok(()),
            false => self.clear_slowly(link, waiting),
        }
    }

    #[cold]
    fn clear_slowly(&mut self, link: &mut Link, waiting: Waiting) -> Result<(), Refusal> {
        link.check().map_err(|error| match error {
            RecvError::Forked => Refusal::Forked,
            RecvError::Evicted => Refusal::Evicted,
            _ => Refusal::Closed,
        })?;
        if link.is_alone() {
            return Err(Refusal::Closed);
        }
        let ahead = link.lines().ahead(SMALL);
        self.wait_for_room(link, ahead, waiting)?;
        if self.writer.has_begun() {
            self.writer.forget(&self.words);
            link.bars.lift(Bar::Begun);
            link.out.ready.notify_one();
            self.wait_for_room(link, ahead, waiting)?;
        }
        Ok(())
    }

    /// Publishes a small message, for which there is room.
    #[inline(always)]
    pub(super) fn put_small(&mut self, link: &Link, small: &Small) {
        self.writer
            .put_small(&self.words, small.words(), small.bytes);
        link.out.ready.notify_one();
    }

    /// Publishes a message of at most eight bytes; false if it cannot be done at once.
    #[inline(always)]
    pub(super) fn put_word(&mut self, link: &Link, word: u64, bytes: usize) -> bool {
        let done = link.is_up() && self.writer.put_word(&link.out, &self.words, word, bytes);
        if done {
            link.out.ready.notify_one();
        }
        done
    }

    /// Copies the bytes of the next run to where it will lie; there is room for them. Nobody sees
    /// them yet.
    #[inline(always)]
    fn fill_run(&mut self, link: &Link, bytes: &[u8]) {
        let ring = Ring {
            header: &link.out,
            words: &self.words,
            bytes: &self.bytes,
        };
        self.writer.fill_run(&ring, bytes);
    }

    /// Publishes the run of so many bytes that was filled, with which the message ends.
    #[inline(always)]
    pub(super) fn publish_run(&mut self, link: &Link, bytes: usize) {
        self.writer.publish_run(&self.words, bytes, true);
        link.out.ready.notify_one();
    }

    /// Sends bytes as one message. It must be clear for a small one.
    #[inline]
    pub(super) fn send(
        &mut self,
        link: &Link,
        bytes: &[u8],
        waiting: Waiting,
    ) -> Result<(), Refusal> {
        if bytes.len() <= SMALL {
            let mut small = Small::default();
            small.put(bytes);
            self.put_small(link, &small);
            return Ok(());
        }
        expect_fit(link, bytes.len())?;
        if let Waiting::Not = waiting {
            self.expect_room(link, bytes.len())?;
        }
        let last = self.fill_runs(link, bytes, waiting)?;
        self.publish_last(link, last);
        Ok(())
    }

    /// Sends bytes, more than a small message has, as the end of a message, but for the publication
    /// of the last run; how many bytes that has.
    #[inline]
    fn fill_runs(
        &mut self,
        link: &Link,
        mut bytes: &[u8],
        waiting: Waiting,
    ) -> Result<usize, Refusal> {
        let piece = link.lines().piece();
        while bytes.len() > piece {
            let (now, rest) = bytes.split_at(piece);
            self.send_run(link, now, waiting)?;
            bytes = rest;
        }
        self.await_run(link, bytes.len(), waiting)?;
        self.fill_run(link, bytes);
        Ok(bytes.len())
    }

    /// Publishes the last run of a message, which was filled.
    #[inline]
    fn publish_last(&mut self, link: &Link, bytes: usize) {
        link.bars.lift(Bar::Begun);
        self.publish_run(link, bytes);
    }

    /// Sends a run of a message that goes on.
    #[inline]
    fn send_run(&mut self, link: &Link, bytes: &[u8], waiting: Waiting) -> Result<(), Refusal> {
        self.await_run(link, bytes.len(), waiting)?;
        link.bars.put(Bar::Begun);
        self.writer.put_run(
            &Ring {
                header: &link.out,
                words: &self.words,
                bytes: &self.bytes,
            },
            bytes,
            false,
        );
        link.out.ready.notify_one();
        Ok(())
    }

    /// Waits until there is room for a run.
    #[inline]
    fn await_run(&mut self, link: &Link, bytes: usize, waiting: Waiting) -> Result<(), Refusal> {
        // The last run of a long message may be a short one.
        let ahead = link.lines().ahead(bytes.max(SMALL + 1));
        match self.writer.has_room(&link.out, ahead) {
            true => Ok(()),
            false => self.wait_for_room(link, ahead, waiting),
        }
    }

    /// Refuses a message that does not fit now.
    fn expect_room(&mut self, link: &Link, bytes: usize) -> Result<(), Refusal> {
        let lines = link.lines();
        let ahead = lines.ahead(bytes);
        if ahead > lines.most() {
            return Err(Refusal::TooLarge {
                needed: bytes,
                limit: lines.largest(),
            });
        }
        if self.writer.has_room(&link.out, ahead) || self.writer.has_room_exactly(&link.out, ahead)
        {
            Ok(())
        } else {
            Err(Refusal::Full)
        }
    }

    /// Sends a value of a type that may hold anything. It must be clear for a small one.
    pub(super) fn send_value<T: Message>(
        &mut self,
        link: &Link,
        value: &T,
        waiting: Waiting,
    ) -> Result<(), Refusal> {
        if message::runs_no_code::<T>() {
            // Its bytes come in one piece, and need no buffer.
            let mut whole = Whole {
                outlet: self,
                link,
                waiting,
                sent: Ok(()),
            };
            message::encode(value, &mut whole).map_err(Refusal::Encode)?;
            return whole.sent;
        }
        if let Some(size) = message::fixed_size::<T>().filter(|size| *size > SMALL) {
            // So it is here, if its `Serialize` does what its `Deserialize` expects.
            expect_fit(link, size)?;
            if let Waiting::Not = waiting {
                self.expect_room(link, size)?;
            }
            let mut whole = WholeAtOnce {
                outlet: self,
                link,
                waiting,
                size,
                filled: None,
            };
            message::encode(value, &mut whole).map_err(Refusal::Encode)?;
            if let Some(filled) = whole.filled {
                let last = filled?;
                self.publish_last(link, last);
                return Ok(());
            }
        }
        let scratch = std::mem::take(&mut self.scratch);
        let mut pieces = Pieces {
            outlet: self,
            link,
            waiting,
            scratch,
            total: 0,
            sent: Ok(()),
        };
        let (written, passed) =
            handle::collect(Transport::Ring, || message::encode(value, &mut pieces));
        let sent = match written {
            Ok(bytes) => pieces.finish(bytes),
            Err(error) => Err(Refusal::Encode(error)),
        };
        let mut scratch = pieces.scratch;
        scratch.clear();
        scratch.shrink_to(link.lines().piece());
        self.scratch = scratch;
        if sent.is_ok() {
            passed.sent(|| link.carriage(self.writer.position()));
        }
        sent
    }

    /// Waits until `ahead` lines are free. Looks once before it does.
    #[cold]
    fn wait_for_room(&mut self, link: &Link, ahead: u64, waiting: Waiting) -> Result<(), Refusal> {
        let Outlet {
            writer, patience, ..
        } = self;
        let header = &*link.out;
        if writer.has_room(header, ahead) || writer.has_room_exactly(header, ahead) {
            return Ok(());
        }
        let Waiting::Until(deadline) = waiting else {
            return Err(Refusal::Full);
        };
        let writer = RefCell::new(writer);
        let mut looks = 0_u32;
        let look = || {
            looks = looks.wrapping_add(1);
            let mut writer = writer.borrow_mut();
            let room = match looks % EXACTLY_EVERY {
                0 => writer.has_room_exactly(header, ahead),
                _ => writer.has_room(header, ahead),
            };
            Ok(room.then_some(()))
        };
        let check = |ask: bool| {
            if ask && link.is_evicted() {
                return Err(Refusal::Evicted);
            }
            let alone = if ask { link.ask() } else { link.has_left() };
            if alone {
                return Err(Refusal::Closed);
            }
            let room = writer.borrow_mut().has_room_exactly(header, ahead);
            Ok(room.then_some(()))
        };
        match header
            .room
            .wait(patience, deadline, link.deaths, look, check)?
        {
            Some(()) => Ok(()),
            None => Err(Refusal::TimedOut),
        }
    }
}

/// Refuses a message that has more bytes than one may have.
#[inline]
fn expect_fit(link: &Link, needed: usize) -> Result<(), Refusal> {
    let limit = link.plan.message_limit;
    match needed <= limit {
        true => Ok(()),
        false => Err(Refusal::TooLarge { needed, limit }),
    }
}

/// A message of one word, if its bytes come as one.
#[derive(Debug, Default)]
pub(super) struct Word {
    word: u64,
    /// How many bytes; more than a word has if they did not come in one piece.
    bytes: usize,
}

impl Word {
    /// Whether a word of so many bytes came, in one piece.
    #[inline(always)]
    pub(super) fn is_whole(&self, size: usize) -> bool {
        self.bytes == size
    }

    #[inline(always)]
    pub(super) fn bits(&self) -> u64 {
        self.word
    }
}

impl Sink for Word {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        // Sizes up to eight known when compiling come as words; what does not is written some other
        // way.
        if !bytes.is_empty() {
            self.bytes = usize::MAX;
        }
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        match self.bytes {
            0 => (self.word, self.bytes) = (word, size),
            _ => self.bytes = usize::MAX,
        }
    }
}

/// Fills a run, for which there is room, with the bytes of a value of fixed size, if they come in
/// one piece.
///
/// Nothing is published before the value's own code has come to its end: that may write something
/// else than its type says, or panic.
pub(super) struct Direct<'a> {
    outlet: &'a mut Outlet,
    link: &'a Link,
    size: usize,
    /// How many pieces came: 1 if it was the right one and is where it belongs.
    pieces: u32,
}

impl<'a> Direct<'a> {
    #[inline(always)]
    pub(super) fn new(outlet: &'a mut Outlet, link: &'a Link, size: usize) -> Direct<'a> {
        Direct {
            outlet,
            link,
            size,
            pieces: 0,
        }
    }

    #[inline(always)]
    pub(super) fn is_whole(&self) -> bool {
        self.pieces == 1
    }
}

impl Sink for Direct<'_> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        if self.pieces == 0 && bytes.len() == self.size {
            self.outlet.fill_run(self.link, bytes);
            self.pieces = 1;
        } else {
            self.pieces = 2;
        }
    }
}

/// The words of a small message.
#[derive(Debug, Default)]
pub(super) struct Small {
    words: [u64; CONTENT],
    bytes: usize,
}

impl Small {
    #[inline]
    fn words(&self) -> &[u64] {
        &self.words[..self.bytes.div_ceil(8).max(1)]
    }
}

impl Sink for Small {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        let room = &mut bytemuck::cast_slice_mut(&mut self.words)[self.bytes..];
        let fits = bytes.len().min(room.len());
        room[..fits].copy_from_slice(&bytes[..fits]);
        self.bytes += fits;
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        if self.bytes == 0 {
            self.words[0] = word;
            self.bytes = size;
        } else {
            self.put(&word.to_ne_bytes()[..size]);
        }
    }
}

/// Sends the bytes of a raw value, which come in one piece.
struct Whole<'a> {
    outlet: &'a mut Outlet,
    link: &'a Link,
    waiting: Waiting,
    sent: Result<(), Refusal>,
}

impl Sink for Whole<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.sent = self.outlet.send(self.link, bytes, self.waiting);
    }
}

/// Sends the bytes of a value of fixed size, if they come in one piece, but for the publication of
/// the end.
///
/// So what is found to be wrong afterwards, or ends in a panic, is taken back like a message that
/// was interrupted.
struct WholeAtOnce<'a> {
    outlet: &'a mut Outlet,
    link: &'a Link,
    waiting: Waiting,
    size: usize,
    /// Bytes of the last run, if the right piece came first.
    filled: Option<Result<usize, Refusal>>,
}

impl Sink for WholeAtOnce<'_> {
    fn put(&mut self, bytes: &[u8]) {
        // More than that has the wrong length in all, which is told.
        if self.filled.is_none() && bytes.len() == self.size {
            self.filled = Some(self.outlet.fill_runs(self.link, bytes, self.waiting));
        }
    }
}

/// Sends the bytes of any value: gathers a piece, and publishes it when more come than it holds.
struct Pieces<'a> {
    outlet: &'a mut Outlet,
    link: &'a Link,
    waiting: Waiting,
    scratch: Vec<u8>,
    /// Bytes that came.
    total: usize,
    sent: Result<(), Refusal>,
}

impl Pieces<'_> {
    /// Bytes to gather: a piece, but everything that can fit for one who does not wait.
    fn limit(&self) -> usize {
        let lines = self.link.lines();
        match self.waiting {
            Waiting::Not => lines.largest(),
            Waiting::Until(_) => lines.piece(),
        }
    }

    /// Sends the rest of a message that has so many bytes in all.
    fn finish(&mut self, needed: usize) -> Result<(), Refusal> {
        expect_fit(self.link, needed)?;
        std::mem::replace(&mut self.sent, Ok(()))?;
        let limit = self.link.lines().largest();
        match self.waiting {
            Waiting::Not if needed > limit => Err(Refusal::TooLarge { needed, limit }),
            waiting if self.outlet.writer.has_begun() => {
                let (link, scratch) = (self.link, &self.scratch);
                let last = self.outlet.fill_runs(link, scratch, waiting)?;
                self.outlet.publish_last(link, last);
                Ok(())
            }
            waiting => self.outlet.send(self.link, &self.scratch, waiting),
        }
    }
}

impl Sink for Pieces<'_> {
    fn put(&mut self, mut bytes: &[u8]) {
        let limit = self.limit();
        self.total = self.total.saturating_add(bytes.len());
        // Too large, which the count of all bytes will say: nothing more of it goes out.
        while self.sent.is_ok() && self.total <= self.link.plan.message_limit {
            let room = limit - self.scratch.len();
            if bytes.len() <= room {
                self.scratch.extend_from_slice(bytes);
                return;
            }
            if let Waiting::Not = self.waiting {
                // Too large, which the count of all bytes will say.
                return;
            }
            let (now, rest) = bytes.split_at(room);
            bytes = rest;
            // A whole piece goes out from where it lies.
            self.sent = match self.scratch.is_empty() {
                true => self.outlet.send_run(self.link, now, self.waiting),
                false => {
                    self.scratch.extend_from_slice(now);
                    self.outlet.send_run(self.link, &self.scratch, self.waiting)
                }
            };
            self.scratch.clear();
        }
    }
}
