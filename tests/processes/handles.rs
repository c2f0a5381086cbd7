//! Segments travel in arguments and results.

use multiproc::{Process, Segment};

use crate::help::tests;

tests![in_arguments, in_results, many_at_once];

fn in_arguments() {
    let segment = Segment::new(4096).unwrap();
    let child = Process::spawn(|given: Segment| given.len(), (segment,)).unwrap();
    assert_eq!(child.join().unwrap(), 4096);
}

fn in_results() {
    let child = Process::spawn(|| Segment::new(8192).unwrap(), ()).unwrap();
    assert_eq!(child.join().unwrap().len(), 8192);
}

fn many_at_once() {
    let segments: Vec<_> = (1..=40).map(|n| Segment::new(n * 8).unwrap()).collect();
    let reversed = |given: Vec<Segment>| given.into_iter().rev().collect::<Vec<_>>();
    let back = Process::spawn(reversed, (segments,))
        .unwrap()
        .join()
        .unwrap();
    let sizes: Vec<_> = back.iter().map(Segment::len).collect();
    assert_eq!(sizes, (1..=40).rev().map(|n| n * 8).collect::<Vec<_>>());
}
