//! Objects of the device that the driver names by number.

/// A table with a limit, so that no driver can make it grow without bounds.
pub(super) struct Table<T> {
    entries: Vec<Option<T>>,
    limit: usize,
}

impl<T> Table<T> {
    /// An empty table for at most `limit` objects.
    pub(super) fn new(limit: usize) -> Table<T> {
        Table { entries: Vec::new(), limit }
    }

    /// Adds an object under the lowest number that is free; `None` when there is no room.
    pub(super) fn add(&mut self, object: T) -> Option<u16> {
        let free = self.entries.iter().position(Option::is_none).unwrap_or(self.entries.len());
        if free >= self.limit {
            return None;
        }
        if free == self.entries.len() {
            self.entries.push(None);
        }
        self.entries[free] = Some(object);
        u16::try_from(free).ok()
    }

    pub(super) fn get(&self, number: u16) -> Option<&T> {
        self.entries.get(usize::from(number))?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut T> {
        self.entries.get_mut(usize::from(number))?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<T> {
        self.entries.get_mut(usize::from(number))?.take()
    }

    /// The objects with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u16, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(number, entry)| Some((number as u16, entry.as_ref()?)))
    }

    /// How many objects there are.
    pub(super) fn count(&self) -> usize {
        self.entries.iter().flatten().count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_used_again_and_limited() {
        let mut table = Table::new(2);
        assert_eq!((table.add('a'), table.add('b'), table.add('c')), (Some(0), Some(1), None));
        assert_eq!(table.remove(0), Some('a'));
        assert_eq!((table.remove(0), table.remove(7)), (None, None));
        assert_eq!(table.add('d'), Some(0));
        assert_eq!(table.iter().collect::<Vec<_>>(), [(0, &'d'), (1, &'b')]);
        assert_eq!((table.count(), table.get(1)), (2, Some(&'b')));
    }
}
