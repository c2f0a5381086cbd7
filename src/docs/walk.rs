//! What happens between `pool.map(square, [1, 2, 3])` and its result.
//!
//! ```text
//!  caller                            shared memory                        worker
//!  ------                            -------------                        ------
//!  message: encode the items  ----->  inputs
//!  pool: fill a free cell     ----->  cell: function, chunks, where
//!  pool: offer its chunks     --P-->  chunk: READY
//!  pool: set the cell's bit   ----->  bitmap of open cells     ---->      looks there
//!  signal: is anyone asleep?          row: "I look at this cell" <------  names the cell
//!                                     cursor                   <--R---    claim the next chunk
//!                                     chunk: READY -> LEASED   <--P---    lease it, by one compare-and-swap
//!                                                                         process: function of that name
//!                                     results                  <------    message: encode square(1)
//!                                     cell: the chunk's bit    <--Q---    set it: done, and counted
//!  pool: are all bits set?    <--Q--  the owner's signal       <--O---    it was the last: wake the owner
//!  message: decode, in order
//! ```
//!
//! 1. The caller encodes the items once, straight into memory that the workers read; for numbers that is
//!    one copy. `Frozen` items are not even that: the workers borrow them.
//! 2. A *job* says which function, how many items, where they are and where results belong; it stands in a
//!    *cell* while workers may take its *chunks*. The function is the distance of a description from a fixed
//!    place in the program: every process of the tree runs the same program.
//! 3. A bitmap says which cells have work. Whoever is free looks there; load balancing is that sentence.
//! 4. A worker names the cell in its own row, claims a chunk, leases it, and names each item before it
//!    runs it. If it dies, its row says exactly which item was in its hands; the rest of its chunk goes to
//!    others.
//! 5. A chunk is finished by setting its bit, which only the holder of its lease may do; the pool may, with
//!    the proof of the holder's death. So every item ends once, and the bits are the count.
//! 6. Whoever sets the last bit wakes the owner of the job, and nobody else. While both sides are busy, no
//!    system call is made.
//! 7. Results are put into order by index, never by waiting.
//!
//! A message in a [`Queue`](crate::Queue) takes the same road without the pool's bookkeeping: encode into
//! the slot, publish its stamp, look whether anyone sleeps; copy, take, decode.
