//! One victim for every instruction of an operation.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use multiproc::Message;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::stage::Stage;
use crate::trace::Victim;

/// One operation, on something that survivors go on with.
pub(crate) trait Case: Sized + 'static {
    /// What the victim is given.
    type Ends: Message;
    /// What it says at its end, if it comes to that.
    type Said: Message;

    /// Instructions looked at, of an operation that waits for ever.
    const AT_MOST: usize = usize::MAX;

    /// After so many instructions survivors do something.
    const MEANWHILE: usize = usize::MAX;

    /// The survivors, and the ends that the victim gets.
    fn set_up() -> (Self, Self::Ends);

    /// In the victim: what comes before the operation, the operation in [`Stage::act`], and what comes behind it.
    fn act(stage: Stage, ends: Self::Ends) -> Self::Said;

    /// What survivors do after [`MEANWHILE`](Case::MEANWHILE) instructions.
    fn meanwhile(&mut self) {}

    /// The victim is dead: shows that everything is whole. `done`: the operation had returned.
    fn prove(self, done: bool);

    /// The victim is stopped: shows that others go on, lets it go on as well, and shows that all is whole.
    ///
    /// Not for operations that wait for ever.
    fn prove_stopped(self, resume: impl FnOnce() -> Self::Said);
}

/// Operations up to this many instructions are killed at each, longer ones at those that change anything
/// shared, at their neighbours, and at so many others, evenly spread.
const SHORT: usize = 500;
const OTHERS: usize = 60;
const NEIGHBOURS: usize = 2;

/// After so many failures the others are left out.
const ENOUGH: usize = 3;

/// Whether to take every instruction of long operations too.
fn every() -> bool {
    std::env::var("STEPPER").is_ok_and(|value| value == "every")
}

/// Kills a victim after each instruction of the operation.
pub(crate) fn killed<C: Case>() {
    let plan = Plan::of::<C>();
    plan.run(|n| {
        let (case, victim) = after::<C>(n);
        let done = victim.is_done();
        victim.kill();
        case.prove(done);
    });
}

/// Stops a victim after each instruction of the operation.
pub(crate) fn stopped<C: Case>() {
    let plan = Plan::of::<C>();
    plan.run(|n| {
        let (case, victim) = after::<C>(n);
        case.prove_stopped(|| victim.release());
    });
}

/// A victim that has run so many instructions of its operation.
fn after<C: Case>(n: usize) -> (C, Victim<C::Said>) {
    let (mut case, ends) = C::set_up();
    let mut victim = Victim::start(C::act, ends);
    let before = victim.steps(n.min(C::MEANWHILE));
    if before == C::MEANWHILE {
        case.meanwhile();
        victim.steps(n - before);
    }
    (case, victim)
}

/// The instructions after which something is to happen.
struct Plan {
    length: usize,
    points: Vec<usize>,
    changes: usize,
}

impl Plan {
    /// Runs the operation once, and notes where it changes what others see.
    fn of<C: Case>() -> Plan {
        pin();
        let (mut case, mut victim) = after::<C>(0);
        let mut shared = victim.shared();
        let mut changes = Vec::new();
        let mut length = 0;
        while length < C::AT_MOST && victim.steps(1) == 1 {
            length += 1;
            if length == C::MEANWHILE {
                case.meanwhile();
            }
            if shared.has_changed() {
                changes.push(length);
            }
        }
        victim.kill();
        drop(case);
        let points = if length <= SHORT || every() {
            (0..=length).collect()
        } else {
            let near = |&at: &usize| at.saturating_sub(NEIGHBOURS + 1)..=at + NEIGHBOURS;
            let mut points: Vec<usize> = changes.iter().flat_map(near).collect();
            points.extend((0..=length).step_by(length / OTHERS));
            points.push(length);
            points.sort_unstable();
            points.dedup();
            points
        };
        Plan {
            length,
            points,
            changes: changes.len(),
        }
    }

    fn run(&self, mut one: impl FnMut(usize)) {
        let start = Instant::now();
        let mut failures = Vec::new();
        for &n in &self.points {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(n))) {
                failures.push(format!("after instruction {n}: {}", text(&*panic)));
                if failures.len() == ENOUGH {
                    break;
                }
            }
        }
        eprintln!(
            "{} of {} instructions, {} of which change shared memory, in {:.1} s",
            self.points.len(),
            self.length + 1,
            self.changes,
            start.elapsed().as_secs_f64()
        );
        assert!(
            failures.is_empty(),
            "of {} instructions\n{}",
            self.length,
            failures.join("\n")
        );
    }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default()
}

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

/// Keeps this thread, and so its victims, on one processor: a step is twice as fast there.
fn pin() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let allowed = sched_getaffinity(None).unwrap();
    let all: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&cpu| allowed.is_set(cpu))
        .collect();
    let cpu = all[NEXT.fetch_add(1, Ordering::Relaxed) % all.len()];
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).unwrap();
    CPU.set(cpu);
}

/// The processor of this thread and its victims.
pub(crate) fn own_cpu() -> usize {
    CPU.get()
}
