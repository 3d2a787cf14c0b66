//! NOTIFY_SOCKET: a program's READY=1 reaches whoever started the runtime, and nothing else of what it says does.

use crate::support::{Bundle, Runtime, wait_until};
use crate::{ours_only, requires};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempPath;

/// A service manager's end, and a container whose program says these messages.
fn notified(messages: &[&str]) -> (Runtime, UnixDatagram, TempPath) {
    let bundle = Bundle::new(&[&["notifier"], messages].concat()).program("notifier");
    let path = tempfile::NamedTempFile::new().unwrap().into_temp_path();
    std::fs::remove_file(&path).unwrap();
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (Runtime::new(bundle), socket, path)
}

fn with_socket(mut command: Command, path: &Path) -> Command {
    command.env("NOTIFY_SOCKET", path);
    command
}

/// Receives what is passed on, and acts on the barrier as systemd does: by closing the descriptor.
#[track_caller]
fn expect_ready(socket: &UnixDatagram, init: Option<i32>) -> i32 {
    let receive = || {
        let mut bytes = [0; 256];
        let received = stasis::sys::socket::receive(socket.as_fd(), &mut bytes).unwrap();
        (String::from_utf8(bytes[..received.len].to_vec()).unwrap(), received.fd)
    };
    assert_eq!(receive().0, "READY=1\n");
    let main = receive().0;
    let pid = main.trim().strip_prefix("MAINPID=").unwrap().parse().unwrap();
    assert!(init.is_none_or(|init| init == pid), "{main}");
    let (barrier, fd) = receive();
    assert_eq!(barrier, "BARRIER=1");
    drop(fd.unwrap());
    pid
}

#[test]
fn start_waits_until_the_program_is_ready() {
    requires!(root);
    ours_only!("runc 1.1 sends no barrier");
    let (c, socket, path) = notified(&["STATUS=warming up", "MAINPID=1\nREADY=1", "STOPPING=1"]);
    c.detached(with_socket(c.command(&["create", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]), &path))
        .ok();
    let mut child = with_socket(c.command(&["start", c.id()]), &path).spawn().unwrap();
    expect_ready(&socket, Some(c.pid()));
    assert!(child.wait().unwrap().success());
    c.wait_printed("sent");
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err());
}

#[test]
fn run_detached_waits_until_the_program_is_ready() {
    requires!(root);
    ours_only!("runc 1.1 sends no barrier");
    let (c, socket, path) = notified(&["READY=1"]);
    let bundle = c.bundle().path().to_str().unwrap();
    let mut command = with_socket(c.command(&["run", "--detach", "--bundle", bundle, c.id()]), &path);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let pid = expect_ready(&socket, None);
    assert!(child.wait().unwrap().success());
    assert_eq!(c.pid(), pid);
}

#[test]
fn run_in_the_foreground_passes_readiness_on() {
    requires!(root);
    ours_only!("runc 1.1 sends no barrier");
    let (c, socket, path) = notified(&["READY=1"]);
    let bundle = c.bundle().path().to_str().unwrap();
    let mut command = with_socket(c.command(&["run", "--bundle", bundle, c.id()]), &path);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    // The manager is to watch the runtime, which ends with the program's code.
    expect_ready(&socket, Some(child.id() as i32));
    kill(Pid::from_raw(c.pid()), Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    c.leaves_nothing();
}

#[test]
fn a_program_that_ends_without_a_word_is_not_waited_for() {
    requires!(root);
    ours_only!("runc 1.1 waits until somebody has reaped init");
    let (c, _socket, path) = notified(&[]);
    let mut c = c;
    c.edit(|config| config["process"]["args"] = json!(["sh", "-c", "echo $NOTIFY_SOCKET; ls -ld /run/notify; exit 3"]));
    let bundle = c.bundle().path().to_str().unwrap();
    c.detached(with_socket(c.command(&["run", "--detach", "--bundle", bundle, c.id()]), &path)).ok();
    let printed = c.finished();
    assert!(printed.starts_with("/run/notify/notify.sock\ndrwxr-xr-x"), "{printed}");
}

#[test]
fn without_a_socket_nothing_is_different() {
    requires!(root);
    ours_only!("runc fails then");
    let c = Bundle::sh("echo ${NOTIFY_SOCKET-none}; test -e /run/notify || echo no place; sleep 1000").create();
    // One that is there at start only finds no place in the container.
    c.output_of(with_socket(c.command(&["start", c.id()]), Path::new("/nonexistent"))).ok();
    c.wait_printed("none\nno place");
    wait_until("it runs", || c.status() == "running");
}

#[test]
fn the_last_message_of_a_program_that_ends_is_passed_on() {
    requires!(root);
    ours_only!("runc 1.1 sends no barrier");
    for detach in [&[][..], &["--detach"]] {
        let (mut c, socket, path) = notified(&[]);
        // The notifier sleeps once it has said all of it, and ends with the shell.
        let script = "sleep 1; (notifier one two three READY=1 &) | read sent; exit 3";
        c.edit(|config| config["process"]["args"] = json!(["sh", "-c", script]));
        let line = [&["run"], detach, &["--bundle", c.bundle().path().to_str().unwrap(), c.id()]].concat();
        let mut command = with_socket(c.command(&line), &path);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // It looks when all is over.
        wait_until("it runs", || c.cmd(&["state", c.id()]).stdout.contains("running"));
        kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).unwrap();
        c.finished();
        kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).unwrap();
        expect_ready(&socket, None);
        assert!(child.wait().unwrap().code().is_some());
    }
}

#[test]
fn run_does_without_somebody_to_notify() {
    requires!(root);
    ours_only!("runc 1.1 connects later");
    let (mut c, socket, path) = notified(&[]);
    c.edit(|config| config["process"]["args"] = json!(["sleep", "1000"]));
    let line = ["run", "--detach", "--bundle", c.bundle().path().to_str().unwrap(), c.id()];
    drop(socket);
    c.detached(with_socket(c.command(&line), &path)).ok();
    assert!(c.complained().contains("connect to NOTIFY_SOCKET"), "{}", c.complained());
    c.wait_for("running");
}

#[test]
fn run_detached_leaves_a_container_whose_manager_is_gone_by_then() {
    requires!(root);
    ours_only!("runc 1.1 connects later");
    let (mut c, socket, path) = notified(&[]);
    c.edit(|config| config["process"]["args"] = json!(["sh", "-c", "sleep 1; exec notifier READY=1"]));
    let line = ["run", "--detach", "--bundle", c.bundle().path().to_str().unwrap(), c.id()];
    let mut command = with_socket(c.command(&line), &path);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it runs", || c.cmd(&["state", c.id()]).stdout.contains("running"));
    drop(socket);
    // Its program has the other end too.
    let mut warning = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut warning).unwrap();
    assert!(warning.contains("notify the host: connection refused"), "{warning}");
    assert!(child.wait().unwrap().success());
    assert_eq!(c.status(), "running");
}
