//! `bench`: what receiving into a DMA-buf costs, beside receiving into host memory.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::demo::NICS;
use super::options::MachineOptions;
use super::{run, tool};

/// How long a benchmark may take if nothing else is said.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The ways that are compared; the last is the measure of the others.
const PATHS: [&str; 3] = ["devmem-tcp", "copy", "host"];

/// A file without content needs no memory; nobody looks at the payload. Round by round each way takes its turn,
/// so that all meet the same conditions.
const SCRIPT: &str = r#"
truncate -s "$2" /tmp/file
for round in $(seq "$1"); do
    for path in devmem-tcp copy host; do
        copy /tmp/file "$3" --no-digest --discard --json --path $path || exit 1
    done
done
"#;

/// Compares ways of receiving, in one machine, in turn: into a DMA-buf by devmem TCP, into host memory with a
/// copy by the CPU, and into host memory alone (plain `recv`).
///
/// Prints system calls per MiB, heap allocations per receive, and rates as a ratio to plain `recv`. The rates
/// are those of an emulated NIC and say nothing about hardware.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(flatten)]
    machine: MachineOptions,
    /// How often each way is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How much is received each time, as truncate(1) reads it
    #[arg(long, default_value = "256M")]
    size: String,
    /// Connections to receive it over
    #[arg(long, value_name = "N", default_value_t = 1)]
    connections: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) fn execute(&self) -> Result<i32> {
        let machine = tool::with_tool(self.machine.machine_with(&NICS, TIMEOUT)?)?;
        let arguments = [self.rounds.to_string(), self.size.clone(), self.connections.to_string()];
        let outcome = tool::with_script(machine, SCRIPT, &arguments).run()?;
        if !outcome.is_success() {
            eprint!("{}", outcome.stderr_text());
            let code = run::report(&outcome);
            return Ok(code);
        }
        let results = outcome
            .stdout_text()
            .lines()
            .map(|line| serde_json::from_str(line).context("the tool printed no JSON"))
            .collect::<Result<Vec<Value>>>()?;
        let rows = PATHS.iter().map(|path| Row::of(path, &results)).collect::<Result<Vec<_>>>()?;
        self.print(&rows, &outcome.kernel);
        Ok(0)
    }

    fn print(&self, rows: &[Row], kernel: &str) {
        let measure = rows.last().map_or(f64::NAN, |row| row.rate.median);
        if self.json {
            let paths: Vec<Value> = rows
                .iter()
                .map(|row| {
                    json!({
                        "path": row.path,
                        "syscalls_per_mib": row.system_calls.median,
                        "measured_syscalls_per_mib": row.measured_system_calls.map(|calls| calls.median),
                        "allocations_per_receive": row.allocations.median,
                        "bytes_per_fragment": row.bytes_per_fragment,
                        "rate_ratio": row.rate.median / measure,
                        "mib_per_second": { "min": row.rate.minimum, "median": row.rate.median, "max": row.rate.maximum },
                    })
                })
                .collect();
            println!("{}", json!({ "rounds": self.rounds, "kernel": kernel, "paths": paths }));
            return;
        }
        println!(
            "{} rounds of {} over {} connections, kernel {kernel}",
            self.rounds, self.size, self.connections
        );
        println!(
            "path        syscalls/MiB  by the kernel  allocations/receive  bytes/fragment  rate/recv  (MiB/s min median max)"
        );
        for row in rows {
            println!(
                "{:<10}  {:>12.2}  {:>13}  {:>19.2}  {:>14}  {:>9.2}  ({:.1} {:.1} {:.1})",
                row.path,
                row.system_calls.median,
                row.measured_system_calls
                    .map_or("unknown".to_owned(), |calls| format!("{:.2}", calls.median)),
                row.allocations.median,
                row.bytes_per_fragment.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
                row.rate.median / measure,
                row.rate.minimum,
                row.rate.median,
                row.rate.maximum,
            );
        }
    }
}

/// A figure over all rounds.
#[derive(Debug, Clone, Copy)]
struct Figure {
    minimum: f64,
    median: f64,
    maximum: f64,
}

impl Figure {
    fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_unstable_by(f64::total_cmp);
        Some(Self {
            minimum: *values.first()?,
            median: *values.get(values.len() / 2)?,
            maximum: *values.last()?,
        })
    }
}

/// What one way came to.
#[derive(Debug)]
struct Row {
    path: &'static str,
    system_calls: Figure,
    measured_system_calls: Option<Figure>,
    allocations: Figure,
    bytes_per_fragment: Option<f64>,
    rate: Figure,
}

impl Row {
    fn of(path: &'static str, results: &[Value]) -> Result<Self> {
        let results: Vec<&Value> = results.iter().filter(|result| result["path"] == path).collect();
        let figure =
            |key: &str| Figure::of(results.iter().filter_map(|result| result[key].as_f64()).collect());
        let Some((((system_calls, allocations), rate), first)) = figure("syscalls_per_mib")
            .zip(figure("allocations_per_receive"))
            .zip(figure("mib_per_second"))
            .zip(results.first())
        else {
            bail!("the tool printed no results for the path {path}");
        };
        let fragments = first["fragments"].as_f64().filter(|&fragments| fragments > 0.0);
        Ok(Self {
            path,
            system_calls,
            measured_system_calls: figure("measured_syscalls_per_mib"),
            allocations,
            bytes_per_fragment: fragments.zip(first["fragment_bytes"].as_f64()).map(|(n, bytes)| bytes / n),
            rate,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_medians_of_their_own_path() {
        let result = |path: &str, calls: f64| {
            json!({
                "path": path, "syscalls_per_mib": calls, "measured_syscalls_per_mib": null,
                "allocations_per_receive": 0.0, "mib_per_second": 10.0 * calls,
                "fragments": 2, "fragment_bytes": 8192,
            })
        };
        let results = [result("host", 1.0), result("copy", 9.0), result("host", 3.0), result("host", 2.0)];
        let row = Row::of("host", &results).unwrap();
        assert_eq!((row.system_calls.median, row.rate.minimum, row.rate.maximum), (2.0, 10.0, 30.0));
        assert!(row.measured_system_calls.is_none());
        assert_eq!(row.bytes_per_fragment, Some(4096.0));
        assert!(Row::of("devmem-tcp", &results).is_err());
    }
}
