//! The server's process: connections, rooms, and the store's writer. It dies with all that it has in memory.

use crate::{
    connection::Connection,
    disk::Disk,
    network::{End, LinkId, Packet},
    room::{Mail, Task},
    world::{Context, Happening},
    writer::{Ticket, Writer},
};
use std::{collections::BTreeMap, sync::Arc};
use syncline::{
    engine::room::Event,
    server::store::{Life, Store},
};
use syncline_protocol::{DocumentId, RoomNumber};

/// One process.
pub(crate) struct Server {
    hub: Hub,
    connections: BTreeMap<LinkId, Connection>,
}

/// The rooms and what they share.
pub(crate) struct Hub {
    process: u64,
    store: Store,
    writer: Writer,
    listed: BTreeMap<DocumentId, RoomNumber>,
    tasks: BTreeMap<RoomNumber, Task>,
    next: u64,
    stopping: bool,
}

impl Hub {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The room of a document, opened if need be.
    pub(crate) fn room(&mut self, document: &DocumentId, context: &mut Context) -> RoomNumber {
        if let Some(number) = self.listed.get(document) {
            return *number;
        }
        self.next += 1;
        let number = RoomNumber::new(self.next);
        let task = Task::open(
            self.process,
            document.clone(),
            number,
            &self.store,
            &mut self.writer,
            context,
        );
        self.tasks.insert(number, task);
        self.listed.insert(document.clone(), number);
        number
    }

    /// Sends mail to a room; it comes back when the inbox is full. A room that has ended needs no mail.
    pub(crate) fn post(
        &mut self,
        room: RoomNumber,
        mail: Mail,
        link: LinkId,
        context: &mut Context,
    ) -> Result<(), Mail> {
        match self.tasks.get_mut(&room) {
            Some(task) => task.post(mail, link, context),
            None => Ok(()),
        }
    }

    /// Sends mail to a room, on behalf of a connection that has ended.
    pub(crate) fn tell(&mut self, room: RoomNumber, mail: Mail, context: &mut Context) {
        if let Some(task) = self.tasks.get_mut(&room) {
            task.tell(mail, context);
        }
    }

    fn end(&mut self, number: RoomNumber, context: &mut Context) {
        if let Some(task) = self.tasks.remove(&number) {
            self.listed.retain(|_, listed| *listed != number);
            task.end(context);
        }
    }

    fn write(&mut self, context: &mut Context) {
        for (ticket, result) in self.writer.turn(context) {
            match ticket {
                Ticket::Append(number) => {
                    context.ledger.written(number, result.is_ok());
                    if let Some(task) = self.tasks.get_mut(&number) {
                        task.work.appended(&result, context);
                        task.poke(context);
                    }
                }
                Ticket::Job(number, job) => {
                    if let Some(task) = self.tasks.get_mut(&number) {
                        task.work.committed(job, result, &mut self.writer, context);
                    }
                }
            }
        }
    }
}

impl Server {
    pub(crate) fn start(process: u64, disk: &Arc<Disk>, context: &mut Context) -> Option<Self> {
        context.say(format_args!("process {process} starts"));
        let writer = Writer::start(process, disk.clone());
        let next = Life {
            number: context.random.number(),
            began_unix_ms: context.now,
        };
        let store = match Store::begin(disk.clone(), next) {
            Ok(store) => store,
            Err(error) => {
                context.say(format_args!("it does not: {error}"));
                return None;
            }
        };
        let hub = Hub {
            process,
            store,
            writer,
            listed: BTreeMap::new(),
            tasks: BTreeMap::new(),
            next: 0,
            stopping: false,
        };
        Some(Self {
            hub,
            connections: BTreeMap::new(),
        })
    }

    pub(crate) fn process(&self) -> u64 {
        self.hub.process
    }

    pub(crate) fn accepts(&self) -> bool {
        !self.hub.stopping
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.hub.writer.is_read_only()
    }

    pub(crate) fn accept(&mut self, link: LinkId, client: usize, context: &mut Context) {
        let connection = Connection::new(link, client, context);
        context.audit.connected(link, connection.session());
        self.connections.insert(link, connection);
    }

    pub(crate) fn happen(&mut self, happening: Happening, context: &mut Context) {
        match happening {
            Happening::Arrived { link, .. } => {
                let packet = context.network.receive(link, End::Server, context.now);
                if let (Some(packet), Some(connection)) = (packet, self.connections.get_mut(&link)) {
                    connection.arrive(packet);
                }
                self.turn(link, context);
            }
            Happening::Broken { link, .. } => {
                if let Some(connection) = self.connections.get_mut(&link) {
                    connection.arrive(Packet::Closed(None));
                }
                self.turn(link, context);
            }
            Happening::Connection { link } => self.turn(link, context),
            Happening::Flushed { link } => {
                if let Some(connection) = self.connections.get_mut(&link) {
                    connection.flushed(context);
                }
            }
            Happening::Ended { link } => self.leave(link, context),
            Happening::Room { number, .. } => {
                if let Some(task) = self.hub.tasks.get_mut(&number)
                    && task.turn(&mut self.hub.writer, context)
                {
                    self.hub.end(number, context);
                }
            }
            Happening::Job { number, job, .. } => {
                if let Some(task) = self.hub.tasks.get_mut(&number)
                    && task.work.go_on(job, &mut self.hub.writer, context)
                {
                    task.poke(context);
                }
            }
            Happening::Writer { .. } => self.hub.write(context),
            Happening::Probe { .. } => self.hub.writer.look(context),
            other => unreachable!("{other:?} does not happen to a server"),
        }
    }

    fn turn(&mut self, link: LinkId, context: &mut Context) {
        if let Some(connection) = self.connections.get_mut(&link)
            && connection.turn(&mut self.hub, context)
        {
            self.leave(link, context);
        }
    }

    fn leave(&mut self, link: LinkId, context: &mut Context) {
        if let Some(connection) = self.connections.remove(&link) {
            connection.leave(&mut self.hub, context);
            // To the client the connection has ended, too, behind what is on its way.
            context.send(link, End::Client, Packet::Closed(None));
            context.network.let_go(link, End::Server);
        }
    }

    /// Memory is short: rooms let go of what they can load again.
    pub(crate) fn trim(&mut self, context: &mut Context) {
        for task in self.hub.tasks.values_mut() {
            task.tell(Mail::Event(Event::Trimmed), context);
        }
    }

    /// The server stops in good order.
    pub(crate) fn stop(&mut self, context: &mut Context) {
        self.hub.stopping = true;
        for link in self.connections.keys() {
            context.after(0, Happening::Connection { link: *link });
        }
    }

    /// Goes on with an orderly stop: when the connections are gone, the rooms stop. Whether all is done.
    pub(crate) fn has_stopped(&mut self, context: &mut Context) -> bool {
        if !self.hub.stopping || !self.connections.is_empty() {
            return false;
        }
        for task in self.hub.tasks.values_mut() {
            task.stop(context);
        }
        self.hub.tasks.is_empty() && self.hub.writer.is_idle()
    }

    /// The process dies, and every link with it.
    pub(crate) fn die(self, context: &mut Context) {
        for link in self.connections.into_keys() {
            context.audit.gone(link);
            context.network.let_go(link, End::Server);
            context.cut(link);
        }
    }
}
