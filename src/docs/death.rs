//! Who can die where, and what the others see.
//!
//! Any process may be killed at any instruction. What follows is not repair by guess: no timeout, heartbeat
//! or process number ever moves ownership. Death is *proven* by a byte lock that the kernel drops when the
//! process ends (also while it is a zombie, not while it is stopped, not in its forked copies), and every
//! repair is one compare-and-swap from exactly the word that was seen, so half of it, or twice, is harmless.
//!
//! | killed while | what the others see |
//! |---|---|
//! | sending, before the stamp | nothing: the message was never there |
//! | sending, after the stamp | the message |
//! | sending a batch | a part of it, from its beginning, or nothing |
//! | receiving, before the step of `head` | the message is still there for another receiver |
//! | receiving, after it | the message is gone with the process that took it: at most one call's worth |
//! | sending a message that is longer than a slot | nothing; the memory it took goes to the next in that lane |
//! | holding a lease | the message goes to another receiver, marked as redelivered |
//! | holding a loan | the block is free again |
//! | holding a lock | each that asks gets [`Abandoned`](crate::LockError::Abandoned), until one [recovers](crate::Lock::recover) it and decides |
//! | waiting for a lock or a message | nothing |
//! | writing into a pipe | everything before the unfinished message, then `Closed` |
//! | a handle it sent is on its way | the handle, if one of the processes between has what it leads to; else [`RecvError::Decode`](crate::RecvError::Decode) says that it is gone |
//! | running a task | that task's [`TaskError::WorkerDied`](crate::TaskError::WorkerDied); the worker is replaced |
//! | after a task's result was committed | the result |
//! | starting a process | [`SpawnError`](crate::SpawnError) or `JoinError`, and no process is left |
//! | repairing after somebody else's death | another process repairs it again |
//!
//! # When the others learn of it
//!
//! Inside a tree of processes the parent watches its children through descriptors the kernel signals at
//! death. It then raises one counter that every sleeper in the tree sleeps on besides its own word; so a
//! sleeper learns of a death in well under a millisecond. Between unrelated programs, and where a parent
//! died as well, every sleeper asks the system, at least every
//! 80 ms, and who waits for a lock every 20 ms. The kernel itself needs time to tear a process down: tens
//! of milliseconds for one with gigabytes of memory, longer while it writes a core dump.
//!
//! # Handles on their way
//!
//! A handle in a message leads to memory that its sender holds until the message is over: read (and acknowledged, if
//! it was leased), or in a queue or pipe that nobody is left to read. Until then it can be decoded any number of times,
//! so a message that is handed out again, or an item that is begun again, has its handles still. The memory is free
//! 100 ms after the message is over, at the latest.
//!
//! A process that comes to the end of its function, or panics, leaves to its parent what it still holds; so it may
//! send a handle to something of its own as the last thing it does. If it is killed, or calls
//! [`std::process::exit`], the handle still arrives when its parent, or another process between, has what it leads to.
//!
//! A [`Sender`](crate::Sender), [`Receiver`](crate::Receiver) or [`PipeEnd`](crate::PipeEnd) in a message, an
//! argument or a result *moves*: it takes its own lane or seat along, and counts as somebody on its way, so nobody
//! sees `Closed` in between, also when the sender has ended in order. If it was killed, the end counts no more until it
//! arrives, where it takes another lane or seat. An end that nobody takes is free when its message is over. What a pool
//! keeps for its workers (arguments of the initializer, a context) counts as an end of the pool's until it is over.
//!
//! # When the sender may not be looked into
//!
//! A receiver opens what a handle leads to through `/proc` of the sender's process. The system refuses that to a process
//! of other rights: another user, fewer capabilities, a user namespace, Landlock; of a sender that is not dumpable; and
//! where there is no `/proc`. For an [`Fd`](crate::Fd), whose descriptor is taken as it is, it may refuse it to all but
//! the sender's ancestors (`kernel.yama.ptrace_scope`). Then the receiver asks its parent, and that the next, and whoever has it sends the
//! descriptor: some 50 µs more for the first time that an object is received. If a process between is stopped, or
//! nobody has it, the receiver is told after two seconds at most, with what the system had said.
//!
//! # A stopped process is not a dead one
//!
//! A process stopped by a signal, a debugger or a frozen group keeps what it holds: its lane, its lock, its
//! lease. Nobody takes it away, for it may continue at any moment and write. A stopped *receiver* holds up
//! nobody, since nobody owns an unfinished read. A stopped lock holder holds up the lock; `lock_timeout` says so.
//!
//! # Parents and children
//!
//! When a process ends in any way, the processes it started end within a second, and theirs; a child that
//! [`detach`](crate::Child::detach)ed goes on while its parent lives. Anonymous segments vanish with the last
//! process that has them. A name that nobody living holds is free.
