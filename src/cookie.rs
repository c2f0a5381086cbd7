//! What tells a segment from any other, wherever it is mapped and whatever descriptor leads to it.

use std::io;

use crate::sys;

/// Two words, random when the segment is made.
pub(crate) type Cookie = [u64; 2];

/// A cookie that no segment has.
pub(crate) fn new() -> io::Result<Cookie> {
    Ok([sys::random()?, sys::random()?])
}

/// The end of the names of a segment's files in memory, by which a reader of `/proc` tells them apart.
pub(crate) fn tag(cookie: Cookie) -> String {
    format!("{:016x}{:016x}", cookie[0], cookie[1])
}
