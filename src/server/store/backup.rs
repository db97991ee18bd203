//! Copies the documents of a store that may be in use into a new one. Each is there as it was at some moment after the copy
//! began, so everything that was synced before is in it. The copy is another life of the store.

use super::{
    Store, StoreError,
    compaction::deletes,
    key::{self, DOCUMENT_KINDS},
    kv::{Batch, Kv},
    layout::COMPACTION_BATCH_BYTES,
    sled::{SledKv, SledOptions},
};
use crate::server::failpoints::Switch;
use std::{
    ops::{ControlFlow, Range},
    path::Path,
    sync::Arc,
};
use syncline_protocol::DocumentId;

/// How often a document is copied that is compacted meanwhile, until it is taken for damaged.
const ATTEMPTS: usize = 8;
/// Names are listed so many at a time.
const PAGE: usize = 1_000;
/// Pages of the copy are written once.
const CACHE_BYTES: u64 = 8 << 20;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// How many documents.
    pub documents: u64,
    /// Of these, the ones that are damaged, and are so in the copy.
    pub damaged: Vec<DocumentId>,
}

impl Store {
    /// Copies all documents into a new store in `directory`, as long as `goes_on` says so. Every document of the copy was read
    /// back, or is among the damaged ones.
    ///
    /// # Errors
    /// `Closed` when it was not to go on, `NotAStore` if `directory` holds anything, and what either store says.
    pub fn back_up(&self, directory: &Path, goes_on: &dyn Fn() -> bool) -> Result<Copied, StoreError> {
        let options = SledOptions {
            cache_bytes: CACHE_BYTES,
            ..SledOptions::default()
        };
        let copy = Self::open(Arc::new(SledKv::open(directory, options)?))?;
        let mut copied = Copied::default();
        let mut after: Option<DocumentId> = None;
        loop {
            let page = self.documents(after.as_ref(), PAGE)?;
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            for document in page {
                if !goes_on() {
                    return Err(StoreError::Closed);
                }
                copied.documents += 1;
                if !self.copy_document(&document, &copy)? {
                    copied.damaged.push(document);
                }
            }
        }
        let mut mark = Batch::default();
        // Whoever serves the copy finds that it is not where it was, and begins all documents' epochs anew.
        mark.put(key::life(), Vec::new());
        copy.kv.commit(&mark)?;
        Ok(copied)
    }

    /// Whether the document is whole in the copy.
    fn copy_document(&self, document: &DocumentId, copy: &Self) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS {
            let before = self.meta(document);
            let is_read = self.copy_keys(document, &*copy.kv)?;
            if is_read && before.is_ok() && before == self.meta(document) && copy.is_whole(document) {
                return Ok(true);
            }
            clear(document, copy)?;
        }
        // What could not be read must not pass for a shorter document.
        self.copy_keys(document, &*copy.kv)?;
        let mut batch = Batch::default();
        batch.put(key::meta(document, 0), Vec::new());
        copy.kv.commit(&batch)?;
        Ok(false)
    }

    /// Whether all keys could be read.
    fn copy_keys(&self, document: &DocumentId, copy: &dyn Kv) -> Result<bool, StoreError> {
        let mut batch = Batch::default();
        for kind in DOCUMENT_KINDS {
            let Range { start, end } = kind.all(document);
            let mut failed = None;
            let read = self.kv.scan(&start..&end, &mut |key, value| {
                batch.put(key.to_vec(), value.to_vec());
                if batch.bytes() >= COMPACTION_BATCH_BYTES {
                    failed = copy.commit(&std::mem::take(&mut batch)).err();
                }
                if failed.is_some() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            failed.map_or(Ok(()), Err)?;
            if read.is_err() {
                copy.commit(&batch)?;
                return Ok(false);
            }
        }
        if Switch::BackupLoses.is_on() {
            batch = Batch::default();
        }
        copy.commit(&batch)?;
        Ok(true)
    }

    /// Whether a room could open the document, and whoever comes read all of it.
    fn is_whole(&self, document: &DocumentId) -> bool {
        match self.load(document) {
            Ok(Some(stored)) => {
                let snapshot = stored.meta.snapshot.as_ref();
                snapshot.is_none_or(|snapshot| self.read_back(document, snapshot).is_ok())
            }
            Ok(None) => Switch::BackupLoses.is_on(),
            Err(_) => false,
        }
    }
}

/// Removes what was copied of `document`.
fn clear(document: &DocumentId, copy: &Store) -> Result<(), StoreError> {
    let mut keys = Vec::new();
    DOCUMENT_KINDS
        .into_iter()
        .try_for_each(|kind| copy.keys(kind.all(document), &mut keys))?;
    deletes(keys).iter().try_for_each(|batch| Ok(copy.kv.commit(batch)?))
}
