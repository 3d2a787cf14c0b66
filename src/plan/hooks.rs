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
    let mut planned = plan(hooks)?;
    for (hook, planned) in hooks.into_iter().flatten().zip(&mut planned) {
        if hook.env().as_ref().is_none_or(Vec::is_empty) {
            planned.env = None;
        }
    }
    Ok(planned)
}

fn plan_one(hook: &Hook) -> Result<HookPlan> {
    let path = cstring(hook.path().as_os_str(), "hook path")?;
    let mut args = strings(hook.args().iter().flatten(), "hook argument")?;
    if args.is_empty() {
        args.push(path.clone());
    }
    let env = environment(hook.env().as_deref().unwrap_or_default())?;
    let timeout = hook.timeout().and_then(|seconds| u32::try_from(seconds).ok()).filter(|&seconds| seconds > 0);
    Ok(HookPlan { path, args: CStringArray::new(args), env: Some(env), timeout })
}

/// Prepares the environment that a hook lists. Unlike a process's it is not checked: what has no `=` is passed on.
pub fn environment(entries: &[String]) -> Result<CStringArray> {
    Ok(CStringArray::new(strings(last_of_each_name(entries), "hook environment variable")?))
}

fn strings<'a>(list: impl IntoIterator<Item = &'a String>, what: &str) -> Result<Vec<CString>> {
    list.into_iter().map(|text| cstring(text.as_ref(), what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_hook_that_lists_nothing_has_the_environment_of_the_process() {
        let hooks: Vec<Hook> =
            serde_json::from_value(json!([{"path": "/a"}, {"path": "/a", "env": []}, {"path": "/a", "env": [""]}]))
                .unwrap();
        let environments = inheriting(Some(&hooks)).unwrap().into_iter().map(|hook| hook.env);
        let count = |env: Option<CStringArray>| env.map(|env| env.strings().len());
        assert_eq!(environments.map(count).collect::<Vec<_>>(), [None, None, Some(0)]);
    }

    #[test]
    fn a_name_may_begin_with_an_equals_sign() {
        let listed = ["=A=1", "=B=2", "=A=3", "=x", "=y"].map(str::to_owned);
        let kept = environment(&listed).unwrap();
        assert_eq!(kept.strings(), [c"=B=2".to_owned(), c"=A=3".to_owned(), c"=y".to_owned()]);
    }

    #[test]
    fn what_holds_a_null_byte_is_named() {
        let hook = json!([{"path": "/a", "env": ["A=\0"]}]);
        let hooks: Vec<Hook> = serde_json::from_value(hook).unwrap();
        let err = plan(Some(&hooks)).unwrap_err().to_string();
        assert!(err.contains("hook environment variable"), "{err}");
    }
}
