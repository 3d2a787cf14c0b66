//! Files on file systems that others write to: CRIU insists on the size that an open file had when it was dumped.

use super::image::{Message, Reader};
use super::streams::{ENTRY_REGULAR, FILES, REGULAR_NAME, REGULAR_SIZE};
use crate::error::Result;
use std::path::Path;

/// Writes the image of open files into `work` without the sizes of those that are below one of the directories `below`,
/// as a container sees them. CRIU then takes them as it finds them.
pub fn forget_sizes(images: &Path, work: &Path, below: &[String]) -> Result<()> {
    let Some(entries) = Reader::open_if_there(&images.join(FILES))? else { return Ok(()) };
    let mut changed = entries.writer();
    for mut entry in entries.messages()? {
        if let Some(mut file) = entry.message(ENTRY_REGULAR).filter(|file| is_below(file, below)) {
            file.remove(REGULAR_SIZE);
            entry.set_message(ENTRY_REGULAR, &file);
        }
        changed.message(&entry);
    }
    changed.save(&work.join(FILES))
}

fn is_below(file: &Message, directories: &[String]) -> bool {
    let name = file.text(REGULAR_NAME).unwrap_or_default();
    directories.iter().any(|directory| Path::new(&name).starts_with(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_go_where_others_write() {
        let (images, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        // The magic numbers, and nothing else.
        std::fs::write(images.path().join(FILES), 0x5456_4319_u64.to_le_bytes()).unwrap();
        let mut all = Reader::open(&images.path().join(FILES)).unwrap().writer();
        for name in ["/dev/shm/log", "/dev/shmlog", "/srv/log"] {
            let (mut entry, mut file) = (Message::default(), Message::default());
            file.set_text(REGULAR_NAME, name);
            file.set_number(REGULAR_SIZE, 7);
            entry.set_message(ENTRY_REGULAR, &file);
            all.message(&entry);
        }
        all.save(&images.path().join(FILES)).unwrap();
        let below = ["/dev/shm".to_owned()];
        forget_sizes(work.path(), work.path(), &below).unwrap();
        assert!(!work.path().join(FILES).exists());
        forget_sizes(images.path(), work.path(), &below).unwrap();
        let entries = Reader::open(&work.path().join(FILES)).unwrap().messages().unwrap();
        let sizes = entries.iter().map(|entry| entry.message(ENTRY_REGULAR).unwrap().number(REGULAR_SIZE));
        assert_eq!(sizes.collect::<Vec<_>>(), [None, Some(7), Some(7)]);
    }
}
