//! The network: links between clients and the server that delay, stall and break. Within one link nothing is reordered.

use crate::world::{Context, Happening};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// One connection of one client, by number.
pub(crate) type LinkId = u64;

/// The two ends of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Client,
    Server,
}

/// What travels on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    Frame(Bytes),
    /// A WebSocket ping or its answer.
    Ping,
    /// The other end has closed, with this code if it is the server.
    Closed(Option<u16>),
}

/// All links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
}

#[derive(Debug)]
struct Link {
    client: usize,
    to_client: Pipe,
    to_server: Pipe,
    broken: bool,
}

#[derive(Debug, Default)]
struct Pipe {
    packets: VecDeque<(u64, Packet)>,
    /// Nothing arrives before.
    earliest_ms: u64,
    /// Whether the receiving end is gone.
    deaf: bool,
}

impl Network {
    pub(crate) fn connect(&mut self, client: usize) -> LinkId {
        self.next += 1;
        self.links.insert(
            self.next,
            Link {
                client,
                to_client: Pipe::default(),
                to_server: Pipe::default(),
                broken: false,
            },
        );
        self.next
    }

    /// Whose link it is.
    pub(crate) fn client(&self, link: LinkId) -> Option<usize> {
        self.links.get(&link).map(|link| link.client)
    }

    /// One end lets go of the link; nothing reaches it any more.
    pub(crate) fn let_go(&mut self, link: LinkId, end: End) {
        if let Some(ends) = self.links.get_mut(&link) {
            ends.to(end).deaf = true;
            ends.to(end).packets.clear();
            if ends.to_client.deaf && ends.to_server.deaf {
                self.links.remove(&link);
            }
        }
    }

    /// What has arrived at this end by now, one packet.
    pub(crate) fn receive(&mut self, link: LinkId, end: End, now: u64) -> Option<Packet> {
        let pipe = self.links.get_mut(&link)?.to(end);
        let arrived = pipe.packets.front().is_some_and(|(at, _)| *at <= now);
        arrived
            .then(|| pipe.packets.pop_front())
            .flatten()
            .map(|(_, packet)| packet)
    }
}

impl Link {
    fn to(&mut self, end: End) -> &mut Pipe {
        match end {
            End::Client => &mut self.to_client,
            End::Server => &mut self.to_server,
        }
    }
}

impl Context {
    /// Puts a packet on its way.
    pub(crate) fn send(&mut self, link: LinkId, to: End, packet: Packet) {
        let at = self.now + self.plan.latency_ms(&mut self.random);
        let Some(ends) = self.network.links.get_mut(&link) else {
            return;
        };
        let broken = ends.broken;
        let pipe = ends.to(to);
        if broken || pipe.deaf {
            return;
        }
        pipe.earliest_ms = pipe.earliest_ms.max(at);
        let at = pipe.earliest_ms;
        pipe.packets.push_back((at, packet));
        self.after(at - self.now, Happening::Arrived { link, at: to });
    }

    /// Nothing arrives on the link before `ms` have passed, but for what is on its way already.
    pub(crate) fn stall(&mut self, link: LinkId, ms: u64) {
        let until = self.now + ms;
        if let Some(ends) = self.network.links.get_mut(&link) {
            for pipe in [&mut ends.to_client, &mut ends.to_server] {
                pipe.earliest_ms = pipe.earliest_ms.max(until);
            }
        }
    }

    /// The link breaks: what is on its way is lost, and each end notices in its own time.
    pub(crate) fn cut(&mut self, link: LinkId) {
        let Some(ends) = self.network.links.get_mut(&link) else {
            return;
        };
        ends.broken = true;
        for at in [End::Client, End::Server] {
            ends.to(at).packets.clear();
        }
        for at in [End::Client, End::Server] {
            let notices_ms = match self.random.percent(20) {
                true => self.random.between(1_000, 20_000),
                false => self.random.between(0, 500),
            };
            self.after(notices_ms, Happening::Broken { link, at });
        }
    }
}
