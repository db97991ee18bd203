//! The service goes on: restarts, storms of reconnects, panics, resets, clocks.

pub(crate) mod alarm;
pub(crate) mod clocks;
pub(crate) mod faults;
pub(crate) mod loads;
pub(crate) mod merging;
pub(crate) mod mixed;
pub(crate) mod peers;
pub(crate) mod restart;
pub(crate) mod scarce;
pub(crate) mod storm;
