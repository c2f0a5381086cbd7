//! What a pool's calls take their items from.

use crate::frozen::Frozen;

/// Items for a pool's calls: anything that can be iterated over.
pub trait Items<A> {
    /// Gives them one after another.
    fn items(self) -> impl Iterator<Item = A>;
}

impl<A, I: IntoIterator<Item = A>> Items<A> for I {
    fn items(self) -> impl Iterator<Item = A> {
        self.into_iter()
    }
}

/// The items of a frozen array, each copied to the workers.
impl<A: Clone> Items<A> for &Frozen<A> {
    fn items(self) -> impl Iterator<Item = A> {
        self.iter().cloned()
    }
}
