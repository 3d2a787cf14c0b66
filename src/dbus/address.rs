//! Addresses of buses, as the environment names them (D-Bus specification, "Server Addresses").

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::{self, socket};

/// Where a bus listens: a local socket, since no other transport says who is there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// A socket with a path.
    Path(PathBuf),
    /// A socket with a name that is in no file system.
    Abstract(Vec<u8>),
}

impl Address {
    /// Reads a list of addresses, and leaves out those of other transports.
    pub fn list(text: &str) -> Vec<Self> {
        text.split(';').filter_map(Self::parse).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut keys = text.trim().strip_prefix("unix:")?.split(',').filter_map(|key| key.split_once('='));
        keys.find_map(|(key, value)| match key {
            "path" => Some(Self::Path(OsString::from_vec(unescaped(value)?).into())),
            "abstract" => Some(Self::Abstract(unescaped(value)?)),
            _ => None,
        })
    }

    pub(super) fn connect(&self, limit: Duration) -> sys::Result<OwnedFd> {
        match self {
            Self::Path(path) => socket::connect_within(path, limit),
            Self::Abstract(name) => socket::connect_abstract(name, limit),
        }
    }
}

impl From<&Path> for Address {
    fn from(path: &Path) -> Self {
        Self::Path(path.to_owned())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name)),
        }
    }
}

/// Returns a value with each `%` and two digits as the byte that they are.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    (!bytes.is_empty()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_the_specification_has_them() {
        let path = |path: &str| Address::Path(path.into());
        let cases = [
            ("unix:path=/run/user/1000/bus", vec![path("/run/user/1000/bus")]),
            ("unix:path=/a,guid=0123", vec![path("/a")]),
            ("unix:guid=0123,path=/a", vec![path("/a")]),
            ("unix:abstract=/tmp/dbus-x", vec![Address::Abstract(b"/tmp/dbus-x".to_vec())]),
            ("tcp:host=localhost,port=1;unix:path=/a;unix:path=/b", vec![path("/a"), path("/b")]),
            ("unix:path=/a%20b%2cc", vec![path("/a b,c")]),
            ("unix:path=/a%2;unix:path=/a%zz;unix:path=;unix:tmpdir=/tmp;/a;", vec![]),
        ];
        for (text, expected) in cases {
            assert_eq!(Address::list(text), expected, "{text}");
        }
    }
}
