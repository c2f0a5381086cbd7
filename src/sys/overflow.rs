//! What a child says when its stack is used up.
//!
//! Rust's runtime says it of every other program: it installs a handler on the way to `main`, to which children never
//! come. Without one they would end by SIGSEGV and not say why.
//!
//! # Why this file may use `unsafe`
//!
//! It installs a handler for two signals, and the memory that the handler runs on.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::libc;
use rustix::process::Resource;

/// As Rust's runtime has it.
const TEXT: &[u8] =
    b"\nthread 'main' has overflowed its stack\nfatal runtime error: stack overflow\n";

/// Bytes of memory for the handler: also where a processor has many registers to be kept.
const ROOM: usize = 64 << 10;

/// The kernel keeps so many bytes below a stack free of everything else.
const GAP: usize = 1 << 20;

/// Where the main thread's stack begins: one past its highest address.
static TOP: AtomicUsize = AtomicUsize::new(0);

/// Has this process say it when its main thread has used up its stack, and abort. To be called on that thread.
///
/// Where anybody else has a handler for such faults, that stays. Forks have what their original has.
pub(crate) fn tell_of_overflow() {
    let Some(top) = top_of_stack() else { return };
    TOP.store(top, Ordering::Relaxed);
    // SAFETY: null means that nothing is changed, and the kernel writes what there is to a place of its type.
    let has_room = unsafe {
        let mut there: libc::stack_t = std::mem::zeroed();
        libc::sigaltstack(std::ptr::null(), &raw mut there) == 0
            && there.ss_flags & libc::SS_DISABLE == 0
    };
    if !has_room {
        let mut room = ManuallyDrop::new(Vec::<u8>::with_capacity(ROOM));
        let room = libc::stack_t {
            ss_sp: room.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: ROOM,
        };
        // SAFETY: the memory is that long, is never given back, and nothing else uses it.
        unsafe { libc::sigaltstack(&raw const room, std::ptr::null_mut()) };
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: zeroes are a valid value. The kernel writes what is there to it, and a handler is installed
        // where there is none, which does what is allowed in one (see there).
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(signal, std::ptr::null(), &raw mut action);
            if asked == 0 && action.sa_sigaction == libc::SIG_DFL {
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                action.sa_sigaction = on_fault as *const () as usize;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// One past the highest address of the main thread's stack, on which the caller must be.
fn top_of_stack() -> Option<usize> {
    let mark = 0_u8;
    let here = (&raw const mark).addr();
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let mut lines = maps.split(|byte| *byte == b'\n');
    lines.find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        (line.ends_with("[stack]") && (start..end).contains(&here)).then_some(end)
    })
}

/// Whether the main thread's stack would have to grow beyond its limit for that address.
fn is_beyond_stack(address: usize) -> bool {
    let limit = rustix::process::getrlimit(Resource::Stack).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok());
    let end = limit.and_then(|limit| TOP.load(Ordering::Relaxed).checked_sub(limit));
    end.is_some_and(|end| (end.saturating_sub(GAP)..end).contains(&address))
}

/// The handler. It makes system calls only, and looks at numbers: what may be done wherever a thread was stopped.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *const libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands the description of a signal, which of these two signals has an address if it was the
    // kernel that sent it.
    let at = unsafe { ((*info).si_code > 0).then(|| (*info).si_addr().addr()) };
    if at.is_some_and(is_beyond_stack) {
        // SAFETY: the bytes are as many; a refusal changes nothing.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, TEXT.as_ptr().cast(), TEXT.len()) };
        std::process::abort();
    }
    // Any other fault comes again, and ends the process by its own signal.
    // SAFETY: the default runs no code. A signal that somebody sent is sent again, for when this has returned.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        if at.is_none() {
            libc::raise(signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_threads_are_not_on_the_first_one_s_stack() {
        let thread = std::thread::spawn(top_of_stack);
        assert_eq!(thread.join().unwrap(), None);
    }
}
