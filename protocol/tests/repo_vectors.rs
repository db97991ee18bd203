//! What the published packages send, as recorded in `vectors/repo.json`: bytes to meaning, and our bytes to the same meaning.

use bytes::Bytes;
use serde_json::{Map, Value, json};
use syncline_protocol::{
    ChangeHash,
    repo::{
        Channels, PeerId, PeerMetadata, PresenceMessage, RepoError, RepoMessage, SyncMessage, channels_of,
        encode_again, encode_channels, encode_heads, encode_sync, encode_whole, split_chunks, to_natives, to_peers,
    },
};

fn bytes(hex: &str) -> Bytes {
    let digit = |byte: u8| char::from(byte).to_digit(16).expect("a hexadecimal digit") as u8;
    let pairs = hex.as_bytes().chunks(2);
    pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The message with the names of the wire.
fn meaning(message: &RepoMessage) -> Value {
    let metadata =
        |metadata: &PeerMetadata| json!({ "storageId": metadata.storage_id, "isEphemeral": metadata.is_ephemeral });
    let sync = |kind: &str, sync: &syncline_protocol::repo::Sync| {
        json!({ "type": kind, "senderId": sync.sender.as_str(), "targetId": target(sync.target.as_ref()),
            "documentId": sync.document, "data": hex(&sync.data) })
    };
    match message {
        RepoMessage::Join {
            sender,
            metadata: m,
            versions,
        } => json!({ "type": "join", "senderId": sender.as_str(),
            "peerMetadata": metadata(m), "supportedProtocolVersions": versions }),
        RepoMessage::Peer {
            sender,
            target,
            metadata: m,
            version,
        } => json!({ "type": "peer",
            "senderId": sender.as_str(), "targetId": target.as_str(), "peerMetadata": metadata(m),
            "selectedProtocolVersion": version }),
        RepoMessage::Leave { sender } => json!({ "type": "leave", "senderId": sender.as_str() }),
        RepoMessage::Sync(body) => sync("sync", body),
        RepoMessage::Request(body) => sync("request", body),
        RepoMessage::DocUnavailable {
            sender,
            target: t,
            document,
        } => json!({ "type": "doc-unavailable",
            "senderId": sender.as_str(), "targetId": target(t.as_ref()), "documentId": document }),
        RepoMessage::Ephemeral(body) => json!({ "type": "ephemeral", "senderId": body.sender.as_str(),
            "targetId": target(body.target.as_ref()), "documentId": body.document, "sessionId": body.session,
            "count": body.count, "data": hex(&body.data) }),
        RepoMessage::RemoteSubscriptionChange {
            sender,
            target: t,
            add,
            remove,
        } => json!({
            "type": "remote-subscription-change", "senderId": sender.as_str(), "targetId": target(t.as_ref()),
            "add": add, "remove": remove }),
        RepoMessage::RemoteHeadsChanged {
            sender,
            target: t,
            document,
            heads,
        } => {
            let heads = heads.iter().map(|one| {
                (
                    one.storage_id.clone(),
                    json!({ "heads": one.heads, "timestamp": one.timestamp }),
                )
            });
            json!({ "type": "remote-heads-changed", "senderId": sender.as_str(), "targetId": target(t.as_ref()),
                "documentId": document, "newHeads": heads.collect::<Map<_, _>>() })
        }
        RepoMessage::Error {
            sender,
            target: t,
            message,
        } => json!({ "type": "error", "senderId": sender.as_str(),
            "targetId": target(t.as_ref()), "message": message }),
    }
}

fn target(target: Option<&PeerId>) -> Option<&str> {
    target.map(PeerId::as_str)
}

/// Absent, null, empty and false are the same to us.
fn without_nothing(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), without_nothing(value)));
            let nothing = [json!(null), json!([]), json!({}), json!(false)];
            fields
                .filter(|(_, value)| !nothing.contains(value))
                .collect::<Map<_, _>>()
                .into()
        }
        other => other.clone(),
    }
}

fn vectors() -> Vec<Value> {
    let text = include_str!("../vectors/repo.json");
    serde_json::from_str(text).expect("the vectors are JSON")
}

#[test]
fn a1_what_the_packages_send_means_the_same_to_us_and_in_our_bytes() {
    let vectors = vectors();
    assert!(vectors.len() > 20);
    for vector in &vectors {
        let name = &vector["name"];
        let message = RepoMessage::decode(&bytes(vector["hex"].as_str().expect("hex"))).expect("it decodes");
        let expected = without_nothing(&vector["message"]);
        assert_eq!(without_nothing(&meaning(&message)), expected, "{name}");
        assert_eq!(
            RepoMessage::decode(&message.encode()).as_ref(),
            Ok(&message),
            "{name}: our own bytes"
        );
    }
}

#[test]
fn a10_the_packages_sync_messages_are_read() {
    let mut seen = (false, false, false);
    for vector in vectors() {
        let (Some("sync" | "request"), Some(data)) =
            (vector["message"]["type"].as_str(), vector["message"]["data"].as_str())
        else {
            continue;
        };
        let message = SyncMessage::decode(&bytes(data)).expect("it decodes");
        seen.0 |= message.heads.is_empty() && vector["message"]["type"] == "request";
        // With its own kind a client speaks of documents.
        seen.1 |= !message.documents.is_empty();
        seen.2 |= message.have.iter().any(|have| !have.last_sync.is_empty());
    }
    assert_eq!(
        seen,
        (true, true, true),
        "a request, a document and what is shared were among them"
    );
}

#[test]
fn a10_our_sync_messages_are_read_back() {
    let heads = [ChangeHash([1; 32]), ChangeHash([2; 32])];
    let changes: Vec<Vec<u8>> = (1..=200_u8).map(|length| chunk(1, &vec![7; length.into()])).collect();
    let sent = encode_sync(&heads, changes.iter().map(|change| &change[..]));
    let read = SyncMessage::decode(&sent.into()).expect("it decodes");
    assert_eq!((&read.heads[..], &read.have[0].last_sync[..]), (&heads[..], &heads[..]));
    assert!(read.need.is_empty() && !read.is_reset());
    assert!(
        read.changes
            .iter()
            .zip(&changes)
            .all(|(read, sent)| read[..] == sent[..])
    );
    assert_eq!(read.changes.len(), 200);

    let saved = [chunk(0, b"a document"), chunk(1, b"a change")].concat();
    let read = SyncMessage::decode(&encode_whole(&heads, &saved).into()).expect("it decodes");
    assert_eq!((read.documents.len(), read.changes.len()), (1, 1));
    assert_eq!(split_chunks(&saved).len(), 2);
    let read = SyncMessage::decode(&encode_again(&heads).into()).expect("it decodes");
    assert_eq!((read.heads.len(), read.have[0].last_sync.len()), (0, 2));
}

fn chunk(kind: u8, contents: &[u8]) -> Vec<u8> {
    let length = contents.len();
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, kind];
    if length >= 0x80 {
        chunk.extend([length as u8 | 0x80, (length >> 7) as u8]);
    } else {
        chunk.push(length as u8);
    }
    chunk.extend(contents);
    chunk
}

#[test]
fn a2_lenient_forms_are_read() {
    let check = |what: &str, hex: &str, expected: RepoMessage| {
        assert_eq!(RepoMessage::decode(&bytes(hex)), Ok(expected), "{what}");
    };
    let leave = || RepoMessage::Leave {
        sender: PeerId::new("a").expect("a peer id"),
    };
    let (kind, sender) = ("6474797065656c65617665", "6873656e64657249646161");
    check("plain", &format!("a2{kind}{sender}"), leave());
    check("a map up to a break", &format!("bf{kind}{sender}ff"), leave());
    check(
        "an unknown key with a nested value",
        &format!("a3{kind}{sender}61788281f6a10102"),
        leave(),
    );
    check("a key that is no text", &format!("a3{kind}{sender}0102"), leave());
    check(
        "an undefined target",
        &format!("a3{kind}{sender}687461726765744964f7"),
        leave(),
    );
    check("under a tag", &format!("d9d9f7a2{kind}{sender}"), leave());
}

#[test]
fn a2_what_is_no_message_is_an_error() {
    let check = |hex: &str, expected: RepoError| assert_eq!(RepoMessage::decode(&bytes(hex)), Err(expected), "{hex}");
    check("01", RepoError::NotAMap);
    check("a000", RepoError::NotAMap);
    check("a0", RepoError::Field("senderId"));
    check("a161", RepoError::Cbor("the message ends in the middle of an item"));
    check("bb7fffffffffffffff", RepoError::Cbor("more items than bytes"));
    check("a16178ff", RepoError::Cbor("a break where nothing is open"));
    check("a161785f4101ff", RepoError::Cbor("a string in pieces"));
    check(&format!("a16178{}00", "81".repeat(40)), RepoError::Cbor("too deep"));
}

#[test]
fn a18_a25_natives_bytes_are_the_same_value_to_peers_and_always_an_object() {
    let check = |payload: &[u8], expected: &[u8]| {
        let payload = Bytes::copy_from_slice(payload);
        assert_eq!(&to_peers(&payload)[..], expected, "{payload:?}");
    };
    check(b"\xa1\x61x\x01", b"\xa1\x61x\x01");
    check(b"{\"x\":1}", b"\xa1\x61x\x01");
    check(b"[-500,null,true,\"a\"]", b"\x84\x39\x01\xf3\xf6\xf5\x61a");
    check(b"{\"x\":1.5}", b"\xa1\x61x\xfb\x3f\xf8\0\0\0\0\0\0");
    check(b"\x01", b"\x41\x01");
    check(b"\"a text\"", b"\x48\"a text\"");
    check(b"{\"x\":1", b"\x46{\"x\":1");
    check(b"\xa1\x61x\x01\x01", b"\x45\xa1\x61x\x01\x01");
    check(b"", b"\x40");
}

#[test]
fn a18_a25_peers_values_are_json_to_natives_unless_json_has_them_not() {
    let check = |item: &[u8], expected: &[u8]| {
        let item = Bytes::copy_from_slice(item);
        assert_eq!(&to_natives(&item)[..], expected, "{item:?}");
    };
    // As cbor-x writes it: `{ cursor: 7, at: undefined, far: 2 ** 40, half: 0.5 }`.
    let written =
        b"\xb9\x00\x04\x66cursor\x07\x62at\xf7\x63far\xfb\x42\x70\0\0\0\0\0\0\x64half\xfb\x3f\xe0\0\0\0\0\0\0";
    check(
        written,
        b"{\"at\":null,\"cursor\":7,\"far\":1099511627776.0,\"half\":0.5}",
    );
    check(b"\x82\x39\x01\xf3\xf5", b"[-500,true]");
    check(b"\xbf\x61x\x9f\x01\xff\xff", b"{\"x\":[1]}");
    for other in [
        &b"\xa1\x61x\x41\x01"[..],
        b"\xfb\x7f\xf8\0\0\0\0\0\0",
        b"\x01\x01",
        b"\x61",
        b"",
    ] {
        check(other, other);
    }
    check(
        &[[0x81; 40].as_slice(), b"\x01"].concat(),
        &[[0x81; 40].as_slice(), b"\x01"].concat(),
    );
}

#[test]
fn a26_the_helpers_messages_are_read_and_written() {
    let shown = Channels::from([("cursor".to_owned(), Bytes::from_static(b"\x07"))]);
    let check = |data: &[u8], expected: Option<PresenceMessage>| {
        assert_eq!(PresenceMessage::decode(data), expected, "{data:?}");
        if let Some(message) = expected {
            assert_eq!(PresenceMessage::decode(&message.encode()), Some(message));
        }
    };
    // As cbor-x writes them, with lengths of two bytes.
    let said = |body: &[u8]| [b"\xb9\x00\x01\x6a__presence", body].concat();
    check(
        &said(b"\xb9\x00\x02\x64type\x68snapshot\x65state\xb9\x00\x01\x66cursor\x07"),
        Some(PresenceMessage::Snapshot(shown.clone())),
    );
    check(
        &said(b"\xb9\x00\x03\x64type\x66update\x67channel\x66cursor\x65value\x81\x07"),
        Some(PresenceMessage::Update {
            channel: "cursor".into(),
            value: Bytes::from_static(b"\x81\x07"),
        }),
    );
    check(
        &said(b"\xb9\x00\x01\x64type\x69heartbeat"),
        Some(PresenceMessage::Heartbeat),
    );
    check(
        &said(b"\xb9\x00\x01\x64type\x67goodbye"),
        Some(PresenceMessage::Goodbye),
    );
    for other in [
        said(b"\xb9\x00\x01\x64type\x68snapshot"),
        said(b"\xb9\x00\x01\x64type\x63odd"),
        said(b"\x01"),
        said(b"\xb9\x00\x01\x64type\x69heartbeat\x01"),
        b"\xb9\x00\x01\x61x\x01".to_vec(),
        b"\x82\x61x\x01".to_vec(),
        Vec::new(),
    ] {
        check(&other, None);
    }
    assert_eq!(&encode_channels(&shown)[..], b"\xa1\x66cursor\x07");
    assert_eq!(channels_of(&Bytes::from_static(b"{\"cursor\":7}")), shown);
    let opaque = Channels::from([("state".to_owned(), Bytes::from_static(b"\x41\x01"))]);
    assert_eq!(channels_of(&Bytes::from_static(b"\x01")), opaque);
}

#[test]
fn a19_heads_are_written_as_in_urls() {
    let zero = encode_heads(&[ChangeHash([0; 32])]);
    assert_eq!(zero, ["11111111111111111111111111111111273Yts"]);
}
