//! What may be linked: the licences and sources that deny.toml names, held against what cargo says of every dependency.

use serde_json::Value;
use std::{collections::BTreeSet, path::Path, process::Command};

/// Whether an SPDX expression can be met with these licences: AND binds closer than OR, parentheses closest.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = &words[..];
    let met = either(&mut rest, allowed);
    assert!(rest.is_empty(), "not an expression: {expression}");
    met
}

fn either(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = both(words, allowed);
    while let Some(("OR", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met |= both(words, allowed);
    }
    met
}

fn both(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let mut met = one(words, allowed);
    while let Some(("AND", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = rest;
        met &= one(words, allowed);
    }
    met
}

fn one(words: &mut &[&str], allowed: &BTreeSet<String>) -> bool {
    let (word, rest) = words.split_first().expect("a licence");
    *words = rest;
    if *word == "(" {
        let met = either(words, allowed);
        let (close, rest) = words.split_first().expect("a closing parenthesis");
        assert_eq!(*close, ")");
        *words = rest;
        return met;
    }
    // An exception only adds permissions.
    if let Some(("WITH", rest)) = words.split_first().map(|(word, rest)| (*word, rest)) {
        *words = &rest[1..];
    }
    allowed.contains(*word)
}

#[test]
fn expressions_are_read_as_they_are_meant() {
    let allowed: BTreeSet<String> = ["MIT", "Apache-2.0"].map(str::to_owned).into();
    for (expression, expected) in [
        ("MIT", true),
        ("MIT/GPL-3.0", true),
        ("GPL-3.0 OR MIT AND ISC", false),
        ("(GPL-3.0 OR MIT) AND Apache-2.0 WITH LLVM-exception", true),
        ("(MIT OR Apache-2.0) AND ISC", false),
    ] {
        assert_eq!(is_met(expression, &allowed), expected, "{expression}");
    }
}

#[test]
fn every_dependency_has_a_licence_and_a_source_that_we_take() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deny = std::fs::read_to_string(root.join("deny.toml")).expect("deny.toml");
    let deny: toml::Table = deny.parse().expect("TOML");
    let sources = deny["sources"]["allow-registry"].as_array().expect("a list");
    let sources: Vec<String> = sources
        .iter()
        .filter_map(|source| source.as_str().map(|source| format!("registry+{source}")))
        .collect();
    let allowed = deny["licenses"]["allow"].as_array().expect("a list");
    let allowed = allowed
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("a list");
    assert!(packages.len() > 100, "all of them: {}", packages.len());
    for package in packages {
        let (name, license) = (&package["name"], package["license"].as_str());
        assert!(
            license.is_some_and(|license| is_met(license, &allowed)),
            "{name}: {license:?}"
        );
        let source = package["source"].as_str();
        assert!(
            source.is_none_or(|source| sources.iter().any(|known| known == source)),
            "{name}: {source:?}"
        );
        for dependency in package["dependencies"].as_array().expect("a list") {
            let wild = source.is_none() && dependency["path"].is_null() && dependency["req"] == "*";
            assert!(!wild, "{name} takes any version of {}", dependency["name"]);
        }
    }
}
