//! A tmpfs outside of all containers, as engines mount it for a /dev/shm that several can have.

use super::Bundle;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// A tmpfs that the test mounts on the host.
pub struct HostTmpfs(tempfile::TempDir);

impl HostTmpfs {
    /// Mounts one.
    pub fn new() -> Self {
        let this = Self(tempfile::tempdir().unwrap());
        this.mount();
        this
    }

    fn mount(&self) {
        mount(Some("shm"), self.0.path(), Some("tmpfs"), MsFlags::empty(), Some("mode=1777,size=64m")).unwrap();
    }

    /// Puts an empty one in its place.
    pub fn renew(&self) {
        umount2(self.0.path(), MntFlags::MNT_DETACH).unwrap();
        self.mount();
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Reads a file in it.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }

    /// Returns the names in it that CRIU gives.
    pub fn remaps(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        all.filter(|path| path.to_str().unwrap().contains("link_remap")).collect()
    }

    /// Waits until the keeper that has it has checked everything at least `more` times, and returns how many.
    #[track_caller]
    pub fn keeps(&self, more: u32) -> u32 {
        super::keeps(more, || self.read("status"))
    }
}

impl Drop for HostTmpfs {
    fn drop(&mut self) {
        umount2(self.path(), MntFlags::MNT_DETACH).unwrap();
    }
}

/// A bundle whose /dev/shm is this one.
pub fn with_shm(bundle: Bundle, shm: &Path) -> Bundle {
    let bundle = bundle.with(|config| {
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/shm");
    });
    bundle.mount("/dev/shm", "bind", shm, &["rbind", "rw"])
}
