//! stasis: an OCI container runtime whose containers can be stopped, moved and started again with all of their memory.
//!
//! This page is the architecture document. The command line in front of the library is described by the man pages,
//! the words of config.json by the [OCI runtime specification](https://github.com/opencontainers/runtime-spec).
//!
//! # One idea
//!
//! ```text
//! config.json --spec--> Spec --plan--> InitPlan                 (plain data, made before init is)
//!                                         |
//!                container/ (outside)   clone3   init/ (inside, the child)
//!                            \________ handshake ________/
//!                                         |
//!                                 state ; execve                (sys/: the kernel, the only unsafe code)
//! ```
//!
//! Everything is decided before the clone. A **plan** is the configuration turned into plain data: which namespaces,
//! which mounts in which order, which argv. It is made by pure functions, so policy is tested without root. The
//! **init** is our own code in the cloned child: it carries the plan out by system calls, and ends by executing the
//! container's program. It cannot fail for any reason but the kernel's, and says so in three integers - step, index,
//! errno - which the outside, holding the same plan, turns into words.
//!
//! # Who may use whom
//!
//! | module | what it is | uses |
//! | --- | --- | --- |
//! | `cli` (of the binary) | what the user typed, a file per command | [`container`], [`criu`], [`plan`], [`seal`], [`spec`] |
//! | [`container`] | the outside: a file per verb | [`spec`], [`plan`], [`cgroup`], [`criu`], [`tmpfs`], `init`, `handshake` |
//! | [`spec`] | what was asked for: reading and refusing | [`plan`] |
//! | [`plan`] | what will be done: pure functions, no system calls | |
//! | `init` | the inside: between clone and execve | [`plan`], `handshake` |
//! | [`cgroup`] | making, limiting, freezing and removing cgroups, by file access or by systemd | [`plan`], `dbus` |
//! | `dbus` | a client of D-Bus, which knows no service | |
//! | [`criu`] | sessions with CRIU and its images; knows no container's life | [`tmpfs`] |
//! | [`tmpfs`] | the content of a /dev/shm as an archive | |
//! | [`seal`] | running from an image of ourselves that nobody can write | |
//! | [`sys`] | the kernel: thin wrappers, no policy | |
//!
//! Everybody may use [`sys`] but `plan`. A test (tests/integration/architecture.rs) holds the table true.
//!
//! # Processes
//!
//! The runtime is a one-shot process: nothing of it stays behind a running container. To create a container
//! takes one clone mostly, and two at most beside those for id maps:
//!
//! | case | how |
//! | --- | --- |
//! | new namespaces, with or without a user namespace | one clone3 of init, born in its cgroup on v2 |
//! | joined network, IPC, UTS or mount namespaces | the same; init joins by itself |
//! | a joined pid or user namespace, offsets of clocks, or a new user namespace beside joined ones | a **joiner** joins, and clones init as the runtime's own child (`CLONE_PARENT`) |
//! | exec | a joiner enters the namespaces of the container's init at once, by its pidfd |
//! | id-mapped mounts | a child for each map that is not another's, which holds a user namespace until it is opened |
//! | what has to be seen or done in a namespace: a network device, the objects of others | a child each time, which joins it and ends |
//!
//! Init makes two namespaces for itself: the network namespace, because that takes longer than all the others together,
//! time in which the outside writes limits and state; and the cgroup namespace once it is in its cgroup (v1 attaches
//! after the clone). Create, as the two sides see it:
//!
//! ```text
//! runtime (outside)                               init (inside)
//!   validate, state directory, cgroup, plan
//!   clone3 ------------------------------------->  namespaces, mounts, devices
//!   id maps, v1 cgroups, limits, state
//!   ids of a mount's files          <-- MapIds ---   (a source that earlier mounts lie on)
//!                                    - Proceed ->
//!   network devices; hooks:         <-- Mounted --
//!   prestart, createRuntime          - Proceed ->  createContainer hooks, terminal, masks, pivot_root,
//!                                                  identity, capabilities, seccomp
//!   to the seccomp agent      <- SeccompListener -
//!                                    - Proceed ->
//!   state is complete, pid file    <--- Ready ---  waits for a byte in the exec fifo
//! start: writes the byte ----------------------->  startContainer hooks, execve
//! ```
//!
//! Between clone and execve nothing may be allocated: the child is a copy of a process of which only one thread
//! survived. What the child needs is in the plan, and a test with an allocator that ends such a child holds this true.
//!
//! # What is never stored
//!
//! A container's status: it is derived from the exec fifo (created), the pidfd and start time of init (alive), and the
//! freezer (paused). The state directory holds what cannot be asked of the kernel: see [`container::State`].
//!
//! # Failure
//!
//! Whatever an operation makes registers its removal, and a failure at any later point takes everything back. An
//! [`Error`] is one line, the attempts outermost first: `error mounting "tmpfs" to rootfs at "/dev": operation not
//! permitted`. Only a failure of CRIU goes on below that line, with what its log says. Several phrases are matched by
//! Docker, containerd, Podman and CRI-O, and are kept as runc has them.
//!
//! What CRIU is known to refuse ([`criu::obstacles`]) is looked for before a checkpoint stops or writes anything.
//!
//! # Kernel
//!
//! Linux 5.14 or newer, without fallbacks: clone3, pidfds, openat2, close_range, CLONE_INTO_CGROUP, open_tree,
//! move_mount and mount_setattr. A restore into a user namespace from images that only root may search needs overlayfs.
#![deny(unsafe_code)]

pub mod cgroup;
pub mod container;
pub mod criu;
mod cstrings;
mod dbus;
pub mod error;
mod handshake;
mod init;
pub mod plan;
pub mod seal;
pub mod spec;
#[allow(unsafe_code)]
pub mod sys;
pub mod time;
pub mod tmpfs;

pub use error::{Context, Error, ErrorKind, Result};
