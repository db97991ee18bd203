//! What native clients and peers say beside the document, in each other's form: the same value in JSON there, in CBOR here.
//!
//! What the other form cannot say goes as it is. Nothing is changed that either side does not read as the same value.

use super::{
    RepoError,
    cbor::{self, DEPTH_MAX, Item, Reader, Writer},
};
use bytes::Bytes;
use serde_json::{Map, Number, Value};

const NOT_JSON: RepoError = RepoError::Cbor("what JSON has not");

/// What peers get of a native client's bytes: one CBOR map as it is, an object or an array of JSON as the same in CBOR, and
/// anything else as a CBOR byte string, so that whoever decodes it always gets an object.
pub fn to_peers(payload: &Bytes) -> Bytes {
    if cbor::is_map(payload) {
        return payload.clone();
    }
    let mut writer = Writer::with_capacity(payload.len() + 9);
    match serde_json::from_slice(payload) {
        Ok(value @ (Value::Object(_) | Value::Array(_))) => write(&mut writer, &value),
        _ => {
            writer.bytes(payload);
        }
    }
    writer.finish().into()
}

/// What native clients get of a peer's CBOR: the same value in JSON, or the bytes as they are when JSON cannot say it.
pub fn to_natives(payload: &Bytes) -> Bytes {
    let mut reader = Reader::new(payload);
    let value = reader.item().ok().and_then(|item| read(&mut reader, item, DEPTH_MAX));
    match value.filter(|_| reader.is_empty()) {
        Some(value) => value.to_string().into(),
        None => payload.clone(),
    }
}

/// The item whose head was read, unless it has something in it that JSON has not.
fn read<'a>(reader: &mut Reader<'a>, item: Item<'a>, depth: usize) -> Option<Value> {
    Some(match item {
        Item::Unsigned(number) => number.into(),
        Item::Negative(number) => (-1 - i64::try_from(number).ok()?).into(),
        Item::Float(number) => Number::from_f64(number)?.into(),
        Item::Text(text) => text.into(),
        Item::Bool(value) => value.into(),
        Item::Nothing => Value::Null,
        Item::Bytes(_) | Item::Break => return None,
        Item::Array(count) => {
            let depth = depth.checked_sub(1)?;
            let mut items = Vec::new();
            let elements = reader.elements(count, |reader, item| {
                items.push(read(reader, item, depth).ok_or(NOT_JSON)?);
                Ok(())
            });
            elements.ok()?;
            items.into()
        }
        Item::Map(count) => {
            let depth = depth.checked_sub(1)?;
            let mut fields = Map::new();
            let entries = reader.entries(count, |reader, key, item| {
                fields.insert(key.to_owned(), read(reader, item, depth).ok_or(NOT_JSON)?);
                Ok(())
            });
            entries.ok()?;
            fields.into()
        }
    })
}

fn write(out: &mut Writer, value: &Value) {
    match value {
        Value::Null => out.null(),
        Value::Bool(value) => out.bool(*value),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => out.number(number),
            (None, Some(number)) => out.signed(number),
            (None, None) => out.float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => out.text(text),
        Value::Array(items) => {
            out.array(items.len() as u64);
            items.iter().for_each(|item| write(out, item));
            out
        }
        Value::Object(fields) => {
            out.map(fields.len() as u64);
            for (key, value) in fields {
                out.text(key);
                write(out, value);
            }
            out
        }
    };
}
