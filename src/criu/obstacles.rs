//! What CRIU cannot dump, as it was read in the source of [`KNOWN`] and tried: which objects, which options change that,
//! and the words for it.
//!
//! Only what CRIU is certain to refuse is an obstacle, or what it dumps and no restore can bring back: a container that
//! could have been dumped must not be refused. Where a process's objects are found is the caller's knowledge.

use super::Version;
use super::options::DumpOptions;
use std::collections::BTreeSet;
use std::fmt;

/// The latest CRIU of which this is known: a later one may have learnt to dump more.
pub const KNOWN: Version = Version { major: 4, minor: 2, sublevel: i32::MAX };

/// The kinds of anonymous inodes that CRIU dumps.
const DUMPED: [&str; 7] = ["[eventfd]", "[eventpoll]", "inotify", "[fanotify]", "[signalfd]", "[timerfd]", PIDFD];

/// Those that it dumps if it was built with libbpf.
const BPF_MAP: &str = "bpf-map";

/// Process descriptors, before and since they have a file system of their own (6.9).
const PIDFD: &str = "[pidfd]";

/// Protocols of IP sockets that CRIU dumps, beside raw sockets of any; 0 is the type's default.
const PROTOCOLS: [i32; 6] =
    [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE, libc::IPPROTO_ICMP, libc::IPPROTO_ICMPV6];

/// States of a TCP socket without a connection (net/tcp_states.h): closed, listening.
const UNCONNECTED: [u8; 2] = [7, 10];

/// The major number of miscellaneous devices (linux/major.h), and those of them that CRIU dumps: autofs and tun.
const MISC_MAJOR: u32 = 10;
const DUMPED_MISC: [u32; 2] = [235, 200];

/// Major numbers of terminals: virtual and serial ones, /dev/tty and /dev/ptmx, both ends of pseudo-terminals.
const TERMINALS: [std::ops::RangeInclusive<u32>; 2] = [4..=5, 128..=143];

/// CRIU's options that are in effect at a dump, by the names that its configuration files have for them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Given(BTreeSet<String>);

impl Given {
    /// Collects what was asked for, and what the texts of CRIU's configuration files add.
    pub fn new(asked: &DumpOptions, settings: &[String]) -> Self {
        let flags = [
            ("tcp-established", asked.options.tcp_established),
            ("tcp-close", asked.options.tcp_close),
            ("ext-unix-sk", asked.options.ext_unix_sk),
            ("shell-job", asked.options.shell_job),
            ("file-locks", asked.options.file_locks),
            ("link-remap", asked.link_remap),
        ];
        let asked = flags.into_iter().filter(|(_, set)| *set).map(|(name, _)| name);
        let lines = settings.iter().flat_map(|text| text.lines());
        let set = lines.filter_map(|line| line.split_whitespace().next()).filter(|word| !word.starts_with('#'));
        Self(asked.chain(set).map(str::to_owned).collect())
    }

    /// Says whether an option is given.
    pub fn has(&self, option: &str) -> bool {
        self.0.contains(option)
    }
}

/// Something that makes CRIU refuse a process.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Obstacle {
    /// Somebody traces the process, and there can be only one tracer.
    Tracer {
        /// Who.
        pid: i32,
        /// The name of that process.
        name: String,
    },
    /// The leader of its session is not in its pid namespace.
    Session,
    /// A namespace of this type is not the one that init is in.
    Namespace(String),
    /// A descriptor.
    Descriptor(i32, Object),
    /// A mapping.
    Mapping(Object),
}

/// An object that a descriptor or a mapping stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Object {
    /// An anonymous inode, by the name that /proc has for its kind.
    Anonymous(String),
    /// memfd_secret(2).
    SecretMemory,
    /// A process that is not dumped, by a pidfd.
    Process(i32),
    /// A thread, by a pidfd.
    Thread,
    /// A namespace that no dumped process is in, by its link in /proc.
    OtherNamespace(String),
    /// A device, by its path.
    Device(String),
    /// A terminal that is on none of the container's mounts, by its path.
    OtherTerminal(String),
    /// A file that lost the name it was opened by and has another one.
    Renamed(String),
    /// A file with a lock.
    Locked(String),
    /// A socket of an address family that CRIU does not know.
    Family(i32),
    /// A socket of an IP protocol that CRIU does not know.
    Protocol(i32),
    /// A socket of a network namespace that is not the container's.
    OtherNetwork,
    /// A TCP socket with a connection.
    Connection,
    /// A Unix socket whose peer no dumped process has.
    Peer {
        /// The path or name of the peer.
        name: Option<String>,
        /// The process that has it, if it is one of the container's.
        owner: Option<(i32, String)>,
        /// Whether `--ext-unix-sk` would change it.
        allowed: bool,
    },
    /// A segment of SysV shared memory of the host, by its identifier.
    SharedMemory(u64),
    /// A probe that somebody has set in the program.
    Probe,
}

/// What is known of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Socket {
    /// Its address family.
    pub family: i32,
    /// Its type.
    pub kind: i32,
    /// Its protocol.
    pub protocol: i32,
    /// Its state, if it is a TCP socket.
    pub tcp_state: Option<u8>,
}

impl Socket {
    /// Returns why it is not dumped; whom it is connected to is not looked at.
    pub fn obstacle(&self, given: &Given) -> Option<Object> {
        match self.family {
            libc::AF_INET | libc::AF_INET6 if self.kind == libc::SOCK_RAW => None,
            libc::AF_INET | libc::AF_INET6 if !PROTOCOLS.contains(&self.protocol) => {
                Some(Object::Protocol(self.protocol))
            }
            libc::AF_INET | libc::AF_INET6 => {
                let connected = self.tcp_state.is_some_and(|state| !UNCONNECTED.contains(&state));
                let allowed = given.has("tcp-established") || given.has("tcp-close");
                (connected && !allowed).then_some(Object::Connection)
            }
            libc::AF_UNIX | libc::AF_NETLINK | libc::AF_PACKET => None,
            family => Some(Object::Family(family)),
        }
    }
}

/// Returns why an anonymous inode is not dumped; `bpf_maps` says that CRIU can dump maps, or may be able to.
pub fn anonymous(kind: &str, bpf_maps: bool) -> Option<Object> {
    let dumped = DUMPED.contains(&kind) || kind == BPF_MAP && bpf_maps;
    (!dumped).then(|| Object::Anonymous(kind.to_owned()))
}

/// Says whether an anonymous inode is a process descriptor.
pub fn is_pidfd(kind: &str) -> bool {
    kind == PIDFD
}

/// Says whether an anonymous inode is a BPF map.
pub fn is_bpf_map(kind: &str) -> bool {
    kind == BPF_MAP
}

/// Says whether a character device is one that CRIU certainly does not dump: others may be dumped by its plugins.
pub fn is_refused_device((major, minor): (u32, u32)) -> bool {
    major == MISC_MAJOR && !DUMPED_MISC.contains(&minor)
}

/// Says whether a character device is a terminal.
pub fn is_terminal((major, _): (u32, u32)) -> bool {
    TERMINALS.iter().any(|majors| majors.contains(&major))
}

impl Obstacle {
    /// Says whether it stops a pre-dump too, which looks at memory alone, and not at what it shares.
    pub fn stops_pre_dump(&self) -> bool {
        match self {
            Self::Tracer { .. } => true,
            Self::Mapping(object) => matches!(object, Object::Anonymous(_) | Object::SecretMemory | Object::Probe),
            Self::Session | Self::Namespace(_) | Self::Descriptor(..) => false,
        }
    }

    /// Returns how the dump could be had nevertheless.
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::Descriptor(_, object) | Self::Mapping(object) => object.remedy(),
            Self::Tracer { .. } | Self::Session | Self::Namespace(_) => None,
        }
    }
}

impl Object {
    fn remedy(&self) -> Option<&'static str> {
        match self {
            Self::OtherTerminal(_) => Some("--shell-job allows it"),
            Self::Renamed(_) => Some("--link-remap takes it along"),
            Self::Locked(_) => Some("--file-locks takes it along"),
            Self::Connection => Some("--tcp-established takes it along, --tcp-close closes it"),
            Self::Peer { allowed: true, .. } => Some("--ext-unix-sk allows it"),
            Self::Protocol(MPTCP) => Some("GODEBUG=multipathtcp=0 makes Go programs use TCP"),
            Self::Probe => Some("allow-uprobes in CRIU's configuration file allows it"),
            _ => None,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tracer { pid, name } => write!(f, "it is traced by process {pid} ({name})")?,
            Self::Session => f.write_str("it is in a session from outside of its pid namespace")?,
            Self::Namespace(kind) => write!(f, "it is in another {kind} namespace than the container's init")?,
            Self::Descriptor(number, object) => write!(f, "descriptor {number} is {object}")?,
            Self::Mapping(object) => write!(f, "it has mapped {object}")?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous(kind) => match anonymous_name(kind) {
                Some(name) => f.write_str(name),
                None => write!(f, "a kernel object of type {kind}"),
            },
            Self::SecretMemory => f.write_str("secret memory (memfd_secret)"),
            Self::Process(pid) => write!(f, "a pidfd of process {pid}, which is not dumped with it"),
            Self::Thread => f.write_str("a pidfd of a thread"),
            Self::OtherNamespace(link) => write!(f, "a namespace that no process of the container is in, {link}"),
            Self::Device(path) => write!(f, "the device {path}"),
            Self::OtherTerminal(path) => write!(f, "the terminal {path} from outside of the container"),
            Self::Renamed(path) => write!(f, "the file {path}, which has lost this name and kept another"),
            Self::Locked(path) => write!(f, "the file {path}, which it has a lock on"),
            Self::Family(family) => match family_name(*family) {
                Some(name) => write!(f, "{name} socket"),
                None => write!(f, "a socket of address family {family}"),
            },
            Self::Protocol(protocol) => match protocol_name(*protocol) {
                Some(name) => write!(f, "an {name} socket"),
                None => write!(f, "a socket of IP protocol {protocol}"),
            },
            Self::OtherNetwork => f.write_str("a socket of another network namespace than the container's"),
            Self::Connection => f.write_str("a connected TCP socket"),
            Self::Peer { name, owner, .. } => {
                f.write_str("a Unix socket whose peer")?;
                if let Some(name) = name {
                    write!(f, " {name}")?;
                }
                match owner {
                    Some((pid, process)) => write!(f, ", in process {pid} ({process}), is not dumped with it"),
                    None => f.write_str(" is outside of the container"),
                }
            }
            Self::SharedMemory(id) => write!(f, "SysV shared memory segment {id} of the host's IPC namespace"),
            Self::Probe => f.write_str("the page of a uprobe"),
        }
    }
}

fn anonymous_name(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "[io_uring]" => "an io_uring instance",
        "[userfaultfd]" => "a userfaultfd",
        "[perf_event]" => "a perf event",
        BPF_MAP => "a BPF map",
        "bpf-prog" => "a BPF program",
        "bpf_link" => "a BPF link",
        "[landlock-ruleset]" => "a Landlock ruleset",
        "[fscontext]" => "a file system that is being set up",
        "seccomp notify" => "a seccomp listener",
        "kvm-vm" => "a virtual machine (KVM)",
        _ => return None,
    })
}

/// IPPROTO_MPTCP (5.6).
const MPTCP: i32 = libc::IPPROTO_MPTCP;

fn protocol_name(protocol: i32) -> Option<&'static str> {
    match protocol {
        MPTCP => Some("MPTCP"),
        libc::IPPROTO_SCTP => Some("SCTP"),
        _ => None,
    }
}

fn family_name(family: i32) -> Option<&'static str> {
    Some(match family {
        libc::AF_VSOCK => "a vsock",
        libc::AF_ALG => "a kernel crypto (AF_ALG)",
        libc::AF_BLUETOOTH => "a Bluetooth",
        libc::AF_CAN => "a CAN",
        libc::AF_KEY => "an IPsec key (AF_KEY)",
        libc::AF_RDS => "an RDS",
        libc::AF_TIPC => "a TIPC",
        libc::AF_XDP => "an XDP",
        SMC => "an SMC",
        _ => return None,
    })
}

/// AF_SMC (4.11), which libc lacks for this platform.
const SMC: i32 = 43;

#[cfg(test)]
mod tests {
    use super::*;

    fn given(change: impl FnOnce(&mut DumpOptions)) -> Given {
        let mut asked = DumpOptions::default();
        change(&mut asked);
        Given::new(&asked, &[])
    }

    #[test]
    fn options_are_those_asked_for_and_those_of_files() {
        assert_eq!(given(|_| ()), Given::default());
        let asked = given(|asked| {
            asked.options.file_locks = true;
            asked.link_remap = true;
        });
        assert!(asked.has("file-locks") && asked.has("link-remap") && !asked.has("tcp-close"));
        let text = "# tcp-close\n  tcp-established # so\n\nexternal unix[7]\nlog-file tcp-close\n";
        let read = Given::new(&DumpOptions::default(), &[text.to_owned(), "shell-job".to_owned()]);
        assert!(["tcp-established", "external", "log-file", "shell-job"].iter().all(|option| read.has(option)));
        assert!(!read.has("tcp-close"));
    }

    #[test]
    fn sockets_are_refused_by_family_protocol_and_connection() {
        let plain = given(|_| ());
        let socket = |family, kind, protocol, tcp_state| Socket { family, kind, protocol, tcp_state };
        let cases = [
            (socket(libc::AF_UNIX, libc::SOCK_STREAM, 0, None), None),
            (socket(libc::AF_NETLINK, libc::SOCK_RAW, 15, None), None),
            (socket(libc::AF_PACKET, libc::SOCK_RAW, 3, None), None),
            (socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0, None), Some(Object::Family(libc::AF_VSOCK))),
            (socket(libc::AF_INET, libc::SOCK_RAW, 89, None), None),
            (socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP, None), None),
            (socket(libc::AF_INET6, libc::SOCK_STREAM, MPTCP, None), Some(Object::Protocol(MPTCP))),
            (socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, Some(7)), None),
            (socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, Some(10)), None),
            (socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, Some(1)), Some(Object::Connection)),
            (socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, Some(8)), Some(Object::Connection)),
        ];
        for (socket, expected) in cases {
            assert_eq!(socket.obstacle(&plain), expected, "{socket:?}");
        }
        let connected = socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP, Some(1));
        assert_eq!(connected.obstacle(&given(|asked| asked.options.tcp_established = true)), None);
        assert_eq!(connected.obstacle(&given(|asked| asked.options.tcp_close = true)), None);
        assert_eq!(connected.obstacle(&given(|asked| asked.tcp_skip_in_flight = true)), Some(Object::Connection));
    }

    #[test]
    fn anonymous_inodes_are_refused_unless_they_are_known() {
        for kind in DUMPED {
            assert_eq!(anonymous(kind, false), None);
        }
        let refused = |kind: &str| Some(Object::Anonymous(kind.to_owned()));
        assert_eq!(anonymous("[io_uring]", true), refused("[io_uring]"));
        assert_eq!((anonymous(BPF_MAP, true), anonymous(BPF_MAP, false)), (None, refused(BPF_MAP)));
    }

    #[test]
    fn devices_are_told_by_their_numbers() {
        let fuse = (10, 229);
        assert!(is_refused_device(fuse) && !is_refused_device((10, 200)) && !is_refused_device((1, 3)));
        assert!(is_terminal((136, 0)) && is_terminal((5, 2)) && !is_terminal((1, 5)));
    }

    #[test]
    fn words_name_the_object_and_what_would_help() {
        let descriptor = |object| Obstacle::Descriptor(3, object);
        let peer = |owner, allowed| descriptor(Object::Peer { name: Some("/s".to_owned()), owner, allowed });
        let psql = Some((9, "psql".to_owned()));
        let cases = [
            (descriptor(Object::Anonymous("[io_uring]".to_owned())), "descriptor 3 is an io_uring instance"),
            (descriptor(Object::Anonymous("[new]".to_owned())), "descriptor 3 is a kernel object of type [new]"),
            (descriptor(Object::Family(libc::AF_XDP)), "descriptor 3 is an XDP socket"),
            (descriptor(Object::Family(99)), "descriptor 3 is a socket of address family 99"),
            (descriptor(Object::Protocol(132)), "descriptor 3 is an SCTP socket"),
            (Obstacle::Mapping(Object::SecretMemory), "it has mapped secret memory (memfd_secret)"),
            (
                descriptor(Object::Locked("/x".to_owned())),
                "descriptor 3 is the file /x, which it has a lock on (--file-locks takes it along)",
            ),
            (peer(None, false), "descriptor 3 is a Unix socket whose peer /s is outside of the container"),
            (
                peer(None, true),
                "descriptor 3 is a Unix socket whose peer /s is outside of the container (--ext-unix-sk allows it)",
            ),
            (
                peer(psql, false),
                "descriptor 3 is a Unix socket whose peer /s, in process 9 (psql), is not dumped with it",
            ),
        ];
        for (obstacle, expected) in cases {
            assert_eq!(obstacle.to_string(), expected);
        }
    }

    #[test]
    fn memory_alone_stops_a_pre_dump() {
        assert!(Obstacle::Mapping(Object::SecretMemory).stops_pre_dump());
        assert!(Obstacle::Tracer { pid: 1, name: String::new() }.stops_pre_dump());
        assert!(!Obstacle::Mapping(Object::SharedMemory(1)).stops_pre_dump());
        assert!(!Obstacle::Descriptor(3, Object::SecretMemory).stops_pre_dump());
    }
}
