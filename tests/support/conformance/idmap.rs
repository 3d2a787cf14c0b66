//! `fs-idmap`: whether the files of a path can be mounted with other ids.

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use stasis::plan::idmap::{IdMap, Range};
use stasis::sys::{mount, path};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Tries it, with a mount that is never attached.
pub fn check(source: &Path) -> Result<()> {
    let source = CString::new(source.as_os_str().as_bytes())?;
    let tree = mount::clone_tree(path::open(&source, OFlag::O_PATH)?.as_fd(), false).context("open_tree")?;
    let (mut holder, users) = user_namespace()?;
    let mapped = mount::map_ids(tree.as_fd(), users.as_fd(), false).context("mount_setattr");
    drop(holder.stdin.take());
    holder.wait()?;
    mapped
}

/// Makes a user namespace, and a process which holds it until its standard input ends.
fn user_namespace() -> Result<(Child, File)> {
    let mut command = Command::new("unshare");
    let mut holder = command.args(["--user", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    // What comes back was written by a process that is in the namespace.
    holder.stdin.as_mut().context("a pipe")?.write_all(b"?")?;
    holder.stdout.as_mut().context("a pipe")?.read_exact(&mut [0])?;
    let map = IdMap::from(vec![Range { inside: 0, outside: 65536, size: 65536 }]).text();
    for name in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{name}", holder.id()), &map)?;
    }
    let users = File::open(format!("/proc/{}/ns/user", holder.id()))?;
    Ok((holder, users))
}
