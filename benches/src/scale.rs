//! The part `scale`: what takes longer the more there is of it.

use std::time::Instant;

use crate::bundle::{Config, Shared};
use crate::contestant::{Alive, Contestant};
use crate::measure::{self, Sample, Streams};
use crate::report::Section;
use crate::{Options, Result, rounds, unless_peer};

/// How many containers are alive.
const ALIVE: [usize; 4] = [1, 10, 100, 1000];
/// How many are made at once.
const AT_ONCE: usize = 8;
/// The number of a container that is beside those.
const NEXT: usize = 100_000;
/// What is measured beside them, and for which container.
const VERBS: [(&str, &[&str], usize); 3] =
    [("run", &["run", "ID"], NEXT), ("state", &["state", "ID"], 0), ("list", &["list"], 0)];

/// Measures starts beside many containers, lists of them, and many creates at once.
pub fn part(options: &Options, shared: &Shared) -> Result<Vec<Section>> {
    let contestants = Contestant::all(shared)?;
    let able: Vec<_> = contestants.iter().filter(|one| !one.only_runs() && !one.is_floor()).collect();
    let floor = contestants.iter().find(|one| one.is_floor());
    let titles = cells().map(|(count, (verb, ..))| format!("{verb}, {count} alive"));
    let mut sections: Vec<Section> = titles.map(|title| section(&title)).collect();
    for contestant in &able {
        let floor = floor.filter(|_| !contestant.is_peer());
        unless_peer(contestant, beside_its_own(options, shared, (contestant, floor), &mut sections))?;
    }
    let all = able.into_iter().map(|contestant| (contestant, ())).collect();
    let mut together = section(&format!("create, {AT_ONCE} at once"));
    fill(&mut together, rounds(all, options, |contestant, _| at_once(shared, contestant))?);
    sections.push(together);
    sections.iter().for_each(|section| println!("{}", section.table()));
    Ok(sections)
}

fn section(title: &str) -> Section {
    Section::new(title, "default", "floor")
}

fn fill<T>(section: &mut Section, samples: Vec<(&Contestant, T, Vec<Sample>)>) {
    for (contestant, _, samples) in samples {
        section.add(contestant, samples, None);
    }
}

/// Returns how many are alive and what is measured then, for each section.
fn cells() -> impl Iterator<Item = (usize, (&'static str, &'static [&'static str], usize))> {
    ALIVE.into_iter().flat_map(|count| VERBS.into_iter().map(move |verb| (count, verb)))
}

/// Measures a contestant beside containers of its own, which are more and more, and the floor, if given, beside them too.
fn beside_its_own(
    options: &Options,
    shared: &Shared,
    (contestant, floor): (&Contestant, Option<&Contestant>),
    sections: &mut [Section],
) -> Result<()> {
    let mut alive = Vec::new();
    for ((count, (verb, words, number)), section) in cells().zip(sections) {
        if alive.len() < count {
            while alive.len() < count {
                alive.push(start(shared, contestant, alive.len())?);
            }
            contestant.write_config(shared, Config::Default, &["/bin/true"], &contestant.id(NEXT))?;
        }
        let floor = floor.filter(|_| verb == "run").map(|floor| (floor, &["run", "ROOTFS"][..]));
        let entries = std::iter::once((contestant, words)).chain(floor).collect();
        let sample = |contestant: &Contestant, words: &&[&str]| contestant.run(words, &contestant.id(number));
        fill(section, rounds(entries, options, sample)?);
    }
    Ok(())
}

fn start<'a>(shared: &Shared, contestant: &'a Contestant, number: usize) -> Result<Alive<'a>> {
    let id = contestant.id(number);
    contestant.write_config(shared, Config::Default, &["sleep", "100000"], &id)?;
    contestant.start(contestant, id)
}

/// Makes several containers at the same time, and removes them.
fn at_once(shared: &Shared, contestant: &Contestant) -> Result<Sample> {
    let ids: Vec<String> = (0..AT_ONCE).map(|number| contestant.id(number)).collect();
    let create = |id: &String| -> Result<_> {
        // Without a path for its cgroup, crun would take the root of cgroup2 for that of the container.
        contestant.write_config(shared, Config::Default, &["/bin/true"], id)?;
        let bundle = contestant.copy_bundle(id)?;
        let mut command = contestant.command(&["create", "--bundle", &bundle, "--pid-file", "PID-FILE", "ID"], id)?;
        measure::connect(&mut command, Streams::File(&contestant.output()))?;
        Ok(command)
    };
    let commands = ids.iter().map(create).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let children = commands.into_iter().map(|mut command| Ok(command.spawn()?.id())).collect::<Result<Vec<u32>>>()?;
    let mut ended = Vec::new();
    for child in children {
        ended.push(measure::wait(child)?);
    }
    let mut sum = Sample { wall: start.elapsed(), ..Sample::default() };
    for (status, usage) in ended {
        if !status.success() {
            return Err(format!("{} create ended with {status}", contestant.name).into());
        }
        sum = sum.and(Sample::counted(&usage)?);
    }
    for id in &ids {
        contestant.run(&["delete", "--force", "ID"], id)?;
        measure::wait(contestant.pid(id)?)?;
    }
    Ok(sum)
}
