//! Units of systemd, which makes a cgroup for each, moves the first process into it and keeps the limits that it knows
//! (org.freedesktop.systemd1(5)).
//!
//! systemd is asked over the socket that systemctl takes, which needs no bus; over the bus where that is not for us.

use std::path::{Path, PathBuf};

use super::holder::Holder;
use crate::dbus::{Connection, Encoder, Failure, Object};
use crate::error::{Context, Error, Result};
use crate::plan::cgroup::Layout;
use crate::plan::cgroup::systemd::{Host, Property, Unit, Value};

const SERVICE: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";

/// What makes, changes and ends units.
const MANAGER: Object<'static> = Object { service: SERVICE, path: PATH, interface: "org.freedesktop.systemd1.Manager" };

/// What has the properties of the former.
const PROPERTIES: Object<'static> =
    Object { service: SERVICE, path: PATH, interface: "org.freedesktop.DBus.Properties" };

/// Finds out what a plan needs to know of the systemd that will be asked.
pub fn host(layout: &Layout, is_user: bool) -> Result<Host> {
    let mut host = Host { is_user, ..Host::default() };
    match layout {
        Layout::V2(_) if is_user => host.root = Systemd::connect(true)?.property("ControlGroup")?.into(),
        Layout::V2(_) => {}
        _ => host.devices = std::fs::read_to_string("/proc/devices").context(|| "read /proc/devices")?,
    }
    Ok(host)
}

/// Makes a unit, and with a scope a process that holds it until the container's init is in it.
pub(super) fn start(unit: &Unit) -> Result<Option<Holder>> {
    let holder = if unit.is_slice() { None } else { Some(Holder::begin()?) };
    let mut properties = unit.properties.clone();
    properties.extend(holder.as_ref().map(|holder| Property::new("PIDs", Value::Pids(vec![holder.pid()]))));
    let mut systemd = Systemd::connect(unit.is_user)?;
    systemd.drop_newer(&mut properties)?;
    let attempt = |err: Error| err.context(format!("unable to start unit {:?}", unit.name));
    match systemd.start(&unit.name, &properties) {
        // What is there may be the rest of a unit that has failed.
        Err(Failure::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" && holder.is_some() => {
            systemd.reset_failed(&unit.name).map_err(attempt)?;
            systemd.start(&unit.name, &properties).map_err(|err| attempt(err.into_error()))?;
        }
        Err(Failure::Refused { name, .. }) if name == "org.freedesktop.systemd1.UnitExists" => {}
        other => other.map_err(|err| attempt(err.into_error()))?,
    }
    Ok(holder)
}

/// Changes properties of a unit until it ends.
pub(super) fn change(unit: &Unit) -> Result<()> {
    let mut limits = unit.limits.clone();
    let mut systemd = Systemd::connect(unit.is_user)?;
    systemd.drop_newer(&mut limits)?;
    let mut body = Encoder::default();
    body.text(&unit.name);
    body.number('b', 1);
    encode(&mut body, &limits);
    let changed = systemd.0.call(MANAGER, "SetUnitProperties", &body.with_signature("sba(sv)"));
    changed
        .map(drop)
        .map_err(|err| err.into_error().context(format!("unable to set properties of unit {:?}", unit.name)))
}

/// Ends a unit and forgets it. A systemd that is not there any more has no units.
pub(super) fn stop(name: &str, is_user: bool) -> Result<()> {
    match Systemd::connect(is_user) {
        Ok(mut systemd) => {
            systemd.stop(name).map_err(|err| err.context(format!("unable to stop unit {name:?}")))?;
            systemd.reset_failed(name)
        }
        Err(err) => {
            log::debug!("{err}");
            Ok(())
        }
    }
}

/// A connection to a systemd.
struct Systemd(Connection);

impl Systemd {
    fn connect(is_user: bool) -> Result<Self> {
        let [own, bus] = sockets(is_user)?;
        let direct = match Connection::direct(&own) {
            Ok(connection) => return Ok(Self(connection)),
            Err(err) => err,
        };
        log::debug!("{direct}");
        let mut systemd = Self(Connection::bus(&bus).map_err(|err| err.context("systemd is not reachable"))?);
        let rule = format!("type='signal',sender='{SERVICE}',path='{PATH}',member='JobRemoved'");
        systemd.0.watch(&rule)?;
        // Else systemd sends nothing to a bus.
        systemd.call("Subscribe", &Encoder::default()).map_err(Failure::into_error)?;
        Ok(systemd)
    }

    fn call(&mut self, method: &str, body: &Encoder) -> std::result::Result<String, Failure> {
        let answer = self.0.call(MANAGER, method, body)?;
        // The job's path, if there is a job.
        Ok(answer.body().text().unwrap_or_default())
    }

    fn start(&mut self, name: &str, properties: &[Property]) -> std::result::Result<(), Failure> {
        let mut body = Encoder::default();
        body.text(name);
        body.text("replace");
        encode(&mut body, properties);
        // No other units beside it.
        body.array(8, &mut |_| {});
        let job = self.call("StartTransientUnit", &body.with_signature("ssa(sv)a(sa(sv))"))?;
        self.finish(&job, name, "start").map_err(Failure::Lost)
    }

    fn stop(&mut self, name: &str) -> Result<()> {
        let mut body = Encoder::default();
        body.text(name);
        body.text("replace");
        match self.call("StopUnit", &body.with_signature("ss")) {
            Ok(job) => self.finish(&job, name, "stop"),
            Err(failure) => unless_unknown(failure),
        }
    }

    fn reset_failed(&mut self, name: &str) -> Result<()> {
        let mut body = Encoder::default();
        body.text(name);
        self.call("ResetFailedUnit", &body.with_signature("s")).map(drop).or_else(unless_unknown)
    }

    /// Waits for the end of a job.
    fn finish(&mut self, job: &str, unit: &str, verb: &str) -> Result<()> {
        let result = |message: &crate::dbus::Message| {
            let mut body = message.body();
            let (_id, path, _unit) = (body.uint32().ok()?, body.text().ok()?, body.text().ok()?);
            (path == job).then(|| body.text().unwrap_or_default())
        };
        let is_removed = |member: Option<&str>| member == Some("JobRemoved");
        let end = self.0.signal(&format!("systemd to {verb} unit {unit:?} ({job})"), |message| {
            is_removed(message.member.as_deref()) && result(message).is_some()
        })?;
        match result(&end).as_deref() {
            Some("done") => Ok(()),
            other => {
                self.reset_failed(unit)?;
                Err(Error::other(format!("job to {verb} it ended as {:?}", other.unwrap_or_default())))
            }
        }
    }

    fn property(&mut self, name: &str) -> Result<String> {
        let mut body = Encoder::default();
        body.text(MANAGER.interface);
        body.text(name);
        let answer = self.0.call(PROPERTIES, "Get", &body.with_signature("ss"));
        let attempt = |err: Error| err.context(format!("ask systemd for {name}"));
        let answer = answer.map_err(|err| attempt(err.into_error()))?;
        let mut body = answer.body();
        body.signature().and_then(|_| body.text()).map_err(attempt)
    }

    /// Leaves out the properties that this systemd does not know.
    fn drop_newer(&mut self, properties: &mut Vec<Property>) -> Result<()> {
        if properties.iter().any(|property| property.since != 0) {
            // Such as `252.38-1~deb12u1`, or `v252`.
            let text = self.property("Version")?;
            let digits = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            let version = digits.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
            let version = version.parse().unwrap_or(0);
            properties.retain(|property| property.since <= version);
        }
        Ok(())
    }
}

/// A unit that systemd does not know has ended.
fn unless_unknown(failure: Failure) -> Result<()> {
    match failure {
        Failure::Refused { name, .. } if name == "org.freedesktop.systemd1.NoSuchUnit" => Ok(()),
        other => Err(other.into_error()),
    }
}

/// Returns the socket of systemd's own, and that of the bus.
fn sockets(is_user: bool) -> Result<[PathBuf; 2]> {
    if !is_user {
        return Ok(["/run/systemd/private", "/run/dbus/system_bus_socket"].map(PathBuf::from));
    }
    let missing = || Error::other("the user's systemd is not found: XDG_RUNTIME_DIR is not set");
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).ok_or_else(missing)?;
    let given = std::env::var("DBUS_SESSION_BUS_ADDRESS").unwrap_or_default();
    let given = given.split([';', ',']).find_map(|part| part.strip_prefix("unix:path="));
    Ok([runtime.join("systemd/private"), given.map_or_else(|| runtime.join("bus"), |path| Path::new(path).into())])
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
