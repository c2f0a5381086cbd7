//! Messages as 64-bit words: what a slot is made of.

use crate::message::Sink;
use crate::sync::{AtomicU64, Ordering};

/// Stores a message's bytes into the words of a slot.
#[derive(Debug)]
pub(super) struct Fill<'a> {
    words: &'a [AtomicU64],
    /// The word being filled, its first byte in memory the lowest of the number, and how many bytes
    /// it has.
    word: u64,
    bytes: usize,
}

impl<'a> Fill<'a> {
    #[inline]
    pub(super) fn new(words: &'a [AtomicU64]) -> Fill<'a> {
        Fill {
            words,
            word: 0,
            bytes: 0,
        }
    }

    /// Stores what has not filled a word yet, padded with zeroes.
    #[inline]
    pub(super) fn finish(self) {
        if let Some(word) = self.words.first().filter(|_| self.bytes > 0) {
            word.store(self.word.to_le(), Ordering::Relaxed);
        }
    }

    #[inline]
    fn store(&mut self, word: u64) {
        // What finds no room is dropped; the caller compares lengths.
        if let Some((first, rest)) = self.words.split_first() {
            first.store(word, Ordering::Relaxed);
            self.words = rest;
        }
    }
}

impl Sink for Fill<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        // First the word that is begun, then whole words, then what is left.
        let begun = bytes.len().min((8 - self.bytes) % 8);
        let (begun, bytes) = bytes.split_at(begun);
        let word = |bytes: &[u8]| {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_ne_bytes(word)
        };
        self.put_word(word(begun), begun.len());
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % 8);
        let fits = (whole.len() / 8).min(self.words.len());
        let (now, later) = self.words.split_at(fits);
        for (to, bytes) in now.iter().zip(whole.chunks_exact(8)) {
            to.store(word(bytes), Ordering::Relaxed);
        }
        self.words = later;
        self.put_word(word(rest), rest.len());
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        let word = u64::from_le(word);
        let begun = self.bytes;
        self.word |= word << (8 * begun);
        self.bytes += size;
        if self.bytes >= 8 {
            self.store(self.word.to_le());
            self.bytes -= 8;
            // What found no room in it; nothing where it was not begun.
            self.word = word.checked_shr(8 * (8 - begun as u32)).unwrap_or(0);
        }
    }
}

/// Copies words out of a slot; the copy may be torn and means nothing until the message is taken.
#[inline]
pub(super) fn copy(from: &[AtomicU64], to: &mut [u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_land_in_order_however_they_are_cut() {
        let bytes: Vec<u8> = (1..=40).collect();
        for cut in 0..=40 {
            for second in cut..=40 {
                let words: Vec<AtomicU64> = (0..5).map(|_| AtomicU64::new(u64::MAX)).collect();
                let mut fill = Fill::new(&words);
                fill.put(&bytes[..cut]);
                fill.put(&bytes[cut..second]);
                fill.put(&bytes[second..]);
                fill.finish();
                let mut found = [0; 5];
                copy(&words, &mut found);
                assert_eq!(bytemuck::cast_slice::<u64, u8>(&found), bytes);
            }
        }
    }

    #[test]
    fn a_number_after_bytes_and_a_tail_are_padded_with_zeroes() {
        let words: Vec<AtomicU64> = (0..2).map(|_| AtomicU64::new(u64::MAX)).collect();
        let mut fill = Fill::new(&words);
        fill.put(&[1]);
        fill.put_word(u64::from_ne_bytes([2, 3, 4, 5, 6, 7, 8, 9]), 8);
        fill.put_word(u64::from_ne_bytes([10, 11, 0, 0, 0, 0, 0, 0]), 2);
        fill.finish();
        let mut found = [0; 2];
        copy(&words, &mut found);
        let bytes: [u8; 16] = bytemuck::cast(found);
        assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn numbers_land_in_order_wherever_a_word_is_begun() {
        for before in 0..8 {
            for size in 1..=8 {
                let words: Vec<AtomicU64> = (0..3).map(|_| AtomicU64::new(u64::MAX)).collect();
                let mut expected: Vec<u8> = vec![7; before];
                let mut fill = Fill::new(&words);
                fill.put(&expected);
                for number in [1_u8, 9] {
                    let mut bytes = [0; 8];
                    (0..size).for_each(|n| bytes[n] = number + n as u8);
                    fill.put_word(u64::from_ne_bytes(bytes), size);
                    expected.extend(&bytes[..size]);
                }
                fill.finish();
                let mut found = [0; 3];
                copy(&words, &mut found);
                let found = bytemuck::cast_slice::<u64, u8>(&found);
                assert_eq!(found[..expected.len()], expected);
                let padding = expected.len().next_multiple_of(8);
                assert!(found[expected.len()..padding].iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped() {
        let words = [AtomicU64::new(0)];
        let mut fill = Fill::new(&words);
        fill.put(&[7; 20]);
        fill.finish();
        assert_eq!(words[0].load(Ordering::Relaxed), u64::from_ne_bytes([7; 8]));
    }
}
