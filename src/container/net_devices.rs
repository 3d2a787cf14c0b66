//! Network devices of the host that a container takes over (`linux.netDevices`).
//!
//! They go with the container's network namespace: when that is gone the kernel gives what is hardware back to the host
//! and removes the rest.

use super::inside;
use crate::error::{Context, Result};
use crate::plan::namespaces::Kind;
use crate::plan::process::cstring;
use crate::sys::rtnetlink::{self, Request};
use crate::sys::{Errno, ns, path};
use nix::fcntl::OFlag;
use oci_spec::runtime::Linux;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

/// Moves the devices into the network namespace of a container's init, with their addresses, and brings them up.
pub fn attach(linux: &Linux, init: i32) -> Result<()> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else { return Ok(()) };
    let place = CString::new(format!("/proc/{init}/ns/net")).unwrap_or_default();
    let namespace = path::open(&place, OFlag::O_RDONLY).context(|| "open the container's network namespace")?;
    for (name, device) in devices {
        let new = device.name().as_deref().filter(|new| !new.is_empty()).unwrap_or(name);
        move_one(name, new, namespace.as_fd())?;
    }
    Ok(())
}

fn move_one(name: &str, new: &str, namespace: BorrowedFd<'_>) -> Result<()> {
    let attempt = || format!("move network device {name} to the container");
    let (old, new) = (cstring(name.as_ref(), "netDevices")?, cstring(new.as_ref(), "netDevices")?);
    let index = ns::interface_index(&old).context(attempt)?;
    // The kernel would move it, and then find the name taken: it would go with the container.
    inside::run(Kind::Network, namespace, attempt, || match ns::interface_index(&new) {
        Err(Errno::ENODEV) => Ok(()),
        other => other.and(Err(Errno::EEXIST)),
    })?;
    let socket = rtnetlink::open().context(attempt)?;
    // They are lost on the way.
    let mut later = rtnetlink::addresses(socket.as_fd(), index).context(attempt)?;
    later.push(Request::set_up(index));
    // The kernel brings it down once nothing speaks against the move: where it is refused, all stays as it is.
    Request::move_to(index, namespace, &new).carry_out(socket.as_fd()).context(attempt)?;
    let attempt = || format!("set up network device {} in the container", new.to_string_lossy());
    inside::run(Kind::Network, namespace, attempt, || {
        let socket = rtnetlink::open()?;
        // Its number may have been taken there.
        let index = ns::interface_index(&new)?;
        later.iter_mut().try_for_each(|request| {
            request.set_index(index);
            request.carry_out(socket.as_fd())
        })
    })
}
