//! What everybody runs: a rootfs with one static busybox, and a config.json of one of several kinds.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::Result;
use crate::layout::Layout;

const BUSYBOX: [&str; 3] = ["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];
const PROGRAMS: [&str; 2] = ["true", "sleep"];
/// Files that Docker binds into its containers.
const DOCKER_FILES: [&str; 3] = ["etc/resolv.conf", "etc/hostname", "etc/hosts"];
/// How many mounts a container with volumes has.
const DOCKER_MOUNTS: usize = 20;
const LARGE_MOUNTS: usize = 500;
const LARGE_RULES: usize = 1000;

/// The kinds of config.json.
#[derive(Clone, Copy, PartialEq)]
pub enum Config {
    /// What `runc spec` writes, without a terminal.
    Default,
    /// What Docker writes for `docker run` with volumes and no limits: its seccomp profile is most of it.
    Docker,
    /// The same with a user namespace.
    DockerUserns,
    /// The default with very many mounts and rules of seccomp.
    Large,
}

impl Config {
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Docker => "docker",
            Self::DockerUserns => "docker-userns",
            Self::Large => "large",
        }
    }
}

/// The files that all containers share.
pub struct Shared {
    directory: PathBuf,
    layout: Layout,
}

impl Shared {
    /// Makes them in a directory.
    pub fn create(directory: &Path, layout: Layout) -> Result<Self> {
        let rootfs = directory.join("rootfs");
        for folder in ["bin", "dev", "etc", "proc", "sys", "mnt"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        // Mount points are there, so that nobody has to make them.
        for number in 0..LARGE_MOUNTS {
            fs::create_dir(rootfs.join(format!("mnt/{number}")))?;
        }
        fs::create_dir_all(directory.join("files/etc"))?;
        for file in DOCKER_FILES {
            fs::write(rootfs.join(file), "")?;
            fs::write(directory.join("files").join(file), "")?;
        }
        fs::create_dir(directory.join("files/volume"))?;
        let busybox = BUSYBOX.iter().find(|path| Path::new(path).is_file());
        fs::copy(busybox.ok_or("no busybox found (install busybox-static)")?, rootfs.join("bin/busybox"))?;
        for program in PROGRAMS {
            symlink("busybox", rootfs.join("bin").join(program))?;
        }
        Ok(Self { directory: directory.to_owned(), layout })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Writes the config.json of a bundle, which runs a program in a cgroup.
    pub fn write_config(&self, bundle: &Path, kind: Config, args: &[&str], cgroup: &str) -> Result<()> {
        write(bundle, &self.config(kind, args, cgroup)?)
    }

    /// Writes the default one with a limit of memory, in bytes.
    pub fn write_limited(&self, bundle: &Path, args: &[&str], cgroup: &str, limit: u64) -> Result<()> {
        let mut config = self.config(Config::Default, args, cgroup)?;
        config["linux"]["resources"]["memory"] = json!({"limit": limit});
        write(bundle, &config)
    }

    fn config(&self, kind: Config, args: &[&str], cgroup: &str) -> Result<Value> {
        let mut config: Value = serde_json::from_str(match kind {
            Config::Default | Config::Large => include_str!("default.json"),
            Config::Docker | Config::DockerUserns => include_str!("docker.json"),
        })?;
        config["root"]["path"] = json!(self.rootfs());
        config["process"]["args"] = json!(args);
        config["linux"]["cgroupsPath"] = json!(cgroup);
        // The template has it where /sys/fs/cgroup is a cgroup2.
        if self.layout.is_v2()? {
            push(&mut config["linux"]["namespaces"], json!({"type": "cgroup"}));
        }
        match kind {
            Config::Default => {}
            Config::Docker => self.bind_files(&mut config),
            Config::DockerUserns => {
                self.bind_files(&mut config);
                push(&mut config["linux"]["namespaces"], json!({"type": "user"}));
                // Docker does not set them there: one is refused.
                config["linux"]["sysctl"] = json!({});
                for maps in ["uidMappings", "gidMappings"] {
                    config["linux"][maps] = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
                }
            }
            Config::Large => self.enlarge(&mut config),
        }
        Ok(config)
    }

    /// Gives Docker's mounts their sources, and adds volumes.
    fn bind_files(&self, config: &mut Value) {
        let mounts = config["mounts"].as_array_mut().expect("a template has mounts");
        for mount in mounts.iter_mut().filter(|mount| mount["type"] == "bind") {
            mount["source"] = json!(self.directory.join(mount["source"].as_str().unwrap_or_default()));
        }
        for number in mounts.len()..DOCKER_MOUNTS {
            mounts.push(self.volume(number));
        }
    }

    fn enlarge(&self, config: &mut Value) {
        for number in 0..LARGE_MOUNTS {
            push(&mut config["mounts"], self.volume(number));
        }
        let rule = |number| {
            json!({"names": ["ioctl"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 0xdead_0000_u32 + number, "op": "SCMP_CMP_EQ"}]})
        };
        let rules: Vec<Value> = (0..LARGE_RULES as u32).map(rule).collect();
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules});
    }

    fn volume(&self, number: usize) -> Value {
        let source = self.directory.join("files/volume");
        json!({"destination": format!("/mnt/{number}"), "type": "bind", "source": source, "options": ["rbind", "rprivate"]})
    }
}

fn write(bundle: &Path, config: &Value) -> Result<()> {
    Ok(fs::write(bundle.join("config.json"), config.to_string())?)
}

fn push(list: &mut Value, item: Value) {
    list.as_array_mut().expect("a template has this list").push(item);
}
