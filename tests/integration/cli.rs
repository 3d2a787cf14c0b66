//! The command line as container engines drive it: spelling, words of refusal, exit codes, logs, and what is printed.
//!
//! Engines parse this, so the tests compare whole lines where an engine would. What the commands do is tested elsewhere.

use crate::support::{Bundle, Output, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Carries out a command line without anything before it, in the directory of a bundle.
#[track_caller]
fn bare(args: &[&str]) -> Output {
    let c = Runtime::new(Bundle::sleep());
    let mut command = Command::new(Runtime::program());
    command.args(args).current_dir(c.bundle().path()).stdin(Stdio::null());
    c.output_of(command)
}

/// Returns a command line with the global options of go-runc, and the environment that Podman leaves.
fn engine(c: &Runtime, args: &[&str]) -> Command {
    let mut command = Command::new(Runtime::program());
    command.env_clear().env("XDG_RUNTIME_DIR", "").current_dir("/").stdin(Stdio::null());
    command.arg("--root").arg(c.root()).arg("--log").arg(c.bundle().path().join("log.json"));
    command.args(["--log-format", "json"]).args(args);
    command
}

fn log(c: &Runtime) -> String {
    fs::read_to_string(c.bundle().path().join("log.json")).unwrap_or_default()
}

#[test]
fn help_begins_with_the_name() {
    for (args, line) in [
        (&["--help"][..], "- Open Container Initiative runtime"),
        (&["-h"], "- Open Container Initiative runtime"),
        (&["help"], "- Open Container Initiative runtime"),
        (&[], "- Open Container Initiative runtime"),
        (&["help", "state"], "state - output the state of a container"),
        (&["checkpoint", "--help"], "checkpoint - checkpoint a running container"),
        (&["exec", "-h"], "exec - execute new process inside the container"),
    ] {
        let help = bare(args).ok();
        assert_eq!(help.lines()[0], "NAME:", "{help}");
        assert!(help.lines()[1].ends_with(line), "{help}");
        assert_eq!(help.stderr, "");
    }
}

#[test]
fn the_version_has_the_lines_that_engines_read() {
    ours_only!("runc prints no commit when it was built without one");
    for option in ["--version", "-v", "-V", "-version"] {
        let version = bare(&[option]).ok();
        let lines = version.lines();
        assert_eq!(lines[0], concat!("stasis version ", env!("CARGO_PKG_VERSION")));
        assert!(lines[1].starts_with("commit: ") && lines[1].len() > 8, "{version}");
        assert_eq!(lines[2], "spec: 1.3.0");
        assert!(lines[3].starts_with("libseccomp: 2."), "{version}");
        assert_eq!(version.stderr, "");
    }
}

#[test]
fn a_link_called_runc_is_runc() {
    ours_only!("the link is to us");
    let c = Runtime::new(Bundle::sleep());
    let link = c.bundle().path().join("runc");
    symlink(Runtime::program(), &link).unwrap();
    let run = |args: &[&str]| {
        let mut command = Command::new(&link);
        command.args(args);
        c.output_of(command)
    };
    assert!(run(&["--version"]).ok().stdout.starts_with("runc version "));
    run(&["run", "a/b"]).exits(1).stderr_contains("runc run failed: invalid container ID format");
}

#[test]
fn mistakes_are_answered_in_runcs_words() {
    for (args, code, text) in [
        (&["--nope"][..], 1, "flag provided but not defined: -nope"),
        (&["state", "--nope", "c"], 1, "flag provided but not defined: -nope"),
        (&["list", "-f"], 1, "flag needs an argument: -f"),
        (&["state"], 1, "\\\"state\\\" requires exactly 1 argument(s)"),
        (&["state", "a", "b"], 1, "\\\"state\\\" requires exactly 1 argument(s)"),
        (&["exec"], 1, "\\\"exec\\\" requires a minimum of 1 argument(s)"),
        (&["kill", "a", "b", "c"], 1, "\\\"kill\\\" requires a maximum of 2 argument(s)"),
        (&["nope"], 3, "No help topic for 'nope'"),
        (&["--log-format", "xml", "list"], 1, "invalid log-format: xml"),
        (&["list", "--format", "xml"], 1, "invalid format option"),
        (&["create", "--preserve-fds", "x", "c"], 1, "invalid value \\\"x\\\" for flag -preserve-fds"),
        (&["restore", "--lsm-mount-context"], 1, "flag needs an argument"),
    ] {
        bare(args).exits(code).stderr_contains(text);
    }
    assert!(bare(&["state"]).stdout.starts_with("Incorrect Usage.\n\nNAME:\n"));
}

#[test]
fn root_is_never_the_root_of_the_file_system() {
    ours_only!("runc 1.1 takes it");
    for root in ["/", "/..", "../../../../../../.."] {
        bare(&["--root", root, "list"]).exits(1).stderr_contains("Option --root argument should not be set to /");
    }
    bare(&["--root", "/nonexistent", "list"]).exits(1).stderr_contains("no such file or directory");
}

#[test]
fn a_default_root_that_nobody_has_made_yet_has_no_containers() {
    requires!(root);
    ours_only!("runc before 1.5 fails");
    let c = Runtime::new(Bundle::sleep());
    let script = "mount -t tmpfs tmpfs /run; for format in table json; do \"$0\" list --format $format; done; \
                  \"$0\" list --quiet; \"$0\" delete --force nobody; \"$0\" state nobody";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(Runtime::program());
    let output = c.output_of(command).exits(1).stderr_contains("container does not exist");
    assert_eq!(output.stdout, "ID          PID         STATUS      BUNDLE      CREATED     OWNER\nnull\n");
}

#[test]
fn a_caller_in_a_user_namespace_has_a_root_of_its_own() {
    requires!(root);
    ours_only!("the directory has our name");
    let c = Runtime::new(Bundle::sleep());
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(Runtime::program()).arg("list");
    command.env("XDG_RUNTIME_DIR", c.bundle().path()).env("USER", "somebody");
    c.output_of(command).ok();
    let made = fs::metadata(c.bundle().path().join("stasis")).unwrap();
    assert_eq!(made.permissions().mode() & 0o7777, 0o1700);
}

#[test]
fn options_are_spelt_as_go_allows() {
    requires!(root);
    let c = Bundle::sleep().start();
    let root = format!("-root={}", c.root().display());
    let other = ["--root", "/nonexistent", root.as_str(), "-debug=false"];
    assert_eq!(bare(&[&other[..], &["list", "-q"]].concat()).ok().text(), c.id());
    bare(&[&other[..], &["delete", c.id(), "-force=true"]].concat()).ok().prints("");
    c.cmd(&["list", "-q"]).ok().prints("");
}

#[test]
fn empty_values_are_taken_as_runc_takes_them() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.cmd(&["ps", "--format=", c.id()]).exits(1).stderr_contains("invalid format option");
    c.cmd(&["list", "--format="]).exits(1).stderr_contains("invalid format option");
    c.cmd(&["update", "--pids-limit=", c.id()]).exits(1).stderr_contains("invalid value");
    c.cmd(&["update", "--memory=", "--cpu-quota", "", c.id()]).ok();
    c.cmd(&["--log-format=", "--log=", "state", c.id()]).ok();
    // The state is in the current directory then.
    let mut command = c.command(&["--root=", "state", c.id()]);
    command.current_dir(c.bundle().path().join("state"));
    c.output_of(command).ok();
}

#[test]
fn an_interval_that_no_clock_can_hold_is_refused() {
    requires!(root);
    let c = Bundle::sleep().start();
    for interval in ["9999999999h", "18446744073709551615s"] {
        c.cmd(&["events", "--interval", interval, c.id()]).exits(1).stderr_contains("for flag -interval: parse error");
    }
}

#[test]
fn a_criu_that_is_named_is_no_mistake() {
    requires!(root);
    bare(&["--criu", "/usr/sbin/criu", "--root", ".", "list", "--quiet"]).ok().stderr_contains("--criu ignored");
}

#[test]
fn an_engine_drives_a_container_through_its_life() {
    requires!(root);
    let c = Runtime::new(Bundle::sleep());
    let (bundle, id) = (c.bundle().path().to_str().unwrap(), c.id());
    let pid_file = format!("{bundle}/init.pid");
    let silent = |args: &[&str]| {
        let output = c.output_of(engine(&c, args)).ok();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""), "{output}");
    };
    c.detached(engine(&c, &["create", "--bundle", bundle, "--pid-file", &pid_file, id])).ok();
    let pid = fs::read_to_string(&pid_file).unwrap();
    assert!(pid.bytes().all(|byte| byte.is_ascii_digit()), "{pid:?}");
    assert_eq!(c.state()["pid"].to_string(), pid);
    silent(&["start", id]);
    silent(&["pause", id]);
    silent(&["resume", id]);
    let ps = c.output_of(engine(&c, &["ps", "--format", "json", id])).ok();
    assert_eq!((ps.stdout.as_str(), ps.stderr.as_str()), (format!("[{pid}]\n").as_str(), ""));
    silent(&["kill", id, "9"]);
    c.wait_for("stopped");
    silent(&["kill", "--all", id, "9"]);
    assert_eq!(c.output_of(engine(&c, &["ps", "--format", "json", id])).ok().stdout, "null\n");
    silent(&["delete", id]);
    silent(&["delete", "--force", id]);
    assert_eq!(log(&c), "");
    fs::remove_file(&pid_file).unwrap();
    fs::remove_file(c.bundle().path().join("log.json")).unwrap();
    c.leaves_nothing();
}

#[test]
fn a_failure_is_one_object_in_the_log_and_plain_text_on_stderr() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["/nope"]).with(|config| {
        // Worth a warning, which would be a second line.
        config["process"]["capabilities"]["bounding"] = json!(["CAP_NOPE"]);
    }));
    let bundle = c.bundle().path().to_str().unwrap();
    let failed = c.output_of(engine(&c, &["create", "--bundle", bundle, c.id()])).exits(1);
    let lines = log(&c);
    let error: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(error["level"], "error");
    assert_eq!(error["msg"], failed.stderr.trim_end_matches('\n'));
    assert!(failed.stderr.contains("no such file or directory"), "{failed}");
    let time = error["time"].as_str().unwrap();
    assert!(time.len() >= 20 && time.as_bytes()[10] == b'T', "{time}");
    ours_only!("runc writes warnings of a failed command too");
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(failed.stderr.starts_with("stasis create failed: "), "{failed}");
}

#[test]
fn a_log_is_appended_to() {
    let c = Runtime::new(Bundle::sleep());
    for _ in 0..2 {
        c.output_of(engine(&c, &["state", "nope"])).exits(1).stderr_contains("container does not exist");
    }
    let log = log(&c);
    assert_eq!(log.matches("\"msg\":\"container does not exist\"").count(), 2, "{log}");
    let mode = fs::metadata(c.bundle().path().join("log.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn without_a_log_the_error_is_a_line_on_stderr() {
    let failed = bare(&["--root", "state", "state", "nope"]).exits(1);
    assert!(failed.stderr.starts_with("time=\""), "{failed}");
    assert!(failed.stderr.ends_with(" level=error msg=\"container does not exist\"\n"), "{failed}");
    let failed = bare(&["--log-format", "json", "--root", "state", "state", "nope"]).exits(1);
    assert_eq!(serde_json::from_str::<Value>(&failed.stderr).unwrap()["msg"], "container does not exist");
}

#[test]
fn debug_says_how_the_runtime_is_protected() {
    requires!(root);
    ours_only!("runc 1.1 has other words");
    let c = Runtime::new(Bundle::new(&["true"]));
    let bundle = c.bundle().path().to_str().unwrap();
    let words = "runc exeseal: using /proc/self/exe clone";
    c.cmd(&["--debug", "run", "--bundle", bundle, c.id()]).ok().stderr_contains(words);
}

#[test]
fn debug_says_more() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["true"]));
    let bundle = c.bundle().path().to_str().unwrap();
    c.cmd(&["--debug", "run", "--bundle", bundle, c.id()]).ok().stderr_contains("level=debug");
}

#[test]
fn a_warning_of_a_command_that_succeeds_is_logged() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["true"]).with(|config| {
        config["process"]["capabilities"]["bounding"] = json!(["CAP_NOPE"]);
    }));
    let bundle = c.bundle().path().to_str().unwrap();
    c.output_of(engine(&c, &["run", "--bundle", bundle, c.id()])).ok();
    let log = log(&c);
    let first: Value = serde_json::from_str(log.lines().next().unwrap()).unwrap();
    assert_eq!(first["level"], "warning");
    assert!(first["msg"].as_str().unwrap().starts_with("ignoring unknown or unavailable capabilities"), "{log}");
}

/// What was left out is often why it failed: here the ambient set asks for more than what remains of the others.
#[test]
fn a_warning_precedes_the_failure_on_stderr_and_stays_out_of_the_log_of_a_failure() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["true"]).with(|config| {
        config["process"]["capabilities"] =
            json!({"bounding": ["CAP_NOPE"], "inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    }));
    let bundle = c.bundle().path().to_str().unwrap();
    let args = ["create", "--bundle", bundle, c.id()];
    let words = "ignoring unknown or unavailable capabilities: [CAP_NOPE]";
    c.cmd(&args).exits(1).stderr_contains(words).stderr_contains("operation not permitted");
    ours_only!("runc logs the warning too, and Podman then cannot read its log");
    c.output_of(engine(&c, &args)).exits(1);
    let log = log(&c);
    assert_eq!((log.lines().count(), log.contains(words)), (1, false), "{log}");
}

#[test]
fn failures_of_exec_have_a_code_of_their_own() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.cmd(&["exec", "nope", "ls"]).exits(255).stderr_contains("exec failed: container does not exist");
    c.exec(&["nope"]).exits(255).stderr_contains("executable file not found in $PATH");
    c.exec_with(&["--user", "x"], &["true"]).exits(255).stderr_contains_any(&[
        "bad uid: strconv.Atoi: parsing",
        // Before 1.2.
        "parsing x as int for uid failed",
    ]);
    c.exec_sh("exit 42").exits(42);
    c.exec_sh("kill -USR1 $$").exits(128 + 10);
}

#[test]
fn exec_takes_what_follows_the_name_for_the_program() {
    requires!(root);
    let c = Bundle::sleep().start();
    c.exec(&["echo", "--help", "-t", "--root"]).ok().prints("--help -t --root");
    c.exec_with(&["-e", "A=1", "-e=B=2", "--cwd", "/tmp"], &["sh", "-c", "echo $A $B $PWD"]).ok().prints("1 2 /tmp");
    c.exec_with(&["-u", "7:8", "-g", "9"], &["id", "-G"]).ok().prints("8 9");
}

#[test]
fn signals_are_spelt_in_every_way() {
    requires!(root);
    let c = Bundle::sh("trap 'echo got' USR1; echo ready; while :; do sleep 0.01; done").start();
    c.wait_printed("ready");
    for (count, signal) in ["USR1", "SIGUSR1", "sigusr1", "10"].iter().enumerate() {
        c.kill(signal).ok().prints("");
        wait_until("the signal has arrived", || c.printed().matches("got").count() == count + 1);
    }
    c.kill("NOPE").exits(1).stderr_contains("unknown signal");
}

#[test]
fn run_passes_signals_on() {
    requires!(root);
    let c =
        Runtime::new(Bundle::sh("trap 'exit 9' TERM; touch /tmp/ready; while :; do sleep 0.01; done").with(|config| {
            config["root"]["readonly"] = json!(false);
        }));
    let bundle = c.bundle().path().to_str().unwrap();
    let mut run = c.command(&["run", "--bundle", bundle, c.id()]).spawn().unwrap();
    wait_until("the program is ready", || c.bundle().rootfs().join("tmp/ready").exists());
    let pid = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(9));
    c.leaves_nothing();
}

#[test]
fn sockets_of_systemd_are_passed_on() {
    requires!(root);
    let script = "echo $LISTEN_FDS $LISTEN_PID; cat <&3";
    let c = Runtime::new(Bundle::sh(script));
    let file = c.bundle().path().join("passed");
    fs::write(&file, "from outside\n").unwrap();
    let mut command = Command::new("sh");
    let program = Runtime::program();
    let words: [&OsStr; 8] = [
        "-c".as_ref(),
        "exec 3<\"$1\"; shift; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"".as_ref(),
        "sh".as_ref(),
        file.as_ref(),
        program.as_ref(),
        "run".as_ref(),
        "--bundle".as_ref(),
        c.bundle().path().as_ref(),
    ];
    command.args(words).arg(c.id()).stdin(Stdio::null());
    c.output_of(command).ok().prints("1 1\nfrom outside");
}

#[test]
fn spec_writes_the_template_once() {
    let c = Runtime::new(Bundle::sleep());
    let path = c.bundle().path().join("config.json");
    let dir = c.bundle().path().to_str().unwrap().to_owned();
    c.cmd(&["spec", "--bundle", &dir]).exits(1).stderr_contains("File config.json exists. Remove it first");
    fs::remove_file(&path).unwrap();
    c.cmd(&["spec", "--bundle", &dir]).ok().prints("");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1.") && text.ends_with("\n\t}\n}"), "{text}");
    assert_eq!(parsed(&path)["process"]["args"], json!(["sh"]));
    fs::remove_file(&path).unwrap();
    c.cmd(&["spec", "--rootless", "--bundle", &dir]).ok().prints("");
    assert_eq!(parsed(&path)["linux"]["uidMappings"], json!([{"containerID": 0, "hostID": euid(), "size": 1}]));
}

fn parsed(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

#[test]
fn features_are_told_without_root_or_state() {
    let features = bare(&["features"]).ok();
    assert_eq!(features.stderr, "");
    assert!(features.stdout.starts_with("{\n    \"") && features.stdout.ends_with("\n}\n"), "{features}");
    let features = features.json();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert!(features["mountOptions"].as_array().unwrap().contains(&json!("rro")));
    assert!(features["linux"]["namespaces"].as_array().unwrap().contains(&json!("user")));
    assert_eq!(features["linux"]["seccomp"]["enabled"], true);
}

#[test]
fn the_log_may_be_the_systems() {
    requires!(root);
    ours_only!("crun has it, and runc has not");
    let c = Runtime::new(Bundle::sleep());
    let dir = c.bundle().path().join("source");
    fs::create_dir_all(dir.join("systemd/journal")).unwrap();
    for (name, option, place, shown) in [
        ("log", "syslog:mine", "/dev", "<11>mine["),
        (
            "systemd/journal/socket",
            "journald:mine",
            "/run",
            "PRIORITY=3\nSYSLOG_IDENTIFIER=mine\nMESSAGE=container does",
        ),
    ] {
        let asked = || {
            let mut command = Command::new("unshare");
            let script = "mount --bind \"$0\" \"$1\"; shift; exec \"$@\"";
            command.args(["--mount", "sh", "-c", script]).arg(&dir).arg(place).arg(Runtime::found());
            command.args(["--log", option, "state", "nobody"]).stdin(Stdio::null());
            c.output_of(command).exits(1)
        };
        asked().stderr_contains(&format!("connect to {place}/"));
        let daemon = UnixDatagram::bind(dir.join(name)).unwrap();
        daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(asked().stderr, "container does not exist\n");
        let mut buffer = [0; 1000];
        let len = daemon.recv(&mut buffer).unwrap();
        let told = String::from_utf8_lossy(&buffer[..len]).into_owned();
        assert!(told.starts_with(shown) && told.trim_end().ends_with("container does not exist"), "{told}");
    }
    let file = c.bundle().path().join("log.json");
    c.cmd(&["--log", &format!("file:{}", file.display()), "state", "nobody"]).exits(1);
    assert!(fs::read_to_string(&file).unwrap().contains("level=error msg=\"container does not exist\""));
}
