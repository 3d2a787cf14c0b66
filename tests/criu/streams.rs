//! The standard streams of a restored container: pipes, terminals, and the foreground.

use crate::support::{Bundle, Console, read_until, type_line};
use crate::{Checkpointed, requires};
use std::io::Write;
use std::process::Stdio;

/// Answers each line it reads with a number that it has in its memory.
const ANSWERS: &str = "i=0; while read x; do i=$((i+1)); echo \"$x $i\"; [ $x = end ] && exit 7; done; exit 3";

#[test]
fn the_foreground_gets_the_streams_and_the_exit_code() {
    requires!(root, criu);
    let c = Checkpointed::of(Bundle::sh(ANSWERS));
    let mut command = c.runtime.command(&["run", "--bundle", c.bundle(), c.runtime.id()]);
    let mut run = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = run.stdin.take().unwrap();
    stdin.write_all(b"first\n").unwrap();
    let mut stdout = std::io::BufReader::new(run.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
    assert_eq!(line, "first 1\n");
    c.checkpoint(&[]).ok();
    assert_eq!(run.wait().unwrap().code(), Some(137));

    let mut command = c.line("restore", &["--bundle", c.bundle()]);
    let input = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&input, "second\nend\n").unwrap();
    command.stdin(input.reopen().unwrap());
    c.runtime.output_of(command).exits(7).prints("second 2\nend 3");
    c.runtime.leaves_nothing();
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    requires!(root, criu, terminals);
    let bundle = Bundle::sh(ANSWERS).with(|config| config["process"]["terminal"] = true.into());
    let c = Checkpointed::of(bundle);
    let console = Console::listen(c.runtime.bundle());
    let options = ["run", "--detach", "--console-socket", console.path(), "--bundle", c.bundle(), c.runtime.id()];
    c.runtime.cmd(&options).ok();
    let mut terminal = console.terminal();
    type_line(&mut terminal, "first");
    read_until(&mut terminal, "first 1");
    c.checkpoint(&[]).ok();
    drop(terminal);
    c.restore(&["--console-socket", console.path()]).ok();
    let mut terminal = console.terminal();
    type_line(&mut terminal, "second");
    read_until(&mut terminal, "second 2");
    type_line(&mut terminal, "end");
    c.runtime.wait_for("stopped");
}
