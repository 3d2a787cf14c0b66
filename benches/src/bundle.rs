//! The bundle that everybody runs: a rootfs with one static busybox, and the
//! config.json that `runc spec` writes, with three changes: the program is
//! /bin/true, there is no terminal, and cgroupsPath is set, so that every
//! runtime makes its cgroup in the same place.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::Result;
use crate::layout::{self, Layout};

const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];
const DEVICE_RULES: &str = r#""resources": {"devices": [{"allow": false, "access": "rwm"}]},"#;
// runc's template has it where /sys/fs/cgroup is a cgroup2.
const CGROUP_NAMESPACE: &str = r#", {"type": "cgroup"}"#;

pub struct Bundle {
    directory: PathBuf,
    layout: Layout,
}

impl Bundle {
    /// Makes the bundle in an empty directory; its config is still to be written.
    pub fn create(parent: &Path, layout: Layout) -> Result<Bundle> {
        let directory = parent.join("bundle");
        let rootfs = directory.join("rootfs");
        for folder in ["bin", "dev", "proc", "sys"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        let busybox = BUSYBOX.iter().find(|path| Path::new(path).is_file());
        let busybox = busybox.ok_or("no busybox found (install busybox-static)")?;
        fs::copy(busybox, rootfs.join("bin/busybox"))?;
        symlink("busybox", rootfs.join("bin/true"))?;
        Ok(Bundle { directory, layout })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Returns where the runtime called `name` keeps its state.
    pub fn state(&self, name: &str) -> PathBuf {
        self.directory.with_file_name("state").join(name)
    }

    /// Returns the file that takes the output of a run.
    pub fn output(&self) -> PathBuf {
        self.directory.with_file_name("output")
    }

    /// Writes config.json, with the default device rules or without any.
    pub fn write_config(&self, device_rules: bool) -> Result<()> {
        let namespace = if self.layout.is_v2()? { CGROUP_NAMESPACE } else { "" };
        let text = include_str!("config.json")
            .replace("@DEVICE_RULES@", if device_rules { DEVICE_RULES } else { "" })
            .replace("@CGROUP_NAMESPACE@", namespace)
            .replace("@CGROUP@", &layout::cgroups_path());
        Ok(fs::write(self.directory.join("config.json"), text)?)
    }
}
