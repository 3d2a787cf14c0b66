//! The process: what is executed and as whom, with which environment, limits, capabilities and kernel parameters.

use crate::support::{Bundle, Output, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

/// A bundle that shows its status as the kernel has it.
fn status() -> Bundle {
    Bundle::new(&["cat", "/proc/self/status"])
}

/// Returns a line of the status that was shown.
#[track_caller]
fn field<'a>(output: &'a Output, name: &str) -> &'a str {
    let line = output.stdout.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":"));
    line.unwrap_or_else(|| panic!("no {name} in {output}")).trim()
}

fn process(edit: impl FnOnce(&mut Value)) -> impl FnOnce(&mut Value) {
    move |config| edit(&mut config["process"])
}

#[test]
fn arguments_and_environment_are_the_configurations() {
    requires!(root);
    let c = Bundle::new(&["sh", "-c", "echo \"$0|$1|$2\"; env | sort", "zero", "a b", ""]);
    let c =
        c.with(process(|process| process["env"] = json!(["PATH=/bin", "A=1", "B=x=y", "A=2", "EMPTY=", "HOME=/h"])));
    let output = c.run().ok();
    let lines = output.lines();
    assert_eq!(lines[0], "zero|a b|");
    for entry in ["A=2", "B=x=y", "EMPTY=", "HOME=/h", "PATH=/bin"] {
        assert!(lines.contains(&entry), "{entry} in {output}");
    }
    assert!(!lines.contains(&"A=1"));
}

#[test]
fn nothing_of_the_callers_environment_comes_in() {
    requires!(root);
    let c = Runtime::new(Bundle::new(&["env"]));
    let mut command = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
    command.env("SECRET", "x");
    let output = c.output_of(command).ok();
    let names: Vec<_> = output.lines().into_iter().map(|line| line.split('=').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["PATH", "TERM", "HOME"]);
}

#[test]
fn home_is_the_users_unless_it_is_set() {
    requires!(root);
    let home = |uid: u32, env: &[&str]| {
        let c = Bundle::sh("echo $HOME").with(process(|process| {
            process["env"].as_array_mut().unwrap().extend(env.iter().map(|entry| json!(entry)));
            process["user"] = json!({"uid": uid, "gid": 0});
        }));
        c.run().ok().text().to_owned()
    };
    assert_eq!(
        [home(0, &[]), home(1000, &[]), home(7, &[]), home(0, &["HOME=/x"])],
        ["/root", "/home/user", "/", "/x"]
    );
}

#[test]
fn a_name_is_looked_for_in_the_containers_path() {
    requires!(root);
    let c = |path: &str| {
        Bundle::new(&["program"]).with(process(|process| process["env"] = json!([format!("PATH={path}")]))).prepare(
            |dir| {
                fs::write(dir.join("rootfs/program"), "#!/bin/sh\necho found\n").unwrap();
                fs::set_permissions(dir.join("rootfs/program"), fs::Permissions::from_mode(0o755)).unwrap();
            },
        )
    };
    c("/no/such:/").run().ok().prints("found");
    c("/bin").run().exits(1).stderr_contains("executable file not found in $PATH");
}

#[test]
fn a_working_directory_that_is_missing_is_made() {
    requires!(root);
    let c = Bundle::sh("pwd; stat -c '%a %u' .").with(|config| {
        config["root"]["readonly"] = json!(false);
        config["process"]["cwd"] = json!("/made/for it");
    });
    c.run().ok().prints("/made/for it\n755 0");
}

#[test]
fn a_working_directory_may_be_the_users_alone() {
    requires!(root);
    let c = Bundle::new(&["pwd"]).prepare(|dir| {
        let own = dir.join("rootfs/own");
        fs::create_dir(&own).unwrap();
        std::os::unix::fs::chown(&own, Some(1000), Some(1000)).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    });
    let c = c.capable(&[]).with(process(|process| {
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["cwd"] = json!("/own");
    }));
    c.run().ok().prints("/own");
}

#[test]
fn ids_groups_and_umask_are_the_configurations() {
    requires!(root);
    let c = Bundle::sh("id -u; id -g; id -G; umask; cat /proc/self/status").with(process(|process| {
        process["user"] = json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o27});
    }));
    let output = c.run().ok();
    assert_eq!(output.lines()[..4], ["1000", "1001", "1001 5 7", "0027"]);
    assert_eq!(field(&output, "Groups"), "5 7");
}

#[test]
fn the_callers_umask_is_not_the_containers() {
    requires!(root);
    ours_only!("runc makes mount points with the caller's mask");
    for mask in ["0", "077"] {
        let bundle = Bundle::sh("umask; stat -c %a /tmp/some /tmp/some/where");
        let c = Runtime::new(bundle.mount("/tmp", "tmpfs", "tmpfs", &[]).mount(
            "/tmp/some/where",
            "tmpfs",
            "tmpfs",
            &["mode=755"],
        ));
        let run = c.command(&["run", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$@\""), "sh"]);
        command.arg(run.get_program()).args(run.get_args());
        c.output_of(command).ok().prints("0022\n755\n755");
    }
}

#[test]
fn capabilities_are_exactly_those_of_the_configuration() {
    requires!(root);
    // CAP_CHOWN is bit 0, CAP_KILL bit 5, CAP_NET_RAW bit 13.
    let c = status().with(process(|process| {
        process["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"],
            "ambient": ["CAP_KILL"]});
        process["user"] = json!({"uid": 1000, "gid": 1000});
    }));
    let output = c.run().ok();
    // After execve of a program without capabilities of its own, the ambient set is what is left.
    for (set, mask) in [("CapBnd", "2021"), ("CapPrm", "20"), ("CapEff", "20"), ("CapInh", "20"), ("CapAmb", "20")] {
        assert_eq!(field(&output, set).trim_start_matches('0'), mask, "{set}");
    }
}

#[test]
fn root_has_what_the_bounding_set_leaves() {
    requires!(root);
    let c = status().capable(&["CAP_CHOWN", "CAP_KILL"]).with(|config| {
        config["process"]["capabilities"]["inheritable"] = json!([]);
    });
    let output = c.run().ok();
    for (set, mask) in [("CapBnd", "21"), ("CapPrm", "21"), ("CapEff", "21"), ("CapInh", ""), ("CapAmb", "")] {
        assert_eq!(field(&output, set).trim_start_matches('0'), mask, "{set}");
    }
}

#[test]
fn without_capabilities_there_are_none() {
    requires!(root);
    let c = status().with(process(|process| drop(process.as_object_mut().unwrap().remove("capabilities"))));
    let output = c.run().ok();
    for set in ["CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb"] {
        assert_eq!(field(&output, set).trim_start_matches('0'), "", "{set}");
    }
}

#[test]
fn no_new_privs_is_what_the_configuration_says() {
    requires!(root);
    for (asked, shown) in [(true, "1"), (false, "0")] {
        let output = status().with(process(|process| process["noNewPrivileges"] = json!(asked))).run().ok();
        assert_eq!(field(&output, "NoNewPrivs"), shown);
    }
}

#[test]
fn limits_are_the_configurations() {
    requires!(root);
    let c = Bundle::new(&["cat", "/proc/self/limits"]).with(process(|process| {
        process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 70, "hard": 80},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0}, {"type": "RLIMIT_FSIZE", "soft": 4096, "hard": 8192}]);
    }));
    let output = c.run().ok();
    for (name, limits) in [("Max open files", "70 80"), ("Max core file size", "0 0"), ("Max file size", "4096 8192")] {
        let line = output.lines().into_iter().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line.split_whitespace().collect::<Vec<_>>().join(" ").contains(limits), "{line}");
    }
}

#[test]
fn the_oom_score_is_the_configurations() {
    requires!(root);
    for score in [0, 500, 1000] {
        let c = Bundle::new(&["cat", "/proc/self/oom_score_adj"]);
        c.with(process(|process| process["oomScoreAdj"] = json!(score))).run().ok().prints(&score.to_string());
    }
}

#[test]
fn scheduling_is_the_configurations() {
    requires!(root);
    ours_only!("runc 1.1 knows neither");
    let c = Bundle::sh("cut -d' ' -f19,41 /proc/self/stat; ionice -p $$").with(process(|process| {
        process["scheduler"] = json!({"policy": "SCHED_BATCH", "nice": 7});
        process["ioPriority"] = json!({"class": "IOPRIO_CLASS_BE", "priority": 6});
    }));
    // SCHED_BATCH is 3.
    c.run().ok().prints("7 3\nbest-effort: prio 6");
}

#[test]
fn the_personality_is_the_configurations() {
    requires!(root);
    ours_only!("runc 1.1 knows no personality");
    let uname = |domain: &str| {
        let c = Bundle::sleep().with(|config| config["linux"]["personality"] = json!({"domain": domain})).start();
        (
            c.exec(&["uname", "-m"]).ok().text().to_owned(),
            fs::read_to_string(format!("/proc/{}/personality", c.pid())).unwrap(),
        )
    };
    assert_eq!(uname("LINUX32"), ("i686".to_owned(), "00000008\n".to_owned()));
    assert_eq!(uname("LINUX").1, "00000000\n");
}

#[test]
fn the_session_keyring_is_the_containers_own() {
    requires!(root);
    let keys = |options: &[&str]| {
        let c = Bundle::new(&["cat", "/proc/keys"]).with(|config| config["linux"]["maskedPaths"] = json!([]));
        let c = Runtime::new(c);
        let output = c.run_with(options).ok();
        output.stdout.contains(&format!("_ses.{}", c.id()))
    };
    assert!(keys(&[]));
    assert!(!keys(&["--no-new-keyring"]));
}

#[test]
fn kernel_parameters_are_the_configurations() {
    requires!(root);
    let c = Bundle::sh(
        "cd /proc/sys; cat kernel/msgmax fs/mqueue/queues_max net/ipv4/ip_forward net/ipv4/conf/lo/forwarding",
    );
    let c = c.with(|config| {
        config["linux"]["sysctl"] = json!({"kernel.msgmax": "8000", "fs.mqueue.queues_max": "77",
            "net.ipv4.ip_forward": "1", "net/ipv4/conf/lo/forwarding": "0"});
    });
    let own = fs::read_to_string("/proc/sys/kernel/msgmax").unwrap();
    c.run().ok().prints("8000\n77\n1\n0");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").unwrap(), own);
}

#[test]
fn signals_are_as_a_new_program_expects_them() {
    requires!(root);
    let output = status().run().ok();
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        // Without the two that C libraries keep to themselves, and cannot change.
        let mask = u64::from_str_radix(field(&output, mask), 16).unwrap();
        assert_eq!(mask & !(0b11 << 31), 0);
    }
    // The runtime ignores SIGPIPE; `yes` would go on for ever.
    Bundle::sh("yes | head -n 1").run().ok().prints("y");
}

#[test]
fn the_process_leads_a_session() {
    requires!(root);
    Bundle::sh("cut -d' ' -f5,6 /proc/1/stat").run().ok().prints("1 1");
}

#[test]
fn descriptors_are_preserved_when_asked_for() {
    requires!(root);
    let c = Bundle::sh("cat <&3; cat <&4; ls -l /proc/self/fd | grep -c source")
        .prepare(|dir| fs::write(dir.join("source"), "kept\n").unwrap());
    let c = Runtime::new(c);
    let bundle = c.bundle().path().to_str().unwrap();
    let run = c.command(&["run", "--preserve-fds", "2", "--bundle", bundle, c.id()]);
    let mut command = Command::new("sh");
    command.args(["-c", "exec 3<source 4<source 5<source; exec \"$@\"", "sh"]).current_dir(bundle);
    command.arg(run.get_program()).args(run.get_args());
    c.output_of(command).ok().prints("kept\nkept\n2");
}

#[test]
fn what_is_wrong_with_a_process_is_said_before_anything_is_made() {
    requires!(root);
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 5] = [
        (|process| process["env"] = json!(["A"]), "invalid environment variable: missing '='"),
        (|process| process["cwd"] = json!("relative"), "Cwd must be an absolute path"),
        (|process| process["cwd"] = json!(""), "Cwd property must not be empty"),
        (|process| process["args"] = json!([]), "args must not be empty"),
        (|process| process["args"] = json!([""]), "executable file not found in $PATH"),
    ];
    for (edit, words) in cases {
        let c = Runtime::new(Bundle::sleep().with(process(edit)));
        let output = c.cmd(&["create", "--bundle", c.bundle().path().to_str().unwrap(), c.id()]).exits(1);
        if !crate::support::is_oracle() {
            output.stderr_contains(words);
        }
        c.leaves_nothing();
    }
}

#[test]
fn unknown_capabilities_are_no_failure() {
    requires!(root);
    status()
        .with(|config| config["process"]["capabilities"]["bounding"] = json!(["CAP_KILL", "CAP_NO_SUCH"]))
        .run()
        .ok();
}

#[test]
fn the_callers_groups_are_kept_if_an_annotation_says_so() {
    requires!(root);
    ours_only!("crun has it, and runc has not");
    let shown = |bundle: Bundle| {
        let c = Runtime::new(bundle);
        let by_member = |args: &[&str]| {
            let mut command = Command::new("setpriv");
            command.args(["--groups", "1234,2345"]).arg(Runtime::found()).arg("--root").arg(c.root()).args(args);
            command.stdin(Stdio::null());
            command
        };
        let run = ["run", "--detach", "--bundle", c.bundle().path().to_str().unwrap(), c.id()];
        c.detached(by_member(&run)).ok();
        c.wait_printed("\n");
        let beside = c.output_of(by_member(&["exec", c.id(), "id", "-G"])).ok();
        (c.printed().trim().to_owned(), beside.text().to_owned())
    };
    let bundle = || Bundle::sh("id -G; sleep 1000");
    let keeping = |bundle: Bundle| bundle.with(|c| c["annotations"] = json!({"run.oci.keep_original_groups": "1"}));
    assert_eq!(shown(bundle()), ("0".to_owned(), "0".to_owned()));
    assert_eq!(shown(keeping(bundle())), ("0 1234 2345".to_owned(), "0 1234 2345".to_owned()));
    // Those that the user namespace does not map are shown as nobody's.
    let (of_init, _) = shown(keeping(bundle().user_namespace(100_000)));
    assert_eq!(of_init, "0 65534 65534");
}

#[test]
fn an_annotation_may_name_who_receives_a_descriptor_of_init() {
    requires!(root);
    ours_only!("crun has it, and runc has not");
    let bundle = Bundle::sleep().prepare(|path| fs::create_dir(path.join("source")).unwrap());
    let path = bundle.path().join("source/socket");
    let receiver = UnixListener::bind(&path).unwrap();
    // Whoever is to connect has done so by the end of create.
    receiver.set_nonblocking(true).unwrap();
    let c = bundle.with(|config| config["annotations"] = json!({"run.oci.pidfd_receiver": path})).create();
    let mut told = String::new();
    receiver.accept().unwrap().0.read_to_string(&mut told).unwrap();
    assert_eq!(told, format!("pidfd for {}", c.pid()));
}

#[test]
fn annotations_of_crun_that_mean_nothing_are_named() {
    requires!(root);
    ours_only!("the annotations are crun's");
    let annotations = json!({"run.oci.handler": "krun", "run.oci.systemd.subgroup": "", "org.example": "x"});
    let said = Bundle::new(&["true"]).with(|config| config["annotations"] = annotations).run().ok();
    assert_eq!(said.stderr.matches("level=warning").count(), 1, "{said}");
    said.stderr_contains("annotation run.oci.handler is not supported");
    // Nobody makes a scope here.
    let annotations = json!({"run.oci.systemd.subgroup": "inner"});
    let said = Bundle::new(&["true"]).with(|config| config["annotations"] = annotations).run().ok();
    said.stderr_contains("annotation run.oci.systemd.subgroup is not supported");
}
