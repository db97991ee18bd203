//! The claims of a token, read strictly: the right types, nothing twice.

use super::NAME_BYTES_MAX;
use crate::{
    engine::{
        gate::Subject,
        grant::{Grant, Pattern, Rule},
    },
    server::failpoints::Switch,
};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};
use syncline_protocol::native::Access;

/// What we read of a token. Other claims are left alone; a claim of ours given twice is an error.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    #[serde(rename = "sub", deserialize_with = "short_text")]
    subject: String,
    #[serde(default, deserialize_with = "optional_short_text")]
    name: Option<String>,
    #[serde(rename = "exp", deserialize_with = "numeric_date")]
    pub(super) expires_at_ms: u64,
    #[serde(rename = "nbf", default, deserialize_with = "numeric_date")]
    pub(super) not_before_ms: u64,
    #[serde(rename = "aud", default)]
    pub(super) audience: Option<Audience>,
    #[serde(default)]
    docs: Docs,
}

/// RFC 7519, 4.1.3: one text or a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, wanted: &str) -> bool {
        match self {
            Self::One(name) => name == wanted,
            Self::Several(names) => names.iter().any(|name| name == wanted),
        }
    }
}

impl Claims {
    pub(super) fn into_grant(self, expires_at_ms: u64) -> Grant {
        let mut rules = self.docs.0;
        if Switch::TokensGrantAll.is_on() {
            let pattern = "**".parse().expect("it is a pattern");
            let access = Access::Write;
            rules = vec![Rule { pattern, access }];
        }
        let expires_at_ms = (!Switch::TokensLast.is_on()).then_some(expires_at_ms);
        Grant::new(Subject(self.subject.into()), self.name, expires_at_ms, rules)
    }
}

#[derive(Debug, Default)]
struct Docs(Vec<Rule>);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Read,
    Write,
}

impl<'de> Deserialize<'de> for Docs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocsVisitor;

        impl<'de> Visitor<'de> for DocsVisitor {
            type Value = Docs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from document pattern to \"read\" or \"write\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Docs, A::Error> {
                let mut rules = BTreeMap::new();
                while let Some((text, level)) = map.next_entry::<String, Level>()? {
                    let pattern: Pattern = text.parse().map_err(A::Error::custom)?;
                    let access = match level {
                        Level::Read => Access::Read,
                        Level::Write => Access::Write,
                    };
                    if rules.insert(text, Rule { pattern, access }).is_some() {
                        return Err(A::Error::custom("a document pattern is given twice"));
                    }
                }
                Ok(Docs(rules.into_values().collect()))
            }
        }

        deserializer.deserialize_map(DocsVisitor)
    }
}

/// RFC 7519, 2: seconds since 1970, possibly with a fraction; never a text. In milliseconds.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    // A cast from f64 saturates: before 1970 is 0, beyond the end of u64 is its end.
    Ok((seconds * 1_000.0) as u64)
}

fn short_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_short = !text.is_empty() && text.len() <= NAME_BYTES_MAX;
    if is_short {
        Ok(text)
    } else {
        Err(D::Error::custom("1 to 256 bytes"))
    }
}

fn optional_short_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let is_short = text.as_ref().is_none_or(|text| text.len() <= NAME_BYTES_MAX);
    if is_short {
        Ok(text)
    } else {
        Err(D::Error::custom("at most 256 bytes"))
    }
}
