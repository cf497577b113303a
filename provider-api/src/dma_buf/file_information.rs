//! What `/proc/self/fdinfo` says of a DMA-buf (`dma_buf_show_fdinfo()` in `drivers/dma-buf/dma-buf.c`).

use crate::error::{Error, ErrorKind, Result};

/// The kernel's account of a DMA-buf file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInformation {
    /// The size in bytes.
    pub size: u64,
    /// References to the file beside the one that reads this: a NIC's binding holds one, so that a change
    /// shows whether a bind or an unbind is complete.
    pub count: u64,
    /// The module or heap that exported it. It does not identify a GPU's driver: `amdgpu`, `xe` and
    /// `nouveau` all export through the DRM core and show `drm`.
    pub exporter: String,
    /// The name, if one was set.
    pub name: Option<String>,
}

impl FileInformation {
    /// Reads the text of a fdinfo file.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the lines of a DMA-buf are missing or malformed.
    pub fn parse(text: &str) -> Result<Self> {
        let field = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
        };
        let number = |key: &str| field(key).and_then(|value| value.parse().ok());
        let malformed = |key: &str| {
            Error::new(ErrorKind::InvalidInput, "read the fdinfo of a DMA-buf")
                .because(format!("it has no valid line {key:?}"))
        };
        Ok(Self {
            size: number("size").ok_or_else(|| malformed("size"))?,
            count: number("count").ok_or_else(|| malformed("count"))?,
            exporter: field("exp_name").ok_or_else(|| malformed("exp_name"))?.to_owned(),
            name: field("name").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str =
        "pos:\t0\nflags:\t02100002\nmnt_id:\t15\nino:\t37\nsize:\t65536\ncount:\t2\nexp_name:\tudmabuf\n";

    #[test]
    fn reads_what_the_kernel_prints() {
        let information = FileInformation::parse(SAMPLE).unwrap();
        assert_eq!(information.size, 65536);
        assert_eq!(information.count, 2);
        assert_eq!(information.exporter, "udmabuf");
        assert_eq!(information.name, None);
        let named = FileInformation::parse(&format!("{SAMPLE}name:\treceive ring\n")).unwrap();
        assert_eq!(named.name.as_deref(), Some("receive ring"));
    }

    #[test]
    fn names_the_line_that_is_missing() {
        for key in ["size", "count", "exp_name"] {
            let text: String = SAMPLE
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect();
            let error = FileInformation::parse(&text).unwrap_err();
            assert!(error.to_string().contains(key), "{error}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "((size|count|exp_name|name|pos):?\t?[0-9a-z]{0,30}\n?){0,6}") {
            let _ = FileInformation::parse(&text);
        }
    }
}
