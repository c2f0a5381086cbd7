//! A function as a value: what a program calls by a name that travels.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

use super::function::Function;
use super::task::{self, Body, Task, TaskError, TaskName};

/// A function as a value: `Copy`, comparable, and sent to other processes of this program like any other value.
///
/// `A` is the tuple of its arguments, at most eight, and `R` what it returns. It is made of any `fn` item and of any
/// closure that captures nothing, so queues of jobs, tables of handlers and decorators (timing, retries, spans) hold
/// and send functions as they do numbers.
///
/// Whatever takes a [`Function`] calls it by [`Func::call`], which is a function of two arguments:
/// `pool.apply(Func::call, (func, arguments))`, `pool.starmap(Func::call, pairs)`, `Process::spawn(Func::call, ..)`.
///
/// # In other processes
///
/// It travels in every message, and in every other format of serde, as the place of the function in this program's
/// image. It means something in copies of the same build of the program alone: anybody else who decodes it gets an
/// error. Nothing that bytes say is called before it is certain that they name a function of this program with
/// exactly these arguments and this result; so whoever forges one can choose among those, and no more.
///
/// # Captured values
///
/// A closure that captures values of no size counts as one that captures nothing, and whoever calls it makes those
/// values out of nothing: see [`Function`](Function#captured-values). A token is safe from that if it is not `Copy`:
///
/// ```compile_fail
/// struct SetUp; // Its existence says that something was set up.
///
/// let token = SetUp;
/// multiproc::Func::of(move |x: u64| {
///     let _proof = &token;
///     x
/// });
/// ```
///
/// # Equality
///
/// Two are equal if they are of the same `fn` item (with the same generic parameters) or of the same closure in the
/// source, wherever they came from. Functions that do the same are different.
///
/// # Examples
///
/// ```
/// use multiproc::{Func, Pool};
///
/// fn double(x: u64) -> u64 {
///     2 * x
/// }
///
/// let jobs = [Func::of(double), Func::of(|x: u64| x + 1)];
/// let pool = Pool::new(2)?;
/// let results = pool.starmap(Func::call, jobs.map(|job| (job, (20,))))?;
/// assert_eq!(results, [40, 21]);
/// assert_eq!(jobs[0], Func::of(double));
/// assert_ne!(jobs[0], jobs[1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A decorator is a function that takes one:
///
/// ```
/// use multiproc::{Func, Process};
/// use std::time::{Duration, Instant};
///
/// fn timed(func: Func<(u64,), u64>, x: u64) -> (u64, Duration) {
///     let begun = Instant::now();
///     (func.call((x,)), begun.elapsed())
/// }
///
/// let square = Func::of(|x: u64| x * x);
/// let (result, _) = Process::spawn(timed, (square, 12))?.join()?;
/// assert_eq!(result, 144);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Func<A: 'static, R: 'static>(&'static Task<Slot<A, R>>);

/// What a call is made with, and what comes of it: without arguments, the function's name.
struct Slot<A, R> {
    arguments: Option<A>,
    result: Option<R>,
    name: &'static str,
}

/// A call of `F`.
struct Invoke<F, A>(PhantomData<fn(A) -> F>);

impl<F, A> Body for Invoke<F, A>
where
    F: Function<A, Output: 'static>,
    A: 'static,
{
    type Port = Slot<A, F::Output>;

    fn run(slot: &mut Slot<A, F::Output>) {
        match slot.arguments.take() {
            Some(arguments) => slot.result = Some(task::function::<F>().call(arguments)),
            None => slot.name = std::any::type_name::<F>(),
        }
    }
}

impl<A, R> Func<A, R> {
    /// The value of a function.
    #[doc(alias = "new")]
    pub fn of<F: Function<A, Output = R>>(_: F) -> Func<A, R> {
        Func(task::of::<Invoke<F, A>>())
    }

    /// Calls it, here and now.
    ///
    /// # Panics
    ///
    /// If the function does.
    pub fn call(self, arguments: A) -> R {
        let mut slot = Slot {
            arguments: Some(arguments),
            result: None,
            name: "",
        };
        self.0.run(&mut slot);
        match slot.result {
            Some(result) => result,
            None => unreachable!("who is given arguments leaves a result"),
        }
    }

    /// The name of the function, for people: that of a closure is that of where it stands.
    pub fn name(&self) -> &'static str {
        let mut slot = Slot {
            arguments: None,
            result: None,
            name: "",
        };
        self.0.run(&mut slot);
        slot.name
    }
}

macro_rules! from_functions {
    ($($argument:ident)*) => {
        impl<F, R, $($argument),*> From<F> for Func<($($argument,)*), R>
        where
            F: Fn($($argument),*) -> R + Copy + Send + Sync + 'static,
        {
            fn from(function: F) -> Self {
                Func::of(function)
            }
        }
    };
}

from_functions!();
from_functions!(A);
from_functions!(A B);
from_functions!(A B C);
from_functions!(A B C D);
from_functions!(A B C D E);
from_functions!(A B C D E G);
from_functions!(A B C D E G H);
from_functions!(A B C D E G H I);

impl<A, R> Clone for Func<A, R> {
    fn clone(&self) -> Func<A, R> {
        *self
    }
}

impl<A, R> Copy for Func<A, R> {}

impl<A, R> PartialEq for Func<A, R> {
    fn eq(&self, other: &Func<A, R>) -> bool {
        self.0.body() == other.0.body()
    }
}

impl<A, R> Eq for Func<A, R> {}

impl<A, R> Hash for Func<A, R> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.body().hash(state);
    }
}

impl<A, R> fmt::Debug for Func<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Func({})", self.name())
    }
}

/// As it travels.
#[derive(Serialize, Deserialize)]
struct Wire {
    /// The build of the program: in another one, something else may stand at that place.
    image: u64,
    task: TaskName,
}

fn image() -> Option<u64> {
    task::image().map(|image| image.fingerprint)
}

impl<A, R> Serialize for Func<A, R> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let task = self.0.name().map_err(ser::Error::custom)?;
        let image = image().ok_or_else(|| ser::Error::custom(TaskError::Foreign))?;
        Wire { image, task }.serialize(serializer)
    }
}

impl<'de, A, R> Deserialize<'de> for Func<A, R> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Func<A, R>, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        if image() != Some(wire.image) {
            return Err(de::Error::custom(
                "it names a function of another program, or of another build of this one: a `Func` can be read only \
                 by copies of the program that made it",
            ));
        }
        task::find(wire.task).map(Func).map_err(|_| {
            de::Error::custom(format_args!(
                "it names no function of this program that takes `{}` and returns `{}`",
                std::any::type_name::<A>(),
                std::any::type_name::<R>(),
            ))
        })
    }
}
