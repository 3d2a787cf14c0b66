//! Writing the id maps of a new user namespace: by ourselves, or through the setuid programs of shadow-utils where the
//! kernel lets only them.

use crate::error::{Context, Error, Result};
use crate::plan::idmap::{IdMap, IdMaps};
use crate::plan::namespaces::Kind;
use crate::plan::process::cstring;
use crate::sys::clone::{Clone, clone_child, exit_now};
use crate::sys::{Errno, fd, path, pidfd};
use nix::fcntl::OFlag;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

/// Writes both maps of the process `pid`, which waits for them.
pub fn write(pid: i32, maps: &IdMaps) -> Result<()> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() {
        write_file(pid, "gid_map", &maps.groups.text())?;
    } else if maps.groups.is_only(gid.as_raw()) {
        // Without privilege a group map may only be written once setgroups is off (user_namespaces(7)).
        write_file(pid, "setgroups", "deny")?;
        write_file(pid, "gid_map", &maps.groups.text())?;
    } else {
        run("newgidmap", pid, &maps.groups)?;
    }
    match uid.is_root() || maps.users.is_only(uid.as_raw()) {
        true => write_file(pid, "uid_map", &maps.users.text()),
        false => run("newuidmap", pid, &maps.users),
    }
}

/// Makes a user namespace with these maps, which nobody is in.
pub fn namespace(maps: &IdMaps) -> Result<OwnedFd> {
    let attempt = || "make a user namespace";
    let (ours_gone, ours) = fd::pipe().context(attempt)?;
    let request = Clone { flags: Kind::User.flag(), withheld: Some(ours.as_fd()), ..Clone::default() };
    let holder = clone_child(request, || exit_now(fd::read(ours_gone.as_fd(), &mut [0]).is_err().into()));
    let holder = holder.context(attempt)?;
    let made = write(holder.pid, maps).and_then(|()| {
        let path = cstring(format!("/proc/{}/ns/user", holder.pid).as_ref(), "namespace")?;
        path::open(&path, OFlag::O_RDONLY).context(attempt)
    });
    drop(ours);
    pidfd::reap(holder.pid).context(attempt)?;
    made
}

fn write_file(pid: i32, name: &str, text: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{name}");
    std::fs::write(&path, text).context(|| format!("write {:?} to {path}", text.trim_end()))
}

fn run(program: &str, pid: i32, map: &IdMap) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    for range in map.ranges() {
        command.args([range.inside, range.outside, range.size].map(|number| number.to_string()));
    }
    let output = command.output().map_err(|err| match err.raw_os_error() {
        Some(libc::ENOENT) => Error::system(format!("run {program} (package uidmap)"), Errno::ENOENT),
        _ => Error::other(format!("run {program}: {err}")),
    })?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))),
    }
}
