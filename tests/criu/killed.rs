//! The runtime killed at any moment of a checkpoint: the container goes on, or there is an image of it that is complete.
//! Never is there neither, and nothing stays frozen.
//!
//! `KILL_POINTS` says how many moments are tried, spread evenly over the time that a checkpoint takes (8 unless set).

use crate::shm_shared::keeper;
use crate::support::{HostTmpfs, wait_until};
use crate::{Checkpointed, ours_only, requires};
use std::fs;
use std::os::fd::AsFd;
use std::process::Stdio;
use std::time::{Duration, Instant};

use stasis::sys::pidfd;

#[test]
fn neither_the_container_nor_its_image_is_lost() {
    requires!(root, criu);
    ours_only!("other runtimes have no image that is complete by itself");
    let points = std::env::var("KILL_POINTS").map_or(8, |text| text.parse::<u32>().unwrap());
    let shm = HostTmpfs::new();
    let c = Checkpointed::run(keeper("", shm.path()));
    shm.keeps(1);
    // The archive takes its time as well, so that moments fall into it.
    fs::write(shm.path().join("more"), vec![7; 30 << 20]).unwrap();
    let start = Instant::now();
    c.checkpoint(&["--leave-running"]).ok();
    let whole = start.elapsed();
    let (mut went_on, mut complete) = (0, 0);
    for point in 0..=points {
        _ = fs::remove_dir_all(c.images());
        kill_after(&c, whole.mul_f64(f64::from(point) / f64::from(points) * 1.2));
        if c.runtime.cmd(&["state", c.runtime.id()]).code == 0 && c.runtime.status() != "stopped" {
            went_on += 1;
            wait_until("it is not frozen", || c.runtime.status() == "running");
        } else {
            complete += 1;
            c.runtime.cmd(&["delete", "--force", c.runtime.id()]).ok();
            c.runtime.leaves_nothing();
            shm.renew();
            c.restore(&[]).ok();
        }
        shm.keeps(2);
    }
    assert!(went_on > 0 && went_on + complete == points + 1, "{went_on} went on, of {complete} there was an image");
}

/// Begins a checkpoint, kills the runtime after a while, and waits until CRIU has noticed.
pub fn kill_after(c: &Checkpointed, delay: Duration) {
    let mut checkpoint = c.line("checkpoint", &[]);
    checkpoint.stdout(Stdio::null()).stderr(Stdio::null());
    let mut runtime = checkpoint.spawn().unwrap();
    std::thread::sleep(delay);
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", runtime.id())).unwrap_or_default();
    let children: Vec<_> =
        children.split_ascii_whitespace().filter_map(|pid| pidfd::open(pid.parse().unwrap()).ok()).collect();
    runtime.kill().unwrap();
    runtime.wait().unwrap();
    for child in children {
        assert!(pidfd::wait_ended(child.as_fd(), 60_000).unwrap());
    }
}
