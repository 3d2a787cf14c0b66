//! The part `checkpoint`: checkpoint and restore by stasis, runc and bare criu of the same container, interleaved.
//!
//! Three containers: a small one, one with much memory, and one with much in a /dev/shm of its own. "criu" is the program
//! alone, with the options that the container needs, on a container that stasis has made.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::contestant::program;
use crate::measure::{self, Sample, Streams};
use crate::report::Section;
use crate::{Options, Result, layout};

const CONTESTANTS: [&str; 3] = ["stasis", "runc", "criu"];
/// How long a container may take to say that it is ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much the containers hold, in MiB, and for how many of the rounds that are asked for there is one with so much.
const MEMORY: usize = 1024;
const SHM: usize = 256;
const ROUNDS_EACH: usize = 10;

/// A container that is dumped and restored.
struct Scenario {
    name: String,
    program: Vec<String>,
    rounds: usize,
}

/// What one contestant took to dump and to restore.
type Both = [Sample; 2];

/// Measures all of them.
pub fn part(options: &Options, directory: &Path) -> Result<Vec<Section>> {
    let sh = |script: String| ["sh", "-c", &script].map(str::to_owned).to_vec();
    let rounds = options.rounds.div_ceil(ROUNDS_EACH);
    let scenarios = [
        Scenario {
            name: "small".to_owned(),
            program: sh("touch /ready; exec sleep 1000".to_owned()),
            rounds: 3 * rounds,
        },
        Scenario { name: format!("{MEMORY} MiB"), program: vec!["/bin/hog".to_owned(), MEMORY.to_string()], rounds },
        Scenario {
            name: format!("{SHM} MiB in /dev/shm"),
            program: sh(format!("head -c {SHM}m /dev/urandom >/dev/shm/x; touch /ready; exec sleep 1000")),
            rounds,
        },
    ];
    let place = Place::new(directory.to_owned())?;
    let mut sections = Vec::new();
    for scenario in scenarios.iter().filter(|scenario| options.wants(&scenario.name)) {
        sections.extend(run(&place, scenario)?);
    }
    Ok(sections)
}

/// Measures a scenario: its dump and its restore.
fn run(place: &Place, scenario: &Scenario) -> Result<[Section; 2]> {
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
    Ok(["checkpoint", "restore"].map(|verb| {
        let which = usize::from(verb == "restore");
        let mut section = Section::new(&format!("{verb}, {}", scenario.name), "default", "criu");
        for (name, own) in CONTESTANTS.iter().zip(&samples) {
            section.add_named(name, "", own.iter().map(|both: &Both| both[which]).collect(), None);
        }
        println!("{}", section.table());
        section
    }))
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
        let busybox = need("busybox")?;
        fs::copy(busybox, rootfs.join("bin/busybox"))?;
        for name in ["sh", "sleep", "head", "touch"] {
            std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
        }
        fs::copy(std::env::current_exe()?.with_file_name("hog"), rootfs.join("bin/hog"))?;
        fs::create_dir(directory.join("root"))?;
        Ok(Self { directory, stasis: need("stasis")?.canonicalize()? })
    }

    /// Writes what `stasis spec` writes, with another program.
    fn write_config(&self, program: &[String]) -> Result<()> {
        let bundle = self.directory.join("bundle");
        let config = bundle.join("config.json");
        if config.exists() {
            fs::remove_file(&config)?;
        }
        self.run(Command::new(&self.stasis).arg("spec").current_dir(&bundle))?;
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
        format!("{}-checkpoint", layout::cgroup_prefix())
    }

    /// Runs a container, dumps and restores it, and removes it.
    fn sample(&self, name: &str) -> Result<Both> {
        let runtime = if name == "runc" { need("runc")? } else { self.stasis.clone() };
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
        let pid_file = self.directory.join("pid");
        self.run(
            line("run").arg("--detach").arg("--bundle").arg(&bundle).arg("--pid-file").arg(pid_file).arg(self.id()),
        )?;
        let start = Instant::now();
        while !ready.exists() {
            if start.elapsed() > PATIENCE {
                return Err("the container does not get ready".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let sample = match name {
            "criu" => self.bare(&images)?,
            _ => {
                let image = |verb: &str| {
                    let mut command = line(verb);
                    command.arg("--image-path").arg(&images);
                    command
                };
                let dump = self.run(image("checkpoint").arg(self.id()))?;
                let mut restore = image("restore");
                [dump, self.run(restore.arg("--detach").arg("--bundle").arg(&bundle).arg(self.id()))?]
            }
        };
        self.run(line("delete").arg("--force").arg(self.id()))?;
        Ok(sample)
    }

    /// Dumps and restores the container of stasis without a runtime.
    fn bare(&self, images: &Path) -> Result<Both> {
        let pid = fs::read_to_string(self.directory.join("pid"))?;
        let rootfs = self.directory.join("bundle/rootfs");
        fs::create_dir(images)?;
        let criu = |verb: &str| -> Result<Command> {
            let mut command = Command::new(need("criu")?);
            command.arg(verb).arg("--images-dir").arg(images).args(["--log-file", "log", "-v4", "--empty-ns", "net"]);
            // What is bound from the host, the masks among them, is found by criu itself.
            command.args(["--external", "mnt[]:ms"]);
            Ok(command)
        };
        let mut dump = criu("dump")?;
        dump.args(["--tree", &pid, "--network-lock", "skip", "--manage-cgroups=soft"]).arg("--root").arg(&rootfs);
        let dump = self.run(&mut dump)?;
        let root = self.directory.join("root");
        self.run(Command::new("mount").arg("--bind").arg(&rootfs).arg(&root))?;
        let pid_file = images.join("pid");
        let mut restore = criu("restore")?;
        restore.args(["--restore-detached", "--manage-cgroups=ignore", "--evasive-devices"]).arg("--root").arg(&root);
        restore.arg("--pidfile").arg(&pid_file);
        let restored = self.run(&mut restore);
        self.run(Command::new("umount").arg(&root))?;
        let restore = restored?;
        self.run(Command::new("kill").args(["-9", fs::read_to_string(&pid_file)?.trim()]))?;
        Ok([dump, restore])
    }

    /// Runs a command whose output leads nowhere: a container has it as its own.
    fn run(&self, command: &mut Command) -> Result<Sample> {
        measure::run(command, Streams::File(Path::new("/dev/null")))
    }
}

fn need(name: &str) -> Result<PathBuf> {
    let variable = name.to_uppercase();
    program(name, &variable).ok_or_else(|| format!("{name} not found (set {variable})").into())
}
