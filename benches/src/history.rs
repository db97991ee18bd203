//! A long history: the recorded writing of a paper, one change per keystroke, or a made-up one where the recording is missing.

use crate::edits::Base;
use anyhow::{Context, ensure};
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc, legacy::OpId, transaction::Transactable};
use bytes::Bytes;
use flate2::read::GzDecoder;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Where the traces are, unless this variable says otherwise: beside the repository.
pub(crate) const TRACES_VARIABLE: &str = "SYNCLINE_TRACES";
const TRACES_DEFAULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/traces");
const TRACE: &str = "automerge-paper.json.gz";
const GENERATED_KEYSTROKES: usize = 260_000;

/// The whole history of one document.
pub(crate) struct History {
    /// The first change makes the text; each further one is a keystroke.
    pub(crate) base: Base,
    /// The text at the end.
    pub(crate) text: String,
    /// Whether it was made up.
    pub(crate) generated: bool,
    trace: Trace,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Trace {
    end_content: Option<String>,
    txns: Vec<Transaction>,
}

#[derive(Deserialize, Serialize)]
struct Transaction {
    patches: Vec<(usize, isize, String)>,
}

impl History {
    /// The first `keystrokes` of the recording, or all of it.
    pub(crate) fn paper(keystrokes: Option<usize>) -> anyhow::Result<Self> {
        let (mut trace, generated) = match recorded()? {
            Some(trace) => (trace, false),
            None => (made_up(GENERATED_KEYSTROKES), true),
        };
        if let Some(keystrokes) = keystrokes {
            trace.txns.truncate(keystrokes);
            trace.end_content = None;
        }
        let (base, text) = write(&trace)?;
        ensure!(
            trace.end_content.as_ref().is_none_or(|end| *end == text),
            "the trace does not lead to its own end"
        );
        Ok(Self {
            base,
            text,
            generated,
            trace,
        })
    }

    /// A document of so many keystrokes: of the recording as long as it lasts, else made up.
    pub(crate) fn of_length(keystrokes: usize) -> anyhow::Result<Self> {
        let recorded = recorded()?.filter(|trace| trace.txns.len() >= keystrokes);
        let generated = recorded.is_none();
        let mut trace = recorded.unwrap_or_else(|| made_up(keystrokes));
        trace.txns.truncate(keystrokes);
        let (base, text) = write(&trace)?;
        Ok(Self {
            base,
            text,
            generated,
            trace,
        })
    }

    /// Writes the keystrokes as JSON, for programs that make another document of them.
    pub(crate) fn write_trace(&self, path: &Path) -> anyhow::Result<()> {
        std::fs::write(path, serde_json::to_vec(&self.trace)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// What to call it in a report.
    pub(crate) fn name(&self) -> &'static str {
        if self.generated {
            "generated history"
        } else {
            "automerge-paper"
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program has no configuration but this variable"
)]
fn recorded() -> anyhow::Result<Option<Trace>> {
    let directory = std::env::var(TRACES_VARIABLE).unwrap_or_else(|_| TRACES_DEFAULT.to_owned());
    let path = PathBuf::from(directory).join(TRACE);
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let mut json = String::new();
    let read = GzDecoder::new(file).read_to_string(&mut json);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    let trace = serde_json::from_str(&json).with_context(|| format!("{} is not a trace", path.display()))?;
    Ok(Some(trace))
}

/// Typing with a jump now and then, a third of it deleted again; always the same.
fn made_up(keystrokes: usize) -> Trace {
    let (mut state, mut length, mut at) = (0x9e37_79b9_7f4a_7c15_u64, 0_usize, 0_usize);
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    };
    let txns = (0..keystrokes).map(|_| {
        if random(40) == 0 {
            at = random(length + 1);
        }
        let patch = if at > 0 && random(10) < 3 {
            at -= 1;
            length -= 1;
            (at, 1, String::new())
        } else {
            at += 1;
            length += 1;
            (at - 1, 0, char::from(b'a' + random(26) as u8).to_string())
        };
        Transaction { patches: vec![patch] }
    });
    Trace {
        end_content: None,
        txns: txns.collect(),
    }
}

fn write(trace: &Trace) -> anyhow::Result<(Base, String)> {
    let actor = ActorId::from(b"bench-history".as_slice());
    let mut document = Automerge::new().with_actor(actor.clone());
    let mut changes = Vec::with_capacity(trace.txns.len() + 1);
    let mut transaction = document.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text)?;
    let mut hash = transaction.commit().0.context("nothing was made")?;
    let mut keep = |document: &Automerge, hash| {
        let change = document.get_change_by_hash(&hash).context("a change is lost")?;
        changes.push(Bytes::copy_from_slice(change.raw_bytes()));
        anyhow::Ok(change.max_op())
    };
    let mut max_op = keep(&document, hash)?;
    for keystroke in &trace.txns {
        let mut transaction = document.transaction();
        for (at, deleted, inserted) in &keystroke.patches {
            transaction.splice_text(&text, *at, *deleted, inserted)?;
        }
        let (Some(made), _) = transaction.commit() else {
            continue;
        };
        hash = made;
        max_op = keep(&document, hash)?;
    }
    let end = document.text(&text)?;
    let base = Base {
        changes,
        heads: vec![hash],
        text: OpId::new(1, &actor),
        max_op,
    };
    Ok((base, end))
}
