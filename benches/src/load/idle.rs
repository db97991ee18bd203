//! Connections that do nothing: what each of them costs in memory, with and without TLS, and what each room.

use super::{
    process::{Programs, Server},
    target::{Link, Target},
};
use crate::{edits::Base, report::Sample};
use anyhow::Context;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use std::{fs, path::Path, sync::Arc, time::Duration};

const MEMBERS_PER_ROOM: usize = 10;
/// How long everything is left alone before memory is looked at.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens `connections`, in rooms of ten.
pub(crate) async fn run(target: Target, server: &Server, connections: usize) -> anyhow::Result<Sample> {
    match target {
        Target::Syncline => syncline(server, connections, None).await,
        _ => joined(target, server, connections).await,
    }
}

/// The same over TLS, on a server of its own with a certificate made for it.
pub(crate) async fn run_tls(programs: &Programs, data: &Path, connections: usize) -> anyhow::Result<Sample> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()])?;
    let (cert_file, key_file) = (data.join("cert.pem"), data.join("key.pem"));
    fs::write(&cert_file, cert.pem())?;
    fs::write(&key_file, signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let environment = [
        ("SYNCLINE_TLS_CERT", cert_file.to_str().context("not a path in UTF-8")?),
        ("SYNCLINE_TLS_KEY", key_file.to_str().context("not a path in UTF-8")?),
    ];
    let server = programs.start_with(Target::Syncline, &data.join("store"), &environment)?;
    let sample = syncline(&server, connections, Some(&Arc::new(config))).await?;
    server.stop().await?;
    Ok(sample)
}

/// First the connections alone, then the rooms.
async fn syncline(server: &Server, connections: usize, tls: Option<&Arc<ClientConfig>>) -> anyhow::Result<Sample> {
    let greet = async || match tls {
        Some(config) => Link::greet_tls(server.address, config).await,
        None => Link::greet(server.address, Vec::new()).await,
    };
    // What the first connection makes the server set up is not what the others cost.
    let mut first = greet().await?;
    first.open("first", None, Vec::new()).await?;
    let empty_kib = server.rss_kib()?;
    let mut links = Vec::with_capacity(connections);
    for _ in 0..connections {
        links.push(greet().await?);
    }
    tokio::time::sleep(SETTLE).await;
    let connected_kib = server.rss_kib()?;
    for (number, link) in links.iter_mut().enumerate() {
        let room = format!("idle-{}", number / MEMBERS_PER_ROOM);
        link.open(&room, None, Vec::new()).await?;
    }
    let mut sample = all(server, connections, empty_kib).await?;
    let rooms_kib = server.rss_kib()? - connected_kib;
    sample.extend([
        ("kib_per_connection", (connected_kib - empty_kib) / connections as f64),
        (
            "kib_per_room",
            rooms_kib / (connections / MEMBERS_PER_ROOM).max(1) as f64,
        ),
    ]);
    Ok(sample)
}

async fn joined(target: Target, server: &Server, connections: usize) -> anyhow::Result<Sample> {
    let base = match target.yjs() {
        Some(_) => Base::of_yjs(None),
        None => Base::empty_text()?,
    };
    target.begin(server.address, "first", &base).await?;
    let _first = target.join(server.address, "first", None).await?;
    tokio::time::sleep(SETTLE).await;
    let empty_kib = server.rss_kib()?;
    let mut links = Vec::with_capacity(connections);
    for number in 0..connections {
        let room = format!("idle-{}", number / MEMBERS_PER_ROOM);
        if number % MEMBERS_PER_ROOM == 0 {
            target.begin(server.address, &room, &base).await?;
        }
        links.push(target.join(server.address, &room, None).await?);
    }
    all(server, connections, empty_kib).await
}

async fn all(server: &Server, connections: usize, empty_kib: f64) -> anyhow::Result<Sample> {
    tokio::time::sleep(SETTLE).await;
    let (kib, cpu_s) = (server.rss_kib()?, server.cpu_s()?);
    tokio::time::sleep(SETTLE).await;
    let cpu_s = server.cpu_s()? - cpu_s;
    Ok(vec![
        ("kib_per_connection_with_rooms", (kib - empty_kib) / connections as f64),
        ("rss_mib", kib / 1_024.0),
        ("idle_cpu_share", cpu_s / SETTLE.as_secs_f64()),
    ])
}
