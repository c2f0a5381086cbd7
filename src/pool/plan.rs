//! How many items go into a job, and how many of them into each chunk.

use std::num::NonZeroUsize;

use crate::chunk::Span;
use crate::layout::CHUNKS;

/// How a job is cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// By what is left: `ceil(left / (4 * workers))` each time, so that the last chunks are the smallest
    /// and no worker is left alone with a large one.
    Guided {
        /// Workers of the pool.
        workers: NonZeroUsize,
    },
    /// So many items each, the last chunk perhaps fewer.
    Every(NonZeroUsize),
}

impl Cut {
    /// Items that fit into one job at most.
    pub(super) fn limit(self) -> usize {
        let items = match self {
            Cut::Guided { .. } => usize::MAX,
            Cut::Every(size) => size.get().saturating_mul(CHUNKS),
        };
        // The last index stands for no item.
        items.min(u32::MAX as usize - 1)
    }

    /// The chunks of a job of so many items: at most [`CHUNKS`], for at most [`limit`](Cut::limit) items.
    pub(super) fn chunks(self, items: usize) -> impl Iterator<Item = Span> {
        let items = items.min(self.limit());
        // Never below this, so that twice as many chunks as there may be would be needed at least.
        let floor = items.div_ceil(CHUNKS / 2).max(1);
        let mut start = 0;
        std::iter::from_fn(move || {
            let left = items - start;
            let size = match self {
                Cut::Guided { workers } => {
                    left.div_ceil(workers.get().saturating_mul(4)).max(floor)
                }
                Cut::Every(size) => size.get(),
            }
            .min(left);
            let span = Span {
                start: start as u32,
                count: size as u32,
            };
            start += size;
            (size > 0).then_some(span)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guided(workers: usize) -> Cut {
        Cut::Guided {
            workers: NonZeroUsize::new(workers).expect("not zero"),
        }
    }

    fn sizes(cut: Cut, items: usize) -> Vec<u32> {
        let mut next = 0;
        cut.chunks(items)
            .map(|span| {
                assert_eq!(span.start, next);
                next += span.count;
                span.count
            })
            .collect()
    }

    #[test]
    fn all_items_are_in_few_enough_chunks() {
        for items in [
            0, 1, 2, 5, 16, 17, 100, 255, 256, 257, 1_000, 65_536, 1_000_000,
        ] {
            for workers in [1, 2, 4, 7, 64, 4_000] {
                let sizes = sizes(guided(workers), items);
                assert_eq!(sizes.iter().sum::<u32>() as usize, items);
                assert!(sizes.len() <= CHUNKS, "{items} items for {workers}");
                assert!(sizes.is_sorted_by(|a, b| a >= b));
            }
        }
    }

    #[test]
    fn the_first_chunk_is_the_documented_one() {
        assert_eq!(sizes(guided(4), 100)[0], 7);
        assert_eq!(sizes(guided(4), 5), [1; 5]);
        assert_eq!(sizes(guided(4), 65_536)[0], 4_096);
    }

    #[test]
    fn a_size_set_by_hand_is_kept() {
        let seven = Cut::Every(NonZeroUsize::new(7).expect("not zero"));
        assert_eq!(sizes(seven, 15), [7, 7, 1]);
        assert_eq!(seven.limit(), 7 * CHUNKS);
        assert_eq!(sizes(seven, 7 * CHUNKS).len(), CHUNKS);
    }
}
