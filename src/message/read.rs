//! Bytes to serde; the counterpart of [`write`](mod@super::write).
//!
//! The bytes may be anybody's. Every length is checked against what is left before it is used, memory is reserved only
//! for elements whose bytes may still come, values nest at most [`LEVEL_LIMIT`] deep (the stack is bounded), and at most
//! [`EMPTY_LIMIT`] elements may take no bytes (the time is bounded by the bytes).

use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use crate::handle;

use super::depth::{Depth, RESERVE, TooDeep};
use super::known::{self, Place};
use super::{DecodeError, EMPTY_LIMIT, LEVEL_LIMIT};
use super::{numbers, plain};

type Result<T> = std::result::Result<T, DecodeError>;

/// Reads values from bytes, first to last.
#[derive(Debug)]
pub(super) struct Reader<'de> {
    rest: &'de [u8],
    depth: Depth,
    empties: usize,
    /// Elements that memory may still be reserved for. Every element but an empty one has a first byte of its
    /// own, so all lengths in a true message add up to no more than its bytes.
    reserve: usize,
}

impl<'de> Reader<'de> {
    #[inline(always)]
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Reader {
            rest: bytes,
            depth: Depth::new(),
            empties: EMPTY_LIMIT,
            reserve: bytes.len(),
        }
    }

    /// All bytes have been read.
    #[inline(always)]
    pub(super) fn finish(self) -> Result<()> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::Trailing { left }),
        }
    }

    #[inline]
    fn take(&mut self, needed: usize) -> Result<&'de [u8]> {
        let left = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_at_checked(needed)
            .ok_or(DecodeError::Truncated { needed, left })?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let left = self.rest.len();
        let (taken, rest) = self
            .rest
            .split_first_chunk()
            .ok_or(DecodeError::Truncated { needed: N, left })?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8> {
        self.array().map(|[byte]| byte)
    }

    /// A byte that is 0 or 1.
    #[inline]
    fn bit(&mut self) -> Result<bool> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::InvalidBits),
        }
    }

    /// A length; that there is as much is not said.
    #[inline]
    fn len(&mut self) -> Result<usize> {
        self.varint_u64()?
            .try_into()
            .map_err(|_| DecodeError::InvalidNumber)
    }

    #[inline]
    fn byte_string(&mut self) -> Result<&'de [u8]> {
        let len = self.len()?;
        self.take(len)
    }

    #[inline]
    fn text(&mut self) -> Result<&'de str> {
        std::str::from_utf8(self.byte_string()?).map_err(|_| DecodeError::InvalidText)
    }

    /// Reads what is one level down.
    #[inline]
    fn inside<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.depth.enter()?;
        let value = read(self)?;
        self.depth.leave();
        Ok(value)
    }

    /// Whether memory may be reserved for `len` elements.
    #[inline]
    fn reserve(&mut self, len: usize) -> bool {
        let left = self.reserve.checked_sub(len);
        self.reserve = left.unwrap_or(self.reserve);
        left.is_some()
    }
}

impl From<TooDeep> for DecodeError {
    #[cold]
    fn from(too_deep: TooDeep) -> DecodeError {
        match too_deep {
            TooDeep::Levels => DecodeError::TooDeep { limit: LEVEL_LIMIT },
            TooDeep::Stack => DecodeError::NoStack { reserve: RESERVE },
        }
    }
}

/// Seven bits a byte, low ones first; the top bit says that more follow.
macro_rules! varint {
    ($name:ident: $number:ty) => {
        impl Reader<'_> {
            #[inline]
            fn $name(&mut self) -> Result<$number> {
                let mut number = 0;
                let mut shift = 0;
                while shift < <$number>::BITS {
                    let byte = self.byte()?;
                    let bits = <$number>::from(byte & 0x7F);
                    if bits > <$number>::MAX >> shift {
                        break;
                    }
                    number |= bits << shift;
                    if byte < 0x80 {
                        return Ok(number);
                    }
                    shift += 7;
                }
                Err(DecodeError::InvalidNumber)
            }
        }
    };
}
varint!(varint_u32: u32);
varint!(varint_u64: u64);

/// Numbers, as they lie in memory.
macro_rules! numbers {
    ($($deserialize:ident($visit:ident $number:ty))*) => { $(
        #[inline]
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
            visitor.$visit(<$number>::from_ne_bytes(self.array()?))
        }
    )* };
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(DecodeError::NotSelfDescribing)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(DecodeError::NotSelfDescribing)
    }

    #[inline]
    fn deserialize_ignored_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value> {
        Err(DecodeError::NotSelfDescribing)
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_bool(self.bit()?)
    }

    numbers! {
        deserialize_u8(visit_u8 u8)
        deserialize_u16(visit_u16 u16)
        deserialize_u32(visit_u32 u32)
        deserialize_u64(visit_u64 u64)
        deserialize_u128(visit_u128 u128)
        deserialize_i8(visit_i8 i8)
        deserialize_i16(visit_i16 i16)
        deserialize_i32(visit_i32 i32)
        deserialize_i64(visit_i64 i64)
        deserialize_i128(visit_i128 i128)
        deserialize_f32(visit_f32 f32)
        deserialize_f64(visit_f64 f64)
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match char::from_u32(u32::from_ne_bytes(self.array()?)) {
            Some(letter) => visitor.visit_char(letter),
            None => Err(DecodeError::InvalidBits),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_str(self.text()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_str(visitor)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_borrowed_bytes(self.byte_string()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.bit()? {
            false => visitor.visit_none(),
            true => self.inside(|reader| visitor.visit_some(reader)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_unit()
    }

    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        if name == plain::NAME {
            return visitor.visit_borrowed_bytes(self.take(size_of::<V::Value>())?);
        }
        if name == handle::NAME {
            handle::admit();
        }
        self.inside(|reader| visitor.visit_newtype_struct(reader))
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let len = self.len()?;
        // Nothing is asked of what cannot be a vector, nor of a visitor that brings anything of its
        // own.
        if const { size_of::<V::Value>() == size_of::<Vec<u8>>() && size_of::<V>() == 0 } {
            let mut value = None;
            let filled = self.inside(|reader| {
                let place = Place::new(&mut value);
                numbers::fill(place, known::id::<V>(), len, &mut reader.rest).transpose()
            })?;
            if let (Some(()), Some(numbers)) = (filled, value) {
                return Ok(numbers);
            }
        }
        let believed = self.reserve(len);
        self.inside(|reader| {
            visitor.visit_seq(Claimed {
                reader,
                len,
                believed,
            })
        })
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        self.inside(|reader| visitor.visit_seq(Fields { reader, len }))
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let len = self.len()?;
        let believed = self.reserve(len);
        self.inside(|reader| {
            visitor.visit_map(Claimed {
                reader,
                len,
                believed,
            })
        })
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.inside(|reader| visitor.visit_enum(Variant { reader }))
    }
}

/// Elements whose number the type says.
struct Fields<'r, 'de> {
    reader: &'r mut Reader<'de>,
    len: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<Option<D::Value>> {
        if self.len == 0 {
            return Ok(None);
        }
        self.len -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.len)
    }
}

/// Elements or entries whose number the message claims.
struct Claimed<'r, 'de> {
    reader: &'r mut Reader<'de>,
    len: usize,
    /// Whether memory may be reserved for all of them.
    believed: bool,
}

impl<'de> Claimed<'_, 'de> {
    #[inline]
    fn read<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<D::Value> {
        let before = self.reader.rest.len();
        let value = seed.deserialize(&mut *self.reader)?;
        if self.reader.rest.len() == before {
            let empties = self.reader.empties.checked_sub(1);
            self.reader.empties =
                empties.ok_or(DecodeError::TooManyEmpty { limit: EMPTY_LIMIT })?;
        }
        Ok(value)
    }
}

impl<'de> de::SeqAccess<'de> for Claimed<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_element_seed<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<Option<D::Value>> {
        if self.len == 0 {
            return Ok(None);
        }
        self.len -= 1;
        self.read(seed).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.believed.then_some(self.len)
    }
}

impl<'de> de::MapAccess<'de> for Claimed<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    #[inline]
    fn next_value_seed<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<D::Value> {
        self.read(seed)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        de::SeqAccess::size_hint(self)
    }
}

/// One variant of an enum: its number, then what it holds.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
}

impl<'de> de::EnumAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    #[inline]
    fn variant_seed<D: DeserializeSeed<'de>>(self, seed: D) -> Result<(D::Value, Self)> {
        let number: u32 = self.reader.varint_u32()?;
        let variant =
            seed.deserialize(IntoDeserializer::<DecodeError>::into_deserializer(number))?;
        Ok((variant, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<D: DeserializeSeed<'de>>(self, seed: D) -> Result<D::Value> {
        seed.deserialize(self.reader)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        visitor.visit_seq(Fields {
            reader: self.reader,
            len,
        })
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        visitor.visit_seq(Fields {
            reader: self.reader,
            len: fields.len(),
        })
    }
}
