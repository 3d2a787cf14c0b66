//! What `inspect-image` tells of real images, of our own and of runc's, and of what has become of them.

use crate::namespaces::Owner;
use crate::support::{Bundle, HostTmpfs, wait_until, with_shm};
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::{Value, json};
use stasis::criu::inspect::inspect;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs the program that holds one of each thing, and waits until it has them.
#[track_caller]
fn everything(bundle: impl FnOnce(Bundle) -> Bundle) -> Checkpointed {
    let c = Checkpointed::run(bundle(Bundle::new(&["everything"]).program("everything")));
    wait_until("it has everything", || c.runtime.exec(&["cat", "/dev/shm/ready"]).text() == "ready");
    c
}

#[track_caller]
fn told(c: &Checkpointed) -> Value {
    told_of(c, &c.images())
}

#[track_caller]
fn told_of(c: &Checkpointed, images: &Path) -> Value {
    c.runtime.cmd(&["inspect-image", "--format", "json", images.to_str().unwrap()]).ok().json()
}

#[track_caller]
fn text(c: &Checkpointed, options: &[&str]) -> String {
    let images = c.images();
    c.runtime.cmd(&[&["inspect-image"], options, &[images.to_str().unwrap()]].concat()).ok().stdout
}

fn process<'a>(image: &'a Value, state: &str, pid: u64) -> &'a Value {
    let all = image["processes"].as_array().unwrap();
    all.iter().find(|one| one["state"] == state && (pid == 0 || one["pid"] == pid)).unwrap()
}

#[test]
fn everything_in_an_image_is_told() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let c = everything(|bundle| bundle.prepare(|path| fs::create_dir(path.join("source")).unwrap()));
    c.checkpoint(&["--tcp-established", "--file-locks"]).ok();
    let image = told(&c);
    assert_eq!(
        (&image["kind"], &image["container"], &image["ipcMode"]),
        (&json!("dump"), &json!(c.runtime.id()), &json!("private"))
    );
    assert_eq!(image["stasis"], env!("CARGO_PKG_VERSION"));
    assert_eq!(image["architecture"], std::env::consts::ARCH);
    assert_eq!((&image["restorable"], &image["obstacles"]), (&json!(true), &json!([])), "{image:#}");
    assert!(image["criu"].as_str().unwrap().starts_with('4'), "{}", image["criu"]);

    assert_eq!(image["processes"].as_array().unwrap().len(), 3);
    let init = process(&image, "alive", 1);
    assert_eq!(
        (&init["ppid"], &init["command"], &init["executable"]),
        (&json!(0), &json!("everything"), &json!("/bin/everything"))
    );
    assert_eq!(init["threads"].as_array().unwrap().len(), 2);
    assert!(init["memory"]["bytes"].as_u64().unwrap() >= 4 << 20, "{}", init["memory"]);
    assert_eq!(process(&image, "zombie", 0)["ppid"], 1);
    assert_eq!(image["sharedMemory"]["bytes"], json!((1 << 20) + 4096));

    let files = init["files"].as_array().unwrap();
    let file =
        |name: &str| files.iter().find(|file| file["name"] == name).unwrap_or_else(|| panic!("{name} in {files:?}"));
    assert_eq!(file("/dev/shm/locked")["position"], 5);
    assert_eq!(
        (&file("/dev/shm/nameless")["deleted"], &file("/dev/shm/nameless")["position"]),
        (&json!(true), &json!(3))
    );
    assert_eq!(file("tcp 127.0.0.1:5000 listening")["kind"], "socket");
    assert_eq!(file("unix /dev/shm/socket")["kind"], "socket");
    assert_eq!(file("count 7")["kind"], "eventfd");

    let counts = [("tcpListening", 1), ("tcpConnected", 2), ("unix", 3), ("unixExternal", 0)];
    for (name, count) in counts {
        assert_eq!(image["sockets"][name], count, "{name}");
    }
    assert_eq!(image["nameless"], json!({"ghosts": 1, "linkRemaps": 0}));
    assert_eq!(image["fileLocks"], 1);
    let expected = json!({"segments": 1, "segmentBytes": 65536, "semaphores": 1, "queues": 1});
    assert_eq!(image["systemV"], expected);
    assert_eq!(image["needs"]["options"], json!(["--tcp-established", "--file-locks"]));
    assert_eq!(image["statistics"]["pagesWritten"].as_u64().unwrap(), image["memory"]["pages"].as_u64().unwrap());
    assert!(image["statistics"]["frozenMicros"].as_u64().unwrap() > 0);
    // It can be restored, with what was said to be needed.
    let options: Vec<&str> =
        image["needs"]["options"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    c.restore(&options).ok();
    c.runtime.exec(&["cat", "/dev/shm/locked"]).ok().prints("12345");
}

#[test]
fn the_text_is_for_people_and_does_nothing_to_their_terminal() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let c = everything(|bundle| bundle);
    c.checkpoint(&["--tcp-established", "--file-locks"]).ok();
    let told = text(&c, &[]);
    let line = |title: &str| told.lines().find_map(|line| line.strip_prefix(title)).map(str::trim);
    assert_eq!(line("Container "), Some(c.runtime.id()), "{told}");
    assert_eq!(line("Restorable here "), Some("yes"), "{told}");
    assert!(line("Needs ").unwrap().starts_with("--tcp-established; --file-locks"), "{told}");
    assert_eq!(line("IPC mode "), Some("private"), "{told}");
    assert!(told.contains("    red\\u{1b}[31m") || told.contains("  red\\u{1b}[31m"), "{told}");
    assert!(!told.contains('\x1b'), "{told}");
    assert!(!told.contains("/dev/shm/locked"), "{told}");
    let files = text(&c, &["--files"]);
    assert!(files.contains("FILES OF 1 (everything)") && files.contains("/dev/shm/locked at 5"), "{files}");
    let images = c.images();
    c.runtime
        .cmd(&["inspect-image", "--format", "xml", images.to_str().unwrap()])
        .exits(1)
        .stderr_contains("invalid format option");
}

#[test]
fn what_comes_from_outside_is_what_a_restore_needs() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let (shm, net) = (HostTmpfs::new(), Owner::new(&["--net", "--uts"]));
    let c = Checkpointed::run(with_shm(Bundle::sh(COUNTER), shm.path()).namespace("network", Some(&net.path("net"))));
    wait_until("the counter counts", || c.count() > 3);
    c.checkpoint(&[]).ok();
    let image = told(&c);
    drop((shm, net));

    assert_eq!(image["ipcMode"], "shareable");
    let tmpfs = &image["tmpfs"][0];
    assert_eq!(
        (&tmpfs["destination"], &tmpfs["size"], &tmpfs["shared"]),
        (&json!("/dev/shm"), &json!(64 << 20), &json!(false))
    );
    assert!(tmpfs["bytes"].as_u64().unwrap() > 0, "{tmpfs}");
    let needs = &image["needs"];
    assert!(needs["mounts"].as_array().unwrap().contains(&json!("/dev/shm")), "{needs}");
    assert_eq!((&needs["namespaces"], &needs["options"]), (&json!(["net"]), &json!([])));
    let namespace =
        |kind: &str| image["namespaces"].as_array().unwrap().iter().find(|one| one["kind"] == kind).cloned().unwrap();
    assert_eq!(
        (&namespace("net")["scope"], &namespace("net")["external"]),
        (&json!("external"), &json!("extRootNetNS"))
    );
    assert_eq!((&namespace("ipc")["scope"], &namespace("user")["scope"]), (&json!("own"), &json!("host")));
    let text = text(&c, &[]);
    assert!(text.contains("\n/dev/shm  "), "{text}");

    // The archive is looked at too.
    let archive = c.images().join(tmpfs["archive"].as_str().unwrap());
    let mut bytes = fs::read(&archive).unwrap();
    bytes[0] ^= 1;
    fs::write(&archive, bytes).unwrap();
    let image = told(&c);
    assert_eq!(image["restorable"], false);
    assert!(image["obstacles"][0].as_str().unwrap().ends_with("is not what was written: its SHA-256 is another one"));
}

#[test]
fn an_image_that_is_not_whole_is_not_restorable() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let c = everything(|bundle| bundle);
    c.checkpoint(&["--tcp-established", "--file-locks"]).ok();
    let names = fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name.ends_with(".img")).collect();
    // CRIU does without these when there is nothing to tell, so nobody says that they should be there.
    let silent = ["cgroup", "filelocks", "ipcns-msg", "ipcns-sem", "ipcns-shm", "remap-fpath", "seccomp", "timens"];
    let aside = c.place.path().join("aside");
    let mut taken = 0;
    for name in
        names.iter().filter(|name| *name != "inventory.img" && !silent.iter().any(|word| name.starts_with(word)))
    {
        let path = c.images().join(name);
        if fs::metadata(&path).unwrap().len() == 0 {
            continue;
        }
        fs::rename(&path, &aside).unwrap();
        let image = inspect(&c.images(), 4096).unwrap();
        assert!(image.missing.contains(name), "{name}: {:?}", image.missing);
        fs::rename(&aside, &path).unwrap();
        taken += 1;
    }
    assert!(taken > 20, "only {taken} of {names:?}");
    fs::rename(c.images().join("core-1.img"), &aside).unwrap();
    let image = told(&c);
    assert_eq!((&image["restorable"], &image["obstacles"]), (&json!(false), &json!(["core-1.img is missing"])));
    assert!(text(&c, &[]).contains("Restorable here   no: core-1.img is missing\n"));
    fs::rename(&aside, c.images().join("core-1.img")).unwrap();
    let pages = names
        .iter()
        .find(|name| name.starts_with("pages-") && c.images().join(name).metadata().unwrap().len() > 1 << 20);
    let pages = c.images().join(pages.unwrap());
    fs::File::options().write(true).open(&pages).unwrap().set_len(4096).unwrap();
    let obstacle = told(&c)["obstacles"][0].as_str().unwrap().to_owned();
    assert!(obstacle.contains("has 4096 bytes instead of"), "{obstacle}");
}

#[test]
fn an_image_that_is_broken_is_one_line() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let c = everything(|bundle| bundle);
    c.checkpoint(&["--tcp-established", "--file-locks"]).ok();
    let images: Vec<PathBuf> = fs::read_dir(c.images()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut refused = 0;
    for path in &images {
        let whole = fs::read(path).unwrap();
        if whole.len() > 1 << 20 {
            continue;
        }
        // Cut at several places, and with bytes exchanged: what cannot be read is an error, and nothing panics.
        let step = whole.len() / 9 + 1;
        let cut = (0..whole.len()).step_by(step).map(|end| whole[..end].to_vec());
        let wrong = (0..whole.len()).step_by(step).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0xff;
            bytes
        });
        for bytes in cut.chain(wrong) {
            fs::write(path, bytes).unwrap();
            if let Err(err) = inspect(&c.images(), 4096) {
                let words = err.to_string();
                assert!(
                    !words.contains('\n') && words.contains(c.images().to_str().unwrap()),
                    "{}: {words}",
                    path.display()
                );
                refused += 1;
            }
        }
        fs::write(path, whole).unwrap();
    }
    assert!(refused > 100, "only {refused}");
    fs::write(c.images().join("files.img"), "not an image").unwrap();
    let said = c.runtime.cmd(&["inspect-image", c.images().to_str().unwrap()]).exits(1);
    assert!(said.stderr.lines().count() == 1 && said.stdout.is_empty(), "{said}");
    c.runtime.cmd(&["inspect-image", c.bundle()]).exits(1).stderr_contains("holds no checkpoint: no inventory.img");
    c.runtime.cmd(&["inspect-image", "/nonexistent"]).exits(1).stderr_contains("no such file or directory");
}

#[test]
fn images_of_runc_are_told_too() {
    requires!(root, criu, runc);
    ours_only!("runc has no inspect-image");
    let c = Checkpointed::of(Bundle::new(&["everything"]).program("everything"));
    let images = c.images();
    let runc = |args: &[&str]| {
        let mut command = Command::new("runc");
        command.arg("--root").arg(c.place.path().join("runc")).args(args).stdin(Stdio::null()).stderr(Stdio::null());
        command.current_dir(c.place.path());
        command.stdout(Stdio::null()).status().unwrap().success()
    };
    assert!(runc(&["run", "--detach", "--bundle", c.bundle(), c.runtime.id()]));
    wait_until("it has everything", || runc(&["exec", c.runtime.id(), "test", "-s", "/dev/shm/ready"]));
    let images_text = images.to_str().unwrap();
    let dumped =
        runc(&["checkpoint", "--image-path", images_text, "--tcp-established", "--file-locks", c.runtime.id()]);
    runc(&["delete", "--force", c.runtime.id()]);
    assert!(dumped);
    let image = told(&c);
    assert_eq!((&image["stasis"], &image["ipcMode"], &image["container"]), (&Value::Null, &Value::Null, &Value::Null));
    assert_eq!((&image["restorable"], &image["obstacles"]), (&json!(true), &json!([])), "{image:#}");
    assert_eq!(process(&image, "alive", 1)["command"], "everything");
    assert_eq!(image["needs"]["options"], json!(["--tcp-established", "--file-locks"]));
    assert!(text(&c, &[]).contains("Made by           another runtime with criu 4"));
}

#[test]
fn what_only_our_images_hold_is_told_and_not_asked_for() {
    requires!(root, criu);
    ours_only!("runc has no inspect-image");
    let bundle = Bundle::new(&["mq_keeper"]).program("mq_keeper").capable(&["CAP_CHOWN"]);
    let c = Checkpointed::of(bundle);
    let log = c.place.path().join("log");
    let mut command = c.runtime.command(&["run", "--detach", "--bundle", c.bundle(), c.runtime.id()]);
    command.stdout(fs::File::create(&log).unwrap()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    wait_until("it has its queues", || c.runtime.exec(&["cat", "/dev/shm/status"]).text() == "ok 1");
    c.checkpoint(&[]).ok();
    let image = told(&c);
    assert_eq!((&image["restorable"], &image["needs"]["files"]), (&json!(true), &json!([])), "{image:#}");
    assert!(!image["needs"]["mounts"].as_array().unwrap().contains(&json!("/dev/mqueue")), "{}", image["needs"]);
    assert_eq!(image["hostFiles"][0]["path"], log.to_str().unwrap());
    assert_eq!((&image["hostFiles"][0]["numbers"], &image["standardStreams"][1]), (&json!([1]), &json!(log)));
    let queues = image["messageQueues"]["queues"].as_array().unwrap();
    let all = queues.iter().find(|queue| queue["name"] == "all").unwrap();
    assert_eq!(all["messages"], 6);
    let told = text(&c, &[]);
    assert!(told.contains(&format!("Message queues    queues: {}", queues.len())), "{told}");
    assert!(told.contains(&format!("File of the host  {}", log.display())), "{told}");
    fs::remove_file(c.images().join(image["messageQueues"]["archive"].as_str().unwrap())).unwrap();
    assert!(text(&c, &[]).contains("Restorable here   no: "));
}
