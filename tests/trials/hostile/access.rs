//! Rows 27, 28, 29 and 31: who may do what, and from where.

use crate::{
    checks::{Witnesses, written_by},
    client::{Client, Heard},
    clock,
    load::Author,
    process::Process,
    token::{claims, guarded, lasting, signed, writer},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, on_time},
};
use std::{net::TcpStream, time::Duration};
use syncline_protocol::native::{Access, ServerMessage};

pub(crate) const READER: Row = Row {
    number: "27",
    name: "a reader tries to write (native, HTTP)",
    target: "0 bytes reach others or the disk",
    ci: 1,
    soak: 20,
    run: reader,
    bites: GRANT_BITES,
};

pub(crate) const MATRIX: Row = Row {
    number: "28",
    name: "every access, document and message (native)",
    target: "all cells right; deny by default; absent and forbidden look the same",
    ci: 1,
    soak: 20,
    run: matrix,
    bites: GRANT_BITES,
};

pub(crate) const EXPIRY: Row = Row {
    number: "29",
    name: "a token expires while connected",
    target: "closed within 1 s with 4401",
    ci: 2,
    soak: 50,
    run: expiry,
    bites: EXPIRY_BITES,
};

pub(crate) const ORIGIN: Row = Row {
    number: "31",
    name: "foreign origins",
    target: "foreign, null, suffix tricks: refused",
    ci: 1,
    soak: 20,
    run: origins,
    bites: &[Bite {
        name: "origins that are let in",
        environment: &[(
            "SYNCLINE_ALLOWED_ORIGINS",
            "https://app.example,https://evil.example,http://app.example.evil.example",
        )],
        count: 1,
    }],
};

/// In either dialect.
pub(super) const GRANT_BITES: &[Bite] = &[Bite {
    name: "every token may write everything",
    environment: &[("SYNCLINE_FAILPOINTS", "tokens_grant_all")],
    count: 1,
}];
/// The same.
pub(super) const EXPIRY_BITES: &[Bite] = &[Bite {
    name: "tokens do not expire",
    environment: &[("SYNCLINE_FAILPOINTS", "tokens_last")],
    count: 1,
}];

/// Grants of the tokens that are tried.
pub(super) const GRANTS: [&[(&str, &str)]; 7] = [
    &[],
    &[("a", "read")],
    &[("a", "write")],
    &[("team/*", "read"), ("team/own", "write")],
    &[("team/**", "write")],
    &[("*", "read")],
    &[("**", "read"), ("a", "write")],
];
/// Documents that they are tried on.
pub(super) const DOCUMENTS: [&str; 6] = ["a", "aa", "A", "team/own", "team/other", "team/deep/er"];
/// What each grant allows, by document: nothing, to read, to write.
pub(super) const RIGHT: [&str; 7] = ["......", "r.....", "w.....", "...wr.", "...www", "rrr...", "wrrrrr"];

fn reader(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = guarded(trial.setup(&data)).start()?;
    let mut witnesses = Witnesses::join(process.address, Some(&writer("anna")), "notes")?;
    let token = signed(&claims("ben", &[("notes", "read")]));
    let mut ben = Client::connect_as(process.address, Some(&token))?;
    let joined = ben.open("notes")?;
    ensure!(joined.opened.access == Access::Read, "a reader is told it may write");
    let mut author = Author::new(b"a reader");
    let offline: Vec<_> = (0..20).map(|_| author.next().1).collect();
    let mut tried = 0;
    for (id, change) in (1..).zip(&offline) {
        ben.edit(joined.opened.room, id, vec![change.clone()])?;
        let answer = ben.answer(id);
        ensure!(
            matches!(answer.as_str(), "forbidden" | "after_reject"),
            "an edit is answered with {answer}"
        );
        tried += 1;
    }
    // What was made offline is sent again at once after coming back.
    let mut ben = Client::connect_as(process.address, Some(&token))?;
    let room = ben.open("notes")?.opened.room;
    ben.edit(room, 1, offline.clone())?;
    let answer = ben.answer(1);
    ensure!(answer == "forbidden", "edits made offline are answered with {answer}");
    // A room that the session is not in, by its number.
    let mut carl = Client::connect_as(process.address, Some(&signed(&claims("carl", &[("other", "write")]))))?;
    carl.edit(room, 1, offline)?;
    let answer = carl.answer(1);
    ensure!(
        answer == "not_open",
        "an edit in a room of others is answered with {answer}"
    );
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        for path in ["/sync", "/documents/notes", "/notes", "/"] {
            let answer = process.exchange(&format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1\r\n\
                 Connection: close\r\n\r\nx"
            ));
            ensure!(answer.starts_with("HTTP/1.1 4"), "{method} {path}: {answer}");
            tried += 1;
        }
    }
    witnesses.are_unhurt("a reader that writes")?;
    process.kill();
    let process = trial.setup(&data).start()?;
    let replica = Client::connect(process.address)?.open("notes")?.document()?;
    let own = written_by(&replica, b"a reader");
    ensure!(own == 0, "{own} changes of the reader are on disk");
    Ok(Figure {
        count: tried + 22,
        text: "nothing reached the others or the disk".into(),
    })
}

/// What a token of each pattern may do with each document.
fn matrix(trial: &Trial) -> Outcome {
    let process = guarded(trial.setup(&trial.directory("store"))).start()?;
    // Every other document exists.
    let mut anna = Client::connect_as(process.address, Some(&writer("anna")))?;
    for document in DOCUMENTS.iter().step_by(2) {
        let room = anna.open(document)?.opened.room;
        anna.edit(room, 1, vec![Author::new(document.as_bytes()).next().1])?;
        ensure!(anna.answer(1) == "ack", "{document} cannot be made");
    }
    let (mut cells, mut forbidden) = (0, Vec::new());
    for (grants, right) in GRANTS.iter().zip(RIGHT) {
        for (document, right) in DOCUMENTS.iter().zip(right.chars()) {
            let found = cell(&process, grants, document, &mut forbidden)?;
            ensure!(found == right, "{grants:?} on {document}: {found} for {right}");
            cells += 1;
        }
    }
    forbidden.sort();
    forbidden.dedup();
    ensure!(forbidden.len() == 1, "forbidden looks different: {forbidden:?}");
    Ok(Figure {
        count: cells,
        text: "all right; absent and forbidden get one and the same answer".into(),
    })
}

fn cell(
    process: &Process,
    grants: &[(&str, &str)],
    document: &str,
    forbidden: &mut Vec<String>,
) -> Result<char, String> {
    let subject = format!("{grants:?}");
    let mut client = Client::connect_as(process.address, Some(&signed(&claims(&subject, grants))))?;
    client.ask(document, None)?;
    match client.hear() {
        Heard::Message(ServerMessage::Closed { code, text, .. }) => {
            forbidden.push(format!("{code} {text}"));
            Ok('.')
        }
        Heard::Message(ServerMessage::Opened(opened)) => {
            client.edit(
                opened.room,
                1,
                vec![Author::new(format!("{subject}{document}").as_bytes()).next().1],
            )?;
            let (said, answer) = (opened.access == Access::Write, client.answer(1));
            ensure!(
                said == (answer == "ack"),
                "{document}: told {:?}, then {answer}",
                opened.access
            );
            Ok(if said { 'w' } else { 'r' })
        }
        other => Err(format!("{document}: {other:?}")),
    }
}

fn expiry(trial: &Trial) -> Outcome {
    const LIVES_S: i64 = 6;
    let process = guarded(trial.setup(&trial.directory("store"))).start()?;
    let mut latest = 0_f64;
    let count = trial.rounds(|_, _| {
        let begun = clock::now();
        let token = signed(&lasting("anna", &[("**", "write")], LIVES_S));
        let mut anna = Client::connect_as(process.address, Some(&token))?;
        anna.open("notes")?;
        let code = anna.hear_end().ok_or("the connection outlives its token")?;
        let late = begun.ms() - LIVES_S as f64 * 1e3;
        ensure!(code == Some(4401), "closed with {code:?}");
        ensure!(late >= -1_001.0, "closed {:.0} ms before its end", -late);
        latest = latest.max(late);
        Ok(())
    })?;
    let text = format!("closed with 4401 at most {:.0} ms after its end", latest.max(0.0));
    on_time(latest, 1_000.0, Figure { count, text })
}

fn origins(trial: &Trial) -> Outcome {
    let setup = trial.setup(&trial.directory("store"));
    let setup = guarded(setup).variable("SYNCLINE_ALLOWED_ORIGINS", "https://app.example");
    let process = setup.start()?;
    let own = format!("http://{}", process.address);
    let upgrade = |origin: Option<&str>| {
        let stream = TcpStream::connect(process.address).map_err(|error| error.to_string())?;
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .map_err(|error| error.to_string())?;
        Ok::<_, String>(Client::upgrade(stream, process.address, origin).map(drop))
    };
    for good in [None, Some("https://app.example"), Some(own.as_str())] {
        ensure!(upgrade(good)?.is_ok(), "the origin {good:?} is refused");
    }
    let foreign = [
        "https://evil.example",
        "null",
        "",
        "https://app.example.evil.example",
        "http://app.example.evil.example",
        "https://evilapp.example",
        "https://app.example@evil.example",
        "https://app.example:8443",
        "http://app.example",
        "https://app.example/path",
        "https://app.example, https://evil.example",
        "https://app.example.",
        "https://app%2eexample",
        "ftp://app.example",
        "file://",
        "app.example",
    ];
    for origin in foreign {
        match upgrade(Some(origin))? {
            Err(error) => ensure!(error.contains("403"), "{origin:?} is refused with {error}"),
            Ok(()) => return Err(format!("the origin {origin:?} is let in").into()),
        }
    }
    ensure!(
        process.metric("syncline_refused_total") >= foreign.len() as f64,
        "they are not counted"
    );
    Ok(Figure {
        count: foreign.len() as u64,
        text: "all refused with 403 and counted; the good ones pass".into(),
    })
}
