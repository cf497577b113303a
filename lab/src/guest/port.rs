//! The guest's end of the line to the host.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Context, Result};
use crate::protocol::description::WindowSize;
use crate::protocol::frame::{self, Decoder};
use crate::protocol::message::{FileStart, FromGuest, FromHost};
use crate::protocol::{HOME, PORT_NAME};

const PORTS: &str = "/sys/class/virtio-ports";

/// What the host asks of the command that runs.
#[derive(Debug)]
pub(super) enum Control {
    /// Bytes for standard input; none at its end.
    Input(Vec<u8>),
    WindowSize(WindowSize),
    Signal(i32),
}

/// The line to the host. Any thread may send; one thread receives and hands on.
#[derive(Debug)]
pub(super) struct Port {
    out: Mutex<File>,
    answers: Mutex<Answers>,
    control: Mutex<Receiver<Control>>,
    stop: Mutex<Receiver<()>>,
}

#[derive(Debug, Default)]
struct Answers {
    last: u32,
    waiting: HashMap<u32, Sender<Value>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    /// Finds the port by its name, opens it and starts to receive.
    pub(super) fn open() -> Result<Arc<Self>> {
        let path = find()?;
        let out = OpenOptions::new().read(true).write(true).open(&path).context(|| format!("open {path}"))?;
        let incoming = out.try_clone().context(|| format!("open {path} twice"))?;
        let (control_sender, control) = channel();
        let (stop_sender, stop) = channel();
        let port = Arc::new(Self {
            out: Mutex::new(out),
            answers: Mutex::default(),
            control: Mutex::new(control),
            stop: Mutex::new(stop),
        });
        let receiver = Arc::clone(&port);
        std::thread::spawn(move || {
            receiver.receive(incoming, &control_sender);
            // Without the host there is nothing left to do.
            let _ = stop_sender.send(());
        });
        Ok(port)
    }

    /// Hands on what arrives until the host says stop or is gone.
    fn receive(&self, mut incoming: File, control: &Sender<Control>) {
        let mut decoder = Decoder::default();
        loop {
            let message = match frame::read(&mut incoming, &mut decoder) {
                Ok(Some(frame)) => FromHost::decode(frame),
                Ok(None) => return,
                Err(error) => {
                    eprintln!("devmem-lab: the line to the host broke: {error}");
                    return;
                }
            };
            // A command that has ended no longer takes anything: the channel's end may be gone.
            let _ = match message {
                Ok(FromHost::Input(bytes)) => control.send(Control::Input(bytes)),
                Ok(FromHost::InputEnd) => control.send(Control::Input(Vec::new())),
                Ok(FromHost::WindowSize(size)) => control.send(Control::WindowSize(size)),
                Ok(FromHost::Signal(signal)) => control.send(Control::Signal(signal)),
                Ok(FromHost::Answer(number, value)) => {
                    if let Some(asker) = locked(&self.answers).waiting.remove(&number) {
                        let _ = asker.send(value);
                    }
                    Ok(())
                }
                Ok(FromHost::Stop) => return,
                Err(error) => {
                    eprintln!("devmem-lab: the host sent {error}");
                    return;
                }
            };
        }
    }

    pub(super) fn send(&self, message: &FromGuest) -> Result<()> {
        message.write(&mut *locked(&self.out)).context(|| "write to the host".into())
    }

    /// Waits for the next request of the host to the command; `None` when there will be no more.
    pub(super) fn next_control(&self) -> Option<Control> {
        locked(&self.control).recv().ok()
    }

    /// Puts a question to the lab and waits for the answer.
    pub(super) fn ask(&self, question: Value) -> Result<Value> {
        let (sender, answer) = channel();
        let number = {
            let mut answers = locked(&self.answers);
            answers.last = answers.last.wrapping_add(1);
            let number = answers.last;
            answers.waiting.insert(number, sender);
            number
        };
        self.send(&FromGuest::Question(number, question))?;
        answer.recv().context(|| "get an answer from the host".into())
    }

    /// Sends a file; a file that cannot be read is told to the host, which reports it.
    pub(super) fn send_file(&self, path: &str) -> Result<()> {
        let place = Path::new(HOME).join(path);
        let permissions = fs::metadata(&place).map_or(0o644, |found| found.permissions().mode() & 0o7777);
        self.send(&FromGuest::FileStart(FileStart { path: path.to_owned(), permissions }))?;
        let end = self.send_content(&place)?;
        self.send(&FromGuest::FileEnd(end))
    }

    fn send_content(&self, place: &Path) -> Result<Option<String>> {
        let mut file = match File::open(place) {
            Ok(file) => file,
            Err(error) => return Ok(Some(format!("cannot open {} in the guest: {error}", place.display()))),
        };
        let mut buffer = vec![0; 1 << 16];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(count) => self.send(&FromGuest::FileContent(buffer[..count].to_vec()))?,
                Err(error) => {
                    return Ok(Some(format!("cannot read {} in the guest: {error}", place.display())));
                }
            }
        }
    }

    /// Waits until the host has everything, or is gone.
    pub(super) fn wait_for_stop(&self) {
        let _ = locked(&self.stop).recv();
    }
}

fn find() -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        for entry in fs::read_dir(PORTS).into_iter().flatten().flatten() {
            let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
            let device = format!("/dev/{}", entry.file_name().to_string_lossy());
            if name.trim_end() == PORT_NAME && Path::new(&device).exists() {
                return Ok(device);
            }
        }
        if Instant::now() > deadline {
            return Err(format!(
                "no virtio-serial port is named {PORT_NAME}; does the kernel have virtio_console?"
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}
