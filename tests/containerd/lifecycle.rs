//! A task's life under containerd.

use crate::support::wait_until;

#[test]
fn program_has_its_exit_code_and_streams() {
    let containerd = containerd!();
    let said = containerd.run(&[], "echo out; echo err >&2; exit 7").exits(7).prints("out");
    assert_eq!(said.stderr.trim(), "err");
}

#[test]
fn missing_command_is_told() {
    let containerd = containerd!();
    let said = containerd.run_program(&[], &["nosuch"]).fails();
    said.stderr_contains("exec: \"nosuch\": executable file not found in $PATH");
}

#[test]
fn program_runs_in_a_container() {
    let containerd = containerd!();
    let task = containerd.start(&["--env=WORD=kept"], &["sh", "-c", "echo kept >/x; echo up; exec sleep 1000"]);
    task.says("up");
    task.exec("cat /x; echo $WORD; exit 4").exits(4).prints("kept\nkept");
    // Itself, and a shell and what it runs.
    let listed = task.exec("ps >/ps; wc -l </ps").ok();
    assert_eq!(listed.text(), "4");
    task.task("ps").ok().stdout_contains("PID");
}

#[test]
fn program_gets_signals() {
    let containerd = containerd!();
    let script = "trap 'echo got USR1' USR1; trap 'echo got TERM; exit 5' TERM; echo up; while :; do sleep 0.05; done";
    let task = containerd.start_sh(script);
    task.says("up");
    task.task("kill --signal USR1").ok();
    task.says("got USR1");
    task.task("kill").ok();
    task.becomes("STOPPED");
    assert_eq!(task.logs(), "up\ngot USR1\ngot TERM\n");
}

#[test]
fn paused_task_goes_on() {
    let containerd = containerd!();
    let task = containerd.start_sh("while :; do echo tick; sleep 0.02; done");
    task.says("tick");
    task.task("pause").ok();
    assert_eq!(task.status(), "PAUSED");
    let written = task.logs();
    task.task("resume").ok();
    wait_until("the program goes on", || task.logs() != written);
}

#[test]
fn limits_hold() {
    let containerd = containerd!();
    requires!(cgroup_v1);
    let task = containerd.start(&["--memory-limit=67108864"], &["sleep", "1000"]);
    let cgroup = containerd
        .cgroups()
        .into_iter()
        .find(|path| path.starts_with("/sys/fs/cgroup/memory") && path.ends_with(task.name()));
    let limit = std::fs::read_to_string(cgroup.unwrap().join("memory.limit_in_bytes")).unwrap();
    assert_eq!(limit.trim(), "67108864");
}
