//! `update`: other limits for a container, from options or from JSON.

use super::{Global, root, size};
use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use stasis::container::Container;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Arguments of `update`.
#[derive(Args, Debug, Default)]
#[command(after_help = "\
The JSON is an object like \"linux.resources\" of config.json; what it does not name stays as it is:
{ \"memory\": { \"limit\": 0, \"reservation\": 0, \"swap\": 0, \"checkBeforeUpdate\": true },
  \"cpu\": { \"shares\": 0, \"quota\": 0, \"burst\": 0, \"period\": 0, \"realtimeRuntime\": 0,
           \"realtimePeriod\": 0, \"cpus\": \"\", \"mems\": \"\", \"idle\": 0 },
  \"blockIO\": { \"weight\": 0 }, \"pids\": { \"limit\": 0 }, \"unified\": {} }
Where it is given, the other options are ignored.")]
pub struct UpdateArgs {
    /// path to the file with the resources to update, or '-' to read them from the standard input
    #[arg(long, short, value_name = "file")]
    pub resources: Option<PathBuf>,
    /// weight of block I/O, from 10 to 1000
    #[arg(long, value_name = "weight")]
    pub blkio_weight: Option<i64>,
    /// length of a CPU period in microseconds
    #[arg(long, value_name = "usecs")]
    pub cpu_period: Option<String>,
    /// CPU time in each period in microseconds, or -1 for no limit
    #[arg(long, value_name = "usecs")]
    pub cpu_quota: Option<String>,
    /// CPU time in microseconds that may be saved up beyond the quota
    #[arg(long, value_name = "usecs")]
    pub cpu_burst: Option<String>,
    /// CPU shares, relative to those of others
    #[arg(long, value_name = "shares")]
    pub cpu_share: Option<String>,
    /// length of a realtime period in microseconds
    #[arg(long, value_name = "usecs")]
    pub cpu_rt_period: Option<String>,
    /// realtime CPU time in each period in microseconds
    #[arg(long, value_name = "usecs")]
    pub cpu_rt_runtime: Option<String>,
    /// CPUs to use
    #[arg(long, value_name = "list")]
    pub cpuset_cpus: Option<String>,
    /// memory nodes to use
    #[arg(long, value_name = "list")]
    pub cpuset_mems: Option<String>,
    /// 1 to use only CPU time that nobody else wants, 0 for the default
    #[arg(long, value_name = "idle")]
    pub cpu_idle: Option<String>,
    /// limit of memory, in bytes or with a suffix such as m, or -1 for none
    #[arg(long, value_name = "size")]
    pub memory: Option<String>,
    /// soft limit of memory
    #[arg(long, value_name = "size")]
    pub memory_reservation: Option<String>,
    /// limit of memory and swap together, or -1 for none
    #[arg(long, value_name = "size")]
    pub memory_swap: Option<String>,
    /// limit of processes, or -1 for none
    #[arg(long, value_name = "number")]
    pub pids_limit: Option<i64>,
    /// Intel RDT: the schema of the L3 cache
    #[arg(long, value_name = "schema")]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: the schema of memory bandwidth
    #[arg(long, value_name = "schema")]
    pub mem_bw_schema: Option<String>,
    /// obsolete, and ignored
    #[arg(long, value_name = "size", hide = true)]
    pub kernel_memory: Option<String>,
    /// obsolete, and ignored
    #[arg(long, value_name = "size", hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
}

/// Changes limits of a container.
pub fn run(args: &UpdateArgs, global: &Global) -> Result<u8> {
    let container = Container::load(&root::select(global)?.path, &args.id)?;
    let change = match &args.resources {
        Some(path) => read(path)?,
        None => change(args)?,
    };
    container.update(change, [args.l3_cache_schema.clone(), args.mem_bw_schema.clone()])?;
    Ok(0)
}

fn read(path: &Path) -> Result<Value> {
    let mut text = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).context("read resources from stdin")?;
    } else {
        text = stasis::Context::context(std::fs::read(path), || format!("open {}", path.display()))?;
    }
    stasis::spec::json::value(&text).context("parse resources")
}

/// How the value of an option is written.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Signed,
    Unsigned,
    Size,
}

/// Returns what the options ask for.
fn change(args: &UpdateArgs) -> Result<Value> {
    for (option, value) in [("kernel-memory", &args.kernel_memory), ("kernel-memory-tcp", &args.kernel_memory_tcp)] {
        if value.is_some() {
            log::warn!("Setting --{option} is ignored and will be removed");
        }
    }
    let [weight, processes] =
        [args.blkio_weight, args.pids_limit].map(|number| number.map(|number| number.to_string()));
    let options = [
        ("blkio-weight", &weight, "blockIO", "weight", Kind::Unsigned),
        ("cpu-period", &args.cpu_period, "cpu", "period", Kind::Unsigned),
        ("cpu-quota", &args.cpu_quota, "cpu", "quota", Kind::Signed),
        ("cpu-burst", &args.cpu_burst, "cpu", "burst", Kind::Unsigned),
        ("cpu-share", &args.cpu_share, "cpu", "shares", Kind::Unsigned),
        ("cpu-rt-period", &args.cpu_rt_period, "cpu", "realtimePeriod", Kind::Unsigned),
        ("cpu-rt-runtime", &args.cpu_rt_runtime, "cpu", "realtimeRuntime", Kind::Signed),
        ("cpuset-cpus", &args.cpuset_cpus, "cpu", "cpus", Kind::Text),
        ("cpuset-mems", &args.cpuset_mems, "cpu", "mems", Kind::Text),
        ("cpu-idle", &args.cpu_idle, "cpu", "idle", Kind::Signed),
        ("memory", &args.memory, "memory", "limit", Kind::Size),
        ("memory-reservation", &args.memory_reservation, "memory", "reservation", Kind::Size),
        ("memory-swap", &args.memory_swap, "memory", "swap", Kind::Size),
        ("pids-limit", &processes, "pids", "limit", Kind::Signed),
    ];
    let mut change = json!({});
    for (option, given, part, key, kind) in options {
        if let Some(text) = given {
            change[part][key] = value(text, kind).with_context(|| format!("invalid value for {option}"))?;
        }
    }
    Ok(change)
}

fn value(text: &str, kind: Kind) -> Result<Value> {
    let wrong = || format!("{text:?} is no number");
    Ok(match kind {
        Kind::Text => text.into(),
        Kind::Signed => text.parse::<i64>().ok().with_context(wrong)?.into(),
        Kind::Unsigned => text.parse::<u64>().ok().with_context(wrong)?.into(),
        Kind::Size if text == "-1" => (-1).into(),
        Kind::Size => size::parse(text)?.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_resources() {
        let given = |text: &str| Some(text.to_owned());
        let args = UpdateArgs {
            cpu_quota: given("-1"),
            cpu_share: given("200"),
            cpuset_cpus: given("0-1"),
            memory: given("50M"),
            memory_swap: given("-1"),
            pids_limit: Some(10),
            ..UpdateArgs::default()
        };
        let expected = json!({
            "cpu": {"quota": -1, "shares": 200, "cpus": "0-1"},
            "memory": {"limit": 50 << 20, "swap": -1},
            "pids": {"limit": 10},
        });
        assert_eq!(change(&args).unwrap(), expected);
    }

    #[test]
    fn a_value_that_is_none_is_named_with_its_option() {
        let wrong = |args: UpdateArgs| format!("{:#}", change(&args).unwrap_err());
        let shares = UpdateArgs { cpu_share: Some("-2".to_owned()), ..UpdateArgs::default() };
        assert_eq!(wrong(shares), "invalid value for cpu-share: \"-2\" is no number");
        let memory = UpdateArgs { memory: Some("1x".to_owned()), ..UpdateArgs::default() };
        assert_eq!(wrong(memory), "invalid value for memory: invalid size: '1x'");
    }
}
