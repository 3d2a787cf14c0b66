//! The part `memory`: what a container's own limit has to have room for.

use std::fs;

use crate::bundle::{Config, Shared};
use crate::contestant::Contestant;
use crate::report::Memory;
use crate::{Result, unless_peer};

const CONTROLLER: &str = "/sys/fs/cgroup/memory";
/// Between which limits, in KiB, the smallest one lies, and how close it is looked for.
const LIMITS: (u64, u64, u64) = (64, 65536, 32);
/// How often a program has to run under a limit: what is charged varies from one start to the next.
const TRIES: usize = 3;

/// Measures all runtimes.
pub fn part(shared: &Shared) -> Result<Vec<Memory>> {
    if !fs::exists(CONTROLLER)? {
        println!("note: no memory controller in this layout; nothing is measured");
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    println!("{:14}{:>14}{:>14}", "", "charged KiB", "least limit");
    for contestant in Contestant::all(shared)?.iter().filter(|one| !one.is_floor() && !one.only_runs()) {
        if let Some(memory) = unless_peer(contestant, measure(shared, contestant))? {
            println!("{:14}{:>14}{:>14}", memory.name, memory.charged_kib, memory.least_limit_kib);
            found.push(memory);
        }
    }
    println!();
    Ok(found)
}

fn measure(shared: &Shared, contestant: &Contestant) -> Result<Memory> {
    let id = contestant.id(0);
    contestant.write_config(shared, Config::Default, &["/bin/true"], &id)?;
    contestant.run(&["create", "--pid-file", "PID-FILE", "ID"], &id)?;
    let charged = fs::read_to_string(format!("{CONTROLLER}/{id}/memory.max_usage_in_bytes"));
    contestant.run(&["delete", "--force", "ID"], &id)?;
    crate::measure::wait(contestant.pid(&id)?)?;
    let (mut too_small, mut enough, step) = LIMITS;
    while enough - too_small > step {
        let limit = u64::midpoint(too_small, enough);
        if (0..TRIES).all(|_| runs_under(shared, contestant, limit)) {
            enough = limit;
        } else {
            too_small = limit;
        }
    }
    let charged_kib = charged?.trim().parse::<u64>()? / 1024;
    Ok(Memory { name: contestant.name.to_owned(), charged_kib, least_limit_kib: enough })
}

/// Says whether /bin/true runs under a limit.
fn runs_under(shared: &Shared, contestant: &Contestant, limit_kib: u64) -> bool {
    let id = contestant.id(0);
    let written = shared.write_limited(&contestant.bundle(), &["/bin/true"], &format!("/{id}"), limit_kib << 10);
    let ran = written.and_then(|()| contestant.run(&["run", "ID"], &id)).is_ok();
    // A start that failed may have left what the next one would trip over.
    if !ran {
        let _ = contestant.run(&["delete", "--force", "ID"], &id);
    }
    ran
}
