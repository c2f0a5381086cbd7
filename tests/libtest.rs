//! Children find their work from under the ordinary test harness too.

use multiproc::{JoinError, Process, Stdio};

fn add(a: u64, b: u64) -> u64 {
    a + b
}

#[test]
fn a_function_runs_in_a_child() {
    let child = Process::spawn(add, (20, 22)).unwrap();
    assert_eq!(child.join().unwrap(), 42);
}

#[test]
fn a_panic_comes_back() {
    let child = Process::builder()
        .stderr(Stdio::Null)
        .spawn(|| panic!("as planned"), ());
    let error = child
        .map(|child: multiproc::Child<()>| child.join())
        .unwrap()
        .unwrap_err();
    assert!(
        matches!(&error, JoinError::Panicked { message, .. } if message == "as planned"),
        "{error:?}"
    );
}

#[test]
fn a_child_starts_a_child() {
    let nested = || Process::spawn(add, (1, 2)).unwrap().join().unwrap();
    assert_eq!(Process::spawn(nested, ()).unwrap().join().unwrap(), 3);
}
