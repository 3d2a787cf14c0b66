//! Volumes, temporary file systems and devices of `docker run`.

use std::fs;
use std::path::PathBuf;

/// Makes a directory of the host for one test.
fn source(name: &str) -> PathBuf {
    let dir = crate::daemon::Daemon::shared().dir().join("sources").join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn volume_is_written() {
    let docker = docker!();
    let dir = source("rw");
    docker.run(&["-v", &format!("{}:/mnt", dir.display())], "echo there >/mnt/x").ok();
    assert_eq!(fs::read_to_string(dir.join("x")).unwrap(), "there\n");
}

#[test]
fn read_only_volume_is_read() {
    let docker = docker!();
    let dir = source("ro");
    fs::write(dir.join("x"), "kept").unwrap();
    let volume = format!("{}:/mnt:ro", dir.display());
    docker.run(&["-v", &volume], "cat /mnt/x; echo >/mnt/x").fails().prints("kept");
    assert_eq!(fs::read_to_string(dir.join("x")).unwrap(), "kept");
}

#[test]
fn single_file_is_a_volume() {
    let docker = docker!();
    let file = source("file").join("x");
    fs::write(&file, "one").unwrap();
    docker.run(&["-v", &format!("{}:/etc/one/file", file.display())], "cat /etc/one/file").ok().prints("one");
}

#[test]
fn directory_is_not_mounted_on_a_file() {
    let docker = docker!();
    let volume = format!("{}:/etc/passwd", source("directory").display());
    docker.run(&["-v", &volume], "true").fails().stderr_contains("mount a directory onto a file");
}

#[test]
fn named_volume_outlives_its_container() {
    let docker = docker!();
    docker.run(&["-v", "kept:/mnt"], "echo still >/mnt/x").ok();
    docker.run(&["-v", "kept:/mnt"], "cat /mnt/x").ok().prints("still");
    docker.docker(&["volume", "rm", "kept"]).ok();
}

#[test]
fn later_mounts_are_seen_as_the_propagation_says() {
    let docker = docker!();
    let dir = source("propagation");
    let at = |mode: &str| format!("{}:/mnt:{mode}", dir.display());
    let slave = docker.start(&["-v", &at("rslave")], "exec sleep 1000");
    let private = docker.start(&["-v", &at("rprivate")], "exec sleep 1000");
    let late = format!("{0} && mount -t tmpfs late {0} && touch {0}/x", dir.join("late").display());
    docker.among_its_mounts(&format!("mkdir {late}")).ok();
    slave.exec(&[], "ls /mnt/late").ok().prints("x");
    private.exec(&[], "ls /mnt/late").ok().prints("");
    docker.among_its_mounts(&format!("umount {}", dir.join("late").display())).ok();
}

#[test]
fn shared_volume_passes_mounts_to_the_host() {
    let docker = docker!();
    let dir = source("shared");
    let volume = format!("{}:/mnt:rshared", dir.display());
    let script = "mkdir /mnt/late && mount -t tmpfs late /mnt/late && touch /mnt/late/x && echo done && sleep 1000";
    let container = docker.start(&["--cap-add=SYS_ADMIN", "-v", &volume], script);
    container.says("done");
    let late = dir.join("late").display().to_string();
    docker.among_its_mounts(&format!("ls {late}; umount {late}")).ok().prints("x");
}

#[test]
fn tmpfs_has_its_options() {
    let docker = docker!();
    let script = "stat -c %a /t; grep ' /t ' /proc/mounts; touch /t/x";
    let said = docker.run(&["--tmpfs=/t:size=1m,mode=700"], script).ok();
    said.stdout_contains("700\n").stdout_contains("size=1024k").stdout_contains("noexec");
}

#[test]
fn shared_memory_has_its_size() {
    let docker = docker!();
    docker.run(&["--shm-size=12m"], "df /dev/shm | tail -n 1").ok().stdout_contains("12288");
}

#[test]
fn device_is_there_with_its_permissions() {
    let docker = docker!();
    let options = ["--device=/dev/kmsg:/dev/log0:r", "--cap-add=SYSLOG"];
    docker.run(&options, "exec 3</dev/log0").ok();
    docker.run(&options, "exec 3>/dev/log0").fails().stderr_contains("not permitted");
}

#[test]
fn device_that_was_not_given_is_refused() {
    let docker = docker!();
    docker
        .run(&["--cap-add=MKNOD"], "mknod /tmp/log c 1 11 && exec 3</tmp/log")
        .fails()
        .stderr_contains("not permitted");
}
