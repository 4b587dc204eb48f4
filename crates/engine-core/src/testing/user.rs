//! Work done without root's rights.

use std::path::Path;

use rustix::fs::{CWD, Gid, Uid};

/// The user and group that nobody is.
const NOBODY: u32 = 65534;

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Runs `work` as a user without any rights: in a thread of its own that gives root's away, and
/// with it all threads that it starts. Where the tests do not run as root it simply runs.
///
/// # Panics
/// If `work` panics, or the system refuses.
pub fn as_normal_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if is_root() {
                let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
                rustix::thread::set_thread_groups(&[]).unwrap();
                rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
                rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            }
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Gives a path to the user that [`as_normal_user`] works as.
///
/// # Panics
/// If the system refuses.
pub fn give_to_normal_user(path: impl AsRef<Path>) {
    if is_root() {
        let owner = (Some(Uid::from_raw(NOBODY)), Some(Gid::from_raw(NOBODY)));
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::chownat(CWD, path.as_ref(), owner.0, owner.1, flags).unwrap();
    }
}
