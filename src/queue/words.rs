//! Messages as 64-bit words: what a slot is made of.

use crate::message::Sink;
use crate::sync::{AtomicU64, Ordering};

/// Stores a message's bytes into the words of a slot.
#[derive(Debug)]
pub(super) struct Fill<'a> {
    words: &'a [AtomicU64],
    /// The word being filled, and how many bytes it has.
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
            word.store(self.word, Ordering::Relaxed);
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

    #[inline]
    fn put_byte(&mut self, byte: u8) {
        let mut word = self.word.to_ne_bytes();
        word[self.bytes] = byte;
        self.word = u64::from_ne_bytes(word);
        self.bytes += 1;
        if self.bytes == 8 {
            let word = self.word;
            self.store(word);
            (self.word, self.bytes) = (0, 0);
        }
    }
}

impl Sink for Fill<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        // First the word that is begun, then whole words, then what is left.
        let begun = bytes.len().min((8 - self.bytes) % 8);
        let (begun, bytes) = bytes.split_at(begun);
        begun.iter().for_each(|&byte| self.put_byte(byte));
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % 8);
        let fits = (whole.len() / 8).min(self.words.len());
        let (now, later) = self.words.split_at(fits);
        for (word, bytes) in now.iter().zip(whole.chunks_exact(8)) {
            let mut copy = [0; 8];
            copy.copy_from_slice(bytes);
            word.store(u64::from_ne_bytes(copy), Ordering::Relaxed);
        }
        self.words = later;
        for &byte in rest {
            self.put_byte(byte);
        }
    }

    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        if self.bytes == 0 && size == 8 {
            self.store(word);
        } else if self.bytes == 0 {
            (self.word, self.bytes) = (word, size);
        } else {
            self.put(&word.to_ne_bytes()[..size]);
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
    fn what_finds_no_room_is_dropped() {
        let words = [AtomicU64::new(0)];
        let mut fill = Fill::new(&words);
        fill.put(&[7; 20]);
        fill.finish();
        assert_eq!(words[0].load(Ordering::Relaxed), u64::from_ne_bytes([7; 8]));
    }
}
