//! Sequences of numbers inside other values, all of their bytes at once.
//!
//! To serde a `Vec<u8>` is a sequence like any other, written and read element by element. The
//! bytes are the same in either way, since every number lies in a message as it lies in memory;
//! here only the loop is saved, where the type is one that is known to be nothing but numbers.

use std::any::TypeId;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::DecodeError;
use super::known::{self, Lent, Place};
use super::raw;

/// Runs the code for each type whose values lie in a sequence as they lie in memory, as `Number`.
macro_rules! for_each_number {
    ($code:block) => {
        for_each_number! { $code u8 u16 u32 u64 u128 i8 i16 i32 i64 i128 f32 f64 bool char }
        // To serde they have 64 bits everywhere.
        #[cfg(target_pointer_width = "64")]
        for_each_number! { $code usize isize }
    };
    ($code:block $($number:ty)*) => { $({
        type Number = $number;
        $code
    })* };
}

/// The bytes of all elements and how many these are, if a reference to numbers is what is lent.
#[inline]
pub(super) fn bytes_of(items: Lent<'_>) -> Option<(usize, &[u8])> {
    for_each_number! {{
        let vec = || items.referent::<Vec<Number>>().map(Vec::as_slice);
        if let Some(numbers) = items.referent::<[Number]>().or_else(vec) {
            return Some((numbers.len(), bytemuck::cast_slice(numbers)));
        }
    }}
    None
}

/// Fills the place with the next `len` numbers of `rest`, if it is for a vector of them and this is
/// the visitor that such a vector reads itself with.
///
/// Another visitor may make a vector of something else than the elements it is given.
#[inline]
pub(super) fn fill(
    mut place: Place<'_>,
    visitor: TypeId,
    len: usize,
    rest: &mut &[u8],
) -> Option<Result<(), DecodeError>> {
    for_each_number! {{
        if let Some(place) = place.of::<Vec<Number>>() {
            return (visitor == own_visitor::<Vec<Number>>()?)
                .then(|| take(len, rest).map(|numbers| *place = Some(numbers)));
        }
    }}
    None
}

/// Takes so many numbers off the front.
fn take<S: raw::Scalar>(len: usize, rest: &mut &[u8]) -> Result<Vec<S>, DecodeError> {
    let needed = len.saturating_mul(size_of::<S>());
    let left = rest.len();
    let (bytes, behind) = rest
        .split_at_checked(needed)
        .ok_or(DecodeError::Truncated { needed, left })?;
    *rest = behind;
    raw::read_vec(bytes)
}

/// What a `T` is read with, if it is a sequence.
#[inline(always)]
fn own_visitor<'de, T: Deserialize<'de>>() -> Option<TypeId> {
    T::deserialize(Ask).err().and_then(|Asked(visitor)| visitor)
}

/// Asks a type for its visitor, and gives it nothing.
struct Ask;

/// The answer.
#[derive(Debug, thiserror::Error)]
#[error("the type was only asked for its visitor")]
struct Asked(Option<TypeId>);

impl serde::de::Error for Asked {
    fn custom<M: std::fmt::Display>(_: M) -> Self {
        Asked(None)
    }
}

impl<'de> Deserializer<'de> for Ask {
    type Error = Asked;

    #[inline(always)]
    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(Some(known::id::<V>())))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Asked> {
        Err(Asked(None))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct tuple tuple_struct map struct enum identifier ignored_any
    }
}
