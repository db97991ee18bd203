//! Two cores, one model server, a network that delays and breaks, a disk that forgets: everything from one seed.
//!
//! Checked at every end: all replicas equal the server's document, no change that was promised is gone, and no local change is
//! gone that nobody refused.

use super::*;
use std::collections::{BTreeSet, VecDeque};

/// Seeds of one run of the tests.
const SEEDS: u64 = 200;
/// Random steps of one seed.
const STEPS: u32 = 250;

struct Node {
    core: Core,
    session: Option<SessionId>,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    /// Every change that was made here, made anew ones not counted.
    made: BTreeSet<ChangeHash>,
    /// The text of every change, unlike every other.
    words: Vec<String>,
}

struct World {
    random: Random,
    now_ms: u64,
    server: Server,
    nodes: Vec<Node>,
    document: DocumentId,
    words: u64,
    trace: String,
    crashes: u32,
    cuts: u32,
    lost: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut seed_bytes = [0; 32];
        seed_bytes[..8].copy_from_slice(&seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        let document = id("sim");
        let node = |number: u8| {
            let mut seed = seed_bytes;
            seed[31] = number;
            let core = Core::new(Config::new(seed));
            let (up, down) = (VecDeque::new(), VecDeque::new());
            Node {
                core,
                session: None,
                up,
                down,
                made: BTreeSet::new(),
                words: Vec::new(),
            }
        };
        let mut world = Self {
            random: Random::new(seed_bytes),
            now_ms: 1_000,
            server: Server::default(),
            nodes: (1..=2).map(node).collect(),
            document,
            words: 0,
            trace: String::new(),
            crashes: 0,
            cuts: 0,
            lost: 0,
        };
        let base = written(&world.server, &world.document, &[1], "base");
        world.server.write(&world.document, base, &mut Vec::new());
        for at in 0..world.nodes.len() {
            world.event(
                at,
                Event::Open {
                    document: world.document.clone(),
                    saved: None,
                },
            );
            world.event(at, Event::Started);
        }
        world
    }

    fn event(&mut self, at: usize, event: Event) {
        let mut effects = Vec::new();
        let settles = !self.random.number().is_multiple_of(3);
        let node = &mut self.nodes[at];
        node.core.handle(self.now_ms, event, &mut effects);
        if settles {
            node.core.settle(self.now_ms, &mut effects);
        }
        self.perform(at, effects);
    }

    fn perform(&mut self, at: usize, effects: Vec<Effect>) {
        for effect in effects {
            self.trace.push_str(&format!("{} {at} {effect:?}\n", self.now_ms));
            let node = &mut self.nodes[at];
            match effect {
                Effect::Connect => {
                    node.session = Some(self.server.accept());
                    self.event(at, Event::Connected);
                }
                Effect::Send(frame) => node.up.push_back(frame),
                Effect::Disconnect => self.break_connection(at),
                Effect::NeedToken | Effect::Notify(_) => {}
            }
        }
    }

    fn break_connection(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        (node.up, node.down) = (VecDeque::new(), VecDeque::new());
        if let Some(session) = node.session.take() {
            self.server.disconnect(session);
        }
    }

    fn cut(&mut self, at: usize) {
        if self.nodes[at].session.is_some() {
            self.cuts += 1;
            self.break_connection(at);
            self.event(at, Event::Disconnected { code: None });
        }
    }

    fn route(&mut self, frames: Vec<Outgoing>) {
        for (session, frame) in frames {
            if let Some(node) = self.nodes.iter_mut().find(|node| node.session == Some(session)) {
                node.down.push_back(frame);
            }
        }
    }

    fn write(&mut self, at: usize) {
        self.words += 1;
        let word = format!("<{}>", self.words);
        let front = self.random.number().is_multiple_of(2);
        let node = &mut self.nodes[at];
        let changed = node.core.change(&self.document, CommitOptions::default(), |tx| {
            let Some((_, object)) = tx.get(ROOT, "text")? else {
                return tx.put(ROOT, &word, true);
            };
            let end = if front { 0 } else { tx.length(&object) };
            tx.splice_text(&object, end, 0, &word)
        });
        node.made.insert(changed.unwrap().hash.unwrap());
        node.words.push(word);
        self.event(
            at,
            Event::Edited {
                document: self.document.clone(),
            },
        );
    }

    fn step(&mut self) {
        let at = (self.random.number() % self.nodes.len() as u64) as usize;
        match self.random.number() % 100 {
            0..=24 => self.write(at),
            25..=49 => self.deliver_up(at),
            50..=74 => self.deliver_down(at),
            75..=84 => self.sync(),
            85..=93 => self.wake(at),
            94..=95 => self.cut(at),
            96 => self.crash(),
            97 => self.server.compact(&self.document),
            98 => self.server.refuse = Some((RejectCode::Unavailable, 1)),
            _ => self.now_ms += self.random.number() % 1_000,
        }
    }

    fn deliver_up(&mut self, at: usize) {
        let Some(session) = self.nodes[at].session else { return };
        if let Some(frame) = self.nodes[at].up.pop_front() {
            let mut frames = Vec::new();
            self.server.receive(session, &frame, &mut frames);
            self.route(frames);
        }
    }

    fn deliver_down(&mut self, at: usize) {
        if let Some(frame) = self.nodes[at].down.pop_front() {
            self.event(at, Event::Received(frame));
        }
    }

    fn sync(&mut self) {
        let mut frames = Vec::new();
        self.server.sync(&mut frames);
        self.route(frames);
    }

    fn wake(&mut self, at: usize) {
        if let Some(due_ms) = self.nodes[at].core.next_wakeup() {
            self.now_ms = self.now_ms.max(due_ms);
            self.event(at, Event::Woke);
        }
    }

    fn crash(&mut self) {
        self.crashes += 1;
        self.lost += self.server.unsynced(&self.document) as u32;
        self.server.crash();
        (0..self.nodes.len()).for_each(|at| self.cut(at));
    }

    /// Everything is delivered, nothing fails any more, until nothing moves.
    fn heal(&mut self) {
        self.server.refuse = None;
        for round in 0..10_000 {
            for at in 0..self.nodes.len() {
                while !self.nodes[at].up.is_empty() || !self.nodes[at].down.is_empty() {
                    self.deliver_up(at);
                    self.deliver_down(at);
                }
                let mut effects = Vec::new();
                self.nodes[at].core.settle(self.now_ms, &mut effects);
                self.perform(at, effects);
            }
            self.sync();
            let quiet = self.nodes.iter().all(|node| {
                let state = node.core.state(&self.document).unwrap();
                let live = matches!(state.status, DocumentStatus::Live { .. });
                node.up.is_empty() && node.down.is_empty() && live && state.safety == Safety::Durable
            });
            if quiet {
                return;
            }
            assert!(round < 9_999, "it never comes to rest");
            if self.nodes.iter().all(|node| node.up.is_empty() && node.down.is_empty()) {
                (0..self.nodes.len()).for_each(|at| self.wake(at));
            }
        }
    }

    fn check(&self, seed: u64) {
        let expected = self.server.document(&self.document);
        let stored: BTreeSet<ChangeHash> = self
            .server
            .changes(&self.document)
            .iter()
            .map(automerge::Change::hash)
            .collect();
        let text = text_of(&expected);
        let promised = self.server.promised.get(&self.document).cloned().unwrap_or_default();
        assert!(promised.is_subset(&stored), "seed {seed}: a promised change is gone");
        for node in &self.nodes {
            let document = node.core.document(&self.document).unwrap();
            assert_eq!(document.get_heads(), expected.get_heads(), "seed {seed}: other heads");
            assert_eq!(text_of(document), text, "seed {seed}: another text");
            assert!(node.made.is_subset(&stored), "seed {seed}: a local change is gone");
            assert!(
                node.core.drafts(&self.document).is_empty(),
                "seed {seed}: a draft of nothing refused"
            );
            for word in &node.words {
                let keyed = usize::from(document.get(ROOT, word).unwrap().is_some());
                assert_eq!(keyed + text.matches(word.as_str()).count(), 1, "seed {seed}: {word}");
            }
        }
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        // What is shown as durable must be so at any moment.
        for node in &world.nodes {
            let unacknowledged: BTreeSet<ChangeHash> = node.core.unacknowledged(&world.document).into_iter().collect();
            let stored = world.server.promised.get(&world.document);
            let safe =
                |hash: &ChangeHash| unacknowledged.contains(hash) || stored.is_some_and(|kept| kept.contains(hash));
            assert!(node.made.iter().all(safe), "seed {seed}: called durable and is not");
        }
    }
    world.heal();
    world.check(seed);
    world
}

#[test]
fn replicas_converge_and_nothing_is_lost() {
    let (mut crashes, mut cuts, mut lost) = (0, 0, 0);
    for seed in 1..=SEEDS {
        let world = run(seed);
        crashes += world.crashes;
        cuts += world.cuts;
        lost += world.lost;
    }
    assert!(
        crashes > 100 && cuts > 100 && lost > 100,
        "{crashes} crashes, {cuts} cuts, {lost} unsynced changes lost"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    assert_eq!(run(7).trace, run(7).trace);
    assert_ne!(run(7).trace, run(8).trace);
}
