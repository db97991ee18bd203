//! Puts the pages of the store together from the messages of the log, and takes the keys and values out of them.
//!
//! What a damaged message says is believed as far as the store's own checksums, over each key and its value, prove it.
//! Otherwise an older value of the same key is taken, if such a key never gets another value, and where it is not even known
//! which key it was, the range of keys that may lack something is told.

use super::super::sled::FOREIGN_KEYS;
use super::{
    LogFile, Synced, count, leaf, link,
    node::{Leaf, Link},
    segment::{Ending, Kind, Message, Piece, SEGMENT_BYTES, piece, pieces},
};
use crate::server::store::{StoreError, key::Key, record::unseal};
use std::{collections::BTreeMap, io, ops::Range, os::unix::fs::FileExt};

/// Behind all keys.
const END: &[u8] = &[u8::MAX];

/// What was found beside keys and values.
#[derive(Debug, Default)]
pub(in super::super) struct Carved {
    /// How many keys.
    pub(in super::super) keys: u64,
    /// How many batches the log holds.
    pub(in super::super) batches: u64,
    /// Keys between these may be missing, or have an older value.
    pub(in super::super) doubts: Vec<Range<Vec<u8>>>,
    /// Damaged messages of which nobody can say what keys they were about.
    pub(in super::super) unplaced: u64,
}

/// Takes a key and its value. Of two values of one key the later is the one.
pub(in super::super) type Put<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StoreError> + 'a;

/// Hands all keys and values in `log` to `put`; values that are damaged, too. What lies behind what was `synced` need not be there.
///
/// # Errors
/// `Io`, and what `put` says.
pub(in super::super) fn carve(log: &LogFile, synced: Option<Synced>, put: &mut Put<'_>) -> Result<Carved, StoreError> {
    let read = |error: io::Error| StoreError::Io(error.to_string());
    let found = Found::read(log, synced).map_err(read)?;
    let mut carved = Carved {
        batches: found.batches,
        unplaced: found.unplaced.iter().filter(|place| found.is_synced(**place)).count() as u64,
        ..Carved::default()
    };
    // What a page that is not sound has of the keys of another is older than what that one has.
    let (sound, unsound): (Vec<&Page>, Vec<&Page>) = found.pages.values().partition(|page| page.is_sound());
    for page in unsound.into_iter().chain(sound) {
        let content = Content::read(log, page, &found).map_err(read)?;
        if content.is_foreign() {
            continue;
        }
        match content.range() {
            _ if content.is_doubtful_anywhere => carved.unplaced += 1,
            _ if !content.is_doubtful => {}
            Some(range) => carved.doubts.push(range),
            None => carved.unplaced += 1,
        }
        // Behind a damaged node changes may be read with the wrong beginning of their keys; then all is in doubt, and said to be.
        for (key, value) in content.values.iter().filter(|(key, _)| Key::parse(key).is_some()) {
            put(key, value)?;
            carved.keys += 1;
        }
        carved.doubts.extend(content.doubts);
    }
    Ok(carved)
}

/// What the log says of each page: its last node and all that follows.
#[derive(Default)]
struct Found {
    pages: BTreeMap<u64, Page>,
    batches: u64,
    /// Where the last batch that was synced ends; `None` if that cannot be told.
    synced_at: Option<u64>,
    /// Where there are damaged messages of nobody knows which pages.
    unplaced: Vec<u64>,
}

#[derive(Default)]
struct Page {
    messages: Vec<Place>,
    /// It is being merged into its neighbour.
    is_merging: bool,
    /// It holds no values.
    is_inner: bool,
}

/// Where a message lies.
#[derive(Clone, Copy)]
struct Place {
    /// In the file.
    offset: u64,
    /// In the log.
    at: u64,
    /// The number of its segment.
    number: u64,
    length: usize,
    is_sound: bool,
}

impl Page {
    fn is_sound(&self) -> bool {
        !self.is_merging && self.messages.iter().all(|place| place.is_sound)
    }
}

impl Found {
    fn read(log: &LogFile, synced: Option<Synced>) -> io::Result<Self> {
        let mut found = Self::default();
        if let Some(Synced::Place(place)) = synced {
            found.synced_at = Some(log.synced_before(place));
        }
        let last = log.segments.keys().next_back().copied();
        for (number, segment) in &log.segments {
            let begin = number * SEGMENT_BYTES as u64;
            let ending = pieces(&log.bytes(*segment)?, *number, &mut |at, piece| {
                let place = |message: &Message<'_>, is_sound| Place {
                    offset: segment.offset + at as u64,
                    at: begin + at as u64,
                    number: *number,
                    length: message.end,
                    is_sound,
                };
                match piece {
                    Piece::Sound(message) | Piece::Mended(message, _) => {
                        if let Some(count) = count(&message) {
                            found.batches = found.batches.max(count);
                            if matches!(synced, Some(Synced::Batch(last)) if count >= last) {
                                found.synced_at.get_or_insert(begin + at as u64);
                            }
                        }
                        found.take(&message, place(&message, true));
                    }
                    Piece::Damaged(message) => match message.kind {
                        Kind::Cap | Kind::Other => {}
                        Kind::Free | Kind::Node | Kind::Link | Kind::Blob => {
                            let page = found.pages.entry(message.page).or_default();
                            if !page.is_inner {
                                page.messages.push(place(&message, false));
                            }
                        }
                    },
                    Piece::Unknown => found.unplaced.push(begin + at as u64),
                }
            });
            if let Ending::Open(at) = ending
                && Some(*number) != last
            {
                found.unplaced.push(begin + at as u64);
            }
        }
        Ok(found)
    }

    fn take(&mut self, message: &Message<'_>, place: Place) {
        match message.kind {
            Kind::Cap | Kind::Other => {}
            Kind::Free => drop(self.pages.remove(&message.page)),
            Kind::Node => {
                let page = self.pages.entry(message.page).or_default();
                *page = Page {
                    is_inner: leaf(&message.body).is_none(),
                    ..Page::default()
                };
                if !page.is_inner {
                    page.messages.push(place);
                }
            }
            Kind::Link => match link(&message.body) {
                Some(Link::Inner) => {}
                Some(Link::Merging) => self.pages.entry(message.page).or_default().is_merging = true,
                Some(Link::Set { .. } | Link::Delete { .. }) | None => {
                    self.pages.entry(message.page).or_default().messages.push(place);
                }
            },
            Kind::Blob => {
                let place = Place {
                    is_sound: false,
                    ..place
                };
                self.pages.entry(message.page).or_default().messages.push(place);
            }
        }
    }

    /// Whether what lies there was synced, as far as anybody knows.
    fn is_synced(&self, at: u64) -> bool {
        self.synced_at.is_none_or(|synced| at < synced)
    }
}

/// A page, as far as it can be put together.
#[derive(Default)]
struct Content {
    /// The first key, and the first one behind it; `None` if no node of the page can be read.
    bounds: Option<(Vec<u8>, Vec<u8>)>,
    prefix: Vec<u8>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether something may be missing within the bounds.
    is_doubtful: bool,
    /// Whether what is missing may lie behind them, since a page may take in its neighbour.
    is_doubtful_anywhere: bool,
    /// Where else something may be missing.
    doubts: Vec<Range<Vec<u8>>>,
}

impl Content {
    fn read(log: &LogFile, page: &Page, found: &Found) -> io::Result<Self> {
        let mut content = Self::default();
        for place in &page.messages {
            let mut bytes = vec![0; place.length];
            log.file.read_exact_at(&mut bytes, place.offset)?;
            let Some(Piece::Sound(message) | Piece::Mended(message, _) | Piece::Damaged(message)) =
                piece(&bytes, place.number)
            else {
                // It was one when it was read before.
                content.is_doubtful = true;
                continue;
            };
            let taken = match (place.is_sound, message.kind) {
                (true, Kind::Node) => content.set(&message.body),
                (true, Kind::Link) => content.change(&message.body),
                (false, Kind::Node) => content.set_what_is_proven(&message.body, found.is_synced(place.at)),
                (false, Kind::Link) => content.change_if_proven(&message.body),
                // There is nothing else in it.
                (false, Kind::Free) if message.body.is_empty() => Some(()),
                _ => None,
            };
            content.is_doubtful |= taken.is_none() && found.is_synced(place.at);
        }
        Ok(content)
    }

    /// Whether it belongs to another tree than the store's.
    fn is_foreign(&self) -> bool {
        let is_whole_tree = self
            .bounds
            .as_ref()
            .is_some_and(|(lo, hi)| lo.is_empty() && hi.is_empty());
        let are_others = || {
            let mut keys = self.values.keys();
            keys.all(|key| FOREIGN_KEYS.iter().any(|foreign| key == foreign.as_bytes()))
        };
        if self.values.is_empty() {
            is_whole_tree
        } else {
            are_others()
        }
    }

    fn range(&self) -> Option<Range<Vec<u8>>> {
        let (lo, hi) = self.bounds.clone()?;
        let hi = if hi.is_empty() { END.to_vec() } else { hi };
        Some(lo..hi)
    }

    fn key(&self, suffix: &[u8]) -> Vec<u8> {
        [&self.prefix, suffix].concat()
    }

    fn set(&mut self, body: &[u8]) -> Option<()> {
        let leaf = leaf(body)?;
        self.begin(&leaf);
        let pairs = leaf.keys.iter().zip(&leaf.values);
        self.values = pairs.map(|(key, value)| (self.key(key), value.to_vec())).collect();
        leaf.adds_up.then_some(())
    }

    fn begin(&mut self, leaf: &Leaf<'_>) {
        self.bounds = Some((leaf.lo.to_vec(), leaf.hi.to_vec()));
        self.prefix = leaf.prefix.to_vec();
    }

    fn change(&mut self, body: &[u8]) -> Option<()> {
        if self.bounds.is_none() {
            // Its page was written anew since, or is no more.
            return Some(());
        }
        match link(body)? {
            Link::Set { key, value } => drop(self.values.insert(self.key(key), value.to_vec())),
            Link::Delete { key } => drop(self.values.remove(&self.key(key))),
            Link::Merging | Link::Inner => {}
        }
        Some(())
    }

    /// Takes what a damaged node says, and answers whether all of its keys and values are at least delimited: then what is
    /// not proven lies between two keys that are.
    fn set_what_is_proven(&mut self, body: &[u8], is_synced: bool) -> Option<()> {
        let Some(leaf) = leaf(body) else {
            self.is_doubtful_anywhere |= is_synced;
            return None;
        };
        if self.bounds.as_ref().is_some_and(|(lo, _)| lo != leaf.lo) {
            self.is_doubtful_anywhere |= is_synced;
            return None;
        }
        let before = std::mem::take(self);
        self.begin(&leaf);
        let (mut last_proven, mut is_open) = (leaf.lo.to_vec(), false);
        for (key, value) in leaf.keys.iter().zip(&leaf.values) {
            let key = self.key(key);
            let older = before
                .values
                .get(&key)
                .filter(|older| is_final(&key) && is_proven(&key, older));
            let value = match (is_proven(&key, value), older) {
                (true, _) => value.to_vec(),
                (false, Some(older)) => older.clone(),
                (false, None) => {
                    is_open = true;
                    if Key::parse(&key).is_some() {
                        self.values.insert(key, value.to_vec());
                    }
                    continue;
                }
            };
            if std::mem::take(&mut is_open) {
                self.doubts.push(last_proven.clone()..key.clone());
            }
            last_proven.clone_from(&key);
            self.values.insert(key, value);
        }
        if is_open {
            self.doubts.push(last_proven..END.to_vec());
        }
        if !is_synced {
            self.doubts.clear();
        }
        if leaf.adds_up && self.doubts.is_empty() {
            return Some(());
        }
        // What it does not name may have been removed, or may have been there.
        for (key, value) in before.values {
            self.values.entry(key).or_insert(value);
        }
        if leaf.adds_up {
            return Some(());
        }
        self.is_doubtful = before.is_doubtful;
        let is_as_before = before.bounds.is_some() && before.bounds == self.bounds;
        self.is_doubtful_anywhere = before.is_doubtful_anywhere || (is_synced && !is_as_before);
        None
    }

    fn change_if_proven(&mut self, body: &[u8]) -> Option<()> {
        self.bounds.as_ref()?;
        let Link::Set { key, value } = link(body)? else {
            return None;
        };
        let key = self.key(key);
        if is_proven(&key, value) {
            self.values.insert(key, value.to_vec());
            return Some(());
        }
        if Key::parse(&key).is_some() {
            self.values.entry(key).or_insert_with(|| value.to_vec());
        }
        None
    }
}

fn is_proven(key: &[u8], value: &[u8]) -> bool {
    Key::parse(key).is_some() && unseal(key, value).is_ok()
}

/// Whether the key never gets another value, but for a log that is written anew.
fn is_final(key: &[u8]) -> bool {
    matches!(
        Key::parse(key),
        Some(Key::Log { .. } | Key::Snapshot { .. } | Key::Index { .. } | Key::Quarantine { .. })
    )
}
