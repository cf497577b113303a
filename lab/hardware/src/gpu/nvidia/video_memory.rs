//! The GPU's memory, and the windows in which page tables show parts of it.
//!
//! From Fermi on a window is translated page by page, and the client of this process (QEMU) maps a window once
//! and for all. So a window has pages of its own: while the page tables show a page of memory in it, the bytes
//! of that page *live* there, and are moved back when it is shown no more. The driver cannot tell the
//! difference, for it has to say when it changed page tables, and a page has one place at a time: a peer that
//! writes at bus addresses of the window, and a search through all memory of the device, find what is there.
//!
//! One limit: a page that is shown at two places appears at the first of them alone, until that is gone. The
//! driver does not do that with memory that it uses without engines.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::registers::Window;
use crate::bus::{DeviceMemory, PAGE_SIZE};

/// Which page of memory each page of a window shows, by their numbers.
pub(super) type Translation = Vec<Option<u32>>;

/// Where the bytes of a page of memory are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Home,
    Shown(Window, u32),
}

/// A window, and what it shows.
struct Shown {
    memory: Arc<DeviceMemory>,
    pages: Translation,
}

/// The memory of a GPU.
pub(super) struct VideoMemory {
    home: Arc<DeviceMemory>,
    places: Vec<Place>,
    frame: Shown,
    instance: Shown,
}

/// Pages in a row that move together.
#[derive(Debug, PartialEq, Eq)]
struct Run {
    /// Pages of the window.
    window: Range<usize>,
    /// The page of memory that the first of them shows.
    memory: u32,
}

impl VideoMemory {
    /// Memory that is shown nowhere.
    pub(super) fn new(
        home: Arc<DeviceMemory>,
        frame: Arc<DeviceMemory>,
        instance: Arc<DeviceMemory>,
    ) -> VideoMemory {
        let places = vec![Place::Home; pages_of(&home)];
        let nothing = |memory: Arc<DeviceMemory>| Shown { pages: vec![None; pages_of(&memory)], memory };
        VideoMemory { home, places, frame: nothing(frame), instance: nothing(instance) }
    }

    fn window(&mut self, window: Window) -> &mut Shown {
        match window {
            Window::Frame => &mut self.frame,
            Window::Instance => &mut self.instance,
        }
    }

    /// Pages of a window.
    pub(super) fn pages(&self, window: Window) -> usize {
        match window {
            Window::Frame => self.frame.pages.len(),
            Window::Instance => self.instance.pages.len(),
        }
    }

    /// Reads at an address of the memory; what is beyond its end reads as zero.
    pub(super) fn read(&self, address: u64, into: &mut [u8]) {
        into.fill(0);
        let mut done = 0;
        while done < into.len() {
            let Some(here) = address.checked_add(done as u64) else { return };
            let length = (into.len() - done).min((PAGE_SIZE - here % PAGE_SIZE) as usize);
            if let Some((memory, offset)) = self.at(here) {
                let _ = memory.memory().read(offset, &mut into[done..done + length]);
            }
            done += length;
        }
    }

    /// Writes at an address of the memory; beyond its end nothing happens.
    pub(super) fn write(&self, address: u64, from: &[u8]) {
        let mut done = 0;
        while done < from.len() {
            let Some(here) = address.checked_add(done as u64) else { return };
            let length = (from.len() - done).min((PAGE_SIZE - here % PAGE_SIZE) as usize);
            if let Some((memory, offset)) = self.at(here) {
                let _ = memory.memory().write(offset, &from[done..done + length]);
            }
            done += length;
        }
    }

    /// Where the bytes at an address of the memory are.
    fn at(&self, address: u64) -> Option<(&DeviceMemory, u64)> {
        let page = usize::try_from(address / PAGE_SIZE).ok()?;
        let (memory, page) = match *self.places.get(page)? {
            Place::Home => (&self.home, page as u64),
            Place::Shown(Window::Frame, page) => (&self.frame.memory, page.into()),
            Place::Shown(Window::Instance, page) => (&self.instance.memory, page.into()),
        };
        Some((memory, page * PAGE_SIZE + address % PAGE_SIZE))
    }

    /// Lets a window show what `translation` says, and nothing else.
    ///
    /// # Errors
    /// What the system said when it could not take or give memory.
    pub(super) fn show(&mut self, window: Window, translation: &[Option<u32>]) -> io::Result<()> {
        let gone = {
            let pages = &self.window(window).pages;
            runs(pages, |index| pages[index] != translation.get(index).copied().flatten())
        };
        for run in gone {
            self.move_run(window, &run, Place::Home)?;
        }
        let new = {
            let pages = &self.window(window).pages;
            let count = pages.len().min(translation.len());
            runs(&translation[..count], |index| pages[index].is_none())
        };
        for run in new {
            for run in self.at_home(&run) {
                self.move_run(window, &run, Place::Shown(window, 0))?;
            }
        }
        Ok(())
    }

    /// The parts of a run whose memory exists and is not shown elsewhere.
    fn at_home(&self, run: &Run) -> Vec<Run> {
        let is_home = |page: &u32| self.places.get(*page as usize) == Some(&Place::Home);
        let pages: Translation = (u64::from(run.memory)..)
            .take(run.window.len())
            .map(|page| u32::try_from(page).ok().filter(is_home))
            .collect();
        let mut parts = runs(&pages, |_| true);
        for part in &mut parts {
            part.window = part.window.start + run.window.start..part.window.end + run.window.start;
        }
        parts
    }

    fn move_run(&mut self, window: Window, run: &Run, to: Place) -> io::Result<()> {
        let home = Arc::clone(&self.home);
        let shown = self.window(window);
        let in_window = run.window.start as u64 * PAGE_SIZE..run.window.end as u64 * PAGE_SIZE;
        let at_home = u64::from(run.memory) * PAGE_SIZE;
        let at_home = at_home..at_home + run.window.len() as u64 * PAGE_SIZE;
        if to == Place::Home {
            shown.memory.move_to(in_window, &home, at_home.start)?;
        } else {
            home.move_to(at_home, &shown.memory, in_window.start)?;
        }
        for (index, page) in run.window.clone().zip(run.memory..) {
            shown.pages[index] = (to != Place::Home).then_some(page);
        }
        for (index, page) in run.window.clone().zip(run.memory as usize..) {
            self.places[page] =
                if to == Place::Home { Place::Home } else { Place::Shown(window, index as u32) };
        }
        Ok(())
    }
}

fn pages_of(memory: &DeviceMemory) -> usize {
    (memory.memory().len() / PAGE_SIZE) as usize
}

/// Runs of a translation: pages of the window in a row that show pages of memory in a row, of those `chosen`.
fn runs(translation: &[Option<u32>], chosen: impl Fn(usize) -> bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, page) in translation.iter().enumerate() {
        let Some(page) = page.filter(|_| chosen(index)) else { continue };
        match runs.last_mut() {
            Some(run)
                if run.window.end == index
                    && u64::from(page) == u64::from(run.memory) + run.window.len() as u64 =>
            {
                run.window.end = index + 1;
            }
            _ => runs.push(Run { window: index..index + 1, memory: page }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;

    const PAGES: u64 = 16;

    fn memory() -> VideoMemory {
        let bus = Bus::new();
        let memory = |pages: u64| bus.device_memory("gpu", pages * PAGE_SIZE).unwrap();
        VideoMemory::new(memory(PAGES), memory(8), memory(4))
    }

    fn fill(memory: &VideoMemory) {
        for page in 0..PAGES {
            memory.write(page * PAGE_SIZE + 8, &[page as u8 + 1]);
        }
    }

    fn check(memory: &VideoMemory) {
        for page in 0..PAGES {
            let mut byte = [0];
            memory.read(page * PAGE_SIZE + 8, &mut byte);
            assert_eq!(byte, [page as u8 + 1], "page {page}");
        }
    }

    fn in_window(shown: &Shown, page: u64) -> u8 {
        let mut byte = [0];
        shown.memory.memory().read(page * PAGE_SIZE + 8, &mut byte).unwrap();
        byte[0]
    }

    #[test]
    fn a_page_moves_and_stays_itself() {
        let mut memory = memory();
        fill(&memory);
        let mut translation = vec![None; 8];
        translation[2..5].copy_from_slice(&[Some(7), Some(8), Some(3)]);
        memory.show(Window::Frame, &translation).unwrap();
        check(&memory);
        assert_eq!([2, 3, 4].map(|page| in_window(&memory.frame, page)), [8, 9, 4]);
        // What the processor writes in the window is in memory, also after the window shows something else.
        memory.frame.memory.memory().write(3 * PAGE_SIZE, b"there").unwrap();
        translation = vec![Some(8), None, Some(7), None, Some(14), None, None, None];
        memory.show(Window::Frame, &translation).unwrap();
        check(&memory);
        assert_eq!([0, 2, 4].map(|page| in_window(&memory.frame, page)), [9, 8, 15]);
        memory.show(Window::Frame, &[]).unwrap();
        let mut bytes = [0; 5];
        memory.read(8 * PAGE_SIZE, &mut bytes);
        assert_eq!(&bytes, b"there");
        check(&memory);
        assert_eq!(memory.frame.memory.memory().next_data(0), None, "nothing is left behind");
    }

    #[test]
    fn a_page_has_one_place() {
        let mut memory = memory();
        fill(&memory);
        memory.show(Window::Instance, &[Some(5)]).unwrap();
        memory.show(Window::Frame, &[Some(5), Some(6), Some(6), Some(99), Some(u32::MAX)]).unwrap();
        check(&memory);
        assert_eq!([0, 1, 2, 3].map(|page| in_window(&memory.frame, page)), [0, 7, 0, 0]);
        memory.show(Window::Instance, &[]).unwrap();
        memory.show(Window::Frame, &[Some(5), Some(6)]).unwrap();
        assert_eq!(in_window(&memory.frame, 0), 6, "the other place is gone");
        check(&memory);
    }

    #[test]
    fn what_was_written_before_a_page_is_shown_does_not_shine_through() {
        let mut memory = memory();
        memory.frame.memory.memory().write(8, &[0xee]).unwrap();
        memory.show(Window::Frame, &[Some(1)]).unwrap();
        assert_eq!(in_window(&memory.frame, 0), 0);
    }

    #[test]
    fn accesses_cross_pages_and_end_with_the_memory() {
        let mut memory = memory();
        memory.show(Window::Frame, &[None, Some(3)]).unwrap();
        memory.write(3 * PAGE_SIZE - 2, &[1, 2, 3, 4]);
        let mut bytes = [9; 4];
        memory.read(3 * PAGE_SIZE - 2, &mut bytes);
        assert_eq!(bytes, [1, 2, 3, 4]);
        memory.write(PAGES * PAGE_SIZE - 1, &[5, 6]);
        memory.read(PAGES * PAGE_SIZE - 1, &mut bytes);
        assert_eq!(bytes, [5, 0, 0, 0]);
        memory.read(u64::MAX - 1, &mut bytes);
        memory.write(u64::MAX, &[1, 2]);
        assert_eq!(bytes, [0; 4]);
    }
}
