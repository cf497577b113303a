//! `devmem-conformance doctor` in the lab: a GPU whose driver moves its memory, a GPU whose driver leaves it, a NIC that
//! can receive.
//!
//! Started on the host, this program boots the lab and runs itself in the guest, where the tests are.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use devmem_conformance::doctor::{Ability, Conclusion, Diagnosis, State};
use devmem_receive::nic::{Flow, Nic, Plan, Queues};
use libtest_mimic::{Arguments, Failed, Trial};

const DOCTOR: &str = "/usr/bin/devmem-conformance";
const NIC: &str = "eth0";
const NOBODY: u32 = 65534;

type Outcome = Result<(), Failed>;

/// Runs the doctor as a user; its exit status and what it found.
fn doctor(user: u32) -> Result<(Option<i32>, Diagnosis), Failed> {
    let output = Command::new(DOCTOR).args(["doctor", "--json"]).uid(user).output()?;
    let diagnosis = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&output.stderr)))?;
    Ok((output.status.code(), diagnosis))
}

fn ensure(holds: bool, what: impl std::fmt::Debug) -> Outcome {
    if holds { Ok(()) } else { Err(format!("{what:?}").into()) }
}

fn each_driver_is_seen_to_do_what_it_does() -> Outcome {
    let before = Nic::open(NIC)?.snapshot()?;
    let (code, diagnosis) = doctor(0)?;
    ensure(code == Some(0) && diagnosis.can_receive, &diagnosis)?;
    for (provider, conclusion) in [
        ("amdgpu", Conclusion::NotInDeviceMemory),
        ("virtio-gpu", Conclusion::DeviceMemory),
        ("udmabuf", Conclusion::SystemMemory),
    ] {
        let pair = diagnosis.pairs.iter().find(|pair| pair.provider == provider && pair.nic == NIC);
        ensure(pair.is_some_and(|pair| pair.conclusion == conclusion), (provider, pair))?;
    }
    let moved = diagnosis.pairs.iter().find(|pair| pair.provider == "amdgpu");
    let tried = |finding: &devmem_conformance::doctor::Finding| {
        finding.evidence.contains("before it was device-local (vram), afterwards system (gtt)")
    };
    ensure(moved.is_some_and(|pair| pair.findings.iter().any(tried)), moved)?;
    let changed = before.diff(&Nic::open(NIC)?.snapshot()?);
    ensure(changed.is_empty(), changed)
}

fn an_unprivileged_user_is_told_what_is_hidden() -> Outcome {
    let (code, diagnosis) = doctor(NOBODY)?;
    ensure(code == Some(3) && !diagnosis.root, &diagnosis)?;
    let nic = diagnosis.nics.iter().find(|nic| nic.name == NIC);
    ensure(nic.is_some_and(|nic| nic.able == Ability::Unknown), nic)?;
    let hidden = |about: &str| {
        let named = |finding: &devmem_conformance::doctor::Finding| {
            finding.about.contains(about) && finding.state == State::Unknown && finding.remedy.is_some()
        };
        diagnosis.findings().any(|(_, finding)| named(finding))
    };
    for about in ["privilege", "devmem receive", "udmabuf"] {
        ensure(hidden(about), (about, &diagnosis))?;
    }
    Ok(())
}

fn a_nic_in_use_names_its_user() -> Outcome {
    let prepared = Nic::open(NIC)?.prepare(&Plan::new(Queues::one(), Flow::tcp_port(5201)))?;
    let (code, diagnosis) = doctor(0)?;
    prepared.restore()?;
    let process = format!("process {}", std::process::id());
    let nic = diagnosis.nics.iter().find(|nic| nic.name == NIC);
    let told = nic.is_some_and(|nic| {
        nic.able == Ability::No && nic.findings.iter().any(|finding| finding.says.contains(&process))
    });
    ensure(told && code == Some(3), nic)
}

fn main() -> ExitCode {
    devmem_lab::test_program()
        .nic("gve:queues=4")
        .gpu("amdgpu")
        .gpu("virtio-gpu")
        .file(env!("CARGO_BIN_EXE_devmem-conformance"), DOCTOR)
        .main(|| {
            let mut arguments = Arguments::from_args();
            // All tests share one NIC.
            arguments.test_threads = Some(1);
            let trials = vec![
                Trial::test("each_driver_is_seen_to_do_what_it_does", each_driver_is_seen_to_do_what_it_does),
                Trial::test(
                    "an_unprivileged_user_is_told_what_is_hidden",
                    an_unprivileged_user_is_told_what_is_hidden,
                ),
                Trial::test("a_nic_in_use_names_its_user", a_nic_in_use_names_its_user),
            ];
            libtest_mimic::run(&arguments, trials).exit_code()
        })
}
