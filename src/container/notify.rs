//! sd_notify(3) for containers: a program says READY=1 on a socket of ours, and we say so to whoever started us.
//!
//! The socket is in a directory below the container's that is bound into it, so that it can be made anew by the command
//! that starts the program. Of what comes only readiness is passed on: the rest would speak for the runtime.

use super::state::StateDir;
use super::{Container, CreateOptions};
use crate::error::{Context, Error, Result};
use crate::spec::Config;
use crate::sys::{Errno, fd, socket};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::MountBuilder;
use std::ffi::OsStr;
use std::fs::{DirBuilder, Permissions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Where the container has the directory, as with runc.
const PLACE: &str = "/run/notify";

/// The socket's name in it.
const NAME: &str = "notify.sock";

/// How many messages are taken before the caller looks after something else.
const AT_ONCE: usize = 64;

/// How long systemd may take to act on what it was told, in milliseconds.
const BARRIER: i32 = 30_000;

/// The socket of a container, and where what it says is passed on to.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    host: UnixDatagram,
}

/// Adds the directory and its variable to a configuration, for a caller that wants to be notified.
pub fn share(config: &mut Config, dir: &StateDir, options: &CreateOptions) -> Result<()> {
    if options.notify_socket.is_none() {
        return Ok(());
    }
    let place = std::path::absolute(dir.notify()).context(|| format!("find {}", dir.notify().display()))?;
    DirBuilder::new().mode(0o755).create(&place).context(|| format!("make {}", place.display()))?;
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    let mount = MountBuilder::default().destination(PLACE).source(place).typ("bind").options(options).build();
    config.add_mount(mount.map_err(|err| Error::other(err.to_string()))?)?;
    if let Some(process) = config.spec.process_mut() {
        process.env_mut().get_or_insert_default().push(format!("NOTIFY_SOCKET={PLACE}/{NAME}"));
    }
    Ok(())
}

impl Container {
    /// Returns the socket on which the program will say that it is ready, if the container was created with one.
    pub fn notify_socket(&self, host: &OsStr) -> Result<Option<NotifySocket>> {
        if self.dir.notify().is_dir() { NotifySocket::bind(&self.dir, host).map(Some) } else { Ok(None) }
    }

    /// Waits until the program says that it is ready, or ends, and passes it on.
    pub fn wait_notified(&self, mut notify: NotifySocket) -> Result<()> {
        let init = self.init()?;
        loop {
            // Asked first: what it has said before it ended is there by then.
            let has_ended = init.as_ref().map_or(Ok(true), |init| notify.wait_or_end(init.as_fd()))?;
            if let Some(barrier) = notify.pass_on(self.state.pid)? {
                // Closed once systemd has got so far. Others than systemd may not know of it.
                if !fd::wait_readable(barrier.as_fd(), BARRIER).context(|| "wait for the barrier")? {
                    log::warn!("nobody acted on NOTIFY_SOCKET's barrier within {} s", BARRIER / 1000);
                }
                return Ok(());
            }
            if has_ended {
                return Ok(());
            }
        }
    }
}

impl NotifySocket {
    /// Makes the socket, in the place of one that an earlier command has left.
    pub fn bind(dir: &StateDir, host: &OsStr) -> Result<Self> {
        let path = dir.notify().join(NAME);
        let attempt = || format!("bind {}", path.display());
        if let Err(err) = std::fs::remove_file(&path) {
            log::debug!("remove {}: {err}", path.display());
        }
        let text = crate::plan::process::cstring(dir.notify().as_os_str(), "state directory")?;
        let place = crate::sys::path::open(&text, OFlag::O_PATH | OFlag::O_DIRECTORY).context(attempt)?;
        // An address has room for 108 bytes, which the path of a state directory may exceed.
        let short = format!("/proc/self/fd/{}/{NAME}", place.as_raw_fd());
        let socket = UnixDatagram::bind(short).context(attempt)?;
        socket.set_nonblocking(true).context(attempt)?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o777)).context(attempt)?;
        let address = match host.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
            _ => SocketAddr::from_pathname(host),
        };
        let attempt = || format!("connect to NOTIFY_SOCKET {}", host.to_string_lossy());
        let host = UnixDatagram::unbound().context(attempt)?;
        address.and_then(|address| host.connect_addr(&address)).context(attempt)?;
        Ok(Self { socket, host })
    }

    /// Waits for messages or for the end of a process, and says whether it has ended.
    fn wait_or_end(&self, process: BorrowedFd<'_>) -> Result<bool> {
        let mut fds = [self.as_fd(), process].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => Ok(false),
            other => other.context(|| "wait for the program to be ready").map(|_| fds[1].any().unwrap_or(false)),
        }
    }

    /// Takes the messages that have come; if one says that the program is ready, passes that on with the pid that the
    /// service manager is to watch, and returns a pipe that is closed once it has acted on it (sd_notify_barrier(3)).
    pub fn pass_on(&mut self, main: i32) -> Result<Option<OwnedFd>> {
        let Some(ready) = self.readiness()? else { return Ok(None) };
        let (barrier, theirs) = fd::pipe().context(|| "make a pipe")?;
        let attempt = || "notify the host";
        self.host.send(&ready).context(attempt)?;
        self.host.send(format!("MAINPID={main}\n").as_bytes()).context(attempt)?;
        socket::send(self.host.as_fd(), b"BARRIER=1", Some(theirs.as_fd())).context(attempt)?;
        Ok(Some(barrier))
    }

    /// Takes messages until one has a line about readiness, or no more are there; not all of a flood, beside which the
    /// caller has more to do.
    fn readiness(&self) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 4096];
        for _ in 0..AT_ONCE {
            let len = match self.socket.recv(&mut buffer) {
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
                other => other.context(|| "receive a notification")?,
            };
            let mut lines = buffer.get(..len).unwrap_or_default().split(|byte| *byte == b'\n');
            if let Some(ready) = lines.find(|line| line.starts_with(b"READY=")) {
                return Ok(Some([ready, b"\n"].concat()));
            }
        }
        Ok(None)
    }
}

impl AsFd for NotifySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
