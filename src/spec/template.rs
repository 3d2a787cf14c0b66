//! What `stasis spec` writes: the config.json that users of runc start from, tabs and all.
//!
//! It is kept as the text it is, so that a reader sees the file; the four places that differ for a rootless container
//! are filled in.

/// Whom a rootless container's root is on the host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Users {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
}

/// Returns the template for a container of the host's root, or of `rootless`.
///
/// `unified` says that the host has cgroup v2 alone, where a container should have its own cgroup namespace.
pub fn text(rootless: Option<Users>, unified: bool) -> String {
    let pts_group = if rootless.is_some() { "" } else { ",\n\t\t\t\t\"gid=5\"" };
    let (sys_source, sys_option) = match rootless {
        Some(_) => ("\"type\": \"none\",\n\t\t\t\"source\": \"/sys\"", "\"rbind\",\n\t\t\t\t"),
        None => ("\"type\": \"sysfs\",\n\t\t\t\"source\": \"sysfs\"", ""),
    };
    let users = match rootless {
        Some(Users { uid, gid }) => mapping("uid", uid) + &mapping("gid", gid),
        None => RESOURCES.to_owned(),
    };
    let namespaces: Vec<String> = namespaces(rootless.is_some(), unified)
        .map(|name| format!("\n\t\t\t{{\n\t\t\t\t\"type\": \"{name}\"\n\t\t\t}}"))
        .collect();
    TEMPLATE
        .replace("@PTS_GROUP@", pts_group)
        .replace("@SYS_SOURCE@", sys_source)
        .replace("@SYS_OPTION@", sys_option)
        .replace("@USERS@", &users)
        .replace("@NAMESPACES@", &namespaces.join(","))
}

fn namespaces(rootless: bool, unified: bool) -> impl Iterator<Item = &'static str> {
    [("pid", true), ("network", !rootless), ("ipc", true), ("uts", true), ("mount", true), ("cgroup", unified)]
        .into_iter()
        .chain([("user", rootless)])
        .filter_map(|(name, wanted)| wanted.then_some(name))
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
		{
			"destination": "/dev/shm",
			"type": "tmpfs",
			"source": "shm",
			"options": [
				"nosuid",
				"noexec",
				"nodev",
				"mode=1777",
				"size=65536k"
			]
		},
		{
			"destination": "/dev/mqueue",
			"type": "mqueue",
			"source": "mqueue",
			"options": [
				"nosuid",
				"noexec",
				"nodev"
			]
		},
		{
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
	],
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
    use serde_json::{Value, json};

    fn parsed(rootless: Option<Users>, unified: bool) -> Value {
        serde_json::from_str(&text(rootless, unified)).unwrap()
    }

    #[test]
    fn the_text_is_the_json_it_stands_for() {
        for (rootless, unified) in [(None, false), (None, true), (Some(Users { uid: 7, gid: 8 }), true)] {
            let text = text(rootless, unified);
            assert!(!text.contains('@') && text.ends_with('}'), "{text}");
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let spec: oci_spec::runtime::Spec = serde_json::from_str(&text).unwrap();
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
