//! Where the bytes of a message go.

/// Takes the bytes of one message in order.
///
/// What finds no room is dropped, from the first byte that does not fit on: the bytes taken are always a
/// prefix of the message. [`encode`](super::encode) counts all of them, so its caller compares that with
/// the room it gave, and throws a prefix away.
pub(crate) trait Sink {
    /// Takes the next bytes.
    fn put(&mut self, bytes: &[u8]);

    /// Takes the first `size` bytes, at most eight, of `word` as it lies in memory; its other bytes are zero.
    ///
    /// A number comes this way, so a sink made of words stores it whole.
    #[inline(always)]
    fn put_word(&mut self, word: u64, size: usize) {
        self.put(&word.to_ne_bytes()[..size]);
    }
}

/// Holds nothing: for the size of a message before there is a place for it.
#[derive(Debug, Default)]
pub(crate) struct Count;

impl Sink for Count {
    #[inline(always)]
    fn put(&mut self, _: &[u8]) {}
}

/// Grows as needed, after what is there.
impl Sink for Vec<u8> {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Becomes the room that is left, like [`std::io::Write`] for a slice.
impl Sink for &mut [u8] {
    #[inline(always)]
    fn put(&mut self, bytes: &[u8]) {
        let room = std::mem::take(self);
        if bytes.len() <= room.len() {
            let (taken, left) = room.split_at_mut(bytes.len());
            taken.copy_from_slice(bytes);
            *self = left;
        } else {
            room.copy_from_slice(&bytes[..room.len()]);
        }
    }
}

/// Puts bytes whose number is known when compiling: up to eight of them as one word.
#[inline(always)]
pub(super) fn put_known<S: Sink>(sink: &mut S, bytes: &[u8]) {
    if bytes.len() <= 8 {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        sink.put_word(u64::from_ne_bytes(word), bytes.len());
    } else {
        sink.put(bytes);
    }
}
