//! Row 34: planted tokens and document text, searched for where they must not be.

use crate::{
    client::{Client, Heard},
    load::Author,
    process::Process,
    token::{claims, guarded, signed, signed_with},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use bytes::Bytes;
use jsonwebtoken::Header;
use syncline_protocol::native::{ClientMessage, ServerMessage};

pub(crate) const ROW: Row = Row {
    number: "34",
    name: "planted tokens and document text",
    target: "0 found in logs, metrics, error texts",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "tokens in the log",
        environment: &[("SYNCLINE_FAILPOINTS", "tokens_logged")],
        count: 1,
    }],
};

/// In documents, presence and signals.
const TEXT: &[u8] = b"canary of a document";

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let setup = guarded(trial.setup(&data)).variable("SYNCLINE_LOG_FILTER", "trace");
    let process = setup.start()?;
    let good = signed(&claims("anna", &[("**", "write")]));
    let forged = signed_with(
        &Header::default(),
        &claims("eve", &[("**", "write")]),
        b"another secret, long enough as well",
    );
    let mut told = talk(&process, &good)?;
    told.extend(fail(&process, &good, &forged)?);
    let metrics = process.get("/metrics");
    let log = process.log();
    ensure!(
        log.contains("TRACE") || log.contains("DEBUG"),
        "the log is not at its most talkative"
    );
    process.terminate()?;
    let canary = String::from_utf8_lossy(TEXT).into_owned();
    let signature = |token: &str| token.rsplit('.').next().unwrap_or_default().to_owned();
    let planted = [
        signature(&good),
        signature(&forged),
        canary,
        crate::token::SECRET.to_owned(),
    ];
    for secret in &planted {
        for (place, text) in [
            ("the log", &log),
            ("the metrics", &metrics),
            ("an error", &told.join("\n")),
        ] {
            ensure!(!text.contains(secret.as_str()), "{secret} stands in {place}");
        }
    }
    let text = format!(
        "0 found in {} KiB of log at trace, metrics, {} error texts",
        log.len() >> 10,
        told.len()
    );
    Ok(Figure {
        count: planted.len() as u64,
        text,
    })
}

/// An ordinary session that says the canary wherever it can.
fn talk(process: &Process, token: &str) -> Result<Vec<String>, String> {
    let mut anna = Client::connect_as(process.address, Some(token))?;
    let room = anna.open("notes")?.opened.room;
    anna.edit(room, 1, vec![Author::new(TEXT).next().1])?;
    ensure!(anna.answer(1) == "ack", "the edit is not taken");
    let payload = Bytes::from_static(TEXT);
    anna.say(&ClientMessage::Presence {
        room,
        state: Some(payload.clone()),
    })?;
    anna.say(&ClientMessage::Signal { room, payload })?;
    anna.hear_all(room)?;
    Ok(Vec::new())
}

/// Everything that is answered with a text: those texts.
fn fail(process: &Process, good: &str, forged: &str) -> Result<Vec<String>, String> {
    let mut texts = Vec::new();
    for token in [
        forged.to_owned(),
        format!("{good}x"),
        format!("{good}.{good}"),
        good.replace('.', "!"),
    ] {
        let mut client = Client::silent(process.address)?;
        client.hello(Some(&token))?;
        texts.extend(last_words(&mut client));
    }
    let bad: [Vec<Bytes>; 3] = [
        vec![Bytes::from_static(TEXT)],
        vec![Bytes::from([Author::new(TEXT).next().1.as_ref(), TEXT].concat())],
        vec![Bytes::new()],
    ];
    for changes in bad {
        let mut client = Client::connect_as(process.address, Some(good))?;
        let room = client.open("notes")?.opened.room;
        client.edit(room, 1, changes)?;
        texts.extend(last_words(&mut client));
    }
    for path in ["/sync", "/", "/nowhere"] {
        let query = format!(
            "GET {path}?token={good} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {good}\r\nConnection: close\r\n\r\n"
        );
        texts.push(process.exchange(&query));
        texts.push(process.exchange(&query.replace("close", "close, Upgrade\r\nUpgrade: websocket")));
    }
    Ok(texts)
}

fn last_words(client: &mut Client) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        match client.hear() {
            Heard::Message(ServerMessage::Error { text, .. } | ServerMessage::Reject { text, .. }) => texts.push(text),
            Heard::Message(_) => {}
            Heard::Ended(_) | Heard::Silence => return texts,
        }
    }
}
