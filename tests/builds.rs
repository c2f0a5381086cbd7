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
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
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

/// Writes the package of a program that has statics of C++, one of them in a library, and plugins that enter
/// themselves before `main`; what its children see of them is what it sees, and their panics are reported.
fn constructed() -> PathBuf {
    let manifest = r#"
[dependencies]
multiproc = { path = "THIS" }
inventory = "0.3"

# In which order constructors come is the linker's doing; how well the code is made does not matter to it.
[profile.release]
opt-level = 0
"#;
    let build = r#"
use std::path::Path;
use std::process::Command;

fn compile(arguments: &[&str]) {
    assert!(Command::new("c++").args(arguments).status().unwrap().success());
}

fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    let at = |name: &str| Path::new(&out).join(name).to_str().unwrap().to_owned();
    compile(&["-fPIC", "-O1", "-c", "src/statics.cpp", "-o", &at("statics.o")]);
    println!("cargo:rustc-link-arg={}", at("statics.o"));
    println!("cargo:rustc-check-cfg=cfg(shared)");
    let of_target = |what: &str| std::env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    // The programs of one C library are static unless something else is said, and cargo does not tell.
    let is_static = of_target("FEATURE").contains("crt-static") || of_target("ENV") == "musl";
    if !is_static {
        compile(&["-fPIC", "-O1", "-shared", "-Dcounted=shared_counted", "src/statics.cpp", "-o", &at("libshared.so")]);
        println!("cargo:rustc-link-search=native={out}");
        println!("cargo:rustc-link-lib=dylib=shared");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{out}");
        println!("cargo:rustc-cfg=shared");
    }
}
"#;
    let statics = r#"
static volatile int seed = 41;

struct Counter {
    int value;
    Counter() : value(seed + 1) {}
};

static Counter counter;

extern "C" int counted(void) { return counter.value; }
"#;
    let main = r#"
use multiproc::{JoinError, Pool, Process, StartMethod};

unsafe extern "C" {
    fn counted() -> i32;
    #[cfg(shared)]
    fn shared_counted() -> i32;
}

struct Plugin(&'static str);

inventory::collect!(Plugin);
inventory::submit! { Plugin("one") }
inventory::submit! { Plugin("two") }

fn seen() -> (i32, i32, Vec<String>) {
    let mut plugins: Vec<String> = inventory::iter::<Plugin>().map(|one| one.0.to_owned()).collect();
    plugins.sort();
    #[cfg(shared)]
    let shared = unsafe { shared_counted() };
    #[cfg(not(shared))]
    let shared = 42;
    (unsafe { counted() }, shared, plugins)
}

fn fragile(n: u32) -> u32 {
    assert!(n != 3, "{n} is bad");
    n
}

fn main() {
    let here = (42, 42, vec!["one".to_owned(), "two".to_owned()]);
    assert_eq!(seen(), here);
    for method in [StartMethod::Exec, StartMethod::Zygote] {
        let child = Process::builder().start_method(method).spawn(seen, ()).unwrap();
        assert_eq!(child.join().unwrap(), here, "{method:?}");
    }
    let nested = || Process::spawn(seen, ()).unwrap().join().unwrap();
    assert_eq!(Process::spawn(nested, ()).unwrap().join().unwrap(), here);
    assert_eq!(Pool::new(1).unwrap().apply(seen, ()).unwrap(), here);
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
    let files = [
        ("main.rs", main),
        ("../build.rs", build),
        ("statics.cpp", statics),
    ];
    package("constructed", manifest, &files)
}

// Not profiles of their own, for each of which all that runs when compiling would be built again.
const THIN: &[&str] = &["--config", "profile.release.lto='thin'"];
const FAT: &[&str] = &[
    "--config",
    "profile.release.lto='fat'",
    "--config",
    "profile.release.codegen-units=1",
];
/// All that is done to a program before it is shipped; and nobody can unwind.
const SHIPPED: &[&str] = &[
    "--config",
    "profile.release.opt-level=3",
    "--config",
    "profile.release.strip=true",
    "--config",
    "profile.release.panic='abort'",
];

#[test]
fn constructors_that_come_later_run_in_children() {
    let folder = constructed();
    expect_done(&cargo(&folder, &["run"]));
    let shipped = [FAT, SHIPPED].concat();
    for flags in [&[], THIN, &shipped] {
        expect_done(&cargo(&folder, &[&["run", "--release"], flags].concat()));
    }
}

#[test]
fn constructors_of_static_programs_run_in_children() {
    let folder = constructed();
    let said = Command::new("rustc")
        .args(["-vV", "--print=target-libdir"])
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let host = said
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .unwrap();
    // Not moved when it is loaded, unlike that of the other C library below.
    let flags = "build.rustflags=['-Ctarget-feature=+crt-static', '-Crelocation-model=static']";
    expect_done(&cargo(
        &folder,
        &["run", "--release", "--target", host, "--config", flags],
    ));
    let musl = host.replace("-gnu", "-musl");
    let there = Command::new("rustc")
        .args(["--print=target-libdir", "--target", &musl])
        .output();
    let folder_of = |output: Output| String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if there.is_ok_and(|output| Path::new(&folder_of(output)).is_dir()) {
        let run = ["run", "--release", "--target", &musl];
        expect_done(&cargo(&folder, &[&run, FAT].concat()));
    } else {
        eprintln!("not shown for musl: the target {musl} is not installed");
    }
}

#[test]
fn inside_a_host_that_reads_scripts() {
    let python = Command::new("python3")
        .args(["-c", "import ctypes"])
        .status();
    if !python.is_ok_and(|status| status.success()) {
        eprintln!("not shown: there is no python3 with ctypes");
        return;
    }
    let manifest = r#"
[lib]
crate-type = ["cdylib"]

[dependencies]
multiproc = { path = "THIS" }
"#;
    let library = r#"
use multiproc::{Process, StartMethod};

#[unsafe(no_mangle)]
pub extern "C" fn start() {
    multiproc::init();
}

#[unsafe(no_mangle)]
pub extern "C" fn run() -> i32 {
    let child = Process::builder().start_method(StartMethod::Exec).spawn(|n: u32| n + 1, (4,));
    match child.map_err(|error| error.to_string()).and_then(|child| child.join().map_err(|error| error.to_string())) {
        Ok(5) => 0,
        Ok(_) => 1,
        Err(error) => {
            eprintln!("{error}");
            2
        }
    }
}
"#;
    let folder = package("hosted", manifest, &[("lib.rs", library)]);
    let built = cargo(&folder, &["build"]);
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let library = folder.with_file_name("target").join("debug/libhosted.so");
    let script = format!(
        "import ctypes\nlibrary = ctypes.CDLL({:?})\nlibrary.start()\nprint(library.run(), flush=True)\n",
        library.to_str().unwrap()
    );
    let file = folder.join("script.py");
    fs::write(&file, &script).unwrap();
    // Whatever it does, it ends.
    let host = |arguments: &[&str], input: fs::File| {
        let output = Command::new("timeout")
            .args(["-s", "KILL", "120", "python3"])
            .args(arguments)
            .stdin(input)
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    };
    let nothing = fs::File::open("/dev/null").unwrap();
    let (said, complained) = host(&[file.to_str().unwrap()], nothing);
    assert_eq!((said.as_str(), complained.as_str()), ("0\n", ""));
    let (said, complained) = host(&["-"], fs::File::open(&file).unwrap());
    assert_eq!(said, "2\n", "{complained}");
    assert!(
        complained.contains("when the host program loads it"),
        "{complained}"
    );
    assert!(
        complained.contains("not from standard input"),
        "{complained}"
    );
}
