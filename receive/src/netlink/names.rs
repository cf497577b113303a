//! The names of attributes, so that an error can say `queues.id` instead of a byte offset.

use super::attribute::{AttributeIter, HEADER, align};

/// The attributes of one nesting level of a message.
#[derive(Debug)]
pub struct AttributeTable {
    /// Every attribute that we send or that the kernel may miss.
    pub attributes: &'static [AttributeName],
}

/// An attribute type and its name in the kernel's netlink specifications.
#[derive(Debug)]
pub struct AttributeName {
    /// The type.
    pub kind: u16,
    /// The name.
    pub name: &'static str,
    /// The attributes inside, if it is a nest.
    pub inside: Option<&'static AttributeTable>,
}

impl AttributeName {
    /// A plain attribute.
    #[must_use]
    pub const fn plain(kind: u16, name: &'static str) -> Self {
        Self { kind, name, inside: None }
    }

    /// An attribute that holds others.
    #[must_use]
    pub const fn nest(kind: u16, name: &'static str, inside: &'static AttributeTable) -> Self {
        Self { kind, name, inside: Some(inside) }
    }
}

impl AttributeTable {
    fn find(&self, kind: u16) -> Option<&AttributeName> {
        self.attributes.iter().find(|attribute| attribute.kind == kind)
    }

    fn name(table: Option<&Self>, kind: u16) -> String {
        match table.and_then(|table| table.find(kind)) {
            Some(attribute) => attribute.name.to_owned(),
            None => format!("#{kind}"),
        }
    }

    /// The path to the attribute that begins at byte `offset` of `attributes`, an encoded list of this
    /// table's level. `None` if none begins there.
    #[must_use]
    pub fn path_at(&self, attributes: &[u8], offset: usize) -> Option<String> {
        let mut path = Vec::new();
        descend(Some(self), attributes, offset, &mut path).map(|_| path.join("."))
    }

    /// The path to the missing attribute of type `kind`: inside the nest at `nest`, or at the top.
    #[must_use]
    pub fn missing_path(&self, attributes: &[u8], nest: Option<usize>, kind: u16) -> String {
        let mut path = Vec::new();
        let table = match nest {
            None => Some(self),
            Some(offset) => descend(Some(self), attributes, offset, &mut path).flatten(),
        };
        path.push(Self::name(table, kind));
        path.join(".")
    }
}

/// Pushes the names on the way to the attribute at `offset`; returns the table of what is inside it.
fn descend<'t>(
    table: Option<&'t AttributeTable>,
    attributes: &[u8],
    offset: usize,
    path: &mut Vec<String>,
) -> Option<Option<&'t AttributeTable>> {
    let mut start = 0;
    for attribute in AttributeIter::new(attributes) {
        let attribute = attribute.ok()?;
        let end = start + align(HEADER + attribute.payload().len());
        if offset < end {
            let inside = table.and_then(|table| table.find(attribute.kind())).and_then(|name| name.inside);
            path.push(AttributeTable::name(table, attribute.kind()));
            if offset == start {
                return Some(inside);
            }
            return descend(inside, attribute.payload(), offset.checked_sub(start + HEADER)?, path);
        }
        start = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::attribute::Attributes;
    use super::*;
    use proptest::prelude::*;

    static QUEUE: AttributeTable =
        AttributeTable { attributes: &[AttributeName::plain(1, "id"), AttributeName::plain(3, "type")] };
    static DMABUF: AttributeTable = AttributeTable {
        attributes: &[
            AttributeName::plain(1, "ifindex"),
            AttributeName::nest(2, "queues", &QUEUE),
            AttributeName::plain(3, "fd"),
        ],
    };

    fn request() -> Attributes {
        let queue = Attributes::new().u32(1, 5).u32(3, 0);
        Attributes::new().u32(1, 7).nest(2, queue).u32(3, 9)
    }

    #[test]
    fn an_offset_becomes_a_path() {
        let request = request();
        for (offset, path) in
            [(0, "ifindex"), (8, "queues"), (12, "queues.id"), (20, "queues.type"), (28, "fd")]
        {
            assert_eq!(DMABUF.path_at(request.as_bytes(), offset).as_deref(), Some(path), "{offset}");
        }
        assert_eq!(DMABUF.path_at(request.as_bytes(), 36), None);
        assert_eq!(DMABUF.path_at(request.as_bytes(), 9), None);
    }

    #[test]
    fn a_missing_attribute_is_named_inside_its_nest() {
        let request = request();
        assert_eq!(DMABUF.missing_path(request.as_bytes(), None, 3), "fd");
        assert_eq!(DMABUF.missing_path(request.as_bytes(), Some(8), 3), "queues.type");
        assert_eq!(DMABUF.missing_path(request.as_bytes(), Some(8), 9), "queues.#9");
        assert_eq!(DMABUF.missing_path(request.as_bytes(), Some(999), 3), "#3");
    }

    proptest! {
        #[test]
        fn any_offset_into_any_bytes_ends_without_panic(bytes: Vec<u8>, offset: usize, kind: u16) {
            let _ = DMABUF.path_at(&bytes, offset);
            let _ = DMABUF.missing_path(&bytes, Some(offset), kind);
        }
    }
}
