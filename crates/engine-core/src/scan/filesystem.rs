//! Which file systems hold files, and which only show what the kernel does.

use std::io;
use std::os::fd::AsFd;

/// `linux/magic.h`: file systems whose files are made up when they are read. Some never end
/// (`/proc/kcore` is as large as the address space), none can be restored.
const MADE_UP: [u64; 22] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0xcafe_4a11, // bpf
    0x7363_6673, // securityfs
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0x6573_5543, // fusectl
    0x1980_0202, // mqueue
    0x6759_6969, // rpc_pipefs
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0xde5e_81e4, // efivarfs
    0x6c6f_6f70, // binder
    0x6e66_7364, // nfsd
    0x0765_5821, // resctrl
];

/// Whether an open file is on a file system that the kernel makes up.
pub fn is_made_up(fd: impl AsFd) -> io::Result<bool> {
    let kind = rustix::fs::fstatfs(fd)?.f_type;
    // The type is signed or not, by the architecture; the numbers are of 32 bits.
    #[allow(clippy::cast_lossless, clippy::unnecessary_cast)]
    let kind = kind as u64 & 0xffff_ffff;
    Ok(MADE_UP.contains(&kind))
}
