//! `checkpoint`: a running container as images on disk. What `restore` asks for in the same words is here too.

use super::progress::Progress;
use super::{Global, root, size, usage};
use anyhow::{Context, Result, bail};
use clap::Args;
use stasis::container::{Container, is_rootless};
use stasis::criu::options::{CgroupMode, DumpOptions, NetworkLock, Options, PageServer};
use std::path::PathBuf;

/// Where images are when `--image-path` does not say: below the working directory.
const DEFAULT_IMAGES: &str = "checkpoint";

/// What `checkpoint` and `restore` have in common.
#[derive(Args, Debug, Default)]
pub struct CriuArgs {
    /// path of the criu image files, defaults to ./checkpoint
    #[arg(long, value_name = "dir")]
    pub image_path: Option<PathBuf>,
    /// path for saving work files and logs
    #[arg(long, value_name = "dir")]
    pub work_path: Option<PathBuf>,
    /// allow open tcp connections
    #[arg(long)]
    pub tcp_established: bool,
    /// restore open tcp connections closed
    #[arg(long)]
    pub tcp_close: bool,
    /// allow external unix sockets
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// allow shell jobs
    #[arg(long)]
    pub shell_job: bool,
    /// handle file locks, for safety
    #[arg(long)]
    pub file_locks: bool,
    /// enable auto deduplication of memory images
    #[arg(long)]
    pub auto_dedup: bool,
    /// use userfaultfd to lazily restore memory pages
    #[arg(long)]
    pub lazy_pages: bool,
    /// cgroups mode: soft|full|strict|ignore (default: soft)
    #[arg(long, value_name = "mode")]
    pub manage_cgroups_mode: Option<String>,
    /// create a namespace, but don't restore its properties (only network, which is always so)
    #[arg(long, value_name = "namespace")]
    pub empty_ns: Vec<String>,
    /// how the network is locked: iptables|nftables|skip (default: skip without a tcp option, else criu's)
    #[arg(long, value_name = "method")]
    pub network_lock: Option<String>,
    /// tell what is being done: plain, json, none, or auto: plain on a terminal (default: auto)
    #[arg(long, value_name = "how")]
    pub progress: Option<String>,
}

impl CriuArgs {
    /// Returns what they mean to CRIU.
    pub fn options(&self) -> Result<Options> {
        for namespace in &self.empty_ns {
            if namespace != "network" {
                bail!("namespace {namespace:?} is not supported");
            }
        }
        Ok(Options {
            image_path: self.image_path.clone().unwrap_or_else(|| DEFAULT_IMAGES.into()),
            work_path: self.work_path.clone(),
            tcp_established: self.tcp_established,
            tcp_close: self.tcp_close,
            ext_unix_sk: self.ext_unix_sk,
            shell_job: self.shell_job,
            file_locks: self.file_locks,
            auto_dedup: self.auto_dedup,
            lazy_pages: self.lazy_pages,
            cgroup_mode: cgroup_mode(self.manage_cgroups_mode.as_deref())?,
            network_lock: self.network_lock.as_deref().map(network_lock).transpose()?,
        })
    }
}

/// Arguments of `checkpoint`.
#[derive(Args, Debug, Default)]
#[command(
    after_help = "The checkpoint command saves the state of the container instance, and destroys it unless it is told\n\
                        to leave it running."
)]
pub struct CheckpointArgs {
    #[command(flatten)]
    pub criu: CriuArgs,
    /// path for previous criu image files in pre-dump, relative to the image path
    #[arg(long, value_name = "dir")]
    pub parent_path: Option<PathBuf>,
    /// leave the process running after checkpointing
    #[arg(long)]
    pub leave_running: bool,
    /// skip tcp connections that are being established
    #[arg(long)]
    pub tcp_skip_in_flight: bool,
    /// allow files that are open and have lost their name
    #[arg(long)]
    pub link_remap: bool,
    /// write \0 to this file descriptor once lazy-pages is ready
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub status_fd: i32,
    /// ADDRESS:PORT of the page server
    #[arg(long, value_name = "address:port")]
    pub page_server: Option<String>,
    /// size up to which open files without a name are dumped, with k, m or g (default: 4g)
    #[arg(long, value_name = "size")]
    pub ghost_limit: Option<String>,
    /// destination of a tmpfs mounted from outside whose content is the container's too, like that of /dev/shm
    #[arg(long, value_name = "dir")]
    pub external_tmpfs: Vec<String>,
    /// dump container's memory information only, leave the container running after this
    #[arg(long)]
    pub pre_dump: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

impl CheckpointArgs {
    /// Returns what they mean to CRIU.
    pub fn options(&self) -> Result<DumpOptions> {
        Ok(DumpOptions {
            options: self.criu.options()?,
            parent_path: self.parent_path.clone(),
            pre_dump: self.pre_dump,
            leave_running: self.leave_running,
            tcp_skip_in_flight: self.tcp_skip_in_flight,
            link_remap: self.link_remap,
            ghost_limit: self.ghost_limit.as_deref().map(ghost_limit).transpose()?,
            page_server: self.page_server.as_deref().map(page_server).transpose()?,
            external_tmpfs: self.external_tmpfs.clone(),
        })
    }
}

/// Dumps a container.
pub fn run(args: &CheckpointArgs, global: &Global) -> Result<u8> {
    if is_rootless() {
        ::log::warn!("{} checkpoint is untested with rootless containers", usage::own_name());
    }
    let container = Container::load(&root::select(global)?.path, &args.id)?;
    let status_fd = (args.status_fd >= 0).then_some(args.status_fd);
    let mut progress = Progress::new(&args.criu.progress, "checkpoint", &args.id, true)?;
    let done = container.checkpoint(&args.options()?, status_fd, &mut |event| progress.tell(event));
    progress.end(done.map_err(Into::into))?;
    Ok(0)
}

fn cgroup_mode(word: Option<&str>) -> Result<CgroupMode> {
    Ok(match word {
        None => CgroupMode::Default,
        Some("soft") => CgroupMode::Soft,
        Some("full") => CgroupMode::Full,
        Some("strict") => CgroupMode::Strict,
        Some("ignore") => CgroupMode::Ignore,
        Some(_) => bail!("invalid manage-cgroups-mode value"),
    })
}

fn network_lock(word: &str) -> Result<NetworkLock> {
    Ok(match word {
        "iptables" => NetworkLock::Iptables,
        "nftables" => NetworkLock::Nftables,
        "skip" => NetworkLock::Skip,
        _ => bail!("invalid network-lock value"),
    })
}

/// Reads a size that CRIU can count: 32 bits.
fn ghost_limit(text: &str) -> Result<u32> {
    let bytes = size::parse(text).with_context(|| format!("invalid --ghost-limit {text:?}"))?;
    Ok(u32::try_from(bytes).unwrap_or(u32::MAX))
}

/// Reads `ADDRESS:PORT`, where an IPv6 address stands in brackets.
fn page_server(text: &str) -> Result<PageServer> {
    let Some((address, port)) = text.rsplit_once(':') else {
        bail!("Use --page-server ADDRESS:PORT to specify page server");
    };
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    // Without the brackets the last part of an IPv6 address would be taken for a port.
    if address.is_empty() || port.is_empty() || bare.is_none() && address.contains(':') {
        bail!("Use --page-server ADDRESS:PORT to specify page server");
    }
    let Ok(port) = port.parse() else { bail!("Invalid port number") };
    Ok(PageServer { address: bare.unwrap_or(address).to_owned(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_server_is_an_address_and_a_port() {
        let usage = "Use --page-server ADDRESS:PORT to specify page server";
        let cases = [
            ("10.0.0.1:27", Ok(("10.0.0.1", 27))),
            ("[fd00::1]:27", Ok(("fd00::1", 27))),
            ("host", Err(usage)),
            (":27", Err(usage)),
            ("host:", Err(usage)),
            ("fd00::1:27", Err(usage)),
            ("host:x", Err("Invalid port number")),
            ("host:65536", Err("Invalid port number")),
        ];
        for (text, expected) in cases {
            let found = page_server(text);
            match expected {
                Ok((address, port)) => {
                    let expected = PageServer { address: address.to_owned(), port };
                    assert_eq!(found.unwrap(), expected);
                }
                Err(words) => assert_eq!(found.unwrap_err().to_string(), words, "{text}"),
            }
        }
    }

    #[test]
    fn wrong_words_are_refused_as_runc_refuses_them() {
        let args = CriuArgs { manage_cgroups_mode: Some("x".to_owned()), ..CriuArgs::default() };
        assert_eq!(args.options().unwrap_err().to_string(), "invalid manage-cgroups-mode value");
        let args = CriuArgs { network_lock: Some("x".to_owned()), ..CriuArgs::default() };
        assert_eq!(args.options().unwrap_err().to_string(), "invalid network-lock value");
        let args = CriuArgs { empty_ns: vec!["ipc".to_owned()], ..CriuArgs::default() };
        assert_eq!(args.options().unwrap_err().to_string(), "namespace \"ipc\" is not supported");
        let args = CriuArgs { empty_ns: vec!["network".to_owned()], ..CriuArgs::default() };
        assert_eq!(args.options().unwrap().image_path, PathBuf::from("checkpoint"));
    }
}
