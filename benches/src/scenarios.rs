//! The part `scenarios`: each command of a container's life, with each kind of config.json, interleaved.

use std::path::Path;
use std::process::Command;

use crate::bundle::{Config, Shared};
use crate::contestant::{Alive, Contestant};
use crate::measure::{self, Sample, Streams};
use crate::report::Section;
use crate::terminal::Terminal;
use crate::{Options, Result, rounds, unless_peer};

/// A step of a scenario.
#[derive(Clone, Copy)]
enum Step {
    /// A command, which is measured.
    Command(&'static [&'static str]),
    /// Until the container's process has ended, which is not.
    End,
}

struct Scenario {
    name: &'static str,
    /// Whether its container runs before, and stays.
    alive: bool,
    /// Whether the commands have a terminal.
    terminal: bool,
    steps: &'static [Step],
    /// What the floor does instead.
    floor: &'static [Step],
    /// With which kinds of config.json.
    configs: &'static [Config],
}

use Config::{Default as Plain, Docker, DockerUserns, Large};
use Step::{Command as Do, End};

const SCENARIOS: [Scenario; 7] = [
    Scenario {
        name: "run",
        alive: false,
        terminal: false,
        steps: &[Do(&["run", "ID"])],
        floor: &[Do(&["run", "ROOTFS"])],
        configs: &[Plain, Docker, DockerUserns, Large],
    },
    Scenario {
        name: "create+start+delete",
        alive: false,
        terminal: false,
        steps: &[Do(&["create", "--pid-file", "PID-FILE", "ID"]), Do(&["start", "ID"]), End, Do(&["delete", "ID"])],
        floor: &[Do(&["run", "ROOTFS"])],
        configs: &[Plain, Docker, DockerUserns],
    },
    Scenario {
        name: "exec",
        alive: true,
        terminal: false,
        steps: &[Do(&["exec", "ID", "/bin/true"])],
        floor: &[Do(&["exec", "PID"])],
        configs: &[Plain, Docker, DockerUserns],
    },
    Scenario {
        name: "exec --tty",
        alive: true,
        terminal: true,
        steps: &[Do(&["exec", "--tty", "ID", "/bin/true"])],
        floor: &[Do(&["exec", "PID"])],
        configs: &[Plain, Docker],
    },
    Scenario {
        name: "state",
        alive: true,
        terminal: false,
        steps: &[Do(&["state", "ID"])],
        floor: &[Do(&["nothing"])],
        configs: &[Plain, Docker],
    },
    Scenario {
        name: "kill",
        alive: true,
        terminal: false,
        steps: &[Do(&["kill", "ID", "CONT"])],
        floor: &[Do(&["nothing"])],
        configs: &[Plain],
    },
    Scenario {
        name: "pause+resume",
        alive: true,
        terminal: false,
        steps: &[Do(&["pause", "ID"]), Do(&["resume", "ID"])],
        floor: &[Do(&["freeze", "PID"])],
        configs: &[Plain],
    },
];

/// Measures all of them.
pub fn part(options: &Options, shared: &Shared) -> Result<Vec<Section>> {
    let contestants = Contestant::all(shared)?;
    let terminal = Terminal::open()?;
    let mut sections = Vec::new();
    for config in [Plain, Docker, DockerUserns, Large] {
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.configs.contains(&config)) {
            let title = format!("{}, {} config", scenario.name, config.name());
            if options.wants(&title) {
                let able = prepare(options, shared, &contestants, &terminal, (config, scenario));
                let able = able.map_err(|error| format!("{title}: {error}"))?;
                let mut section = Section::new(scenario.name, config.name(), "floor");
                for (contestant, entry, samples) in rounds(able, options, |_, entry| entry.sample())? {
                    section.add(contestant, samples, entry.count_syscalls()?);
                }
                println!("{}", section.table());
                sections.push(section);
            }
        }
    }
    Ok(sections)
}

/// Returns who can take part, with the container that the scenario needs, warmed up.
fn prepare<'a>(
    options: &Options,
    shared: &Shared,
    contestants: &'a [Contestant],
    terminal: &'a Terminal,
    (config, scenario): (Config, &'a Scenario),
) -> Result<Vec<(&'a Contestant, Entry<'a>)>> {
    let stasis = contestants.iter().find(|one| one.name == "stasis").ok_or("no stasis")?;
    let args: &[&str] = if scenario.alive { &["sleep", "100000"] } else { &["/bin/true"] };
    let candidates = contestants.iter().filter(|one| {
        // The floor knows one config.json.
        (config == Plain || !one.is_floor()) && (scenario.name == "run" || !one.only_runs())
    });
    let mut able = Vec::new();
    for contestant in candidates {
        let ready = || -> Result<Entry> {
            let host = if contestant.is_floor() { stasis } else { contestant };
            let id = contestant.id(0);
            // One that failed in the scenario before may still be there.
            let _ = host.run(&["delete", "--force", "ID"], &id);
            host.write_config(shared, config, args, &id)?;
            let alive = scenario.alive.then(|| contestant.start(host, id.clone())).transpose()?;
            let entry = Entry { contestant, scenario, terminal, id, _alive: alive };
            (0..options.warmup.max(1)).try_for_each(|_| entry.sample().map(drop))?;
            Ok(entry)
        };
        if let Some(entry) = unless_peer(contestant, ready())? {
            able.push((contestant, entry));
        }
    }
    Ok(able)
}

/// A contestant in a scenario.
struct Entry<'a> {
    contestant: &'a Contestant,
    scenario: &'a Scenario,
    terminal: &'a Terminal,
    id: String,
    _alive: Option<Alive<'a>>,
}

impl Entry<'_> {
    /// Goes through the scenario once.
    fn sample(&self) -> Result<Sample> {
        let output = self.contestant.output();
        let streams = match self.scenario.terminal {
            true => Streams::Terminal(self.terminal),
            false => Streams::File(&output),
        };
        let mut sum = Sample::default();
        for &step in self.steps() {
            match step {
                Do(words) => sum = sum.and(measure::run(&mut self.contestant.command(words, &self.id)?, streams)?),
                End => drop(measure::wait(self.contestant.pid(&self.id)?)?),
            }
        }
        Ok(sum)
    }

    /// Counts the system calls of everybody who takes part. A tracer waits for all that it traces, so that commands
    /// which leave a container behind are not counted.
    fn count_syscalls(&self) -> Result<Option<u64>> {
        if self.scenario.terminal || self.steps().iter().any(|step| matches!(step, End)) {
            return Ok(None);
        }
        let report = self.contestant.output().with_file_name("syscalls");
        let mut sum = 0;
        for step in self.steps() {
            let Do(words) = step else { continue };
            let plain = self.contestant.command(words, &self.id)?;
            let mut traced = Command::new("strace");
            traced.args(["-f", "-c", "-o"]).arg(&report).arg(plain.get_program()).args(plain.get_args());
            traced.current_dir(self.contestant.bundle());
            measure::run(&mut traced, Streams::File(&self.contestant.output()))?;
            sum += total(&report)?;
        }
        Ok(Some(sum))
    }

    fn steps(&self) -> &[Step] {
        if self.contestant.is_floor() { self.scenario.floor } else { self.scenario.steps }
    }
}

/// Reads the number of calls from the last line of strace's summary: "100.00 SECONDS USECS/CALL CALLS [ERRORS] total".
fn total(report: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(report)?;
    let last = text.lines().rev().find(|line| line.trim_end().ends_with("total")).ok_or("strace counted nothing")?;
    let calls = last.split_whitespace().nth(3).ok_or("strace's summary has no calls")?;
    Ok(calls.parse()?)
}
