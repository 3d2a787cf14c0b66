//! What the user typed: the global options, the commands, and how each is carried out.
//!
//! A file per command holds its clap definition and a short `run` that turns it into a call of the library. How
//! arguments are read is in [`argv`], and in [`quick`] where they are an engine's; what help and misuse look like in
//! [`usage`], where errors go in [`log`].

mod argv;
mod checkpoint;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod inspect_image;
mod kill;
mod list;
mod log;
mod log_target;
mod matching;
pub mod multicall;
mod output;
mod pause;
mod progress;
mod ps;
mod quick;
mod restore;
mod root;
mod run;
mod size;
mod spec;
mod start;
mod state;
mod update;
mod usage;

use anyhow::{Context, Result, bail};
use clap::{ArgAction, ArgMatches, Args, FromArgMatches};
use stasis::sys::signal;
use std::ffi::OsString;
use std::path::PathBuf;

/// The exit code of every failure but those of `exec`, and of the program that `run` and `exec` wait for.
const FAILURE: u8 = 1;

/// The exit code for a verb that does not exist.
const NO_SUCH_VERB: u8 = 3;

/// A command line.
#[derive(Debug)]
struct Line {
    global: Global,
    command: Command,
}

/// The options that stand before the verb, and may stand after it.
#[derive(Args, Debug)]
struct Global {
    /// enable debug logging
    #[arg(long)]
    debug: bool,
    /// set the log file to write logs to, or syslog:NAME or journald:NAME (default is '/dev/stderr')
    #[arg(long, value_name = "file")]
    log: Option<PathBuf>,
    /// set the log format ('text' (default), or 'json')
    #[arg(long, value_name = "format")]
    log_format: Option<String>,
    /// log only what is at least this severe ('error', 'warning', 'info', or 'debug')
    #[arg(long, value_name = "level")]
    log_level: Option<String>,
    /// root directory for storage of container state (this should be located in tmpfs)
    #[arg(long, value_name = "dir")]
    root: Option<PathBuf>,
    /// have systemd make the cgroup: cgroupsPath is then slice:prefix:name
    #[arg(long)]
    systemd_cgroup: bool,
    /// choose who makes the cgroups ('cgroupfs' (default), 'systemd', or 'disabled' for no cgroups at all)
    #[arg(long, value_name = "name")]
    cgroup_manager: Option<String>,
    /// ignore cgroup permission errors ('true', 'false', or 'auto')
    #[arg(long, value_name = "value")]
    rootless: Option<String>,
    /// accepted for the sake of old callers
    #[arg(long, value_name = "file", hide = true)]
    criu: Option<PathBuf>,
    /// show help
    #[arg(long, short, action = ArgAction::SetTrue)]
    help: bool,
    /// print the version
    #[arg(long, short, visible_short_alias = 'V', action = ArgAction::SetTrue)]
    version: bool,
}

impl Global {
    /// Says whether systemd is to make the cgroup.
    fn wants_systemd(&self) -> Result<bool> {
        match self.cgroup_manager.as_deref() {
            None => Ok(self.systemd_cgroup),
            Some("systemd") => Ok(true),
            Some("cgroupfs" | "disabled") => Ok(false),
            Some(other) => bail!("unknown cgroup manager {other:?}"),
        }
    }

    /// Says whether there is to be no cgroup.
    fn wants_no_cgroup(&self) -> bool {
        self.cgroup_manager.as_deref() == Some("disabled")
    }

    /// Says whether a missing privilege over cgroups is no failure; nothing leaves it to who the caller is.
    fn rootless(&self) -> Result<Option<bool>> {
        match self.rootless.as_deref() {
            None | Some("auto") => Ok(None),
            Some(value) => match argv::boolean(value) {
                Some(value) => Ok(Some(value)),
                None => bail!("invalid value {value:?} for --rootless: it is 'true', 'false', or 'auto'"),
            },
        }
    }
}

/// Defines the commands, each by its variant, its arguments, its verb, and a line of help.
macro_rules! commands {
    ($($variant:ident($args:ty) = $verb:literal, $about:literal;)*) => {
        /// A command with its arguments.
        #[derive(Debug)]
        enum Command {
            $($variant($args),)*
        }

        impl Command {
            /// The verbs, what each is for, and what adds its arguments to a definition.
            const VERBS: &[(&str, &str, fn(clap::Command) -> clap::Command)] =
                &[$(($verb, $about, <$args as Args>::augment_args),)*];

            /// Takes the command from what clap matched.
            fn from_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
                match matches.subcommand() {
                    $(Some(($verb, matches)) => <$args>::from_arg_matches(matches).map(Self::$variant),)*
                    _ => Err(clap::Error::new(clap::error::ErrorKind::MissingSubcommand)),
                }
            }
        }
    };
}

commands! {
    Checkpoint(checkpoint::CheckpointArgs) = "checkpoint", "checkpoint a running container";
    Create(create::CreateArgs) = "create", "create a container";
    Delete(delete::DeleteArgs) = "delete",
        "delete any resources held by the container often used with detached container";
    Events(events::EventsArgs) = "events",
        "display container events such as OOM notifications, cpu, memory, and IO usage statistics";
    Exec(exec::ExecArgs) = "exec", "execute new process inside the container";
    Features(features::FeaturesArgs) = "features", "show the enabled features";
    InspectImage(inspect_image::InspectImageArgs) = "inspect-image", "tell what a checkpoint holds";
    Kill(kill::KillArgs) = "kill", "send the specified signal (default: SIGTERM) to the container's init process";
    List(list::ListArgs) = "list", "list the containers started with the given root";
    Pause(pause::PauseArgs) = "pause", "suspend all processes inside the container";
    Ps(ps::PsArgs) = "ps", "display the processes running inside a container";
    Restore(restore::RestoreArgs) = "restore", "restore a container from a previous checkpoint";
    Resume(pause::ResumeArgs) = "resume", "resume all processes that have been previously paused";
    Run(run::RunArgs) = "run", "create and run a container";
    Spec(spec::SpecArgs) = "spec", "create a new specification file";
    Start(start::StartArgs) = "start", "execute the user defined process in a created container";
    State(state::StateArgs) = "state", "output the state of a container";
    Update(update::UpdateArgs) = "update", "update container resource constraints";
}

impl Command {
    /// Says whether the command puts a process into a container, which could then reach for our own binary.
    fn enters_container(&self) -> bool {
        matches!(self, Command::Create(_) | Command::Exec(_) | Command::Restore(_) | Command::Run(_))
    }

    /// Carries the command out; returns the exit code.
    fn run(self, global: &Global) -> Result<u8> {
        match self {
            Command::Checkpoint(args) => checkpoint::run(&args, global),
            Command::Create(args) => create::run(args, global),
            Command::Delete(args) => delete::run(&args, global),
            Command::Events(args) => events::run(&args, global),
            Command::Exec(args) => exec::run(args, global),
            Command::Features(_) => features::run(),
            Command::InspectImage(args) => inspect_image::run(&args),
            Command::Kill(args) => kill::run(&args, global),
            Command::List(args) => list::run(&args, global),
            Command::Pause(args) => pause::run(&args, global),
            Command::Ps(args) => ps::run(&args, global),
            Command::Restore(args) => restore::run(args, global),
            Command::Resume(args) => pause::resume(&args, global),
            Command::Run(args) => run::run(args, global),
            Command::Spec(args) => spec::run(&args, global),
            Command::Start(args) => start::run(&args, global),
            Command::State(args) => state::run(&args, global),
            Command::Update(args) => update::run(&args, global),
        }
    }

    /// Returns the exit code of a failure of this command.
    ///
    /// `exec` has one of its own, so that a failure of ours can be told from one of the program.
    fn failure(&self) -> u8 {
        if matches!(self, Command::Exec(_)) { exec::FAILURE } else { FAILURE }
    }
}

/// Returns clap's definition of what can be typed, with the verbs that are `wanted`: to define them all takes longer than
/// everything else about a command line.
fn definition(wanted: impl Fn(&str) -> bool) -> clap::Command {
    let program = clap::Command::new("stasis").disable_help_flag(true).disable_help_subcommand(true);
    let program = Global::augment_args(program).about("Open Container Initiative runtime").subcommand_required(true);
    let verbs = Command::VERBS.iter().filter(|(verb, ..)| wanted(verb));
    program.subcommands(verbs.map(|(verb, about, augment)| augment(clap::Command::new(*verb)).about(*about)))
}

/// A command line that was understood.
pub struct Invocation {
    line: Line,
}

impl Invocation {
    /// Reads the arguments; what needs no container (help, version, mistakes) is answered here, with an exit code.
    pub fn read(argv: &[OsString]) -> std::result::Result<Self, u8> {
        if let Some(line) = quick::read(argv) {
            return Ok(Self { line });
        }
        // The verb is among the arguments, whichever of them it is.
        let definition = definition(|verb| argv.iter().any(|word| word == verb));
        let parsed = match argv::read(&definition, argv) {
            Ok(argv::Request::Command(words)) => parse(definition, words),
            Ok(argv::Request::Help(verb)) => return Err(log::exit_code(whole(argv).help(verb.as_deref()), FAILURE)),
            Ok(argv::Request::Version) => return Err(log::exit_code(whole(argv).version(), FAILURE)),
            Err(misuse) => Err(misuse),
        };
        parsed.map(|line| Self { line }).map_err(|misuse| answer(&whole(argv), &misuse))
    }

    /// Carries the command out and reports its failure; returns the exit code.
    pub fn run(self) -> u8 {
        let Line { global, command } = self.line;
        let failure = command.failure();
        let outcome = || {
            log::open(&global)?;
            if global.criu.is_some() {
                ::log::warn!("--criu ignored (criu binary from $PATH is used); do not use");
            }
            // A caller may have left SIGCHLD ignored, and then nothing could be learnt of a process that ends.
            signal::keep_children().context("set the disposition of SIGCHLD")?;
            if command.enters_container() {
                stasis::seal::run_sealed(std::env::args_os()).context("run from a sealed image")?;
            }
            command.run(&global)
        };
        log::exit_code(outcome(), failure)
    }
}

/// Returns the program with all of its definition.
fn whole(argv: &[OsString]) -> usage::Program {
    usage::Program::new(argv, definition(|_| true))
}

/// Answers a misuse, in the log too if the options that were understood name one.
fn answer(program: &usage::Program, misuse: &argv::Misuse) -> u8 {
    let definition = Global::augment_args(clap::Command::new("stasis").no_binary_name(true)).disable_help_flag(true);
    let matches = definition.try_get_matches_from(&misuse.global);
    if let Ok(global) = matches.and_then(|matches| Global::from_arg_matches(&matches)) {
        // One that cannot be opened is not what was done wrong here.
        _ = log::open(&global);
    }
    program.misuse(misuse)
}

/// Gives clap the canonical words; its complaints can only be about values.
fn parse(definition: clap::Command, words: Vec<OsString>) -> std::result::Result<Line, argv::Misuse> {
    // In canonical words, what does not begin with a dash is first of all the verb.
    let verb = words.iter().skip(1).filter_map(|word| word.to_str()).find(|word| !word.starts_with('-'));
    let verb = verb.map(str::to_owned);
    let global = words.iter().skip(1).take_while(|word| word.as_encoded_bytes().starts_with(b"-")).cloned();
    let global: Vec<OsString> = global.collect();
    let misuse = |err| {
        let text = usage::complaint(&err);
        argv::Misuse { verb: verb.clone(), text, kind: argv::Mistake::Option, global: global.clone() }
    };
    let matches = definition.try_get_matches_from(words).map_err(misuse)?;
    let global = Global::from_arg_matches(&matches).map_err(misuse)?;
    Ok(Line { global, command: Command::from_matches(&matches).map_err(misuse)? })
}

#[cfg(test)]
mod generated;
#[cfg(test)]
mod tests;
