//! Seeds that fail when a fault that the simulator once found is put back. They run first. A seed stands for another world as
//! soon as the plan, or what it drives, draws otherwise; then the fault is put back and another seed looked for.

/// A seed and what it found.
pub(crate) struct Regression {
    pub(crate) seed: u64,
    pub(crate) found: &'static str,
}

pub(crate) const REGRESSIONS: &[Regression] = &[
    Regression {
        seed: 7,
        found: "a reset left in the log what was stored on top of the culprit while the merge ran",
    },
    Regression {
        seed: 6,
        found: "a joiner was told closed under a room's number that it did not know, and waited for ever",
    },
    Regression {
        seed: 318,
        found: "a session that joined again was given the answer to its former read",
    },
    Regression {
        seed: 206,
        found: "a member that read the log while it was rewritten by a reset was told that the document is damaged",
    },
    Regression {
        seed: 31,
        found: "a client that made a list anew after a reset hid the list that others had put there",
    },
];
