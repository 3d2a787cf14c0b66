//! Open files that CRIU has to be told of: those that a process has from outside of its mounts, and message queues.
//!
//! What becomes of them is decided in host_streams.rs and in queues/.

use crate::criu::streams;
use crate::error::{Context, Result};
use nix::libc;
use nix::sys::statfs::{FsType, statfs};
use std::fs::Metadata;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// The file system of message queues: their names look like paths, and are none.
const MQUEUE_MAGIC: FsType = FsType(0x1980_0202);

/// The major number of /dev/null and its like, the only devices besides terminals that CRIU can dump.
const MEMORY_DEVICES: libc::c_uint = 1;

/// A descriptor of a process.
#[derive(Clone, Debug)]
pub struct OpenFile {
    /// The process.
    pub pid: i32,
    /// The descriptor.
    pub number: i32,
    /// What the kernel calls the file.
    pub link: PathBuf,
    /// The device that it is on.
    pub device: u64,
    /// Its number on that device.
    pub inode: u64,
    /// The name that CRIU knows it by, if it is told to leave it out.
    pub key: String,
    /// Whether it is a message queue.
    pub queue: bool,
}

impl OpenFile {
    /// Returns the path by which it can be opened once more.
    pub fn place(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", self.pid, self.number))
    }
}

/// Finds what processes have open from outside of their mounts, and their message queues: those of `init` first. The
/// processes have to be stopped.
pub fn find(init: i32, pids: &[i32]) -> Result<Vec<OpenFile>> {
    let mut all = Vec::new();
    for pid in std::iter::once(init).chain(pids.iter().copied().filter(|pid| *pid != init)) {
        let mut mounts = None;
        for number in numbers(pid)? {
            let Some((link, status, queue)) = candidate(pid, number)? else { continue };
            let fdinfo = read(format!("/proc/{pid}/fdinfo/{number}"))?;
            let Some(mount) = streams::mount_of(&fdinfo) else { continue };
            let known = match &mounts {
                Some(known) => known,
                None => mounts.insert(streams::mounts_of(&read(format!("/proc/{pid}/mountinfo"))?)),
            };
            if queue || !known.contains(&mount) {
                let (device, inode) = (status.dev(), status.ino());
                let key = streams::key(mount, inode);
                all.push(OpenFile { pid, number, link, device, inode, key, queue });
            }
        }
    }
    Ok(all)
}

/// Returns the name and the status of an open file that CRIU deals with by its path, and whether it is a queue.
fn candidate(pid: i32, number: i32) -> Result<Option<(PathBuf, Metadata, bool)>> {
    let place = format!("/proc/{pid}/fd/{number}");
    let link = std::fs::read_link(&place).context(|| format!("read {place}"))?;
    // A pipe, a socket, something without a name, or shared memory, which is on a mount of the kernel's.
    if !link.is_absolute() || link.to_string_lossy().starts_with("/memfd:") {
        return Ok(None);
    }
    let status = std::fs::metadata(&place).context(|| format!("stat {place}"))?;
    let kind = status.file_type();
    let device = kind.is_char_device() && libc::major(status.rdev()) == MEMORY_DEVICES;
    if !(kind.is_file() || kind.is_dir() || kind.is_fifo() || device) {
        return Ok(None);
    }
    let file_system = statfs(place.as_str()).context(|| format!("statfs {place}"))?.filesystem_type();
    Ok(Some((link, status, file_system == MQUEUE_MAGIC && kind.is_file())))
}

/// Returns the numbers of a process's descriptors; none of one that has ended.
fn numbers(pid: i32) -> Result<Vec<i32>> {
    let directory = format!("/proc/{pid}/fd");
    let entries = match std::fs::read_dir(&directory) {
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.context(|| format!("read {directory}"))?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut all: Vec<i32> = names.filter_map(|name| name.parse().ok()).collect();
    all.sort_unstable();
    Ok(all)
}

fn read(file: String) -> Result<String> {
    std::fs::read_to_string(&file).context(|| format!("read {file}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    #[test]
    fn a_file_on_a_mount_of_the_process_is_its_own() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3>>$1; echo ready; read end", "sh"]).arg(file.path());
        let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        // From now on it opens and closes nothing.
        let pid = child.id() as i32;
        let found = find(pid, &[pid]).unwrap();
        // Its standard error is ours, which may be of another namespace.
        assert!(found.iter().all(|open| open.number == 2), "{found:?}");
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(find(pid, &[pid]).unwrap().is_empty());
    }
}
