//! Lines of /proc/PID/mountinfo (proc_pid_mountinfo(5)).

/// A mount, as its line shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mount<'a> {
    /// Its file system's device number, `MAJOR:MINOR`.
    pub device: &'a str,
    /// Which part of the file system is its root.
    pub root: &'a str,
    /// Where it is.
    pub place: String,
    /// The type of its file system.
    pub fstype: &'a str,
}

/// Reads the lines; what is no mount is passed over.
pub fn parse(text: &str) -> impl Iterator<Item = Mount<'_>> {
    text.lines().filter_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(2);
        let (device, root, place) = (fields.next()?, fields.next()?, unescape(fields.next()?));
        Some(Mount { device, root, place, fstype: filesystem.split(' ').next()? })
    })
}

/// Turns the kernel's `\040` into what it stands for. A place that is not valid UTF-8 stays as it is.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(escaped) => {
                bytes.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_mount() {
        let text = "41 31 0:19 /q /dev/mq\\040x ro shared:3 - mqueue mqueue rw\nno mount\n";
        let mount = Mount { device: "0:19", root: "/q", place: "/dev/mq x".to_owned(), fstype: "mqueue" };
        assert_eq!(parse(text).collect::<Vec<_>>(), [mount]);
        assert_eq!(unescape("a\\"), "a\\");
    }
}
