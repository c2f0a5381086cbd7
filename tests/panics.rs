//! Panics in children: place and backtrace come to the parent, and the program's own hooks are called, whoever set them.

#![cfg(not(loom))]
#![allow(unsafe_code)]

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use multiproc::{JoinError, Pool, PoolBuilder, Process, StartMethod, TaskError};

/// Panics that a hook of this program was told of.
static TOLD: AtomicU32 = AtomicU32::new(0);

/// The same, of the hook that was set before `main`.
static TOLD_FIRST: AtomicU32 = AtomicU32::new(0);

/// Called by the loader before `main`, in every process of this program.
#[used]
#[expect(
    clippy::unnecessary_safety_comment,
    reason = "the attribute is unsafe, not the static"
)]
// SAFETY: the section holds pointers to functions of this type, which the loader calls once each; it does not unwind.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;

extern "C" fn constructor() {
    // In children alone: the tests' own panics are the first process's.
    if std::env::var_os("MULTIPROC_CHILD").is_some() {
        panic::set_hook(Box::new(|_| _ = TOLD_FIRST.fetch_add(1, Relaxed)));
    }
}

fn breaks(n: u32) -> u32 {
    assert!(n != 3, "{n} is bad");
    TOLD.load(Relaxed)
}

fn quiet() -> PoolBuilder {
    Pool::builder().workers(1)
}

/// Message, place and backtrace of a panic in a pool; and how often hooks of the program were called in the worker.
fn panics_in(pool: &Pool) -> (String, String, String, u32) {
    match pool.apply(breaks, (3,)) {
        Err(TaskError::Panicked {
            message,
            location,
            backtrace,
            ..
        }) => (
            message,
            location,
            backtrace,
            pool.apply(breaks, (0,)).unwrap(),
        ),
        other => panic!("{other:?}"),
    }
}

fn is_whole(location: &str, backtrace: &str) {
    assert!(location.contains("panics.rs:"), "{location}");
    assert!(backtrace.contains("breaks"), "{backtrace}");
}

#[test]
fn a_hook_of_the_initializer_is_called_and_hides_nothing() {
    let replaces = || panic::set_hook(Box::new(|_| _ = TOLD.fetch_add(1, Relaxed)));
    let pool = quiet()
        .env("RUST_BACKTRACE", "1")
        .initializer(replaces, ())
        .build()
        .unwrap();
    for round in 1..=3 {
        let (message, location, backtrace, told) = panics_in(&pool);
        assert_eq!((message.as_str(), told), ("3 is bad", round));
        is_whole(&location, &backtrace);
    }
}

#[test]
fn a_hook_that_passes_on_is_called_once() {
    let passes_on = || {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            TOLD.fetch_add(1, Relaxed);
            before(info);
        }));
    };
    let pool = quiet().initializer(passes_on, ()).build().unwrap();
    for round in 1..=2 {
        let (_, location, _, told) = panics_in(&pool);
        assert_eq!(told, round);
        assert!(location.contains("panics.rs:"), "{location}");
    }
}

/// Nobody is told of the moment at which a task sets a hook: the first panic behind it is without its place.
#[test]
fn a_hook_of_a_task_is_seen_by_the_second_panic() {
    let pool = quiet().env("RUST_BACKTRACE", "1").build().unwrap();
    let replaces = || panic::set_hook(Box::new(|_| _ = TOLD.fetch_add(1, Relaxed)));
    pool.apply(replaces, ()).unwrap();
    let (message, ..) = panics_in(&pool);
    assert_eq!(message, "3 is bad");
    let (_, location, backtrace, told) = panics_in(&pool);
    is_whole(&location, &backtrace);
    assert_eq!(told, 2);
}

#[test]
fn a_hook_that_was_set_before_main_is_called() {
    for method in [StartMethod::Exec, StartMethod::Zygote] {
        let pool = quiet()
            .env("RUST_BACKTRACE", "1")
            .start_method(method)
            .build()
            .unwrap();
        for round in 1..=2 {
            let (_, location, backtrace, _) = panics_in(&pool);
            is_whole(&location, &backtrace);
            assert_eq!(pool.apply(|| TOLD_FIRST.load(Relaxed), ()).unwrap(), round);
        }
    }
}

#[test]
fn without_backtraces_none_is_taken() {
    let pool = quiet().env("RUST_BACKTRACE", "0").build().unwrap();
    let (_, location, backtrace, _) = panics_in(&pool);
    assert!(location.contains("panics.rs:"), "{location}");
    assert_eq!(backtrace, "");
    let child = Process::builder()
        .env("RUST_BACKTRACE", "0")
        .spawn(breaks, (3,))
        .unwrap();
    match child.join() {
        Err(JoinError::Panicked {
            location,
            backtrace,
            ..
        }) => {
            assert!(location.contains("panics.rs:"), "{location}");
            assert_eq!(backtrace, "");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_that_is_caught_inside_is_not_told_for_another() {
    let pool = quiet().build().unwrap();
    let caught = |n: u32| {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| breaks(3)));
        assert!(caught.is_err());
        assert!(n != 4, "another");
    };
    match pool.apply(caught, (4,)) {
        Err(TaskError::Panicked {
            message, location, ..
        }) => {
            assert_eq!(message, "another");
            assert!(location.contains("panics.rs:"), "{location}");
        }
        other => panic!("{other:?}"),
    }
}
