//! What this crate does not do, and what to use instead.
//!
//! * **One total order over many senders.** A queue keeps the order of each sender. If A sends, tells B, and B
//!   sends, a receiver may get B's message first. A queue with one sender is one total order.
//! * **A capacity over all senders.** It is counted per sender; a total would be one more word that all of
//!   them fight for.
//! * **Broadcast.** Every message goes to one receiver. Topics and discovery are the business of iceoryx2 or
//!   Zenoh.
//! * **Exactly once.** A process can die after acting and before saying so. A task's body starts at most once
//!   by default, or at least once with `Retry`; a lease is handed on at least once.
//! * **Closures that capture.** A function travels as its place in the program, so what it needs travels as
//!   arguments. In threads, rayon takes closures.
//! * **Tiny work.** A task of a few nanoseconds costs more to hand over than to do. Below some 10 µs of work
//!   per item, let the pool chunk (it does by default), or use rayon, unless the isolation is what you want.
//! * **Other machines.** Shared memory ends at the machine's edge.
//! * **Other systems than Linux** (5.10 and later; some features need 5.16): sealed memory, byte locks that
//!   prove death and shared futexes are what the promises stand on.
//! * **Arguments of the program, on musl.** There Rust's standard library has them from `main`, to which
//!   children never come: [`std::env::args`] is empty in them. What a function needs, give it as arguments.
//! * **Survival of a restart.** Segments are memory; nothing is durable.
//! * **Self-describing formats.** A message holds values and no names: `#[serde(flatten)]`, untagged and
//!   tagged enums and `serde_json::Value` do not work in it. The first value of a type with such a part is
//!   refused where it is sent, by name; send the part as JSON in a `String`.
//! * **Long messages among many receivers.** What fits neither slot nor block of a queue is copied by every
//!   receiver that is at it, before one of them gets it. One that several of them wait for is better sent as a
//!   [`Frozen`](crate::Frozen), or through a queue built with
//!   [`message_size`](crate::QueueBuilder::message_size) for it.
//! * **Waiting for every child.** A program that has started two processes has a zygote and two spares among
//!   its children, as long as it runs: `wait()` until there is no child left does not return. Wait for the
//!   children that are yours, or start them with [`StartMethod::Exec`](crate::StartMethod::Exec).
//! * **A line for an overflow of any stack.** A child whose main thread has used up its stack says so and
//!   aborts, as every program of Rust does. Of another thread of a child it is not said: SIGSEGV ends the
//!   process.
//! * **A time limit to the millisecond for handles.** A receiver that may not open its sender's memory asks
//!   the processes between for it. If one of them is stopped, a call that receives the handle fails when its
//!   limit is over, but not before it has asked for 100 ms; without a limit, after 2 s. The message is gone then.
//!   A process that sends its first handle tells those above it, for as long at most.
//! * **Anything a child likes to say.** It may be hostile, so its parent takes from it at most one result,
//!   which is memory that the child has filled (at most
//!   [`max_result`](crate::ProcessBuilder::max_result) bytes of it), texts of 1 MiB each about a panic or an
//!   error (longer ones are cut), 4,096 descriptors beside a result, and objects of 1 TiB together.
//! * **Other people's orphans.** Where orphans become children of the program, because it is the first
//!   process of a container or has asked for them, the zygotes that dead children leave behind are reaped. Of
//!   all other orphans, also of children's children, the program takes the statuses, as it must anyway.
//! * **The user's own `fork`.** A forked copy shares its parent's memory but not its place in the
//!   tree: every operation answers `Forked` there, or does nothing, and dropping what the copy
//!   inherited changes nothing. Only what was borrowed before the fork still leads to the parent's
//!   memory, in which the copy must not write: a lock's guard, a loan, a lease,
//!   [`Segment::words`](crate::Segment::words). Start processes with [`Process`](crate::Process).
//! * **Programs that close what they have not opened.** Everything from descriptor 3 on, as daemons
//!   do when they start, is best closed before this crate is first used. Closed later, what was in
//!   memory stays readable, but everything that would reach another process answers `Evicted`, and
//!   waits end within 100 ms. What the program has opened at those numbers is neither written nor
//!   closed. No descriptor of this crate is ever 0, 1 or 2.
//! * **A second descriptor of ours.** The kernel drops a process's proof of life when *any*
//!   descriptor of the file with the proofs is closed in it: a copy made by `dup`, or the file
//!   opened anew through `proc/self/fd`. Then others see this process dead and may enter its locks
//!   while it is inside. The tree's file cannot be opened anew, except by root. A named segment's
//!   file can, by its user: do not open and close `multiproc-*` files in the folder of names from a
//!   program that is attached to them.
//! * **`mlockall(MCL_FUTURE)`.** It locks all that is mapped later, so also addresses that this
//!   crate reserves and rarely uses: 11 MiB in use may be 256 MiB locked, and `RLIMIT_MEMLOCK` soon
//!   refuses the next segment. A pool reserves addresses for as much memory as the machine has, a queue for
//!   256 senders. Lock with `MCL_ONFAULT` (Linux 4.4), which takes pages only as they
//!   are used.
//! * **Where names live.** In `/run/user/UID` if it is there, in memory, and the user's alone;
//!   otherwise, or where it has no room, in `/dev/shm`. Programs find each other by name if they
//!   see the same folders: a service with its own `/dev/shm` or `/run` (systemd's `PrivateTmp=`,
//!   `ProtectHome=`, a container) shares names only if it shares those.
//! * **`RemoveIPC`.** When a user's last session ends, systemd removes that user's files from
//!   `/dev/shm` and `/run/user/UID` (not for system users, and not with `loginctl enable-linger`).
//!   Who is attached goes on undisturbed; who comes later finds nothing under the name and makes
//!   another one. Set `RemoveIPC=no` in `logind.conf`, or let services with names run as a system
//!   user.
