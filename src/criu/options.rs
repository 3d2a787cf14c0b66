//! From what the user asked for and what the container is to CRIU's options: pure functions, pinned by their tests.
//!
//! Nothing is opened or looked up here. Descriptors are numbers of this process, which is where CRIU opens the
//! directories (through /proc/PID/fd of its peer), or of CRIU's, where those of [`RestoreTarget::inherited`] are passed
//! under the same number.

use super::external::ExternalMount;
use crate::tmpfs::Policy;
use protobuf::{EnumOrUnknown, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{
    Cgroup_root, Criu_cg_mode, Criu_network_lock_method, Criu_opts, Criu_page_server_info, Ext_mount_map, Inherit_fd,
    Join_namespace,
};
use std::path::PathBuf;

/// CRIU's log of a dump, in the work directory.
pub const DUMP_LOG: &str = "dump.log";

/// CRIU's log of a restore, in the work directory.
pub const RESTORE_LOG: &str = "restore.log";

/// Where CRIU finds an administrator's settings for containers, which overrule ours; the file is runc's.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";

/// The annotation that names another such file, or none with an empty string.
const CONFIG_ANNOTATION: &str = "org.criu.config";

/// CRIU refuses files that have lost their name from 1 MiB on, since it takes them for leaks. Where memory is shared
/// such files are the rule, so only what CRIU cannot count is too much.
const GHOST_LIMIT: u32 = u32::MAX;

/// Debug messages without the contents of each object, as runc has it.
const LOG_LEVEL: i32 = 4;

/// What CRIU does about cgroups.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CgroupMode {
    /// What CRIU does by default, which is the same as [`Soft`](Self::Soft).
    #[default]
    Default,
    /// Restores the properties of cgroups that it creates.
    Soft,
    /// Restores all cgroups and their properties.
    Full,
    /// Restores all cgroups, which must not exist.
    Strict,
    /// Leaves cgroups alone.
    Ignore,
}

/// How the network of the processes is stopped while they are dumped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetworkLock {
    /// With iptables-restore.
    Iptables,
    /// With libnftables.
    Nftables,
    /// Not at all.
    Skip,
}

/// Where another CRIU takes the memory of the processes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PageServer {
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
}

/// What the user asks for at a checkpoint and at a restore alike.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// The directory of the images.
    pub image_path: PathBuf,
    /// The directory of logs and statistics, if not that of the images.
    pub work_path: Option<PathBuf>,
    /// Connected TCP sockets are dumped, and connected again.
    pub tcp_established: bool,
    /// Connected TCP sockets are restored closed.
    pub tcp_close: bool,
    /// Unix sockets may have their peer outside.
    pub ext_unix_sk: bool,
    /// The processes may belong to a session and a terminal from outside.
    pub shell_job: bool,
    /// File locks are dumped and taken again.
    pub file_locks: bool,
    /// Images of memory that has become stale are punched out.
    pub auto_dedup: bool,
    /// Memory is transferred when it is first touched.
    pub lazy_pages: bool,
    /// What is done about cgroups.
    pub cgroup_mode: CgroupMode,
    /// How the network is stopped; chosen by what else is asked for when absent.
    pub network_lock: Option<NetworkLock>,
}

/// What the user asks for at a checkpoint.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DumpOptions {
    /// What a restore has as well.
    pub options: Options,
    /// The images of an earlier pre-dump, relative to these.
    pub parent_path: Option<PathBuf>,
    /// Only memory is dumped, and the processes go on.
    pub pre_dump: bool,
    /// The processes go on after the dump.
    pub leave_running: bool,
    /// TCP connections that are being established are left out.
    pub tcp_skip_in_flight: bool,
    /// Open files that have lost their name get a temporary one, for the restore to find them by.
    pub link_remap: bool,
    /// The size in bytes up to which the content of an open file without a name is dumped; 4 GiB if absent.
    pub ghost_limit: Option<u32>,
    /// Where the memory goes.
    pub page_server: Option<PageServer>,
    /// Tmpfs from outside, beside /dev/shm, whose content belongs to the container: where they are mounted.
    pub external_tmpfs: Vec<String>,
}

/// What the user asks for at a restore.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RestoreOptions {
    /// What a checkpoint has as well.
    pub options: Options,
    /// The LSM profile that the processes get instead of theirs: `TYPE:NAME`.
    pub lsm_profile: Option<String>,
    /// The SELinux context that mounts get instead of theirs.
    pub lsm_mount_context: Option<String>,
    /// What is done with the content of tmpfs from outside where they are not empty; chosen by the IPC mode when absent.
    /// [`Policy::Never`] also keeps that of System V segments in an IPC namespace of others.
    pub shm_policy: Option<Policy>,
}

/// The descriptors of this process that CRIU opens its directories through.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DirectoryFds {
    /// The images.
    pub images: i32,
    /// The work directory, if it is another.
    pub work: Option<i32>,
}

/// The container that is dumped.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DumpTarget {
    /// Its init.
    pub pid: i32,
    /// Its root file system, outside.
    pub root: String,
    /// The directory of its cgroup that has a freezer, if any: CRIU then freezes all processes at once.
    pub freezer: Option<String>,
    /// From [`config_file`].
    pub config_file: Option<String>,
    /// From [`dumped_mounts`](super::external::dumped_mounts).
    pub mounts: Vec<ExternalMount>,
    /// Other external resources, in CRIU's notation.
    pub external: Vec<String>,
}

/// The container that is restored.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RestoreTarget {
    /// A mount of its root file system.
    pub root: String,
    /// From [`config_file`].
    pub config_file: Option<String>,
    /// From [`restored_mounts`](super::external::restored_mounts).
    pub mounts: Vec<ExternalMount>,
    /// Descriptors of the CRIU process and the keys of what they replace.
    pub inherited: Vec<(i32, String)>,
    /// Namespaces to join, by CRIU's name of the type and path.
    pub joined: Vec<(String, String)>,
    /// The container's cgroups: controllers, empty on v2, and path in the hierarchy.
    pub cgroups: Vec<(String, String)>,
}

/// Returns the configuration file for CRIU that a container's annotations ask for; CRIU ignores one that is not there.
pub fn config_file(annotation: impl Fn(&str) -> Option<String>) -> Option<String> {
    let file = annotation(CONFIG_ANNOTATION).unwrap_or_else(|| CONFIG_FILE.to_owned());
    (!file.is_empty()).then_some(file)
}

/// Returns the options of a dump or pre-dump.
pub fn dump(asked: &DumpOptions, target: DumpTarget, directories: DirectoryFds) -> Criu_opts {
    let parent = asked.parent_path.as_ref().map(|path| path.to_string_lossy().into_owned());
    Criu_opts {
        log_file: Some(DUMP_LOG.to_owned()),
        pid: Some(target.pid),
        root: Some(target.root),
        freeze_cgroup: target.freezer,
        config_file: target.config_file,
        ext_mnt: target.mounts.into_iter().map(external_mount).collect(),
        external: target.external,
        leave_running: Some(asked.leave_running),
        tcp_skip_in_flight: Some(asked.tcp_skip_in_flight),
        link_remap: Some(asked.link_remap),
        ghost_limit: Some(asked.ghost_limit.unwrap_or(GHOST_LIMIT)),
        ps: asked.page_server.as_ref().map(page_server).unwrap_or_default(),
        // Without tracking, the dump after a pre-dump would be a whole one.
        track_mem: (asked.pre_dump || parent.is_some()).then_some(true),
        parent_img: parent,
        network_lock: network_lock(asked).map(EnumOrUnknown::new),
        ..both(&asked.options, directories)
    }
}

/// Returns the options of a restore.
pub fn restore(asked: &RestoreOptions, target: RestoreTarget, directories: DirectoryFds) -> Criu_opts {
    Criu_opts {
        log_file: Some(RESTORE_LOG.to_owned()),
        root: Some(target.root),
        config_file: target.config_file,
        ext_mnt: target.mounts.into_iter().map(external_mount).collect(),
        inherit_fd: target.inherited.into_iter().map(inherited).collect(),
        join_ns: target.joined.into_iter().map(joined).collect(),
        cg_root: target.cgroups.into_iter().map(cgroup_root).collect(),
        manage_cgroups_mode: Some(EnumOrUnknown::new(restored_cgroups(asked.options.cgroup_mode))),
        // Makes the restored tree our child, not CRIU's, so that it can be waited for.
        rst_sibling: Some(true),
        // Device numbers may differ where the checkpoint is restored.
        evasive_devices: Some(true),
        lsm_profile: asked.lsm_profile.clone(),
        lsm_mount_context: asked.lsm_mount_context.clone(),
        // CRIU takes the method from the images, and this one only for messages.
        network_lock: asked.options.network_lock.map(lock_method).map(EnumOrUnknown::new),
        ..both(&asked.options, directories)
    }
}

/// Returns the options that dump and restore have in common.
fn both(asked: &Options, directories: DirectoryFds) -> Criu_opts {
    Criu_opts {
        images_dir_fd: Some(directories.images),
        work_dir_fd: directories.work,
        log_level: Some(LOG_LEVEL),
        notify_scripts: Some(true),
        orphan_pts_master: Some(true),
        // Interfaces and addresses are made by whoever made the namespace, at the restore once more.
        empty_ns: Some(libc::CLONE_NEWNET as u32),
        manage_cgroups: Some(true),
        manage_cgroups_mode: Some(EnumOrUnknown::new(cgroup_mode(asked.cgroup_mode))),
        tcp_established: Some(asked.tcp_established),
        tcp_close: asked.tcp_close.then_some(true),
        ext_unix_sk: Some(asked.ext_unix_sk),
        shell_job: Some(asked.shell_job),
        file_locks: Some(asked.file_locks),
        auto_dedup: Some(asked.auto_dedup),
        lazy_pages: Some(asked.lazy_pages),
        ..Criu_opts::default()
    }
}

/// Returns how the network is stopped, or `None` for CRIU's default.
///
/// The lock is there for TCP: it keeps a peer's packets away from connections whose sockets are not there. Where no
/// connection may be dumped there is nothing to keep, and skipping it saves the two to four runs of iptables-restore
/// (60 ms) at the dump and again at the restore, which repeats what the images say the dump did.
fn network_lock(asked: &DumpOptions) -> Option<Criu_network_lock_method> {
    let tcp = asked.options.tcp_established || asked.options.tcp_close || asked.tcp_skip_in_flight;
    match asked.options.network_lock {
        Some(method) => Some(lock_method(method)),
        None if tcp => None,
        None => Some(Criu_network_lock_method::SKIP),
    }
}

fn lock_method(method: NetworkLock) -> Criu_network_lock_method {
    match method {
        NetworkLock::Iptables => Criu_network_lock_method::IPTABLES,
        NetworkLock::Nftables => Criu_network_lock_method::NFTABLES,
        NetworkLock::Skip => Criu_network_lock_method::SKIP,
    }
}

fn cgroup_mode(mode: CgroupMode) -> Criu_cg_mode {
    match mode {
        CgroupMode::Default => Criu_cg_mode::DEFAULT,
        CgroupMode::Soft => Criu_cg_mode::SOFT,
        CgroupMode::Full => Criu_cg_mode::FULL,
        CgroupMode::Strict => Criu_cg_mode::STRICT,
        CgroupMode::Ignore => Criu_cg_mode::IGNORE,
    }
}

/// Returns what CRIU does about cgroups at a restore. It finds the container's own, which is made for it beforehand: that
/// it was not there is the caller's to see.
fn restored_cgroups(mode: CgroupMode) -> Criu_cg_mode {
    match mode {
        CgroupMode::Strict => Criu_cg_mode::FULL,
        other => cgroup_mode(other),
    }
}

fn page_server(server: &PageServer) -> MessageField<Criu_page_server_info> {
    MessageField::some(Criu_page_server_info {
        address: Some(server.address.clone()),
        port: Some(i32::from(server.port)),
        ..Criu_page_server_info::default()
    })
}

fn external_mount(mount: ExternalMount) -> Ext_mount_map {
    Ext_mount_map { key: Some(mount.key), val: Some(mount.value), ..Ext_mount_map::default() }
}

fn inherited((fd, key): (i32, String)) -> Inherit_fd {
    Inherit_fd { fd: Some(fd), key: Some(key), ..Inherit_fd::default() }
}

fn joined((ns, path): (String, String)) -> Join_namespace {
    Join_namespace { ns: Some(ns), ns_file: Some(path), ..Join_namespace::default() }
}

fn cgroup_root((controllers, path): (String, String)) -> Cgroup_root {
    Cgroup_root { ctrl: Some(controllers), path: Some(path), ..Cgroup_root::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORIES: DirectoryFds = DirectoryFds { images: 7, work: None };

    fn dumped(change: impl FnOnce(&mut DumpOptions)) -> Criu_opts {
        let mut asked = DumpOptions::default();
        change(&mut asked);
        dump(&asked, DumpTarget::default(), DIRECTORIES)
    }

    fn restored(change: impl FnOnce(&mut RestoreOptions)) -> Criu_opts {
        let mut asked = RestoreOptions::default();
        change(&mut asked);
        restore(&asked, RestoreTarget::default(), DIRECTORIES)
    }

    fn method(found: Criu_opts) -> Option<Criu_network_lock_method> {
        found.network_lock.map(|method| method.enum_value().unwrap())
    }

    #[test]
    fn a_dump_says_what_runc_says() {
        let target = DumpTarget {
            pid: 42,
            root: "/rootfs".to_owned(),
            freezer: Some("/sys/fs/cgroup/freezer/c1".to_owned()),
            config_file: Some("/etc/criu/runc.conf".to_owned()),
            mounts: vec![ExternalMount { key: "/a".to_owned(), value: "/b".to_owned() }],
            external: vec!["net[1]:extRootNetNS".to_owned()],
        };
        let directories = DirectoryFds { images: 7, work: Some(8) };
        let found = dump(&DumpOptions::default(), target, directories);
        let expected = Criu_opts {
            images_dir_fd: Some(7),
            work_dir_fd: Some(8),
            log_level: Some(4),
            log_file: Some("dump.log".to_owned()),
            root: Some("/rootfs".to_owned()),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(EnumOrUnknown::new(Criu_cg_mode::DEFAULT)),
            notify_scripts: Some(true),
            pid: Some(42),
            shell_job: Some(false),
            leave_running: Some(false),
            tcp_established: Some(false),
            tcp_skip_in_flight: Some(false),
            link_remap: Some(false),
            ext_unix_sk: Some(false),
            file_locks: Some(false),
            empty_ns: Some(0x4000_0000),
            orphan_pts_master: Some(true),
            auto_dedup: Some(false),
            lazy_pages: Some(false),
            config_file: Some("/etc/criu/runc.conf".to_owned()),
            freeze_cgroup: Some("/sys/fs/cgroup/freezer/c1".to_owned()),
            ext_mnt: vec![Ext_mount_map {
                key: Some("/a".to_owned()),
                val: Some("/b".to_owned()),
                ..Ext_mount_map::default()
            }],
            external: vec!["net[1]:extRootNetNS".to_owned()],
            // Ours alone, see network_lock() and GHOST_LIMIT.
            network_lock: Some(EnumOrUnknown::new(Criu_network_lock_method::SKIP)),
            ghost_limit: Some(u32::MAX),
            ..Criu_opts::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_restore_says_what_runc_says() {
        let target = RestoreTarget {
            root: "/run/stasis/c1/criu-root".to_owned(),
            config_file: None,
            mounts: Vec::new(),
            inherited: vec![(1, "pipe:[5]".to_owned())],
            joined: vec![("ipc".to_owned(), "/proc/1/ns/ipc".to_owned())],
            cgroups: vec![("memory".to_owned(), "/c1".to_owned())],
        };
        let found = restore(&RestoreOptions::default(), target, DIRECTORIES);
        let expected = Criu_opts {
            images_dir_fd: Some(7),
            evasive_devices: Some(true),
            log_level: Some(4),
            log_file: Some("restore.log".to_owned()),
            rst_sibling: Some(true),
            root: Some("/run/stasis/c1/criu-root".to_owned()),
            manage_cgroups: Some(true),
            manage_cgroups_mode: Some(EnumOrUnknown::new(Criu_cg_mode::DEFAULT)),
            notify_scripts: Some(true),
            shell_job: Some(false),
            ext_unix_sk: Some(false),
            tcp_established: Some(false),
            file_locks: Some(false),
            empty_ns: Some(0x4000_0000),
            orphan_pts_master: Some(true),
            auto_dedup: Some(false),
            lazy_pages: Some(false),
            inherit_fd: vec![inherited((1, "pipe:[5]".to_owned()))],
            join_ns: vec![joined(("ipc".to_owned(), "/proc/1/ns/ipc".to_owned()))],
            cg_root: vec![cgroup_root(("memory".to_owned(), "/c1".to_owned()))],
            ..Criu_opts::default()
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn flags_of_a_checkpoint_are_passed_on() {
        assert_eq!(dumped(|asked| asked.leave_running = true).leave_running, Some(true));
        assert_eq!(dumped(|asked| asked.tcp_skip_in_flight = true).tcp_skip_in_flight, Some(true));
        assert_eq!(dumped(|asked| asked.link_remap = true).link_remap, Some(true));
        assert_eq!(dumped(|asked| asked.ghost_limit = Some(9)).ghost_limit, Some(9));
        assert_eq!(dumped(|asked| asked.options.tcp_established = true).tcp_established, Some(true));
        assert_eq!(dumped(|asked| asked.options.ext_unix_sk = true).ext_unix_sk, Some(true));
        assert_eq!(dumped(|asked| asked.options.shell_job = true).shell_job, Some(true));
        assert_eq!(dumped(|asked| asked.options.file_locks = true).file_locks, Some(true));
        assert_eq!(dumped(|asked| asked.options.auto_dedup = true).auto_dedup, Some(true));
        assert_eq!(dumped(|asked| asked.options.lazy_pages = true).lazy_pages, Some(true));
        let server = PageServer { address: "10.0.0.1".to_owned(), port: 99 };
        let found = dumped(|asked| asked.page_server = Some(server));
        assert_eq!((found.ps.address(), found.ps.port()), ("10.0.0.1", 99));
    }

    #[test]
    fn memory_is_tracked_from_a_pre_dump_to_the_dump() {
        let parent = || Some(PathBuf::from("../parent"));
        assert_eq!(dumped(|_| ()).track_mem, None);
        assert_eq!(dumped(|asked| asked.pre_dump = true).track_mem, Some(true));
        let found = dumped(|asked| asked.parent_path = parent());
        assert_eq!((found.parent_img.as_deref(), found.track_mem), (Some("../parent"), Some(true)));
    }

    #[test]
    fn flags_of_a_restore_are_passed_on() {
        assert_eq!(restored(|asked| asked.options.tcp_close = true).tcp_close, Some(true));
        let label = || Some("selinux:a".to_owned());
        assert_eq!(restored(|asked| asked.lsm_profile = label()).lsm_profile, label());
        assert_eq!(restored(|asked| asked.lsm_mount_context = label()).lsm_mount_context, label());
    }

    #[test]
    fn the_network_is_locked_for_tcp_or_as_asked() {
        type Lock = Criu_network_lock_method;
        assert_eq!(method(dumped(|_| ())), Some(Lock::SKIP));
        assert_eq!(method(dumped(|asked| asked.options.tcp_established = true)), None);
        assert_eq!(method(dumped(|asked| asked.options.tcp_close = true)), None);
        assert_eq!(method(dumped(|asked| asked.tcp_skip_in_flight = true)), None);
        let nftables = |asked: &mut DumpOptions| {
            asked.options.tcp_established = true;
            asked.options.network_lock = Some(NetworkLock::Nftables);
        };
        assert_eq!(method(dumped(nftables)), Some(Lock::NFTABLES));
        assert_eq!(method(restored(|_| ())), None);
    }

    #[test]
    fn cgroup_modes_have_their_names() {
        let cases = [
            (CgroupMode::Default, Criu_cg_mode::DEFAULT),
            (CgroupMode::Soft, Criu_cg_mode::SOFT),
            (CgroupMode::Full, Criu_cg_mode::FULL),
            (CgroupMode::Strict, Criu_cg_mode::STRICT),
            (CgroupMode::Ignore, Criu_cg_mode::IGNORE),
        ];
        for (mode, expected) in cases {
            let found = dumped(|asked| asked.options.cgroup_mode = mode);
            assert_eq!(found.manage_cgroups_mode.unwrap().enum_value().unwrap(), expected);
            let found = restored(|asked| asked.options.cgroup_mode = mode).manage_cgroups_mode;
            // What is made beforehand is not to be made again.
            let expected = if mode == CgroupMode::Strict { Criu_cg_mode::FULL } else { expected };
            assert_eq!(found, Some(EnumOrUnknown::new(expected)));
        }
    }

    #[test]
    fn an_annotation_replaces_the_configuration_file() {
        let cases = [(None, Some("/etc/criu/runc.conf")), (Some("/my.conf"), Some("/my.conf")), (Some(""), None)];
        for (annotation, expected) in cases {
            let found = config_file(|name| {
                assert_eq!(name, "org.criu.config");
                annotation.map(str::to_owned)
            });
            assert_eq!(found.as_deref(), expected);
        }
    }
}
