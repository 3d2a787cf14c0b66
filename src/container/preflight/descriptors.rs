//! What a process has open: each descriptor by its link in /proc, and as much more as the link leaves to ask.

use super::Scene;
use super::processes::Process;
use super::sockets::Held;
use crate::criu::obstacles::{self, Object, Obstacle, Socket};
use crate::sys::{path, pidfd, sockopt, statx};
use nix::fcntl::{OFlag, readlinkat};
use nix::libc;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

/// What the kernel adds to the path of a file that has lost its name.
pub const DELETED: &str = " (deleted)";

/// What it calls memfd_secret(2)'s files, which have never had a name.
pub const SECRET_MEMORY: &str = "/secretmem (deleted)";

/// What it calls eventfd(2)'s counters.
const EVENT_COUNTER: &str = "[eventfd]";

/// The flag by which a pidfd is a thread's (`PIDFD_THREAD`, 6.9).
const THREAD: i32 = libc::O_EXCL;

/// The walk through the descriptors of one process.
pub struct Walk<'a> {
    /// The container.
    pub scene: &'a Scene<'a>,
    /// The process.
    pub process: &'a Process,
    /// The links of the namespaces that CRIU knows.
    pub namespaces: &'a BTreeSet<String>,
    /// The locks that there are.
    pub locks: &'a Locks,
    /// The Unix sockets that were met.
    pub sockets: Vec<Held>,
    /// The eventfds that count as semaphores and were met.
    pub semaphores: BTreeSet<String>,
}

impl Walk<'_> {
    /// Returns what is not dumped.
    pub fn obstacles(&mut self) -> Vec<Obstacle> {
        let Ok(directory) = File::open(format!("/proc/{}/fd", self.process.pid)) else { return Vec::new() };
        let mut process = None;
        let mut found = Vec::new();
        for number in numbers(self.process.pid) {
            let name = CString::new(number.to_string()).unwrap_or_default();
            let Ok(link) = readlinkat(&directory, name.as_c_str()) else { continue };
            let link = link.to_string_lossy();
            let object = if let Some(kind) = link.strip_prefix("anon_inode:") {
                self.anonymous(number, kind)
            } else if let Some(inode) = socket_inode(&link) {
                self.socket(number, inode, &mut process)
            } else if link.starts_with('/') {
                let attributes = statx::attributes(directory.as_fd(), &name);
                attributes.ok().and_then(|attributes| self.file(number, &link, &attributes))
            } else {
                self.namespace(&link)
            };
            found.extend(object.map(|object| Obstacle::Descriptor(number, object)));
        }
        found
    }

    fn anonymous(&mut self, number: i32, kind: &str) -> Option<Object> {
        if obstacles::is_pidfd(kind) {
            return self.pidfd(number);
        }
        if kind == EVENT_COUNTER && self.is_new_semaphore(number) {
            let Process { pid, name, .. } = self.process;
            log::warn!(
                "process {pid} ({name}): descriptor {number} is an eventfd that counts down by one at a time; \
                 criu restores it as one that does not"
            );
        }
        obstacles::anonymous(kind, obstacles::is_bpf_map(kind) && self.scene.may_dump_bpf_maps())
    }

    /// Says whether this is a semaphore that was not met yet.
    fn is_new_semaphore(&mut self, number: i32) -> bool {
        let about = fdinfo(self.process.pid, number).unwrap_or_default();
        let is_one = field(&about, "eventfd-semaphore").is_some_and(|is| is != "0");
        // The kernel's own number for it, which processes that share it have in common (5.2).
        is_one && field(&about, "eventfd-id").is_none_or(|id| self.semaphores.insert(id.to_owned()))
    }

    fn pidfd(&self, number: i32) -> Option<Object> {
        let about = fdinfo(self.process.pid, number)?;
        if i32::from_str_radix(field(&about, "flags")?, 8).ok()? & THREAD != 0 {
            return Some(Object::Thread);
        }
        // -1 for a process that has been reaped: CRIU makes another such one.
        let pid = field(&about, "Pid")?.parse().ok()?;
        (pid > 0 && !self.scene.dumps(pid)).then_some(Object::Process(pid))
    }

    fn namespace(&self, link: &str) -> Option<Object> {
        let (kind, _) = link.split_once(":[")?;
        let is_other = self.scene.ours.contains_key(kind) && !self.namespaces.contains(link);
        is_other.then(|| Object::OtherNamespace(link.to_owned()))
    }

    fn file(&self, number: i32, link: &str, attributes: &statx::Attributes) -> Option<Object> {
        if self.locks.may_be_on(attributes.inode) && self.is_locked(number) {
            return Some(Object::Locked(link.to_owned()));
        }
        match attributes.kind() {
            libc::S_IFBLK => Some(Object::Device(link.to_owned())),
            libc::S_IFCHR if obstacles::is_refused_device(attributes.device) => Some(Object::Device(link.to_owned())),
            libc::S_IFCHR if obstacles::is_terminal(attributes.device) => {
                let allowed = self.scene.given.has("shell-job") || self.scene.given.has("external");
                (!allowed && self.is_outside(number)).then(|| Object::OtherTerminal(link.to_owned()))
            }
            libc::S_IFREG if link == SECRET_MEMORY && self.is_outside(number) => Some(Object::SecretMemory),
            libc::S_IFREG => renamed(self.scene, link, attributes.links),
            _ => None,
        }
    }

    /// Says whether a file is on none of the container's mounts.
    fn is_outside(&self, number: i32) -> bool {
        let about = fdinfo(self.process.pid, number);
        let mount = about.and_then(|about| field(&about, "mnt_id")?.parse().ok());
        mount.is_some_and(|mount| !self.scene.mounts().have(mount))
    }

    fn is_locked(&self, number: i32) -> bool {
        let about = fdinfo(self.process.pid, number);
        about.is_some_and(|about| field(&about, "lock").is_some_and(|lock| !lock.is_empty()))
    }

    /// Looks at a socket, which takes a duplicate of it: /proc tells nothing but its number.
    fn socket(&mut self, number: i32, inode: u32, process: &mut Option<OwnedFd>) -> Option<Object> {
        if process.is_none() {
            *process = Some(pidfd::open(self.process.pid).ok()?);
        }
        let socket = pidfd::duplicate(process.as_ref()?.as_fd(), number).ok()?;
        let socket = socket.as_fd();
        let (family, kind) = (sockopt::family(socket).ok()?, sockopt::kind(socket).ok()?);
        let protocol = sockopt::protocol(socket).ok()?;
        let is_tcp = kind == libc::SOCK_STREAM && protocol == libc::IPPROTO_TCP && family != libc::AF_UNIX;
        let tcp_state = if is_tcp { sockopt::tcp_state(socket).ok() } else { None };
        let object = Socket { family, kind, protocol, tcp_state }.obstacle(&self.scene.given);
        if object.is_some() {
            return object;
        }
        // CRIU finds Unix sockets by their network namespace; others it dumps, and finds no namespace to restore them in.
        let matters = family == libc::AF_UNIX || self.scene.has_own("net");
        let network = sockopt::network(socket).ok().map(|inode| format!("net:[{inode}]"));
        if matters && network.is_some_and(|network| !self.scene.has_network(&network)) {
            return Some(Object::OtherNetwork);
        }
        if family == libc::AF_UNIX {
            let is_connected = sockopt::is_connected(socket).is_ok_and(|is_connected| is_connected);
            let is_datagram = kind == libc::SOCK_DGRAM;
            self.sockets.push(Held { pid: self.process.pid, number, inode, is_datagram, is_connected });
        }
        None
    }
}

/// Returns the numbers of a process's descriptors.
pub fn numbers(pid: i32) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Returns the inode of the socket that a link names.
pub fn socket_inode(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Returns what the kernel says of a descriptor (proc_pid_fdinfo(5)).
pub fn fdinfo(pid: i32, number: i32) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()
}

/// Returns the value of a field.
pub fn field<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    about.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// Returns the obstacle that a file is which has lost the name in its link, and still has others. CRIU keeps the
/// content of a file that has none.
pub fn renamed(scene: &Scene<'_>, link: &str, links: u32) -> Option<Object> {
    let path = link.strip_suffix(DELETED)?;
    if links == 0 || scene.given.has("link-remap") || is_name(scene.init, link) {
        return None;
    }
    Some(Object::Renamed(path.to_owned()))
}

/// Says whether there is a file that is called so: any name may end like that of a deleted one.
fn is_name(init: i32, link: &str) -> bool {
    let root = CString::new(format!("/proc/{init}/root")).unwrap_or_default();
    let (Ok(root), Ok(name)) = (path::open(&root, OFlag::O_PATH | OFlag::O_DIRECTORY), CString::new(link)) else {
        return true;
    };
    path::open_in_root(root.as_fd(), &name, OFlag::O_PATH | OFlag::O_NOFOLLOW).is_ok()
}

/// The locks of this machine: whether it is worth while to ask for those of a file.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Locks {
    inodes: BTreeSet<u64>,
    /// A process of the container has taken one. Its inode may be another than stat(2) has for it, as on overlayfs.
    ours: bool,
}

impl Locks {
    /// Reads which locks there are, unless they may be there.
    pub fn read(given: &obstacles::Given, is_ours: impl Fn(i32) -> bool) -> Self {
        if given.has("file-locks") {
            return Self::default();
        }
        Self::parse(&std::fs::read_to_string("/proc/locks").unwrap_or_default(), is_ours)
    }

    /// Reads proc_locks(5).
    fn parse(text: &str, is_ours: impl Fn(i32) -> bool) -> Self {
        let mut locks = Self::default();
        for line in text.lines() {
            // Number, kind, mode, access, owner, and the file as major:minor:inode. Who waits for a lock has none.
            let mut fields = line.split_ascii_whitespace().skip(1).filter(|field| *field != "->").skip(3);
            let owner = fields.next().and_then(|pid| pid.parse().ok());
            let inode = fields.next().and_then(|file| file.rsplit(':').next()?.parse::<u64>().ok());
            locks.ours |= owner.is_some_and(&is_ours);
            locks.inodes.extend(inode);
        }
        locks
    }

    fn may_be_on(&self, inode: u64) -> bool {
        self.ours || self.inodes.contains(&inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_on_inodes_or_by_one_of_ours() {
        let text = "1: FLOCK  ADVISORY  WRITE 77 00:2b:12345 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 78 00:2b:12345 0 EOF\n\
            2: OFDLCK ADVISORY  READ -1 fd:01:9 0 EOF\n3: LEASE  ACTIVE    READ 80 00:2b:8 0 EOF\n";
        let locks = Locks::parse(text, |pid| pid == 1);
        assert_eq!(locks, Locks { inodes: BTreeSet::from([8, 9, 12345]), ours: false });
        assert!(locks.may_be_on(9) && !locks.may_be_on(7));
        assert!(Locks::parse(text, |pid| pid == 80).may_be_on(7));
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let about = "pos:\t0\nflags:\t02000202\nmnt_id:\t15\nino:\t9\nPid:\t-1\nlock:\t1: POSIX ...\n";
        assert_eq!((field(about, "flags"), field(about, "Pid")), (Some("02000202"), Some("-1")));
        assert_eq!((field(about, "lock"), field(about, "NSpid")), (Some("1: POSIX ..."), None));
    }

    #[test]
    fn a_link_names_a_socket() {
        assert_eq!(socket_inode("socket:[42]"), Some(42));
        assert_eq!(socket_inode("pipe:[42]"), None);
    }
}
