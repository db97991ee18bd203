//! A MessagePack writer into one allocation. Every value takes its shortest form, so that a message has one encoding.

use crate::{ChangeHash, Cursor, DocumentId, ids::NUMBER_MAX};
use bytes::Bytes;
use rmp::encode::{self, buffer::ByteBuf};

/// The longest head of a text, a byte string, an array or a map: a marker and four bytes of length.
pub(super) const HEAD_BYTES_MAX: usize = 5;
/// The longest number: a marker and eight bytes.
pub(super) const NUMBER_BYTES_MAX: usize = 9;
/// The longest cursor.
pub(super) const CURSOR_BYTES_MAX: usize = 1 + 2 * NUMBER_BYTES_MAX;
/// A change hash.
pub(super) const HASH_BYTES: usize = 2 + 32;

/// A message on its way into bytes.
pub(super) struct Writer(ByteBuf);

impl Writer {
    /// Begins a message of `fields` elements, the number among them, in room for `payload_bytes_max` bytes after the number.
    pub(super) fn begin(number: u64, fields: usize, payload_bytes_max: usize) -> Self {
        let mut writer = Self(ByteBuf::with_capacity(2 + payload_bytes_max));
        writer.array(fields);
        writer.number(number);
        writer
    }

    /// The frame.
    pub(super) fn finish(self) -> Bytes {
        Bytes::from(self.0.into_vec())
    }

    pub(super) fn array(&mut self, length: usize) {
        let Ok(_) = encode::write_array_len(&mut self.0, length_u32(length));
    }

    pub(super) fn map(&mut self, length: usize) {
        let Ok(_) = encode::write_map_len(&mut self.0, length_u32(length));
    }

    /// Writes a number; one above 2^53 - 1 becomes 2^53 - 1.
    pub(super) fn number(&mut self, number: u64) {
        let Ok(_) = encode::write_uint(&mut self.0, number.min(NUMBER_MAX));
    }

    pub(super) fn text(&mut self, text: &str) {
        length_u32(text.len());
        let Ok(_) = encode::write_str(&mut self.0, text);
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        length_u32(bytes.len());
        let Ok(_) = encode::write_bin(&mut self.0, bytes);
    }

    /// Writes nil for `None`.
    pub(super) fn optional<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => {
                let Ok(_) = encode::write_nil(&mut self.0);
            }
        }
    }

    pub(super) fn list<T>(&mut self, entries: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.array(entries.len());
        for entry in entries {
            write(self, entry);
        }
    }

    pub(super) fn cursor(&mut self, cursor: Cursor) {
        self.array(2);
        self.number(cursor.epoch.number());
        self.number(cursor.position.number());
    }

    pub(super) fn heads(&mut self, heads: &[ChangeHash]) {
        self.list(heads, |writer, head| writer.bytes(&head.0));
    }

    pub(super) fn document(&mut self, document: &DocumentId) {
        self.text(document.as_str());
    }
}

/// How long a number is.
pub(super) fn number_bytes(number: u64) -> usize {
    match number {
        0..=0x7f => 1,
        0x80..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => NUMBER_BYTES_MAX,
    }
}

/// How long a cursor is.
pub(super) fn cursor_bytes(cursor: Cursor) -> usize {
    1 + number_bytes(cursor.epoch.number()) + number_bytes(cursor.position.number())
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("a message is far smaller than 4 GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Epoch, Position};

    #[test]
    fn what_is_measured_is_as_long_as_what_is_written() {
        for bits in 0..64 {
            for number in [(1_u64 << bits) - 1, 1 << bits] {
                let cursor = Cursor {
                    epoch: Epoch::new(number),
                    position: Position::new(number),
                };
                let mut writer = Writer::begin(1, 3, 0);
                let begun = writer.0.as_vec().len();
                writer.number(number);
                assert_eq!(writer.0.as_vec().len() - begun, number_bytes(number), "{number}");
                writer.cursor(cursor);
                let both = number_bytes(number) + cursor_bytes(cursor);
                assert_eq!(writer.0.as_vec().len() - begun, both, "{number}");
            }
        }
    }
}
