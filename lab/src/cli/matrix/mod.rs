//! `matrix`: what the drivers of this kernel do with their memory when a NIC attaches.

mod ways;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use devmem_lab::Machine;
use serde_json::{Value, json};

use super::options::MachineOptions;
use super::processors::{TRUSTED, UNTRUSTED};
use super::{run, tool};

/// How long each machine may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(600);

/// The machines that are booted, each with these GPUs. One driver can have one part in each, so that its rows
/// are told apart.
const MACHINES: [&[&str]; 4] = [
    &["amdgpu:hainan", "i915:tgl", "xe:bmg", "nouveau:gp107", "virtio-gpu:host-visible"],
    &["i915:dg1", "xe:dg2", "nouveau:nv44"],
    &["nouveau:gm107", "amdgpu:hainan,vram=512M,window=128M", "xe:dg2,vram=1G,window=256M"],
    &["nouveau:tu117"],
];

/// Each machine is booted with both processors; to devmem TCP it makes no difference.
const PROCESSORS: [(&str, &str, &str); 2] = [
    (TRUSTED, "nic-to-gpu-copy matrix --nic eth0 --rdma efa_0 --json", WITH_PATH),
    (UNTRUSTED, "nic-to-gpu-copy matrix --rdma efa_0 --json", WITHOUT_PATH),
];

const WITH_PATH: &str = "with a path";
const WITHOUT_PATH: &str = "without a path";

/// Binds a buffer of every provider, in every placement, to a NIC, and registers it with an RDMA device, in machines with
/// every emulated GPU, and writes down where it was before and after.
///
/// Each row is an attempt on the guest's kernel and its drivers; the lab has looked for the buffer's pages
/// itself. `docs/support-matrix.md` is what this prints. With --gpu or --cpu it is that machine alone.
#[derive(Debug, Args)]
pub(crate) struct Matrix {
    #[command(flatten)]
    machine: MachineOptions,
    /// Writes it to a file
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON object instead of a page of Markdown
    #[arg(long)]
    json: bool,
}

impl Matrix {
    pub(crate) fn execute(&self) -> Result<i32> {
        let (mut rows, mut kernel): (Vec<Value>, String) = (Vec::new(), String::new());
        let chosen: Vec<Vec<&str>> = if self.machine.has_gpus() {
            vec![self.machine.gpus().collect()]
        } else {
            MACHINES.iter().map(|gpus| gpus.to_vec()).collect()
        };
        let processors = if self.machine.has_cpu() { &PROCESSORS[..1] } else { &PROCESSORS };
        for (index, gpus) in chosen.iter().enumerate() {
            for (processor, script, path) in processors {
                let machine = self.booted(gpus, processor, index == 0)?;
                let outcome = tool::with_script(machine, script, &[]).run()?;
                eprint!("{}", outcome.stderr_text());
                if !outcome.is_success() {
                    return Ok(run::report(&outcome));
                }
                let report: Value =
                    serde_json::from_str(outcome.stdout_text().trim()).context("the tool printed no JSON")?;
                report["kernel"].as_str().unwrap_or_default().clone_into(&mut kernel);
                let found = report["rows"].as_array().cloned().unwrap_or_default();
                // Providers without a GPU are the same in every machine.
                let wanted = found.into_iter().filter_map(|row| of_part(row, gpus, index == 0));
                rows.extend(wanted.filter_map(|row| with_path(row, path)));
            }
        }
        keep_drivers_together(&mut rows);
        let ways = if self.machine.has_gpus() || self.machine.has_cpu() {
            Vec::new()
        } else {
            match ways::seen(|| tool::with_tool(self.machine.machine_with(&["gve"], TIMEOUT)?))? {
                Ok(ways) => ways,
                Err(code) => return Ok(code),
            }
        };
        let page = if self.json {
            format!("{}\n", json!({ "kernel": kernel, "rows": rows, "ways": ways }))
        } else if ways.is_empty() {
            markdown(&kernel, &rows)
        } else {
            markdown(&kernel, &rows) + &ways::markdown(&ways)
        };
        match &self.output {
            Some(path) => {
                std::fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?
            }
            None => print!("{page}"),
        }
        Ok(0)
    }

    /// The machine with these GPUs; with everything else that makes providers, if it is the one for those.
    fn booted(&self, gpus: &[&str], processor: &str, with_others: bool) -> Result<Machine> {
        let mut machine = tool::with_tool(self.machine.machine_with(&["gve"], TIMEOUT)?)?.module("vgem");
        if with_others {
            machine = machine.vulkan();
        }
        if !self.machine.has_cpu() {
            machine = machine.cpu(processor);
        }
        if !self.machine.has_rdma() {
            machine = machine.rdma("efa");
        }
        if !self.machine.has_gpus() {
            machine = gpus.iter().fold(machine, |machine, gpu| machine.gpu(gpu));
        }
        Ok(machine)
    }
}

/// The row with what it says of the way between the devices; `None` for system memory, to which it makes no difference, a
/// second time.
fn with_path(mut row: Value, path: &str) -> Option<Value> {
    if row["importer"] != "RDMA" {
        return Some(row);
    }
    let is_system = row["placement"].as_str().is_some_and(|placement| placement.starts_with("system"));
    if is_system {
        return (path == WITH_PATH).then_some(row);
    }
    let path = match row["peer_to_peer"].as_bool() {
        Some(true) => WITH_PATH,
        Some(false) => WITHOUT_PATH,
        None => path,
    };
    row["importer"] = json!(format!("RDMA, {path}"));
    Some(row)
}

/// The row with the part of the GPU that it is about, or the driver that serves it through Vulkan; `None` for rows that
/// another machine has.
fn of_part(mut row: Value, gpus: &[&str], with_others: bool) -> Option<Value> {
    let driver = row["driver"].as_str().unwrap_or_default().replace('_', "-");
    if row["provider"].as_str().is_some_and(|provider| provider.starts_with("vulkan:")) {
        row["part"] = row["driver"].clone();
        return with_others.then_some(row);
    }
    let part = gpus.iter().find_map(|gpu| {
        let (name, part) = gpu.split_once(':').unwrap_or((gpu, ""));
        (name == driver).then(|| part.replace(',', ", "))
    });
    if part.is_none() && !with_others {
        return None;
    }
    row["part"] = json!(part);
    Some(row)
}

/// Orders the rows by driver, in the order in which drivers come first.
fn keep_drivers_together(rows: &mut [Value]) {
    let mut drivers: Vec<Value> = Vec::new();
    for row in rows.iter() {
        if !drivers.contains(&row["driver"]) {
            drivers.push(row["driver"].clone());
        }
    }
    rows.sort_by_key(|row| drivers.iter().position(|driver| *driver == row["driver"]));
}

fn markdown(kernel: &str, rows: &[Value]) -> String {
    let mut page = format!(
        "# Support matrix\n\n\
         What the drivers of Linux {kernel} do with their memory when a NIC attaches to it, as seen in the lab.\n\
         `cargo lab matrix --output docs/support-matrix.md` writes this page; nothing in it is written by hand.\n\n\
         A buffer of each provider is allocated in each placement, bound to a receive queue, and registered as a memory\n\
         region of an RDMA device, on a machine where the kernel finds a way between the two devices (*with a path*,\n\
         [below](#where-there-is-a-path)) and on one where it finds none. No row contradicts what `devmem_provider::Forecast` had foretold. *Only* means that it\n\
         may lie nowhere else. Before and after is what the driver's own figures say of the buffer, with its name for\n\
         the place; the lab looked for the pages in all memory of the machine and found them there too, unless a\n\
         note says otherwise: it does not look where the CPU's touch could move the buffer. The last column tells whether `--require device-local` holds.\n\n\
         | provider | placement | importer | outcome | before | after | stays device-local |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let part = row["part"].as_str().map(|part| format!(" ({part})")).unwrap_or_default();
        let only = if row["only"] == true { ", only" } else { "" };
        let stays = match (&row["device_local_pin"], text("placement").starts_with("system")) {
            (_, true) => "",
            (Value::Bool(true), _) => "yes",
            _ => "no",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {}{part} | {}{only} | {} | {} | {} | {} | {stays} |",
            text("provider"),
            text("placement").trim_end_matches(" memory"),
            text("importer"),
            outcome(row),
            place(&row["before"]),
            place(&row["after"]),
        );
    }
    page
}

/// Bound, or what was refused, with the kernel's number and words.
fn outcome(row: &Value) -> String {
    let what = match row["outcome"].as_str() {
        Some("bound") => return "bound".to_owned(),
        Some("allocate-refused") => "not allocated",
        _ => "refused",
    };
    let errno = row["errno"].as_str().unwrap_or_default();
    let words = row["kernel_message"].as_str().map(|words| format!(" \"{words}\"")).unwrap_or_default();
    format!("{what}: {errno}{words}").trim_end_matches([':', ' ']).to_owned()
}

fn place(place: &Value) -> String {
    let Some(residency) = place["residency"].as_str() else { return String::new() };
    let note = match place["lab"].as_str() {
        None => ", not looked for by the lab",
        Some(lab) if lab != residency => &format!(", the lab found {lab}"),
        Some(_) => "",
    };
    format!("{}{note}", as_told(place))
}

/// Where the driver says that it is.
fn as_told(place: &Value) -> String {
    let region = place["region"].as_str().map(|region| format!(" ({region})")).unwrap_or_default();
    format!("{}{region}", place["residency"].as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_lines_of_a_table() {
        let bound = json!({
            "provider": "amdgpu", "driver": "amdgpu", "placement": "device-local memory", "only": false,
            "importer": "devmem TCP", "outcome": "bound", "device_local_pin": false,
            "before": { "residency": "device-local", "region": "vram", "lab": "device-local" },
            "after": { "residency": "system", "region": "gtt", "lab": "system" },
        });
        let refused = json!({
            "provider": "xe", "driver": "xe", "placement": "device-local memory", "only": true,
            "importer": "devmem TCP", "outcome": "bind-refused", "errno": "EOPNOTSUPP",
            "kernel_message": "Failed to attach", "before": { "residency": "unknown", "lab": "system" },
        });
        let rows: Vec<Value> = [bound, refused]
            .into_iter()
            .filter_map(|row| of_part(row, &["amdgpu:hainan,vram=1G", "xe:bmg"], true))
            .collect();
        let page = markdown("7.3.4", &rows);
        let lines: Vec<&str> = page.lines().rev().take(2).collect();
        assert_eq!(
            lines[1],
            "| amdgpu (hainan, vram=1G) | device-local | devmem TCP | bound | device-local (vram) | system (gtt) | no |"
        );
        assert_eq!(
            lines[0],
            "| xe (bmg) | device-local, only | devmem TCP | refused: EOPNOTSUPP \"Failed to attach\" | \
             unknown, the lab found system |  | no |"
        );
    }

    #[test]
    fn the_way_matters_to_device_memory_and_rdma() {
        let row = |importer: &str, placement: &str, peer_to_peer: Option<bool>| json!({ "importer": importer, "placement": placement, "peer_to_peer": peer_to_peer });
        let importer = |row: Value, path| with_path(row, path).map(|row| row["importer"].clone());
        let device = "device-local memory";
        assert_eq!(importer(row("devmem TCP", device, None), WITH_PATH), Some(json!("devmem TCP")));
        assert_eq!(importer(row("RDMA", device, Some(true)), WITH_PATH), Some(json!("RDMA, with a path")));
        // What the kernel was seen to find is told, whatever the machine was meant to be.
        assert_eq!(
            importer(row("RDMA", device, Some(false)), WITH_PATH),
            Some(json!("RDMA, without a path"))
        );
        assert_eq!(importer(row("RDMA", device, None), WITHOUT_PATH), Some(json!("RDMA, without a path")));
        assert_eq!(importer(row("RDMA", "system memory", None), WITH_PATH), Some(json!("RDMA")));
        assert_eq!(importer(row("RDMA", "system memory", None), WITHOUT_PATH), None);
    }

    #[test]
    fn rows_of_a_driver_stand_together() {
        let mut rows = ["xe", "udmabuf", "i915", "xe"].map(|driver| json!({ "driver": driver }));
        keep_drivers_together(&mut rows);
        assert_eq!(rows.map(|row| row["driver"].clone()), ["xe", "xe", "udmabuf", "i915"]);
    }

    #[test]
    fn providers_without_a_gpu_are_taken_once() {
        let row = json!({ "driver": "udmabuf" });
        assert!(of_part(row.clone(), &["amdgpu"], true).is_some());
        assert!(of_part(row, &["amdgpu"], false).is_none());
        let row = json!({ "provider": "vulkan:0000:00:05.0", "driver": "radv" });
        assert_eq!(of_part(row.clone(), &["amdgpu:hainan"], true).unwrap()["part"], "radv");
        assert!(of_part(row, &["amdgpu:hainan"], false).is_none());
        assert!(of_part(json!({ "driver": "virtio_gpu" }), &["virtio-gpu:host-visible"], false).is_some());
    }
}
