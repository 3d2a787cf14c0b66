//! Hooks: what is executed, prepared for execve.

use super::process::{cstring, last_of_each_name};
use crate::cstrings::CStringArray;
use crate::error::Result;
use oci_spec::runtime::Hook;
use std::ffi::CString;

/// A hook, ready to be executed.
#[derive(Debug)]
pub struct HookPlan {
    /// The program.
    pub path: CString,
    /// Its arguments, the first being its name.
    pub args: CStringArray,
    /// Its whole environment; that of the container's process, if there is none.
    pub env: Option<CStringArray>,
    /// How long it may take, in seconds.
    pub timeout: Option<u32>,
}

/// Prepares the hooks of one kind.
pub fn plan(hooks: Option<&Vec<Hook>>) -> Result<Vec<HookPlan>> {
    hooks.into_iter().flatten().map(plan_one).collect()
}

/// Prepares hooks that have the environment of the container's process unless they list one of their own. The
/// specification does not say so; startContainer hooks have always had it from runc.
pub fn inheriting(hooks: Option<&Vec<Hook>>) -> Result<Vec<HookPlan>> {
    let mut hooks = plan(hooks)?;
    for hook in &mut hooks {
        hook.env.take_if(|env| env.strings().is_empty());
    }
    Ok(hooks)
}

fn plan_one(hook: &Hook) -> Result<HookPlan> {
    let path = cstring(hook.path().as_os_str(), "hook path")?;
    let mut args = strings(hook.args().iter().flatten())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = environment(hook.env().as_deref().unwrap_or_default())?;
    let timeout = hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()).filter(|&seconds| seconds > 0);
    Ok(HookPlan { path, args: CStringArray::new(args), env: Some(env), timeout })
}

/// Prepares the environment that a hook lists. Unlike a process's it is not checked: what has no `=` is passed on.
pub fn environment(entries: &[String]) -> Result<CStringArray> {
    Ok(CStringArray::new(strings(last_of_each_name(entries))?))
}

fn strings<'a>(list: impl IntoIterator<Item = &'a String>) -> Result<Vec<CString>> {
    list.into_iter().map(|text| cstring(text.as_ref(), "hook argument")).collect()
}
