//! The first bytes of a segment: what it is, checked before anything else of it is read.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsFd;

use rustix::io::retry_on_intr;

use crate::cookie::Cookie;
use crate::error::SegmentError;
use crate::layout::{HEADER, MAGIC, SHAPE_WORDS, SegmentHeader, VERSION, WORD};
use crate::sync::Ordering;

pub(super) fn checked_length(body: u64) -> Result<u64, SegmentError> {
    body.checked_add(HEADER as u64)
        .filter(|length| isize::try_from(*length).is_ok())
        .ok_or(SegmentError::NoSpace { needed: body })
}

/// How long a segment is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    /// Header and body: what is mapped.
    pub(super) mapped: u64,
    /// What comes behind in its file.
    pub(super) tail: u64,
}

/// The lengths of a file that may hold a segment.
pub(super) fn checked_file(file: impl AsFd) -> Result<Lengths, SegmentError> {
    let stat = rustix::fs::fstat(&file).map_err(io::Error::from)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
        return Err(SegmentError::NotASegment);
    }
    let length = u64::try_from(stat.st_size).unwrap_or(0);
    let truncated = |wanted| SegmentError::Truncated {
        found: length,
        wanted,
    };
    if length < HEADER as u64 {
        return Err(truncated(HEADER as u64));
    }
    let mut tail = [0; 8];
    let at = offset_of!(SegmentHeader, tail) as u64;
    let read = retry_on_intr(|| rustix::io::pread(&file, &mut tail, at));
    if read.map_err(io::Error::from)? != tail.len() {
        return Err(truncated(HEADER as u64));
    }
    let tail = u64::from_ne_bytes(tail);
    // Whatever stands there, no more is mapped than there is; `read` compares it with the header's own length.
    let mapped = length
        .checked_sub(tail)
        .filter(|mapped| *mapped >= HEADER as u64 && isize::try_from(*mapped).is_ok())
        .ok_or(truncated(tail.saturating_add(HEADER as u64)))?;
    Ok(Lengths { mapped, tail })
}

/// Fills a header; the magic last, so that a segment without it is one that was never finished.
pub(super) fn write(header: &SegmentHeader, lengths: Lengths, cookie: Cookie, shape: &str) {
    header.version.store(VERSION, Ordering::Relaxed);
    header.word.store(WORD, Ordering::Relaxed);
    header.length.store(lengths.mapped, Ordering::Relaxed);
    header.tail.store(lengths.tail, Ordering::Relaxed);
    for (word, value) in header.cookie.iter().zip(cookie) {
        word.store(value, Ordering::Relaxed);
    }
    let mut text = [0u8; SHAPE_WORDS * 8];
    let shape = fit(shape).as_bytes();
    text[..shape.len()].copy_from_slice(shape);
    for (word, bytes) in header.shape.iter().zip(text.chunks_exact(8)) {
        word.store(
            u64::from_le_bytes(bytes.try_into().unwrap_or_default()),
            Ordering::Relaxed,
        );
    }
    // Edge F, maker's end; the attacher's is in `read`.
    header.magic.store(MAGIC, Ordering::Release);
}

/// Reads each field of a header once and checks it: the cookie and the shape.
pub(super) fn read(header: &SegmentHeader, length: u64) -> Result<(Cookie, String), SegmentError> {
    // Edge F, attacher's end; the maker's is in `write`.
    if header.magic.load(Ordering::Acquire) != MAGIC {
        return Err(SegmentError::NotASegment);
    }
    let version = header.version.load(Ordering::Relaxed);
    let word = header.word.load(Ordering::Relaxed);
    if (version, word) != (VERSION, WORD) {
        return Err(SegmentError::WrongVersion {
            found: (version, word),
            wanted: (VERSION, WORD),
        });
    }
    let found = header.length.load(Ordering::Relaxed);
    if found != length {
        return Err(SegmentError::Truncated {
            found: length,
            wanted: found,
        });
    }
    let cookie = [
        header.cookie[0].load(Ordering::Relaxed),
        header.cookie[1].load(Ordering::Relaxed),
    ];
    let text: Vec<u8> = header
        .shape
        .iter()
        .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
        .collect();
    let end = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len());
    Ok((cookie, String::from_utf8_lossy(&text[..end]).into_owned()))
}

/// As much of a shape as a header holds.
pub(super) fn fit(shape: &str) -> &str {
    let limit = shape.len().min(SHAPE_WORDS * 8);
    let end = (0..=limit).rev().find(|&end| shape.is_char_boundary(end));
    &shape[..end.unwrap_or(0)]
}
