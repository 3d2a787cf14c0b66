//! Reading the messages of queues, which the kernel only shows to who takes them out: all are taken, and put back in the
//! same order.
//!
//! A child of its own session does this, in memory that it shares with the runtime. Whichever of the two is killed in
//! between, the other still has every message, and puts them back.

use super::reap;
use crate::criu::queues::{HEADER, header, split_message};
use crate::error::{Context, Error, Result};
use crate::sys::clone::{Clone, clone_child, exit_now};
use crate::sys::mqueue::{self, Attributes};
use crate::sys::shared::SharedMemory;
use crate::sys::{self, Errno, process};
use std::os::fd::{AsFd, OwnedFd};

/// What stands at the beginning of a queue's part of the memory: how many messages have been taken out, how many bytes
/// that is, and how many of those have been put back.
const COUNTERS: usize = 3 * size_of::<usize>();

/// A queue, and its part of the memory.
struct Part<'a> {
    queue: &'a OwnedFd,
    start: usize,
    end: usize,
    message_size: usize,
}

/// Returns the messages of queues that nobody else uses meanwhile, each behind its [`header`]. The descriptors are open
/// for both directions, and do not wait.
pub fn messages(queues: &[(&OwnedFd, Attributes)]) -> Result<Vec<Vec<u8>>> {
    let attempt = || "read the message queues";
    let mut parts = Vec::new();
    let mut length = 0;
    for (queue, attributes) in queues {
        let (count, message_size) = (attributes.messages as usize, attributes.message_size as usize);
        let end = length + COUNTERS + count * (HEADER + message_size);
        parts.push(Part { queue, start: length, end, message_size });
        length = end.next_multiple_of(size_of::<usize>());
    }
    if queues.iter().all(|(_, attributes)| attributes.messages == 0) {
        return Ok(vec![Vec::new(); queues.len()]);
    }
    let mut memory = SharedMemory::new(length).context(attempt)?;
    let bytes = memory.bytes();
    let child = clone_child(Clone::default(), || {
        // Whoever ends the runtime with all that is in the foreground of its terminal does not mean the messages.
        let done = process::new_session().and_then(|()| take_and_put_back(&parts, bytes));
        exit_now(done.map_or_else(|errno| errno as i32, |()| 0));
    });
    let outcome = child.context(attempt).and_then(|child| reap(child.pid, attempt));
    if outcome.is_err() {
        take_and_put_back(&parts, memory.bytes()).context(attempt)?;
    }
    let bytes = memory.bytes();
    let mut all = Vec::new();
    for (part, (_, attributes)) in parts.iter().zip(queues) {
        let memory = bytes.get(part.start..part.end).unwrap_or_default();
        if counter(memory, 0) as u64 != attributes.messages {
            return Err(Error::other(format!("{}: somebody else used one meanwhile", attempt())));
        }
        all.push(memory.get(COUNTERS..COUNTERS + counter(memory, 1)).unwrap_or_default().to_vec());
    }
    outcome.map(|()| all)
}

/// Goes on where a call before this one has stopped, if it has. It neither allocates nor fails half way: what has been
/// taken out is put back in any case.
fn take_and_put_back(parts: &[Part<'_>], memory: &mut [u8]) -> sys::Result<()> {
    let mut outcome = Ok(());
    for part in parts {
        let memory = memory.get_mut(part.start..part.end).unwrap_or_default();
        let taken = if counter(memory, 2) == 0 { take(part, memory) } else { Ok(()) };
        outcome = outcome.and(taken).and(put_back(part, memory));
    }
    outcome
}

/// Takes all messages out.
fn take(part: &Part<'_>, memory: &mut [u8]) -> sys::Result<()> {
    loop {
        let at = COUNTERS + counter(memory, 1);
        let (first, last) = (at + HEADER, at + HEADER + part.message_size);
        // More than there were: it is somebody else's turn.
        let Some(room) = memory.get_mut(first..last) else { return Ok(()) };
        let (length, priority) = match mqueue::receive(part.queue.as_fd(), room) {
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        if let Some(place) = memory.get_mut(at..first) {
            place.copy_from_slice(&header(priority, length as u32));
        }
        set_counter(memory, 1, first + length - COUNTERS);
        set_counter(memory, 0, counter(memory, 0) + 1);
    }
}

/// Puts those messages back that have not been yet.
fn put_back(part: &Part<'_>, memory: &mut [u8]) -> sys::Result<()> {
    loop {
        let (done, end) = (counter(memory, 2), counter(memory, 1));
        let rest = memory.get(COUNTERS + done..COUNTERS + end).unwrap_or_default();
        let Some((priority, message, _)) = split_message(rest) else { return Ok(()) };
        let length = message.len();
        match mqueue::send(part.queue.as_fd(), message, priority) {
            Err(Errno::EINTR) => continue,
            other => other?,
        }
        set_counter(memory, 2, done + HEADER + length);
    }
}

fn counter(memory: &[u8], which: usize) -> usize {
    let bytes = memory.get(which * size_of::<usize>()..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| usize::from_ne_bytes(*bytes))
}

fn set_counter(memory: &mut [u8], which: usize, value: usize) {
    if let Some(bytes) = memory.get_mut(which * size_of::<usize>()..).and_then(<[u8]>::first_chunk_mut) {
        *bytes = value.to_ne_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;

    const CAN_HOLD: Attributes = Attributes { max_messages: 5, message_size: 10, messages: 0 };

    /// A queue of the test's own in the namespace that the tests run in, which has no name.
    fn queue(name: &str) -> OwnedFd {
        let name = CString::new(format!("stasis-{}-{name}", std::process::id())).unwrap();
        let made = mqueue::create(&name, 0o600, CAN_HOLD).unwrap();
        mqueue::unlink(&name).unwrap();
        made
    }

    fn fill(queue: &OwnedFd, messages: &[(u32, &str)]) {
        messages.iter().for_each(|(priority, text)| mqueue::send(queue.as_fd(), text.as_bytes(), *priority).unwrap());
    }

    /// Takes everything out of a queue.
    fn empty(queue: &OwnedFd) -> Vec<(u32, String)> {
        let mut all = Vec::new();
        let mut buffer = [0; 10];
        while let Ok((length, priority)) = mqueue::receive(queue.as_fd(), &mut buffer) {
            all.push((priority, String::from_utf8(buffer[..length].to_vec()).unwrap()));
        }
        all
    }

    fn expected(messages: &[(u32, &str)]) -> Vec<(u32, String)> {
        messages.iter().map(|(priority, text)| (*priority, (*text).to_owned())).collect()
    }

    #[test]
    fn messages_are_read_and_stay_in_their_order() {
        let (full, other) = (queue("full"), queue("other"));
        fill(&full, &[(0, "a"), (9, "b"), (0, "c"), (9, ""), (3, "0123456789")]);
        let attributes = |queue: &OwnedFd| mqueue::attributes(queue.as_fd()).unwrap();
        let all = messages(&[(&other, attributes(&other)), (&full, attributes(&full))]).unwrap();
        assert!(all[0].is_empty());
        let mut rest = &all[1][..];
        let mut read = Vec::new();
        while let Some((priority, message, behind)) = split_message(rest) {
            read.push((priority, String::from_utf8(message.to_vec()).unwrap()));
            rest = behind;
        }
        let order = expected(&[(9, "b"), (9, ""), (3, "0123456789"), (0, "a"), (0, "c")]);
        assert_eq!((read, empty(&full), empty(&other)), (order.clone(), order, Vec::new()));
    }

    #[test]
    fn what_was_begun_is_completed_from_wherever_it_stopped() {
        let order = expected(&[(2, "x"), (1, "a"), (1, "b")]);
        for taken in 0..=3 {
            for put_back in 0..=3 {
                let queue = queue("begun");
                let part = Part { queue: &queue, start: 0, end: COUNTERS + 3 * (HEADER + 10), message_size: 10 };
                let mut memory = vec![0; part.end];
                // Up to `taken` messages are taken out, and of all of them up to `put_back` put back.
                fill(&queue, &[(1, "a"), (1, "b"), (2, "x")]);
                let first = COUNTERS + taken * (HEADER + 10);
                take(&part, &mut memory[..first]).unwrap();
                if taken == 3 {
                    for (priority, text) in order.iter().take(put_back) {
                        fill(&queue, &[(*priority, text.as_str())]);
                        let done = counter(&memory, 2) + HEADER + text.len();
                        set_counter(&mut memory, 2, done);
                    }
                }
                take_and_put_back(&[part], &mut memory).unwrap();
                assert_eq!(empty(&queue), order, "{taken} {put_back}");
            }
        }
    }

    #[test]
    fn a_queue_that_somebody_else_uses_is_told() {
        let queue = queue("shared");
        fill(&queue, &[(1, "a")]);
        let before = Attributes { messages: 2, ..CAN_HOLD };
        let words = messages(&[(&queue, before)]).unwrap_err().to_string();
        assert_eq!(words, "read the message queues: somebody else used one meanwhile");
        assert_eq!(empty(&queue), expected(&[(1, "a")]));
    }
}
