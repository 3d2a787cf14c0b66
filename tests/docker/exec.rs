//! `docker exec`: further processes in a running container.

/// A program that stays until it is killed.
const STAY: &str = "exec sleep 1000";

#[test]
fn exit_code_is_the_programs() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    container.exec(&[], "echo inside; exit 9").exits(9).prints("inside");
}

#[test]
fn user_directory_and_environment_are_its_own() {
    let docker = docker!();
    let container = docker.start(&["-e", "A=first"], STAY);
    container.exec(&["-e", "A=second", "-w", "/tmp", "-u", "5"], "echo $A; pwd; id -u").ok().prints("second\n/tmp\n5");
    container.exec(&[], "echo $A; pwd; id -u").ok().prints("first\n/\n0");
}

#[test]
fn standard_input_reaches_the_program() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    docker.docker_reading(b"typed", &["exec", "-i", container.name(), "cat"]).ok().prints("typed");
}

#[test]
fn program_may_have_a_terminal() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    let said = docker.docker_in_terminal("true", "tty\nexit 6\n", &["exec", "-it", container.name(), "sh"]);
    said.exits(6).stdout_contains("/dev/pts/");
}

#[test]
fn detached_program_runs_on() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    container.exec(&["-d"], "echo done >/tmp/x; exec sleep 1000").ok();
    crate::support::wait_until("the program writes", || container.exec(&[], "cat /tmp/x").text() == "done");
    container.exec(&[], "ps | grep -c '[s]leep 1000'").ok().prints("2");
}

#[test]
fn missing_command_is_told() {
    let docker = docker!();
    let container = docker.start(&[], STAY);
    // dockerd 20.10 has 126 for both; newer ones have 127 for the first.
    let missing = container.exec_program(&[], &["nosuch"]).fails();
    assert!([126, 127].contains(&missing.code), "{missing}");
    assert!(missing.to_string().contains("executable file not found in $PATH"), "{missing}");
    let refused = container.exec_program(&[], &["/etc/passwd"]).exits(126);
    assert!(refused.to_string().contains("permission denied"), "{refused}");
}

#[test]
fn confinement_is_the_containers() {
    let docker = docker!();
    let container = docker.start(&["--cap-drop=ALL"], STAY);
    container.exec(&[], "grep -c '^Cap.*0000000000000000$' /proc/self/status").ok().prints("5");
    container.exec(&[], "sed -n s/^Seccomp:.//p /proc/self/status").ok().prints("2");
}

#[test]
fn limits_are_the_containers() {
    let docker = docker!();
    let container = docker.start(&["--cgroupns=host"], STAY);
    let theirs = container.exec(&[], "cat /proc/1/cgroup").ok();
    container.exec(&[], "cat /proc/self/cgroup").ok().prints(theirs.text());
}

#[test]
fn health_is_checked_by_programs_inside() {
    let docker = docker!();
    let check = "--health-cmd=test -e /tmp/well";
    let container = docker.start(&[check, "--health-interval=200ms"], "touch /tmp/well; exec sleep 1000");
    crate::support::wait_until("the container is healthy", || container.inspect("State.Health.Status") == "healthy");
}
