//! `exec`: another process in a running container.

use super::{Global, log, root, run};
use anyhow::{Context, Result, bail};
use clap::Args;
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};
use stasis::container::{Container, ExecOptions, StreamOptions};
use stasis::plan::caps;
use stasis::sys::signal::Signals;
use std::path::{Path, PathBuf};

/// The exit code of a failure of ours: 1 could be the program's.
pub const FAILURE: u8 = 255;

/// Arguments of `exec`.
#[derive(Args, Debug)]
#[command(
    after_help = "The process is described by the options and the command, which start from the container's own\n\
                        process, or by the file that --process names. Options end at the container's name."
)]
pub struct ExecArgs {
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long, value_name = "path")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor of the process
    #[arg(long, value_name = "path")]
    pub pidfd_socket: Option<PathBuf>,
    /// current working directory in the container
    #[arg(long, value_name = "dir")]
    pub cwd: Option<PathBuf>,
    /// set environment variables
    #[arg(long, short, value_name = "name=value")]
    pub env: Vec<String>,
    /// allocate a pseudo-TTY
    #[arg(long, short)]
    pub tty: bool,
    /// UID (format: <uid>[:<gid>])
    #[arg(long, short, value_name = "uid[:gid]")]
    pub user: Option<String>,
    /// additional gids
    #[arg(long, short = 'g', value_name = "gid")]
    pub additional_gids: Vec<u32>,
    /// path to the process.json
    #[arg(long, short, value_name = "file")]
    pub process: Option<PathBuf>,
    /// detach from the container's process
    #[arg(long, short)]
    pub detach: bool,
    /// specify the file to write the process id to
    #[arg(long, value_name = "file")]
    pub pid_file: Option<PathBuf>,
    /// set the asm process label for the process commonly used with selinux
    #[arg(long, value_name = "label")]
    pub process_label: Option<String>,
    /// set the apparmor profile for the process
    #[arg(long, value_name = "profile")]
    pub apparmor: Option<String>,
    /// set the no new privileges value for the process
    #[arg(long)]
    pub no_new_privs: bool,
    /// add a capability to the bounding set for the process
    #[arg(long, short, value_name = "name")]
    pub cap: Vec<String>,
    /// pass N additional file descriptors to the process (stdio + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// run the process in an existing sub-cgroup
    #[arg(long, value_name = "[controller,...:]path")]
    pub cgroup: Vec<String>,
    /// allow exec in a paused container
    #[arg(long)]
    pub ignore_paused: bool,
    /// accepted for the sake of old callers
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
    /// the program and its arguments
    #[arg(value_name = "command")]
    pub command: Vec<String>,
}

/// Starts a process in a container, and unless detached waits for its end.
pub fn run(args: ExecArgs, global: &Global) -> Result<u8> {
    execute(args, global).context("exec failed")
}

fn execute(args: ExecArgs, global: &Global) -> Result<u8> {
    let container = Container::load(&root::select(global)?.path, &args.id)?;
    let process = match &args.process {
        Some(path) => read(path)?,
        None if args.command.is_empty() => bail!("exec args cannot be empty"),
        None => describe(container.spec()?.process().clone().unwrap_or_default(), &args)?,
    };
    let options = ExecOptions {
        streams: StreamOptions { detach: args.detach, console_socket: args.console_socket },
        pid_file: args.pid_file,
        pidfd_socket: args.pidfd_socket,
        preserve_fds: args.preserve_fds,
        ignore_paused: args.ignore_paused,
        cgroups: cgroups(&args.cgroup)?,
    };
    if args.detach {
        container.exec(&process, &options)?;
        return Ok(0);
    }
    // Before the process is made: a signal that comes in between waits until there is somebody to pass it on to.
    let signals = Signals::block().context("block signals")?;
    let started = container.exec(&process, &options)?;
    log::release();
    run::follow(&signals, started)
}

fn read(path: &Path) -> Result<Process> {
    let text = stasis::Context::context(std::fs::read(path), || format!("open {}", path.display()))?;
    stasis::spec::parse_process(&text).with_context(|| format!("parse {}", path.display()))
}

/// Changes the container's own process into the one that the options describe.
fn describe(mut process: Process, args: &ExecArgs) -> Result<Process> {
    process.set_args(Some(args.command.clone()));
    process.set_terminal(Some(args.tty));
    if !args.tty {
        process.set_console_size(None);
    }
    if let Some(cwd) = &args.cwd {
        process.set_cwd(cwd.clone());
    }
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        process.set_selinux_label(Some(label.clone()));
    }
    if args.no_new_privs {
        process.set_no_new_privileges(Some(true));
    }
    process.env_mut().get_or_insert_default().extend(args.env.iter().cloned());
    if let Some(user) = &args.user {
        let (uid, gid) = ids(user)?;
        process.user_mut().set_uid(uid);
        gid.into_iter().for_each(|gid| _ = process.user_mut().set_gid(gid));
    }
    if !args.additional_gids.is_empty() {
        let mut gids = process.user().additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        process.user_mut().set_additional_gids(Some(gids));
    }
    if !args.cap.is_empty() {
        let mut capabilities = process.capabilities().clone().unwrap_or_else(no_capabilities);
        add(&mut capabilities, &args.cap);
        process.set_capabilities(Some(capabilities));
    }
    Ok(process)
}

/// Reads `uid` or `uid:gid`.
fn ids(user: &str) -> Result<(u32, Option<u32>)> {
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (user, None),
    };
    // The words are Go's.
    let number = |text: &str, what| match text.parse() {
        Ok(number) => Ok(number),
        Err(_) => bail!("bad {what}: strconv.Atoi: parsing {text:?}: invalid syntax"),
    };
    Ok((number(uid, "uid")?, gid.map(|gid| number(gid, "gid")).transpose()?))
}

/// Returns the sets of a process that has no capability; the type's default has some.
fn no_capabilities() -> LinuxCapabilities {
    let mut none = LinuxCapabilities::default();
    none.set_bounding(None).set_effective(None).set_inheritable(None).set_permitted(None).set_ambient(None);
    none
}

/// Adds capabilities by name to the sets in which they have an effect.
fn add(sets: &mut LinuxCapabilities, names: &[String]) {
    let known = |name: &String| name.strip_prefix("CAP_").and_then(|bare| bare.parse::<Capability>().ok());
    let unknown: Vec<String> = names.iter().filter(|name| known(name).is_none()).cloned().collect();
    if !unknown.is_empty() {
        ::log::warn!("{}", caps::ignored_warning(&unknown));
    }
    let with = |set: &Option<std::collections::HashSet<Capability>>| {
        Some(set.iter().flatten().copied().chain(names.iter().filter_map(known)).collect())
    };
    sets.set_bounding(with(sets.bounding()));
    sets.set_effective(with(sets.effective()));
    sets.set_permitted(with(sets.permitted()));
    // The kernel has no ambient capability that is not inheritable too (capabilities(7)).
    if sets.inheritable().is_some() {
        sets.set_ambient(with(sets.ambient()));
    }
}

/// Reads `--cgroup path`, or one `--cgroup controller,...:path` for each group of v1 controllers.
fn cgroups(given: &[String]) -> Result<Vec<(Option<Vec<String>>, PathBuf)>> {
    let mut seen: Vec<&str> = Vec::new();
    let mut all = Vec::new();
    for text in given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                bail!("invalid --cgroup argument: {text} (missing <controller>: prefix)");
            }
            return Ok(vec![(None, PathBuf::from(text))]);
        };
        if path.contains(':') {
            bail!("invalid --cgroup argument: {text}");
        }
        for controller in controllers.split(',') {
            if seen.contains(&controller) {
                bail!("invalid --cgroup argument(s): controller {controller} specified multiple times");
            }
            seen.push(controller);
        }
        all.push((Some(controllers.split(',').map(str::to_owned).collect()), PathBuf::from(path)));
    }
    Ok(all)
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
