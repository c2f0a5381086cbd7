//! Programs built in other ways: children find their work in them, or nothing is started.
//!
//! Each test writes a small package that depends on this one, builds it and runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A package called `name` in the tests' own folder.
fn package(name: &str, manifest: &str, sources: &[(&str, &str)]) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("builds")
        .join(name);
    fs::create_dir_all(folder.join("src")).unwrap();
    let this = env!("CARGO_MANIFEST_DIR");
    let manifest = manifest.replace("THIS", this);
    let head = format!(
        "[package]\nname = {name:?}\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n"
    );
    fs::write(folder.join("Cargo.toml"), format!("{head}\n{manifest}")).unwrap();
    // The same versions as this package, which are there already.
    fs::copy(
        Path::new(this).join("Cargo.lock"),
        folder.join("Cargo.lock"),
    )
    .unwrap();
    for (file, text) in sources {
        fs::write(folder.join("src").join(file), text).unwrap();
    }
    folder
}

fn cargo(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO"))
        .args(arguments)
        .arg("--offline")
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.with_file_name("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap()
}

fn expect_done(output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.ends_with("done\n"),
        "{said}\n{complained}"
    );
}

const CALLS: &str = r#"
use multiproc::{JoinError, Process};

fn add(a: u64, b: u64) -> u64 {
    a + b
}

fn fragile(n: u32) -> u32 {
    assert!(n != 3, "{n} is bad");
    n
}

fn main() {
    assert_eq!(Process::spawn(add, (1, 2)).unwrap().join().unwrap(), 3);
    let nested = || Process::spawn(|n: u8| n, (9,)).unwrap().join().unwrap();
    assert_eq!(Process::spawn(nested, ()).unwrap().join().unwrap(), 9);
    match Process::spawn(fragile, (3,)).unwrap().join() {
        Err(JoinError::Panicked { message, location, .. }) => {
            assert_eq!(message, "3 is bad");
            assert!(location.contains("main.rs"), "{location}");
        }
        other => panic!("{other:?}"),
    }
    println!("done");
}
"#;

#[test]
fn optimised_stripped_and_without_unwinding() {
    let manifest = r#"
[dependencies]
multiproc = { path = "THIS" }

[profile.release]
lto = "fat"
codegen-units = 1
strip = true
panic = "abort"
"#;
    let folder = package("optimised", manifest, &[("main.rs", CALLS)]);
    expect_done(&cargo(&folder, &["run", "--release"]));
}

#[test]
fn without_the_hook() {
    let manifest = r#"
[dependencies]
multiproc = { path = "THIS", default-features = false }
"#;
    let main = r#"
use multiproc::{Process, SpawnError};

fn main() {
    if std::env::args().any(|argument| argument == "init") {
        multiproc::init();
        assert_eq!(Process::spawn(|n: u8| n, (9,)).unwrap().join().unwrap(), 9);
    } else {
        let refused = Process::spawn(|n: u8| n, (9,)).unwrap_err();
        assert!(matches!(refused, SpawnError::NotInitialised), "{refused:?}");
    }
    println!("done");
}
"#;
    let folder = package("hookless", manifest, &[("main.rs", main)]);
    expect_done(&cargo(&folder, &["run"]));
    expect_done(&cargo(&folder, &["run", "--", "init"]));
}

#[test]
fn two_copies_in_one_program() {
    // Another copy of this package is a folder of links to it.
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("builds")
        .join("copy");
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
        let name = entry.file_name();
        if name == "Cargo.toml" {
            // Cargo tells packages of one name apart by their version.
            let own = format!("version = {:?}", env!("CARGO_PKG_VERSION"));
            let text = fs::read_to_string(entry.path()).unwrap();
            let text = text.replacen(&own, "version = \"0.0.1\"", 1);
            fs::write(copy.join(name), text).unwrap();
        } else if name != "target" && name != ".git" {
            // It is there from the last time.
            let _ = std::os::unix::fs::symlink(entry.path(), copy.join(name));
        }
    }
    let manifest = r#"
[dependencies]
one = { package = "multiproc", path = "THIS" }
two = { package = "multiproc", path = "../copy" }
"#;
    let main = r#"
fn one_more(n: u32) -> u32 {
    one::Process::spawn(|n: u32| n + 1, (n,)).unwrap().join().unwrap()
}

fn main() {
    assert_eq!(one_more(1), 2);
    assert_eq!(two::Process::spawn(|n: u32| n + 2, (1,)).unwrap().join().unwrap(), 3);
    assert_eq!(two::Process::spawn(one_more, (4,)).unwrap().join().unwrap(), 5);
    println!("done");
}
"#;
    let folder = package("twice", manifest, &[("main.rs", main)]);
    expect_done(&cargo(&folder, &["run"]));
}

#[test]
fn inside_a_loaded_library() {
    let manifest = r#"
[lib]
crate-type = ["cdylib"]

[dependencies]
multiproc = { path = "THIS" }
"#;
    let library = r#"
#[unsafe(no_mangle)]
pub extern "C" fn is_refused() -> bool {
    let child = multiproc::Process::spawn(|n: u8| n, (9,));
    matches!(child, Err(multiproc::SpawnError::NotInitialised))
}
"#;
    // A program that knows nothing of this crate.
    let main = r#"
use std::ffi::{CString, c_char, c_int, c_void};

unsafe extern "C" {
    fn dlopen(path: *const c_char, flags: c_int) -> *mut c_void;
    fn dlsym(library: *mut c_void, name: *const c_char) -> *mut c_void;
}

fn main() {
    let path = std::env::current_exe().unwrap().with_file_name("libloaded.so");
    let path = CString::new(path.to_str().unwrap()).unwrap();
    let is_refused: extern "C" fn() -> bool = unsafe {
        let library = dlopen(path.as_ptr(), 2);
        assert!(!library.is_null());
        std::mem::transmute(dlsym(library, c"is_refused".as_ptr()))
    };
    assert!(is_refused());
    println!("done");
}
"#;
    let folder = package(
        "loaded",
        manifest,
        &[("lib.rs", library), ("main.rs", main)],
    );
    expect_done(&cargo(&folder, &["run"]));
}

#[test]
fn a_function_that_captures_is_refused_when_compiling() {
    let manifest = r#"
[dependencies]
multiproc = { path = "THIS" }
"#;
    let refused = |name: &str, main: &str| {
        let folder = package(name, manifest, &[("main.rs", main)]);
        let output = cargo(&folder, &["build"]);
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let capturing = "fn main() { let n = 3; let _ = multiproc::Process::spawn(move || n, ()); }";
    let said = refused("capturing", capturing);
    assert!(said.contains("must not capture anything"), "{said}");
    assert!(said.contains("Pass what it needs as an argument"), "{said}");

    let pointer = "fn f() {} fn main() { let _ = multiproc::Process::spawn(f as fn(), ()); }";
    let said = refused("pointer", pointer);
    assert!(
        said.contains("give the function itself, not a pointer to it"),
        "{said}"
    );

    let said = refused(
        "misfit",
        "fn main() { let _ = multiproc::Process::spawn((), ()); }",
    );
    assert!(
        said.contains("is not a function that a process can call with the arguments"),
        "{said}"
    );
}
