//! Every failure has its words and leaves nothing: one test per step of init, and those of the outside.
//!
//! A step is made to fail as it fails in life, by a configuration that the kernel refuses. Where no configuration does
//! that, a seccomp filter on the runtime itself makes the kernel refuse the step's system call.

use crate::support::{Bundle, Console, Output, Runtime, wait_until};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use stasis::plan::step::Step;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// Steps that nothing outside can make fail, or whose failure cannot be told, and why.
const UNTESTED: [(Step, &str); 4] = [
    (Step::Cgroup, "a new cgroup takes every process, but for real-time ones where the kernel groups those"),
    (Step::Handshake, "a pair of sockets that the runtime alone holds"),
    (Step::SeccompListener, "a failure to speak to the outside cannot be told to it"),
    (Step::ExecFifo, "a read of a fifo that init itself holds open"),
];

/// Steps that come after create, each with a test further down, or with those of exec (placement.rs).
const AFTER_CREATE: [Step; 3] = [Step::StartContainerHook, Step::Exec, Step::CpuAffinity];

/// Writes a test for each step, which creates a container that cannot be and expects the words that say so.
macro_rules! steps {
    ($($name:ident: $step:ident, $words:literal, $failing:expr;)*) => {
        $(
            #[test]
            fn $name() {
                requires!(root);
                ours_only!("the words for init's steps are ours");
                let failing: Failing = $failing.into();
                let output = failing.create().exits(1).stderr_contains($words);
                assert_eq!(output.stderr.lines().count(), 1, "{output}");
                assert!(failing.denied.is_some() || output.stdout.is_empty(), "{output}");
                failing.runtime.leaves_nothing();
            }
        )*

        /// The steps that have a test.
        const TESTED: &[Step] = &[$(Step::$step,)*];
    };
}

steps! {
    joining_a_namespace_of_another_kind: JoinNamespace, "join network namespace /proc/self/ns/uts: invalid argument",
        Bundle::sleep().namespace("network", Some("/proc/self/ns/uts".as_ref()));
    a_clock_before_its_beginning: TimeOffsets, "set the time namespace's offsets: numerical result out of range",
        Bundle::sleep().namespace("time", None)
            .with(|config| config["linux"]["timeOffsets"] = json!({"boottime": {"secs": -1_000_000_000i64}}));
    a_user_namespace_without_pid_namespaces: CloneInit, "clone the container's init: no space left on device",
        limited("max_pid_namespaces", Bundle::sleep());
    a_user_namespace_without_root: BecomeRoot, "become root in the user namespace: invalid argument",
        Bundle::sleep().user_namespace(100_000).with(|config| {
            config["linux"]["uidMappings"][0]["containerID"] = json!(1);
            config["linux"]["gidMappings"][0]["containerID"] = json!(1);
        });
    a_user_namespace_without_cgroup_namespaces: CgroupNamespace,
        "unshare the cgroup namespace: no space left on device",
        limited("max_cgroup_namespaces", Bundle::sleep().namespace("cgroup", None));
    a_refused_network: NetworkNamespace, "unshare the network namespace: operation not permitted",
        Bundle::sleep().denied(argument(json!({"names": ["unshare"]}), 0, nix::libc::CLONE_NEWNET as u64));
    a_refused_session: Session, "start a session: operation not permitted",
        Bundle::sleep().denied(json!({"names": ["setsid"]}));
    a_refused_keyring: Keyring, "join a session keyring (--no-new-keyring leaves this out): operation not permitted",
        Bundle::sleep().denied(json!({"names": ["keyctl"]}));
    a_refused_loopback: Loopback, "bring the loopback interface up: operation not permitted",
        Bundle::sleep().denied(argument(json!({"names": ["ioctl"]}), 1, nix::libc::SIOCSIFFLAGS));
    a_host_name_that_is_too_long: Hostname, "set the hostname: invalid argument",
        Bundle::sleep().with(|config| config["hostname"] = json!("h".repeat(65)));
    a_domain_name_that_is_too_long: Domainname, "set the domainname: invalid argument",
        Bundle::sleep().with(|config| config["domainname"] = json!("d".repeat(65)));
    refused_propagation: Propagation, "change the propagation of /: operation not permitted",
        Bundle::sleep().denied(json!({"names": ["mount"]}));
    refused_propagation_of_the_root: RootPropagation, "set the rootfs propagation: operation not permitted",
        Bundle::sleep().with(|config| config["linux"]["rootfsPropagation"] = json!("unbindable"))
            .denied(argument(json!({"names": ["mount"]}), 3, nix::libc::MS_UNBINDABLE));
    a_root_that_is_a_file: Rootfs, "config.json: not a directory",
        Bundle::sleep().with(|config| config["root"]["path"] = json!("config.json"));
    a_source_that_is_missing: MountSource, "/no/such\" to rootfs at \"/x\": open its source: no such file or directory",
        Bundle::sleep().mount("/x", "bind", "/no/such", &["bind"]);
    a_target_below_a_file: MountTarget, "to rootfs at \"/etc/passwd/x\": make its mount point: not a directory",
        Bundle::sleep().mount("/etc/passwd/x", "tmpfs", "tmpfs", &[]);
    a_file_system_that_is_unknown: Mount, "error mounting \"nosuchfs\" to rootfs at \"/tmp\": no such device",
        Bundle::sleep().mount("/tmp", "nosuchfs", "none", &[]);
    a_copy_without_room: CopyUp, "rootfs at \"/etc\": tmpcopyup: failed to copy /etc: no space left on device",
        Bundle::sleep().mount("/etc", "tmpfs", "tmpfs", &["tmpcopyup", "nr_inodes=2"]);
    a_remount_of_what_is_no_mount: MountAttributes, "error remounting \"/etc\": set its flags: invalid argument",
        Bundle::sleep().mount("/etc", "bind", "/etc", &["remount", "bind", "ro"]);
    a_device_below_a_file: Device, "make device /etc/passwd/null: not a directory",
        Bundle::sleep().with(|config| {
            config["linux"]["devices"] = json!([{"path": "/etc/passwd/null", "type": "c", "major": 1, "minor": 3}]);
        });
    a_device_in_whose_place_is_a_file: DeviceType, "make device /etc/passwd: /etc/passwd has incorrect ftype: 0x8000",
        Bundle::sleep().with(|config| {
            config["linux"]["devices"] = json!([{"path": "/etc/passwd", "type": "c", "major": 1, "minor": 3}]);
        });
    a_device_that_is_listed_twice: DeviceNumber, "incorrect major:minor: 1:3 doesn't match expected 1:5",
        Bundle::sleep().with(|config| {
            let device = |minor: u32| json!({"path": "/dev/x", "type": "c", "major": 1, "minor": minor});
            config["linux"]["devices"] = json!([device(3), device(5)]);
        });
    // The directory itself, pts, shm, mqueue and six nodes are all that fits.
    a_dev_without_room_for_symlinks: DeviceLink, "make symlink /dev/fd: no space left on device",
        Bundle::sleep().with(|config| config["mounts"][1]["options"] = json!(["mode=755", "nr_inodes=10"]));
    a_terminal_without_devpts: Console, "allocate a terminal: no such file or directory",
        Failing::terminal(|bundle| bundle.with(|config| {
            config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/dev/pts");
        }));
    a_console_socket_that_hangs_up: ConsoleSocket, "send the terminal to the console socket: broken pipe",
        Failing::terminal(|bundle| bundle.with(|config| {
            config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "0.5"]}]});
        })).hang_up();
    a_create_container_hook_that_fails: CreateContainerHook, "error running createContainer hook #1: exit status 3",
        Bundle::sleep().with(|config| {
            let fails = json!({"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]});
            config["hooks"] = json!({"createContainer": [{"path": "/bin/true"}, fails]});
        });
    a_read_only_path_in_circles: ReadonlyPath, "can't make \"/circle\" read-only: too many levels of symbolic links",
        circle(Bundle::sleep()).with(|config| config["linux"]["readonlyPaths"] = json!(["/circle"]));
    a_masked_path_in_circles: MaskedPath, "can't mask path \"/circle\": too many levels of symbolic links",
        circle(Bundle::sleep()).with(|config| config["linux"]["maskedPaths"] = json!(["/circle"]));
    a_read_only_mount_that_was_covered: LateReadonly,
        "error mounting \"tmpfs\" to rootfs at \"/tmp/below\": remount read-only: no such file or directory",
        Bundle::sleep().mount("/tmp/below", "tmpfs", "tmpfs", &["ro"]).mount("/tmp", "tmpfs", "tmpfs", &[]);
    a_root_that_somebody_writes_to: ReadonlyRoot, "make the rootfs read-only: device or resource busy",
        written(Bundle::sleep());
    a_refused_root: PivotRoot, "rootfs: operation not permitted",
        Bundle::sleep().denied(json!({"names": ["pivot_root"]}));
    a_sysctl_that_is_no_number: Sysctl, "write sysctl net/ipv4/ip_forward: invalid argument",
        Bundle::sleep().with(|config| config["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "no number"}));
    a_limit_above_the_kernels: Rlimit, "error setting rlimit RLIMIT_NOFILE: operation not permitted",
        Bundle::sleep().with(|config| config["process"]["rlimits"][0]["hard"] = json!(1u64 << 40));
    a_deadline_before_the_work_is_done: Scheduler, "set the scheduler: invalid argument",
        Bundle::sleep().with(|config| {
            config["process"]["scheduler"] =
                json!({"policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 10_000_000, "period": 30_000_000});
        });
    a_refused_io_priority: IoPriority, "set the I/O priority: operation not permitted",
        Bundle::sleep()
            .with(|config| config["process"]["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 1}))
            .denied(json!({"names": ["ioprio_set"]}));
    a_node_that_is_not_there: MemoryPolicy, "set the memory policy: invalid argument",
        Bundle::sleep()
            .with(|config| config["linux"]["memoryPolicy"] = json!({"mode": "MPOL_BIND", "nodes": "900"}));
    a_refused_personality: Personality, "set the personality: operation not permitted",
        Bundle::sleep()
            .with(|config| config["linux"]["personality"] = json!({"domain": "LINUX32"}))
            .denied(json!({"names": ["personality"]}));
    a_working_directory_that_is_a_file: WorkingDirectory,
        "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory",
        Bundle::sleep().with(|config| config["process"]["cwd"] = json!("/etc/passwd"));
    a_working_directory_that_cannot_be_verified: DirectoryBelowRoot,
        "failed to verify if current working directory is safe: operation not permitted",
        Bundle::sleep().with(|config| {
            config["process"]["noNewPrivileges"] = json!(false);
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}],
            });
        });
    a_refused_filter: Seccomp, "load the seccomp filter: operation not permitted",
        Bundle::sleep()
            .with(|config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": []}))
            .denied(argument(json!({"names": ["seccomp"]}), 0, nix::libc::SECCOMP_SET_MODE_FILTER.into()));
    a_refused_bounding_set: BoundingSet, "limit the capability bounding set: operation not permitted",
        Bundle::sleep().denied(argument(json!({"names": ["prctl"]}), 0, nix::libc::PR_CAPBSET_DROP as u64));
    a_group_that_is_not_mapped: Groups, "set the additional groups: invalid argument",
        Bundle::sleep().user_namespace(100_000)
            .with(|config| config["process"]["user"]["additionalGids"] = json!([70_000]));
    a_gid_that_is_not_mapped: Gid, "cannot setgid to unmapped gid 70000 in user namespace",
        Bundle::sleep().user_namespace(100_000).with(|config| config["process"]["user"]["gid"] = json!(70_000));
    a_uid_that_is_not_mapped: Uid, "cannot setuid to unmapped uid 70000 in user namespace",
        Bundle::sleep().user_namespace(100_000).with(|config| config["process"]["user"]["uid"] = json!(70_000));
    refused_capabilities: Capabilities, "set the capabilities: operation not permitted",
        Bundle::sleep().denied(json!({"names": ["capset"]}));
    a_refused_ambient_capability: AmbientCapability, "can't raise ambient capability CAP_KILL: operation not permitted",
        Bundle::sleep().capable(&["CAP_KILL"])
            .with(|config| config["process"]["capabilities"]["ambient"] = json!(["CAP_KILL"]))
            .denied(json!({"names": ["prctl"], "args": [
                {"index": 0, "value": nix::libc::PR_CAP_AMBIENT, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": nix::libc::PR_CAP_AMBIENT_RAISE, "op": "SCMP_CMP_EQ"}]}));
    refused_no_new_privs: NoNewPrivs, "set no_new_privs: operation not permitted",
        Bundle::sleep().denied(argument(json!({"names": ["prctl"]}), 0, nix::libc::PR_SET_NO_NEW_PRIVS as u64));
    an_apparmor_profile_that_is_missing: Label, "unable to apply apparmor profile \"no-such-profile\": apparmor failed to apply profile: write `/proc/self/attr/apparmor/exec`: ",
        Bundle::sleep().with(|config| config["process"]["apparmorProfile"] = json!("no-such-profile"));
    a_program_that_is_missing: Program, "exec: \"no-such\": executable file not found in $PATH",
        Bundle::new(&["no-such"]);
    refused_descriptors: Descriptors, "pass descriptors on: operation not permitted",
        Bundle::sleep().denied(json!({"names": ["close_range"]}));
}

#[test]
fn every_step_has_a_test_or_a_reason() {
    for &step in Step::ALL {
        let untested = UNTESTED.iter().any(|(other, reason)| *other == step && !reason.is_empty());
        let tested = TESTED.contains(&step) || AFTER_CREATE.contains(&step);
        assert_ne!(tested, untested, "{step:?} needs a test, or a reason to have none");
    }
}

#[test]
fn a_program_that_the_kernel_cannot_execute_is_named_on_the_containers_stderr() {
    requires!(root);
    ours_only!("runc 1.1 tells run too");
    let c = unreadable(Bundle::new(&["/none"])).start();
    c.finished();
    assert_eq!(c.complained(), "exec /none: exec format error\n");
    c.delete().ok();
    c.leaves_nothing();
    // Also where the same command creates it and starts it: what it was run for has failed, but not the runtime.
    let c = Runtime::new(unreadable(Bundle::new(&["/none"])));
    let output = c.run().exits(255);
    assert_eq!(output.stderr, "exec /none: exec format error\n");
    c.leaves_nothing();
}

#[test]
fn exec_of_a_program_that_the_kernel_cannot_execute_fails() {
    requires!(root);
    ours_only!("runc 1.1 returns 1");
    let c = unreadable(Bundle::sleep()).start();
    c.exec(&["/none"]).exits(255).stderr_contains("exec format error");
    assert_eq!(c.cmd(&["ps", "--format", "json", c.id()]).json(), json!([c.pid()]));
}

#[test]
fn a_start_container_hook_that_fails_stops_the_container_before_its_program() {
    requires!(root);
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo hooked; exit 3"]}]);
    let c = Bundle::sh("echo ran").with(|config| config["hooks"] = json!({"startContainer": hook})).create();
    c.start();
    assert!(!c.finished().contains("ran"));
    c.delete().ok();
    c.leaves_nothing();
}

#[test]
fn init_ends_with_a_runtime_that_is_killed() {
    requires!(root);
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "touch $0/source; sleep 1", "BUNDLE"]}]);
    let mut c = Runtime::new(Bundle::sleep());
    let bundle = c.bundle().path().to_owned();
    c.edit(|config| config["hooks"]["createRuntime"] = hook);
    c.edit(|config| config["hooks"]["createRuntime"][0]["args"][3] = json!(bundle));
    let mut command = c.command(&["create", "--bundle", bundle.to_str().unwrap(), c.id()]);
    let mut create = command.stderr(Stdio::null()).spawn().unwrap();
    wait_until("the hook runs", || bundle.join("source").exists());
    create.kill().unwrap();
    create.wait().unwrap();
    wait_until("no process is left", || !c.remains().iter().any(|left| left.starts_with("process")));
    c.cmd(&["delete", "--force", c.id()]).ok();
    // Nothing was noted yet, so that its cgroup is unknown.
    c.remove_cgroups();
}

/// Writes a test for each failure of the outside, as [`steps`] does for those of init.
macro_rules! outside {
    ($($name:ident: [$($option:expr),*], $words:literal, $failing:expr;)*) => {
        $(
            #[test]
            fn $name() {
                requires!(root);
                ours_only!("the words for most failures are ours");
                let mut failing: Failing = $failing.into();
                failing.options = vec![$($option.into()),*];
                failing.create().exits(1).stderr_contains($words);
                failing.runtime.leaves_nothing();
            }
        )*
    };
}

outside! {
    a_root_that_is_missing: [], "invalid rootfs: stat /",
        Bundle::sleep().with(|config| config["root"]["path"] = json!("no/such"));
    a_configuration_that_is_no_json: [], "config.json: ",
        Bundle::sleep().prepare(|dir| fs::write(dir.join("config.json"), "{").unwrap());
    a_namespace_that_is_missing: [], "open network namespace /no/such: no such file or directory",
        Bundle::sleep().namespace("network", Some("/no/such".as_ref()));
    a_pid_file_without_directory: ["--pid-file", "/no/such/pid"], "write pid file /no/such/pid: no such file or directory",
        Bundle::sleep();
    a_pidfd_socket_that_is_missing: ["--pidfd-socket", "/no/such"], "pidfd socket /no/such: no such file or directory",
        Bundle::sleep();
    a_console_socket_that_is_missing: ["--console-socket", "/no/such"], "console socket /no/such: no such file or directory",
        Bundle::sleep().with(|config| config["process"]["terminal"] = json!(true));
    a_terminal_without_console_socket: [], "cannot allocate tty if runc will detach without setting console socket",
        Bundle::sleep().with(|config| config["process"]["terminal"] = json!(true));
    a_console_socket_without_terminal: ["--console-socket", "/no/such"],
        "cannot use console socket if runc will not detach or allocate tty", Bundle::sleep();
    descriptors_that_are_not_there: ["--preserve-fds", "100"], "unable to stat preserved-fd ", Bundle::sleep();
    a_prestart_hook_that_is_missing: [], "error running prestart hook #0: fork/exec /no/such: no such file or directory",
        hooked("prestart", json!([{"path": "/no/such"}]));
    a_create_runtime_hook_that_fails: [],
        "error running createRuntime hook #1: exit status 3, stdout: one, stderr: two",
        hooked("createRuntime", json!([{"path": "/bin/true"},
            {"path": "/bin/sh", "args": ["sh", "-c", "echo one; echo two >&2; exit 3"]}]));
    a_create_runtime_hook_that_hangs: [],
        "error running createRuntime hook #0: hook ran past specified timeout of 1.0s",
        hooked("createRuntime", json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]));
    a_create_container_hook_that_hangs: [], "error running createContainer hook #0: timed out",
        hooked("createContainer", json!([{"path": "/bin/sleep", "args": ["sleep", "1000"], "timeout": 1}]));
    a_create_container_hook_that_is_killed: [], "error running createContainer hook #0: signal: killed",
        hooked("createContainer", json!([{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $$"]}]));
    a_map_that_overlaps: [], "uid_map: invalid argument",
        Bundle::sleep().user_namespace(100_000).with(|config| {
            let range = config["linux"]["uidMappings"][0].clone();
            config["linux"]["uidMappings"] = json!([range, range]);
        });
    an_oom_score_out_of_range: [], "oom_score_adj: invalid argument",
        Bundle::sleep().with(|config| config["process"]["oomScoreAdj"] = json!(2000));
    a_seccomp_agent_that_is_missing: [], "/no/such",
        Bundle::sleep().with(|config| config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/no/such", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}));
    a_cpu_that_is_missing: [], "cpuset",
        Bundle::sleep().with(|config| config["linux"]["resources"]["cpu"] = json!({"cpus": "4000"}));
    a_program_that_may_not_be_executed: [], "exec: \"/etc/passwd\": permission denied", Bundle::new(&["/etc/passwd"]);
    a_program_that_is_a_directory: [], "exec: \"/etc\": is a directory", Bundle::new(&["/etc"]);
    a_path_of_a_program_that_is_missing: [], "exec: \"/no/such\": stat /no/such: no such file or directory",
        Bundle::new(&["/no/such"]);
}

/// A container that cannot be created, and what makes it so.
struct Failing {
    runtime: Runtime,
    options: Vec<String>,
    denied: Option<Value>,
    console: Option<Console>,
    hangs_up: bool,
    _holder: Option<Holder>,
}

impl From<Bundle> for Failing {
    fn from(bundle: Bundle) -> Self {
        let runtime = Runtime::new(bundle);
        Self { runtime, options: Vec::new(), denied: None, console: None, hangs_up: false, _holder: None }
    }
}

impl Failing {
    /// A container with a terminal, and somebody who waits for it.
    fn terminal(change: impl FnOnce(Bundle) -> Bundle) -> Self {
        let bundle = change(Bundle::sleep().with(|config| config["process"]["terminal"] = json!(true)));
        let console = Console::listen(&bundle);
        let options = vec!["--console-socket".into(), console.path().into()];
        Self { options, console: Some(console), ..bundle.into() }
    }

    /// Lets the console socket hang up before the terminal is sent.
    fn hang_up(self) -> Self {
        Self { hangs_up: true, ..self }
    }

    fn create(&self) -> Output {
        let bundle = self.runtime.bundle().path().to_str().unwrap();
        let mut line = vec!["create", "--bundle", bundle];
        line.extend(self.options.iter().map(String::as_str));
        line.push(self.runtime.id());
        let mut command = self.runtime.command(&line);
        if let Some(denied) = &self.denied {
            command = filtered(&command, denied);
        }
        std::thread::scope(|scope| {
            if let Some(console) = self.console.as_ref().filter(|_| self.hangs_up) {
                scope.spawn(|| console.hang_up());
            }
            self.runtime.output_of(command)
        })
    }
}

trait Deny {
    /// Makes the kernel refuse a system call, to the runtime itself: an entry of a seccomp profile.
    fn denied(self, call: Value) -> Failing;
}

impl Deny for Bundle {
    fn denied(self, mut call: Value) -> Failing {
        call["action"] = json!("SCMP_ACT_ERRNO");
        call["errnoRet"] = json!(nix::libc::EPERM);
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call]});
        Failing { denied: Some(profile), ..self.into() }
    }
}

/// Limits an entry of a seccomp profile to calls with this argument.
fn argument(mut call: Value, index: usize, value: u64) -> Value {
    call["args"] = json!([{"index": index, "value": value, "op": "SCMP_CMP_EQ"}]);
    call
}

/// Returns a command that loads the profile and becomes `command`: this binary, which starts with the test below.
fn filtered(command: &Command, profile: &Value) -> Command {
    let line = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<&str> = line.map(|word| word.to_str().unwrap()).collect();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "failures::becomes_a_filtered_command",
        "--ignored",
        "--nocapture",
        "--test-threads=1",
        "-q",
    ]);
    again.env("TEST_PROFILE", profile.to_string()).env("TEST_COMMAND", json!(line).to_string()).stdin(Stdio::null());
    again
}

#[test]
#[ignore = "started by other tests"]
fn becomes_a_filtered_command() {
    let given = |name: &str| -> Value { serde_json::from_str(&std::env::var(name).unwrap()).unwrap() };
    let profile = serde_json::from_value(given("TEST_PROFILE")).unwrap();
    let line: Vec<String> = serde_json::from_value(given("TEST_COMMAND")).unwrap();
    let filter = stasis::plan::seccomp::compile(&profile, None).unwrap();
    stasis::sys::seccomp::load(&filter.program, filter.flags).unwrap();
    let err = Command::new(&line[0]).args(&line[1..]).env_remove("TEST_PROFILE").env_remove("TEST_COMMAND").exec();
    panic!("{}: {err}", line[0]);
}

/// A process in a user namespace in which some kind of namespace cannot be made.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Puts a container into a user namespace whose limit, a file of /proc/sys/user, is 0.
fn limited(limit: &str, bundle: Bundle) -> Failing {
    let script = format!("echo 0 >/proc/sys/user/{limit} && echo limited && exec sleep 1000");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]).stdout(Stdio::piped());
    let mut holder = Holder(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(holder.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "limited\n");
    let namespace = format!("/proc/{}/ns/user", holder.0.id());
    Failing { _holder: Some(holder), ..bundle.namespace("user", Some(namespace.as_ref())).into() }
}

/// Puts a symlink to itself into the root.
fn circle(bundle: Bundle) -> Bundle {
    bundle.prepare(|dir| symlink("circle", dir.join("rootfs/circle")).unwrap())
}

/// Puts a file into the root that may be executed and is no program.
fn unreadable(bundle: Bundle) -> Bundle {
    bundle.prepare(|dir| {
        use std::os::unix::fs::PermissionsExt;
        fs::write(dir.join("rootfs/none"), "\0nothing").unwrap();
        fs::set_permissions(dir.join("rootfs/none"), fs::Permissions::from_mode(0o755)).unwrap();
    })
}

/// Lets a hook leave a process behind that has a file of the root open for writing.
fn written(bundle: Bundle) -> Bundle {
    let file = bundle.rootfs().join("file");
    let script = format!("exec 3>{}; sleep 10 &", file.display());
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
    bundle.with(|config| config["hooks"] = json!({"createContainer": hook}))
}

fn hooked(kind: &str, hooks: Value) -> Bundle {
    Bundle::sleep().with(|config| config["hooks"] = json!({kind: hooks}))
}
