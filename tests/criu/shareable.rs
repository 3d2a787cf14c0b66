//! Shareable containers of `spec --ipc shareable`: the tmpfs that the runtime mounted for the first one is not the
//! restored one's.

use crate::support::Bundle;
use crate::{COUNTER, Checkpointed, ours_only, requires};
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

fn shareable(script: &str) -> Bundle {
    Bundle::sh(script).with(|config| config["annotations"] = json!({"org.stasis.ipc": "shareable"}))
}

/// Returns where the /dev/shm of a container is mounted outside.
fn outside(c: &Checkpointed) -> PathBuf {
    c.runtime.root().join(c.runtime.id()).join("shm")
}

#[track_caller]
fn keeps(c: &Checkpointed, more: u32) -> u32 {
    crate::keeps(more, || std::fs::read_to_string(outside(c).join("status")).unwrap_or_default())
}

fn keeper() -> Bundle {
    crate::keeper("").with(|config| config["annotations"] = json!({"org.stasis.ipc": "shareable"}))
}

#[test]
fn a_restored_shareable_container_has_a_shm_of_its_own() {
    requires!(root, criu);
    ours_only!("runc does not know the annotation");
    let c = Checkpointed::run(keeper());
    let before = keeps(&c, 2);
    c.checkpoint(&["--leave-running"]).ok();
    let clone = Checkpointed::of(keeper());
    let its_file = |c: &Checkpointed| c.runtime.bundle().rootfs().join("keeper");
    std::fs::copy(its_file(&c), its_file(&clone)).unwrap();
    clone.restore(&["--image-path", c.images().to_str().unwrap()]).ok();
    assert!(keeps(&clone, 3) >= before + 3);
    keeps(&c, 3);
    let device = |c: &Checkpointed| outside(c).metadata().unwrap().dev();
    assert_ne!(device(&c), device(&clone));
    for c in [&c, &clone] {
        assert_eq!(c.runtime.state()["ipc"], "shareable");
    }
    // The first one is no more, and comes back under its own name.
    c.checkpoint(&[]).ok();
    c.runtime.leaves_nothing();
    c.restore(&[]).ok();
    keeps(&c, 3);
    for c in [&c, &clone] {
        c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
        c.runtime.leaves_nothing();
    }
}

#[test]
fn a_failed_restore_takes_the_shm_away() {
    requires!(root, criu);
    ours_only!("runc does not know the annotation");
    let c = Checkpointed::run(shareable(COUNTER));
    c.checkpoint(&[]).ok();
    std::fs::remove_file(c.images().join("inventory.img")).unwrap();
    c.restore(&[]).fails();
    c.runtime.leaves_nothing();
}
