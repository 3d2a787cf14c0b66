//! Images that tests make up, and what is told of a directory that is none or is cut short.

use super::*;
use crate::criu::manifest::Queue;

/// A directory of images that a test writes.
pub struct TestImages(tempfile::TempDir);

impl TestImages {
    /// Makes an empty one.
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes an image of messages.
    pub fn write(&self, name: &str, messages: &[Message]) {
        self.with_raw(name, &messages.iter().map(|message| (message, &[][..])).collect::<Vec<_>>());
    }

    /// Writes an image of messages with raw bytes behind each.
    pub fn with_raw(&self, name: &str, parts: &[(&Message, &[u8])]) {
        let mut bytes = b"\x19\x43\x56\x54\x01\x02\x03\x04".to_vec();
        for (message, raw) in parts {
            let text = message.bytes();
            bytes.extend_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
            bytes.extend_from_slice(&text);
            bytes.extend_from_slice(raw);
        }
        self.raw(name, &bytes);
    }

    pub fn raw(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }
}

/// Returns a message of numbers.
pub fn message(fields: &[(u32, u64)]) -> Message {
    let mut message = Message::default();
    for (field, number) in fields {
        message.set_number(*field, *number);
    }
    message
}

/// Returns a message with another one in a field.
pub fn within(mut message: Message, field: u32, inner: &Message) -> Message {
    message.set_message(field, inner);
    message
}

fn fails(images: &TestImages) -> String {
    inspect(images.path(), 4096).unwrap_err().to_string()
}

#[test]
fn a_directory_without_an_inventory_is_no_image() {
    let images = TestImages::new();
    let words = format!("{} holds no checkpoint: no inventory.img", images.path().display());
    assert_eq!(fails(&images), words);
    images.write("inventory.img", &[]);
    assert_eq!(fails(&images), words);
    assert!(inspect(Path::new("/nonexistent"), 4096).unwrap_err().to_string().contains("no such file or directory"));
}

#[test]
fn a_file_that_is_cut_short_or_made_up_is_one_line() {
    let images = TestImages::new();
    images.write("inventory.img", &[message(&[(1, 1)])]);
    for bytes in [&b""[..], b"\x19\x43", b"\x19\x43\x56\x54\x01\x02\x03\x04\xff\xff\xff\xff", b"12345678\x01\0\0\0\xff"]
    {
        images.raw("files.img", bytes);
        let words = fails(&images);
        assert!(words.contains(&format!("read {}/files.img: ", images.path().display())), "{words}");
        assert!(!words.contains('\n'), "{words}");
    }
}

#[test]
fn what_an_inventory_alone_leaves_open_is_told() {
    let images = TestImages::new();
    images.write("inventory.img", &[message(&[(1, 2)])]);
    images.raw("dump.log", b"(00.000167) Version: 4.2.1 (gitid 0)\n(00.000174) Running on vm Linux 6.18.44 #1 SMP x\n");
    let image = inspect(images.path(), 4096).unwrap();
    assert_eq!(
        (image.kind, image.image_version, image.missing.as_slice()),
        ("dump", 2, &["files.img".to_owned(), "pstree.img".to_owned()][..])
    );
    assert_eq!((image.criu.as_deref(), image.kernel.as_deref(), image.stasis), (Some("4.2.1"), Some("6.18.44"), None));
    assert!(image.created.is_some());
}

#[test]
fn a_pre_dump_is_told_from_a_dump() {
    let images = TestImages::new();
    images.write("inventory.img", &[message(&[(1, 1), (9, 1)])]);
    images.write("pagemap-1.img", &[message(&[(1, 1)]), message(&[(2, 2), (4, 4)])]);
    images.raw("pages-1.img", &[0; 8192]);
    let image = inspect(images.path(), 4096).unwrap();
    assert_eq!((image.kind, image.memory.pages, image.missing.len()), ("pre-dump", 2, 0));
}

#[test]
fn archives_are_compared_with_the_manifest() {
    let images = TestImages::new();
    images.write("inventory.img", &[message(&[(1, 1)])]);
    let flaws = |archive: &str, content: Option<&[u8]>| {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824".to_owned();
        let tmpfs = Tmpfs { archive: archive.to_owned(), sha256, ..Tmpfs::default() };
        Manifest { tmpfs: vec![tmpfs], ..Manifest::new("c1", "4.2".to_owned(), "shareable") }
            .save(images.path())
            .unwrap();
        if let Some(content) = content {
            images.raw(archive, content);
        }
        let image = inspect(images.path(), 4096).unwrap();
        (image.missing.contains(&archive.to_owned()), image.damaged)
    };
    assert_eq!(flaws("a.tar", None), (true, vec![]));
    assert_eq!(flaws("a.tar", Some(b"hello")), (false, vec![]));
    assert_eq!(flaws("a.tar", Some(b"hellx")).1.len(), 1);
    assert_eq!(flaws("../a.tar", None).1, [r#""../a.tar" in the manifest is not the name of a file"#]);
}

/// Returns every name in a value.
fn names(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(all) => {
            all.iter().flat_map(|(name, value)| std::iter::once(name.clone()).chain(names(value))).collect()
        }
        serde_json::Value::Array(all) => all.iter().flat_map(names).collect(),
        _ => Vec::new(),
    }
}

/// Returns an image that has something of everything.
fn full() -> Image {
    let text = || Some(String::new());
    let file = File { position: Some(0), deleted: true, external: true, ..File::default() };
    let process = Process {
        executable: text(),
        directory: text(),
        uid: Some(0),
        gid: Some(0),
        security_profile: text(),
        files: vec![OpenFile { number: 0, file }],
        ..Process::default()
    };
    let queue = Queue { unlinked: true, keys: vec![String::new()], ..Queue::default() };
    Image {
        created: text(),
        stasis: text(),
        container: text(),
        criu: text(),
        kernel: text(),
        ipc_mode: text(),
        processes: vec![process],
        mounts: vec![Mount { root: text(), external: text(), archive_bytes: Some(0), ..Mount::default() }],
        namespaces: vec![Namespace { kind: "net", scope: "external", external: text(), nested: 0 }],
        cgroups: vec![Cgroup { controllers: String::new(), path: String::new() }],
        security: Security { module: Some("selinux"), ..Security::default() },
        host_files: vec![Stream::default()],
        message_queues: Some(Queues { queues: vec![queue], ..Queues::default() }),
        tmpfs: vec![Tmpfs::default()],
        statistics: Some(DumpStats::default()),
        ..Image::default()
    }
}

#[test]
fn the_json_has_the_names_that_are_documented() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/stasis-inspect-image.8")).unwrap();
    let words: Vec<&str> = page.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let all = names(&serde_json::to_value(full()).unwrap());
    assert!(all.len() > 80, "{all:?}");
    for name in all {
        // Behind an escape that makes it italic, or in the arguments of a macro that does.
        let told = words.iter().any(|word| word.strip_prefix("fI").unwrap_or(word) == name);
        assert!(told, "the man page does not tell about {name}");
    }
}
