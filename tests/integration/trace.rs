//! Two real editing histories, and a generated one for machines that do not have them.
//!
//! They are looked for in `SYNCLINE_TRACES`, or in `shared/traces` beside the repository.

use serde::Deserialize;
use std::{fs::File, path::PathBuf};

/// What one author did at once: at `position`, delete `deleted` characters and insert `text`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Patch(pub(crate) usize, pub(crate) isize, pub(crate) String);

/// One step of one author, on exactly the history that `parents` name.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Step {
    #[serde(default)]
    pub(crate) parents: Vec<usize>,
    #[serde(default)]
    pub(crate) agent: usize,
    pub(crate) patches: Vec<Patch>,
}

/// An editing history and the text that it ends in.
#[derive(Deserialize)]
pub(crate) struct Trace {
    #[serde(rename = "endContent")]
    pub(crate) end: String,
    #[serde(rename = "txns")]
    pub(crate) steps: Vec<Step>,
}

impl Trace {
    /// The history called `name`; where it is absent, `generated` takes its place, and says so.
    pub(crate) fn find(name: &str, generated: impl FnOnce() -> Self) -> Self {
        let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
        #[expect(
            clippy::disallowed_methods,
            reason = "where the histories lie is a matter of the machine"
        )]
        let folder = std::env::var("SYNCLINE_TRACES").map_or(beside, PathBuf::from);
        match File::open(folder.join(format!("{name}.json.gz"))) {
            Ok(file) => {
                let reader = std::io::BufReader::new(flate2::read::GzDecoder::new(file));
                serde_json::from_reader(reader).expect("a trace")
            }
            Err(_) => {
                println!("the history {name} is not on this machine: a generated one takes its place");
                generated()
            }
        }
    }

    /// One author types `keystrokes` characters, and now and then deletes some.
    pub(crate) fn one_author(keystrokes: usize) -> Self {
        let (mut text, mut steps) = (Vec::new(), Vec::new());
        for number in 0..keystrokes {
            let position = number * 7_919 % (text.len() + 1);
            let deleted = isize::from(number % 5 == 4 && position < text.len());
            let letter = char::from(b'a' + (number % 26) as u8);
            if deleted == 1 {
                text.remove(position);
            }
            text.insert(position, letter);
            steps.push(Step {
                parents: Vec::new(),
                agent: 0,
                patches: vec![Patch(position, deleted, letter.into())],
            });
        }
        Self {
            end: text.into_iter().collect(),
            steps,
        }
    }

    /// Two authors type `keystrokes` characters in turns of ten, each on all that came before.
    pub(crate) fn two_authors(keystrokes: usize) -> Self {
        let mut trace = Self::one_author(keystrokes);
        for (number, step) in trace.steps.iter_mut().enumerate() {
            step.agent = number / 10 % 2;
            step.parents = number.checked_sub(1).into_iter().collect();
        }
        trace
    }
}
