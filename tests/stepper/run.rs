//! One victim for every instruction of an operation.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use nix::unistd::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::trace::{Shared, Victim, Who};

/// One operation, on something that survivors go on with.
pub(crate) trait Case: Sized + 'static {
    /// Who the victim is.
    type Who: Who;

    /// Instructions looked at, of an operation that waits for ever.
    const AT_MOST: usize = usize::MAX;

    /// After so many instructions survivors do something.
    const MEANWHILE: usize = usize::MAX;

    /// The survivors, and the victim right before its operation.
    fn set_up() -> (Self, Victim<Self::Who>);

    /// What survivors do after [`MEANWHILE`](Case::MEANWHILE) instructions.
    fn meanwhile(&mut self) {}

    /// The victim is dead: shows that everything is whole. `done`: the operation had returned.
    fn prove(self, done: bool);

    /// The victim is stopped: shows that others go on, lets it go on as well, and shows that all is whole.
    ///
    /// Not for operations that wait for ever.
    fn prove_stopped(self, resume: impl FnOnce() -> <Self::Who as Who>::Said);
}

/// Operations up to this many instructions are killed after each, longer ones after so many, evenly spread; and
/// all right after each change of shared memory, and so many instructions behind it.
const SHORT: usize = 500;
const SPREAD: usize = if cfg!(debug_assertions) { 3 } else { 12 };
/// Of more changes than this, as when a large message is copied, so many are taken, evenly spread, and the last ones.
const CHANGES: usize = 25;
const BEHIND: usize = 2;

/// A debug build takes many times as many instructions for the same: so many times as many are looked at there of an
/// operation that waits, but no more than a quarter of [`Case::AT_MOST`] behind its first change of shared memory,
/// with which it says that it sleeps.
const DEBUG: usize = 16;

/// After so many failures the others are left out.
const ENOUGH: usize = 3;

/// Whether to take every instruction of long operations too.
fn every() -> bool {
    std::env::var("STEPPER").is_ok_and(|value| value == "every")
}

/// Kills a victim after each instruction of the operation.
pub(crate) fn killed<C: Case>() {
    let plan = Plan::of::<C>();
    plan.run(|point| {
        let (case, victim) = after::<C>(point);
        let done = victim.is_done();
        victim.kill();
        case.prove(done);
    });
}

/// Stops a victim after each instruction of the operation.
pub(crate) fn stopped<C: Case>() {
    let plan = Plan::of::<C>();
    plan.run(|point| {
        let (case, victim) = after::<C>(point);
        case.prove_stopped(|| victim.release());
    });
}

/// A moment of an operation.
#[derive(Debug, Clone, Copy)]
enum Point {
    /// After so many instructions.
    Instruction(usize),
    /// So many instructions after the change of shared memory with that number: this is found again also when
    /// an operation takes another number of instructions each time, as one that reads the clock does.
    Behind { change: usize, instructions: usize },
}

/// A victim at some moment of its operation.
fn after<C: Case>(point: Point) -> (C, Victim<C::Who>) {
    let mut steps = Steps::<C>::start(matches!(point, Point::Behind { .. }));
    match point {
        Point::Instruction(count) => while steps.count < count && steps.step() {},
        Point::Behind {
            change,
            instructions,
        } => {
            while steps.changes < change && steps.step() {}
            let end = steps.count + instructions;
            while steps.count < end && steps.step() {}
        }
    }
    (steps.case, steps.victim)
}

/// An operation, step by step.
struct Steps<C: Case> {
    case: C,
    victim: Victim<C::Who>,
    /// Looked at only if changes are counted.
    shared: Option<Shared>,
    count: usize,
    changes: usize,
}

impl<C: Case> Steps<C> {
    const AT_MOST: usize = match cfg!(debug_assertions) {
        true => C::AT_MOST.saturating_mul(DEBUG),
        false => C::AT_MOST,
    };

    fn start(counts_changes: bool) -> Steps<C> {
        let (case, victim) = C::set_up();
        let shared = counts_changes.then(|| victim.shared());
        let mut steps = Steps {
            case,
            victim,
            shared,
            count: 0,
            changes: 0,
        };
        steps.meanwhile();
        steps
    }

    fn meanwhile(&mut self) {
        if self.count == C::MEANWHILE {
            self.case.meanwhile();
            // What survivors change is not counted.
            self.shared.as_mut().map(Shared::has_changed);
        }
    }

    /// Runs one instruction; false if the operation has returned.
    fn step(&mut self) -> bool {
        if self.count == Self::AT_MOST || self.victim.steps(1) == 0 {
            return false;
        }
        self.count += 1;
        if self.shared.as_mut().is_some_and(Shared::has_changed) {
            self.changes += 1;
        }
        self.meanwhile();
        true
    }
}

/// The moments at which something is to happen.
struct Plan {
    length: usize,
    changes: usize,
    points: Vec<Point>,
}

impl Plan {
    /// Runs the operation once, and notes where it changes what others see.
    fn of<C: Case>() -> Plan {
        pin();
        let mut steps = Steps::<C>::start(true);
        let mut told = None;
        while steps.step() {
            if steps.changes > 0 {
                let told = *told.get_or_insert(steps.count);
                let waits = C::AT_MOST != usize::MAX;
                if cfg!(debug_assertions) && waits && steps.count - told >= C::AT_MOST / 4 {
                    break;
                }
            }
        }
        let Steps {
            count: length,
            changes,
            victim,
            ..
        } = steps;
        victim.kill();
        assert!(
            C::AT_MOST == usize::MAX || changes > 0,
            "in {length} instructions it has told nobody that it sleeps"
        );
        let every = length <= SHORT || self::every();
        let step = if every { 1 } else { length / SPREAD };
        let (stride, last) = match every || changes <= CHANGES {
            true => (1, 0),
            false => (changes / CHANGES, changes - CHANGES / 4),
        };
        let taken = (1..=changes).filter(|change| change % stride == 0 || *change > last);
        let behind = taken.flat_map(|change| {
            (0..=BEHIND).map(move |instructions| Point::Behind {
                change,
                instructions,
            })
        });
        let points = (0..length)
            .step_by(step)
            .chain([length])
            .map(Point::Instruction)
            .chain(behind)
            .collect();
        Plan {
            length,
            changes,
            points,
        }
    }

    fn run(&self, mut one: impl FnMut(Point)) {
        let start = Instant::now();
        let mut failures = Vec::new();
        for &point in &self.points {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| one(point))) {
                failures.push(format!("{point:?}: {}", text(&*panic)));
                if failures.len() == ENOUGH {
                    break;
                }
            }
        }
        eprintln!(
            "at {} moments of {} instructions, {} of which change shared memory, in {:.1} s",
            self.points.len(),
            self.length,
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

/// Has a victim run on the processor of this thread.
pub(crate) fn to_own_cpu(victim: Pid) {
    let mut one = CpuSet::new();
    one.set(CPU.get());
    let victim = rustix::process::Pid::from_raw(victim.as_raw());
    sched_setaffinity(victim, &one).unwrap();
}
