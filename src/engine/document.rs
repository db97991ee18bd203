//! The Automerge document behind a room: merge, verify, snapshot. Costly, so never on an I/O thread.

use std::sync::Arc;

/// A merged document. Cheap to clone; merging makes a new one.
#[derive(Clone, Debug)]
pub struct Document {
    automerge: Arc<automerge::Automerge>,
}

impl Document {
    /// Wraps an Automerge document.
    pub fn new(automerge: automerge::Automerge) -> Self {
        Self {
            automerge: Arc::new(automerge),
        }
    }

    /// The document itself, for looking things up.
    pub fn automerge(&self) -> &automerge::Automerge {
        &self.automerge
    }
}
