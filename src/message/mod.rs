//! A value becomes bytes, and bytes become a value.
//!
//! Three ways, chosen by the type when compiling: *raw* for numbers, texts and arrays ([`raw`]),
//! *plain* for [`Plain`], and serde for all others ([`mod@write`], [`read`]), where sequences of
//! numbers are still one copy ([`numbers`]). All go straight into a [`Sink`]; none trusts the bytes
//! it reads. Numbers are in the machine's own order: both sides run on one machine.

mod depth;
mod known;
mod numbers;
mod plain;
mod raw;
mod read;
mod readable;
mod shape;
mod sink;
mod write;

#[cfg(test)]
mod tests;

use std::any::Any;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::plain::{Plain, PlainData};
pub(crate) use self::shape::{
    fixed_size, in_time, is_raw, plain_name, runs_no_code, shape_name, size_hint,
};
pub(crate) use self::sink::{Count, Sink};
pub(crate) use crate::error::{DecodeError, EncodeError};
use crate::segment::Bytes;

use self::read::Reader;
use self::write::Writer;

/// Levels a value may nest: each sequence, map, tuple, struct, enum, `Some` and newtype is one.
const LEVEL_LIMIT: usize = 256;

/// Elements of sequences and maps in one message that may take no bytes.
const EMPTY_LIMIT: usize = 1 << 16;

/// Numbers of a slice that are written at once: the longest array that is raw.
const BLOCK: usize = 32;

/// A value that can be sent to another process.
///
/// Every `'static` type with serde's `Serialize` and `DeserializeOwned` is one, by derive and without a line
/// more; the trait cannot be implemented by hand. What a sender could write, the receiver can read: a value that could
/// not be read back, in one of the ways below, is refused when it is sent.
///
/// | type | how it travels |
/// |---|---|
/// | numbers, `bool`, `char`, arrays of up to 32 and `Vec`s of them, `String` | their bytes, copied |
/// | [`Plain<T>`] | its bytes, copied; alone or inside any other type |
/// | [`Sender`](crate::Sender) and other ends, [`Lock`](crate::Lock), [`Frozen`](crate::Frozen), [`Fd`](crate::Fd) | as a handle, inside any other type |
/// | [`Func`](crate::Func) | as the place of the function in the program |
/// | every other type | value after value, without names; what has a length, after its length |
///
/// Inside other types a `Vec` or `Box<[_]>` of numbers, `bool` or `char` is also copied as a whole,
/// and so are a `String` and what serde calls bytes. Other sequences go element by element: a
/// `Vec<Plain<T>>` is the fast way for many small structs or arrays.
///
/// The format does not describe itself, so `#[serde(flatten)]`, `#[serde(untagged)]`,
/// `#[serde(tag)]`, types like `serde_json::Value` and a field that
/// `#[serde(skip_serializing_if)]` left out cannot travel. A type that has such a part anywhere is refused
/// with its first value, whatever that holds ([`EncodeError::Unreadable`]): leave the attribute away, or
/// send the part as a `String` of JSON. To find out, the type's `Deserialize` runs once where its values
/// are sent, with nothing to read. A value
/// may nest 256 levels deep (each sequence, map, tuple, struct, enum, `Some` and newtype is one)
/// and have 65,536 elements that take no bytes, like `()`. Values that are large at every level may
/// take more stack than the thread that reads them has: reading stops with [`DecodeError::NoStack`]
/// while 64 KiB are left.
///
/// A type's `Serialize` must write what its `Deserialize` reads; derived ones do. Where the number
/// of bytes is known from the type, another number is refused when it is sent, with
/// [`EncodeError::WrongLength`].
///
/// Bytes that are not a value of the type, whoever wrote them, end in a [`DecodeError`], in time and memory
/// bounded by their number.
///
/// # Examples
///
/// ```
/// use multiproc::Message;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// enum Command {
///     Resize { width: u32, height: u32 },
///     Rename(String),
///     Quit,
/// }
///
/// fn is_message<T: Message>(_: T) {}
///
/// is_message(7_u64);
/// is_message(vec![0.5; 1000]);
/// is_message((1, "text".to_owned(), Some([1_u8, 2, 3])));
/// is_message(Command::Quit);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    label = "not a message",
    note = "your own type needs serde's two traits: `#[derive(serde::Serialize, serde::Deserialize)]`; so does each type in it",
    note = "what is borrowed is sent owned: `String` for `&str`, `Vec<T>` for `&[T]`",
    note = "an error such as `anyhow::Error` is sent as its text: `.map_err(|error| error.to_string())`",
    note = "sockets, files and other descriptors are sent as `multiproc::Fd`, functions as `multiproc::Func`",
    note = "what is shared by threads (`Arc<Mutex<T>>`, channels) is shared by processes as `multiproc::Lock`, `Queue` or `Frozen`"
)]
pub trait Message: Serialize + DeserializeOwned + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + 'static> Message for T {}

/// Writes a value and returns how many bytes it has, whether the sink had room for them or not.
#[inline]
pub(crate) fn encode<T: Message, S: Sink>(value: &T, sink: &mut S) -> Result<usize, EncodeError> {
    if let Some(bytes) = raw::bytes(value) {
        put_raw::<T, S>(sink, bytes);
        return Ok(bytes.len());
    }
    let mut writer = Writer::new(sink);
    value.serialize(&mut writer)?;
    let written = expect_written::<T>(writer.written())?;
    readable::check::<T>()?;
    Ok(written)
}

/// Refuses what a type of [`fixed_size`] wrote, if its reader would not find it there.
///
/// `Serialize` and `Deserialize` are the user's, and nothing makes them agree; every place in
/// shared memory that has room for values of a fixed size relies on this.
#[inline(always)]
fn expect_written<T: Message>(written: usize) -> Result<usize, EncodeError> {
    match fixed_size::<T>() {
        Some(needed) if needed != written => Err(EncodeError::WrongLength { written, needed }),
        _ => Ok(written),
    }
}

/// Reads the value that all of `bytes` are.
#[inline]
pub(crate) fn decode<T: Message>(bytes: &[u8]) -> Result<T, DecodeError> {
    if let Some(value) = raw::read(bytes) {
        return value;
    }
    let mut reader = Reader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    reader.finish()?;
    Ok(value)
}

/// Makes a `T` of a message's own memory, if `T` is `Vec<u8>` or `String`: nothing is copied then.
pub(crate) fn decode_owned<T: Message>(
    take: impl FnOnce() -> Vec<u8>,
) -> Option<Result<T, DecodeError>> {
    let mut value = None::<T>;
    let any: &mut dyn Any = &mut value;
    if let Some(bytes) = any.downcast_mut::<Option<Vec<u8>>>() {
        *bytes = Some(take());
    } else if let Some(text) = any.downcast_mut::<Option<String>>() {
        match String::from_utf8(take()) {
            Ok(whole) => *text = Some(whole),
            Err(_) => return Some(Err(DecodeError::InvalidText)),
        }
    }
    value.map(Ok)
}

/// Writes values one after another, for [`decode_vec`], and returns how many bytes they have together.
///
/// Values of [`fixed_size`] lie back to back, so each can be found, and read by [`decode`], alone.
pub(crate) fn encode_slice<T: Message, S: Sink>(
    items: &[T],
    sink: &mut S,
) -> Result<usize, EncodeError> {
    if let Some(Some(size)) = raw::size::<T>() {
        // Numbers go many at a time: an array of them is raw too.
        let mut rest = items;
        while let Some((block, left)) = rest.split_first_chunk::<BLOCK>() {
            match raw::bytes(block) {
                Some(bytes) => sink.put(bytes),
                None => put_each(block, sink),
            }
            rest = left;
        }
        put_each(rest, sink);
        return Ok(items.len() * size);
    }
    let mut writer = Writer::new(sink);
    for item in items {
        let before = writer.written();
        item.serialize(&mut writer)?;
        // Each for itself: values that lie back to back are found by their size.
        expect_written::<T>(writer.written() - before)?;
    }
    readable::check::<T>()?;
    Ok(writer.written())
}

/// Reads the `count` values that all of `bytes` are. The count is the caller's own, never one out of the bytes.
pub(crate) fn decode_vec<T: Message>(bytes: &[u8], count: usize) -> Result<Vec<T>, DecodeError> {
    let mut items = Vec::new();
    append_vec(bytes, count, &mut items)?;
    Ok(items)
}

/// As [`decode_vec`], behind what is in `to` already; nothing is added if any value is wrong.
pub(crate) fn append_vec<T: Message>(
    bytes: &[u8],
    count: usize,
    to: &mut Vec<T>,
) -> Result<(), DecodeError> {
    let before = to.len();
    let appended = append_each(bytes, count, to);
    if appended.is_err() {
        to.truncate(before);
    }
    appended
}

/// As [`append_vec`], straight from shared memory, for numbers; false if nothing was added.
pub(crate) fn append_from<T: Message>(
    from: &Bytes,
    offset: usize,
    count: usize,
    to: &mut Vec<T>,
) -> bool {
    raw::append_from(from, offset, count, to)
}

/// The value of so many bytes of shared memory, if a `T` travels raw: copied out once, then
/// checked.
///
/// No code of the user's runs.
#[inline]
pub(crate) fn read_from<T: Message>(
    from: &Bytes,
    offset: usize,
    len: usize,
) -> Option<Result<T, DecodeError>> {
    raw::read_from(from, offset, len)
}

fn append_each<T: Message>(bytes: &[u8], count: usize, to: &mut Vec<T>) -> Result<(), DecodeError> {
    if let Some(Some(size)) = raw::size::<T>() {
        raw::expect_len(bytes, count.saturating_mul(size))?;
        if let Some(appended) = raw::append(bytes, to) {
            return appended;
        }
    }
    let mut reader = Reader::new(bytes);
    to.reserve(count.min(bytes.len()));
    for _ in 0..count {
        to.push(T::deserialize(&mut reader)?);
    }
    reader.finish()
}

#[inline(always)]
fn put_each<T: 'static, S: Sink>(items: &[T], sink: &mut S) {
    for bytes in items.iter().filter_map(raw::bytes) {
        put_raw::<T, S>(sink, bytes);
    }
}

/// Puts the bytes of a raw value: of one that is no larger than a word, as a word.
#[inline(always)]
fn put_raw<T, S: Sink>(sink: &mut S, bytes: &[u8]) {
    // A text or `Vec` is larger than a word, however few bytes are in it.
    if const { size_of::<T>() <= 8 } {
        sink::put_known(sink, bytes);
    } else {
        sink.put(bytes);
    }
}
