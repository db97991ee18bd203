//! Figures of several runs: medians, spread, a table for people and a JSON file for programs.

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

    /// The table: medians, the ratio of Syncline to the relay, and least to most over the runs.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.workload, self.about);
        let header = ["", RELAY, SYNCLINE, "ratio", "least..most", "runs"];
        let _ = writeln!(
            text,
            "{:<34}{:>12}{:>12}{:>9}{:>22}{:>6}",
            header[0], header[1], header[2], header[3], header[4], header[5]
        );
        for name in &self.order {
            let relay = self.median(RELAY, name);
            let beside = self.values.get(&(*name, BESIDE));
            let ours = self.values.get(&(*name, SYNCLINE)).or(beside);
            let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), format_figure);
            let ratio = relay.zip(ours).filter(|(relay, _)| *relay > 0.0);
            let ratio = ratio.map_or_else(
                || "-".to_owned(),
                |(relay, ours)| format!("{:.2}", median(ours) / relay),
            );
            let spread = ours.map_or_else(|| "-".to_owned(), |values| spread(values));
            let runs = ours.map_or(0, Vec::len);
            let median = shown(ours.map(|values| median(values)));
            let _ = writeln!(
                text,
                "{name:<34}{:>12}{median:>12}{ratio:>9}{spread:>22}{runs:>6}",
                shown(relay)
            );
        }
        text
    }

    /// Writes every run's figures to `DIRECTORY/WORKLOAD.json`.
    pub(crate) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let figures: Vec<Value> = self
            .values
            .iter()
            .map(|((name, column), runs)| json!({"figure": name, "of": column, "median": median(runs), "runs": runs}))
            .collect();
        let json = json!({"workload": self.workload, "about": self.about, "figures": figures});
        std::fs::create_dir_all(directory)?;
        let path = directory.join(format!("{}.json", self.workload));
        std::fs::write(&path, format!("{json:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
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

fn format_figure(value: f64) -> String {
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
