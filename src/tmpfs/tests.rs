//! What is captured comes back, as far as it is wanted, or not at all. On whatever file system the tests run, as whoever
//! runs them; what only a tmpfs and root have is tested with containers.

use super::super::{Policy, Undo, remaps, replay};
use super::*;
use std::fs::{self, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};
use tempfile::TempDir;

fn open(directory: &Path) -> OwnedFd {
    File::open(directory).unwrap().into()
}

/// A directory with an archive beside it.
struct Place {
    dir: TempDir,
    sha256: String,
}

impl Place {
    fn of(make: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tree")).unwrap();
        make(&dir.path().join("tree"));
        let captured = capture(open(&dir.path().join("tree")).as_fd(), File::create(dir.path().join("x.tar")).unwrap());
        Self { sha256: captured.unwrap().sha256, dir }
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("x.tar")
    }

    fn replay(&self, into: &Path, policy: Policy) -> Result<Undo> {
        replay(&self.archive(), &self.sha256, open(into), policy)
    }
}

fn two_files() -> Place {
    Place::of(|tree| {
        fs::write(tree.join("a"), "image").unwrap();
        fs::create_dir(tree.join("d")).unwrap();
        fs::write(tree.join("d/b"), "image").unwrap();
    })
}

fn read(place: &TempDir, name: &str) -> String {
    fs::read_to_string(place.path().join(name)).unwrap_or_default()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let long = "n".repeat(200);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let place = Place::of(|tree| {
        fs::create_dir_all(tree.join("d/e")).unwrap();
        fs::write(tree.join("d/file"), "content").unwrap();
        fs::set_permissions(tree.join("d/file"), Permissions::from_mode(0o4751)).unwrap();
        File::options().write(true).open(tree.join("d/file")).unwrap().set_modified(time).unwrap();
        fs::hard_link(tree.join("d/file"), tree.join("other")).unwrap();
        symlink("/etc/passwd", tree.join("link")).unwrap();
        nix::unistd::mkfifo(&tree.join("fifo"), Mode::from_bits_truncate(0o640)).unwrap();
        fs::write(tree.join(&long), "long").unwrap();
        fs::set_permissions(tree.join("d"), Permissions::from_mode(0o1555)).unwrap();
        File::open(tree.join("d")).unwrap().set_modified(time).unwrap();
    });
    let into = tempfile::tempdir().unwrap();
    place.replay(into.path(), Policy::IfEmpty).unwrap().keep();
    let at = |name: &str| into.path().join(name).symlink_metadata().unwrap();
    assert_eq!((read(&into, "d/file").as_str(), at("d/file").mode()), ("content", 0o104_751));
    assert_eq!((at("d/file").ino(), at("d/file").modified().unwrap()), (at("other").ino(), time));
    assert_eq!((at("d").mode(), at("d").modified().unwrap()), (0o041_555, time));
    assert_eq!(fs::read_link(into.path().join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!((at("fifo").mode(), read(&into, &long).as_str()), (0o010_640, "long"));
}

#[test]
fn holes_stay_holes() {
    const END: u64 = 100 << 20;
    let place = Place::of(|tree| {
        let file = File::create(tree.join("sparse")).unwrap();
        // More parts than a header has room for, and a hole at the end.
        (0..40).for_each(|n| file.write_all_at(&[n as u8 + 1], n << 20).unwrap());
        file.set_len(END).unwrap();
        File::create(tree.join("empty")).unwrap().set_len(END).unwrap();
    });
    assert!(place.archive().metadata().unwrap().len() < 1 << 20);
    let into = tempfile::tempdir().unwrap();
    place.replay(into.path(), Policy::IfEmpty).unwrap().keep();
    let file = File::open(into.path().join("sparse")).unwrap();
    let mut byte = [0];
    for n in 0..40 {
        file.read_exact_at(&mut byte, n << 20).unwrap();
        assert_eq!(u64::from(byte[0]), n + 1);
    }
    for name in ["sparse", "empty"] {
        let found = into.path().join(name).metadata().unwrap();
        assert!(found.len() == END && found.blocks() * 512 < 1 << 20, "{name}: {} blocks", found.blocks());
    }
}

#[test]
fn tar_reads_it() {
    let place = Place::of(|tree| {
        let file = File::create(tree.join("sparse")).unwrap();
        (0..40).for_each(|n| file.write_all_at(b"x", n << 20).unwrap());
        file.set_len(50 << 20).unwrap();
        fs::write(tree.join("n".repeat(200)), "long").unwrap();
    });
    let into = tempfile::tempdir().unwrap();
    let tar = std::process::Command::new("tar").arg("xf").arg(place.archive()).arg("-C").arg(into.path()).output();
    let tar = tar.unwrap();
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    assert_eq!(fs::read(into.path().join("sparse")).unwrap(), fs::read(place.dir.path().join("tree/sparse")).unwrap());
    assert_eq!(read(&into, &"n".repeat(200)), "long");
}

#[test]
fn policies_decide_about_what_is_there() {
    let cases = [
        (Policy::IfEmpty, "live", ""),
        (Policy::MergeMissing, "live", "image"),
        (Policy::Overwrite, "image", "image"),
        (Policy::Never, "live", ""),
    ];
    for (policy, a, b) in cases {
        let (place, into) = (two_files(), tempfile::tempdir().unwrap());
        fs::write(into.path().join("a"), "live").unwrap();
        fs::write(into.path().join("other"), "live").unwrap();
        place.replay(into.path(), policy).unwrap().keep();
        assert_eq!([read(&into, "a"), read(&into, "d/b"), read(&into, "other")], [a, b, "live"], "{policy:?}");
        assert_eq!(fs::read_dir(into.path()).unwrap().count(), if b.is_empty() { 2 } else { 3 }, "{policy:?}");
    }
}

#[test]
fn what_was_put_back_can_be_taken_back() {
    let (place, into) = (two_files(), tempfile::tempdir().unwrap());
    fs::create_dir(into.path().join("a")).unwrap();
    fs::write(into.path().join("a/x"), "live").unwrap();
    let mut undo = place.replay(into.path(), Policy::Overwrite).unwrap();
    assert_eq!(read(&into, "a"), "image");
    undo.take_back();
    assert_eq!(read(&into, "a/x"), "live");
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 1);
}

#[test]
fn names_that_criu_needs_come_back_beside_what_is_there() {
    let place = Place::of(|tree| {
        fs::write(tree.join("link_remap.7"), "content").unwrap();
        fs::hard_link(tree.join("link_remap.7"), tree.join("z")).unwrap();
    });
    let into = tempfile::tempdir().unwrap();
    fs::write(into.path().join("z"), "live").unwrap();
    place.replay(into.path(), Policy::IfEmpty).unwrap().keep();
    assert_eq!((read(&into, "z").as_str(), read(&into, "link_remap.7").as_str()), ("live", "live"));
    assert_eq!(remaps(open(into.path()).as_fd()).unwrap(), [Path::new("link_remap.7")]);
}

#[test]
fn a_damaged_archive_is_refused_before_anything_is_touched() {
    let (place, into) = (two_files(), tempfile::tempdir().unwrap());
    let mut bytes = fs::read(place.archive()).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(place.archive(), bytes).unwrap();
    let words = place.replay(into.path(), Policy::Overwrite).unwrap_err().to_string();
    assert!(words.contains("x.tar is damaged: its SHA-256 is "), "{words}");
    assert_eq!(fs::read_dir(into.path()).unwrap().count(), 0);
}

#[test]
fn an_archive_cannot_lead_out_of_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let (archive, into) = (dir.path().join("x.tar"), dir.path().join("tree"));
    fs::create_dir(&into).unwrap();
    let mut made = Builder::new(File::create(&archive).unwrap());
    let header = |kind| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(nix::unistd::geteuid().as_raw().into());
        header.set_gid(nix::unistd::getegid().as_raw().into());
        header.set_mtime(0);
        header.set_size(0);
        header
    };
    made.append_link(&mut header(EntryType::Symlink), "up", "..").unwrap();
    made.append_data(&mut header(EntryType::Regular), "up/out", io::empty()).unwrap();
    made.into_inner().unwrap();
    let sha256 = super::super::checksum(&archive).unwrap();
    let words = replay(&archive, &sha256, open(&into), Policy::IfEmpty).unwrap_err().to_string();
    assert!(words.starts_with("restore up/out: "), "{words}");
    assert!(!dir.path().join("out").exists() && fs::read_dir(&into).unwrap().count() == 0);
}
