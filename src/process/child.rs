//! A running child, as its parent holds it.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::process::{ChildStderr, ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::{Arrived, Report};
use super::error::JoinError;
use super::execute::end_now;
use super::reaper::Record;
use super::start::{Pipes, refusal};
use super::tree;
use crate::handle::{self, Passed};
use crate::kin;
use crate::message::{self, Message};
use crate::sys::{self, Ended};

/// A process started here, whose function returns `R`.
///
/// Dropped, it is killed and reaped; [`detach`](Child::detach) lets it go on. All methods may be called
/// from any thread.
///
/// As a descriptor ([`as_fd`](Child::as_fd)) it becomes readable when the process has ended, so it can be
/// waited for together with sockets and files.
#[must_use = "a dropped child is killed: join or detach it"]
pub struct Child<R> {
    record: Arc<Record>,
    pipes: Mutex<Pipes>,
    taken: AtomicBool,
    detached: bool,
    result: PhantomData<fn() -> R>,
}

impl<R> std::fmt::Debug for Child<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.record.fmt(f)
    }
}

impl<R> Child<R> {
    pub(super) fn new(record: Arc<Record>, pipes: Pipes) -> Child<R> {
        Child {
            record,
            pipes: Mutex::new(pipes),
            taken: AtomicBool::new(false),
            detached: false,
            result: PhantomData,
        }
    }

    /// Its number, as the system counts.
    #[doc(alias = "ident")]
    pub fn pid(&self) -> u32 {
        self.record.pid
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.record.name()
    }

    /// Whether it has not ended. A living process may end at once; an ended one stays so.
    pub fn is_alive(&self) -> bool {
        self.record.how().is_none() && !sys::is_ready(self.record.process())
    }

    /// Asks it to end, with SIGTERM. Its children end with it.
    ///
    /// # Errors
    ///
    /// What the system said; none if it has ended.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(nix::libc::SIGTERM)
    }

    /// Ends it, with SIGKILL. Its children end with it, within a second.
    ///
    /// # Errors
    ///
    /// What the system said; none if it has ended.
    pub fn kill(&self) -> io::Result<()> {
        self.signal(nix::libc::SIGKILL)
    }

    /// Sends it a signal, by number.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is no such signal; what the system said; none if the process has ended.
    #[doc(alias = "interrupt")]
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        sys::send_signal(self.record.process(), signal)
    }

    /// Ends it and everything it has started, also programs that know nothing of this crate.
    ///
    /// All of them are stopped first, so that none starts another while the others are ended. Processes
    /// whose own parent had ended before are not found, unless they are of this crate: those have ended
    /// with their parent.
    ///
    /// # Errors
    ///
    /// What the system said; none if it has ended.
    pub fn kill_tree(&self) -> io::Result<()> {
        if self.record.how().is_some() {
            return Ok(());
        }
        tree::kill(self.record.pid, self.record.process())
    }

    /// Lets it go on when this value is dropped. It still ends when this process does.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// The descriptor of the process: readable when it has ended.
    #[doc(alias = "sentinel")]
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.process()
    }

    /// The parent's end of its standard input, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.pipes().stdin.take()
    }

    /// The parent's end of its standard output, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stdout(&self) -> Option<ChildStdout> {
        self.pipes().stdout.take()
    }

    /// The parent's end of its standard error, once, if it was started with [`Stdio::Pipe`](super::Stdio::Pipe).
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.pipes().stderr.take()
    }

    /// Keeps what is reserved for the handles among its arguments until it has taken or lost them.
    pub(super) fn settle(&self, passed: Passed) {
        if passed.is_empty() {
            return;
        }
        let record = Arc::downgrade(&self.record);
        self.on_exit(move |_| {
            if record.upgrade().is_some_and(|record| record.began()) {
                passed.forget();
            }
        });
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `callback` when it has ended, on the thread that reaps, which must not be kept waiting.
    pub(crate) fn on_exit(&self, callback: impl FnOnce(Ended) + Send + 'static) {
        self.record.on_exit(callback);
    }
}

impl<R: Message> Child<R> {
    /// Waits until it has ended and gives what its function returned.
    ///
    /// # Blocking
    ///
    /// Until the process has ended. Its standard input, if it is a pipe, is closed first.
    ///
    /// # Errors
    ///
    /// [`JoinError`] says how it ended instead: panicked, exited, ended by a signal. A result that it had
    /// sent before it ended counts.
    pub fn join(self) -> Result<R, JoinError> {
        drop(self.take_stdin());
        loop {
            if let Some(result) = self.wait(None)? {
                return Ok(result);
            }
        }
    }

    /// As [`join`](Child::join), but gives `None` when it still lives after `timeout`.
    ///
    /// # Errors
    ///
    /// As [`join`](Child::join); [`JoinError::Taken`] if an earlier call has given the result.
    pub fn join_timeout(&self, timeout: Duration) -> Result<Option<R>, JoinError> {
        self.wait(Instant::now().checked_add(timeout))
    }

    fn wait(&self, deadline: Option<Instant>) -> Result<Option<R>, JoinError> {
        if kin::forked() {
            return Err(JoinError::Forked);
        }
        let Some(how) = self.record.wait(deadline) else {
            return Ok(None);
        };
        if self.taken.swap(true, Ordering::Relaxed) {
            return Err(JoinError::Taken);
        }
        // Until the result is decoded.
        let _ends = self.record.take_ends();
        let (reports, failed) = self.record.take_reports();
        let last = reports
            .into_iter()
            .rfind(|report| !matches!(report.head, Report::Ready));
        match (last, failed) {
            (Some(report), _) => outcome(report, how).map(Some),
            (None, Some(error)) => Err(error.into()),
            (None, None) => Err(without_report(how)),
        }
    }
}

/// What the child's last word means.
fn outcome<R: Message>(report: Arrived<Report>, how: Ended) -> Result<R, JoinError> {
    match report.head {
        Report::Returned => {
            let bytes = report.body.into_bytes()?;
            let decode = || message::decode(&bytes);
            handle::with_descriptors(report.descriptors, decode)
                .map_err(|error| JoinError::Io(io::Error::other(error)))?
                .map_err(JoinError::Decode)
        }
        Report::Panicked {
            message,
            location,
            backtrace,
        } => Err(JoinError::Panicked {
            message,
            location,
            backtrace,
        }),
        Report::Refused(step, errno) => Err(JoinError::NotBegun(refusal(step, errno))),
        Report::BadArguments(why) => Err(JoinError::Arguments(why)),
        Report::BadResult(why) => Err(JoinError::Encode(why)),
        Report::Ready | Report::Began | Report::Left | Report::Ends => Err(without_report(how)),
    }
}

fn without_report(how: Ended) -> JoinError {
    match how {
        Ended::Exited(code) => JoinError::Exited(code),
        Ended::Signalled(signal) => JoinError::Signalled(signal),
        Ended::Unknown => JoinError::Unknown,
    }
}

impl<R> Drop for Child<R> {
    fn drop(&mut self) {
        // A forked copy of the parent has no children.
        if !self.detached && self.record.how().is_none() && !kin::forked() {
            end_now(&self.record);
        }
    }
}

impl<R> AsFd for Child<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.record.process()
    }
}

impl<R> AsRawFd for Child<R> {
    fn as_raw_fd(&self) -> RawFd {
        self.record.process().as_raw_fd()
    }
}

/// Waits until one of several children has ended, or another descriptor is readable; gives its index.
///
/// Without a timeout (`None`) it waits for ever; when the timeout has passed it gives `None`. Of several
/// that are ready, the first is given.
///
/// # Errors
///
/// What the system said; `InvalidInput` if there is nothing to wait for, for ever.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use multiproc::{Process, wait_any};
///
/// fn nap(milliseconds: u64) {
///     std::thread::sleep(Duration::from_millis(milliseconds));
/// }
///
/// let slow = Process::spawn(nap, (60_000,))?;
/// let fast = Process::spawn(nap, (1,))?;
/// assert_eq!(wait_any(&[&slow, &fast], Duration::from_secs(20))?, Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait_any(
    children: &[&dyn AsFd],
    timeout: impl Into<Option<Duration>>,
) -> io::Result<Option<usize>> {
    let timeout = timeout.into();
    if children.is_empty() && timeout.is_none() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let files: Vec<BorrowedFd<'_>> = children.iter().map(|child| child.as_fd()).collect();
    sys::poll_any(
        &files,
        timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
    )
}
