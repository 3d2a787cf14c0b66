//! The cgroups of an image. A dump takes along what is at and below the cgroup of its processes, in every hierarchy; where
//! they have none of their own, that is the cgroups of everybody.

use super::image::{Message, Reader, Writer};
use crate::error::{Error, ErrorKind, Result};
use std::path::Path;

const IMAGE: &str = "cgroup.img";

/// How many cgroups may be in each other: what an image says of them is not believed.
const DEEPEST: u32 = 256;

/// Returns the image without the cgroups of others, and its name, unless it has none: a restore would make them again,
/// and freeze what was frozen in them. `own` says whether the container has a cgroup of its own now in the hierarchy of
/// a controller.
pub fn without_others(images: &Path, own: impl Fn(&str) -> bool) -> Result<Option<(&'static str, Writer)>> {
    let Some(mut reader) = Reader::open_if_there(&images.join(IMAGE))? else { return Ok(None) };
    let mut writer = reader.writer();
    let Some(mut all) = reader.message()? else { return Ok(None) };
    let changed = leave_out(&mut all, own)?;
    writer.message(&all);
    Ok(changed.then_some((IMAGE, writer)))
}

fn leave_out(all: &mut Message, own: impl Fn(&str) -> bool) -> Result<bool> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let members: Vec<Message> = all.messages(1).iter().flat_map(|set| set.messages(2)).collect();
    let mut changed = false;
    let mut controllers = all.messages(2);
    for controller in &mut controllers {
        let names: Vec<String> = controller.all_bytes(1).into_iter().map(text).collect();
        let is_member = |member: &&Message| names.contains(&member.text(1).unwrap_or_default());
        let used: Vec<String> = members.iter().filter(is_member).filter_map(|member| member.text(2)).collect();
        // It may have one now and have had none.
        if names.iter().any(|name| own(name)) && used.iter().all(|path| path != "/") {
            continue;
        }
        let mut tops = controller.messages(2);
        for top in &mut tops {
            changed |= keep_used(top, Path::new("/"), &used, DEEPEST)?;
        }
        controller.set_messages(2, &tops);
    }
    all.set_messages(2, &controllers);
    Ok(changed)
}

/// Leaves of a directory what the processes are in, without properties: those are the host's. Says whether that is less
/// than there was.
fn keep_used(directory: &mut Message, above: &Path, used: &[String], levels: u32) -> Result<bool> {
    let name = |directory: &Message| directory.text(1).unwrap_or_default();
    let path = above.join(name(directory).trim_start_matches('/'));
    let levels = levels
        .checked_sub(1)
        .ok_or_else(|| Error::new(ErrorKind::Criu, format!("{IMAGE} has more than {DEEPEST} cgroups in each other")))?;
    let children = directory.messages(2);
    let leads_to = |child: &Message| used.iter().any(|used| Path::new(used).starts_with(path.join(name(child))));
    let mut kept: Vec<Message> = children.iter().filter(|child| leads_to(child)).cloned().collect();
    let mut changed = kept.len() < children.len() || !directory.all_bytes(3).is_empty();
    directory.remove(3);
    for child in &mut kept {
        changed |= keep_used(child, &path, used, levels)?;
    }
    directory.set_messages(2, &kept);
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Message {
        let mut message = Message::default();
        message.set_text(1, name);
        message
    }

    fn directory(name: &str, children: &[Message]) -> Message {
        let mut directory = named(name);
        directory.set_messages(2, children);
        directory
    }

    fn names(directory: &Message) -> String {
        let below: Vec<String> = directory.messages(2).iter().map(names).collect();
        format!("{}({})", directory.text(1).unwrap_or_default(), below.join(" "))
    }

    #[test]
    fn others_are_left_out_where_the_container_has_none_of_its_own() {
        let member = |controller: &str, path: &str| {
            let mut member = named(controller);
            member.set_text(2, path);
            member
        };
        let mut set = Message::default();
        set.set_messages(2, &[member("pids", "/c1/inner"), member("", "/a/b")]);
        let others =
            [directory("a", &[directory("b", &[directory("x", &[])]), directory("y", &[])]), directory("z", &[])];
        let unified = directory("", &[directory("", &others)]);
        let pids = directory("pids", &[directory("c1", &[directory("unused", &[])])]);
        let mut all = Message::default();
        all.set_messages(1, &[set]);
        all.set_messages(2, &[pids, unified]);
        let whole = all.clone();
        assert!(!leave_out(&mut all, |_| true).unwrap());
        assert_eq!(all, whole);
        assert!(leave_out(&mut all, |name| name == "pids").unwrap());
        let told: Vec<String> = all.messages(2).iter().map(names).collect();
        assert_eq!(told, ["pids(c1(unused()))", "((a(b())))"]);
        assert!(!leave_out(&mut all, |name| name == "pids").unwrap());
    }

    #[test]
    fn others_are_left_out_where_the_container_had_none_of_its_own() {
        let (mut member, mut set, mut all) = (named(""), Message::default(), Message::default());
        member.set_text(2, "/");
        set.set_messages(2, &[member]);
        all.set_messages(1, &[set]);
        all.set_messages(2, &[directory("", &[directory("", &[directory("a", &[])])])]);
        assert!(leave_out(&mut all, |_| true).unwrap());
        assert_eq!(all.messages(2).iter().map(names).collect::<Vec<_>>(), ["(())"]);
    }

    #[test]
    fn cgroups_that_go_on_for_ever_are_refused() {
        let nested = |depth| (1..depth).fold(directory("", &[]), |inner, _| directory("", &[inner]));
        for (depth, is_refused) in [(DEEPEST, false), (DEEPEST + 1, true)] {
            let (mut set, mut member, mut all) = (Message::default(), named(""), Message::default());
            member.set_text(2, "/");
            set.set_messages(2, &[member]);
            all.set_messages(1, &[set]);
            all.set_messages(2, &[directory("", &[nested(depth)])]);
            assert_eq!(leave_out(&mut all, |_| false).is_err(), is_refused, "{depth}");
        }
    }
}
