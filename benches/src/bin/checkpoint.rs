//! Checkpoint and restore: stasis, runc and bare criu on the same container, interleaved in one run.
//!
//! Three containers: a small one, one with much memory, and one with much in a /dev/shm of its own. "criu" is the program
//! alone, with the options that the container needs, on a container that stasis has made.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: checkpoint [--rounds N] [--memory MIB] [--shm MIB]
binaries: STASIS, RUNC, CRIU in the environment; runc and criu are looked up in PATH otherwise";
const CONTESTANTS: [&str; 3] = ["stasis", "runc", "criu"];
/// How long a container may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container that is dumped and restored.
struct Scenario {
    name: &'static str,
    program: Vec<String>,
    rounds: usize,
}

/// What one contestant took.
#[derive(Clone, Copy)]
struct Sample {
    dump: Duration,
    restore: Duration,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let done = match words.first().map(String::as_str) {
        Some("hog") => hog(&words[1..]),
        _ => bench(words.into_iter()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("checkpoint: {error}\n{USAGE}");
            ExitCode::FAILURE
        }
    }
}

/// Fills memory with what does not compress, and waits. This is the program of a container.
fn hog(words: &[String]) -> Result<()> {
    let mib: usize = words.first().ok_or("hog MIB")?.parse()?;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let memory: Vec<u64> = (0..mib << 17).map(|_| next()).collect();
    fs::write("/ready", memory.len().to_string())?;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        std::hint::black_box(&memory);
    }
}

fn bench(mut words: impl Iterator<Item = String>) -> Result<()> {
    let (mut rounds, mut memory, mut shm) = (10, 1024, 256);
    while let Some(word) = words.next() {
        let value: usize = words.next().ok_or_else(|| format!("{word} needs a value"))?.parse()?;
        match word.as_str() {
            "--rounds" => rounds = value,
            "--memory" => memory = value,
            "--shm" => shm = value,
            _ => return Err(format!("unknown option {word}").into()),
        }
    }
    let sh = |script: String| ["sh", "-c", &script].map(str::to_owned).to_vec();
    let large = rounds.div_ceil(3);
    let scenarios = [
        Scenario { name: "small", program: sh("touch /ready; exec sleep 1000".to_owned()), rounds },
        Scenario {
            name: "memory",
            program: vec!["/bin/hog".to_owned(), "hog".to_owned(), memory.to_string()],
            rounds: large,
        },
        Scenario {
            name: "shm",
            program: sh(format!("head -c {shm}m /dev/urandom >/dev/shm/x; touch /ready; exec sleep 1000")),
            rounds: large,
        },
    ];
    let directory = std::env::temp_dir().join(format!("stasis-checkpoint-{}", std::process::id()));
    fs::create_dir(&directory)?;
    let done =
        Place::new(directory.clone()).and_then(|place| scenarios.iter().try_for_each(|scenario| run(&place, scenario)));
    fs::remove_dir_all(&directory)?;
    done
}

/// Measures a scenario and prints its rows.
fn run(place: &Place, scenario: &Scenario) -> Result<()> {
    place.write_config(&scenario.program)?;
    let mut samples = vec![Vec::new(); CONTESTANTS.len()];
    // The first round is not counted.
    for round in 0..=scenario.rounds {
        for step in 0..CONTESTANTS.len() {
            let index = (round + step) % CONTESTANTS.len();
            let sample = place.sample(CONTESTANTS[index])?;
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    println!(
        "{} ({} rounds, ms)\n            dump: median     min  / runc  / criu   restore: median     min  / runc  / criu",
        scenario.name, scenario.rounds
    );
    for (name, own) in CONTESTANTS.iter().zip(&samples) {
        print!("{name:9}");
        for of in [|s: &Sample| s.dump, |s: &Sample| s.restore] {
            let times = sorted(own.iter().map(|sample| of(sample).as_secs_f64() * 1e3));
            let to = |index: usize| {
                let ratios =
                    own.iter().zip(&samples[index]).map(|(own, other)| of(own).as_secs_f64() / of(other).as_secs_f64());
                median(&sorted(ratios))
            };
            print!("{:16.1} {:7.1} {:7.2} {:7.2}", median(&times), times[0], to(1), to(2));
        }
        println!();
    }
    println!();
    Ok(())
}

/// The bundle, and where images and states are.
struct Place {
    directory: PathBuf,
    stasis: PathBuf,
}

impl Place {
    fn new(directory: PathBuf) -> Result<Self> {
        let rootfs = directory.join("bundle/rootfs");
        for folder in ["bin", "dev", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(folder))?;
        }
        let busybox = look_up("busybox").ok_or("no busybox found (install busybox-static)")?;
        fs::copy(busybox, rootfs.join("bin/busybox"))?;
        for name in ["sh", "sleep", "head", "touch"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
        }
        fs::copy(std::env::current_exe()?, rootfs.join("bin/hog"))?;
        fs::create_dir(directory.join("root"))?;
        Ok(Self { directory, stasis: program("stasis")?.canonicalize()? })
    }

    /// Writes what `stasis spec` writes, with another program.
    fn write_config(&self, program: &[String]) -> Result<()> {
        let bundle = self.directory.join("bundle");
        let config = bundle.join("config.json");
        if config.exists() {
            fs::remove_file(&config)?;
        }
        checked(Command::new(&self.stasis).arg("spec").current_dir(&bundle))?;
        let words: Vec<String> = program.iter().map(|word| format!("{word:?}")).collect();
        let text = fs::read_to_string(&config)?
            .replacen("\"terminal\": true", "\"terminal\": false", 1)
            .replacen("\"readonly\": true", "\"readonly\": false", 1)
            .replacen("size=65536k", "size=1048576k", 2)
            .replacen("\"sh\"", &words.join(", "), 1)
            .replacen("\"linux\": {", &format!("\"linux\": {{ \"cgroupsPath\": \"/{}\",", self.id()), 1);
        Ok(fs::write(config, text)?)
    }

    fn id(&self) -> String {
        format!("checkpoint-{}", std::process::id())
    }

    /// Runs a container, dumps and restores it, and removes it.
    fn sample(&self, name: &str) -> Result<Sample> {
        let runtime = if name == "runc" { program("runc")? } else { self.stasis.clone() };
        let (ready, images) = (self.directory.join("bundle/rootfs/ready"), self.directory.join("images"));
        if ready.exists() {
            fs::remove_file(&ready)?;
        }
        if images.exists() {
            fs::remove_dir_all(&images)?;
        }
        let line = |verb: &str| {
            let mut command = Command::new(&runtime);
            command.arg("--root").arg(self.directory.join(name)).arg(verb);
            command
        };
        let bundle = self.directory.join("bundle");
        checked(line("run").arg("--detach").arg("--bundle").arg(&bundle).arg(self.id()))?;
        let start = Instant::now();
        while !ready.exists() {
            if start.elapsed() > PATIENCE {
                return Err("the container does not get ready".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let sample = match name {
            "criu" => self.bare(&images)?,
            _ => Sample {
                dump: timed(line("checkpoint").arg("--image-path").arg(&images).arg(self.id()))?,
                restore: timed(
                    line("restore")
                        .arg("--detach")
                        .arg("--bundle")
                        .arg(&bundle)
                        .arg("--image-path")
                        .arg(&images)
                        .arg(self.id()),
                )?,
            },
        };
        checked(line("delete").arg("--force").arg(self.id()))?;
        Ok(sample)
    }

    /// Dumps and restores the container of stasis without a runtime.
    fn bare(&self, images: &Path) -> Result<Sample> {
        let state = self.directory.join("criu").join(self.id()).join("stasis.json");
        let state = fs::read_to_string(state)?;
        let pid =
            state.split("\"pid\":").nth(1).and_then(|rest| rest.split(',').next()).ok_or("no pid in the state")?;
        let rootfs = self.directory.join("bundle/rootfs");
        fs::create_dir(images)?;
        let criu = |verb: &str| -> Result<Command> {
            let mut command = Command::new(program("criu")?);
            command.arg(verb).arg("--images-dir").arg(images).args(["--log-file", "log", "-v4", "--empty-ns", "net"]);
            // What is bound from the host, the masks among them, is found by criu itself.
            command.args(["--external", "mnt[]:ms"]);
            Ok(command)
        };
        let mut dump = criu("dump")?;
        dump.args(["--tree", pid, "--network-lock", "skip", "--manage-cgroups=soft"]).arg("--root").arg(&rootfs);
        let dump = timed(&mut dump)?;
        let root = self.directory.join("root");
        checked(Command::new("mount").arg("--bind").arg(&rootfs).arg(&root))?;
        let pid_file = images.join("pid");
        let mut restore = criu("restore")?;
        restore.args(["--restore-detached", "--manage-cgroups=ignore", "--evasive-devices"]).arg("--root").arg(&root);
        restore.arg("--pidfile").arg(&pid_file);
        let restored = timed(&mut restore);
        checked(Command::new("umount").arg(&root))?;
        let restore = restored?;
        checked(Command::new("kill").args(["-9", fs::read_to_string(&pid_file)?.trim()]))?;
        Ok(Sample { dump, restore })
    }
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    checked(command)?;
    Ok(start.elapsed())
}

/// Runs a command, whose output is only shown when it fails. It leads nowhere: a container has it as its own.
fn checked(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn program(name: &str) -> Result<PathBuf> {
    let named = std::env::var_os(name.to_uppercase()).map(PathBuf::from);
    named.or_else(|| look_up(name)).ok_or_else(|| format!("{name} not found (set {})", name.to_uppercase()).into())
}

fn look_up(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
