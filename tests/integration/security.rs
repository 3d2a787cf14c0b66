//! What a hostile image or program tries: our binary, our descriptors, our directories.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

/// What the runtime's file is, as far as an attack would change it.
fn binary() -> (Vec<u8>, std::time::SystemTime) {
    let path = Runtime::program();
    (fs::read(&path).unwrap(), fs::metadata(&path).unwrap().modified().unwrap())
}

#[test]
fn an_entrypoint_of_proc_self_exe_is_not_the_hosts_binary() {
    requires!(root);
    ours_only!("needs the path of the binary");
    // CVE-2019-5736: the program is the runtime itself, which the image then tries to write to.
    let before = binary();
    let c = Runtime::new(Bundle::new(&["/proc/self/exe", "--version"]));
    c.run().stdout_contains("version");
    assert_eq!(binary(), before);
    c.leaves_nothing();
}

#[test]
fn a_script_whose_interpreter_is_proc_self_exe_cannot_reach_the_hosts_binary() {
    requires!(root);
    ours_only!("needs the path of the binary");
    let before = binary();
    let c = Bundle::new(&["/script"]).prepare(|dir| {
        let script = dir.join("rootfs/script");
        fs::write(&script, "#!/proc/self/exe\n").unwrap();
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
    });
    Runtime::new(c.with(|config| config["root"]["readonly"] = json!(false))).run();
    assert_eq!(binary(), before);
}

#[test]
fn the_waiting_init_cannot_be_written_to() {
    requires!(root);
    ours_only!("needs the path of the binary");
    let c = Bundle::sleep().create();
    let exe = format!("/proc/{}/exe", c.pid());
    let err = fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    assert!(matches!(err.raw_os_error(), Some(nix::libc::EROFS | nix::libc::ETXTBSY | nix::libc::EPERM)), "{err}");
    // It is not the host's file: another device or inode, and read-only for good.
    let id = |path: &str| std::os::unix::fs::MetadataExt::dev(&fs::metadata(path).unwrap());
    assert_ne!(id(&exe), id(Runtime::program().to_str().unwrap()));
}

#[test]
fn only_the_standard_streams_are_open() {
    requires!(root);
    // CVE-2024-21626: a descriptor of a host directory is a way out.
    let c = Runtime::new(Bundle::sleep());
    let create = c.command(&["create", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3</ 7</tmp 9</etc; exec \"$@\"", "sh"]).arg(create.get_program()).args(create.get_args());
    c.detached(command).ok();
    c.start().ok();
    let open = |pid: i32| {
        let mut numbers: Vec<_> =
            fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().file_name()).collect();
        numbers.sort();
        numbers
    };
    crate::support::wait_until("the program runs", || {
        fs::read(format!("/proc/{}/cmdline", c.pid())).unwrap() == b"sleep\x001000\0"
    });
    assert_eq!(open(c.pid()), ["0", "1", "2"]);
    // A glob in a shell holds one more, of the directory.
    c.exec_sh("cd /proc/self/fd; echo [4-9] [1-9][0-9]").ok().prints("[4-9] [1-9][0-9]");
}

/// So it looks when the source of a bind mount was removed and made again: the mount keeps the directory that is gone.
#[test]
fn a_working_directory_that_is_gone_from_below_its_mount_is_told_as_by_runc() {
    requires!(root);
    let source = tempfile::tempdir().unwrap();
    let c = Bundle::sleep().mount("/work", "bind", source.path(), &["bind"]).start();
    c.exec_with(&["--cwd", "/work"], &["pwd"]).ok().prints("/work");
    drop(source);
    c.exec_with(&["--cwd", "/work"], &["pwd"]).exits(255).stderr_contains(
        "current working directory is outside of container mount namespace root -- possible container breakout detected",
    );
}

#[test]
fn a_working_directory_outside_of_the_root_is_refused() {
    requires!(root);
    ours_only!("Debian's runc 1.1 has the patch, and words of its own");
    for number in 0..20 {
        let cwd = format!("/proc/self/fd/{number}");
        let bundle = Bundle::sh("ls ../../../..").with(|config| config["process"]["cwd"] = json!(cwd));
        let output = Runtime::new(bundle).run();
        assert!(output.code != 0 || !output.stdout.contains("boot"), "{output}");
    }
    let c = Bundle::sleep().start();
    for number in 3..20 {
        c.exec_with(&["--cwd", &format!("/proc/self/fd/{number}")], &["pwd"]).fails();
    }
}

#[test]
fn nothing_of_the_host_is_reachable_through_init() {
    requires!(root);
    let c = Bundle::sh("ls /proc/1/root/; readlink /proc/1/root; ls /proc/1/cwd/").prepare(|dir| {
        fs::write(dir.join("rootfs/mark"), "").unwrap();
    });
    let output = c.run().ok();
    assert_eq!(output.stdout.matches("mark").count(), 2, "{output}");
    assert!(!output.stdout.contains("boot"), "{output}");
}

#[test]
fn an_images_devpts_cannot_stand_in_for_the_terminal() {
    requires!(root);
    ours_only!("Debian's runc 1.1 precedes the fix");
    // CVE-2025-52565: without a devpts of the container's own, whatever the image has at its place is no terminal.
    let bundle = Bundle::sleep().prepare(|dir| {
        fs::create_dir(dir.join("rootfs/dev/pts")).unwrap();
        fs::write(dir.join("rootfs/dev/pts/ptmx"), "").unwrap();
    });
    let c = Runtime::new(bundle.with(|config| {
        config["process"]["terminal"] = json!(true);
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    }));
    let console = crate::support::Console::listen(c.bundle());
    c.create_with(&["--console-socket", console.path()]).exits(1).stderr_contains("allocate a terminal");
    c.leaves_nothing();
}

#[test]
fn a_null_device_of_the_images_own_does_not_unmask() {
    requires!(root);
    ours_only!("Debian's runc 1.1 precedes the fix");
    // CVE-2025-31133: what masks files is the host's null device, not what the image has at its place.
    let c = Bundle::sh("wc -c </proc/keys; cat /secret | wc -c").prepare(|dir| {
        fs::write(dir.join("rootfs/secret"), "secret").unwrap();
        symlink("/proc/sys/kernel/core_pattern", dir.join("rootfs/dev/null")).unwrap();
    });
    let c = c.with(|config| {
        config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
        config["linux"]["maskedPaths"] = json!(["/proc/keys", "/secret"]);
    });
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let output = Runtime::new(c).run();
    assert!(output.code != 0 || output.stdout == "0\n0\n", "{output}");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

#[test]
fn the_state_is_roots_alone() {
    requires!(root);
    let c = Bundle::sleep().create();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let dir = c.root().join(c.id());
    assert_eq!(mode(&dir) & 0o066, 0);
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path) & 0o044, 0, "{}", path.display());
    }
}
