//! `docker run` in the foreground: exit codes, streams, terminals, and how the runtime itself is called.

/// Where containerd keeps what it passes to the runtime for a container.
const BUNDLES: &str = "exec/containerd/daemon/io.containerd.runtime.v2.task/moby";

#[test]
fn exit_code_is_the_programs() {
    let docker = docker!();
    docker.run(&[], "exit 0").ok();
    docker.run(&[], "exit 7").exits(7);
}

#[test]
fn streams_stay_apart() {
    let docker = docker!();
    let said = docker.run(&[], "echo out; echo err >&2").ok().prints("out");
    assert_eq!(said.stderr.trim(), "err");
}

#[test]
fn standard_input_reaches_the_program() {
    let docker = docker!();
    let args = ["run", "--rm", "-i", "--network=none", "busybox", "sh"];
    docker.docker_reading(b"echo typed; exit 3", &args).exits(3).prints("typed");
}

#[test]
fn missing_command_is_127() {
    let docker = docker!();
    docker.run_program(&[], &["nosuch"]).exits(127).stderr_contains("executable file not found in $PATH");
}

#[test]
fn missing_path_is_127() {
    let docker = docker!();
    docker.run_program(&[], &["/no/such"]).exits(127).stderr_contains("no such file or directory");
}

#[test]
fn non_executable_is_126() {
    let docker = docker!();
    docker.run_program(&[], &["/etc/passwd"]).exits(126).stderr_contains("permission denied");
}

#[test]
fn directory_is_126() {
    let docker = docker!();
    docker.run_program(&[], &["/etc"]).exits(126).stderr_contains("/etc");
}

#[test]
fn program_may_have_a_terminal() {
    let docker = docker!();
    docker.run(&["-t"], "tty; test -t 1 && echo is one").ok().prints("/dev/pts/0\r\nis one");
}

#[test]
fn terminal_takes_what_is_typed() {
    let docker = docker!();
    let args = ["run", "--rm", "-it", "--network=none", "busybox", "sh"];
    let said = docker.docker_in_terminal("true", "echo is $((6*7))\nexit 5\n", &args);
    said.exits(5).stdout_contains("is 42");
}

#[test]
fn terminal_has_the_size_of_the_users() {
    let docker = docker!();
    let script = "'until test \"$(stty size)\" = \"33 77\"; do sleep 0.1; done; echo resized'";
    let args = ["run", "--rm", "-it", "--network=none", "busybox", "timeout", "20", "sh", "-c", script];
    docker.docker_in_terminal("stty rows 33 cols 77", "", &args).ok().stdout_contains("resized");
}

#[test]
fn init_of_dockers_forwards_signals() {
    let docker = docker!();
    let container = docker.start(&["--init"], "echo up; exec sleep 1000");
    container.says("up");
    // As the first process, sleep would not be ended by a signal that it does not catch.
    container.docker("kill --signal TERM").ok();
    container.becomes("exited");
    assert_eq!(container.inspect("State.ExitCode"), "143");
}

#[test]
fn arguments_of_the_runtime_are_passed() {
    let docker = docker!();
    let log = |options: &[&str]| {
        let container = docker.start(options, "sleep 1000");
        std::fs::read_to_string(docker.dir().join(BUNDLES).join(container.id()).join("log.json")).unwrap_or_default()
    };
    assert!(log(&["--runtime=stasis-debug"]).contains(r#""level":"debug""#));
    assert!(!log(&["--runtime=stasis"]).contains(r#""level":"debug""#));
}

#[test]
fn daemon_knows_the_runtimes_version() {
    let docker = docker!();
    ours_only!("dockerd prints the name and version of ours");
    let version = docker.docker(&["version"]).ok();
    version.stdout_contains("stasis:").stdout_contains(env!("CARGO_PKG_VERSION"));
}
