//! `features`: what this runtime understands, whatever the host supports.
//!
//! containerd decides by it about user namespaces and recursive read-only mounts, CRI-O and dockerd about the latter. So
//! `true` stands for what is really done, and nothing here may fail: it works without root, state or kernel features.

use super::{output, usage};
use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use stasis::plan::{mount_options, run_oci, seccomp};
use stasis::sys;

/// Arguments of `features`: none.
#[derive(Args, Debug)]
pub struct FeaturesArgs {}

/// Prints the features.
pub fn run() -> Result<u8> {
    output::print(&(output::json(&features(), "    ")? + "\n"))?;
    Ok(0)
}

fn features() -> Value {
    json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": usage::SPEC_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": mount_options::known(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": capabilities(),
            "cgroup": { "v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true },
            "seccomp": seccomp_features(),
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true, "schemata": true, "monitoring": true },
            "memoryPolicy": {
                "modes": prefixed("MPOL_", "BIND DEFAULT INTERLEAVE LOCAL PREFERRED PREFERRED_MANY WEIGHTED_INTERLEAVE"),
                "flags": prefixed("MPOL_F_", "NUMA_BALANCING RELATIVE_NODES STATIC_NODES"),
            },
            "mountExtensions": { "idmap": { "enabled": true } },
            "netDevices": { "enabled": true },
        },
        "annotations": {
            // Third parties may say which runc they are most like, and shall not name a commit of it.
            "org.opencontainers.runc.version": "1.5.0",
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "io.github.seccomp.libseccomp.version": seccomp::library_version(),
        },
        "potentiallyUnsafeConfigAnnotations": ["bundle", "org.systemd.property.", "org.criu.config", run_oci::PREFIX],
    })
}

/// Returns all capabilities by name, in the kernel's order.
fn capabilities() -> Vec<String> {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_by_key(caps::Capability::index);
    all.iter().map(ToString::to_string).collect()
}

fn prefixed(prefix: &str, names: &str) -> Vec<String> {
    names.split_whitespace().map(|name| format!("{prefix}{name}")).collect()
}

fn seccomp_features() -> Value {
    let archs = "AARCH64 ARM LOONGARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE RISCV64 \
                 S390 S390X X32 X86 X86_64";
    json!({
        "enabled": true,
        "actions": prefixed("SCMP_ACT_", "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP"),
        "operators": prefixed("SCMP_CMP_", "EQ GE GT LE LT MASKED_EQ NE"),
        "archs": prefixed("SCMP_ARCH_", archs),
        "knownFlags": flags(u32::MAX),
        "supportedFlags": flags(sys::seccomp::supported_flags()),
    })
}

/// Returns the names of the filter flags among `bits`.
fn flags(bits: u32) -> Vec<&'static str> {
    [
        // Filters are loaded by a process of one thread, so this one asks for nothing: any kernel does it.
        ("SECCOMP_FILTER_FLAG_TSYNC", u32::MAX),
        ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", seccomp::FLAG_SPEC_ALLOW),
        ("SECCOMP_FILTER_FLAG_LOG", seccomp::FLAG_LOG),
        ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", seccomp::FLAG_WAIT_KILLABLE_RECV),
    ]
    .into_iter()
    .filter_map(|(name, flag)| (bits & flag != 0).then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_find_what_they_look_for() {
        let features = features();
        let options = features["mountOptions"].as_array().unwrap();
        assert!(options.contains(&json!("rro")) && options.is_sorted_by_key(|option| option.as_str()));
        assert_eq!(features["ociVersionMin"], "1.0.0");
        assert_eq!(features["linux"]["capabilities"][0], "CAP_CHOWN");
        assert_eq!(features["linux"]["capabilities"][40], "CAP_CHECKPOINT_RESTORE");
        assert!(features["linux"]["mountExtensions"]["idmap"]["enabled"].is_boolean());
    }
}
