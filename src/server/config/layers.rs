//! One precedence: flag, then environment variable, then file, then default; and where each value came from.
//!
//! Every key has a variable: `SYNCLINE_`, the key in capitals, `_` for `.`; lists are separated by commas. Only
//! `[[auth.keys]]`, a list of tables, can stand in the file alone.

use super::{
    ConfigError,
    settings::Settings,
    variables::{meant, variable},
};
use std::{collections::BTreeMap, path::Path};
use toml::{Table, Value};

/// As if the variable that names the file set a key, too.
const PATH_KEY: &str = "config";

/// A value given on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// As it was typed: `--listen`.
    pub name: &'static str,
    /// The key it sets: `listen`.
    pub key: &'static str,
    /// The value, as text.
    pub value: String,
}

/// Where a value came from, for error texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Default,
    File(String),
    Variable(String),
    Flag(&'static str),
}

/// The settings after all layers, and the source of each that is not a default.
#[derive(Debug)]
pub(super) struct Layered {
    pub(super) settings: Settings,
    sources: BTreeMap<String, Source>,
}

impl Layered {
    /// Stacks the layers. `file` is a path and the text found there.
    pub(super) fn stack(
        file: Option<(&Path, &str)>,
        environment: &BTreeMap<String, String>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let mut table = Table::try_from(Settings::default()).expect("the defaults can be written as TOML");
        let mut sources = BTreeMap::new();
        if let Some((path, text)) = file {
            overlay(
                &mut table,
                &read(path, text)?,
                "",
                &Source::File(path.display().to_string()),
                &mut sources,
            );
        }
        let keys = keys(&table, "");
        refuse_misspelt(environment, &keys)?;
        for key in keys {
            let variable = variable(&key);
            if let Some(text) = environment.get(&variable) {
                set(&mut table, &key, text, Source::Variable(variable), &mut sources)?;
            }
        }
        for flag in flags {
            set(&mut table, flag.key, &flag.value, Source::Flag(flag.name), &mut sources)?;
        }
        let settings = table.try_into().expect("every layer was checked on its own");
        Ok(Self { settings, sources })
    }

    /// An error about the value of `key`, which names the place where the value was given.
    pub(super) fn error(&self, key: &str, text: impl Into<String>) -> ConfigError {
        let source = self.sources.get(key).cloned().unwrap_or(Source::Default);
        value_error(key, &source, text)
    }
}

/// A limit that was to be set and is not would be noticed when it is too late.
fn refuse_misspelt(environment: &BTreeMap<String, String>, keys: &[String]) -> Result<(), ConfigError> {
    let of_the_file = PATH_KEY.to_owned();
    let known: Vec<String> = keys.iter().cloned().chain([of_the_file]).collect();
    let misspelt = environment.keys().find_map(|name| Some((name, meant(name, &known)?)));
    misspelt.map_or(Ok(()), |(name, meant)| {
        Err(ConfigError::Value {
            place: name.clone(),
            text: format!("no key has this variable; {meant} is the one most like it"),
        })
    })
}

/// Parses a file; the error names the line.
fn read(path: &Path, text: &str) -> Result<Table, ConfigError> {
    let check: Result<Settings, _> = toml::from_str(text);
    check.and_then(|_| toml::from_str(text)).map_err(|error| {
        let before = error.span().map_or(0, |span| span.start).min(text.len());
        let line = 1 + text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count();
        let message = error.message().lines().collect::<Vec<_>>().join(" ");
        ConfigError::Syntax {
            path: path.to_owned(),
            line,
            message,
        }
    })
}

/// Puts every value of `upper` in the place of the one below it.
fn overlay(below: &mut Table, upper: &Table, prefix: &str, source: &Source, sources: &mut BTreeMap<String, Source>) {
    for (name, value) in upper {
        let key = format!("{prefix}{name}");
        match (below.get_mut(name), value) {
            (Some(Value::Table(below)), Value::Table(upper)) => {
                overlay(below, upper, &format!("{key}."), source, sources);
            }
            _ => {
                below.insert(name.clone(), value.clone());
                sources.insert(key, source.clone());
            }
        }
    }
}

/// Every key that holds a value, dotted.
fn keys(table: &Table, prefix: &str) -> Vec<String> {
    let of_entry = |(name, value): (&String, &Value)| match value {
        Value::Table(inner) => keys(inner, &format!("{prefix}{name}.")),
        _ => vec![format!("{prefix}{name}")],
    };
    table
        .iter()
        .flat_map(of_entry)
        .filter(|key| key != "auth.keys")
        .collect()
}

/// Sets `key` from text, read as the type that the key has.
fn set(
    table: &mut Table,
    key: &str,
    text: &str,
    source: Source,
    sources: &mut BTreeMap<String, Source>,
) -> Result<(), ConfigError> {
    let slot = match key.split_once('.') {
        Some((section, name)) => table.get_mut(section).and_then(|section| section.get_mut(name)),
        None => table.get_mut(key),
    };
    let slot = slot.expect("flags and variables name keys that the defaults have");
    let wrong = |expected: &str| value_error(key, &source, format!("'{text}' is not {expected}"));
    *slot = match slot {
        Value::Boolean(_) => Value::Boolean(match text {
            "true" | "1" => true,
            "false" | "0" | "" => false,
            _ => return Err(wrong("true or false")),
        }),
        Value::Integer(_) => {
            let number = text.replace('_', "").parse().ok().filter(|number: &i64| *number >= 0);
            Value::Integer(number.ok_or_else(|| wrong("a whole number"))?)
        }
        Value::Array(_) => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Value::Array(items.map(|item| Value::String(item.to_owned())).collect())
        }
        _ => Value::String(text.to_owned()),
    };
    sources.insert(key.to_owned(), source);
    Ok(())
}

fn value_error(key: &str, source: &Source, text: impl Into<String>) -> ConfigError {
    let place = match source {
        Source::Default => format!("the default of '{key}'"),
        Source::File(path) => format!("{path}, key '{key}'"),
        Source::Variable(name) => name.clone(),
        Source::Flag(name) => (*name).to_owned(),
    };
    ConfigError::Value {
        place,
        text: text.into(),
    }
}
