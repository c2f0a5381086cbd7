//! What is known of a type's messages before there is one.

use serde::Deserializer;
use serde::de::Visitor;

use crate::handle::{self, Time};

use super::{Message, plain, raw};

/// Bytes of every value of the type, if all have the same: numbers, `bool`, `char`, arrays of them, `Plain`.
#[inline]
pub(crate) fn fixed_size<T: Message>() -> Option<usize> {
    raw::size::<T>().unwrap_or_else(plain_size::<T>)
}

/// Whether the type's own bytes are all there is to it, so that no handle can be inside.
#[inline]
pub(crate) fn is_raw<T: Message>() -> bool {
    raw::size::<T>().is_some() || plain_size::<T>().is_some()
}

/// Runs what reads or writes values of the type for a call that has so much time.
#[inline(always)]
pub(crate) fn in_time<T: Message, R>(time: Time, act: impl FnOnce() -> R) -> R {
    match is_raw::<T>() {
        true => act(),
        false => handle::in_time(time, act),
    }
}

/// Whether no code of the user's runs when a value is written or read: its bytes come in one piece,
/// as many as there are.
#[inline]
pub(crate) fn runs_no_code<T: Message>() -> bool {
    raw::size::<T>().is_some()
}

/// Bytes of room that suit a queue of the type.
///
/// Exact for a type of [`fixed_size`]. A type without memory of its own outside the value needs at
/// most what it has in memory for numbers and a byte for each `Option` and enum, so twice its size
/// is plenty; for others it is a guess.
pub(crate) fn size_hint<T: Message>() -> usize {
    let inline = 2 * size_of::<T>() + 8;
    match fixed_size::<T>() {
        Some(size) => size,
        None if std::mem::needs_drop::<T>() => inline.max(256),
        None => inline,
    }
}

/// A name for the type that two programs built from the same source agree on, for refusing wrong types.
///
/// It is the type's name without the modules (and so without the program) it is defined in, and the bytes of
/// its values if that is fixed. Two types of one name in two modules are not told apart.
pub(crate) fn shape_name<T: Message>() -> String {
    let name = without_modules(std::any::type_name::<T>());
    match fixed_size::<T>() {
        Some(size) => format!("{name} of {size} bytes"),
        None => name,
    }
}

/// As [`shape_name`], for values that lie in memory as they are: size and alignment first, so that a name too
/// long for a header loses only its own end.
pub(crate) fn plain_name<T>() -> String {
    let name = without_modules(std::any::type_name::<T>());
    let (size, align) = (size_of::<T>(), align_of::<T>());
    format!("{size} bytes aligned to {align}: {name}")
}

/// `Vec<Point>` of `alloc::vec::Vec<program::geometry::Point>`.
fn without_modules(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    let mut word = 0;
    for c in path.chars() {
        if c == ':' {
            // What was copied since the last bracket, comma or blank is a module.
            name.truncate(word);
        } else {
            name.push(c);
            if !is_word(c) {
                word = name.len();
            }
        }
    }
    name
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "_{}#".contains(c)
}

/// Bytes of every value of the type, if it is a [`Plain`](super::Plain).
#[inline]
fn plain_size<T: Message>() -> Option<usize> {
    match T::deserialize(Probe) {
        Err(Found(size)) => size,
        Ok(_) => None,
    }
}

/// Asks a type what it would read first, and gives it nothing.
struct Probe;

/// The answer: the size of a `Plain`, or something else.
#[derive(Debug, thiserror::Error)]
#[error("the type was only asked for its size")]
struct Found(Option<usize>);

impl serde::de::Error for Found {
    fn custom<M: std::fmt::Display>(_: M) -> Self {
        Found(None)
    }
}

impl<'de> Deserializer<'de> for Probe {
    type Error = Found;

    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Found> {
        Err(Found(
            (name == plain::NAME).then_some(size_of::<V::Value>()),
        ))
    }

    #[inline(always)]
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Found> {
        Err(Found(None))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}
