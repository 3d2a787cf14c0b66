//! What `docker run` says about the program's own attributes: user, groups, environment, directory, limits, names.

#[test]
fn user_and_groups_are_those_asked_for() {
    let docker = docker!();
    docker.run(&["--user=1000:2000"], "id -u; id -g; id -G").ok().prints("1000\n2000\n2000");
    docker.run(&["--user=1000:2000", "--group-add=5"], "id -G").ok().stdout_contains("5");
}

#[test]
fn environment_is_passed() {
    let docker = docker!();
    docker.run(&["-e", "A=b c"], "echo $A $HOME").ok().prints("b c /root");
}

#[test]
fn working_directory_is_made() {
    let docker = docker!();
    docker.run(&["-w", "/made/for/this"], "pwd").ok().prints("/made/for/this");
}

#[test]
fn hostname_is_set() {
    let docker = docker!();
    docker
        .run(&["--hostname=h.example"], "hostname; cat /proc/sys/kernel/hostname")
        .ok()
        .prints("h.example\nh.example");
}

#[test]
fn ulimits_are_set() {
    let docker = docker!();
    docker.run(&["--ulimit=nofile=100:200"], "ulimit -Sn; ulimit -Hn").ok().prints("100\n200");
}

#[test]
fn oom_score_is_set() {
    let docker = docker!();
    docker.run(&["--oom-score-adj=321"], "cat /proc/self/oom_score_adj").ok().prints("321");
}

#[test]
fn sysctls_are_set() {
    let docker = docker!();
    let options = ["--sysctl=net.ipv4.ip_forward=1", "--sysctl=kernel.shm_rmid_forced=1"];
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced";
    docker.run(&options, script).ok().prints("1\n1");
}

#[test]
fn user_namespace_may_be_the_hosts() {
    let docker = docker!();
    let host = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    docker.run(&["--userns=host"], "cat /proc/self/uid_map").ok().prints(host.trim());
}

#[test]
fn pid_namespace_may_be_the_hosts() {
    let docker = docker!();
    docker.run(&["--pid=host"], "test $$ != 1").ok();
    docker.run(&[], "test $$ = 1").ok();
}

#[test]
fn network_may_be_the_hosts() {
    let docker = docker!();
    let here = std::fs::read_link("/proc/self/ns/net").unwrap();
    docker.run(&["--network=host"], "readlink /proc/self/ns/net").ok().prints(here.to_str().unwrap());
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let docker = docker!();
    let owner = docker.start(&["--ipc=shareable"], "echo shared >/dev/shm/x; exec sleep 1000");
    let links = "for kind in net ipc pid; do readlink /proc/1/ns/$kind; done";
    let theirs = owner.exec(&[], links).ok();
    let of = |kind: &str| format!("--{kind}=container:{}", owner.name());
    let script = "for kind in net ipc pid; do readlink /proc/self/ns/$kind; done; cat /dev/shm/x";
    docker.run(&[&of("network"), &of("ipc"), &of("pid")], script).ok().prints(&format!("{}\nshared", theirs.text()));
}
