//! What CRIU cannot dump: it is named before anything is frozen, and the container goes on. What it can dump is not
//! refused. On an oracle the same tests show that CRIU does refuse it.

use crate::holder::{self, held, holding};
use crate::support::{Bundle, Output, is_oracle, wait_until};
use crate::{Checkpointed, namespace, ours_only, requires};
use nix::libc;
use serde_json::json;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Stdio};

/// What engines look for in the words of a runtime.
const MATCHED: [&str; 6] =
    ["permission denied", "no such file", "does not exist", "not running", "no such process", "executable file"];

impl Checkpointed {
    /// Expects a checkpoint to be refused with these words, by our runtime in one line and without a trace.
    #[track_caller]
    fn refuses(&self, options: &[&str], words: &str) -> Output {
        let output = self.checkpoint(options).exits(1);
        if is_oracle() {
            return output;
        }
        let output = output.stderr_contains("criu cannot dump process ").stderr_contains(words);
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(!MATCHED.iter().any(|phrase| output.stderr.to_lowercase().contains(phrase)), "{output}");
        assert!(!self.images().exists(), "{output}");
        assert_eq!(self.runtime.status(), "running");
        self.counts();
        output
    }

    /// Expects a checkpoint to be made, and the container to go on.
    #[track_caller]
    fn dumps(&self, options: &[&str]) {
        self.checkpoint(&[&["--leave-running"], options].concat()).ok();
        self.counts();
    }
}

/// Runs a container in the host's namespace of a kind, which holds the objects.
#[track_caller]
fn without_namespace(kind: &str, objects: &str) -> Checkpointed {
    held(Checkpointed::run(holder::bundle(objects).without_namespace(kind)))
}

#[test]
fn kernel_objects_are_named() {
    requires!(root, criu);
    let cases = [
        ("io_uring", " is an io_uring instance"),
        ("userfaultfd", " is a userfaultfd"),
        ("memfd_secret", " is secret memory (memfd_secret)"),
        ("perf_event", " is a perf event"),
        ("bpf_program", " is a BPF program"),
        ("landlock", " is a Landlock ruleset"),
        ("fscontext", " is a file system that is being set up"),
        ("namespace_file", " is a namespace that no process of the container is in, uts:["),
    ];
    for (object, words) in cases {
        let c = holding(object);
        let output = c.refuses(&[], words);
        let process = format!("criu cannot dump process {} (holder, 1 in the container): ", c.runtime.pid());
        assert!(is_oracle() || output.stderr.contains(&process), "{output}");
    }
}

#[test]
fn a_bpf_map_is_dumped_by_a_criu_that_can() {
    requires!(root, criu);
    let c = holding("bpf_map");
    let program = stasis::criu::Program::find().unwrap();
    match fs::read(program.path).unwrap().windows(6).any(|part| part == b"libbpf") {
        true => c.dumps(&[]),
        false => drop(c.refuses(&[], " is a BPF map")),
    }
}

#[test]
fn what_is_only_mapped_is_found() {
    requires!(root, criu);
    let cases = [
        ("io_uring_map", "it has mapped an io_uring instance"),
        ("memfd_secret_map", "it has mapped secret memory (memfd_secret)"),
        ("unlinked_map", "it has mapped the file /tmp/gone, which has lost this name and kept another"),
    ];
    for (object, words) in cases {
        holding(object).refuses(&[], words);
    }
}

#[test]
fn a_probe_is_named_unless_it_is_allowed() {
    requires!(root, criu, uprobes);
    let bundle = holder::bundle("eventfd");
    let settings = bundle.path().join("source");
    let annotations = json!({"org.criu.config": settings});
    let c = held(Checkpointed::run(bundle.with(|config| config["annotations"] = annotations)));
    let probe = holder::probe(c.runtime.pid());
    let maps = || fs::read_to_string(format!("/proc/{}/maps", c.runtime.pid())).unwrap();
    wait_until("the program is probed", || maps().contains("[uprobes]"));
    // The page stays for as long as the program runs.
    drop(probe);
    c.refuses(&[], "it has mapped the page of a uprobe (allow-uprobes in CRIU's configuration file allows it)");
    fs::write(settings, "allow-uprobes").unwrap();
    c.dumps(&[]);
}

#[test]
fn devices_of_their_own_kind_are_named() {
    requires!(root, criu);
    let (character, block) = (libc::S_IFCHR, libc::S_IFBLK);
    // FUSE, and the first loop device.
    holding(&format!("device {character} 10 229")).refuses(&[], " is the device /tmp/device-10-229");
    holding(&format!("device {block} 7 0")).refuses(&[], " is the device /tmp/device-7-0");
}

#[test]
fn a_pidfd_has_to_be_of_a_process_that_is_dumped() {
    requires!(root, criu);
    holding("pidfd_thread").refuses(&[], " is a pidfd of a thread");
    let c = without_namespace("pid", "pidfd_init");
    let output = c.refuses(&[], " is a pidfd of process 1, which is not dumped with it");
    let process = format!("criu cannot dump process {} (holder): ", c.runtime.pid());
    assert!(is_oracle() || output.stderr.contains(&process), "{output}");
}

#[test]
fn sockets_of_unknown_families_are_named() {
    requires!(root, criu, vsock, xdp);
    holding(&format!("socket {} {} 0", libc::AF_VSOCK, libc::SOCK_STREAM)).refuses(&[], " is a vsock socket");
    holding(&format!("socket {} {} 0", libc::AF_XDP, libc::SOCK_RAW)).refuses(&[], " is an XDP socket");
}

#[test]
fn multipath_tcp_is_named_with_a_way_around_it() {
    requires!(root, criu, mptcp);
    let socket = format!("socket {} {} {}", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP);
    let words = " is an MPTCP socket (GODEBUG=multipathtcp=0 makes Go programs use TCP)";
    holding(&socket).refuses(&[], words);
}

#[test]
fn connections_need_an_option() {
    requires!(root, criu);
    let c = holding("tcp");
    let option = "(--tcp-established takes it along, --tcp-close closes it)";
    // Both ends, and not the socket that listens.
    c.refuses(&[], &format!(" is a connected TCP socket {option}, and there is 1 more obstacle"));
    c.refuses(&["--tcp-skip-in-flight"], option);
    c.dumps(&["--tcp-established"]);
    if !is_oracle() {
        c.dumps(&["--tcp-close"]);
    }
}

#[test]
fn locks_need_an_option() {
    requires!(root, criu);
    let words = " is the file /tmp/locked, which it has a lock on (--file-locks takes it along)";
    for object in ["flock", "flock_passed_on", "posix_lock", "ofd_lock", "lease"] {
        let c = holding(object);
        c.refuses(&[], words);
        c.dumps(&["--file-locks"]);
    }
}

#[test]
fn an_option_of_crius_configuration_counts() {
    requires!(root, criu);
    let bundle = holder::bundle("flock");
    let settings = bundle.path().join("source");
    fs::write(&settings, "# what the container does\nfile-locks\n").unwrap();
    let annotations = json!({"org.criu.config": settings});
    let c = held(Checkpointed::run(bundle.with(|config| config["annotations"] = annotations)));
    c.dumps(&[]);
}

#[test]
fn files_that_keep_another_name_need_an_option() {
    requires!(root, criu);
    let c = holding("unlinked_link");
    let words = " is the file /tmp/gone, which has lost this name and kept another";
    c.refuses(&[], &format!("{words} (--link-remap takes it along)"));
    if !is_oracle() {
        c.dumps(&["--link-remap"]);
    }
}

#[test]
fn nested_namespaces_are_named() {
    requires!(root, criu);
    let cases = [
        (libc::CLONE_NEWIPC, "ipc"),
        (libc::CLONE_NEWUTS, "uts"),
        (libc::CLONE_NEWUSER, "user"),
        (libc::CLONE_NEWPID, "pid"),
        (libc::CLONE_NEWCGROUP, "cgroup"),
        (libc::CLONE_NEWNET, "net"),
        // CLONE_NEWTIME: its children's.
        (0x80, "time"),
    ];
    for (flag, kind) in cases {
        let c = holding(&format!("unshare {flag}"));
        let output = c.refuses(&[], &format!("it is in another {kind} namespace than the container's init"));
        assert!(is_oracle() || !output.stderr.contains("more obstacle"), "{output}");
    }
}

#[test]
fn a_tracer_is_named() {
    requires!(root, criu);
    ours_only!("CRIU takes ten seconds to notice, in which the container is frozen");
    holding("traced").refuses(&[], "it is traced by process ");
    // CRIU stops what exec started with the rest, though it does not dump it.
    let c = holding("eventfd");
    exec_holder(&c, "traced");
    c.refuses(&[], "it is traced by process ");
}

#[test]
fn a_session_from_outside_is_named() {
    requires!(root, criu, cgroup_v1);
    let c = holding("eventfd");
    let init = c.runtime.pid();
    let enter = ["-t", &init.to_string(), "-a", "sh", "-c", "sleep 1000 &"];
    let streams = || (Stdio::null(), Stdio::null(), Stdio::null());
    let (stdin, stdout, stderr) = streams();
    let mut command = Command::new("nsenter");
    assert!(command.args(enter).stdin(stdin).stdout(stdout).stderr(stderr).status().unwrap().success());
    // Its parent has ended: it is a child of the container's init, which CRIU dumps.
    let children = || fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap();
    wait_until("the process is the container's", || children().split_whitespace().count() == 1);
    for controller in ["devices", "freezer", "memory", "pids"] {
        fs::write(c.runtime.cgroup(controller).join("cgroup.procs"), children().trim()).unwrap();
    }
    c.refuses(&[], "(sleep, ");
    c.refuses(&[], "it is in a session from outside of its pid namespace");
}

#[test]
fn shared_memory_of_the_hosts_ipc_namespace_is_named() {
    requires!(root, criu);
    let c = without_namespace("ipc", "sysv");
    let id = c.runtime.exec(&["cat", "/tmp/shmid"]).ok().stdout;
    c.refuses(&[], &format!("it has mapped SysV shared memory segment {id} of the host's IPC namespace"));
}

#[test]
fn a_terminal_from_outside_needs_an_option() {
    requires!(root, criu, terminals);
    let pty = nix::pty::openpty(None, None).unwrap();
    let c = Checkpointed::of(holder::bundle("eventfd"));
    let c = with_input(c, pty.slave);
    c.refuses(&[], "descriptor 0 is the terminal /dev/pts/");
    c.refuses(&[], "from outside of the container (--shell-job allows it)");
    c.dumps(&["--shell-job"]);
}

/// Runs a container whose standard input is this.
#[track_caller]
fn with_input(c: Checkpointed, input: OwnedFd) -> Checkpointed {
    let mut command = c.runtime.command(&["run", "--detach", "--bundle", c.bundle(), c.runtime.id()]);
    let command = command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    held(c)
}

/// Sockets outside of a container, below a directory that it sees.
struct Outside {
    stream: UnixListener,
    _datagram: UnixDatagram,
}

impl Outside {
    fn of(bundle: Bundle) -> (Bundle, Self) {
        let place = bundle.path().join("outside");
        fs::create_dir(&place).unwrap();
        let stream = UnixListener::bind(place.join("stream")).unwrap();
        let datagram = UnixDatagram::bind(place.join("datagram")).unwrap();
        (bundle.mount("/outside", "bind", &place, &["rbind"]), Self { stream, _datagram: datagram })
    }
}

#[test]
fn a_unix_socket_needs_its_peer() {
    requires!(root, criu);
    // The one who accepts is in the network namespace of the one who connects.
    for own_network in [true, false] {
        let (bundle, outside) = Outside::of(holder::bundle("stream_outside"));
        let bundle = if own_network { bundle } else { bundle.without_namespace("network") };
        let c = Checkpointed::run(bundle);
        let _peer = outside.stream.accept().unwrap();
        let c = held(c);
        for options in [&[][..], &["--ext-unix-sk"]] {
            let output = c.refuses(options, " is a Unix socket whose peer /");
            output.stderr_contains_any(&["outside/stream is outside of the container", "criu failed"]);
        }
    }
}

#[test]
fn datagrams_to_outside_need_an_option_and_the_same_network() {
    requires!(root, criu);
    let (bundle, _outside) = Outside::of(holder::bundle("datagram_outside"));
    let c = held(Checkpointed::run(bundle.without_namespace("network")));
    c.refuses(&[], "outside/datagram is outside of the container (--ext-unix-sk allows it)");
    c.dumps(&["--ext-unix-sk"]);
    let (bundle, _outside) = Outside::of(holder::bundle("datagram_outside"));
    let c = held(Checkpointed::run(bundle));
    let words = " is a Unix socket whose peer is outside of the container";
    c.refuses(&[], words);
    c.refuses(&["--ext-unix-sk"], words);
}

/// Executes another program in the container, which holds other objects.
#[track_caller]
fn exec_holder(c: &Checkpointed, objects: &str) {
    let mut process = c.runtime.bundle().config()["process"].clone();
    for (key, value) in holder::program(objects).as_object().unwrap() {
        process[key] = value.clone();
    }
    let file = c.place.path().join("process.json");
    fs::write(&file, process.to_string()).unwrap();
    let mut command = c.runtime.command(&["exec", "--detach", "--process", file.to_str().unwrap(), c.runtime.id()]);
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let said = || c.runtime.exec_sh("cat /tmp/held-too").stdout;
    wait_until("it has its objects", || said().ends_with('\n'));
    assert_eq!(said(), "held\n");
}

#[test]
fn a_peer_that_exec_started_is_named() {
    requires!(root, criu);
    let c = holding("server");
    exec_holder(&c, "client");
    let output = c.refuses(&[], "is a Unix socket whose peer, in process ");
    output.stderr_contains_any(&["(holder), is not dumped with it", "criu failed"]);
}

#[test]
fn what_exec_started_is_not_looked_at() {
    requires!(root, criu);
    let c = holding("eventfd");
    exec_holder(&c, "io_uring,flock,unlinked_link");
    c.dumps(&[]);
}

#[test]
fn sockets_of_another_network_are_named() {
    requires!(root, criu);
    ours_only!("CRIU dumps some, and can restore none of them");
    let inputs: [OwnedFd; 3] = [
        UnixStream::pair().unwrap().0.into(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(),
    ];
    for input in inputs {
        let c = with_input(Checkpointed::of(holder::bundle("eventfd")), input);
        c.refuses(&[], "descriptor 0 is a socket of another network namespace than the container's");
    }
}

#[test]
fn all_obstacles_are_counted_and_the_first_is_named() {
    requires!(root, criu);
    let c = holding("eventfd,io_uring,userfaultfd,flock");
    c.refuses(&[], " is an io_uring instance, and there are 2 more obstacles");
}

#[test]
fn a_paused_container_stays_paused() {
    requires!(root, criu);
    let c = holding("io_uring");
    c.runtime.pause().ok();
    let output = c.checkpoint(&[]).exits(1);
    assert!(is_oracle() || output.stderr.contains("is an io_uring instance"), "{output}");
    assert_eq!(c.runtime.status(), "paused");
    c.runtime.resume().ok();
    c.counts();
}

#[test]
fn what_criu_restores_as_something_else_is_told() {
    requires!(root, criu);
    ours_only!("other runtimes do not look");
    let words = "is an eventfd that counts down by one at a time";
    let c = holding("semaphore");
    let told = c.checkpoint(&["--leave-running"]).ok();
    assert_eq!(told.stderr.matches(words).count(), 1, "{told}");
    let told = holding("eventfd").checkpoint(&["--leave-running"]).ok();
    assert!(!told.stderr.contains(words), "{told}");
}

#[test]
fn what_criu_can_dump_is_dumped() {
    requires!(root, criu);
    let raw = format!("socket {} {} 1", libc::AF_INET, libc::SOCK_RAW);
    let packet = format!("socket {} {} 0", libc::AF_PACKET, libc::SOCK_RAW);
    let netlink = format!("socket {} {} 0", libc::AF_NETLINK, libc::SOCK_RAW);
    let udp = format!("socket {} {} 0", libc::AF_INET6, libc::SOCK_DGRAM);
    let mounts = format!("unshare {}", libc::CLONE_NEWNS);
    let zero = format!("device {} 1 5", libc::S_IFCHR);
    let objects = [
        "eventfd,timerfd,signalfd,epoll,inotify,fanotify,memfd,aio,sysv,unlinked,called_deleted,own_namespace_file",
        "pidfd,pidfd_ended,pidfd_zombie,tcp_listener,stream_pair,half_closed,unaccepted,passed_on",
        &[raw, packet, netlink, udp].join(","),
        &[mounts, zero].join(","),
    ];
    for objects in objects {
        let c = holding(objects);
        c.round_trip();
        c.counts();
        assert_ne!(namespace(c.runtime.pid(), "ipc"), namespace(std::process::id() as i32, "ipc"));
    }
}
