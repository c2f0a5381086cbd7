//! How a function is named so that another copy of the same program finds it.
//!
//! A name is a distance: from a word of this image to the function that describes the task, compiled for
//! exactly its types. Both copies run the same image, wherever the system has put it, so the distance is
//! the same in both. Three checks stand before anything is called: the image's fingerprint (exchanged
//! when a child starts), that the place lies in this image's code, and a fingerprint of the types.
//!
//! # Why this file may use `unsafe`
//!
//! It turns a checked distance back into a function, and makes a function of no size out of its type.

#![allow(unsafe_code)]

use std::any::type_name;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;

use serde::{Deserialize, Serialize};

use crate::sys::{self, Fingerprint, Image};

/// Something that can be run in another copy of this program.
pub(crate) trait Body: 'static {
    /// What it works on: whoever resolves the name supplies one.
    type Port: ?Sized;

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

/// What stands at a named place.
struct Description<P: ?Sized> {
    types: u64,
    entry: Entry<P>,
}

fn describe<B: Body>() -> Description<B::Port> {
    Description {
        types: fingerprint::<B>(),
        entry: B::run,
    }
}

fn fingerprint<T: ?Sized>() -> u64 {
    let mut hash = Fingerprint::new();
    hash.add(type_name::<T>().as_bytes());
    hash.end()
}

/// The name of a body.
///
/// # Errors
///
/// [`TaskError::Foreign`] if its code lies outside the image that holds this crate.
pub(crate) fn name<B: Body>() -> Result<TaskName, TaskError> {
    let address = describe::<B> as fn() -> Description<B::Port> as usize;
    Ok(TaskName {
        distance: distance(address)?,
        port: fingerprint::<B::Port>(),
        types: fingerprint::<B>(),
    })
}

/// The body of a name that came from a process of the same image.
///
/// # Errors
///
/// [`TaskError`] if the place is not code of this image, or the types differ.
pub(crate) fn resolve<P: ?Sized>(name: TaskName) -> Result<Entry<P>, TaskError> {
    let address = landmark().wrapping_add_signed(name.distance as isize);
    distance(address)?;
    if name.port != fingerprint::<P>() {
        return Err(TaskError::Mismatch);
    }
    let place = std::ptr::with_exposed_provenance::<()>(address);
    // SAFETY: the name was made by `name`, in a process whose image has the same fingerprint (compared
    // when this process started). Therefore at this distance, inside this image's code (checked above),
    // stands `describe` of a body whose port is `P` (checked above), which has exactly this type.
    let describe = unsafe { std::mem::transmute::<*const (), fn() -> Description<P>>(place) };
    let description = describe();
    if description.types == name.types {
        Ok(description.entry)
    } else {
        Err(TaskError::Mismatch)
    }
}

/// Refuses, when compiling, a function that has a size.
pub(crate) const fn must_be_sizeless<F>() {
    assert!(
        size_of::<F>() == 0,
        "a function for another process must not capture anything: the other process finds it in its own copy \
         of the program, and has no copy of what it captures. Pass what it needs as an argument; and give the \
         function itself, not a pointer to it"
    );
}

/// The function of that type; it exists in every copy of the program.
pub(crate) fn function<F: Copy + 'static>() -> F {
    const { must_be_sizeless::<F>() }
    // SAFETY: a type of no size has no bytes that could be wrong, and it is inhabited and may be copied
    // freely: its name is only ever made where a value of it was given (see `Function`).
    unsafe { std::mem::zeroed() }
}

fn distance(address: usize) -> Result<i64, TaskError> {
    let inside = image().is_some_and(|image| image.text.iter().any(|part| part.contains(&address)));
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
    fn code_of_a_library_has_no_name() {
        let foreign = nix::libc::getpid as unsafe extern "C" fn() -> i32 as usize;
        assert_eq!(distance(foreign), Err(TaskError::Foreign));
        let nowhere = TaskName {
            distance: i64::MAX / 2,
            ..name::<Double>().unwrap()
        };
        assert_eq!(resolve::<u32>(nowhere).unwrap_err(), TaskError::Foreign);
    }
}
