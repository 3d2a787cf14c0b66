//! Seccomp profiles: what a filter does to the container's program, and who is told.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use nix::poll::{PollFd, PollFlags, poll};
use serde_json::{Value, json};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

/// A bundle that tries to make a directory, with a profile that says what is to come of it.
fn mkdir(rule: Value) -> Bundle {
    let script = "mkdir /tmp/x; code=$?; echo went on; exit $code";
    Bundle::sh(script).mount("/tmp", "tmpfs", "tmpfs", &[]).with(|config| {
        let mut rule = rule;
        rule["names"] = json!(["mkdir", "mkdirat"]);
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"], "syscalls": [rule]});
    })
}

/// The same bundle with the filter loaded before the privileges go, and after.
fn both(rule: Value) -> [Bundle; 2] {
    [true, false].map(|first| mkdir(rule.clone()).with(|config| config["process"]["noNewPrivileges"] = json!(first)))
}

#[test]
fn a_denied_call_fails_with_eperm() {
    requires!(root);
    for bundle in both(json!({"action": "SCMP_ACT_ERRNO"})) {
        bundle.run().exits(1).prints("went on").stderr_contains("Operation not permitted");
    }
}

#[test]
fn a_denied_call_fails_with_the_profiles_errno() {
    requires!(root);
    for bundle in both(json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 28})) {
        bundle.run().exits(1).prints("went on").stderr_contains("No space left on device");
    }
}

#[test]
fn a_call_that_kills_ends_the_program() {
    requires!(root);
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS"] {
        // mkdir is a process of the shell's; SIGSYS is 31.
        mkdir(json!({"action": action})).run().exits(128 + 31).prints("went on");
    }
}

#[test]
fn a_call_that_traps_gets_a_signal() {
    requires!(root);
    mkdir(json!({"action": "SCMP_ACT_TRAP"})).run().exits(128 + 31);
}

#[test]
fn an_allowed_or_logged_call_works() {
    requires!(root);
    for action in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"] {
        mkdir(json!({"action": action})).run().ok().prints("went on");
    }
}

#[test]
fn arguments_decide() {
    requires!(root);
    // The mode, which is the last argument of both calls.
    let script = "mkdir -m 700 /tmp/a && echo one; mkdir -m 711 /tmp/b || echo two";
    let c = Bundle::sh(script).mount("/tmp", "tmpfs", "tmpfs", &[]).with(|config| {
        let rule = |name: &str, index: u32| {
            json!({"names": [name], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": index, "value": 0o711, "op": "SCMP_CMP_EQ"}]})
        };
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule("mkdir", 1), rule("chmod", 1), rule("fchmodat", 2)]});
    });
    c.run().ok().prints("one\ntwo");
}

#[test]
fn the_status_shows_a_filter() {
    requires!(root);
    let c = Bundle::new(&["grep", "^Seccomp:", "/proc/self/status"]);
    c.with(|config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_LOG"}))
        .run()
        .ok()
        .prints("Seccomp:\t2");
}

#[test]
fn a_profile_that_denies_by_default_lets_the_program_start() {
    requires!(root);
    ours_only!("runc's init is a Go program, which needs more");
    let c = Bundle::new(&["true"]).with(|config| {
        // What a static program needs, and what init does after the filter: write, read, execve.
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"action": "SCMP_ACT_ALLOW",
            "names": ["execve", "exit_group", "exit", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq",
                "prlimit64", "readlinkat", "readlink", "getrandom", "mprotect", "uname", "read", "write", "close",
                "openat", "open", "futex", "fstat", "newfstatat", "getuid", "geteuid", "getgid", "getegid",
                "rt_sigaction", "prctl", "getpid", "mmap", "munmap", "epoll_pwait", "nanosleep", "fcntl", "getdents64",
                "rt_sigreturn", "sigaltstack", "gettid", "tgkill", "dup3", "poll", "ioctl"]}]});
    });
    c.run().ok();
}

#[test]
fn what_is_wrong_with_a_profile_is_said() {
    requires!(root);
    let c = Runtime::new(mkdir(json!({"action": "SCMP_ACT_NOTIFY"})));
    c.run().exits(1);
    c.leaves_nothing();
    let c = Runtime::new(mkdir(json!({"action": "SCMP_ACT_NO_SUCH"})));
    c.run().exits(1);
    c.leaves_nothing();
}

#[test]
fn unknown_calls_are_no_failure() {
    requires!(root);
    Bundle::sh("true")
        .with(|config| {
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["no_such_call"], "action": "SCMP_ACT_ERRNO"}]});
        })
        .run()
        .ok();
}

#[test]
fn an_agent_is_given_the_listener_and_the_state() {
    requires!(root);
    ours_only!("Debian's runc 1.1 needs a libseccomp that has notifications");
    let bundle = mkdir(json!({"action": "SCMP_ACT_NOTIFY"}));
    let path = bundle.path().join("source");
    let listener = UnixListener::bind(&path).unwrap();
    let c = Runtime::new(bundle.with(|config| {
        config["linux"]["seccomp"]["listenerPath"] = json!(path);
        config["linux"]["seccomp"]["listenerMetadata"] = json!("meta");
        config["process"]["args"] = json!(["sleep", "1000"]);
    }));
    c.create().ok();
    let state = state_for_agent(&listener);
    assert_eq!((&state["fds"], &state["metadata"]), (&json!(["seccompFd"]), &json!("meta")));
    assert_eq!(
        (&state["pid"], &state["state"]["id"], &state["state"]["status"]),
        (&json!(c.pid()), &json!(c.id()), &json!("creating"))
    );
    c.start().ok();
    c.wait_for("running");
    let pid_file = c.bundle().path().join("exec.pid");
    c.cmd(&["exec", "--detach", "--pid-file", pid_file.to_str().unwrap(), c.id(), "true"]).ok();
    let state = state_for_agent(&listener);
    let pid: i32 = std::fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert_eq!(
        (&state["pid"], &state["state"]["pid"], &state["state"]["status"]),
        (&json!(pid), &json!(c.pid()), &json!("running"))
    );
}

#[test]
fn an_agent_answers_the_calls_that_init_itself_makes() {
    requires!(root);
    ours_only!("Debian's runc 1.1 needs a libseccomp that has notifications");
    for no_new_privileges in [false, true] {
        let bundle = Bundle::sleep();
        let path = bundle.path().join("agent");
        let listener = UnixListener::bind(&path).unwrap();
        let c = Runtime::new(bundle.with(|config| {
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [
                {"names": ["openat", "open", "read", "close", "fcntl", "sendmsg", "execve"], "action": "SCMP_ACT_NOTIFY"}]});
        }));
        std::thread::scope(|scope| {
            // Init and the process beside it, each until it is gone.
            for _ in 0..2 {
                scope.spawn(|| let_all_go_on(&listener_for_agent(&listener).1));
            }
            c.create().ok();
            c.start().ok();
            c.exec(&["true"]).ok();
            c.kill("KILL").ok();
        });
    }
}

/// Lets a process make every call that its filter notifies of, until nobody is left to make any.
fn let_all_go_on(listener: &OwnedFd) {
    while let Ok(request) = ScmpNotifReq::receive(listener.as_raw_fd()) {
        let response = ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty());
        // A process that was killed waits for no answer.
        _ = response.respond(listener.as_raw_fd());
    }
}

/// Receives what an agent is told, and makes sure that a listener came with it.
fn state_for_agent(listener: &UnixListener) -> Value {
    listener_for_agent(listener).0
}

fn listener_for_agent(listener: &UnixListener) -> (Value, OwnedFd) {
    let mut waiting = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut waiting, 20_000u16), Ok(1), "waited for a listener");
    let (mut stream, _) = listener.accept().unwrap();
    let mut bytes = vec![0; 65536];
    let received = stasis::sys::socket::receive(stream.as_fd(), &mut bytes).unwrap();
    let notifications = received.fd.unwrap();
    let target = std::fs::read_link(format!("/proc/self/fd/{}", notifications.as_raw_fd()));
    assert_eq!(target.unwrap().to_str(), Some("anon_inode:seccomp notify"));
    bytes.truncate(received.len);
    stream.read_to_end(&mut bytes).unwrap();
    (serde_json::from_slice(&bytes).unwrap(), notifications)
}
