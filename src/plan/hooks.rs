//! Hooks: what is executed, prepared for execve.

use super::process::cstring;
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
    let mut args = strings(hook.args().as_deref())?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = strings(hook.env().as_deref())?;
    let timeout = hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()).filter(|&seconds| seconds > 0);
    Ok(HookPlan { path, args: CStringArray::new(args), env: Some(CStringArray::new(env)), timeout })
}

fn strings(list: Option<&[String]>) -> Result<Vec<CString>> {
    list.unwrap_or_default().iter().map(|text| cstring(text.as_ref(), "hook argument")).collect()
}
