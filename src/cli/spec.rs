//! `spec`: a config.json to begin with.

use anyhow::{Context, Result, bail};
use clap::Args;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use stasis::spec::template;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

/// Arguments of `spec`.
#[derive(Args, Debug)]
#[command(after_help = "The specification is a start: its \"args\" run \"sh\" in a root filesystem named \"rootfs\".")]
pub struct SpecArgs {
    /// path to the root of the bundle directory
    #[arg(long, short, value_name = "dir")]
    pub bundle: Option<PathBuf>,
    /// generate a configuration for a rootless container
    #[arg(long)]
    pub rootless: bool,
    /// write to this file instead of config.json
    #[arg(long, short, value_name = "file")]
    pub file: Option<PathBuf>,
}

/// Writes the template to where nothing is yet.
pub fn run(args: &SpecArgs) -> Result<u8> {
    let name = args.file.clone().unwrap_or_else(|| PathBuf::from("config.json"));
    let path = args.bundle.clone().unwrap_or_default().join(&name);
    let users = args
        .rootless
        .then(|| template::Users { uid: nix::unistd::geteuid().as_raw(), gid: nix::unistd::getegid().as_raw() });
    let unified = statfs("/sys/fs/cgroup").is_ok_and(|fs| fs.filesystem_type() == CGROUP2_SUPER_MAGIC);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => file
            .write_all(template::text(users, unified).as_bytes())
            .with_context(|| format!("write {}", path.display()))?,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => {
            bail!("File {} exists. Remove it first", name.display())
        }
        Err(err) => return Err(err).with_context(|| format!("create {}", path.display())),
    }
    Ok(0)
}
