//! The targets under libFuzzer: `make fuzz TARGET=gate SECONDS=60`.

#![no_main]

#[path = "../trials/hostile/crafted.rs"]
#[allow(dead_code, reason = "the trials use more of it")]
mod crafted;
#[path = "../gate/history.rs"]
#[allow(dead_code, reason = "the tests of the gate use more of it")]
mod history;
#[path = "../gate/oracle.rs"]
mod oracle;
#[path = "../gate/rng.rs"]
mod rng;
mod targets;

use libfuzzer_sys::fuzz_target;
use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    process,
    sync::{Mutex, OnceLock, PoisonError},
};
use targets::{TARGETS, Target};

static TARGET: OnceLock<&Target> = OnceLock::new();
/// What the last panic said: those of the library are caught, and are no news.
static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

fuzz_target!(init: prepare(), |data: &[u8]| {
    let target = TARGET.get().expect("it is prepared");
    if panic::catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_err() {
        eprintln!("{}", LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        process::abort();
    }
});

/// Takes the target from the environment, and lays its seeds where the fuzzer looks for them.
fn prepare() {
    panic::set_hook(Box::new(|info| {
        *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = info.to_string();
    }));
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let name = variable("FUZZ_TARGET");
    let Some(target) = TARGETS.iter().find(|target| target.name == name) else {
        let names = TARGETS.map(|target| target.name).join(", ");
        eprintln!("FUZZ_TARGET is one of {names}");
        process::exit(2);
    };
    let folder = PathBuf::from(variable("FUZZ_SEEDS"));
    fs::create_dir_all(&folder).expect("the folder for the seeds can be made");
    for (number, seed) in (target.seeds)().iter().enumerate() {
        fs::write(folder.join(number.to_string()), seed).expect("a seed can be written");
    }
    let _ = TARGET.set(target);
}
