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
mod carriers;
mod copies;
mod costs;
mod endings;
mod ends;
mod families;
mod faults;
#[path = "../fork_advice/mod.rs"]
mod fork_advice;
mod forks;
mod handles;
mod help;
mod hostile;
mod hosts;
mod limits;
mod locks;
mod named;
mod orphans;
mod parity;
mod places;
mod poison;
mod pool;
mod pool_faults;
mod pool_service;
mod privilege;
mod queues;
mod results;
mod road;
mod seccomp;
mod starts;
mod strangers;
mod surroundings;
mod waiting;
mod zygote;

use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Trial};

/// Modules whose processes are made in both ways, one after the other.
const BOTH_WAYS: &[(&str, &[help::Test])] = &[
    ("results", results::TESTS),
    ("endings", endings::TESTS),
    ("builder", builder::TESTS),
    ("orphans", orphans::TESTS),
    ("forks", forks::TESTS),
    ("handles", handles::TESTS),
    ("ends", ends::TESTS),
    ("hostile", hostile::TESTS),
    ("families", families::TESTS),
];

/// Modules whose processes are made as they are when nothing is said, or as their tests say.
const ONCE: &[(&str, &[help::Test])] = &[
    ("zygote", zygote::TESTS),
    ("copies", copies::TESTS),
    ("locks", locks::TESTS),
    ("carriers", carriers::TESTS),
    ("road", road::TESTS),
    ("arrays", arrays::TESTS),
    ("named", named::TESTS),
    ("faults", faults::TESTS),
    ("limits", limits::TESTS),
    ("pool", pool::TESTS),
    ("pool_faults", pool_faults::TESTS),
    ("pool_service", pool_service::TESTS),
    ("parity", parity::TESTS),
    ("queues", queues::TESTS),
    ("poison", poison::TESTS),
    ("costs", costs::TESTS),
    ("surroundings", surroundings::TESTS),
    ("waiting", waiting::TESTS),
    ("privilege", privilege::TESTS),
    ("starts", starts::TESTS),
    ("hosts", hosts::TESTS),
    ("places", places::TESTS),
];

fn main() -> ExitCode {
    if let Some(scenario) = std::env::var_os("MULTIPROC_TEST_SCENARIO") {
        if scenario == "every place taken" {
            hostile::every_place_taken();
            return ExitCode::SUCCESS;
        }
        match scenario.to_str().and_then(strangers::of) {
            Some(stranger) => strangers::play(stranger),
            None => limits::scenario(&scenario),
        }
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::from_args();
    if std::env::var_os(help::METHOD).is_some() {
        return run(&arguments, BOTH_WAYS);
    }
    let mut all_passed = run(&arguments, ONCE) == ExitCode::SUCCESS;
    for method in ["zygote", "exec"] {
        // A list of the tests names each once.
        if !arguments.list || method == "zygote" {
            let run = Command::new("/proc/self/exe")
                .args(std::env::args_os().skip(1))
                .env(help::METHOD, method)
                .status();
            all_passed &= run.unwrap().success();
        }
    }
    match all_passed {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn run(arguments: &Arguments, modules: &[(&str, &'static [help::Test])]) -> ExitCode {
    let mut trials: Vec<Trial> = Vec::new();
    for (module, tests) in modules {
        for &(name, test) in *tests {
            trials.push(Trial::test(format!("{module}::{name}"), move || {
                help::with_deadline(test);
                Ok(())
            }));
        }
    }
    let conclusion = libtest_mimic::run(arguments, trials);
    assert_eq!(help::own_children(), Vec::<u32>::new(), "children are left");
    conclusion.exit_code()
}
