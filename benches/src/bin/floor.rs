//! The floor: the least that any runtime must ask of the kernel for the
//! default `spec` bundle, hard-coded.
//!
//! `floor run ROOTFS` runs /bin/true in ROOTFS as the default config.json
//! asks: namespaces, cgroup, device rules, mounts, device nodes, masked and
//! read-only paths, pivot_root, limits, capabilities, execve, wait, clean up.
//! `floor exec PID` runs /bin/true in that process's namespaces and cgroup,
//! `floor freeze PID` freezes and thaws its cgroup, and `floor nothing` is what
//! starting a program takes.
//! It reads no config, keeps no state, protects itself from nothing and
//! resolves paths without care, so it is a yardstick and not a runtime.

use std::ffi::{CStr, CString, OsStr};
use std::fs;
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use libc::{
    MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_PRIVATE, MS_RDONLY, MS_REC, MS_RELATIME, MS_REMOUNT, MS_STRICTATIME,
    c_int, c_long, c_ulong,
};

const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const NAMESPACES: c_int =
    libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWNS;
const CLONE_INTO_CGROUP: u64 = 1 << 33; // libc's constant of this name has overflowed
const HARDENED: c_ulong = MS_NOSUID | MS_NOEXEC | MS_NODEV;

/// The ten masked and five read-only paths of the template, relative to the rootfs.
const MASKED: [&CStr; 10] = [
    c"proc/acpi",
    c"proc/asound",
    c"proc/kcore",
    c"proc/keys",
    c"proc/latency_stats",
    c"proc/timer_list",
    c"proc/timer_stats",
    c"proc/sched_debug",
    c"sys/firmware",
    c"proc/scsi",
];
const READONLY: [&CStr; 5] = [c"proc/bus", c"proc/fs", c"proc/irq", c"proc/sys", c"proc/sysrq-trigger"];

/// The device nodes that OCI prescribes, as (path, major, minor).
const NODES: [(&CStr, u32, u32); 6] = [
    (c"dev/null", 1, 3),
    (c"dev/zero", 1, 5),
    (c"dev/full", 1, 7),
    (c"dev/tty", 5, 0),
    (c"dev/random", 1, 8),
    (c"dev/urandom", 1, 9),
];
const LINKS: [(&CStr, &CStr); 6] = [
    (c"/proc/self/fd", c"dev/fd"),
    (c"/proc/self/fd/0", c"dev/stdin"),
    (c"/proc/self/fd/1", c"dev/stdout"),
    (c"/proc/self/fd/2", c"dev/stderr"),
    (c"/proc/kcore", c"dev/core"),
    (c"pts/ptmx", c"dev/ptmx"),
];

/// The character devices that the default rules allow besides mknod; None is any minor.
const ALLOWED: [(i32, Option<i32>); 9] = [
    (1, Some(3)),
    (1, Some(8)),
    (1, Some(7)),
    (5, Some(0)),
    (1, Some(5)),
    (1, Some(9)),
    (5, Some(1)),
    (136, None),
    (5, Some(2)),
];

const CAP_LAST: c_ulong = 40;
const CAPABILITIES: [c_ulong; 3] = [5, 10, 29]; // KILL, NET_BIND_SERVICE, AUDIT_WRITE

fn main() {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy()).collect();
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    exit(match words.as_slice() {
        ["run", _] => run(&c_string(&arguments[1])),
        ["exec", pid] => exec(pid),
        ["freeze", pid] => freeze(pid),
        ["nothing"] => 0,
        _ => {
            eprintln!("usage: floor run ROOTFS | exec PID | freeze PID | nothing");
            2
        }
    });
}

fn run(rootfs: &CStr) -> c_int {
    let name = format!("stasis-floor-{}", std::process::id());
    if is_cgroup2(CGROUP_ROOT) { run_in_v2(rootfs, &name) } else { run_in_v1(rootfs, &name) }
}

/// Runs /bin/true where a process is.
fn exec(pid: &str) -> c_int {
    let pid = pid.parse::<libc::pid_t>().unwrap_or_else(|_| fail("pid", &Error::from_raw_os_error(libc::EINVAL)));
    let cgroups = cgroups_of(pid);
    // SAFETY: both take integers, and this program has one thread.
    unsafe {
        let pidfd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        check("pidfd_open", pidfd);
        let directory = is_cgroup2(CGROUP_ROOT).then(|| need("open cgroup", fs::File::open(&cgroups[0])));
        if directory.is_none() {
            for cgroup in &cgroups {
                need("join cgroup", fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()));
            }
        }
        check("setns", libc::setns(pidfd as RawFd, NAMESPACES | libc::CLONE_NEWCGROUP));
        let child = clone3(0, directory.as_ref().map(AsRawFd::as_raw_fd));
        if child == 0 {
            libc::setsid();
            drop_capabilities();
            execute();
        }
        wait(child)
    }
}

/// Freezes the cgroup of a process, and thaws it again.
fn freeze(pid: &str) -> c_int {
    let pid = pid.parse::<libc::pid_t>().unwrap_or_else(|_| fail("pid", &Error::from_raw_os_error(libc::EINVAL)));
    let cgroups = cgroups_of(pid);
    if is_cgroup2(CGROUP_ROOT) {
        need("freeze", fs::write(cgroups[0].join("cgroup.freeze"), "1"));
        let events = cgroups[0].join("cgroup.events");
        while !need("read cgroup.events", fs::read_to_string(&events)).contains("frozen 1") {}
        need("thaw", fs::write(cgroups[0].join("cgroup.freeze"), "0"));
    } else {
        let freezer = cgroups.iter().find(|cgroup| cgroup.starts_with("/sys/fs/cgroup/freezer"));
        let state = freezer.map(|cgroup| cgroup.join("freezer.state")).unwrap_or_default();
        need("freeze", fs::write(&state, "FROZEN"));
        while need("read freezer.state", fs::read_to_string(&state)).trim() != "FROZEN" {}
        need("thaw", fs::write(&state, "THAWED"));
    }
    0
}

/// Returns the directories of a process's cgroups: one with cgroup2, one for each hierarchy of v1.
fn cgroups_of(pid: libc::pid_t) -> Vec<PathBuf> {
    let text = need("read cgroups", fs::read_to_string(format!("/proc/{pid}/cgroup")));
    let v2 = is_cgroup2(CGROUP_ROOT);
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let controllers = controllers.strip_prefix("name=").unwrap_or(controllers);
        (controllers.is_empty() == v2).then(|| Path::new(CGROUP_ROOT).join(controllers).join(&path[1..]))
    });
    lines.collect()
}

/// Runs with one cgroup2 hierarchy: the child is born in its cgroup.
fn run_in_v2(rootfs: &CStr, name: &str) -> c_int {
    let cgroup = Path::new(CGROUP_ROOT).join(name);
    need("mkdir cgroup", fs::create_dir(&cgroup));
    let directory = need("open cgroup", fs::File::open(&cgroup));
    attach_device_program(directory.as_raw_fd());
    let flags = NAMESPACES | libc::CLONE_NEWCGROUP;
    let pid = clone3(flags, Some(directory.as_raw_fd()));
    if pid == 0 {
        inside(rootfs, &[]);
    }
    let status = wait(pid);
    remove_cgroup(&cgroup);
    status
}

/// Runs with v1 hierarchies (and a cgroup2 beside them, if there is one): the
/// child waits for a byte while the parent writes its pid into each.
fn run_in_v1(rootfs: &CStr, name: &str) -> c_int {
    let hierarchies = v1_hierarchies();
    let cgroups: Vec<_> = hierarchies.iter().map(|h| h.join(name)).collect();
    for cgroup in &cgroups {
        need("mkdir cgroup", fs::create_dir(cgroup));
    }
    for (hierarchy, cgroup) in hierarchies.iter().zip(&cgroups) {
        if hierarchy.ends_with("cpuset") {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let value = need("read cpuset", fs::read(hierarchy.join(file)));
                need("write cpuset", fs::write(cgroup.join(file), value));
            }
        }
        if hierarchy.ends_with("devices") {
            write_device_rules(cgroup);
        }
    }
    let (receiver, sender) = pipe();
    let pid = clone3(NAMESPACES, None);
    if pid == 0 {
        let mut byte = 0u8;
        // SAFETY: the kernel writes at most one byte, into a byte that we own.
        let count = unsafe { libc::read(receiver.as_raw_fd(), (&raw mut byte).cast(), 1) };
        check("wait for cgroup", count);
        inside(rootfs, &cgroups);
    }
    for cgroup in &cgroups {
        need("join cgroup", fs::write(cgroup.join("cgroup.procs"), pid.to_string()));
    }
    need("proceed", (&sender).write_all(b"x"));
    let status = wait(pid);
    for cgroup in &cgroups {
        remove_cgroup(cgroup);
    }
    status
}

/// Everything between the clone and execve, as the container's init.
fn inside(rootfs: &CStr, v1_cgroups: &[PathBuf]) -> ! {
    // SAFETY: these take plain integers and change only this process.
    unsafe {
        libc::setsid();
        libc::umask(0);
    }
    join_session_keyring();
    bring_loopback_up();
    mount(c"", c"/", c"", MS_REC | MS_PRIVATE, c"");
    mount(rootfs, rootfs, c"", MS_BIND | MS_REC, c"");
    // SAFETY: rootfs is terminated by its type.
    check("chdir to rootfs", unsafe { libc::chdir(rootfs.as_ptr()) });
    mount_filesystems(v1_cgroups);
    make_devices();
    hide_paths();
    enter_root();
    // SAFETY: the pointer and the length are those of one literal.
    check("sethostname", unsafe { libc::sethostname(c"runc".as_ptr(), 4) });
    set_limits_and_ids();
    drop_capabilities();
    execute();
}

/// Mounts what the template lists, in its order; the working directory is the rootfs.
fn mount_filesystems(v1_cgroups: &[PathBuf]) {
    mount(c"proc", c"proc", c"proc", 0, c"");
    mount(c"tmpfs", c"dev", c"tmpfs", MS_NOSUID | MS_STRICTATIME, c"mode=755,size=65536k");
    make_directory(c"dev/pts");
    let options = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    mount(c"devpts", c"dev/pts", c"devpts", MS_NOSUID | MS_NOEXEC, options);
    make_directory(c"dev/shm");
    mount(c"shm", c"dev/shm", c"tmpfs", HARDENED, c"mode=1777,size=65536k");
    make_directory(c"dev/mqueue");
    mount(c"mqueue", c"dev/mqueue", c"mqueue", HARDENED, c"");
    mount(c"sysfs", c"sys", c"sysfs", HARDENED | MS_RDONLY, c"");
    let flags = HARDENED | MS_RELATIME;
    if v1_cgroups.is_empty() {
        mount(c"cgroup", c"sys/fs/cgroup", c"cgroup2", flags | MS_RDONLY, c"");
    } else {
        bind_v1_cgroups(v1_cgroups, flags);
    }
}

/// Binds the own cgroup of each hierarchy into a tmpfs, as is done without a cgroup namespace.
fn bind_v1_cgroups(cgroups: &[PathBuf], flags: c_ulong) {
    let readonly = MS_REMOUNT | MS_BIND | MS_RDONLY | flags;
    mount(c"tmpfs", c"sys/fs/cgroup", c"tmpfs", flags, c"mode=755");
    for cgroup in cgroups {
        let hierarchy = cgroup.parent().and_then(Path::file_name).unwrap_or_default();
        let target = c_string(Path::new("sys/fs/cgroup").join(hierarchy).as_os_str());
        make_directory(&target);
        mount(&c_string(cgroup.as_os_str()), &target, c"", MS_BIND, c"");
        mount(c"", &target, c"", readonly, c"");
    }
    mount(c"", c"sys/fs/cgroup", c"", readonly, c"");
}

/// Makes the default device nodes and symbolic links.
fn make_devices() {
    for (path, major, minor) in NODES {
        let device = libc::makedev(major, minor);
        // SAFETY: path is terminated by its type.
        check("mknod", unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, device) });
    }
    for (target, path) in LINKS {
        // SAFETY: both strings are terminated by their type.
        check("symlink", unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) });
    }
}

/// Covers the masked paths and makes the read-only paths so; those that do not exist are skipped.
fn hide_paths() {
    for path in MASKED {
        match try_mount(c"dev/null", path, c"", MS_BIND, c"") {
            libc::ENOTDIR => mount(c"tmpfs", path, c"tmpfs", MS_RDONLY, c""),
            0 | libc::ENOENT => {}
            errno => fail("mask path", &Error::from_raw_os_error(errno)),
        }
    }
    for path in READONLY {
        match try_mount(path, path, c"", MS_BIND | MS_REC, c"") {
            0 => mount(c"", path, c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c""),
            libc::ENOENT => {}
            errno => fail("bind read-only path", &Error::from_raw_os_error(errno)),
        }
    }
}

/// Makes the working directory the root, drops the old one and sets the new one read-only.
fn enter_root() {
    let here = c".".as_ptr();
    // SAFETY: all strings are literals, hence terminated.
    unsafe {
        check("pivot_root", libc::syscall(libc::SYS_pivot_root, here, here));
        check("detach old root", libc::umount2(here, libc::MNT_DETACH));
        check("chdir", libc::chdir(c"/".as_ptr()));
    }
    mount(c"", c"/", c"", MS_REMOUNT | MS_BIND | MS_RDONLY, c"");
}

fn set_limits_and_ids() {
    let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
    // SAFETY: limit outlives the call; the other calls take integers or no list at all.
    unsafe {
        libc::umask(0o022);
        check("setrlimit", libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit));
        check("setgroups", libc::setgroups(0, ptr::null()));
        check("setresgid", libc::syscall(libc::SYS_setresgid, 0, 0, 0));
        check("setresuid", libc::syscall(libc::SYS_setresuid, 0, 0, 0));
    }
}

/// Leaves the template's three capabilities, and sets no_new_privs.
fn drop_capabilities() {
    for capability in (0..=CAP_LAST).filter(|c| !CAPABILITIES.contains(c)) {
        prctl(libc::PR_CAPBSET_DROP, capability, 0);
    }
    let mask = CAPABILITIES.iter().fold(0u32, |mask, c| mask | 1 << c);
    let header = [0x2008_0522u32, 0]; // _LINUX_CAPABILITY_VERSION_3, this process
    let sets = [mask, mask, 0, 0, 0, 0]; // effective, permitted, inheritable, twice
    // SAFETY: version 3 reads a header of two words and six words of sets.
    check("capset", unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) });
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as c_ulong, 0);
    for capability in CAPABILITIES {
        // Fails with EPERM, since the template has no inheritable set; runtimes try and ignore it.
        let raise = libc::PR_CAP_AMBIENT_RAISE as c_ulong;
        // SAFETY: prctl reads its integers only.
        unsafe { libc::prctl(libc::PR_CAP_AMBIENT, raise, capability, 0, 0) };
    }
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0);
}

fn execute() -> ! {
    // Rust ignores SIGPIPE at its start; the container must not inherit that.
    // SAFETY: SIG_DFL installs no function of ours, and nothing here uses a
    // descriptor above 2 any more.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let flags = libc::CLOSE_RANGE_CLOEXEC;
        check("close_range", libc::syscall(libc::SYS_close_range, 3, u32::MAX, flags));
    }
    let path = c"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let arguments = [c"/bin/true".as_ptr(), ptr::null()];
    let environment = [path.as_ptr(), c"TERM=xterm".as_ptr(), ptr::null()];
    // SAFETY: both lists end in a null pointer and hold terminated literals.
    unsafe { libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr()) };
    fail("execve /bin/true", &Error::last_os_error());
}

fn join_session_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: c_long = 1;
    let name = c"floor".as_ptr();
    // SAFETY: the name is a literal, hence terminated.
    let keyring = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name) };
    check("join session keyring", keyring);
}

fn bring_loopback_up() {
    // SAFETY: ifreq is plain data, for which all zeroes is a value; the kernel
    // reads one ifreq, and the name in it is shorter than its array.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        check("socket", socket);
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        check("set lo up", libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request));
    }
}

/// Forks with new namespaces; returns 0 in the child.
fn clone3(namespaces: c_int, cgroup: Option<RawFd>) -> libc::pid_t {
    // SAFETY: clone_args is plain data, for which all zeroes is a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = namespaces as u64;
    arguments.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = directory as u64;
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM this is a fork, and this program has one
    // thread, so the child may go on as the parent could.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size) };
    check("clone3", pid);
    pid as libc::pid_t
}

/// Waits for the child and returns its exit code.
fn wait(pid: libc::pid_t) -> c_int {
    let mut status = 0;
    // SAFETY: status outlives the call.
    check("waitpid", unsafe { libc::waitpid(pid, &raw mut status, 0) });
    if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) }
}

/// Removes a cgroup; the kernel may say EBUSY for a moment after its last process was reaped.
fn remove_cgroup(cgroup: &Path) {
    while let Err(error) = fs::remove_dir(cgroup) {
        if error.raw_os_error() != Some(libc::EBUSY) {
            fail("rmdir cgroup", &error);
        }
    }
}

/// Returns both ends of a pipe, the one to read from first.
fn pipe() -> (fs::File, fs::File) {
    let mut ends = [-1; 2];
    // SAFETY: the kernel fills in both descriptors, which then belong to
    // nobody else, so that each file owns its own.
    unsafe {
        check("pipe", libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC));
        (fs::File::from_raw_fd(ends[0]), fs::File::from_raw_fd(ends[1]))
    }
}

fn is_cgroup2(path: &str) -> bool {
    // SAFETY: statfs is plain data, for which all zeroes is a value; the
    // kernel fills in one of them, and the path is terminated.
    unsafe {
        let mut answer: libc::statfs = std::mem::zeroed();
        check("statfs", libc::statfs(c_string(path.as_ref()).as_ptr(), &raw mut answer));
        answer.f_type == libc::CGROUP2_SUPER_MAGIC
    }
}

/// Returns the hierarchies mounted below /sys/fs/cgroup, leaving out symbolic links to them.
fn v1_hierarchies() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in need("read cgroup root", fs::read_dir(CGROUP_ROOT)) {
        let entry = need("read cgroup root", entry);
        if need("type of hierarchy", entry.file_type()).is_dir() {
            found.push(entry.path());
        }
    }
    found
}

/// Writes the default device rules into a cgroup of the v1 devices hierarchy.
fn write_device_rules(cgroup: &Path) {
    need("deny devices", fs::write(cgroup.join("devices.deny"), "a"));
    let allow = cgroup.join("devices.allow");
    for rule in ["c *:* m", "b *:* m"] {
        need("allow mknod", fs::write(&allow, rule));
    }
    for (major, minor) in ALLOWED {
        let minor = minor.map_or("*".to_owned(), |m| m.to_string());
        need("allow device", fs::write(&allow, format!("c {major}:{minor} rwm")));
    }
}

/// Loads the default device rules as a BPF program and attaches it to a cgroup2.
fn attach_device_program(cgroup: RawFd) {
    const PROG_LOAD: c_long = 5;
    const PROG_ATTACH: c_long = 8;
    const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    const ALLOW_MULTI: u32 = 2;
    let program = device_program();
    let license = c"Apache-2.0".as_ptr();
    // The head of union bpf_attr: type and count in one word, then two pointers.
    let head = u64::from(PROG_TYPE_CGROUP_DEVICE) | (program.len() as u64) << 32;
    let load = [head, program.as_ptr() as u64, license as u64, 0, 0, 0];
    // SAFETY: the pointers in the attribute are those of a live vector, with
    // its own length beside it, and of a terminated literal.
    let loaded = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, load.as_ptr(), size_of_val(&load)) };
    check("load device program", loaded);
    let attach = [cgroup as u32, loaded as u32, ATTACH_CGROUP_DEVICE, ALLOW_MULTI];
    // SAFETY: the attribute holds four integers and no pointer.
    let attached = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) };
    check("attach device program", attached);
}

/// Returns the default rules as BPF: r2 holds type and access, r4 major, r5 minor.
fn device_program() -> Vec<u64> {
    const LOAD: u8 = 0x61; // dst = *(u32 *)(src + offset)
    const MOVE: u8 = 0xb7; // dst = immediate
    const EXIT: u8 = 0x95;
    const AND: u8 = 0x57; // dst &= immediate
    const IF_NOT: u8 = 0x55; // if dst != immediate, jump
    const MOVE_REGISTER: u8 = 0xbf;
    const CHARACTER: i32 = 2;
    const MKNOD: i32 = 1;
    let allow = [instruction(MOVE, 0, 0, 1), instruction(EXIT, 0, 0, 0)];
    let mut program = vec![
        instruction(LOAD, 0x12, 0, 0),
        instruction(LOAD, 0x14, 4, 0),
        instruction(LOAD, 0x15, 8, 0),
        instruction(MOVE_REGISTER, 0x23, 0, 0),
        instruction(0x77, 3, 0, 16), // r3 >>= 16: the access
        instruction(AND, 2, 0, 0xffff),
        instruction(IF_NOT, 3, 2, MKNOD),
    ];
    program.extend(allow);
    let rules: Vec<u64> = ALLOWED
        .iter()
        .flat_map(|&(major, minor)| {
            let body = minor.map(|minor| instruction(IF_NOT, 5, 2, minor));
            let skip = 2 + body.iter().len() as i16;
            std::iter::once(instruction(IF_NOT, 4, skip, major)).chain(body).chain(allow)
        })
        .collect();
    program.push(instruction(IF_NOT, 2, rules.len() as i16, CHARACTER));
    program.extend(rules);
    program.extend([instruction(MOVE, 0, 0, 0), instruction(EXIT, 0, 0, 0)]);
    program
}

/// Encodes one BPF instruction; `registers` is the source in the high half, the target in the low.
fn instruction(code: u8, registers: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code) | u64::from(registers) << 8 | u64::from(offset as u16) << 16 | u64::from(immediate as u32) << 32
}

fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: c_ulong, options: &CStr) {
    let errno = try_mount(source, target, kind, flags, options);
    if errno != 0 {
        fail(&format!("mount on {}", target.to_string_lossy()), &Error::from_raw_os_error(errno));
    }
}

/// Mounts and returns the errno, 0 for success.
fn try_mount(source: &CStr, target: &CStr, kind: &CStr, flags: c_ulong, options: &CStr) -> c_int {
    let (source, target, kind) = (source.as_ptr(), target.as_ptr(), kind.as_ptr());
    // SAFETY: all four strings are terminated by their type.
    match unsafe { libc::mount(source, target, kind, flags, options.as_ptr().cast()) } {
        0 => 0,
        _ => Error::last_os_error().raw_os_error().unwrap_or(libc::EIO),
    }
}

fn make_directory(path: &CStr) {
    // SAFETY: path is terminated by its type.
    check("mkdir", unsafe { libc::mkdir(path.as_ptr(), 0o755) });
}

fn prctl(option: c_int, first: c_ulong, second: c_ulong) {
    // SAFETY: the options that this program uses take integers only.
    check("prctl", unsafe { libc::prctl(option, first, second, 0, 0) });
}

fn c_string(text: &OsStr) -> CString {
    need("path with a zero byte", CString::new(text.as_bytes()).map_err(Error::other))
}

/// Ends the program if a system call returned a negative value.
fn check(what: &str, result: impl TryInto<i64>) {
    if result.try_into().is_ok_and(|value| value < 0) {
        fail(what, &Error::last_os_error());
    }
}

/// Unwraps a result, or ends the program.
fn need<T>(what: &str, result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|error| fail(what, &error))
}

fn fail(what: &str, error: &Error) -> ! {
    eprintln!("floor: {what}: {error}");
    exit(1)
}

fn exit(status: c_int) -> ! {
    // SAFETY: there is nothing that needs to be flushed or dropped.
    unsafe { libc::_exit(status) }
}
