//! The targets: which figure of which workload should be how large, in itself or against the relay in the same run.

/// What is compared with the bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Measure {
    /// The median.
    Value,
    /// The median over the relay's.
    Ratio,
}

/// Which side of it is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

/// One target.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    workload: &'static str,
    figure: &'static str,
    /// What is compared.
    pub(crate) measure: Measure,
    /// With what.
    pub(crate) bound: Bound,
}

/// Every target. A workload may have its size behind its name: `history-1000` has the targets of `history`.
const GOALS: [Goal; 34] = [
    at_most("latency", "p50_less_append_over_relay", 1.3),
    at_most("latency", "p99_over_relay_and_append", 1.5),
    at_most("long", "p50_less_append_over_relay", 1.3),
    at_most("long", "p99_over_relay_and_append", 1.5),
    ratio("fanout", "cpu_s_per_100k_deliveries", Bound::AtMost(1.1)),
    ratio("crowd", "cpu_s_per_100k_deliveries", Bound::AtMost(1.0)),
    ratio("throughput", "edits_per_s", Bound::AtLeast(0.5)),
    at_least("throughput", "edits_per_s", 40_000.0),
    at_most("throughput", "ack_p95_ms", 50.0),
    at_most("throughput", "ack_p99_ms", 150.0),
    ratio("seen", "edits_per_s", Bound::AtLeast(0.5)),
    at_least("seen", "edits_per_s", 40_000.0),
    at_most("idle", "kib_per_connection", 9.0),
    at_most("idle", "kib_per_room", 16.0),
    at_most("tls", "kib_per_connection", 25.0),
    at_most("presence", "frames_per_member_and_tick", 1.05),
    at_most("presence", "p99_over_without_presence", 1.1),
    at_most("join", "cold_join_ms", 10.0),
    at_most("join", "cold_join_bytes_over_saved", 1.05),
    at_most("join", "resync_1k_bytes", 5_000.0),
    at_most("join", "resync_1k_cpu_ms", 5.0),
    at_most("join", "cold_resync_1k_bytes", 50_000.0),
    at_most("join", "cold_resync_1k_cpu_ms", 10.0),
    at_most("join", "storm_reads_over_one_join", 1.0),
    at_most("join", "cold_room_kib", 8_192.0),
    at_most("join", "cold_edit_ms", 10.0),
    at_most("history", "alone_us_over_shortest", 2.0),
    at_most("history", "concurrent_us_over_shortest", 2.0),
    at_most("history", "merging_share", 0.25),
    at_most("history", "beside_p99_ms", 20.0),
    at_most("many", "start_ms", 1_000.0),
    at_most("many", "killed_start_ms", 5_000.0),
    at_most("many", "rss_last_quarter_over_second", 1.05),
    at_most("many", "kib_per_small_room", 64.0),
];

const fn at_most(workload: &'static str, figure: &'static str, most: f64) -> Goal {
    Goal {
        workload,
        figure,
        measure: Measure::Value,
        bound: Bound::AtMost(most),
    }
}

const fn at_least(workload: &'static str, figure: &'static str, least: f64) -> Goal {
    Goal {
        workload,
        figure,
        measure: Measure::Value,
        bound: Bound::AtLeast(least),
    }
}

const fn ratio(workload: &'static str, figure: &'static str, bound: Bound) -> Goal {
    Goal {
        workload,
        figure,
        measure: Measure::Ratio,
        bound,
    }
}

/// The targets of a figure.
pub(crate) fn goals_of(workload: &str, figure: &str) -> impl Iterator<Item = &'static Goal> {
    let kind = match workload.split_once("-") {
        Some((kind, _)) => kind,
        None => workload,
    };
    GOALS
        .iter()
        .filter(move |goal| goal.workload == kind && goal.figure == figure)
}

impl Goal {
    /// Whether what was measured is good enough.
    pub(crate) fn is_met(&self, measured: f64) -> bool {
        match self.bound {
            Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        }
    }

    /// As in `ratio ≤ 1.1`.
    pub(crate) fn text(&self) -> String {
        let of = match self.measure {
            Measure::Value => "",
            Measure::Ratio => "ratio ",
        };
        match self.bound {
            Bound::AtMost(most) => format!("{of}≤ {most}"),
            Bound::AtLeast(least) => format!("{of}≥ {least}"),
        }
    }
}
