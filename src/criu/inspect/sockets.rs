//! Sockets: how many there are of each kind, and the name of each.

use super::directory::Directory;
use crate::criu::image::Message;
use nix::libc;
use serde::Serialize;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The states of a TCP socket by the kernel's numbers, from 1 on.
const STATES: [&str; 12] = [
    "established",
    "syn-sent",
    "syn-received",
    "fin-wait-1",
    "fin-wait-2",
    "time-wait",
    "closed",
    "close-wait",
    "last-ack",
    "listening",
    "closing",
    "syn-received",
];
const CLOSED: u64 = 7;
const LISTENING: u64 = 10;

/// The mark of the other end of a Unix socket that is not in the image (`uflags`).
const EXTERNAL: u64 = 1;

/// How many sockets there are.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sockets {
    /// TCP sockets that wait for connections.
    pub tcp_listening: u64,
    /// TCP sockets that have a connection, or had one that has not ended.
    pub tcp_connected: u64,
    /// TCP sockets that have none.
    pub tcp_closed: u64,
    /// UDP sockets.
    pub udp: u64,
    /// Sockets of other internet protocols.
    pub other_inet: u64,
    /// Unix sockets of the processes.
    pub unix: u64,
    /// Unix sockets of others that these are connected to.
    pub unix_external: u64,
    /// Sockets of packets.
    pub packet: u64,
    /// Sockets of the kernel's.
    pub netlink: u64,
    /// Whether there are sockets of IPv6.
    pub ipv6: bool,
}

impl Sockets {
    /// Counts a socket of an internet protocol, and notes the image of its connection when that is missing.
    pub fn add_inet(&mut self, socket: &Message, tcp_closed: bool, images: &mut Directory) {
        self.ipv6 |= socket.number(3) == Some(libc::AF_INET6 as u64);
        match (socket.number(5).map(protocol), socket.number(6).unwrap_or(CLOSED)) {
            (Some(Protocol::Tcp), CLOSED) => self.tcp_closed += 1,
            (Some(Protocol::Tcp), LISTENING) => self.tcp_listening += 1,
            (Some(Protocol::Tcp), _) => {
                self.tcp_connected += 1;
                if !tcp_closed {
                    images.need(format!("tcp-stream-{:x}.img", socket.number(2).unwrap_or(0)));
                }
            }
            (Some(Protocol::Udp), _) => self.udp += 1,
            _ => self.other_inet += 1,
        }
    }

    /// Counts a Unix socket.
    pub fn add_unix(&mut self, socket: &Message) {
        if is_external(socket) {
            self.unix_external += 1;
        } else {
            self.unix += 1;
        }
    }
}

enum Protocol {
    Tcp,
    Udp,
    Other(u64),
}

fn protocol(number: u64) -> Protocol {
    match i32::try_from(number) {
        Ok(libc::IPPROTO_TCP) => Protocol::Tcp,
        Ok(libc::IPPROTO_UDP) => Protocol::Udp,
        _ => Protocol::Other(number),
    }
}

/// Says whether a Unix socket is somebody else's.
pub fn is_external(socket: &Message) -> bool {
    socket.number(6).is_some_and(|flags| flags & EXTERNAL != 0)
}

/// Returns a name for a socket of an internet protocol: protocol, ends and state.
pub fn inet_name(socket: &Message) -> String {
    let address = |words, port: Option<u64>| {
        let address = address(socket.numbers(words))?;
        Some(SocketAddr::new(address, u16::try_from(port?).ok()?))
    };
    let protocol = match protocol(socket.number(5).unwrap_or(0)) {
        Protocol::Tcp => "tcp".to_owned(),
        Protocol::Udp => "udp".to_owned(),
        Protocol::Other(number) => format!("protocol {number}"),
    };
    let mut name = protocol;
    if let Some(source) = address(11, socket.number(7)) {
        name += &format!(" {source}");
    }
    if let Some(peer) = address(12, socket.number(8)).filter(|peer| peer.port() != 0) {
        name += &format!(" to {peer}");
    }
    let state = socket.number(6).and_then(|state| usize::try_from(state).ok()?.checked_sub(1));
    match state.and_then(|state| STATES.get(state)) {
        Some(state) if name.starts_with("tcp") => format!("{name} {state}"),
        _ => name,
    }
}

/// Reads an address: words as they are in memory, so that their bytes are in the order of the network.
fn address(words: Vec<u64>) -> Option<IpAddr> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| (*word as u32).to_le_bytes()).collect();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))),
        _ => None,
    }
}

/// Returns a name for a Unix socket: its path, `@` and its name in no file system, or nothing.
pub fn unix_name(socket: &Message) -> String {
    let bytes = socket.all_bytes(11).pop().unwrap_or_default();
    let name = match bytes {
        [0, name @ ..] => format!("@{}", String::from_utf8_lossy(name)),
        name => String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned(),
    };
    if name.is_empty() { "unix".to_owned() } else { format!("unix {name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message};

    fn tcp(state: u64) -> Message {
        let loopback = u64::from(u32::from_le_bytes([127, 0, 0, 1]));
        let mut socket =
            message(&[(2, 0x1f), (3, 2), (5, 6), (6, state), (7, 5000), (8, if state == 1 { 40000 } else { 0 })]);
        socket.set_packed(11, &[loopback]);
        socket.set_packed(12, &[loopback]);
        socket
    }

    #[test]
    fn names_tell_ends_and_state() {
        assert_eq!(inet_name(&tcp(1)), "tcp 127.0.0.1:5000 to 127.0.0.1:40000 established");
        assert_eq!(inet_name(&tcp(LISTENING)), "tcp 127.0.0.1:5000 listening");
        let mut udp = message(&[(3, 10), (5, 17), (6, CLOSED), (7, 53), (8, 0)]);
        udp.set_packed(11, &[0, 0, 0, 0x0100_0000]);
        assert_eq!(inet_name(&udp), "udp [::1]:53");
        assert_eq!(inet_name(&message(&[(5, 58), (6, 99)])), "protocol 58");
        let unix = |name: &str| {
            let mut socket = Message::default();
            socket.set_text(11, name);
            unix_name(&socket)
        };
        assert_eq!([unix("/run/x\0"), unix("\0abc"), unix("")], ["unix /run/x", "unix @abc", "unix"]);
    }

    #[test]
    fn connections_need_their_image() {
        let images = TestImages::new();
        let mut dir = Directory::open(images.path()).unwrap();
        let mut sockets = Sockets::default();
        for state in [1, LISTENING, CLOSED] {
            sockets.add_inet(&tcp(state), false, &mut dir);
        }
        sockets.add_inet(&tcp(8), true, &mut dir);
        sockets.add_inet(&message(&[(3, 10), (5, 17)]), false, &mut dir);
        sockets.add_unix(&message(&[(6, 0)]));
        sockets.add_unix(&message(&[(6, EXTERNAL)]));
        let expected = Sockets {
            tcp_listening: 1,
            tcp_connected: 2,
            tcp_closed: 1,
            udp: 1,
            unix: 1,
            unix_external: 1,
            ipv6: true,
            ..Sockets::default()
        };
        assert_eq!((sockets, dir.flaws().0), (expected, vec!["tcp-stream-1f.img".to_owned()]));
    }
}
