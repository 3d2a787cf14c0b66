//! Redis: its keys are in its memory and nowhere else.

use crate::database::{Database, Shm};
use crate::support::wait_until;

/// How much it holds, in MiB; `REDIS_MIB=1024` makes it a gigabyte.
fn size() -> u32 {
    std::env::var("REDIS_MIB").map_or(256, |text| text.parse().unwrap())
}

fn client(database: &Database, words: &[&str]) -> String {
    database.program(&[&["redis-cli", "-s", "/tmp/redis"], words].concat()).ok().text().to_owned()
}

#[test]
fn keys_and_connections_survive() {
    requires!(root, criu, databases);
    let server =
        "redis-server --port 0 --unixsocket /tmp/redis --save '' --enable-debug-command yes --dir /tmp >/tmp/log &
        until [ \"$(redis-cli -s /tmp/redis ping)\" = PONG ]; do sleep 0.05; done";
    let programs = [server, "redis-cli -s /tmp/redis"];
    let database = Database::start(Shm::Private, 0, programs, |number| format!("echo 'end {number}'"));
    // Values of 64 KiB, each its own.
    let fill =
        format!("for i = 1, {} do redis.call('set', 'key' .. i, string.rep(redis.sha1hex(i), 1638)) end", size() * 16);
    client(&database, &["eval", &fill, "0"]);
    let used: u64 = client(&database, &["info", "memory"])
        .lines()
        .find_map(|line| line.strip_prefix("used_memory:"))
        .map(|text| text.trim().parse().unwrap())
        .unwrap();
    assert!(used >= u64::from(size()) << 20, "{used}");
    let digest = client(&database, &["debug", "digest"]);
    assert!(digest.len() == 40 && digest.contains(|c| c != '0'), "{digest}");
    let connection = database.ask("client id");
    // What it says in a transaction is done at the transaction's end.
    let transaction = database.tell("multi\nset transaction done");
    wait_until("the transaction is open", || client(&database, &["client", "list"]).contains(" flags=x"));

    database.round_trip();
    assert_eq!(client(&database, &["debug", "digest"]), digest);
    database.tell("exec");
    assert_eq!(database.answer(transaction), "OK\nQUEUED\nQUEUED\nOK");
    assert_eq!(database.ask("client id"), connection);
    assert_eq!(client(&database, &["get", "transaction"]), "done");
}
