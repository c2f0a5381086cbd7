//! Memory that nobody can write any more.
//!
//! A [`Draft`] is a file in memory that only its maker knows. Sealing it asks the kernel to refuse every write
//! and every new size from now on, for ever and to everyone, which the kernel grants only while nobody could be
//! writing. Then it is [`Sealed`], and mapped for reading; only from then on can others get it, and they check
//! the seals before they believe in it.
//!
//! It always stands beside an ordinary [`Segment`](crate::segment::Segment), which has its cookie, says what it holds, and
//! travels for both.

use std::any::TypeId;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::Mode;

use crate::cookie::{self, Cookie};
use crate::error::SegmentError;
use crate::layout::{SEALED_HEADER, sealed_header};
use crate::sys::{self, Descriptor, Large};

/// How long a fork elsewhere in this process may take to let go of what it inherited.
const BUSY: Duration = Duration::from_millis(200);

/// How often a draft that somebody keeps mapped is copied to another file.
const COPIES: u32 = 3;
/// Bytes that are copied at once.
const AT_ONCE: usize = 1 << 20;

/// Memory being written by its maker, unknown to everyone else.
#[derive(Debug)]
pub(crate) struct Draft {
    file: std::fs::File,
    length: u64,
    cookie: Cookie,
    /// Whether it was made of huge pages. One that was not is copied once more to become so.
    gathered: bool,
}

impl Draft {
    /// An empty draft whose contents will be aligned to `align`, a page at most.
    pub(crate) fn new(align: usize) -> Result<Draft, SegmentError> {
        Draft::empty(cookie::new()?, start(align) as u64)
    }

    fn empty(cookie: Cookie, length: u64) -> Result<Draft, SegmentError> {
        let explain = |error| SegmentError::from_io(error, length);
        let name = format!("multiproc:sealed:{}", cookie::tag(cookie));
        let file = sys::memfd(&name, length).map_err(explain)?;
        // Sealing is refused while anybody else could write, so nobody can open it to write, but root.
        rustix::fs::fchmod(&file, Mode::RUSR | Mode::RGRP | Mode::ROTH).map_err(io::Error::from)?;
        Ok(Draft {
            file: file.into(),
            length,
            cookie,
            gathered: false,
        })
    }

    /// Bytes there are, header and padding included.
    pub(crate) fn len(&self) -> usize {
        self.length as usize
    }

    /// Writes `bytes` behind what is there.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), SegmentError> {
        let length = bytes.len() as u64;
        let explain = |error| SegmentError::from_io(error, self.length.saturating_add(length));
        sys::expect_room(self.length, length).map_err(explain)?;
        self.file
            .write_all_at(bytes, self.length)
            .map_err(explain)?;
        self.length += length;
        Ok(())
    }

    /// Maps `length` zeroes behind what is there, to be written in place. The address is that of the whole draft.
    pub(crate) fn extend(&mut self, length: u64) -> Result<Large, SegmentError> {
        let explain = |error| SegmentError::from_io(error, length);
        let all = self
            .length
            .checked_add(length)
            .filter(|all| isize::try_from(*all).is_ok());
        let all = all.ok_or(SegmentError::NoSpace { needed: length })?;
        sys::expect_room(self.length, length).map_err(explain)?;
        sys::set_length(&self.file, all).map_err(explain)?;
        let map = Large::for_writing(&self.file, all as usize).map_err(explain)?;
        // One small page for each huge one to be made of. What is written is what the file holds there already.
        let mut at = self.length;
        while at < all {
            self.file.write_all_at(&[0], at).map_err(explain)?;
            at = (at + 1).next_multiple_of(sys::HUGE as u64);
        }
        map.gather();
        self.gathered = true;
        sys::allocate(&self.file, 0, all).map_err(explain)?;
        self.length = all;
        Ok(map)
    }

    /// The cookie of the segment it will stand beside.
    pub(crate) fn cookie(&self) -> Cookie {
        self.cookie
    }

    /// Seals it; nothing of it may be mapped any more.
    pub(crate) fn seal(mut self) -> Result<Sealed, SegmentError> {
        let cookie = self.cookie;
        let header = sealed_header(self.length, cookie);
        self.file.write_all_at(bytemuck::cast_slice(&header), 0)?;
        let end = Instant::now() + BUSY;
        let mut copies = 0;
        while let Err(error) = sys::seal_against_writing(&self.file) {
            if error.kind() != io::ErrorKind::ResourceBusy {
                return Err(error.into());
            }
            // A process forked at the wrong moment has a copy of a mapping, until it starts another program.
            if Instant::now() < end {
                sleep(Duration::from_millis(1));
                continue;
            }
            // Somebody has found the file and keeps it mapped: root, a debugger. So another one is sealed,
            // which is never mapped before, and which nobody knows yet.
            if copies == COPIES {
                return Err(io::Error::new(
                    io::ErrorKind::ResourceBusy,
                    "another process (of root's, or a debugger) has the array's memory mapped for \
                     writing, and that of each copy, so that it cannot be sealed",
                )
                .into());
            }
            copies += 1;
            self = self.copied()?;
        }
        // A descriptor for reading can be mapped on every kernel, and passed on without a thought.
        let reading = match sys::reopen_for_reading(&self.file) {
            // Without `proc`, newer kernels map the sealed file itself for reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.file.try_clone()?.into(),
            other => other?,
        };
        let sealed = Sealed::open(reading, cookie)?;
        if !self.gathered {
            sealed.map.gather();
        }
        Ok(sealed)
    }

    /// The same in another file.
    fn copied(self) -> Result<Draft, SegmentError> {
        let mut copy = Draft::empty(self.cookie, 0)?;
        let mut some = vec![0; AT_ONCE];
        let mut at = 0;
        while at < self.length {
            let length = (self.length - at).min(AT_ONCE as u64);
            let some = &mut some[..length as usize];
            self.file.read_exact_at(some, at)?;
            sys::expect_room(at, length).map_err(|e| SegmentError::from_io(e, self.length))?;
            copy.file
                .write_all_at(some, at)
                .map_err(|error| SegmentError::from_io(error, self.length))?;
            at += length;
        }
        copy.length = self.length;
        Ok(copy)
    }
}

/// Where the contents start.
fn start(align: usize) -> usize {
    SEALED_HEADER.next_multiple_of(align)
}

/// Sealed memory, mapped for reading.
#[derive(Debug)]
pub(crate) struct Sealed {
    map: Large,
    file: Descriptor,
    /// The type whose values the contents were found to be.
    checked: OnceLock<TypeId>,
}

impl Sealed {
    /// Maps what a descriptor leads to, if that is sealed and has this cookie.
    pub(crate) fn open(file: OwnedFd, cookie: Cookie) -> Result<Sealed, SegmentError> {
        if !sys::is_sealed_against_writing(&file) {
            return Err(SegmentError::Unsealed);
        }
        // Its size and its bytes are final: all that follows is true for ever.
        let file = std::fs::File::from(file);
        let length = file.metadata()?.len();
        let found = sys::allocated(&file)?;
        if found < length {
            // Its holes would be filled with memory where they are read.
            return Err(SegmentError::Sparse {
                found,
                wanted: length,
            });
        }
        let mut header = sealed_header(0, [0; 2]);
        file.read_exact_at(bytemuck::cast_slice_mut(&mut header), 0)
            .map_err(|_| SegmentError::NotASegment)?;
        if header != sealed_header(length, cookie) || length < SEALED_HEADER as u64 {
            return Err(SegmentError::NotASegment);
        }
        let length_here = usize::try_from(length).map_err(|_| SegmentError::NotASegment)?;
        let map = Large::for_reading(&file, length_here)
            .map_err(|error| SegmentError::from_io(error, length))?;
        Ok(Sealed {
            map,
            file: Descriptor::new(file.into())?,
            checked: OnceLock::new(),
        })
    }

    /// Where contents aligned to `align` start, and how many bytes they have.
    pub(crate) fn contents(&self, align: usize) -> (*const u8, usize) {
        let start = start(align).min(self.map.len());
        (
            self.map.as_mut_ptr().wrapping_add(start),
            self.map.len() - start,
        )
    }

    /// Whether the contents are known to be values of `T`; asks `check` the first time.
    pub(crate) fn holds<T: 'static>(&self, check: impl FnOnce() -> bool) -> bool {
        if self.checked.get() == Some(&TypeId::of::<T>()) {
            return true;
        }
        let holds = check();
        if holds {
            // Another type of the same bytes may have been first; then this one is checked each time.
            let _ = self.checked.set(TypeId::of::<T>());
        }
        holds
    }
}

impl AsFd for Sealed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
