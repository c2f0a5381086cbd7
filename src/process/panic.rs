//! What a child keeps of a panic until its parent is told: message, place and backtrace.
//!
//! Place and backtrace are known to panic hooks alone. So a hook of this crate stands first in every child and passes
//! on to the one that was there: that of a constructor of the program, or the standard library's, in whose place it
//! prints the usual lines with the process's name. A hook that the program sets in the child, in an initializer say,
//! takes the first place, also when it does not pass on to the one before: then [`keep_noting`] puts itself before
//! that one too. The parent's own hook is not inherited: it lies in the parent's memory, and no process is copied
//! from that.

use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

type Hook = Box<dyn Fn(&PanicHookInfo<'_>) + Send + Sync>;

/// What is told of a panic.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) message: String,
    pub(crate) location: String,
    pub(crate) backtrace: String,
}

struct Panic {
    message: String,
    location: String,
    backtrace: Option<Backtrace>,
}

impl Panic {
    fn caught(self) -> Caught {
        Caught {
            message: self.message,
            location: self.location,
            backtrace: self
                .backtrace
                .map_or_else(String::new, |trace| trace.to_string()),
        }
    }
}

thread_local! {
    static LAST_PANIC: RefCell<Option<Panic>> = const { RefCell::new(None) };
    /// A hook of this crate is at work further up.
    static NOTED: Cell<bool> = const { Cell::new(false) };
}

/// Address of the hook that this crate has set last, which owns memory: no other hook has it meanwhile.
static OURS: AtomicUsize = AtomicUsize::new(0);
/// Tells the parent of a panic that will end the process at once.
static TELL: OnceLock<fn(Caught)> = OnceLock::new();
/// `RUST_BACKTRACE` is 0, which asks for none.
static WITHOUT_TRACES: AtomicBool = AtomicBool::new(false);

/// Notes panics from now on: to be called once, when the child has its environment. `tell` tells the parent of one
/// that ends the process at once.
pub(super) fn note_panics(tell: fn(Caught)) {
    TELL.get_or_init(|| tell);
    let asked =
        std::env::var_os("RUST_LIB_BACKTRACE").or_else(|| std::env::var_os("RUST_BACKTRACE"));
    WITHOUT_TRACES.store(asked.is_some_and(|asked| asked == "0"), Ordering::Relaxed);
    let hook = panic::take_hook();
    // Now it is the standard library's, which the first one is too unless a constructor has set another: both are
    // made in one place there, and of no size, so that their pointers say whether they are of one type.
    let usual = panic::take_hook();
    let is_usual = std::ptr::eq(&raw const *hook, &raw const *usual);
    pass_on_to((!is_usual).then_some(hook));
}

/// Notes panics also when the program has set a hook of its own since.
pub(crate) fn keep_noting() {
    let hook = panic::take_hook();
    if address(&hook) == OURS.load(Ordering::Relaxed) {
        panic::set_hook(hook);
    } else {
        pass_on_to(Some(hook));
    }
}

fn address(hook: &Hook) -> usize {
    (&raw const **hook).cast::<()>().addr()
}

/// Sets a hook that notes the panic and passes on; to nobody, it prints what the standard library's would.
fn pass_on_to(next: Option<Hook>) {
    let hook: Hook = Box::new(move |info| {
        let is_noted = NOTED.try_with(|noted| noted.replace(true)).unwrap_or(true);
        if !is_noted {
            note(info);
        }
        match &next {
            Some(next) => next(info),
            None => print(info),
        }
        if !is_noted {
            let _ = NOTED.try_with(|noted| noted.set(false));
            if cfg!(panic = "abort") {
                let last = LAST_PANIC.with_borrow_mut(Option::take);
                if let (Some(last), Some(tell)) = (last, TELL.get()) {
                    tell(last.caught());
                }
            }
        }
    });
    OURS.store(address(&hook), Ordering::Relaxed);
    panic::set_hook(hook);
}

fn note(info: &PanicHookInfo<'_>) {
    // The names are looked up when it is told, if it is.
    let backtrace = (!WITHOUT_TRACES.load(Ordering::Relaxed)).then(Backtrace::force_capture);
    LAST_PANIC.set(Some(Panic {
        message: text(info.payload()),
        location: info.location().map(ToString::to_string).unwrap_or_default(),
        backtrace,
    }));
}

/// Prints the usual lines, with the process's name.
fn print(info: &PanicHookInfo<'_>) {
    let message = text(info.payload());
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let process = super::current_process();
    let current = thread::current();
    let shown = match current.name() {
        Some(name) => format!(", thread '{name}'"),
        None => String::new(),
    };
    let backtrace = Backtrace::capture();
    let shown_trace = match backtrace.status() {
        std::backtrace::BacktraceStatus::Captured => format!("stack backtrace:\n{backtrace}"),
        _ => {
            "note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n".into()
        }
    };
    eprint!(
        "process '{}'{shown} panicked at {location}:\n{message}\n{shown_trace}",
        process.name()
    );
}

/// What is known of a panic that was caught on this thread just now; location and backtrace only in a child.
pub(crate) fn caught(payload: Box<dyn std::any::Any + Send>) -> Caught {
    let last = LAST_PANIC.with_borrow_mut(Option::take);
    let message = text(&*payload);
    // A payload may panic in its turn when it is dropped; then it stays.
    if let Err(another) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(another);
    }
    match last {
        Some(last) if last.message == message => last.caught(),
        _ => {
            // The program has set another hook; or this panic came with none (`resume_unwind`).
            keep_noting();
            Caught {
                message,
                location: String::new(),
                backtrace: String::new(),
            }
        }
    }
}

/// The text of a panic; its payload may be anything.
fn text(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "the panic's payload is not text".to_string()
    }
}
