//! What `stasis spec` writes: the config.json that users of runc start from, tabs and all.
//!
//! It is kept as the text it is, so that a reader sees the file; the few places that differ for a rootless container and
//! with the IPC mode are filled in.

/// Whom a rootless container's root is on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Users {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Who shares the container's IPC namespace and its /dev/shm: Docker's modes, with what config.json has to name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Ipc {
    /// Nobody; the /dev/shm inside has this size, or Docker's.
    Private(Option<u64>),
    /// Whoever joins; the /dev/shm has this size, or Docker's.
    Shareable(Option<u64>),
    /// Nobody, and there is no /dev/shm.
    None,
    /// The host; `queues` says whether it has its message queues mounted.
    Host {
        /// Whether there is something on /dev/mqueue.
        queues: bool,
    },
    /// Another container.
    Container {
        /// Its IPC namespace.
        namespace: String,
        /// The directory that is its /dev/shm.
        shm: String,
    },
}

/// Returns the template for a container of the host's root, or of `rootless`.
///
/// `unified` says that the host has cgroup v2 alone, where a container should have its own cgroup namespace.
pub fn text(rootless: Option<Users>, unified: bool, ipc: &Ipc) -> String {
    let pts_group = if rootless.is_some() { "" } else { ",\n\t\t\t\t\"gid=5\"" };
    let (sys_source, sys_option) = match rootless {
        Some(_) => ("\"type\": \"none\",\n\t\t\t\"source\": \"/sys\"", "\"rbind\",\n\t\t\t\t"),
        None => ("\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\"", ""),
    };
    let users = match rootless {
        Some(Users { uid, gid }) => mapping("uid", uid) + &mapping("gid", gid),
        None => RESOURCES.to_owned(),
    };
    let namespaces: Vec<String> = namespaces(rootless.is_some(), unified, ipc)
        .map(|(name, path)| {
            let path = path.map(|path| format!(",\n\t\t\t\t\"path\": {}", quoted(path))).unwrap_or_default();
            format!("\n\t\t\t{{\n\t\t\t\t\"type\": \"{name}\"{path}\n\t\t\t}}")
        })
        .collect();
    TEMPLATE
        .replace("@PTS_GROUP@", pts_group)
        .replace("@SHM@", &shm(ipc))
        .replace("@QUEUES@", &queues(rootless.is_some(), ipc))
        .replace("@SYS_SOURCE@", sys_source)
        .replace("@SYS_OPTION@", sys_option)
        .replace("@ANNOTATIONS@", if matches!(ipc, Ipc::Shareable(_)) { ANNOTATIONS } else { "" })
        .replace("@USERS@", &users)
        .replace("@NAMESPACES@", &namespaces.join(","))
}

/// Returns the kinds of the namespaces, and the path of those that are joined.
fn namespaces(rootless: bool, unified: bool, ipc: &Ipc) -> impl Iterator<Item = (&'static str, Option<&str>)> {
    let own_ipc = !matches!(ipc, Ipc::Host { .. });
    let joined = match ipc {
        Ipc::Container { namespace, .. } => Some(namespace.as_str()),
        _ => None,
    };
    [
        ("pid", true),
        ("network", !rootless),
        ("ipc", own_ipc),
        ("uts", true),
        ("mount", true),
        ("cgroup", unified),
        ("user", rootless),
    ]
    .into_iter()
    .filter_map(move |(name, wanted)| wanted.then_some((name, joined.filter(|_| name == "ipc"))))
}

/// Returns the mount of /dev/shm.
fn shm(ipc: &Ipc) -> String {
    match ipc {
        Ipc::Private(size) | Ipc::Shareable(size) => {
            let size = size.map_or_else(|| "65536k".to_owned(), |bytes| bytes.to_string());
            SHM_TMPFS.replace("@SIZE@", &size)
        }
        Ipc::None => String::new(),
        Ipc::Host { .. } => bind("/dev/shm", "/dev/shm"),
        Ipc::Container { shm, .. } => bind("/dev/shm", shm),
    }
}

/// Returns the mount of /dev/mqueue. A user namespace may not mount the queues of an IPC namespace that is not its own,
/// and takes the host's mount of them, if there is one.
fn queues(rootless: bool, ipc: &Ipc) -> String {
    match ipc {
        Ipc::Host { queues: true } if rootless => bind("/dev/mqueue", "/dev/mqueue"),
        Ipc::Host { queues: false } if rootless => String::new(),
        _ => QUEUES.to_owned(),
    }
}

fn bind(destination: &str, source: &str) -> String {
    BIND.replace("@DESTINATION@", &quoted(destination)).replace("@SOURCE@", &quoted(source))
}

/// Returns a text as JSON has it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn mapping(what: &str, id: u32) -> String {
    format!(
        "\n\t\t\"{what}Mappings\": [\n\t\t\t{{\n\t\t\t\t\"containerID\": 0,\n\t\t\t\t\"hostID\": {id},\n\
         \t\t\t\t\"size\": 1\n\t\t\t}}\n\t\t],"
    )
}

const RESOURCES: &str = r#"
		"resources": {
			"devices": [
				{
					"allow": false,
					"access": "rwm"
				}
			]
		},"#;

const SHM_TMPFS: &str = r#"		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=@SIZE@"
			]
		},
"#;

const QUEUES: &str = r#"		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
"#;

const BIND: &str = r#"		{
			"destination": @DESTINATION@,
			"type": "bind",
			"source": @SOURCE@,
			"options": [
				"rbind",
				"rprivate",
				"nosuid",
				"noexec",
				"nodev"
			]
		},
"#;

/// It is `plan::ipc`'s, which has the runtime mount /dev/shm outside.
const ANNOTATIONS: &str = r#"
	"annotations": {
		"org.stasis.ipc": "shareable"
	},"#;

const TEMPLATE: &str = r#"{
	"ociVersion": "1.3.0",
	"process": {
		"terminal": true,
		"user": {
			"uid": 0,
			"gid": 0
		},
		"args": [
			"sh"
		],
		"env": [
			"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"TERM=xterm"
		],
		"cwd": "/",
		"capabilities": {
			"bounding": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"effective": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			],
			"permitted": [
				"CAP_AUDIT_WRITE",
				"CAP_KILL",
				"CAP_NET_BIND_SERVICE"
			]
		},
		"rlimits": [
			{
				"type": "RLIMIT_NOFILE",
				"hard": 1024,
				"soft": 1024
			}
		],
		"noNewPrivileges": true
	},
	"root": {
		"path": "rootfs",
		"readonly": true
	},
	"hostname": "stasis",
	"mounts": [
		{
			"destination": "/proc",
			"type": "proc",
			"source": "proc"
		},
		{
			"destination": "/dev",
			"type": "tmpfs",
			"source": "tmpfs",
			"options": [
				"nosuid",
				"strictatime",
				"mode=755",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/pts",
			"type": "devpts",
			"source": "devpts",
			"options": [
				"nosuid",
				"noexec",
				"newinstance",
				"ptmxmode=0666",
				"mode=0620"@PTS_GROUP@
			]
		},
@SHM@@QUEUES@		{
			"destination": "/sys",
			@SYS_SOURCE@,
			"options": [
				@SYS_OPTION@"nosuid",
				"noexec",
				"nodev",
				"ro"
			]
		},
		{
			"destination": "/sys/fs/cgroup",
			"type": "cgroup",
			"source": "cgroup",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"relatime",
				"ro"
			]
		}
	],@ANNOTATIONS@
	"linux": {@USERS@
		"namespaces": [@NAMESPACES@
		],
		"maskedPaths": [
			"/proc/acpi",
			"/proc/asound",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/proc/sched_debug",
			"/sys/firmware",
			"/proc/scsi"
		],
		"readonlyPaths": [
			"/proc/bus",
			"/proc/fs",
			"/proc/irq",
			"/proc/sys",
			"/proc/sysrq-trigger"
		]
	}
}"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::ipc::IpcMode;
    use oci_spec::runtime::Spec;
    use serde_json::{Value, json};

    fn parsed(rootless: Option<Users>, unified: bool) -> Value {
        serde_json::from_str(&text(rootless, unified, &Ipc::Private(None))).unwrap()
    }

    fn ipcs() -> [Ipc; 6] {
        let container = Ipc::Container { namespace: "/proc/7/ns/ipc".to_owned(), shm: "/a \"b\"".to_owned() };
        let host = |queues| Ipc::Host { queues };
        [Ipc::Private(None), Ipc::Shareable(Some(1 << 30)), Ipc::None, host(true), host(false), container]
    }

    #[test]
    fn the_ipc_mode_is_the_one_that_was_asked_for() {
        let words = ["private", "shareable", "none", "host", "host", "container"];
        for (ipc, word) in ipcs().iter().zip(words) {
            for rootless in [None, Some(Users { uid: 7, gid: 8 })] {
                let spec: Spec = serde_json::from_str(&text(rootless, true, ipc)).unwrap();
                assert_eq!(IpcMode::of(&spec).as_str(), word);
                crate::spec::validate::spec(&spec).unwrap();
            }
        }
    }

    #[test]
    fn places_and_sizes_are_named() {
        let [_, shareable, none, host, bare_host, container] =
            ipcs().map(|ipc| serde_json::from_str::<Value>(&text(None, false, &ipc)).unwrap());
        let mount = |spec: &Value, at: &str| {
            spec["mounts"].as_array().unwrap().iter().find(|mount| mount["destination"] == at).cloned()
        };
        assert_eq!(mount(&shareable, "/dev/shm").unwrap()["options"][4], "size=1073741824");
        assert_eq!(shareable["annotations"], json!({"org.stasis.ipc": "shareable"}));
        assert_eq!((mount(&none, "/dev/shm"), &none["annotations"]), (None, &Value::Null));
        assert_eq!(mount(&host, "/dev/shm").unwrap()["source"], "/dev/shm");
        assert_eq!(mount(&container, "/dev/shm").unwrap()["source"], "/a \"b\"");
        assert_eq!(container["linux"]["namespaces"][2], json!({"type": "ipc", "path": "/proc/7/ns/ipc"}));
        // Root may mount the host's queues itself.
        assert_eq!(mount(&bare_host, "/dev/mqueue").unwrap()["type"], "mqueue");
        let rootless = |queues| {
            let text = text(Some(Users { uid: 7, gid: 8 }), false, &Ipc::Host { queues });
            mount(&serde_json::from_str(&text).unwrap(), "/dev/mqueue")
        };
        assert_eq!((rootless(true).unwrap()["type"].clone(), rootless(false)), (json!("bind"), None));
    }

    #[test]
    fn the_text_is_the_json_it_stands_for() {
        let users = Some(Users { uid: 7, gid: 8 });
        let cases = [(None, false), (None, true), (users, true)];
        for ((rootless, unified), ipc) in cases.into_iter().flat_map(|case| ipcs().map(|ipc| (case, ipc))) {
            let text = text(rootless, unified, &ipc);
            assert!(!text.contains('@') && text.ends_with('}'), "{text}");
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let spec: Spec = serde_json::from_str(&text).unwrap();
            assert_eq!(spec.version(), "1.3.0");
            let bare = |line: &str| line.trim_end_matches(',').to_owned();
            let lines = |text: &str| text.lines().map(bare).collect::<std::collections::BTreeSet<_>>();
            let mut printed = Vec::new();
            let value: Value = serde_json::from_str(&text).unwrap();
            serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut printed, formatter))
                .unwrap();
            assert_eq!(lines(&text), lines(&String::from_utf8(printed).unwrap()));
        }
    }

    #[test]
    fn rootless_has_a_user_namespace_and_nothing_that_needs_root() {
        let spec = parsed(Some(Users { uid: 1000, gid: 100 }), false);
        let linux = &spec["linux"];
        assert_eq!(linux["uidMappings"], json!([{"containerID": 0, "hostID": 1000, "size": 1}]));
        assert_eq!(linux["gidMappings"], json!([{"containerID": 0, "hostID": 100, "size": 1}]));
        assert_eq!(linux["resources"], Value::Null);
        let namespaces =
            json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "user"}]);
        assert_eq!(linux["namespaces"], namespaces);
        assert_eq!(spec["mounts"][5]["options"][0], "rbind");
        assert_eq!(spec["mounts"][2]["options"].as_array().map(Vec::len), Some(5));
    }

    #[test]
    fn a_unified_host_gets_a_cgroup_namespace() {
        assert_eq!(parsed(None, true)["linux"]["namespaces"][5]["type"], "cgroup");
        assert_eq!(parsed(None, false)["linux"]["namespaces"].as_array().map(Vec::len), Some(5));
    }
}
