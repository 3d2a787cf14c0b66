//! What a cgroup's processes have used, in the words of runc's `events` (types/events.go there), which engines read.
//!
//! v2 is told in the terms of v1 where it has others, as runc does. A number that is 0 and a file that is not there
//! are left out; Go's `omitempty` has made no difference between them either.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{Cgroup, file};
use crate::plan::cgroup::Version;
use crate::plan::number_list;

/// Nanoseconds of a clock tick: USER_HZ is 100 on every architecture.
const TICK: u64 = 10_000_000;

/// v1's files of block I/O, and the names of their numbers.
const BLOCK_IO: &[(&str, &str)] = &[
    ("io_service_bytes", "ioServiceBytesRecursive"),
    ("io_serviced", "ioServicedRecursive"),
    ("io_queued", "ioQueueRecursive"),
    ("io_service_time", "ioServiceTimeRecursive"),
    ("io_wait_time", "ioWaitTimeRecursive"),
    ("io_merged", "ioMergedRecursive"),
    ("time", "ioTimeRecursive"),
    ("sectors", "sectorsRecursive"),
];

/// The flags of a v1 cpuset, by their files' names.
const CPUSET: &[&str] = &[
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
];

impl Cgroup {
    /// Returns what the processes have used until now.
    pub fn stats(&self) -> Value {
        json!({
            "cpu": cpu(self),
            "cpuset": cpuset(&self.files("cpuset")),
            "memory": memory(self),
            "pids": pids(self),
            "blkio": block_io(self),
            "hugetlb": hugetlb(&self.files("hugetlb")),
            "intel_rdt": {},
            "network_interfaces": null,
        })
    }

    fn files(&self, controller: &str) -> Files {
        let directory = self.directory(controller);
        Files {
            path: directory.map(|directory| directory.path.clone()),
            is_v1: directory.is_some_and(|directory| directory.version == Version::V1),
        }
    }
}

/// The files of a cgroup in the hierarchy of one controller, if it has one.
struct Files {
    path: Option<PathBuf>,
    is_v1: bool,
}

impl Files {
    /// Returns what a file says; nothing if it is not there.
    fn text(&self, name: &str) -> String {
        self.path.as_ref().and_then(|path| file::read(&path.join(name)).ok()).unwrap_or_default()
    }

    fn number(&self, name: &str) -> u64 {
        number(&self.text(name)).unwrap_or(0)
    }
}

/// Reads a number; what has no limit has the greatest.
fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

/// Adds a value, unless it is nothing.
fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let value = value.into();
    let is_nothing = value == 0 || value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    if !is_nothing {
        map.insert(key.to_owned(), value);
    }
}

fn cpu(cgroup: &Cgroup) -> Value {
    let accounting = cgroup.files("cpuacct");
    let (files, unit) = if accounting.is_v1 { (cgroup.files("cpu"), 1) } else { (cgroup.files(""), 1000) };
    let stat = files.text("cpu.stat");
    let value = |key: &str| file::value(&stat, key).unwrap_or(0);
    let usage = if accounting.is_v1 {
        v1_cpu_usage(&accounting)
    } else {
        let mut usage = Map::new();
        put(&mut usage, "total", value("usage_usec") * unit);
        usage.insert("kernel".to_owned(), (value("system_usec") * unit).into());
        usage.insert("user".to_owned(), (value("user_usec") * unit).into());
        usage
    };
    let mut throttling = Map::new();
    put(&mut throttling, "periods", value("nr_periods"));
    put(&mut throttling, "throttledPeriods", value("nr_throttled"));
    put(&mut throttling, "throttledTime", value("throttled_time") + value("throttled_usec") * unit);
    let mut cpu = Map::new();
    cpu.insert("usage".to_owned(), Value::Object(usage));
    cpu.insert("throttling".to_owned(), Value::Object(throttling));
    put(&mut cpu, "psi", pressure(cgroup, "cpu"));
    Value::Object(cpu)
}

fn v1_cpu_usage(files: &Files) -> Map<String, Value> {
    // Each line is a cpu with its two times; the head has words.
    let all = files.text("cpuacct.usage_all");
    let column = |index: usize| -> Vec<u64> {
        all.lines().filter_map(|line| line.split(' ').nth(index)?.parse().ok()).collect()
    };
    let per_cpu = files.text("cpuacct.usage_percpu");
    let stat = files.text("cpuacct.stat");
    let ticks = |key: &str| file::value(&stat, key).unwrap_or(0) * TICK;
    let mut usage = Map::new();
    put(&mut usage, "total", files.number("cpuacct.usage"));
    put(&mut usage, "percpu", per_cpu.split_whitespace().filter_map(number).collect::<Vec<_>>());
    put(&mut usage, "percpu_user", column(1));
    put(&mut usage, "percpu_kernel", column(2));
    usage.insert("kernel".to_owned(), ticks("system").into());
    usage.insert("user".to_owned(), ticks("user").into());
    usage
}

/// Only v1 has these; of v2 runc tells zeros.
fn cpuset(files: &Files) -> Value {
    let mut cpuset = Map::new();
    for name in CPUSET {
        let text = if files.is_v1 { files.text(&format!("cpuset.{name}")) } else { String::new() };
        cpuset.insert((*name).to_owned(), text.trim().parse::<i64>().unwrap_or(0).into());
    }
    if files.is_v1 {
        put(&mut cpuset, "cpus", number_list::parse(&files.text("cpuset.cpus")));
        put(&mut cpuset, "mems", number_list::parse(&files.text("cpuset.mems")));
    }
    Value::Object(cpuset)
}

fn memory(cgroup: &Cgroup) -> Value {
    let files = cgroup.files("memory");
    let mut raw = Map::new();
    for line in files.text("memory.stat").lines() {
        if let Some((key, value)) = line.split_once(' ').and_then(|(key, value)| Some((key, number(value)?))) {
            raw.insert(key.to_owned(), value.into());
        }
    }
    let mut memory = Map::new();
    put(&mut memory, "cache", raw.get(if files.is_v1 { "cache" } else { "file" }).cloned());
    let parts = [("usage", ""), ("swap", ".memsw"), ("kernel", ".kmem"), ("kernelTCP", ".kmem.tcp")];
    for (name, part) in parts {
        let read = |suffix: &str| files.number(&format!("memory{part}.{suffix}"));
        let amount = match (files.is_v1, name) {
            (true, _) => {
                amount(read("limit_in_bytes"), read("usage_in_bytes"), read("max_usage_in_bytes"), read("failcnt"))
            }
            (false, "usage") => amount(read("max"), read("current"), read("peak"), 0),
            (false, "swap") => v2_memory_and_swap(&files),
            (false, _) => amount(0, 0, 0, 0),
        };
        memory.insert(name.to_owned(), amount);
    }
    put(&mut memory, "raw", Some(raw).filter(|raw| !raw.is_empty()).map(Value::Object));
    put(&mut memory, "psi", pressure(cgroup, "memory"));
    Value::Object(memory)
}

/// v2 counts swap alone, v1 both together; of the greatest use of both v2 does not know.
fn v2_memory_and_swap(files: &Files) -> Value {
    let (memory, swap) = (files.number("memory.max"), files.number("memory.swap.max"));
    let used = files.number("memory.current") + files.number("memory.swap.current");
    amount(memory.saturating_add(swap), used, 0, 0)
}

fn amount(limit: u64, usage: u64, max: u64, failures: u64) -> Value {
    let mut amount = Map::new();
    amount.insert("limit".to_owned(), limit.into());
    put(&mut amount, "usage", usage);
    put(&mut amount, "max", max);
    amount.insert("failcnt".to_owned(), failures.into());
    Value::Object(amount)
}

fn pids(cgroup: &Cgroup) -> Value {
    let files = cgroup.files("pids");
    let mut pids = Map::new();
    match number(&files.text("pids.current")) {
        Some(current) => put(&mut pids, "current", current),
        // Without the controller they can still be counted.
        None => put(&mut pids, "current", cgroup.pids(true).map_or(0, |pids| pids.len())),
    }
    // No limit is told by no number.
    put(&mut pids, "limit", files.text("pids.max").trim().parse().unwrap_or(0_u64));
    Value::Object(pids)
}

fn block_io(cgroup: &Cgroup) -> Value {
    let v1 = cgroup.files("blkio");
    let mut io = Map::new();
    if v1.path.is_some() {
        for (file, name) in BLOCK_IO {
            // Whichever scheduler counts; the throttle counts for all of them.
            let files = [format!("bfq.{file}_recursive"), format!("{file}_recursive")];
            let files = files.into_iter().chain([format!("throttle.{file}_recursive"), format!("throttle.{file}")]);
            let counted = files.map(|file| v1_requests(&v1.text(&format!("blkio.{file}"))));
            put(&mut io, name, counted.into_iter().find(|entries| !entries.is_empty()).unwrap_or_default());
        }
    } else {
        let stat = cgroup.files("io").text("io.stat");
        put(&mut io, "ioServiceBytesRecursive", v2_requests(&stat, "rbytes", "wbytes"));
        put(&mut io, "ioServicedRecursive", v2_requests(&stat, "rios", "wios"));
    }
    put(&mut io, "psi", pressure(cgroup, "io"));
    Value::Object(io)
}

/// Reads lines such as `8:0 Read 4096` or `8:0 17`; the sum of all devices has no number.
fn v1_requests(text: &str) -> Vec<Value> {
    let entry = |line: &str| {
        let (device, rest) = line.split_once(' ')?;
        let (operation, value) = rest.split_once(' ').unwrap_or(("", rest));
        request(device, operation, value)
    };
    text.lines().filter_map(entry).collect()
}

/// Reads lines such as `8:0 rbytes=4096 wbytes=0 rios=1 wios=0`.
fn v2_requests(text: &str, read: &str, write: &str) -> Vec<Value> {
    let mut entries = Vec::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let device = words.next().unwrap_or_default();
        entries.extend(words.filter_map(|word| {
            let (key, value) = word.split_once('=')?;
            let operation = [(read, "Read"), (write, "Write")].into_iter().find(|(name, _)| *name == key)?.1;
            request(device, operation, value)
        }));
    }
    entries
}

fn request(device: &str, operation: &str, value: &str) -> Option<Value> {
    let (major, minor) = device.split_once(':')?;
    let mut entry = Map::new();
    put(&mut entry, "major", number(major)?);
    put(&mut entry, "minor", number(minor)?);
    if !operation.is_empty() {
        put(&mut entry, "op", operation);
    }
    put(&mut entry, "value", number(value)?);
    Some(Value::Object(entry))
}

/// Tells of each size of huge pages; the reserved ones where the kernel counts them (5.7), as runc does.
fn hugetlb(files: &Files) -> Value {
    let (current, used) = if files.is_v1 { (".usage_in_bytes", "usage_in_bytes") } else { (".current", "current") };
    let entries = files.path.as_ref().and_then(|path| std::fs::read_dir(path).ok());
    let names = entries.into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut sizes = Map::new();
    for name in names {
        let size = name.strip_prefix("hugetlb.").and_then(|name| name.strip_suffix(current));
        let Some(size) = size.filter(|size| !size.contains('.')) else { continue };
        let reserved = format!("hugetlb.{size}.rsvd");
        let is_counted = !files.text(&format!("{reserved}.{used}")).is_empty();
        let prefix = if is_counted { reserved } else { format!("hugetlb.{size}") };
        let mut pages = Map::new();
        put(&mut pages, "usage", files.number(&format!("{prefix}.{used}")));
        put(&mut pages, "max", files.number(&format!("{prefix}.max_usage_in_bytes")));
        let failures = match files.is_v1 {
            true => files.number(&format!("{prefix}.failcnt")),
            false => file::value(&files.text(&format!("{prefix}.events")), "max").unwrap_or(0),
        };
        pages.insert("failcnt".to_owned(), failures.into());
        sizes.insert(size.to_owned(), Value::Object(pages));
    }
    Value::Object(sizes)
}

/// Tells how long processes waited for a resource (Documentation/accounting/psi.rst), which v2 knows.
fn pressure(cgroup: &Cgroup, resource: &str) -> Value {
    let text = cgroup.files("").text(&format!("{resource}.pressure"));
    let mut pressure = Map::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let kind = words.next().unwrap_or_default();
        let mut values = Map::new();
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let is_total = key == "total";
            let value =
                if is_total { number(value).map(Value::from) } else { value.parse::<f64>().ok().map(Value::from) };
            values.insert(key.to_owned(), value.unwrap_or_default());
        }
        pressure.insert(kind.to_owned(), Value::Object(values));
    }
    if pressure.is_empty() { Value::Null } else { Value::Object(pressure) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::cgroup::Directory;

    /// Returns a cgroup on v2 whose files have these texts.
    fn v2(dir: &tempfile::TempDir, files: &[(&str, &str)]) -> Cgroup {
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let controllers = ["cpu", "memory", "io", "pids", "hugetlb"].map(str::to_owned).to_vec();
        let (mount, path) = (dir.path().to_owned(), dir.path().to_owned());
        let directories = vec![Directory { version: Version::V2, controllers, mount, path, delegated: None }];
        Cgroup { directories, ..Cgroup::default() }
    }

    #[test]
    fn v2_is_told_in_the_words_of_v1() {
        let dir = tempfile::tempdir().unwrap();
        let stats = v2(
            &dir,
            &[
                (
                    "cpu.stat",
                    "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
                ),
                ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=12\n"),
                ("memory.stat", "anon 4096\nfile 8192\n"),
                ("memory.current", "100\n"),
                ("memory.max", "max\n"),
                ("memory.peak", "200\n"),
                ("memory.swap.current", "11\n"),
                ("memory.swap.max", "1000\n"),
                ("io.stat", "8:0 rbytes=10 wbytes=20 rios=1 wios=0 dbytes=0 dios=0\n"),
                ("pids.current", "3\n"),
                ("pids.max", "max\n"),
                ("hugetlb.2MB.current", "9\n"),
                ("hugetlb.2MB.rsvd.current", "2\n"),
                ("hugetlb.2MB.rsvd.events", "max 6\n"),
            ],
        )
        .stats();
        let expected = json!({
            "usage": {"total": 5000, "user": 3000, "kernel": 2000},
            "throttling": {"periods": 4, "throttledPeriods": 1, "throttledTime": 7000},
            "psi": {"some": {"avg10": 1.5, "avg60": 0.0, "avg300": 0.0, "total": 12}},
        });
        assert_eq!(stats["cpu"], expected);
        let memory = &stats["memory"];
        assert_eq!((&memory["cache"], &memory["raw"]), (&json!(8192), &json!({"anon": 4096, "file": 8192})));
        assert_eq!(memory["usage"], json!({"limit": u64::MAX, "usage": 100, "max": 200, "failcnt": 0}));
        assert_eq!(memory["swap"], json!({"limit": u64::MAX, "usage": 111, "failcnt": 0}));
        assert_eq!(memory["kernelTCP"], json!({"limit": 0, "failcnt": 0}));
        assert_eq!(stats["pids"], json!({"current": 3}));
        assert_eq!(stats["hugetlb"], json!({"2MB": {"usage": 2, "failcnt": 6}}));
        let bytes = json!([{"major": 8, "op": "Read", "value": 10}, {"major": 8, "op": "Write", "value": 20}]);
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"], bytes);
        assert_eq!(stats["blkio"]["ioServicedRecursive"][1], json!({"major": 8, "op": "Write"}));
    }

    #[test]
    fn requests_of_v1_have_an_operation_or_none() {
        let entries = v1_requests("8:16 Read 4096\n8:16 Total 4096\n7:0 5\nTotal 4096\n");
        let expected = json!([
            {"major": 8, "minor": 16, "op": "Read", "value": 4096},
            {"major": 8, "minor": 16, "op": "Total", "value": 4096},
            {"major": 7, "value": 5},
        ]);
        assert_eq!(Value::from(entries), expected);
    }
}
