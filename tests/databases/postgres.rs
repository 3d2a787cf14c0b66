//! PostgreSQL: tables in shared buffers, a transaction of an open session, and a query whose parallel workers talk through
//! /dev/shm, all in the middle of a checkpoint.

use crate::database::{Database, Shm};
use crate::support::wait_until;

/// Lets a query come to an end once there is a file.
const GATE: &str = "create function gate() returns boolean language plpgsql volatile parallel safe as $$ begin \
    while (pg_stat_file('/tmp/go', true)).size is null loop perform pg_sleep(0.02); end loop; return true; end $$";

/// How many rows the table has.
const ROWS: u32 = 50_000;

/// Reads the whole table.
const SUM: &str = "select count(*), md5(string_agg(word, '' order by n)) from words";

/// Starts a server with nothing on disk that it could keep in memory, and a session.
fn start(shm: Shm, settings: &[&str]) -> Database {
    let usual = [
        "listen_addresses=",
        "unix_socket_directories=/tmp",
        "dynamic_shared_memory_type=posix",
        // What is in the buffers stays there.
        "checkpoint_timeout=1h",
        "bgwriter_lru_maxpages=0",
        "max_parallel_workers_per_gather=2",
        "min_parallel_table_scan_size=0",
        "parallel_setup_cost=0",
        "parallel_tuple_cost=0",
        "jit=off",
    ];
    let settings: String = usual.iter().chain(settings).map(|setting| format!(" -c {setting}")).collect();
    let server = format!(
        "initdb --pgdata=/data/cluster --no-sync --auth=trust --username=postgres --locale=C --encoding=UTF8 >/tmp/log 2>&1
        postgres -D /data/cluster{settings} >>/tmp/log 2>&1 &
        until pg_isready -q -h /tmp; do sleep 0.05; done"
    );
    let client = "psql -h /tmp -U postgres -qAtX";
    let database = Database::start(shm, 1000, [&server, client], |number| format!("\\echo end {number}"));
    let fill = format!(
        "create table words as select n, md5(n::text) || repeat('x', 100) as word from generate_series(1, {ROWS}) as n;"
    );
    database.ask(&format!("{fill}\n{GATE};"));
    database
}

/// Asks in a connection of its own.
#[track_caller]
fn ask_anew(database: &Database, statement: &str) -> String {
    database.program(&["psql", "-h", "/tmp", "-U", "postgres", "-qAtXc", statement]).ok().text().to_owned()
}

#[track_caller]
fn expect_to_go_on(database: &Database) {
    let sum = ask_anew(database, SUM);
    assert!(sum.starts_with(&ROWS.to_string()), "{sum}");
    let session = database.ask("select pg_backend_pid();");
    database
        .ask("begin; insert into words values (0, 'in between'); create temporary table own as select 42 as answer;");
    let transaction = database.ask("select txid_current();");
    // A query of another session, which is halfway through.
    let script = "psql -h /tmp -U postgres -qAtXc 'select count(*), sum(n) from words where n <= 3000 and gate()' \
        >/tmp/gated 2>&1 &";
    database.sh(script).ok();
    let workers = "select count(*) from pg_stat_activity where backend_type = 'parallel worker'";
    wait_until("the query has its workers", || ask_anew(database, workers) == "2");
    let backends = "select string_agg(pid || backend_type, ',' order by pid) from pg_stat_activity \
        where backend_type <> 'client backend' and backend_type not like 'autovacuum worker'";
    let running = ask_anew(database, backends);

    for _ in 0..2 {
        database.round_trip();
        assert_eq!(ask_anew(database, backends), running);
        assert_eq!(ask_anew(database, SUM), sum);
        assert_eq!(database.ask("select pg_backend_pid();"), session);
        assert_eq!(database.ask("select txid_current();"), transaction);
        assert_eq!(database.ask("select answer, word from own, words where n = 0;"), "42|in between");
    }

    database.ask("commit;");
    assert_eq!(ask_anew(database, "select word from words where n = 0"), "in between");
    assert_eq!(database.sh("cat /tmp/gated").ok().text(), "");
    database.sh("touch /tmp/go").ok();
    wait_until("the query ends", || database.sh("cat /tmp/gated").text() == "3000|4501500");
    // What was in memory alone is written now; and nothing was amiss.
    ask_anew(database, "checkpoint");
    let log = database.sh("cat /tmp/log").ok().stdout;
    let log = log.split("ready to accept connections").last().unwrap();
    assert!(!["PANIC", "FATAL", "ERROR", "WARNING"].iter().any(|word| log.contains(word)), "{log}");
}

#[test]
fn private_shared_memory() {
    requires!(root, criu, databases);
    ours_only!("in a user namespace CRIU may not read the images of other runtimes");
    let database = start(Shm::Private, &[]);
    assert!(database.has_shm_file("PostgreSQL."));
    expect_to_go_on(&database);
}

#[test]
fn shareable_shared_memory() {
    requires!(root, criu, databases);
    ours_only!("other runtimes lose it, and fail with a file of it open");
    let database = start(Shm::Shareable, &[]);
    assert!(database.has_shm_file("PostgreSQL."));
    expect_to_go_on(&database);
}

#[test]
fn system_v_shared_memory() {
    requires!(root, criu, databases);
    ours_only!("in a user namespace CRIU may not read the images of other runtimes");
    let database = start(Shm::Private, &["shared_memory_type=sysv", "dynamic_shared_memory_type=sysv"]);
    assert!(!database.has_shm_file("PostgreSQL."));
    expect_to_go_on(&database);
}
