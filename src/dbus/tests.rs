//! A service of the tests' own at the other end of a socket, and what a connection makes of what it says.

#![allow(clippy::disallowed_methods, reason = "threads: the other end of a socket, which forks nothing")]

use super::wire::tests::other;
use super::*;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// Who is called by the tests.
pub const OBJECT: Object<'static> = Object { service: "a.b", path: "/a", interface: "c.d" };

/// The service's side of a connection.
pub struct Peer {
    connection: Connection,
}

impl Peer {
    fn accept(listener: &UnixListener) -> Self {
        let (socket, _) = listener.accept().unwrap();
        let mut connection = Connection::new(socket);
        let until = Instant::now() + PATIENCE;
        while connection.line(until).unwrap() != "BEGIN" {}
        let mut peer = Self { connection };
        peer.send(b"DATA\r\nOK 0123\r\n");
        peer
    }

    pub fn send(&mut self, bytes: &[u8]) {
        // Whoever is gone does not listen.
        let _gone = self.connection.socket.write_all(bytes);
    }

    /// Waits for a call: its number, and the method.
    pub fn called(&mut self) -> Option<(u32, String)> {
        let until = Instant::now() + PATIENCE;
        while self.connection.unread.len() < Start::SIZE {
            self.connection.read(until).ok()?;
        }
        let serial = u32::from_ne_bytes(self.connection.unread[8..12].try_into().unwrap());
        let message = self.connection.receive(until).ok()?;
        Some((serial, message.member.unwrap()))
    }

    /// Answers a call with a text.
    pub fn answer(&mut self, serial: u32, text: &str) {
        let mut body = Encoder::default();
        body.text(text);
        self.send(&other(Kind::Return, Some(serial), [""; 2], &body.with_signature("s")));
    }

    /// Refuses a call.
    pub fn refuse(&mut self, serial: u32, name: &str) {
        let mut body = Encoder::default();
        body.text("no");
        self.send(&other(Kind::Error, Some(serial), [name, ""], &body.with_signature("s")));
    }

    /// Sends a signal as `sender`: number, path of a job, unit, result.
    pub fn job_removed(&mut self, sender: &str, job: &str, result: &str) {
        let mut body = Encoder::default();
        body.number('u', 7);
        for text in [job, "a.scope", result] {
            body.text(text);
        }
        self.send(&other(Kind::Signal, None, ["JobRemoved", sender], &body.with_signature("uoss")));
    }
}

/// A service that deals with one connection after the other, each by a function of its own.
pub struct Service {
    dir: tempfile::TempDir,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    pub fn new(connections: Vec<fn(&mut Peer)>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let serve = move || connections.into_iter().for_each(|serve| serve(&mut Peer::accept(&listener)));
        Self { dir, thread: Some(std::thread::spawn(serve)) }
    }

    pub fn address(&self) -> Address {
        Address::Path(self.dir.path().join("socket"))
    }

    /// Waits for the end of the last connection, with what was wrong on that side.
    pub fn ended(mut self) {
        self.thread.take().unwrap().join().unwrap();
    }
}

fn job(message: &Message) -> Option<String> {
    let mut body = message.body();
    (body.uint32().ok()?, body.text().ok()).1
}

#[test]
fn signals_of_others_and_unknown_messages_are_passed_over() {
    let service = Service::new(vec![|peer| {
        let (hello, method) = peer.called().unwrap();
        assert_eq!(method, "Hello");
        // Before the owner is known.
        peer.job_removed(":1.66", "/job/forged", "done");
        peer.answer(hello, ":1.9");
        let (watch, _) = peer.called().unwrap();
        peer.answer(watch, "");
        let (owner, _) = peer.called().unwrap();
        let mut unknown = other(Kind::Other, Some(owner), [""; 2], &Encoder::default());
        unknown[1] = 9;
        peer.send(&unknown);
        // A message of another kind may say that it answers something.
        peer.send(&other(Kind::Signal, Some(owner), ["Forged", ":1.66"], &Encoder::default()));
        peer.send(&other(Kind::Call, Some(owner), ["Forged", ":1.66"], &Encoder::default()));
        peer.answer(owner, ":1.1");
        peer.job_removed(":1.66", "/job/forged too", "done");
        peer.job_removed(":1.1", "/job/real", "done");
        peer.send(&other(Kind::Signal, None, [LEFT, ":1.66"], &Encoder::default()));
        peer.send(&other(Kind::Signal, None, [LEFT, BUS.service], &Encoder::default()));
        let (serial, _) = peer.called().unwrap();
        peer.send(&other(Kind::Error, Some(serial), ["a.b.Forged", ":1.66"], &Encoder::default()));
        peer.send(&other(Kind::Error, Some(serial), [NO_REPLY, BUS.service], &Encoder::default()));
    }]);
    let nobody = Address::Path(PathBuf::from("/nonexistent/socket"));
    let mut bus = Connection::bus(&[nobody, service.address()]).unwrap();
    bus.only_from("a.b").unwrap();
    let signal = bus.signal("a job", |message| job(message).is_some()).unwrap();
    assert_eq!(job(&signal).as_deref(), Some("/job/real"));
    let left = bus.signal("a job", |message| job(message).is_some()).unwrap_err();
    assert!(left.is_closed(), "{left:?}");
    let unanswered = bus.call(OBJECT, "Do", &Encoder::default()).unwrap_err();
    assert!(unanswered.is_closed(), "{unanswered:?}");
    service.ended();
}

#[test]
fn a_connection_that_was_closed_is_told_from_a_refusal() {
    let service = Service::new(vec![|peer| {
        let (serial, _) = peer.called().unwrap();
        peer.refuse(serial, "a.b.No");
        peer.called().unwrap();
    }]);
    let mut connection = Connection::direct(&service.address()).unwrap();
    let mut call = || connection.call(OBJECT, "Do", &Encoder::default()).unwrap_err();
    let refused = call();
    assert!(matches!(&refused, Failure::Refused { name, text } if name == "a.b.No" && text == "no"), "{refused:?}");
    for _ in 0..2 {
        let closed = call();
        assert!(closed.is_closed(), "{closed:?}");
    }
    service.ended();
}

#[test]
fn a_wait_has_an_end_whatever_comes_meanwhile() {
    let service = Service::new(vec![|peer| {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(600) {
            peer.job_removed("", "/job/other", "done");
            std::thread::sleep(Duration::from_millis(20));
        }
    }]);
    let mut connection = Connection::direct(&service.address()).unwrap();
    connection.patience = Duration::from_millis(200);
    let start = Instant::now();
    let err = connection.signal("nothing", |_| false).unwrap_err().into_error().to_string();
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    assert_eq!(err, "wait for nothing: timed out");
    service.ended();
}

#[test]
fn a_line_has_an_end() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let writer = std::thread::spawn(move || {
        let mut socket = listener.accept().unwrap().0;
        // It is closed at some point.
        let _closed = (0..64).try_for_each(|_| socket.write_all(&[b'x'; 4096]));
    });
    let err = Connection::direct(&Address::Path(path)).unwrap_err().into_error().to_string();
    assert!(err.ends_with("authentication: a line without an end"), "{err}");
    writer.join().unwrap();
}

#[test]
fn an_abstract_name_is_an_address_too() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    let name = format!("stasis-test-{}", std::process::id());
    let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let server = std::thread::spawn(move || drop(Peer::accept(&listener)));
    let [address] = &Address::list(&format!("unix:abstract={name}"))[..] else { panic!("no address") };
    Connection::direct(address).unwrap();
    server.join().unwrap();
}
