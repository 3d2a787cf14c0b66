//! `create`: a container, up to the point where its program would be executed.

use super::{Global, root, usage};
use anyhow::{Context, Result};
use clap::Args;
use stasis::container::{self, CreateOptions, StreamOptions};
use std::ffi::OsString;
use std::path::PathBuf;

/// What `create`, `run` and `restore` have in common: the bundle, and what goes into the container with it.
#[derive(Args, Debug)]
pub struct BundleArgs {
    /// path to the root of the bundle directory, defaults to the current directory
    #[arg(long, short, value_name = "dir")]
    pub bundle: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive the master end of the console's pseudoterminal
    #[arg(long, value_name = "path")]
    pub console_socket: Option<PathBuf>,
    /// path to an AF_UNIX socket which will receive a file descriptor of the container's init process
    #[arg(long, value_name = "path")]
    pub pidfd_socket: Option<PathBuf>,
    /// specify the file to write the process id to
    #[arg(long, value_name = "file")]
    pub pid_file: Option<PathBuf>,
    /// do not use pivot root to jail process inside rootfs; for a rootfs on top of a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// do not create a new session keyring for the container, which then has the calling process's
    #[arg(long)]
    pub no_new_keyring: bool,
    /// pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// take this file for the bundle's config.json
    #[arg(long, short = 'f', value_name = "file")]
    pub config: Option<PathBuf>,
}

/// Arguments of `create`.
#[derive(Args, Debug)]
#[command(
    after_help = "The bundle is a directory with a specification file named \"config.json\" and a root filesystem.\n\
                        The container's program is executed by the start command."
)]
pub struct CreateArgs {
    #[command(flatten)]
    pub bundle: BundleArgs,
    /// accepted for the sake of callers that give it to run and create alike
    #[arg(long, short, hide = true)]
    pub detach: bool,
    /// accepted for the sake of callers that give it to run and create alike
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
    /// the name of the container, unique on this host
    #[arg(value_name = "container-id")]
    pub id: String,
}

impl BundleArgs {
    /// Returns what the arguments mean to the library; `detach` says that the command does not stay.
    pub fn options(self, detach: bool, global: &Global) -> Result<CreateOptions> {
        let listen = listen_fds(|name| std::env::var(name).ok(), std::process::id());
        let env = match listen {
            0 => Vec::new(),
            // Whatever pid the process has outside, inside its own namespace it is the first.
            count => vec![format!("LISTEN_FDS={count}"), "LISTEN_PID=1".to_owned()],
        };
        Ok(CreateOptions {
            start: false,
            bundle: self.bundle.unwrap_or_else(|| PathBuf::from(".")),
            config: self.config,
            streams: StreamOptions { detach, console_socket: self.console_socket },
            pid_file: self.pid_file,
            pidfd_socket: self.pidfd_socket,
            no_pivot: self.no_pivot,
            no_new_keyring: self.no_new_keyring,
            preserve_fds: listen.saturating_add(self.preserve_fds),
            env,
            notify_socket: notify_socket(),
            rootless: global.rootless()?,
            no_cgroup: global.wants_no_cgroup(),
            systemd: global.wants_systemd()?,
        })
    }
}

/// Returns how many sockets systemd passed to this very process (sd_listen_fds(3)).
fn listen_fds(variable: impl Fn(&str) -> Option<String>, own_pid: u32) -> u32 {
    let number = |name| variable(name).and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") == Some(own_pid) { number("LISTEN_FDS").unwrap_or(0) } else { 0 }
}

/// Returns where a service manager waits to hear that the program is ready (sd_notify(3)).
pub fn notify_socket() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Creates a container.
pub fn run(args: CreateArgs, global: &Global) -> Result<u8> {
    let create = || -> Result<u8> {
        let options = args.bundle.options(true, global)?;
        container::create(&root::select(global)?.path, &args.id, &options)?;
        Ok(0)
    };
    create().with_context(|| format!("{} create failed", usage::own_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_count_only_for_the_process_they_were_meant_for() {
        for (pid, fds, count) in [
            (Some("42"), Some("2"), 2),
            (Some("41"), Some("2"), 0),
            (None, Some("2"), 0),
            (Some("42"), None, 0),
            (Some("42"), Some("x"), 0),
        ] {
            let variable = |name: &str| if name == "LISTEN_PID" { pid } else { fds }.map(str::to_owned);
            assert_eq!(listen_fds(variable, 42), count);
        }
    }
}
