//! Terminals: one that somebody receives through a console socket, and one that the runtime relays to its own.

use crate::requires;
use crate::support::{Bundle, Console, Runtime, read_until, type_line};
use nix::pty::{OpenptyResult, Winsize, openpty};
use serde_json::json;
use std::fs::File;
use std::process::{Child, Command};

fn with_terminal(bundle: Bundle) -> Bundle {
    bundle.with(|config| config["process"]["terminal"] = json!(true))
}

/// Creates and starts a container whose terminal the test receives.
fn received(bundle: Bundle) -> (Runtime, File) {
    let c = Runtime::new(with_terminal(bundle));
    let console = Console::listen(c.bundle());
    c.create_with(&["--console-socket", console.path()]).ok();
    let terminal = console.terminal();
    c.start().ok();
    (c, terminal)
}

/// Carries a command line of the runtime out on a terminal of its own, of this size; returns the other end.
fn on_terminal(c: &Runtime, args: &[&str], rows: u16, columns: u16) -> (Child, File) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let OpenptyResult { master, slave } = openpty(Some(&size), None).unwrap();
    let line = c.command(args);
    let mut command = Command::new("setsid");
    command.arg("--ctty").arg("--wait").arg(line.get_program()).args(line.get_args());
    let end = || slave.try_clone().unwrap();
    let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    (child, master.into())
}

#[test]
fn a_console_socket_receives_the_terminal() {
    requires!(root, terminals);
    let (c, mut terminal) = received(Bundle::sh("tty; read line; echo \"<$line>\"; exit 3"));
    read_until(&mut terminal, "/dev/");
    type_line(&mut terminal, "hello");
    read_until(&mut terminal, "<hello>");
    c.wait_for("stopped");
}

#[test]
fn the_message_beside_the_terminal_is_its_name() {
    requires!(root, terminals);
    let c = Runtime::new(with_terminal(Bundle::sleep()));
    let console = Console::listen(c.bundle());
    c.create_with(&["--console-socket", console.path()]).ok();
    let (name, _terminal) = console.receive();
    assert!(!name.is_empty() && name.len() < 4096, "{name:?}");
}

#[test]
fn the_terminal_is_the_containers_own() {
    requires!(root, terminals);
    let script = "test -t 0 -a -t 1 -a -t 2 && ls /dev/pts/0; stat -c %t:%T /dev/console; ps -o tty; cat /proc/self/mountinfo | grep -c /dev/console; echo end";
    let (_c, mut terminal) = received(Bundle::sh(script));
    let said = read_until(&mut terminal, "end");
    assert!(said.contains("/dev/pts/0\r\n88:0\r\n"), "{said:?}");
    assert!(said.contains("136,0") && said.contains("\r\n1\r\nend"), "{said:?}");
}

#[test]
fn the_terminal_has_the_size_that_is_asked_for() {
    requires!(root, terminals);
    let bundle = Bundle::sh("stty size; echo end");
    let (_c, mut terminal) =
        received(bundle.with(|config| config["process"]["consoleSize"] = json!({"height": 13, "width": 57})));
    assert!(read_until(&mut terminal, "end").contains("13 57"));
}

#[test]
fn control_keys_are_signals() {
    requires!(root, terminals);
    let (c, mut terminal) =
        received(Bundle::sh("trap 'echo interrupted; exit' INT; echo ready; while :; do sleep 0.01; done"));
    read_until(&mut terminal, "ready");
    std::io::Write::write_all(&mut terminal, b"\x03").unwrap();
    read_until(&mut terminal, "interrupted");
    c.wait_for("stopped");
}

#[test]
fn a_user_owns_the_terminal() {
    requires!(root, terminals);
    let bundle = Bundle::sh("stat -c %u /dev/pts/0; echo x >/dev/stdout; echo end");
    let (_c, mut terminal) =
        received(bundle.with(|config| config["process"]["user"] = json!({"uid": 1000, "gid": 1000})));
    let said = read_until(&mut terminal, "end");
    assert!(said.starts_with("1000\r\nx\r\n"), "{said:?}");
}

#[test]
fn a_user_namespace_has_a_terminal_too() {
    requires!(root, terminals);
    let (_c, mut terminal) = received(Bundle::sh("stat -c %u /dev/pts/0; echo end").user_namespace(100_000));
    assert!(read_until(&mut terminal, "end").starts_with("0\r\n"));
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    requires!(root, terminals);
    let c = Bundle::sleep().start();
    let console = Console::listen(c.bundle());
    let line = [
        "exec",
        "--tty",
        "--detach",
        "--console-socket",
        console.path(),
        c.id(),
        "sh",
        "-c",
        "tty; test -t 0 && echo end; sleep 1",
    ];
    c.detached(c.command(&line)).ok();
    assert!(read_until(&mut console.terminal(), "end").contains("/dev/pts/0"));
}

#[test]
fn run_relays_its_own_terminal() {
    requires!(root, terminals);
    let c = Runtime::new(with_terminal(Bundle::sh("tty; stty size; read line; echo \"<$line>\"; exit 6")));
    let (mut child, mut terminal) =
        on_terminal(&c, &["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()], 21, 63);
    let said = read_until(&mut terminal, "21 63");
    assert!(said.contains("/dev/pts/0"), "{said:?}");
    type_line(&mut terminal, "typed");
    read_until(&mut terminal, "<typed>");
    assert_eq!(child.wait().unwrap().code(), Some(6));
    c.leaves_nothing();
}

#[test]
fn exec_relays_its_own_terminal() {
    requires!(root, terminals);
    let c = Bundle::sleep().start();
    let (mut child, mut terminal) =
        on_terminal(&c, &["exec", "--tty", c.id(), "sh", "-c", "stty size; exit 4"], 22, 64);
    read_until(&mut terminal, "22 64");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn the_terminal_follows_the_size_of_the_runtimes_own() {
    requires!(root, terminals);
    let c = Runtime::new(with_terminal(Bundle::sh("echo ready; until stty size | grep '33 99'; do sleep 0.01; done")));
    let (mut child, mut terminal) =
        on_terminal(&c, &["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()], 21, 63);
    read_until(&mut terminal, "ready");
    // The kernel sends SIGWINCH to the terminal's foreground, which is the runtime.
    stasis::sys::pty::set_size(std::os::fd::AsFd::as_fd(&terminal), 33, 99).unwrap();
    read_until(&mut terminal, "33 99");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_runtimes_own_terminal_is_as_it_was() {
    requires!(root, terminals);
    let c = Runtime::new(with_terminal(Bundle::sh("stty raw; echo ready")));
    let OpenptyResult { master, slave } = openpty(None, None).unwrap();
    let before = nix::sys::termios::tcgetattr(&slave).unwrap();
    let run = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait"]).arg(run.get_program()).args(run.get_args());
    let end = || slave.try_clone().unwrap();
    let mut child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    read_until(&mut File::from(master.try_clone().unwrap()), "ready");
    assert!(child.wait().unwrap().success());
    assert_eq!(nix::sys::termios::tcgetattr(&slave).unwrap(), before);
}
