//! Figures of several runs: medians, spread, a table for people and a JSON file for programs.

use crate::goals::{Measure, goals_of};
use anyhow::Context;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// The figures of one run on one target, by name, the unit last: `p50_ms`.
pub(crate) type Sample = Vec<(&'static str, f64)>;

/// All runs of one workload.
pub(crate) struct Report {
    workload: String,
    /// What was loaded and how much.
    about: String,
    /// Names in the order of their first appearance.
    order: Vec<&'static str>,
    values: BTreeMap<(&'static str, &'static str), Vec<f64>>,
}

/// The name of the column for what was measured beside the targets.
pub(crate) const BESIDE: &str = "beside";
const RELAY: &str = "relay";
const SYNCLINE: &str = "syncline";

impl Report {
    /// Without figures.
    pub(crate) fn new(workload: &str, about: String) -> Self {
        Self {
            workload: workload.to_owned(),
            about,
            order: Vec::new(),
            values: BTreeMap::new(),
        }
    }

    /// Takes in one run's figures for `column`.
    pub(crate) fn add(&mut self, column: &'static str, sample: Sample) {
        for (name, value) in sample {
            if !self.order.contains(&name) {
                self.order.push(name);
            }
            self.values.entry((name, column)).or_default().push(value);
        }
    }

    /// The median of a figure over all runs so far.
    pub(crate) fn median(&self, column: &'static str, name: &'static str) -> Option<f64> {
        self.values.get(&(name, column)).map(|values| median(values))
    }

    /// The table, in Markdown: medians, the ratio of Syncline to the relay, least to most over the runs, targets.
    pub(crate) fn table(&self) -> String {
        let header = ["", RELAY, SYNCLINE, "ratio", "least..most", "runs", "target", ""];
        let mut rows = vec![header.map(str::to_owned)];
        for name in &self.order {
            rows.push(self.row(name));
        }
        format!("\n{}: {}\n\n{}", self.workload, self.about, markdown(&rows))
    }

    fn row(&self, name: &'static str) -> [String; 8] {
        let ours = self.ours(name);
        let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), format_figure);
        let ratio = self.ratio(name);
        let (targets, met) = self.judged(name);
        [
            name.to_owned(),
            shown(self.median(RELAY, name)),
            shown(ours.map(median)),
            ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            ours.map_or_else(|| "-".to_owned(), spread),
            ours.map_or(0, <[f64]>::len).to_string(),
            targets,
            met,
        ]
    }

    /// Syncline's figures, or those measured beside both.
    fn ours(&self, name: &'static str) -> Option<&[f64]> {
        let beside = self.values.get(&(name, BESIDE));
        self.values.get(&(name, SYNCLINE)).or(beside).map(Vec::as_slice)
    }

    fn ratio(&self, name: &'static str) -> Option<f64> {
        let relay = self.median(RELAY, name).filter(|relay| *relay > 0.0);
        relay.zip(self.ours(name)).map(|(relay, ours)| median(ours) / relay)
    }

    /// The targets of a figure, and whether they are met.
    fn judged(&self, name: &'static str) -> (String, String) {
        let judged = goals_of(&self.workload, name).map(|goal| {
            let measured = match goal.measure {
                Measure::Value => self.ours(name).map(median),
                Measure::Ratio => self.ratio(name),
            };
            let met = match measured {
                Some(measured) if goal.is_met(measured) => "met",
                Some(_) => "missed",
                None => "not measured",
            };
            (goal.text(), met.to_owned())
        });
        let (targets, met): (Vec<_>, Vec<_>) = judged.unzip();
        (targets.join("; "), met.join("; "))
    }

    /// Writes every run's figures to `DIRECTORY/WORKLOAD.json`.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let figures: Vec<Value> = self
            .values
            .iter()
            .map(|((name, column), runs)| json!({"figure": name, "of": column, "median": median(runs), "runs": runs}))
            .collect();
        let targets: Vec<Value> = (self.order.iter())
            .map(|name| (name, self.judged(name)))
            .filter(|(_, (target, _))| !target.is_empty())
            .map(|(name, (target, met))| json!({"figure": name, "target": target, "is": met}))
            .collect();
        let json = json!({"workload": self.workload, "about": self.about, "figures": figures, "targets": targets});
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}.json", self.workload));
        std::fs::write(&path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Rows of one length, the first of them the header, as a table that is readable before it is rendered.
pub(crate) fn markdown(rows: &[impl AsRef<[String]>]) -> String {
    let mut widths = vec![3; rows.first().map_or(0, |row| row.as_ref().len())];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row.as_ref()) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        for (column, (width, cell)) in widths.iter().zip(row.as_ref()).enumerate() {
            let _ = match column {
                0 => write!(text, "| {cell:<width$} "),
                _ => write!(text, "| {cell:>width$} "),
            };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let end = if column == 0 { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The middle value, or the mean of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    percentile(&mut values.to_vec(), 50.0)
}

/// The value below which `percent` of all values lie, between two of them in proportion. Sorts.
pub(crate) fn percentile(values: &mut [f64], percent: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_unstable_by(f64::total_cmp);
    let place = (values.len() - 1) as f64 * percent / 100.0;
    let (below, share) = (place.floor() as usize, place.fract());
    let above = (below + 1).min(values.len() - 1);
    values[below] + (values[above] - values[below]) * share
}

fn spread(values: &[f64]) -> String {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{}..{}", format_figure(least), format_figure(most))
}

pub(crate) fn format_figure(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.01 || small == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged_by_value_and_by_ratio() {
        let judged = |report: &Report, figure| {
            let (target, met) = report.judged(figure);
            format!("{target}: {met}")
        };
        let figure = "cpu_s_per_100k_deliveries";
        let mut report = Report::new("fanout", String::new());
        report.add(SYNCLINE, vec![(figure, 1.05)]);
        assert_eq!(judged(&report, figure), "ratio ≤ 1.1: not measured");
        report.add(RELAY, vec![(figure, 1.0)]);
        assert_eq!(judged(&report, figure), "ratio ≤ 1.1: met");
        report.add(SYNCLINE, vec![(figure, 1.45)]);
        assert_eq!(judged(&report, figure), "ratio ≤ 1.1: missed");
        let mut report = Report::new("history-1000", String::new());
        report.add(SYNCLINE, vec![("beside_p99_ms", 21.0)]);
        assert_eq!(judged(&report, "beside_p99_ms"), "≤ 20: missed");
        assert!(report.table().contains("| missed |"), "{}", report.table());
    }

    #[test]
    fn percentiles_lie_between_neighbours() {
        let check = |values: &[f64], percent, expected| {
            assert_eq!(
                percentile(&mut values.to_vec(), percent),
                expected,
                "{values:?} at {percent}"
            );
        };
        check(&[3.0, 1.0, 2.0], 50.0, 2.0);
        check(&[4.0, 1.0, 2.0, 3.0], 50.0, 2.5);
        check(&[1.0, 2.0], 99.0, 1.99);
        check(&[7.0], 99.0, 7.0);
    }
}
