//! Whether an image can be restored on this machine: what the machine has, and what stands in the way.

use super::Image;
use crate::criu::{Launch, Program, Session};
use crate::error::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// The formats of images that CRIU's supported versions restore.
const IMAGE_VERSIONS: [u64; 2] = [1, 2];

/// What a machine has.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// Its architecture.
    pub architecture: String,
    /// Why there is no CRIU that works, if there is none.
    pub criu: Option<String>,
    /// The types of file systems that its kernel knows.
    pub filesystems: BTreeSet<String>,
    /// The kinds of namespaces that its kernel knows.
    pub namespaces: BTreeSet<String>,
    /// The security modules that are enabled.
    pub modules: BTreeSet<&'static str>,
    /// Whether there is IPv6.
    pub ipv6: bool,
}

impl Host {
    /// Looks at this machine.
    pub fn find() -> Self {
        let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
        let filesystems = filesystems.lines().filter_map(|line| line.split('\t').nth(1)).map(str::to_owned);
        let namespaces = std::fs::read_dir("/proc/self/ns").into_iter().flatten().flatten();
        let apparmor = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        let modules = [
            ("apparmor", apparmor.is_ok_and(|text| text.starts_with('Y'))),
            ("selinux", Path::new("/sys/fs/selinux/enforce").exists()),
        ];
        Self {
            architecture: std::env::consts::ARCH.to_owned(),
            criu: criu().err().map(|err| err.to_string()),
            filesystems: filesystems.collect(),
            namespaces: namespaces.filter_map(|entry| entry.file_name().into_string().ok()).collect(),
            modules: modules.into_iter().filter_map(|(name, enabled)| enabled.then_some(name)).collect(),
            ipv6: Path::new("/proc/net/if_inet6").exists(),
        }
    }
}

/// Checks that there is a CRIU that works.
fn criu() -> Result<()> {
    let program = Program::find()?;
    let mut session = Session::start(&program, Launch::default())?;
    program.check_version(&mut session).map(drop)
}

/// Returns what stands in the way of restoring an image on a machine, each on a line, the worst first.
pub fn obstacles(image: &Image, host: &Host) -> Vec<String> {
    let mut all = Vec::new();
    if image.kind == "pre-dump" {
        all.push("it is a pre-dump: it has memory only, and a later dump needs it".to_owned());
        return all;
    }
    if let Some((first, rest)) = image.missing.split_first() {
        all.push(format!("{first} is missing{}", others(rest)));
    }
    if let Some((first, rest)) = image.damaged.split_first() {
        all.push(format!("{first}{}", others(rest)));
    }
    if image.processes.is_empty() {
        all.push("it has no processes".to_owned());
    }
    if !IMAGE_VERSIONS.contains(&image.image_version) {
        all.push(format!("version {} of the images is not known", image.image_version));
    }
    // It is told by an image that may be missing.
    if image.architecture != host.architecture && (image.architecture != "unknown" || image.missing.is_empty()) {
        all.push(format!("it was made on {}, and this is {}", image.architecture, host.architecture));
    }
    all.extend(host.criu.clone());
    for namespace in image.namespaces.iter().filter(|namespace| namespace.scope != "host") {
        if !host.namespaces.contains(namespace.kind) {
            all.push(format!("this kernel has no {} namespaces", namespace.kind));
        }
    }
    let own = image.mounts.iter().filter(|mount| mount.external.is_none() && mount.destination != "/");
    let kinds: BTreeSet<&String> = own.map(|mount| &mount.kind).collect();
    for kind in kinds.into_iter().filter(|kind| *kind != "unknown" && !host.filesystems.contains(*kind)) {
        all.push(format!("this kernel has no file system {kind}"));
    }
    if let Some(module) = image.security.module.filter(|module| !host.modules.contains(module)) {
        all.push(format!("its processes have profiles of {module}, which is not enabled here"));
    }
    if image.sockets.ipv6 && !host.ipv6 {
        all.push("it has sockets of IPv6, which this kernel has not".to_owned());
    }
    all
}

fn others(rest: &[String]) -> String {
    if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::{Mount, Namespace, Process, Security, Sockets};

    fn good() -> (Image, Host) {
        let image = Image {
            kind: "dump",
            image_version: 1,
            architecture: "x86_64",
            processes: vec![Process::default()],
            namespaces: vec![Namespace { kind: "time", scope: "own", external: None, nested: 0 }],
            mounts: vec![Mount { destination: "/x".to_owned(), kind: "tmpfs".to_owned(), ..Mount::default() }],
            ..Image::default()
        };
        let host = Host {
            architecture: "x86_64".to_owned(),
            filesystems: ["tmpfs".to_owned()].into(),
            namespaces: ["time".to_owned()].into(),
            ..Host::default()
        };
        (image, host)
    }

    #[test]
    fn nothing_stands_in_the_way_of_a_good_image() {
        let (image, host) = good();
        assert_eq!(obstacles(&image, &host), [] as [String; 0]);
    }

    #[test]
    fn each_obstacle_is_a_line() {
        type Change = fn(&mut Image, &mut Host);
        let cases: [(Change, &str); 11] = [
            (|image, _| image.kind = "pre-dump", "it is a pre-dump: it has memory only, and a later dump needs it"),
            (|image, _| image.missing = vec!["a.img".to_owned()], "a.img is missing"),
            (|image, _| image.damaged = vec!["a is broken".to_owned(), "b".to_owned()], "a is broken (and 1 more)"),
            (|image, _| image.processes.clear(), "it has no processes"),
            (|image, _| image.image_version = 7, "version 7 of the images is not known"),
            (|image, _| image.architecture = "aarch64", "it was made on aarch64, and this is x86_64"),
            (|_, host| host.criu = Some("no criu".to_owned()), "no criu"),
            (|_, host| host.namespaces.clear(), "this kernel has no time namespaces"),
            (|_, host| host.filesystems.clear(), "this kernel has no file system tmpfs"),
            (
                |image, _| image.security = Security { module: Some("selinux"), ..Security::default() },
                "its processes have profiles of selinux, which is not enabled here",
            ),
            (
                |image, _| image.sockets = Sockets { ipv6: true, ..Sockets::default() },
                "it has sockets of IPv6, which this kernel has not",
            ),
        ];
        for (change, words) in cases {
            let (mut image, mut host) = good();
            change(&mut image, &mut host);
            assert_eq!(obstacles(&image, &host), [words]);
        }
    }
}
