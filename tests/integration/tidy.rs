//! Keeps the house in order: who may name what, how long a file gets, and that tests cite rules which exist.
//!
//! It reads the sources as text. Comments and string literals are blanked first, so that only code counts.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

/// A file past this holds more than one idea.
const FILE_LINES_MAX: usize = 600;

/// The folders that hold our sources.
const SOURCES: [&str; 6] = ["src", "protocol", "clients", "tests", "benches", "fuzz"];

/// Folders that hold what others wrote or a build made.
const NOT_OURS: [&str; 4] = ["target", "node_modules", "dist", "vectors"];

/// A wall of the house: code in `within`, but not in `except`, never names `names`.
struct Wall {
    within: &'static [&'static str],
    except: &'static [&'static str],
    names: &'static [&'static str],
    reason: &'static str,
}

const WALLS: [Wall; 6] = [
    Wall {
        within: &["src/engine"],
        except: &[],
        names: &[
            "server",
            "tokio",
            "sled",
            "axum",
            "hyper",
            "rustls",
            "std::net",
            "std::fs",
            "std::thread",
        ],
        reason: "the engine decides and touches nothing; what touches the world is in src/server",
    },
    Wall {
        within: &["src/engine"],
        except: &[],
        names: &["Instant", "SystemTime", "HashMap", "HashSet", "getrandom"],
        reason: "the same events always give the same effects: time and seeds are passed in, and maps are ordered",
    },
    Wall {
        within: &["protocol/src"],
        except: &[],
        names: &[
            "automerge",
            "syncline",
            "tokio",
            "sled",
            "std::net",
            "std::fs",
            "Instant",
            "SystemTime",
        ],
        reason: "the wire knows neither Automerge nor any IO",
    },
    Wall {
        within: &["src", "clients/rust", "benches"],
        except: &["src/server/store/sled/pages.rs"],
        names: &["sled"],
        reason: "one file names sled: src/server/store/sled/pages.rs",
    },
    Wall {
        within: &["src"],
        except: &["src/server/clock.rs"],
        names: &["Instant::now", "SystemTime::now", ".elapsed"],
        reason: "one file reads the clock: src/server/clock.rs",
    },
    Wall {
        within: &["src"],
        except: &[
            "src/engine/document.rs",
            "src/engine/document/",
            "src/engine/gate.rs",
            "src/engine/gate/",
            "src/engine/index.rs",
            "src/engine/index/",
            "src/engine/room/tests/",
        ],
        names: &["automerge"],
        reason: "Automerge is named in the engine's document, gate and index, and in the client",
    },
];

struct Source {
    /// From the root, with `/`.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All our sources with these endings, in order of their paths.
fn sources(endings: &[&str]) -> Vec<Source> {
    let mut folders: Vec<PathBuf> = SOURCES
        .iter()
        .map(|folder| root().join(folder))
        .filter(|f| f.is_dir())
        .collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of ours can be read") {
            let path = entry.expect("an entry of ours can be read").path();
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .expect("our names are UTF-8");
            if path.is_dir() && !NOT_OURS.contains(&name) && !name.starts_with('.') {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
                let text = fs::read_to_string(&path).expect("our sources are UTF-8");
                let path = path
                    .strip_prefix(root())
                    .expect("below the root")
                    .to_str()
                    .expect("our names are UTF-8");
                found.push(Source {
                    path: path.replace('\\', "/"),
                    text,
                });
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    assert!(!found.is_empty(), "no sources found below {}", root().display());
    found
}

/// The text with comments and string literals turned into blanks, line breaks kept.
fn code(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let literal = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => string_length(rest),
            'r' if !code.ends_with(is_word) => raw_string_length(rest).unwrap_or(0),
            '\'' if rest.starts_with("'\"'") => 3,
            '\'' if rest.starts_with("'\\\"'") => 4,
            _ => 0,
        };
        let (blanked, length) = if literal > 0 {
            (true, literal)
        } else {
            (false, first.len_utf8())
        };
        let (token, behind) = rest.split_at(length);
        if blanked {
            code.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            code.push_str(token);
        }
        rest = behind;
    }
    code
}

/// The length of the string literal at the beginning of `text`.
fn string_length(text: &str) -> usize {
    let mut escaped = true;
    for (place, c) in text.char_indices() {
        match c {
            '"' if !escaped && place > 0 => return place + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of the raw string literal at the beginning of `text`, if one begins there.
fn raw_string_length(text: &str) -> Option<usize> {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    let inside = text[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&end).map_or(inside.len(), |place| place + end.len());
    Some(1 + hashes + 1 + length)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether a line of code names `name` as a whole word.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(place, _)| {
        let (before, behind) = (&line[..place], &line[place + name.len()..]);
        let whole = (name.starts_with('.') || !before.ends_with(is_word)) && !behind.starts_with(is_word);
        whole && !(name == "sled" && is_our_module_sled(before, behind))
    })
}

/// Our own module has the name of the crate that it wraps: `mod sled`, a path through its parent, or one of its own types.
fn is_our_module_sled(before: &str, behind: &str) -> bool {
    let declared = before.trim_end().ends_with("mod");
    let through_parent = before
        .strip_suffix("::")
        .is_some_and(|parent| parent.ends_with(is_word));
    declared || through_parent || behind.starts_with("::Sled") || behind.starts_with("::{Sled")
}

fn check_wall(wall: &Wall, source: &Source, faults: &mut String) {
    let under = |folders: &[&str]| {
        folders.iter().any(|folder| {
            let folder = folder.trim_end_matches('/');
            source
                .path
                .strip_prefix(folder)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    if !under(wall.within) || under(wall.except) {
        return;
    }
    for (number, line) in code(&source.text).lines().enumerate() {
        for name in wall.names.iter().filter(|name| names(line, name)) {
            let (path, number, reason) = (&source.path, number + 1, wall.reason);
            let _ = writeln!(faults, "{path}:{number} names {name}; {reason}");
        }
    }
}

/// The rules that SPEC.md lays down, `**[E3]**` at the beginning of a list entry, in its order.
fn rules(spec: &str) -> Vec<String> {
    let rule = |line: &str| Some(line.strip_prefix("- **[")?.split_once("]**")?.0.to_owned());
    spec.lines().filter_map(rule).collect()
}

/// The rules that a test's name cites: `e3_e7_...` cites E3 and E7.
fn cited(name: &str) -> Vec<String> {
    let is_rule = |word: &&str| {
        let digits = word.strip_prefix(|c: char| c.is_ascii_alphabetic());
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    name.split(|c: char| !c.is_alphanumeric())
        .take_while(is_rule)
        .map(str::to_uppercase)
        .collect()
}

/// The names of the tests in a Rust file: functions under an attribute whose path ends in `test`.
fn rust_tests(text: &str) -> Vec<String> {
    let mut tests = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[") {
            is_test |= attribute
                .split(['(', ']'])
                .next()
                .is_some_and(|path| path.ends_with("test"));
        } else if let Some((_, name)) = line.split_once("fn ") {
            if is_test {
                tests.push(name.split(|c: char| !is_word(c)).next().unwrap_or_default().to_owned());
            }
            is_test = false;
        }
    }
    tests
}

/// The names of the tests in a TypeScript file: the text in `test("...")` and `it("...")`.
fn typescript_tests(text: &str) -> Vec<String> {
    let name = |line: &str| {
        let call = line
            .trim()
            .strip_prefix("test(")
            .or_else(|| line.trim().strip_prefix("it("))?;
        call.split(['"', '\'', '`']).nth(1).map(str::to_owned)
    };
    text.lines().filter_map(name).collect()
}

#[test]
fn every_name_stays_behind_its_wall() {
    let mut faults = String::new();
    for source in sources(&[".rs"]) {
        WALLS.iter().for_each(|wall| check_wall(wall, &source, &mut faults));
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn a_wall_sees_code_and_nothing_else() {
    let check = |path: &str, text: &str, expected: bool| {
        let mut faults = String::new();
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        WALLS.iter().for_each(|wall| check_wall(wall, &source, &mut faults));
        assert_eq!(!faults.is_empty(), expected, "{path}: {text}: {faults}");
    };
    check("src/engine/room.rs", "use std::collections::HashMap;", true);
    check("src/engine/room.rs", "use crate::server::store::Store;", true);
    check("src/engine/room.rs", "let now = std::time::Instant::now();", true);
    check("src/engine/room.rs", "// no HashMap here, nor crate::server", false);
    check("src/engine/room.rs", "let text = \"a HashMap \\\" of tokio\";", false);
    check("src/engine/room.rs", "let text = r#\"a \"HashMap\"\"#;", false);
    check(
        "src/engine/room.rs",
        "let quote = '\"'; let map: HashMap<u8, u8>;",
        true,
    );
    check("src/engine/room.rs", "let settled = self.settle();", false);
    check("src/engine/room.rs", "use automerge::Automerge;", true);
    check("src/engine/gate/check.rs", "use automerge::Automerge;", false);
    check("src/engine/document.rs", "use automerge::Automerge;", false);
    check("src/server/repo.rs", "let automerge_repo = 1;", false);
    check("protocol/src/ids.rs", "use automerge::ChangeHash;", true);
    check("protocol/src/ids.rs", "use syncline_protocol::ids;", false);
    check("src/server/hub.rs", "let db = sled::open(path);", true);
    check("src/server/hub.rs", "use ::sled::Db;", true);
    check("src/server/store/mod.rs", "pub mod sled;", false);
    check(
        "src/server/store/check.rs",
        "use super::{meta::Meta, sled::{SledKv, SledOptions}};",
        false,
    );
    check("src/server/hub.rs", "use crate::server::store::sled::SledKv;", false);
    check("src/server/store/sled/pages.rs", "let db = sled::open(path);", false);
    check("src/server/hub.rs", "let took = started.elapsed();", true);
    check("src/server/clock.rs", "Instant::now()", false);
    check("src/server/clock_face.rs", "Instant::now()", true);
}

#[test]
fn every_file_holds_one_idea_and_says_which() {
    let mut faults = String::new();
    for source in sources(&[".rs", ".ts", ".tsx"]) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let _ = writeln!(
                faults,
                "{} has {lines} lines, more than {FILE_LINES_MAX}: split it by concept",
                source.path
            );
        }
        if source.path.ends_with(".rs") && !source.text.starts_with("//! ") {
            let _ = writeln!(
                faults,
                "{} does not open with `//!`: say what it is and what it never does",
                source.path
            );
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_rule_that_is_cited_exists() {
    let spec = fs::read_to_string(root().join("protocol/SPEC.md")).expect("protocol/SPEC.md can be read");
    let rules = rules(&spec);
    let known: BTreeSet<&str> = rules.iter().map(String::as_str).collect();
    assert!(known.len() > 50, "SPEC.md has {} rules", known.len());
    assert_eq!(known.len(), rules.len(), "a rule's number stands once in SPEC.md");

    let mut faults = String::new();
    let mut guarded = BTreeSet::new();
    for source in sources(&[".rs", ".ts", ".tsx"]) {
        let tests = if source.path.ends_with(".rs") {
            rust_tests
        } else {
            typescript_tests
        };
        for name in tests(&source.text) {
            for rule in cited(&name) {
                match known.get(rule.as_str()) {
                    Some(rule) => drop(guarded.insert(*rule)),
                    None => drop(writeln!(
                        faults,
                        "{}: {name} cites [{rule}], which SPEC.md lacks",
                        source.path
                    )),
                }
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
    let share = 100 * guarded.len() / known.len();
    let unguarded: Vec<&str> = known.difference(&guarded).copied().collect();
    // Past the harness's capture, so that the figure stands in every log.
    let _ = writeln!(
        std::io::stderr(),
        "tidy: {} of {} rules of SPEC.md ({share} %) are cited by a test; not yet: {}",
        guarded.len(),
        known.len(),
        unguarded.join(" ")
    );
}

#[test]
fn every_rule_that_the_spec_refers_to_exists() {
    let spec = fs::read_to_string(root().join("protocol/SPEC.md")).expect("protocol/SPEC.md can be read");
    let known: BTreeSet<String> = rules(&spec).into_iter().collect();
    let references = spec
        .split('[')
        .skip(1)
        .filter_map(|rest| rest.split_once(']'))
        .map(|(inside, _)| inside);
    for reference in references.filter(|inside| cited(inside).len() == 1 && inside.len() <= 3) {
        assert!(
            known.contains(reference),
            "SPEC.md refers to [{reference}], which it lacks"
        );
    }
}

#[test]
fn test_names_are_read_as_they_are_written() {
    let rust = "#[test]\nfn e3_e7_duplicates() {}\n\n#[tokio::test(start_paused = true)]\nasync fn h1_connects() {}\n\
                fn e99_no_test() {}\n#[cfg(test)]\nmod tests {}";
    assert_eq!(rust_tests(rust), ["e3_e7_duplicates", "h1_connects"]);
    let typescript = "  test(\"p2 the last value wins\", () => {});\n  it('e3_once', run);\n  contest(\"x\")";
    assert_eq!(typescript_tests(typescript), ["p2 the last value wins", "e3_once"]);
    assert_eq!(cited("e3_e7_duplicates"), ["E3", "E7"]);
    assert_eq!(cited("p2 the last value wins"), ["P2"]);
    assert_eq!(cited("duplicates_e3"), Vec::<String>::new());
    assert_eq!(cited("every_rule"), Vec::<String>::new());
}
