//! Who is let in, who is not, and how long anybody may take.

use crate::{
    peer::Peer,
    running::{TestServer, exchange, is_alive},
};
use std::{
    io::{Read, Write},
    time::Duration,
};
use syncline::server::clock::Clock;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

/// A correct upgrade, by the example of RFC 6455, 1.3.
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn upgrade(target: &str, headers: &[&str]) -> String {
    let common = [
        "Host: test",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
    ];
    let headers = [&common, headers].concat().join("\r\n");
    format!("GET {target} HTTP/1.1\r\n{headers}\r\n\r\n")
}

#[test]
fn metrics_are_explained_in_the_readme() {
    let readme = include_str!("../../README.md");
    let metrics = TestServer::start("").get("/metrics");
    // Those with labels are not named before they have counted something.
    let names = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE syncline_")?.split(' ').next());
    let unexplained: Vec<&str> = names.filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert_eq!(unexplained, [""; 0]);
    assert!(metrics.contains("# TYPE syncline_room_panics counter"), "{metrics}");
}

#[test]
fn probes_metrics_and_the_page_answer() {
    let server = TestServer::start("");
    let check = |path: &str, status: &str, part: &str| {
        let answer = server.get(path);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.contains(part), "{path}: {answer}");
    };
    check("/", "200", "<title>Syncline</title>");
    check("/healthz", "200", "alive");
    check("/readyz", "200", "ready");
    check("/metrics", "200", "syncline_connections_total 4\n");
    check("/sync", "426", "WebSocket");
    check("/other", "404", "/sync");
    server.server().set_ready(false);
    check("/readyz", "503", "not ready");
    check("/healthz", "200", "alive");
    let answer = exchange(
        server.connect(),
        &upgrade("/sync", &[KEY, "Sec-WebSocket-Protocol: syncline.v1"]),
    );
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
}

#[test]
fn a_native_websocket_answers_a_ping() {
    let server = TestServer::start("");
    let mut socket = server.websocket();
    for size in [0, 1, 125] {
        assert!(is_alive(&mut socket, size), "{size}");
    }
}

#[test]
fn a_frame_that_comes_with_the_upgrade_is_not_lost() {
    let server = TestServer::start("");
    let mut stream = server.connect();
    let mut bytes = upgrade("/sync", &[KEY, "Sec-WebSocket-Protocol: other, syncline.v1"]).into_bytes();
    // A masked ping of three bytes; the mask is zero.
    bytes.extend([0x89, 0x83, 0, 0, 0, 0, b'a', b'b', b'c']);
    stream.write_all(&bytes).expect("sent");
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"abc") {
        stream.read_exact(&mut byte).expect("the answer goes on");
        answer.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    assert!(text.contains(ACCEPT), "{text}");
    assert!(text.contains("sec-websocket-protocol: syncline.v1"), "{text}");
}

#[test]
fn upgrades_that_are_wrong_are_refused_with_a_reason() {
    let server = TestServer::start("allowed_origins = ['https://app.example.com']");
    let native = "Sec-WebSocket-Protocol: syncline.v1";
    let check = |target: &str, headers: &[&str], status: &str, part: &str| {
        let answer = exchange(
            server.connect(),
            &(upgrade(target, headers).replace("keep-alive, ", "close, ")),
        );
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{headers:?}: {answer}"
        );
        assert!(answer.contains(part), "{headers:?}: {answer}");
    };
    check(
        "/sync",
        &[KEY, native, "Origin: https://evil.com"],
        "403",
        "allowed_origins",
    );
    check("/sync", &[KEY, native, "Origin: null"], "403", "allowed_origins");
    check(
        "/sync",
        &[KEY, native, "Origin: https://app.example.com.evil.com"],
        "403",
        "allowed_origins",
    );
    check(
        "/sync",
        &[KEY, "Sec-WebSocket-Protocol: syncline.v2, chat"],
        "400",
        "syncline.v1",
    );
    check("/sync", &[native], "400", "Sec-WebSocket-Key");
    check(
        "/sync",
        &[native, "Sec-WebSocket-Key: c2hvcnQ="],
        "400",
        "Sec-WebSocket-Key",
    );
    check("/sync?token=a&token=b", &[KEY, native], "400", "twice");
    let long = format!("/sync?token={}", "a".repeat(8_193));
    check(&long, &[KEY, native], "400", "longer");
    let raw = |request: &str, status: &str| {
        let answer = exchange(server.connect(), request);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}: {answer}");
    };
    raw("POST /sync HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n", "405");
    raw(
        &upgrade("/sync", &[KEY, native])
            .replace("n: 13", "n: 8")
            .replace("keep-alive", "close"),
        "426",
    );
    raw(
        &upgrade("/sync", &[KEY, native])
            .replace("HTTP/1.1", "HTTP/1.0")
            .replace("keep-alive", "close"),
        "426",
    );
    raw(&upgrade("/sync", &[&format!("X: {}", "a".repeat(64 << 10))]), "431");
    raw("nonsense\r\n\r\n", "400");
    refusals_are_counted(&server);
}

fn refusals_are_counted(server: &TestServer) {
    let expected = [
        ("Origin", 3),
        ("Subprotocol", 1),
        ("Handshake", 3),
        ("Query", 2),
        ("NotWebSocket", 1),
    ];
    let metrics = server.get("/metrics");
    for (reason, count) in expected {
        let line = format!("syncline_refused_total{{reason=\"{reason}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line} in {metrics}");
    }
}

#[test]
fn h14_a_foreign_origin_is_refused_unless_it_is_listed() {
    let server = TestServer::start_with(
        "auth.secret = '0123456789012345678901234567890123456789'\nallowed_origins = ['https://app.example.com']",
    );
    let answer = |origin: &str| {
        let mut stream = server.connect();
        let headers: Vec<&str> = [KEY, "Sec-WebSocket-Protocol: syncline.v1", origin]
            .into_iter()
            .filter(|header| !header.is_empty())
            .collect();
        stream.write_all(upgrade("/sync", &headers).as_bytes()).expect("sent");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer[9..]).into_owned()
    };
    assert_eq!(answer(""), "101", "not a browser");
    assert_eq!(answer("Origin: https://app.example.com"), "101", "listed");
    assert_eq!(answer("Origin: http://test"), "101", "the server's own");
    for foreign in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "null",
    ] {
        assert_eq!(answer(&format!("Origin: {foreign}")), "403", "{foreign}");
    }
}

#[test]
fn a_message_over_the_limit_ends_only_its_own_connection() {
    let server = TestServer::start("limits.frame_bytes_max = 4096");
    let mut honest = server.websocket();
    let mut hostile = server.websocket();
    // The header of a frame of 2^62 bytes is enough; nothing of that size is ever allocated or awaited.
    let stream = hostile.get_mut();
    stream
        .write_all(&[0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4])
        .expect("sent");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
    assert!(is_alive(&mut honest, 1));
}

#[test]
fn slow_handshakes_are_closed_and_honest_ones_unhurt() {
    let server = TestServer::start("limits.handshake_timeout_ms = 300");
    let clock = Clock::start();
    let silent = server.connect();
    let mut half = server.connect();
    half.write_all(b"GET /sync HTTP/1.1\r\nHost: te").expect("sent");
    let mut dribble = server.connect();
    server.websocket();
    for byte in b"GET / HTTP/1.1\r\nX: " {
        if dribble.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for mut stream in [silent, half, dribble] {
        let mut rest = Vec::new();
        // Closed in order or reset: either way it ends, or the read's own time-out fails the test below.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(clock.monotonic_ms() < 5 * 2 * 300, "took {} ms", clock.monotonic_ms());
    server.websocket();
}

#[test]
fn connections_over_the_cap_are_turned_away_until_one_ends() {
    let server = TestServer::start("gateway.connections_max = 2");
    let (first, _second) = (server.websocket(), server.websocket());
    let answer = exchange(server.connect(), "");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(first);
    let clock = Clock::start();
    while !server.get("/healthz").starts_with("HTTP/1.1 200") {
        assert!(clock.monotonic_ms() < 5_000, "the slot was not given back");
    }
}

#[test]
fn h6_the_time_for_the_hello_begins_with_the_upgrade() {
    let server = TestServer::start("limits.handshake_timeout_ms = 1500");
    let mut stream = server.connect();
    for _ in 0..2 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            .expect("a request");
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).expect("an answer");
        assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
        std::thread::sleep(std::time::Duration::from_millis(800));
    }
    let mut peer = Peer::on(stream, server.address);
    peer.hello(None, Vec::new());
    peer.hear_welcome();
}

#[test]
fn a_draining_server_tells_its_connections_and_lets_no_more_in() {
    let server = TestServer::start("");
    let address = server.address;
    let mut socket = server.websocket();
    let idle = server.connect();
    let peer = std::thread::Builder::new().spawn(move || {
        loop {
            match socket.read() {
                Ok(Message::Close(frame)) => break frame,
                Ok(_) => {}
                Err(error) => panic!("no close came: {error}"),
            }
        }
    });
    let clock = Clock::start();
    assert!(server.shutdown(), "a connection did not end");
    let took_ms = clock.monotonic_ms();
    assert!(
        took_ms < 1_500,
        "{took_ms} ms: it waits for connections that have ended"
    );
    let frame = peer.expect("a thread").join().expect("a close");
    assert_eq!(frame.map(|frame| frame.code), Some(CloseCode::Restart));
    assert!(std::net::TcpStream::connect(address).is_err());
    drop(idle);
}
