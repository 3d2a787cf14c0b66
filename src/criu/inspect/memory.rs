//! How much memory an image holds: the page maps, and the files with the pages themselves, of which only the length is
//! looked at.

use super::directory::Directory;
use crate::criu::image::Message;
use crate::error::Result;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What becomes of a run of pages (`flags` of a page map).
const IN_PARENT: u64 = 1;
const LAZY: u64 = 2;
const PRESENT: u64 = 4;

/// Mappings of memory that is shared, and of a file without a file system (`status` of a mapping).
const ANONYMOUS_SHARED: u64 = 1 << 8;
const MEMFD: u64 = 1 << 14;

/// The files without a file system; what processes share anonymously is one of them, since CRIU 4.
const MEMFDS: &str = "memfd.img";

/// An amount of memory.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// How many pages are in this image.
    pub pages: u64,
    /// How many bytes these are.
    pub bytes: u64,
    /// How many pages are in the images of an earlier pre-dump.
    pub parent_pages: u64,
    /// How many pages are neither here nor there, but to be fetched from where the processes were.
    pub lazy_pages: u64,
}

impl Memory {
    /// Adds another amount.
    pub fn add(&mut self, other: &Self) {
        self.pages = self.pages.saturating_add(other.pages);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.parent_pages = self.parent_pages.saturating_add(other.parent_pages);
        self.lazy_pages = self.lazy_pages.saturating_add(other.lazy_pages);
    }
}

/// Memory that is not one process's alone.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shared {
    /// How many regions there are: shared mappings, System V segments, files without a file system.
    pub regions: u64,
    /// How much they hold.
    #[serde(flatten)]
    pub memory: Memory,
}

/// The page maps of an image while they are read.
#[derive(Debug)]
pub struct PageMaps {
    page_size: u64,
    /// How many pages each file of pages should have.
    expected: BTreeMap<u64, u64>,
    /// The page maps that need the parent's.
    inherited: Vec<String>,
}

impl PageMaps {
    /// Begins with none.
    pub fn new(page_size: u64) -> Self {
        Self { page_size, expected: BTreeMap::new(), inherited: Vec::new() }
    }

    /// Reads the page map of a process.
    pub fn of_process(&mut self, images: &mut Directory, pid: u64) -> Result<Memory> {
        let name = format!("pagemap-{pid}.img");
        let messages = images.needed(&name)?;
        Ok(self.take(name, messages))
    }

    /// Reads the page maps of all shared memory: it is told by their names which there are.
    pub fn of_shared(&mut self, images: &Directory) -> Result<Shared> {
        let mut shared = Shared::default();
        let entries = std::fs::read_dir(images.path()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.retain(|name| name.starts_with("pagemap-shmem-") && name.ends_with(".img"));
        names.sort_unstable();
        for name in names {
            let messages = images.messages(&name)?;
            shared.regions += 1;
            shared.memory.add(&self.take(name, messages));
        }
        Ok(shared)
    }

    fn take(&mut self, name: String, messages: Vec<Message>) -> Memory {
        let mut messages = messages.into_iter();
        let file = messages.next().and_then(|head| head.number(1)).unwrap_or(0);
        let mut memory = Memory::default();
        for run in messages {
            let pages = run.number(5).or(run.number(2)).unwrap_or(0);
            let flags = match run.number(4) {
                Some(flags) => flags,
                // CRIU before 2.12 knew only these two.
                None if run.flag(3) => IN_PARENT,
                None => PRESENT,
            };
            let place = match flags {
                _ if flags & PRESENT != 0 => &mut memory.pages,
                _ if flags & IN_PARENT != 0 => &mut memory.parent_pages,
                _ if flags & LAZY != 0 => &mut memory.lazy_pages,
                _ => continue,
            };
            *place = place.saturating_add(pages);
        }
        memory.bytes = memory.pages.saturating_mul(self.page_size);
        let expected = self.expected.entry(file).or_default();
        *expected = expected.saturating_add(memory.pages);
        if memory.parent_pages > 0 {
            self.inherited.push(name);
        }
        memory
    }

    /// Notes files of pages that are missing or have another length than the page maps say, here and in the parents.
    pub fn check(&self, images: &mut Directory, parents: &[PathBuf]) -> Result<()> {
        self.check_pages(images, "")?;
        let mut inherited = self.inherited.clone();
        for (depth, parent) in parents.iter().enumerate() {
            if inherited.is_empty() {
                break;
            }
            let mut theirs = PageMaps::new(self.page_size);
            let mut earlier = Directory::open(parent)?;
            for name in inherited {
                let messages = earlier.needed(&name)?;
                theirs.take(name, messages);
            }
            let prefix = "parent/".repeat(depth + 1);
            theirs.check_pages(&mut earlier, &prefix)?;
            let (missing, damaged) = earlier.flaws();
            missing.into_iter().for_each(|name| images.need(format!("{prefix}{name}")));
            damaged.into_iter().for_each(|what| images.damaged(what));
            inherited = theirs.inherited;
        }
        if parents.is_empty() && !self.inherited.is_empty() {
            images.need("parent".to_owned());
        }
        Ok(())
    }

    fn check_pages(&self, images: &mut Directory, prefix: &str) -> Result<()> {
        for (file, pages) in &self.expected {
            let (name, bytes) = (format!("pages-{file}.img"), pages.saturating_mul(self.page_size));
            match images.size(&name) {
                None if *pages > 0 => images.need(name),
                Some(size) if size != bytes => {
                    images.damaged(format!("{prefix}{name} has {size} bytes instead of {bytes}"));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Notes the images of memory that a process shares, of which its mappings tell.
pub fn need_mapped(images: &mut Directory, mappings: &[Message]) {
    for mapping in mappings {
        let is = |kind| mapping.number(7).is_some_and(|status| status & kind != 0);
        if is(ANONYMOUS_SHARED) {
            images.need(shared_map(mapping.number(4).unwrap_or(0)));
        }
        if is(MEMFD) {
            images.need(MEMFDS.to_owned());
        }
    }
}

/// Notes the images of the content of files without a file system; `open` says that some are open.
pub fn need_memfds(images: &mut Directory, open: bool) -> Result<()> {
    if open {
        images.need(MEMFDS.to_owned());
    }
    // An empty one has no content.
    for file in images.messages(MEMFDS)?.iter().filter(|file| file.number(4).is_some_and(|size| size > 0)) {
        images.need(shared_map(file.number(5).unwrap_or(0)));
    }
    Ok(())
}

/// Returns the name of the page map of shared memory.
pub fn shared_map(id: u64) -> String {
    format!("pagemap-shmem-{id}.img")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::criu::inspect::tests::{TestImages, message};

    fn run(pages: u64, flags: u64) -> Message {
        message(&[(1, 0x1000), (2, 1), (4, flags), (5, pages)])
    }

    fn directory(images: &TestImages) -> Directory {
        Directory::open(images.path()).unwrap()
    }

    #[test]
    fn pages_are_counted_by_where_they_are() {
        let images = TestImages::new();
        images
            .write("pagemap-7.img", &[message(&[(1, 3)]), run(2, PRESENT), run(3, IN_PARENT), run(4, LAZY), run(5, 7)]);
        images.write("pagemap-8.img", &[message(&[(1, 4)]), message(&[(2, 6)]), message(&[(2, 8), (3, 1)])]);
        let mut maps = PageMaps::new(4096);
        let mut dir = directory(&images);
        let memory = maps.of_process(&mut dir, 7).unwrap();
        assert_eq!(memory, Memory { pages: 7, bytes: 7 * 4096, parent_pages: 3, lazy_pages: 4 });
        let memory = maps.of_process(&mut dir, 8).unwrap();
        assert_eq!(memory, Memory { pages: 6, bytes: 6 * 4096, parent_pages: 8, lazy_pages: 0 });
    }

    #[test]
    fn files_of_pages_have_the_length_that_the_maps_say() {
        let images = TestImages::new();
        for (name, file, pages) in [("1", 1, 2), ("2", 2, 2), ("3", 3, 0), ("4", 4, 1)] {
            images.write(&format!("pagemap-{name}.img"), &[message(&[(1, file)]), run(pages, PRESENT)]);
        }
        images.raw("pages-1.img", &[0; 8192]);
        images.raw("pages-2.img", &[0; 8191]);
        let mut maps = PageMaps::new(4096);
        let mut dir = directory(&images);
        for pid in 1..5 {
            maps.of_process(&mut dir, pid).unwrap();
        }
        maps.check(&mut dir, &[]).unwrap();
        let (missing, damaged) = dir.flaws();
        assert_eq!(missing, ["pages-4.img"]);
        assert_eq!(damaged, ["pages-2.img has 8191 bytes instead of 8192"]);
    }

    #[test]
    fn what_is_in_the_parent_is_looked_for_there() {
        let images = TestImages::new();
        images.write("pagemap-1.img", &[message(&[(1, 1)]), run(2, IN_PARENT)]);
        let check = |parents: &[PathBuf]| {
            let (mut maps, mut dir) = (PageMaps::new(4096), directory(&images));
            maps.of_process(&mut dir, 1).unwrap();
            maps.check(&mut dir, parents).unwrap();
            dir.flaws()
        };
        assert_eq!(check(&[]).0, ["parent"]);
        let parent = TestImages::new();
        let parents = [parent.path().to_owned()];
        assert_eq!(check(&parents).0, ["parent/pagemap-1.img"]);
        parent.write("pagemap-1.img", &[message(&[(1, 1)]), run(2, PRESENT)]);
        assert_eq!(check(&parents).0, ["parent/pages-1.img"]);
        parent.raw("pages-1.img", &[0; 4096]);
        assert_eq!(check(&parents).1, ["parent/pages-1.img has 4096 bytes instead of 8192"]);
        parent.raw("pages-1.img", &[0; 8192]);
        assert_eq!(check(&parents), (vec![], vec![]));
    }

    #[test]
    fn shared_memory_has_page_maps() {
        let images = TestImages::new();
        let mut dir = directory(&images);
        need_mapped(
            &mut dir,
            &[message(&[(4, 1), (7, 65)]), message(&[(4, 2), (7, 1281)]), message(&[(4, 3), (7, 16513)])],
        );
        images.write("memfd.img", &[message(&[(4, 4096), (5, 6286)]), message(&[(4, 0), (5, 1)])]);
        need_memfds(&mut dir, false).unwrap();
        assert_eq!(dir.flaws().0, ["memfd.img", "pagemap-shmem-2.img", "pagemap-shmem-6286.img"]);
    }

    #[test]
    fn numbers_that_cannot_be_do_no_harm() {
        let images = TestImages::new();
        images.write("pagemap-1.img", &[message(&[(1, 1)]), run(u64::MAX, PRESENT), run(u64::MAX, PRESENT)]);
        let (mut maps, mut dir) = (PageMaps::new(4096), directory(&images));
        assert_eq!(maps.of_process(&mut dir, 1).unwrap().bytes, u64::MAX);
        maps.check(&mut dir, &[]).unwrap();
        assert_eq!(dir.flaws().0, ["pages-1.img"]);
    }
}
