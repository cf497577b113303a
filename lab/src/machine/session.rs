//! The host's end of a run: one loop that reads what QEMU, the guest and the user send, until the run
//! is over. Nothing in it waits without a limit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use devmem_lab_hardware::Hardware;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use super::builder::{Input, Streams};
use super::emulator::{Emulator, contains};
use super::kernel_log::KernelLog;
use super::outcome::{Ending, Outcome};
use super::run::terminal_size;
use crate::error::{Context, Error, Result};
use crate::protocol::frame::Decoder;
use crate::protocol::message::{Exit, FromGuest, FromHost, INPUT_WINDOW};

/// How long the kernel may go on writing about its death, and QEMU may take to end, before it is ended.
const GRACE: Duration = Duration::from_secs(3);

/// Where a file of the guest goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Memory,
    File(PathBuf),
}

/// A file that is arriving.
#[derive(Debug)]
struct Arriving {
    path: String,
    permissions: u32,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Memory(Vec<u8>),
    File(tempfile::NamedTempFile, PathBuf),
    /// It cannot be kept, for this reason.
    Lost(String),
}

/// A run while it goes on.
pub(super) struct Session<'a, 's> {
    emulator: Emulator,
    messages: Option<File>,
    hardware: &'a Hardware,
    streams: Streams<'s>,
    targets: BTreeMap<&'a str, &'a Target>,
    log_file: Option<File>,
    log: KernelLog,
    decoder: Decoder,
    /// Frames that the guest has not taken yet.
    outgoing: Vec<u8>,
    /// How many bytes of input the guest is ready to take.
    input_window: usize,
    input_ended: bool,
    started: Instant,
    deadline: Instant,
    timeout: Duration,
    boot_time: Option<Duration>,
    ending: Option<Ending>,
    arriving: Option<Arriving>,
    files: BTreeMap<String, Vec<u8>>,
    missing_files: Vec<String>,
    said: Vec<u8>,
}

/// What a descriptor was found ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Port,
    Console,
    Messages,
    Input,
    Signals,
}

impl<'a, 's> Session<'a, 's> {
    pub(super) fn new(
        mut emulator: Emulator,
        hardware: &'a Hardware,
        streams: Streams<'s>,
        timeout: Duration,
        bring_back: &'a [(String, Target)],
        log_file: Option<File>,
    ) -> Self {
        let started = Instant::now();
        Self {
            messages: emulator.messages().map(File::from),
            emulator,
            hardware,
            streams,
            targets: bring_back.iter().map(|(path, target)| (path.as_str(), target)).collect(),
            log_file,
            log: KernelLog::default(),
            decoder: Decoder::default(),
            outgoing: Vec::new(),
            input_window: 0,
            input_ended: false,
            started,
            deadline: started + timeout,
            timeout,
            boot_time: None,
            ending: None,
            arriving: None,
            files: BTreeMap::new(),
            missing_files: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Goes on until QEMU has ended or had to be ended.
    pub(super) fn run(mut self, kernel: &str, allowed_warnings: &[String]) -> Result<Outcome> {
        let mut sources =
            vec![Source::Port, Source::Console, Source::Messages, Source::Input, Source::Signals];
        let mut grace = false;
        while sources.contains(&Source::Port) || sources.contains(&Source::Console) {
            let Some(ready) = self.wait(&sources)? else {
                if self.ending.is_none() {
                    self.ending = Some(Ending::TimedOut(self.timeout));
                }
                break;
            };
            for source in ready {
                let is_open = self.serve(source)?;
                if !is_open {
                    sources.retain(|&open| open != source);
                }
            }
            self.flush()?;
            if self.ending.is_none() && self.log.is_fatal() && !self.is_forgiven(allowed_warnings) {
                self.ending = Some(Ending::KernelDied);
            }
            if self.ending.is_some() && !grace {
                grace = true;
                self.deadline = Instant::now() + GRACE;
            }
        }
        let end = self.emulator.end()?;
        Ok(self.finish(&end, kernel, allowed_warnings))
    }

    fn is_forgiven(&self, allowed_warnings: &[String]) -> bool {
        !self.log.findings(allowed_warnings).iter().any(|finding| finding.is_fatal)
    }

    /// Waits until something can be read; `None` when the time is over.
    fn wait(&self, sources: &[Source]) -> Result<Option<Vec<Source>>> {
        let watched: Vec<(Source, BorrowedFd<'_>, PollFlags)> = sources
            .iter()
            .filter_map(|&source| {
                let wanted = if source == Source::Port && !self.outgoing.is_empty() {
                    PollFlags::POLLIN | PollFlags::POLLOUT
                } else {
                    PollFlags::POLLIN
                };
                Some((source, self.descriptor(source)?, wanted))
            })
            .collect();
        let mut polled: Vec<PollFd<'_>> =
            watched.iter().map(|(_, fd, wanted)| PollFd::new(*fd, *wanted)).collect();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let limit = PollTimeout::try_from(left.as_millis().saturating_add(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut polled, limit) {
                Ok(0) if Instant::now() >= self.deadline => return Ok(None),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => break,
                Err(error) => return Err(error).context(|| "wait for the guest".into()),
            }
        }
        let is_ready = |poll: &PollFd<'_>| poll.any().unwrap_or(true);
        let ready =
            watched.iter().zip(&polled).filter(|(_, poll)| is_ready(poll)).map(|((source, ..), _)| *source);
        // A guest that floods the host must not outlive its time.
        if Instant::now() >= self.deadline { Ok(None) } else { Ok(Some(ready.collect())) }
    }

    fn descriptor(&self, source: Source) -> Option<BorrowedFd<'_>> {
        match source {
            Source::Port => Some(self.emulator.port.as_fd()),
            Source::Console => Some(self.emulator.console.as_fd()),
            Source::Messages => self.messages.as_ref().map(AsFd::as_fd),
            Source::Signals => self.streams.signals.as_ref().map(AsFd::as_fd),
            Source::Input if self.input_window == 0 || self.input_ended => None,
            Source::Input => match &self.streams.input {
                Input::Nothing => None,
                Input::Descriptor(fd) | Input::Terminal(fd) => Some(fd.as_fd()),
            },
        }
    }

    /// Reads from a source that is ready. Returns whether it is still open.
    fn serve(&mut self, source: Source) -> Result<bool> {
        let mut buffer = [0; 1 << 16];
        match source {
            Source::Signals => self.serve_signals(),
            Source::Input => self.serve_input(&mut buffer),
            Source::Messages => {
                let Some(messages) = &mut self.messages else { return Ok(false) };
                let count = messages.read(&mut buffer).context(|| "read QEMU's messages".into())?;
                self.said.extend_from_slice(&buffer[..count]);
                if self.boot_time.is_none() && contains(&self.said, b"KVM internal error") {
                    self.ending = Some(Ending::Stopped("KVM cannot run this guest".into()));
                    self.deadline = Instant::now();
                }
                Ok(count > 0)
            }
            Source::Console => {
                let count = read(&self.emulator.console, &mut buffer)
                    .context(|| "read the guest's console".into())?;
                self.log.push(&buffer[..count]);
                if let Some(file) = &mut self.log_file {
                    file.write_all(&buffer[..count]).context(|| "write the kernel's log".into())?;
                }
                Ok(count > 0)
            }
            Source::Port => {
                let count =
                    read(&self.emulator.port, &mut buffer).context(|| "read from the guest".into())?;
                self.decoder.push(&buffer[..count]);
                loop {
                    let message = match self.decoder.next() {
                        Ok(Some(frame)) => FromGuest::decode(frame),
                        Ok(None) => break,
                        Err(error) => Err(error),
                    };
                    match message {
                        Ok(message) => self.obey(message)?,
                        Err(error) => {
                            self.end_with(Ending::Stopped(format!("the guest sent {error}")));
                            return Ok(false);
                        }
                    }
                }
                Ok(count > 0)
            }
        }
    }

    fn obey(&mut self, message: FromGuest) -> Result<()> {
        match message {
            FromGuest::Ready => {
                self.boot_time = Some(self.started.elapsed());
                self.input_window = INPUT_WINDOW;
                if matches!(self.streams.input, Input::Nothing) {
                    self.send(&FromHost::InputEnd)?;
                }
            }
            FromGuest::Failed(reason) => {
                self.end_with(Ending::NotStarted(reason));
                self.send(&FromHost::Stop)?;
            }
            FromGuest::Output(bytes) => pass_on(self.streams.output, &bytes, "standard output")?,
            FromGuest::ErrorOutput(bytes) => pass_on(self.streams.error_output, &bytes, "standard error")?,
            FromGuest::InputRead(count) => {
                self.input_window = self.input_window.saturating_add(count as usize).min(INPUT_WINDOW);
            }
            FromGuest::Question(number, question) => {
                let answer = self.hardware.request(&question);
                self.send(&FromHost::Answer(number, answer))?;
            }
            FromGuest::FileStart(start) => {
                let content = self.receive(&start.path);
                self.arriving = Some(Arriving { path: start.path, permissions: start.permissions, content });
            }
            FromGuest::FileContent(bytes) => {
                if let Some(Arriving { content, .. }) = &mut self.arriving {
                    content.add(&bytes);
                }
            }
            FromGuest::FileEnd(error) => self.keep(error),
            FromGuest::Ended(exit) => {
                self.end_with(Ending::Exited(exit));
                self.send(&FromHost::Stop)?;
            }
        }
        Ok(())
    }

    fn end_with(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    fn send(&mut self, message: &FromHost) -> Result<()> {
        message.write(&mut self.outgoing).context(|| "write to the guest".into())
    }

    /// Sends what the guest takes without waiting for it.
    fn flush(&mut self) -> Result<()> {
        use nix::sys::socket::{MsgFlags, send};
        use std::os::fd::AsRawFd;
        while !self.outgoing.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.emulator.port.as_raw_fd(), &self.outgoing, flags) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                // QEMU has ended, which the next read tells.
                Err(Errno::EPIPE | Errno::ECONNRESET) => self.outgoing.clear(),
                Err(error) => return Err(error).context(|| "write to the guest".into()),
            }
        }
        Ok(())
    }

    fn serve_input(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let (Input::Descriptor(fd) | Input::Terminal(fd)) = &self.streams.input else { return Ok(false) };
        let limit = self.input_window.min(buffer.len());
        let count = read(fd, &mut buffer[..limit]).context(|| "read standard input".into())?;
        if count == 0 {
            self.input_ended = true;
            self.send(&FromHost::InputEnd)?;
            return Ok(false);
        }
        self.input_window -= count;
        self.send(&FromHost::Input(buffer[..count].to_vec()))?;
        Ok(true)
    }

    fn serve_signals(&mut self) -> Result<bool> {
        let Some(signals) = &self.streams.signals else { return Ok(false) };
        let signal = signals.read_signal().context(|| "read signals".into())?;
        let Some(signal) = signal.and_then(|signal| Signal::try_from(signal.ssi_signo.cast_signed()).ok())
        else {
            return Ok(true);
        };
        if signal != Signal::SIGWINCH {
            // A second one ends this program at once, should anything be slow to end.
            let _ = SigSet::all().thread_unblock();
            return Err(Error::Interrupted);
        }
        if let (Some(size), Some(_)) = (terminal_size(&self.streams.input), self.boot_time) {
            self.send(&FromHost::WindowSize(size))?;
        }
        Ok(true)
    }

    fn receive(&self, path: &str) -> Content {
        match self.targets.get(path) {
            None => Content::Lost("was not asked for".into()),
            Some(Target::Memory) => Content::Memory(Vec::new()),
            Some(Target::File(target)) => {
                let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
                let folder = folder.unwrap_or(std::path::Path::new("."));
                match tempfile::NamedTempFile::new_in(folder) {
                    Ok(file) => Content::File(file, target.clone()),
                    Err(error) => Content::Lost(format!("cannot create {}: {error}", target.display())),
                }
            }
        }
    }

    fn keep(&mut self, error: Option<String>) {
        let Some(Arriving { path, permissions, content }) = self.arriving.take() else { return };
        let result = match (error, content) {
            (Some(reason), _) | (None, Content::Lost(reason)) => Err(reason),
            (None, Content::Memory(bytes)) => {
                self.files.insert(path.clone(), bytes);
                Ok(())
            }
            (None, Content::File(file, target)) => keep_file(file, &target, permissions)
                .map_err(|error| format!("cannot write {}: {error}", target.display())),
        };
        if let Err(reason) = result {
            self.missing_files.push(format!("the file {path} was not brought back: {reason}"));
        }
    }

    fn finish(self, end: &str, kernel: &str, allowed_warnings: &[String]) -> Outcome {
        let findings = self.log.findings(allowed_warnings);
        let said = String::from_utf8_lossy(&self.said).trim_end().to_owned();
        let mut ending = self.ending.unwrap_or_else(|| {
            let when =
                if self.boot_time.is_some() { "while the command ran" } else { "before the command ran" };
            Ending::Stopped(format!("QEMU ended {when} ({end})"))
        });
        if let Ending::Stopped(reason) = &mut ending
            && !said.is_empty()
        {
            reason.push_str(&format!("\nQEMU said:\n{said}"));
        }
        let is_success = ending == Ending::Exited(Exit::Code(0));
        let mut missing_files = self.missing_files;
        for path in self.targets.keys().filter(|_| is_success) {
            let was_told = missing_files.iter().any(|told| told.contains(path));
            if matches!(self.targets[path], Target::Memory) && !self.files.contains_key(*path) && !was_told {
                missing_files.push(format!("the file {path} was not brought back"));
            }
        }
        Outcome {
            ending,
            stdout: Vec::new(),
            stderr: Vec::new(),
            findings,
            misuse: self.hardware.misuse(),
            files: self.files,
            missing_files,
            boot_time: self.boot_time,
            duration: self.started.elapsed(),
            kernel: kernel.to_owned(),
            kernel_log: self.log,
        }
    }
}

impl Content {
    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Memory(content) => content.extend_from_slice(bytes),
            Self::File(file, target) => {
                if let Err(error) = file.write_all(bytes) {
                    *self = Self::Lost(format!("cannot write {}: {error}", target.display()));
                }
            }
            Self::Lost(_) => {}
        }
    }
}

fn keep_file(
    file: tempfile::NamedTempFile,
    target: &std::path::Path,
    permissions: u32,
) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.as_file().set_permissions(std::fs::Permissions::from_mode(permissions))?;
    file.persist(target).map_err(|error| error.error)?;
    Ok(())
}

fn read(fd: &OwnedFd, buffer: &mut [u8]) -> nix::Result<usize> {
    match nix::unistd::read(fd, buffer) {
        // How a socket tells that QEMU was killed, and a terminal that it was hung up.
        Err(Errno::ECONNRESET | Errno::EIO) => Ok(0),
        result => result,
    }
}

fn pass_on(out: &mut dyn Write, bytes: &[u8], name: &str) -> Result<()> {
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Error::Interrupted),
        result => result.context(|| format!("write to {name}")),
    }
}
