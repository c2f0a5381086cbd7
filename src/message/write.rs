//! serde to bytes, straight into a [`Sink`].
//!
//! The format is postcard's: small numbers in few bytes, no names, a length before what has one. It is written and read
//! here, rather than by that package, so that a sender hears of whatever a receiver would refuse (its message
//! would be lost), so that reading is bounded for any bytes, and so that the reason a type gives for refusing is kept.

use serde::ser::{self, Serialize};

use crate::handle;

use super::depth::{Depth, RESERVE, TooDeep};
use super::plain;
use super::sink::{Sink, put_known};
use super::{EMPTY_LIMIT, EncodeError, LEVEL_LIMIT};

type Result<T = ()> = std::result::Result<T, EncodeError>;

/// Writes values into a sink and counts their bytes.
#[derive(Debug)]
pub(super) struct Writer<'s, S> {
    sink: &'s mut S,
    written: usize,
    depth: Depth,
    empties: usize,
    /// The next byte string is the body of a [`Plain`](plain::Plain): its type says how long it is.
    bare: bool,
}

impl<'s, S: Sink> Writer<'s, S> {
    #[inline(always)]
    pub(super) fn new(sink: &'s mut S) -> Self {
        Writer {
            sink,
            written: 0,
            depth: Depth::new(),
            empties: EMPTY_LIMIT,
            bare: false,
        }
    }

    /// Bytes of all that was written, whether the sink had room for them or not.
    #[inline(always)]
    pub(super) fn written(&self) -> usize {
        self.written
    }

    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result {
        self.sink.put(bytes);
        self.written += bytes.len();
        Ok(())
    }

    #[inline(always)]
    fn put_known(&mut self, bytes: &[u8]) -> Result {
        put_known(self.sink, bytes);
        self.written += bytes.len();
        Ok(())
    }

    /// One level down; [`Writer::leave`] comes back.
    #[inline]
    fn enter(&mut self) -> Result<&mut Self> {
        self.depth.enter()?;
        Ok(self)
    }

    #[inline]
    fn leave(&mut self) -> Result {
        self.depth.leave();
        Ok(())
    }

    /// One level for a single value.
    #[inline]
    fn inside<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(&mut *self.enter()?)?;
        self.leave()
    }

    /// Counts the elements that take no bytes: `before` is where this one began.
    #[inline]
    fn element(&mut self, before: usize) -> Result {
        if self.written == before {
            self.empties = self
                .empties
                .checked_sub(1)
                .ok_or(EncodeError::TooManyEmpty { limit: EMPTY_LIMIT })?;
        }
        Ok(())
    }
}

impl From<TooDeep> for EncodeError {
    #[cold]
    fn from(too_deep: TooDeep) -> EncodeError {
        match too_deep {
            TooDeep::Levels => EncodeError::TooDeep { limit: LEVEL_LIMIT },
            TooDeep::Stack => EncodeError::NoStack { reserve: RESERVE },
        }
    }
}

/// Seven bits a byte, low ones first; the top bit says that more follow.
macro_rules! varint {
    ($name:ident: $number:ty) => {
        impl<S: Sink> Writer<'_, S> {
            #[inline]
            fn $name(&mut self, mut number: $number) -> Result {
                // Most lengths and many numbers are this small.
                if number < 0x80 {
                    return self.put_known(&[number as u8]);
                }
                let mut bytes = [0; <$number>::BITS.div_ceil(7) as usize];
                let mut len = 0;
                while number >= 0x80 {
                    bytes[len] = number as u8 | 0x80;
                    number >>= 7;
                    len += 1;
                }
                bytes[len] = number as u8;
                self.put(&bytes[..=len])
            }
        }
    };
}
varint!(varint: u64);
varint!(varint_u128: u128);

/// Numbers of the signed type, small ones of either sign first.
macro_rules! zigzag {
    ($number:expr, $signed:ty => $unsigned:ty) => {
        (($number << 1) ^ ($number >> (<$signed>::BITS - 1))) as $unsigned
    };
}

impl<S: Sink> ser::Serializer for &mut Writer<'_, S> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    fn is_human_readable(&self) -> bool {
        false
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result {
        self.put_known(&[value.into()])
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result {
        self.put_known(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result {
        self.varint(zigzag!(value, i16 => u16).into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result {
        self.varint(zigzag!(value, i32 => u32).into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result {
        self.varint(zigzag!(value, i64 => u64))
    }

    #[inline]
    fn serialize_i128(self, value: i128) -> Result {
        self.varint_u128(zigzag!(value, i128 => u128))
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result {
        self.put_known(&[value])
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result {
        self.varint(value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result {
        self.varint(value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result {
        self.varint(value)
    }

    #[inline]
    fn serialize_u128(self, value: u128) -> Result {
        self.varint_u128(value)
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result {
        self.put_known(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result {
        self.put_known(&value.to_le_bytes())
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result {
        self.serialize_bytes(value.as_bytes())
    }

    #[inline(always)]
    fn serialize_bytes(self, value: &[u8]) -> Result {
        if std::mem::take(&mut self.bare) {
            return self.put_known(value);
        }
        self.varint(value.len() as u64)?;
        self.put(value)
    }

    #[inline]
    fn serialize_none(self) -> Result {
        self.put_known(&[0])
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result {
        self.put_known(&[1])?;
        self.inside(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, variant: u32, _: &'static str) -> Result {
        self.enter()?.varint(variant.into())?;
        self.leave()
    }

    #[inline(always)]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result {
        if name == plain::NAME {
            self.bare = true;
            return value.serialize(self);
        }
        if name == handle::NAME {
            handle::admit();
        }
        self.inside(value)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        value: &T,
    ) -> Result {
        self.varint(variant.into())?;
        self.inside(value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self> {
        self.varint(len.ok_or(EncodeError::UnknownLength)? as u64)?;
        self.enter()
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self> {
        self.enter()
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.enter()
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        variant: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self> {
        self.varint(variant.into())?;
        self.enter()
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self> {
        self.serialize_seq(len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self> {
        self.enter()
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        name: &'static str,
        variant: u32,
        variant_name: &'static str,
        len: usize,
    ) -> Result<Self> {
        self.serialize_tuple_variant(name, variant, variant_name, len)
    }
}

impl<S: Sink> ser::SerializeSeq for &mut Writer<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        let before = self.written;
        value.serialize(&mut **self)?;
        self.element(before)
    }

    #[inline]
    fn end(self) -> Result {
        self.leave()
    }
}

impl<S: Sink> ser::SerializeMap for &mut Writer<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result {
        ser::SerializeSeq::serialize_element(self, key)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        ser::SerializeSeq::serialize_element(self, value)
    }

    #[inline]
    fn end(self) -> Result {
        self.leave()
    }
}

impl<S: Sink> ser::SerializeTuple for &mut Writer<'_, S> {
    type Ok = ();
    type Error = EncodeError;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result {
        value.serialize(&mut **self)
    }

    #[inline]
    fn end(self) -> Result {
        self.leave()
    }
}

/// Fields follow each other without names, whatever holds them.
macro_rules! fields {
    ($compound:ident: $($name:ident)?) => {
        impl<S: Sink> ser::$compound for &mut Writer<'_, S> {
            type Ok = ();
            type Error = EncodeError;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, $($name: &'static str,)? value: &T) -> Result {
                $(let _ = $name;)?
                value.serialize(&mut **self)
            }

            $(
                #[cold]
                fn skip_field(&mut self, $name: &'static str) -> Result {
                    Err(EncodeError::SkippedField($name.to_owned()))
                }
            )?

            #[inline]
            fn end(self) -> Result {
                self.leave()
            }
        }
    };
}
fields!(SerializeTupleStruct:);
fields!(SerializeTupleVariant:);
fields!(SerializeStruct: name);
fields!(SerializeStructVariant: name);
