//! What happens between `pool.map(square, [1, 2, 3])` and its result.
//!
//! ```text
//!  caller                               shared memory                           worker
//!  ------                               -------------                           ------
//!  message: encode the items   ------>  arena: inputs
//!  pool: fill a job's cell     ------>  cell: function, count, where
//!  ring: publish tickets       --A--->  task lane                  --A---->     ring: copy a ticket, take it
//!  signal: is anyone asleep?                                                    roster row: "I am about to run item 0"
//!                                       chunk: READY -> LEASED    <------       claim it, by one compare-and-swap
//!                                                                               process: function of that name
//!                                       arena: results             <------      message: encode square(1)
//!                                       chunk: LEASED -> DONE      <------      commit, by one compare-and-swap
//!  ring: copy, take            <--A---  this worker's result lane  <--A---      ring: publish "done"
//!  message: decode, in place                                                    signal: is anyone asleep?
//!  pool: put into order
//! ```
//!
//! 1. The caller encodes the items once, straight into memory that the workers read; for numbers that is
//!    one copy. `Frozen` items are not even that: the workers borrow them.
//! 2. A *job* says which function, how many items, where they are and where results belong. The function
//!    is a distance from a fixed place in the program: every process of the tree runs the same program.
//! 3. *Tickets* for the job go into one lane, written by the pool alone and read by all workers. Whoever is
//!    free takes the next; load balancing is that sentence.
//! 4. A worker claims a chunk, writes in its own row of the roster which item it is about to run, and runs
//!    it. If it dies, that row says exactly which item was in its hands; the rest of its chunk goes to others.
//! 5. The result is committed by a compare-and-swap from *leased to this worker, at this attempt*. The pool,
//!    having proof of the worker's death, does its own from the same word. One of the two wins, so every
//!    item ends once.
//! 6. Each worker announces finished chunks in its own lane. The pool sleeps on one signal for all of them,
//!    and only while there is nothing to do: while both sides are busy, no system call is made.
//! 7. Results are put into order by index, never by waiting.
//!
//! A message in a [`Queue`](crate::Queue) takes the same road without the pool's bookkeeping: encode into
//! the slot, publish its stamp, look whether anyone sleeps; copy, take, decode.
