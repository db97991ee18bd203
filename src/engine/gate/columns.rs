//! Column metadata and run lengths, summed without expanding a single run.
//!
//! A run-length column of a few bytes can claim millions of values. Here a run costs its few bytes, however long it says it
//! is, and every column must speak of the same number of operations. Numbers whose range the expansion relies on (actor
//! indexes, counters, actions, lengths) are held to it here, so that expanding does not come upon them.

use super::{Refusal, header::COUNTER_MAX, reader::Reader};

const MISMATCH: Refusal = Refusal::Dishonest("the columns do not agree on the number of operations");
const UNKNOWN_COLUMN: Refusal = Refusal::Dishonest("the change has a column that Automerge does not write");
const OUT_OF_RANGE: Refusal = Refusal::Dishonest("an identifier in the change is out of range");
const TOO_MANY: Refusal = Refusal::Limit("the change has more operations than this server takes");

/// The largest action: mark. See `OpType` in Automerge.
const ACTION_MAX: u64 = 7;

/// The columns of a change, by the number that Automerge gives each (`id << 4 | type`).
pub(super) mod column {
    pub(in crate::engine::gate) const OBJECT_ACTOR: u64 = 0x01;
    pub(in crate::engine::gate) const OBJECT_COUNTER: u64 = 0x02;
    pub(in crate::engine::gate) const KEY_ACTOR: u64 = 0x11;
    pub(in crate::engine::gate) const KEY_COUNTER: u64 = 0x13;
    pub(in crate::engine::gate) const KEY_STRING: u64 = 0x15;
    pub(in crate::engine::gate) const INSERT: u64 = 0x34;
    pub(in crate::engine::gate) const ACTION: u64 = 0x42;
    pub(in crate::engine::gate) const VALUE_LENGTH: u64 = 0x56;
    pub(in crate::engine::gate) const VALUE: u64 = 0x57;
    pub(in crate::engine::gate) const PRED_COUNT: u64 = 0x70;
    pub(in crate::engine::gate) const PRED_ACTOR: u64 = 0x71;
    pub(in crate::engine::gate) const PRED_COUNTER: u64 = 0x73;
    pub(in crate::engine::gate) const EXPAND: u64 = 0x94;
    pub(in crate::engine::gate) const MARK_NAME: u64 = 0xa5;
    /// All of them, in their order.
    pub(in crate::engine::gate) const ALL: [u64; COUNT] = [
        OBJECT_ACTOR,
        OBJECT_COUNTER,
        KEY_ACTOR,
        KEY_COUNTER,
        KEY_STRING,
        INSERT,
        ACTION,
        VALUE_LENGTH,
        VALUE,
        PRED_COUNT,
        PRED_ACTOR,
        PRED_COUNTER,
        EXPAND,
        MARK_NAME,
    ];
    /// How many there are.
    pub(in crate::engine::gate) const COUNT: usize = 14;
}

/// How many values each kind of column was found to hold.
#[derive(Default)]
struct Sums {
    /// Operations, by each column that has one value for each.
    per_op: [Option<u64>; column::COUNT],
    columns: usize,
    ops: u64,
    inserts: Option<u64>,
    value_lengths: Option<u64>,
    value_bytes: u64,
    pred_counts: Option<u64>,
    preds: u64,
    pred_actors: u64,
    pred_counters: u64,
}

/// Reads the metadata and the columns, leaves the extra bytes, and says how many operations there are.
pub(super) fn read(reader: &mut Reader<'_>, actors: u64, ops_max: u64) -> Result<u32, Refusal> {
    let count = reader.unsigned()?;
    if count > column::COUNT as u64 {
        return Err(UNKNOWN_COLUMN);
    }
    let mut metadata = [(0, 0); column::COUNT];
    let metadata = &mut metadata[..count as usize];
    let mut before = 0;
    for (spec, bytes) in metadata.iter_mut() {
        (*spec, *bytes) = (reader.unsigned()?, reader.unsigned()?);
        if *spec <= before || *bytes == 0 {
            return Err(Refusal::Dishonest("the columns are not distinct, in order and filled"));
        }
        before = *spec;
    }
    let mut sums = Sums::default();
    for &mut (spec, bytes) in metadata {
        sums.add(spec, reader.take(bytes)?, actors, ops_max)?;
    }
    sums.agree()?;
    u32::try_from(sums.ops).map_err(|_| TOO_MANY)
}

impl Sums {
    fn add(&mut self, spec: u64, bytes: &[u8], actors: u64, ops_max: u64) -> Result<(), Refusal> {
        let mut runs = Runs::new(bytes, ops_max);
        let actor = |value: u64| if value < actors { Ok(()) } else { Err(OUT_OF_RANGE) };
        match spec {
            column::OBJECT_ACTOR | column::KEY_ACTOR => runs.unsigned(|_, value| actor(value))?,
            column::OBJECT_COUNTER => runs.unsigned(|_, value| counter(value))?,
            column::KEY_COUNTER => runs.deltas()?,
            column::KEY_STRING | column::MARK_NAME => runs.strings()?,
            column::INSERT | column::EXPAND => runs.booleans()?,
            column::ACTION => runs.unsigned(|_, value| if value > ACTION_MAX { Err(OUT_OF_RANGE) } else { Ok(()) })?,
            column::VALUE_LENGTH => {
                let mut bytes = 0;
                runs.unsigned(|times, value| add_product(&mut bytes, times, value >> 4))?;
                self.value_lengths = Some(bytes);
            }
            column::VALUE => {
                self.value_bytes = bytes.len() as u64;
                return Ok(());
            }
            column::PRED_COUNT => {
                let mut preds = 0;
                runs.unsigned(|times, value| add_product(&mut preds, times, value))?;
                if preds > ops_max {
                    return Err(TOO_MANY);
                }
                (self.pred_counts, self.preds) = (Some(runs.values), preds);
            }
            column::PRED_ACTOR => {
                runs.unsigned(|_, value| actor(value))?;
                self.pred_actors = runs.values;
                return Ok(());
            }
            column::PRED_COUNTER => {
                runs.deltas()?;
                self.pred_counters = runs.values;
                return Ok(());
            }
            _ => return Err(UNKNOWN_COLUMN),
        }
        match spec {
            column::ACTION => self.ops = runs.values,
            column::INSERT => self.inserts = Some(runs.values),
            _ => {}
        }
        self.per_op[self.columns] = Some(runs.values);
        self.columns += 1;
        Ok(())
    }

    /// Every column holds as many values as there are operations; those that can't be empty aren't.
    fn agree(&self) -> Result<(), Refusal> {
        let same = self.per_op.iter().flatten().all(|&values| values == self.ops);
        let complete = self.inserts.is_some() && self.value_lengths.is_some() && self.pred_counts.is_some();
        let preds = self.pred_actors == self.preds && self.pred_counters == self.preds;
        let values = self.value_lengths.unwrap_or(0) == self.value_bytes;
        if same && (complete || self.ops == 0) && preds && values {
            Ok(())
        } else {
            Err(MISMATCH)
        }
    }
}

/// One column, run by run.
pub(super) struct Runs<'a> {
    reader: Reader<'a>,
    values: u64,
    values_max: u64,
}

impl<'a> Runs<'a> {
    pub(super) fn new(bytes: &'a [u8], values_max: u64) -> Self {
        Self {
            reader: Reader::new(bytes),
            values: 0,
            values_max,
        }
    }

    /// How many values the runs hold that were gone through.
    pub(super) fn values(&self) -> u64 {
        self.values
    }

    /// Counts `more` values in.
    fn count(&mut self, more: u64) -> Result<(), Refusal> {
        self.values = self.values.saturating_add(more);
        if more == 0 {
            Err(Refusal::Dishonest("a column has an empty run"))
        } else if self.values > self.values_max {
            Err(TOO_MANY)
        } else {
            Ok(())
        }
    }

    /// Calls `run` for each run of nonnull values with its length and a reader that stands before the value.
    pub(super) fn each(
        &mut self,
        mut run: impl FnMut(u64, &mut Reader<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        while !self.reader.is_empty() {
            match self.reader.signed()? {
                0 => {
                    let nulls = self.reader.unsigned()?;
                    self.count(nulls)?;
                }
                length @ 1.. => {
                    self.count(length.unsigned_abs())?;
                    run(length.unsigned_abs(), &mut self.reader)?;
                }
                length => {
                    self.count(length.unsigned_abs())?;
                    for _ in 0..length.unsigned_abs() {
                        run(1, &mut self.reader)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn unsigned(&mut self, mut value: impl FnMut(u64, u64) -> Result<(), Refusal>) -> Result<(), Refusal> {
        self.each(|times, reader| value(times, reader.unsigned()?))
    }

    /// Differences to the value before. A run goes one way, so that its ends tell its range.
    fn deltas(&mut self) -> Result<(), Refusal> {
        let mut absolute = 0_i64;
        self.each(|times, reader| {
            let delta = reader.signed()?;
            let first = absolute.checked_add(delta).ok_or(OUT_OF_RANGE)?;
            let others = delta.checked_mul(times as i64 - 1).ok_or(OUT_OF_RANGE)?;
            absolute = first.checked_add(others).ok_or(OUT_OF_RANGE)?;
            counter(first.try_into().map_err(|_| OUT_OF_RANGE)?)?;
            counter(absolute.try_into().map_err(|_| OUT_OF_RANGE)?)
        })
    }

    fn strings(&mut self) -> Result<(), Refusal> {
        self.each(|_, reader| {
            let length = reader.unsigned()?;
            reader.take(length).map(|_| ())
        })
    }

    /// Lengths of alternating runs that begin with `false`; only the first may be empty.
    pub(super) fn booleans(&mut self) -> Result<(), Refusal> {
        let mut first = true;
        while !self.reader.is_empty() {
            let length = self.reader.unsigned()?;
            if !(first && length == 0) {
                self.count(length)?;
            }
            first = false;
        }
        Ok(())
    }
}

fn counter(value: u64) -> Result<(), Refusal> {
    if value <= u64::from(COUNTER_MAX) {
        Ok(())
    } else {
        Err(OUT_OF_RANGE)
    }
}

pub(super) fn add_product(sum: &mut u64, times: u64, value: u64) -> Result<(), Refusal> {
    *sum = times
        .checked_mul(value)
        .and_then(|product| sum.checked_add(product))
        .ok_or(TOO_MANY)?;
    Ok(())
}
