//! A systemd of our own in namespaces, and containers whose cgroups it makes.

use crate::support::{Bundle, Enclosure, Layout, Output, Runtime, children, has_v1, wait_until};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

/// The slice of all containers.
const SLICE: &str = "stasis-tests.slice";

/// Asks the host's systemd.
const SYSTEMCTL: &str = "systemctl";

/// The hierarchies of cgroups that a systemd uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The unified one.
    V2,
    /// Those of v1, and beside them the unified one.
    Hybrid,
}

/// A running systemd.
pub struct Host {
    /// It lives as long as this.
    _enclosure: Enclosure,
    first: u32,
}

impl Host {
    /// Returns the one that all tests share.
    pub fn shared(kind: Kind) -> &'static Self {
        static SHARED: [OnceLock<Result<Host, String>>; 2] = [OnceLock::new(), OnceLock::new()];
        SHARED[kind as usize].get_or_init(|| Self::begin(kind)).as_ref().unwrap_or_else(|err| panic!("{err}"))
    }

    /// Returns those of the kinds that this machine has.
    pub fn all() -> Vec<&'static Self> {
        let kinds: &[Kind] = if has_v1() { &[Kind::V2, Kind::Hybrid] } else { &[Kind::V2] };
        kinds.iter().map(|kind| Self::shared(*kind)).collect()
    }

    /// Returns one for a test that does to it what others would notice.
    pub fn another(kind: Kind) -> &'static Self {
        Box::leak(Box::new(Self::begin(kind).unwrap_or_else(|err| panic!("{err}"))))
    }

    fn begin(kind: Kind) -> Result<Self, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/host.sh");
        let layout = if kind == Kind::V2 { "v2" } else { "hybrid" };
        let enclosure = Enclosure::begin("systemd", |dir| {
            let name = dir.file_name().unwrap().to_str().unwrap();
            vec![script.to_str().unwrap().into(), name.into(), layout.into()]
        })?;
        // The shell of the enclosure, unshare, and systemd as its child.
        let systemd = || children(*children(enclosure.first()).first()?).first().copied();
        let answers = |pid| Layout::Of(pid).command("systemctl").arg("is-system-running").output().unwrap().stdout;
        enclosure.wait_for(|| systemd().is_some_and(|pid| answers(pid) == b"running\n"))?;
        let first = systemd().unwrap();
        Ok(Self { _enclosure: enclosure, first })
    }

    /// Runs a shell script there.
    pub fn inside(&self, script: &str) -> Output {
        Output::of(self.layout().command("sh").args(["-c", script]), b"", script.into())
    }

    /// Gives a bundle a scope for its cgroup.
    pub fn scope(&'static self, bundle: Bundle) -> Scope {
        let path = format!("{SLICE}:rt:{}", bundle.id());
        let bundle = bundle.with(|config| config["linux"]["cgroupsPath"] = json!(path));
        Scope {
            unit: format!("rt-{}.scope", bundle.id()),
            slice: format!("stasis.slice/{SLICE}"),
            systemctl: SYSTEMCTL.into(),
            runtime: Runtime::new(bundle.layout(self.layout())),
            host: self,
        }
    }

    /// Returns what a process of the host sees.
    pub fn layout(&self) -> Layout {
        Layout::Of(self.first)
    }

    /// Returns the children of its first process.
    pub fn children(&self) -> Vec<u32> {
        children(self.first)
    }

    /// Returns the units whose names contain this, also those that have ended.
    pub fn units(&self, part: &str) -> String {
        self.units_of(SYSTEMCTL, part)
    }

    fn units_of(&self, systemctl: &str, part: &str) -> String {
        self.inside(&format!("{systemctl} list-units --all --plain --no-legend '*{part}*'")).ok().stdout
    }

    /// Returns the cgroups whose names contain this.
    pub fn cgroups(&self, part: &str) -> String {
        self.inside(&format!("find /sys/fs/cgroup -ignore_readdir_race -name '*{part}*'")).ok().stdout
    }
}

/// A container in a scope.
pub struct Scope {
    pub runtime: Runtime,
    pub host: &'static Host,
    /// The unit's name.
    pub unit: String,
    /// The cgroup of its slice.
    pub slice: String,
    /// What asks the systemd whose unit it is.
    pub systemctl: String,
}

impl Scope {
    /// Returns a command that makes a container.
    pub fn command(&self, verb: &str, options: &[&str]) -> Command {
        let bundle = self.runtime.bundle().path().to_str().unwrap();
        self.runtime.command(&[&["--systemd-cgroup", verb, "--bundle", bundle], options, &[self.runtime.id()]].concat())
    }

    /// Runs the container in the background.
    #[track_caller]
    pub fn run(self) -> Self {
        self.runtime.detached(self.command("run", &["--detach"])).ok();
        self
    }

    /// Returns a property of the unit.
    #[track_caller]
    pub fn property(&self, name: &str) -> String {
        let shown = self.host.inside(&format!("{} show --value --property={name} {}", self.systemctl, self.unit)).ok();
        shown.text().trim_end().to_owned()
    }

    /// Returns what a file of the cgroup says, in the hierarchy of v1 of this name, or (empty) in that of v2 alone.
    #[track_caller]
    pub fn file(&self, hierarchy: &str, name: &str) -> String {
        let dir = format!("/sys/fs/cgroup/{hierarchy}/{}/{}", self.slice, self.unit);
        self.host.inside(&format!("cat {dir}/{name}")).ok().text().trim_end().to_owned()
    }

    /// Pauses the container, lets it go on, kills and deletes it: nothing is left.
    #[track_caller]
    pub fn is_stopped_and_deleted(&self) {
        self.runtime.pause().ok();
        assert_eq!(self.runtime.status(), "paused");
        self.runtime.resume().ok();
        self.runtime.kill("KILL").ok();
        self.runtime.wait_for("stopped");
        self.runtime.delete().ok();
        self.leaves_nothing();
    }

    /// Checks that the container is gone, and its unit and cgroups with it.
    #[track_caller]
    pub fn leaves_nothing(&self) {
        // systemd says so when it is told of the end of a scope's last process.
        wait_until("no unit is left", || self.host.units_of(&self.systemctl, self.runtime.id()).is_empty());
        assert_eq!(self.host.cgroups(self.runtime.id()), "");
        assert!(!self.runtime.root().join(self.runtime.id()).exists());
    }
}
