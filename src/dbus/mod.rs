//! A client of D-Bus that does what the runtime needs of it: to call methods of one service and wait for its signals,
//! for a bounded time each.
//!
//! The wire format is in [`wire`]; what is said to whom is the caller's business. D-Bus specification:
//! <https://dbus.freedesktop.org/doc/dbus-specification.html>.

mod address;
mod wire;

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::error::{self, Context, Error};
use crate::sys::{Errno, socket};

pub use address::Address;
pub use wire::{Encoder, Message};
use wire::{Kind, Start};

/// How long the other side may take for an answer, or for a signal that it has promised.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// No answer that is asked for here is nearly as long; the specification allows 128 MiB.
const LONGEST: usize = 1 << 20;

/// No line of an authentication is nearly as long.
const LONGEST_LINE: usize = 1 << 14;

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

/// What the bus says when a name has another owner, or none.
const LEFT: &str = "NameOwnerChanged";

/// What it says instead of an answer when the one who was called has left.
const NO_REPLY: &str = "org.freedesktop.DBus.Error.NoReply";

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
    /// The other side has closed the connection, or left the bus.
    Closed(Error),
    /// There was no answer, or none that can be understood.
    Lost(Error),
}

/// What has come of a call.
pub type Outcome<T> = std::result::Result<T, Failure>;

impl Failure {
    /// Returns the error that a user is told of.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Refused { text, .. } => Error::other(text),
            Failure::Closed(err) | Failure::Lost(err) => err,
        }
    }

    /// Returns whether the other side is not there any more.
    pub fn is_closed(&self) -> bool {
        matches!(self, Failure::Closed(_))
    }

    /// Puts the attempt that this failure ended in front of it.
    #[must_use]
    pub fn context(self, attempt: impl std::fmt::Display) -> Self {
        match self {
            Failure::Refused { name, text } => Failure::Refused { name, text: format!("{attempt}: {text}") },
            Failure::Closed(err) => Failure::Closed(err.context(attempt)),
            Failure::Lost(err) => Failure::Lost(err.context(attempt)),
        }
    }

    fn of(err: std::io::Error) -> Self {
        match err.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => {
                Failure::Closed(Error::other("the D-Bus connection was closed"))
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Lost(Error::other("timed out")),
            _ => Failure::Lost(Error::other(err.to_string())),
        }
    }
}

impl From<Error> for Failure {
    fn from(err: Error) -> Self {
        Failure::Lost(err)
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
    /// On a bus, the name of the one whose messages count beside the bus's own: everybody there may send some to
    /// everybody.
    sender: Option<String>,
    patience: Duration,
}

impl Connection {
    /// Connects to a service that listens at an address itself.
    pub fn direct(address: &Address) -> Outcome<Self> {
        let connected = address.connect(PATIENCE).context(|| format!("connect to {address}"));
        let mut connection = Self::new(UnixStream::from(connected.map_err(|err| match err.kind() {
            // There was somebody.
            error::ErrorKind::System(Errno::ECONNREFUSED) => Failure::Closed(err),
            _ => Failure::Lost(err),
        })?));
        connection.authenticate().map_err(|failure| failure.context(format!("connect to {address}")))?;
        Ok(connection)
    }

    fn new(socket: UnixStream) -> Self {
        Self { socket, serial: 0, unread: Vec::new(), signals: Vec::new(), sender: None, patience: PATIENCE }
    }

    /// Connects to the bus that listens at the first of the addresses where somebody does.
    pub fn bus(addresses: &[Address]) -> Outcome<Self> {
        let mut connection = Err(Error::other("no address of a local bus is known").into());
        for address in addresses {
            connection = Self::direct(address);
            if connection.is_ok() {
                break;
            }
        }
        let mut connection = connection?;
        connection.call(BUS, "Hello", &Encoder::default())?;
        Ok(connection)
    }

    /// Returns the process that began to listen at the other side, if it can be seen here.
    pub fn peer(&self) -> Option<i32> {
        socket::peer(self.socket.as_fd()).ok().filter(|pid| *pid > 0)
    }

    /// Asks the bus for the signals that match a rule.
    pub fn watch(&mut self, rule: &str) -> Outcome<()> {
        let mut body = Encoder::default();
        body.text(rule);
        self.call(BUS, "AddMatch", &body.with_signature("s")).map(drop)
    }

    /// Takes messages of the one who has this name now, and of nobody else; without that one, the connection is of no
    /// use.
    pub fn only_from(&mut self, service: &str) -> Outcome<()> {
        self.watch(&format!("type='signal',sender='{}',member='{LEFT}',arg0='{service}'", BUS.service))?;
        let mut body = Encoder::default();
        body.text(service);
        let answer = self.call(BUS, "GetNameOwner", &body.with_signature("s"))?;
        self.sender = Some(answer.body().text()?);
        self.signals.retain(|signal| signal.sender == self.sender);
        Ok(())
    }

    /// Calls a method and returns its answer.
    pub fn call(&mut self, object: Object<'_>, method: &str, body: &Encoder) -> Outcome<Message> {
        self.serial += 1;
        let serial = self.serial;
        let call = wire::call(serial, object, method, body);
        self.socket.write_all(&call).map_err(|err| Failure::of(err).context(format!("call {method}")))?;
        let answer = self.wait(method, |message| {
            matches!(message.kind, Kind::Return | Kind::Error) && message.answers == Some(serial)
        })?;
        if answer.kind == Kind::Error {
            let text = answer.body().text().unwrap_or_else(|_| "no reason given".to_owned());
            return Err(match answer.error_name.unwrap_or_default() {
                name if name == NO_REPLY => Failure::Closed(Error::other(format!("call {method}: {text}"))),
                name => Failure::Refused { name, text },
            });
        }
        Ok(answer)
    }

    /// Waits for a signal that `is_it` takes for the one.
    pub fn signal(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Outcome<Message> {
        match self.signals.iter().position(&is_it) {
            Some(there) => Ok(self.signals.swap_remove(there)),
            None => self.wait(what, |message| message.kind == Kind::Signal && is_it(message)),
        }
    }

    /// Reads messages until the one that is waited for, and keeps the signals among the others.
    fn wait(&mut self, what: &str, is_it: impl Fn(&Message) -> bool) -> Outcome<Message> {
        let until = Instant::now() + self.patience;
        loop {
            let message = self.receive(until).map_err(|failure| failure.context(format!("wait for {what}")))?;
            if self.sender.is_some() && message.sender != self.sender {
                let is_of_bus = message.sender.as_deref() == Some(BUS.service);
                match message.kind {
                    Kind::Signal if is_of_bus && message.member.as_deref() == Some(LEFT) => {
                        let left = Error::other(format!("wait for {what}: the service has left the bus"));
                        return Err(Failure::Closed(left));
                    }
                    // The bus answers in the place of one who has left.
                    Kind::Return | Kind::Error if is_of_bus => {}
                    _ => continue,
                }
            }
            if is_it(&message) {
                return Ok(message);
            }
            if message.kind == Kind::Signal {
                self.signals.push(message);
            }
        }
    }

    /// Reads the next message of a kind that we know; others are to be passed over.
    fn receive(&mut self, until: Instant) -> Outcome<Message> {
        loop {
            while self.unread.len() < Start::SIZE {
                self.read(until)?;
            }
            let start = Start::parse(&self.unread)?;
            if start.total > LONGEST {
                return Err(Error::other(format!("D-Bus message of {} bytes", start.total)).into());
            }
            while self.unread.len() < start.total {
                self.read(until)?;
            }
            let rest = self.unread.split_off(start.total);
            let bytes = std::mem::replace(&mut self.unread, rest);
            if start.kind != Kind::Other {
                return Ok(Message::parse(&start, bytes)?);
            }
        }
    }

    /// Reads what there is, or waits for it.
    fn read(&mut self, until: Instant) -> Outcome<()> {
        let mut part = [0; 4096];
        let left = until.saturating_duration_since(Instant::now());
        let result = match left {
            Duration::ZERO => Err(ErrorKind::TimedOut.into()),
            left => self.socket.set_read_timeout(Some(left)).and_then(|()| self.socket.read(&mut part)),
        };
        match result {
            Ok(0) => return Err(Failure::of(ErrorKind::ConnectionReset.into())),
            Ok(len) => self.unread.extend_from_slice(&part[..len]),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) => return Err(Failure::of(err)),
        }
        Ok(())
    }

    /// Says who we are: whoever the socket's credentials say. A number would be another one there if this is a user
    /// namespace.
    fn authenticate(&mut self) -> Outcome<()> {
        let until = Instant::now() + self.patience;
        let greeting = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
        self.socket.write_all(greeting).map_err(Failure::of)?;
        loop {
            match self.line(until)? {
                line if line.starts_with("OK ") => return Ok(()),
                line if line.trim_end() == "DATA" => {}
                line => return Err(Error::other(format!("authentication refused: {line}")).into()),
            }
        }
    }

    fn line(&mut self, until: Instant) -> Outcome<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\r\n") {
                let rest = self.unread.split_off(end + 2);
                let line = std::mem::replace(&mut self.unread, rest);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.unread.len() > LONGEST_LINE {
                return Err(Error::other("authentication: a line without an end").into());
            }
            self.read(until)?;
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
