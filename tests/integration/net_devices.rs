//! Network devices of the host that a container takes over.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// A pair of connected devices of the host, which go away together.
struct Pair {
    one: String,
    other: String,
}

impl Pair {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = format!("{}n{}", std::process::id() % 100_000, COUNT.fetch_add(1, Ordering::Relaxed));
        let pair = Self { one: format!("sta{number}"), other: format!("stb{number}") };
        ip(&["link", "add", &pair.one, "type", "veth", "peer", "name", &pair.other]);
        pair
    }

    fn is_there(&self) -> bool {
        Path::new("/sys/class/net").join(&self.one).exists()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It may be in a network namespace that is gone.
        let _gone = Command::new("ip").args(["link", "del", &self.other]).output();
    }
}

#[track_caller]
fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().unwrap();
    assert!(output.status.success(), "ip {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn with_device(bundle: Bundle, name: &str, new: Option<&str>) -> Bundle {
    bundle
        .with(|config| config["linux"]["netDevices"] = json!({name: new.map_or(json!({}), |new| json!({"name": new}))}))
}

/// What tells of a device: its link without its number and peer, and its addresses.
fn show(name: &str) -> [String; 3] {
    ["sh".to_owned(), "-c".to_owned(), format!("ip link show {name} && ip addr show {name}")]
}

#[test]
fn a_device_keeps_its_addresses_and_its_size() {
    requires!(root, ip);
    ours_only!("runc 1.1 knows no netDevices");
    let pair = Pair::new();
    ip(&["link", "set", &pair.one, "mtu", "1400", "up"]);
    ip(&["link", "set", &pair.other, "up"]);
    ip(&["addr", "add", "169.254.169.13/24", "broadcast", "169.254.169.255", "dev", &pair.one, "scope", "global"]);
    ip(&["-6", "addr", "add", "fd00:7::5/64", "dev", &pair.one, "nodad"]);
    let address = std::fs::read_to_string(format!("/sys/class/net/{}/address", pair.one)).unwrap();
    let c = with_device(Bundle::sleep(), &pair.one, None).start();
    assert!(!pair.is_there());
    let shown = c.exec(&show(&pair.one).each_ref().map(String::as_str)).ok();
    for part in ["mtu 1400", ",UP", "inet 169.254.169.13/24 brd 169.254.169.255", "inet6 fd00:7::5/64", address.trim()]
    {
        assert!(shown.stdout.contains(part), "no {part:?} in {shown}");
    }
}

#[test]
fn a_device_gets_another_name() {
    requires!(root, ip);
    ours_only!("runc 1.1 knows no netDevices");
    let pair = Pair::new();
    let bundle = Bundle::new(&show("eth7").each_ref().map(String::as_str));
    with_device(bundle, &pair.one, Some("eth7")).run().ok().stdout_contains("eth7");
    // A hook of the runtime finds it in place.
    let pair = Pair::new();
    let bundle = with_device(Bundle::sleep(), &pair.one, Some("eth7"));
    let seen = bundle.path().join("seen");
    let script =
        format!("pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); grep -c eth7: /proc/$pid/net/dev >{}", seen.display());
    let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]});
    let _c = bundle.with(|config| config["hooks"] = json!({"createRuntime": [hook]})).create();
    assert_eq!(std::fs::read_to_string(seen).unwrap().trim(), "1");
}

#[test]
fn a_user_namespace_takes_a_device_too() {
    requires!(root, ip);
    ours_only!("runc 1.1 knows no netDevices");
    let pair = Pair::new();
    ip(&["addr", "add", "169.254.170.13/24", "dev", &pair.one]);
    let c = with_device(Bundle::sleep().user_namespace(100_000), &pair.one, None).start();
    c.exec(&show(&pair.one).each_ref().map(String::as_str)).ok().stdout_contains("169.254.170.13/24");
}

#[test]
fn devices_that_cannot_be_moved_are_named() {
    requires!(root, ip);
    ours_only!("runc 1.1 knows no netDevices");
    let refused = |bundle: Bundle, words: &str| {
        let c = Runtime::new(bundle);
        c.create().exits(1).stderr_contains(words);
        c.leaves_nothing();
    };
    refused(
        with_device(Bundle::sleep(), "nowhere0", None),
        "move network device nowhere0 to the container: no such device",
    );
    refused(with_device(Bundle::sleep(), "a/b", None), "invalid network device name \"a/b\"");
    refused(
        with_device(Bundle::sleep(), "eth0", Some("sixteen-letters-")),
        "invalid network device name \"sixteen-letters-\"",
    );
    let pair = Pair::new();
    let host = with_device(Bundle::sleep().without_namespace("network"), &pair.one, None);
    refused(host, "unable to move network devices without a NET namespace");
    // The loopback interface has the name already.
    refused(
        with_device(Bundle::sleep(), &pair.one, Some("lo")),
        &format!("move network device {} to the container", pair.one),
    );
    assert!(pair.is_there());
}

#[test]
fn a_device_that_may_not_leave_stays_as_it_was() {
    requires!(root, ip);
    ours_only!("runc 1.1 knows no netDevices");
    // A bridge belongs to its network namespace.
    let bridge = format!("stc{}", std::process::id());
    ip(&["link", "add", &bridge, "type", "bridge"]);
    ip(&["link", "set", &bridge, "up"]);
    ip(&["-6", "addr", "add", "fd00:7::6/64", "dev", &bridge, "nodad"]);
    let shown = || Command::new("ip").args(["addr", "show", "up", "dev", &bridge]).output().unwrap().stdout;
    let before = String::from_utf8(shown()).unwrap();
    let c = Runtime::new(with_device(Bundle::sleep(), &bridge, None));
    let refused = c.create();
    let after = String::from_utf8(shown()).unwrap();
    ip(&["link", "del", &bridge]);
    refused.exits(1).stderr_contains(&format!("move network device {bridge} to the container: invalid argument"));
    assert!(before.contains("fd00:7::6/64"), "{before}");
    for part in ["fd00:7::6/64", "fe80::"] {
        assert_eq!(after.contains(part), before.contains(part), "{before}{after}");
    }
    c.leaves_nothing();
}
