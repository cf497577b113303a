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
const PATHS: [&str; 4] = ["devmem-tcp", "zcrx", "copy", "host"];

/// A file without content needs no memory; nobody looks at the payload. Round by round each way takes its turn,
/// so that all meet the same conditions.
const SCRIPT: &str = r#"
truncate -s "$2" /tmp/file
for connections in $3; do
    for round in $(seq "$1"); do
        for path in devmem-tcp zcrx copy host; do
            copy /tmp/file "$connections" --no-digest --discard --json --path $path || exit 1
        done
    done
done
"#;

/// Compares ways of receiving, in one machine, in turn: into a DMA-buf by devmem TCP and by io_uring zero-copy
/// receive, into host memory with a copy by the CPU, and into host memory alone (plain `recv`).
///
/// Prints system calls per MiB, heap allocations per receive, processor time of the receiving threads per MiB, and that
/// and rates as a ratio to plain `recv`. Times and rates are those of an emulated NIC and processor and say nothing about
/// hardware.
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
    /// Connections to receive it over; several numbers, with commas between them, are measured one after the other
    #[arg(long, value_name = "N", default_value = "1", value_delimiter = ',')]
    connections: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub(crate) fn execute(&self) -> Result<i32> {
        let machine = tool::with_tool(self.machine.machine_with(&NICS, TIMEOUT)?)?;
        let connections: Vec<String> = self.connections.iter().map(u32::to_string).collect();
        let arguments = [self.rounds.to_string(), self.size.clone(), connections.join(" ")];
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
        let of = |&connections| {
            let rows = PATHS.iter().map(|path| Row::of(path, connections, &results));
            Ok(Table { connections, rows: rows.collect::<Result<Vec<_>>>()? })
        };
        let tables = self.connections.iter().map(of).collect::<Result<Vec<_>>>()?;
        self.print(&tables, &outcome.kernel);
        Ok(0)
    }

    fn print(&self, tables: &[Table], kernel: &str) {
        if self.json {
            let paths: Vec<Value> = tables
                .iter()
                .flat_map(|table| table.rows.iter().map(move |row| (table, row)))
                .map(|(table, row)| {
                    json!({
                        "path": row.path,
                        "connections": table.connections,
                        "syscalls_per_mib": row.system_calls.median,
                        "measured_syscalls_per_mib": row.measured_system_calls.map(|calls| calls.median),
                        "allocations_per_receive": row.allocations.median,
                        "bytes_per_fragment": row.bytes_per_fragment,
                        "cpu_milliseconds_per_mib": row.cpu_time.median,
                        "cpu_ratio": row.cpu_time.median / table.measure().cpu_time.median,
                        "rate_ratio": row.rate.median / table.measure().rate.median,
                        "mib_per_second": { "min": row.rate.minimum, "median": row.rate.median, "max": row.rate.maximum },
                    })
                })
                .collect();
            println!("{}", json!({ "rounds": self.rounds, "kernel": kernel, "paths": paths }));
            return;
        }
        for table in tables {
            self.print_table(table, kernel);
        }
    }

    fn print_table(&self, table: &Table, kernel: &str) {
        let measure = table.measure();
        println!(
            "{} rounds of {} over {} connections, kernel {kernel}",
            self.rounds, self.size, table.connections
        );
        println!(
            "path        syscalls/MiB  by the kernel  allocations/receive  bytes/fragment  CPU ms/MiB  CPU/recv  rate/recv  (MiB/s min median max)"
        );
        for row in &table.rows {
            println!(
                "{:<10}  {:>12.2}  {:>13}  {:>19.2}  {:>14}  {:>10.2}  {:>8.2}  {:>9.2}  ({:.1} {:.1} {:.1})",
                row.path,
                row.system_calls.median,
                row.measured_system_calls
                    .map_or("unknown".to_owned(), |calls| format!("{:.2}", calls.median)),
                row.allocations.median,
                row.bytes_per_fragment.map_or("-".to_owned(), |bytes| format!("{bytes:.0}")),
                row.cpu_time.median,
                row.cpu_time.median / measure.cpu_time.median,
                row.rate.median / measure.rate.median,
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

/// What each way came to over so many connections, in the order of [`PATHS`].
#[derive(Debug)]
struct Table {
    connections: u32,
    rows: Vec<Row>,
}

impl Table {
    /// The way that the others are measured by.
    fn measure(&self) -> &Row {
        &self.rows[PATHS.len() - 1]
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
    cpu_time: Figure,
    rate: Figure,
}

impl Row {
    fn of(path: &'static str, connections: u32, results: &[Value]) -> Result<Self> {
        let ours = |result: &&Value| result["path"] == path && result["connections"] == connections;
        let results: Vec<&Value> = results.iter().filter(ours).collect();
        let figure =
            |key: &str| Figure::of(results.iter().filter_map(|result| result[key].as_f64()).collect());
        let Some(((((system_calls, allocations), cpu_time), rate), first)) = figure("syscalls_per_mib")
            .zip(figure("allocations_per_receive"))
            .zip(figure("cpu_milliseconds_per_mib"))
            .zip(figure("mib_per_second"))
            .zip(results.first())
        else {
            bail!("the tool printed no results for the path {path} over {connections} connections");
        };
        let fragments = first["fragments"].as_f64().filter(|&fragments| fragments > 0.0);
        Ok(Self {
            path,
            system_calls,
            measured_system_calls: figure("measured_syscalls_per_mib"),
            allocations,
            cpu_time,
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
        let result = |path: &str, connections: u32, calls: f64| {
            json!({
                "path": path, "connections": connections, "cpu_milliseconds_per_mib": 1.0, "syscalls_per_mib": calls, "measured_syscalls_per_mib": null,
                "allocations_per_receive": 0.0, "mib_per_second": 10.0 * calls,
                "fragments": 2, "fragment_bytes": 8192,
            })
        };
        let results = [
            result("host", 1, 1.0),
            result("copy", 1, 9.0),
            result("host", 1, 3.0),
            result("host", 8, 9.0),
            result("host", 1, 2.0),
        ];
        let row = Row::of("host", 1, &results).unwrap();
        assert_eq!((row.system_calls.median, row.rate.minimum, row.rate.maximum), (2.0, 10.0, 30.0));
        assert!(row.measured_system_calls.is_none());
        assert_eq!(row.bytes_per_fragment, Some(4096.0));
        assert!(Row::of("devmem-tcp", 1, &results).is_err());
        assert!(Row::of("copy", 8, &results).is_err());
    }
}
