//! QEMU: its command line and its process.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::accelerator::Decided;
use super::topology::{SLOTS, Topology};
use crate::child;
use crate::error::{Context, Error, Result};
use crate::protocol::{GUEST_VARIABLE, LIBRARY_FOLDER, PORT_NAME};

/// What the kernel is told. Besides the console and the end at a panic, these save time at boot:
/// no calibration of timers against an emulated clock, no randomized addresses, no self-tests. The
/// longer stall limit is for hosts that are so busy that the guest's processors stand still.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 panic=-1 oops=panic nokaslr rodata=off tsc=reliable no_timer_check \
                                cryptomgr.notests rcupdate.rcu_expedited=1 rcupdate.rcu_cpu_stall_timeout=60 \
                                random.trust_cpu=on audit=0 mitigations=off sysrq_always_enabled";

/// A QEMU, unpacked from packages or somebody's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// The root folder of the packages, whose own dynamic loader and libraries are used.
    Unpacked(PathBuf),
    /// An executable of this system.
    Own(PathBuf),
}

impl Program {
    /// Makes sure that it starts and has the client for emulated PCI functions.
    pub(crate) fn check(&self) -> Result<()> {
        let mut command = self.command();
        command.args(["-machine", "none", "-device", "help"]).stdin(Stdio::null());
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command.output().context(|| format!("start {program}"))?;
        if contains(&output.stdout, b"\"vfio-user-pci\"") {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let reason = "has no device vfio-user-pci; QEMU 10.1 or newer is needed, built with vfio-user";
        Err(Error::option(
            format!("QEMU {program}"),
            format!("{reason} {}", said.trim()).trim_end().to_owned(),
        ))
    }

    /// The executable file.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Own(path) => path.clone(),
            Self::Unpacked(root) => root.join("usr/bin/qemu-system-x86_64"),
        }
    }

    fn command(&self) -> Command {
        match self {
            Self::Own(path) => Command::new(path),
            Self::Unpacked(root) => {
                let libraries = root.join("usr/lib/x86_64-linux-gnu");
                let mut command = Command::new(root.join("usr/lib64/ld-linux-x86-64.so.2"));
                command
                    .env("QEMU_MODULE_DIR", libraries.join("qemu"))
                    .arg("--library-path")
                    .arg(&libraries)
                    .arg(self.path());
                for folder in ["usr/share/qemu", "usr/share/seabios"] {
                    command.arg("-L").arg(root.join(folder));
                }
                command
            }
        }
    }
}

/// What QEMU shall emulate.
#[derive(Debug)]
pub(super) struct Configuration<'a> {
    pub(super) program: &'a Program,
    pub(super) accelerator: Decided,
    pub(super) cpu: Option<&'a str>,
    pub(super) cpus: u32,
    /// Whether one thread emulates all processors, in turn.
    pub(super) one_thread: bool,
    /// Bytes.
    pub(super) memory: u64,
    pub(super) kernel: &'a Path,
    pub(super) kernel_arguments: &'a str,
    pub(super) initramfs: &'a File,
    /// Sockets of the emulated PCI functions, in order.
    pub(super) functions: &'a [PathBuf],
    pub(super) topology: Topology,
    pub(super) iommu: bool,
}

/// QEMU as it runs; dropping it ends it.
#[derive(Debug)]
pub(super) struct Emulator {
    child: Child,
    /// The frames of the agent.
    pub(super) port: OwnedFd,
    /// The kernel's console.
    pub(super) console: OwnedFd,
}

impl Configuration<'_> {
    fn arguments(&self, port: &OwnedFd, console: &OwnedFd) -> Vec<String> {
        let accelerator = match self.accelerator {
            Decided::Kvm => "kvm",
            Decided::Tcg if self.one_thread => "tcg,thread=single",
            Decided::Tcg => "tcg,thread=multi",
        };
        let (port, console) = (port.as_raw_fd(), console.as_raw_fd());
        let mut arguments: Vec<String> = [
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-accel",
            accelerator,
            "-cpu",
            &self.processor(),
            "-smp",
            &self.cpus.to_string(),
            "-m",
            &format!("{}B", self.memory),
            // The emulated cards reach the guest's memory, so it must be shared with this process.
            "-object",
            &format!("memory-backend-memfd,id=memory,size={}B,share=on", self.memory),
            "-machine",
            "q35,memory-backend=memory,hpet=off",
            "-device",
            &format!("isa-debug-exit,iobase={:#x},iosize=4", crate::guest::EXIT_PORT),
            "-chardev",
            &format!("socket,id=console,fd={console}"),
            "-serial",
            "chardev:console",
            "-chardev",
            &format!("socket,id=port,fd={port}"),
            "-device",
            "virtio-serial-pci,addr=02.0,max_ports=2",
            "-device",
            &format!("virtserialport,chardev=port,nr=1,name={PORT_NAME}"),
            "-kernel",
            &self.kernel.display().to_string(),
            "-initrd",
            &format!("/proc/self/fd/{}", self.initramfs.as_raw_fd()),
            "-append",
            &format!(
                "{KERNEL_ARGUMENTS} {GUEST_VARIABLE}=1 LD_LIBRARY_PATH={LIBRARY_FOLDER} {} {} {}",
                self.topology.kernel_argument(),
                if self.iommu { "intel_iommu=on" } else { "" },
                self.kernel_arguments
            ),
        ]
        .map(str::to_owned)
        .into();
        if self.iommu {
            // Before the cards, which are told of every mapping only in this mode.
            arguments.extend(["-device", "intel-iommu,caching-mode=on,intremap=off"].map(str::to_owned));
        }
        for device in self.topology.devices(self.functions) {
            arguments.extend(["-device".to_owned(), device.to_string()]);
        }
        arguments
    }

    /// The model of the processor. An emulated AMD processor gets fewer address lines than the 40 that QEMU gives it:
    /// with 40, the windows of cards end up in the 12 GiB below 1 TiB that are reserved on such machines, and the
    /// kernel does not put a card that was removed and found again back there.
    fn processor(&self) -> String {
        match (self.accelerator, self.cpu) {
            (Decided::Kvm, cpu) => cpu.unwrap_or("host").to_owned(),
            (Decided::Tcg, Some(cpu)) if cpu.contains("phys-bits") => cpu.to_owned(),
            (Decided::Tcg, cpu) => format!("{},phys-bits=39", cpu.unwrap_or("max")),
        }
    }

    pub(super) fn start(&self) -> Result<Emulator> {
        if self.functions.len() > SLOTS {
            let reason = format!("a machine has room for {SLOTS} emulated cards");
            return Err(Error::option(format!("{} cards", self.functions.len()), reason));
        }
        let pair = || {
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
                .context(|| "create a pair of sockets".into())
        };
        let (port, port_of_child) = pair()?;
        let (console, console_of_child) = pair()?;
        let mut command = self.program.command();
        command
            .args(self.arguments(&port_of_child, &console_of_child))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C at the terminal is for the lab, which then ends QEMU.
            .process_group(0);
        let inherited = [port_of_child.as_raw_fd(), console_of_child.as_raw_fd(), self.initramfs.as_raw_fd()];
        child::prepare(&mut command, inherited.to_vec());
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().context(|| format!("start {program}"))?;
        Ok(Emulator { child, port, console })
    }
}

impl Emulator {
    /// The pipe with QEMU's own messages.
    pub(super) fn messages(&mut self) -> Option<OwnedFd> {
        self.child.stderr.take().map(OwnedFd::from)
    }

    /// Ends QEMU if it has not ended, and says how it did.
    pub(super) fn end(&mut self) -> Result<String> {
        let killed = match self.child.try_wait() {
            Ok(Some(_)) => false,
            _ => self.child.kill().is_ok(),
        };
        let status = self.child.wait().context(|| "wait for QEMU".into())?;
        Ok(if killed { "was ended by the lab".into() } else { status.to_string() })
    }
}

pub(super) fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

impl Drop for Emulator {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_devices_and_arguments_of_the_kernel_come_last() {
        let initramfs = tempfile::tempfile().unwrap();
        let program = Program::Own("/nonexistent".into());
        let configuration = Configuration {
            program: &program,
            accelerator: Decided::Tcg,
            cpu: None,
            cpus: 2,
            one_thread: true,
            memory: 1 << 30,
            kernel: Path::new("/kernel"),
            kernel_arguments: "debug",
            initramfs: &initramfs,
            functions: &["/s/a\"b".into(), "/s/b".into()],
            topology: Topology::RootBus,
            iommu: false,
        };
        let end = OwnedFd::from(tempfile::tempfile().unwrap());
        let arguments = configuration.arguments(&end, &end);
        assert!(!arguments.iter().any(|argument| argument.contains("iommu")));
        let with_iommu = Configuration { iommu: true, ..configuration }.arguments(&end, &end);
        let place = |part: &str| with_iommu.iter().position(|argument| argument.contains(part)).unwrap();
        assert!(place("intel-iommu,") < place("vfio-user-pci"));
        assert!(with_iommu[place("intel_iommu=on")].ends_with(" debug"));
        let devices: Vec<serde_json::Value> = arguments
            .iter()
            .filter_map(|argument| serde_json::from_str(argument).ok())
            .filter(serde_json::Value::is_object)
            .collect();
        assert_eq!(devices[0]["socket"]["path"], "/s/a\"b");
        assert_eq!(devices.len(), 2);
        assert!(arguments.iter().any(|argument| argument.ends_with(" debug")));
        assert!(arguments.iter().any(|argument| argument == "tcg,thread=single"));
        assert!(configuration.start().is_err());
    }
}
