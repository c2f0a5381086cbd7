//! How the running program was started, and whether its start may be repeated.
//!
//! # Why this file may use `unsafe`
//!
//! It asks the C library for one word that the kernel gave the program at its start.

#![allow(unsafe_code)]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::libc;

use super::Image;

/// Whether this program may not obey whoever started it: it has rights that its caller does not have.
///
/// That is so for set-user-ID and set-group-ID programs, for those with file capabilities, and while the
/// real and the effective IDs differ (a program that is executed then is such a program).
pub(crate) fn is_privileged_start() -> bool {
    // SAFETY: the call has no conditions; a number that the kernel did not give is 0.
    let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
    secure
        || rustix::process::getuid() != rustix::process::geteuid()
        || rustix::process::getgid() != rustix::process::getegid()
}

/// The file that was executed and the file of the program, where they differ: the program was started as
/// an argument of its loader.
pub(crate) fn loader_of(program: &Image, executed: &str) -> Option<(PathBuf, PathBuf)> {
    let address = program.constants.first()?.start;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let mapped = maps
        .split(|byte| *byte == b'\n')
        .find_map(|line| mapped_file(std::str::from_utf8(line).ok()?, address))?;
    let loader = std::fs::read_link(executed).ok()?;
    let same_file = |status: std::fs::Metadata| {
        let device = (libc::major(status.dev()), libc::minor(status.dev()));
        (device, status.ino()) == (mapped.device, mapped.inode)
    };
    // Either may be untrue where one file system lies over another, but not both.
    if loader == mapped.path || std::fs::metadata(executed).is_ok_and(same_file) {
        return None;
    }
    Some((loader, mapped.path))
}

struct MappedFile {
    device: (libc::c_uint, libc::c_uint),
    inode: u64,
    path: PathBuf,
}

/// The file of a line of `maps`, if that address lies there.
fn mapped_file(line: &str, address: usize) -> Option<MappedFile> {
    // 55d0c0e00000-55d0c0e21000 r-xp 00002000 fe:00 1234    /the/path
    let mut fields = line.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let bound = |text| usize::from_str_radix(text, 16).ok();
    if !(bound(start)?..bound(end)?).contains(&address) {
        return None;
    }
    let (major, minor) = fields.nth(2)?.split_once(':')?;
    let number = |text| u32::from_str_radix(text, 16).ok();
    Some(MappedFile {
        device: (number(major)?, number(minor)?),
        inode: fields.next()?.parse().ok()?,
        path: Path::new(fields.next()?.trim_start()).to_path_buf(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = "1000-3000 r-xp 00002000 fe:01 1234                       /a path/with blanks";
        let file = mapped_file(line, 0x2fff).unwrap();
        assert_eq!((file.device, file.inode), ((0xfe, 1), 1234));
        assert_eq!(file.path, Path::new("/a path/with blanks"));
        assert!(mapped_file(line, 0x3000).is_none());
        assert!(mapped_file("1000-3000 r-xp 0 00:00 0", 0x1000).is_none());
        assert!(mapped_file("", 0).is_none());
    }
}
