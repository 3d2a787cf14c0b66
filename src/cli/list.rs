//! `list`: every container of a root, as a table or as JSON.

use super::state::Report;
use super::{Global, output, root};
use anyhow::{Context, Result, bail};
use clap::Args;

/// Arguments of `list`.
#[derive(Args, Debug)]
pub struct ListArgs {
    /// select one of: table or json (default: "table")
    #[arg(long, short, value_name = "format")]
    pub format: Option<String>,
    /// display only container IDs
    #[arg(long, short)]
    pub quiet: bool,
}

/// Prints the containers of a root.
pub fn run(args: &ListArgs, global: &Global) -> Result<u8> {
    let found = root::select(global)?.containers()?;
    let mut containers = Vec::new();
    for (id, loaded) in found {
        match loaded {
            Ok(container) => containers.push(container),
            Err(err) => output::complain(&format!("load container {id}: {err}\n")),
        }
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut reports = Vec::new();
    for container in &containers {
        match Report::of(container, owner(&passwd, container.state().owner)) {
            Ok(report) => reports.push(report),
            Err(err) => output::complain(&format!("status for {}: {err:#}\n", container.id())),
        }
    }
    output::print(&text(args, &reports)?)?;
    Ok(0)
}

fn text(args: &ListArgs, reports: &[Report<'_>]) -> Result<String> {
    if args.quiet {
        return Ok(reports.iter().map(|report| format!("{}\n", report.id)).collect());
    }
    match args.format.as_deref() {
        None | Some("table") => {
            let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
            let rows = reports.iter().map(|report| {
                let bundle = report.bundle.display().to_string();
                let pid = report.pid.to_string();
                [
                    report.id.to_owned(),
                    pid,
                    report.status.to_owned(),
                    bundle,
                    report.created.to_owned(),
                    report.owner.clone(),
                ]
            });
            Ok(output::table(&std::iter::once(head).chain(rows).collect::<Vec<_>>()))
        }
        // Go prints no list where there is none.
        Some("json") if reports.is_empty() => Ok("null\n".to_owned()),
        Some("json") => Ok(serde_json::to_string(reports).context("write JSON")? + "\n"),
        Some(_) => bail!("invalid format option"),
    }
}

/// Returns the name of a user, or `#` and its number.
///
/// Read here and not by getpwuid(3), which in a static program needs the libraries that it was linked without.
fn owner(passwd: &str, uid: u32) -> String {
    let number = uid.to_string();
    let mut users = passwd.lines().map(|line| line.split(':'));
    let name = users.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_have_a_name_or_a_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nuser:x:1000:7::/home/user:/bin/sh\n";
        for (uid, name) in [(0, "root"), (1000, "user"), (7, "#7")] {
            assert_eq!(owner(passwd, uid), name);
        }
    }

    #[test]
    fn an_empty_list_is_a_head_or_null() {
        let args = |format: Option<&str>, quiet| ListArgs { format: format.map(str::to_owned), quiet };
        let head = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
        assert_eq!(text(&args(None, false), &[]).unwrap(), head);
        assert_eq!(text(&args(Some("json"), false), &[]).unwrap(), "null\n");
        assert_eq!(text(&args(Some("json"), true), &[]).unwrap(), "");
        assert_eq!(text(&args(Some("x"), false), &[]).unwrap_err().to_string(), "invalid format option");
    }
}
