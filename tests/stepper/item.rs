//! Messages that can be told from each other and from torn ones.

use multiproc::Message;

/// A message made of a number, every byte of it.
pub(crate) trait Item: Message {
    fn of(number: u64) -> Self;

    /// Its number; panics if it is torn.
    fn number(&self) -> u64;
}

impl Item for u64 {
    fn of(number: u64) -> u64 {
        number
    }

    fn number(&self) -> u64 {
        *self
    }
}

impl Item for [u64; 6] {
    fn of(number: u64) -> Self {
        [number; 6]
    }

    fn number(&self) -> u64 {
        assert_eq!(*self, [self[0]; 6], "torn");
        self[0]
    }
}

impl Item for String {
    fn of(number: u64) -> String {
        format!("{number} ").repeat(3 + number as usize % 4)
    }

    fn number(&self) -> u64 {
        let number = self.split(' ').next().and_then(|word| word.parse().ok());
        let number = number.unwrap_or_else(|| panic!("torn: {self:?}"));
        assert_eq!(*self, String::of(number), "torn");
        number
    }
}

/// Lies in a block.
impl Item for Vec<u64> {
    fn of(number: u64) -> Vec<u64> {
        vec![number; 2 + number as usize % 4]
    }

    fn number(&self) -> u64 {
        let number = *self.first().expect("torn: no words");
        assert_eq!(*self, Vec::of(number), "torn");
        number
    }
}

/// Longer than a slot: it lies in an annex.
impl Item for Vec<u32> {
    fn of(number: u64) -> Vec<u32> {
        vec![number as u32; 20 + number as usize % 4]
    }

    fn number(&self) -> u64 {
        let number = u64::from(*self.first().expect("torn: no words"));
        assert_eq!(*self, Vec::<u32>::of(number), "torn");
        number
    }
}

/// Larger than a small pipe: it streams.
impl Item for Vec<u8> {
    fn of(number: u64) -> Vec<u8> {
        let words = (0..1_200 + number % 4).map(|n| number ^ n << 32);
        words.flat_map(u64::to_le_bytes).collect()
    }

    fn number(&self) -> u64 {
        let number = self.first_chunk().expect("torn: no words");
        let number = u64::from_le_bytes(*number);
        assert!(*self == Vec::<u8>::of(number), "torn");
        number
    }
}
