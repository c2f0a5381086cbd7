//! Which stores must be seen before which, and who guarantees it.
//!
//! Every ordering stronger than relaxed in this crate belongs to one of the edges below. The code
//! names the edge at both ends; a letter with one end would be a bug. `tests/loom.rs` has a model
//! for each edge of the pure protocols, and `tests/mutants/run` weakens every ordering in turn and
//! expects a model to fail.
//!
//! | edge | from (release) | to (acquire) | what is seen across it |
//! |---|---|---|---|
//! | A | the sender stores a slot's stamp | a receiver loads it | the payload of that slot |
//! | B | a receiver moves `head`, perhaps telling it through `freed` | the sender loads either | that the copy out of the slot is finished |
//! | C | a waker publishes, then looks for sleepers | a sleeper announces itself, then looks again | one of the two sees the other |
//! | D | a holder unlocks | the next holder locks | the value behind the lock |
//! | E | an owner lets go, or dies | somebody takes over, or concludes that nobody is left | everything the owner published |
//! | F | the maker of a segment stores the magic number | somebody attaches | the header and the body as they were made |
//! | G | the holder of a block gives it back | its sender fills it again | that the holder has read |
//! | H | a sender fills a block | whoever holds it next, a second holder too | what the sender wrote |
//! | I | an end counts itself in | somebody concludes that nobody is left | that the end has come |
//! | K | an end that was sent away is brought back | the same end is dropped | which of the two lets go of it |
//! | P | the pool offers a chunk | a worker leases it | the job's words and its arguments |
//! | Q | a worker finishes a chunk | the owner finds all chunks done | the results and the failures |
//! | R | the pool stores a cursor | a worker claims by it | that the chunks behind it are offered |
//! | L | a worker leases a chunk | the pool reclaims it, with the proof of death | that the worker's row names the cell |
//! | N | the pool opens a cell | a worker sees that it is open | that there is something to claim |
//! | T | a worker says that a job without a caller has ended | the supervisor takes that | that all its chunks are done |
//! | O | a worker finishes the last chunk, then looks whom to wake | a caller takes the job over, then looks whether it is done | one of the two sees the other |
//! | S | the pool publishes work, then looks for those who search | a worker ceases to search, then looks again | one of the two sees the other |
//!
//! A to F are at work in every message and every lock. The others stand where they are used, with
//! both ends: G and H in `src/queue/blocks.rs`, I in `src/queue/hub.rs`, K in `src/pipe/link.rs`, L
//! and N to T in `src/chunk.rs`.
//!
//! # A and B: one message
//!
//! ```text
//!   sender                                     receiver
//!   room? (acquire freed or head)  <----B--+
//!   payload words (relaxed)                |
//!   stamp := position + 1 (release) --A----|-> stamp (acquire) is position + 1?
//!                                          |   copy payload words (relaxed)
//!                                          +-- head: position -> position + 1 (acquire and release)
//! ```
//!
//! Several receivers may copy the same slot; one of them moves `head`. The others throw their
//! copies away unseen, which is why a torn copy is harmless, and why the payload is made of
//! atomics: a copy that races with the next lap's stores is a set of wrong numbers, not undefined
//! behaviour.
//!
//! The step of `head` is a read-modify-write with *both* orderings. Release puts the copy before
//! the step. Acquire chains the step to all earlier steps: the sender may learn of ten copies
//! through the tenth step alone, or through `freed`, and must then be able to rely on all ten.
//!
//! # C: no wake-up is lost
//!
//! The waker stores the message and then loads the word in which sleepers announce themselves. The
//! sleeper stores its announcement and then loads the place of the message. If both loads came
//! before both stores became visible, the message would lie there and the sleeper would sleep. A
//! full fence on both sides forbids that. A fence in every `send` would cost four fifths of the
//! speed, so the dear half is moved to the sleeper: `membarrier` makes every registered process
//! pass a full fence *now*, and the waker only keeps its compiler from reordering the two. A
//! process that may not register uses a real fence whenever it wakes, and before it first sleeps it
//! sets a flag in the announcement word that every waker reads anyway; from then on wakers use a
//! real fence there.
//!
//! The sleeper reads the futex word *before* it announces itself. Were it the other way round, a
//! waker could raise the word in between, wake nobody, clear the announcement, and the sleeper
//! would then sleep on the raised word. So it is an acquire load, which no later step of its thread
//! comes before.
//!
//! # E: gone, then empty
//!
//! `Closed` is concluded in this order only: first, no lane has a living owner (acquire each owner
//! word; ask the kernel about those that are not free); second, a full round finds all lanes empty.
//! A sender publishes before it lets go, and a dead process published before it died: the kernel
//! has finished the process' last store before it drops the byte lock that proves its life. So what
//! the first look says cannot be undone by a message that the second look misses.
