//! Many checkpoints and restores, one after the other, leave nothing: what there is before is what there is after.
//!
//! `LEAK_CYCLES` says how many (5 unless set; the project's bar is 50).

use crate::support::cycles;
use crate::{Checkpointed, requires};

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
