//! Properties of the native codec over arbitrary messages, arbitrary bytes and damaged frames.

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use syncline_protocol::native::{
    Access, Base, Capability, ClientMessage, ClosedCode, Diff, Edit, Hello, Open, Opened, Packing, Part, PresenceEntry,
    RejectCode, Run, ServerMessage, Welcome, WelcomeLimits, decode_client, decode_server, encode_diff,
};
use syncline_protocol::{ChangeHash, Cursor, DocumentId, EditId, Epoch, Position, RoomNumber, SessionId};

const NUMBER_MAX: u64 = (1 << 53) - 1;

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..200u64,
        (0..=53u32).prop_map(|bits| (1u64 << bits) - 1),
        0..=NUMBER_MAX
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        vec(any::<char>(), 0..20).prop_map(String::from_iter),
        (0..300usize).prop_map(|length| "x".repeat(length))
    ]
}

fn short_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

/// Of every length around the borders between MessagePack's forms.
fn bytes() -> impl Strategy<Value = Bytes> {
    let repeated = (prop_oneof![250..260usize, 65_530..65_540usize], any::<u8>());
    prop_oneof![
        short_bytes(),
        repeated.prop_map(|(length, byte)| Bytes::from(vec![byte; length]))
    ]
}

fn document() -> impl Strategy<Value = DocumentId> {
    let id = prop_oneof![
        Just("a"),
        Just("team-1/notes/2026.11_22"),
        Just("A.b_C-9"),
        Just("x/.../y")
    ];
    id.prop_map(|id| id.parse().expect("a document id"))
}

fn cursor() -> impl Strategy<Value = Cursor> {
    (number(), number()).prop_map(|(epoch, position)| Cursor {
        epoch: Epoch::new(epoch),
        position: Position::new(position),
    })
}

fn heads() -> impl Strategy<Value = Vec<ChangeHash>> {
    vec(any::<[u8; 32]>().prop_map(ChangeHash), 0..20)
}

fn room() -> impl Strategy<Value = RoomNumber> {
    number().prop_map(RoomNumber::new)
}

fn session() -> impl Strategy<Value = SessionId> {
    number().prop_map(SessionId::new)
}

fn capabilities() -> impl Strategy<Value = Vec<Capability>> {
    let capability = prop_oneof![Just("deflate".to_owned()), Just("bundle".to_owned()), text()];
    vec(capability.prop_map(|text| Capability::from(text.as_str())), 0..5)
}

fn client_message() -> impl Strategy<Value = ClientMessage> {
    let hello =
        (number(), option::of(text()), text(), capabilities()).prop_map(|(version, token, client, capabilities)| {
            Hello {
                version,
                token,
                client,
                capabilities,
            }
        });
    let open = (document(), option::of(cursor()), heads()).prop_map(|(document, cursor, heads)| Open {
        document,
        cursor,
        heads,
    });
    let edit = (room(), number().prop_map(EditId::new), vec(short_bytes(), 0..20))
        .prop_map(|(room, id, changes)| Edit { room, id, changes });
    prop_oneof![
        hello.prop_map(ClientMessage::Hello),
        text().prop_map(|token| ClientMessage::Auth { token }),
        open.prop_map(ClientMessage::Open),
        edit.prop_map(ClientMessage::Edit),
        (room(), option::of(bytes())).prop_map(|(room, state)| ClientMessage::Presence { room, state }),
        (room(), bytes()).prop_map(|(room, payload)| ClientMessage::Signal { room, payload }),
        room().prop_map(|room| ClientMessage::Leave { room }),
    ]
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let limits = proptest::array::uniform8(number()).prop_map(|n| WelcomeLimits {
        frame_bytes_max: n[0],
        edits_per_second: n[1],
        presence_per_second: n[2],
        presence_bytes_max: n[3],
        presence_ttl_ms: n[4],
        ops_per_change_max: n[5],
        documents_per_session_max: n[6],
        idle_timeout_ms: n[7],
    });
    (session(), limits, capabilities()).prop_map(|(session, limits, capabilities)| Welcome {
        session,
        limits,
        capabilities,
    })
}

fn opened() -> impl Strategy<Value = Opened> {
    let access = prop_oneof![Just(Access::Read), Just(Access::Write)];
    let base = prop_oneof![Just(Base::Replica), Just(Base::Nothing)];
    (room(), document(), access, heads(), cursor(), base, number()).prop_map(
        |(room, document, access, heads, cursor, base, bytes)| Opened {
            room,
            document,
            access,
            heads,
            cursor,
            base,
            bytes,
        },
    )
}

fn diff() -> impl Strategy<Value = Diff> {
    let run = (session(), vec(short_bytes(), 0..20)).prop_map(|(session, changes)| Run { session, changes });
    (room(), cursor(), vec(run, 0..20)).prop_map(|(room, cursor, runs)| Diff { room, cursor, runs })
}

fn server_message() -> impl Strategy<Value = ServerMessage> {
    let id = || number().prop_map(EditId::new);
    let packing = prop_oneof![Just(Packing::Plain), Just(Packing::Deflate)];
    let part = (room(), packing, bytes(), option::of(cursor())).prop_map(|(room, packing, bytes, end)| Part {
        room,
        packing,
        bytes,
        end,
    });
    let reject_code = prop_oneof![Just("limit".to_owned()), text()].prop_map(|code| RejectCode::from(code.as_str()));
    let closed_code = prop_oneof![Just("reset".to_owned()), text()].prop_map(|code| ClosedCode::from(code.as_str()));
    let entry = (session(), text(), option::of(text()), option::of(short_bytes())).prop_map(
        |(session, subject, name, state)| PresenceEntry {
            session,
            subject,
            name,
            state,
        },
    );
    prop_oneof![
        welcome().prop_map(ServerMessage::Welcome),
        opened().prop_map(ServerMessage::Opened),
        part.prop_map(ServerMessage::Part),
        diff().prop_map(ServerMessage::Diff),
        (room(), id(), cursor()).prop_map(|(room, id, cursor)| ServerMessage::Ack { room, id, cursor }),
        (room(), id(), reject_code, text()).prop_map(|(room, id, code, text)| ServerMessage::Reject {
            room,
            id,
            code,
            text
        }),
        (room(), vec(entry, 0..20)).prop_map(|(room, entries)| ServerMessage::Presence { room, entries }),
        (room(), session(), bytes()).prop_map(|(room, session, payload)| ServerMessage::Signal {
            room,
            session,
            payload
        }),
        (option::of(room()), document(), closed_code, text()).prop_map(|(room, document, code, text)| {
            ServerMessage::Closed {
                room,
                document,
                code,
                text,
            }
        }),
        number().prop_map(|after_ms| ServerMessage::Retry { after_ms }),
        (any::<u16>(), text()).prop_map(|(code, text)| ServerMessage::Error { code, text }),
    ]
}

/// A frame with some bytes of its beginning changed, then cut, then lengthened.
fn damage(frame: &Bytes, hits: &[(usize, u8)], cut: usize, tail: &[u8]) -> Bytes {
    let mut damaged = frame.to_vec();
    for (place, byte) in hits {
        let place = place % damaged.len();
        damaged[place] = *byte;
    }
    damaged.truncate(damaged.len().saturating_sub(cut));
    damaged.extend_from_slice(tail);
    Bytes::from(damaged)
}

/// Nothing panics, and whatever decodes encodes to something that decodes to the same.
fn check_any_bytes(frame: &Bytes) {
    if let Ok(message) = decode_client(frame) {
        assert_eq!(decode_client(&message.encode()), Ok(message));
    }
    if let Ok(message) = decode_server(frame) {
        assert_eq!(decode_server(&message.encode()), Ok(message));
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn client_messages_come_back_as_they_went(message in client_message()) {
        prop_assert_eq!(decode_client(&message.encode()), Ok(message));
    }

    #[test]
    fn server_messages_come_back_as_they_went(message in server_message()) {
        prop_assert_eq!(decode_server(&message.encode()), Ok(message));
    }

    #[test]
    fn a_diff_from_borrowed_changes_has_the_same_bytes(diff in diff()) {
        let runs = diff.runs.iter().map(|run| (run.session, run.changes.iter().map(|change| &change[..])));
        prop_assert_eq!(encode_diff(diff.room, diff.cursor, runs), ServerMessage::Diff(diff.clone()).encode());
    }

    #[test]
    fn payloads_are_slices_of_the_frame(payload in short_bytes()) {
        let frame = ClientMessage::Signal { room: RoomNumber::new(1), payload: payload.clone() }.encode();
        let Ok(ClientMessage::Signal { payload: read, .. }) = decode_client(&frame) else {
            panic!("a signal decodes to a signal");
        };
        prop_assert_eq!(&read, &payload);
        prop_assert!(read.is_empty() || frame.as_ptr_range().contains(&read.as_ptr()));
    }

    #[test]
    fn a_message_cut_short_is_an_error(message in client_message(), cut in 1..50usize) {
        let frame = message.encode();
        let prefix = frame.slice(..frame.len().saturating_sub(cut));
        prop_assert!(decode_client(&prefix).is_err());
    }

}

proptest! {
    #![proptest_config(cases(4_000))]

    #[test]
    fn damaged_frames_never_panic(
        client in client_message(),
        server in server_message(),
        hits in vec((0..200usize, any::<u8>()), 0..4),
        cut in 0..10usize,
        tail in vec(any::<u8>(), 0..3),
    ) {
        check_any_bytes(&damage(&client.encode(), &hits, cut, &tail));
        check_any_bytes(&damage(&server.encode(), &hits, cut, &tail));
    }

    #[test]
    fn random_bytes_never_panic(random in vec(any::<u8>(), 0..200)) {
        check_any_bytes(&Bytes::from(random));
    }

    #[test]
    fn random_bytes_after_a_plausible_beginning_never_panic(
        length in 0x91..=0x9fu8,
        number in 1..=26u8,
        random in vec(prop_oneof![any::<u8>(), 0x80..=0xa3u8, 0xc0..=0xdfu8], 0..60),
    ) {
        check_any_bytes(&Bytes::from([vec![length, number], random].concat()));
    }
}
