//! Reasons to refuse what a runtime that is not root cannot do, in runc's words.

use crate::error::{Error, Result};
use crate::plan::idmap::IdMaps;
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::plan::{idmap, linux};
use oci_spec::runtime::{Process, Spec};

/// Refuses a container that only root can make.
pub fn spec(spec: &Spec) -> Result<()> {
    let linux = linux(spec)?;
    let maps = idmap::plan(linux)?.unwrap_or_default();
    match of(linux, Kind::User) {
        Namespace::Host => return Err(Error::invalid("rootless container requires user namespaces")),
        // The kernel knows the ids of a namespace that is joined.
        Namespace::Joined(_) => return spec.process().as_ref().map_or(Ok(()), process),
        Namespace::Private if maps.users.ranges().is_empty() => {
            return Err(Error::invalid("rootless containers requires at least one UID mapping"));
        }
        Namespace::Private => {}
    }
    let options = spec.mounts().iter().flatten().flat_map(|mount| mount.options().iter().flatten());
    options.flat_map(|option| option.split(',')).try_for_each(|option| owner(option, &maps))?;
    spec.process().as_ref().map_or(Ok(()), process)
}

/// Refuses a process that only root can make.
pub fn process(process: &Process) -> Result<()> {
    match process.user().additional_gids().as_deref().unwrap_or_default() {
        [] => Ok(()),
        _ => Err(Error::invalid("cannot set any additional groups in a rootless container")),
    }
}

/// Refuses an option that gives a mount to somebody who is not in the container.
fn owner(option: &str, maps: &IdMaps) -> Result<()> {
    let (map, kind, id) = match option.split_once('=') {
        Some((kind @ "uid", id)) => (&maps.users, kind, id),
        Some((kind @ "gid", id)) => (&maps.groups, kind, id),
        _ => return Ok(()),
    };
    match id.parse().map(|id| map.outside(id)) {
        Ok(None) => Err(Error::invalid(format!(
            "cannot specify {option} mount option for rootless container: \
             user namespaces enabled, but no mapping found for {kind} {id}"
        ))),
        // What is no number the kernel refuses.
        Ok(Some(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::template::{Ipc, Users, text};
    use serde_json::{Value, json};

    type Edit = fn(&mut Value);

    fn check(edit: Edit) -> Result<()> {
        let users = Users { uid: 7, gid: 8 };
        let mut config: Value = serde_json::from_str(&text(Some(users), true, &Ipc::Private(None))).unwrap();
        edit(&mut config);
        spec(&serde_json::from_value(config).unwrap())
    }

    #[test]
    fn what_takes_root_is_refused() {
        check(|_| {}).unwrap();
        check(|v| v["mounts"][2]["options"] = json!(["uid=0,mode=700", "gid=0", "gid=x"])).unwrap();
        let cases: [(Edit, &str); 5] = [
            (|v| v["linux"]["namespaces"] = json!([{"type": "mount"}]), "rootless container requires user namespaces"),
            (
                |v| (v["linux"]["uidMappings"], v["linux"]["gidMappings"]) = (json!([]), json!([])),
                "rootless containers requires at least one UID mapping",
            ),
            (
                |v| v["process"]["user"]["additionalGids"] = json!([1]),
                "cannot set any additional groups in a rootless container",
            ),
            (
                |v| v["mounts"][2]["options"] = json!(["gid=5"]),
                "cannot specify gid=5 mount option for rootless container: user namespaces enabled, but no mapping found for gid 5",
            ),
            (
                |v| v["mounts"][2]["options"] = json!(["mode=700,uid=1"]),
                "cannot specify uid=1 mount option for rootless container: user namespaces enabled, but no mapping found for uid 1",
            ),
        ];
        for (edit, words) in cases {
            assert_eq!(check(edit).unwrap_err().to_string(), words);
        }
    }
}
