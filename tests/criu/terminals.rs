//! Terminals: what a program has made of its own is there after a restore, in the one that a console socket receives.

use crate::support::{Bundle, Console, type_line, wait_until};
use crate::{Checkpointed, ours_only, requires};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// A container whose program is tests/programs/tty_keeper.c, and its terminal.
fn keeper() -> (Checkpointed, Console, File) {
    let bundle = Bundle::new(&["tty_keeper"]).program("tty_keeper");
    let c = Checkpointed::of(bundle.with(|config| config["process"]["terminal"] = true.into()));
    let console = Console::listen(c.runtime.bundle());
    let options = ["run", "--detach", "--console-socket", console.path(), "--bundle", c.bundle(), c.runtime.id()];
    c.runtime.cmd(&options).ok();
    let terminal = console.terminal();
    wait_until("it has a terminal", || found(&c).contains("modes "));
    (c, console, terminal)
}

fn found(c: &Checkpointed) -> String {
    c.runtime.exec(&["cat", "/dev/shm/found"]).stdout
}

/// Has the program do something, and returns what it found.
#[track_caller]
fn asked(c: &Checkpointed, what: &str) -> String {
    c.runtime.exec_sh(&format!("rm -f /dev/shm/found; touch /dev/shm/{what}")).ok();
    wait_until("it has looked", || !found(c).is_empty());
    found(c)
}

#[test]
fn everything_about_one_comes_back() {
    requires!(root, criu, terminals);
    ours_only!("CRIU by itself loses what was typed and not read");
    let (c, console, mut terminal) = keeper();
    terminal.write_all(b"typed before").unwrap();
    wait_until("the input is there", || asked(&c, "look").contains("\nwaiting 12\n"));
    let before = asked(&c, "look");
    assert!(before.starts_with("size 33 111 5 7 resized 0\n"), "{before}");
    // The foreground is the child's, not that of the session's leader.
    let line = before.lines().nth(1).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert!(words[1] == words[3] && words[1] != "1" && words[5] == "1", "{line}");

    c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(asked(&c, "look"), before);
    c.checkpoint(&[]).ok();
    drop(terminal);
    c.restore(&["--console-socket", console.path()]).ok();
    let mut terminal = console.terminal();
    assert_eq!(asked(&c, "look"), before);

    // It is a terminal to its new owner too: a key of the program's choice, what was typed before and after, a new size.
    stasis::sys::pty::set_size(terminal.as_fd(), 44, 99).unwrap();
    wait_until("the new size is there", || asked(&c, "look").starts_with("size 44 99 0 0 resized 0\n"));
    type_line(&mut terminal, " and after");
    wait_until("all of the input is there", || asked(&c, "look").contains("\nwaiting 23\n"));
    assert_eq!(asked(&c, "read"), "typed before and after\n");
    // Once more, from what it is now.
    let before = asked(&c, "look");
    c.checkpoint(&[]).ok();
    drop(terminal);
    c.restore(&["--console-socket", console.path()]).ok();
    let mut terminal = console.terminal();
    assert_eq!(asked(&c, "look"), before);
    c.runtime.exec(&["rm", "-f", "/dev/shm/found"]).ok();
    terminal.write_all(b"X").unwrap();
    c.runtime.wait_for("stopped");
}

#[test]
fn an_end_of_file_that_was_typed_still_ends_it() {
    requires!(root, criu, terminals);
    ours_only!("CRIU by itself loses what was typed and not read");
    let script = "while [ ! -e /dev/shm/go ]; do sleep 0.05; done; \
        cat > /dev/shm/first; cat > /dev/shm/second; touch /dev/shm/read; exec sleep 1000";
    let c = Checkpointed::of(Bundle::sh(script).with(|config| config["process"]["terminal"] = true.into()));
    let console = Console::listen(c.runtime.bundle());
    let options = ["run", "--detach", "--console-socket", console.path(), "--bundle", c.bundle(), c.runtime.id()];
    c.runtime.cmd(&options).ok();
    let mut terminal = console.terminal();
    // A key that is only a character, a line, its end, and one more that is not complete.
    terminal.write_all(b"a\x16\x04b\n\x04rest").unwrap();
    c.checkpoint(&["--leave-running"]).ok();
    c.checkpoint(&[]).ok();
    drop(terminal);
    c.restore(&["--console-socket", console.path()]).ok();
    let mut terminal = console.terminal();
    terminal.write_all(b" of it\n\x04").unwrap();
    c.runtime.exec(&["touch", "/dev/shm/go"]).ok();
    wait_until("all is read", || c.runtime.exec(&["ls", "/dev/shm/read"]).code == 0);
    assert_eq!(c.runtime.exec(&["cat", "/dev/shm/first", "/dev/shm/second"]).stdout, "a\x04b\nrest of it\n");
}

#[test]
fn without_a_console_socket_there_is_one_line() {
    requires!(root, criu, terminals);
    let (c, console, terminal) = keeper();
    let before = asked(&c, "look");
    c.checkpoint(&[]).ok();
    drop(terminal);
    let words = ["without setting console socket", "console-socket"];
    let refused = c.restore(&[]).exits(1).stderr_contains_any(&words);
    if !crate::support::is_oracle() {
        assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    }
    c.runtime.leaves_nothing();
    // One that nobody listens at.
    let nowhere = c.place.path().join("nowhere.sock");
    let refused = c.restore(&["--console-socket", nowhere.to_str().unwrap()]).exits(1);
    assert!(crate::support::is_oracle() || refused.stderr.lines().count() == 1, "{refused}");
    c.runtime.leaves_nothing();
    c.restore(&["--console-socket", console.path()]).ok();
    let _terminal = console.terminal();
    assert_eq!(asked(&c, "look"), before);
}

#[test]
fn an_image_with_one_needs_a_bundle_with_one() {
    requires!(root, criu, terminals);
    ours_only!("runc restores processes that are hung up");
    let (mut c, console, terminal) = keeper();
    c.checkpoint(&[]).ok();
    drop(terminal);
    c.runtime.edit(|config| config["process"]["terminal"] = false.into());
    let refused = c.restore(&[]).exits(1).stderr_contains("terminal");
    assert_eq!(refused.stderr.lines().count(), 1, "{refused}");
    c.runtime.leaves_nothing();
    c.runtime.edit(|config| config["process"]["terminal"] = true.into());
    c.restore(&["--console-socket", console.path()]).ok();
    let _terminal = console.terminal();
    assert!(asked(&c, "look").starts_with("size 33 111"));
}
