//! Names of users and groups, asked of the system once each: an answer may come from a server.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::hash::Hash;
use std::mem::MaybeUninit;
use std::ptr;

use parking_lot::RwLock;

/// A cache over the system's user and group databases, both ways. Shared between threads.
#[derive(Debug, Default)]
pub struct Names {
    users: RwLock<HashMap<u32, Option<String>>>,
    groups: RwLock<HashMap<u32, Option<String>>>,
    user_ids: RwLock<HashMap<String, Option<u32>>>,
    group_ids: RwLock<HashMap<String, Option<u32>>>,
}

impl Names {
    pub fn new() -> Self {
        Self::default()
    }

    /// `None` where nobody has the number, or the name is no UTF-8.
    pub fn user(&self, uid: u32) -> Option<String> {
        cached(&self.users, &uid, || user_name(uid))
    }

    pub fn group(&self, gid: u32) -> Option<String> {
        cached(&self.groups, &gid, || group_name(gid))
    }

    pub fn user_id(&self, name: &str) -> Option<u32> {
        cached(&self.user_ids, name, || user_number(name))
    }

    pub fn group_id(&self, name: &str) -> Option<u32> {
        cached(&self.group_ids, name, || group_number(name))
    }
}

fn cached<K, Q, V>(
    cache: &RwLock<HashMap<K, Option<V>>>,
    key: &Q,
    ask: impl Fn() -> Option<V>,
) -> Option<V>
where
    K: Eq + Hash + std::borrow::Borrow<Q>,
    Q: Eq + Hash + ToOwned<Owned = K> + ?Sized,
    V: Clone,
{
    if let Some(known) = cache.read().get(key) {
        return known.clone();
    }
    let answer = ask();
    cache.write().insert(key.to_owned(), answer.clone());
    answer
}

/// Room for one record at first, and at most.
const RECORD: usize = 1 << 10;
const RECORD_MAX: usize = 1 << 20;

/// Calls one of the `get…_r` functions with room that grows until the record fits, and takes
/// what is wanted out of the record while its buffer lives.
fn ask<R, T>(
    call: impl Fn(*mut R, *mut c_char, usize, *mut *mut R) -> i32,
    take: impl Fn(&R) -> Option<T>,
) -> Option<T> {
    let mut room = RECORD;
    while room <= RECORD_MAX {
        let mut buffer: Vec<c_char> = vec![0; room];
        let mut record = MaybeUninit::<R>::uninit();
        let mut found: *mut R = ptr::null_mut();
        match call(record.as_mut_ptr(), buffer.as_mut_ptr(), room, &raw mut found) {
            libc::ERANGE => room *= 4,
            0 if !found.is_null() => {
                // SAFETY: the call succeeded and says it found a record, so `record` is filled
                // and its pointers lead into `buffer`, which outlives this use.
                return take(unsafe { record.assume_init_ref() });
            }
            _ => return None,
        }
    }
    None
}

fn text(pointer: *const c_char) -> Option<String> {
    if pointer.is_null() {
        return None;
    }
    // SAFETY: the field of a filled record: a NUL-terminated string within the caller's buffer.
    unsafe { CStr::from_ptr(pointer) }.to_str().ok().map(str::to_owned)
}

fn user_name(uid: u32) -> Option<String> {
    ask(
        // SAFETY: all pointers are valid for the call, and `room` is the buffer's length.
        |record, buffer, room, found| unsafe { libc::getpwuid_r(uid, record, buffer, room, found) },
        |record: &libc::passwd| text(record.pw_name),
    )
}

fn group_name(gid: u32) -> Option<String> {
    ask(
        // SAFETY: as above.
        |record, buffer, room, found| unsafe { libc::getgrgid_r(gid, record, buffer, room, found) },
        |record: &libc::group| text(record.gr_name),
    )
}

fn user_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    ask(
        // SAFETY: as above; `name` is NUL-terminated and lives through the call.
        |record, buffer, room, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), record, buffer, room, found)
        },
        |record: &libc::passwd| Some(record.pw_uid),
    )
}

fn group_number(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    ask(
        // SAFETY: as above.
        |record, buffer, room, found| unsafe {
            libc::getgrnam_r(name.as_ptr(), record, buffer, room, found)
        },
        |record: &libc::group| Some(record.gr_gid),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_and_the_name_leads_back() {
        let names = Names::new();
        assert_eq!(names.user(0).as_deref(), Some("root"));
        assert_eq!(names.user_id("root"), Some(0));
        assert_eq!(names.group(0).and_then(|name| names.group_id(&name)), Some(0));
    }

    #[test]
    fn a_number_or_name_that_nobody_has_is_none_twice() {
        let names = Names::new();
        for _ in 0..2 {
            assert_eq!(names.user(3_999_999_999), None);
            assert_eq!(names.group(3_999_999_999), None);
            assert_eq!(names.user_id("no such user here"), None);
            assert_eq!(names.group_id("nul\0inside"), None);
        }
    }
}
