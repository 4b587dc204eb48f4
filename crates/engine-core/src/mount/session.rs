//! Mount, serve and unmount.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};
use parking_lot::{Condvar, Mutex};
use rustix::mount::{MountFlags, UnmountFlags};

use super::MountOptions;
use super::filesystem::Image;
use crate::error::{Error, Result};

const DEVICE: &str = "/dev/fuse";

/// A session that is being served by threads of its own.
pub(super) struct Running {
    at: PathBuf,
    by: Mutex<By>,
    ended: Arc<Ended>,
}

/// Who mounted, and so can unmount.
enum By {
    /// This process. Not left to fuser, which on its end unmounts whatever stands at the place,
    /// though ours may be gone and a file system below it show through.
    Root,
    /// The program fusermount3, which removes only what its user has mounted.
    Helper(SessionUnmounter),
}

#[derive(Default)]
struct Ended {
    flag: Mutex<bool>,
    changed: Condvar,
}

impl Running {
    pub(super) fn start(image: Image, at: &Path, options: &MountOptions) -> Result<Self> {
        let mut config = Config::default();
        config.n_threads = Some(options.threads.max(1));
        config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
        let device = open_device()?;
        let failed = |error| explain(at, error);
        let (session, by) = if rustix::process::geteuid().is_root() {
            mount_directly(&device, at, options).map_err(failed)?;
            let started = Session::from_fd(image, device, config.acl, config);
            let session = started.inspect_err(|_| detach(at)).map_err(failed)?;
            (session, By::Root)
        } else {
            config.mount_options = helper_options(options);
            let mut session = Session::new(image, at, &config).map_err(failed)?;
            let unmounter = session.unmount_callable();
            (session, By::Helper(unmounter))
        };
        let ended = Arc::new(Ended::default());
        let running = Running { at: at.to_owned(), by: Mutex::new(by), ended: ended.clone() };
        thread::Builder::new()
            .name("holdfast-mount".into())
            .spawn(move || {
                // An error here is the way in which the kernel ended it; there is no more to do.
                let _ = session.run();
                *ended.flag.lock() = true;
                ended.changed.notify_all();
            })
            .map_err(|error| Error::io("starting the thread of a mount", error))?;
        Ok(running)
    }

    pub(super) fn unmount(&self) -> Result<()> {
        if self.wait(Duration::ZERO) {
            return Ok(());
        }
        let result = match &mut *self.by.lock() {
            By::Root => {
                rustix::mount::unmount(&self.at, UnmountFlags::NOFOLLOW).map_err(Into::into)
            }
            By::Helper(unmounter) => unmounter.unmount(),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(Error::Busy {
                what: format!("the mount at '{}'", self.at.display()),
                reason: "programs still use it".into(),
            }),
            // Someone else was faster.
            Err(_) if self.wait(Duration::ZERO) => Ok(()),
            Err(error) => Err(Error::io(format!("unmounting '{}'", self.at.display()), error)),
            Ok(()) => {
                self.wait(Duration::from_secs(30));
                Ok(())
            }
        }
    }

    pub(super) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        let mut ended = self.ended.flag.lock();
        while !*ended {
            match deadline {
                Some(deadline) => {
                    if self.ended.changed.wait_until(&mut ended, deadline).timed_out() {
                        return *ended;
                    }
                }
                None => self.ended.changed.wait(&mut ended),
            }
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Programs that still use it keep what they have open; the place is free at once.
        if self.unmount().is_err() && matches!(&*self.by.lock(), By::Root) {
            detach(&self.at);
        }
    }
}

fn detach(at: &Path) {
    // If even this fails, it is not mounted any more.
    let _ = rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
}

fn open_device() -> Result<OwnedFd> {
    let cloexec = rustix::fs::OFlags::CLOEXEC.bits() as i32;
    match OpenOptions::new().read(true).write(true).custom_flags(cloexec).open(DEVICE) {
        Ok(file) => Ok(file.into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::Unsupported(format!(
            "this machine has no {DEVICE}, so nothing can be mounted; hint: as root, 'modprobe fuse'"
        ))),
        Err(error) => Err(Error::io(format!("opening {DEVICE}"), error)),
    }
}

fn mount_directly(device: &OwnedFd, at: &Path, options: &MountOptions) -> io::Result<()> {
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    if options.allow_other {
        data.push_str(",allow_other,default_permissions");
    }
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    let data = CString::new(data)?;
    rustix::mount::mount("holdfast", at, "fuse.holdfast", flags, data.as_c_str())?;
    Ok(())
}

fn helper_options(options: &MountOptions) -> Vec<MountOption> {
    let mut list = vec![
        MountOption::RO,
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoAtime,
        MountOption::FSName("holdfast".into()),
        MountOption::Subtype("holdfast".into()),
    ];
    if options.allow_other {
        list.push(MountOption::DefaultPermissions);
    }
    list
}

fn explain(at: &Path, error: io::Error) -> Error {
    let root = rustix::process::geteuid().is_root();
    let place = at.display();
    match error.kind() {
        io::ErrorKind::NotFound if !root => Error::Unsupported(format!(
            "mounting '{place}' as a normal user needs the program fusermount3; \
             hint: install the package fuse3, or mount as root"
        )),
        io::ErrorKind::PermissionDenied if root => Error::NoPermission {
            what: format!(
                "mounting at '{place}': {error}; hint: a container needs /dev/fuse and the \
                 capability CAP_SYS_ADMIN for this"
            ),
        },
        _ => Error::io(format!("mounting at '{place}'"), error),
    }
}
