//! A stream: messages of any size through a ring of lines, from exactly one writer to exactly one reader.
//!
//! The ring is lines of 64 bytes. A *control line* is seven words and a word of *tags*, which say what each
//! word is. Longer messages lie as *runs* of plain bytes in the lines behind, in the order of their words.
//!
//! ```text
//!   a control line                                    runs, in the order of their words         the next one
//!  +----+----+----+----+----+----+----+------+  +------------------+-----+------------------+  +----+--
//!  | w0 | w1 | w2 | w3 | w4 | w5 | w6 | tags |  | bytes of a run   | ... | bytes of a run   |  | w0 | ..
//!  +----+----+----+----+----+----+----+------+  +------------------+-----+------------------+  +----+--
//! ```
//!
//! | tag | its word |
//! |---|---|
//! | 0 | nothing yet (the last byte of the tags is no tag: it counts the words used) |
//! | 1 + n, n to 56 | a whole message of n bytes begins here, in as many words as it needs, at least one |
//! | [`RUN`] | so many bytes are in the next run; the message goes on |
//! | [`LAST`] | so many bytes are in the next run; the message ends |
//! | [`NEXT`] | no word of this line is used any more, the next control line goes on |
//! | [`FORGET`] | what there was of the message that has begun is to be forgotten |
//!
//! So one line carries up to seven small messages, whose bytes and whose "is there" travel together: one
//! line moves from core to core, and only the writer ever writes it. Seven runs share a control line too. A line can
//! be given back only when all its words and runs are read, so a run that is [`LONG`] is the last of its line.
//!
//! A message is published by the tag of its last word or run, in one store: a writer that is killed anywhere
//! has published it or not. If it was killed between two runs, the reader is told by its death.
//!
//! The tags of a fresh control line are whatever its last use left there, and that may be any bytes; so the writer
//! clears them *before* it publishes the tag that leads there, while it fills the line before.
//!
//! Edges, with both ends named:
//!
//! | edge | release | acquire | what it carries |
//! |---|---|---|---|
//! | A | the tags in [`Writer::publish`] | the tags in [`Reader::tag`] | words, runs, and the cleared tags of the next control line |
//! | B | `taken` and `freed` in [`Reader::go_on`] and [`Reader::settle`] | either, in [`Writer::has_room`] | that the lines before are copied |
//!
//! Nothing here trusts what it reads: lengths are checked against the private size, positions are private,
//! every loop has a bound.

use crate::error::Corrupt;
use crate::layout::StreamHeader;
use crate::sync::{AtomicU64, Ordering};

/// Bytes of a line.
pub(crate) const LINE: usize = 64;
/// Words of a line, the tags among them.
const WORDS: u64 = 8;
/// Words of a control line without its tags.
pub(crate) const CONTENT: usize = 7;
/// The longest message that lies in its control line.
pub(crate) const SMALL: usize = CONTENT * 8;
/// A longer run is the last of its control line.
const LONG: usize = 7 * LINE;
/// A run up to this long is copied word by word.
const SHORT: usize = 256;
/// The longest run of a message that has several: while one is read, the next is written.
const PIECE: usize = 32 << 10;

/// A run, and more of the message behind it.
const RUN: u8 = 0x80;
/// A run, and the message ends with it.
const LAST: u8 = 0x81;
/// The rest of the line is not used.
const NEXT: u8 = 0x82;
/// The message that has begun will not be finished.
const FORGET: u8 = 0x83;
/// The tags of a line: a byte for each of its words.
const TAGS: u64 = (1 << INDEX) - 1;
/// Where a count fits beside them.
const INDEX: u32 = 8 * CONTENT as u32;
/// No stream gets so far: positions go up by one at a time, and from here on there are as many again.
const FAR: u64 = 1 << 60;

/// Bytes of the ring, to be copied to and from where the protocol says that nobody else is.
pub(crate) trait Bulk {
    /// Copies `from` to `at`.
    fn copy_in(&self, at: usize, from: &[u8]);
    /// Copies from `at` into `to`.
    fn copy_out(&self, at: usize, to: &mut [u8]);
    /// Copies `len` bytes from `at` behind those of `to`.
    fn append(&self, at: usize, len: usize, to: &mut Vec<u8>);
}

/// The memory of a stream, as one process sees it: the same lines as words and as bytes.
#[derive(Debug)]
pub(crate) struct Ring<'a, B> {
    pub(crate) header: &'a StreamHeader,
    pub(crate) words: &'a [AtomicU64],
    pub(crate) bytes: &'a B,
}

/// The number of lines, private to each process: a power of two, at least [`Lines::LEAST`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lines(u64);

impl Lines {
    pub(crate) const LEAST: u64 = 64;
    /// The smallest [`piece`](Lines::piece) there is.
    pub(crate) const LEAST_PIECE: usize = Lines(Lines::LEAST).piece();

    /// The lines of a ring of so many bytes; `None` if no ring has as many.
    pub(crate) const fn of_bytes(bytes: u64) -> Option<Lines> {
        let lines = bytes / LINE as u64;
        let whole = bytes % LINE as u64 == 0 && lines.is_power_of_two();
        if whole && lines >= Lines::LEAST {
            Some(Lines(lines))
        } else {
            None
        }
    }

    /// Bytes of a run of a message that has several.
    pub(crate) const fn piece(self) -> usize {
        let quarter = self.0 as usize * LINE / 4;
        if quarter < PIECE { quarter } else { PIECE }
    }

    /// Lines behind the control line that a message of so many bytes may need, the next control line among
    /// them; more than [`most`](Lines::most) if it never fits at once.
    pub(crate) const fn ahead(self, bytes: usize) -> u64 {
        if bytes <= SMALL {
            // It may have to go to the next control line, and that one be used up.
            return 2;
        }
        let whole = (bytes / self.piece()) as u64;
        let rest = bytes % self.piece();
        let rest = if rest == 0 { 0 } else { run_lines(rest) + 1 };
        whole * (run_lines(self.piece()) + 1) + rest
    }

    /// The same for a message of at most [`Lines::LEAST_PIECE`], but more than [`SMALL`] bytes, whatever the ring.
    pub(crate) const fn run_ahead(bytes: usize) -> u64 {
        run_lines(bytes) + 1
    }

    /// The most lines there are behind a control line.
    pub(crate) const fn most(self) -> u64 {
        self.0 - 1
    }

    /// The longest message that fits at once into an empty ring.
    pub(crate) const fn largest(self) -> usize {
        let each = run_lines(self.piece()) + 1;
        let whole = self.most() / each;
        let rest = self.most() % each;
        whole as usize * self.piece() + rest.saturating_sub(1) as usize * LINE
    }

    /// The first word of a line.
    #[inline(always)]
    fn first(self, line: u64) -> usize {
        ((line & (self.0 - 1)) * WORDS) as usize
    }

    /// The words of a line.
    #[inline(always)]
    fn line(self, words: &[AtomicU64], line: u64) -> &[AtomicU64] {
        line_at(words, self.first(line))
    }

    /// Where a run lies: the offset of its first byte, and how many bytes there are before the ring's end.
    #[inline(always)]
    fn place(self, line: u64) -> (usize, usize) {
        let line = line & (self.0 - 1);
        (line as usize * LINE, (self.0 - line) as usize * LINE)
    }
}

/// The words of the line that begins with word `first`.
#[inline(always)]
fn line_at(words: &[AtomicU64], first: usize) -> &[AtomicU64] {
    &words[first..first + WORDS as usize]
}

const fn run_lines(bytes: usize) -> u64 {
    bytes.div_ceil(LINE) as u64
}

/// The writing end: at most one alive per stream.
#[derive(Debug)]
pub(crate) struct Writer {
    lines: Lines,
    /// The control line being filled.
    line: u64,
    /// The first of its words.
    at: usize,
    /// Its tags, and from bit [`INDEX`] on how many of its words are used: one word, so that sending stores
    /// little.
    used: u64,
    /// The line behind its runs: the next control line, unless more runs come.
    tail: u64,
    /// A line whose tags I have cleared and that I have not used since.
    clear: u64,
    /// One past the last line that may be written without another look.
    end: u64,
    /// Runs of a message have been published, and not its last.
    begun: bool,
}

impl Writer {
    /// The writer of a fresh stream.
    pub(crate) fn new(lines: Lines) -> Writer {
        Writer {
            lines,
            line: 0,
            at: 0,
            used: 0,
            tail: 1,
            clear: 0,
            end: lines.0,
            begun: false,
        }
    }

    /// Says where I am, for whoever takes up the stream.
    pub(crate) fn park(&self, header: &StreamHeader) {
        let begun = u64::from(self.begun) << 63;
        header.writer[0].store(self.position(), Ordering::Relaxed);
        header.writer[1].store(self.tail | begun, Ordering::Relaxed);
    }

    /// Takes up a stream where its last writer left it. The caller has it from that writer.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] when no writer can have been there.
    pub(crate) fn resume<B>(lines: Lines, ring: &Ring<'_, B>) -> Result<Writer, Corrupt> {
        let (line, index, tail) = parked(&ring.header.writer)?;
        let begun = tail >> 63 != 0;
        let tail = tail << 1 >> 1;
        let taken = ring.header.taken.load(Ordering::Acquire);
        let mine = lines.line(ring.words, line)[CONTENT].load(Ordering::Relaxed);
        if taken > line || tail <= line || tail - taken > lines.0 {
            return Err(Corrupt("a stream's writer cannot be where it says"));
        }
        Ok(Writer {
            lines,
            line,
            at: lines.first(line),
            used: mine & !(u64::MAX << (8 * index)) | (index as u64) << INDEX,
            tail,
            clear: line,
            end: taken + lines.0,
            begun,
        })
    }

    /// Goes up with everything published.
    pub(crate) fn position(&self) -> u64 {
        self.line * WORDS + self.index() as u64
    }

    /// Whether a message has begun that was not finished, and must be forgotten before another.
    #[inline]
    pub(crate) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether `ahead` lines behind my control line are free, by what I know and by the lazy `freed`.
    ///
    /// Cheap enough to poll: the reader writes `freed` eight times a lap, or when it finds nothing.
    #[inline(always)]
    pub(crate) fn has_room(&mut self, header: &StreamHeader, ahead: u64) -> bool {
        self.tail + ahead <= self.end || self.learn(&header.freed, ahead)
    }

    /// Whether `ahead` lines are free, exactly.
    #[inline]
    pub(crate) fn has_room_exactly(&mut self, header: &StreamHeader, ahead: u64) -> bool {
        self.tail + ahead <= self.end || self.learn(&header.taken, ahead)
    }

    #[cold]
    fn learn(&mut self, word: &AtomicU64, ahead: u64) -> bool {
        // Edge B, writer's end.
        let taken = word.load(Ordering::Acquire);
        let known = self.end - self.lines.0;
        // A position outside what I published is a lie or stale; believing only what lies between keeps
        // `end` within a lap of my line, whatever a peer writes.
        if taken.wrapping_sub(known) <= self.line - known {
            self.end = taken + self.lines.0;
        }
        self.tail + ahead <= self.end
    }

    /// Publishes a message of at most [`SMALL`] bytes, given as words, at least one.
    ///
    /// The caller has seen [`Lines::ahead`] of room.
    #[inline(always)]
    pub(crate) fn put_small(&mut self, words: &[AtomicU64], content: &[u64], bytes: usize) {
        if self.index() + content.len() > CONTENT {
            self.skip(words);
        }
        let line = line_at(words, self.at);
        for (word, value) in line[self.index()..CONTENT].iter().zip(content) {
            word.store(*value, Ordering::Relaxed);
        }
        self.publish(words, 1 + bytes as u8, content.len(), false);
    }

    /// Publishes a message of at most eight bytes; false if there is no room. The shortest way there is: room is
    /// looked for once a line.
    #[inline(always)]
    pub(crate) fn put_word(
        &mut self,
        header: &StreamHeader,
        words: &[AtomicU64],
        value: u64,
        bytes: usize,
    ) -> bool {
        let tag = 1 + bytes as u64;
        let index = self.index();
        if !(1..CONTENT - 1).contains(&index) {
            return self.turn(header, words, value, bytes);
        }
        let line = line_at(words, self.at);
        line[index].store(value, Ordering::Relaxed);
        self.used = (self.used | tag << (8 * index)) + (1 << INDEX);
        // Edge A, writer's end.
        line[CONTENT].store(self.used, Ordering::Release);
        true
    }

    /// The first and the last word of a line.
    #[inline(never)]
    fn turn(
        &mut self,
        header: &StreamHeader,
        words: &[AtomicU64],
        value: u64,
        bytes: usize,
    ) -> bool {
        if !self.has_room(header, self.lines.ahead(bytes)) {
            return false;
        }
        self.put_small(words, &[value], bytes);
        true
    }

    /// Publishes bytes as a run: a whole message, or the next part of one, at most [`Lines::piece`].
    ///
    /// The caller has seen [`Lines::ahead`] of room.
    #[inline(always)]
    pub(crate) fn put_run<B: Bulk>(&mut self, ring: &Ring<'_, B>, bytes: &[u8], last: bool) {
        self.fill_run(ring, bytes);
        self.publish_run(ring.words, bytes.len(), last);
    }

    /// Copies the bytes of the next run to where it will lie. Nobody sees them before
    /// [`publish_run`](Writer::publish_run), which may as well never come: they are written over
    /// then.
    ///
    /// # Panics
    ///
    /// If the caller has not seen [`Lines::ahead`] of room.
    #[inline(always)]
    pub(crate) fn fill_run<B: Bulk>(&mut self, ring: &Ring<'_, B>, bytes: &[u8]) {
        assert!(
            self.tail + run_lines(bytes.len()) < self.end,
            "a run beyond the room that was seen"
        );
        // The line whose tags I have cleared may be the first of them.
        self.clear = self.line;
        if bytes.len() <= SHORT {
            self.fill(ring.words, bytes);
        } else {
            let (at, room) = self.lines.place(self.tail);
            let (first, rest) = bytes.split_at(bytes.len().min(room));
            ring.bytes.copy_in(at, first);
            ring.bytes.copy_in(0, rest);
        }
    }

    /// Publishes the run of so many bytes that was filled.
    #[inline(always)]
    pub(crate) fn publish_run(&mut self, words: &[AtomicU64], bytes: usize, last: bool) {
        let line = line_at(words, self.at);
        line[self.index()].store(bytes as u64, Ordering::Relaxed);
        self.tail += run_lines(bytes);
        if self.begun == last {
            self.begun = !last;
        }
        let tag = if last { LAST } else { RUN };
        self.publish(words, tag, 1, bytes > LONG);
    }

    /// Copies a short run word by word, as it was probably written.
    ///
    /// A processor keeps stores in order, and these wait for their lines. A load of more than one of the
    /// last stores wrote would wait for all of them.
    #[inline(always)]
    fn fill(&self, words: &[AtomicU64], bytes: &[u8]) {
        for (ahead, bytes) in bytes.chunks(LINE).enumerate() {
            let line = self.lines.line(words, self.tail + ahead as u64);
            for (word, bytes) in line.iter().zip(bytes.chunks(8)) {
                let value = match bytes.first_chunk() {
                    Some(whole) => u64::from_ne_bytes(*whole),
                    None => {
                        let mut part = [0; 8];
                        part[..bytes.len()].copy_from_slice(bytes);
                        u64::from_ne_bytes(part)
                    }
                };
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// Takes back the message that has begun. The caller has seen room for a small one.
    #[cold]
    pub(crate) fn forget(&mut self, words: &[AtomicU64]) {
        self.begun = false;
        self.publish(words, FORGET, 1, false);
    }

    /// Leaves the rest of the control line unused.
    #[cold]
    fn skip(&mut self, words: &[AtomicU64]) {
        self.publish(words, NEXT, CONTENT - self.index(), true);
    }

    /// Publishes `count` words by the tag of the first. The line is closed if it must be, or if nothing of
    /// the same size fits behind.
    #[inline(always)]
    fn publish(&mut self, words: &[AtomicU64], tag: u8, count: usize, close: bool) {
        let index = self.index();
        let mut used = (self.used | u64::from(tag) << (8 * index)) + ((count as u64) << INDEX);
        let line = line_at(words, self.at);
        if close || index + 2 * count > CONTENT {
            if index + count < CONTENT {
                used |= u64::from(NEXT) << (8 * (index + count));
            }
            if self.clear != self.tail {
                self.lines.line(words, self.tail)[CONTENT].store(0, Ordering::Relaxed);
            }
            // Edge A, writer's end.
            line[CONTENT].store(used, Ordering::Release);
            self.line = self.tail;
            self.at = self.lines.first(self.line);
            self.tail += 1;
            self.used = 0;
        } else {
            // Edge A, writer's end.
            line[CONTENT].store(used, Ordering::Release);
            self.used = used;
            if index == 0 {
                // Early, so that the line is here when it is wanted: a store that waits for its line
                // keeps those behind it waiting, the next tags among them.
                self.clear = self.tail;
                self.lines.line(words, self.tail)[CONTENT].store(0, Ordering::Relaxed);
            }
        }
    }

    /// How many words of the control line are used.
    #[inline(always)]
    fn index(&self) -> usize {
        (self.used >> INDEX) as usize
    }
}

/// Reads a parked position: line, index, and the second word as it is.
fn parked(words: &[AtomicU64; 2]) -> Result<(u64, usize, u64), Corrupt> {
    let at = words[0].load(Ordering::Relaxed);
    let (line, index) = (at / WORDS, (at % WORDS) as usize);
    if line >= FAR || index >= CONTENT {
        return Err(Corrupt("a stream's end cannot be where it says"));
    }
    Ok((line, index, words[1].load(Ordering::Relaxed)))
}

/// What comes next in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing yet.
    Nothing,
    /// A message of so many bytes in the control line: [`Reader::take_small`].
    Small(usize),
    /// So many bytes of a message, and whether it ends with them: [`Reader::take_run`], [`Reader::append_run`].
    Run { bytes: usize, last: bool },
    /// The message that has begun will not be finished: [`Reader::take_forget`].
    Forget,
}

/// The reading end: at most one alive per stream.
#[derive(Debug)]
pub(crate) struct Reader {
    lines: Lines,
    /// The control line being read.
    line: u64,
    /// The first of its words.
    at: usize,
    /// How many of its words are taken.
    index: usize,
    /// What I know of the tags from there on.
    tags: u64,
    /// The line behind its runs that are taken.
    tail: u64,
    /// What `freed` says.
    freed: u64,
}

impl Reader {
    /// The reader of a fresh stream.
    pub(crate) fn new(lines: Lines) -> Reader {
        Reader {
            lines,
            line: 0,
            at: 0,
            index: 0,
            tags: 0,
            tail: 1,
            freed: 0,
        }
    }

    /// Says where I am, for whoever takes up the stream.
    pub(crate) fn park(&self, header: &StreamHeader) {
        header.reader[0].store(self.line * WORDS + self.index as u64, Ordering::Relaxed);
        header.reader[1].store(self.tail, Ordering::Relaxed);
    }

    /// Takes up a stream where its last reader left it. The caller has it from that reader.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] when no reader can have been there.
    pub(crate) fn resume(lines: Lines, header: &StreamHeader) -> Result<Reader, Corrupt> {
        let (line, index, tail) = parked(&header.reader)?;
        if tail <= line || tail - line >= lines.0 {
            return Err(Corrupt("a stream's reader cannot be where it says"));
        }
        Ok(Reader {
            lines,
            line,
            at: lines.first(line),
            index,
            tags: 0,
            tail,
            freed: header.freed.load(Ordering::Relaxed),
        })
    }

    /// The control line being read: tells whether anything was taken between two looks.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.line
    }

    /// As [`Writer::position`]: what was published before that position is taken.
    #[inline]
    pub(crate) fn progress(&self) -> u64 {
        self.line * WORDS + self.index as u64
    }

    /// The next tag, 0 if there is none.
    #[inline(always)]
    fn tag(&mut self, header: &StreamHeader, words: &[AtomicU64]) -> Result<u8, Corrupt> {
        // Twice at most: where a line is left, the next one begins, and that is never left at once.
        loop {
            if self.tags == 0 {
                // Edge A, reader's end.
                let tags = line_at(words, self.at)[CONTENT].load(Ordering::Acquire);
                self.tags = (tags & TAGS) >> (8 * self.index);
                if self.tags == 0 {
                    return Ok(0);
                }
            }
            match self.tags as u8 {
                0 => return Err(Corrupt("a stream's tags have a gap")),
                NEXT if self.index == 0 => {
                    return Err(Corrupt("a stream leaves a line that it has not used"));
                }
                NEXT => self.go_on(header),
                tag => return Ok(tag),
            }
        }
    }

    /// What comes next.
    ///
    /// # Errors
    ///
    /// [`Corrupt`] when no writer writes that.
    #[inline(always)]
    pub(crate) fn next(
        &mut self,
        header: &StreamHeader,
        words: &[AtomicU64],
    ) -> Result<Next, Corrupt> {
        let tag = self.tag(header, words)?;
        match tag {
            0 => Ok(Next::Nothing),
            RUN | LAST => {
                let word = &line_at(words, self.at)[self.index];
                let bytes = word.load(Ordering::Relaxed);
                // Behind the run is another control line, and all of it is within a lap.
                let room = self.lines.0 - (self.tail - self.line) - 1;
                if bytes == 0 || bytes > room * LINE as u64 {
                    return Err(Corrupt("a run does not fit its stream"));
                }
                Ok(Next::Run {
                    bytes: bytes as usize,
                    last: tag == LAST,
                })
            }
            FORGET => Ok(Next::Forget),
            _ => {
                let bytes = usize::from(tag) - 1;
                if bytes > (CONTENT - self.index) * 8 {
                    return Err(Corrupt("a message does not fit its line"));
                }
                Ok(Next::Small(bytes))
            }
        }
    }

    /// Takes the message that [`next`](Reader::next) found, of so many bytes, into as many words as it has.
    #[inline]
    pub(crate) fn take_small(
        &mut self,
        header: &StreamHeader,
        words: &[AtomicU64],
        bytes: usize,
        content: &mut [u64; CONTENT],
    ) {
        let count = bytes.div_ceil(8).max(1);
        let line = line_at(words, self.at);
        for (value, word) in content[..count].iter_mut().zip(&line[self.index..CONTENT]) {
            *value = word.load(Ordering::Relaxed);
        }
        self.step(header, count);
    }

    /// Takes the message that comes next if it has exactly `bytes`, at most eight: the shortest way there is.
    #[inline(always)]
    pub(crate) fn take_word(
        &mut self,
        header: &StreamHeader,
        words: &[AtomicU64],
        bytes: usize,
    ) -> Option<u64> {
        let tag = 1 + bytes as u8;
        if self.tags == 0 {
            // Edge A, reader's end.
            let tags = line_at(words, self.at)[CONTENT].load(Ordering::Acquire);
            self.tags = (tags & TAGS) >> (8 * self.index);
        }
        if self.tags as u8 != tag {
            return None;
        }
        let value = line_at(words, self.at)[self.index].load(Ordering::Relaxed);
        self.tags >>= 8;
        self.index += 1;
        if self.index == CONTENT {
            self.go_on(header);
        }
        Some(value)
    }

    /// Takes the run that [`next`](Reader::next) found into `to`, which is as long as it.
    #[inline(always)]
    pub(crate) fn take_run<B: Bulk>(&mut self, ring: &Ring<'_, B>, to: &mut [u8]) {
        let (at, room) = self.lines.place(self.tail);
        let length = to.len();
        if length <= room {
            ring.bytes.copy_out(at, to);
        } else {
            let (first, rest) = to.split_at_mut(room);
            ring.bytes.copy_out(at, first);
            ring.bytes.copy_out(0, rest);
        }
        self.leave_run(ring.header, length);
    }

    /// Takes the run that [`next`](Reader::next) found, of so many bytes, behind those of `to`.
    #[inline]
    pub(crate) fn append_run<B: Bulk>(
        &mut self,
        ring: &Ring<'_, B>,
        bytes: usize,
        to: &mut Vec<u8>,
    ) {
        let (at, room) = self.lines.place(self.tail);
        if bytes <= room {
            ring.bytes.append(at, bytes, to);
        } else {
            ring.bytes.append(at, room, to);
            ring.bytes.append(0, bytes - room, to);
        }
        self.leave_run(ring.header, bytes);
    }

    /// Goes past the run that [`next`](Reader::next) found, of so many bytes.
    #[cold]
    pub(crate) fn skip_run(&mut self, header: &StreamHeader, bytes: usize) {
        self.leave_run(header, bytes);
    }

    /// Goes past a word that says that the message is to be forgotten.
    pub(crate) fn take_forget(&mut self, header: &StreamHeader) {
        self.step(header, 1);
    }

    #[inline(always)]
    fn leave_run(&mut self, header: &StreamHeader, bytes: usize) {
        self.tail += run_lines(bytes);
        if bytes > LONG {
            self.go_on(header);
        } else {
            self.step(header, 1);
        }
    }

    #[inline(always)]
    fn step(&mut self, header: &StreamHeader, count: usize) {
        self.index += count;
        self.tags = self.tags >> (8 * count - 8) >> 8;
        if self.index == CONTENT || self.tags as u8 == NEXT {
            self.go_on(header);
        }
    }

    /// Goes to the next control line, and gives back what lies before it.
    #[inline(never)]
    fn go_on(&mut self, header: &StreamHeader) {
        self.line = self.tail;
        self.at = self.lines.first(self.line);
        self.tail += 1;
        self.index = 0;
        self.tags = 0;
        // Edge B, reader's end.
        header.taken.store(self.line, Ordering::Release);
        if self.line.wrapping_sub(self.freed) >= self.lines.0 / 8 {
            self.settle(header);
        }
    }

    /// Tells the writer of all that was given back. To be called before waiting.
    #[cold]
    pub(crate) fn settle(&mut self, header: &StreamHeader) {
        if self.line != self.freed {
            self.freed = self.line;
            // Edge B, reader's end.
            header.freed.store(self.line, Ordering::Release);
            header.room.notify_one();
        }
    }
}
