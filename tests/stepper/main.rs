//! A victim is killed, or stopped, after each single instruction of an operation, and survivors prove that
//! nothing is torn, repeated, lost beyond what is allowed, or held for ever.
//!
//! The victim runs under `ptrace`, one instruction at a time. Short operations are looked at after every
//! instruction, long ones (a process that attaches runs thousands) right after every change of shared memory,
//! and at other moments evenly spread: between two changes there is nothing that survivors could tell. To take
//! every instruction of those too:
//!
//! ```text
//! STEPPER=every cargo test --release --test stepper
//! ```
//!
//! What it is worth is shown by `tests/stepper/planted`, which plants bugs that it must find.

mod item;
mod line;
mod lock;
mod pipe;
mod pool;
mod queue;
mod run;
mod stage;
mod trace;
mod travel;

use libtest_mimic::{Arguments, Trial};

use lock::HolderDies;
use pipe::EndDies;
use pool::WorkerDies;
use queue::{ReceiverDies, SenderDies};
use travel::TravellerDies;

fn trial(name: &str, how: &str, test: fn()) -> Trial {
    Trial::test(format!("{name}::{how}"), move || {
        test();
        Ok(())
    })
}

macro_rules! trials {
    ($how:ident: $($victim:ident in $module:ident: $($name:ident)*;)*) => {
        [$($(
            trial(stringify!($name), stringify!($how), run::$how::<$victim<$module::$name>>),
        )*)*]
    };
}

fn main() {
    let arguments = Arguments::from_args();
    let mut all = Vec::new();
    all.extend(trials! {
        killed:
        SenderDies in queue: Send SendArray SendText SendBlock SendLong SendLongInPlace TrySend TrySendFull SendFull SendWhenRoom SendMany
            LoanAndCommit Attach AttachAnew AttachInPlace Adopt DropSender;
        ReceiverDies in queue: Recv RecvArray RecvText RecvBlock RecvLong RecvLongInPlace TryRecvEmpty RecvEmpty RecvWhenSent RecvMany
            Lease LeaseAndAck LeaseOfTheDead DropLease AttachReceiver DropReceiver;
        HolderDies in lock: LockAlone LockAndUnlock TryLockAndUnlock Unlock UnlockAwaited LockHeld LockHandedOver
            TryLockHeld Recover DropAbandoned DropHandle;
        TravellerDies in travel: SendEnd RecvEnd;
        EndDies in pipe: PipeSend PipeSendText PipeSendBytes PipeSendFull PipeTrySend PipeRecv PipeRecvText
            PipeRecvBytes PipeTryRecvEmpty PipeRecvEmpty PipeDrop;
        WorkerDies in pool: PoolTask PoolTaskRetried PoolText PoolArray PoolWoken PoolChunk PoolChunkOfTexts
            PoolChunkRetried;
    });
    all.extend(trials! {
        stopped:
        SenderDies in queue: Send SendText SendBlock SendLong SendLongInPlace SendMany LoanAndCommit Attach Adopt DropSender;
        ReceiverDies in queue: Recv RecvArray RecvText RecvBlock RecvLong RecvLongInPlace TryRecvEmpty Lease LeaseAndAck LeaseOfTheDead DropLease DropReceiver;
        HolderDies in lock: LockAndUnlock Unlock UnlockAwaited LockHandedOver Recover DropHandle;
        TravellerDies in travel: SendEnd RecvEnd;
        EndDies in pipe: PipeSend PipeSendText PipeSendBytes PipeTrySend PipeRecv PipeRecvText PipeRecvBytes
            PipeTryRecvEmpty PipeDrop;
        WorkerDies in pool: PoolTask PoolText PoolArray PoolWoken PoolChunk PoolChunkOfTexts;
    });
    libtest_mimic::run(&arguments, all).exit();
}
