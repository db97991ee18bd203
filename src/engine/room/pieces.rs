//! Pieces of the document that members read on their way to the present: those who stand at the same place share one read, and
//! one encoding of what came of it. Many members join one document at once.

use super::{Slice, Source, Ticket, event::Forms};
use bytes::Bytes;
use std::collections::VecDeque;
use syncline_protocol::{Cursor, Position};

/// Bytes of pieces that are kept for who comes a little later, as a multiple of a part.
const KEPT_PARTS_MAX: u64 = 4;

/// What a member asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    from: Source,
    /// Nothing at or after it is in a piece of the log; a piece of a snapshot is the same whatever was stored since.
    to: Option<Position>,
    forms: Forms,
}

impl Piece {
    pub(super) fn new(from: Source, to: Position, forms: Forms) -> Self {
        let to = match from {
            Source::Snapshot { .. } => None,
            Source::Log { .. } => Some(to),
        };
        Self { from, to, forms }
    }
}

/// The pieces that were read lately or are being read.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    asked: Vec<(Piece, Ticket)>,
    kept: VecDeque<(Piece, Slice)>,
    kept_bytes: u64,
    last_frame: Option<(Bytes, Option<Cursor>, Bytes)>,
}

impl Pieces {
    /// The ticket of the read that brings this piece, if one is under way.
    pub(super) fn ticket(&self, piece: &Piece) -> Option<Ticket> {
        let found = self.asked.iter().find(|(asked, _)| asked == piece);
        found.map(|(_, ticket)| *ticket)
    }

    pub(super) fn ask(&mut self, piece: Piece, ticket: Ticket) {
        self.asked.push((piece, ticket));
    }

    /// A read has been answered.
    pub(super) fn answered(&mut self, ticket: Ticket, slice: Option<&Slice>, part_bytes_max: u64) {
        let Some(place) = self.asked.iter().position(|(_, asked)| *asked == ticket) else {
            return;
        };
        let (piece, _) = self.asked.swap_remove(place);
        let Some(slice) = slice else { return };
        self.kept_bytes += slice.bytes.len() as u64;
        self.kept.push_back((piece, slice.clone()));
        while self.kept_bytes > KEPT_PARTS_MAX * part_bytes_max {
            let Some((_, dropped)) = self.kept.pop_front() else {
                return;
            };
            self.kept_bytes -= dropped.bytes.len() as u64;
        }
    }

    pub(super) fn kept(&self, piece: &Piece) -> Option<Slice> {
        let found = self.kept.iter().find(|(kept, _)| kept == piece);
        found.map(|(_, slice)| slice.clone())
    }

    /// The frame of a part with these bytes: the last one made, if it is the same.
    pub(super) fn frame(&mut self, bytes: &Bytes, end: Option<Cursor>, encode: impl FnOnce() -> Bytes) -> Bytes {
        if let Some((of, at, frame)) = &self.last_frame
            && (of.as_ptr(), of.len(), *at) == (bytes.as_ptr(), bytes.len(), end)
        {
            return frame.clone();
        }
        let frame = encode();
        self.last_frame = Some((bytes.clone(), end, frame.clone()));
        frame
    }

    /// Nobody is on the way any more. What is being read is answered all the same.
    pub(super) fn forget(&mut self) {
        self.kept.clear();
        self.kept_bytes = 0;
        self.last_frame = None;
    }

    pub(super) fn bytes(&self) -> usize {
        self.kept_bytes as usize + self.last_frame.as_ref().map_or(0, |(_, _, frame)| frame.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.last_frame.is_none()
    }
}
