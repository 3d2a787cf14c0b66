//! Unix sockets whose peer is not dumped with them.
//!
//! Who is connected to whom sock_diag(7) tells, in the network namespace of the sockets: a child of ours joins it, and
//! sends back a descriptor that can be asked.

use super::Scene;
use super::descriptors::{fdinfo, field, numbers, socket_inode};
use super::processes::{self, Process};
use crate::criu::obstacles::{Object, Obstacle};
use crate::error::{Context, Result};
use crate::plan::namespaces::Kind;
use crate::plan::process::cstring;
use crate::sys::clone::{Clone, clone_child};
use crate::sys::unix_diag::{self, UnixSocket};
use crate::sys::{Errno, ns, path, pidfd, socket};
use nix::fcntl::OFlag;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, OwnedFd};

/// A Unix socket of a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Held {
    /// The process.
    pub pid: i32,
    /// Its descriptor.
    pub number: i32,
    /// The socket's inode.
    pub inode: u32,
    /// Whether it is a datagram socket.
    pub is_datagram: bool,
    /// Whether it has a peer.
    pub is_connected: bool,
}

/// Returns the sockets that are connected to somebody who is not dumped.
pub fn with_foreign_peers<'a>(scene: &'a Scene<'_>, sockets: &[Held]) -> Vec<(&'a Process, Obstacle)> {
    // An external socket may be allowed by its inode.
    if scene.given.has("external") || !sockets.iter().any(|held| held.is_connected) {
        return Vec::new();
    }
    let all = match list(scene) {
        Ok(all) => all.into_iter().map(|socket| (socket.inode, socket)).collect(),
        Err(err) => {
            log::debug!("connections of unix sockets were not looked at: {err}");
            return Vec::new();
        }
    };
    let known: BTreeSet<u32> = sockets.iter().map(|held| held.inode).collect();
    let mut suspects = peers(sockets, &all);
    suspects.retain(|(_, peer)| !known.contains(peer));
    // What is on its way in a message is nobody's, and dumped.
    if suspects.is_empty() || sockets.iter().any(|held| carries_descriptors(*held)) {
        return Vec::new();
    }
    // It may have been accepted in between, or passed on.
    let owners = owners(scene);
    let obstacle = |(held, peer): (Held, u32)| {
        let owner = owners.get(&peer);
        if owner.is_some_and(|(_, is_dumped)| *is_dumped) {
            return None;
        }
        let object = peer_object(held, all.get(&peer), owner.map(|(process, _)| process));
        let is_allowed = matches!(object, Object::Peer { allowed: true, .. }) && scene.given.has("ext-unix-sk");
        let process = scene.tree.get(&held.pid).filter(|_| !is_allowed)?;
        Some((process, Obstacle::Descriptor(held.number, object)))
    };
    suspects.into_iter().filter_map(obstacle).collect()
}

/// Returns the sockets that are connected, each with the inode of its peer.
fn peers(sockets: &[Held], all: &BTreeMap<u32, UnixSocket>) -> Vec<(Held, u32)> {
    let peer = |held: &Held| Some((*held, all.get(&held.inode)?.peer)).filter(|(_, peer)| *peer != 0);
    sockets.iter().filter(|held| held.is_connected).filter_map(peer).collect()
}

/// Says what a socket is whose peer is not dumped; `peer` is absent when it is in another network namespace.
///
/// Of a stream CRIU dumps no half, and a datagram socket has to be connected again by a name.
fn peer_object(held: Held, peer: Option<&UnixSocket>, owner: Option<&Process>) -> Object {
    let name = peer.map(|peer| peer.name.as_slice()).filter(|name| !name.is_empty());
    Object::Peer {
        allowed: held.is_datagram && name.is_some(),
        name: name.map(|name| match name.strip_prefix(&[0]) {
            Some(name) => format!("@{}", String::from_utf8_lossy(name)),
            None => String::from_utf8_lossy(name).into_owned(),
        }),
        owner: owner.map(|process| (process.pid, process.name.clone())),
    }
}

/// Says whether there are descriptors in messages that a socket has not read yet (5.11).
fn carries_descriptors(held: Held) -> bool {
    let about = fdinfo(held.pid, held.number);
    about.is_some_and(|about| field(&about, "scm_fds").is_some_and(|count| count != "0"))
}

/// Returns which of the container's processes has which socket now, and whether that one is dumped.
fn owners(scene: &Scene<'_>) -> BTreeMap<u32, (Process, bool)> {
    let pids = scene.container.pids().unwrap_or_default();
    let (tree, others) = processes::split(scene.init, pids.into_iter().filter_map(processes::read).collect());
    let mut owners = BTreeMap::new();
    let processes = others.into_iter().map(|process| (process, false));
    // The last one counts.
    for (process, is_dumped) in processes.chain(tree.into_values().map(|process| (process, true))) {
        for number in numbers(process.pid) {
            let link = std::fs::read_link(format!("/proc/{}/fd/{number}", process.pid));
            if let Some(inode) = link.ok().and_then(|link| socket_inode(&link.to_string_lossy())) {
                owners.insert(inode, (process.clone(), is_dumped));
            }
        }
    }
    owners
}

/// Lists the Unix sockets of the container's network namespace.
fn list(scene: &Scene<'_>) -> Result<Vec<UnixSocket>> {
    let diag = match scene.has_own("net") {
        true => open_in_network(scene.init)?,
        false => unix_diag::open().context(|| "open a sock_diag socket")?,
    };
    unix_diag::list(diag.as_fd()).context(|| "list unix sockets")
}

fn open_in_network(init: i32) -> Result<OwnedFd> {
    let name = format!("/proc/{init}/ns/net");
    let network =
        path::open(&cstring(name.as_ref(), "namespace")?, OFlag::O_RDONLY).context(|| format!("open {name}"))?;
    let attempt = || format!("open a sock_diag socket in {name}");
    let (here, there) = socket::seqpacket_pair().context(attempt)?;
    let request = Clone { withheld: Some(here.as_fd()), ..Clone::default() };
    let child = clone_child(request, || {
        let diag = ns::join(network.as_fd(), Kind::Network.flag()).and_then(|()| unix_diag::open());
        // Without one it says nothing, and its end is noticed.
        let _sent = diag.and_then(|diag| socket::send(there.as_fd(), &[0], Some(diag.as_fd())));
    });
    let child = child.context(attempt)?;
    drop(there);
    let received = socket::receive(here.as_fd(), &mut [0]);
    pidfd::reap(child.pid).context(attempt)?;
    received.and_then(|received| received.fd.ok_or(Errno::EPERM)).context(attempt)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(number: i32, inode: u32, is_datagram: bool) -> Held {
        Held { pid: 1, number, inode, is_datagram, is_connected: true }
    }

    #[test]
    fn who_is_connected_is_looked_at() {
        let socket = |inode, peer| (inode, UnixSocket { inode, peer, name: Vec::new() });
        let all = BTreeMap::from([socket(1, 2), socket(3, 0), socket(4, 5)]);
        let unconnected = Held { is_connected: false, ..held(5, 4, false) };
        let sockets = [held(3, 1, false), held(4, 3, false), unconnected, held(6, 9, false)];
        assert_eq!(peers(&sockets, &all), [(sockets[0], 2)]);
    }

    #[test]
    fn datagrams_to_a_name_can_be_allowed() {
        let peer = |name: &[u8]| UnixSocket { inode: 2, peer: 0, name: name.to_vec() };
        let cases = [
            (true, Some(peer(b"/dev/log")), Some("/dev/log"), true),
            (true, Some(peer(b"\0log")), Some("@log"), true),
            (true, Some(peer(b"")), None, false),
            (true, None, None, false),
            (false, Some(peer(b"/run/x")), Some("/run/x"), false),
        ];
        for (is_datagram, peer, expected, expected_allowed) in cases {
            let found = peer_object(held(3, 1, is_datagram), peer.as_ref(), None);
            let name = expected.map(str::to_owned);
            assert_eq!(found, Object::Peer { name, owner: None, allowed: expected_allowed });
        }
    }
}
