//! Another process in a running container, with every option.

use crate::support::{Bundle, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Writes a process for `--process` and returns its path: the container's own, edited.
fn process(c: &Runtime, edit: impl FnOnce(&mut Value)) -> String {
    let mut process = c.bundle().config()["process"].clone();
    edit(&mut process);
    let path = c.bundle().path().join("source");
    fs::write(&path, process.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn exec_returns_the_programs_code_and_output() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.exec_sh("echo out; echo err >&2; exit 9").exits(9).prints("out").stderr_contains("err");
    c.exec_sh("kill -TERM $$").exits(143);
}

#[test]
fn a_failure_of_the_runtimes_own_is_255() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.exec(&["no-such"]).exits(255).stderr_contains("executable file not found in $PATH");
    c.exec(&["/etc/passwd"]).exits(255).stderr_contains("permission denied");
    c.exec(&["/etc"]).exits(255).stderr_contains_any(&["is a directory", "permission denied"]);
    c.exec_with(&["--cwd", "/no/such"], &["true"]).exits(255).stderr_contains("no such file or directory");
    assert_eq!(c.cmd(&["ps", "--format", "json", c.id()]).json(), json!([c.pid()]));
}

#[test]
fn the_scheduler_of_a_process_has_the_flags_of_the_specification() {
    requires!(root);
    ours_only!("runc 1.1 knows no scheduler");
    let c = Bundle::sleep().start();
    let flagged = process(&c, |process| {
        process["scheduler"] = json!({"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
        process["args"] = json!(["sleep", "1000"]);
    });
    let pid_file = c.bundle().path().join("exec.pid");
    c.cmd(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), "--process", &flagged, c.id()]).ok();
    let pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    // SAFETY: integers only.
    let policy = unsafe { nix::libc::sched_getscheduler(pid) };
    assert_eq!(policy, nix::libc::SCHED_BATCH | nix::libc::SCHED_RESET_ON_FORK);
}

#[test]
fn a_process_is_read_as_go_reads_it() {
    requires!(root);
    let c = Bundle::sleep().start();
    let path = c.bundle().path().join("source");
    fs::write(&path, r#"{"CWD": "/", "ARGS": ["/bin/id", "-u"], "User": {"UID": 7}} and more"#).unwrap();
    c.cmd(&["exec", "--process", path.to_str().unwrap(), c.id()]).ok().prints("7");
}

#[test]
fn debug_says_how_far_exec_got() {
    requires!(root);
    let c = Bundle::sleep().start();
    let output = c.cmd(&["--debug", "exec", c.id(), "true"]).ok();
    for words in ["nsexec container setup", "child process in init()", "setns_init: about to exec"] {
        assert!(output.stderr.contains(words), "no {words:?} in {output}");
    }
}

#[test]
fn cgroups_that_are_none_of_the_containers_are_refused() {
    requires!(root);
    ours_only!("runc 1.1 has some of the words");
    let c = Bundle::sleep().start();
    let refused = |cgroup: &str, words: &str| {
        c.exec_with(&["--cgroup", cgroup], &["true"]).exits(255).stderr_contains(words);
    };
    // Those of runc from 1.5 on, and of those before.
    refused("..", " .. is not a sub cgroup path");
    // Also one whose name begins as the container's.
    for out in ["..".to_owned(), format!("../{}-sibling", c.id()), format!("/a/../../{}", c.id())] {
        refused(&out, &format!("bad sub cgroup path: {out}"));
    }
    c.exec_with(&["--cgroup", "/a/.."], &["true"]).ok();
    refused("nonexistent", "error adding pid ");
    refused("nonexistent", "/nonexistent/cgroup.procs: no such file or directory");
}

#[test]
fn exec_relays_standard_input() {
    requires!(root);
    let c = Bundle::sleep().start();
    let input = c.bundle().path().join("source");
    fs::write(&input, "line\n".repeat(30_000)).unwrap();
    let mut command = c.command(&["exec", c.id(), "wc", "-l"]);
    command.stdin(fs::File::open(input).unwrap());
    c.output_of(command).ok().prints("30000");
}

#[test]
fn exec_begins_with_the_containers_process() {
    requires!(root);
    let c = Bundle::sleep().with(|config| {
        config["process"]["env"].as_array_mut().unwrap().push(json!("A=container"));
        config["process"]["cwd"] = json!("/tmp");
        config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    });
    let c = c.start();
    c.exec_sh("echo $A $(pwd) $(id -u) $(grep NoNewPrivs /proc/self/status)")
        .ok()
        .prints("container /tmp 1000 NoNewPrivs: 1");
}

#[test]
fn options_change_the_process() {
    requires!(root);
    let c = Bundle::sleep().start();
    let options = ["--cwd", "/etc", "-e", "A=1", "-e", "B=2", "--user", "1000:7", "-g", "8", "-g", "9"];
    c.exec_with(&options, &["sh", "-c", "echo $(pwd) $A $B $HOME; id -u; id -G"])
        .ok()
        .prints("/etc 1 2 /home/user\n1000\n7 8 9");
}

#[test]
fn a_capability_is_added() {
    requires!(root);
    let c = Bundle::sleep().start();
    let bounding =
        |options: &[&str]| c.exec_with(options, &["grep", "CapBnd", "/proc/self/status"]).ok().text().to_owned();
    let mask = |line: &str| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap();
    // CAP_SYS_PTRACE is bit 19.
    assert_eq!(mask(&bounding(&["--cap", "CAP_SYS_PTRACE"])), mask(&bounding(&[])) | 1 << 19);
}

#[test]
fn no_new_privs_is_added() {
    requires!(root);
    let c = Bundle::sleep().with(|config| config["process"]["noNewPrivileges"] = json!(false)).start();
    let shown =
        |options: &[&str]| c.exec_with(options, &["grep", "NoNewPrivs", "/proc/self/status"]).ok().text().to_owned();
    assert_eq!((shown(&[]).as_str(), shown(&["--no-new-privs"]).as_str()), ("NoNewPrivs:\t0", "NoNewPrivs:\t1"));
}

#[test]
fn a_process_can_be_described_by_a_file() {
    requires!(root);
    let c = Bundle::sleep().start();
    let file = process(&c, |process| {
        process["args"] = json!(["sh", "-c", "echo $A $(pwd) $(id -u); ulimit -n"]);
        process["env"] = json!(["PATH=/bin", "A=file"]);
        process["cwd"] = json!("/etc");
        process["user"] = json!({"uid": 5, "gid": 6});
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 33, "hard": 44}]);
    });
    c.cmd(&["exec", "--process", &file, c.id()]).ok().prints("file /etc 5\n33");
}

#[test]
fn a_detached_process_goes_on_and_its_pid_is_written() {
    requires!(root);
    let c = Bundle::sleep().start();
    let pid_file = c.bundle().path().join("source");
    let line = ["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), c.id(), "sleep", "999"];
    c.detached(c.command(&line)).ok();
    let pid: i32 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    let pids = c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    assert!(pids.as_array().unwrap().contains(&json!(pid)), "{pids}");
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(line, "sleep\0999\0");
}

#[test]
fn a_process_is_in_the_containers_cgroup() {
    requires!(root);
    let c = Bundle::sleep().start();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", c.pid())).unwrap();
    c.exec(&["cat", "/proc/self/cgroup"]).ok().prints(own.trim());
}

#[test]
fn a_process_can_be_put_in_a_cgroup_below() {
    requires!(root, cgroup_v1);
    let c = Bundle::sleep().start();
    fs::create_dir(c.cgroup("pids").join("below")).unwrap();
    let output = c.exec_with(&["--cgroup", "pids:below"], &["cat", "/proc/self/cgroup"]).ok();
    output
        .clone()
        .stdout_contains(&format!("pids:/{}/below\n", c.id()))
        .stdout_contains(&format!("devices:/{}\n", c.id()));
    c.exec_with(&["--cgroup", "pids:absent"], &["true"]).exits(255);
}

#[test]
fn seccomp_keyring_and_personality_are_the_containers() {
    requires!(root);
    ours_only!("runc 1.1 knows no personality");
    let c = Bundle::sleep().with(|config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
        config["linux"]["personality"] = json!({"domain": "LINUX32"});
        config["linux"]["maskedPaths"] = json!([]);
    });
    let c = c.start();
    c.exec_sh("mkdir /tmp/x").exits(1).stderr_contains("No space left on device");
    c.exec_sh("uname -m").ok().prints("i686");
    c.exec_sh("cat /proc/keys").ok().stdout_contains(&format!("_ses.{}", c.id()));
}

#[test]
fn exec_in_a_created_container_works() {
    requires!(root);
    let c = Bundle::sleep().create();
    c.exec_sh("echo here").ok().prints("here");
    assert_eq!(c.status(), "created");
}

#[test]
fn exec_in_a_paused_container_is_refused_unless_asked_for() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.pause().ok();
    c.exec(&["true"]).exits(255).stderr_contains("cannot exec in a paused container");
    std::thread::scope(|scope| {
        let output = scope.spawn(|| c.exec_with(&["--ignore-paused"], &["echo", "thawed"]));
        std::thread::sleep(std::time::Duration::from_millis(200));
        c.resume().ok();
        output.join().unwrap().ok().prints("thawed");
    });
}

#[test]
fn descriptors_are_preserved_when_asked_for() {
    requires!(root);
    let c = Bundle::sleep().prepare(|dir| fs::write(dir.join("source"), "kept\n").unwrap()).start();
    let exec = c.command(&[
        "exec",
        "--preserve-fds",
        "1",
        c.id(),
        "sh",
        "-c",
        "cat <&3; ls -l /proc/self/fd | grep -c source",
    ]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<source 4<source; exec \"$@\"", "sh"]).current_dir(c.bundle().path());
    command.arg(exec.get_program()).args(exec.get_args());
    c.output_of(command).ok().prints("kept\n1");
}

#[test]
fn descriptors_of_the_runtime_are_not_preserved() {
    requires!(root);
    let c = Bundle::sleep().start();
    let log = c.bundle().path().join("source");
    // The log gets the number that was promised.
    let exec = c.command(&["--log", log.to_str().unwrap(), "exec", "--preserve-fds", "1", c.id(), "true"]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3>&-; exec \"$@\"", "sh"]).arg(exec.get_program()).args(exec.get_args());
    c.output_of(command).exits(255).stderr_contains("unable to stat preserved-fd 0 (of 1)");
}

#[test]
fn signals_reach_the_process_in_the_foreground() {
    requires!(root);
    let c = Bundle::sleep().start();
    let ready = c.bundle().path().join("stdout");
    let script = "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.01; done";
    let mut command = c.command(&["exec", c.id(), "sh", "-c", script]);
    let mut child = command.stdout(fs::File::create(&ready).unwrap()).spawn().unwrap();
    wait_until("the process is ready", || fs::read_to_string(&ready).unwrap() == "ready\n");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), nix::sys::signal::SIGUSR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    assert_eq!(fs::read_to_string(&ready).unwrap(), "ready\ngot\n");
}

#[test]
fn processes_that_are_left_in_the_background_are_not_waited_for() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.exec_sh("sleep 1000 >/dev/null 2>&1 & echo done").ok().prints("done");
}
