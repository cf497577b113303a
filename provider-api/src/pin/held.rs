//! A pinned buffer for the life of a connection.

use std::fmt;
use std::sync::Arc;

use super::{Pin, Require};
use crate::error::{Error, ErrorKind, Result};
use crate::importer::Importer;
use crate::provider::Buffer;
use crate::residency::{Residency, ResidencyEvidence};

/// A buffer and the importer's hold on it, kept together: what a network stack has for as long as a connection lives.
///
/// Whatever ends it, a failure, a panic or [`release`](Self::release), it is taken apart in the order that is right: the
/// importer detaches, so that no device writes there any more; then the DMA-buf is closed; then this claim to the buffer
/// is given up.
#[derive(Debug)]
#[must_use = "a buffer that is dropped is unpinned at once"]
pub struct PinnedBuffer<A> {
    // The order of the fields is the order of release.
    pin: Pin<A>,
    buffer: Arc<dyn Buffer>,
    require: Require,
    last: ResidencyEvidence,
}

/// What has become of a pinned buffer since the last look.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change {
    /// It is somewhere else now.
    Moved {
        /// Where it was.
        from: ResidencyEvidence,
        /// Where it is.
        to: ResidencyEvidence,
        /// Whether that breaks what was demanded when it was pinned.
        breaks_requirement: bool,
    },
    /// The exporter's device is gone or was unbound, so that nobody can look. The importer may still have its addresses:
    /// end its transfers, and release it.
    ExporterGone(Error),
}

impl<A> PinnedBuffer<A> {
    /// Pins `buffer`.
    ///
    /// # Errors
    ///
    /// As [`Pin::new`], with everything released.
    pub fn new<I>(importer: &mut I, buffer: Arc<dyn Buffer>, require: Require) -> Result<Self>
    where
        I: Importer<Attachment = A> + ?Sized,
    {
        let pin = Pin::new(importer, &*buffer, require)?;
        let last = pin.residency().clone();
        Ok(Self { pin, buffer, require, last })
    }

    /// The pin: the attachment, and the evidence of when it was made.
    pub fn pin(&self) -> &Pin<A> {
        &self.pin
    }

    /// The attachment, for changing it.
    pub fn attachment_mut(&mut self) -> &mut A {
        &mut self.pin
    }

    /// The buffer.
    pub fn buffer(&self) -> &Arc<dyn Buffer> {
        &self.buffer
    }

    /// Where the last look saw it.
    pub fn residency(&self) -> &ResidencyEvidence {
        &self.last
    }

    /// Looks again where the buffer is. The kernel tells nobody that it moves one, so that a stack that must know looks
    /// from time to time. Returns what has changed since the last look.
    ///
    /// # Errors
    ///
    /// If the look fails although the exporter's device is there.
    pub fn look(&mut self) -> Result<Option<Change>> {
        let now = match self.buffer.residency() {
            Ok(now) => now,
            Err(error) if matches!(error.kind(), ErrorKind::Gone | ErrorKind::NotFound) => {
                return Ok(Some(Change::ExporterGone(error)));
            }
            Err(error) => return Err(error),
        };
        if (now.residency, &now.region) == (self.last.residency, &self.last.region) {
            return Ok(None);
        }
        let from = std::mem::replace(&mut self.last, now.clone());
        let breaks_requirement =
            self.require == Require::DeviceLocal && now.residency != Residency::DeviceLocal;
        Ok(Some(Change::Moved { from, to: now, breaks_requirement }))
    }

    /// Takes it apart: the attachment, for an end that can tell of a failure, and the buffer, which outlives it.
    pub fn release(self) -> (A, Arc<dyn Buffer>) {
        let Self { pin, buffer, .. } = self;
        (pin.into_attachment(), buffer)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved { from, to, breaks_requirement } => {
                write!(f, "moved from {from} to {to}")?;
                f.write_str(if *breaks_requirement { ", against the requirement" } else { "" })
            }
            Self::ExporterGone(error) => write!(f, "the exporter's device is gone: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::dma_buf::DmaBuf;
    use crate::importer::{Attachment, PeerToPeer};

    type Log = Arc<Mutex<Vec<&'static str>>>;

    /// Writes down when it is dropped.
    #[derive(Debug)]
    struct Noted(&'static str, Log);

    impl Drop for Noted {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    impl Attachment for Noted {}

    struct FakeImporter(Log);

    impl Importer for FakeImporter {
        type Attachment = Noted;

        fn describe(&self) -> String {
            "RDMA on efa_0".to_owned()
        }

        fn peer_to_peer(&self) -> PeerToPeer {
            PeerToPeer::WhereReachable
        }

        fn attach(&mut self, _: &DmaBuf) -> Result<Noted> {
            Ok(Noted("detached", Arc::clone(&self.0)))
        }
    }

    /// A buffer that is looked at again and again: what each look shows, the last one first.
    #[derive(Debug)]
    struct FakeBuffer {
        looks: Mutex<Vec<Look>>,
        _noted: Noted,
    }

    impl Buffer for FakeBuffer {
        fn size(&self) -> u64 {
            4096
        }

        fn export(&self) -> Result<DmaBuf> {
            Ok(DmaBuf::stand_in(4096))
        }

        fn residency(&self) -> Result<ResidencyEvidence> {
            match self.looks.lock().unwrap().pop().unwrap() {
                Ok(residency) => {
                    Ok(ResidencyEvidence { residency, region: None, evidence: "a look".to_owned() })
                }
                Err(kind) => Err(Error::new(kind, "look")),
            }
        }
    }

    type Look = Result<Residency, ErrorKind>;

    fn pinned(looks: &[Look], require: Require) -> (Log, Result<PinnedBuffer<Noted>>) {
        let log = Log::default();
        let looks = Mutex::new(looks.iter().rev().copied().collect());
        let buffer = FakeBuffer { looks, _noted: Noted("freed", Arc::clone(&log)) };
        let pinned = PinnedBuffer::new(&mut FakeImporter(Arc::clone(&log)), Arc::new(buffer), require);
        (log, pinned)
    }

    const DEVICE: Look = Ok(Residency::DeviceLocal);
    const SYSTEM: Look = Ok(Residency::System);

    #[test]
    fn the_importer_lets_go_before_the_memory_is_freed() {
        let (log, pinned) = pinned(&[DEVICE, DEVICE], Require::DeviceLocal);
        drop(pinned.unwrap());
        assert_eq!(*log.lock().unwrap(), ["detached", "freed"]);
    }

    #[test]
    fn a_panic_or_a_refusal_keeps_the_order() {
        let (log, pinned_buffer) = pinned(&[DEVICE, DEVICE], Require::Anywhere);
        let ended = std::thread::spawn(move || {
            let _pinned = pinned_buffer;
            panic!("the stack failed");
        });
        assert!(ended.join().is_err());
        assert_eq!(*log.lock().unwrap(), ["detached", "freed"]);

        let (log, refused) = pinned(&[DEVICE, SYSTEM], Require::DeviceLocal);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::WrongResidency);
        assert_eq!(*log.lock().unwrap(), ["detached", "freed"]);
    }

    #[test]
    fn a_buffer_outlives_its_pin() {
        let (log, pinned) = pinned(&[DEVICE, DEVICE], Require::Anywhere);
        let (attachment, buffer) = pinned.unwrap().release();
        drop(attachment);
        assert_eq!(*log.lock().unwrap(), ["detached"]);
        drop(buffer);
        assert_eq!(*log.lock().unwrap(), ["detached", "freed"]);
    }

    #[test]
    fn a_move_is_told_once() {
        let looks = [DEVICE, DEVICE, DEVICE, SYSTEM, SYSTEM, DEVICE];
        let mut pinned = pinned(&looks, Require::DeviceLocal).1.unwrap();
        assert!(pinned.look().unwrap().is_none());
        let Some(Change::Moved { from, to, breaks_requirement }) = pinned.look().unwrap() else {
            panic!("not told")
        };
        assert_eq!((from.residency, to.residency), (Residency::DeviceLocal, Residency::System));
        assert!(breaks_requirement);
        assert!(pinned.look().unwrap().is_none());
        let back = pinned.look().unwrap().unwrap();
        assert_eq!(back.to_string(), "moved from system to device-local");
    }

    #[test]
    fn an_exporter_that_is_gone_is_told_and_another_failure_is_one() {
        let gone = [DEVICE, DEVICE, Err(ErrorKind::Gone), Err(ErrorKind::Io)];
        let mut pinned = pinned(&gone, Require::Anywhere).1.unwrap();
        assert!(matches!(pinned.look(), Ok(Some(Change::ExporterGone(_)))));
        assert_eq!(pinned.look().unwrap_err().kind(), ErrorKind::Io);
    }
}
