//! Pieces of the document that are being read, or were read lately: members who stand at the same place share one read. Many join
//! one document at once.

use crate::engine::room::{ReadFailure, Slice, Source, Ticket};
use std::collections::VecDeque;
use syncline_protocol::{Position, SessionId};

/// Bytes of pieces that are kept for who comes a little later, as a multiple of a part.
const KEPT_PARTS_MAX: u64 = 4;

/// What a member asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    from: Source,
    /// Nothing at or after it is in a piece of the log; a piece of a snapshot is the same whatever was stored since.
    to: Option<Position>,
    deflate: bool,
    /// Up to where it may come as a bundle.
    bundled_to: Option<Position>,
}

impl Piece {
    pub(super) fn new(from: Source, to: Position, deflate: bool, bundled_to: Option<Position>) -> Self {
        let to = match from {
            Source::Snapshot { .. } => None,
            Source::Log { .. } => Some(to),
        };
        Self {
            from,
            to,
            deflate,
            bundled_to,
        }
    }
}

/// Who asks.
pub(super) type Asker = (SessionId, Ticket);

/// How a question is answered.
#[derive(Debug)]
pub(super) enum Asked {
    /// By reading.
    Anew,
    /// With the answer to another.
    Shared,
    /// Here.
    Kept(Slice),
}

/// The pieces of one room.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// With whom the read is for, and who waits besides.
    under_way: Vec<(Piece, Ticket, Vec<Asker>)>,
    kept: VecDeque<(Piece, Slice)>,
    kept_bytes: u64,
}

impl Pieces {
    pub(super) fn ask(&mut self, piece: Piece, asker: Asker) -> Asked {
        if let Some((_, slice)) = self.kept.iter().find(|(kept, _)| *kept == piece) {
            return Asked::Kept(slice.clone());
        }
        match self.under_way.iter_mut().find(|(asked, ..)| *asked == piece) {
            Some((.., others)) => {
                others.push(asker);
                Asked::Shared
            }
            None => {
                self.under_way.push((piece, asker.1, Vec::new()));
                Asked::Anew
            }
        }
    }

    /// A read has ended. Answers with the others who waited for it.
    pub(super) fn answered(
        &mut self,
        ticket: Ticket,
        result: &Result<Slice, ReadFailure>,
        part_bytes_max: u64,
    ) -> Vec<Asker> {
        let Some(place) = self.under_way.iter().position(|(_, asked, _)| *asked == ticket) else {
            return Vec::new();
        };
        let (piece, _, others) = self.under_way.swap_remove(place);
        if let Ok(slice) = result {
            self.kept_bytes += slice.bytes.len() as u64;
            self.kept.push_back((piece, slice.clone()));
        }
        while self.kept_bytes > KEPT_PARTS_MAX * part_bytes_max {
            let Some((_, dropped)) = self.kept.pop_front() else {
                break;
            };
            self.kept_bytes -= dropped.bytes.len() as u64;
        }
        others
    }

    /// Nobody is on the way any more, or what was read is not what is stored any more.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
    }

    pub(super) fn kept_bytes(&self) -> u64 {
        self.kept_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use syncline_protocol::native::Packing;

    fn piece(from: u64, to: u64) -> Piece {
        Piece::new(Source::log(Position::new(from)), Position::new(to), true, None)
    }

    fn slice(bytes: usize) -> Result<Slice, ReadFailure> {
        Ok(Slice {
            packing: Packing::Plain,
            bytes: Bytes::from(vec![7; bytes]),
            plain_bytes: bytes as u64,
            log_bytes_before: 0,
            next: Source::log(Position::new(9)),
        })
    }

    #[test]
    fn who_asks_for_the_same_shares_the_answer() {
        let mut pieces = Pieces::default();
        let asker = |number| (SessionId::new(number), Ticket::numbered(number));
        assert!(matches!(pieces.ask(piece(0, 9), asker(1)), Asked::Anew));
        assert!(matches!(pieces.ask(piece(0, 9), asker(2)), Asked::Shared));
        assert!(
            matches!(pieces.ask(piece(3, 9), asker(3)), Asked::Anew),
            "another place"
        );
        assert!(
            matches!(pieces.ask(piece(0, 10), asker(4)), Asked::Anew),
            "more was stored"
        );
        let others = pieces.answered(Ticket::numbered(1), &slice(100), 1_000);
        assert_eq!(others, [asker(2)]);
        assert!(
            matches!(pieces.ask(piece(0, 9), asker(5)), Asked::Kept(_)),
            "a little later"
        );
        assert_eq!(pieces.kept_bytes(), 100);
        assert!(
            pieces
                .answered(Ticket::numbered(3), &Err(ReadFailure::Gone), 1_000)
                .is_empty()
        );
        assert!(
            matches!(pieces.ask(piece(3, 9), asker(6)), Asked::Anew),
            "a failure is not kept"
        );
        pieces.answered(Ticket::numbered(4), &slice(3_950), 1_000);
        assert_eq!(pieces.kept_bytes(), 3_950, "the oldest goes");
        pieces.forget();
        assert!(matches!(pieces.ask(piece(0, 10), asker(7)), Asked::Anew));
    }
}
