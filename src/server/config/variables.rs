//! Names of environment variables: which one sets which key, and what is to be said of those that look so and set none.

/// What all of them begin with.
const PREFIX: &str = "SYNCLINE_";

/// A variable that sets nothing, but looks as if it were to.
#[derive(Debug)]
pub(super) enum Stray {
    /// A few letters of this one are wrong: it was to be that.
    Misspelt(String),
    /// It may be somebody else's in an environment that is shared, or was to be one of these.
    Alike(Vec<String>),
}

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", upper(key))
}

/// What `name` looks like, if it sets none of `keys`. One letter in five may be wrong in what counts as misspelt, one in three in what
/// is alike; a name without its section, or with one and a key that it does not have, is alike, too.
pub(super) fn stray(name: &str, keys: &[String]) -> Option<Stray> {
    let tail = name.strip_prefix(PREFIX)?;
    if keys.iter().any(|key| upper(key) == tail) || is_of_a_service(tail) {
        return None;
    }
    let apart = |key: &&String| distance(upper(key).as_bytes(), tail.as_bytes());
    let nearest = keys.iter().min_by_key(apart)?;
    let apart = apart(&nearest);
    if apart <= tail.len() / 5 {
        return Some(Stray::Misspelt(variable(nearest)));
    }
    let is_related = |key: &&String| {
        key.split_once('.').is_some_and(|(section, rest)| {
            let after = tail.strip_prefix(&upper(section));
            upper(rest) == tail || after.is_some_and(|after| after.starts_with('_'))
        })
    };
    let mut alike: Vec<String> = keys.iter().filter(is_related).map(|key| variable(key)).collect();
    if alike.is_empty() && apart <= tail.len() / 3 {
        alike.push(variable(nearest));
    }
    (!alike.is_empty()).then_some(Stray::Alike(alike))
}

fn upper(key: &str) -> String {
    key.replace('.', "_").to_uppercase()
}

/// Kubernetes tells every container of the services beside it: of one that is called `syncline-gateway`, say, in names like these.
fn is_of_a_service(tail: &str) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|end| tail.ends_with(end))
        || ["_SERVICE_PORT_", "_PORT_"].iter().any(|part| tail.contains(part))
}

/// How many letters have to be changed, added, left out, or swapped with the next.
fn distance(one: &[u8], other: &[u8]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in other.iter().enumerate() {
            let changed = above[j] + usize::from(a != b);
            let mut least = changed.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == other[j - 1] && one[i - 1] == *b {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[other.len()]
}
