//! What a child does first, and how it gets there before `main`.
//!
//! A parent executes its own image with a mark in the environment. A hook that runs before `main` looks
//! for the mark; if it is there the process is a child: it takes the mark out, so that nothing it starts
//! inherits it, reads the parent's first word, runs the function and exits. `main` never runs in it.
//! The mark names the image and this copy of the crate, so that of two copies in one program each finds
//! its own children.
//!
//! # Why this file may use `unsafe`
//!
//! It places the hook where the loader calls it, and changes the environment before there are threads.

#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::vec::IntoIter;

use super::control::{self, Body, Given, Order, Report, Start, Step};
use super::error::SpawnError;
use super::execute::IMAGE;
use super::function::{self, Answer, Call, Exchange, Function};
use super::panic::{Caught, caught, note_panics};
use super::zygote::{self, Newborn};
use super::{Me, road, set_me, task};
use crate::handle;
use crate::kin;
use crate::sys::{self, Image, Stream, Titles};

/// The variable that holds the mark.
pub(super) const MARK: &str = "MULTIPROC_CHILD";

/// A child whose function panicked exits with the code of a Rust program whose `main` panicked.
pub(super) const PANICKED: i32 = 101;
/// A child that could not begin, or could not say how it went.
const FAILED: i32 = 102;

/// What the mark says in a child of this image and this copy of the crate.
pub(super) fn mark(image: &Image) -> String {
    format!("{:016x}", image.fingerprint)
}

/// Whether `main` has called [`init`].
static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Called by the loader before `main`. Later than the numbered entries of other crates.
#[cfg(feature = "hook")]
#[used]
#[expect(
    clippy::unnecessary_safety_comment,
    reason = "the attribute is unsafe, not the static"
)]
// SAFETY: the section holds pointers to functions of this type, which the loader calls once each, on the
// only thread, with the C library set up; `hook` does not unwind into it, for it is `extern "C"`.
#[unsafe(link_section = ".init_array")]
static HOOK: Constructor = hook;

/// What the loader calls before `main`; glibc gives it what `main` is given.
#[cfg(feature = "hook")]
type Constructor = extern "C" fn(usize, usize, usize);

#[cfg(feature = "hook")]
extern "C" fn hook(count: usize, arguments: usize, environment: usize) {
    let Some(found) = std::env::var_os(MARK) else {
        return;
    };
    // Nor do the constructors run for a mark that is not obeyed: the loader runs them afterwards.
    if sys::is_privileged_start() {
        return;
    }
    let image = task::image().filter(|image| image.is_program);
    if let Some(image) = image.filter(|image| found == *mark(image)) {
        run_later_constructors(&sys::constructors(image), [count, arguments, environment]);
        serve_if_marked();
    }
}

/// Runs what the loader would run after [`HOOK`]: the program's own statics may be made there, and the loader
/// never comes to it, for `hook` does not return in a child. Which come after it, is the linker's choice.
#[cfg(feature = "hook")]
fn run_later_constructors(
    list: &std::ops::Range<usize>,
    [count, arguments, environment]: [usize; 3],
) {
    let here = (&raw const HOOK).expose_provenance();
    if !list.contains(&here) {
        return;
    }
    for at in (here..list.end).step_by(size_of::<Constructor>()).skip(1) {
        // SAFETY: the linker has put the static `HOOK` into the list of this program's constructors (just
        // checked), which is of words and reaches to the end of that range.
        let entry = unsafe { std::ptr::with_exposed_provenance::<usize>(at).read() };
        // Some linkers mark the ends of lists like this.
        if entry != 0 && entry != usize::MAX {
            let entry = std::ptr::with_exposed_provenance::<()>(entry);
            // SAFETY: what else stands in the list are functions that the loader would call in this order, on
            // this thread and with these arguments (which those that take none do not look at), and that it
            // will not call any more.
            let entry = unsafe { std::mem::transmute::<*const (), Constructor>(entry) };
            entry(count, arguments, environment);
        }
    }
}

/// Runs the work of a child, in a program whose start hook is off.
///
/// With the feature `hook`, which is on by default, it does nothing in a program that holds this crate:
/// children never come to `main`. Without it, it must be the first line of `main`; a child stays inside it
/// and exits from there.
///
/// A library that a host program loads, such as a module for Python, must call it where the host loads it.
/// A child there executes the host once more, with the same arguments, and comes to the same place; the
/// control socket is its standard input. So the host's script must come from a file, not from standard
/// input. Whoever starts a child without the hook waits until it has come here, at most 20 seconds; then it
/// is ended, and the call returns [`SpawnError::NotReady`].
///
/// In a program that has rights which its caller does not have (set-user-ID, set-group-ID, file
/// capabilities) it does nothing, and [no process can be started](crate::SpawnError::Privileged).
///
/// # Examples
///
/// ```
/// multiproc::init();
/// // What follows in `main` runs in the first process only.
/// ```
pub fn init() {
    serve_if_marked();
    INITIALISED.store(true, Ordering::Relaxed);
}

/// The image to be executed, if a child of it would find its work.
pub(super) fn ready() -> Result<&'static Image, SpawnError> {
    let image = task::image().ok_or(SpawnError::NotInitialised)?;
    // Asked each time: between real and effective IDs that differ a child would be such a program.
    if sys::is_privileged_start() {
        return Err(SpawnError::Privileged);
    }
    // Named here so that no linker drops it from a program that starts processes.
    #[cfg(feature = "hook")]
    std::hint::black_box(&HOOK);
    let hooked = is_hooked(image);
    // A mark of ours that is still there means that this is a child that has not found its work.
    let lost = std::env::var_os(MARK).is_some_and(|found| found == *mark(image));
    if lost || !(hooked || INITIALISED.load(Ordering::Relaxed)) {
        return Err(SpawnError::NotInitialised);
    }
    if let Some((loader, program)) = started_by_loader(image) {
        return Err(SpawnError::Loader {
            loader: loader.clone(),
            program: program.clone(),
        });
    }
    Ok(image)
}

/// The loader and the program, if the loader is what was executed and would be executed again.
fn started_by_loader(image: &Image) -> Option<&'static (PathBuf, PathBuf)> {
    static FOUND: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    // A library's host is what its children execute, and they come to `init` by the host's own ways.
    let look = || image.is_program.then(|| sys::loader_of(image, IMAGE))?;
    FOUND.get_or_init(look).as_ref()
}

/// Whether a child finds its work before `main`. Not in a library that is loaded later.
pub(super) fn is_hooked(image: &Image) -> bool {
    cfg!(feature = "hook") && image.is_program
}

fn serve_if_marked() {
    let Some(found) = std::env::var_os(MARK) else {
        return;
    };
    // Whoever starts a program with rights that he does not have may not choose what it runs.
    if sys::is_privileged_start() {
        return;
    }
    let Some(image) = task::image() else { return };
    if found != *mark(image) {
        return;
    }
    // SAFETY: this runs before `main` or as its first line (which `init` asks for), therefore no other
    // thread reads or writes the environment.
    unsafe { std::env::remove_var(MARK) };
    serve(image)
}

/// The lifeline, for those who speak from anywhere in the child.
static CONTROL: OnceLock<OwnedFd> = OnceLock::new();

/// The parent's number in the tree.
static PARENT: OnceLock<u32> = OnceLock::new();

fn say(report: Report, body: &[u8]) -> io::Result<()> {
    let control = CONTROL.get().ok_or(io::ErrorKind::NotConnected)?;
    control::send(control, &report.cut(), body, &[])
}

/// The whole life of a child.
fn serve(image: &Image) -> ! {
    // First of all: a zygote passes it on to its children.
    sys::tell_of_overflow();
    // The socket came as standard input. If it is none, nobody is there to be told.
    let Ok(control) = sys::take_standard_input() else {
        std::process::exit(FAILED);
    };
    let Ok(Some(first)) = control::receive::<Order>(&control, true) else {
        std::process::exit(FAILED);
    };
    let mut descriptors = first.descriptors.into_iter();
    let Some(place) = Place::take(&mut descriptors) else {
        std::process::exit(FAILED);
    };
    let prepared = match first.head {
        Order::Run(start) => {
            CONTROL.get_or_init(|| control);
            let Some(lifeline) = descriptors.next() else {
                std::process::exit(FAILED);
            };
            settle(place, lifeline, start.tied)
                .and_then(|_parent| prepare(image, start, first.body, descriptors, Titles::new()))
        }
        Order::Breed(other) if other == image.fingerprint => {
            let Newborn {
                control,
                lifeline,
                titles,
            } = zygote::breed(image, control, place.parent.as_fd());
            let control = CONTROL.get_or_init(|| control);
            settle(place, lifeline, true).and_then(|parent| {
                // What is refused here is said when it matters.
                let _ = rehearse(image);
                let (start, body, descriptors) = wait_for_order(control, &parent);
                drop(parent);
                prepare(image, start, body, descriptors, titles)
            })
        }
        Order::Breed(_) => std::process::exit(FAILED),
    };
    let (task, exchange) = match prepared {
        Ok(prepared) => prepared,
        Err((step, error)) => {
            let errno = error.raw_os_error().unwrap_or(nix::libc::EINVAL);
            // The exit says it too, only less precisely.
            let _ = say(Report::Refused(step, errno), &[]);
            std::process::exit(FAILED);
        }
    };
    let code = run(task, exchange);
    leave_to_parent();
    std::process::exit(code);
}

type Failure = (Step, io::Error);

fn at(step: Step) -> impl Fn(io::Error) -> Failure {
    move |error| (step, error)
}

/// What a child needs to find its place in the tree.
pub(super) struct Place {
    roster: OwnedFd,
    page: OwnedFd,
    parent: OwnedFd,
    inbox: OwnedFd,
}

impl Place {
    fn take(descriptors: &mut impl Iterator<Item = OwnedFd>) -> Option<Place> {
        Some(Place {
            roster: descriptors.next()?,
            page: descriptors.next()?,
            parent: descriptors.next()?,
            inbox: descriptors.next()?,
        })
    }
}

/// What every child does before it is told what for; gives the parent's descriptor back.
///
/// It makes no thread, so that the function finds itself alone whichever way the process was made, and
/// may do what the kernel allows to processes of one thread only.
fn settle(place: Place, lifeline: OwnedFd, tied: bool) -> Result<OwnedFd, Failure> {
    be_watched(&place.parent, lifeline, tied).map_err(at(Step::Watch))?;
    // In this order: one that came in the meantime is dropped, as it will be from now on.
    sys::settle_signals().map_err(at(Step::Signals))?;
    sys::unblock_signals();
    kin::adopt(place.roster, place.page).map_err(at(Step::Kin))?;
    road::take_parent(place.inbox);
    Ok(place.parent)
}

/// Ends this process when its parent does, whatever it is doing then: the kernel ends it when the parent's
/// end of a pipe is closed; and, as an extra, when the thread ends that made it.
fn be_watched(parent: &OwnedFd, lifeline: OwnedFd, tied: bool) -> io::Result<()> {
    if tied {
        sys::die_with_parent()?;
    }
    sys::die_with_pipe(lifeline.as_fd())?;
    // It may have been too late.
    if sys::is_ready(lifeline.as_fd()) || sys::is_ready(parent.as_fd()) {
        sys::kill_self();
    }
    // Open as long as this process lives.
    std::mem::forget(lifeline);
    Ok(())
}

/// What a rehearsal does.
struct Rehearsal;

impl task::Body for Rehearsal {
    type Port = Exchange;

    fn run(exchange: &mut Exchange) {
        fn call<F: Function<(), Output = ()>>(_: F, exchange: &mut Exchange) {
            Call::<F, ()>::run(exchange);
        }
        call(|| (), exchange);
    }
}

/// Goes once through what is to come, with a function that does nothing: to bring the code and the memory for
/// that into their places takes a new process longer than all the rest.
pub(super) fn rehearse(image: &Image) -> io::Result<()> {
    let task = task::name::<Rehearsal>().map_err(io::Error::other)?;
    let start = Start {
        image: image.fingerprint,
        task,
        ..Start::default()
    };
    let (parent, child) = sys::socket_pair()?;
    control::send(&parent, &Order::Run(start), &[], &[])?;
    let arrived = control::receive::<Order>(&child, false)?;
    let (Some(body), Ok(task)) = (arrived.map(|order| order.body), task::resolve(task)) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let mut exchange = Exchange {
        arguments: body.into_bytes()?,
        descriptors: Vec::new(),
        began: say_began,
        answer: Answer::None,
    };
    // It does not panic.
    let _ = panic::catch_unwind(AssertUnwindSafe(|| task(&mut exchange)));
    match exchange.answer {
        Answer::Returned(bytes, _) => control::send(&child, &Report::Returned, &bytes, &[]),
        _ => Ok(()),
    }
}

/// What a child of the zygote is to do. If it is nothing, for the parent has no more use for it or is
/// gone, it ends.
fn wait_for_order(control: &OwnedFd, parent: &OwnedFd) -> (Start, Body, IntoIter<OwnedFd>) {
    // If the wait is refused, what follows waits as well.
    let ready = sys::poll_any(&[control.as_fd(), parent.as_fd()], None);
    if !matches!(ready, Ok(Some(1))) {
        if let Ok(Some(arrived)) = control::receive::<Order>(control, true) {
            if let Order::Run(start) = arrived.head {
                return (start, arrived.body, arrived.descriptors.into_iter());
            }
        }
    }
    std::process::exit(0)
}

fn prepare(
    image: &Image,
    start: Start,
    body: Body,
    mut descriptors: IntoIter<OwnedFd>,
    titles: Option<Titles>,
) -> Result<(task::Entry<Exchange>, Exchange), Failure> {
    if start.image != image.fingerprint {
        return Err((Step::Image, io::ErrorKind::InvalidData.into()));
    }
    for (given, stream) in start
        .streams
        .iter()
        .zip([Stream::Input, Stream::Output, Stream::Error])
    {
        match given {
            Given::Already => Ok(()),
            Given::Here => sys::give_stream(stream, descriptors.next()),
            Given::Nothing => sys::give_stream(stream, None),
        }
        .map_err(at(Step::Streams))?;
    }
    if start.directory {
        let directory = descriptors.next().ok_or(io::ErrorKind::InvalidData.into());
        directory
            .and_then(sys::enter)
            .map_err(at(Step::Directory))?;
    }
    for (key, value) in &start.environment {
        let key = OsStr::from_bytes(key);
        // SAFETY: a child has no other threads before its function runs.
        unsafe {
            match value {
                Some(value) => std::env::set_var(key, OsStr::from_bytes(value)),
                None => std::env::remove_var(key),
            }
        }
    }
    PARENT.get_or_init(|| start.parent_number);
    sys::set_process_name(&start.name);
    if let Some(mut titles) = titles {
        let others: Vec<_> = std::env::args_os().skip(1).collect();
        let mut shown = vec![OsStr::new(&start.name)];
        shown.extend(others.iter().map(OsString::as_os_str));
        let environment = (!start.environment.is_empty()).then(std::env::vars_os);
        titles.show(&shown, environment);
    }
    if let Some(processors) = &start.affinity {
        sys::set_affinity(processors).map_err(at(Step::Affinity))?;
    }
    if let Some(increment) = start.nice {
        sys::add_nice(increment).map_err(at(Step::Nice))?;
    }
    set_me(Me::child(
        start.name,
        start.lineage,
        start.parent_name,
        start.parent_pid,
    ));
    note_panics(say_panicked);
    let entry =
        task::resolve(start.task).map_err(|_| (Step::Image, io::ErrorKind::InvalidData.into()))?;
    if start.say_ready {
        say(Report::Ready, &[]).map_err(at(Step::Watch))?;
    }
    let exchange = Exchange {
        arguments: body.into_bytes().map_err(at(Step::Kin))?,
        descriptors: descriptors.collect(),
        began: say_began,
        answer: Answer::None,
    };
    Ok((entry, exchange))
}

fn say_began() {
    // If the parent is gone there is nobody to be told.
    let _ = say(Report::Began, &[]);
}

/// Runs the function and tells the parent how it went; gives the exit code.
fn run(task: task::Entry<Exchange>, mut exchange: Exchange) -> i32 {
    let pid = std::process::id();
    let ended = panic::catch_unwind(AssertUnwindSafe(|| task(&mut exchange)));
    if std::process::id() != pid {
        // The function has forked and returned in the copy, which has nothing to tell.
        return 0;
    }
    let said = match (ended, exchange.answer) {
        (Err(payload), _) => {
            let Caught {
                message,
                location,
                backtrace,
            } = caught(payload);
            let report = Report::Panicked {
                message,
                location,
                backtrace,
            };
            return say(report, &[]).map_or(FAILED, |()| PANICKED);
        }
        (Ok(()), Answer::None) => Ok(()),
        (Ok(()), Answer::Failed(report)) => say(report, &[]),
        (Ok(()), Answer::Returned(bytes, passed)) => answer(&bytes, passed),
    };
    said.map_or(FAILED, |()| 0)
}

fn answer(bytes: &[u8], passed: handle::Passed) -> io::Result<()> {
    let control = CONTROL.get().ok_or(io::ErrorKind::NotConnected)?;
    let ends = passed.ends();
    if !ends.is_empty() {
        let (bytes, beside) = function::encode(&ends).map_err(io::Error::other)?;
        control::send(control, &Report::Ends, &bytes, &beside.descriptors())?;
    }
    match control::send(control, &Report::Returned, bytes, &passed.descriptors()) {
        Ok(()) => {
            if let Some(parent) = PARENT.get() {
                ends.iter().for_each(|end| end.leave_to(*parent));
            }
            passed.forget();
            Ok(())
        }
        Err(error) => say(Report::BadResult(error.to_string()), &[]),
    }
}

/// Tells of a panic that will end the process at once.
fn say_panicked(caught: Caught) {
    let Caught {
        message,
        location,
        backtrace,
    } = caught;
    let report = Report::Panicked {
        message,
        location,
        backtrace,
    };
    // The abort that follows says it too, only less precisely.
    let _ = say(report, &[]);
}

/// What this process holds for handles that are still on their way, the parent holds from now on.
fn leave_to_parent() {
    if kin::forked() {
        return;
    }
    let legacy = handle::legacy();
    if legacy.is_empty() {
        return;
    }
    let (Ok((bytes, passed)), Some(control)) = (function::encode(&legacy), CONTROL.get()) else {
        return;
    };
    // Without it, what nobody else has is lost; its receivers are told.
    let told = control::send(control, &Report::Left, &bytes, &passed.descriptors());
    if let (Ok(()), Some(parent)) = (told, PARENT.get()) {
        legacy.iter().for_each(|one| one.leave_to(*parent));
    }
}
