//! Real processes, started from a program with its own `main`.
//!
//! Every wait has a deadline and every child is reaped: the end of `main` checks it. What would disturb
//! other tests (limits, signals, descriptors, forks) runs in a child of its own, see [`isolated`].

#![allow(unsafe_code)]
#![allow(
    clippy::incompatible_msrv,
    reason = "the tests run on the newest Rust only"
)]

mod arrays;
mod builder;
mod endings;
mod faults;
mod forks;
mod handles;
mod help;
mod limits;
mod locks;
mod named;
mod orphans;
mod pool;
mod queues;
mod results;
mod strangers;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if let Some(scenario) = std::env::var_os("MULTIPROC_TEST_SCENARIO") {
        return match scenario.to_str().and_then(strangers::of) {
            Some(stranger) => strangers::play(stranger),
            None => limits::scenario(&scenario),
        };
    }
    let arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = Vec::new();
    for (module, tests) in [
        ("results", results::TESTS),
        ("endings", endings::TESTS),
        ("builder", builder::TESTS),
        ("orphans", orphans::TESTS),
        ("forks", forks::TESTS),
        ("handles", handles::TESTS),
        ("locks", locks::TESTS),
        ("arrays", arrays::TESTS),
        ("named", named::TESTS),
        ("faults", faults::TESTS),
        ("limits", limits::TESTS),
        ("pool", pool::TESTS),
        ("queues", queues::TESTS),
    ] {
        for &(name, test) in tests {
            trials.push(Trial::test(format!("{module}::{name}"), move || {
                help::with_deadline(test);
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    assert_eq!(help::own_children(), Vec::<u32>::new(), "children are left");
    conclusion.exit();
}
