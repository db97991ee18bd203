//! Numbers and byte strings in the store's records: LEB128 numbers, lengths before bytes. Reading never trusts a length.

use bytes::{Buf, Bytes};
use syncline_protocol::ChangeHash;

use super::record::Damaged;

/// Appends `number`, seven bits a byte, the lowest first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Appends the length of `bytes` and `bytes`.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Reads what the functions above wrote.
#[derive(Debug)]
pub(super) struct Reader {
    rest: Bytes,
}

impl Reader {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    pub(super) fn number(&mut self) -> Result<u64, Damaged> {
        let mut number = 0u64;
        for shift in (0..).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift > 63 || (bits << shift) >> shift != bits {
                return Err(Damaged::new("a number in a record is too large"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Ok(number)
    }

    /// A number of things that take at least one byte each: never more than bytes are left.
    pub(super) fn count(&mut self) -> Result<usize, Damaged> {
        let count = self.number()?;
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.rest.len())
            .ok_or_else(|| Damaged::new("a record counts more than it holds"))
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, Damaged> {
        let length = self.count()?;
        Ok(self.rest.split_to(length))
    }

    pub(super) fn text(&mut self) -> Result<String, Damaged> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes.to_vec()).map_err(|_| Damaged::new("a text in a record is not UTF-8"))
    }

    pub(super) fn hash(&mut self) -> Result<ChangeHash, Damaged> {
        let mut hash = [0; 32];
        if self.rest.len() < hash.len() {
            return Err(Damaged::new("a record ends amid a hash"));
        }
        self.rest.copy_to_slice(&mut hash);
        Ok(ChangeHash(hash))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Damaged> {
        if self.rest.is_empty() {
            return Err(Damaged::new("a record ends too early"));
        }
        Ok(self.rest.get_u8())
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Damaged> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Damaged::new("a record goes on after its end"))
        }
    }
}
