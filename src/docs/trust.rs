//! What another process may do to this one through shared memory.
//!
//! This page is the whole of the promise: what is not in the table is not promised anywhere else.
//!
//! Three kinds of processes may have memory of this crate mapped for writing. *Kin* are the
//! processes of one tree: they run the same program, and what is assumed of them is that they write
//! where their code says. *Friends* are other programs of the same user, which find an object by
//! its name; nothing is assumed of their code. *Strangers* are whoever else came to the memory,
//! through a descriptor that got away.
//!
//! *Safe* means, of a peer that writes anything at any moment: this process keeps its memory
//! safety, no call hangs because of it beyond the times that it was given, nonsense is an error
//! ([`Corrupt`](crate::Corrupt), `Decode`, `TooLarge`) or a wrong value of the right type.
//! *Assumed* means that such a peer can make what is borrowed change under the eyes of this
//! process, and with it break anything; that it does not is assumed.
//!
//! | object | kin may write it | friends may write it | what is promised against a peer that breaks the rules |
//! |---|---|---|---|
//! | [`Queue`](crate::Queue): messages that are sent and received by value, in slots or blocks | yes | if it has a name | safe: bytes are copied out once, then checked, then decoded |
//! | `Queue`: [`Loan`](crate::Loan) and [`Lease`](crate::Lease) without a name | yes | no | **assumed**: the block is borrowed; [`Lease::read`](crate::Lease::read) is safe |
//! | `Queue`: `Loan` and `Lease` with a name | yes | yes | safe: they are private copies |
//! | [`Pipe`](crate::Pipe) | yes | who [connected](crate::Pipe::connect) by name, to its own pipe | safe; memory up to [`message_limit`](crate::PipeBuilder::message_limit) for each end |
//! | [`Lock`](crate::Lock) without a name: the guard | yes | no | **assumed**: the value is borrowed; its bits are checked once, when the lock is entered |
//! | `Lock` with a name: the guard | yes | yes | safe: it is a private copy, checked, written back when the lock is left |
//! | [`Frozen`](crate::Frozen) | no, the kernel refuses | no | safe: borrowed, since nobody can write it any more |
//! | [`Segment`](crate::Segment) | yes | if it has a name | safe: it gives access to atomics alone |
//! | [`Pool`](crate::Pool): arguments, results, bookkeeping | yes: every worker | no | safe: bytes and numbers are copied and checked; a forged name of a function is refused, or has another task of this program run, on arguments decoded as its own types |
//! | the tree's own page, proofs of life, sockets of children | yes | no | **assumed** |
//! | a *named* object's file | | yes | that nobody makes it shorter is **assumed**: an access would be a bus error |
//!
//! Against strangers the column of friends holds, for whatever they have: an object without a name
//! that came into a stranger's hands is one that kin may write.
//!
//! How that is kept:
//!
//! * Shared structures are atomics and integers for which every bit pattern is valid. A reference
//!   into shared memory is only ever a reference to atomics, but for the three rows above that say
//!   "borrowed".
//! * An attaching process copies sizes and offsets once, checks the copy against the length the kernel
//!   reports, and computes every address from its private copy. Positions from shared memory are masked,
//!   lengths checked; a value is read once and then used, never read twice for one decision.
//! * Every loop over shared state has a bound and ends in [`Corrupt`](crate::Corrupt).
//! * Messages are decoded from a private copy, by a decoder that accepts any bytes, never allocates
//!   more than they justify, and stops before the stack ends. Bulk bytes are copied by plain loads;
//!   see `src/segment/view.rs` for what a peer that writes meanwhile can do to them.
//! * Anonymous segments are sealed against shrinking and growing before anyone else sees them, and their
//!   memory is allocated before it is mapped. So no later shortage, and no peer, can turn an access into a
//!   bus error.
//! * What a handle leads to is known by the file behind the descriptor that arrived (device and inode), not by what
//!   a peer writes: it must be sealed, as long as it says, have all its memory, and hold what the asking type
//!   holds. A handle by name is refused, unless this process has opened that name itself, or was given it by its
//!   parent or over something that it opened by a name. Handles mean something in messages of this crate alone.
//! * No byte of private memory enters a segment but the value sent: types with padding are refused at
//!   compile time ([`Plain`](crate::Plain)), the rest is encoded.
//! * A process is proven dead by a lock that the kernel drops at its death, and also when the
//!   process itself closes any other descriptor of the same file. Within a tree only root can open
//!   that file anew; a *named* segment's file can be opened by any program of its user, and one
//!   that does so in the process that holds a lock makes it look dead (see
//!   [`limits`](crate::docs::limits)).
//!
//! What is never promised: that a peer that breaks the rules delivers, keeps order or keeps
//! secrets. It has the memory. Use one object for each pair that trusts each other.
//!
//! # Rights
//!
//! A process has the rights of the thread that starts it, never more: users, capabilities, seccomp filters,
//! Landlock, namespaces and so on, as the child of a [`std::process::Command`] has. A program with rights that its
//! caller does not have (set-user-ID, set-group-ID, file capabilities) obeys nothing in its environment and starts
//! no process: [`SpawnError::Privileged`](crate::SpawnError::Privileged).
//!
//! A daemon that begins as root and gives that up does so before it starts its first process. If it has started
//! some, its zygote and the processes made in advance are root's until the next process is started, which ends
//! them first, or until [`end_zygote`](crate::end_zygote) is called; children that run a function keep what they
//! were started with. Rights that one thread gives up for itself are still those of the program's other threads.
