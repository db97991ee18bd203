//! CBOR (RFC 8949) as far as the repo dialect needs it: read under limits, and written in its shortest definite form.
//!
//! What is read is untrusted: no item is taken before its bytes are there, nesting has a limit, and nothing is allocated by
//! what a length claims. Tags are passed over, and strings in pieces are refused: no peer sends them.

use super::RepoError;

/// How deep items that are passed over may nest.
pub(super) const DEPTH_MAX: usize = 32;

/// What one head says, with the contents of strings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    Unsigned(u64),
    Negative(u64),
    Float(f64),
    Bytes(&'a [u8]),
    Text(&'a str),
    Bool(bool),
    /// `null`, `undefined`, and simple values without a meaning.
    Nothing,
    /// So many items follow; `None`: up to a break.
    Array(Option<u64>),
    /// So many pairs follow; `None`: up to a break.
    Map(Option<u64>),
    Break,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next item; of an array or a map only the head.
    pub(super) fn item(&mut self) -> Result<Item<'a>, RepoError> {
        loop {
            let first = self.take(1)?[0];
            let (kind, info) = (first >> 5, first & 0x1f);
            if kind == 7 {
                return self.simple(info);
            }
            let argument = self.argument(info)?;
            let definite = argument.ok_or(RepoError::Cbor("a string in pieces"));
            return Ok(match kind {
                0 => Item::Unsigned(argument.ok_or(RepoError::Cbor("a number without a value"))?),
                1 => Item::Negative(argument.ok_or(RepoError::Cbor("a number without a value"))?),
                2 => Item::Bytes(self.take(definite?)?),
                3 => Item::Text(
                    std::str::from_utf8(self.take(definite?)?)
                        .map_err(|_| RepoError::Cbor("text that is not UTF-8"))?,
                ),
                4 => Item::Array(self.bounded(argument)?),
                5 => Item::Map(self.bounded(argument)?),
                // A tag says something about the item behind it that nobody needs here.
                _ => continue,
            });
        }
    }

    /// Passes over what belongs to `item`.
    pub(super) fn skip(&mut self, item: Item<'a>) -> Result<(), RepoError> {
        self.skip_within(item, DEPTH_MAX)
    }

    /// Reads the pairs of a map whose head was read. `entry` gets each key that is text with its value's first item, and must
    /// take or pass over what belongs to it.
    pub(super) fn entries(
        &mut self,
        count: Option<u64>,
        mut entry: impl FnMut(&mut Self, &'a str, Item<'a>) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        let mut left = count;
        while left != Some(0) {
            let key = self.item()?;
            if key == Item::Break && left.is_none() {
                return Ok(());
            }
            left = left.map(|left| left - 1);
            if let Item::Text(key) = key {
                let value = self.item()?;
                entry(self, key, value)?;
            } else {
                self.skip(key)?;
                let value = self.item()?;
                self.skip(value)?;
            }
        }
        Ok(())
    }

    /// The pairs of a map whose head was read, the values whole and unread; keys that are no text are passed over.
    pub(super) fn pairs(&mut self, count: Option<u64>) -> Result<Vec<(&'a str, &'a [u8])>, RepoError> {
        let (mut pairs, mut left) = (Vec::new(), count);
        while left != Some(0) {
            let key = self.item()?;
            if key == Item::Break && left.is_none() {
                return Ok(pairs);
            }
            left = left.map(|left| left - 1);
            if let Item::Text(key) = key {
                pairs.push((key, self.whole_item()?));
            } else {
                self.skip(key)?;
                self.whole_item()?;
            }
        }
        Ok(pairs)
    }

    fn whole_item(&mut self) -> Result<&'a [u8], RepoError> {
        let before = self.rest;
        let item = self.item()?;
        self.skip(item)?;
        Ok(&before[..before.len() - self.rest.len()])
    }

    /// Reads the items of an array whose head was read.
    pub(super) fn elements(
        &mut self,
        count: Option<u64>,
        mut element: impl FnMut(&mut Self, Item<'a>) -> Result<(), RepoError>,
    ) -> Result<(), RepoError> {
        let mut left = count;
        while left != Some(0) {
            let item = self.item()?;
            if item == Item::Break && left.is_none() {
                return Ok(());
            }
            left = left.map(|left| left - 1);
            element(self, item)?;
        }
        Ok(())
    }

    fn skip_within(&mut self, item: Item<'a>, depth: usize) -> Result<(), RepoError> {
        let (Item::Array(count) | Item::Map(count)) = item else {
            return match item {
                Item::Break => Err(RepoError::Cbor("a break where nothing is open")),
                _ => Ok(()),
            };
        };
        let depth = depth.checked_sub(1).ok_or(RepoError::Cbor("too deep"))?;
        let pairs = matches!(item, Item::Map(_));
        let mut left = count.map(|count| if pairs { count * 2 } else { count });
        while left != Some(0) {
            let item = self.item()?;
            if item == Item::Break && left.is_none() {
                return Ok(());
            }
            left = left.map(|left| left - 1);
            self.skip_within(item, depth)?;
        }
        Ok(())
    }

    fn simple(&mut self, info: u8) -> Result<Item<'a>, RepoError> {
        Ok(match info {
            20 => Item::Bool(false),
            21 => Item::Bool(true),
            24 => {
                self.take(1)?;
                Item::Nothing
            }
            25 => Item::Float(half(u16::from_be_bytes(self.array()?))),
            26 => Item::Float(f32::from_be_bytes(self.array()?).into()),
            27 => Item::Float(f64::from_be_bytes(self.array()?)),
            28..=30 => return Err(RepoError::Cbor("a reserved head")),
            31 => Item::Break,
            _ => Item::Nothing,
        })
    }

    /// `None` stands for "up to a break".
    fn argument(&mut self, info: u8) -> Result<Option<u64>, RepoError> {
        Ok(Some(match info {
            0..=23 => info.into(),
            24 => u8::from_be_bytes(self.array()?).into(),
            25 => u16::from_be_bytes(self.array()?).into(),
            26 => u32::from_be_bytes(self.array()?).into(),
            27 => u64::from_be_bytes(self.array()?),
            31 => return Ok(None),
            _ => return Err(RepoError::Cbor("a reserved head")),
        }))
    }

    /// Every item takes a byte at least.
    fn bounded(&self, count: Option<u64>) -> Result<Option<u64>, RepoError> {
        match count {
            Some(count) if count > self.rest.len() as u64 => Err(RepoError::Cbor("more items than bytes")),
            count => Ok(count),
        }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], RepoError> {
        let count = usize::try_from(count).map_err(|_| RepoError::Cbor("more than there is"))?;
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(RepoError::Cbor("the message ends in the middle of an item"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RepoError> {
        let taken = self.take(N as u64)?;
        Ok(taken.try_into().expect("that many were taken"))
    }
}

/// The one CBOR item in `bytes`, if that is well formed and a map.
pub(super) fn is_map(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    let map = reader.item().and_then(|item| match item {
        Item::Map(_) => reader.skip(item),
        _ => Err(RepoError::Cbor("not a map")),
    });
    map.is_ok() && reader.is_empty()
}

/// A whole number, also one that came as a float: JavaScript's encoder writes those beyond 32 bits so.
pub(super) fn whole(item: Item<'_>) -> Option<u64> {
    match item {
        Item::Unsigned(number) => Some(number),
        Item::Float(number) if number >= 0.0 && number < 2_f64.powi(64) && number.fract() == 0.0 => Some(number as u64),
        _ => None,
    }
}

/// A 16-bit float (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2_f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (fraction + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Writes definite items in their shortest form.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self {
            out: Vec::with_capacity(bytes),
        }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.out
    }

    pub(super) fn map(&mut self, pairs: u64) -> &mut Self {
        self.head(5, pairs)
    }

    pub(super) fn array(&mut self, items: u64) -> &mut Self {
        self.head(4, items)
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.head(0, number)
    }

    pub(super) fn signed(&mut self, number: i64) -> &mut Self {
        match u64::try_from(number) {
            Ok(number) => self.head(0, number),
            Err(_) => self.head(1, !number as u64),
        }
    }

    pub(super) fn float(&mut self, number: f64) -> &mut Self {
        self.out.push(0xfb);
        self.raw(&number.to_be_bytes())
    }

    pub(super) fn null(&mut self) -> &mut Self {
        self.out.push(0xf6);
        self
    }

    /// An item that is encoded already.
    pub(super) fn raw(&mut self, item: &[u8]) -> &mut Self {
        self.out.extend_from_slice(item);
        self
    }

    pub(super) fn bool(&mut self, value: bool) -> &mut Self {
        self.out.push(if value { 0xf5 } else { 0xf4 });
        self
    }

    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.head(3, text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(2, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
        self
    }

    fn head(&mut self, kind: u8, argument: u64) -> &mut Self {
        let kind = kind << 5;
        match argument {
            0..=23 => self.out.push(kind | argument as u8),
            24..=0xff => self.out.extend([kind | 24, argument as u8]),
            0x100..=0xffff => {
                self.out.push(kind | 25);
                self.out.extend((argument as u16).to_be_bytes());
            }
            0x1_0000..=0xffff_ffff => {
                self.out.push(kind | 26);
                self.out.extend((argument as u32).to_be_bytes());
            }
            _ => {
                self.out.push(kind | 27);
                self.out.extend(argument.to_be_bytes());
            }
        }
        self
    }
}
