//! Connecting, coming back, tokens.

use super::*;
use syncline_protocol::native::{ServerMessage, Welcome};

fn core(credentials: Credentials) -> Core {
    Core::new(Config {
        credentials,
        ..Config::new([3; 32])
    })
}

fn handle(core: &mut Core, now_ms: u64, event: Event) -> Vec<Effect> {
    let mut out = Vec::new();
    core.handle(now_ms, event, &mut out);
    core.settle(now_ms, &mut out);
    out.retain(|effect| !matches!(effect, Effect::Notify(_)));
    out
}

fn welcome(core: &mut Core, now_ms: u64) {
    let welcome = Welcome {
        session: SessionId::new(5),
        limits: WelcomeLimits::default(),
        capabilities: Vec::new(),
    };
    handle(core, now_ms, Event::Received(ServerMessage::Welcome(welcome).encode()));
    assert_eq!(core.status(), ConnectionStatus::Connected);
}

fn hello_token(effects: &[Effect]) -> Option<String> {
    let Effect::Send(frame) = &effects[0] else {
        panic!("{effects:?}")
    };
    match decode_client(frame).unwrap() {
        ClientMessage::Hello(hello) => hello.token,
        other => panic!("{other:?}"),
    }
}

#[test]
fn c5_backoff_doubles_with_jitter_and_starts_anew_after_a_welcome() {
    let mut core = core(Credentials::None);
    let mut now_ms = 0;
    assert_eq!(handle(&mut core, now_ms, Event::Started), [Effect::Connect]);
    for attempt in 1..=12 {
        assert_eq!(handle(&mut core, now_ms, Event::Disconnected { code: None }), []);
        let delay_ms = core.next_wakeup().unwrap() - now_ms;
        let most_ms = (100_u64 << (attempt - 1)).min(30_000);
        assert!(
            delay_ms >= most_ms / 2 && delay_ms <= most_ms,
            "attempt {attempt}: {delay_ms}"
        );
        assert_eq!(handle(&mut core, now_ms + delay_ms - 1, Event::Woke), []);
        now_ms += delay_ms;
        assert_eq!(handle(&mut core, now_ms, Event::Woke), [Effect::Connect]);
    }
    handle(&mut core, now_ms, Event::Connected);
    welcome(&mut core, now_ms);
    handle(&mut core, now_ms, Event::Disconnected { code: Some(1012) });
    assert!(core.next_wakeup().unwrap() - now_ms <= 100);
}

#[test]
fn c3_final_close_codes_stop_the_client() {
    let check = |code: Option<u16>, stops: bool| {
        let mut core = core(Credentials::Fixed("t".to_owned()));
        handle(&mut core, 0, Event::Started);
        handle(&mut core, 0, Event::Connected);
        handle(&mut core, 0, Event::Disconnected { code });
        let rejected = matches!(core.status(), ConnectionStatus::Rejected { .. });
        assert_eq!((rejected, core.next_wakeup().is_none()), (stops, stops), "{code:?}");
    };
    for code in [
        None,
        Some(1000),
        Some(1001),
        Some(1006),
        Some(1008),
        Some(1012),
        Some(1013),
        Some(4399),
        Some(4500),
    ] {
        check(code, false);
    }
    for code in [1002, 1007, 1009, 4400, 4401, 4403, 4409, 4499] {
        check(Some(code), true);
    }
}

#[test]
fn c2_the_text_of_an_error_reaches_the_app() {
    let mut core = core(Credentials::None);
    handle(&mut core, 0, Event::Started);
    handle(&mut core, 0, Event::Connected);
    let error = ServerMessage::Error {
        code: 4403,
        text: "not you".to_owned(),
    };
    handle(&mut core, 0, Event::Received(error.encode()));
    handle(&mut core, 0, Event::Disconnected { code: Some(4403) });
    assert_eq!(
        core.status(),
        ConnectionStatus::Rejected {
            code: 4403,
            text: "not you".to_owned()
        }
    );
    assert_eq!(handle(&mut core, 1, Event::Started), [Effect::Connect]);
}

#[test]
fn c4_one_new_token_then_stop() {
    let token = |text: &str| {
        Event::Token(Ok(Token {
            text: text.to_owned(),
            expires_at_ms: None,
        }))
    };
    let mut core = core(Credentials::Asked);
    assert_eq!(handle(&mut core, 0, Event::Started), [Effect::NeedToken]);
    assert_eq!(handle(&mut core, 0, token("a")), [Effect::Connect]);
    assert_eq!(
        hello_token(&handle(&mut core, 0, Event::Connected)).as_deref(),
        Some("a")
    );
    assert_eq!(
        handle(&mut core, 0, Event::Disconnected { code: Some(4401) }),
        [Effect::NeedToken]
    );
    assert_eq!(handle(&mut core, 0, token("b")), [Effect::Connect]);
    assert_eq!(
        hello_token(&handle(&mut core, 0, Event::Connected)).as_deref(),
        Some("b")
    );
    welcome(&mut core, 0);
    assert_eq!(
        handle(&mut core, 0, Event::Disconnected { code: Some(4401) }),
        [Effect::NeedToken]
    );
    assert_eq!(handle(&mut core, 0, token("c")), [Effect::Connect]);
    handle(&mut core, 0, Event::Connected);
    assert_eq!(handle(&mut core, 0, Event::Disconnected { code: Some(4401) }), []);
    assert!(matches!(core.status(), ConnectionStatus::Rejected { code: 4401, .. }));
}

#[test]
fn h9_a_token_is_renewed_on_the_live_connection_before_it_expires() {
    let token = |expires_at_ms| {
        Event::Token(Ok(Token {
            text: "t".to_owned(),
            expires_at_ms: Some(expires_at_ms),
        }))
    };
    let mut core = core(Credentials::Asked);
    handle(&mut core, 0, Event::Started);
    handle(&mut core, 0, token(20_000));
    handle(&mut core, 0, Event::Connected);
    welcome(&mut core, 0);
    assert_eq!(core.next_wakeup(), Some(15_000));
    assert_eq!(handle(&mut core, 15_000, Event::Woke), [Effect::NeedToken]);
    let answer = handle(&mut core, 15_001, token(3_600_000));
    let auth = ClientMessage::Auth { token: "t".to_owned() };
    assert_eq!(answer, [Effect::Send(auth.encode())]);
    handle(&mut core, 15_002, Event::Disconnected { code: None });
    let at_ms = core.next_wakeup().unwrap();
    assert_eq!(
        handle(&mut core, at_ms, Event::Woke),
        [Effect::Connect],
        "the token is still good"
    );
}

#[test]
fn a_token_function_that_fails_is_asked_again_with_backoff() {
    let mut core = core(Credentials::Asked);
    handle(&mut core, 0, Event::Started);
    assert_eq!(handle(&mut core, 0, Event::Token(Err("offline".to_owned()))), []);
    let at_ms = core.next_wakeup().unwrap();
    assert_eq!(handle(&mut core, at_ms, Event::Woke), [Effect::NeedToken]);
}

#[test]
fn c6_retry_takes_the_place_of_the_backoff() {
    let mut core = core(Credentials::None);
    handle(&mut core, 0, Event::Started);
    handle(&mut core, 0, Event::Connected);
    welcome(&mut core, 0);
    handle(
        &mut core,
        0,
        Event::Received(ServerMessage::Retry { after_ms: 7_000 }.encode()),
    );
    handle(&mut core, 0, Event::Disconnected { code: Some(1012) });
    let delay_ms = core.next_wakeup().unwrap();
    assert!((7_000..=7_100).contains(&delay_ms), "{delay_ms}");
}

#[test]
fn c6_after_retry_no_edit_is_sent_and_a_server_that_stays_is_left() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.event(
        &mut server,
        Event::Received(ServerMessage::Retry { after_ms: 500 }.encode()),
    );
    pair.type_text(&mut server, &document, "later");
    assert!(pair.edits().is_empty());
    pair.wake(&mut server);
    assert!(pair.session.is_none());
    pair.wake(&mut server);
    pair.run(&mut server);
    assert_eq!(text_of(&server.document(&document)), "later");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let mut core = core(Credentials::None);
    handle(&mut core, 0, Event::Started);
    assert_eq!(core.next_wakeup(), Some(10_000));
    assert_eq!(handle(&mut core, 10_000, Event::Woke), [Effect::Disconnect]);
    assert!(matches!(core.status(), ConnectionStatus::Offline { .. }));
}

#[test]
fn c10_a_silent_server_is_asked_for_a_sign_of_life_and_then_given_up() {
    let (mut server, document) = (Server::default(), id("quiet"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.sent.clear();
    pair.wake(&mut server);
    assert_eq!(pair.now_ms, 1_000 + 22_500);
    assert_eq!(
        pair.edits().iter().map(|edit| edit.changes.len()).collect::<Vec<_>>(),
        [0]
    );
    pair.inbox.clear();
    pair.wake(&mut server);
    assert_eq!(pair.now_ms, 1_000 + 45_000);
    assert!(pair.session.is_none());
}

#[test]
fn m11_a_malformed_frame_ends_the_connection_and_the_client_comes_back() {
    let mut core = core(Credentials::None);
    handle(&mut core, 0, Event::Started);
    handle(&mut core, 0, Event::Connected);
    assert_eq!(
        handle(&mut core, 0, Event::Received(Bytes::from_static(&[0xc1]))),
        [Effect::Disconnect]
    );
    assert!(matches!(
        core.status(),
        ConnectionStatus::Offline { retry_at_ms: Some(_) }
    ));
}
