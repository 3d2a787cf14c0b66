//! Paths of a configuration that would lead out of the container through a descriptor of the runtime (CVE-2024-21626).

use crate::support::Bundle;

/// Paths to the host's root by way of any descriptor that may be open while a process is made.
fn ways_out() -> impl Iterator<Item = String> {
    (3..32).map(|number| format!("/proc/self/fd/{number}/../../../../../../.."))
}

/// What is said of a descriptor that is closed, and of one that is no directory.
const NOT_FOUND: [&str; 2] = ["no such file or directory", "not a directory"];

#[test]
fn a_program_is_not_found_through_a_descriptor() {
    for way in ways_out() {
        Bundle::new(&[&format!("{way}/usr/bin/env")]).run().fails().stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_program_of_exec_is_not_found_through_a_descriptor() {
    let c = Bundle::sleep().start();
    for way in ways_out() {
        c.exec(&[&format!("{way}/usr/bin/env")]).exits(255).stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_working_directory_is_not_found_through_a_descriptor() {
    for way in ways_out() {
        let bundle = Bundle::new(&["/bin/true"]).with(|c| c["process"]["cwd"] = way.into());
        bundle.run().fails().stderr_contains_any(&NOT_FOUND);
    }
}

#[test]
fn a_working_directory_of_exec_is_not_found_through_a_descriptor() {
    let c = Bundle::sleep().start();
    for way in ways_out() {
        c.exec_with(&["--cwd", &way], &["/bin/true"]).exits(255).stderr_contains_any(&NOT_FOUND);
    }
}
