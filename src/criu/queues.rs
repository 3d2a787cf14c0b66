//! POSIX message queues in texts and bytes: what the kernel says of them, and how messages are kept.
//!
//! CRIU dumps none, so they are ours to keep: their content in a file beside the images, the rest in the
//! [manifest](super::manifest). How they are found and made is the container's business.

use crate::sys::mountinfo;

/// The file with the messages, in the directory of the images.
pub const ARCHIVE: &str = "stasis-queues.bin";

/// How long what stands before a message is: its priority and its length, of 32 bits each, little-endian.
pub const HEADER: usize = 8;

/// Returns what stands before a message.
pub fn header(priority: u32, length: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let (first, second) = header.split_at_mut(HEADER / 2);
    first.copy_from_slice(&priority.to_le_bytes());
    second.copy_from_slice(&length.to_le_bytes());
    header
}

/// Splits the first message off: its priority, its bytes, and what is behind it.
pub fn split_message(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (priority, rest) = bytes.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (message, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
    Some((u32::from_le_bytes(*priority), message, rest))
}

/// Returns who waits to be notified of a message, from the text that is read from a queue.
pub fn notified(text: &str) -> Option<i32> {
    let pid = text.split_ascii_whitespace().find_map(|word| word.strip_prefix("NOTIFY_PID:"))?;
    pid.parse().ok().filter(|pid| *pid != 0)
}

/// Where something of a file system is mounted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount {
    /// The place.
    pub place: String,
    /// Whether it is the whole file system.
    pub whole: bool,
}

/// Returns where the file system with this device number (major, minor) is mounted, from the text of
/// /proc/PID/mountinfo.
pub fn mounts_of(mountinfo: &str, (major, minor): (u32, u32)) -> Vec<Mount> {
    let device = format!("{major}:{minor}");
    let mounts = mountinfo::parse(mountinfo).filter(|mount| mount.device == device);
    mounts.map(|mount| Mount { whole: mount.root == "/", place: mount.place }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_as_they_were_joined() {
        let mut all = Vec::new();
        for (priority, message) in [(7, &b"a\0b"[..]), (0, b""), (32767, b"last")] {
            all.extend_from_slice(&header(priority, message.len() as u32));
            all.extend_from_slice(message);
        }
        let (priority, message, rest) = split_message(&all).unwrap();
        assert_eq!((priority, message), (7, &b"a\0b"[..]));
        let (priority, message, rest) = split_message(rest).unwrap();
        assert_eq!((priority, message), (0, &b""[..]));
        assert_eq!(split_message(rest).unwrap(), (32767, &b"last"[..], &b""[..]));
        assert_eq!(split_message(&all[..10]), None);
        assert_eq!(split_message(b""), None);
    }

    #[test]
    fn a_queue_tells_who_waits_to_be_notified() {
        let text = |pid| format!("QSIZE:129        NOTIFY:2     SIGNO:0     NOTIFY_PID:{pid:<6}\n");
        assert_eq!(notified(&text(8260)), Some(8260));
        assert_eq!(notified(&text(0)), None);
        assert_eq!(notified(""), None);
    }

    #[test]
    fn a_file_system_is_mounted_where_the_kernel_says() {
        let text = "40 31 0:5 / /proc rw - proc proc rw\n41 31 0:19 / /dev/mq\\040x rw - mqueue mqueue rw\n\
            42 31 0:19 /q /one rw - mqueue mqueue rw\n";
        let mount = |place: &str, whole| Mount { place: place.to_owned(), whole };
        assert_eq!(mounts_of(text, (0, 19)), [mount("/dev/mq x", true), mount("/one", false)]);
        assert_eq!(mounts_of(text, (0, 9)), []);
    }
}
