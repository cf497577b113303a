//! The guest kernel's log, and what in it means that something went wrong.

use std::fmt;

/// Something in the kernel's log that makes a run fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The line that gave it away, without its time stamp.
    pub line: String,
    /// The line with what surrounds it: registers, the call trace.
    pub excerpt: String,
    /// Whether the kernel cannot be relied on from here on.
    pub is_fatal: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.excerpt)
    }
}

/// Beginnings of lines after which the kernel cannot be relied on.
const FATAL: [&str; 14] = [
    "Kernel panic - not syncing",
    "BUG: ",
    "BUG ",
    "Oops: ",
    "general protection fault",
    "kernel BUG at ",
    "double fault: ",
    "int3: ",
    "invalid opcode: ",
    "divide error: ",
    "stack segment: ",
    "watchdog: BUG: ",
    "rcu: INFO: ",
    "Unable to handle kernel ",
];

/// Beginnings of lines that the kernel writes when it finds that it, or a driver, did something wrong.
const WARNINGS: [&str; 6] =
    ["WARNING: ", "UBSAN: ", "KFENCE: ", "DMA-API: ", "refcount_t: ", "list_add corruption"];

/// How many lines a call trace has at most.
const LONGEST_EXCERPT: usize = 60;

const CUT_HERE: &str = "------------[ cut here ]------------";
const END_TRACE: &str = "---[ end";

/// Collects the log as it comes from the console.
#[derive(Debug, Default, Clone)]
pub struct KernelLog {
    text: String,
    partial: Vec<u8>,
    lines: Vec<String>,
    /// Index of the line, and whether it is fatal.
    found: Vec<(usize, bool)>,
}

impl KernelLog {
    /// Adds what the console has written.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let rest = self.partial.split_off(end + 1);
            let line = std::mem::replace(&mut self.partial, rest);
            let line = String::from_utf8_lossy(&line);
            self.add(line.trim_end_matches(['\n', '\r']));
        }
    }

    fn add(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
        if let Some(is_fatal) = judge(message(line)) {
            self.found.push((self.lines.len(), is_fatal));
        }
        self.lines.push(line.to_owned());
    }

    /// The whole log so far.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self, count: usize) -> String {
        self.lines[self.lines.len().saturating_sub(count)..].join("\n")
    }

    /// Whether the kernel has said that it cannot be relied on any more.
    pub(crate) fn is_fatal(&self) -> bool {
        self.found.iter().any(|&(_, is_fatal)| is_fatal)
    }

    /// What was found, without what contains one of `allowed`. One trouble is one finding, though the
    /// kernel may give it several lines that would each be one.
    #[must_use]
    pub fn findings(&self, allowed: &[String]) -> Vec<Finding> {
        let mut findings: Vec<Finding> = Vec::new();
        let mut covered = 0;
        for &(index, is_fatal) in &self.found {
            if index < covered {
                if let Some(last) = findings.last_mut() {
                    last.is_fatal |= is_fatal;
                }
                continue;
            }
            let start =
                if index > 0 && message(&self.lines[index - 1]) == CUT_HERE { index - 1 } else { index };
            let end = self.excerpt_end(index);
            covered = end;
            let excerpt = self.lines[start..end].join("\n");
            findings.push(Finding { line: message(&self.lines[index]).to_owned(), excerpt, is_fatal });
        }
        findings
            .retain(|finding| !allowed.iter().any(|text| !text.is_empty() && finding.excerpt.contains(text)));
        findings
    }

    /// A trace goes on to its end mark; a line without a trace stands alone.
    fn excerpt_end(&self, index: usize) -> usize {
        let rest = &self.lines[index + 1..];
        let near = &rest[..rest.len().min(LONGEST_EXCERPT)];
        if let Some(mark) = near.iter().position(|line| message(line).starts_with(END_TRACE)) {
            let restart = near[..mark].iter().position(|line| message(line) == CUT_HERE);
            return index + 1 + restart.unwrap_or(mark + 1);
        }
        let has_trace = near.iter().take(12).any(|line| {
            let message = message(line);
            message.contains("Call Trace") || message.starts_with("CPU: ") || message.starts_with("RIP: ")
        });
        index + 1 + if has_trace { near.len() } else { 0 }
    }
}

/// What a line says, without `[    1.234567]` and `[  T123]`.
fn message(line: &str) -> &str {
    let mut rest = line;
    while let Some((mark, after)) = rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
        let mark = mark.trim();
        let is_time = mark.starts_with(|first: char| first.is_ascii_digit());
        let is_caller = mark
            .strip_prefix(['T', 'C'])
            .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
        if !is_time && !is_caller {
            break;
        }
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    rest
}

/// Whether the message tells of trouble, and if so, whether it is fatal.
fn judge(message: &str) -> Option<bool> {
    let begins = |beginnings: &[&str]| beginnings.iter().any(|&beginning| message.starts_with(beginning));
    let is_hung_task = message.starts_with("INFO: task ") && message.contains(" blocked for more than ");
    if begins(&FATAL) || is_hung_task {
        Some(true)
    } else if begins(&WARNINGS) {
        Some(false)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(text: &str) -> KernelLog {
        let mut log = KernelLog::default();
        log.push(text.as_bytes());
        log
    }

    const WARNING: &str = "\
[    2.000000] gve 0000:00:10.0: Enabled\r
[    3.100000] ------------[ cut here ]------------\r
[    3.100001] WARNING: net/core/page_pool.c:1044 at page_pool_destroy+0x10/0x20, CPU#1: ip/88\r
[    3.100002] Modules linked in: gve(E)\r
[    3.100003] CPU: 1 UID: 0 PID: 88 Comm: ip Not tainted 7.2.12\r
[    3.100004] Call Trace:\r
[    3.100005]  <TASK>\r
[    3.100006] ---[ end trace 0000000000000000 ]---\r
[    3.200000] gve 0000:00:10.0: Disabled\r
";

    const PANIC: &str = "\
[    4.000000][   T77] BUG: kernel NULL pointer dereference, address: 0000000000000000
[    4.000001][   T77] #PF: supervisor write access in kernel mode
[    4.000002][   T77] Oops: Oops: 0002 [#1] SMP NOPTI
[    4.000003][   T77] CPU: 0 UID: 0 PID: 77 Comm: sh
[    4.000004][   T77] RIP: 0010:sysrq_handle_crash+0x1a/0x20
[    4.000005][   T77] Kernel panic - not syncing: Fatal exception
";

    #[test]
    fn a_warning_is_found_with_its_trace() {
        let log = log(WARNING);
        assert!(!log.is_fatal());
        let [finding] = log.findings(&[]).try_into().unwrap();
        assert!(finding.line.starts_with("WARNING: net/core/page_pool.c"));
        assert!(finding.excerpt.starts_with("[    3.100000] ------------[ cut here"));
        assert!(finding.excerpt.ends_with("---[ end trace 0000000000000000 ]---"));
        assert!(!finding.is_fatal);
    }

    #[test]
    fn a_warning_can_be_allowed_by_a_part_of_its_text() {
        assert!(log(WARNING).findings(&["page_pool_destroy".into()]).is_empty());
        assert_eq!(log(WARNING).findings(&["another_function".into(), String::new()]).len(), 1);
    }

    #[test]
    fn a_panic_is_one_fatal_finding() {
        let log = log(PANIC);
        assert!(log.is_fatal());
        let [finding] = log.findings(&[]).try_into().unwrap();
        assert!(finding.is_fatal);
        assert_eq!(finding.line, "BUG: kernel NULL pointer dereference, address: 0000000000000000");
        assert!(finding.excerpt.contains("Fatal exception"));
    }

    #[test]
    fn two_warnings_are_two() {
        assert_eq!(log(&format!("{WARNING}{WARNING}")).findings(&[]).len(), 2);
        let unfinished = WARNING.replace("---[ end trace 0000000000000000 ]---", "x");
        assert_eq!(log(&format!("{unfinished}{WARNING}")).findings(&[]).len(), 2);
    }

    #[test]
    fn stalls_and_hung_tasks_are_fatal() {
        for line in [
            "[   30.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[  130.0] INFO: task kworker/0:1:12 blocked for more than 120 seconds.",
            "[   25.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]",
        ] {
            assert!(log(&format!("{line}\n")).is_fatal(), "{line}");
        }
    }

    #[test]
    fn words_in_the_middle_of_a_line_are_no_finding() {
        let text = "\
[    0.1] Spectre V2 : WARNING: Unprivileged eBPF is enabled
[    0.2] Command line: WARNING: BUG: Oops:
[    0.3] PCI: [mem 0xb0000000-0xbfffffff] WARNING: no
[    0.4] BUGS are checked
";
        assert_eq!(log(text).findings(&[]), []);
    }

    #[test]
    fn lines_may_arrive_in_pieces() {
        let mut log = KernelLog::default();
        for byte in WARNING.as_bytes() {
            log.push(&[*byte]);
        }
        assert_eq!(log.findings(&[]).len(), 1);
        assert_eq!(log.tail(1), "[    3.200000] gve 0000:00:10.0: Disabled");
        log.push(b"\xff\xfe no newline");
        assert_eq!(log.text().lines().count(), 9);
    }
}
