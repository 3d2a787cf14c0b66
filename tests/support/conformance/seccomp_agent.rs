//! `seccompagent`: answers a container's system calls. It makes directories in the container's place, with a name that
//! ends in the profile's metadata, and refuses to change modes with an error which the kernel would not give.

use crate::args::Args;
use anyhow::{Context, Result, ensure};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags, notify_id_valid};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use oci_spec::runtime::ContainerProcessState;
use std::ffi::{CStr, OsStr};
use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Listens for seccomp descriptors, and serves each one.
pub fn serve(args: &Args) -> Result<()> {
    let socket = UnixListener::bind(args.option("socketfile").context("--socketfile is missing")?)?;
    args.write_pid_file()?;
    for connection in socket.incoming() {
        match receive(&connection?) {
            Ok((listener, suffix)) => drop(std::thread::spawn(move || answer_all(&listener, &suffix))),
            Err(err) => writeln!(std::io::stderr(), "not a container's state: {err:#}")?,
        }
    }
    Ok(())
}

/// Receives a descriptor and what the profile says beside it.
fn receive(connection: &UnixStream) -> Result<(OwnedFd, String)> {
    let mut message = vec![0; 65536];
    let received = stasis::sys::socket::receive(connection.as_fd(), &mut message)?;
    let state: ContainerProcessState = serde_json::from_slice(&message[..received.len])?;
    ensure!(state.fds() == &["seccompFd"], "the descriptors are {:?}", state.fds());
    let suffix = state.metadata().clone().unwrap_or_default();
    ensure!(!suffix.contains('/'), "the metadata is no end of a name: {suffix}");
    Ok((received.fd.context("no descriptor came")?, suffix))
}

/// Answers the calls until nobody is left who could make any.
fn answer_all(listener: &OwnedFd, suffix: &str) {
    let fd = listener.as_raw_fd();
    loop {
        match ScmpNotifReq::receive(fd) {
            // A caller that is gone gets no answer.
            Ok(request) if notify_id_valid(fd, request.id).is_ok() => _ = answer(&request, suffix).respond(fd),
            Ok(_) => {}
            // A caller that is gone in between, or from Linux 6.11 on all of them.
            Err(err) if err.sysrawrc() == Some(libc::ENOENT) && !has_hung_up(listener) => {}
            Err(_) => return,
        }
    }
}

/// Says whether nobody is left whose calls could come.
fn has_hung_up(listener: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

fn answer(request: &ScmpNotifReq, suffix: &str) -> ScmpNotifResp {
    let fail = |errno: i32| ScmpNotifResp::new_error(request.id, -errno, ScmpNotifRespFlags::empty());
    match request.data.syscall.get_name().as_deref() {
        Ok("mkdir") => match make_directory(request, suffix) {
            Ok(()) => ScmpNotifResp::new_val(request.id, 0, ScmpNotifRespFlags::empty()),
            Err(_) => fail(libc::ENOSYS),
        },
        Ok("chmod" | "fchmod" | "fchmodat") => fail(libc::ENOMEDIUM),
        _ => ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty()),
    }
}

/// Makes the directory which a process asks for, seen from its root or its working directory. The suite's containers
/// have no symbolic links that lead out of them.
fn make_directory(request: &ScmpNotifReq, suffix: &str) -> Result<()> {
    let process = Path::new("/proc").join(request.pid.to_string());
    let mut bytes = [0; 4096];
    let count = File::open(process.join("mem"))?.read_at(&mut bytes, request.data.args[0])?;
    let mut name = CStr::from_bytes_until_nul(&bytes[..count])?.to_bytes().to_vec();
    name.extend([b"-", suffix.as_bytes()].concat());
    let from = if name.starts_with(b"/") { "root" } else { "cwd" };
    let relative = name.strip_prefix(b"/").unwrap_or(&name);
    let mode = u32::try_from(request.data.args[1])?;
    Ok(DirBuilder::new().mode(mode).create(process.join(from).join(OsStr::from_bytes(relative)))?)
}
