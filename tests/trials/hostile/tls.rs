//! Row 32: a small scanner of the TLS port. It offers every version and every cipher suite by itself, in bare ClientHellos.

use crate::{
    clock,
    process::PATIENCE,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs},
};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

pub(crate) const ROW: Row = Row {
    number: "32",
    name: "TLS versions and cipher suites",
    target: "1.2 and 1.3 only; clean report from a scanner",
    ci: 1,
    soak: 1,
    run,
    bites: &[Bite {
        name: "OpenSSL, which speaks all that it can",
        environment: &[(OPENSSL, "1")],
        count: 1,
    }],
};

/// No server of ours speaks what the scanner is to find, so a bite has it look at another.
const OPENSSL: &str = "TRIAL_OPENSSL";
/// What 1.2 may be spoken with: forward secrecy and authenticated encryption, for a certificate with an ECDSA key.
const GOOD: [u16; 3] = [0xc02b, 0xc02c, 0xcca9];
const HANDSHAKE: u8 = 0x16;
const SERVER_HELLO: u8 = 2;
/// SSL 3.0 to TLS 1.1, as they stand in a ClientHello.
const OLD: [u8; 3] = [0, 1, 2];
/// What they would be spoken with: those of 1.2 have no suite that is any good.
const OLD_SUITE: u16 = 0xc009;
const TLS_1_2: u8 = 3;

fn run(trial: &Trial) -> Outcome {
    let directory = trial.directory("certificate");
    let (certificate, key) = (directory.join("cert.pem"), directory.join("key.pem"));
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["localhost".to_owned()]).map_err(|error| error.to_string())?;
    let write = |path, text: String| fs::write(path, text).map_err(|error| error.to_string());
    write(&key, signing_key.serialize_pem())?;
    write(&certificate, cert.pem())?;
    if trial.is_told(OPENSSL) {
        needs("openssl")?;
        let lax = Lax::start(&certificate, &key)?;
        return scan(lax.address);
    }
    let process = trial
        .setup(&trial.directory("store"))
        .variable("SYNCLINE_TLS_CERT", certificate.display())
        .variable("SYNCLINE_TLS_KEY", key.display())
        .start()?;
    scan(process.address)
}

fn scan(address: SocketAddr) -> Outcome {
    let mut offers = 0;
    for version in OLD {
        offers += 1;
        ensure!(
            !takes(
                address,
                &Hello {
                    version,
                    ..Hello::with(OLD_SUITE)
                }
            )?,
            "version 3.{version} is spoken"
        );
    }
    let suites = (1..=0xff)
        .chain(0xc001..=0xc0ff)
        .chain(0xcc13..=0xccae)
        .chain(0x1301..=0x1305);
    for suite in suites {
        offers += 1;
        let is_taken = takes(address, &Hello::with(suite))?;
        ensure!(
            is_taken == GOOD.contains(&suite),
            "TLS 1.2 with the cipher suite {suite:#06x}: taken is {is_taken}"
        );
    }
    let with = |change: fn(&mut Hello)| {
        let mut hello = Hello::with(GOOD[0]);
        change(&mut hello);
        takes(address, &hello)
    };
    ensure!(!with(|hello| hello.compression = 1)?, "packed records are spoken");
    let is_1_3 = |hello: &mut Hello| {
        (hello.suite, hello.extensions) = (0x1301, TLS_1_3.to_vec());
    };
    ensure!(with(is_1_3)?, "TLS 1.3 is not spoken");
    offers += 2;
    let text = "1.2 with 3 suites and 1.3 are spoken, nothing else; no scanner from outside has looked".to_owned();
    Ok(Figure { count: offers, text })
}

/// What a client offers.
struct Hello {
    version: u8,
    suite: u16,
    compression: u8,
    extensions: Vec<u8>,
}

/// Signatures, curves, points: what every honest client says.
const USUAL: [u8; 22] = [0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 0x17, 0, 11, 0, 2, 1, 0];
/// The same with TLS 1.3 as the only version, and no key share, for which the server then asks.
const TLS_1_3: [u8; 29] = [
    0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 0x17, 0, 43, 0, 3, 2, 3, 4, 0, 51, 0, 2, 0, 0,
];

impl Hello {
    fn with(suite: u16) -> Self {
        Self {
            version: TLS_1_2,
            suite,
            compression: 0,
            extensions: USUAL.to_vec(),
        }
    }

    /// As a record (RFC 5246, 7.4.1.2).
    fn bytes(&self) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).expect("short");
        let [high, low] = self.suite.to_be_bytes();
        let mut body = vec![3, self.version];
        body.extend([7; 32]);
        body.extend([0, 0, 2, high, low, 1, self.compression]);
        body.extend([0, length(&self.extensions)]);
        body.extend(&self.extensions);
        let message = [&[1, 0, 0, length(&body)], &body[..]].concat();
        [&[HANDSHAKE, 3, 1, 0, length(&message)], &message[..]].concat()
    }
}

/// Whether the server goes on with the handshake.
fn takes(address: SocketAddr, hello: &Hello) -> Result<bool, String> {
    let mut stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream.write_all(&hello.bytes()).map_err(|error| error.to_string())?;
    let mut answer = [0; 6];
    // It hangs up on what it does not like, with or without an alert.
    Ok(stream.read_exact(&mut answer).is_ok() && answer[0] == HANDSHAKE && answer[5] == SERVER_HELLO)
}

/// OpenSSL's own server with all that it can speak.
struct Lax {
    child: Child,
    address: SocketAddr,
}

impl Lax {
    fn start(certificate: &Path, key: &Path) -> Result<Self, String> {
        // The port is free again when this returns; whoever takes it meanwhile makes the bite fail, and no row.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.map_err(|error| error.to_string())?;
        let child = Command::new("openssl")
            .args([
                "s_server",
                "-quiet",
                "-www",
                "-cipher",
                "ALL:@SECLEVEL=0",
                "-min_protocol",
                "TLSv1",
                "-accept",
            ])
            .arg(address.to_string())
            .arg("-cert")
            .arg(certificate)
            .arg("-key")
            .arg(key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("openssl: {error}"))?;
        let lax = Self { child, address };
        let listens = clock::wait_until(PATIENCE, || TcpStream::connect(address).is_ok());
        ensure!(listens, "openssl does not listen");
        Ok(lax)
    }
}

impl Drop for Lax {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
