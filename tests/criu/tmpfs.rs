//! A tmpfs of the container's own: what is in it, to the last attribute, and that other runtimes understand its image.

use crate::peer::Peer;
use crate::support::{Bundle, wait_until};
use crate::{Checkpointed, children, ours_only, path_with, programs, requires};
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::unistd::{Gid, Pid, Uid, Whence, fchownat, lseek64, mkfifo};
use serde_json::json;
use stasis::sys::{pidfd, xattr};
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// The version, and then tag, permissions and id of each entry: the owner, user 1234, the group, the mask, others.
const ACL: [u8; 44] = [
    2, 0, 0, 0, //
    1, 0, 6, 0, 255, 255, 255, 255, //
    2, 0, 4, 0, 0xd2, 4, 0, 0, //
    4, 0, 0, 0, 255, 255, 255, 255, //
    16, 0, 4, 0, 255, 255, 255, 255, //
    32, 0, 0, 0, 255, 255, 255, 255, //
];

/// cap_net_bind_service, permitted and effective: linux/capability.h, revision 2.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What can be seen of a file.
#[derive(Debug, Eq, PartialEq)]
struct Entry {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    modified: (i64, i64),
    /// The first name of the same file.
    same_as: PathBuf,
    target: Option<PathBuf>,
    /// Offset, length and checksum of what is not a hole.
    content: Vec<(i64, usize, u64)>,
    attributes: BTreeMap<CString, Vec<u8>>,
}

/// Everything in a directory, and itself.
type Tree = BTreeMap<PathBuf, Entry>;

fn tree(root: &Path) -> Tree {
    let (mut found, mut names) = (Tree::new(), BTreeMap::new());
    collect(root, Path::new(""), &mut found, &mut names);
    found
}

fn collect(root: &Path, name: &Path, found: &mut Tree, names: &mut BTreeMap<u64, PathBuf>) {
    let path = root.join(name);
    let file = path.symlink_metadata().unwrap();
    let handle = open(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
    let attribute = |name: CString| {
        let value = xattr::get(handle.as_fd(), &name).unwrap();
        (name, value)
    };
    let entry = Entry {
        mode: file.mode(),
        owner: (file.uid(), file.gid()),
        device: file.rdev(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        same_as: names.entry(file.ino()).or_insert_with(|| name.to_owned()).clone(),
        target: file.is_symlink().then(|| fs::read_link(&path).unwrap()),
        content: if file.is_file() { content(&File::open(&path).unwrap()) } else { Vec::new() },
        attributes: xattr::list(handle.as_fd()).unwrap_or_default().into_iter().map(attribute).collect(),
    };
    found.insert(name.to_owned(), entry);
    if file.is_dir() {
        let mut children: Vec<_> = fs::read_dir(&path).unwrap().map(|child| child.unwrap().file_name()).collect();
        children.sort();
        children.iter().for_each(|child| collect(root, &name.join(child), found, names));
    }
}

fn content(file: &File) -> Vec<(i64, usize, u64)> {
    let mut parts = Vec::new();
    let mut end = 0;
    // ENXIO: nothing more but holes.
    while let Ok(start) = lseek64(file, end, Whence::SeekData) {
        end = lseek64(file, start, Whence::SeekHole).unwrap();
        let mut bytes = vec![0; (end - start) as usize];
        file.read_exact_at(&mut bytes, start as u64).unwrap();
        let mut sum = DefaultHasher::new();
        bytes.hash(&mut sum);
        parts.push((start, bytes.len(), sum.finish()));
    }
    parts
}

#[track_caller]
fn assert_same(found: &Tree, expected: &Tree) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, entry) in expected {
        assert_eq!(&found[name], entry, "{name:?}");
    }
}

/// Leaves of a tree what a tar that was not told otherwise keeps.
fn without_attributes(mut tree: Tree) -> Tree {
    tree.values_mut().for_each(|entry| entry.attributes.clear());
    tree
}

/// Returns bytes that nothing can compress.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    File::open("/dev/urandom").unwrap().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    let handle = open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty()).unwrap();
    xattr::set(handle.as_fd(), &CString::new(name).unwrap(), value).unwrap_or_else(|err| panic!("{name}: {err}"));
}

fn own(path: &Path, user: u32, group: u32) {
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(nix::fcntl::AT_FDCWD, path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)), flags).unwrap();
}

/// Puts one of everything into a tmpfs.
fn fill(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::write(at("noise"), noise(3 << 20)).unwrap();
    fs::write(at("zeros"), vec![0; 8 << 20]).unwrap();
    fs::write(at("empty"), "").unwrap();
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    for offset in [0, 500 << 20, (1 << 30) - 5] {
        sparse.write_all_at(b"there", offset).unwrap();
    }
    File::create(at("hole")).unwrap().set_len(1 << 20).unwrap();

    for name in ["-C", "a\nb\\n", "*?[x]", &"n".repeat(250)] {
        fs::write(at(name), name).unwrap();
    }
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe")), "no UTF-8").unwrap();
    let deep = at(&["d".repeat(200).as_str(); 4].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "deep").unwrap();

    fs::hard_link(at("noise"), at("second name of noise")).unwrap();
    symlink("noise", at("link")).unwrap();
    symlink("/nowhere/at all", at("dangling")).unwrap();
    own(&at("dangling"), 7, 8);
    mkfifo(&at("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
    mknod(&at("device"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), nix::sys::stat::makedev(1, 7)).unwrap();

    fs::write(at("program"), "#!/bin/sh\n").unwrap();
    own(&at("program"), 1000, 1001);
    fs::set_permissions(at("program"), Permissions::from_mode(0o6755)).unwrap();
    fs::create_dir(at("sticky")).unwrap();
    own(&at("sticky"), 1000, 4_000_000);
    fs::set_permissions(at("sticky"), Permissions::from_mode(0o1777)).unwrap();
    fs::write(at("secret"), "secret").unwrap();
    fs::set_permissions(at("secret"), Permissions::from_mode(0o000)).unwrap();

    fs::write(at("attributes"), "attributes").unwrap();
    own(&at("attributes"), 1000, 1000);
    set_attribute(&at("attributes"), "user.text", "täxt".as_bytes());
    set_attribute(&at("attributes"), "user.bytes", b"\0=\n\xff");
    set_attribute(&at("attributes"), "trusted.t", b"t");
    set_attribute(&at("attributes"), "security.capability", &CAPABILITY);
    set_attribute(&at("attributes"), "system.posix_acl_access", &ACL);
    fs::create_dir(at("directory")).unwrap();
    set_attribute(&at("directory"), "user.text", b"of a directory");
    set_attribute(&at("directory"), "system.posix_acl_default", &ACL);
    set_attribute(root, "user.root", b"of the root");

    let past = |name: &str, nanoseconds| {
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, nanoseconds);
        File::open(at(name)).unwrap().set_modified(time).unwrap();
    };
    past("noise", 0);
    past("empty", 123_456_789);
    past("sticky", 0);
}

/// A container with a tmpfs that nobody in it changes.
fn quiet() -> Checkpointed {
    Checkpointed::run(Bundle::sleep())
}

/// Returns where the host finds the /dev/shm of a process.
fn shm(pid: i32) -> PathBuf {
    format!("/proc/{pid}/root/dev/shm").into()
}

impl Checkpointed {
    fn shm(&self) -> PathBuf {
        shm(self.runtime.pid())
    }

    /// Returns what the files that begin with `prefix` weigh in the images.
    fn weight(&self, prefix: &str) -> u64 {
        let files = fs::read_dir(self.images()).unwrap().map(|entry| entry.unwrap());
        let files = files.filter(|file| file.file_name().to_str().unwrap().starts_with(prefix));
        files.map(|file| file.metadata().unwrap().len()).sum()
    }
}

#[test]
fn all_of_it_comes_back() {
    requires!(root, criu, tmpfs_xattrs);
    ours_only!("CRIU by itself keeps neither extended attributes nor parts of a second");
    let c = quiet();
    fill(&c.shm());
    let before = tree(&c.shm());
    assert!(before[Path::new("attributes")].attributes.len() == 5 && before.len() > 25);
    c.round_trip();
    assert_same(&tree(&c.shm()), &before);
    // 3 MiB of noise; of 8 MiB of zeros and more than 1 GiB of holes next to nothing.
    let weight = c.weight("tmpfs-dev-");
    assert!((3 << 20..4 << 20).contains(&weight), "{weight}");
    // What was restored is as good as what was made.
    c.round_trip();
    assert_same(&tree(&c.shm()), &before);
}

#[test]
fn runc_restores_it() {
    requires!(root, criu, runc, tmpfs_xattrs);
    ours_only!("it is about images of ours");
    let c = quiet();
    fill(&c.shm());
    let before = without_attributes(tree(&c.shm()));
    c.checkpoint(&[]).ok();
    let runc = Peer::new(&c, "runc");
    runc.detached(&["restore", "--image-path", c.images().to_str().unwrap()]);
    assert_same(&tree(&runc.path("/dev/shm")), &before);
}

#[test]
fn criu_by_itself_restores_it() {
    requires!(root, criu, tmpfs_xattrs);
    ours_only!("it is about images of ours");
    // What needs no word of ours about mounts from outside.
    let bundle = Bundle::sleep().with(|config| {
        config["linux"]["maskedPaths"] = json!([]);
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
    });
    let c = Checkpointed::run(bundle);
    fill(&c.shm());
    let before = without_attributes(tree(&c.shm()));
    c.checkpoint(&[]).ok();
    let root = BindMount::of(&c.runtime.bundle().rootfs());
    let pid_file = c.place.path().join("pid");
    let mut criu = Command::new("criu");
    criu.args(["restore", "--restore-detached", "--manage-cgroups=ignore", "--log-file", "restore.log"]);
    criu.arg("--images-dir").arg(c.images()).arg("--pidfile").arg(&pid_file).arg("--root").arg(root.0.path());
    criu.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(criu.status().unwrap().success(), "{}", c.log("restore.log"));
    let pid = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let after = tree(&shm(pid));
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    assert_same(&after, &before);
}

/// A root file system as CRIU wants it: a mount of its own.
struct BindMount(tempfile::TempDir);

impl BindMount {
    fn of(source: &Path) -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        let none = None::<&str>;
        mount(Some(source), this.0.path(), none, MsFlags::MS_BIND, none).unwrap();
        mount(none, this.0.path(), none, MsFlags::MS_PRIVATE, none).unwrap();
        this
    }
}

impl Drop for BindMount {
    fn drop(&mut self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn what_runc_dumped_is_restored() {
    requires!(root, criu, runc, tmpfs_xattrs);
    ours_only!("it is about images of runc's");
    let c = Checkpointed::of(Bundle::sleep());
    let runc = Peer::new(&c, "runc");
    runc.detached(&["run"]);
    fill(&runc.path("/dev/shm"));
    let mut before = without_attributes(tree(&runc.path("/dev/shm")));
    runc.checkpoint();
    c.restore(&[]).ok();
    // Its archive has whole seconds.
    before.values_mut().for_each(|entry| entry.modified.1 = 0);
    let mut after = tree(&c.shm());
    after.values_mut().for_each(|entry| entry.modified.1 = 0);
    assert_same(&after, &before);
}

#[test]
fn a_socket_that_nobody_has_is_left_out() {
    requires!(root, criu);
    let c = quiet();
    drop(UnixListener::bind(c.shm().join("socket")).unwrap());
    fs::write(c.shm().join("word"), "kept").unwrap();
    c.round_trip();
    assert_eq!(tree(&c.shm()).keys().collect::<Vec<_>>(), [Path::new(""), Path::new("word")]);
}

#[test]
fn in_a_user_namespace_it_comes_back_too() {
    requires!(root, criu);
    ours_only!("runc leaves it to the caller to make the images readable");
    let c = Checkpointed::run(Bundle::sleep().user_namespace(200_000).capable(&["CAP_CHOWN"]));
    c.runtime.exec_sh("cd /dev/shm; head -c 100000 /dev/urandom >root; echo user >user; chown 1000:1000 user").ok();
    let mut before = tree(&c.shm());
    c.round_trip();
    let mut after = tree(&c.shm());
    // tar runs as somebody who may not look for ours.
    before.values_mut().chain(after.values_mut()).for_each(|entry| entry.modified.1 = 0);
    assert_same(&after, &before);
}

/// Returns where the runtime keeps what CRIU is to find first.
fn tools(c: &Checkpointed) -> PathBuf {
    c.runtime.root().join(c.runtime.id()).join("criu-tools")
}

#[test]
fn nothing_stays_of_what_criu_is_given() {
    requires!(root, criu);
    ours_only!("the directory is ours");
    let c = quiet();
    let before = fs::read_dir(tools(&c).parent().unwrap()).unwrap().count();
    c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(fs::read_dir(tools(&c).parent().unwrap()).unwrap().count(), before);
    c.round_trip();
    assert!(!tools(&c).exists());
}

#[test]
fn a_tar_that_fails_is_named() {
    requires!(root, criu);
    let c = quiet();
    let programs = programs("echo 'tar: out of order' >&2; exit 3");
    let mut checkpoint = c.line("checkpoint", &[]);
    checkpoint.env("PATH", path_with(programs.path()));
    let output = c.runtime.output_of(checkpoint).exits(1).stderr_contains("criu failed: type NOTIFY errno 0");
    assert_eq!(c.runtime.status(), "running");
    assert!(!tools(&c).exists());
    if !crate::support::is_oracle() {
        output.stderr_contains("exited, status=3").stderr_contains("tar: out of order");
    }
}

#[test]
fn what_a_killed_runtime_leaves_hinders_nobody() {
    requires!(root, criu);
    ours_only!("other runtimes give CRIU nothing");
    let c = quiet();
    let programs = programs("sleep 1; exec tar \"$@\"");
    let kill = || {
        let mut checkpoint = c.line("checkpoint", &[]);
        checkpoint.env("PATH", path_with(programs.path())).stdout(Stdio::null()).stderr(Stdio::null());
        let mut runtime = checkpoint.spawn().unwrap();
        wait_until("tar is at work", || {
            fs::read_to_string(c.images().join("dump.log")).is_ok_and(|log| log.contains("Dumping mountpoints"))
        });
        let criu = children(runtime.id());
        let criu = pidfd::open(criu.trim().parse().unwrap()).unwrap();
        runtime.kill().unwrap();
        runtime.wait().unwrap();
        assert!(pidfd::wait_ended(criu.as_fd(), 60_000).unwrap());
        assert!(tools(&c).exists());
        fs::remove_dir_all(c.images()).unwrap();
    };
    kill();
    wait_until("the container goes on", || c.runtime.status() == "running");
    c.checkpoint(&["--leave-running"]).ok();
    assert!(!tools(&c).exists());
    fs::remove_dir_all(c.images()).unwrap();
    kill();
    c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
    c.runtime.leaves_nothing();
}

/// The runtime under the name of tar, and a directory to archive.
struct Tar(tempfile::TempDir);

impl Tar {
    fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        symlink(std::path::absolute(crate::support::Runtime::program()).unwrap(), this.path("tar")).unwrap();
        for directory in ["from", "to"] {
            fs::create_dir(this.path(directory)).unwrap();
        }
        fs::write(this.path("from/noise"), noise(1 << 20)).unwrap();
        fs::write(this.path("from/zeros"), vec![0; 1 << 20]).unwrap();
        this
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Returns the command line that CRIU dumps with.
    fn create(&self, tar: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(tar);
        command.args(["--create", "--gzip", "--sparse", "--numeric-owner", "--directory", "/proc/self/fd/0", "."]);
        command.stdin(File::open(self.path("from")).unwrap()).stdout(File::create(self.path("archive")).unwrap());
        command
    }

    /// Returns the command line that CRIU restores with.
    fn extract(&self, tar: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(tar);
        command.args(["--extract", "--gzip", "--no-unquote", "--no-wildcards", "--directory"]).arg(self.path("to"));
        command.stdin(File::open(self.path("archive")).unwrap());
        command
    }
}

#[test]
fn what_tar_writes_we_read_and_the_other_way_round() {
    requires!(root);
    ours_only!("other runtimes are no tar");
    let t = Tar::new();
    for (writer, reader) in [(t.path("tar"), "tar".into()), ("tar".into(), t.path("tar"))] {
        assert!(t.create(&writer).status().unwrap().success());
        assert!(
            Command::new("gzip")
                .arg("--test")
                .stdin(File::open(t.path("archive")).unwrap())
                .status()
                .unwrap()
                .success()
        );
        assert!(t.extract(&reader).status().unwrap().success());
        for name in ["noise", "zeros"] {
            assert!(fs::read(t.path("from").join(name)).unwrap() == fs::read(t.path("to").join(name)).unwrap());
        }
        fs::remove_dir_all(t.path("to")).unwrap();
        fs::create_dir(t.path("to")).unwrap();
    }
}

#[test]
fn as_tar_it_says_what_is_wrong() {
    requires!(root);
    ours_only!("other runtimes are no tar");
    let t = Tar::new();
    let says = |mut command: Command, code: i32, words: &str| {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && text.contains(words), "{:?}: {text}", output.status);
    };
    let mut lonely = t.create(t.path("tar"));
    lonely.env("PATH", t.path(""));
    says(lonely, 1, "Error (stasis): exec: \"tar\": executable file not found in $PATH\n");
    let mut full = t.create(t.path("tar"));
    full.stdout(File::options().write(true).open("/dev/full").unwrap());
    says(full, 1, "Error (stasis): write the archive: no space left on device\n");
    let mut nowhere = t.create(t.path("tar"));
    nowhere.arg("nowhere");
    says(nowhere, 2, "tar: nowhere: Cannot stat: No such file or directory\n");

    assert!(t.create(t.path("tar")).status().unwrap().success());
    let archive = fs::read(t.path("archive")).unwrap();
    fs::write(t.path("archive"), &archive[..archive.len() / 2]).unwrap();
    says(t.extract(t.path("tar")), 1, "Error (stasis): read the archive: ");
    fs::write(t.path("archive"), "").unwrap();
    says(t.extract(t.path("tar")), 1, "Error (stasis): read the archive: ");
}
