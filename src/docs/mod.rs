//! Long answers: how a message travels, why the orderings suffice, what death leaves behind.
//!
//! | page | question |
//! |---|---|
//! | [`walk`] | What happens between `pool.map(square, [1, 2, 3])` and its result? |
//! | [`ordering`] | Which stores must be seen before which, and who guarantees it? |
//! | [`death`] | Who can die where, and what do the others see? |
//! | [`trust`] | What may another process do to this one through shared memory? |
//! | [`limits`] | What does this crate not do, and what to use instead? |

pub mod death;
pub mod limits;
pub mod ordering;
pub mod trust;
pub mod walk;
