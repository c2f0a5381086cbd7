//! Processes made by fork, each on its CPU, none of which outlives the sample.
//!
//! Why this file may use unsafe: it forks. It is called while the process has one thread, so the child may go on as usual.

use super::board::Control;
use super::cpu;
use anyhow::{Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Release;

#[derive(Default)]
pub struct Crew {
    kids: Vec<Pid>,
}

impl Crew {
    /// A process on `cpu`, or wherever the system puts it, that runs `body` and exits.
    pub fn fork(&mut self, cpu: Option<usize>, board: &Control, body: impl FnOnce()) -> Result<()> {
        // SAFETY: this process has one thread, so no lock is held by a thread that the child does not have.
        match unsafe { fork() }? {
            ForkResult::Parent { child } => {
                self.kids.push(child);
                Ok(())
            }
            ForkResult::Child => {
                let run = AssertUnwindSafe(|| {
                    set_pdeathsig(Signal::SIGKILL).expect("asking to die with the parent");
                    if let Some(cpu) = cpu {
                        cpu::pin(cpu).expect("pinning");
                    }
                    body();
                });
                let code = match catch_unwind(run) {
                    Ok(()) => 0,
                    Err(_) => {
                        board.failed.0.store(1, Release);
                        1
                    }
                };
                // SAFETY: ends the process without running what the parent registered for its own exit.
                unsafe { libc::_exit(code) }
            }
        }
    }

    /// Waits for all of them.
    pub fn join(mut self) -> Result<()> {
        while let Some(&kid) = self.kids.last() {
            let status = waitpid(kid, None)?;
            self.kids.pop();
            if status != WaitStatus::Exited(kid, 0) {
                bail!("a participant ended with {status:?}");
            }
        }
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for &kid in &self.kids {
            let _ = kill(kid, Signal::SIGKILL);
            let _ = waitpid(kid, None);
        }
    }
}
