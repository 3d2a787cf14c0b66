//! How the inside says what failed: a step, an index and an error number; the words are made outside.

use crate::plan::step::{Failure, Step};
use crate::sys::{self, Errno};

/// The result of a step.
pub type Result<T> = std::result::Result<T, Failure>;

/// Says at which step a system call failed.
pub trait At<T> {
    /// At a step that happens once.
    fn at(self, step: Step) -> Result<T>;
    /// At a step that happens for each of the plan's objects, for number `index`.
    fn at_nth(self, step: Step, index: usize) -> Result<T>;
}

impl<T> At<T> for sys::Result<T> {
    fn at(self, step: Step) -> Result<T> {
        self.at_nth(step, 0)
    }

    fn at_nth(self, step: Step, index: usize) -> Result<T> {
        self.map_err(|errno| failure(step, index, errno))
    }
}

/// Returns the failure of a step.
pub fn failure(step: Step, index: usize, errno: Errno) -> Failure {
    Failure { step, index: u16::try_from(index).unwrap_or(u16::MAX), errno: errno as i32 }
}
