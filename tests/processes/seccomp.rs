//! Filters of system calls, as containers have them.

use nix::libc;

/// What a filter does with one system call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    call: libc::c_long,
    /// Only if the first argument has one of these bits.
    bits: Option<u32>,
    errno: i32,
}

impl Filter {
    /// Refuses a system call.
    pub(crate) const fn refuse(call: libc::c_long, errno: i32) -> Filter {
        let bits = None;
        Filter { call, bits, errno }
    }

    /// Refuses it if its first argument has one of these bits.
    pub(crate) const fn refuse_bits(call: libc::c_long, bits: u32, errno: i32) -> Filter {
        let bits = Some(bits);
        Filter { call, bits, errno }
    }
}

/// From now on the calling thread, and whatever it makes, is refused those; all else is allowed.
pub(crate) fn install(filters: &[Filter]) -> nix::Result<()> {
    let statement = |code: u32, k: u32| jump(code, k, 0, 0);
    let jump_if = |code: u32, k: u32, no: u8| jump(libc::BPF_JMP | libc::BPF_K | code, k, 0, no);
    fn jump(code: u32, k: u32, yes: u8, no: u8) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt: yes,
            jf: no,
            k,
        }
    }
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let first_argument = if cfg!(target_endian = "little") {
        16
    } else {
        20
    };
    let mut program = Vec::new();
    for filter in filters {
        let answer = libc::SECCOMP_RET_ERRNO | filter.errno as u32;
        program.push(statement(load, 0));
        let skipped = if filter.bits.is_some() { 3 } else { 1 };
        program.push(jump_if(libc::BPF_JEQ, filter.call as u32, skipped));
        if let Some(bits) = filter.bits {
            program.push(statement(load, first_argument));
            program.push(jump_if(libc::BPF_JSET, bits, 1));
        }
        program.push(statement(libc::BPF_RET | libc::BPF_K, answer));
    }
    let allow = libc::SECCOMP_RET_ALLOW;
    program.push(statement(libc::BPF_RET | libc::BPF_K, allow));
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    if !nix::unistd::geteuid().is_root() {
        nix::sys::prctl::set_no_new_privs()?;
    }
    const MODE_FILTER: libc::c_ulong = libc::SECCOMP_MODE_FILTER as libc::c_ulong;
    // SAFETY: the kernel reads a program of that length, which lives until the call returns.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, MODE_FILTER, &raw const program) };
    nix::Error::result(done).map(drop)
}
