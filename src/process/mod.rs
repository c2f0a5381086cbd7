//! Processes that run a function of this program.

mod boot;
mod builder;
mod child;
mod control;
mod credentials;
mod error;
mod execute;
mod func;
mod function;
mod keeper;
mod panic;
mod reaper;
mod road;
mod settings;
mod start;
pub(crate) mod task;
mod tree;
mod zygote;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

pub use boot::init;
pub use builder::ProcessBuilder;
pub use child::{Child, Output, wait_any};
pub(crate) use error::at;
pub use error::{JoinError, SpawnError};
pub use func::Func;
pub use function::{ContextFunction, Function, MapFunction};
pub use keeper::end_zygote;
pub(crate) use panic::{caught, keep_noting};
pub use settings::{StartMethod, Stdio};

use crate::message::Message;

/// A process of this program: its name and number. Here also begins every new one.
///
/// A new process runs a function of the program, with arguments that travel as
/// [messages](crate::Message), and gives back what the function returns. It begins in the state that the
/// program has before `main`, not as a fork of its parent: a program with threads may start processes at
/// any time. How it is made, says [`StartMethod`]. `main` does not run in it, and nothing needs to be
/// registered; it works from binaries, examples, tests and libraries.
///
/// # If a process dies
///
/// When a parent ends, in whatever way, its children end within a second, and their children. A child's
/// death is known to its parent at once: [`Child::join`] says how it came.
///
/// # Examples
///
/// ```
/// use multiproc::Process;
///
/// fn add(a: u64, b: u64) -> u64 {
///     a + b
/// }
///
/// let child = Process::spawn(add, (1, 2))?;
/// assert_eq!(child.join()?, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// A closure may be given if it captures nothing; what it needs is an argument.
///
/// ```compile_fail
/// let limit = 3_u64;
/// multiproc::Process::spawn(move |n: u64| n < limit, (5,));
/// ```
///
/// ```
/// let child = multiproc::Process::spawn(|n: u64, limit: u64| n < limit, (5, 3))?;
/// assert!(!child.join()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    name: Arc<str>,
    pid: u32,
}

impl Process {
    /// Starts a process that runs `function` with a tuple of `arguments`, and ends.
    ///
    /// What the function returns is what [`Child::join`] gives. The child has its own copy of everything:
    /// statics are as they are before `main`, and threads of the parent do not run in it. SIGINT does nothing
    /// in it, so that the parent decides what Ctrl-C means; programs that it executes are ended by that as
    /// usual. All else is as in a program that the calling thread has just started by
    /// [`std::process::Command`]: users, capabilities, seccomp filters, namespaces, affinity, priority, limits,
    /// ignored signals and so on are those of the calling thread.
    ///
    /// # Errors
    ///
    /// [`SpawnError`]; nothing of the process is left then.
    #[doc(alias = "start")]
    pub fn spawn<F, A>(function: F, arguments: A) -> Result<Child<F::Output>, SpawnError>
    where
        F: Function<A>,
        A: Message,
        F::Output: Message,
    {
        task::refuse_captures!(F);
        Process::builder().spawn(function, arguments)
    }

    /// A process to be, with a name, an environment, standard streams and so on of its own.
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::default()
    }

    /// Its name: `MainProcess` for the first one, `Process-1` and so on unless another was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its number, as the system counts.
    #[doc(alias = "ident")]
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

/// The process that calls.
///
/// # Examples
///
/// ```
/// assert_eq!(multiproc::current_process().name(), "MainProcess");
/// ```
pub fn current_process() -> Process {
    Process {
        name: Arc::clone(&me().name),
        pid: std::process::id(),
    }
}

/// The process that started this one with [`Process::spawn`]; `None` in the first.
pub fn parent_process() -> Option<Process> {
    me().parent.clone()
}

/// The children of this process that live. Any of them may have ended when this returns; none that has
/// been [joined](Child::join) is among them.
pub fn active_children() -> Vec<Process> {
    if crate::kin::forked() {
        return Vec::new();
    }
    reaper::living()
        .into_iter()
        .filter(|record| !crate::sys::is_ready(record.process()))
        .map(|record| Process {
            name: record.name().into(),
            pid: record.pid,
        })
        .collect()
}

/// What a process knows of itself.
#[derive(Debug)]
struct Me {
    name: Arc<str>,
    lineage: Vec<u32>,
    children: AtomicU32,
    parent: Option<Process>,
}

static ME: OnceLock<Me> = OnceLock::new();

fn me() -> &'static Me {
    ME.get_or_init(|| Me {
        name: "MainProcess".into(),
        lineage: Vec::new(),
        children: AtomicU32::new(0),
        parent: None,
    })
}

/// Tells a child who it is, before anybody asks.
fn set_me(me: Me) {
    // Set once, at boot.
    let _ = ME.set(me);
}

impl Me {
    fn child(name: String, lineage: Vec<u32>, parent_name: String, parent_pid: u32) -> Me {
        Me {
            name: name.into(),
            lineage,
            children: AtomicU32::new(0),
            parent: Some(Process {
                name: parent_name.into(),
                pid: parent_pid,
            }),
        }
    }

    /// The numbers of a new child: mine, and how many children came before it, plus one.
    fn next_child(&self) -> Vec<u32> {
        let number = self
            .children
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(1);
        let mut lineage = self.lineage.clone();
        lineage.push(number);
        lineage
    }
}

/// For fuzz targets: what a child (or a parent) makes of the next message of its socket; `None` at its end.
#[cfg(fuzzing)]
pub(crate) fn listen(socket: &std::os::fd::OwnedFd, child: bool) -> std::io::Result<Option<()>> {
    let body = if child {
        control::receive::<control::Start>(socket, false)?.map(|message| message.body)
    } else {
        control::receive::<control::Report>(socket, false)?.map(|message| message.body)
    };
    body.map(|body| body.into_bytes().map(drop)).transpose()
}
