//! `kill`: a signal to the container's init process.

use super::{Global, matching, root};
use anyhow::{Result, bail};
use clap::Args;
use nix::sys::signal::Signal;
use stasis::ErrorKind;
use stasis::container::Container;

/// Arguments of `kill`.
#[derive(Args, Debug)]
#[command(after_help = "The signal is a number or a name, with or without SIG, in any case.")]
pub struct KillArgs {
    /// succeed too when the container is not running
    #[arg(long, short)]
    pub all: bool,
    /// take the name for a regular expression, and kill every container that it finds
    #[arg(long, short)]
    pub regex: bool,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
    /// what to send
    #[arg(value_name = "signal")]
    pub signal: Option<String>,
}

/// Sends a signal to a container, or to several.
pub fn run(args: &KillArgs, global: &Global) -> Result<u8> {
    let root = root::select(global)?;
    let kill = |id: &str| -> Result<()> {
        let container = Container::find(&root.path, id)?;
        match container.kill(number(args.signal.as_deref().unwrap_or("SIGTERM"))?) {
            Err(err) if args.all && err.kind() == ErrorKind::WrongStatus => Ok(()),
            sent => Ok(sent?),
        }
    };
    if args.regex {
        matching::each(&root, &args.id, kill)?
    } else {
        kill(&args.id)?
    }
    Ok(0)
}

/// Reads a signal: a number, or a name with or without `SIG`, in any case.
fn number(text: &str) -> Result<i32> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let number = match name {
        "IOT" => Some(libc::SIGIOT),
        "CLD" => Some(libc::SIGCHLD),
        "POLL" => Some(libc::SIGPOLL),
        _ => format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32).or_else(|| real_time(name)),
    };
    match number {
        Some(number) => Ok(number),
        None => bail!("unknown signal {text:?}"),
    }
}

/// Reads `RTMIN`, `RTMIN+n`, `RTMAX` and `RTMAX-n`.
fn real_time(name: &str) -> Option<i32> {
    let (first, last) = (libc::SIGRTMIN(), libc::SIGRTMAX());
    let offset = |rest: &str, sign| match rest.strip_prefix(sign) {
        Some(digits) => digits.parse::<i32>().ok(),
        None => rest.is_empty().then_some(0),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => first.checked_add(offset(rest, '+')?)?,
        (_, Some(rest)) => last.checked_sub(offset(rest, '-')?)?,
        _ => return None,
    };
    (first..=last).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_spelling() {
        for (text, expected) in [
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("term", 15),
            ("SIGIOT", 6),
            ("rtmin+3", libc::SIGRTMIN() + 3),
            ("SIGRTMAX-14", libc::SIGRTMAX() - 14),
            ("SIGRTMAX", libc::SIGRTMAX()),
        ] {
            assert_eq!(number(text).unwrap(), expected, "{text}");
        }
        for text in ["", "SIG", "FOO", "RTMIN+99", "RTMAX+1", "RTMIN-1", "9x"] {
            assert_eq!(number(text).unwrap_err().to_string(), format!("unknown signal {text:?}"));
        }
    }
}
