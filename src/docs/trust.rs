//! What another process may do to this one through shared memory.
//!
//! | level | who may write the segment | how it comes about | promise |
//! |---|---|---|---|
//! | kin | processes of one tree | everything anonymous | all of this crate |
//! | friend | programs of the same user that use this crate | a name | all of it, except that nothing is borrowed: the guard of a named lock, and the loans and leases of a named queue, are copies |
//! | stranger | whoever has the memory mapped, perhaps hostile | a descriptor that got away | this process stays memory-safe, every call ends in bounded time, nonsense is reported as [`Corrupt`](crate::Corrupt) |
//!
//! How that is kept:
//!
//! * Shared structures are atomics and integers for which every bit pattern is valid. A reference into
//!   shared memory is only ever a reference to atomics; two exceptions borrow plain values, and both hold
//!   something that excludes other writers: a held lock or a claimed block among kin, and an array that the
//!   kernel has sealed against writing (`Frozen`).
//! * An attaching process copies sizes and offsets once, checks the copy against the length the kernel
//!   reports, and computes every address from its private copy. Positions from shared memory are masked,
//!   lengths checked; a value is read once and then used, never read twice for one decision.
//! * Every loop over shared state has a bound and ends in [`Corrupt`](crate::Corrupt).
//! * Messages are decoded from a private copy, by a decoder that accepts any bytes and never allocates more
//!   than they justify.
//! * Anonymous segments are sealed against shrinking and growing before anyone else sees them, and their
//!   memory is allocated before it is mapped. So no later shortage, and no peer, can turn an access into a
//!   bus error. A *named* segment is a plain file in memory: a program of the same user could truncate it.
//! * No byte of private memory enters a segment but the value sent: types with padding are refused at
//!   compile time ([`Plain`](crate::Plain)), the rest is encoded.
//!
//! What is not promised: that a hostile peer delivers, keeps order or keeps secrets. It has the memory. Use
//! one segment for each pair that trusts each other.
