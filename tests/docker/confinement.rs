//! What a container must not do: capabilities, seccomp, read-only roots, no_new_privs, and the lack of all these.

use std::fs;

#[test]
fn read_only_root_is_not_written() {
    let docker = docker!();
    docker.run(&["--read-only"], "touch /x").fails().stderr_contains("Read-only file system");
    docker.run(&["--read-only", "--tmpfs=/tmp"], "touch /tmp/x").ok();
}

#[test]
fn dropped_capability_is_lacking() {
    let docker = docker!();
    docker.run(&[], "chown 1 /tmp").ok();
    docker.run(&["--cap-drop=CHOWN"], "chown 1 /tmp").fails().stderr_contains("Operation not permitted");
}

#[test]
fn all_capabilities_may_be_dropped() {
    let docker = docker!();
    let left = docker.run(&["--cap-drop=ALL"], "sed -n s/^Cap...://p /proc/self/status").ok();
    assert!(left.lines().iter().all(|set| set.trim() == "0000000000000000"), "{left}");
}

#[test]
fn added_capability_is_there() {
    let docker = docker!();
    docker.run(&[], "mount -t tmpfs t /tmp").fails();
    docker.run(&["--cap-add=SYS_ADMIN"], "mount -t tmpfs t /tmp").ok();
}

#[test]
fn privileges_are_not_gained_when_forbidden() {
    let docker = docker!();
    let script = "sed -n s/NoNewPrivs:.//p /proc/self/status";
    docker.run(&[], script).ok().prints("0");
    docker.run(&["--security-opt=no-new-privileges"], script).ok().prints("1");
}

#[test]
fn default_seccomp_profile_is_in_force() {
    let docker = docker!();
    let filter = "sed -n s/^Seccomp:.//p /proc/self/status";
    docker.run(&[], filter).ok().prints("2");
    // The profile lets nobody make a user namespace who has not CAP_SYS_ADMIN; without it, everybody may.
    docker.run(&[], "unshare -U true").fails().stderr_contains("Operation not permitted");
    docker.run(&["--security-opt=seccomp=unconfined"], filter).ok().prints("0");
}

#[test]
fn default_seccomp_profile_follows_capabilities() {
    let docker = docker!();
    docker.run(&["--cap-add=SYS_ADMIN"], "unshare -m true").ok();
}

#[test]
fn seccomp_profile_may_be_the_users() {
    let docker = docker!();
    let profile = docker.dir().join("profile.json");
    let refused = r#"{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}"#;
    fs::write(&profile, format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{refused}]}}"#)).unwrap();
    let option = format!("--security-opt=seccomp={}", profile.display());
    docker.run(&[&option], "mkdir /x").fails().stderr_contains("No space left on device");
}

#[test]
fn kernel_files_are_masked_and_read_only() {
    let docker = docker!();
    docker.run(&[], "cat /proc/kcore | wc -c; ls -A /proc/acpi /sys/firmware | grep -v : | wc -w").prints("0\n0");
    docker.run(&[], "echo 1 >/proc/sys/vm/drop_caches").fails().stderr_contains("Read-only file system");
}

#[test]
fn privileged_is_unconfined() {
    let docker = docker!();
    let said = docker.run(&["--privileged"], "grep ^Seccomp: /proc/self/status; mount -t tmpfs t /tmp && echo mounted");
    match has_all_capabilities() {
        true => said.ok().prints("Seccomp:\t0\nmounted"),
        // Nobody can give what the tests' own root does not have.
        false => said.exits(125).stderr_contains_any(&["capabilities", "caps"]).stderr_contains("not permitted"),
    };
}

/// Says whether this root is as powerful as dockerd expects.
fn has_all_capabilities() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let last: u32 = fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    u64::from_str_radix(set, 16).unwrap().count_ones() == last + 1
}
