use super::limits::{NO_LIMIT, bits};
use super::*;
use crate::plan::cgroup::Mount;

fn mount(point: &str, controllers: &[&str]) -> Mount {
    let controllers = controllers.iter().map(|name| (*name).to_owned()).collect();
    Mount { point: point.into(), root: "/".into(), controllers }
}

fn v2() -> Layout {
    Layout::V2(mount("/sys/fs/cgroup", &["cpuset", "cpu", "io", "memory", "pids"]))
}

fn plan_of(path: &str, host: &Host, json: &str, annotated: Vec<Property>) -> Result<CgroupPlan> {
    let resources = serde_json::from_str(json).unwrap();
    plan(
        &v2(),
        host,
        Asked { path: Some(Path::new(path)), id: "c1", resources: Some(&resources), annotated, subgroup: None },
    )
}

fn limits_of(version: Version, json: &str) -> Vec<String> {
    let shown = |property: &Property| match &property.value {
        Value::Number(_, NO_LIMIT) => format!("{}=infinity", property.name),
        Value::Number(_, number) => format!("{}={number}", property.name),
        Value::Text(text) => format!("{}={text}", property.name),
        other => format!("{}={other:?}", property.name),
    };
    limits(version, &serde_json::from_str(json).unwrap()).unwrap().iter().map(shown).collect()
}

#[test]
fn a_path_names_slice_and_unit() {
    let user = Host { is_user: true, root: "/user.slice/user-1.slice/user@1.service".into() };
    let cases = [
        (Host::default(), "machine.slice:libpod:x", "/machine.slice/libpod-x.scope"),
        (Host::default(), "a-b-c.slice:cri:x", "/a.slice/a-b.slice/a-b-c.slice/cri-x.scope"),
        (Host::default(), ":docker:x", "/system.slice/docker-x.scope"),
        (Host::default(), "-.slice:p:x", "/p-x.scope"),
        (Host::default(), "-:p:x", "/p-x.scope"),
        (Host::default(), "", "/system.slice/stasis-c1.scope"),
        (user, ":p:x", "/user.slice/user-1.slice/user@1.service/user.slice/p-x.scope"),
    ];
    for (host, path, expected) in cases {
        let plan = plan_of(path, &host, "{}", Vec::new()).unwrap();
        assert_eq!(plan.directories[0].path, Path::new(&format!("/sys/fs/cgroup{expected}")), "{path}");
        let unit = plan.unit.unwrap();
        assert_eq!((unit.name.as_str(), unit.is_user), (expected.rsplit('/').next().unwrap(), host.is_user));
    }
}

#[test]
fn a_path_that_names_no_unit_is_refused() {
    let cases = [
        ("/a", "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a\" instead"),
        (
            "a:b:c:d",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"a:b:c:d\" instead",
        ),
        ("a:b:c", "invalid slice name: a"),
        ("a/b.slice:b:c", "invalid slice name: a/b.slice"),
        ("a--b.slice:b:c", "invalid slice name: a--b.slice"),
        (".slice:b:c", "invalid slice name: .slice"),
        (":b:../c", "invalid unit name: b-../c.scope"),
        ("a.slice::a-x.slice", "unable to start unit \"a-x.slice\": a slice takes no processes"),
    ];
    for (path, expected) in cases {
        assert_eq!(plan_of(path, &Host::default(), "{}", Vec::new()).unwrap_err().to_string(), expected);
    }
}

#[test]
fn limits_win_over_annotations_and_one_task_is_said_later() {
    let annotated = vec![Property::number("MemoryMax", 5), Property::flag("Delegate", false)];
    let json = r#"{"memory": {"limit": 4}, "pids": {"limit": 1}}"#;
    let unit = plan_of(":p:x", &Host::default(), json, annotated).unwrap().unit.unwrap();
    let named = |name: &str| unit.properties.iter().filter(|one| one.name == name).cloned().collect::<Vec<_>>();
    assert_eq!(named("MemoryMax"), [Property::number("MemoryMax", 5), Property::number("MemoryMax", 4)]);
    assert_eq!(named("TasksMax"), []);
    assert_eq!(unit.limits, [Property::number("TasksMax", 1)]);
    assert_eq!(named("Delegate"), [Property::flag("Delegate", false)]);
    assert_eq!(named("Slice"), [Property::new("Slice", Value::Text("system.slice".into()))]);
}

#[test]
fn the_root_slice_has_a_short_name() {
    let unit = plan_of("-:p:x", &Host::default(), "{}", Vec::new()).unwrap().unit.unwrap();
    assert!(unit.properties.contains(&Property::new("Slice", Value::Text("-.slice".into()))), "{unit:?}");
}

#[test]
fn what_happens_without_memory_is_said_at_the_start_only() {
    let policy = |value: &str| {
        let json = format!(r#"{{"unified": {{"memory.oom.group": "{value}"}}}}"#);
        assert_eq!(limits_of(Version::V2, &json), [""; 0]);
        let unit = plan_of(":p:x", &Host::default(), &json, Vec::new())?.unit.unwrap();
        Ok(unit.properties.into_iter().find(|one| one.name == "OOMPolicy").map(|one| one.value))
    };
    let text = |text: &str| Ok::<_, Error>(Some(Value::Text(text.to_owned())));
    assert_eq!(policy("0"), text("continue"));
    assert_eq!(policy("1"), text("kill"));
    assert_eq!(policy("2"), Ok(None));
    let refused = policy("yes").unwrap_err().to_string();
    assert_eq!(refused, "unified resource \"memory.oom.group\" value conversion error: \"yes\"");
}

#[test]
fn resources_become_properties() {
    let cases: [(&str, &[&str], &[&str]); 9] = [
        (
            r#"{"memory": {"limit": 8, "swap": 10, "reservation": 4}}"#,
            &["MemoryMax=8", "MemoryLow=4", "MemorySwapMax=2"],
            &["MemoryLimit=8"],
        ),
        (r#"{"memory": {"limit": 8, "swap": 8}}"#, &["MemoryMax=8", "MemorySwapMax=0"], &["MemoryLimit=8"]),
        (r#"{"memory": {"limit": -1}}"#, &["MemoryMax=infinity", "MemorySwapMax=infinity"], &["MemoryLimit=infinity"]),
        (r#"{"cpu": {"shares": 1024}}"#, &["CPUWeight=100"], &["CPUShares=1024"]),
        (
            r#"{"cpu": {"quota": 12345, "period": 100000}}"#,
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=130000"],
            &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=130000"],
        ),
        (r#"{"cpu": {"quota": -1}}"#, &["CPUQuotaPerSecUSec=infinity"], &["CPUQuotaPerSecUSec=infinity"]),
        (r#"{"cpu": {"shares": 5, "idle": 1}}"#, &["CPUWeight=2", "CPUWeight=0"], &["CPUShares=5"]),
        (r#"{"pids": {"limit": -1}}"#, &["TasksMax=infinity"], &["TasksMax=infinity"]),
        (r#"{"blockIO": {"weight": 500}}"#, &[], &["BlockIOWeight=500"]),
    ];
    for (json, on_v2, on_v1) in cases {
        assert_eq!(limits_of(Version::V2, json), on_v2, "{json}");
        assert_eq!(limits_of(Version::V1, json), on_v1, "{json}");
    }
}

#[test]
fn files_become_properties_where_there_is_a_word() {
    let cases: [(&str, &str, &[&str]); 9] = [
        ("cpu.max", "5000", &["CPUQuotaPeriodUSec=100000", "CPUQuotaPerSecUSec=50000"]),
        ("cpu.max", "max 20000", &["CPUQuotaPeriodUSec=20000", "CPUQuotaPerSecUSec=infinity"]),
        ("cpu.weight", "7", &["CPUWeight=7"]),
        ("cpu.idle", "1", &["CPUWeight=0"]),
        ("memory.high", "max", &["MemoryHigh=infinity"]),
        ("memory.min", "4096", &["MemoryMin=4096"]),
        ("cpu.idle", "0", &[]),
        ("pids.max", "9", &["TasksMax=9"]),
        ("hugetlb.2MB.max", "0", &[]),
    ];
    for (file, value, expected) in cases {
        assert_eq!(limits_of(Version::V2, &format!(r#"{{"unified": {{"{file}": "{value}"}}}}"#)), expected);
    }
    for (file, value, what) in [
        ("memory.max", "1G", "value conversion error"),
        ("cpu.weight", "max", "value conversion error"),
        ("cpu.max", "1 2 3", "value invalid"),
    ] {
        let wrong = serde_json::from_str(&format!(r#"{{"unified": {{"{file}": "{value}"}}}}"#)).unwrap();
        let text = format!("unified resource {file:?} {what}: {value:?}");
        assert_eq!(limits(Version::V2, &wrong).unwrap_err().to_string(), text);
    }
    // Idle is what counts, and a weight is nothing that the kernel would take then.
    let both = r#"{"unified": {"cpu.weight": "7", "cpu.idle": "1"}}"#;
    assert_eq!(limits_of(Version::V2, both), ["CPUWeight=7", "CPUWeight=0"]);
    let plan = plan_of(":p:x", &Host::default(), both, Vec::new()).unwrap();
    let files: Vec<&str> = plan.writes.iter().map(|write| write.file.as_str()).collect();
    assert_eq!(files, ["cpu.idle"]);
}

#[test]
fn lists_become_bits() {
    for (list, expected) in [("0", vec![1]), ("0-2,5", vec![0b10_0111]), ("8", vec![0, 1]), ("1, 9", vec![2, 2])] {
        assert_eq!(bits(list).unwrap(), expected, "{list}");
    }
    for list in ["", ",", "a", "3-1", "-", "70000"] {
        assert!(bits(list).is_err(), "{list}");
    }
}

#[test]
fn a_quota_is_written_in_the_percents_of_systemd() {
    let cases = [
        (r#"{"cpu": {"quota": 12345, "period": 50000}}"#, "12500 50000"),
        (r#"{"cpu": {"quota": 12500, "period": 50000}}"#, "12500 50000"),
        (r#"{"cpu": {"quota": 20001}}"#, "21000 100000"),
        (r#"{"cpu": {"quota": -1}}"#, "max 100000"),
        (r#"{"cpu": {"period": 2000}}"#, "max 2000"),
        // What is a file's is left alone.
        (r#"{"unified": {"cpu.max": "20001 100000"}}"#, "20001 100000"),
    ];
    for (json, expected) in cases {
        let plan = plan_of(":p:x", &Host::default(), json, Vec::new()).unwrap();
        let written = plan.writes.iter().find(|write| write.file == "cpu.max").map(|write| write.value.as_str());
        assert_eq!(written, Some(expected), "{json}");
    }
    let most = serde_json::from_str(&format!(r#"{{"cpu": {{"quota": {}}}}}"#, i64::MAX)).unwrap();
    assert_eq!(rounded(&most), most);
}

#[test]
fn on_v1_systemd_is_told_the_devices() {
    let layout = Layout::V1(vec![mount("/sys/fs/cgroup/devices", &["devices"])]);
    let properties = |json: &str| {
        let resources = serde_json::from_str(json).unwrap();
        let asked = Asked { path: None, id: "c", resources: Some(&resources), annotated: Vec::new(), subgroup: None };
        plan(&layout, &Host::default(), asked).unwrap().unit.unwrap().properties
    };
    let strict = properties(
        r#"{"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "b", "major": 8, "access": "r"}, {"allow": true, "type": "c", "minor": 7, "access": "r"}]}"#,
    );
    assert!(strict.contains(&Property::new("DevicePolicy", Value::Text("strict".into()))));
    let Some(Value::Pairs(allowed)) = strict.iter().find(|one| one.name == "DeviceAllow").map(|one| &one.value) else {
        panic!("{strict:?}")
    };
    for (name, access) in
        [("block-8", "r"), ("char-*", "m"), ("block-*", "m"), ("/dev/char/1:3", "rwm"), ("char-136", "rwm")]
    {
        assert!(allowed.contains(&(name.into(), access.into())), "{name} in {allowed:?}");
    }
    // For a number of the second kind alone it has no word.
    assert!(!allowed.iter().any(|(name, access)| name.contains("char") && access == "r"), "{allowed:?}");
    let open = properties(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#);
    assert!(open.contains(&Property::new("DevicePolicy", Value::Text("auto".into()))));
    assert!(open.iter().all(|one| one.name != "DeviceAllow"));
    // Nor for what is not allowed: rather nothing is, until the files are written.
    let but_one = properties(
        r#"{"devices": [{"allow": true, "access": "rwm"}, {"allow": false, "type": "b", "major": 8, "access": "rwm"}]}"#,
    );
    assert!(but_one.contains(&Property::new("DevicePolicy", Value::Text("strict".into()))));
    assert!(but_one.contains(&Property::new("DeviceAllow", Value::Pairs(Vec::new()))));
}

#[test]
fn what_is_below_a_scope_is_not_called_as_it_is() {
    let planned = |subgroup| {
        let asked = Asked { path: None, id: "c", resources: None, annotated: Vec::new(), subgroup: Some(subgroup) };
        plan(&v2(), &Host::default(), asked)
    };
    assert!(planned(Path::new("a/b")).unwrap().directories[0].path.ends_with("stasis-c.scope/a/b"));
    let err = planned(Path::new("a/stasis-c.scope")).unwrap_err();
    assert_eq!(err.to_string(), "cgroup a/stasis-c.scope below a scope has the scope's name");
}

#[test]
fn a_users_own_systemd_has_v2_only() {
    let host = Host { is_user: true, ..Host::default() };
    let asked = Asked { path: None, id: "c", resources: None, annotated: Vec::new(), subgroup: None };
    let err = plan(&Layout::V1(Vec::new()), &host, asked).unwrap_err();
    assert_eq!(err.to_string(), "the user's own systemd can make cgroups for containers on cgroup v2 only");
}

#[test]
fn a_users_slice_says_whose_it_is() {
    let cases = [
        ("0::/user.slice/user-1000.slice/user@1000.service/init.scope", Some(1000)),
        ("0::/user.slice/user-0.slice/session-1.scope", Some(0)),
        ("0::/\n1:name=systemd:/user.slice/user-7.slice/user@7.service", Some(7)),
        ("0::/user.slice/user-x.slice", None),
        ("0::/system.slice/user-1000.service", None),
        ("1:cpu:/user.slice/user-7.slice", None),
        ("", None),
    ];
    for (text, expected) in cases {
        assert_eq!(owner_of(&OwnCgroup::parse(text).unwrap()), expected, "{text}");
    }
}
