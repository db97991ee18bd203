//! Every message of `vectors/`, meaning to bytes and bytes to meaning, and every malformed frame with its kind of error.

use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;
use syncline_protocol::native::{
    Access, Base, Capability, ClientMessage, ClosedCode, Diff, Edit, Hello, Open, Opened, Packing, Part, PresenceEntry,
    RejectCode, Run, ServerMessage, Welcome, WelcomeLimits, decode_client, decode_server,
};
use syncline_protocol::{ChangeHash, Cursor, EditId, Epoch, Position, RoomNumber, SessionId};

/// A vector's `hex`, which may hold spaces between the values.
fn frame(vector: &Value) -> Bytes {
    let digits: String = text(&vector["hex"]).split(' ').collect();
    bytes(&Value::String(digits))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}")).to_owned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number: {value}"))
}

fn bytes(value: &Value) -> Bytes {
    let digits = text(value);
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).expect("two hexadecimal digits"))
        .collect()
}

fn list<T>(value: &Value, read: impl Fn(&Value) -> T) -> Vec<T> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("a list: {value}"))
        .iter()
        .map(read)
        .collect()
}

fn optional<T>(value: &Value, read: impl Fn(&Value) -> T) -> Option<T> {
    (!value.is_null()).then(|| read(value))
}

fn cursor(value: &Value) -> Cursor {
    Cursor {
        epoch: Epoch::new(number(&value[0])),
        position: Position::new(number(&value[1])),
    }
}

fn hash(value: &Value) -> ChangeHash {
    ChangeHash(bytes(value)[..].try_into().expect("32 bytes"))
}

fn room(value: &Value) -> RoomNumber {
    RoomNumber::new(number(value))
}

fn session(value: &Value) -> SessionId {
    SessionId::new(number(value))
}

fn capability(value: &Value) -> Capability {
    Capability::from(text(value).as_str())
}

fn client_message(m: &Value) -> ClientMessage {
    match text(&m["type"]).as_str() {
        "hello" => ClientMessage::Hello(Hello {
            version: number(&m["version"]),
            token: optional(&m["token"], text),
            client: text(&m["client"]),
            capabilities: list(&m["capabilities"], capability),
        }),
        "auth" => ClientMessage::Auth {
            token: text(&m["token"]),
        },
        "open" => ClientMessage::Open(Open {
            document: text(&m["document"]).parse().expect("a document id"),
            cursor: optional(&m["cursor"], cursor),
            heads: list(&m["heads"], hash),
        }),
        "edit" => ClientMessage::Edit(Edit {
            room: room(&m["room"]),
            id: EditId::new(number(&m["id"])),
            changes: list(&m["changes"], bytes),
        }),
        "presence" => ClientMessage::Presence {
            room: room(&m["room"]),
            state: optional(&m["state"], bytes),
        },
        "signal" => ClientMessage::Signal {
            room: room(&m["room"]),
            payload: bytes(&m["payload"]),
        },
        "leave" => ClientMessage::Leave { room: room(&m["room"]) },
        other => panic!("no client message {other}"),
    }
}

fn limits(value: &Value) -> WelcomeLimits {
    WelcomeLimits {
        frame_bytes_max: number(&value["frame_bytes_max"]),
        edits_per_second: number(&value["edits_per_second"]),
        presence_per_second: number(&value["presence_per_second"]),
        presence_bytes_max: number(&value["presence_bytes_max"]),
        presence_ttl_ms: number(&value["presence_ttl_ms"]),
        ops_per_change_max: number(&value["ops_per_change_max"]),
        documents_per_session_max: number(&value["documents_per_session_max"]),
        idle_timeout_ms: number(&value["idle_timeout_ms"]),
    }
}

fn opened(m: &Value) -> Opened {
    Opened {
        room: room(&m["room"]),
        document: text(&m["document"]).parse().expect("a document id"),
        access: match text(&m["access"]).as_str() {
            "read" => Access::Read,
            "write" => Access::Write,
            other => panic!("no access {other}"),
        },
        heads: list(&m["heads"], hash),
        cursor: cursor(&m["cursor"]),
        base: match text(&m["base"]).as_str() {
            "replica" => Base::Replica,
            "nothing" => Base::Nothing,
            other => panic!("no base {other}"),
        },
        bytes: number(&m["bytes"]),
    }
}

fn part(m: &Value) -> Part {
    Part {
        room: room(&m["room"]),
        packing: match text(&m["packing"]).as_str() {
            "plain" => Packing::Plain,
            "deflate" => Packing::Deflate,
            other => panic!("no packing {other}"),
        },
        bytes: bytes(&m["bytes"]),
        end: optional(&m["end"], cursor),
    }
}

fn server_message(m: &Value) -> ServerMessage {
    match text(&m["type"]).as_str() {
        "welcome" => ServerMessage::Welcome(Welcome {
            session: session(&m["session"]),
            limits: limits(&m["limits"]),
            capabilities: list(&m["capabilities"], capability),
        }),
        "opened" => ServerMessage::Opened(opened(m)),
        "part" => ServerMessage::Part(part(m)),
        "diff" => ServerMessage::Diff(Diff {
            room: room(&m["room"]),
            cursor: cursor(&m["cursor"]),
            runs: list(&m["runs"], |run| Run {
                session: session(&run["session"]),
                changes: list(&run["changes"], bytes),
            }),
        }),
        "ack" => ServerMessage::Ack {
            room: room(&m["room"]),
            id: EditId::new(number(&m["id"])),
            cursor: cursor(&m["cursor"]),
        },
        "reject" => ServerMessage::Reject {
            room: room(&m["room"]),
            id: EditId::new(number(&m["id"])),
            code: RejectCode::from(text(&m["code"]).as_str()),
            text: text(&m["text"]),
        },
        "presence" => ServerMessage::Presence {
            room: room(&m["room"]),
            entries: list(&m["entries"], |entry| PresenceEntry {
                session: session(&entry["session"]),
                subject: text(&entry["subject"]),
                name: optional(&entry["name"], text),
                state: optional(&entry["state"], bytes),
            }),
        },
        "signal" => ServerMessage::Signal {
            room: room(&m["room"]),
            session: session(&m["session"]),
            payload: bytes(&m["payload"]),
        },
        "closed" => ServerMessage::Closed {
            room: optional(&m["room"], room),
            document: text(&m["document"]).parse().expect("a document id"),
            code: ClosedCode::from(text(&m["code"]).as_str()),
            text: text(&m["text"]),
        },
        "retry" => ServerMessage::Retry {
            after_ms: number(&m["after_ms"]),
        },
        "error" => ServerMessage::Error {
            code: number(&m["code"]).try_into().expect("16 bits"),
            text: text(&m["text"]),
        },
        other => panic!("no server message {other}"),
    }
}

fn vectors(json: &str, at_least: usize) -> Vec<Value> {
    let vectors: Vec<Value> = serde_json::from_str(json).expect("the vectors are JSON");
    assert!(vectors.len() >= at_least, "{} vectors", vectors.len());
    vectors
}

#[test]
fn m9_m10_client_messages() {
    for vector in vectors(include_str!("../vectors/client.json"), 20) {
        let message = client_message(&vector["message"]);
        assert_eq!(decode_client(&frame(&vector)).as_ref(), Ok(&message), "{vector}");
        assert_eq!(message.encode(), frame(&vector), "{vector}");
    }
}

#[test]
fn m9_m10_server_messages() {
    for vector in vectors(include_str!("../vectors/server.json"), 30) {
        let message = server_message(&vector["message"]);
        assert_eq!(decode_server(&frame(&vector)).as_ref(), Ok(&message), "{vector}");
        assert_eq!(message.encode(), frame(&vector), "{vector}");
    }
}

#[test]
fn m3_m4_m5_v2_other_forms_and_further_elements_are_read() {
    for vector in vectors(include_str!("../vectors/lenient.json"), 25) {
        match text(&vector["from"]).as_str() {
            "client" => assert_eq!(
                decode_client(&frame(&vector)),
                Ok(client_message(&vector["message"])),
                "{vector}"
            ),
            "server" => assert_eq!(
                decode_server(&frame(&vector)),
                Ok(server_message(&vector["message"])),
                "{vector}"
            ),
            other => panic!("from {other}"),
        }
    }
}

#[test]
fn m1_m2_m6_m7_m8_d2_malformed_frames_have_their_kind_of_error() {
    let mut kinds = BTreeSet::new();
    for vector in vectors(include_str!("../vectors/malformed.json"), 70) {
        let error = match text(&vector["from"]).as_str() {
            "client" => decode_client(&frame(&vector)).expect_err(&text(&vector["name"])),
            "server" => decode_server(&frame(&vector)).expect_err(&text(&vector["name"])),
            other => panic!("from {other}"),
        };
        assert_eq!(error.kind(), text(&vector["error"]), "{vector}: {error}");
        kinds.insert(error.kind());
    }
    assert_eq!(kinds.len(), 12, "each kind of error has a vector: {kinds:?}");
}
