//! serde to bytes, straight into a [`Sink`].
//!
//! No names; a number is its bytes as they lie in memory; before what has a length, and a variant,
//! stands a number of as few bytes as it needs. So is postcard's format but for the numbers, which
//! here are never taken apart: many of them are one copy, and one is a store. It is written and
//! read here so that a sender hears of whatever a receiver would refuse (its message would be
//! lost), so that reading is bounded for any bytes, and so that the reason a type gives for
//! refusing is kept.

use serde::ser::{self, Serialize};

use crate::handle;

use super::depth::{Depth, RESERVE, TooDeep};
use super::known::Lent;
use super::sink::{Sink, put_known};
use super::{EMPTY_LIMIT, EncodeError, LEVEL_LIMIT};
use super::{numbers, plain};

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

    /// A length, or which variant it is: seven bits a byte, low ones first; the top bit says that
    /// more follow.
    #[inline]
    fn varint(&mut self, mut number: u64) -> Result {
        // Most are this small.
        if number < 0x80 {
            return self.put_known(&[number as u8]);
        }
        let mut bytes = [0; u64::BITS.div_ceil(7) as usize];
        let mut len = 0;
        while number >= 0x80 {
            bytes[len] = number as u8 | 0x80;
            number >>= 7;
            len += 1;
        }
        bytes[len] = number as u8;
        self.put(&bytes[..=len])
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

/// Numbers, as they lie in memory.
macro_rules! numbers {
    ($($serialize:ident($number:ty))*) => { $(
        #[inline]
        fn $serialize(self, value: $number) -> Result {
            self.put_known(&value.to_ne_bytes())
        }
    )* };
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

    numbers! {
        serialize_u8(u8) serialize_u16(u16) serialize_u32(u32) serialize_u64(u64) serialize_u128(u128)
        serialize_i8(i8) serialize_i16(i16) serialize_i32(i32) serialize_i64(i64) serialize_i128(i128)
        serialize_f32(f32) serialize_f64(f64)
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result {
        self.serialize_u32(value.into())
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

    /// What `Vec`s, slices and boxes write themselves with.
    #[inline]
    fn collect_seq<I>(self, items: I) -> Result
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        if let Some((len, bytes)) = numbers::bytes_of(Lent::new(&items)) {
            self.varint(len as u64)?;
            self.enter()?.put(bytes)?;
            return self.leave();
        }
        let mut items = items.into_iter();
        let len = match items.size_hint() {
            (least, Some(most)) if least == most => Some(least),
            _ => None,
        };
        let mut seq = self.serialize_seq(len)?;
        items.try_for_each(|item| ser::SerializeSeq::serialize_element(&mut seq, &item))?;
        ser::SerializeSeq::end(seq)
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
