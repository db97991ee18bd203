//! The books: what was stored, what was promised to somebody, what users wrote. Kept beside the world, and known to nobody in it.

use crate::plan::Plan;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline_protocol::{ChangeHash, DocumentId, RoomNumber};

/// The books of a world.
#[derive(Debug)]
pub(crate) struct Ledger {
    documents: BTreeMap<DocumentId, Account>,
    /// Appends under way, in order.
    submitted: BTreeMap<RoomNumber, VecDeque<(DocumentId, Vec<ChangeHash>)>>,
    /// Everything that users wrote, by number.
    pub(crate) words: Vec<Word>,
}

/// The books of a document.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// Synced to the disk.
    pub(crate) durable: BTreeSet<ChangeHash>,
    /// Acknowledged, or sent to anybody.
    pub(crate) promised: BTreeSet<ChangeHash>,
    /// Thrown out by a reset, or about to be.
    pub(crate) thrown_out: BTreeSet<ChangeHash>,
    /// The store was put back to an older copy.
    pub(crate) restored: bool,
}

/// Something that a user wrote, unlike everything else: `<number>`.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) document: usize,
    pub(crate) client: usize,
    /// The life of the client that knows it as its own.
    pub(crate) life: u64,
    pub(crate) hash: ChangeHash,
    /// Its author came back with a state in which it was not acknowledged, perhaps an old one: made anew before and after,
    /// it may be there twice.
    pub(crate) restored: bool,
    /// The client may only read.
    pub(crate) forbidden: bool,
    /// Somebody has deleted it, or tried to.
    pub(crate) deleted: bool,
}

impl Ledger {
    pub(crate) fn new(plan: &Plan) -> Self {
        let documents = plan.documents.iter().cloned();
        Self {
            documents: documents.map(|document| (document, Account::default())).collect(),
            submitted: BTreeMap::new(),
            words: Vec::new(),
        }
    }

    pub(crate) fn account(&self, document: &DocumentId) -> &Account {
        self.documents.get(document).expect("every document has an account")
    }

    pub(crate) fn account_mut(&mut self, document: &DocumentId) -> &mut Account {
        self.documents.get_mut(document).expect("every document has an account")
    }

    /// A room has handed a batch to the writer.
    pub(crate) fn submitted(&mut self, room: RoomNumber, document: &DocumentId, hashes: Vec<ChangeHash>) {
        let submitted = self.submitted.entry(room).or_default();
        submitted.push_back((document.clone(), hashes));
    }

    /// The writer is done with the oldest batch of a room.
    pub(crate) fn written(&mut self, room: RoomNumber, durable: bool) {
        let submitted = self.submitted.get_mut(&room).and_then(VecDeque::pop_front);
        let (document, hashes) = submitted.expect("what is written was submitted");
        if durable {
            self.account_mut(&document).durable.extend(hashes);
        }
    }

    /// The process has died.
    pub(crate) fn died(&mut self) {
        self.submitted.clear();
    }

    /// The store was put back to what it holds now: what it had promised besides, only clients can still have.
    pub(crate) fn restored(&mut self, document: &DocumentId, held: BTreeSet<ChangeHash>) {
        let account = self.account_mut(document);
        account.promised.retain(|hash| held.contains(hash));
        account.durable = held;
        account.restored = true;
    }

    /// Changes are about to be thrown out of a document.
    pub(crate) fn thrown_out(&mut self, document: &DocumentId, hashes: &[ChangeHash]) {
        self.account_mut(document).thrown_out.extend(hashes);
    }
}

/// The numbers of all words in a text.
pub(crate) fn words_in(text: &str) -> impl Iterator<Item = usize> {
    let parts = text.split('<').skip(1);
    parts.filter_map(|part| part.split_once('>')?.0.parse().ok())
}
