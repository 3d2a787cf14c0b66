//! The runtime under the Podman of a user who is not root: Podman has become the root of a user namespace with the user's
//! ids by the time it calls the runtime.

use crate::support::{Enclosure, Output, Runtime, copy_program, image};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

/// Nobody's number on the host.
const USER: u32 = 3000;

/// A user's Podman, with the image `busybox`.
struct Rootless(Enclosure);

impl Rootless {
    fn begin() -> Self {
        let enclosure = Enclosure::begin("rootless", |dir| {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
            copy_program(&Runtime::found(), &dir.join("runtime"));
            fs::create_dir(dir.join("home")).unwrap();
            fs::set_permissions(dir.join("home"), fs::Permissions::from_mode(0o700)).unwrap();
            chown(dir.join("home"), Some(USER), Some(USER)).unwrap();
            ["sleep", "infinity"].map(str::to_owned).into()
        });
        let rootless = Self(enclosure.unwrap_or_else(|err| panic!("{err}")));
        let user = format!(
            "echo user:x:{USER}:{USER}::/:/bin/sh >>/etc/passwd; echo user:x:{USER}: >>/etc/group
             echo user:100000:65536 >/etc/subuid; echo user:200000:65536 >/etc/subgid"
        );
        rootless.0.inside(&user).ok();
        rootless.output(&image(), &["import", "--quiet", "-", "busybox"]).ok();
        rootless
    }

    fn podman(&self, args: &[&str]) -> Output {
        self.output(b"", args)
    }

    fn output(&self, input: &[u8], args: &[&str]) -> Output {
        let (dir, user) = (self.0.dir(), USER.to_string());
        let mut podman = self.0.command("setpriv");
        podman.args(["--reuid", &user, "--regid", &user, "--clear-groups", "podman"]);
        podman
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .arg("--runtime")
            .arg(dir.join("runtime"));
        let home = dir.join("home");
        podman.env("HOME", &home).env("TMPDIR", &home).env("XDG_RUNTIME_DIR", &home).env("USER", "user");
        podman.current_dir("/").args(args);
        Output::of(&mut podman, input, format!("podman {}", args.join(" ")))
    }
}

#[test]
fn a_users_podman_runs_containers() {
    requires!(root, podman, uidmap);
    let podman = Rootless::begin();
    let run = ["run", "--rm", "--network=none"];
    let shown = podman.podman(&[&run[..], &["busybox", "sh", "-c", "id -u; cat /proc/self/uid_map; exit 7"]].concat());
    let shown = shown.exits(7).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(shown, "0 0 3000 1 1 100000 65536");
    // In a user namespace below Podman's own.
    let nested = podman.podman(&[&run[..], &["--userns=keep-id", "busybox", "id", "-u"]].concat());
    nested.ok().prints("3000");

    let start = ["run", "--detach", "--name=one", "--network=none", "--volume=/etc:/from:ro"];
    podman.podman(&[&start[..], &["busybox", "sh", "-c", "echo up; exec sleep 1000"]].concat()).ok();
    podman.podman(&["exec", "one", "sh", "-c", "echo x >/x; cat /x; touch /from/x"]).fails().prints("x");
    podman.podman(&["exec", "--user=1000", "one", "id", "-u"]).ok().prints("1000");
    podman.podman(&["logs", "one"]).ok().prints("up");
    podman.podman(&["kill", "one"]).ok();
    podman.podman(&["rm", "--force", "one"]).ok();
    podman.podman(&["ps", "--all", "--quiet"]).ok().prints("");
}
