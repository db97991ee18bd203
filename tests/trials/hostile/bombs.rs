//! Rows 21 and 22: small messages that would become large, in operations or in bytes.

use crate::{
    checks::Witnesses,
    client::Client,
    clock,
    hostile::crafted::{deflate_bomb, op_bombs},
    process::Process,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use bytes::Bytes;
use std::io::Write;

pub(crate) const OPS: Row = Row {
    number: "21",
    name: "operation bombs",
    target: "refused within 20 ms and 10 MiB",
    ci: 1,
    soak: 10,
    run: ops,
    bites: &[Bite {
        name: "no limit of operations",
        environment: &[("SYNCLINE_LIMITS_OPS_PER_CHANGE_MAX", "2000000")],
        count: 1,
    }],
};

pub(crate) const DEFLATE: Row = Row {
    number: "22",
    name: "deflate bombs",
    target: "refused within 50 ms; memory at most twice the cap of 8 MiB",
    ci: 1,
    soak: 10,
    run: deflate,
    bites: &[Bite {
        name: "no limit of inflated bytes",
        environment: &[("SYNCLINE_LIMITS_INFLATED_BYTES_MAX", "2000000000")],
        count: 1,
    }],
};

/// Each bomb is sent so often; the fastest answer counts, so that a busy machine does not.
const TIMES: usize = 5;
/// What is asserted is this often the target.
const SLACK: f64 = 5.0;
/// The default: what is as large as this is not read to its end.
const FRAME_BYTES_MAX: usize = 1 << 20;
const DEFLATED: [usize; 6] = [1 << 10, 16 << 10, 100 << 10, 1_000 << 10, 4 << 20, 16 << 20];

fn ops(trial: &Trial) -> Outcome {
    let bombs = op_bombs(b"a bomber of run lengths");
    explode(trial, &bombs, 20.0, 10 << 10)
}

fn deflate(trial: &Trial) -> Outcome {
    let bombs = DEFLATED.map(|bytes| {
        let (bomb, inflated) = deflate_bomb(bytes);
        (
            format!("{} KiB that become {} MiB", bomb.len() >> 10, inflated >> 20),
            bomb,
        )
    });
    explode(trial, &bombs, 50.0, 16 << 10)
}

fn explode(trial: &Trial, bombs: &[(String, Vec<u8>)], target_ms: f64, target_kib: u64) -> Outcome {
    let process = trial.setup(&trial.directory("store")).start()?;
    let mut witnesses = Witnesses::join(process.address, None, "notes")?;
    let (mut slowest, mut largest) = (0_f64, 0);
    trial.rounds(|_, _| {
        for (name, bomb) in bombs {
            let (ms, kib) = refused(&process, name, bomb)?;
            ensure!(ms <= SLACK * target_ms, "{name}: refused after {ms:.1} ms");
            ensure!(kib <= target_kib, "{name}: took {kib} KiB");
            (slowest, largest) = (slowest.max(ms), largest.max(kib));
            witnesses.are_unhurt(name)?;
        }
        Ok(())
    })?;
    let text = format!("all refused, at most {slowest:.1} ms and {largest} KiB");
    let count = bombs.len() as u64;
    Ok(Figure { count, text })
}

/// Sends a bomb a few times: the fastest answer in milliseconds, and how much the memory grew, in KiB.
fn refused(process: &Process, name: &str, bomb: &[u8]) -> Result<(f64, u64), String> {
    let bomb = Bytes::copy_from_slice(bomb);
    let (mut fastest, mut grown) = (f64::MAX, u64::MAX);
    for _ in 0..TIMES {
        let mut attacker = Client::connect(process.address)?;
        let room = attacker.open("notes")?.opened.room;
        process.reset_peak();
        let before = process.rss_kib();
        let begun = clock::now();
        if bomb.len() < FRAME_BYTES_MAX {
            attacker.edit(room, 1, vec![bomb.clone()])?;
        } else {
            begin_frame(&mut attacker, &bomb)?;
        }
        let answer = attacker.answer(1);
        fastest = fastest.min(begun.ms());
        // The message itself is not what it becomes.
        let message = bomb.len().min(FRAME_BYTES_MAX) as u64 >> 10;
        grown = grown.min(process.peak_kib().saturating_sub(before).saturating_sub(message));
        ensure!(
            matches!(answer.as_str(), "limit" | "4409" | "4400"),
            "{name}: answered with {answer}"
        );
    }
    Ok((fastest, grown))
}

/// The head of a frame that is too large, and as much of it as the server's buffers take.
fn begin_frame(attacker: &mut Client, payload: &[u8]) -> Result<(), String> {
    let mut bytes = vec![0x82, 0xff];
    bytes.extend((payload.len() as u64).to_be_bytes());
    // Masked with zeros, a payload stays as it is.
    bytes.extend([0; 4]);
    bytes.extend(&payload[..16 << 10]);
    attacker
        .socket
        .get_mut()
        .write_all(&bytes)
        .map_err(|error| error.to_string())
}
