//! The one error type of the library: what kind of failure, and one line of words.
//!
//! The kernel-facing code in `sys` returns a bare [`Errno`]; the first caller that knows the object adds the words
//! (`mount tmpfs on /dev: operation not permitted`), every caller above may put its own attempt in front of them.
//! The text is lower case, has no full stop and stays on one line: clients match phrases in it.

use nix::errno::Errno;
use std::fmt;

/// The result of every fallible operation outside `sys`.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure an [`Error`] is, for callers that act on it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The container or a file that was named is not there.
    NotFound,
    /// A container with that id is there already.
    AlreadyExists,
    /// The configuration, an argument or an option asks for something that cannot be.
    InvalidSpec,
    /// What was noted of a container cannot be read.
    Damaged,
    /// Another runtime made the container.
    Foreign,
    /// The container's status does not allow the operation.
    WrongStatus,
    /// CRIU refused or failed; its log has more.
    Criu,
    /// The container's init failed before it could execute its program.
    Init,
    /// The kernel refused, with this error number.
    System(Errno),
    /// Anything else.
    Other,
}

/// A failure: its kind and the chain of attempts that led to it, outermost first.
#[derive(Clone, Eq, PartialEq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
}

impl Error {
    /// Returns an error of `kind` that says `text`.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// Returns an error that says the configuration or an argument is wrong.
    pub fn invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidSpec, text)
    }

    /// Returns an error of no particular kind.
    pub fn other(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Other, text)
    }

    /// Returns the error of a system call that was attempted as `attempt` says.
    pub fn system(attempt: impl fmt::Display, errno: Errno) -> Self {
        Self::new(ErrorKind::System(errno), format!("{attempt}: {}", describe(errno)))
    }

    /// Returns what kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Puts the attempt that this failure ended in front of it.
    #[must_use]
    pub fn context(self, attempt: impl fmt::Display) -> Self {
        Self { kind: self.kind, text: format!("{attempt}: {}", self.text) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.text, self.kind)
    }
}

impl std::error::Error for Error {}

/// Adds the words of an attempt to a failure that has none, or too few.
pub trait Context<T> {
    /// Says what was attempted when this failed; `attempt` is called for failures only.
    fn context<D: fmt::Display>(self, attempt: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context<D: fmt::Display>(self, attempt: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|errno| Error::system(attempt(), errno))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context<D: fmt::Display>(self, attempt: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| match err.raw_os_error() {
            Some(number) => Error::system(attempt(), Errno::from_raw(number)),
            None => Error::other(format!("{}: {err}", attempt())),
        })
    }
}

impl<T> Context<T> for Result<T> {
    fn context<D: fmt::Display>(self, attempt: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|err| err.context(attempt()))
    }
}

/// Returns the kernel's words for `errno` as runc prints them: `operation not permitted`.
pub fn describe(errno: Errno) -> String {
    // The C library's words, which are Go's, with "(os error 1)" behind them; nix has words of its own.
    let words = std::io::Error::from(errno).to_string();
    let words = words.rsplit_once(" (os error").map_or(words.as_str(), |(words, _)| words);
    // "Operation" becomes "operation", but "RFS specific error" stays.
    let mut rest = words.chars();
    match (rest.next(), words.chars().nth(1)) {
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(rest).collect(),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_clients_match() {
        assert_eq!(describe(Errno::EPERM), "operation not permitted");
        assert_eq!(describe(Errno::ENOENT), "no such file or directory");
        assert_eq!(describe(Errno::EACCES), "permission denied");
        assert_eq!(describe(Errno::ESRCH), "no such process");
        assert_eq!(describe(Errno::ELOOP), "too many levels of symbolic links");
    }

    #[test]
    fn attempts_stand_before_their_cause() {
        let failed: std::result::Result<(), Errno> = Err(Errno::EPERM);
        let err = failed.context(|| "mount tmpfs on /dev").context(|| "create c1").unwrap_err();
        assert_eq!(err.to_string(), "create c1: mount tmpfs on /dev: operation not permitted");
        assert_eq!(err.kind(), ErrorKind::System(Errno::EPERM));
    }
}
