//! The exchange in SPEC.md decodes as it says, and encodes to the bytes shown.

use bytes::Bytes;
use syncline_protocol::native::{ClientMessage, ServerMessage, decode_client, decode_server};

const SPEC: &str = include_str!("../SPEC.md");

fn frames(mark: &str) -> Vec<Bytes> {
    let hex = |line: &str| {
        let digits: Vec<u8> = line.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| {
            u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("two hexadecimal digits")
        };
        digits.chunks(2).map(byte).collect::<Vec<u8>>().into()
    };
    SPEC.lines()
        .filter_map(|line| line.strip_prefix(mark))
        .map(hex)
        .collect()
}

#[test]
fn the_exchange_is_what_it_says() {
    let client: Vec<ClientMessage> = frames("C> ")
        .iter()
        .map(|frame| decode_client(frame).expect("a client's message"))
        .collect();
    let kinds: Vec<&str> = client
        .iter()
        .map(|message| match message {
            ClientMessage::Hello(_) => "hello",
            ClientMessage::Auth { .. } => "auth",
            ClientMessage::Open(_) => "open",
            ClientMessage::Edit(_) => "edit",
            ClientMessage::Presence { .. } => "presence",
            ClientMessage::Signal { .. } => "signal",
            ClientMessage::Leave { .. } => "leave",
        })
        .collect();
    assert_eq!(kinds, ["hello", "open", "edit", "leave"]);

    let server: Vec<ServerMessage> = frames("S> ")
        .iter()
        .map(|frame| decode_server(frame).expect("a server's message"))
        .collect();
    let [
        ServerMessage::Welcome(welcome),
        ServerMessage::Opened(opened),
        ServerMessage::Part(part),
        rest @ ..,
    ] = &server[..]
    else {
        panic!("the server begins with welcome, opened, part: {server:?}");
    };
    let [ServerMessage::Diff(diff), ServerMessage::Ack { room, id, cursor }] = rest else {
        panic!("the server ends with diff, ack: {rest:?}");
    };
    assert_eq!(welcome.limits.frame_bytes_max, 1 << 20);
    assert_eq!(part.end, Some(opened.cursor));
    assert_eq!(
        diff.cursor.position.number(),
        opened.cursor.position.number() + diff.len()
    );
    assert_eq!(diff.runs[0].session, welcome.session);
    assert_eq!((*room, id.number(), *cursor), (opened.room, 1, diff.cursor));
}

#[test]
fn m10_each_message_of_the_exchange_has_one_encoding() {
    for frame in frames("C> ") {
        assert_eq!(decode_client(&frame).expect("a client's message").encode(), frame);
    }
    for frame in frames("S> ") {
        let message = decode_server(&frame).expect("a server's message");
        // The example names one limit; the server always writes all of them.
        if !matches!(message, ServerMessage::Welcome(_)) {
            assert_eq!(message.encode(), frame);
        }
    }
}
