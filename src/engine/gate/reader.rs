//! Reads numbers and slices off untrusted bytes: bounds-checked, shortest encodings only, no allocation.

use super::Refusal;

/// What is left of some bytes.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: Refusal = Refusal::Dishonest("the change ends in the middle of a field");
const NOT_SHORTEST: Refusal = Refusal::Dishonest("a number in the change is not in its shortest form");
const TOO_LARGE: Refusal = Refusal::Dishonest("a number in the change has more than 64 bits");

impl<'a> Reader<'a> {
    pub(in crate::engine) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Bytes left.
    pub(in crate::engine) fn len(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub(in crate::engine) fn take(&mut self, count: u64) -> Result<&'a [u8], Refusal> {
        let count = usize::try_from(count).map_err(|_| SHORT)?;
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(SHORT)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(in crate::engine) fn byte(&mut self) -> Result<u8, Refusal> {
        let (&byte, rest) = self.rest.split_first().ok_or(SHORT)?;
        self.rest = rest;
        Ok(byte)
    }

    /// An unsigned LEB128. Most have one byte.
    #[inline]
    pub(in crate::engine) fn unsigned(&mut self) -> Result<u64, Refusal> {
        match self.rest {
            [byte @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(*byte))
            }
            _ => self.long_unsigned(),
        }
    }

    fn long_unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err(TOO_LARGE);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return if shift > 0 && byte == 0 {
                    Err(NOT_SHORTEST)
                } else {
                    Ok(value)
                };
            }
        }
        Err(TOO_LARGE)
    }

    /// A signed LEB128. Most have one byte, with the sign in its seventh bit.
    #[inline]
    pub(in crate::engine) fn signed(&mut self) -> Result<i64, Refusal> {
        match self.rest {
            [byte @ 0..=0x7f, rest @ ..] => {
                self.rest = rest;
                Ok(i64::from(*byte ^ 0x40) - 0x40)
            }
            _ => self.long_signed(),
        }
    }

    fn long_signed(&mut self) -> Result<i64, Refusal> {
        let (mut value, mut before) = (0, 0);
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte != 0 && byte != 0x7f {
                return Err(TOO_LARGE);
            }
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let repeats_sign = matches!((byte, before & 0x40), (0, 0) | (0x7f, 0x40));
                if shift > 0 && repeats_sign {
                    return Err(NOT_SHORTEST);
                }
                if byte & 0x40 != 0 && shift < 57 {
                    value |= -1 << (shift + 7);
                }
                return Ok(value);
            }
            before = byte;
        }
        Err(TOO_LARGE)
    }
}

/// Appends an unsigned LEB128 in its shortest form.
pub(in crate::engine) fn write_unsigned(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_numbers() {
        let check = |bytes: &[u8], expected: Result<u64, Refusal>| {
            assert_eq!(Reader::new(bytes).unsigned(), expected, "{bytes:02x?}");
        };
        check(&[0], Ok(0));
        check(&[0x7f], Ok(127));
        check(&[0x80, 1], Ok(128));
        check(&[0x80, 0], Err(NOT_SHORTEST));
        check(&[0x80], Err(SHORT));
        check(&[], Err(SHORT));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Ok(u64::MAX));
        check(
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            Err(TOO_LARGE),
        );
        check(&[0xff; 11], Err(TOO_LARGE));
        for value in [0, 1, 127, 128, 300, 1 << 35, u64::MAX] {
            let mut bytes = Vec::new();
            write_unsigned(&mut bytes, value);
            check(&bytes, Ok(value));
        }
    }

    #[test]
    fn signed_numbers() {
        let check = |bytes: &[u8], expected: Result<i64, Refusal>| {
            assert_eq!(Reader::new(bytes).signed(), expected, "{bytes:02x?}");
        };
        check(&[0], Ok(0));
        check(&[0x7f], Ok(-1));
        check(&[0x3f], Ok(63));
        check(&[0x40], Ok(-64));
        check(&[0xc0, 0], Ok(64));
        check(&[0xbf, 0x7f], Ok(-65));
        check(&[0xbf, 0], Err(NOT_SHORTEST));
        check(&[0xc0, 0x7f], Err(NOT_SHORTEST));
        check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0], Ok(i64::MAX));
        check(
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f],
            Ok(i64::MIN),
        );
        check(
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1],
            Err(TOO_LARGE),
        );
        check(&[0xff], Err(SHORT));
    }

    #[test]
    fn slices_stay_within_the_bytes() {
        let mut reader = Reader::new(b"abc");
        assert_eq!(reader.take(2), Ok(&b"ab"[..]));
        assert_eq!(reader.take(2), Err(SHORT));
        assert_eq!(reader.take(u64::MAX), Err(SHORT));
        assert_eq!((reader.len(), reader.take(1)), (1, Ok(&b"c"[..])));
        assert!(reader.is_empty());
    }
}
