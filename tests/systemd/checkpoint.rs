//! Checkpoints: a restored container has a scope again.

use crate::host::{Host, Kind};
use crate::support::{Bundle, wait_until};
use serde_json::json;
use std::process::Stdio;

#[test]
fn a_restored_container_is_in_a_scope_again() {
    requires!(root, systemd, criu);
    let counter = "i=0; while true; do i=$((i+1)); echo $i > /dev/shm/count; sleep 0.05; done";
    for (host, below) in Host::all().into_iter().map(|host| (host, "")).chain([(Host::shared(Kind::V2), "inner")]) {
        let c = host.scope(Bundle::sh(counter).with(|config| {
            if !below.is_empty() {
                config["annotations"] = json!({"run.oci.delegate-cgroup": below});
            }
        }));
        let mut run = c.command("run", &["--detach"]);
        assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
        let count = || c.runtime.exec_sh("cat /dev/shm/count").ok().text().trim().parse::<u32>().unwrap_or(0);
        wait_until("it counts", || count() > 2);
        let images = tempfile::tempdir().unwrap();
        let options = ["--image-path", images.path().to_str().unwrap()];
        let before = count();
        c.runtime.cmd(&[&["checkpoint"], &options[..], &[c.runtime.id()]].concat()).ok();
        c.leaves_nothing();

        let mut restore = c.command("restore", &[&options[..], &["--detach"]].concat());
        restore.stdout(Stdio::null());
        let restored = restore.stderr(Stdio::piped()).output().unwrap();
        assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
        assert_eq!(c.property("ActiveState"), "active");
        let first = count();
        assert!(first >= before, "{first} after {before}");
        wait_until("it counts on", || count() > first);
        let procs = host.inside(&format!("cat $(find /sys/fs/cgroup -path '*/{}/{below}*cgroup.procs')", c.unit)).ok();
        assert!(procs.lines().contains(&c.runtime.pid().to_string().as_str()), "{procs}");
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
        c.leaves_nothing();
    }
}
