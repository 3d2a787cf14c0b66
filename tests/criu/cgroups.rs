//! Cgroups: which a restored container is in, what they limit, and that those of others are left alone.

use crate::support::{Bundle, Layout};
use crate::{COUNTER, Checkpointed, requires};
use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup of nobody's, for as long as this lives.
struct Neighbour(PathBuf);

impl Neighbour {
    fn new(hierarchy: &Path, c: &Checkpointed) -> Self {
        let this = Self(hierarchy.join(format!("{}-neighbour", c.runtime.id())));
        fs::create_dir(&this.0).unwrap();
        this
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // A test may have removed it already.
        let _gone = fs::remove_dir(&self.0);
    }
}

#[test]
fn those_of_others_do_not_come_back() {
    requires!(root, criu, cgroup_v1, cgroup_v2);
    crate::ours_only!("other runtimes restore whatever CRIU has dumped");
    // In the hierarchies that it is not shown a container is in the topmost cgroup, with everybody else.
    for (layout, others) in [(Layout::V1, "unified"), (Layout::V2, "freezer")] {
        let c = Checkpointed::run(Bundle::sh(COUNTER).layout(layout));
        let neighbour = Neighbour::new(&Path::new("/sys/fs/cgroup").join(others), &c);
        c.checkpoint(&[]).ok();
        fs::remove_dir(&neighbour.0).unwrap();
        c.restore(&[]).ok();
        c.counts();
        assert!(!neighbour.0.exists(), "{}", neighbour.0.display());
    }
}
