//! Types that travel as the bytes they are made of, without serde: numbers, `bool`, `char`, arrays and `Vec`s
//! of them, `String`.
//!
//! Which type a `T: Message` is, is asked of its `TypeId` in [`dispatch`], guarded by sizes known when compiling. Both fold
//! away: what is left of `encode::<u64>` is one store, and no other type pays anything.

use std::any::{Any, TypeId};

use bytemuck::{CheckedBitPattern, NoUninit};

use super::DecodeError;

/// Items [`many_bytes`] takes at a time.
pub(super) const BLOCK: usize = 64;

/// A number, `bool` or `char`.
trait Scalar: NoUninit + CheckedBitPattern + Default {}

/// A type that travels raw.
trait Raw: Sized + 'static {
    /// Bytes of every value, if all values have the same.
    const SIZE: Option<usize>;

    fn bytes(&self) -> &[u8];

    fn read(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// The bytes of several values at once, if their size is fixed.
    fn many(items: &[Self]) -> Option<&[u8]>;

    /// The values one after another in `bytes`, which is a whole number of `SIZE`.
    fn read_many(bytes: &[u8]) -> Result<Vec<Self>, DecodeError> {
        let size = Self::SIZE.expect("only values of fixed size lie one after another");
        let mut items = Vec::with_capacity(bytes.len() / size);
        for bytes in bytes.chunks_exact(size) {
            items.push(Self::read(bytes)?);
        }
        Ok(items)
    }
}

impl<S: Scalar> Raw for S {
    const SIZE: Option<usize> = Some(size_of::<S>());

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<S, DecodeError> {
        expect_len(bytes, size_of::<S>())?;
        bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| DecodeError::InvalidBits)
    }

    #[inline(always)]
    fn many(items: &[S]) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(items))
    }

    fn read_many(bytes: &[u8]) -> Result<Vec<S>, DecodeError> {
        // A slice that lies right for `S` is checked in place and copied in one go.
        if let Ok(items) = bytemuck::checked::try_cast_slice(bytes) {
            return Ok(items.to_vec());
        }
        let mut items = Vec::with_capacity(bytes.len() / size_of::<S>());
        for bytes in bytes.chunks_exact(size_of::<S>()) {
            items.push(S::read(bytes)?);
        }
        Ok(items)
    }
}

impl<S: Scalar, const N: usize> Raw for [S; N] {
    const SIZE: Option<usize> = Some(size_of::<[S; N]>());

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<[S; N], DecodeError> {
        expect_len(bytes, size_of::<[S; N]>())?;
        let mut items = [S::default(); N];
        for (item, bytes) in items.iter_mut().zip(bytes.chunks_exact(size_of::<S>())) {
            *item = S::read(bytes)?;
        }
        Ok(items)
    }

    #[inline(always)]
    fn many(items: &[[S; N]]) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(items.as_flattened()))
    }
}

impl<S: Scalar> Raw for Vec<S> {
    const SIZE: Option<usize> = None;

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(self)
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<Vec<S>, DecodeError> {
        match bytes.len() % size_of::<S>() {
            0 => S::read_many(bytes),
            left => Err(DecodeError::Trailing { left }),
        }
    }

    fn many(_: &[Vec<S>]) -> Option<&[u8]> {
        None
    }
}

impl Raw for String {
    const SIZE: Option<usize> = None;

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<String, DecodeError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(DecodeError::InvalidText),
        }
    }

    fn many(_: &[String]) -> Option<&[u8]> {
        None
    }
}

#[inline(always)]
pub(super) fn expect_len(bytes: &[u8], needed: usize) -> Result<(), DecodeError> {
    let left = bytes.len();
    match left {
        _ if left < needed => Err(DecodeError::Truncated { needed, left }),
        _ if left > needed => Err(DecodeError::Trailing {
            left: left - needed,
        }),
        _ => Ok(()),
    }
}

/// What to do once the raw type behind a `T` is known.
trait Job {
    type Out;

    fn run<R: Raw>(self) -> Self::Out;
}

macro_rules! each_scalar {
    ($each:ident) => {
        $each! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 bool char }
    };
}

macro_rules! scalar {
    ($($scalar:ty)*) => { $(impl Scalar for $scalar {})* };
}
each_scalar!(scalar);

/// Whether both are the same type; `T` is asked first whether it could be, which costs nothing at run time.
#[inline(always)]
fn is<T: 'static, R: 'static>() -> bool {
    if const { size_of::<T>() == size_of::<R>() && align_of::<T>() == align_of::<R>() } {
        TypeId::of::<T>() == TypeId::of::<R>()
    } else {
        false
    }
}

/// Elements a `T` has if it is an array of `S`; 0 if it is none.
const fn array_len<T, S>() -> usize {
    if align_of::<T>() == align_of::<S>() && size_of::<T>() % size_of::<S>() == 0 {
        size_of::<T>() / size_of::<S>()
    } else {
        0
    }
}

/// Runs the job with the raw type that `T` is, if it is one.
#[inline(always)]
fn dispatch<T: 'static, J: Job>(job: J) -> Option<J::Out> {
    macro_rules! one {
        ($raw:ty) => {
            if is::<T, $raw>() {
                return Some(job.run::<$raw>());
            }
        };
    }
    macro_rules! array {
        ($scalar:ty: $($len:literal)*) => {
            match const { array_len::<T, $scalar>() } {
                $($len => one!([$scalar; $len]),)*
                _ => {}
            }
        };
    }
    macro_rules! scalars {
        ($($scalar:ty)*) => { $(
            one!($scalar);
            one!(Vec<$scalar>);
            array!($scalar: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32);
        )* };
    }
    each_scalar!(scalars);
    one!(String);
    None
}

/// The bytes of a value that travels raw.
#[inline(always)]
pub(super) fn bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    struct Bytes<'a>(&'a dyn Any);

    impl<'a> Job for Bytes<'a> {
        type Out = Option<&'a [u8]>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            self.0.downcast_ref::<R>().map(R::bytes)
        }
    }

    dispatch::<T, _>(Bytes(value)).flatten()
}

/// The value in all of `bytes`, if a `T` travels raw.
#[inline(always)]
pub(super) fn read<T: 'static>(bytes: &[u8]) -> Option<Result<T, DecodeError>> {
    struct Read<'a>(&'a [u8], &'a mut dyn Any);

    impl Job for Read<'_> {
        type Out = Result<(), DecodeError>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            let value = R::read(self.0)?;
            if let Some(out) = self.1.downcast_mut::<Option<R>>() {
                *out = Some(value);
            }
            Ok(())
        }
    }

    let mut out = None::<T>;
    let done = dispatch::<T, _>(Read(bytes, &mut out))?;
    match done {
        Ok(()) => out.map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// The bytes of several values at once, if a `T` travels raw and has a fixed size.
#[inline(always)]
pub(super) fn many_bytes<T: 'static>(items: &[T; BLOCK]) -> Option<&[u8]> {
    struct Many<'a>(&'a dyn Any);

    impl<'a> Job for Many<'a> {
        type Out = Option<&'a [u8]>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            self.0
                .downcast_ref::<[R; BLOCK]>()
                .and_then(|items| R::many(items))
        }
    }

    dispatch::<T, _>(Many(items)).flatten()
}

/// The values one after another in `bytes`, a whole number of them, if a `T` travels raw and has a fixed size.
#[inline(always)]
pub(super) fn read_many<T: 'static>(bytes: &[u8]) -> Option<Result<Vec<T>, DecodeError>> {
    struct Many<'a>(&'a [u8], &'a mut dyn Any);

    impl Job for Many<'_> {
        type Out = Result<(), DecodeError>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            if R::SIZE.is_some() {
                let items = R::read_many(self.0)?;
                if let Some(out) = self.1.downcast_mut::<Option<Vec<R>>>() {
                    *out = Some(items);
                }
            }
            Ok(())
        }
    }

    let mut out = None::<Vec<T>>;
    let done = dispatch::<T, _>(Many(bytes, &mut out))?;
    match done {
        Ok(()) => out.map(Ok),
        Err(error) => Some(Err(error)),
    }
}

/// `None` if a `T` does not travel raw; else the bytes of every value, if all have the same.
#[inline(always)]
pub(super) fn size<T: 'static>() -> Option<Option<usize>> {
    struct Size;

    impl Job for Size {
        type Out = Option<usize>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            R::SIZE
        }
    }

    dispatch::<T, _>(Size)
}
