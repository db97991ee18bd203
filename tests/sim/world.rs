//! The world of one seed: one queue of happenings, ordered by time and then by the order in which they were foreseen.

use crate::{
    audit::Audit,
    checks,
    client::Client,
    coverage::Coverage,
    disk::Disk,
    ledger::Ledger,
    network::{End, LinkId, Network, Packet},
    plan::Plan,
    random::Random,
    room::JobId,
    server::Server,
    trace::Trace,
};
use std::{collections::BTreeMap, sync::Arc};
use syncline_protocol::RoomNumber;

/// How long everything may take to come to rest once it is healed.
const REST_MS_MAX: u64 = 600_000;
/// How often it is looked whether everything has come to rest.
const REST_LOOK_MS: u64 = 500;

/// A fault that is built in on purpose, to see that the checks find it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mutation {
    #[default]
    None,
    /// Rooms are told that a batch is stored before it is synced.
    AckBeforeSync,
    /// As above, and nobody looks at what leaves the server: what a crash takes must show.
    AckBeforeSyncUnseen,
    /// Rooms are not told which members missed a diff.
    LoseLagged,
    /// A room that has ended does not wait for its work before the next one of the document opens.
    OpenTooEarly,
    /// A room that panics leaves what it had taken in unanswered.
    LoseMail,
    /// What was written is read before it is synced, of a store that failed to sync, too.
    ReadUnsynced,
    /// Readers' tokens are taken for writers'.
    ReadersWrite,
    /// Nothing tells the server that its store is a backup.
    RestoreUnnoticed,
}

impl Mutation {
    pub(crate) const ALL: [Self; 8] = [
        Self::AckBeforeSync,
        Self::AckBeforeSyncUnseen,
        Self::LoseLagged,
        Self::OpenTooEarly,
        Self::LoseMail,
        Self::ReadUnsynced,
        Self::ReadersWrite,
        Self::RestoreUnnoticed,
    ];
}

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    /// A client's wish to connect reaches the server's address.
    Dialled { client: usize, life: u64, dial: u64 },
    /// A packet has arrived at an end of a link.
    Arrived { link: LinkId, at: End },
    /// An end of a link notices that it is broken.
    Broken { link: LinkId, at: End },
    /// A connection of the server looks around.
    Connection { link: LinkId },
    /// A connection's writer has written out what it took.
    Flushed { link: LinkId },
    /// A connection that was closed is given up.
    Ended { link: LinkId },
    /// A room has its turn.
    Room { process: u64, number: RoomNumber },
    /// A piece of a room's work goes on.
    Job {
        process: u64,
        number: RoomNumber,
        job: JobId,
    },
    /// The store's writer has its turn.
    Writer { process: u64 },
    /// The store's writer looks for space.
    Probe { process: u64 },
    /// A client has its turn.
    Client { client: usize, life: u64 },
    /// A client's app gives the token that was asked for.
    Token { client: usize, life: u64 },
    /// A client's user does something.
    Act { client: usize },
    /// A client's process starts again.
    ClientStarts { client: usize },
    /// A client goes online again.
    Online { client: usize },
    /// A planned fault, by its number.
    Fault { number: usize },
    /// The server's process starts.
    ServerStarts,
    /// The disk is well again.
    DiskHeals,
    /// The disk is well again, and the server is restarted.
    Repaired,
}

/// What everything in the world shares.
pub(crate) struct Context {
    pub(crate) now: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    pub(crate) random: Random,
    pub(crate) plan: Plan,
    pub(crate) mutation: Mutation,
    pub(crate) network: Network,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    pub(crate) ledger: Ledger,
    pub(crate) audit: Audit,
    /// Merges that are to be said to have failed.
    pub(crate) bad_merges: u64,
    /// Rooms that are to panic.
    pub(crate) room_panics: u64,
    /// Clients that take their frames slowly, and until when.
    pub(crate) slow_until: BTreeMap<usize, u64>,
    /// Everything is to go well from now on.
    pub(crate) healed: bool,
    violation: Option<String>,
}

impl Context {
    /// Foresees something.
    pub(crate) fn after(&mut self, ms: u64, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((self.now + ms, self.sequence), happening);
    }

    /// A promise is broken. The first one is what the run reports.
    pub(crate) fn violated(&mut self, what: String) {
        self.trace.line(self.now, format_args!("VIOLATED {what}"));
        self.violation.get_or_insert(what);
    }

    /// How long the server takes to get rid of a thousand bytes for a client.
    pub(crate) fn ms_per_kilobyte(&self, client: usize) -> u64 {
        match self.slow_until.get(&client) {
            Some(until) if *until > self.now => 5_000,
            Some(_) | None if self.healed => 1,
            Some(_) | None => self.plan.clients[client].ms_per_kilobyte,
        }
    }

    pub(crate) fn say(&mut self, what: std::fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }
}

/// One run.
pub(crate) struct World {
    pub(crate) context: Context,
    pub(crate) disk: Arc<Disk>,
    pub(crate) server: Option<Server>,
    pub(crate) clients: Vec<Client>,
    pub(crate) processes: u64,
    /// The server dies as soon as something is not synced, and is away for so long.
    pub(crate) dies_unsynced: Option<u64>,
    /// A room panics as soon as the store is read-only.
    pub(crate) breaks_unsynced: bool,
    /// How long a server that is stopping will be away.
    pub(crate) down_ms: u64,
}

/// What came of one run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) hash: u64,
    pub(crate) coverage: Coverage,
    /// The first promise that was broken.
    pub(crate) violation: Option<String>,
}

/// Runs one seed to its end.
pub(crate) fn run(seed: u64, mutation: Mutation, printed: bool) -> Outcome {
    let mut random = Random::new(seed);
    let plan = Plan::new(&mut random);
    let mut world = World::new(random, plan, mutation, printed);
    world.begin();
    world.live();
    if world.context.violation.is_none() {
        world.heal();
    }
    let Context {
        trace,
        coverage,
        violation,
        ..
    } = world.context;
    Outcome {
        hash: trace.hash(),
        coverage,
        violation,
    }
}

impl World {
    fn new(mut random: Random, plan: Plan, mutation: Mutation, printed: bool) -> Self {
        let clients = (0..plan.clients.len()).map(|index| Client::new(index, &mut random));
        let clients = clients.collect();
        let ledger = Ledger::new(&plan);
        let context = Context {
            now: 1_000,
            sequence: 0,
            queue: BTreeMap::new(),
            random,
            plan,
            mutation,
            network: Network::default(),
            trace: Trace::new(printed),
            coverage: Coverage::default(),
            ledger,
            audit: Audit::default(),
            bad_merges: 0,
            room_panics: 0,
            slow_until: BTreeMap::new(),
            healed: false,
            violation: None,
        };
        let disk = Disk::default();
        if mutation == Mutation::ReadUnsynced {
            disk.show_unsynced();
        }
        Self {
            context,
            disk: Arc::new(disk),
            server: None,
            clients,
            processes: 0,
            dies_unsynced: None,
            breaks_unsynced: false,
            down_ms: 0,
        }
    }

    fn begin(&mut self) {
        let context = &mut self.context;
        context.say(format_args!("{:?}", context.plan.clone()));
        context.after(0, Happening::ServerStarts);
        for client in 0..self.clients.len() {
            let ms = context.random.between(0, 500);
            context.after(ms, Happening::ClientStarts { client });
            context.after(ms + 500, Happening::Act { client });
        }
        for number in 0..context.plan.faults.len() {
            let at = context.plan.faults[number].0;
            context.after(at, Happening::Fault { number });
        }
    }

    fn live(&mut self) {
        let end = self.context.now + self.context.plan.active_ms;
        self.run_until(end);
    }

    /// Lets things happen up to `end`, or to the first broken promise.
    fn run_until(&mut self, end: u64) {
        while self.context.violation.is_none()
            && let Some(entry) = self.context.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), happening) = entry.remove_entry();
            self.context.now = at;
            self.happen(happening);
        }
        self.context.now = self.context.now.max(end);
    }

    /// Nothing goes wrong any more. Everything has to come to rest, and then to be equal.
    fn heal(&mut self) {
        self.context.say(format_args!("everything heals"));
        self.context.healed = true;
        self.dies_unsynced = None;
        (self.context.bad_merges, self.context.room_panics) = (0, 0);
        self.heal_world();
        let deadline = self.context.now + REST_MS_MAX;
        while self.context.violation.is_none() {
            let next = self.context.now + REST_LOOK_MS;
            self.run_until(next);
            let Err(restless) = self.is_at_rest() else { break };
            if self.context.now > deadline {
                self.context.violated(format!("it never comes to rest: {restless}"));
            }
        }
        if self.context.violation.is_none() {
            checks::everything(self);
        }
    }

    fn happen(&mut self, happening: Happening) {
        let process = self.server.as_ref().map(|server| server.process());
        let context = &mut self.context;
        context.trace.number(context.now);
        context.coverage.happenings += 1;
        match happening {
            Happening::Dialled { client, life, dial } => self.dialled(client, life, dial),
            Happening::Arrived { link, at: End::Client } => self.arrived_at_client(link),
            Happening::Broken { link, at: End::Client } => {
                if let Some(client) = context.network.client(link) {
                    context.network.let_go(link, End::Client);
                    self.clients[client].disconnected(link, None, context);
                }
            }
            Happening::Client { client, life } => self.clients[client].turn(life, context),
            Happening::Token { client, life } => self.clients[client].token(life, context),
            Happening::Act { client } => self.clients[client].act(context),
            Happening::ClientStarts { client } => self.clients[client].start(context),
            Happening::Online { client } => self.clients[client].online(context),
            Happening::Fault { number } => self.fault(number),
            Happening::ServerStarts => self.start_server(),
            Happening::DiskHeals => self.disk_heals(),
            Happening::Repaired => self.repaired(),
            Happening::Room { process: of, .. }
            | Happening::Job { process: of, .. }
            | Happening::Writer { process: of }
            | Happening::Probe { process: of }
                if process != Some(of) => {}
            happening => {
                if let Some(server) = &mut self.server {
                    server.happen(happening, context);
                }
            }
        }
        if self.dies_unsynced.is_some() && self.disk.unsynced() > 0 && self.context.random.percent(30) {
            let down_ms = self.dies_unsynced.take().unwrap_or_default();
            self.crash(down_ms);
        }
        if self.breaks_unsynced && self.server.as_ref().is_some_and(Server::is_read_only) {
            self.breaks_unsynced = false;
            self.context.room_panics += 1;
        }
        self.reap_server();
    }

    fn dialled(&mut self, client: usize, life: u64, dial: u64) {
        let context = &mut self.context;
        if !self.clients[client].is_dialling(life, dial) {
            return;
        }
        match &mut self.server {
            Some(server) if server.accepts() => {
                let link = context.network.connect(client);
                server.accept(link, client, context);
                self.clients[client].connected(link, context);
            }
            Some(_) | None => self.clients[client].refused(context),
        }
    }

    fn arrived_at_client(&mut self, link: LinkId) {
        let context = &mut self.context;
        let Some(client) = context.network.client(link) else {
            return;
        };
        let Some(packet) = context.network.receive(link, End::Client, context.now) else {
            return;
        };
        if let Packet::Ping = packet {
            context.send(link, End::Server, Packet::Ping);
        }
        self.clients[client].received(link, packet, context);
    }
}
