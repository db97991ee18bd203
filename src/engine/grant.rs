//! What a token allows: a subject, a time, and patterns of document ids with the access each gives.
//!
//! Pure matching. Nothing listed, nothing allowed; whoever checked the token's signature builds the [`Grant`].

use crate::engine::gate::Subject;
use std::{fmt, str::FromStr};
use syncline_protocol::{DocumentId, native::Access};

/// What one token allows. A session holds exactly one at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token's `sub`.
    pub subject: Subject,
    /// The token's `name`, for presence.
    pub name: Option<String>,
    /// When the session has to end, in unix milliseconds; `None` only in development mode.
    pub expires_at_ms: Option<u64>,
    /// How many there are is bounded by the longest token.
    rules: Vec<Rule>,
}

/// One entry of the `docs` claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which documents.
    pub pattern: Pattern,
    /// What may be done with them.
    pub access: Access,
}

impl Grant {
    /// A grant with these rules; their order says nothing.
    pub fn new(subject: Subject, name: Option<String>, expires_at_ms: Option<u64>, rules: Vec<Rule>) -> Self {
        Self {
            subject,
            name,
            expires_at_ms,
            rules,
        }
    }

    /// The grant of a server without authentication: subject `dev`, every document writable, no end.
    pub fn development() -> Self {
        let everything = Rule {
            pattern: Pattern {
                pieces: vec![Piece::Anything],
            },
            access: Access::Write,
        };
        Self::new(Subject("dev".into()), None, None, vec![everything])
    }

    /// What the grant allows for `document`; the widest access wins where several patterns match, `None` where none does.
    pub fn access(&self, document: &DocumentId) -> Option<Access> {
        self.rules
            .iter()
            .filter(|rule| rule.pattern.matches(document))
            .map(|rule| rule.access)
            .max()
    }

    /// Whether the session has to end at `now_ms`, in unix milliseconds.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|end| now_ms >= end)
    }
}

/// A pattern of document ids: `*` stands for any characters within one part between slashes, `**` for any characters at all.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    pieces: Vec<Piece>,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    /// Exactly these characters.
    Text(Box<str>),
    /// `*`: any characters but slashes, also none.
    WithinPart,
    /// `**`: any characters, also none.
    Anything,
}

/// Why a text is not a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No characters, or too many.
    #[error("a document pattern has 1 to {max} characters, this one has {0}", max = Pattern::BYTES_MAX)]
    Length(usize),
    /// A character that no document id has.
    #[error("a document pattern is made of A-Z a-z 0-9 . _ - / and the wildcards * and **, and nothing else")]
    Character,
    /// More than two stars in a row.
    #[error("the wildcards of a document pattern are * and **, not three stars or more")]
    Stars,
    /// Nothing between two slashes, or at an end, or `..`: no document id is like that.
    #[error("a document pattern has no empty part and no part '..'")]
    Part,
}

impl Pattern {
    /// The longest pattern, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Whether the pattern covers all of `document`. Takes time in proportion to both lengths, whatever the wildcards.
    pub fn matches(&self, document: &DocumentId) -> bool {
        let text = document.as_str().as_bytes();
        // reached[n]: the pieces so far can cover exactly the first n bytes.
        let mut reached = [false; DocumentId::BYTES_MAX + 1];
        reached[0] = true;
        for piece in &self.pieces {
            match piece {
                Piece::Text(run) => {
                    let mut next = [false; DocumentId::BYTES_MAX + 1];
                    for end in run.len()..=text.len() {
                        let start = end - run.len();
                        next[end] = reached[start] && &text[start..end] == run.as_bytes();
                    }
                    reached = next;
                }
                Piece::WithinPart => {
                    for end in 1..=text.len() {
                        reached[end] |= reached[end - 1] && text[end - 1] != b'/';
                    }
                }
                Piece::Anything => {
                    for end in 1..=text.len() {
                        reached[end] |= reached[end - 1];
                    }
                }
            }
        }
        reached[text.len()]
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > Self::BYTES_MAX {
            return Err(PatternError::Length(text.len()));
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/*".contains(&byte);
        if !text.bytes().all(allowed) {
            return Err(PatternError::Character);
        }
        if text.contains("***") {
            return Err(PatternError::Stars);
        }
        if text.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(PatternError::Part);
        }
        Ok(Self { pieces: pieces(text) })
    }
}

/// Cuts a checked text into its runs and wildcards.
fn pieces(mut text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    while !text.is_empty() {
        let (piece, rest) = if let Some(rest) = text.strip_prefix("**") {
            (Piece::Anything, rest)
        } else if let Some(rest) = text.strip_prefix('*') {
            (Piece::WithinPart, rest)
        } else {
            let (run, rest) = text.split_at(text.find('*').unwrap_or(text.len()));
            (Piece::Text(run.into()), rest)
        };
        pieces.push(piece);
        text = rest;
    }
    pieces
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces.iter().try_for_each(|piece| match piece {
            Piece::Text(run) => f.write_str(run),
            Piece::WithinPart => f.write_str("*"),
            Piece::Anything => f.write_str("**"),
        })
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DocumentId {
        text.parse().expect("a document id")
    }

    #[test]
    fn patterns_match_whole_ids() {
        let check = |pattern: &str, document: &str, expected: bool| {
            let parsed: Pattern = pattern.parse().expect("a pattern");
            assert_eq!(parsed.to_string(), pattern);
            assert_eq!(parsed.matches(&id(document)), expected, "{pattern} on {document}");
        };
        check("notes", "notes", true);
        check("notes", "notes2", false);
        check("notes", "note", false);
        check("notes", "Notes", false);
        check("a.c", "abc", false);
        check("*", "notes", true);
        check("*", "team/notes", false);
        check("**", "team/notes/1", true);
        check("team/*", "team/notes", true);
        check("team/*", "team/notes/1", false);
        check("team/*", "team", false);
        check("team/**", "team/notes/1", true);
        check("team/**", "team", false);
        check("team/**", "team2/notes", false);
        check("team-*", "team-1", true);
        check("team-*", "team-", true);
        check("team-*", "team-1/notes", false);
        check("team-*/notes", "team-1/notes", true);
        check("*-draft", "a-draft", true);
        check("*-draft", "a-draft-2", false);
        check("*/notes/*", "a/notes/b", true);
        check("*/notes/*", "a/b/notes/c", false);
        check("**/notes/*", "a/b/notes/c", true);
        check("a*b*c", "aXbYbZc", true);
        check("a*b*c", "aXcYb", false);
        check("**.md", "deep/down/readme.md", true);
        check("**.md", "deep/down/readme.mdx", false);
    }

    #[test]
    fn many_wildcards_cost_no_more_than_few() {
        let hostile = "a*".repeat(Pattern::BYTES_MAX / 2);
        let pattern: Pattern = hostile.parse().expect("a pattern");
        assert!(!pattern.matches(&id(&format!("{}b", "a".repeat(127)))));
        let pattern: Pattern = "*a**a".repeat(50).parse().expect("a pattern");
        assert!(pattern.matches(&id(&"a".repeat(128))));
    }

    #[test]
    fn texts_that_are_no_patterns() {
        let check = |text: &str, expected: PatternError| assert_eq!(text.parse::<Pattern>(), Err(expected), "{text}");
        check("", PatternError::Length(0));
        check(&"a".repeat(257), PatternError::Length(257));
        check("a?", PatternError::Character);
        check("[a-z]", PatternError::Character);
        check("ä", PatternError::Character);
        check("***", PatternError::Stars);
        check("/a", PatternError::Part);
        check("a//**", PatternError::Part);
        check("a/..", PatternError::Part);
    }

    #[test]
    fn the_widest_matching_rule_wins_and_nothing_listed_is_nothing_allowed() {
        let rule = |pattern: &str, access| Rule {
            pattern: pattern.parse().expect("a pattern"),
            access,
        };
        let rules = vec![
            rule("team/own", Access::Write),
            rule("team/*", Access::Read),
            rule("team/own", Access::Read),
        ];
        let grant = Grant::new(Subject("ann".into()), None, Some(1_000), rules);
        assert_eq!(grant.access(&id("team/own")), Some(Access::Write));
        assert_eq!(grant.access(&id("team/other")), Some(Access::Read));
        assert_eq!(grant.access(&id("team")), None);
        let nothing = Grant::new(Subject("ann".into()), None, Some(1_000), Vec::new());
        assert_eq!(nothing.access(&id("team/own")), None);
        assert_eq!(Grant::development().access(&id("any/thing")), Some(Access::Write));
    }

    #[test]
    fn a_grant_ends_at_its_millisecond() {
        let grant = Grant::new(Subject("ann".into()), None, Some(1_000), Vec::new());
        assert!(!grant.is_expired(999));
        assert!(grant.is_expired(1_000));
        assert!(!Grant::development().is_expired(u64::MAX));
    }
}
