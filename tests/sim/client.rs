//! A client in virtual time: the Rust client's own core, a user who acts, an app that saves now and then.

use crate::{
    ledger::Word,
    load,
    network::{End, LinkId, Packet},
    random::Random,
    world::{Context, Happening},
};
use automerge::{AutomergeError, transaction::CommitOptions};
use bytes::Bytes;
use std::collections::BTreeMap;
use syncline_client::core::{ChangeError, Config, Core, Credentials, Draft, Effect, Event, Saved, Token};
use syncline_protocol::{
    ChangeHash, DocumentId,
    native::{Access, ClientMessage, decode_client},
};

/// How long a token is good.
const TOKEN_MS: (u64, u64) = (5_000, 60_000);

/// One client, through all its lives.
pub(crate) struct Client {
    index: usize,
    seed: u64,
    /// One more at each start of its process.
    pub(crate) life: u64,
    running: Option<Running>,
    saved: BTreeMap<DocumentId, Saved>,
    /// Whether what was saved is used at the next start.
    restores: bool,
    /// What the app took out of the core, per document.
    drafts: Vec<(DocumentId, Draft)>,
    online: bool,
}

struct Running {
    core: Core,
    link: Option<LinkId>,
    /// The attempt to connect that is under way.
    dial: Option<u64>,
    dials: u64,
    turn: Option<u64>,
    unsettled: bool,
    last_edit: Option<Bytes>,
}

impl Client {
    pub(crate) fn new(index: usize, random: &mut Random) -> Self {
        Self {
            index,
            seed: random.number(),
            life: 0,
            running: None,
            saved: BTreeMap::new(),
            restores: false,
            drafts: Vec::new(),
            online: true,
        }
    }

    pub(crate) fn core(&self) -> Option<&Core> {
        self.running.as_ref().map(|running| &running.core)
    }

    pub(crate) fn drafts(&self) -> &[(DocumentId, Draft)] {
        &self.drafts
    }

    pub(crate) fn link(&self) -> Option<LinkId> {
        self.running.as_ref()?.link
    }

    /// The client's process starts.
    pub(crate) fn start(&mut self, context: &mut Context) {
        if self.running.is_some() {
            return;
        }
        self.life += 1;
        let restored = std::mem::take(&mut self.restores);
        context.say(format_args!("client {} starts, restored: {restored}", self.index));
        let mut seed = Random::new(self.seed ^ self.life).seed();
        seed[31] = 1;
        let mut config = Config::new(seed);
        config.credentials = Credentials::Asked;
        // Nobody waits for hours here.
        config.limits.backoff_max_ms = 3_000;
        self.running = Some(Running {
            core: Core::new(config),
            link: None,
            dial: None,
            dials: 0,
            turn: None,
            unsettled: false,
            last_edit: None,
        });
        for (number, document) in context.plan.documents.clone().into_iter().enumerate() {
            let saved = self.saved.remove(&document).filter(|_| restored);
            if let Some(saved) = &saved {
                self.inherit(number, saved, context);
            }
            let saved = saved.map(Box::new);
            self.event(Event::Open { document, saved }, context);
        }
        if self.online {
            self.event(Event::Started, context);
        }
    }

    /// The words in unacknowledged changes are this life's own now.
    fn inherit(&self, number: usize, saved: &Saved, context: &mut Context) {
        let change = |bytes: &Bytes| crate::work::hash(bytes, &context.plan.limits);
        let own: Vec<ChangeHash> = saved.unacknowledged.iter().map(change).collect();
        let words = context.ledger.words.iter_mut();
        let mine = words.filter(|word| word.client == self.index && word.document == number);
        for word in mine.filter(|word| own.contains(&word.hash)) {
            word.life = self.life;
        }
    }

    /// The client's process dies; perhaps it had saved just before, or earlier, or never.
    pub(crate) fn crash(&mut self, restores: bool, context: &mut Context) {
        let Some(running) = self.running.take() else { return };
        context.say(format_args!("client {} dies", self.index));
        self.restores = restores && !self.saved.is_empty();
        match self.restores {
            true => context.coverage.clients_restored += 1,
            false => context.coverage.clients_emptied += 1,
        }
        if let Some(link) = running.link {
            context.network.let_go(link, End::Client);
            context.cut(link);
        }
    }

    /// The app saves all documents.
    pub(crate) fn save(&mut self, context: &Context) {
        if let Some(running) = &self.running {
            for document in &context.plan.documents {
                let saved = running.core.save(document).expect("the document is open");
                self.saved.insert(document.clone(), saved);
            }
        }
    }

    pub(crate) fn go_offline(&mut self, context: &mut Context) {
        self.online = false;
        self.event(Event::Stopped, context);
    }

    /// Connects, after whatever it was that kept it from that.
    pub(crate) fn online(&mut self, context: &mut Context) {
        self.online = true;
        self.event(Event::Started, context);
    }

    /// The user does something, and will again.
    pub(crate) fn act(&mut self, context: &mut Context) {
        let every_ms = context.plan.clients[self.index].edit_every_ms;
        if context.healed || context.now > context.plan.active_ms {
            return;
        }
        let next_ms = context.random.between(1, 2 * every_ms);
        context.after(next_ms, Happening::Act { client: self.index });
        if self.running.is_none() {
            return;
        }
        let number = context.random.index(context.plan.documents.len());
        match context.random.below(100) {
            0..=79 => self.edit(number, context),
            80..=84 => self.show(number, context),
            85..=89 => self.signal(number, context),
            _ => self.save(context),
        }
        self.take_drafts(context);
    }

    fn edit(&mut self, number: usize, context: &mut Context) {
        // Somebody pastes, types fast, or a program writes: several changes at once.
        let changes = if context.random.percent(8) {
            context.random.between(2, 12)
        } else {
            1
        };
        let document = context.plan.documents[number].clone();
        for _ in 0..changes {
            let Some(running) = &mut self.running else { return };
            let word = context.ledger.words.len();
            let random = &mut context.random;
            let options = CommitOptions::default();
            let changed = running
                .core
                .change(&document, options, |tx| load::write(tx, word, random));
            let done = match changed {
                Ok(changed) => changed,
                Err(ChangeError::Failed(error)) => {
                    let error: AutomergeError = error;
                    return context.violated(format!("client {} cannot edit: {error}", self.index));
                }
                Err(_) => return,
            };
            let hash = done.hash.expect("every edit changes something");
            let access = context.plan.clients[self.index].access[number];
            context.coverage.edits += 1;
            context.coverage.marks += u64::from(done.result.marked);
            context.coverage.reader_edits += u64::from(access == Access::Read);
            context.say(format_args!(
                "client {} writes <{word}> in {document}: {}",
                self.index, done.result.what
            ));
            context.ledger.words.push(Word {
                document: number,
                client: self.index,
                life: self.life,
                hash: ChangeHash(hash.0),
                forbidden: access == Access::Read,
                deleted: false,
            });
            if let Some(deleted) = done.result.deleted {
                context.coverage.deletions += 1;
                context.ledger.words[deleted].deleted = true;
            }
        }
        self.event(Event::Edited { document }, context);
    }

    fn show(&mut self, number: usize, context: &mut Context) {
        let document = context.plan.documents[number].clone();
        let state = context.random.number().to_be_bytes().to_vec();
        let state = context.random.percent(80).then(|| state.into());
        self.event(Event::SetPresence { document, state }, context);
    }

    fn signal(&mut self, number: usize, context: &mut Context) {
        let document = context.plan.documents[number].clone();
        let payload = context.random.number().to_be_bytes().to_vec().into();
        self.event(Event::SendSignal { document, payload }, context);
    }

    pub(crate) fn take_drafts(&mut self, context: &mut Context) {
        let Some(running) = &mut self.running else { return };
        for document in &context.plan.documents {
            let drafts = running.core.take_drafts(document);
            context.coverage.drafts += drafts.len() as u64;
            self.drafts
                .extend(drafts.into_iter().map(|draft| (document.clone(), draft)));
        }
    }

    /// Sends the last edit of this connection once more.
    pub(crate) fn resend(&mut self, context: &mut Context) {
        let Some(running) = &self.running else { return };
        if let (Some(link), Some(frame)) = (running.link, running.last_edit.clone()) {
            context.coverage.resends += 1;
            Self::send(link, frame, context);
        }
    }

    pub(crate) fn is_dialling(&self, life: u64, dial: u64) -> bool {
        let dialling = |running: &Running| running.dial == Some(dial);
        self.life == life && self.running.as_ref().is_some_and(dialling)
    }

    pub(crate) fn connected(&mut self, link: LinkId, context: &mut Context) {
        if let Some(running) = &mut self.running {
            (running.link, running.dial, running.last_edit) = (Some(link), None, None);
        }
        self.event(Event::Connected, context);
    }

    pub(crate) fn refused(&mut self, context: &mut Context) {
        if let Some(running) = &mut self.running {
            running.dial = None;
        }
        self.event(Event::Disconnected { code: None }, context);
    }

    pub(crate) fn received(&mut self, link: LinkId, packet: Packet, context: &mut Context) {
        if self.link() != Some(link) {
            return;
        }
        match packet {
            Packet::Frame(frame) => {
                context.trace.bytes(&frame);
                self.event(Event::Received(frame), context);
            }
            Packet::Ping => self.event(Event::Heard, context),
            Packet::Closed(code) => {
                context.send(link, End::Server, Packet::Closed(None));
                context.network.let_go(link, End::Client);
                self.disconnected(link, code, context);
            }
        }
    }

    pub(crate) fn disconnected(&mut self, link: LinkId, code: Option<u16>, context: &mut Context) {
        if let Some(running) = self.running.as_mut().filter(|running| running.link == Some(link)) {
            running.link = None;
            context.say(format_args!("client {} is disconnected, code {code:?}", self.index));
            self.event(Event::Disconnected { code }, context);
        }
    }

    pub(crate) fn token(&mut self, life: u64, context: &mut Context) {
        if self.life != life || self.running.is_none() {
            return;
        }
        let expires_at_ms = context.now + context.random.between(TOKEN_MS.0, TOKEN_MS.1);
        let name = &context.plan.clients[self.index].name;
        let answer = match context.random.percent(5) && !context.healed {
            true => Err("the app has no token now".to_owned()),
            false => Ok(Token {
                text: format!("{name} {expires_at_ms}"),
                expires_at_ms: Some(expires_at_ms),
            }),
        };
        context.coverage.tokens += 1;
        self.event(Event::Token(answer), context);
    }

    /// The time that the core named has come, or the end of a batch.
    pub(crate) fn turn(&mut self, life: u64, context: &mut Context) {
        let Some(running) = self.running.as_mut().filter(|_| self.life == life) else {
            return;
        };
        if running.turn.is_some_and(|at| at <= context.now) {
            running.turn = None;
            let woke = running.core.next_wakeup().is_some_and(|at| at <= context.now);
            let mut out = Vec::new();
            if woke {
                running.core.handle(context.now, Event::Woke, &mut out);
            }
            running.core.settle(context.now, &mut out);
            running.unsettled = false;
            self.perform(out, context);
            self.foresee(context);
        }
    }

    fn event(&mut self, event: Event, context: &mut Context) {
        let Some(running) = &mut self.running else { return };
        let mut out = Vec::new();
        running.core.handle(context.now, event, &mut out);
        if context.random.percent(70) {
            running.core.settle(context.now, &mut out);
            running.unsettled = false;
        } else {
            running.unsettled = true;
        }
        self.perform(out, context);
        self.foresee(context);
    }

    fn foresee(&mut self, context: &mut Context) {
        let Some(running) = &mut self.running else { return };
        let settle = running.unsettled.then_some(context.now + 5);
        let wake = running.core.next_wakeup().map(|at| at.max(context.now + 1));
        if let Some(at) = wake.into_iter().chain(settle).min()
            && running.turn.is_none_or(|turn| turn > at)
        {
            running.turn = Some(at);
            let (client, life) = (self.index, self.life);
            context.after(at - context.now, Happening::Client { client, life });
        }
    }

    fn perform(&mut self, effects: Vec<Effect>, context: &mut Context) {
        let (client, life) = (self.index, self.life);
        for effect in effects {
            let Some(running) = &mut self.running else { return };
            match effect {
                Effect::Connect => {
                    running.dials += 1;
                    running.dial = Some(running.dials);
                    let dial = running.dials;
                    let ms = context.plan.latency_ms(&mut context.random);
                    context.after(ms, Happening::Dialled { client, life, dial });
                }
                Effect::NeedToken => {
                    let ms = context.random.between(0, 50);
                    context.after(ms, Happening::Token { client, life });
                }
                Effect::Send(frame) => {
                    if let Some(link) = running.link {
                        let edit = matches!(decode_client(&frame), Ok(ClientMessage::Edit(_)));
                        running.last_edit = if edit {
                            Some(frame.clone())
                        } else {
                            running.last_edit.take()
                        };
                        Self::send(link, frame, context);
                    }
                }
                Effect::Disconnect => {
                    running.dial = None;
                    if let Some(link) = running.link.take() {
                        context.send(link, End::Server, Packet::Closed(None));
                        context.network.let_go(link, End::Client);
                    }
                }
                Effect::Notify(notice) => context
                    .trace
                    .line(context.now, format_args!("client {client}: {notice:?}")),
            }
        }
    }

    fn send(link: LinkId, frame: Bytes, context: &mut Context) {
        context.client_sends(link, &frame);
        context.send(link, End::Server, Packet::Frame(frame));
    }
}
