//! What gathering came to.

use std::fmt;

use serde::Serialize;

/// The keys of [`Summary`](crate::receive::summary::Summary) about gathering: all null without `--gather`.
#[derive(Debug, Default, Serialize)]
pub(crate) struct GatherSummary {
    /// Payload bytes that the device copied to their place in the file.
    pub(crate) gathered_bytes: Option<u64>,
    /// In how many batches.
    pub(crate) gather_batches: Option<u64>,
    /// Who allocated the buffer of the gathered file.
    pub(crate) gather_provider: Option<String>,
    /// Who copied: device or CPU.
    pub(crate) gather_worker: Option<String>,
    /// Who verified, likewise. Null if no digest was wanted.
    pub(crate) gather_verifier: Option<String>,
    /// The size of the buffer of the gathered file.
    pub(crate) gather_buffer_bytes: Option<u64>,
    /// Where that buffer is, as `residency_after` and the keys beside it.
    pub(crate) gather_residency: Option<String>,
    pub(crate) gather_region: Option<String>,
    pub(crate) gather_residency_evidence: Option<String>,
    /// How long the last copies took after the last byte of the last connection had arrived.
    pub(crate) gather_tail_seconds: Option<f64>,
    /// How long the digests took. Null if none was wanted.
    pub(crate) gather_digest_seconds: Option<f64>,
    /// Bytes of the gathered file that the CPU read, to verify it where the device cannot, and to write the output.
    pub(crate) read_back_bytes: Option<u64>,
}

impl GatherSummary {
    /// Two lines for people, if something was gathered.
    pub(crate) fn write(&self, f: &mut fmt::Formatter<'_>, cpu_copied_bytes: u64) -> fmt::Result {
        let Some(provider) = &self.gather_provider else { return Ok(()) };
        let number = |number: Option<u64>| number.unwrap_or_default();
        writeln!(
            f,
            "gathered   {} bytes by the device, {cpu_copied_bytes} by the CPU, in {} batches; {:.2} s after the last \
             byte arrived",
            number(self.gathered_bytes),
            number(self.gather_batches),
            self.gather_tail_seconds.unwrap_or_default()
        )?;
        write!(f, "           in {} bytes of {provider}", number(self.gather_buffer_bytes))?;
        if let Some(residency) = &self.gather_residency {
            write!(f, "; {residency}: {}", self.gather_residency_evidence.as_deref().unwrap_or_default())?;
        }
        if let (Some(seconds), Some(verifier)) = (self.gather_digest_seconds, &self.gather_verifier) {
            write!(f, "; verified by the {verifier} in {seconds:.2} s")?;
        }
        match self.read_back_bytes {
            Some(bytes) if bytes > 0 => writeln!(f, "; {bytes} bytes read back by the CPU"),
            _ => writeln!(f),
        }
    }
}
