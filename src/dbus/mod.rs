//! A client of D-Bus that does what the runtime needs of it: to call methods of one service and wait for its signals,
//! for a bounded time each.
//!
//! The wire format is in [`wire`]; what is said to whom is the caller's business. D-Bus specification:
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>.

mod wire;

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Context, Error, Result};
use crate::sys::socket;

pub use wire::{Encoder, Message};
use wire::{Kind, Start};

/// How long the other side may take for an answer, or for a signal that it has promised.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// No answer that is asked for here is nearly as long; the specification allows 128 MiB.
const LONGEST: usize = 1 << 20;

/// Who is called, as what.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    /// The service's name on the bus.
    pub service: &'a str,
    /// The object's path.
    pub path: &'a str,
    /// The interface that has the method.
    pub interface: &'a str,
}

/// The bus itself.
const BUS: Object<'_> =
    Object { service: "org.freedesktop.DBus", path: "/org/freedesktop/DBus", interface: "org.freedesktop.DBus" };

/// Why a call has failed.
#[derive(Debug)]
pub enum Failure {
    /// The service has refused it: the error's name, and its text.
    Refused {
        /// The name, such as `org.freedesktop.DBus.Error.AccessDenied`.
        name: String,
        /// What the service says of it.
        text: String,
    },
    /// There was no answer, or none that can be understood.
    Lost(Error),
}

impl Failure {
    /// Returns the error that a user is told of.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Refused { text, .. } => Error::other(text),
            Failure::Lost(err) => err,
        }
    }
}

/// A connection to a bus, or to a service directly.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    serial: u32,
    /// What has been read and is not a whole message yet.
    unread: Vec<u8>,
    /// Signals that came in before somebody waited for them.
    signals: Vec<Message>,
}

impl Connection {
    /// Connects to a service that listens at `path` itself.
    pub fn direct(path: &Path) -> Result<Self> {
        let attempt = || format!("connect to {}", path.display());
        let socket = UnixStream::from(socket::connect_within(path, PATIENCE).context(attempt)?);
        let mut connection = Self { socket, serial: 0, unread: Vec::new(), signals: Vec::new() };
        connection.authenticate().map_err(|err| err.context(attempt()))?;
        Ok(connection)
    }

    /// Connects to the bus that listens at `path`.
    pub fn bus(path: &Path) -> Result<Self> {
        let mut connection = Self::direct(path)?;
        connection.call(BUS, "Hello", &Encoder::default()).map_err(Failure::into_error)?;
        Ok(connection)
    }

    /// Asks the bus for the signals that match a rule.
    pub fn watch(&mut self, rule: &str) -> Result<()> {
        let mut body = Encoder::default();
        body.text(rule);
        self.call(BUS, "AddMatch", &body.with_signature("s")).map(drop).map_err(Failure::into_error)
    }

    /// Calls a method and returns its answer.
    pub fn call(&mut self, object: Object<'_>, method: &str, body: &Encoder) -> std::result::Result<Message, Failure> {
        self.serial += 1;
        let call = wire::call(self.serial, object, method, body);
        self.socket.write_all(&call).context(|| format!("call {method}")).map_err(Failure::Lost)?;
        let serial = self.serial;
        let answer = self.wait(method, |message| message.answers == Some(serial)).map_err(Failure::Lost)?;
        match (answer.kind, answer.error_name.clone()) {
            (Kind::Error, name) => {
                let text = answer.body().text().unwrap_or_else(|_| "no reason given".to_owned());
                Err(Failure::Refused { name: name.unwrap_or_default(), text })
            }
            _ => Ok(answer),
        }
    }

    /// Waits for a signal that `is_it` takes for the one.
    pub fn signal(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Result<Message> {
        match self.signals.iter().position(&is_it) {
            Some(there) => Ok(self.signals.swap_remove(there)),
            None => self.wait(what, is_it),
        }
    }

    /// Reads messages until the one that is waited for, and keeps the signals among the others.
    fn wait(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Result<Message> {
        let until = Instant::now() + PATIENCE;
        loop {
            let message = self.receive().map_err(|err| err.context(format!("wait for {what}")))?;
            if is_it(&message) {
                return Ok(message);
            }
            if message.kind == Kind::Signal {
                self.signals.push(message);
            }
            if Instant::now() > until {
                return Err(Error::other(format!("timed out waiting for {what}")));
            }
        }
    }

    fn receive(&mut self) -> Result<Message> {
        while self.unread.len() < Start::SIZE {
            self.read()?;
        }
        let start = Start::parse(&self.unread)?;
        if start.total > LONGEST {
            return Err(Error::other(format!("D-Bus message of {} bytes", start.total)));
        }
        while self.unread.len() < start.total {
            self.read()?;
        }
        let rest = self.unread.split_off(start.total);
        Message::parse(&start, std::mem::replace(&mut self.unread, rest))
    }

    fn read(&mut self) -> Result<()> {
        let mut part = [0; 4096];
        match self.socket.read(&mut part) {
            Ok(0) => return Err(Error::other("the D-Bus connection was closed")),
            Ok(len) => self.unread.extend_from_slice(&part[..len]),
            Err(err) => match err.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => {
                    return Err(Error::other(format!("no answer within {} s", PATIENCE.as_secs())));
                }
                _ => return Err(Error::other(format!("read from D-Bus: {err}"))),
            },
        }
        Ok(())
    }

    /// Says who we are: whoever the socket's credentials say. A number would be another one there if this is a user
    /// namespace.
    fn authenticate(&mut self) -> Result<()> {
        self.socket.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n").context(|| "authenticate")?;
        loop {
            match self.line()? {
                line if line.starts_with("OK ") => return Ok(()),
                line if line.trim_end() == "DATA" => {}
                line => return Err(Error::other(format!("authentication refused: {line}"))),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.unread.split_off(end + 2);
                let line = std::mem::replace(&mut self.unread, rest);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.read()?;
        }
    }
}
