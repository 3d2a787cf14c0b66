//! Profiles as JSON -> what is read from them, and what the finished program answers. The program
//! is run by a small interpreter, so that every architecture can be tried on this one.

// The native numbers in the tables are this architecture's.
#![cfg(target_arch = "x86_64")]

use super::*;
use serde_json::{Value, json};

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;
const AARCH64: u32 = 0xc000_00b7;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_THREAD;

const fn errno(number: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | number as u32
}

fn profile(json: Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compiled(json: Value) -> Vec<sock_filter> {
    compile(&profile(json), None).unwrap().program
}

fn refusal(json: Value) -> String {
    compile(&profile(json), None).unwrap_err().to_string()
}

/// Answers as the kernel would for call `nr` of architecture `arch` (linux/filter.h, seccomp.h).
pub(super) fn run(program: &[sock_filter], arch: u32, nr: u32, args: &[u64]) -> u32 {
    let mut words = vec![nr, arch, 0, 0];
    for index in 0..6 {
        let arg = args.get(index).copied().unwrap_or(0);
        words.extend([arg as u32, (arg >> 32) as u32]);
    }
    let (mut pc, mut a, mut scratch) = (0, 0u32, [0u32; 16]);
    loop {
        let sock_filter { code, jt, jf, k } = program[pc];
        pc += 1;
        let mut jump = |holds: bool| pc += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => a = words[k as usize / 4],
            0x00 => a = k,
            0x60 => a = scratch[k as usize],
            0x02 => scratch[k as usize] = a,
            0x54 => a &= k,
            0x05 => pc += k as usize,
            0x15 => jump(a == k),
            0x25 => jump(a > k),
            0x35 => jump(a >= k),
            0x45 => jump(a & k != 0),
            0x06 => return k,
            _ => panic!("instruction {code:#x} at {}", pc - 1),
        }
    }
}

#[test]
fn actions_and_their_error_numbers() {
    for (name, errno_ret, expected) in [
        ("SCMP_ACT_KILL", None, KILL),
        ("SCMP_ACT_KILL_THREAD", None, KILL),
        ("SCMP_ACT_KILL_PROCESS", None, libc::SECCOMP_RET_KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, libc::SECCOMP_RET_TRAP),
        ("SCMP_ACT_ERRNO", None, errno(libc::EPERM)),
        ("SCMP_ACT_ERRNO", Some(libc::ENOSYS), errno(libc::ENOSYS)),
        ("SCMP_ACT_ERRNO", Some(0), errno(0)),
        ("SCMP_ACT_TRACE", None, libc::SECCOMP_RET_TRACE | 1),
        ("SCMP_ACT_TRACE", Some(77), libc::SECCOMP_RET_TRACE | 77),
        ("SCMP_ACT_LOG", None, libc::SECCOMP_RET_LOG),
        ("SCMP_ACT_LOG", Some(5), libc::SECCOMP_RET_LOG),
    ] {
        let mut rule = json!({"names": ["getcwd"], "action": name});
        let mut default = json!({"defaultAction": name, "syscalls": [
            {"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}]});
        if let Some(errno_ret) = errno_ret {
            rule["errnoRet"] = errno_ret.into();
            default["defaultErrnoRet"] = errno_ret.into();
        }
        let program = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}));
        assert_eq!(run(&program, X86_64, libc::SYS_getcwd as u32, &[]), expected, "{name}");
        assert_eq!(run(&program, X86_64, libc::SYS_getpid as u32, &[]), ALLOW, "{name}");
        let program = compiled(default);
        assert_eq!(run(&program, X86_64, libc::SYS_dup as u32, &[]), expected, "{name}");
        assert_eq!(run(&program, X86_64, libc::SYS_getpid as u32, &[]), ALLOW, "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_in_runcs_words() {
    let notify = |name: &str| {
        json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/agent.sock",
            "syscalls": [{"names": [name], "action": "SCMP_ACT_NOTIFY"}]})
    };
    assert_eq!(refusal(notify("write")), "SCMP_ACT_NOTIFY cannot be used for the write syscall");
    assert_eq!(
        refusal(json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        "SCMP_ACT_NOTIFY cannot be used as default action"
    );
    let mut homeless = notify("mkdir");
    homeless["listenerPath"] = "".into();
    assert_eq!(refusal(homeless), "seccomp listenerPath is not set");
    let rule = |extra: Value| {
        let mut rule = json!({"names": ["dup"], "action": "SCMP_ACT_ERRNO"});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    assert_eq!(refusal(rule(json!({"names": [""]}))), "empty string is not a valid syscall");
    assert_eq!(refusal(rule(json!({"errnoRet": 5000}))), "seccomp rule for dup: errnoRet 5000 is not an error number");
    assert_eq!(
        refusal(rule(json!({"args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}))),
        "seccomp rule for dup: argument 6 does not exist, a syscall has 6"
    );
}

#[test]
fn the_listener_is_planned_only_if_a_rule_notifies() {
    let mut json = json!({"defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": "/run/agent.sock", "listenerMetadata": "x",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    let filter = compile(&profile(json.clone()), None).unwrap();
    let expected = ListenerPlan { path: "/run/agent.sock".into(), metadata: Some("x".to_owned()) };
    assert_eq!(filter.notify, Some(expected));
    assert_eq!(filter.flags, FLAG_NEW_LISTENER | FLAG_WAIT_KILLABLE_RECV);
    let answer = run(&filter.program, X86_64, libc::SYS_mkdir as u32, &[]);
    assert_eq!(answer, libc::SECCOMP_RET_USER_NOTIF);

    json["syscalls"][0]["action"] = "SCMP_ACT_ERRNO".into();
    let filter = compile(&profile(json), None).unwrap();
    assert_eq!((filter.notify, filter.flags), (None, 0));
}

#[test]
fn flags() {
    for (listed, expected) in [
        (Value::Null, FLAG_SPEC_ALLOW),
        (json!([]), 0),
        (json!(["SECCOMP_FILTER_FLAG_TSYNC"]), 0),
        (json!(["SECCOMP_FILTER_FLAG_LOG"]), FLAG_LOG),
        (json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]), FLAG_LOG | FLAG_SPEC_ALLOW),
    ] {
        let filter = compile(&profile(json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": listed})), None).unwrap();
        assert_eq!(filter.flags, expected, "{listed}");
        assert!(filter.check_flags(FLAG_LOG | FLAG_SPEC_ALLOW).is_ok());
        assert_eq!(filter.check_flags(0).is_err(), expected != 0);
    }
}

#[test]
fn conditions_on_arguments() {
    const HIGH: u64 = 0xff_0000_0001;
    for (op, value, value_two, denied, allowed) in [
        ("SCMP_CMP_EQ", HIGH, None, vec![HIGH], vec![1, HIGH - 1]),
        ("SCMP_CMP_NE", 7, None, vec![8, HIGH], vec![7]),
        ("SCMP_CMP_LT", 7, None, vec![0, 6], vec![7, HIGH]),
        ("SCMP_CMP_LE", 7, None, vec![7], vec![8, HIGH]),
        ("SCMP_CMP_GT", 7, None, vec![8, HIGH], vec![7]),
        ("SCMP_CMP_GE", 7, None, vec![7, HIGH], vec![6]),
        ("SCMP_CMP_MASKED_EQ", 0x7e02_0000, Some(0), vec![0, 17], vec![0x1000_0000]),
        ("SCMP_CMP_MASKED_EQ", 0xf0, Some(0x30), vec![0x31, 0x3f], vec![0x41, 0]),
    ] {
        let mut arg = json!({"index": 1, "value": value, "op": op});
        if let Some(two) = value_two {
            arg["valueTwo"] = two.into();
        }
        let program = compiled(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "args": [arg]}]}));
        let answer = |arg| run(&program, X86_64, libc::SYS_ioctl as u32, &[0, arg]);
        for arg in denied {
            assert_eq!(answer(arg), errno(libc::EPERM), "{op} {arg:#x}");
        }
        for arg in allowed {
            assert_eq!(answer(arg), ALLOW, "{op} {arg:#x}");
        }
    }
}

#[test]
fn conditions_hold_together_but_on_one_argument_any_suffices() {
    let program = |second| {
        compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
        "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
            {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
            {"index": second, "value": 2, "op": "SCMP_CMP_EQ"},
        ]}]}))
    };
    let answer = |program: &[_], args: &[u64]| run(program, X86_64, libc::SYS_socket as u32, args);
    let both = program(1);
    assert_eq!(answer(&both, &[1, 2]), ALLOW);
    assert_eq!(answer(&both, &[1, 3]), errno(libc::EPERM));
    let any = program(0);
    assert_eq!(answer(&any, &[1, 3]), ALLOW);
    assert_eq!(answer(&any, &[2, 3]), ALLOW);
    assert_eq!(answer(&any, &[3, 2]), errno(libc::EPERM));
}

#[test]
fn rules_that_say_nothing_new_or_name_nothing_known_are_skipped() {
    let program = compiled(json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
    "syscalls": [
        {"names": ["dup"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["dup2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2},
        {"names": ["no_such_call", "getpid"], "action": "SCMP_ACT_ALLOW"},
    ]}));
    let answer = |nr: i64| run(&program, X86_64, nr as u32, &[]);
    assert_eq!(answer(libc::SYS_dup), errno(libc::EPERM));
    assert_eq!(answer(libc::SYS_dup2), errno(2));
    assert_eq!(answer(libc::SYS_getpid), ALLOW);
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let mut json = json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": ["getpid", "openat2"], "action": "SCMP_ACT_ALLOW"}]});
    const OPENAT2: u32 = 437;
    const X32: u32 = 1 << 30;
    let program = compiled(json.clone());
    for (arch, nr, expected) in [
        (X86_64, OPENAT2, ALLOW),
        (X86_64, OPENAT2 - 1, errno(libc::EPERM)),
        (X86_64, OPENAT2 + 1, errno(libc::ENOSYS)),
        (X86_64, X32 | OPENAT2, ALLOW),
        (X86_64, X32 | (OPENAT2 - 1), errno(libc::EPERM)),
        (X86_64, X32 | (OPENAT2 + 1), errno(libc::ENOSYS)),
        (I386, 20, ALLOW),
        (I386, OPENAT2 + 1, errno(libc::ENOSYS)),
        // Not in the profile at all: the action for unknown architectures.
        (AARCH64, OPENAT2 + 1, KILL),
    ] {
        assert_eq!(run(&program, arch, nr, &[]), expected, "{arch:#x} {nr}");
    }

    // Without x32 in the profile its numbers are an unknown architecture's.
    json["architectures"] = Value::Null;
    let program = compiled(json.clone());
    assert_eq!(run(&program, X86_64, OPENAT2 + 1, &[]), errno(libc::ENOSYS));
    assert_eq!(run(&program, X86_64, X32 | (OPENAT2 + 1), &[]), KILL);
    assert_eq!(run(&program, I386, 20, &[]), KILL);

    // A default that lets calls through, or says ENOSYS already, has no prefix.
    for default in ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"] {
        json["syscalls"][0]["action"] = "SCMP_ACT_KILL".into();
        json["defaultAction"] = default.into();
        let answer = run(&compiled(json.clone()), X86_64, OPENAT2 + 1, &[]);
        assert_ne!(answer, errno(libc::ENOSYS), "{default}");
    }
    json["defaultAction"] = "SCMP_ACT_KILL_PROCESS".into();
    json["syscalls"][0]["action"] = "SCMP_ACT_ALLOW".into();
    let answer = run(&compiled(json), X86_64, OPENAT2 + 1, &[]);
    assert_eq!(answer, errno(libc::ENOSYS));
}

#[test]
fn every_architecture_of_the_specification_has_a_token_or_a_refusal() {
    for (name, known) in [
        ("NATIVE", true),
        ("X86", true),
        ("X86_64", true),
        ("X32", true),
        ("ARM", true),
        ("AARCH64", true),
        ("MIPSEL", true),
        ("MIPSEL64", true),
        ("MIPSEL64N32", true),
        ("PPC64LE", true),
        ("RISCV64", true),
        // Of the other byte order: libseccomp refuses to mix the two.
        ("S390X", false),
    ] {
        let json = json!({"defaultAction": "SCMP_ACT_ERRNO",
            "architectures": [format!("SCMP_ARCH_{name}")],
            "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}]});
        assert_eq!(compile(&profile(json), None).is_ok(), known, "{name}");
    }
}

#[test]
fn the_cache_answers_for_the_same_profile_only() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("seccomp");
    let bytes = |filter: CompiledFilter| format!("{:?}", filter.program);
    let mut json = json!({"defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}]});
    let plain = bytes(compile(&profile(json.clone()), None).unwrap());
    for _ in 0..2 {
        assert_eq!(bytes(compile(&profile(json.clone()), Some(&dir)).unwrap()), plain);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }
    // Flags are not part of the program.
    json["flags"] = json!(["SECCOMP_FILTER_FLAG_LOG"]);
    let flagged = compile(&profile(json.clone()), Some(&dir)).unwrap();
    assert_eq!((flagged.flags, bytes(flagged)), (FLAG_LOG, plain.clone()));
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);

    json["defaultErrnoRet"] = 13.into();
    assert_ne!(bytes(compile(&profile(json), Some(&dir)).unwrap()), plain);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 2);

    // An unusable directory costs time only.
    let json = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    assert!(compile(&profile(json), Some(Path::new("/proc/none/seccomp"))).is_ok());
}
