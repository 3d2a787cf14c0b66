//! The undo list of an operation that makes things: whatever is made registers its removal, and a failure at any later
//! point takes everything back, last first.

type Removal<'a> = Box<dyn FnOnce() -> crate::Result<()> + 'a>;

/// Removals, in the order in which things were made.
#[derive(Default)]
pub struct Rollback<'a> {
    removals: Vec<(&'static str, Removal<'a>)>,
}

impl<'a> Rollback<'a> {
    /// Registers how `what`, which has just been made, is removed.
    pub fn add(&mut self, what: &'static str, removal: impl FnOnce() -> crate::Result<()> + 'a) {
        self.removals.push((what, Box::new(removal)));
    }

    /// Keeps everything: the operation has succeeded.
    pub fn disarm(mut self) {
        self.removals.clear();
    }
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        while let Some((what, removal)) = self.removals.pop() {
            if let Err(err) = removal() {
                // The failure that led here is what the caller reports; this one would only hide it.
                log::debug!("could not remove {what} again: {err}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn what_was_made_last_goes_first() {
        let removed = RefCell::new(Vec::new());
        let mut undo = Rollback::default();
        for number in [1, 2] {
            let removed = &removed;
            undo.add("thing", move || {
                removed.borrow_mut().push(number);
                Ok(())
            });
        }
        drop(undo);
        assert_eq!(*removed.borrow(), [2, 1]);
    }

    #[test]
    fn success_keeps_everything() {
        let mut undo = Rollback::default();
        undo.add("directory", || unreachable!());
        undo.disarm();
    }
}
