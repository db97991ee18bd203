//! Names of environment variables: which one sets which key, and which key a name was most likely to set that sets none.

/// What all of them begin with.
const PREFIX: &str = "SYNCLINE_";

/// The variable that sets `key`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", upper(key))
}

/// The variable that `name` was most likely to be, if it sets none of `keys` and looks as if it should: it is misspelt, it lacks the
/// section, or it begins with one. Any other name is somebody else's.
pub(super) fn meant(name: &str, keys: &[String]) -> Option<String> {
    let tail = name.strip_prefix(PREFIX)?;
    if keys.iter().any(|key| upper(key) == tail) || is_of_a_service(tail) {
        return None;
    }
    let apart = |key: &str| match key.split_once('.') {
        Some((_, rest)) if upper(rest) == tail => 0,
        _ => distance(&upper(key), tail),
    };
    let (nearest, apart) = keys
        .iter()
        .map(|key| (key, apart(key)))
        .min_by_key(|(_, apart)| *apart)?;
    let mut sections = keys.iter().filter_map(|key| key.split_once('.'));
    let is_in_section = sections.any(|(section, _)| {
        let rest = tail.strip_prefix(&upper(section));
        rest.is_some_and(|rest| rest.starts_with('_'))
    });
    (is_in_section || apart <= tail.len() / 4).then(|| variable(nearest))
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

/// How many letters have to be changed, added or left out.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (place, b) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[place + 1];
            row[place + 1] = changed.min(diagonal + 1).min(row[place] + 1);
        }
    }
    row[other.len()]
}
