//! Terminals: the socket that receives a container's, and one of the test's own.

use super::Bundle;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A console socket, as container engines offer it.
pub struct Console {
    listener: UnixListener,
    path: PathBuf,
}

impl Console {
    /// Listens in the bundle.
    pub fn listen(bundle: &Bundle) -> Self {
        let path = bundle.path().join("console.sock");
        Self { listener: UnixListener::bind(&path).unwrap(), path }
    }

    /// Returns the socket's path.
    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Receives the descriptor that was sent, and the message beside it.
    pub fn receive(&self) -> (String, OwnedFd) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut message = [0; 4096];
        let received = stasis::sys::socket::receive(stream.as_fd(), &mut message).unwrap();
        let name = String::from_utf8_lossy(&message[..received.len]).into_owned();
        (name, received.fd.expect("a descriptor"))
    }

    /// Takes a connection and ends it.
    pub fn hang_up(&self) {
        drop(self.listener.accept().unwrap());
    }

    /// Receives a terminal.
    pub fn terminal(&self) -> File {
        self.receive().1.into()
    }
}

/// Reads from a terminal until `part` was there; returns all that was.
pub fn read_until(terminal: &mut File, part: &str) -> String {
    let (mut all, start) = (String::new(), Instant::now());
    let mut bytes = [0; 4096];
    while !all.contains(part) {
        match terminal.read(&mut bytes) {
            Ok(count) if count > 0 => all.push_str(&String::from_utf8_lossy(&bytes[..count])),
            // EIO: nobody has the other end open, for now or any more.
            Ok(_) => panic!("end of file after {all:?}, without {part:?}"),
            Err(err) if err.kind() == ErrorKind::Interrupted => {}
            Err(err) if start.elapsed() > Duration::from_secs(5) => panic!("{err} after {all:?}, without {part:?}"),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    all
}

/// Types a line.
pub fn type_line(terminal: &mut File, line: &str) {
    terminal.write_all(line.as_bytes()).unwrap();
    terminal.write_all(b"\n").unwrap();
}

/// Says whether there is something at a path, without following it.
pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
