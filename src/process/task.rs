//! How a function is named so that another copy of the same program finds it.
//!
//! A name is a distance: from a word of this image to the *description* of a task, a constant that the
//! compiler lays down for exactly its types. Both copies run the same image, wherever the system has put
//! it, so the distance is the same in both.
//!
//! A name may come from anybody. Therefore nothing is called, and nothing but plain words is read, until
//! it is certain that a description stands there: the place lies in the part of this image that nobody can
//! write, and it begins with the mark of this crate and with the address of this copy's [`LANDMARK`],
//! which is known only when the image has been loaded, so that no bytes that a program happens to hold
//! (those of another program, say) are taken for one. What a description holds is true: the compiler wrote
//! it. It says for which port the task was compiled, and that is compared as a type, not as a hash.
//!
//! So the worst that a forged name can do is to have another task of this program run, on arguments that
//! are decoded by that task's own types.
//!
//! # Why this file may use `unsafe`
//!
//! It reads descriptions where a name says that they stand, and makes a function of no size out of its type.

#![allow(unsafe_code)]

use std::any::{TypeId, type_name};
use std::hint::black_box;
use std::mem::offset_of;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Fingerprint, Image};

/// Something that can be run in another copy of this program.
pub(crate) trait Body: 'static {
    /// What it works on: whoever resolves the name supplies one.
    type Port: ?Sized + 'static;

    /// Does the work.
    fn run(port: &mut Self::Port);
}

/// A body, ready to be called.
pub(crate) type Entry<P> = fn(&mut P);

/// The name of a body, the same in every copy of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct TaskName {
    distance: i64,
    port: u64,
    types: u64,
}

impl TaskName {
    /// The name as it stands in shared memory.
    pub(crate) fn words(self) -> [u64; 3] {
        [self.distance as u64, self.port, self.types]
    }

    pub(crate) fn from_words([distance, port, types]: [u64; 3]) -> TaskName {
        TaskName {
            distance: distance as i64,
            port,
            types,
        }
    }
}

/// Why a function has no name, or a name no function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TaskError {
    /// It lies in a library that was loaded beside the program.
    #[error("the function does not lie in the image that holds this crate")]
    Foreign,
    /// The name comes from another program.
    #[error("the task does not fit this program: its types are others")]
    Mismatch,
}

/// How every description begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Mark {
    words: [u64; 2],
    /// The landmark of the copy of this crate that wrote it.
    landmark: *const AtomicU8,
}

/// What stands at a named place, in memory that is never written.
#[repr(C)]
struct Description<P: ?Sized + 'static> {
    mark: Mark,
    task: Task<P>,
}

/// A body as its description tells of it, for whoever has found it.
#[repr(C)]
pub(crate) struct Task<P: ?Sized + 'static> {
    port: fn() -> TypeId,
    body: fn() -> TypeId,
    type_name: fn() -> &'static str,
    entry: Entry<P>,
}

impl<P: ?Sized + 'static> Task<P> {
    /// Does the work.
    pub(crate) fn run(&self, port: &mut P) {
        (self.entry)(port);
    }

    /// Tells it from all others of this program. Its place does not: the compiler may lay down one
    /// description twice.
    pub(crate) fn body(&self) -> TypeId {
        (self.body)()
    }

    /// Its name.
    ///
    /// # Errors
    ///
    /// [`TaskError::Foreign`] if it was compiled into another image than the one that holds this crate.
    pub(crate) fn name(&'static self) -> Result<TaskName, TaskError> {
        let address = std::ptr::from_ref(self).addr() - offset_of!(Description<()>, task);
        Ok(TaskName {
            distance: distance(address, size_of::<Description<()>>())?,
            port: fingerprint::<P>(),
            types: fingerprint_of((self.type_name)()),
        })
    }
}

/// 128 bits that stand at the head of descriptions and nowhere else.
const MARK: [u64; 2] = [0x8d1f_6c3e_a94b_7205, 0x5be0_27d9_134c_f68a];

/// The mark as it is compared: inverted, and kept from the compiler, which would otherwise lay it down among
/// its constants a second time.
static INVERTED: [u64; 2] = [!MARK[0], !MARK[1]];

fn mark() -> Mark {
    Mark {
        words: black_box(&INVERTED).map(|word| !word),
        landmark: &raw const LANDMARK,
    }
}

fn description<B: Body>() -> &'static Description<B::Port> {
    const {
        &Description {
            mark: Mark {
                words: MARK,
                landmark: &raw const LANDMARK,
            },
            task: Task {
                port: TypeId::of::<B::Port>,
                body: TypeId::of::<B>,
                type_name: type_name::<B>,
                entry: B::run,
            },
        }
    }
}

fn fingerprint<T: ?Sized>() -> u64 {
    fingerprint_of(type_name::<T>())
}

fn fingerprint_of(name: &str) -> u64 {
    let mut hash = Fingerprint::new();
    hash.add(name.as_bytes());
    hash.end()
}

/// The task of a body.
pub(crate) fn of<B: Body>() -> &'static Task<B::Port> {
    let description = description::<B>();
    // Whoever resolves its name has nothing but the address.
    let _ = std::ptr::from_ref(description).expose_provenance();
    &description.task
}

/// The name of a body.
///
/// # Errors
///
/// [`TaskError::Foreign`] if it was compiled into another image than the one that holds this crate.
pub(crate) fn name<B: Body>() -> Result<TaskName, TaskError> {
    of::<B>().name()
}

/// The body of a name, whoever it came from.
///
/// # Errors
///
/// [`TaskError`] if no description of a task of this image stands there, or one with another port or of
/// other types.
pub(crate) fn resolve<P: ?Sized + 'static>(name: TaskName) -> Result<Entry<P>, TaskError> {
    find(name).map(|task| task.entry)
}

/// As [`resolve`], with all that is known of it.
///
/// # Errors
///
/// As of [`resolve`].
pub(crate) fn find<P: ?Sized + 'static>(name: TaskName) -> Result<&'static Task<P>, TaskError> {
    let address = landmark().wrapping_add_signed(name.distance as isize);
    distance(address, size_of::<Description<P>>())?;
    if address % align_of::<Description<P>>() != 0 || name.port != fingerprint::<P>() {
        return Err(TaskError::Mismatch);
    }
    let place = std::ptr::with_exposed_provenance::<Description<()>>(address);
    // SAFETY: as many bytes lie inside a part of this image that is loaded readable, stays loaded (this code
    // lies in the same image) and is never written (all checked by `distance`). The address is aligned, and
    // a mark is of plain words, valid whatever they are.
    let found = unsafe { (&raw const (*place).mark).read() };
    if found != mark() {
        return Err(TaskError::Mismatch);
    }
    // SAFETY: the mark, with this copy's landmark in it, is laid down by `description` alone, at the head of a
    // description; therefore one stands here, complete and valid for ever. Its layout does not depend on its
    // port (`repr(C)`, and all pointers to functions have one size), and its entry is not looked at yet.
    let (port, type_name) = unsafe { ((*place).task.port, (*place).task.type_name) };
    if port() != TypeId::of::<P>() || fingerprint_of(type_name()) != name.types {
        return Err(TaskError::Mismatch);
    }
    // SAFETY: as above, and because its port is the type `P`, the entry is an `Entry<P>`. It is never written.
    Ok(unsafe { &(*place.cast::<Description<P>>()).task })
}

/// Refuses, when compiling, a function that captures something, as far as its type tells.
pub(crate) const fn must_be_sizeless<F>() {
    assert!(
        size_of::<F>() == 0 && align_of::<F>() == 1,
        "a function for another process must not capture anything: the other process finds it in its own copy \
         of the program, and has no copy of what it captures. Pass what it needs as an argument; and give the \
         function itself, not a pointer to it"
    );
    assert!(
        size_of::<Option<F>>() > 0,
        "a function for another process must not capture a value of a type that has none"
    );
}

/// Refuses a function that captures something in the function of this crate that the user calls, so that the
/// compiler's error names the place of that call. A value is not looked at: its type says all.
macro_rules! refuse_captures {
    ($function:ident: $type:ty) => {
        refuse_captures!($type);
        let _: $type = $function;
    };
    ($type:ty) => {
        const { $crate::process::task::must_be_sizeless::<$type>() }
    };
}
pub(crate) use refuse_captures;

/// The function of that type; it exists in every copy of the program.
pub(crate) fn function<F: Copy + 'static>() -> F {
    const { must_be_sizeless::<F>() }
    // SAFETY: the type has no bytes that could be wrong and is inhabited (both checked above, when compiling),
    // so that this is a value of it whoever calls. What a value of it may promise beyond that, because it
    // captures one of a type of no size, it does not promise here: see "Captured values" at `Function`.
    unsafe { std::mem::zeroed() }
}

/// How far a constant of `len` bytes lies from the landmark.
fn distance(address: usize, len: usize) -> Result<i64, TaskError> {
    let end = address.checked_add(len).ok_or(TaskError::Foreign)?;
    let inside = image().is_some_and(|image| {
        let mut parts = image.constants.iter();
        parts.any(|part| part.start <= address && end <= part.end)
    });
    if !inside {
        return Err(TaskError::Foreign);
    }
    Ok(address.wrapping_sub(landmark()) as i64)
}

/// The word that distances are measured from.
///
/// It can change (nothing does change it), so that no linker merges it with that of another copy of this
/// crate in the same program.
static LANDMARK: AtomicU8 = AtomicU8::new(0);

fn landmark() -> usize {
    (&raw const LANDMARK).expose_provenance()
}

/// The image that holds this copy of the crate.
pub(crate) fn image() -> Option<&'static Image> {
    static IMAGE: OnceLock<Option<Image>> = OnceLock::new();
    IMAGE.get_or_init(|| sys::image_of(landmark())).as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Double;

    impl Body for Double {
        type Port = u32;

        fn run(port: &mut u32) {
            *port *= 2;
        }
    }

    #[test]
    fn a_name_leads_back_to_its_function() {
        let mut number = 21;
        resolve::<u32>(name::<Double>().unwrap()).unwrap()(&mut number);
        assert_eq!(number, 42);
    }

    #[test]
    fn another_port_is_refused_before_it_is_called() {
        let name = name::<Double>().unwrap();
        assert_eq!(resolve::<i64>(name).unwrap_err(), TaskError::Mismatch);
        let other = TaskName {
            types: name.types ^ 1,
            ..name
        };
        assert_eq!(resolve::<u32>(other).unwrap_err(), TaskError::Mismatch);
    }

    #[test]
    fn what_is_no_description_is_not_called() {
        let real = name::<Double>().unwrap();
        let parts = &image().unwrap().constants;
        assert!(!parts.is_empty());
        // A forged name may lead anywhere: to every word of every part, just before, and behind it.
        let mut found = Vec::new();
        for part in parts {
            let range = part.start.saturating_sub(64)..part.end + 64;
            for address in range.step_by(align_of::<Description<()>>()) {
                let forged = TaskName {
                    distance: address.wrapping_sub(landmark()) as i64,
                    ..real
                };
                if let Ok(task) = resolve::<u32>(forged) {
                    // The compiler may have laid the same description down more than once.
                    let mut number = 21;
                    task(&mut number);
                    assert_eq!(number, 42);
                    found.push(forged);
                }
            }
        }
        assert!(found.contains(&real));
        let unaligned = TaskName {
            distance: real.distance + 1,
            ..real
        };
        assert_eq!(resolve::<u32>(unaligned).unwrap_err(), TaskError::Mismatch);
    }

    #[test]
    fn descriptions_lie_where_nobody_writes() {
        let address = std::ptr::from_ref(description::<Double>()).addr();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| {
            let (start, rest) = line.split_once('-').unwrap();
            let (end, _) = rest.split_once(' ').unwrap();
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (number(start)..number(end)).contains(&address)
        });
        let rights = line.unwrap().split(' ').nth(1).unwrap();
        assert!(rights.starts_with("r-"), "{rights}");
    }

    #[test]
    fn a_description_in_writable_memory_is_refused() {
        // As a peer could write it into memory that this process has mapped.
        let forged = Box::new(Description::<u32> {
            mark: mark(),
            task: Task {
                port: TypeId::of::<u32>,
                body: TypeId::of::<Double>,
                type_name: type_name::<Double>,
                entry: Double::run,
            },
        });
        let address = std::ptr::from_ref(&*forged).expose_provenance();
        let name = TaskName {
            distance: address.wrapping_sub(landmark()) as i64,
            ..name::<Double>().unwrap()
        };
        assert_eq!(resolve::<u32>(name).unwrap_err(), TaskError::Foreign);
    }

    #[test]
    fn code_of_a_library_has_no_name() {
        let foreign = nix::libc::getpid as unsafe extern "C" fn() -> i32 as usize;
        assert_eq!(distance(foreign, 1), Err(TaskError::Foreign));
        assert_eq!(distance(usize::MAX, 2), Err(TaskError::Foreign));
        let nowhere = TaskName {
            distance: i64::MAX / 2,
            ..name::<Double>().unwrap()
        };
        assert_eq!(resolve::<u32>(nowhere).unwrap_err(), TaskError::Foreign);
    }
}
