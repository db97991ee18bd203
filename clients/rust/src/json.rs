//! An Automerge document as JSON, for people and scripts to read.

use automerge::{ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use std::fmt::Write;

/// Objects inside objects that are written. Deeper ones are a text that says so: documents are others' data, and a stack is small.
pub const JSON_DEPTH_MAX: usize = 128;

/// The document on one line: keys in order, text as a string, bytes as a list of numbers, a number that JSON lacks as null.
pub fn to_json(document: &impl ReadDoc) -> String {
    let mut out = String::new();
    object(document, &ROOT, ObjType::Map, 0, &mut out);
    out
}

fn object(document: &impl ReadDoc, id: &ObjId, kind: ObjType, depth: usize, out: &mut String) {
    if depth > JSON_DEPTH_MAX {
        return string(&format!("deeper than {JSON_DEPTH_MAX} levels"), out);
    }
    match kind {
        ObjType::Map | ObjType::Table => {
            out.push('{');
            for (at, key) in document.keys(id).enumerate() {
                separate(at, out);
                string(&key, out);
                out.push(':');
                present(document, document.get(id, key.as_str()), depth, out);
            }
            out.push('}');
        }
        ObjType::List => {
            out.push('[');
            for at in 0..document.length(id) {
                separate(at, out);
                present(document, document.get(id, at), depth, out);
            }
            out.push(']');
        }
        ObjType::Text => string(&document.text(id).unwrap_or_default(), out),
    }
}

fn separate(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

fn present(
    document: &impl ReadDoc,
    found: Result<Option<(Value<'_>, ObjId)>, automerge::AutomergeError>,
    depth: usize,
    out: &mut String,
) {
    match found {
        Ok(Some((Value::Object(kind), id))) => object(document, &id, kind, depth + 1, out),
        Ok(Some((Value::Scalar(value), _))) => scalar(&value, out),
        Ok(None) | Err(_) => out.push_str("null"),
    }
}

fn scalar(value: &ScalarValue, out: &mut String) {
    match value {
        ScalarValue::Str(text) => string(text, out),
        ScalarValue::Int(number) | ScalarValue::Timestamp(number) => number_of(number, out),
        ScalarValue::Uint(number) => number_of(number, out),
        ScalarValue::F64(number) if number.is_finite() => number_of(&serde_json::Value::from(*number), out),
        ScalarValue::Counter(counter) => number_of(&i64::from(counter), out),
        ScalarValue::Boolean(value) => number_of(value, out),
        ScalarValue::Bytes(bytes) | ScalarValue::Unknown { bytes, .. } => {
            out.push('[');
            for (at, byte) in bytes.iter().enumerate() {
                separate(at, out);
                number_of(byte, out);
            }
            out.push(']');
        }
        ScalarValue::F64(_) | ScalarValue::Null => out.push_str("null"),
    }
}

fn number_of(number: &impl std::fmt::Display, out: &mut String) {
    write!(out, "{number}").expect("a string takes what it is given");
}

fn string(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{Automerge, transaction::Transactable};

    #[test]
    fn every_kind_of_value_is_valid_json() {
        let mut document = Automerge::new();
        let mut tx = document.transaction();
        tx.put(ROOT, "a\"\n", 1_i64).unwrap();
        tx.put(ROOT, "b", 1.5).unwrap();
        tx.put(ROOT, "c", f64::NAN).unwrap();
        tx.put(ROOT, "d", ScalarValue::counter(3)).unwrap();
        tx.put(ROOT, "e", ScalarValue::Bytes(vec![1, 255])).unwrap();
        tx.put(ROOT, "f", true).unwrap();
        tx.put(ROOT, "g", ()).unwrap();
        let text = tx.put_object(ROOT, "h", ObjType::Text).unwrap();
        tx.splice_text(&text, 0, 0, "grüß \u{1} \"dich\"").unwrap();
        let list = tx.put_object(ROOT, "i", ObjType::List).unwrap();
        tx.insert(&list, 0, "x").unwrap();
        tx.insert_object(&list, 1, ObjType::Map).unwrap();
        tx.commit();
        let json = to_json(&document);
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        let expected = serde_json::json!({"a\"\n": 1, "b": 1.5, "c": null, "d": 3, "e": [1, 255], "f": true, "g": null,
            "h": "grüß \u{1} \"dich\"", "i": ["x", {}]});
        assert_eq!(parsed, expected, "{json}");
        assert_eq!(to_json(&Automerge::new()), "{}");
    }

    #[test]
    fn a_deep_document_is_cut_off_and_does_not_overflow_the_stack() {
        let mut document = Automerge::new();
        let mut tx = document.transaction();
        let mut at = ROOT;
        for _ in 0..5_000 {
            at = tx.put_object(&at, "k", ObjType::Map).unwrap();
        }
        tx.commit();
        let json = to_json(&document);
        assert_eq!(json.matches("\"k\"").count(), JSON_DEPTH_MAX + 1);
        assert!(json.contains("deeper than 128 levels"));
    }
}
