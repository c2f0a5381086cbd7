//! Where a thread's stack ends.
//!
//! # Why this file may use `unsafe`
//!
//! The system says it through a structure that it fills and frees.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::mem::MaybeUninit;

use nix::libc;

/// The lowest address of this thread's stack; `None` if the system does not say, or if `inside`, an
/// address on the stack in use, is not on it: then the program has switched stacks by itself.
///
/// The first call in a thread costs some microseconds.
pub(crate) fn stack_end(inside: usize) -> Option<usize> {
    thread_local! {
        static BOUNDS: Cell<Option<(usize, usize)>> = const { Cell::new(None) };
    }
    let (end, len) = BOUNDS.get().unwrap_or_else(|| {
        let bounds = bounds().unwrap_or((0, 0));
        BOUNDS.set(Some(bounds));
        bounds
    });
    inside
        .checked_sub(end)
        .is_some_and(|above| above < len)
        .then_some(end)
}

/// The lowest address of this thread's stack, and its bytes.
fn bounds() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: this thread is alive, and there is room for what the call fills in.
    let failed =
        unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 };
    if failed {
        return None;
    }
    let (mut end, mut len) = (std::ptr::null_mut(), 0);
    // SAFETY: because the call above succeeded the structure is initialised; it is read, then freed
    // once, and not used after that.
    let failed = unsafe {
        let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &mut end, &mut len) != 0;
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        failed
    };
    (!failed).then_some((end.addr(), len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_s_stack_is_as_long_as_it_was_made() {
        let asked = 1 << 20;
        let thread = std::thread::Builder::new().stack_size(asked);
        let left = thread.spawn(|| {
            assert_eq!(stack_end(0), None);
            let mark = 0_u8;
            let here = (&raw const mark).addr();
            here - stack_end(here).expect("the system says where the stack ends")
        });
        let left = left.unwrap().join().unwrap();
        assert!(
            left > asked / 2 && left < 2 * asked,
            "{left} bytes are left"
        );
    }
}
