//! Units of systemd, which makes a cgroup for each, moves the first process into it and keeps the limits that it knows
//! (org.freedesktop.systemd1(5)).
//!
//! systemd is asked over the socket that systemctl takes, which needs no bus; over the bus where that is not for us.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::holder::Holder;
use super::processes::wait;
use crate::dbus::{Address, Connection, Encoder, Failure, Object, Outcome};
use crate::error::{Error, Result};
use crate::plan::cgroup::Layout;
use crate::plan::cgroup::systemd::{Host, Property, Unit, Value, owner_of};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";

/// What makes, changes and ends units.
const MANAGER: Object<'static> = Object { service: SERVICE, path: PATH, interface: "org.freedesktop.systemd1.Manager" };

/// What has the properties of the former.
const PROPERTIES: Object<'static> =
    Object { service: SERVICE, path: PATH, interface: "org.freedesktop.DBus.Properties" };

/// How long a systemd that executes itself again may take to be there.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);

/// How long a job that was asked for over a connection that was lost may take.
const JOB_PATIENCE: Duration = Duration::from_secs(2);

/// How long nothing is asked meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// What systemd says of a job that has done what it is for.
const DONE: &str = "done";

/// The error's name.
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// Finds out what a plan needs to know of the systemd that will be asked.
pub fn host(layout: &Layout, is_user: bool) -> Result<Host> {
    let mut host = Host { is_user, ..Host::default() };
    if is_user && matches!(layout, Layout::V2(_)) {
        let root = ask(true, |systemd| systemd.property("ControlGroup"));
        host.root = root.map_err(Failure::into_error)?.into();
    }
    Ok(host)
}

/// Returns the user whose systemd the environment leads to, by the host's number. There may be none.
pub fn owner() -> Option<u32> {
    // RootlessKit tells, whose processes may see no others.
    if let Some(value) = given("ROOTLESSKIT_PARENT_EUID") {
        return value.to_str().and_then(|value| value.parse().ok());
    }
    let systemd = Systemd::connect(true).map_err(|failure| log::debug!("{}", failure.into_error())).ok()?;
    owner_of(&super::of(&systemd.0.peer()?.to_string()).ok()?)
}

fn given(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Makes a scope, and a process that holds it until the container's init is in it.
pub(super) fn start(unit: &Unit) -> Result<Holder> {
    let holder = Holder::begin()?;
    let mut properties = unit.properties.clone();
    properties.push(Property::new("PIDs", Value::Pids(vec![holder.pid()])));
    let mut attempts = 0;
    let started = ask(unit.is_user, |systemd| {
        attempts += 1;
        match systemd.start(&unit.name, &properties) {
            Err(Failure::Refused { name, .. }) if name == UNIT_EXISTS => {
                // What was asked for before the connection was lost; or the rest of a unit that has failed.
                if attempts > 1 && gets_into(&holder, &unit.name) {
                    return Ok(());
                }
                systemd.reset_failed(&unit.name);
                systemd.start(&unit.name, &properties)
            }
            other => other,
        }
    });
    started.map_err(|err| err.into_error().context(format!("unable to start unit {:?}", unit.name)))?;
    Ok(holder)
}

/// Waits until the process is in the cgroup of a unit that is about to start, if it is its own.
fn gets_into(holder: &Holder, unit: &str) -> bool {
    wait(JOB_PATIENCE, || !holder.is_in(unit))
}

/// Changes properties of a unit until it ends.
pub(super) fn change(unit: &Unit) -> Result<()> {
    let changed = ask(unit.is_user, |systemd| systemd.change(&unit.name, &unit.limits));
    changed.map_err(|err| err.into_error().context(format!("unable to set properties of unit {:?}", unit.name)))
}

/// Moves a process into the cgroup of a unit of the user's, or into one below it.
pub(super) fn attach(unit: &str, below: &Path, pid: i32) -> Result<()> {
    let attached = ask(true, |systemd| systemd.attach(unit, below, pid));
    attached.map_err(|err| err.into_error().context(format!("unable to attach process {pid} to unit {unit:?}")))
}

/// Ends a unit and forgets it; says no where there is no systemd to be found, which is no failure.
pub(super) fn stop(name: &str, is_user: bool) -> Result<bool> {
    let gone = |failure: Failure| {
        log::debug!("{}", failure.into_error());
        Ok(false)
    };
    let first = match Systemd::connect(is_user) {
        Err(failure) if !failure.is_closed() => return gone(failure),
        other => other,
    };
    match ask_again(first, &|| Systemd::connect(is_user), |systemd| systemd.stop(name)) {
        Err(failure) if failure.is_closed() => gone(failure),
        Err(failure) => Err(failure.into_error().context(format!("unable to stop unit {name:?}"))),
        Ok(()) => Ok(true),
    }
}

/// Asks the system's or the user's systemd for something.
fn ask<T>(is_user: bool, what: impl FnMut(&mut Systemd) -> Outcome<T>) -> Outcome<T> {
    ask_again(Systemd::connect(is_user), &|| Systemd::connect(is_user), what)
}

/// Asks a systemd for something, and again over a new connection when it has closed the one before: so it does when it
/// executes itself again, and is not to be reached for a moment then.
fn ask_again<T>(
    first: Outcome<Systemd>,
    connect: &dyn Fn() -> Outcome<Systemd>,
    mut what: impl FnMut(&mut Systemd) -> Outcome<T>,
) -> Outcome<T> {
    let until = Instant::now() + RETURN_PATIENCE;
    let mut outcome = first.and_then(|mut systemd| what(&mut systemd));
    while let Err(Failure::Closed(err)) = &outcome
        && Instant::now() < until
    {
        log::debug!("{err}: once more");
        sleep(PAUSE);
        outcome = match connect() {
            Ok(mut systemd) => what(&mut systemd),
            Err(failure) => Err(Failure::Closed(failure.into_error())),
        };
    }
    outcome
}

/// A connection to a systemd.
struct Systemd(Connection);

impl Systemd {
    fn connect(is_user: bool) -> Outcome<Self> {
        let (own, bus) = addresses(is_user, &given)?;
        let was_there = match own.as_ref().map(Connection::direct) {
            Some(Ok(connection)) => return Ok(Self(connection)),
            Some(Err(failure)) => {
                let was_there = failure.is_closed();
                log::debug!("{}", failure.into_error());
                was_there
            }
            None => false,
        };
        let on_bus = Connection::bus(&bus).map(Self).and_then(|mut systemd| systemd.listen().map(|()| systemd));
        on_bus.map_err(|failure| {
            let failure = failure.context("systemd is not reachable");
            // Not on the bus either while it executes itself again.
            if was_there { Failure::Closed(failure.into_error()) } else { failure }
        })
    }

    /// Has systemd send its signals to a bus, which it does not for nobody.
    fn listen(&mut self) -> Outcome<()> {
        let rule = format!("type='signal',sender='{SERVICE}',path='{PATH}',member='JobRemoved'");
        self.0.watch(&rule)?;
        self.0.only_from(SERVICE)?;
        self.call("Subscribe", &Encoder::default()).map(drop)
    }

    fn call(&mut self, method: &str, body: &Encoder) -> Outcome<String> {
        let answer = self.0.call(MANAGER, method, body)?;
        // The job's path, if there is a job.
        Ok(answer.body().text().unwrap_or_default())
    }

    fn start(&mut self, name: &str, properties: &[Property]) -> Outcome<()> {
        let mut body = Encoder::default();
        body.text(name);
        body.text("replace");
        encode(&mut body, &self.known(properties)?);
        // No other units beside it.
        body.array(8, &mut |_| {});
        let job = self.call("StartTransientUnit", &body.with_signature("ssa(sv)a(sa(sv))"))?;
        match self.finish(&job, name, "start") {
            Ok(result) if result == DONE => Ok(()),
            Err(failure) if failure.is_closed() => Err(failure),
            other => {
                self.reset_failed(name);
                Err(Error::other(format!("job to start it ended as {:?}", other?)).into())
            }
        }
    }

    fn change(&mut self, name: &str, limits: &[Property]) -> Outcome<()> {
        let mut body = Encoder::default();
        body.text(name);
        body.number('b', 1);
        encode(&mut body, &self.known(limits)?);
        self.call("SetUnitProperties", &body.with_signature("sba(sv)")).map(drop)
    }

    fn attach(&mut self, name: &str, below: &Path, pid: i32) -> Outcome<()> {
        let mut body = Encoder::default();
        body.text(name);
        body.text(&below.to_string_lossy());
        body.array(4, &mut |array| array.number('u', pid.unsigned_abs().into()));
        self.call("AttachProcessesToUnit", &body.with_signature("ssau")).map(drop)
    }

    fn stop(&mut self, name: &str) -> Outcome<()> {
        let mut body = Encoder::default();
        body.text(name);
        body.text("replace");
        match self.call("StopUnit", &body.with_signature("ss")) {
            Ok(job) => {
                let result = self.finish(&job, name, "stop")?;
                if result != DONE {
                    log::warn!("error removing unit {name:?}: got {result:?}. Continuing...");
                }
            }
            // It has ended.
            Err(Failure::Refused { name, .. }) if name == "org.freedesktop.systemd1.NoSuchUnit" => {}
            Err(failure) => return Err(failure),
        }
        self.reset_failed(name);
        Ok(())
    }

    /// Has systemd forget that a unit has failed, if it has.
    fn reset_failed(&mut self, name: &str) {
        let mut body = Encoder::default();
        body.text(name);
        if let Err(failure) = self.call("ResetFailedUnit", &body.with_signature("s")) {
            log::debug!("unable to reset failed unit {name:?}: {}", failure.into_error());
        }
    }

    /// Waits for the end of a job, and returns what it is said to have ended as.
    fn finish(&mut self, job: &str, unit: &str, verb: &str) -> Outcome<String> {
        let result = |message: &crate::dbus::Message| {
            let mut body = message.body();
            let (_id, path, _unit) = (body.uint32().ok()?, body.text().ok()?, body.text().ok()?);
            (path == job).then(|| body.text().unwrap_or_default())
        };
        let end = self.0.signal(&format!("systemd to {verb} unit {unit:?} ({job})"), |message| {
            message.member.as_deref() == Some("JobRemoved") && result(message).is_some()
        })?;
        Ok(result(&end).unwrap_or_default())
    }

    fn property(&mut self, name: &str) -> Outcome<String> {
        let mut body = Encoder::default();
        body.text(MANAGER.interface);
        body.text(name);
        let answer = self.0.call(PROPERTIES, "Get", &body.with_signature("ss"));
        let answer = answer.map_err(|failure| failure.context(format!("ask systemd for {name}")))?;
        let mut body = answer.body();
        Ok(body.signature().and_then(|_| body.text())?)
    }

    /// Returns the properties without those that this systemd does not know.
    fn known(&mut self, properties: &[Property]) -> Outcome<Vec<Property>> {
        let mut known = properties.to_vec();
        if known.iter().any(|property| property.since != 0) {
            // Such as `252.38-1~deb12u1`, or `v252`.
            let text = self.property("Version")?;
            let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            let version = digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
            let version = version.parse().unwrap_or(0);
            known.retain(|property| property.since <= version);
        }
        Ok(known)
    }
}

/// Returns the address of systemd's own socket, if it is known, and those of the bus.
///
/// A user may have several buses, each with a systemd or none: the one that is named is meant. systemd's own socket is
/// as good as the bus beside it.
fn addresses(is_user: bool, given: &dyn Fn(&str) -> Option<OsString>) -> Result<(Option<Address>, Vec<Address>)> {
    let (name, runtime, bus) = match is_user {
        true => ("DBUS_SESSION_BUS_ADDRESS", given("XDG_RUNTIME_DIR").map(PathBuf::from), "bus"),
        false => ("DBUS_SYSTEM_BUS_ADDRESS", Some("/run".into()), "dbus/system_bus_socket"),
    };
    let own = runtime.as_ref().map(|runtime| Address::Path(runtime.join("systemd/private")));
    let beside = runtime.map(|runtime| Address::Path(runtime.join(bus)));
    let named = given(name).map(|value| Address::list(&value.to_string_lossy()));
    match (named, beside) {
        (Some(named), beside) if is_user => Ok((own.filter(|_| named.first() == beside.as_ref()), named)),
        (Some(named), _) if !named.is_empty() => Ok((own, named)),
        (_, Some(beside)) => Ok((own, vec![beside])),
        _ => Err(Error::other("the user's systemd is not found: XDG_RUNTIME_DIR is not set")),
    }
}

fn encode(body: &mut Encoder, properties: &[Property]) {
    body.array(8, &mut |array| {
        for property in properties {
            array.structure();
            array.text(&property.name);
            encode_value(array, &property.value);
        }
    });
}

/// Adds a variant.
fn encode_value(body: &mut Encoder, value: &Value) {
    match value {
        Value::Number(code, number) => {
            body.signature(code.encode_utf8(&mut [0; 4]));
            body.number(*code, *number);
        }
        Value::Text(text) => {
            body.signature("s");
            body.text(text);
        }
        Value::Texts(texts) => {
            body.signature("as");
            body.array(4, &mut |array| texts.iter().for_each(|text| array.text(text)));
        }
        Value::Bytes(bytes) => {
            body.signature("ay");
            body.array(1, &mut |array| bytes.iter().for_each(|byte| array.number('y', (*byte).into())));
        }
        Value::Pids(pids) => {
            body.signature("au");
            body.array(4, &mut |array| pids.iter().for_each(|pid| array.number('u', (*pid).into())));
        }
        Value::Pairs(pairs) => {
            body.signature("a(ss)");
            body.array(8, &mut |array| {
                for (key, value) in pairs {
                    array.structure();
                    array.text(key);
                    array.text(value);
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dbus::tests::Service;

    fn connect(service: &Service) -> Outcome<Systemd> {
        Ok(Systemd(Connection::direct(&service.address())?))
    }

    #[test]
    fn a_systemd_is_where_the_environment_says() {
        let path = |path: &str| Address::Path(path.into());
        let known = |variables: &[(&str, &str)], is_user| {
            let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
            addresses(is_user, &value)
        };
        let private = path("/run/systemd/private");
        let usual = path("/run/dbus/system_bus_socket");
        assert_eq!(known(&[("XDG_RUNTIME_DIR", "/r")], false).unwrap(), (Some(private.clone()), vec![usual.clone()]));
        let named = known(&[("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/a;unix:path=/b")], false).unwrap();
        assert_eq!(named, (Some(private.clone()), vec![path("/a"), path("/b")]));
        assert_eq!(known(&[("DBUS_SYSTEM_BUS_ADDRESS", "tcp:")], false).unwrap(), (Some(private), vec![usual]));
        let (own, bus) = (path("/r/systemd/private"), path("/r/bus"));
        assert_eq!(known(&[("XDG_RUNTIME_DIR", "/r")], true).unwrap(), (Some(own.clone()), vec![bus.clone()]));
        // The one that is named decides.
        let named = Address::Abstract(b"a".to_vec());
        let (runtime, address) = (("XDG_RUNTIME_DIR", "/r"), ("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=a"));
        assert_eq!(known(&[address], true).unwrap(), (None, vec![named.clone()]));
        assert_eq!(known(&[runtime, address], true).unwrap(), (None, vec![named]));
        let beside = ("DBUS_SESSION_BUS_ADDRESS", "unix:path=/r/bus,guid=0");
        assert_eq!(known(&[runtime, beside], true).unwrap(), (Some(own), vec![bus]));
        assert_eq!(known(&[runtime, ("DBUS_SESSION_BUS_ADDRESS", "tcp:")], true).unwrap(), (None, vec![]));
        assert!(known(&[], true).unwrap_err().to_string().ends_with("XDG_RUNTIME_DIR is not set"));
    }

    #[test]
    fn what_was_closed_is_asked_again() {
        let service = Service::new(vec![
            |peer| assert_eq!(peer.called().unwrap().1, "StopUnit"),
            |peer| {
                // While the end of the job is waited for.
                let (stop, _) = peer.called().unwrap();
                peer.answer(stop, "/job/1");
            },
            |peer| {
                let (stop, _) = peer.called().unwrap();
                peer.refuse(stop, "org.freedesktop.systemd1.NoSuchUnit");
                let (reset, method) = peer.called().unwrap();
                assert_eq!(method, "ResetFailedUnit");
                peer.refuse(reset, "org.freedesktop.systemd1.NoSuchUnit");
            },
        ]);
        ask_again(connect(&service), &|| connect(&service), |systemd| systemd.stop("a.scope")).unwrap();
        service.ended();
    }

    #[test]
    fn a_unit_that_does_not_stop_well_is_no_error() {
        let service = Service::new(vec![|peer| {
            let (stop, _) = peer.called().unwrap();
            peer.job_removed("", "/job/other", "done");
            peer.answer(stop, "/job/1");
            peer.job_removed("", "/job/1", "timeout");
            let (reset, _) = peer.called().unwrap();
            peer.refuse(reset, "org.freedesktop.DBus.Error.AccessDenied");
        }]);
        connect(&service).unwrap().stop("a.scope").unwrap();
        service.ended();
    }

    #[test]
    fn why_a_unit_does_not_start_is_not_hidden() {
        let service = Service::new(vec![|peer| {
            let (start, method) = peer.called().unwrap();
            assert_eq!(method, "StartTransientUnit");
            peer.answer(start, "/job/1");
            peer.job_removed("", "/job/1", "failed");
            let (reset, _) = peer.called().unwrap();
            peer.refuse(reset, "org.freedesktop.DBus.Error.AccessDenied");
        }]);
        let err = connect(&service).unwrap().start("a.scope", &[]).unwrap_err().into_error();
        assert_eq!(err.to_string(), "job to start it ended as \"failed\"");
        service.ended();
    }
}
