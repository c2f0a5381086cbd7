//! Which bytes of the arena are free: known to the pool's own process alone.
//!
//! The arena is a few *extents*, each a segment. Only the pool gives bytes out and takes them back, so the
//! death of a worker can neither leak nor break anything here. Bytes that were given back are given out
//! again soon, lowest first: a page touched for the first time costs far more than one that is warm.

use std::collections::BTreeMap;

/// Blocks begin and end at multiples of this.
const GRAIN: u64 = 128;

/// Where bytes are that a job uses: an extent and an offset in it. Extent 0 is the pool's own segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Place {
    pub(super) extent: u8,
    pub(super) offset: u64,
}

impl Place {
    const OFFSET: u64 = (1 << 56) - 1;

    pub(super) fn word(self) -> u64 {
        u64::from(self.extent) << 56 | (self.offset & Self::OFFSET)
    }

    pub(super) fn from_word(word: u64) -> Place {
        Place {
            extent: (word >> 56) as u8,
            offset: word & Self::OFFSET,
        }
    }

    /// The place so many bytes further.
    pub(super) fn after(self, bytes: u64) -> Place {
        Place {
            offset: self.offset.saturating_add(bytes),
            ..self
        }
    }
}

/// Bytes that were given out.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is forgotten is lost until the pool ends"]
pub(super) struct Block {
    pub(super) place: Place,
    pub(super) len: u64,
}

impl Block {
    /// A block of no bytes.
    pub(super) fn nothing() -> Block {
        Block {
            place: Place::default(),
            len: 0,
        }
    }

    /// The block without what lies behind its first `used` bytes, and that.
    pub(super) fn split(self, used: u64) -> (Block, Option<Block>) {
        let keep = Arena::rounded(used);
        if keep >= self.len {
            return (self, None);
        }
        let rest = Block {
            place: self.place.after(keep),
            len: self.len - keep,
        };
        (Block { len: keep, ..self }, Some(rest))
    }
}

/// The free bytes of one extent.
#[derive(Debug)]
struct Free {
    len: u64,
    left: u64,
    /// Offset and length of each free stretch; no two touch.
    stretches: BTreeMap<u64, u64>,
}

impl Free {
    fn new(len: u64) -> Free {
        Free {
            len,
            left: len,
            stretches: BTreeMap::from([(0, len)]),
        }
    }

    /// The first stretch that is long enough.
    fn take(&mut self, len: u64) -> Option<u64> {
        let (&offset, &found) = self.stretches.iter().find(|(_, found)| **found >= len)?;
        self.stretches.remove(&offset);
        if found > len {
            self.stretches.insert(offset + len, found - len);
        }
        self.left -= len;
        Some(offset)
    }

    fn give_back(&mut self, mut offset: u64, mut len: u64) {
        self.left += len;
        let before = self.stretches.range(..offset).next_back();
        if let Some((&before, &its)) = before.filter(|(before, its)| **before + **its == offset) {
            self.stretches.remove(&before);
            (offset, len) = (before, its + len);
        }
        if let Some(its) = self.stretches.remove(&(offset + len)) {
            len += its;
        }
        self.stretches.insert(offset, len);
    }
}

/// What is free in all extents.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// By number, less one.
    extents: Vec<Option<Free>>,
}

impl Arena {
    /// Bytes that a block for so many takes; of more than can be counted, the most that can.
    pub(super) fn rounded(len: u64) -> u64 {
        let rounded = len.max(1).checked_next_multiple_of(GRAIN);
        rounded.unwrap_or(u64::MAX / GRAIN * GRAIN)
    }

    /// A block of at least `len` bytes, if an extent has room for it.
    pub(super) fn take(&mut self, len: u64) -> Option<Block> {
        let len = Self::rounded(len);
        self.extents.iter_mut().enumerate().find_map(|(at, slot)| {
            let free = slot.as_mut().filter(|free| free.left >= len)?;
            let offset = free.take(len)?;
            let extent = at as u8 + 1;
            Some(Block {
                place: Place { extent, offset },
                len,
            })
        })
    }

    /// Gives a block back; the extent's number if all of it is free now.
    pub(super) fn give_back(&mut self, block: Block) -> Option<u8> {
        let extent = block.place.extent;
        let free = self
            .extents
            .get_mut(usize::from(extent).wrapping_sub(1))?
            .as_mut()?;
        free.give_back(block.place.offset, block.len);
        (free.left == free.len).then_some(extent)
    }

    /// A number for another extent of `len` bytes; `None` if there are as many as there may be.
    pub(super) fn add(&mut self, len: u64, limit: usize) -> Option<u8> {
        let at = match self.extents.iter().position(Option::is_none) {
            Some(at) => at,
            None if self.extents.len() < limit => {
                self.extents.push(None);
                self.extents.len() - 1
            }
            None => return None,
        };
        self.extents[at] = Some(Free::new(len - len % GRAIN));
        Some(at as u8 + 1)
    }

    /// Lets go of an extent all of which is free.
    pub(super) fn remove(&mut self, extent: u8) {
        if let Some(slot) = self.extents.get_mut(usize::from(extent).wrapping_sub(1)) {
            *slot = None;
        }
    }

    /// Bytes of all extents.
    pub(super) fn len(&self) -> u64 {
        self.extents.iter().flatten().map(|free| free.len).sum()
    }

    /// Bytes given out.
    #[cfg(test)]
    fn used(&self) -> u64 {
        self.extents
            .iter()
            .flatten()
            .map(|free| free.len - free.left)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_travel_as_words() {
        let place = Place {
            extent: 64,
            offset: (1 << 55) + 12_345,
        };
        assert_eq!(Place::from_word(place.word()), place);
        assert_eq!(place.after(8).offset, place.offset + 8);
    }

    #[test]
    fn blocks_never_overlap_and_all_comes_back() {
        let mut arena = Arena::default();
        assert_eq!(arena.add(64 * 1024, 2), Some(1));
        assert_eq!(arena.add(16 * 1024, 2), Some(2));
        assert_eq!(arena.add(16 * 1024, 2), None);
        let mut given: Vec<Block> = Vec::new();
        let mut random = 1_u64;
        for _ in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let pick = random >> 33;
            if pick % 3 != 0 {
                if let Some(block) = arena.take(pick % 5_000) {
                    let apart = |other: &Block| {
                        other.place.extent != block.place.extent
                            || other.place.offset + other.len <= block.place.offset
                            || block.place.offset + block.len <= other.place.offset
                    };
                    assert!(given.iter().all(apart));
                    given.push(block);
                }
            } else if !given.is_empty() {
                let block = given.swap_remove(pick as usize % given.len());
                arena.give_back(block);
            }
            let used: u64 = given.iter().map(|block| block.len).sum();
            assert_eq!(arena.used(), used);
        }
        let mut whole = Vec::new();
        for block in given {
            whole.extend(arena.give_back(block));
        }
        assert!(whole.contains(&1) && whole.contains(&2));
        assert_eq!(
            arena.take(64 * 1024).map(|block| block.place.extent),
            Some(1)
        );
    }
}
