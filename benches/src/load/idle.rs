//! Connections that do nothing: what each of them keeps in memory.

use super::{process::Server, target::Target};
use crate::report::Sample;
use std::time::Duration;

const ROOM_MEMBERS: usize = 10;

/// Opens `connections`, in rooms of ten, and looks at the server's memory before and after.
pub(crate) async fn run(target: Target, server: &Server, connections: usize) -> anyhow::Result<Sample> {
    // What the first connection makes the server set up is not what the others cost.
    let first = target.join(server.address, "first", None).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before_kib = server.rss_kib()?;
    let mut links = Vec::with_capacity(connections);
    for number in 0..connections {
        let room = format!("idle-{}", number / ROOM_MEMBERS);
        links.push(target.join(server.address, &room, None).await?);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after_kib = server.rss_kib()?;
    let cpu_s = server.cpu_s()?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle_cpu = server.cpu_s()? - cpu_s;
    drop((first, links));
    Ok(vec![
        ("kib_per_connection", (after_kib - before_kib) / connections as f64),
        ("rss_mib", after_kib / 1_024.0),
        ("idle_cpu_share", idle_cpu),
    ])
}
