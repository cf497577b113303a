//! Distribution packages: found, downloaded and verified by the distribution's own tools, in folders
//! private to the lab, without root.

pub(crate) mod apt;
pub(crate) mod mirror;
pub(crate) mod unpack;

/// Receives what a long operation is doing, so that a person can watch it.
pub trait Progress {
    /// A new step begins: "downloading 92 packages, 93.1 MB".
    fn step(&self, text: &str);

    /// How much of the current step is done, from 0 to 1.
    fn fraction(&self, done: f64);
}

/// Says each step on one line of standard error.
#[derive(Debug, Default, Clone, Copy)]
pub struct LinesOnStandardError;

impl Progress for LinesOnStandardError {
    fn step(&self, text: &str) {
        eprintln!("devmem-lab: {text}");
    }

    fn fraction(&self, _done: f64) {}
}

/// Says nothing.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn step(&self, _text: &str) {}

    fn fraction(&self, _done: f64) {}
}

/// A size as people read it: "93.1 MB".
pub(crate) fn readable_size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
    let bytes = bytes as f64;
    match bytes {
        1e9.. => format!("{:.2} GB", bytes / 1e9),
        1e6.. => format!("{:.1} MB", bytes / 1e6),
        _ => format!("{:.0} kB", (bytes / 1e3).ceil()),
    }
}

#[cfg(test)]
mod tests {
    use super::readable_size;

    #[test]
    fn sizes_have_a_fitting_unit() {
        assert_eq!(readable_size(1), "1 kB");
        assert_eq!(readable_size(93_100_000), "93.1 MB");
        assert_eq!(readable_size(1_500_000_000), "1.50 GB");
    }
}
