//! Hooks that run outside: in the runtime's namespaces, with the container's state on their standard input.

use super::state::State;
use crate::error::{Context, Error, Result};
use crate::plan::{self, run_oci};
use crate::sys::{command, fd, pidfd, signal};
use oci_spec::runtime::Hook;
use serde_json::json;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

/// How much of what a hook wrote is told when it fails.
const TOLD: usize = 4096;

/// The container's state as hooks read it (runtime-spec, "State").
fn state_json(state: &State, status: &str) -> Vec<u8> {
    let mut value = json!({
        "ociVersion": state.oci_version,
        "id": state.id,
        "status": status,
        "pid": state.pid,
        "bundle": state.bundle,
    });
    if !state.annotations.is_empty() {
        value["annotations"] = json!(state.annotations);
    }
    value.to_string().into_bytes()
}

/// Writes the state for createContainer and startContainer hooks. They are told init's pid as the container sees it
/// (runtime-spec, "State").
pub fn tell_inside(files: [Result<Option<OwnedFd>>; 2], state: &State) -> Result<()> {
    for (file, status) in files.into_iter().zip(["creating", "created"]) {
        let Some(file) = file? else { continue };
        let pid = crate::sys::proc::innermost_pid(state.pid).context(|| "read init's pid in its own namespace")?;
        let text = state_json(&State { pid, ..state.clone() }, status);
        fd::write_all(file.as_fd(), &text).context(|| "write the state for hooks")?;
    }
    Ok(())
}

/// Opens the files that annotations name for what hooks write.
pub fn streams<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<[Option<OwnedFd>; 2]> {
    let open = |name| {
        let Some(path) = annotation(name).filter(|path| !path.is_empty()) else { return Ok(None) };
        let file = File::options().append(true).create(true).mode(0o700).open(path);
        file.map(|file| Some(file.into())).context(|| format!("annotation {name}: open {path}"))
    };
    Ok([open(run_oci::HOOKS_STDOUT)?, open(run_oci::HOOKS_STDERR)?])
}

/// Runs hooks one after the other; the first that fails ends it.
pub fn run(kind: &str, hooks: Option<&Vec<Hook>>, state: &State, status: &str) -> Result<()> {
    for (index, hook) in hooks.into_iter().flatten().enumerate() {
        log::debug!("running {kind} hook #{index}: {}", hook.path().display());
        run_one(hook, state, status).context(|| format!("error running {kind} hook #{index}"))?;
    }
    Ok(())
}

/// Runs hooks whose failure changes nothing any more: it is only told.
pub fn run_and_warn(kind: &str, hooks: Option<&Vec<Hook>>, state: &State, status: &str) {
    for hook in hooks.into_iter().flatten() {
        if let Err(err) = run_one(hook, state, status) {
            log::warn!("error running {kind} hook {}: {err}", hook.path().display());
        }
    }
}

/// Runs a hook with files for its streams: unlike pipes they never fill up, and what a hook leaves running may keep
/// them open without being waited for.
fn run_one(hook: &Hook, state: &State, status: &str) -> Result<()> {
    let file =
        |name, text: &[u8]| fd::memfd(name, text).map(File::from).context(|| "make a file for the hook's streams");
    let bundle = &state.bundle;
    let stdin = file(c"state", &state_json(state, status))?;
    let [stdout, stderr] = streams(|name| state.annotations.get(name).map(String::as_str))?;
    let stdout = stdout.map_or_else(|| file(c"stdout", b""), |named| Ok(named.into()))?;
    let stderr = stderr.map_or_else(|| file(c"stderr", b""), |named| Ok(named.into()))?;
    let copy = |file: &File| file.try_clone().context(|| "duplicate a descriptor");
    let args = hook.args().as_deref().unwrap_or_default();
    let mut command = Command::new(hook.path());
    // As runc, which changes into the bundle itself; one that is gone by now is no reason to leave a hook out.
    if bundle.is_dir() {
        command.current_dir(bundle);
    }
    if let Some(name) = args.first() {
        command.arg0(name).args(&args[1..]);
    }
    // Without a list it has our environment, as with runc; an empty one is a list.
    if let Some(env) = hook.env() {
        command::set_environment(&mut command, plan::hooks::environment(env)?);
    }
    command.stdin(stdin).stdout(copy(&stdout)?).stderr(copy(&stderr)?);
    signal::unblock_in(&mut command);
    let mut child = command.spawn().context(|| format!("fork/exec {}", hook.path().display()))?;
    let status = wait(&mut child, hook.timeout().filter(|&seconds| seconds > 0))?;
    if status.success() {
        return Ok(());
    }
    Err(Error::other(format!("{}, stdout: {}, stderr: {}", describe(status), text(&stdout), text(&stderr))))
}

/// Waits for a hook, at most `timeout` seconds.
fn wait(child: &mut Child, timeout: Option<i64>) -> Result<ExitStatus> {
    let attempt = || "wait for the hook";
    if let Some(seconds) = timeout {
        let pidfd = pidfd::open(child.id() as i32).context(attempt)?;
        let millis = i32::try_from(seconds.saturating_mul(1000)).unwrap_or(i32::MAX);
        if !pidfd::wait_ended(pidfd.as_fd(), millis).context(attempt)? {
            child.kill().context(|| "kill the hook")?;
            child.wait().context(attempt)?;
            return Err(Error::other(format!("hook ran past specified timeout of {:.1}s", seconds as f64)));
        }
    }
    child.wait().context(attempt)
}

/// Returns the beginning of what a hook wrote, on one line.
fn text(file: &File) -> String {
    let mut bytes = [0; TOLD];
    let len = file.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).trim_end().replace('\n', " ")
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
