//! Row 9: restarts in order under load, with apps that come back by themselves.

use crate::{
    client::Client,
    clock,
    editor::{Editor, edit_while},
    process::{PATIENCE, Process},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, on_time},
};
use std::time::Duration;

pub(crate) const ROW: Row = Row {
    number: "9",
    name: "rolling restart under load",
    target: "0 acked lost; clients back within 2 s at p99",
    ci: 3,
    soak: 20,
    run,
    bites: &[Bite {
        name: "acknowledged and never written",
        environment: &[("SYNCLINE_FAILPOINTS", "never_written")],
        count: 1,
    }],
};

const APPS: usize = 10;
const BACK_MS: f64 = 2_000.0;
const DOCUMENTS: &[&str] = &["rolling/a", "rolling/b"];

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let setup = trial.setup(&data);
    let mut process = Some(setup.start()?);
    let address = process
        .as_ref()
        .map(|process| process.address)
        .expect("it has just been started");
    let editors = Editor::some(DOCUMENTS, APPS);
    let (begun, mut back) = (clock::now(), Vec::new());
    let count = edit_while(&editors, address, begun, || {
        trial.rounds(|_, _| {
            all_go_on(&editors, begun.ms())?;
            if let Some(process) = process.take() {
                let status = process.terminate()?;
                ensure!(status.success(), "the server ended with {status}");
            }
            process = Some(setup.clone().at(address).start()?);
            let ready = begun.ms();
            back.extend(all_go_on(&editors, ready)?);
            Ok(())
        })
    })??;
    let process = process.ok_or_else(|| "the server did not come back".to_owned())?;
    let acks = holds(&process, &editors)?;
    let p99 = clock::percentile(&mut back, 0.99);
    let text = format!("0 lost of {acks} acked; back after {p99:.0} ms at p99");
    on_time(p99, BACK_MS, Figure { count, text })
}

/// Waits until every app had an edit acknowledged after this time; how long each took.
pub(crate) fn all_go_on(editors: &[Editor], after_ms: f64) -> Result<Vec<f64>, String> {
    let firsts = || {
        editors
            .iter()
            .map(|editor| editor.first_after(after_ms))
            .collect::<Option<Vec<f64>>>()
    };
    let mut found = None;
    clock::wait_until(PATIENCE + Duration::from_secs(30), || {
        found = firsts();
        found.is_some() || editors.iter().any(|editor| editor.failure().is_some())
    });
    let found = found.ok_or("not every app goes on")?;
    Ok(found.into_iter().map(|at| at - after_ms).collect())
}

/// What the apps were told is durable is there. How much that is.
pub(crate) fn holds(process: &Process, editors: &[Editor]) -> Result<usize, String> {
    let mut acks = 0;
    for editor in editors {
        let replica = Client::connect(process.address)?.open(&editor.document)?.document()?;
        let lost = editor.missing(&replica);
        ensure!(
            lost == 0,
            "{}: {lost} of {} acked keys are lost",
            editor.document,
            editor.acks()
        );
        acks += editor.acks();
    }
    Ok(acks)
}
