//! Many checkpoints and restores, one after the other, leave nothing: what there is before is what there is after.
//!
//! `LEAK_CYCLES` says how many (5 unless set; the project's bar is 200).

use crate::shm_shared::keeper;
use crate::support::{HostTmpfs, cycles};
use crate::{Checkpointed, ours_only, requires};

#[test]
fn cycles_of_checkpoint_and_restore_leave_nothing() {
    requires!(root, criu);
    let c = Checkpointed::counter();
    c.round_trip();
    c.checkpoint(&[]).ok();
    c.runtime.leaves_nothing();
    let before = c.runtime.counts();
    for _ in 0..cycles(5) {
        c.restore(&[]).ok();
        c.counts();
        c.checkpoint(&[]).ok();
    }
    c.runtime.leaves_nothing();
    assert_eq!(c.runtime.counts(), before);
}

#[test]
fn cycles_change_nothing_of_what_a_container_has() {
    requires!(root, criu);
    ours_only!("other runtimes lose what is in /dev/shm");
    let shm = HostTmpfs::new();
    let c = Checkpointed::run(keeper("", shm.path()));
    let mut round = shm.keeps(1);
    let counts = || (c.runtime.counts(), shm.path().read_dir().unwrap().count());
    let before = counts();
    for _ in 0..cycles(5) {
        c.checkpoint(&[]).ok();
        c.runtime.leaves_nothing();
        shm.renew();
        c.restore(&[]).ok();
        let now = shm.keeps(2);
        assert!(now >= round + 2);
        round = now;
    }
    assert_eq!(counts(), before);
}
