//! resctrl as a directory: what is made, written and removed there, and what is told of it.

use super::*;
use std::fs;

/// A resctrl of a machine that allots caches, and monitors them.
fn resctrl() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |file: &str, text: &str| {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("schemata", "    L3:0=fffff;1=fffff\n");
    write("info/L3/cbm_mask", "fffff\n");
    write("info/L3/min_cbm_bits", "1\n");
    write("info/L3/num_closids", "16\n");
    write("info/L3_MON/mon_features", "llc_occupancy\nmbm_total_bytes\n");
    root
}

fn asked(rdt: Value) -> RdtPlan {
    rdt::plan(&serde_json::from_value(rdt).unwrap()).unwrap()
}

/// A class of service that is there.
fn class(root: &Path, name: &str) -> PathBuf {
    let class = root.join(name);
    // resctrl has it in each.
    fs::create_dir_all(class.join("mon_groups")).unwrap();
    class
}

fn made(root: &Path, rdt: Value) -> Result<Rdt> {
    Ok(available(Some(root.to_owned()), asked(rdt))?.make("box")?.unwrap())
}

fn text(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn what_is_not_there_is_refused_in_runcs_words() {
    let root = resctrl();
    let refused = |root: Option<&Path>, rdt| available(root.map(Into::into), asked(rdt)).unwrap_err().to_string();
    let none = "intelRdt is specified in config, but Intel RDT is not enabled";
    assert_eq!(refused(None, json!({})), none);
    let cache = "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled";
    assert_eq!(refused(None, json!({"l3CacheSchema": "L3:0=f"})), cache);
    let bandwidth = "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled";
    assert_eq!(refused(Some(root.path()), json!({"memBwSchema": "MB:0=20"})), bandwidth);
}

#[test]
fn a_class_of_its_own_goes_with_the_container() {
    let root = resctrl();
    let rdt = made(root.path(), json!({"l3CacheSchema": "L3:0=f", "schemata": ["L2:0=3"]})).unwrap();
    let class = root.path().join("box");
    assert_eq!(text(class.join("schemata")), "L3:0=f\nL2:0=3\n");
    rdt.add(7).unwrap();
    assert_eq!(text(class.join("tasks")), "7");
    // resctrl removes a directory with its files.
    for file in ["schemata", "tasks"] {
        fs::remove_file(class.join(file)).unwrap();
    }
    rdt.remove().unwrap();
    assert!(!class.exists());
    rdt.remove().unwrap();
    rdt.add_beside(7).unwrap();
    assert!(!class.exists());
}

#[test]
fn a_class_that_has_a_name_stays_and_its_monitor_goes() {
    let root = resctrl();
    let class = root.path().join("gold");
    let absent = made(root.path(), json!({"closID": "gold"})).unwrap_err().to_string();
    assert!(
        absent.starts_with("unable to apply Intel RDT configuration: clos dir not accessible (must be"),
        "{absent}"
    );
    assert_eq!(self::class(root.path(), "gold"), class);
    let rdt = made(root.path(), json!({"closID": "gold", "enableMonitoring": true})).unwrap();
    assert!(!class.join("schemata").exists());
    rdt.add(7).unwrap();
    let monitor = class.join("mon_groups/box");
    assert_eq!([text(class.join("tasks")), text(monitor.join("tasks"))], ["7", "7"]);
    fs::remove_file(monitor.join("tasks")).unwrap();
    rdt.remove().unwrap();
    assert!(class.exists() && !monitor.exists());
}

#[test]
fn the_class_of_everybody_is_the_root() {
    let root = resctrl();
    class(root.path(), "");
    let rdt = made(root.path(), json!({"closID": "/", "enableMonitoring": true})).unwrap();
    rdt.add(7).unwrap();
    assert_eq!(text(root.path().join("mon_groups/box/tasks")), "7");
    fs::remove_file(root.path().join("mon_groups/box/tasks")).unwrap();
    rdt.remove().unwrap();
    assert!(root.path().join("info").exists() && !root.path().join("mon_groups/box").exists());
}

#[test]
fn what_the_kernel_refuses_is_explained_and_taken_back() {
    let root = resctrl();
    fs::write(root.path().join("info/last_cmd_status"), "Mask out of range\n").unwrap();
    // In the place of a file that would be written.
    fs::create_dir_all(root.path().join("gold/schemata")).unwrap();
    let said = made(root.path(), json!({"closID": "gold", "schemata": ["L3:0=f0000f"]})).unwrap_err().to_string();
    assert!(said.starts_with("unable to apply Intel RDT configuration: write \"L3:0=f0000f\\n\" to "), "{said}");
    assert!(said.ends_with("gold/schemata: is a directory, last_cmd_status: Mask out of range"), "{said}");
}

#[test]
fn a_class_that_was_there_stays_when_something_fails() {
    let root = resctrl();
    let shares = || json!({"closID": "gold", "schemata": ["L3:0=f"]});
    let new = made(root.path(), shares()).unwrap();
    let gold = root.path().join("gold");
    fs::remove_file(gold.join("schemata")).unwrap();
    removal(&Some(new))().unwrap();
    assert!(!gold.exists());
    for (rdt, name) in [(shares(), "gold"), (json!({"l3CacheSchema": "L3:0=f"}), "box")] {
        let class = class(root.path(), name);
        removal(&Some(made(root.path(), rdt).unwrap()))().unwrap();
        assert!(class.exists(), "{name}");
    }
    // Another's of the same name.
    let monitor = gold.join("mon_groups/box");
    fs::create_dir(&monitor).unwrap();
    let again = made(root.path(), json!({"closID": "gold", "enableMonitoring": true})).unwrap();
    removal(&Some(again))().unwrap();
    assert!(monitor.exists());
}

#[test]
fn shares_are_set_back() {
    let root = resctrl();
    let rdt = made(root.path(), json!({"l3CacheSchema": "L3:0=f"})).unwrap();
    let back = rdt.resharing().unwrap();
    rdt.share(&["L3:0=3".to_owned()]).unwrap();
    assert_eq!(text(root.path().join("box/schemata")), "L3:0=3\n");
    back().unwrap();
    assert_eq!(text(root.path().join("box/schemata")), "L3:0=f\n");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a thread that forks nothing")]
fn a_running_container_comes_into_it_with_all_threads() {
    let root = resctrl();
    let gold = class(root.path(), "gold");
    // Each thread is a write of its own, of which the file has the last.
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || ended.recv());
    let rdt = made(root.path(), json!({"closID": "gold"})).unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let all = threads(pid);
    assert!(all.len() > 1 && all.contains(&pid), "{all:?}");
    rdt.add_all(pid, &Cgroup::default()).unwrap();
    assert_ne!(text(gold.join("tasks")), pid.to_string());
    end.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_monitor_that_others_have_taken_away_is_gone() {
    let root = resctrl();
    let gold = class(root.path(), "gold");
    let rdt = made(root.path(), json!({"closID": "gold", "enableMonitoring": true})).unwrap();
    fs::remove_dir(gold.join("mon_groups/box")).unwrap();
    rdt.add_beside(7).unwrap();
    assert_eq!(text(gold.join("tasks")), "7");
    fs::write(root.path().join("info/last_cmd_status"), "ok\n").unwrap();
    let said = rdt.add(7).unwrap_err().to_string();
    assert!(said.ends_with("mon_groups/box/tasks: no such file or directory"), "{said}");
}

#[test]
fn statistics_have_runcs_names() {
    let root = resctrl();
    class(root.path(), "box");
    let rdt = made(root.path(), json!({"l3CacheSchema": "L3:0=f;1=f", "enableMonitoring": true})).unwrap();
    for (cache, occupied, moved) in [("mon_L3_00", 5, 0), ("mon_L3_01", 6, 8)] {
        let place = root.path().join("box/mon_groups/box/mon_data").join(cache);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("llc_occupancy"), format!("{occupied}\n")).unwrap();
        fs::write(place.join("mbm_total_bytes"), format!("{moved}\n")).unwrap();
    }
    let expected = json!({
        "l3_cache_info": {"cbm_mask": "fffff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=fffff;1=fffff",
        "l3_cache_schema": "L3:0=f;1=f",
        "schemata": ["L3:0=f;1=f"],
        "mbm_stats": [{}, {"mbm_total_bytes": 8}],
        "cmt_stats": [{"llc_occupancy": 5}, {"llc_occupancy": 6}],
    });
    assert_eq!(rdt.stats(), expected);
}

#[test]
fn it_is_found_again_by_what_the_state_says() {
    let root = resctrl();
    let rdt = made(root.path(), json!({"l3CacheSchema": "L3:0=f"})).unwrap();
    let kept = serde_json::to_value(&rdt).unwrap();
    // By then it is not new.
    assert_eq!(serde_json::from_value::<Rdt>(kept).unwrap(), Rdt { made: Vec::new(), ..rdt });
}
