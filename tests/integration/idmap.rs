//! Id-mapped mounts: whose the files of the host are in the container, and whose those become that it makes there.

use crate::support::{Bundle, Runtime};
use crate::{ours_only, requires};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

/// What shows the owner of a file in each mount.
const OWNERS: &str = "for d in /tmp/*; do stat -c %n:%u:%g $d/file; done; stat -c below:%u:%g /tmp/*/below/file";

/// A bundle with a directory of the host: a file of user 100 and group 200 in it, and a mount of its own with another.
fn with_source(bundle: Bundle) -> Bundle {
    bundle.prepare(|dir| {
        fs::create_dir_all(dir.join("source/below")).unwrap();
        for name in ["source/file", "source/below/file"] {
            fs::write(dir.join(name), "content").unwrap();
            chown(dir.join(name), Some(100), Some(200)).unwrap();
        }
    })
}

/// Adds a mount of that directory.
fn mapped(bundle: Bundle, name: &str, options: &[&str], maps: Option<(Value, Value)>) -> Bundle {
    let bundle = bundle.mount(&format!("/tmp/{name}"), "none", "source", options);
    bundle.with(|config| {
        config["root"]["readonly"] = json!(false);
        if let Some((users, groups)) = maps {
            let mount = config["mounts"].as_array_mut().unwrap().last_mut().unwrap();
            mount["uidMappings"] = users;
            mount["gidMappings"] = groups;
        }
    })
}

fn map(inside: u32, outside: u32, size: u32) -> Value {
    json!([{"containerID": inside, "hostID": outside, "size": size}])
}

#[test]
fn each_mount_has_ids_of_its_own() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    let bundle = with_source(Bundle::sh(OWNERS));
    let bundle = mapped(bundle, "a", &["bind"], Some((map(100, 1000, 1), map(200, 5000, 9))));
    let bundle = mapped(bundle, "b", &["bind"], Some((map(50, 7000, 100), map(0, 0, 1000))));
    let bundle = mapped(bundle, "c", &["bind"], None);
    let text = bundle.run().ok();
    text.stdout_contains("/tmp/a/file:1000:5000")
        .stdout_contains("/tmp/b/file:7050:200")
        .stdout_contains("/tmp/c/file:100:200");
}

#[test]
fn ids_are_those_of_the_containers_users() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    for option in ["idmap", "idmap=uids=@100-1-1;gids=@200-2-1"] {
        let bundle = with_source(Bundle::sh(OWNERS).user_namespace(300_000));
        let text = mapped(bundle, "a", &["bind", option], None).run().ok();
        text.stdout_contains(if option == "idmap" { "/tmp/a/file:100:200" } else { "/tmp/a/file:1:2" });
    }
    // Not mapped, it is nobody's.
    let bundle = with_source(Bundle::sh(OWNERS).user_namespace(300_000));
    mapped(bundle, "a", &["bind"], None).run().ok().stdout_contains("/tmp/a/file:65534:65534");
}

#[test]
fn ids_are_those_of_a_joined_user_namespace() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    let owner = Bundle::sleep().user_namespace(300_000).start();
    let path = format!("/proc/{}/ns/user", owner.pid());
    let bundle = with_source(Bundle::sh(OWNERS)).namespace("user", Some(path.as_ref()));
    mapped(bundle, "a", &["bind", "idmap"], None).run().ok().stdout_contains("/tmp/a/file:100:200");
}

#[test]
fn files_are_made_as_the_map_says() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    let bundle = with_source(Bundle::sh("echo new >/tmp/a/new; stat -c %u:%g /tmp/a/new").user_namespace(300_000));
    let c = Runtime::new(mapped(bundle, "a", &["bind", "idmap"], None));
    let source = c.bundle().path().join("source");
    chown(&source, Some(0), Some(0)).unwrap();
    c.run().ok().prints("0:0");
    let made = fs::metadata(source.join("new")).unwrap();
    assert_eq!((made.uid(), made.gid()), (0, 0));
}

#[test]
fn what_is_mounted_below_is_mapped_when_it_is_asked_for() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    for (option, below) in [("idmap", "below:100:200"), ("ridmap", "below:1000:2000")] {
        let bundle = with_source(Bundle::sh(OWNERS));
        let bundle = mapped(bundle, "a", &["rbind", option], Some((map(100, 1000, 1), map(200, 2000, 1))));
        let below_source = bundle.path().join("source/below");
        let status = std::process::Command::new("mount").arg("--bind").args([&below_source, &below_source]).status();
        assert!(status.unwrap().success());
        let shown = bundle.run();
        let status = std::process::Command::new("umount").arg(&below_source).status();
        shown.ok().stdout_contains("/tmp/a/file:1000:2000").stdout_contains(below);
        assert!(status.is_ok());
    }
}

#[test]
fn wrong_maps_are_refused_before_anything_is_made() {
    requires!(root);
    ours_only!("runc 1.1 has none");
    let refused = |options: &[&str], maps, words: &str| {
        let c = Runtime::new(mapped(with_source(Bundle::sleep()), "a", options, maps));
        c.create().fails().stderr_contains(words);
        c.leaves_nothing();
    };
    let incomplete = "mount /tmp/a: id-mapped mounts must have both uid and gid mappings specified";
    refused(&["bind", "idmap"], None, incomplete);
    refused(&["bind"], Some((map(0, 1, 1), json!([]))), incomplete);
    refused(&["bind", "idmap=uids=1"], None, "mount /tmp/a: invalid mapping \"1\" of mount option idmap");
    let c = Bundle::sleep().mount("/tmp/a", "tmpfs", "tmpfs", &["idmap"]);
    Runtime::new(c)
        .create()
        .fails()
        .stderr_contains("mount /tmp/a: id-mapped mounts are only supported for bind-mounts");
}
