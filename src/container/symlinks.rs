//! Bind mounts whose sources are symlinks, which are made again in their place (crun's option `copy-symlink`).
//!
//! Whether a source is one is decided once, when the container is made: the configuration that is kept has the option
//! only where a symlink was made, whatever becomes of the source.

use super::external;
use crate::criu::mount_images::{self, Named};
use crate::error::{Error, Result};
use crate::plan;
use crate::plan::mount_options::COPY_SYMLINK;
use crate::plan::mounts;
use crate::plan::namespaces::{Kind, Namespace, of};
use crate::plan::process::cstring;
use crate::plan::symlinks::{self, Symlinks};
use crate::spec::Config;
use oci_spec::runtime::{Mount, Spec};
use std::os::fd::AsFd;
use std::path::Path;

/// Returns the symlinks to be made, and has the configuration bind the other sources. What is wrong with one is told
/// where it is opened for that. A container that is restored from `images` binds what was bound when it was dumped.
///
/// # Errors
///
/// Only the inside sees what is in the container's root file system, whose symlinks would lead us astray, and what is in
/// a mount namespace that it joins.
pub fn decide(config: &mut Config, bundle: &Path, images: Option<&Path>) -> Result<Symlinks> {
    let mut found = Symlinks::new();
    let asking = asking(&config.spec);
    if asking.is_empty() {
        return Ok(found);
    }
    let rootfs = plan::root_path(&config.spec, bundle)?;
    let bound = images.map(mount_images::named).transpose()?.unwrap_or_default();
    let joins = matches!(of(plan::linux(&config.spec)?, Kind::Mount), Namespace::Joined(_));
    for (index, mut mount) in asking {
        let Some(source) = mount.source().as_ref().map(|source| bundle.join(source)) else { continue };
        let place = match mounts::inside(&source, &rootfs) {
            _ if joins => Some("a mount namespace that is joined"),
            inside => inside.map(|_| "the root file system"),
        };
        if let Some(place) = place {
            let (target, source) = (mount.destination().display(), source.display());
            return Err(Error::invalid(format!(
                "mount {target}: {COPY_SYMLINK} of {source}, in {place}, is not supported"
            )));
        }
        match std::fs::read_link(&source) {
            Ok(to) if !is_bound(&mount, &rootfs, &bound)? => {
                found.insert(index, cstring(to.as_os_str(), "symlink")?);
            }
            _ => {
                mount.options_mut().iter_mut().for_each(|options| options.retain(|option| option != COPY_SYMLINK));
                config.replace_mount(index, mount)?;
            }
        }
    }
    Ok(found)
}

/// Says whether a dump has found something mounted in a mount's own place.
fn is_bound(mount: &Mount, rootfs: &Path, bound: &[Named]) -> Result<bool> {
    if bound.is_empty() {
        return Ok(false);
    }
    let target = cstring(mounts::target(mount, rootfs)?.as_ref(), "mount")?;
    let place = external::place(external::open_directory(rootfs)?.as_fd(), &target)?;
    Ok(bound.iter().any(|found| Path::new(&found.destination) == place))
}

/// Returns the symlinks of a container that was made with this configuration. Where they led is not kept.
pub fn made(kept: &Spec) -> Symlinks {
    asking(kept).into_iter().map(|(index, _)| (index, c"".into())).collect()
}

fn asking(spec: &Spec) -> Vec<(usize, Mount)> {
    let entries = spec.mounts().iter().flatten().enumerate();
    entries.filter(|(_, mount)| symlinks::is_asked_for(mount)).map(|(index, mount)| (index, mount.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::symlink;

    /// A configuration that asks for the sources `names` to be made again.
    fn config(names: &[&str]) -> Config {
        let options = ["rbind", "copy-symlink", "ro"];
        let mount = |name: &&str| json!({"destination": "/x", "type": "bind", "source": name, "options": options});
        let mounts: Vec<_> = names.iter().map(mount).collect();
        let text = json!({"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": {}, "mounts": mounts});
        crate::spec::parse(text.to_string().into_bytes()).unwrap()
    }

    #[test]
    fn what_was_decided_is_kept() {
        let bundle = tempfile::tempdir().unwrap();
        let at = |name| bundle.path().join(name);
        std::fs::write(at("file"), "").unwrap();
        symlink("/no/where", at("link")).unwrap();
        let mut config = config(&["file", "link"]);
        let found = decide(&mut config, bundle.path(), None).unwrap();
        assert_eq!(found, Symlinks::from([(1, c"/no/where".into())]));
        // Whatever becomes of them.
        std::fs::rename(at("link"), at("file")).unwrap();
        let kept = crate::spec::parse(config.text).unwrap().spec;
        assert_eq!(made(&kept).into_keys().collect::<Vec<_>>(), [1]);
        let options = kept.mounts().as_ref().unwrap()[0].options().clone();
        assert_eq!(options.unwrap(), ["rbind", "ro"]);
    }

    #[test]
    fn sources_that_only_the_inside_sees_are_refused() {
        let bundle = Path::new("/bundle");
        for source in ["rootfs/esc/link", "/bundle/x/../rootfs/link"] {
            let err = decide(&mut config(&[source]), bundle, None).unwrap_err().to_string();
            assert!(err.starts_with("mount /x: copy-symlink of /bundle/"), "{err}");
            assert!(err.ends_with(", in the root file system, is not supported"), "{err}");
        }
        let mut joining = config(&["link"]);
        let namespaces = json!([{"type": "mount", "path": "/proc/2/ns/mnt"}]);
        joining.replace_namespaces(serde_json::from_value(namespaces).unwrap()).unwrap();
        let err = decide(&mut joining, bundle, None).unwrap_err().to_string();
        let words = "of /bundle/link, in a mount namespace that is joined, is not supported";
        assert_eq!(err, format!("mount /x: copy-symlink {words}"));
    }
}
