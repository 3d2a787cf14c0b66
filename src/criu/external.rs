//! What a container uses and does not own: bind mounts, device nodes, joined namespaces, pipes.
//!
//! CRIU calls these external: it does not dump them, and has to be given a replacement when it restores. The keys are
//! runc's, so that either runtime restores what the other has dumped. What the mounts and namespaces of a container
//! are comes from its plan, the caller has that; here is only what they are called.

/// What hides a masked file, and the key that runc's images know it by.
const NULL: &str = "/dev/null";

/// A file or directory of the host in a container.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bind {
    /// Where it is inside, with all symlinks of the root file system resolved.
    pub inside: String,
    /// Where it is on the host.
    pub outside: String,
}

/// A mount that is not dumped.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ExternalMount {
    /// At a dump the mount point, at a restore the name that the dump gave it.
    pub key: String,
    /// At a dump the name for it, at a restore the path on the host that is mounted there.
    pub value: String,
}

/// Returns the external mounts of a dump; `masked` are the masked paths that exist and are not directories.
///
/// Masked directories are empty tmpfs, which CRIU dumps like any other.
pub fn dumped_mounts(binds: &[Bind], masked: &[String]) -> Vec<ExternalMount> {
    let mut all = Vec::new();
    for bind in binds {
        add(&mut all, &bind.inside, &bind.inside);
    }
    for path in masked {
        add(&mut all, path, NULL);
    }
    all
}

/// Returns the external mounts of a restore; `masked` says whether there may have been masked files at the dump.
pub fn restored_mounts(binds: &[Bind], masked: bool) -> Vec<ExternalMount> {
    let mut all = Vec::new();
    for bind in binds {
        add(&mut all, &bind.inside, &bind.outside);
    }
    if masked {
        add(&mut all, NULL, NULL);
    }
    all
}

/// Adds an external mount, unless there is one with that key: a container's device node may be there already, bound
/// from another node of the host.
pub fn add(all: &mut Vec<ExternalMount>, key: &str, value: &str) {
    if !all.iter().any(|mount| mount.key == key) {
        all.push(ExternalMount { key: key.to_owned(), value: value.to_owned() });
    }
}

/// Returns the key of a joined namespace that CRIU treats as external, or `None` for a type that it dumps and joins
/// again. The type has the name of its file in /proc/PID/ns.
pub fn namespace_key(kind: &str) -> Option<&'static str> {
    match kind {
        "net" => Some("extRootNetNS"),
        "pid" => Some("extRootPidNS"),
        _ => None,
    }
}

/// Returns the `external` entry by which a dump leaves out the namespace that has this inode, if it can.
pub fn namespace(kind: &str, inode: u64) -> Option<String> {
    namespace_key(kind).map(|key| format!("{kind}[{inode}]:{key}"))
}

/// Returns which standard streams are pipes, by number and the key that CRIU knows the pipe by.
pub fn inherited_pipes(descriptors: &[String]) -> Vec<(i32, String)> {
    let streams = (0..).zip(descriptors.iter().take(3));
    streams.filter(|(_, link)| link.starts_with("pipe:")).map(|(n, link)| (n, link.clone())).collect()
}

/// Returns the cgroups of a process, from the text of /proc/PID/cgroup: each controller and its path. The name of the
/// unified hierarchy is empty.
pub fn cgroup_roots(text: &str) -> Vec<(String, String)> {
    let mut roots = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (fields.next(), fields.next()) {
            roots.extend(controllers.split(',').map(|name| (name.to_owned(), path.to_owned())));
        }
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(inside: &str, outside: &str) -> Bind {
        Bind { inside: inside.to_owned(), outside: outside.to_owned() }
    }

    fn expected(pairs: &[(&str, &str)]) -> Vec<ExternalMount> {
        let mount = |(key, value): &(&str, &str)| ExternalMount { key: (*key).to_owned(), value: (*value).to_owned() };
        pairs.iter().map(mount).collect()
    }

    #[test]
    fn a_dump_names_mounts_by_their_place() {
        let binds = [bind("/data", "/host/data"), bind("/dev/fuse", "/dev/fuse")];
        let masked = ["/proc/kcore".to_owned()];
        let found = dumped_mounts(&binds, &masked);
        let pairs = [("/data", "/data"), ("/dev/fuse", "/dev/fuse"), ("/proc/kcore", "/dev/null")];
        assert_eq!(found, expected(&pairs));
    }

    #[test]
    fn a_restore_finds_them_on_the_host() {
        let binds = [bind("/data", "/host/data"), bind("/dev/fuse", "/dev/fuse")];
        let pairs = [("/data", "/host/data"), ("/dev/fuse", "/dev/fuse")];
        assert_eq!(restored_mounts(&binds, false), expected(&pairs));
        let found = restored_mounts(&binds, true);
        assert_eq!(found.last(), expected(&[("/dev/null", "/dev/null")]).first());
    }

    #[test]
    fn what_is_mounted_on_a_device_stays() {
        let binds = [bind("/dev/null", "/host/null"), bind("/dev/null", "/dev/null")];
        assert_eq!(restored_mounts(&binds, true), expected(&[("/dev/null", "/host/null")]));
    }

    #[test]
    fn only_net_and_pid_namespaces_are_external() {
        assert_eq!(namespace("net", 5).as_deref(), Some("net[5]:extRootNetNS"));
        assert_eq!(namespace("pid", 5).as_deref(), Some("pid[5]:extRootPidNS"));
        assert_eq!(namespace("ipc", 5), None);
    }

    #[test]
    fn pipes_are_inherited_under_their_number() {
        let links = ["/dev/null", "pipe:[12]", "/tmp/pipe:x", "pipe:[13]"].map(str::to_owned);
        assert_eq!(inherited_pipes(&links), [(1, "pipe:[12]".to_owned())]);
    }

    #[test]
    fn every_controller_has_its_path() {
        let found = cgroup_roots("5:cpu,cpuacct:/a\n1:name=systemd:/b:c\n0::/d\n");
        let expected = [("cpu", "/a"), ("cpuacct", "/a"), ("name=systemd", "/b:c"), ("", "/d")];
        assert_eq!(found, expected.map(|(name, path)| (name.to_owned(), path.to_owned())));
    }
}
