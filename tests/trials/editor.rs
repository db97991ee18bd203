//! Apps: the real client library, which reconnects and reopens by itself, writing one key after another and noting when each
//! was said to be durable.

use crate::{clock::Moment, load::spawn, process::PATIENCE};
use automerge::{Automerge, ROOT, ReadDoc, transaction::Transactable};
use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use syncline_client::{Client, Options};

/// Between two edits of an app.
const PAUSE: Duration = Duration::from_millis(10);

/// One app.
pub(crate) struct Editor {
    pub(crate) document: String,
    name: String,
    acked: Mutex<Vec<Acked>>,
    failed: Mutex<Option<String>>,
}

/// A key that was said to be durable.
struct Acked {
    key: String,
    /// When the app put it.
    put_ms: f64,
    /// When it was told.
    told_ms: f64,
}

impl Editor {
    /// So many apps in each document.
    pub(crate) fn some(documents: &[&str], each: usize) -> Vec<Self> {
        let editor = |document: &&str, number| Self {
            document: (*document).to_owned(),
            name: format!("app {number}"),
            acked: Mutex::default(),
            failed: Mutex::default(),
        };
        documents
            .iter()
            .flat_map(|document| (0..each).map(move |number| editor(document, number)))
            .collect()
    }

    /// How many keys were acknowledged.
    pub(crate) fn acks(&self) -> usize {
        self.acked().len()
    }

    /// When the first key was acknowledged that was put after this time: what was put before may have been answered before, and
    /// heard of late.
    pub(crate) fn first_after(&self, ms: f64) -> Option<f64> {
        let acked = self.acked();
        let first = acked.iter().find(|acked| acked.put_ms > ms)?;
        Some(first.told_ms)
    }

    /// Why the app gave up, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failed).clone()
    }

    /// How many of its acknowledged keys a replica lacks.
    pub(crate) fn missing(&self, replica: &Automerge) -> usize {
        let lacks = |key: &str| !matches!(replica.get(ROOT, key), Ok(Some(_)));
        self.acked().iter().filter(|acked| lacks(&acked.key)).count()
    }

    fn acked(&self) -> std::sync::MutexGuard<'_, Vec<Acked>> {
        lock(&self.acked)
    }

    fn edit(&self, address: SocketAddr, begun: Moment, stop: &AtomicBool) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let worked = runtime.block_on(async {
            let client = Client::connect(Options::new(format!("ws://{address}"))).map_err(|error| error.to_string())?;
            let document = self.document.parse().expect("a document id");
            let handle = client.open(document).await.map_err(|error| error.to_string())?;
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                number += 1;
                let key = format!("{} key {number}", self.name);
                let (put, put_ms) = (key.clone(), begun.ms());
                let changed = handle
                    .change(move |transaction| transaction.put(ROOT, put, number))
                    .await;
                changed.map_err(|error| format!("{key}: {error}"))?;
                let durable = tokio::time::timeout(PATIENCE, handle.when_durable()).await;
                let durable = durable.map_err(|_| format!("{key} is not durable after {} s", PATIENCE.as_secs()))?;
                durable.map_err(|error| format!("{key}: {error}"))?;
                let told_ms = begun.ms();
                self.acked().push(Acked { key, put_ms, told_ms });
                tokio::time::sleep(PAUSE).await;
            }
            client.close().await;
            Ok::<(), String>(())
        });
        *lock(&self.failed) = worked.err();
    }
}

/// Runs all apps beside `meanwhile`, and stops them after it.
pub(crate) fn edit_while<T>(
    editors: &[Editor],
    address: SocketAddr,
    begun: Moment,
    meanwhile: impl FnOnce() -> T,
) -> Result<T, String> {
    let stop = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        for editor in editors {
            let stop = &stop;
            spawn(scope, "app", move || editor.edit(address, begun, stop));
        }
        let result = meanwhile();
        stop.store(true, Ordering::SeqCst);
        result
    });
    match editors.iter().find_map(|editor| Some((editor, editor.failure()?))) {
        Some((editor, failure)) => Err(format!("{} in {}: {failure}", editor.name, editor.document)),
        None => Ok(result),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
