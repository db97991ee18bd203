//! Row 10: everybody reconnects at once.

use crate::{
    client::Client,
    clock,
    load::{Author, spawn},
    process::Process,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use std::{net::SocketAddr, sync::Barrier};

pub(crate) const ROW: Row = Row {
    number: "10",
    name: "everybody reconnects at once",
    target: "steady within 30 s; bounded memory; nobody starved",
    ci: 1_000,
    soak: 10_000,
    run,
    bites: &[Bite {
        name: "room for half of them",
        environment: &[("SYNCLINE_GATEWAY_CONNECTIONS_MAX", "500")],
        count: 1_000,
    }],
};

const DOCUMENTS: u64 = 50;
const STEADY_MAX_MS: f64 = 150_000.0;
/// What the process may grow by, for each connection: its buffers, its task, and its share of a document.
const EACH_KIB_MAX: u64 = 256;

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = trial.setup(&data).start()?;
    for number in 0..DOCUMENTS {
        fill(&process, &document(number))?;
    }
    let address = process.address;
    process.kill();
    let process = trial.setup(&data).at(address).start()?;
    let before = process.rss_kib();
    process.reset_peak();
    let mut times = storm(address, trial.count)?;
    let each = process.peak_kib().saturating_sub(before) / trial.count;
    let last = clock::percentile(&mut times, 1.0);
    ensure!(
        last <= STEADY_MAX_MS,
        "the last one had its document after {last:.0} ms"
    );
    ensure!(each <= EACH_KIB_MAX, "{each} KiB for each connection");
    let median = clock::percentile(&mut times, 0.5);
    let text = format!("all have their document after {last:.0} ms (median {median:.0}), {each} KiB each");
    Ok(Figure {
        count: trial.count,
        text,
    })
}

fn document(number: u64) -> String {
    format!("storm/{}", number % DOCUMENTS)
}

fn fill(process: &Process, document: &str) -> Result<(), String> {
    let mut client = Client::connect(process.address)?;
    let room = client.open(document)?.opened.room;
    let mut author = Author::new(document.as_bytes());
    client.edit(room, 1, (0..100).map(|_| author.next().1).collect())?;
    let answer = client.answer(1);
    ensure!(answer == "ack", "{document} cannot be filled: {answer}");
    Ok(())
}

/// All connect in the same moment and open a document; how long each took. All stay until the last one is there.
fn storm(address: SocketAddr, count: u64) -> Result<Vec<f64>, String> {
    let places = usize::try_from(count).map_err(|error| error.to_string())?;
    let (ready, done) = (Barrier::new(places), Barrier::new(places));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|number| {
                let (ready, done) = (&ready, &done);
                spawn(scope, "reconnecting", move || {
                    ready.wait();
                    let begun = clock::now();
                    let opened = Client::connect(address).and_then(|mut client| {
                        let joined = client.open(&document(number))?;
                        ensure!(!joined.bytes.is_empty(), "an empty document came");
                        Ok(client)
                    });
                    let ms = begun.ms();
                    done.wait();
                    opened.map(|_| ms)
                })
            })
            .collect();
        let joined = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| "a client panicked".to_owned())?);
        joined.collect()
    })
}
