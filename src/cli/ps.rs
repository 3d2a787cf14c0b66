//! `ps`: the processes of a container, as pids or as the rows of the host's ps(1).

use super::{Global, output, root};
use anyhow::{Context, Result, bail};
use clap::Args;
use stasis::container::Container;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::process::{Command, Stdio};

/// Arguments of `ps`.
#[derive(Args, Debug)]
#[command(after_help = "The default options for ps are -ef. Options of our own end at the container's name.")]
pub struct PsArgs {
    /// select one of: table or json (default: "table")
    #[arg(long, short, value_name = "format")]
    pub format: Option<String>,
    /// the name of the container
    #[arg(value_name = "container-id")]
    pub id: String,
    /// options for ps(1)
    #[arg(value_name = "ps options")]
    pub options: Vec<OsString>,
}

/// Prints the processes of a container.
pub fn run(args: &PsArgs, global: &Global) -> Result<u8> {
    let container = Container::find(&root::select(global)?.path, &args.id)?;
    if container.state().cgroup.directories().is_empty() {
        bail!("unable to get all container pids: the container has no cgroup");
    }
    let pids = container.pids()?;
    let text = match args.format.as_deref() {
        // Go prints no list where there is none.
        Some("json") if pids.is_empty() => "null\n".to_owned(),
        Some("json") => serde_json::to_string(&pids).context("write JSON")? + "\n",
        None | Some("table") => rows_of(&host_ps(&args.options)?, &pids)?,
        Some(_) => bail!("invalid format option"),
    };
    output::print(&text)?;
    Ok(0)
}

/// Runs the host's ps.
fn host_ps(options: &[OsString]) -> Result<String> {
    let default = [OsString::from("-ef")];
    let options = if options.is_empty() { &default } else { options };
    let ps = Command::new("ps").args(options).stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let ps = match ps {
        Err(err) if err.kind() == ErrorKind::NotFound => bail!("exec: \"ps\": executable file not found in $PATH"),
        other => other.context("run ps")?,
    };
    if !ps.status.success() {
        let status = ps.status.to_string().replace("exit status: ", "exit status ");
        bail!("{status}: {}", String::from_utf8_lossy(&ps.stderr).trim().replace('\n', " "));
    }
    Ok(String::from_utf8_lossy(&ps.stdout).into_owned())
}

/// Returns the head of ps's table, and the rows that are about one of `pids`.
fn rows_of(table: &str, pids: &[i32]) -> Result<String> {
    let mut lines = table.lines();
    let head = lines.next().unwrap_or_default();
    let Some(column) = head.split_whitespace().position(|title| title == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    let mut rows = format!("{head}\n");
    for line in lines {
        let Some(field) = line.split_whitespace().nth(column) else { continue };
        // A thread's row may have a dash there.
        if field == "-" {
            continue;
        }
        let Ok(pid) = field.parse::<i32>() else {
            bail!("unable to parse pid: strconv.Atoi: parsing {field:?}: invalid syntax");
        };
        if pids.contains(&pid) {
            rows += line;
            rows.push('\n');
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_pid() {
        let table =
            "UID          PID    PPID CMD\nroot           1       0 init 7\nroot           7       1 sh\n  - - -\n";
        let rows = rows_of(table, &[7, 9]).unwrap();
        assert_eq!(rows, "UID          PID    PPID CMD\nroot           7       1 sh\n");
        assert_eq!(rows_of("UID CMD\n", &[]).unwrap_err().to_string(), "couldn't find PID field in ps output");
        assert!(rows_of("PID\nx\n", &[1]).unwrap_err().to_string().starts_with("unable to parse pid"));
    }
}
