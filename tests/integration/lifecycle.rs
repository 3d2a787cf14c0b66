//! From create to delete: states, refusals, exit codes and what callers are told.

use crate::support::{Bundle, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;

#[test]
fn a_container_goes_from_created_to_running_to_stopped() {
    requires!(root);
    let c = Bundle::sh("echo here; sleep 1000").create();
    assert_eq!((c.status().as_str(), c.printed().as_str()), ("created", ""));
    c.start().ok().prints("");
    assert_eq!(c.status(), "running");
    c.wait_printed("here");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.delete().ok();
    c.cmd(&["state", c.id()]).exits(1).stderr_contains("does not exist");
    c.leaves_nothing();
}

#[test]
fn run_returns_the_programs_code_and_output_and_leaves_nothing() {
    requires!(root);
    let c = Runtime::new(Bundle::sh("echo out; echo err >&2; exit 7"));
    let output = c.run().exits(7).prints("out").stderr_contains("err");
    assert_eq!(output.stderr.trim(), "err");
    c.leaves_nothing();
}

#[test]
fn run_returns_128_and_the_number_of_the_signal_that_ended_the_program() {
    requires!(root);
    Bundle::sh("kill -KILL $$").without_namespace("pid").run().exits(137);
}

#[test]
fn run_keeps_the_container_when_asked_to() {
    requires!(root);
    ours_only!("runc 1.1 has no --keep for run in all of its versions");
    let c = Runtime::new(Bundle::sh("exit 3"));
    c.run_with(&["--keep"]).exits(3);
    assert_eq!(c.status(), "stopped");
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn run_detached_returns_while_the_program_runs() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep());
    c.detached(c.command(&["run", "--detach", "--bundle", c.bundle().path().to_str().unwrap(), c.id()])).ok();
    assert_eq!(c.status(), "running");
}

#[test]
fn run_relays_standard_input() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["cat"]));
    let input = c.bundle().path().join("source");
    fs::write(&input, "typed\n".repeat(20_000)).unwrap();
    let mut command = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    command.stdin(fs::File::open(&input).unwrap());
    assert_eq!(c.output_of(command).ok().stdout.len(), 120_000);
}

#[test]
fn state_says_what_the_specification_asks_for() {
    requires!(root);
    let c = Bundle::sleep().with(|config| config["annotations"] = json!({"org.example": "a b"})).create();
    let state = c.state();
    let bundle = c.bundle().path().to_str().unwrap();
    assert_eq!(state["id"], c.id());
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle);
    assert_eq!(state["rootfs"], format!("{bundle}/rootfs"));
    assert_eq!(state["annotations"], json!({"org.example": "a b"}));
    assert!(state["ociVersion"].is_string() && state["created"].is_string());
    assert!(fs::exists(format!("/proc/{}", state["pid"])).unwrap());
}

#[test]
fn a_stopped_container_has_no_pid() {
    requires!(root);
    let c = Bundle::sh("true").start();
    c.wait_for("stopped");
    assert_eq!(c.state()["pid"], 0);
}

#[test]
fn list_has_every_container() {
    requires!(root);
    let c = Bundle::sleep().create();
    let list = c.cmd(&["list", "--format", "json"]).ok().json();
    assert_eq!(list.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&list[0]["id"], &list[0]["status"], &list[0]["owner"]),
        (&json!(c.id()), &json!("created"), &json!("root"))
    );
    c.cmd(&["list", "-q"]).ok().prints(c.id());
    c.cmd(&["list"]).ok().stdout_contains("ID").stdout_contains("created");
}

#[test]
fn ps_has_the_processes() {
    requires!(root);
    let c = Bundle::sleep().start();
    let pids = c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    assert_eq!(pids, json!([c.pid()]));
    c.cmd(&["ps", c.id()]).ok().stdout_contains("PID").stdout_contains("sleep 1000");
}

#[test]
fn the_pid_file_holds_inits_pid_and_nothing_else() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep());
    let path = c.bundle().path().join("source");
    c.create_with(&["--pid-file", path.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(path).unwrap(), c.pid().to_string());
}

#[test]
fn a_second_container_of_the_same_name_is_refused_and_the_first_unharmed() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.create().exits(1).stderr_contains("container with given ID already exists");
    assert_eq!(c.status(), "running");
}

#[test]
fn what_a_status_does_not_allow_is_refused_in_runcs_words() {
    requires!(root);
    let c = Bundle::sleep().create();
    c.resume().exits(1).stderr_contains("container not paused");
    c.start().ok();
    c.start().exits(1).stderr_contains("cannot start an already running container");
    c.delete().exits(1).stderr_contains("that is not stopped: running");
    c.kill("KILL").ok();
    c.wait_for("stopped");
    c.start().exits(1).stderr_contains("cannot start a container that has stopped");
    c.kill("TERM").exits(1).stderr_contains("container not running");
    c.pause().exits(1).stderr_contains("container not running");
    c.exec(&["true"]).exits(255).stderr_contains("cannot exec in a stopped container");
}

#[test]
fn what_is_absent_does_not_exist() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep());
    for verb in ["state", "start", "kill", "delete", "pause", "resume", "ps"] {
        c.cmd(&[verb, c.id()]).exits(1).stderr_contains("does not exist");
    }
    c.exec(&["true"]).exits(255).stderr_contains("does not exist");
    c.cmd(&["delete", "--force", c.id()]).ok().prints("");
}

#[test]
fn a_created_container_ends_by_the_signals_that_ask_for_it() {
    requires!(root);
    for signal in ["HUP", "INT", "QUIT", "TERM"] {
        let c = Bundle::sh("echo ran").create();
        c.kill(signal).ok();
        assert_eq!(c.finished(), "");
    }
    // The program has its own way with them.
    let c = Bundle::sh("trap 'echo caught; exit' TERM; echo ready; while :; do sleep 0.1; done").start();
    c.wait_printed("ready");
    c.kill("TERM").ok();
    assert_eq!(c.finished(), "ready\ncaught\n");
    let c = Bundle::sh("grep Sig[BIC] /proc/self/status").start();
    assert!(c.finished().contains("SigCgt:\t0000000000000000"));
}

#[test]
fn a_created_container_can_be_deleted_and_never_runs() {
    requires!(root);
    let c = Bundle::sh("echo ran").create();
    c.delete().ok();
    assert_eq!(c.printed(), "");
    c.leaves_nothing();
}

#[test]
fn force_deletes_a_running_container() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn force_deletes_a_paused_container() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.pause().ok();
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn signals_have_names_and_numbers() {
    requires!(root);
    let c = Bundle::sh(
        "for s in HUP USR1 USR2; do trap \"echo got $s\" $s; done; echo ready; while :; do sleep 0.01; done",
    );
    let c = c.start();
    c.wait_printed("ready");
    for (signal, name) in [("HUP", "HUP"), ("sigusr1", "USR1"), ("12", "USR2")] {
        c.kill(signal).ok();
        c.wait_printed(&format!("got {name}"));
    }
    c.kill("NOSUCH").exits(1).stderr_contains("unknown signal");
}

#[test]
fn a_signal_is_term_unless_named() {
    requires!(root);
    let c = Bundle::sh("trap 'echo term; exit' TERM; echo ready; while :; do sleep 0.01; done").start();
    c.wait_printed("ready");
    c.cmd(&["kill", c.id()]).ok();
    c.wait_printed("term");
}

#[test]
fn kill_all_reaches_every_process_of_a_shared_pid_namespace() {
    requires!(root);
    let c = Bundle::sh("sleep 1000 & sleep 1000 & wait").without_namespace("pid").start();
    let pids = || c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    wait_until("three processes", || pids().as_array().map(Vec::len) == Some(3));
    c.cmd(&["kill", "--all", c.id(), "KILL"]).ok();
    wait_until("no process", || pids().as_array().is_none_or(Vec::is_empty));
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn kill_all_of_another_signal_is_for_init() {
    requires!(root);
    ours_only!("runc before 1.2 signals every process");
    let script = "sh -c 'trap \"echo child\" USR1; echo r; while :; do sleep 0.01; done' & \
                  trap 'echo init' USR1; echo r; while :; do sleep 0.01; done";
    let c = Bundle::sh(script).start();
    c.wait_printed("r\nr\n");
    c.cmd(&["kill", "--all", c.id(), "USR1"]).ok();
    c.wait_printed("init");
    c.cmd(&["kill", "--all", c.id(), "0"]).ok();
    c.kill("KILL").ok();
    assert_eq!(c.finished(), "r\nr\ninit\n");
    for signal in ["TERM", "KILL"] {
        c.kill(signal).exits(1).stderr_contains("container not running");
        c.cmd(&["kill", "--all", c.id(), signal]).ok();
    }
}

#[test]
fn kill_reaches_those_whom_init_has_left_behind() {
    requires!(root);
    ours_only!("runc before 1.2 finds no container");
    let c = Bundle::sh("sleep 1000 & sleep 1000 & echo left").without_namespace("pid").start();
    c.wait_for("stopped");
    let pids = || c.cmd(&["ps", "--format", "json", c.id()]).ok().json();
    assert_eq!(pids().as_array().map(Vec::len), Some(2));
    c.kill("TERM").exits(1).stderr_contains("container not running");
    c.kill("KILL").ok();
    wait_until("no process", || pids().as_array().is_none_or(Vec::is_empty));
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn without_a_cgroup_kill_reaches_init() {
    requires!(root);
    ours_only!("runc always makes a cgroup");
    for options in [&[][..], &["--all"]] {
        let c = Runtime::new(Bundle::sleep().without_namespace("pid").with(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "cgroup");
        }));
        let bundle = c.bundle().path().to_str().unwrap();
        c.detached(c.command(&["--cgroup-manager", "disabled", "create", "--bundle", bundle, c.id()])).ok();
        c.start().ok();
        c.cmd(&[&["kill"], options, &[c.id(), "KILL"]].concat()).ok();
        c.wait_for("stopped");
        c.delete().ok();
        c.leaves_nothing();
    }
}

#[test]
fn a_pid_that_has_become_a_threads_is_not_init() {
    requires!(root);
    ours_only!("the state is ours");
    let c = Bundle::sleep().start();
    c.kill("KILL").ok();
    c.wait_for("stopped");
    let path = c.root().join(c.id()).join("stasis.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            state["pid"] = json!(nix::unistd::gettid().as_raw());
            fs::write(&path, state.to_string()).unwrap();
            assert_eq!(c.status(), "stopped");
            c.delete().ok();
        });
        thread.join().unwrap();
    });
    c.leaves_nothing();
}

#[test]
fn delete_keeps_what_a_killed_restore_has_mounted() {
    requires!(root);
    ours_only!("the state is ours");
    let c = Runtime::new(Bundle::sleep());
    let root = c.root().join(c.id()).join("criu-root");
    fs::create_dir_all(&root).unwrap();
    let rootfs = c.bundle().path().join("rootfs");
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&rootfs), &root, None::<&str>, bind, None::<&str>).unwrap();
    c.cmd(&["delete", "--force", c.id()]).ok();
    assert!(rootfs.join("bin/busybox").exists());
    c.leaves_nothing();
}

#[test]
fn processes_that_outlive_init_go_with_delete() {
    requires!(root);
    ours_only!("runc 1.1 refuses to delete the cgroup of processes that outlive init");
    let c = Bundle::sh("sleep 1000 & echo left").without_namespace("pid").start();
    c.wait_for("stopped");
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn pause_stops_the_processes_and_resume_lets_them_go_on() {
    requires!(root);
    let c = Bundle::sh("while :; do echo tick; sleep 0.01; done").start();
    c.wait_printed("tick");
    c.pause().ok();
    assert_eq!(c.status(), "paused");
    let before = c.printed().len();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(c.printed().len(), before);
    c.pause().exits(1).stderr_contains("container not running");
    c.start().exits(1);
    c.resume().ok();
    assert_eq!(c.status(), "running");
    wait_until("more output", || c.printed().len() > before);
}

#[test]
fn the_saved_configuration_counts_after_create() {
    requires!(root);
    let mut c = Bundle::sh("echo old").create();
    c.edit(|config| config["process"]["args"] = json!(["sh", "-c", "echo new"]));
    c.start().ok();
    assert_eq!(c.finished(), "old\n");
}

#[test]
fn a_bundle_without_configuration_is_named() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep().prepare(|dir| fs::remove_file(dir.join("config.json")).unwrap()));
    c.create().exits(1).stderr_contains("config.json not found");
    c.leaves_nothing();
}

#[test]
fn a_relative_bundle_is_the_callers() {
    requires!(root);
    let c = Runtime::new(Bundle::sh("echo ran"));
    let mut command = c.command(&["run", c.id()]);
    command.current_dir(c.bundle().path());
    c.output_of(command).ok().prints("ran");
}

/// So every bundle of the runtime-tools is made.
#[test]
fn the_root_may_be_the_bundle_itself() {
    requires!(root);
    let bundle = Bundle::sh("head -c 1 /config.json").with(|config| config["root"]["path"] = json!("."));
    let c = Runtime::new(bundle.prepare(|path| {
        for entry in fs::read_dir(path.join("rootfs")).unwrap() {
            let entry = entry.unwrap();
            fs::rename(entry.path(), path.join(entry.file_name())).unwrap();
        }
    }));
    c.run().ok().prints("{");
}

#[test]
fn errors_are_one_line_of_the_log_and_of_stderr() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["no-such-program"]));
    let log = c.bundle().path().join("source");
    let bundle = c.bundle().path().to_str().unwrap();
    let line = ["--log", log.to_str().unwrap(), "--log-format", "json", "create", "--bundle", bundle, c.id()];
    let output = c.cmd(&line).exits(1).stderr_contains("executable file not found in $PATH");
    assert_eq!(output.stderr.trim_end().lines().count(), 1);
    let entry: Value = serde_json::from_str(&fs::read_to_string(&log).unwrap()).unwrap();
    assert_eq!(entry["level"], "error");
    assert!(entry["msg"].as_str().unwrap().contains("executable file not found in $PATH") && entry["time"].is_string());
}

/// Runs a container in the foreground, as a child that the test can signal, until it says that it is ready.
fn foreground(script: &str) -> (Runtime, std::process::Child) {
    let c = Runtime::new(Bundle::sh(script));
    let output = fs::File::create(c.bundle().path().join("stdout")).unwrap();
    let mut command = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    let child = command.stdout(output).spawn().unwrap();
    wait_until("the program is ready", || c.printed().contains("ready"));
    (c, child)
}

fn signal(child: &std::process::Child, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id() as i32), signal).unwrap();
}

#[test]
fn run_passes_signals_on() {
    requires!(root);
    let traps = "for s in HUP INT QUIT TERM USR1 USR2 ALRM; do trap \"echo got $s\" $s; done; trap 'exit 5' WINCH";
    let (c, mut child) = foreground(&format!("{traps}; echo ready; while :; do sleep 0.01; done"));
    use nix::sys::signal::Signal::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
    for sent in [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM] {
        signal(&child, sent);
        c.wait_printed(&format!("got {}\n", sent.as_str().trim_start_matches("SIG")));
    }
    c.kill("WINCH").ok();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    c.leaves_nothing();
}

#[test]
fn run_ends_when_the_container_is_killed_from_elsewhere() {
    requires!(root);
    let (c, mut child) = foreground("echo ready; sleep 1000");
    c.kill("KILL").ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    c.leaves_nothing();
}

#[test]
fn the_container_of_a_run_that_is_killed_can_be_deleted() {
    requires!(root);
    let (c, mut child) = foreground("echo ready; sleep 1000");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(c.status(), "running");
    c.cmd(&["delete", "--force", c.id()]).ok();
    c.leaves_nothing();
}

#[test]
fn closed_standard_streams_are_no_failure() {
    requires!(root);
    ours_only!("runc 1.1 does not start without its standard streams");
    let c = Runtime::new(Bundle::sh("exit 4"));
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let run = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {closed}"), "sh"]).arg(run.get_program()).args(run.get_args());
        c.output_of(command).exits(4);
    }
    c.leaves_nothing();
}

#[test]
fn run_does_not_wait_for_whoever_holds_its_output() {
    requires!(root);
    Bundle::sh("sleep 1000 & echo done").run().ok().prints("done");
}

#[test]
fn many_containers_are_made_at_once() {
    requires!(root);
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            (0..8).map(|n| scope.spawn(move || Bundle::sh(&format!("exit {n}")).run().exits(n))).collect();
        runs.into_iter().for_each(|run| drop(run.join().unwrap()));
    });
}

#[test]
fn of_two_that_start_a_container_at_once_one_succeeds() {
    requires!(root);
    ours_only!("runc 1.1 lets both succeed now and then");
    let c = Bundle::sleep().create();
    let codes = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..4).map(|_| scope.spawn(|| c.start().code)).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert_eq!(c.status(), "running");
}

#[test]
fn several_are_killed_and_deleted_by_a_regular_expression() {
    requires!(root);
    ours_only!("crun has it, and runc has not");
    let (one, two, other) = (Bundle::sleep().start(), Bundle::sleep(), Bundle::sleep());
    let made = |bundle: &Bundle, id: &str| {
        let mut command = one.command(&["run", "--detach", "--bundle", bundle.path().to_str().unwrap(), id]);
        command.stdout(std::process::Stdio::null());
        one.detached(command).ok();
    };
    made(&two, "web-2");
    made(&other, "data");
    let list = || one.cmd(&["list", "--format", "json"]).ok().json();
    let status = |id: &str| list().as_array().unwrap().iter().find(|c| c["id"] == id).unwrap()["status"].clone();
    let both = format!("^(web-[0-9]+|{})$", one.id());
    one.cmd(&["delete", "--regex", &both]).ok().stderr_contains("container web-2: cannot delete container web-2");
    one.cmd(&["kill", "--regex", &both, "KILL"]).ok().prints("");
    wait_until("two have ended", || [one.id(), "web-2"].iter().all(|id| status(id) == "stopped"));
    assert_eq!(status("data"), "running");
    one.cmd(&["kill", "-r", &both, "TERM"]).ok().stderr_contains("container web-2: container not running");
    one.cmd(&["delete", "-r", &both]).ok().prints("");
    one.cmd(&["list", "-q"]).ok().prints("data");
    one.cmd(&["delete", "-r", "("]).exits(1).stderr_contains("invalid regular expression");
    one.cmd(&["delete", "--force", "-r", "."]).ok().prints("");
    one.leaves_nothing();
}
