//! A session with `criu swrk`: one CRIU process that serves our requests over a socket and ends with the last of them.
//!
//! A session may ask for version and features before it makes its one dump or restore, so that one CRIU process is
//! enough. What goes into the requests is in [`super::options`]; what a container's life makes of the notifications is
//! the caller's business. rust-criu's own driver is not used: its callback can hold no state, and it has no feature
//! check, no join_ns and no answer to query-ext-files.

use super::notify::Notification;
use super::{Program, Version};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys;
use protobuf::{EnumOrUnknown, Message, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{Criu_features, Criu_opts, Criu_req, Criu_req_type, Criu_resp};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long CRIU may take to answer what it answers from memory.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);

/// The caller's part in a dump or a restore.
pub type Observer<'a> = &'a mut dyn FnMut(Notification<'_>) -> Result<()>;

/// What a CRIU process is started with.
#[derive(Debug, Default)]
pub struct Launch<'a> {
    /// Its standard streams, which a restored process may inherit; what is missing leads to /dev/null.
    pub stdio: [Option<OwnedFd>; 3],
    /// Descriptors that are open in it under the same numbers as here.
    pub passed: Vec<BorrowedFd<'a>>,
}

/// What a session is to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Task {
    /// Dump the processes.
    Dump,
    /// Dump the memory that has changed, and let the processes go on.
    PreDump,
    /// Restore the processes.
    Restore,
}

impl Task {
    fn request_type(self) -> Criu_req_type {
        match self {
            Self::Dump => Criu_req_type::DUMP,
            // CRIU >= 3.16.1. The older PRE_DUMP waits for a DUMP in the same session and fails without it.
            Self::PreDump => Criu_req_type::SINGLE_PRE_DUMP,
            Self::Restore => Criu_req_type::RESTORE,
        }
    }
}

/// A running `criu swrk`.
#[derive(Debug)]
pub struct Session {
    child: Child,
    socket: OwnedFd,
    /// The last request's type: runc prints it with a failure, and clients know its message.
    last: Criu_req_type,
    finished: bool,
}

impl Session {
    /// Starts CRIU.
    pub fn start(program: &Program, launch: Launch<'_>) -> Result<Self> {
        let (socket, theirs) = sys::socket::seqpacket_pair().context(|| "create a socket for criu")?;
        let mut command = Command::new(&program.path);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        command.env("PATH", &program.search_path);
        let [stdin, stdout, stderr] = launch.stdio.map(|stream| stream.map_or_else(Stdio::null, Stdio::from));
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut passed = launch.passed;
        passed.push(theirs.as_fd());
        sys::command::inherit(&mut command, &passed);
        sys::signal::unblock_in(&mut command);
        let child = command.spawn().context(|| format!("start {}", program.path.display()))?;
        // `theirs` closes here, so that the end of CRIU is seen as the end of its messages.
        Ok(Self { child, socket, last: Criu_req_type::EMPTY, finished: false })
    }

    /// Returns the id of the CRIU process, which is to be in the cgroup that restored processes are to be in.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Asks for CRIU's version.
    pub fn version(&mut self) -> Result<Version> {
        let answer = self.query(request(Criu_req_type::VERSION))?;
        let version = &answer.version;
        Ok(Version { major: version.major_number(), minor: version.minor_number(), sublevel: version.sublevel() })
    }

    /// Asks which of the `wanted` features CRIU has on this kernel.
    pub fn features(&mut self, wanted: Criu_features) -> Result<Criu_features> {
        let mut question = request(Criu_req_type::FEATURE_CHECK);
        question.features = MessageField::some(wanted);
        let mut answer = self.query(question)?;
        Ok(answer.features.take().unwrap_or_default())
    }

    /// Has the task done, answers notifications through `observer`, and waits for CRIU's end.
    ///
    /// An error of the observer makes CRIU undo what it did, and is then returned as the cause. From post-restore on
    /// there is no undoing: the processes run, and are the caller's to end.
    pub fn run(mut self, task: Task, options: Criu_opts, observer: Observer<'_>) -> Result<Criu_resp> {
        let mut message = request(task.request_type());
        message.opts = MessageField::some(options);
        self.send(&message)?;
        let mut cause = None;
        let answer = loop {
            match self.receive() {
                Ok((answer, passed)) if answer.type_() == Criu_req_type::NOTIFY => {
                    self.notified(&answer, passed, observer, &mut cause)?;
                }
                Ok((answer, _)) => break answer,
                // Once we have refused a notification, CRIU may end without another word.
                Err(lost) => return Err(cause.unwrap_or(lost)),
            }
        };
        if let Some(cause) = cause {
            return Err(cause);
        }
        self.succeeded(&answer)?;
        self.end()?;
        Ok(answer)
    }

    /// Tells the observer of a notification and CRIU of the answer; the first error becomes the `cause`.
    fn notified(
        &mut self,
        message: &Criu_resp,
        passed: Option<OwnedFd>,
        observer: Observer<'_>,
        cause: &mut Option<Error>,
    ) -> Result<()> {
        self.succeeded(message)?;
        log::debug!("criu notifies: {}", message.notify.script());
        let mut external = Vec::new();
        let outcome = match cause {
            None => observer(Notification::new(&message.notify, passed, &mut external)),
            // CRIU unlocks the network even after a refusal; the observer is not told any more.
            Some(_) => Ok(()),
        };
        let mut answer = request(Criu_req_type::NOTIFY);
        answer.set_notify_success(outcome.is_ok());
        if !external.is_empty() {
            answer.opts = MessageField::some(Criu_opts { external, ..required_options() });
        }
        if let Err(err) = outcome {
            *cause = Some(err);
        }
        self.send(&answer)
    }

    /// Makes a request that leaves the session open for another.
    fn query(&mut self, mut question: Criu_req) -> Result<Criu_resp> {
        question.set_keep_open(true);
        self.send(&question)?;
        let ready = sys::seqpacket::wait_readable(self.socket.as_fd(), QUERY_TIMEOUT).context(|| "wait for criu")?;
        if !ready {
            // Nothing has been touched yet, and waiting for its end could take as long as for its answer.
            self.child.kill().context(|| "kill criu")?;
            let seconds = QUERY_TIMEOUT.as_secs();
            let text = format!("criu did not answer for {seconds} seconds");
            return Err(Error::new(ErrorKind::Criu, text));
        }
        let (answer, _) = self.receive()?;
        self.succeeded(&answer)?;
        Ok(answer)
    }

    fn send(&mut self, message: &Criu_req) -> Result<()> {
        self.last = message.type_();
        let bytes = message
            .write_to_bytes()
            .map_err(|err| Error::new(ErrorKind::Criu, format!("encode a request to criu: {err}")))?;
        sys::seqpacket::send(self.socket.as_fd(), &bytes).context(|| "send a request to criu")
    }

    fn receive(&mut self) -> Result<(Criu_resp, Option<OwnedFd>)> {
        let (bytes, passed) = sys::seqpacket::receive(self.socket.as_fd()).context(|| "receive from criu")?;
        if bytes.is_empty() {
            return Err(self.lost());
        }
        let message = Criu_resp::parse_from_bytes(&bytes)
            .map_err(|err| Error::new(ErrorKind::Criu, format!("decode an answer of criu: {err}")))?;
        Ok((message, passed))
    }

    /// Turns an answer that reports a failure into an error that begins as runc's does.
    fn succeeded(&self, answer: &Criu_resp) -> Result<()> {
        if answer.success() {
            return Ok(());
        }
        let mut text = format!("criu failed: type {:?} errno {}", self.last, answer.cr_errno());
        if let Some(cause) = super::images::error_text(answer.cr_errmsg()) {
            text.push_str(": ");
            text.push_str(cause);
        }
        Err(Error::new(ErrorKind::Criu, text))
    }

    /// Returns the error of a CRIU that went away without an answer.
    fn lost(&mut self) -> Error {
        self.finished = true;
        let text = match self.child.wait() {
            Ok(status) => format!("criu failed: unexpected EOF: {status}"),
            Err(err) => format!("criu failed: unexpected EOF: {err}"),
        };
        Error::new(ErrorKind::Criu, text)
    }

    /// Lets CRIU end, and checks that it thinks as well of its work as its answer said.
    fn end(&mut self) -> Result<()> {
        // The peer may have closed already.
        let _closed = sys::seqpacket::finish_sending(self.socket.as_fd());
        self.finished = true;
        let status = self.child.wait().context(|| "wait for criu")?;
        if status.success() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Criu, format!("criu failed: {status}")))
    }
}

impl Drop for Session {
    /// Lets a CRIU that has nothing more to do end.
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // CRIU waits for a request, or undoes a refused dump or restore. Both end by themselves once nothing more can
        // be received; killing it in the middle of the latter could leave a container frozen.
        let _closed = sys::seqpacket::finish_sending(self.socket.as_fd());
        if let Err(err) = self.child.wait() {
            log::warn!("wait for criu: {err}");
        }
    }
}

/// Says whether CRIU failed because a pid that it has to give to a process is another one's.
pub fn is_taken_pid(failure: &Error) -> bool {
    let words = format!(" errno {}", sys::Errno::EEXIST as i32);
    failure.kind() == ErrorKind::Criu && failure.to_string().contains(&words)
}

/// Returns a request of a type, with nothing in it.
fn request(kind: Criu_req_type) -> Criu_req {
    Criu_req { type_: Some(EnumOrUnknown::new(kind)), ..Criu_req::default() }
}

/// Returns options that hold no more than the protocol demands.
fn required_options() -> Criu_opts {
    Criu_opts { images_dir_fd: Some(-1), ..Criu_opts::default() }
}
