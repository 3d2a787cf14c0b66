//! Descriptors of every kind, with what is in them, and locks: after a restore they are as they were.

use crate::support::{Bundle, HostTmpfs, wait_until, with_shm};
use crate::{COUNTER, Checkpointed, file_keeper, is_as_it_was, ours_only, requires};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

/// Takes a keeper through a checkpoint that leaves it running, and two with a restore.
#[track_caller]
fn comes_back(c: &Checkpointed, dump: &[&str], restore: &[&str]) {
    is_as_it_was(c);
    c.checkpoint(&[dump, &["--leave-running"]].concat()).ok();
    is_as_it_was(c);
    for _ in 0..2 {
        c.checkpoint(dump).ok();
        c.restore(restore).ok();
        is_as_it_was(c);
    }
}

#[test]
fn positions_names_and_flags_are_kept() {
    requires!(root, criu);
    comes_back(&Checkpointed::run(file_keeper(&["files"])), &[], &[]);
}

#[test]
fn what_is_in_pipes_and_sockets_is_kept() {
    requires!(root, criu);
    comes_back(&Checkpointed::run(file_keeper(&["queues"])), &[], &[]);
}

#[test]
fn counts_timers_watches_signals_and_seals_are_kept() {
    requires!(root, criu);
    comes_back(&Checkpointed::run(file_keeper(&["objects"])), &[], &[]);
}

#[test]
fn objects_of_a_private_ipc_namespace_are_kept() {
    requires!(root, criu);
    comes_back(&Checkpointed::run(file_keeper(&["sysv"])), &[], &[]);
}

/// Returns what is in the keeper's directory.
fn names(c: &Checkpointed) -> Vec<String> {
    let kept = fs::read_dir(c.runtime.bundle().rootfs().join("kept")).unwrap();
    let mut names: Vec<_> = kept.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_file_of_the_root_that_has_lost_one_of_two_names_is_kept() {
    requires!(root, criu);
    let c = Checkpointed::run(file_keeper(&["remapped"]));
    is_as_it_was(&c);
    c.checkpoint(&["--link-remap", "--leave-running"]).ok();
    assert_eq!(names(&c), ["stays"]);
    is_as_it_was(&c);
    c.checkpoint(&["--link-remap"]).ok();
    c.restore(&[]).ok();
    is_as_it_was(&c);
    assert_eq!(names(&c), ["stays"]);
}

#[test]
fn a_failed_dump_leaves_no_names_of_crius() {
    requires!(root, criu);
    // CRIU is told to refuse the file without a name, which comes after the one that it gives a name to.
    let bundle = file_keeper(&["remapped", "files"]);
    let settings = bundle.path().join("source");
    fs::write(&settings, "ghost-limit 1\n").unwrap();
    let c = Checkpointed::run(bundle.with(|config| config["annotations"] = json!({"org.criu.config": settings})));
    is_as_it_was(&c);
    c.checkpoint(&["--link-remap"]).exits(1);
    let log = c.log("dump.log");
    let (named, refused) = (log.find("/kept/lost (deleted)"), log.find("Can't dump ghost file"));
    assert!(named.is_some() && named < refused, "{log}");
    is_as_it_was(&c);
    assert_eq!(names(&c), ["log", "positioned", "stays"]);
}

/// A lock as /proc/locks shows it: file, kind, mode, access, first and last byte.
type Lock = (String, String, String, String, String);

/// The files that the keeper has locks on.
const LOCKED: [&str; 5] = ["exclusive", "shared", "ranges", "open-file", "passed-on"];

/// Returns the locks on the keeper's files, and checks whose they are.
fn locks(c: &Checkpointed) -> BTreeSet<Lock> {
    let root = format!("/proc/{}/root", c.runtime.pid());
    let mut found = BTreeSet::new();
    for path in ["kept", "dev/shm"].iter().flat_map(|place| LOCKED.map(|name| format!("{place}/{name}"))) {
        let Ok(file) = fs::metadata(format!("{root}/{path}")) else { continue };
        let (device, inode) = (file.dev(), file.ino());
        let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
        let place = format!("{major:02x}:{minor:02x}:{inode}");
        for line in fs::read_to_string("/proc/locks").unwrap().lines() {
            let [_, kind, _, access, owner, file, first, last] = line.split_whitespace().collect::<Vec<_>>()[..] else {
                continue;
            };
            if file == place {
                assert!(kind != "POSIX" || owner == c.runtime.pid().to_string(), "{line}");
                found.insert((path.clone(), kind.into(), access.into(), first.into(), last.into()));
            }
        }
    }
    found
}

/// Returns the locks that the keeper takes.
fn expected() -> BTreeSet<Lock> {
    let all = [
        ("exclusive", "FLOCK", "WRITE", "0", "EOF"),
        ("shared", "FLOCK", "READ", "0", "EOF"),
        ("ranges", "POSIX", "WRITE", "10", "29"),
        ("ranges", "POSIX", "READ", "40", "EOF"),
        ("open-file", "OFDLCK", "READ", "0", "4"),
        ("open-file", "OFDLCK", "WRITE", "100", "EOF"),
        ("passed-on", "FLOCK", "WRITE", "0", "EOF"),
    ];
    let places = ["kept", "dev/shm"].into_iter();
    let lock = |place: &str, (name, kind, access, first, last): (&str, &str, &str, &str, &str)| {
        (format!("{place}/{name}"), kind.into(), access.into(), first.into(), last.into())
    };
    places.flat_map(|place| all.map(|one| lock(place, one))).collect()
}

/// Checks that the locks are held, also against who wants them.
#[track_caller]
fn are_held(c: &Checkpointed) {
    assert_eq!(locks(c), expected());
    for place in ["kept", "dev/shm"] {
        let root = format!("/proc/{}/root/{place}", c.runtime.pid());
        let refuses = |name: &str, how| !can_lock(&format!("{root}/{name}"), how);
        assert!(refuses("exclusive", FlockArg::LockSharedNonblock), "{place}");
        assert!(refuses("passed-on", FlockArg::LockSharedNonblock), "{place}");
        assert!(refuses("shared", FlockArg::LockExclusiveNonblock), "{place}");
        assert!(!refuses("shared", FlockArg::LockSharedNonblock), "{place}");
    }
}

fn can_lock(path: &str, how: FlockArg) -> bool {
    match Flock::lock(fs::File::open(path).unwrap(), how) {
        Ok(_lock) => true,
        Err((_, error)) => {
            assert_eq!(error, Errno::EWOULDBLOCK);
            false
        }
    }
}

fn locks_come_back(bundle: Bundle, renew: impl Fn()) {
    let c = Checkpointed::run(bundle);
    wait_until("the locks are there", || locks(&c) == expected());
    c.checkpoint(&[]).exits(1);
    are_held(&c);
    c.checkpoint(&["--file-locks", "--leave-running"]).ok();
    are_held(&c);
    c.checkpoint(&["--file-locks"]).ok();
    renew();
    c.restore(&["--file-locks"]).ok();
    are_held(&c);
    // What has ended has no locks.
    c.runtime.kill("KILL").ok();
    c.runtime.wait_for("stopped");
    let kept = c.runtime.bundle().rootfs().join("kept/exclusive");
    let kept = kept.to_str().unwrap();
    wait_until("the lock is gone", || can_lock(kept, FlockArg::LockExclusiveNonblock));
}

#[test]
fn locks_of_every_kind_are_held_again() {
    requires!(root, criu);
    locks_come_back(file_keeper(&["locks"]), || ());
}

#[test]
fn locks_on_a_shm_from_outside_are_held_again() {
    requires!(root, criu);
    ours_only!("other runtimes lose the files");
    let shm = HostTmpfs::new();
    locks_come_back(with_shm(file_keeper(&["locks"]), shm.path()), || shm.renew());
}

#[test]
fn a_symlinked_source_is_bound_again() {
    requires!(root, criu);
    ours_only!("others give CRIU the symlink");
    let link = |dir: &Path| {
        fs::write(dir.join("file"), "bound").unwrap();
        symlink("file", dir.join("link")).unwrap();
    };
    let bundle = Bundle::sh(COUNTER).prepare(link).prepare(|dir| {
        fs::create_dir(dir.join("rootfs/found")).unwrap();
        fs::write(dir.join("rootfs/found/file"), "inside").unwrap();
        // On the host it leads nowhere.
        symlink("/found", dir.join("rootfs/way")).unwrap();
    });
    let bundle = bundle.mount("/etc/file", "bind", "link", &["bind"]);
    let c = Checkpointed::run(bundle.mount("/etc/inside", "bind", "rootfs/way/file", &["bind"]));
    c.round_trip();
    c.runtime.exec(&["cat", "/etc/file", "/etc/inside"]).ok().prints("boundinside");
}
