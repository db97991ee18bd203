//! The connection: when to connect, with which token, when to give up. Knows nothing of documents.

use super::{Config, ConnectionStatus, Credentials, Effect, random::Random};
use syncline_protocol::{
    CloseCode, Limits, SessionId, VERSION,
    native::{Capability, ClientMessage, Hello, Welcome, WelcomeLimits},
};

/// A token and when it runs out, on the clock of the core.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// A JWT.
    pub text: String,
    /// When it expires; `None` if that is not known: then it is used until the server refuses it.
    pub expires_at_ms: Option<u64>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token")
            .field("expires_at_ms", &self.expires_at_ms)
            .finish_non_exhaustive()
    }
}

/// Where the connection stands.
#[derive(Debug)]
pub(super) enum Link {
    /// Not started, or stopped.
    Idle,
    /// The app was asked for a token; `Connect` follows.
    AwaitingToken,
    /// `Connect` is out.
    Connecting { deadline_ms: u64 },
    /// `hello` is sent.
    Greeting { deadline_ms: u64 },
    /// `welcome` came.
    Up(Up),
    /// To be connected again at that time.
    Waiting { until_ms: u64 },
    /// The server does not want this client as it is.
    Rejected { code: u16, text: String },
}

/// An admitted connection.
#[derive(Debug)]
pub(super) struct Up {
    pub(super) session: SessionId,
    pub(super) limits: WelcomeLimits,
    /// The server goes away: nothing new is sent, and this is when it should have gone.
    pub(super) gone_at_ms: Option<u64>,
    heard_at_ms: u64,
    /// A sign of life was asked for since the server was heard last.
    probed: bool,
}

impl Up {
    /// Whether the server gave no sign of life, or did not go when it said so.
    fn is_dead(&self, now_ms: u64) -> bool {
        let silent = self.probed && self.heard_at_ms + self.limits.idle_timeout_ms <= now_ms;
        silent || self.gone_at_ms.is_some_and(|at_ms| at_ms <= now_ms)
    }
}

/// What the clock asks of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// The server has been silent: ask for a sign of life.
    Probe,
}

/// The connection and what outlives it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Link,
    config: Config,
    token: Option<Token>,
    /// When to ask for the next token, while connected.
    renew_at_ms: Option<u64>,
    /// The app was asked for a token while connected.
    renewing: bool,
    /// A 4401 has been answered with a new token already.
    token_retried: bool,
    attempts: u32,
    retry_after_ms: Option<u64>,
    /// What the server said before it closed.
    last_error: Option<(u16, String)>,
}

impl Connection {
    pub(super) fn new(config: Config) -> Self {
        Self {
            link: Link::Idle,
            config,
            token: None,
            renew_at_ms: None,
            renewing: false,
            token_retried: false,
            attempts: 0,
            retry_after_ms: None,
            last_error: None,
        }
    }

    pub(super) fn up(&self) -> Option<&Up> {
        match &self.link {
            Link::Up(up) => Some(up),
            _ => None,
        }
    }

    /// Whether messages can be sent.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.link, Link::Greeting { .. } | Link::Up(_))
    }

    pub(super) fn status(&self) -> ConnectionStatus {
        match &self.link {
            Link::Idle => ConnectionStatus::Offline { retry_at_ms: None },
            Link::AwaitingToken | Link::Connecting { .. } | Link::Greeting { .. } => ConnectionStatus::Connecting,
            Link::Up(_) => ConnectionStatus::Connected,
            Link::Waiting { until_ms } => ConnectionStatus::Offline {
                retry_at_ms: Some(*until_ms),
            },
            Link::Rejected { code, text } => ConnectionStatus::Rejected {
                code: *code,
                text: text.clone(),
            },
        }
    }

    pub(super) fn start(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if matches!(self.link, Link::Idle | Link::Rejected { .. }) {
            (self.attempts, self.token_retried) = (0, false);
            self.connect(now_ms, out);
        }
    }

    pub(super) fn stop(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.link, Link::Connecting { .. } | Link::Greeting { .. } | Link::Up(_)) {
            out.push(Effect::Disconnect);
        }
        self.link = Link::Idle;
    }

    fn connect(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let usable = |token: &Token| {
            token
                .expires_at_ms
                .is_none_or(|at_ms| at_ms > now_ms + self.margin(now_ms, at_ms))
        };
        if self.config.credentials == Credentials::Asked && !self.token.as_ref().is_some_and(usable) {
            self.token = None;
            self.link = Link::AwaitingToken;
            out.push(Effect::NeedToken);
            return;
        }
        self.link = Link::Connecting {
            deadline_ms: now_ms + self.config.limits.connect_timeout_ms,
        };
        out.push(Effect::Connect);
    }

    /// How long before its end a token is not good any more.
    fn margin(&self, now_ms: u64, expires_at_ms: u64) -> u64 {
        self.config
            .limits
            .renewal_margin_ms
            .min(expires_at_ms.saturating_sub(now_ms) / 4)
    }

    /// The app has answered `NeedToken`. Whether a new token went out on the live connection.
    pub(super) fn token(
        &mut self,
        now_ms: u64,
        answer: Result<Token, String>,
        random: &mut Random,
        out: &mut Vec<Effect>,
    ) -> bool {
        let renewing = std::mem::take(&mut self.renewing);
        match (answer, matches!(self.link, Link::AwaitingToken)) {
            (Ok(token), true) => {
                self.expect_renewal(now_ms, &token);
                self.token = Some(token);
                self.link = Link::Connecting {
                    deadline_ms: now_ms + self.config.limits.connect_timeout_ms,
                };
                out.push(Effect::Connect);
            }
            (Ok(token), false) => {
                self.expect_renewal(now_ms, &token);
                if renewing && self.is_open() {
                    out.push(Effect::Send(
                        ClientMessage::Auth {
                            token: token.text.clone(),
                        }
                        .encode(),
                    ));
                    self.token = Some(token);
                    return true;
                }
                self.token = Some(token);
            }
            (Err(text), true) => {
                tracing::warn!(%text, "the token function failed");
                self.back_off(now_ms, random);
            }
            (Err(text), false) => {
                tracing::warn!(%text, "the token function failed; the present token stays");
                self.renew_at_ms = Some(now_ms + self.config.limits.backoff_max_ms.min(5_000));
            }
        }
        false
    }

    fn expect_renewal(&mut self, now_ms: u64, token: &Token) {
        self.renew_at_ms = token
            .expires_at_ms
            .map(|at_ms| at_ms - self.margin(now_ms, at_ms).min(at_ms));
    }

    /// The socket is open: says `hello`.
    pub(super) fn connected(&mut self, out: &mut Vec<Effect>) {
        let Link::Connecting { deadline_ms } = self.link else {
            return;
        };
        self.link = Link::Greeting { deadline_ms };
        let token = match &self.config.credentials {
            Credentials::None => None,
            Credentials::Fixed(token) => Some(token.clone()),
            Credentials::Asked => self.token.as_ref().map(|token| token.text.clone()),
        };
        let hello = Hello {
            version: VERSION,
            token,
            client: self.config.name.clone(),
            capabilities: vec![Capability::Deflate, Capability::Bundle],
        };
        out.push(Effect::Send(ClientMessage::Hello(hello).encode()));
    }

    pub(super) fn welcomed(&mut self, now_ms: u64, welcome: Welcome) {
        let Link::Greeting { .. } = self.link else { return };
        (self.attempts, self.token_retried, self.last_error) = (0, false, None);
        self.link = Link::Up(Up {
            session: welcome.session,
            limits: self.or_default(welcome.limits),
            gone_at_ms: None,
            heard_at_ms: now_ms,
            probed: false,
        });
    }

    /// A limit that is not announced is the default ([M5]).
    fn or_default(&self, announced: WelcomeLimits) -> WelcomeLimits {
        let limits = Limits::default();
        let or = |announced: u64, default: u64| if announced == 0 { default } else { announced };
        WelcomeLimits {
            frame_bytes_max: or(announced.frame_bytes_max, limits.frame_bytes_max),
            edits_per_second: or(announced.edits_per_second, limits.edits_per_second),
            presence_per_second: or(announced.presence_per_second, limits.presence_per_second),
            presence_bytes_max: or(announced.presence_bytes_max, limits.presence_bytes_max),
            presence_ttl_ms: or(announced.presence_ttl_ms, limits.presence_ttl_ms),
            ops_per_change_max: or(announced.ops_per_change_max, limits.ops_per_change_max),
            documents_per_session_max: or(announced.documents_per_session_max, limits.documents_per_session_max),
            idle_timeout_ms: or(announced.idle_timeout_ms, self.config.limits.idle_timeout_ms),
        }
    }

    pub(super) fn heard(&mut self, now_ms: u64) {
        if let Link::Up(up) = &mut self.link {
            (up.heard_at_ms, up.probed) = (now_ms, false);
        }
    }

    pub(super) fn retry(&mut self, now_ms: u64, after_ms: u64) {
        self.retry_after_ms = Some(after_ms.min(self.config.limits.retry_max_ms));
        if let Link::Up(up) = &mut self.link {
            up.gone_at_ms = Some(now_ms + self.config.limits.connect_timeout_ms);
        }
    }

    pub(super) fn errored(&mut self, code: u16, text: String) {
        self.last_error = Some((code, text));
    }

    /// The connection is gone, by the server, the network or us.
    pub(super) fn disconnected(&mut self, now_ms: u64, code: Option<u16>, random: &mut Random, out: &mut Vec<Effect>) {
        if !matches!(self.link, Link::Connecting { .. } | Link::Greeting { .. } | Link::Up(_)) {
            return;
        }
        // A network may swallow the close frame behind an `error`.
        let error = self.last_error.take();
        let code = code.or_else(|| error.as_ref().map(|(code, _)| *code));
        let Some(code) = code.filter(|code| CloseCode::is_final_number(*code)) else {
            return self.back_off(now_ms, random);
        };
        let asked = self.config.credentials == Credentials::Asked;
        if code == CloseCode::Unauthorized.number() && asked && !self.token_retried {
            self.token_retried = true;
            self.token = None;
            return self.connect(now_ms, out);
        }
        let text = match error {
            Some((said, text)) if said == code => text,
            _ => format!("the server closed the connection with code {code}"),
        };
        self.link = Link::Rejected { code, text };
    }

    fn back_off(&mut self, now_ms: u64, random: &mut Random) {
        self.attempts = self.attempts.saturating_add(1);
        let backoff_ms = self.config.limits.backoff_ms(self.attempts, random);
        let delay_ms = match self.retry_after_ms.take() {
            Some(after_ms) => after_ms + random.jitter(self.config.limits.backoff_first_ms),
            None => backoff_ms,
        };
        self.link = Link::Waiting {
            until_ms: now_ms + delay_ms,
        };
    }

    pub(super) fn next_wakeup(&self) -> Option<u64> {
        match &self.link {
            Link::Idle | Link::AwaitingToken | Link::Rejected { .. } => None,
            Link::Connecting { deadline_ms } | Link::Greeting { deadline_ms } => Some(*deadline_ms),
            Link::Waiting { until_ms } => Some(*until_ms),
            Link::Up(up) => {
                let silence_ms = up.limits.idle_timeout_ms / if up.probed { 1 } else { 2 };
                let renew_at_ms = self.renew_at_ms.filter(|_| !self.renewing).unwrap_or(u64::MAX);
                let gone_at_ms = up.gone_at_ms.unwrap_or(u64::MAX);
                Some(renew_at_ms.min(gone_at_ms).min(up.heard_at_ms + silence_ms))
            }
        }
    }

    /// Does what is due. A silent connection is taken for dead.
    pub(super) fn woke(&mut self, now_ms: u64, random: &mut Random, out: &mut Vec<Effect>) -> Due {
        match &mut self.link {
            Link::Waiting { until_ms } if *until_ms <= now_ms => self.connect(now_ms, out),
            Link::Connecting { deadline_ms } | Link::Greeting { deadline_ms } if *deadline_ms <= now_ms => {
                out.push(Effect::Disconnect);
                self.disconnected(now_ms, None, random, out);
            }
            Link::Up(up) if up.is_dead(now_ms) => {
                out.push(Effect::Disconnect);
                self.disconnected(now_ms, None, random, out);
            }
            Link::Up(up) => {
                if self.renew_at_ms.is_some_and(|at_ms| at_ms <= now_ms) && !self.renewing {
                    (self.renewing, self.renew_at_ms) = (true, None);
                    out.push(Effect::NeedToken);
                }
                if !up.probed && up.heard_at_ms + up.limits.idle_timeout_ms / 2 <= now_ms {
                    up.probed = true;
                    return Due::Probe;
                }
            }
            Link::Idle
            | Link::AwaitingToken
            | Link::Waiting { .. }
            | Link::Connecting { .. }
            | Link::Greeting { .. }
            | Link::Rejected { .. } => {}
        }
        Due::Nothing
    }
}
