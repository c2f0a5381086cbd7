//! What lies in a segment's file behind its body: memory for what is seldom and long.
//!
//! It is read and written by calls and never mapped, so it takes no address space, and no memory before it is
//! written; and whoever has the file can do no more to a reader than to give it other bytes, or fewer.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};

use crate::error::{Corrupt, SegmentError};
use crate::layout::{HEADER, MAGIC};
use crate::sys;

use super::{Segment, header};

const OUTSIDE: SegmentError = SegmentError::Corrupt(Corrupt("a part lies outside its segment"));
const SHORT: SegmentError = SegmentError::Corrupt(Corrupt("a segment's file has become shorter"));

impl Segment {
    /// Bytes of the file behind the body.
    pub(crate) fn tail(&self) -> u64 {
        self.0.tail
    }

    /// Where a stretch of the tail lies in the file.
    fn in_tail(&self, offset: u64, len: u64) -> Result<u64, SegmentError> {
        let end = offset.checked_add(len).ok_or(OUTSIDE)?;
        match end <= self.0.tail {
            true => Ok(HEADER as u64 + self.0.body + offset),
            false => Err(OUTSIDE),
        }
    }

    /// Writes bytes there.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NoSpace`], [`SegmentError::FileTooLarge`], or what the system said.
    pub(crate) fn write_tail(&self, offset: u64, bytes: &[u8]) -> Result<(), SegmentError> {
        let len = bytes.len() as u64;
        let mut at = self.in_tail(offset, len)?;
        self.check_descriptor()?;
        let explain = |error| SegmentError::from_io(error, len);
        sys::expect_room(at, len).map_err(explain)?;
        let mut rest = bytes;
        while !rest.is_empty() {
            match retry_on_intr(|| rustix::io::pwrite(self.file(), rest, at)) {
                Ok(written) if written > 0 => {
                    rest = &rest[written..];
                    at += written as u64;
                }
                refused => {
                    // What it took.
                    let _ = self.punch_tail(offset, len);
                    let errno = refused.err().unwrap_or(Errno::NOSPC);
                    return Err(explain(errno.into()));
                }
            }
        }
        Ok(())
    }

    /// Fills `to` with bytes from there.
    ///
    /// # Errors
    ///
    /// [`SegmentError::Corrupt`] if they are not there.
    pub(crate) fn read_tail(&self, offset: u64, to: &mut [u8]) -> Result<(), SegmentError> {
        let mut at = self.in_tail(offset, to.len() as u64)?;
        self.check_descriptor()?;
        let mut rest = to;
        while !rest.is_empty() {
            let read = retry_on_intr(|| rustix::io::pread(self.file(), &mut *rest, at));
            match read.map_err(io::Error::from)? {
                0 => return Err(SHORT),
                read => {
                    rest = &mut rest[read..];
                    at += read as u64;
                }
            }
        }
        Ok(())
    }

    /// Gives the memory of a stretch back: it reads as zero.
    pub(crate) fn punch_tail(&self, offset: u64, len: u64) -> Result<(), SegmentError> {
        let at = self.in_tail(offset, len)?;
        self.check_descriptor()?;
        match len {
            0 => Ok(()),
            _ => Ok(sys::punch(self.file(), at, len)?),
        }
    }
}

/// Bytes that a file of another process takes here when it is mapped: all, but for the tail of a segment.
pub(crate) fn mapped_length(file: &OwnedFd) -> io::Result<u64> {
    let length = rustix::fs::fstat(file)?.st_size;
    let length = u64::try_from(length).unwrap_or(u64::MAX);
    let mut magic = [0; 8];
    let is_segment = !sys::is_sealed_against_writing(file)
        && rustix::io::pread(file.as_fd(), &mut magic, 0) == Ok(magic.len())
        && u64::from_ne_bytes(magic) == MAGIC;
    Ok(match header::checked_file(file) {
        Ok(lengths) if is_segment => lengths.mapped,
        _ => length,
    })
}
