//! Arrays of C strings as execve(2) takes them: made before the clone, used after it.

use std::ffi::{CString, c_char};

/// Room for the string that is added after the clone: `HOME=` and a path.
const SPARE: usize = nix::libc::PATH_MAX as usize + 8;

/// A null-terminated array of C strings, with room for one more.
#[derive(Debug)]
pub struct CStringArray {
    strings: Vec<CString>,
    pointers: Vec<*const c_char>,
    spare: Vec<u8>,
}

impl CStringArray {
    /// Builds the array.
    pub fn new(strings: Vec<CString>) -> Self {
        let mut pointers = Vec::with_capacity(strings.len() + 2);
        pointers.extend(strings.iter().map(|s| s.as_ptr()));
        pointers.push(std::ptr::null());
        Self { strings, pointers, spare: Vec::new() }
    }

    /// Makes room for [`push_into_spare`](Self::push_into_spare).
    #[must_use]
    pub fn with_spare(mut self) -> Self {
        self.spare.reserve_exact(SPARE);
        self
    }

    /// Returns the strings that the array was built from.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// Returns the array; its last element is null, the others point to C strings that live as long as `self`.
    pub fn pointers(&self) -> &[*const c_char] {
        &self.pointers
    }

    /// Adds the string that `parts` make together, once, without allocating; says whether there was room.
    pub fn push_into_spare(&mut self, parts: &[&[u8]]) -> bool {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let room = self.spare.is_empty() && len < self.spare.capacity();
        if !room || parts.iter().any(|part| part.contains(&0)) {
            return false;
        }
        for part in parts {
            self.spare.extend_from_slice(part);
        }
        self.spare.push(0);
        self.pointers.pop();
        self.pointers.push(self.spare.as_ptr().cast());
        self.pointers.push(std::ptr::null());
        true
    }
}

impl Default for CStringArray {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_string_fits_and_only_one() {
        let mut array = CStringArray::new(vec![c"A=1".into()]).with_spare();
        assert_eq!(array.pointers().len(), 2);
        assert!(array.push_into_spare(&[b"HOME=", b"/root"]));
        assert_eq!(array.pointers().len(), 3);
        assert!(array.pointers()[2].is_null());
        assert!(!array.push_into_spare(&[b"B=2"]));
    }
}
