//! Real processes, pipes and pseudo-terminals: what arrives, and when the wait is over.

#![allow(clippy::zombie_processes, reason = "the relay waits for them")]

use super::*;
use crate::sys::fd::pipe;
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, unlockpt};
use nix::sys::signal::{Signal, raise};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Makes a pseudo-terminal, both ends close-on-exec: other tests start processes meanwhile.
fn pseudo_terminal() -> (OwnedFd, OwnedFd) {
    let master: PtyMaster = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = pty::open_peer(master.as_fd()).unwrap();
    (OwnedFd::from(master), slave)
}

/// A shell that runs `script` on pipes: its pid, its descriptor, our ends.
fn shell(script: &str) -> (i32, OwnedFd, [OwnedFd; 3]) {
    let ((stdin, a), (b, stdout), (c, stderr)) = (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
    let child = Command::new("sh").args(["-c", script]).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    (pid, pidfd::open(pid).unwrap(), [a, b, c])
}

/// Serves `script` with these standard streams; returns its code.
///
/// The shell is made first, since it cannot unblock signals for itself as a container's process does.
fn serve(script: &str, ours: [BorrowedFd<'_>; 3]) -> i32 {
    let (pid, process, theirs) = shell(script);
    let signals = &Signals::block().unwrap();
    let pumps = pipes(ours, theirs).unwrap();
    Relay { signals, pid, pidfd: process.as_fd(), pumps, terminal: None, reaps: false, notify: None }.run().unwrap()
}

/// Serves `script` with no input; returns its code and what it wrote to stdout.
fn output(script: &str) -> (i32, Vec<u8>) {
    let (input, mut file) = (File::open("/dev/null").unwrap(), tempfile::tempfile().unwrap());
    let out = file.try_clone().unwrap();
    let code = serve(script, [input.as_fd(), out.as_fd(), input.as_fd()]);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    (code, bytes)
}

#[test]
fn exit_codes_are_those_of_a_shell() {
    assert_eq!(output("echo a; exit 7"), (7, b"a\n".to_vec()));
    assert_eq!(output("kill -KILL $$"), (137, Vec::new()));
    assert_eq!(output("kill -TERM $$"), (143, Vec::new()));
}

#[test]
fn the_end_of_our_input_is_the_end_of_its() {
    let (reader, writer) = pipe().unwrap();
    File::from(writer).write_all(b"one\ntwo\n").unwrap();
    let (mut out, theirs) = std::io::pipe().unwrap();
    let null = File::open("/dev/null").unwrap();
    assert_eq!(serve("cat; exit 3", [reader.as_fd(), theirs.as_fd(), null.as_fd()]), 3);
    drop(theirs);
    let mut text = String::new();
    out.read_to_string(&mut text).unwrap();
    assert_eq!(text, "one\ntwo\n");
}

#[test]
fn a_reader_that_stalls_loses_nothing() {
    let null = File::open("/dev/null").unwrap();
    let mut counter = Command::new("sh")
        .args(["-c", "sleep 0.4; wc -c"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = counter.stdin.take().unwrap();
    // More than our buffer and two pipes hold, so that the process has ended long before the last byte is read.
    let code = serve("head -c 150000 /dev/zero", [null.as_fd(), out.as_fd(), null.as_fd()]);
    assert_eq!(code, 0);
    drop(out);
    assert_eq!(counter.wait_with_output().unwrap().stdout, b"150000\n");
}

#[test]
fn much_output_arrives_whole() {
    let (code, bytes) = output("head -c 3000000 /dev/zero");
    assert_eq!((code, bytes.len()), (0, 3_000_000));
}

#[test]
fn descendants_that_keep_the_pipes_are_not_waited_for() {
    let begin = Instant::now();
    let (code, pid) = output("sleep 20 & echo $!");
    assert!(code == 0 && begin.elapsed() < Duration::from_secs(10));
    let pid = String::from_utf8(pid).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn descendants_that_never_stop_writing_are_not_waited_for() {
    let (code, bytes) = output("echo first; yes & exit 3");
    assert!(code == 3 && bytes.windows(6).any(|bytes| bytes == b"first\n"));
}

#[test]
fn a_writer_learns_that_nobody_reads() {
    let null = File::open("/dev/null").unwrap();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    // 141: SIGPIPE.
    assert_eq!(serve("exec cat /dev/zero", [null.as_fd(), writer.as_fd(), null.as_fd()]), 141);
}

#[test]
fn signals_are_passed_on() {
    let null = File::open("/dev/null").unwrap();
    let (pid, process, theirs) = shell("exec sleep 20");
    let signals = &Signals::block().unwrap();
    for signal in [Signal::SIGWINCH, Signal::SIGPIPE, Signal::SIGURG, Signal::SIGUSR2] {
        raise(signal).unwrap();
    }
    let begin = Instant::now();
    let pumps = pipes([null.as_fd(); 3], theirs).unwrap();
    let relay = Relay { signals, pid, pidfd: process.as_fd(), pumps, terminal: None, reaps: false, notify: None };
    assert_eq!(relay.run().unwrap(), 128 + libc::SIGUSR2);
    assert!(begin.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_terminal_is_raw_for_us_and_has_our_size() {
    let ((our_master, ours), (master, theirs)) = (pseudo_terminal(), pseudo_terminal());
    pty::set_size(ours.as_fd(), 33, 99).unwrap();
    pty::keep_line_ends(theirs.as_fd()).unwrap();
    let stream = || Stdio::from(theirs.try_clone().unwrap());
    let script = "read line; echo got $line; stty size <&1; exit 5";
    let child = Command::new("sh").args(["-c", script]).stdin(stream()).stdout(stream()).stderr(stream()).spawn();
    let pid = i32::try_from(child.unwrap().id()).unwrap();
    let process = pidfd::open(pid).unwrap();
    drop(theirs);
    let signals = Signals::block().unwrap();
    let terminal = Terminal::new(master.as_fd(), Some(ours.try_clone().unwrap())).unwrap();
    let pumps = console([ours.as_fd(); 3], master).unwrap();
    nix::unistd::write(&our_master, b"hello\r").unwrap();
    let relay = Relay {
        signals: &signals,
        pid,
        pidfd: process.as_fd(),
        pumps,
        terminal: Some(terminal),
        reaps: false,
        notify: None,
    };
    assert_eq!(relay.run().unwrap(), 5);
    drop(ours);
    let mut text = Vec::new();
    // The terminal ends with EIO.
    _ = File::from(our_master).read_to_end(&mut text);
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("hello\r\ngot hello\r\n33 99\r\n"), "{text:?}");
}
