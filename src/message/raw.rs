//! Types that travel as the bytes they are made of, without serde: numbers, `bool`, `char`, arrays and `Vec`s
//! of them, `String`.
//!
//! Which type a `T: Message` is, is asked of its `TypeId` in [`dispatch`], guarded by sizes known when compiling. Both fold
//! away: what is left of `encode::<u64>` is one store, and no other type pays anything.

use std::any::{Any, TypeId};

use bytemuck::{CheckedBitPattern, NoUninit};

use super::DecodeError;
use crate::segment::Bytes;

/// A number, `bool` or `char`.
pub(super) trait Scalar: NoUninit + CheckedBitPattern + Default {
    /// Makes the values of bytes that may lie anywhere, of which there are as many.
    #[inline(always)]
    fn copy(bytes: &[u8], to: &mut [Self]) -> Result<(), DecodeError> {
        fill(to, bytes)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => { $(
        impl Scalar for $number {
            // Any bits are a number.
            #[inline(always)]
            fn copy(bytes: &[u8], to: &mut [Self]) -> Result<(), DecodeError> {
                bytemuck::cast_slice_mut(to).copy_from_slice(bytes);
                Ok(())
            }
        }
    )* };
}
numbers! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 }
impl Scalar for bool {}
impl Scalar for char {}

/// A type that travels raw.
trait Raw: Sized + 'static {
    /// Bytes of every value, if all values have the same.
    const SIZE: Option<usize>;

    fn bytes(&self) -> &[u8];

    /// Appends all values of a fixed size that are in `bytes`.
    fn append(bytes: &[u8], to: &mut Vec<Self>) -> Result<(), DecodeError> {
        let values = bytes.chunks_exact(Self::SIZE.unwrap_or(1).max(1));
        for value in values {
            to.push(Self::read(value)?);
        }
        Ok(())
    }

    /// Appends so many values straight from shared memory; false if they are not to be had in that way.
    fn append_from(_: &Bytes, _offset: usize, _count: usize, _to: &mut Vec<Self>) -> bool {
        false
    }

    fn read(bytes: &[u8]) -> Result<Self, DecodeError>;

    /// As `read`, from shared memory: what is checked is the copy.
    fn read_from(from: &Bytes, offset: usize, len: usize) -> Result<Self, DecodeError>;
}

/// Reads a value of at most [`BLOCK`](super::BLOCK) numbers from shared memory.
#[inline(always)]
fn read_block<R: Raw>(from: &Bytes, offset: usize, len: usize) -> Result<R, DecodeError> {
    let mut space = [0; super::BLOCK * size_of::<u128>()];
    let size = R::SIZE.unwrap_or(0);
    let copy = &mut space[..size];
    if len != size {
        return Err(match len < size {
            true => DecodeError::Truncated {
                needed: size,
                left: len,
            },
            false => DecodeError::Trailing { left: len - size },
        });
    }
    from.copy_out(offset, copy);
    R::read(copy)
}

impl<S: Scalar> Raw for S {
    const SIZE: Option<usize> = Some(size_of::<S>());

    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(self)
    }

    #[inline(always)]
    fn append(bytes: &[u8], to: &mut Vec<S>) -> Result<(), DecodeError> {
        append_scalars(bytes, to)
    }

    fn append_from(from: &Bytes, offset: usize, count: usize, to: &mut Vec<S>) -> bool {
        from.append_values(offset, count, to)
    }

    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<S, DecodeError> {
        expect_len(bytes, size_of::<S>())?;
        bytemuck::checked::try_pod_read_unaligned(bytes).map_err(|_| DecodeError::InvalidBits)
    }

    #[inline(always)]
    fn read_from(from: &Bytes, offset: usize, len: usize) -> Result<S, DecodeError> {
        read_block(from, offset, len)
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
        fill(&mut items, bytes)?;
        Ok(items)
    }

    fn read_from(from: &Bytes, offset: usize, len: usize) -> Result<[S; N], DecodeError> {
        read_block(from, offset, len)
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
            0 => read_vec(bytes),
            left => Err(DecodeError::Trailing { left }),
        }
    }

    fn read_from(from: &Bytes, offset: usize, len: usize) -> Result<Vec<S>, DecodeError> {
        let left = len % size_of::<S>();
        if left != 0 {
            return Err(DecodeError::Trailing { left });
        }
        let mut items = Vec::new();
        match from.append_values(offset, len / size_of::<S>(), &mut items) {
            true => Ok(items),
            false => Err(DecodeError::InvalidBits),
        }
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

    fn read_from(from: &Bytes, offset: usize, len: usize) -> Result<String, DecodeError> {
        let mut bytes = Vec::new();
        from.append_to(offset, len, &mut bytes);
        String::from_utf8(bytes).map_err(|_| DecodeError::InvalidText)
    }
}

/// All numbers in `bytes`, which is a whole number of them.
pub(super) fn read_vec<S: Scalar>(bytes: &[u8]) -> Result<Vec<S>, DecodeError> {
    // A slice that lies right for `S` is checked in place and copied in one go.
    if let Ok(items) = bytemuck::checked::try_cast_slice::<u8, S>(bytes) {
        return Ok(items.to_vec());
    }
    // The allocator's own zeros, which cost nothing where the memory is new.
    let mut items = vec![S::default(); bytes.len() / size_of::<S>()];
    S::copy(bytes, &mut items)?;
    Ok(items)
}

/// Appends all numbers in `bytes`, which is a whole number of them.
fn append_scalars<S: Scalar>(bytes: &[u8], to: &mut Vec<S>) -> Result<(), DecodeError> {
    if let Ok(items) = bytemuck::checked::try_cast_slice(bytes) {
        to.extend_from_slice(items);
        return Ok(());
    }
    let start = to.len();
    to.resize(start + bytes.len() / size_of::<S>(), S::default());
    S::copy(bytes, &mut to[start..])
}

#[inline(always)]
fn fill<S: Scalar>(items: &mut [S], bytes: &[u8]) -> Result<(), DecodeError> {
    for (item, bytes) in items.iter_mut().zip(bytes.chunks_exact(size_of::<S>())) {
        *item = S::read(bytes)?;
    }
    Ok(())
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

/// Elements a `T` has if it is an array of something of this size and alignment; 0 if it is none.
const fn array_len<T, S>() -> usize {
    if align_of::<T>() == align_of::<S>() && size_of::<T>() % size_of::<S>() == 0 {
        size_of::<T>() / size_of::<S>()
    } else {
        0
    }
}

/// Runs the job if `$of` is one of these types; the job comes back if it is none.
macro_rules! one_of {
    ($of:ty, $job:ident: $($raw:ty)*) => {{
        let id = TypeId::of::<$of>();
        $(
            if id == TypeId::of::<$raw>() {
                return Ok($job.run::<$raw>());
            }
        )*
        Err($job)
    }};
}

/// A function for the scalars of one size and for the arrays of them.
macro_rules! family {
    ($name:ident $size:ty: $scalars:tt) => {
        family! { $name $size: $scalars
            2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 }
    };
    ($name:ident $size:ty: [$($scalar:ty)*] $($len:tt)*) => {
        #[inline(always)]
        fn $name<T: 'static, J: Job>(job: J) -> Result<J::Out, J> {
            #[inline(always)]
            fn arrays<T: 'static, J: Job, const N: usize>(job: J) -> Result<J::Out, J> {
                one_of!(T, job: $([$scalar; N])*)
            }
            match const { array_len::<T, $size>() } {
                1 => one_of!(T, job: $($scalar [$scalar; 1])*),
                $($len => arrays::<T, J, $len>(job),)*
                _ => Err(job),
            }
        }
    };
}
family! { of_one_byte u8: [u8 i8 bool] }
family! { of_two_bytes u16: [u16 i16] }
family! { of_four_bytes u32: [u32 i32 f32 char] }
family! { of_eight_bytes u64: [u64 i64 usize isize f64] }
family! { of_sixteen_bytes u128: [u128 i128] }

#[inline(always)]
fn text_or_vec<T: 'static, J: Job>(job: J) -> Result<J::Out, J> {
    one_of!(T, job:
        String Vec<u8> Vec<i8> Vec<bool> Vec<u16> Vec<i16> Vec<u32> Vec<i32> Vec<f32> Vec<char>
        Vec<u64> Vec<i64> Vec<usize> Vec<isize> Vec<f64> Vec<u128> Vec<i128>
    )
}

/// Runs the job with the raw type that `T` is, if it is one.
///
/// What is asked first are constants of `T`, so that not even an unoptimised build looks at more than the few
/// types of the right size. Each family stands in a function of its own, so that the compiler, which gets a copy of
/// this for every `T` and `J`, does not get five hundred types with each.
#[inline(always)]
fn dispatch<T: 'static, J: Job>(mut job: J) -> Option<J::Out> {
    macro_rules! ask {
        ($($size:ty: $family:ident)*) => { $(
            if const { matches!(array_len::<T, $size>(), 1..=32) } {
                match $family::<T, J>(job) {
                    Ok(out) => return Some(out),
                    Err(back) => job = back,
                }
            }
        )* };
    }
    ask! {
        u8: of_one_byte
        u16: of_two_bytes
        u32: of_four_bytes
        u64: of_eight_bytes
        u128: of_sixteen_bytes
    }
    match const { size_of::<T>() == size_of::<String>() } {
        true => text_or_vec::<T, J>(job).ok(),
        false => None,
    }
}

/// The bytes of a value that travels raw.
#[inline(always)]
pub(super) fn bytes<T: 'static>(value: &T) -> Option<&[u8]> {
    struct Get<'a>(&'a dyn Any);

    impl<'a> Job for Get<'a> {
        type Out = Option<&'a [u8]>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            self.0.downcast_ref::<R>().map(R::bytes)
        }
    }

    dispatch::<T, _>(Get(value)).flatten()
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

/// Appends the values in all of `bytes`, if a `T` travels raw.
#[inline(always)]
#[expect(clippy::ptr_arg, reason = "as `dyn Any` it is a `Vec`")]
pub(super) fn append<T: 'static>(bytes: &[u8], to: &mut Vec<T>) -> Option<Result<(), DecodeError>> {
    struct Append<'a>(&'a [u8], &'a mut dyn Any);

    impl Job for Append<'_> {
        type Out = Option<Result<(), DecodeError>>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            let to = self.1.downcast_mut::<Vec<R>>()?;
            Some(R::append(self.0, to))
        }
    }

    dispatch::<T, _>(Append(bytes, to)).flatten()
}

/// Appends so many values straight from shared memory, if a `T` is a number; false if nothing was appended.
#[expect(clippy::ptr_arg, reason = "as `dyn Any` it is a `Vec`")]
pub(super) fn append_from<T: 'static>(
    from: &Bytes,
    offset: usize,
    count: usize,
    to: &mut Vec<T>,
) -> bool {
    struct Append<'a>(&'a Bytes, usize, usize, &'a mut dyn Any);

    impl Job for Append<'_> {
        type Out = bool;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            let to = self.3.downcast_mut::<Vec<R>>();
            to.is_some_and(|to| R::append_from(self.0, self.1, self.2, to))
        }
    }

    dispatch::<T, _>(Append(from, offset, count, to)).unwrap_or(false)
}

/// The value of so many bytes of shared memory, if a `T` travels raw.
#[inline(always)]
pub(super) fn read_from<T: 'static>(
    from: &Bytes,
    offset: usize,
    len: usize,
) -> Option<Result<T, DecodeError>> {
    struct Read<'a>(&'a Bytes, usize, usize, &'a mut dyn Any);

    impl Job for Read<'_> {
        type Out = Result<(), DecodeError>;

        #[inline(always)]
        fn run<R: Raw>(self) -> Self::Out {
            let value = R::read_from(self.0, self.1, self.2)?;
            if let Some(out) = self.3.downcast_mut::<Option<R>>() {
                *out = Some(value);
            }
            Ok(())
        }
    }

    let mut out = None::<T>;
    let done = dispatch::<T, _>(Read(from, offset, len, &mut out))?;
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
