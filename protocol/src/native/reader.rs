//! A bounded MessagePack reader over one frame.
//!
//! It takes any bytes: every length is held against what the frame has left before anything is allocated, and a value that is
//! to be skipped may nest [`SKIP_DEPTH_MAX`] levels. It never panics and never copies a byte string: those are slices of the frame.

use super::DecodeError;
use crate::{ChangeHash, Cursor, DocumentId, Epoch, Position, ids::NUMBER_MAX};
use bytes::Bytes;
use rmp::Marker;

/// How deeply a skipped value may nest. Known values nest at most four levels.
pub(super) const SKIP_DEPTH_MAX: usize = 32;

pub(super) type Decoded<T> = Result<T, DecodeError>;

/// A place in a frame.
pub(super) struct Reader<'f> {
    frame: &'f Bytes,
    at: usize,
}

/// A message's first element, and how many there are with it.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) number: u64,
    length: usize,
}

impl<'f> Reader<'f> {
    /// Begins a frame: reads the array's length and the message's number.
    pub(super) fn begin(frame: &'f Bytes) -> Decoded<(Self, Head)> {
        let mut reader = Self { frame, at: 0 };
        let length = reader.array("message")?;
        if length == 0 {
            return Err(DecodeError::TooFewFields {
                field: "message",
                at: 0,
                needed: 1,
                length,
            });
        }
        let number = reader.number("message number")?;
        Ok((reader, Head { number, length }))
    }

    /// Reads the fields of the message `name`, the number among the `needed` ones; the frame must end with it.
    pub(super) fn message<T>(
        mut self,
        head: Head,
        name: &'static str,
        needed: usize,
        read: impl FnOnce(&mut Self) -> Decoded<T>,
    ) -> Decoded<T> {
        let value = self.fields(name, 0, head.length, needed, read)?;
        match self.remaining() {
            0 => Ok(value),
            count => Err(DecodeError::TrailingBytes { at: self.at, count }),
        }
    }

    /// Reads an array with one meaning per element; elements beyond the `needed` ones are skipped.
    pub(super) fn tuple<T>(
        &mut self,
        field: &'static str,
        needed: usize,
        read: impl FnOnce(&mut Self) -> Decoded<T>,
    ) -> Decoded<T> {
        let at = self.at;
        let length = self.array(field)?;
        self.fields(field, at, length, needed, read)
    }

    /// Reads an array of like entries, at most `max`, of at least `entry_bytes_min` bytes each.
    pub(super) fn list<T>(
        &mut self,
        field: &'static str,
        max: usize,
        entry_bytes_min: usize,
        mut read: impl FnMut(&mut Self) -> Decoded<T>,
    ) -> Decoded<Vec<T>> {
        let at = self.at;
        let length = self.array(field)?;
        if length > max {
            return Err(DecodeError::ListTooLong { field, at, max, length });
        }
        if length > self.remaining() / entry_bytes_min {
            return Err(DecodeError::Truncated { field, at });
        }
        let mut entries = Vec::with_capacity(length);
        for _ in 0..length {
            entries.push(read(self)?);
        }
        Ok(entries)
    }

    /// Reads a map with text keys; `read` takes the value of a key or answers false to have it skipped.
    pub(super) fn map(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self, &str) -> Decoded<bool>,
    ) -> Decoded<()> {
        let at = self.at;
        let length = match self.marker(field)? {
            Marker::FixMap(length) => usize::from(length),
            Marker::Map16 => self.length::<2>(field, at)?,
            Marker::Map32 => self.length::<4>(field, at)?,
            other => return Err(wrong_type(field, at, "a map", other)),
        };
        for _ in 0..length {
            let key = self.text(field)?;
            if !read(self, key)? {
                self.skip(field, SKIP_DEPTH_MAX)?;
            }
        }
        Ok(())
    }

    /// Reads nil as `None`, anything else with `read`.
    pub(super) fn optional<T>(&mut self, read: impl FnOnce(&mut Self) -> Decoded<T>) -> Decoded<Option<T>> {
        if self.frame.get(self.at) == Some(&Marker::Null.to_u8()) {
            self.at += 1;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// Reads an unsigned number below 2^53, in whichever of MessagePack's integer forms.
    pub(super) fn number(&mut self, field: &'static str) -> Decoded<u64> {
        self.number_up_to(field, NUMBER_MAX)
    }

    /// Reads an unsigned number up to `max`.
    pub(super) fn number_up_to(&mut self, field: &'static str, max: u64) -> Decoded<u64> {
        let at = self.at;
        let number = match self.marker(field)? {
            Marker::FixPos(number) => Some(u64::from(number)),
            Marker::FixNeg(_) => None,
            Marker::U8 => Some(u64::from(u8::from_be_bytes(self.array_of(field, at)?))),
            Marker::U16 => Some(u64::from(u16::from_be_bytes(self.array_of(field, at)?))),
            Marker::U32 => Some(u64::from(u32::from_be_bytes(self.array_of(field, at)?))),
            Marker::U64 => Some(u64::from_be_bytes(self.array_of(field, at)?)),
            Marker::I8 => u64::try_from(i8::from_be_bytes(self.array_of(field, at)?)).ok(),
            Marker::I16 => u64::try_from(i16::from_be_bytes(self.array_of(field, at)?)).ok(),
            Marker::I32 => u64::try_from(i32::from_be_bytes(self.array_of(field, at)?)).ok(),
            Marker::I64 => u64::try_from(i64::from_be_bytes(self.array_of(field, at)?)).ok(),
            other => return Err(wrong_type(field, at, "an integer", other)),
        };
        number
            .filter(|number| *number <= max)
            .ok_or(DecodeError::OutOfRange { field, at, max })
    }

    /// Reads one of the numbers that `meaning` knows.
    pub(super) fn one_of<T>(&mut self, field: &'static str, meaning: impl FnOnce(u64) -> Option<T>) -> Decoded<T> {
        let at = self.at;
        let value = self.number(field)?;
        meaning(value).ok_or(DecodeError::UnknownValue { field, at, value })
    }

    /// Reads a text.
    pub(super) fn text(&mut self, field: &'static str) -> Decoded<&'f str> {
        let at = self.at;
        let length = match self.marker(field)? {
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 => self.length::<1>(field, at)?,
            Marker::Str16 => self.length::<2>(field, at)?,
            Marker::Str32 => self.length::<4>(field, at)?,
            other => return Err(wrong_type(field, at, "a text", other)),
        };
        let text = self.take(field, at, length)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::BadUtf8 { field, at })
    }

    /// Reads a byte string as a slice of the frame.
    pub(super) fn bytes(&mut self, field: &'static str) -> Decoded<Bytes> {
        let bytes = self.bin(field)?;
        Ok(if bytes.is_empty() {
            Bytes::new()
        } else {
            self.frame.slice_ref(bytes)
        })
    }

    /// Reads a document id.
    pub(super) fn document(&mut self, field: &'static str) -> Decoded<DocumentId> {
        let at = self.at;
        self.text(field)?
            .parse()
            .map_err(|reason| DecodeError::BadDocumentId { field, at, reason })
    }

    /// Reads a change hash.
    pub(super) fn hash(&mut self, field: &'static str) -> Decoded<ChangeHash> {
        let at = self.at;
        let bytes = self.bin(field)?;
        let hash = bytes.try_into().map_err(|_| DecodeError::BadHash {
            field,
            at,
            length: bytes.len(),
        })?;
        Ok(ChangeHash(hash))
    }

    /// Reads a cursor, `[epoch, position]`.
    pub(super) fn cursor(&mut self, field: &'static str) -> Decoded<Cursor> {
        self.tuple(field, 2, |reader| {
            let epoch = Epoch::new(reader.number(field)?);
            let position = Position::new(reader.number(field)?);
            Ok(Cursor { epoch, position })
        })
    }

    fn fields<T>(
        &mut self,
        field: &'static str,
        at: usize,
        length: usize,
        needed: usize,
        read: impl FnOnce(&mut Self) -> Decoded<T>,
    ) -> Decoded<T> {
        if length < needed {
            return Err(DecodeError::TooFewFields {
                field,
                at,
                needed,
                length,
            });
        }
        let value = read(self)?;
        for _ in needed..length {
            self.skip(field, SKIP_DEPTH_MAX)?;
        }
        Ok(value)
    }

    fn array(&mut self, field: &'static str) -> Decoded<usize> {
        let at = self.at;
        match self.marker(field)? {
            Marker::FixArray(length) => Ok(usize::from(length)),
            Marker::Array16 => self.length::<2>(field, at),
            Marker::Array32 => self.length::<4>(field, at),
            other => Err(wrong_type(field, at, "an array", other)),
        }
    }

    fn bin(&mut self, field: &'static str) -> Decoded<&'f [u8]> {
        let at = self.at;
        let length = match self.marker(field)? {
            Marker::Bin8 => self.length::<1>(field, at)?,
            Marker::Bin16 => self.length::<2>(field, at)?,
            Marker::Bin32 => self.length::<4>(field, at)?,
            other => return Err(wrong_type(field, at, "a byte string", other)),
        };
        self.take(field, at, length)
    }

    /// Steps over one value of any type, which may nest `depth` levels. Takes time in proportion to its bytes, and no memory.
    fn skip(&mut self, field: &'static str, depth: usize) -> Decoded<()> {
        let at = self.at;
        let bytes = match self.marker(field)? {
            Marker::FixPos(_) | Marker::FixNeg(_) | Marker::Null | Marker::True | Marker::False => 0,
            Marker::U8 | Marker::I8 => 1,
            Marker::U16 | Marker::I16 | Marker::FixExt1 => 2,
            Marker::FixExt2 => 3,
            Marker::U32 | Marker::I32 | Marker::F32 => 4,
            Marker::FixExt4 => 5,
            Marker::U64 | Marker::I64 | Marker::F64 => 8,
            Marker::FixExt8 => 9,
            Marker::FixExt16 => 17,
            Marker::FixStr(length) => usize::from(length),
            Marker::Str8 | Marker::Bin8 => self.length::<1>(field, at)?,
            Marker::Str16 | Marker::Bin16 => self.length::<2>(field, at)?,
            Marker::Str32 | Marker::Bin32 => self.length::<4>(field, at)?,
            Marker::Ext8 => self.length::<1>(field, at)? + 1,
            Marker::Ext16 => self.length::<2>(field, at)? + 1,
            Marker::Ext32 => self.length::<4>(field, at)? + 1,
            Marker::FixArray(length) => return self.skip_nested(field, at, depth, usize::from(length)),
            Marker::FixMap(length) => return self.skip_nested(field, at, depth, usize::from(length) * 2),
            Marker::Array16 => {
                let values = self.length::<2>(field, at)?;
                return self.skip_nested(field, at, depth, values);
            }
            Marker::Array32 => {
                let values = self.length::<4>(field, at)?;
                return self.skip_nested(field, at, depth, values);
            }
            Marker::Map16 => {
                let values = self.length::<2>(field, at)? * 2;
                return self.skip_nested(field, at, depth, values);
            }
            Marker::Map32 => {
                let values = self.length::<4>(field, at)? * 2;
                return self.skip_nested(field, at, depth, values);
            }
            Marker::Reserved => return Err(wrong_type(field, at, "a value", Marker::Reserved)),
        };
        self.take(field, at, bytes).map(|_| ())
    }

    fn skip_nested(&mut self, field: &'static str, at: usize, depth: usize, values: usize) -> Decoded<()> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(DecodeError::TooDeep {
                at,
                max: SKIP_DEPTH_MAX,
            });
        };
        (0..values).try_for_each(|_| self.skip(field, depth))
    }

    fn marker(&mut self, field: &'static str) -> Decoded<Marker> {
        let [marker] = self.array_of(field, self.at)?;
        Ok(Marker::from_u8(marker))
    }

    /// Reads a length of `N` bytes. A value never has more elements or bytes than the frame has bytes left.
    fn length<const N: usize>(&mut self, field: &'static str, at: usize) -> Decoded<usize> {
        let bytes: [u8; N] = self.array_of(field, at)?;
        let length = bytes
            .iter()
            .fold(0, |length: usize, byte| (length << 8) | usize::from(*byte));
        if length > self.remaining() {
            return Err(DecodeError::Truncated { field, at });
        }
        Ok(length)
    }

    fn array_of<const N: usize>(&mut self, field: &'static str, at: usize) -> Decoded<[u8; N]> {
        let (bytes, _) = self.frame[self.at..]
            .split_first_chunk()
            .ok_or(DecodeError::Truncated { field, at })?;
        self.at += N;
        Ok(*bytes)
    }

    fn take(&mut self, field: &'static str, at: usize, length: usize) -> Decoded<&'f [u8]> {
        let (bytes, _) = self.frame[self.at..]
            .split_at_checked(length)
            .ok_or(DecodeError::Truncated { field, at })?;
        self.at += length;
        Ok(bytes)
    }

    fn remaining(&self) -> usize {
        self.frame.len() - self.at
    }
}

fn wrong_type(field: &'static str, at: usize, expected: &'static str, found: Marker) -> DecodeError {
    let found = match found {
        Marker::Null => "nil",
        Marker::True | Marker::False => "a boolean",
        Marker::F32 | Marker::F64 => "a float",
        Marker::FixPos(_) | Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => "an integer",
        Marker::FixNeg(_) | Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => "an integer",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "a text",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "a byte string",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "an array",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        Marker::Reserved => "the byte 0xc1, which MessagePack does not use",
        _ => "an extension value",
    };
    DecodeError::WrongType {
        field,
        at,
        expected,
        found,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_held_against_the_frame_before_its_first_entry() {
        // Three entries of at least 34 bytes cannot be in 34 bytes, though the first one is whole.
        let frame: Bytes = [&[0x93, 0xc4, 0x20][..], &[0; 32]].concat().into();
        let mut reader = Reader { frame: &frame, at: 0 };
        let mut read = 0;
        let hashes = reader.list("heads", 10, 34, |reader| {
            read += 1;
            reader.hash("heads")
        });
        assert_eq!(
            (hashes, read),
            (Err(DecodeError::Truncated { field: "heads", at: 0 }), 0)
        );
    }
}
