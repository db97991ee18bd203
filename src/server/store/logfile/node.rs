//! What messages of the log hold: the nodes and links of sled's trees, in its encoding. Reading never trusts a length.

/// A leaf of a tree, as far as it can be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Leaf<'a> {
    /// The first key that belongs here.
    pub(super) lo: &'a [u8],
    /// The first one that does not any more; empty if there is no end.
    pub(super) hi: &'a [u8],
    /// What all keys begin with, and is left out in them.
    pub(super) prefix: &'a [u8],
    pub(super) keys: Vec<&'a [u8]>,
    pub(super) values: Vec<&'a [u8]>,
    /// Whether there are as many as it says, and nothing more.
    pub(super) adds_up: bool,
}

/// What follows a node: one change of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Link<'a> {
    Set {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    /// The page goes into its neighbour, which has its keys as soon as that is written.
    Merging,
    /// Something about an inner node.
    Inner,
}

/// Reads a leaf; `None` if it is an inner node, or not even its head can be read.
pub(super) fn leaf(body: &[u8]) -> Option<Leaf<'_>> {
    let mut cursor = Cursor(body);
    let (_next, _merging_child, _merging) = (cursor.number()?, cursor.number()?, cursor.byte()?);
    let prefix_length = usize::from(cursor.byte()?);
    let (lo, hi) = (cursor.bytes()?, cursor.bytes()?);
    let prefix = lo.get(..prefix_length)?;
    if cursor.byte()? != 0 {
        return None;
    }
    let count = usize::try_from(cursor.number()?).ok()?;
    let mut list = || -> Vec<&[u8]> { std::iter::from_fn(|| cursor.bytes()).take(count).collect() };
    let (keys, values) = (list(), list());
    let adds_up = keys.len() == count && values.len() == count && cursor.0.is_empty();
    Some(Leaf {
        lo,
        hi,
        prefix,
        keys,
        values,
        adds_up,
    })
}

/// Reads a link; `None` if it does not add up.
pub(super) fn link(body: &[u8]) -> Option<Link<'_>> {
    let mut cursor = Cursor(body);
    let link = match cursor.byte()? {
        0 => Link::Set {
            key: cursor.bytes()?,
            value: cursor.bytes()?,
        },
        1 => Link::Delete { key: cursor.bytes()? },
        2 => {
            cursor.number()?;
            Link::Inner
        }
        3 => Link::Inner,
        4 => Link::Merging,
        _ => return None,
    };
    cursor.0.is_empty().then_some(link)
}

/// Goes through what sled encoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    /// A number of one to nine bytes, of which the first tells how many.
    pub(super) fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => u64::from(first),
            241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?),
            249 => 2288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            250.. => {
                let mut bytes = [0; 8];
                for byte in &mut bytes[..usize::from(first) - 247] {
                    *byte = self.byte()?;
                }
                u64::from_le_bytes(bytes)
            }
        })
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}
