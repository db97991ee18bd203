//! The pieces of a document on their way in.

use flate2::read::DeflateDecoder;
use std::io::Read;
use syncline_protocol::native::{Packing, Part};

/// Why the pieces are not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoadingError {
    #[error("the document is larger than the {0} bytes that this client takes; raise loading_bytes_max")]
    TooLarge(u64),
    #[error("a part of the document cannot be inflated")]
    Deflate,
}

/// The inflated pieces so far.
#[derive(Debug, Default)]
pub(super) struct Loading {
    pub(super) chunks: Vec<u8>,
}

impl Loading {
    /// Adds a piece, inflated; all together at most `bytes_max`.
    pub(super) fn take_in(&mut self, part: &Part, bytes_max: u64) -> Result<(), LoadingError> {
        let room = bytes_max.saturating_sub(self.chunks.len() as u64);
        match part.packing {
            Packing::Plain if part.bytes.len() as u64 <= room => self.chunks.extend_from_slice(&part.bytes),
            Packing::Plain => return Err(LoadingError::TooLarge(bytes_max)),
            Packing::Deflate => {
                let mut inflated = DeflateDecoder::new(&part.bytes[..]).take(room + 1);
                let read = inflated
                    .read_to_end(&mut self.chunks)
                    .map_err(|_| LoadingError::Deflate)?;
                if read as u64 > room {
                    return Err(LoadingError::TooLarge(bytes_max));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flate2::{Compression, write::DeflateEncoder};
    use std::io::Write;
    use syncline_protocol::RoomNumber;

    fn part(packing: Packing, bytes: Vec<u8>) -> Part {
        Part {
            room: RoomNumber::new(1),
            packing,
            bytes: Bytes::from(bytes),
            end: None,
        }
    }

    fn deflated(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn o12_parts_are_inflated_each_by_itself_under_one_cap() {
        let mut loading = Loading::default();
        loading.take_in(&part(Packing::Plain, vec![1; 10]), 100).unwrap();
        loading
            .take_in(&part(Packing::Deflate, deflated(&[2; 50])), 100)
            .unwrap();
        loading
            .take_in(&part(Packing::Deflate, deflated(&[3; 40])), 100)
            .unwrap();
        assert_eq!(loading.chunks, [vec![1; 10], vec![2; 50], vec![3; 40]].concat());

        let check = |piece: Part, expected: LoadingError| {
            let mut loading = Loading { chunks: vec![0; 60] };
            assert_eq!(loading.take_in(&piece, 100), Err(expected));
        };
        check(part(Packing::Plain, vec![0; 41]), LoadingError::TooLarge(100));
        check(part(Packing::Deflate, deflated(&[0; 41])), LoadingError::TooLarge(100));
        check(
            part(Packing::Deflate, deflated(&[0; 10_000_000])),
            LoadingError::TooLarge(100),
        );
        check(part(Packing::Deflate, vec![0xff; 20]), LoadingError::Deflate);
    }
}
