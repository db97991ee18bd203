//! Which life a store leads. Put back from a copy it begins another one, under which every document has another epoch: clients
//! may hold positions that the copy knows nothing of, or knows something else of.
//!
//! The floor says what tells its place from a copy of it ([`Kv::origin`]); here that is kept, and compared at the start.

use super::{
    FORMAT_VERSION, Store, StoreError, Version, is_empty, key,
    kv::{Batch, Kv},
    record::{seal, unseal},
    version, write_version,
};
use std::sync::Arc;
use syncline_protocol::Epoch;

/// One life of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Drawn at random; 0 in a store that was never put back.
    pub number: u64,
    /// When it began, in Unix time; 0 as above.
    pub began_unix_ms: u64,
}

impl Life {
    /// The epoch that clients know instead of the one in a document's meta record, and the other way round.
    pub fn translate(self, epoch: Epoch) -> Epoch {
        Epoch::new(epoch.number() ^ self.number)
    }
}

impl Store {
    /// Opens the store on `kv` to serve it. If it was put back from a copy, `next` becomes its life.
    ///
    /// # Errors
    /// As [`Store::open`]; `Emptied` if the place says that there was a store, and there is nothing.
    pub fn begin(kv: Arc<dyn Kv>, next: Life) -> Result<Self, StoreError> {
        let origin = kv.origin()?;
        if origin.is_some() && is_empty(&*kv)? {
            return Err(StoreError::Emptied);
        }
        let store = Self::open(kv)?;
        if version(&*store.kv)? != Version::Is(FORMAT_VERSION) {
            write_version(&*store.kv)?;
        }
        let kept = kept(&*store.kv)?;
        let life = match (&kept, &origin) {
            (Kept::Whole(life, kept), Some(origin)) if kept == origin => return Ok(store),
            // Whoever began this store was killed before it could say so.
            (Kept::Nothing, None) => Life::default(),
            (Kept::Nothing | Kept::Whole(..) | Kept::Garbled, _) => {
                tracing::warn!("the store was put back from a copy, or moved: all documents begin a new epoch");
                next
            }
        };
        let mut payload = [life.number.to_be_bytes(), life.began_unix_ms.to_be_bytes()].concat();
        payload.extend(store.kv.mark_origin()?);
        let (mut batch, key) = (Batch::default(), key::life());
        let value = seal(&key, &payload);
        batch.put(key, value);
        store.kv.commit(&batch)?;
        Ok(Self { life, ..store })
    }

    /// The life that the store leads.
    pub fn life(&self) -> Life {
        self.life
    }
}

/// What the store says of its life and of its place.
enum Kept {
    Nothing,
    Whole(Life, Vec<u8>),
    Garbled,
}

fn kept(kv: &dyn Kv) -> Result<Kept, StoreError> {
    let key = key::life();
    let Some(value) = kv.get(&key)? else {
        return Ok(Kept::Nothing);
    };
    let Ok(payload) = unseal(&key, &value) else {
        return Ok(Kept::Garbled);
    };
    let Some((number, rest)) = payload.split_first_chunk::<8>() else {
        return Ok(Kept::Garbled);
    };
    let Some((began, origin)) = rest.split_first_chunk::<8>() else {
        return Ok(Kept::Garbled);
    };
    let life = Life {
        number: u64::from_be_bytes(*number),
        began_unix_ms: u64::from_be_bytes(*began),
    };
    Ok(Kept::Whole(life, origin.to_vec()))
}

/// The life that the store was left in.
pub(super) fn last(kv: &dyn Kv) -> Result<Life, StoreError> {
    Ok(match kept(kv)? {
        Kept::Whole(life, _) => life,
        Kept::Nothing | Kept::Garbled => Life::default(),
    })
}
