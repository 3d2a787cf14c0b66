//! Connections and network namespaces.

use crate::support::{Bundle, wait_until};
use crate::{Checkpointed, ours_only, requires};

#[test]
fn connections_survive_when_asked_for() {
    requires!(root, criu);
    ours_only!("other runtimes leave the loopback interface down");
    let script = "sleep 1000 | nc -l -p 5000 > /dev/shm/received & sleep 0.2; \
        while true; do echo line; sleep 0.05; done | nc 127.0.0.1 5000";
    let c = Checkpointed::run(Bundle::sh(script));
    let received = || c.runtime.exec_sh("wc -l < /dev/shm/received").text().parse::<u32>().unwrap_or(0);
    wait_until("lines come through", || received() > 3);
    let words = ["--tcp-established takes it along", "criu failed: type NOTIFY errno 0"];
    c.checkpoint(&[]).exits(1).stderr_contains_any(&words);
    assert!(received() > 3);
    c.checkpoint(&["--tcp-established"]).ok();
    c.restore(&["--tcp-established"]).ok();
    let before = received();
    wait_until("more lines come through", || received() > before + 3);
    c.runtime.exec(&["cat", "/sys/class/net/lo/flags"]).ok().prints("0x9");
}
