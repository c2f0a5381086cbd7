//! Values that travel as the bytes they are made of.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytemuck::{CheckedBitPattern, NoUninit};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

/// Name under which [`Plain`] shows itself to our own reader and writer.
pub(super) const NAME: &str = "multiproc::Plain";

/// A value that travels as the bytes it is made of.
///
/// Every value takes `size_of::<T>()` bytes, copied as they are, with nothing between them and no field
/// looked at: the fastest way for a struct of numbers, alone or inside any other message. Reading checks that
/// the bits are a value of `T` and gives [`InvalidBits`](crate::DecodeError::InvalidBits) if not, so an enum
/// or a `bool` inside is safe whoever wrote the bytes.
///
/// `T` needs bytemuck's [`NoUninit`] (no padding, so no stray byte of memory leaves the process) and
/// [`CheckedBitPattern`], both by derive. For serde formats other than ours it is a byte string.
///
/// # Examples
///
/// ```
/// use bytemuck::{CheckedBitPattern, NoUninit};
/// use multiproc::{Message, Plain};
///
/// #[derive(Clone, Copy, Debug, PartialEq, NoUninit, CheckedBitPattern)]
/// #[repr(C)]
/// struct Point {
///     x: f64,
///     y: f64,
/// }
///
/// fn is_message<T: Message>(_: &T) {}
///
/// let mut point = Plain(Point { x: 1.0, y: 2.0 });
/// point.x += 1.0;
/// is_message(&point);
/// is_message(&vec![point; 3]);
/// assert_eq!(point.0, Point { x: 2.0, y: 2.0 });
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Plain<T>(pub T);

/// What may lie in shared memory as it is: in a [`Lock`](crate::Lock) or a [`Frozen`](crate::Frozen).
///
/// Every type with bytemuck's [`NoUninit`] and [`CheckedBitPattern`] is one: numbers, arrays of them, and structs and
/// enums by derive. It has no bytes that are not set, holds no pointer, and its bits are checked before they are
/// believed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot lie in shared memory as it is",
    label = "not plain data",
    note = "plain data are numbers, arrays, and types with `#[derive(Clone, Copy, bytemuck::NoUninit, bytemuck::CheckedBitPattern)]`",
    note = "what has its bytes elsewhere (`String`, `Vec`, `Box`) goes by messages, or as an array of a fixed length"
)]
pub trait PlainData: NoUninit + CheckedBitPattern {}

#[diagnostic::do_not_recommend]
impl<T: NoUninit + CheckedBitPattern> PlainData for T {}

impl<T> Deref for Plain<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Plain<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> From<T> for Plain<T> {
    fn from(value: T) -> Self {
        Plain(value)
    }
}

impl<T: NoUninit> Serialize for Plain<T> {
    #[inline(always)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(NAME, &Body(bytemuck::bytes_of(&self.0)))
    }
}

/// The value's bytes, as serde's byte string.
struct Body<'a>(&'a [u8]);

impl Serialize for Body<'_> {
    #[inline(always)]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de, T: CheckedBitPattern> Deserialize<'de> for Plain<T> {
    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(NAME, Bits(PhantomData))
    }
}

/// Makes a `Plain<T>` of its bytes. Our own reader hands it exactly `size_of::<Plain<T>>()` of them, which it
/// knows from the type of this visitor's value; other formats come through the byte string.
struct Bits<T>(PhantomData<T>);

impl<'de, T: CheckedBitPattern> Visitor<'de> for Bits<T> {
    type Value = Plain<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes that are a value", size_of::<T>())
    }

    #[inline(always)]
    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Plain<T>, E> {
        if bytes.len() != size_of::<T>() {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        bytemuck::checked::try_pod_read_unaligned(bytes)
            .map(Plain)
            .map_err(|_| E::invalid_value(Unexpected::Bytes(bytes), &self))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Plain<T>, D::Error> {
        inner.deserialize_bytes(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Plain<T>, A::Error> {
        let mut bytes = Vec::with_capacity(size_of::<T>());
        while let Some(byte) = seq.next_element::<u8>()? {
            if bytes.len() == size_of::<T>() {
                return Err(de::Error::invalid_length(bytes.len() + 1, &self));
            }
            bytes.push(byte);
        }
        self.visit_bytes(&bytes)
    }
}
