//! The keeper, tests/programs/shm_keeper.c: it has everything in /dev/shm that a program can have there, checks it again
//! and again, and says in /dev/shm/status what it has found.

use super::wait_until;

/// Waits until a keeper has checked everything at least `more` times, and returns how many times it has. `status` reads
/// its status file.
#[track_caller]
pub fn keeps(more: u32, status: impl Fn() -> String) -> u32 {
    let round = || {
        let status = status();
        let line = status.lines().next().unwrap_or_default().to_owned();
        let round = line.strip_prefix("ok ").and_then(|round| round.parse::<u32>().ok());
        assert!(round.is_some() || line.is_empty(), "{line}");
        round
    };
    let goal = round().unwrap_or(0) + more;
    wait_until("the keeper checks what it has", || round().is_some_and(|now| now >= goal));
    goal
}
