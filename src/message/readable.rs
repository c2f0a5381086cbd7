//! Whether a type can be read from a message at all, asked once, before the first value of it is sent.
//!
//! The format does not describe itself. A type whose `Deserialize` wants to be told what comes next
//! (`deserialize_any`: `serde_json::Value`, `#[serde(untagged)]`, `#[serde(tag)]`) is written without
//! complaint and never read. So its `Deserialize` is run here against a reader that has nothing to read:
//! every way that the type offers (each field, each variant, one element) is walked down to where a number
//! or a text is asked for, which is refused; or to where the type wants to be told what it is.
//!
//! The type's own code runs, as it does to read a value, but gets errors: no value is made of a type that
//! has a destructor, so that nothing is to be seen of it. Where a value stands in front of another in a
//! tuple, it must be made to get at the second. That is done for those of no destructor and std's own, a
//! text or an empty vector; what stands behind any other is not looked at, and a receiver says then what is
//! wrong with it.
//!
//! A visitor is used up by its call, so each way is walked from the start. What has been seen of a type is
//! not walked again: there are as many walks as there are fields and variants, also of a type that holds
//! itself.

use std::any::{TypeId, type_name};
use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Deserializer;
use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Message, known, plain};
use crate::error::EncodeError;
use crate::handle;

/// Steps after which a type is believed to be readable.
const STEPS: usize = 10_000;
/// Levels of a value that is made to get at what stands behind it.
const LEVELS: usize = 32;
/// Types whose answer is known without a lock.
const KNOWN: usize = 256;

/// Numbers of types that can be read, each in the place that its number says.
static READABLE: [AtomicU64; KNOWN] = [const { AtomicU64::new(0) }; KNOWN];
/// All of them.
static ALL: Mutex<BTreeSet<TypeId>> = Mutex::new(BTreeSet::new());

/// Refuses a type that no receiver could read.
#[inline(always)]
pub(super) fn check<T: Message>() -> Result<(), EncodeError> {
    let number = number::<T>();
    match READABLE[number as usize % KNOWN].load(Ordering::Relaxed) == number {
        true => Ok(()),
        false => ask::<T>(number),
    }
}

/// A number for the type, which the compiler works out.
#[inline(always)]
fn number<T: 'static>() -> u64 {
    struct First(u64);

    impl Hasher for First {
        #[inline(always)]
        fn write_u64(&mut self, word: u64) {
            self.0 = word;
        }

        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
            }
        }

        fn finish(&self) -> u64 {
            self.0
        }
    }

    let mut first = First(0);
    TypeId::of::<T>().hash(&mut first);
    // 0 stands in the table for nothing.
    first.0 | 1
}

#[cold]
#[inline(never)]
fn ask<T: Message>(number: u64) -> Result<(), EncodeError> {
    let id = TypeId::of::<T>();
    let all = || ALL.lock().unwrap_or_else(PoisonError::into_inner);
    if !all().contains(&id) {
        // Not under the lock: it is the type's own code.
        if let Some(part) = unreadable::<T>() {
            return Err(EncodeError::Unreadable {
                of: type_name::<T>().to_owned(),
                part,
            });
        }
        all().insert(id);
    }
    READABLE[number as usize % KNOWN].store(number, Ordering::Relaxed);
    Ok(())
}

/// The part of a type that wants to be told what it is.
fn unreadable<T: Message>() -> Option<String> {
    let mut walk = Walk::default();
    let mut suspect = None;
    loop {
        (walk.depth, walk.is_blocked) = (0, false);
        // Who panics at an error of ours is asked no more, and may do so at the receiver.
        let walked = catch_unwind(AssertUnwindSafe(|| {
            drop(T::deserialize(Probe {
                walk: &mut walk,
                make: None,
            }));
        }));
        if walked.is_err() || walk.steps > STEPS {
            return None;
        }
        if let Some(found) = walk.found.take() {
            // The field was offered alone, which a visitor may take in another way than behind those before it; so it
            // is asked again, with all fields in their order.
            if !walk.straighten() {
                return Some(found);
            }
            suspect = Some(found);
            continue;
        }
        let suspect = suspect.take();
        if walk.is_blocked && suspect.is_some() {
            return suspect;
        }
        if !walk.advance() {
            return None;
        }
    }
}

/// Which way is walked, and what has been found.
#[derive(Default)]
struct Walk {
    path: Vec<Turn>,
    /// How many of the turns have been taken in this walk.
    depth: usize,
    /// What has been walked, by its visitor. No set with hashes: a zygote would make the thread's keys for them, and
    /// hand the same to all its children.
    seen: BTreeSet<TypeId>,
    steps: usize,
    found: Option<String>,
    /// Whether a value would have had to be made that may not be.
    is_blocked: bool,
}

/// One of several ways.
struct Turn {
    taken: usize,
    ways: usize,
    /// The type that has them, and the field or variant taken.
    of: &'static str,
    way: &'static str,
    /// Whether the fields of a struct are given in order, as they are read.
    in_order: bool,
    /// Whether it is a struct, whose fields can be given in any order.
    any_order: bool,
}

impl Walk {
    /// The way to be taken at a visitor; none if all behind it has been seen.
    fn turn<'de, V: Visitor<'de>>(&mut self, ways: usize, any_order: bool) -> Option<&mut Turn> {
        self.steps += 1;
        if self.steps > STEPS || ways == 0 {
            return None;
        }
        if self.depth == self.path.len() {
            if !self.seen.insert(known::id::<V>()) {
                return None;
            }
            self.path.push(Turn {
                taken: 0,
                ways,
                of: type_name::<V::Value>(),
                way: "",
                in_order: false,
                any_order,
            });
        }
        self.depth += 1;
        self.path.get_mut(self.depth - 1)
    }

    /// Takes the next way; false if all have been.
    fn advance(&mut self) -> bool {
        while let Some(last) = self.path.last_mut() {
            last.in_order = false;
            if last.taken + 1 < last.ways {
                last.taken += 1;
                return true;
            }
            self.path.pop();
        }
        false
    }

    /// Has the same way walked with the fields of the last struct in order; false if they were.
    fn straighten(&mut self) -> bool {
        let last = self.path.iter_mut().rfind(|turn| turn.any_order);
        match last.filter(|turn| turn.taken > 0 && !turn.in_order) {
            Some(turn) => {
                turn.in_order = true;
                true
            }
            None => false,
        }
    }

    /// A part wants to be told what it is.
    fn find(&mut self, culprit: &'static str) {
        let turns = self.path[..self.depth.min(self.path.len())].iter();
        let place = turns.rev().find(|turn| !turn.way.is_empty());
        let mut part = String::new();
        // Of serde's own there is nothing that a reader would know.
        if !culprit.contains("private") {
            part = format!("`{culprit}` ");
        }
        if let Some(turn) = place {
            part += &format!("in `{}` of `{}`", turn.way, turn.of);
        }
        self.found.get_or_insert(part.trim_end().to_owned());
    }
}

/// Nothing is read.
#[derive(Debug)]
struct Stop;

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the type was only asked whether it can be read")
    }
}

impl std::error::Error for Stop {}

impl de::Error for Stop {
    fn custom<M: fmt::Display>(_: M) -> Stop {
        Stop
    }
}

/// The reader that has nothing.
struct Probe<'w> {
    walk: &'w mut Walk,
    /// The levels left of a value that is to be made, if one is.
    make: Option<usize>,
}

/// Whether nothing is to be seen of a value that is made and dropped.
fn is_harmless<T>() -> bool {
    let of_std = ["alloc::", "core::", "std::"];
    !std::mem::needs_drop::<T>() || of_std.iter().any(|std| type_name::<T>().starts_with(std))
}

impl<'w> Probe<'w> {
    fn look(walk: &'w mut Walk) -> Probe<'w> {
        Probe { walk, make: None }
    }

    /// What is one level down in a value that is made; nothing where none may be.
    fn made<T>(self) -> Result<(&'w mut Walk, usize), Stop> {
        self.walk.steps += 1;
        match self.make.and_then(|levels| levels.checked_sub(1)) {
            Some(levels) if is_harmless::<T>() && self.walk.steps <= STEPS => {
                Ok((self.walk, levels))
            }
            _ => {
                self.walk.is_blocked |= self.make.is_some();
                Err(Stop)
            }
        }
    }

    fn fields<'de, V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if self.make.is_some() {
            return self.places(fields.len(), visitor);
        }
        let turn = self.walk.turn::<V>(fields.len(), true).ok_or(Stop)?;
        turn.way = fields[turn.taken.min(fields.len() - 1)];
        // The first comes first in either order; a visitor may read it in another way among named ones.
        match turn.in_order || turn.taken == 0 {
            true => visitor.visit_seq(Places {
                before: turn.taken,
                walk: self.walk,
                make: None,
            }),
            false => visitor.visit_map(Field {
                key: Some(turn.way),
                walk: self.walk,
            }),
        }
    }

    fn places<'de, V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        if self.make.is_some() {
            let (walk, levels) = self.made::<V::Value>()?;
            return visitor.visit_seq(Places {
                before: len,
                walk,
                make: Some(levels),
            });
        }
        let turn = self.walk.turn::<V>(len, false).ok_or(Stop)?;
        visitor.visit_seq(Places {
            before: turn.taken,
            walk: self.walk,
            make: None,
        })
    }
}

/// What has no parts: not there, or a value of its own.
macro_rules! leaves {
    ($($deserialize:ident => $visit:ident($value:expr);)*) => { $(
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
            self.made::<V::Value>()?;
            visitor.$visit($value)
        }
    )* };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Stop;

    fn is_human_readable(&self) -> bool {
        false
    }

    // One, since there are types without a zero.
    leaves! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_i8(1);
        deserialize_i16 => visit_i16(1);
        deserialize_i32 => visit_i32(1);
        deserialize_i64 => visit_i64(1);
        deserialize_i128 => visit_i128(1);
        deserialize_u8 => visit_u8(1);
        deserialize_u16 => visit_u16(1);
        deserialize_u32 => visit_u32(1);
        deserialize_u64 => visit_u64(1);
        deserialize_u128 => visit_u128(1);
        deserialize_f32 => visit_f32(1.0);
        deserialize_f64 => visit_f64(1.0);
        deserialize_char => visit_char('a');
        deserialize_str => visit_borrowed_str("");
        deserialize_string => visit_borrowed_str("");
        deserialize_bytes => visit_borrowed_bytes(&[]);
        deserialize_byte_buf => visit_borrowed_bytes(&[]);
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Stop> {
        // What stands in front of the part that is looked at has had its own turn.
        if self.make.is_none() {
            self.walk.find(type_name::<V::Value>());
        }
        Err(Stop)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.deserialize_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.make.is_some() {
            self.made::<V::Value>()?;
            return visitor.visit_none();
        }
        self.walk.turn::<V>(1, false).ok_or(Stop)?;
        visitor.visit_some(Probe::look(self.walk))
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        self.made::<V::Value>()?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if name == plain::NAME || name == handle::NAME {
            return Err(Stop);
        }
        if self.make.is_some() {
            let (walk, levels) = self.made::<V::Value>()?;
            let make = Some(levels);
            return visitor.visit_newtype_struct(Probe { walk, make });
        }
        self.walk.turn::<V>(1, false).ok_or(Stop)?;
        visitor.visit_newtype_struct(Probe::look(self.walk))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        match self.make {
            // An empty one.
            Some(_) => self.places(0, visitor),
            None => self.places(1, visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.places(len, visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.places(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Stop> {
        if self.make.is_some() {
            let (walk, _) = self.made::<V::Value>()?;
            return visitor.visit_map(Entry { part: None, walk });
        }
        let turn = self.walk.turn::<V>(2, false).ok_or(Stop)?;
        let part = Some(turn.taken);
        visitor.visit_map(Entry {
            part,
            walk: self.walk,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.fields(fields, visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        if self.make.is_some() {
            let (walk, levels) = self.made::<V::Value>()?;
            let make = Some(levels);
            return visitor.visit_enum(Variant {
                number: 0,
                walk,
                make,
            });
        }
        let turn = self.walk.turn::<V>(variants.len(), false).ok_or(Stop)?;
        turn.way = variants[turn.taken.min(variants.len() - 1)];
        let number = turn.taken as u32;
        visitor.visit_enum(Variant {
            number,
            walk: self.walk,
            make: None,
        })
    }
}

/// The parts of a tuple: so many that are made, then, if the whole is not, one that is looked at.
struct Places<'w> {
    before: usize,
    walk: &'w mut Walk,
    make: Option<usize>,
}

impl<'de> de::SeqAccess<'de> for Places<'_> {
    type Error = Stop;

    fn next_element_seed<D: DeserializeSeed<'de>>(
        &mut self,
        seed: D,
    ) -> Result<Option<D::Value>, Stop> {
        let walk = &mut *self.walk;
        match (self.before, self.make) {
            (0, Some(_)) => Ok(None),
            (0, None) => {
                drop(seed.deserialize(Probe::look(walk))?);
                Err(Stop)
            }
            (_, make) => {
                self.before -= 1;
                let make = make.or(Some(LEVELS));
                seed.deserialize(Probe { walk, make }).map(Some)
            }
        }
    }
}

/// One field of a struct.
struct Field<'w> {
    key: Option<&'static str>,
    walk: &'w mut Walk,
}

impl<'de> de::MapAccess<'de> for Field<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        let key = self.key.take().ok_or(Stop)?;
        seed.deserialize(StrDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<D::Value, Stop> {
        drop(seed.deserialize(Probe::look(self.walk))?);
        Err(Stop)
    }
}

/// One entry of a map, of which the key or the value is looked at; or none.
struct Entry<'w> {
    part: Option<usize>,
    walk: &'w mut Walk,
}

impl<'de> de::MapAccess<'de> for Entry<'_> {
    type Error = Stop;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Stop> {
        let walk = &mut *self.walk;
        match self.part {
            None => Ok(None),
            Some(0) => {
                drop(seed.deserialize(Probe::look(walk))?);
                Err(Stop)
            }
            Some(_) => {
                let make = Some(LEVELS);
                seed.deserialize(Probe { walk, make }).map(Some)
            }
        }
    }

    fn next_value_seed<D: DeserializeSeed<'de>>(&mut self, seed: D) -> Result<D::Value, Stop> {
        drop(seed.deserialize(Probe::look(self.walk))?);
        Err(Stop)
    }
}

/// A variant of an enum.
struct Variant<'w> {
    number: u32,
    walk: &'w mut Walk,
    make: Option<usize>,
}

impl<'w, 'de> de::EnumAccess<'de> for Variant<'w> {
    type Error = Stop;
    type Variant = Probe<'w>;

    fn variant_seed<D: DeserializeSeed<'de>>(self, seed: D) -> Result<(D::Value, Probe<'w>), Stop> {
        let number = IntoDeserializer::<Stop>::into_deserializer(self.number);
        let Variant { walk, make, .. } = self;
        Ok((seed.deserialize(number)?, Probe { walk, make }))
    }
}

impl<'de> de::VariantAccess<'de> for Probe<'_> {
    type Error = Stop;

    fn unit_variant(self) -> Result<(), Stop> {
        self.made::<()>().map(drop)
    }

    fn newtype_variant_seed<D: DeserializeSeed<'de>>(self, seed: D) -> Result<D::Value, Stop> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Stop> {
        self.places(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Stop> {
        self.fields(fields, visitor)
    }
}
