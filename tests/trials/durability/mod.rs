//! What was acknowledged or shown is there after the fault.

pub(crate) mod backup;
pub(crate) mod churn;
pub(crate) mod disk;
pub(crate) mod files;
pub(crate) mod flips;
pub(crate) mod kill;
pub(crate) mod power;
mod record;
pub(crate) mod syscalls;
