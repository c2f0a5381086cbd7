//! Which type it is that serde has handed over.
//!
//! serde's generics are not `'static`, so `Any` cannot be asked. Here lifetimes are left aside:
//! types that differ in nothing else count as one, and only types without any are looked for.
//!
//! # Why this file may use `unsafe`
//!
//! It asks for the identity of a type without `'static`, and takes a value for what the answer says
//! it is. The answer says nothing of lifetimes, and need not: what is looked for is a slice or
//! vector of numbers, in which there are none, or a reference to one, which is taken for no longer
//! than the value it is found in.

#![allow(unsafe_code)]

use std::any::TypeId;
use std::marker::PhantomData;

/// A type without lifetimes.
pub(super) trait Known: 'static {}

macro_rules! known {
    ($($number:ty)*) => { $(
        impl Known for [$number] {}
        impl Known for Vec<$number> {}
    )* };
}
known! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char }

/// The identity of `T` with `'static` for every lifetime in it.
#[inline(always)]
pub(super) fn id<T: ?Sized>() -> TypeId {
    trait Identity {
        fn id(&self) -> TypeId
        where
            Self: 'static;
    }

    impl<T: ?Sized> Identity for PhantomData<T> {
        #[inline(always)]
        fn id(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }

    let lent: &dyn Identity = &PhantomData::<T>;
    // SAFETY: only the bound on how long the object's type lives is changed; no layout and no code
    // differs by a lifetime. What is behind the reference has no size and no `T` in it, and the one
    // method, called here and now, does not look at it.
    let lent = unsafe { std::mem::transmute::<&dyn Identity, &(dyn Identity + 'static)>(lent) };
    lent.id()
}

/// A value that may hold lifetimes, and its type.
#[derive(Clone, Copy)]
pub(super) struct Lent<'a> {
    at: *const (),
    id: TypeId,
    lives: PhantomData<&'a ()>,
}

impl<'a> Lent<'a> {
    #[inline(always)]
    pub(super) fn new<T>(value: &'a T) -> Lent<'a> {
        Lent {
            at: (&raw const *value).cast(),
            id: id::<T>(),
            lives: PhantomData,
        }
    }

    /// What the value refers to, if it is a reference to a `K`.
    #[inline(always)]
    pub(super) fn referent<K: Known + ?Sized>(self) -> Option<&'a K> {
        if self.id != TypeId::of::<&'static K>() {
            return None;
        }
        // SAFETY: `at` comes from a `&'a T`, and `T` is a `&K` but for its lifetime (just compared;
        // a `Known` has none inside). A `&'a T` outlives `'a`, so what it refers to does as well.
        Some(unsafe { *self.at.cast::<&'a K>() })
    }
}

/// A place for a value that may hold lifetimes, and its type.
pub(super) struct Place<'a> {
    at: *mut (),
    id: TypeId,
    lives: PhantomData<&'a mut ()>,
}

impl<'a> Place<'a> {
    #[inline(always)]
    pub(super) fn new<T>(place: &'a mut Option<T>) -> Place<'a> {
        Place {
            at: (&raw mut *place).cast(),
            id: id::<T>(),
            lives: PhantomData,
        }
    }

    /// The place, if it is for a `K`.
    #[inline(always)]
    pub(super) fn of<K: Known>(&mut self) -> Option<&mut Option<K>> {
        if self.id != TypeId::of::<K>() {
            return None;
        }
        // SAFETY: `at` comes from a `&'a mut Option<T>`, which is lent for as long as `self` is,
        // and `T` is `K` (just compared; a `Known` has no lifetimes that could differ).
        Some(unsafe { &mut *self.at.cast::<Option<K>>() })
    }
}
