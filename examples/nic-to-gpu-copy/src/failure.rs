//! What went wrong, in one line.

use devmem_provider::Error;

/// The line: what was tried, and every cause. Errors of devmem tell their own causes.
pub(crate) fn line(error: &anyhow::Error) -> String {
    let mut words = Vec::new();
    for cause in error.chain() {
        words.push(cause.to_string());
        if cause.is::<Error>() {
            break;
        }
    }
    words.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use devmem_provider::ErrorKind;

    #[test]
    fn no_cause_is_told_twice() {
        let cause = Error::from_io(std::io::Error::other("the disk is wet"), "write");
        assert!(cause.to_string().contains("the disk is wet"), "{cause}");
        let error = anyhow::Error::new(cause).context("copy the file");
        let line = line(&error);
        assert_eq!(line.matches("the disk is wet").count(), 1, "{line}");
        assert!(line.starts_with("copy the file: cannot write"), "{line}");
    }

    #[test]
    fn causes_of_others_are_told() {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = anyhow::Error::new(missing).context("open it").context("copy");
        assert!(line(&error).starts_with("copy: open it: "), "{error:#}");
        let error = anyhow::Error::new(Error::new(ErrorKind::Gone, "receive").with_source(std::fmt::Error));
        assert_eq!(line(&error), error.to_string());
    }
}
