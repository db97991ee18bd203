//! Why bytes are not a message: what is wrong, in which field, at which byte.

use crate::DocumentIdError;

/// Why bytes are not a message. `field` is the field's name in SPEC.md, `at` the offset in the frame of the value at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The frame ends before the value does, or a length claims more bytes than the frame has left.
    #[error("the frame ends inside {field}, which begins at byte {at}")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
    },
    /// A value of another MessagePack type than the field's.
    #[error("{field} at byte {at} must be {expected}, not {found}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
        /// What belongs there.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// A number below zero, or above the field's largest (2^53 - 1, unless the field has a lower one).
    #[error("{field} at byte {at} must be between 0 and {max}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
        /// The largest number that the field takes.
        max: u64,
    },
    /// A number that stands for none of the field's meanings.
    #[error("{field} at byte {at} has no meaning {value}")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
        /// The number.
        value: u64,
    },
    /// A text that is not UTF-8.
    #[error("{field} at byte {at} is not UTF-8")]
    BadUtf8 {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
    },
    /// A text that is not a document id.
    #[error("{field} at byte {at}: {reason}")]
    BadDocumentId {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
        /// What is wrong with it.
        #[source]
        reason: DocumentIdError,
    },
    /// A change hash that has not 32 bytes.
    #[error("{field} at byte {at} must have 32 bytes, not {length}")]
    BadHash {
        /// The field.
        field: &'static str,
        /// Where its value begins.
        at: usize,
        /// How many bytes it has.
        length: usize,
    },
    /// An array with fewer elements than its meaning needs.
    #[error("{field} at byte {at} needs {needed} elements and has {length}")]
    TooFewFields {
        /// The message or the structure inside it.
        field: &'static str,
        /// Where the array begins.
        at: usize,
        /// How many elements it needs.
        needed: usize,
        /// How many it has.
        length: usize,
    },
    /// A list that is longer than any peer may make it.
    #[error("{field} at byte {at} may have at most {max} entries, not {length}")]
    ListTooLong {
        /// The field.
        field: &'static str,
        /// Where the list begins.
        at: usize,
        /// The most entries.
        max: usize,
        /// How many it claims.
        length: usize,
    },
    /// A value beyond those known, which is to be skipped, nests too deeply.
    #[error("a value beyond those known nests deeper than {max} levels at byte {at}")]
    TooDeep {
        /// Where the level too many begins.
        at: usize,
        /// The most levels.
        max: usize,
    },
    /// A message number that this side does not take.
    #[error("there is no message {0} in this direction")]
    UnknownMessage(u64),
    /// Bytes after the message.
    #[error("{count} bytes follow after the message, which ends at byte {at}")]
    TrailingBytes {
        /// Where the message ends.
        at: usize,
        /// How many bytes follow.
        count: usize,
    },
}

impl DecodeError {
    /// The name of the kind of error, as the vectors and the metrics have it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::WrongType { .. } => "wrong_type",
            Self::OutOfRange { .. } => "out_of_range",
            Self::UnknownValue { .. } => "unknown_value",
            Self::BadUtf8 { .. } => "bad_utf8",
            Self::BadDocumentId { .. } => "bad_document_id",
            Self::BadHash { .. } => "bad_hash",
            Self::TooFewFields { .. } => "too_few_fields",
            Self::ListTooLong { .. } => "list_too_long",
            Self::TooDeep { .. } => "too_deep",
            Self::UnknownMessage(_) => "unknown_message",
            Self::TrailingBytes { .. } => "trailing_bytes",
        }
    }
}
