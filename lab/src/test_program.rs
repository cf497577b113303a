//! Test programs that run their tests in the guest.

use std::io::{stderr, stdout};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::protocol::GUEST_VARIABLE;
use crate::{Input, LAB_FAILURE, Machine, Streams, Topology};

/// How long all tests of a program may take together.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// A test program (`harness = false`) that boots the lab and runs itself in the guest.
///
/// On the host, [`main`](Self::main) starts the machine with this very program and the same arguments, shows
/// what it prints, and exits as it does. In the guest it calls the tests. Another kernel is chosen as
/// [`Machine::kernel_of_environment`] tells.
#[derive(Debug)]
#[must_use = "nothing runs before `main`"]
pub struct TestProgram {
    machine: Machine,
}

/// A test program without NICs.
pub fn test_program() -> TestProgram {
    TestProgram { machine: Machine::new().timeout(TIMEOUT) }
}

impl TestProgram {
    /// See [`Machine::nic`].
    pub fn nic(mut self, specification: &str) -> Self {
        self.machine = self.machine.nic(specification);
        self
    }

    /// See [`Machine::gpu`].
    pub fn gpu(mut self, specification: &str) -> Self {
        self.machine = self.machine.gpu(specification);
        self
    }

    /// See [`Machine::rdma`].
    pub fn rdma(mut self, specification: &str) -> Self {
        self.machine = self.machine.rdma(specification);
        self
    }

    /// See [`Machine::cpu`].
    pub fn cpu(mut self, model: &str) -> Self {
        self.machine = self.machine.cpu(model);
        self
    }

    /// See [`Machine::vulkan`].
    pub fn vulkan(mut self) -> Self {
        self.machine = self.machine.vulkan();
        self
    }

    /// See [`Machine::memory`].
    pub fn memory(mut self, bytes: u64) -> Self {
        self.machine = self.machine.memory(bytes);
        self
    }

    /// See [`Machine::topology`].
    pub fn topology(mut self, topology: Topology) -> Self {
        self.machine = self.machine.topology(topology);
        self
    }

    /// See [`Machine::module`].
    pub fn module(mut self, name: &str) -> Self {
        self.machine = self.machine.module(name);
        self
    }

    /// See [`Machine::file`].
    pub fn file(mut self, host: impl AsRef<Path>, guest: &str) -> Self {
        self.machine = self.machine.file(host.as_ref(), guest);
        self
    }

    /// See [`Machine::environment`].
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.machine = self.machine.environment(name, value);
        self
    }

    /// See [`Machine::allow_warning`].
    pub fn allow_warning(mut self, part: &str) -> Self {
        self.machine = self.machine.allow_warning(part);
        self
    }

    /// Runs `tests` in the guest. Listing them (`--list`) takes no guest.
    pub fn main(self, tests: impl FnOnce() -> ExitCode) -> ExitCode {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if std::env::var_os(GUEST_VARIABLE).is_some() || arguments.iter().any(|argument| argument == "--list")
        {
            return tests();
        }
        let code = match self.run(arguments) {
            Ok(code) => code,
            Err(error) => {
                eprintln!("the lab cannot run the tests: {error}");
                LAB_FAILURE
            }
        };
        ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
    }

    fn run(self, arguments: Vec<String>) -> crate::Result<i32> {
        let program = std::env::current_exe().map_err(|error| crate::Error::Machine(error.to_string()))?;
        let command = std::iter::once(program.to_string_lossy().into_owned()).chain(arguments);
        let streams = Streams {
            input: Input::Nothing,
            output: &mut stdout(),
            error_output: &mut stderr(),
            signals: None,
        };
        let machine = self.machine.command(command).kernel_of_environment()?;
        let outcome = machine.run_with(streams)?;
        if let Some(trouble) = outcome.trouble() {
            eprintln!("{}", trouble.trim_end());
        }
        Ok(outcome.exit_code())
    }
}
