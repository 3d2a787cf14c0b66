//! What has to be asked or done inside of a namespace that is not ours: by a child that joins it, since the runtime
//! itself never changes namespaces.

use crate::error::{Context, Error, Result};
use crate::plan::namespaces::Kind;
use crate::sys::clone::{Clone, clone_child, exit_now};
use crate::sys::ipc::{self, ObjectKind};
use crate::sys::pidfd::{self, Exit};
use crate::sys::{self, Errno, fd, ns, path};
use nix::fcntl::OFlag;
use std::ffi::CStr;
use std::fmt::Display;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};

/// What stands before the text of a file that is there, and for one that is not.
const THERE: &[u8] = b"+";
const MISSING: &[u8] = b"-";

/// Has a child join a namespace and carry `body` out there, which may not allocate (see [`clone_child`]).
pub fn run<D: Display>(
    kind: Kind,
    namespace: BorrowedFd<'_>,
    attempt: impl Fn() -> D,
    body: impl FnOnce() -> sys::Result<()>,
) -> Result<()> {
    let child = clone_child(Clone::default(), || {
        let done = ns::join(namespace, kind.flag()).and_then(|()| body());
        exit_now(done.map_or_else(|errno| errno as i32, |()| 0));
    });
    match pidfd::reap(child.context(&attempt)?.pid).context(&attempt)? {
        Exit::Code(0) => Ok(()),
        Exit::Code(errno) => Err(Error::system(attempt(), Errno::from_raw(errno))),
        Exit::Signal(signal) => Err(Error::other(format!("{}: killed by signal {signal}", attempt()))),
    }
}

/// Reads files of /proc that tell of the namespace of whoever reads them; a file that the kernel does not have is none.
pub fn read(kind: Kind, namespace: BorrowedFd<'_>, files: &[&CStr]) -> Result<Vec<Option<Vec<u8>>>> {
    let attempt = || format!("read what is in the {} namespace", kind.name());
    let told = fd::memfd(c"namespace", b"").context(attempt)?;
    run(kind, namespace, attempt, || files.iter().try_for_each(|file| tell(file, told.as_fd())))?;
    fd::rewind(told.as_fd()).context(attempt)?;
    let mut text = Vec::new();
    std::fs::File::from(told).read_to_end(&mut text).context(attempt)?;
    // No file of /proc that is read here has a zero byte.
    let texts = text.split_inclusive(|byte| *byte == 0).map(|text| text.strip_suffix(b"\0").unwrap_or(text));
    Ok(texts.map(|text| text.strip_prefix(THERE).map(<[u8]>::to_vec)).collect())
}

/// Copies a file behind what has been told already.
fn tell(file: &CStr, told: BorrowedFd<'_>) -> sys::Result<()> {
    match path::open(file, OFlag::O_RDONLY) {
        Ok(file) => {
            fd::write_all(told, THERE)?;
            let mut buffer = [0; 4096];
            loop {
                match fd::read(file.as_fd(), &mut buffer)? {
                    0 => break,
                    length => fd::write_all(told, buffer.get(..length).unwrap_or_default())?,
                }
            }
        }
        Err(Errno::ENOENT) => fd::write_all(told, MISSING)?,
        Err(errno) => return Err(errno),
    }
    fd::write_all(told, b"\0")
}

/// Removes System V objects; those that are gone already are no failure.
pub fn remove(namespace: BorrowedFd<'_>, objects: &[(ObjectKind, i32)]) -> Result<()> {
    if objects.is_empty() {
        return Ok(());
    }
    let attempt = || "remove System V objects from the ipc namespace";
    run(Kind::Ipc, namespace, attempt, || {
        objects.iter().try_for_each(|(kind, id)| match ipc::remove(*kind, *id) {
            Err(Errno::EINVAL | Errno::EIDRM) => Ok(()),
            other => other,
        })
    })
}

/// Appends the content of a System V segment to a file.
pub fn append_segment(namespace: BorrowedFd<'_>, (id, size): (i32, u64), to: BorrowedFd<'_>) -> Result<()> {
    let attempt = || format!("copy shared memory segment {id}");
    let size = usize::try_from(size).map_err(|_| Error::system(attempt(), Errno::EFBIG))?;
    run(Kind::Ipc, namespace, attempt, || ipc::write_segment(id, size, to))
}
