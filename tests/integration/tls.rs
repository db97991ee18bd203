//! TLS as a client sees it: versions, a replaced certificate, a slow handshake.

use crate::running::{TestServer, exchange, is_alive, native};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    version::{TLS12, TLS13},
};
use rustls_pki_types::CertificateDer;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};
use syncline::server::clock::Clock;
use tempfile::TempDir;

const GET: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A server and the files of its certificate.
struct TlsServer {
    server: TestServer,
    directory: TempDir,
}

impl TlsServer {
    fn start(text: &str) -> (Self, CertificateDer<'static>) {
        let directory = tempfile::tempdir().expect("a directory");
        let certificate = write_certificate(&directory);
        let path = |name: &str| directory.path().join(name).display().to_string();
        let text = format!(
            "{text}\n[tls]\ncert = '{}'\nkey = '{}'",
            path("cert.pem"),
            path("key.pem")
        );
        (
            Self {
                server: TestServer::start(&text),
                directory,
            },
            certificate,
        )
    }

    /// Connects as a client that trusts only `certificate` and speaks only `version`.
    fn connect(
        &self,
        certificate: &CertificateDer<'static>,
        version: &'static SupportedProtocolVersion,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a known version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "localhost".try_into().expect("a name");
        let client = ClientConnection::new(Arc::new(config), name).expect("a client");
        StreamOwned::new(client, self.server.connect())
    }

    fn is_served_with(&self, certificate: &CertificateDer<'static>) -> bool {
        exchange(self.connect(certificate, &TLS13), GET).starts_with("HTTP/1.1 200")
    }
}

fn write_certificate(directory: &TempDir) -> CertificateDer<'static> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    fs::write(directory.path().join("key.pem"), signing_key.serialize_pem()).expect("written");
    fs::write(directory.path().join("cert.pem"), cert.pem()).expect("written");
    cert.der().clone()
}

#[test]
fn tls_1_2_and_1_3_are_spoken() {
    let (tls, certificate) = TlsServer::start("");
    for version in [&TLS12, &TLS13] {
        let answer = exchange(tls.connect(&certificate, version), GET);
        assert!(answer.starts_with("HTTP/1.1 200"), "{version:?}: {answer}");
    }
    let (mut socket, _) = native("wss://localhost/sync", tls.connect(&certificate, &TLS13)).expect("a WebSocket");
    assert!(is_alive(&mut socket, 125));
}

#[test]
fn tls_1_1_is_refused() {
    let (tls, _) = TlsServer::start("");
    let first_answer = |version: [u8; 2]| {
        let mut stream = tls.server.connect();
        stream.write_all(&client_hello(version)).expect("sent");
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).expect("an answer");
        answer
    };
    // Version 3.3 is TLS 1.2: a handshake record with a ServerHello, so the message as such is sound.
    let [record, .., message, _] = first_answer([3, 3]);
    assert_eq!((record, message), (0x16, 2));
    // Version 3.2 is TLS 1.1: a fatal alert protocol_version (RFC 5246, 7.2).
    let [record, .., level, alert] = first_answer([3, 2]);
    assert_eq!((record, level, alert), (0x15, 2, 70));
}

/// The record of a ClientHello of `version` without `supported_versions`, as clients sent it before TLS 1.3.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let suites = [0, 2, 0xc0, 0x2b];
    let signatures = [0, 13, 0, 4, 0, 2, 4, 3];
    let groups = [0, 10, 0, 4, 0, 2, 0, 0x17];
    let points = [0, 11, 0, 2, 1, 0];
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
    let extensions = [&signatures[..], &groups, &points].concat();
    let extensions = [&[0, length(&extensions)], &extensions[..]].concat();
    // A random of 32 bytes, no session, the suites, no compression.
    let body = [&version, &[7; 32][..], &[0], &suites, &[1, 0], &extensions].concat();
    let message = [&[1, 0, 0, length(&body)], &body[..]].concat();
    [&[0x16, 3, 1, 0, length(&message)], &message[..]].concat()
}

#[test]
fn plain_http_gets_no_answer_where_tls_is_spoken() {
    let (tls, _) = TlsServer::start("");
    assert!(!exchange(tls.server.connect(), GET).contains("HTTP/1.1 200"));
}

#[test]
fn a_replaced_certificate_is_taken_over_and_a_bad_one_is_not() {
    // No hello comes on the open connection, for as long as two replacements take.
    let (tls, first) = TlsServer::start("limits.handshake_timeout_ms = 120_000");
    assert!(tls.is_served_with(&first));
    let mut open = native("wss://localhost/sync", tls.connect(&first, &TLS13))
        .expect("a WebSocket")
        .0;
    fs::write(tls.directory.path().join("cert.pem"), "not a certificate").expect("written");
    tls.server.server().reload();
    let clock = Clock::start();
    let failed = "syncline_reloads_total{what=\"Certificate\",outcome=\"Failed\"} 1\n";
    while !tls.server.server().metrics_text().contains(failed) {
        assert!(clock.monotonic_ms() < 15_000, "the bad certificate was not looked at");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        tls.is_served_with(&first),
        "the old certificate stays while the new one is bad"
    );
    let second = write_certificate(&tls.directory);
    let clock = Clock::start();
    while !tls.is_served_with(&second) {
        assert!(clock.monotonic_ms() < 30_000, "the new certificate was not taken over");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!tls.is_served_with(&first));
    assert!(is_alive(&mut open, 1), "connections from before live on");
}

#[test]
fn slow_tls_handshakes_are_closed() {
    let (tls, certificate) = TlsServer::start("limits.handshake_timeout_ms = 300");
    let clock = Clock::start();
    let mut silent = tls.server.connect();
    let mut half = tls.server.connect();
    half.write_all(&[0x16, 3, 1, 2]).expect("sent");
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        // Closed in order or reset: either way it ends.
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(clock.monotonic_ms() < 5 * 2 * 300, "took {} ms", clock.monotonic_ms());
    assert!(tls.is_served_with(&certificate));
}
