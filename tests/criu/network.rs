//! Connections, which come back whole or closed, the locks that keep their peers waiting, and network namespaces.

use crate::namespaces::Owner;
use crate::support::{Bundle, wait_until};
use crate::{COUNTER, Checkpointed, namespace, ours_only, requires};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Runs a program of the host, and returns what it prints.
#[track_caller]
fn host(line: &[&str]) -> String {
    let output = Command::new(line[0]).args(&line[1..]).output().unwrap();
    assert!(output.status.success(), "{line:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program of the host in the network namespace of a process.
#[track_caller]
fn in_network(pid: i32, line: &[&str]) -> String {
    host(&[&["nsenter", "--net", "--target", &pid.to_string()], line].concat())
}

/// Returns the packet filter's rules in the network namespace of a process.
#[track_caller]
fn rules(pid: i32) -> String {
    let own = in_network(pid, &["nft", "list", "ruleset"]);
    let all = own + &in_network(pid, &["iptables-legacy", "-S"]);
    // Chains without rules are what iptables leaves wherever it runs.
    all.lines()
        .filter(|line| line.to_lowercase().contains("drop") || line.contains("CRIU"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A container in the host's network, and the other end of its connection.
struct Connected {
    c: Checkpointed,
    peer: TcpStream,
}

impl Connected {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("mkfifo /dev/shm/send; nc 127.0.0.1 {port} <>/dev/shm/send >/dev/shm/received");
        let c = Checkpointed::run(Bundle::sh(&script).without_namespace("network"));
        let peer = listener.accept().unwrap().0;
        peer.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { c, peer }
    }

    /// Expects this to be all that the container has received.
    #[track_caller]
    fn has_received(&self, text: &str) {
        let received = || self.c.runtime.exec(&["cat", "/dev/shm/received"]).ok().stdout;
        wait_until("it is received", || received().len() >= text.len());
        assert_eq!(received(), text);
    }

    /// Sends a line from inside.
    #[track_caller]
    fn sends(&mut self, line: &str) {
        self.c.runtime.exec_sh(&format!("echo {line} >/dev/shm/send")).ok();
        let mut found = vec![0; line.len() + 1];
        self.peer.read_exact(&mut found).unwrap();
        assert_eq!(found, format!("{line}\n").as_bytes());
    }

    /// Returns the packet filter's rules about this connection.
    fn rules(&self) -> Vec<String> {
        let port = self.peer.local_addr().unwrap().port().to_string();
        let pid = std::process::id() as i32;
        let all = in_network(pid, &["nft", "list", "ruleset"]) + &in_network(pid, &["iptables-legacy", "-S"]);
        all.lines().filter(|line| line.contains(&port)).map(str::to_owned).collect()
    }
}

#[test]
fn what_is_in_flight_from_outside_arrives() {
    requires!(root, criu, nft);
    ours_only!("--network-lock is not an option of other runtimes");
    for method in ["iptables", "nftables", "skip"] {
        let mut it = Connected::new();
        it.sends("before");
        it.c.runtime.pause().ok();
        it.peer.write_all(b"in flight\n").unwrap();
        it.c.checkpoint(&["--tcp-established", "--network-lock", method]).ok();
        let mut expected = "in flight\n".to_owned();
        assert_eq!(it.rules().is_empty(), method == "skip", "{method}");
        // Without a lock the kernel answers that there is no such connection.
        if method != "skip" {
            it.peer.write_all(b"while away\n").unwrap();
            expected += "while away\n";
        }
        it.c.restore(&["--tcp-established"]).ok();
        it.has_received(&expected);
        it.sends("after");
        assert_eq!(it.rules(), [] as [&str; 0], "{method}");
    }
}

/// A script that talks to itself, and says so when a connection has ended.
const TALKS: &str = "nc -ll -p 6000 -e echo alive & \
    mkfifo /dev/shm/fifo; { nc -l -p 5000 <> /dev/shm/fifo > /dev/shm/received; echo > /dev/shm/server-ended; } & sleep 0.2; \
    while true; do echo line; sleep 0.05; done | nc 127.0.0.1 5000; echo > /dev/shm/client-ended; sleep 1000";

/// Waits until a script that talks to itself receives more than it has.
#[track_caller]
fn talks(c: &Checkpointed) {
    let received = || c.runtime.exec_sh("wc -l < /dev/shm/received").text().parse::<u32>().unwrap_or(0);
    let before = received();
    wait_until("more lines come through", || received() > before + 3);
}

/// Expects a server of the container to answer.
#[track_caller]
fn answers(c: &Checkpointed) {
    c.runtime.exec_sh("nc 127.0.0.1 6000 </dev/null").ok().prints("alive");
}

#[test]
fn no_rules_stay_in_a_network_namespace_that_outlives_the_container() {
    requires!(root, criu, nft);
    ours_only!("--network-lock is not an option of other runtimes");
    for method in ["iptables", "nftables", "skip"] {
        let owner = Owner::new(&["--net", "--uts"]);
        in_network(owner.pid(), &["ip", "link", "set", "lo", "up"]);
        let before = rules(owner.pid());
        let c = Checkpointed::run(Bundle::sh(TALKS).namespace("network", Some(&owner.path("net"))));
        talks(&c);
        let options = ["--tcp-established", "--network-lock", method];
        c.checkpoint(&[&options[..], &["--leave-running"]].concat()).ok();
        talks(&c);
        assert_eq!(rules(owner.pid()), before, "{method}");
        c.checkpoint(&options).ok();
        c.restore(&["--tcp-established"]).ok();
        talks(&c);
        answers(&c);
        assert_eq!(rules(owner.pid()), before, "{method}");
    }
}

#[test]
fn clones_from_one_image_start_with_closed_connections() {
    requires!(root, criu);
    ours_only!("other runtimes leave the loopback interface down");
    let c = Checkpointed::run(Bundle::sh(TALKS));
    talks(&c);
    let images = c.images();
    c.checkpoint(&["--tcp-established", "--leave-running"]).ok();
    let clones = [0, 1].map(|_| Checkpointed::of(Bundle::sh("this is not executed")));
    for clone in &clones {
        clone.restore(&["--tcp-close", "--image-path", images.to_str().unwrap()]).ok();
    }
    for clone in &clones {
        for side in ["server", "client"] {
            let told = || clone.runtime.exec(&["ls", &format!("/dev/shm/{side}-ended")]).code == 0;
            wait_until("both sides notice", told);
        }
        answers(clone);
        assert_ne!(namespace(clone.runtime.pid(), "net"), namespace(c.runtime.pid(), "net"));
    }
    // The original's goes on.
    talks(&c);
    answers(&c);
}

#[test]
fn an_empty_network_namespace_takes_an_interface() {
    requires!(root, criu);
    let c = Checkpointed::run(Bundle::sh(COUNTER));
    let give = |name: &str| {
        host(&["ip", "link", "add", name, "type", "ifb"]);
        host(&["ip", "link", "set", name, "netns", &c.runtime.pid().to_string(), "name", "eth0"]);
        in_network(c.runtime.pid(), &["ip", "address", "add", "192.0.2.7/24", "dev", "eth0"]);
    };
    let interfaces = || c.runtime.exec(&["ls", "/sys/class/net"]).ok().lines().join(" ");
    let name = format!("t{}", std::process::id());
    give(&name);
    assert_eq!(interfaces(), "eth0 lo");
    c.checkpoint(&["--empty-ns", "network"]).ok();
    c.restore(&["--empty-ns", "network"]).ok();
    assert_eq!(interfaces(), "lo");
    give(&name);
    assert_eq!(interfaces(), "eth0 lo");
    assert!(in_network(c.runtime.pid(), &["ip", "address"]).contains("192.0.2.7/24"));
    c.counts();
}

#[test]
fn connections_survive_when_asked_for() {
    requires!(root, criu);
    ours_only!("other runtimes leave the loopback interface down");
    let script = "sleep 1000 | nc -l -p 5000 > /dev/shm/received & sleep 0.2; \
        while true; do echo line; sleep 0.05; done | nc 127.0.0.1 5000";
    let c = Checkpointed::run(Bundle::sh(script));
    let received = || c.runtime.exec_sh("wc -l < /dev/shm/received").text().parse::<u32>().unwrap_or(0);
    wait_until("lines come through", || received() > 3);
    let words = ["--tcp-established takes it along", "criu failed: type NOTIFY errno 0"];
    c.checkpoint(&[]).exits(1).stderr_contains_any(&words);
    assert!(received() > 3);
    c.checkpoint(&["--tcp-established"]).ok();
    c.restore(&["--tcp-established"]).ok();
    let before = received();
    wait_until("more lines come through", || received() > before + 3);
    c.runtime.exec(&["cat", "/sys/class/net/lo/flags"]).ok().prints("0x9");
}

#[test]
fn unknown_ways_to_lock_the_network_are_refused() {
    requires!(root, criu);
    ours_only!("--network-lock is not an option of other runtimes");
    let c = Checkpointed::counter();
    for word in ["x", "IPTABLES"] {
        let output = c.checkpoint(&["--network-lock", word]).exits(1).stderr_contains("invalid network-lock value");
        assert_eq!(output.stderr.lines().count(), 1, "{output}");
        assert!(!c.images().exists());
    }
    c.checkpoint(&[]).ok();
    c.restore(&["--network-lock", "x"]).exits(1).stderr_contains("invalid network-lock value");
    c.restore(&[]).ok();
    c.counts();
}

#[test]
fn a_connection_that_nobody_has_accepted_is_left_out_if_asked_to() {
    requires!(root, criu);
    ours_only!("runc 1.1 has no --tcp-skip-in-flight");
    let c = Checkpointed::run(Bundle::sh("nc -ll -p 6000 -e echo alive"));
    let connected = |state| in_network(c.runtime.pid(), &["ss", "-Htn", "state", state, "sport", "=", ":6000"]);
    wait_until("somebody listens", || connected("listening").contains(":6000"));
    // Nobody can accept it.
    c.runtime.pause().ok();
    let net = format!("--net=/proc/{}/ns/net", c.runtime.pid());
    let mut visitor = Command::new("nsenter");
    let visitor = visitor.args([&net, "busybox", "nc", "127.0.0.1", "6000"]).stdin(Stdio::piped());
    let mut visitor = visitor.spawn().unwrap();
    wait_until("there is a connection", || connected("established").contains(":6000"));
    c.checkpoint(&["--tcp-established"]).exits(1).stderr_contains("In-flight connection");
    assert_eq!(c.runtime.status(), "paused");
    c.checkpoint(&["--tcp-established", "--tcp-skip-in-flight"]).ok();
    visitor.kill().unwrap();
    visitor.wait().unwrap();
    c.restore(&["--tcp-established"]).ok();
    answers(&c);
}
