//! A program that makes objects which CRIU may or may not be able to dump, and then counts, holding them.
//!
//! It is this test binary itself, which is static: executed in a container it runs the one test below, which outside
//! of a container does nothing. What it is to make stands in its environment.

use crate::Checkpointed;
use crate::support::{Bundle, wait_until};
use nix::libc;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Error, Result};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// The variable that names the objects.
const OBJECTS: &str = "STASIS_TEST_OBJECTS";

/// What the program may do, so that it can make all of them.
const CAPABILITIES: [&str; 7] =
    ["CAP_BPF", "CAP_IPC_LOCK", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_PERFMON", "CAP_SYS_ADMIN"];

/// Returns a bundle whose program holds the objects, which are named with commas between them.
pub fn bundle(objects: &str) -> Bundle {
    Bundle::new(&[])
        .with(|config| {
            let process = program(objects);
            for (key, value) in process.as_object().unwrap() {
                config["process"][key] = value.clone();
            }
            config["linux"]["resources"]["devices"] = json!([{"allow": true, "access": "rwm"}]);
        })
        .capable(&CAPABILITIES)
        .mount("/bin/holder", "bind", std::env::current_exe().unwrap(), &["bind", "ro"])
        .mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"])
}

/// Returns arguments and environment of the program.
pub fn program(objects: &str) -> Value {
    let args = ["/bin/holder", "holder::holds_objects", "--exact", "--nocapture", "--test-threads=1"];
    json!({"args": args, "env": ["PATH=/bin", format!("{OBJECTS}={objects}")], "cwd": "/"})
}

/// Runs a container that holds the objects.
#[track_caller]
pub fn holding(objects: &str) -> Checkpointed {
    held(Checkpointed::run(bundle(objects)))
}

/// Waits until the objects are there.
#[track_caller]
pub fn held(c: Checkpointed) -> Checkpointed {
    let said = Path::new("/proc").join(c.runtime.pid().to_string()).join("root/tmp/held");
    wait_until("the program has its objects", || fs::read_to_string(&said).is_ok_and(|text| text.ends_with('\n')));
    assert_eq!(fs::read_to_string(&said).unwrap(), "held\n");
    c
}

#[test]
fn holds_objects() {
    let Ok(objects) = std::env::var(OBJECTS) else { return };
    // Next to it, for the programs that are executed later.
    let place = if Path::new("/tmp/held").exists() { "/tmp/held-too" } else { "/tmp/held" };
    let made = objects.split(',').try_for_each(|object| make(object).map_err(|err| format!("{object}: {err}")));
    fs::write(place, made.map_or_else(|err| err + "\n", |()| "held\n".to_owned())).unwrap();
    if place != "/tmp/held" {
        wait();
    }
    for count in 0.. {
        fs::write("/dev/shm/count", format!("{}\n", tick(count))).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Is called over and over again: a place for a probe.
#[inline(never)]
extern "C" fn tick(count: u64) -> u64 {
    std::hint::black_box(count)
}

/// Sets a probe in a process that runs this program (perf_event_open(2), uprobe PMU), for as long as the result lives.
pub fn probe(pid: i32) -> OwnedFd {
    let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type").unwrap();
    let program = std::ffi::CString::new(std::env::current_exe().unwrap().to_str().unwrap()).unwrap();
    let mut attributes = [0u64; 16];
    attributes[0] = kind.trim().parse::<u64>().unwrap() | 128 << 32;
    attributes[7] = program.as_ptr() as u64;
    attributes[8] = file_offset(tick as *const () as u64);
    let opened = call(libc::SYS_perf_event_open, &[address(&mut attributes), pid as u64, u64::MAX, u64::MAX, 8]);
    // SAFETY: the number was just returned for a new descriptor.
    unsafe { OwnedFd::from_raw_fd(opened.unwrap() as i32) }
}

/// Returns where in this program's file an address in it comes from.
fn file_offset(address: u64) -> u64 {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let hex = |text: &str| u64::from_str_radix(text, 16).unwrap();
    let offset = |line: &str| {
        let mut fields = line.split(' ');
        let (start, end) = fields.next()?.split_once('-')?;
        (hex(start)..hex(end)).contains(&address).then(|| address - hex(start) + hex(fields.nth(1).unwrap()))
    };
    maps.lines().find_map(offset).unwrap()
}

fn wait() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1000));
    }
}

/// Makes an object, and does not let go of it.
fn make(object: &str) -> Result<()> {
    let (object, numbers) = object.split_once(' ').unwrap_or((object, ""));
    let numbers: Vec<u64> = numbers.split_whitespace().map(|number| number.parse().unwrap()).collect();
    match (object, numbers.as_slice()) {
        ("socket", &[family, kind, protocol]) => call(libc::SYS_socket, &[family, kind, protocol]).map(drop),
        ("unshare", &[namespace]) => unshare(namespace),
        ("device", &[kind, major, minor]) => device(kind, major, minor),
        _ => [inode, mapping, process, file, lock, socket].iter().find_map(|make| make(object)).unwrap(),
    }
}

/// An anonymous inode, or another object of its kind.
fn inode(object: &str) -> Option<Result<()>> {
    let descriptor = match object {
        "io_uring" => io_uring(),
        "userfaultfd" => call(libc::SYS_userfaultfd, &[1]),
        "memfd" => call(libc::SYS_memfd_create, &[c"x".as_ptr() as u64, 0]),
        "memfd_secret" => call(libc::SYS_memfd_secret, &[0]),
        "perf_event" => {
            // The clock of the cpu, of this process.
            let mut attributes = [0u64; 16];
            attributes[0] = 1 | 128 << 32;
            call(libc::SYS_perf_event_open, &[address(&mut attributes), 0, u64::MAX, u64::MAX, 0])
        }
        "bpf_map" => bpf(0, [2 | 4 << 32, 8 | 4 << 32, 0]),
        "bpf_program" => {
            // Returns 0.
            let (mut code, mut license) = ([0xb7u64, 0x95], *b"GPL\0");
            bpf(5, [1 | 2 << 32, address(&mut code), address(&mut license)])
        }
        "landlock" => call(libc::SYS_landlock_create_ruleset, &[address(&mut [1u64]), 8, 0]),
        "fscontext" => call(libc::SYS_fsopen, &[c"tmpfs".as_ptr() as u64, 0]),
        "eventfd" => call(libc::SYS_eventfd2, &[1, 0]),
        // Twice the same one.
        "semaphore" => call(libc::SYS_eventfd2, &[1, 1]).and_then(|fd| call(libc::SYS_dup, &[fd])),
        "timerfd" => call(libc::SYS_timerfd_create, &[1, 0]),
        "signalfd" => call(libc::SYS_signalfd4, &[u64::MAX, address(&mut [0u64]), 8, 0]),
        "inotify" => call(libc::SYS_inotify_init1, &[0]).and_then(|fd| {
            call(libc::SYS_inotify_add_watch, &[fd, c"/tmp".as_ptr() as u64, 0x200]).map(drop)?;
            Ok(fd)
        }),
        "fanotify" => call(libc::SYS_fanotify_init, &[0, 0]).and_then(|fd| {
            let working = libc::AT_FDCWD as u64;
            call(libc::SYS_fanotify_mark, &[fd, 1, 2, working, c"/tmp".as_ptr() as u64]).map(drop)?;
            Ok(fd)
        }),
        "epoll" => call(libc::SYS_epoll_create1, &[0]).and_then(|epoll| {
            let event = call(libc::SYS_eventfd2, &[1, 0])?;
            let mut what = [libc::epoll_event { events: 1, u64: 3 }];
            call(libc::SYS_epoll_ctl, &[epoll, 1, event, address(&mut what)])
        }),
        "aio" => call(libc::SYS_io_setup, &[64, address(&mut [0u64])]),
        _ => return None,
    };
    Some(descriptor.map(drop))
}

/// An object that is mapped, without a descriptor.
fn mapping(object: &str) -> Option<Result<()>> {
    const SHARED: u64 = libc::MAP_SHARED as u64;
    let map = |fd: Result<u64>, length: u64| {
        let fd = fd?;
        call(libc::SYS_mmap, &[0, length, 3, SHARED, fd, 0])?;
        call(libc::SYS_close, &[fd]).map(drop)
    };
    Some(match object {
        "io_uring_map" => map(io_uring(), 4096),
        "memfd_secret_map" => {
            let secret = call(libc::SYS_memfd_secret, &[0]);
            map(secret.and_then(|fd| call(libc::SYS_ftruncate, &[fd, 4096]).map(|_| fd)), 4096)
        }
        "unlinked_map" => unlinked(true).and_then(|file| map(Ok(std::os::fd::IntoRawFd::into_raw_fd(file) as u64), 1)),
        "sysv" => call(libc::SYS_shmget, &[0, 65536, 0o1600]).and_then(|id| {
            call(libc::SYS_shmat, &[id, 0, 0])?;
            // It goes away with the last process that has it attached.
            call(libc::SYS_shmctl, &[id, libc::IPC_RMID as u64, 0])?;
            fs::write("/tmp/shmid", id.to_string())
        }),
        _ => return None,
    })
}

fn process(object: &str) -> Option<Result<()>> {
    let open = |pid: u64, flags: i32| call(libc::SYS_pidfd_open, &[pid, flags as u64]).map(drop);
    let own = u64::from(std::process::id());
    Some(match object {
        "pidfd" => open(own, 0),
        "pidfd_thread" => open(own, libc::O_EXCL),
        "pidfd_init" => open(1, 0),
        "pidfd_ended" | "pidfd_zombie" => fork(|| Ok(())).and_then(|pid| {
            open(pid, 0)?;
            let reaps = object == "pidfd_ended";
            // WNOWAIT leaves it a zombie.
            let options = if reaps { libc::WEXITED } else { libc::WEXITED | libc::WNOWAIT };
            call(libc::SYS_waitid, &[1, pid, 0, options as u64, 0]).map(drop)
        }),
        "traced" => fork(|| wait()).and_then(|pid| call(libc::SYS_ptrace, &[0x4206, pid, 0, 0]).map(drop)),
        "namespace_file" => fork(|| {
            unshare_self(libc::CLONE_NEWUTS as u64)?;
            fs::write("/tmp/unshared", "")?;
            wait()
        })
        .and_then(|pid| {
            wait_until("the child is elsewhere", || Path::new("/tmp/unshared").exists());
            std::mem::forget(File::open(format!("/proc/{pid}/ns/uts"))?);
            call(libc::SYS_kill, &[pid, 9])?;
            call(libc::SYS_wait4, &[pid, 0, 0, 0]).map(drop)
        }),
        "own_namespace_file" => File::open("/proc/self/ns/uts").map(std::mem::forget),
        _ => return None,
    })
}

fn file(object: &str) -> Option<Result<()>> {
    Some(match object {
        "unlinked" => unlinked(false).map(std::mem::forget),
        "unlinked_link" => unlinked(true).map(std::mem::forget),
        // It has this name, and is not deleted.
        "called_deleted" => File::create("/tmp/x (deleted)").and_then(|file| {
            fs::hard_link("/tmp/x (deleted)", "/tmp/y")?;
            std::mem::forget(file);
            Ok(())
        }),
        _ => return None,
    })
}

/// A file with a lock on it.
fn lock(object: &str) -> Option<Result<()>> {
    let take = |file: &File, command: i32, argument: u64| {
        call(libc::SYS_fcntl, &[file.as_raw_fd() as u64, command as u64, argument]).map(drop)
    };
    let mut whole = [libc::flock { l_type: libc::F_WRLCK as i16, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 }];
    let locked = File::create("/tmp/locked").and_then(|file| {
        match object {
            "flock" => file.lock_exclusively()?,
            // Of a child, by a process that has ended.
            "flock_passed_on" => {
                let child = fork(|| {
                    file.lock_exclusively()?;
                    fork(|| wait()).map(drop)
                })?;
                call(libc::SYS_wait4, &[child, 0, 0, 0])?;
                return Ok(());
            }
            "posix_lock" => take(&file, libc::F_SETLK, address(&mut whole))?,
            "ofd_lock" => take(&file, libc::F_OFD_SETLK, address(&mut whole))?,
            "lease" => take(&file, libc::F_SETLEASE, libc::F_WRLCK as u64)?,
            _ => {}
        }
        std::mem::forget(file);
        Ok(())
    });
    ["flock", "flock_passed_on", "posix_lock", "ofd_lock", "lease"].contains(&object).then_some(locked)
}

trait LockExclusively {
    fn lock_exclusively(&self) -> Result<()>;
}

impl LockExclusively for File {
    fn lock_exclusively(&self) -> Result<()> {
        call(libc::SYS_flock, &[self.as_raw_fd() as u64, libc::LOCK_EX as u64]).map(drop)
    }
}

fn socket(object: &str) -> Option<Result<()>> {
    let (address, path) = ("127.0.0.1:5000", "/tmp/socket");
    Some(match object {
        "tcp_listener" => TcpListener::bind("127.0.0.1:5001").map(std::mem::forget),
        "tcp" => TcpListener::bind(address).and_then(|listener| {
            let client = TcpStream::connect(address)?;
            std::mem::forget((listener.accept()?, client, listener));
            Ok(())
        }),
        "stream_pair" => UnixStream::pair().map(std::mem::forget),
        "half_closed" => UnixStream::pair().map(|(here, _)| std::mem::forget(here)),
        "unaccepted" => UnixListener::bind(path).and_then(|listener| {
            std::mem::forget((UnixStream::connect(path)?, listener));
            Ok(())
        }),
        // The peer of a socket is in a message that nobody has read.
        "passed_on" => UnixStream::pair().and_then(|(here, there)| {
            let (one, other) = UnixStream::pair()?;
            stasis::sys::socket::send(here.as_fd(), &[0], Some(other.as_fd()))?;
            std::mem::forget((here, there, one));
            Ok(())
        }),
        // Answers whoever comes, without end.
        "server" => UnixListener::bind(path).and_then(|listener| {
            fork(move || listener.incoming().try_for_each(|client| client.map(std::mem::forget))).map(drop)
        }),
        "client" => UnixStream::connect(path).map(std::mem::forget),
        "stream_outside" => UnixStream::connect("/outside/stream").map(std::mem::forget),
        "datagram_outside" => UnixDatagram::unbound().and_then(|socket| {
            socket.connect("/outside/datagram")?;
            std::mem::forget(socket);
            Ok(())
        }),
        _ => return None,
    })
}

fn io_uring() -> Result<u64> {
    call(libc::SYS_io_uring_setup, &[4, address(&mut [0u32; 30])])
}

fn bpf(command: u64, words: [u64; 3]) -> Result<u64> {
    let mut attributes = [0; 16];
    attributes[..3].copy_from_slice(&words);
    call(libc::SYS_bpf, &[command, address(&mut attributes), 128])
}

/// Returns a file without the name that it was opened by, and with or without another.
fn unlinked(linked: bool) -> Result<File> {
    fs::write("/tmp/gone", "kept")?;
    if linked {
        fs::hard_link("/tmp/gone", "/tmp/other")?;
    }
    let file = File::options().read(true).write(true).open("/tmp/gone")?;
    fs::remove_file("/tmp/gone")?;
    Ok(file)
}

fn device(kind: u64, major: u64, minor: u64) -> Result<()> {
    let number = libc::makedev(major as u32, minor as u32);
    let path = format!("/tmp/device-{major}-{minor}\0");
    call(libc::SYS_mknod, &[path.as_ptr() as u64, kind | 0o600, number])?;
    File::open(path.trim_end_matches('\0')).map(std::mem::forget)
}

/// Has a child, or the child of one, in another namespace than this process.
fn unshare(namespace: u64) -> Result<()> {
    fork(|| {
        unshare_self(namespace)?;
        let done = || fs::write("/tmp/unshared", "").map(drop);
        if namespace != libc::CLONE_NEWPID as u64 {
            done()?;
            wait();
        }
        fork(|| {
            done()?;
            wait()
        })?;
        wait()
    })?;
    wait_until("the child is elsewhere", || Path::new("/tmp/unshared").exists());
    Ok(())
}

fn unshare_self(namespace: u64) -> Result<()> {
    call(libc::SYS_unshare, &[namespace]).map(drop)
}

/// Has a child do something, and end.
fn fork(body: impl FnOnce() -> Result<()>) -> Result<u64> {
    let pid = call(libc::SYS_clone, &[libc::SIGCHLD as u64, 0, 0, 0, 0])?;
    if pid == 0 {
        let done = body();
        stasis::sys::clone::exit_now(done.map_or_else(|err| err.raw_os_error().unwrap_or(1), |()| 0));
    }
    Ok(pid)
}

fn address<T>(value: &mut [T]) -> u64 {
    value.as_mut_ptr() as u64
}

fn call(number: libc::c_long, arguments: &[u64]) -> Result<u64> {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the callers pass integers, and addresses of values that outlive the call and are as large as it takes them.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(answer as u64) }
}
