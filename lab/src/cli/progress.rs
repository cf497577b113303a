//! Shows what takes long: bars on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};

use devmem_lab::{LinesOnStandardError, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// How finely a bar moves.
const STEPS: u64 = 1000;

/// One bar for each step on a terminal, one line for each step elsewhere.
#[derive(Debug)]
pub(crate) struct Bars {
    /// The bar of the current step; it is made when there is something to show.
    current: Option<Mutex<Option<ProgressBar>>>,
}

impl Bars {
    pub(crate) fn new() -> Self {
        Self { current: std::io::stderr().is_terminal().then(Mutex::default) }
    }
}

impl Progress for Bars {
    fn step(&self, text: &str) {
        if let Some(current) = &self.current
            && let Some(bar) = current.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            bar.finish_and_clear();
        }
        LinesOnStandardError.step(text);
    }

    fn fraction(&self, done: f64) {
        let Some(current) = &self.current else { return };
        let mut current = current.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = current.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {elapsed}");
            ProgressBar::new(STEPS).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1000")]
        bar.set_position((done.clamp(0.0, 1.0) * STEPS as f64) as u64);
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        if let Some(current) = &mut self.current
            && let Some(bar) = current.get_mut().unwrap_or_else(PoisonError::into_inner).take()
        {
            bar.finish_and_clear();
        }
    }
}
