//! `libcontainer-runner --root STATE run ID` runs the bundle in the working directory to its end, with nothing of its own:
//! no log, no command line to speak of, no relay of streams. It shows what a runtime on the libcontainer crate can reach
//! at best.

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use std::error::Error;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ["--root", root, "run", id] = words.as_slice() else {
        eprintln!("usage: libcontainer-runner --root STATE run ID");
        return ExitCode::from(2);
    };
    match run(root, id) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("libcontainer-runner: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn run(root: &str, id: &str) -> Result<u8, Box<dyn Error>> {
    std::fs::create_dir_all(root)?;
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default()).with_root_path(root)?;
    let mut container = builder.validate_id()?.as_init(".").with_systemd(false).with_detach(false).build()?;
    container.start()?;
    let pid = container.pid().ok_or("the container has no process")?;
    let mut status = 0;
    // SAFETY: the status outlives the call.
    if unsafe { libc::waitpid(pid.as_raw(), &raw mut status, 0) } == -1 {
        return Err(std::io::Error::last_os_error().into());
    }
    container.delete(true)?;
    Ok(libc::WEXITSTATUS(status) as u8)
}
