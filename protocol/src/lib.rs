//! The wire of Syncline: ids, messages, codecs, close codes and limits.
//!
//! `SPEC.md` beside this crate is the full text, in numbered rules; `vectors/` holds every message as meaning and bytes.
//! This crate knows neither Automerge nor any socket, file or clock: changes and tokens are opaque bytes and strings here.

mod close;
mod document_id;
mod ids;
mod limits;
pub mod native;
pub mod repo;

pub use close::CloseCode;
pub use document_id::{DocumentId, DocumentIdError};
pub use ids::{ChangeHash, Cursor, EditId, Epoch, Position, RoomNumber, SessionId};
pub use limits::{Limits, SUBPROTOCOL, VERSION};
