//! A victim is killed, or stopped, after each single instruction of an operation, and survivors prove that
//! nothing is torn, repeated, lost beyond what is allowed, or held for ever.
//!
//! The victim runs under `ptrace`, one instruction at a time. Short operations are looked at after every
//! instruction. Of long ones (a process that attaches runs thousands) every instruction that changes
//! anything shared is, with its neighbours, and others evenly spread: between two changes there is nothing
//! that survivors could tell. To take every instruction of those too:
//!
//! ```text
//! STEPPER=every cargo test --release --test stepper
//! ```
//!
//! What it is worth is shown by `tests/mutants/run stepper`, which plants bugs that it must find.

mod item;
mod line;
mod queue;
mod run;
mod stage;
mod trace;

use libtest_mimic::{Arguments, Trial};

use queue::{ReceiverDies, SenderDies};

fn trial(name: &str, how: &str, test: fn()) -> Trial {
    Trial::test(format!("{name}::{how}"), move || {
        test();
        Ok(())
    })
}

macro_rules! trials {
    ($($victim:ident: $($name:ident)*;)*) => {
        vec![$($(
            trial(stringify!($name), "killed", run::killed::<$victim<queue::$name>>),
        )*)*]
    };
}

macro_rules! stopped {
    ($($victim:ident: $($name:ident)*;)*) => {
        vec![$($(
            trial(stringify!($name), "stopped", run::stopped::<$victim<queue::$name>>),
        )*)*]
    };
}

fn main() {
    let arguments = Arguments::from_args();
    let mut trials = trials![
        SenderDies: Send SendArray SendText SendBlock TrySend TrySendFull SendFull SendMany LoanAndCommit DropSender;
        ReceiverDies: Recv RecvArray RecvText RecvBlock TryRecvEmpty RecvEmpty RecvMany Lease LeaseAndAck DropLease DropReceiver;
    ];
    trials.extend(stopped![
        SenderDies: Send SendText SendBlock SendMany LoanAndCommit DropSender;
        ReceiverDies: Recv RecvText RecvBlock TryRecvEmpty Lease LeaseAndAck DropLease DropReceiver;
    ]);
    libtest_mimic::run(&arguments, trials).exit();
}
