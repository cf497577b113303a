//! Runs the command, and everything else that a first process has to do meanwhile.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitStatus, wait, waitpid};
use nix::unistd::Pid;

use super::port::{Control, Port};
use super::{Context, Result, sys};
use crate::protocol::description::{Run, WindowSize};
use crate::protocol::message::{Exit, FromGuest};
use crate::protocol::{HOME, SOCKET, SOCKET_VARIABLE};

const PATH: &str = "/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin";

/// The host's ends of the command's input and output.
struct Streams {
    input: Box<dyn Write + Send>,
    output: Vec<JoinHandle<()>>,
    terminal: Option<File>,
}

/// Runs the command to its end; all its output has been sent then.
pub(super) fn run(run: &Run, port: &Arc<Port>) -> Result<Exit> {
    let [program, arguments @ ..] = run.command.as_slice() else { return Err("no command was given".into()) };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(HOME)
        .env("PATH", PATH)
        .env("HOME", HOME)
        .env("USER", "root")
        .env(SOCKET_VARIABLE, SOCKET)
        .envs(run.environment.iter().map(|(name, value)| (name, value)));
    // The search for the program follows the agent's own path.
    let (child, streams) = match run.terminal {
        Some(size) => on_terminal(command, size, port),
        None => on_pipes(command, port),
    }
    .map_err(|error| format!("cannot start {program} in the guest: {error}"))?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let Streams { input, output, terminal } = streams;
    let controller = Arc::clone(port);
    std::thread::spawn(move || control(&controller, input, terminal.as_ref(), pid));
    let exit = reap_until(pid)?;
    // What the command left behind would keep its output open.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    for pump in output {
        let _ = pump.join();
    }
    while waitpid(Pid::from_raw(-1), Some(nix::sys::wait::WaitPidFlag::WNOHANG))
        .is_ok_and(|status| status != WaitStatus::StillAlive)
    {}
    Ok(exit)
}

fn on_pipes(mut command: Command, port: &Arc<Port>) -> std::io::Result<(Child, Streams)> {
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut output = Vec::new();
    if let Some(stream) = child.stdout.take() {
        output.push(pump(stream, Arc::clone(port), FromGuest::Output));
    }
    if let Some(stream) = child.stderr.take() {
        output.push(pump(stream, Arc::clone(port), FromGuest::ErrorOutput));
    }
    let input: Box<dyn Write + Send> = match child.stdin.take() {
        Some(stream) => Box::new(stream),
        None => Box::new(std::io::sink()),
    };
    Ok((child, Streams { input, output, terminal: None }))
}

fn on_terminal(
    mut command: Command,
    size: WindowSize,
    port: &Arc<Port>,
) -> std::io::Result<(Child, Streams)> {
    let pair = openpty(Some(&window(size)), None)?;
    let end = |end: &OwnedFd| end.try_clone().map(Stdio::from);
    command.stdin(end(&pair.slave)?).stdout(end(&pair.slave)?).stderr(pair.slave);
    sys::make_session_leader(&mut command);
    let child = command.spawn()?;
    // The command keeps the terminal's other end open until it is dropped.
    drop(command);
    let host = File::from(pair.master);
    let output = vec![pump(host.try_clone()?, Arc::clone(port), FromGuest::Output)];
    let input = Box::new(host.try_clone()?);
    Ok((child, Streams { input, output, terminal: Some(host) }))
}

fn window(size: WindowSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Sends a stream to the host until its end. A terminal ends with an error when the last program has
/// closed it.
fn pump(
    mut stream: impl Read + Send + 'static,
    port: Arc<Port>,
    message: impl Fn(Vec<u8>) -> FromGuest + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 15];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) if port.send(&message(buffer[..count].to_vec())).is_ok() => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                _ => return,
            }
        }
    })
}

/// Does what the host asks of the command.
fn control(port: &Arc<Port>, input: Box<dyn Write + Send>, terminal: Option<&File>, command: Pid) {
    let feed = feed(input, Arc::clone(port));
    while let Some(request) = port.next_control() {
        match request {
            Control::Input(bytes) => {
                // The feeding thread lives as long as this one.
                let _ = feed.send(bytes);
            }
            Control::WindowSize(size) => {
                if let Some(terminal) = terminal {
                    sys::set_window_size(terminal, &window(size));
                }
            }
            Control::Signal(number) => {
                if let Ok(signal) = Signal::try_from(number) {
                    // It may have ended in this moment.
                    let _ = killpg(command, signal);
                }
            }
        }
    }
}

/// Writes the command's input in a thread of its own, as the command may be slow to read it. No bytes
/// are the end of the input.
fn feed(input: Box<dyn Write + Send>, port: Arc<Port>) -> Sender<Vec<u8>> {
    let (sender, pieces) = channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut input = Some(input);
        for bytes in pieces {
            // A command that does not read its input is nothing unusual.
            if bytes.is_empty() || input.as_mut().is_some_and(|input| input.write_all(&bytes).is_err()) {
                input = None;
            }
            let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if port.send(&FromGuest::InputRead(count)).is_err() {
                return;
            }
        }
    });
    sender
}

/// Takes leave of every process that ends, until the command does.
fn reap_until(command: Pid) -> Result<Exit> {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == command => return Ok(Exit::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == command => {
                return Ok(Exit::Signal(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context(|| "wait for the command".into()),
        }
    }
}
