//! `inspect-image`: what a checkpoint holds, as text for people or as JSON for programs.
//!
//! An image may be anybody's: no name in it gets to a terminal with characters that control it.

use super::{output, size};
use anyhow::{Context, Result, bail};
use clap::Args;
use nix::unistd::{SysconfVar, sysconf};
use serde::Serialize;
use stasis::criu::inspect::{Host, Image, Memory, Process, inspect, obstacles};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

/// Arguments of `inspect-image`.
#[derive(Args, Debug)]
#[command(
    after_help = "The directory is the one that checkpoint was given as --image-path, by this runtime or by another one that\n\
                        uses criu. Nothing in it is changed."
)]
pub struct InspectImageArgs {
    /// select one of: text or json (default: "text")
    #[arg(long, short, value_name = "format")]
    pub format: Option<String>,
    /// list the open files of each process, as JSON always does
    #[arg(long)]
    pub files: bool,
    /// the directory of the images
    #[arg(value_name = "dir")]
    pub dir: PathBuf,
}

/// What is told of an image.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    image: Image,
    /// Whether it can be restored on this machine.
    restorable: bool,
    /// What stands in the way.
    obstacles: Vec<String>,
}

/// Tells what an image holds.
pub fn run(args: &InspectImageArgs) -> Result<u8> {
    let format = args.format.as_deref().unwrap_or("text");
    if !["text", "json"].contains(&format) {
        bail!("invalid format option");
    }
    let page_size = sysconf(SysconfVar::PAGE_SIZE).context("ask for the size of a page")?.unwrap_or(4096);
    let image = inspect(&args.dir, u64::try_from(page_size).context("ask for the size of a page")?)?;
    let obstacles = obstacles(&image, &Host::find());
    let report = Report { image, restorable: obstacles.is_empty(), obstacles };
    match format {
        "json" => output::print(&(output::json(&report, "  ")? + "\n"))?,
        _ => output::print(&report.text(args.files))?,
    }
    Ok(0)
}

impl Report {
    fn text(&self, files: bool) -> String {
        let image = &self.image;
        let mut text = String::new();
        self.origin(&mut text);
        needs(image, &mut text);
        section(
            &mut text,
            "PROCESSES",
            &table(&["PID", "PPID", "STATE", "THREADS", "USER", "MEMORY", "COMMAND"], tree(image)),
        );
        memory(image, &mut text);
        section(&mut text, "MOUNTS", &table(&["DESTINATION", "TYPE", "CONTENT"], mounts(image)));
        let counts = [sockets(image), namespaces(image), ipc(image), other(image)];
        section(&mut text, "OTHER", &counts.concat());
        if files {
            for process in image.processes.iter().filter(|process| !process.files.is_empty()) {
                let title = format!("FILES OF {} ({})", process.pid, clean(&process.command));
                section(&mut text, &title, &table(&["FD", "KIND", "NAME"], open_files(process)));
            }
        }
        text
    }

    fn origin(&self, text: &mut String) {
        let image = &self.image;
        let by =
            image.stasis.as_ref().map_or_else(|| "another runtime".to_owned(), |version| format!("stasis {version}"));
        let criu = image.criu.as_ref().map(|version| format!(" with criu {version}")).unwrap_or_default();
        let kernel = image.kernel.as_ref().map(|kernel| format!(" on Linux {kernel}")).unwrap_or_default();
        line(text, "Image", &format!("{}, a {}", image.directory.display(), image.kind));
        if let Some(container) = &image.container {
            line(text, "Container", container);
        }
        line(text, "Made by", &format!("{by}{criu}{kernel}, {}", image.architecture));
        if let Some(created) = &image.created {
            line(text, "Made at", created);
        }
        for parent in &image.parents {
            line(text, "Needs pre-dump", &parent.display().to_string());
        }
        if let Some(stats) = &image.statistics {
            let frozen = stats.frozen_micros as f64 / 1000.0;
            line(text, "Frozen for", &format!("{frozen:.1} ms, {} pages written", stats.pages_written));
        }
        let verdict = match self.obstacles.first() {
            None => "yes".to_owned(),
            Some(first) => format!("no: {first}"),
        };
        line(text, "Restorable here", &verdict);
    }
}

fn needs(image: &Image, text: &mut String) {
    let mut needs: Vec<String> = image.needs.options.iter().map(|option| (*option).to_owned()).collect();
    let list = |what: &str, names: &[String]| (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")));
    let namespaces: Vec<String> = image.needs.namespaces.iter().map(|kind| (*kind).to_owned()).collect();
    // With cgroup v1 these are a dozen, all of which one entry of config.json makes.
    let (cgroups, mounts): (Vec<_>, Vec<_>) =
        image.needs.mounts.iter().cloned().partition(|place| place.starts_with("/sys/fs/cgroup"));
    needs.extend(list("mounts on", &mounts));
    needs.extend((!cgroups.is_empty()).then(|| "mounts of cgroups".to_owned()));
    needs.extend(list("namespaces to join:", &namespaces));
    needs.extend(list("files", &image.needs.files));
    if !needs.is_empty() {
        line(text, "Needs", &needs.join("; "));
    }
}

/// Returns the processes, each indented below its parent. Who has no parent among them stands at the left, and whoever
/// is his own ancestor too.
fn tree(image: &Image) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let mut told = BTreeSet::new();
    let pids: BTreeSet<u64> = image.processes.iter().map(|process| process.pid).collect();
    let mut children: BTreeMap<u64, Vec<&Process>> = BTreeMap::new();
    for process in &image.processes {
        children.entry(process.ppid).or_default().push(process);
    }
    let roots = image.processes.iter().filter(|process| !pids.contains(&process.ppid));
    // A stack, since the depth is the image's to say.
    let mut stack: Vec<(usize, &Process)> = roots.rev().map(|process| (0, process)).collect();
    let mut rest = image.processes.iter();
    while let Some((depth, process)) = stack.pop().or_else(|| rest.next().map(|process| (0, process))) {
        if told.insert(process.pid) {
            rows.push(row(depth, process));
            let children = children.get(&process.pid).map(Vec::as_slice).unwrap_or_default();
            stack.extend(children.iter().rev().map(|child| (depth + 1, *child)));
        }
    }
    rows
}

fn row(depth: usize, process: &Process) -> Vec<String> {
    let user = process.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
    let name = process.executable.as_ref().map(|path| format!(" ({path})")).unwrap_or_default();
    vec![
        process.pid.to_string(),
        process.ppid.to_string(),
        process.state.to_owned(),
        process.threads.len().to_string(),
        user,
        size::human(process.memory.bytes),
        format!("{}{}{name}", "  ".repeat(depth.min(40)), process.command),
    ]
}

fn memory(image: &Image, text: &mut String) {
    let amount = |memory: &Memory| {
        let mut all = format!("{} in {} pages", size::human(memory.bytes), memory.pages);
        if memory.parent_pages > 0 {
            all += &format!(", {} pages in an earlier pre-dump", memory.parent_pages);
        }
        if memory.lazy_pages > 0 {
            all += &format!(", {} pages to be fetched", memory.lazy_pages);
        }
        all
    };
    let mut lines = String::new();
    line(&mut lines, "Of processes", &amount(&image.memory));
    if image.shared_memory.regions > 0 {
        let regions = image.shared_memory.regions;
        line(&mut lines, "Shared", &format!("{}, {regions} regions", amount(&image.shared_memory.memory)));
    }
    for tmpfs in &image.tmpfs {
        let shared = if tmpfs.shared { ", shared with others" } else { "" };
        let told = format!(
            "{} in {} entries, mounted from outside{shared}; up to {}",
            size::human(tmpfs.bytes),
            tmpfs.entries,
            size::human(tmpfs.size),
        );
        line(&mut lines, &tmpfs.destination, &told);
    }
    section(text, "MEMORY", &lines);
}

fn mounts(image: &Image) -> Vec<Vec<String>> {
    let content = |mount: &stasis::criu::inspect::Mount| match (&mount.external, mount.archive_bytes) {
        (Some(key), _) if *key == mount.destination => "external".to_owned(),
        (Some(key), _) => format!("external, as {key}"),
        (None, Some(bytes)) => format!("archive of {}", size::human(bytes)),
        (None, None) => mount.source.clone(),
    };
    image.mounts.iter().map(|mount| vec![mount.destination.clone(), mount.kind.clone(), content(mount)]).collect()
}

fn sockets(image: &Image) -> String {
    let sockets = &image.sockets;
    let counts = [
        (sockets.tcp_listening, "TCP listening"),
        (sockets.tcp_connected, "TCP connected"),
        (sockets.tcp_closed, "TCP closed"),
        (sockets.udp, "UDP"),
        (sockets.other_inet, "other internet"),
        (sockets.unix, "Unix"),
        (sockets.unix_external, "Unix outside"),
        (sockets.packet, "packet"),
        (sockets.netlink, "netlink"),
    ];
    counted("Sockets", &counts)
}

fn namespaces(image: &Image) -> String {
    let mut text = String::new();
    for scope in ["own", "external", "joined", "host"] {
        let kinds: Vec<&str> = image.namespaces.iter().filter(|one| one.scope == scope).map(|one| one.kind).collect();
        if !kinds.is_empty() {
            let title = if scope == "own" { "Namespaces" } else { "" };
            line(&mut text, title, &format!("{scope}: {}", kinds.join(", ")));
        }
    }
    text
}

fn ipc(image: &Image) -> String {
    let mut text = String::new();
    if let Some(mode) = &image.ipc_mode {
        line(&mut text, "IPC mode", mode);
    }
    let all = &image.system_v;
    text += &counted("System V", &[(all.segments, "segments"), (all.semaphores, "semaphores"), (all.queues, "queues")]);
    let queues = image.message_queues.iter().flat_map(|all| &all.queues);
    let messages = queues.clone().map(|queue| queue.messages).fold(0, u64::saturating_add);
    text += &counted("Message queues", &[(queues.count() as u64, "queues"), (messages, "messages")]);
    text
}

fn other(image: &Image) -> String {
    let mut text = String::new();
    let files = [
        (image.nameless.ghosts, "without a name"),
        (image.nameless.link_remaps, "with a name of criu's"),
        (image.file_locks, "locks"),
        (image.terminals, "terminals"),
    ];
    text += &counted("Open files", &files);
    if image.standard_streams.iter().any(|stream| !stream.is_empty()) {
        line(&mut text, "Standard streams", &image.standard_streams.join(", "));
    }
    for stream in &image.host_files {
        let name = if stream.path.is_empty() { "without a name" } else { &stream.path };
        line(&mut text, "File of the host", name);
    }
    for cgroup in image.cgroups.iter().take(1) {
        let more =
            if image.cgroups.len() > 1 { format!(", in {} hierarchies", image.cgroups.len()) } else { String::new() };
        line(&mut text, "Cgroup", &format!("{}{more}", cgroup.path));
    }
    if let Some(module) = image.security.module {
        line(&mut text, "Profiles", &format!("{module}: {}", image.security.profiles.join(", ")));
    }
    text + &counted("Seccomp", &[(image.security.seccomp_filters, "filters")])
}

fn open_files(process: &Process) -> Vec<Vec<String>> {
    let rows = process.files.iter().map(|open| {
        let mut name = open.file.name.clone();
        if let Some(position) = open.file.position {
            name += &format!(" at {position}");
        }
        if open.file.deleted {
            name += " (deleted)";
        }
        if open.file.external {
            name += " (external)";
        }
        vec![open.number.to_string(), open.file.kind.to_owned(), name]
    });
    rows.collect()
}

/// Returns a line of what there is of several things, or nothing.
fn counted(title: &str, counts: &[(u64, &str)]) -> String {
    let there = counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{what}: {count}"));
    let there: Vec<String> = there.collect();
    let mut text = String::new();
    if !there.is_empty() {
        line(&mut text, title, &there.join(", "));
    }
    text
}

fn line(text: &mut String, title: &str, what: &str) {
    // Writing to a String cannot fail.
    _ = writeln!(text, "{:<17} {}", clean(title), clean(what));
}

fn section(text: &mut String, title: &str, lines: &str) {
    if !lines.is_empty() {
        _ = write!(text, "\n{title}\n{lines}");
    }
}

/// Sets rows in columns, with two blanks between them.
fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head: Vec<String> = head.iter().map(|&word| word.to_owned()).collect();
    let rows: Vec<Vec<String>> =
        std::iter::once(head).chain(rows).map(|row| row.iter().map(|cell| clean(cell)).collect()).collect();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// Returns a text that does nothing to a terminal.
fn clean(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u64, ppid: u64, command: &str) -> Process {
        Process { pid, ppid, command: command.to_owned(), state: "alive", ..Process::default() }
    }

    #[test]
    fn a_tree_is_told_with_each_process_once() {
        let processes = vec![process(1, 0, "init"), process(2, 1, "a"), process(5, 2, "b"), process(3, 1, "c")];
        let commands = |processes: Vec<Process>| {
            let rows = tree(&Image { processes, ..Image::default() });
            rows.iter().map(|row| row[6].clone()).collect::<Vec<_>>()
        };
        assert_eq!(commands(processes), ["init", "  a", "    b", "  c"]);
        // What cannot be, and is told all the same.
        let circle = vec![process(1, 2, "x"), process(2, 1, "y"), process(3, 3, "z"), process(3, 3, "z")];
        assert_eq!(commands(circle), ["x", "  y", "z"]);
    }

    #[test]
    fn names_do_nothing_to_a_terminal() {
        assert_eq!(clean("a\x1b[31mb\nc\u{9b}é"), "a\\u{1b}[31mb\\nc\\u{9b}é");
        let text = table(&["A", "B"], vec![vec!["x\ty".to_owned(), "z".to_owned()]]);
        assert_eq!(text, "A     B\nx\\ty  z\n");
    }

    #[test]
    fn what_is_not_there_is_not_told() {
        let image = Image { kind: "dump", architecture: "x86_64", ..Image::default() };
        let report = Report { image, restorable: false, obstacles: vec!["it has no processes".to_owned()] };
        let text = report.text(true);
        assert!(text.contains("Made by           another runtime, x86_64\n"), "{text}");
        assert!(text.contains("Restorable here   no: it has no processes\n"), "{text}");
        assert!(!text.contains("PROCESSES") && !text.contains("Sockets") && !text.contains("Needs"), "{text}");
    }
}
