//! A connection that speaks the native dialect: greeting, verifying, live, closed.

use super::{AuthorisedEdit, Effect, Event};
use crate::engine::{
    few::Few,
    grant::Grant,
    presence::Person,
    rate::Bucket,
    room::{self, Forms, Join, Waits},
    time::Time,
};
use bytes::Bytes;
use std::sync::Arc;
use syncline_protocol::{
    CloseCode, DocumentId, Limits, RoomNumber, SessionId, VERSION,
    native::{
        Access, Capability, ClientMessage, ClosedCode, Edit, Hello, Open, RejectCode, ServerMessage, Welcome,
        WelcomeLimits, decode_client,
    },
};

/// One connection.
#[derive(Debug)]
pub(super) struct NativeSession {
    id: SessionId,
    limits: Arc<Limits>,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Nothing came yet.
    Greeting { deadline: Time },
    /// `hello` came, and its token is being verified.
    Verifying { forms: Forms },
    /// Admitted.
    Live(Box<Live>),
    /// Over.
    Closed,
}

#[derive(Debug)]
struct Live {
    grant: Grant,
    person: Arc<Person>,
    /// What waits of its edits for others, in all its rooms.
    waits: Arc<Waits>,
    expires: Option<Time>,
    forms: Forms,
    rooms: Few<RoomNumber, Membership>,
    edits: Bucket,
    presence: Bucket,
}

#[derive(Debug)]
struct Membership {
    document: DocumentId,
    access: Access,
}

impl NativeSession {
    /// A connection that has just been accepted.
    pub(super) fn new(id: SessionId, limits: Arc<Limits>, now: Time) -> Self {
        let deadline = now.plus_ms(limits.handshake_timeout_ms);
        Self {
            id,
            limits,
            state: State::Greeting { deadline },
        }
    }

    /// The server's name for the connection.
    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    /// When to look at the time.
    pub(super) fn next_wakeup(&self) -> Option<Time> {
        match &self.state {
            State::Greeting { deadline } => Some(*deadline),
            State::Live(live) => live.expires,
            State::Verifying { .. } | State::Closed => None,
        }
    }

    /// Takes one event in; what is to be done is appended to `out`, in order.
    pub(super) fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Received(frame) => self.received(now, &frame, out),
            Event::Admitted { grant, expires } => self.admitted(now, grant, expires, out),
            Event::Refused { code, text } => self.close(code, text, out),
            Event::Bound { document, room } => self.bound(document, room),
            Event::Unbound { document } => unbound(document, ClosedCode::Unavailable, UNAVAILABLE, out),
            Event::Dismissed { room } => self.dismissed(room),
            Event::Woke => self.woke(now, out),
            // The token comes in `hello`, nobody claims a name, and edits are no whole documents.
            Event::Accepted { .. } | Event::Claimed { .. } | Event::Unpacked(_) => {}
        }
    }

    fn received(&mut self, now: Time, frame: &Bytes, out: &mut Vec<Effect>) {
        let message = match decode_client(frame) {
            Ok(message) => message,
            Err(error) => return self.close(CloseCode::Malformed, error.to_string(), out),
        };
        match (&mut self.state, message) {
            (State::Greeting { .. }, ClientMessage::Hello(hello)) => self.hello(hello, out),
            (State::Greeting { .. }, _) => self.close(CloseCode::Malformed, "the first message must be hello", out),
            (State::Verifying { .. }, _) => self.close(CloseCode::Malformed, "hello is not answered yet", out),
            (State::Live(live), message) => {
                if let Err((code, text)) = live.received(now, self.id, &self.limits, message, out) {
                    self.close(code, text, out);
                }
            }
            (State::Closed, _) => {}
        }
    }

    fn hello(&mut self, hello: Hello, out: &mut Vec<Effect>) {
        if hello.version != VERSION {
            let text = format!(
                "this server speaks version {VERSION}, the client asked for {}",
                hello.version
            );
            return self.close(CloseCode::Malformed, text, out);
        }
        self.state = State::Verifying {
            forms: Forms {
                deflate: hello.capabilities.contains(&Capability::Deflate),
                bundle: hello.capabilities.contains(&Capability::Bundle),
            },
        };
        match hello.token {
            Some(token) if token.len() as u64 > self.limits.token_bytes_max => {
                self.close(CloseCode::Unauthorized, "the token is too long", out);
            }
            token => out.push(Effect::Verify { token }),
        }
    }

    fn admitted(&mut self, now: Time, grant: Grant, expires: Option<Time>, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Verifying { forms } => {
                let forms = *forms;
                self.state = State::Live(Box::new(Live::new(now, grant, expires, forms, &self.limits)));
                out.push(Effect::Send(welcome(self.id, &self.limits, forms)));
            }
            State::Live(live) => {
                if live.grant.subject != grant.subject {
                    return self.close(
                        CloseCode::Forbidden,
                        "the new token has another subject; connect anew",
                        out,
                    );
                }
                live.renewed(self.id, grant, expires, out);
            }
            State::Greeting { .. } | State::Closed => {}
        }
    }

    fn bound(&mut self, document: DocumentId, room: RoomNumber) {
        if let State::Live(live) = &mut self.state
            && let Some(access) = live.grant.access(&document)
        {
            live.rooms.insert(room, Membership { document, access });
        }
    }

    fn dismissed(&mut self, room: RoomNumber) {
        if let State::Live(live) = &mut self.state {
            live.rooms.remove(&room);
        }
    }

    fn woke(&mut self, now: Time, out: &mut Vec<Effect>) {
        match &self.state {
            State::Greeting { deadline } if *deadline <= now => {
                self.close(CloseCode::TooSlow, "no hello came in time", out);
            }
            State::Live(live) if live.expires.is_some_and(|expires| expires <= now) => {
                self.close(
                    CloseCode::Unauthorized,
                    "the token has expired; connect with a new one",
                    out,
                );
            }
            State::Greeting { .. } | State::Verifying { .. } | State::Live(_) | State::Closed => {}
        }
    }

    fn close(&mut self, code: CloseCode, text: impl Into<String>, out: &mut Vec<Effect>) {
        let text = text.into();
        self.state = State::Closed;
        out.push(Effect::Send(
            ServerMessage::Error {
                code: code.number(),
                text: text.clone(),
            }
            .encode(),
        ));
        out.push(Effect::Close { code, text });
    }
}

const UNAVAILABLE: &str = "the document cannot be opened now; try again later";

/// Why a live session has to end.
type Fault = (CloseCode, &'static str);

impl Live {
    fn new(now: Time, grant: Grant, expires: Option<Time>, forms: Forms, limits: &Limits) -> Self {
        let person = Person {
            subject: grant.subject.clone(),
            name: grant.name.as_deref().map(Arc::from),
        };
        Self {
            grant,
            person: Arc::new(person),
            waits: Arc::default(),
            expires,
            forms,
            rooms: Few::default(),
            edits: Bucket::new(limits.edits_per_second, limits.edits_burst, now),
            presence: Bucket::new(limits.presence_per_second, limits.presence_per_second, now),
        }
    }

    fn received(
        &mut self,
        now: Time,
        session: SessionId,
        limits: &Limits,
        message: ClientMessage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let wait = match &message {
            ClientMessage::Hello(_) => return Err((CloseCode::Malformed, "hello came twice")),
            ClientMessage::Presence { .. } | ClientMessage::Signal { .. } => self.presence.take(now),
            ClientMessage::Auth { .. }
            | ClientMessage::Open(_)
            | ClientMessage::Edit(_)
            | ClientMessage::Leave { .. } => self.edits.take(now),
        };
        match message {
            ClientMessage::Hello(_) => {}
            ClientMessage::Auth { token } => auth(token, limits, out)?,
            ClientMessage::Open(open) => self.open(session, limits, open, out),
            ClientMessage::Edit(edit) => self.edit(session, edit, out),
            ClientMessage::Presence { room, state } => {
                bounded(state.as_ref(), limits)?;
                let state = state.map(|state| Bytes::copy_from_slice(&state));
                self.tell(room, room::Event::Shown { session, state }, out);
            }
            ClientMessage::Signal { room, payload } => {
                bounded(Some(&payload), limits)?;
                self.tell(room, room::Event::Signalled { session, payload }, out);
            }
            ClientMessage::Leave { room } => {
                self.tell(room, room::Event::Left { session }, out);
                self.rooms.remove(&room);
            }
        }
        out.extend(wait.map(|until| Effect::Pause { until }));
        Ok(())
    }

    fn open(&mut self, session: SessionId, limits: &Limits, open: Open, out: &mut Vec<Effect>) {
        let Some(access) = self.grant.access(&open.document) else {
            return unbound(
                open.document,
                ClosedCode::Forbidden,
                "the token does not allow this document",
                out,
            );
        };
        let again = self
            .rooms
            .values()
            .any(|membership| membership.document == open.document);
        if !again && self.rooms.len() as u64 >= limits.documents_per_session_max {
            return unbound(
                open.document,
                ClosedCode::Limit,
                "too many open documents; leave one first",
                out,
            );
        }
        let join = Join {
            session,
            person: self.person.clone(),
            access,
            cursor: open.cursor,
            heads: open.heads,
            forms: self.forms,
            peer: None,
            waits: self.waits.clone(),
        };
        out.push(Effect::Join {
            document: open.document,
            join,
        });
    }

    fn edit(&mut self, session: SessionId, edit: Edit, out: &mut Vec<Effect>) {
        let Edit { room, id, changes } = edit;
        let reject = |code: RejectCode, text: &str| {
            let message = ServerMessage::Reject {
                room,
                id,
                code: code.clone(),
                text: text.to_owned(),
            };
            Effect::Rejected {
                code,
                edits: 1,
                frame: Some(message.encode()),
            }
        };
        match self.rooms.get(&room).map(|membership| membership.access) {
            None => out.push(reject(RejectCode::NotOpen, "the document is not open")),
            Some(_) if changes.is_empty() => {
                out.push(Effect::Tell {
                    room,
                    event: room::Event::Probed { session, edit: id },
                });
            }
            Some(Access::Read) => out.push(reject(RejectCode::Forbidden, "the token allows reading only")),
            Some(Access::Write) => {
                // Slices of the frame would keep all of it in memory.
                let changes = changes
                    .into_iter()
                    .map(|change| Bytes::copy_from_slice(&change))
                    .collect();
                let edit = AuthorisedEdit::new(session, self.grant.subject.clone(), id, changes);
                out.push(Effect::Tell {
                    room,
                    event: room::Event::Edited(edit),
                });
            }
        }
    }

    fn tell(&self, room: RoomNumber, event: room::Event, out: &mut Vec<Effect>) {
        if self.rooms.contains_key(&room) {
            out.push(Effect::Tell { room, event });
        }
    }

    /// A new token on the live connection: rooms it does not allow any more are left.
    fn renewed(&mut self, session: SessionId, grant: Grant, expires: Option<Time>, out: &mut Vec<Effect>) {
        self.rooms
            .retain(|room, membership| match grant.access(&membership.document) {
                Some(access) => {
                    membership.access = access;
                    true
                }
                None => {
                    out.push(Effect::Tell {
                        room: *room,
                        event: room::Event::Left { session },
                    });
                    out.push(closed(
                        Some(*room),
                        membership.document.clone(),
                        ClosedCode::Forbidden,
                        NO_LONGER_ALLOWED,
                    ));
                    false
                }
            });
        self.grant = grant;
        self.expires = expires;
    }
}

const NO_LONGER_ALLOWED: &str = "the new token does not allow this document";

fn auth(token: String, limits: &Limits, out: &mut Vec<Effect>) -> Result<(), Fault> {
    if token.len() as u64 > limits.token_bytes_max {
        return Err((CloseCode::Unauthorized, "the token is too long"));
    }
    out.push(Effect::Verify { token: Some(token) });
    Ok(())
}

fn bounded(payload: Option<&Bytes>, limits: &Limits) -> Result<(), Fault> {
    match payload {
        Some(payload) if payload.len() as u64 > limits.presence_bytes_max => Err((
            CloseCode::Malformed,
            "a presence state or signal is larger than the limit in welcome",
        )),
        Some(_) | None => Ok(()),
    }
}

fn unbound(document: DocumentId, code: ClosedCode, text: &str, out: &mut Vec<Effect>) {
    out.push(closed(None, document, code, text));
}

fn closed(room: Option<RoomNumber>, document: DocumentId, code: ClosedCode, text: &str) -> Effect {
    let message = ServerMessage::Closed {
        room,
        document,
        code: code.clone(),
        text: text.to_owned(),
    };
    Effect::Closed {
        code,
        frame: message.encode(),
    }
}

fn welcome(session: SessionId, limits: &Limits, forms: Forms) -> Bytes {
    let limits = WelcomeLimits {
        frame_bytes_max: limits.frame_bytes_max,
        edits_per_second: limits.edits_per_second,
        presence_per_second: limits.presence_per_second,
        presence_bytes_max: limits.presence_bytes_max,
        presence_ttl_ms: limits.presence_ttl_ms,
        ops_per_change_max: limits.ops_per_change_max,
        documents_per_session_max: limits.documents_per_session_max,
        idle_timeout_ms: limits.idle_timeout_ms,
    };
    let named = [(forms.deflate, Capability::Deflate), (forms.bundle, Capability::Bundle)];
    let capabilities = named.into_iter().filter(|(named, _)| *named);
    let capabilities = capabilities.map(|(_, capability)| capability).collect();
    ServerMessage::Welcome(Welcome {
        session,
        limits,
        capabilities,
    })
    .encode()
}

#[cfg(test)]
mod tests {
    use super::{super::Session, *};

    #[test]
    fn h12_a_session_wakes_when_its_token_expires_and_closes() {
        let (now, expires) = (Time::from_ms(1_000), Time::from_ms(3_000));
        let mut session = Session::new(SessionId::new(1), Arc::default(), now);
        let hello = Hello {
            version: VERSION,
            token: Some("a token".to_owned()),
            client: String::new(),
            capabilities: Vec::new(),
        };
        let mut out = Vec::new();
        session.handle(now, Event::Received(ClientMessage::Hello(hello).encode()), &mut out);
        let grant = Grant::development();
        let admitted = Event::Admitted {
            grant,
            expires: Some(expires),
        };
        session.handle(now, admitted, &mut out);
        assert_eq!(session.next_wakeup(), Some(expires), "not a moment later");
        out.clear();
        session.handle(Time::from_ms(2_999), Event::Woke, &mut out);
        assert!(out.is_empty(), "{out:?}");
        session.handle(expires, Event::Woke, &mut out);
        let code = CloseCode::Unauthorized;
        assert!(
            matches!(&out[..], [Effect::Send(_), Effect::Close { code: closed, .. }] if *closed == code),
            "{out:?}"
        );
    }
}
