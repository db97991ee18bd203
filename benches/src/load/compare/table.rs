//! The table of the comparison, in Markdown, and its place in the README.

use super::{Kind, Results};
use crate::{
    load::{process::Programs, target::Target},
    report::{format_figure, markdown, median},
};
use anyhow::{Context, ensure};
use serde_json::json;
use std::path::Path;

const BEGIN: &str = "<!-- compare: written by `make compare` -->\n";
const END: &str = "<!-- compare: end -->";

/// A line of the table: figures with a slash between them.
struct Line {
    kind: Kind,
    label: &'static str,
    figures: &'static [&'static str],
}

const LINES: [Line; 9] = [
    line(
        Kind::Latency,
        "latency, 10 members, 50 edits/s, p50 / p99, ms",
        &["p50_ms", "p99_ms"],
    ),
    line(
        Kind::Fanout,
        "fan-out to 200 members, p50 / p99, ms",
        &["p50_ms", "p99_ms"],
    ),
    line(
        Kind::Fanout,
        "CPU for 100,000 deliveries to them, s",
        &["cpu_s_per_100k_deliveries"],
    ),
    line(
        Kind::Throughput,
        "edits/s, 50 rooms of 4 writers, one edit outstanding each",
        &["edits_per_s"],
    ),
    line(
        Kind::Throughput,
        "CPU for 1,000 of these edits, ms",
        &["cpu_ms_per_1k_edits"],
    ),
    line(
        Kind::Idle,
        "memory of an idle connection with its share of a room, KiB",
        &["kib_per_connection_with_rooms"],
    ),
    line(
        Kind::Join,
        "the long text right after a restart, ms / bytes",
        &["cold_join_ms", "cold_join_bytes"],
    ),
    line(
        Kind::Join,
        "the same, 1,000 edits behind, ms / bytes",
        &["resync_1k_ms", "resync_1k_bytes"],
    ),
    line(Kind::Join, "CPU for that, ms", &["resync_1k_cpu_ms"]),
];

const fn line(kind: Kind, label: &'static str, figures: &'static [&'static str]) -> Line {
    Line { kind, label, figures }
}

/// What an edit has survived when another client is shown it.
fn kept(target: Target) -> &'static str {
    match target {
        Target::Relay => "not stored",
        Target::Syncline => "synced to disk",
        Target::Hocuspocus => "stored 2 to 10 s later, not synced",
        Target::YWebsocket => "written behind, not synced",
        Target::YSweet => "stored up to 10 s later, not synced",
        Target::AutomergeRepo => "written up to 100 ms later, not synced",
        Target::Samod => "written behind, not synced",
    }
}

/// The whole table.
pub(super) fn markdown_of(results: &Results, kinds: &[Kind], targets: &[Target]) -> String {
    let header = std::iter::once(String::new()).chain(targets.iter().map(|target| target.title().to_owned()));
    let mut rows = vec![header.collect::<Vec<_>>()];
    for line in LINES.iter().filter(|line| kinds.contains(&line.kind)) {
        let cells = targets.iter().map(|target| cell(results, line, *target));
        rows.push(std::iter::once(line.label.to_owned()).chain(cells).collect());
    }
    let kept = targets.iter().map(|target| kept(*target).to_owned());
    rows.push(
        std::iter::once("an edit that others are shown is".to_owned())
            .chain(kept)
            .collect(),
    );
    markdown(&rows)
}

fn cell(results: &Results, line: &Line, target: Target) -> String {
    let figures: Option<Vec<_>> = (line.figures.iter())
        .map(|figure| results.figures.get(&(line.kind, target, *figure)))
        .map(|runs| runs.map(|runs| format_figure(median(runs))))
        .collect();
    match figures {
        Some(figures) => figures.join(" / "),
        None if results.failures.contains_key(&(line.kind, target)) => "fails".to_owned(),
        None => "-".to_owned(),
    }
}

/// Versions, and how it was run.
pub(super) fn notes(programs: &Programs, targets: &[Target], runs: usize, seconds: u32) -> anyhow::Result<String> {
    let mut versions = Vec::new();
    for target in targets {
        versions.extend(programs.versions(*target)?);
    }
    versions.dedup();
    let pinned = if programs.pinned {
        "the server on one core, the load on another"
    } else {
        "server and load on the same cores"
    };
    Ok(format!(
        "Medians of {runs} runs of {seconds} s, {pinned}. {}. Everybody's defaults, and persistence on. Where a server does not \
         acknowledge (all but the relay and Syncline), an edit counts when another member has it.\n",
        versions.join(", ")
    ))
}

/// All figures, for programs.
pub(super) fn write(out: &Path, results: &Results, kinds: &[Kind], targets: &[Target]) -> anyhow::Result<()> {
    let figures: Vec<_> = (results.figures.iter())
        .map(|((kind, target, figure), runs)| {
            json!({"workload": format!("{kind:?}").to_lowercase(), "of": target.name(), "figure": figure,
                "median": median(runs), "runs": runs})
        })
        .collect();
    let failures: Vec<_> = (results.failures.iter())
        .map(|((kind, target), why)| json!({"workload": format!("{kind:?}").to_lowercase(), "of": target.name(), "why": why}))
        .collect();
    let text = format!("{:#}\n", json!({"figures": figures, "failures": failures}));
    std::fs::write(out.join("compare.json"), text)?;
    std::fs::write(out.join("COMPARE.md"), markdown_of(results, kinds, targets))?;
    Ok(())
}

/// Puts the text between the marks.
pub(super) fn put_into(readme: &Path, text: &str) -> anyhow::Result<()> {
    let whole = std::fs::read_to_string(readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let marks = whole.find(BEGIN).zip(whole.find(END));
    let (begin, end) = marks.with_context(|| format!("{} has no place for the table", readme.display()))?;
    ensure!(begin < end, "{} has its marks in the wrong order", readme.display());
    let (before, after) = (&whole[..begin + BEGIN.len()], &whole[end..]);
    std::fs::write(readme, format!("{before}\n{text}\n{after}"))?;
    Ok(())
}
