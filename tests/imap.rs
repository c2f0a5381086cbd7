//! The iterator of `imap` as a value: it has a name, goes to other threads, and can keep its pool.

#![cfg(not(loom))]

use std::cell::RefCell;
use std::ops::Range;
use std::sync::{Arc, Weak};

use multiproc::{Imap, Items, Pool, TaskError};

fn square(x: u64) -> u64 {
    x * x
}

/// Two pools in one struct, one of them kept by its results.
struct Both<'p> {
    lent: Imap<'p, <Vec<u64> as Items<u64>>::Source, u64, u64>,
    kept: Imap<'static, <Range<u64> as Items<u64>>::Source, u64, u64>,
}

#[test]
fn its_type_can_be_written_down() {
    let pool = Pool::new(1).unwrap();
    let both = Both {
        lent: pool.imap(square, vec![1, 2, 3]),
        kept: Arc::new(Pool::new(1).unwrap()).into_imap_unordered(|x: u64| x + 1, 0..3),
    };
    let lent: Result<Vec<_>, _> = both.lent.collect();
    assert_eq!(lent.unwrap(), [1, 4, 9]);
    let mut kept: Vec<_> = both.kept.map(Result::unwrap).collect();
    kept.sort_unstable();
    assert_eq!(kept, [1, 2, 3]);
}

#[test]
fn one_that_keeps_its_pool_goes_to_another_thread_and_ends_it() {
    let pool = Arc::new(Pool::new(2).unwrap());
    let weak: Weak<Pool> = Arc::downgrade(&pool);
    let mut results = pool.into_imap(square, 0..);
    assert_eq!(results.next().unwrap().unwrap(), 0);
    let rest = std::thread::spawn(move || {
        let next: Result<Vec<u64>, TaskError> = results.by_ref().take(3).collect();
        (next, results)
    });
    let (next, results) = rest.join().unwrap();
    assert_eq!(next.unwrap(), [1, 4, 9]);
    assert!(weak.upgrade().is_some());
    // With all that it had sent ahead.
    drop(results);
    assert!(weak.upgrade().is_none());
}

/// Its type follows that of the items: those that stay on a thread keep it there, and may borrow.
#[test]
fn items_of_one_thread_and_of_a_borrow() {
    let pool = Arc::new(Pool::new(1).unwrap());
    let left = RefCell::new(vec![3_u64, 2, 1]);
    let items = std::iter::from_fn(|| left.borrow_mut().pop());
    let results: Vec<_> = Arc::clone(&pool)
        .into_imap(square, items)
        .map(Result::unwrap)
        .collect();
    assert_eq!(results, [1, 4, 9]);
    let words = ["a".to_owned(), "bcd".to_owned()];
    let lengths = pool.imap(|word: String| word.len(), &words);
    assert_eq!(lengths.map(Result::unwrap).collect::<Vec<_>>(), [1, 3]);
}
