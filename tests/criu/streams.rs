//! The standard streams of a restored container: pipes, terminals, files and FIFOs of the host, and the foreground.

use crate::support::{Bundle, Console, Output, read_until, type_line, wait_until};
use crate::{Checkpointed, ours_only, requires};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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

/// Counts on standard output and standard error by turns.
const BOTH: &str = "i=0; while true; do i=$((i+1)); echo $i; i=$((i+1)); echo $i >&2; sleep 0.02; done";

/// Keeps the lines it reads, a line whenever it is told to go on.
const READER: &str = "while read line; do echo \"$line\" >> /dev/shm/got; \
    while ! rm /dev/shm/go 2>/dev/null; do sleep 0.01; done; done; echo end >> /dev/shm/got; sleep 1000";

/// A file of the host, made or opened as a shell does it.
fn open(path: &Path, how: &str) -> File {
    let mut options = File::options();
    match how {
        ">" => options.write(true).create(true).truncate(true),
        ">>" => options.append(true).create(true),
        "1<>" => options.read(true).write(true),
        _ => options.read(true),
    };
    options.open(path).unwrap()
}

impl Checkpointed {
    /// Runs a bundle with these streams; a stream that is not given leads to /dev/null.
    #[track_caller]
    fn run_with_streams(bundle: Bundle, streams: [Option<File>; 3]) -> Self {
        let c = Self::of(bundle);
        let mut command = c.runtime.command(&["run", "--detach", "--bundle", c.bundle(), c.runtime.id()]);
        let [stdin, stdout, stderr] = streams.map(|stream| stream.map_or_else(Stdio::null, Stdio::from));
        assert!(command.stdin(stdin).stdout(stdout).stderr(stderr).status().unwrap().success(), "{command:?}");
        c
    }

    /// Restores the container with these streams.
    #[track_caller]
    fn restore_with_streams(&self, streams: [Option<File>; 3]) {
        let mut command = self.line("restore", &["--detach", "--bundle", self.bundle()]);
        let [stdin, stdout, stderr] = streams.map(|stream| stream.map_or_else(Stdio::null, Stdio::from));
        assert!(command.stdin(stdin).stdout(stdout).stderr(stderr).status().unwrap().success(), "{command:?}");
    }

    /// Runs a bundle whose output goes to the file `log`, opened like this.
    #[track_caller]
    fn logging(bundle: Bundle, how: &str) -> (Self, PathBuf) {
        let place = bundle.path().join("source");
        fs::create_dir(&place).unwrap();
        let log = place.join("log");
        let stdout = open(&log, how);
        let stderr = stdout.try_clone().unwrap();
        (Self::run_with_streams(bundle, [None, Some(stdout), Some(stderr)]), log)
    }

    /// Restores the container with its output to a file, opened like this.
    #[track_caller]
    fn restore_to(&self, log: &Path, how: &str) {
        let stdout = open(log, how);
        let stderr = stdout.try_clone().unwrap();
        self.restore_with_streams([None, Some(stdout), Some(stderr)]);
    }

    /// Lets a reader go on, and returns the last line that it has then.
    #[track_caller]
    fn next_line(&self) -> String {
        let got = || self.runtime.exec(&["cat", "/dev/shm/got"]).ok().stdout;
        let before = got();
        self.runtime.exec(&["touch", "/dev/shm/go"]).ok();
        wait_until("the next line is read", || got() != before);
        got().lines().last().unwrap().to_owned()
    }
}

/// Returns how many numbers there are in files, one after the other; each has to be the next one.
#[track_caller]
fn counted(files: &[&Path]) -> usize {
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let wrong = (1..).zip(lines.clone()).find(|(number, line)| **line != format!("{number}\n"));
    assert_eq!(wrong, None, "{text}");
    lines.count()
}

/// Waits until more is counted.
#[track_caller]
fn counts_on(files: &[&Path]) {
    let before = counted(files);
    wait_until("the counter goes on", || counted(files) > before + 4);
}

#[test]
fn output_goes_on_in_the_same_file() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    // What is not given goes to the old file as well.
    for (before, after) in [(">", Some(">>")), (">>", Some(">>")), (">", Some("1<>")), (">", None), (">>", None)] {
        let (c, log) = Checkpointed::logging(Bundle::sh(BOTH), before);
        counts_on(&[&log]);
        // The second time from what the first one has restored.
        for _ in 0..2 {
            c.checkpoint(&[]).ok();
            match after {
                Some(after) => c.restore_to(&log, after),
                None => c.restore_with_streams([None, None, None]),
            }
            counts_on(&[&log]);
        }
    }
}

#[test]
fn output_goes_on_in_a_new_file_from_its_beginning() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    for before in [">", ">>"] {
        let (c, log) = Checkpointed::logging(Bundle::sh(BOTH), before);
        let new = log.with_file_name("new");
        counts_on(&[&log]);
        c.checkpoint(&[]).ok();
        c.restore_to(&new, ">");
        counts_on(&[&log, &new]);
        // Who has only appended still does, whoever else writes to the file.
        let fdinfo = fs::read_to_string(format!("/proc/{}/fdinfo/1", c.runtime.pid())).unwrap();
        let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let flags = OFlag::from_bits_retain(i32::from_str_radix(flags, 8).unwrap());
        assert_eq!(flags.contains(OFlag::O_APPEND), before == ">>");
        // Emptied by who opens it.
        c.checkpoint(&[]).ok();
        let saved = log.with_file_name("saved");
        fs::copy(&new, &saved).unwrap();
        c.restore_to(&new, ">");
        counts_on(&[&log, &saved, &new]);
    }
}

#[test]
fn nothing_is_written_over_what_others_wrote() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    for after in [Some("1<>"), None] {
        let (c, log) = Checkpointed::logging(Bundle::sh(BOTH), ">");
        counts_on(&[&log]);
        c.checkpoint(&[]).ok();
        let next = counted(&[&log]) + 1;
        let others = format!("{next}\n{}\n", next + 1);
        open(&log, ">>").write_all(others.as_bytes()).unwrap();
        match after {
            Some(after) => c.restore_to(&log, after),
            None => c.restore_with_streams([None, None, None]),
        }
        let expected = format!("{others}{next}\n{}\n", next + 1);
        wait_until("output follows that of others", || fs::read_to_string(&log).unwrap().contains(&expected));
    }
}

#[test]
fn the_foreground_takes_over_from_a_file() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    let place = tempfile::tempdir().unwrap();
    let (input, log) = (place.path().join("input"), place.path().join("log"));
    fs::write(&input, "first\nsecond\nend\nnever\n").unwrap();
    let script = "i=0; while read x; do i=$((i+1)); echo \"$x $i\"; while [ $i = 1 ] && [ ! -e /dev/shm/go ]; \
        do sleep 0.01; done; [ $x = end ] && exit 7; done";
    let streams = [Some(open(&input, "<")), Some(open(&log, ">")), None];
    let c = Checkpointed::run_with_streams(Bundle::sh(script), streams);
    wait_until("the first line is read", || fs::read_to_string(&log).unwrap() == "first 1\n");
    c.runtime.pause().ok();
    // It may go on, which it can only once it is restored.
    fs::write(format!("/proc/{}/root/dev/shm/go", c.runtime.pid()), "").unwrap();
    c.checkpoint(&[]).ok();
    let mut command = c.line("restore", &["--bundle", c.bundle()]);
    command.stdin(open(&input, "<"));
    let output: Output = c.runtime.output_of(command).exits(7);
    let all = fs::read_to_string(&log).unwrap() + &output.stdout;
    assert_eq!(all, "first 1\nsecond 2\nend 3\n");
    c.runtime.leaves_nothing();
}

#[test]
fn input_goes_on_where_it_was() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    let input = tempfile::NamedTempFile::new().unwrap();
    fs::write(&input, "first\nsecond\nthird\n").unwrap();
    let other = tempfile::NamedTempFile::new().unwrap();
    fs::write(&other, "another\n").unwrap();
    let cases = [(Some(input.path()), "second"), (None, "second"), (Some(other.path()), "another")];
    for (given, expected) in cases {
        let streams = [Some(open(input.path(), "<")), None, None];
        let c = Checkpointed::run_with_streams(Bundle::sh(READER), streams);
        wait_until("the first line is read", || c.runtime.exec(&["cat", "/dev/shm/got"]).stdout == "first\n");
        c.checkpoint(&[]).ok();
        c.restore_with_streams([given.map(|path| open(path, "<")), None, None]);
        assert_eq!(c.next_line(), expected);
    }
}

#[test]
fn a_file_that_was_opened_twice_has_two_positions() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    let input = tempfile::NamedTempFile::new().unwrap();
    fs::write(&input, "1\n2\n3\n4\n").unwrap();
    let script = "read a; read b; exec 3</proc/self/fd/0; read c <&3; echo $a$b$c > /dev/shm/got; \
        while [ ! -e /dev/shm/go ]; do sleep 0.01; done; read d; read e <&3; echo $d$e > /dev/shm/got; sleep 1000";
    let streams = || [Some(open(input.path(), "<")), None, None];
    let c = Checkpointed::run_with_streams(Bundle::sh(script), streams());
    wait_until("three lines are read", || c.runtime.exec(&["cat", "/dev/shm/got"]).stdout == "121\n");
    c.checkpoint(&[]).ok();
    c.restore_with_streams(streams());
    assert_eq!(c.next_line(), "32");
}

#[test]
fn what_is_in_a_fifo_comes_once() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a FIFO of the host");
    let place = tempfile::tempdir().unwrap();
    let fifo = |name: &str| {
        let path = place.path().join(name);
        nix::unistd::mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        path
    };
    let (input, output) = (fifo("in"), fifo("out"));
    for (how, held) in [("<", true), ("<", false), ("1<>", true), ("1<>", false)] {
        let mut writer = open(&input, "1<>");
        let mut reader = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&output).unwrap();
        let mut printed = || {
            let mut text = [0; 100];
            let count = reader.read(&mut text).unwrap_or(0);
            String::from_utf8_lossy(&text[..count]).into_owned()
        };
        let ends = || [Some(open(&input, how)), Some(open(&output, "1<>")), None];
        let c = Checkpointed::run_with_streams(Bundle::sh(&format!("echo ready; {READER}")), ends());
        writer.write_all(b"first\nsecond\n").unwrap();
        wait_until("the first line is read", || c.runtime.exec(&["cat", "/dev/shm/got"]).stdout == "first\n");
        // The second line is lost with the last who has the FIFO open.
        let holder = held.then_some(writer);
        c.checkpoint(&[]).ok();
        assert_eq!(printed(), "ready\n");
        match &holder {
            Some(_) => c.restore_with_streams(ends()),
            None => c.restore_with_streams([None, None, None]),
        }
        assert_eq!(c.next_line(), "second", "{how} {held}");
        open(&input, "1<>").write_all(b"third\n").unwrap();
        assert_eq!(c.next_line(), "third", "{how} {held}");
        assert_eq!(printed(), "");
    }
}

#[test]
fn a_file_without_a_standard_number_is_found_by_its_name() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a file of the host");
    let script = "exec 5>&1 >/dev/null 2>&1; i=0; while true; do i=$((i+1)); echo $i >&5; sleep 0.02; done";
    let (c, log) = Checkpointed::logging(Bundle::sh(script), ">");
    counts_on(&[&log]);
    c.checkpoint(&[]).ok();
    let moved = log.with_file_name("moved");
    fs::rename(&log, &moved).unwrap();
    let output = c.restore(&[]).exits(1).stderr_contains("which the container has open: no such file or directory");
    assert_eq!(output.stderr.lines().count(), 1, "{output}");
    c.runtime.leaves_nothing();
    fs::write(&log, "another").unwrap();
    c.restore(&[]).exits(1).stderr_contains("it is another one now");
    assert_eq!(fs::read_to_string(&log).unwrap(), "another");
    fs::rename(&moved, &log).unwrap();
    c.restore(&[]).ok();
    counts_on(&[&log]);
}

#[test]
fn a_file_that_is_gone_gives_way_to_the_null_device() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    let (c, log) = Checkpointed::logging(Bundle::sh(BOTH), ">");
    counts_on(&[&log]);
    c.checkpoint(&[]).ok();
    let old = log.with_file_name("old");
    fs::rename(&log, &old).unwrap();
    c.restore_with_streams([None, None, None]);
    // The host's null device is a file of the host, too.
    c.checkpoint(&[]).ok();
    c.restore_to(&log, ">");
    wait_until("it counts on", || fs::read_to_string(&log).unwrap().lines().count() > 4);
    let next: usize = fs::read_to_string(&log).unwrap().lines().next().unwrap().parse().unwrap();
    assert!(next > counted(&[&old]));
}

#[test]
fn a_deleted_file_is_a_stream_too() {
    requires!(root, criu);
    ours_only!("no other runtime dumps a stream that is a file of the host");
    let (c, log) = Checkpointed::logging(Bundle::sh(BOTH), ">");
    counts_on(&[&log]);
    let kept = open(&log, "<");
    let new = log.with_file_name("new");
    fs::remove_file(&log).unwrap();
    c.checkpoint(&[]).ok();
    std::io::copy(&mut &kept, &mut open(&log, ">")).unwrap();
    c.restore_to(&new, ">");
    counts_on(&[&log, &new]);
}
