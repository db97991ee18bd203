//! The name of a document, parsed once at the edge.

use std::{fmt, str::FromStr, sync::Arc};

/// 1 to 128 characters of `A-Z a-z 0-9 . _ - /`, no empty part between slashes, no part `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<str>);

impl DocumentId {
    /// The longest id, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a document id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentIdError {
    /// No characters, or more than 128.
    #[error("a document id has 1 to 128 characters, this one has {0}")]
    Length(usize),
    /// A character outside the alphabet.
    #[error("a document id is made of A-Z a-z 0-9 . _ - / and nothing else")]
    Character,
    /// Nothing between two slashes, or at an end, or `..`.
    #[error("a document id has no empty part and no part '..'")]
    Part,
}

impl FromStr for DocumentId {
    type Err = DocumentIdError;

    fn from_str(text: &str) -> Result<Self, DocumentIdError> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(DocumentIdError::Length(text.len()));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(DocumentIdError::Character);
        }
        if text.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(DocumentIdError::Part);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DocumentId({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d1_document_ids() {
        let check = |text: &str, expected: Result<(), DocumentIdError>| {
            assert_eq!(text.parse::<DocumentId>().map(|_| ()), expected, "{text}");
        };
        check("a", Ok(()));
        check("team-1/notes/2026.11_22", Ok(()));
        check(&"x".repeat(128), Ok(()));
        check("", Err(DocumentIdError::Length(0)));
        check(&"x".repeat(129), Err(DocumentIdError::Length(129)));
        check("a b", Err(DocumentIdError::Character));
        check("ä", Err(DocumentIdError::Character));
        check("a\0", Err(DocumentIdError::Character));
        check("/a", Err(DocumentIdError::Part));
        check("a/", Err(DocumentIdError::Part));
        check("a//b", Err(DocumentIdError::Part));
        check("a/../b", Err(DocumentIdError::Part));
    }
}
