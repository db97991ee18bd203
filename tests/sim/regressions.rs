//! Seeds that once found something. They run first.

/// A seed and what it found.
pub(crate) struct Regression {
    pub(crate) seed: u64,
    pub(crate) found: &'static str,
}

pub(crate) const REGRESSIONS: &[Regression] = &[];
