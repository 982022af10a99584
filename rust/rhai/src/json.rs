//! Conversion of JSON values to rhai values and back.

use rhai::{Array, Dynamic, Map};
use serde_json::{Number, Value};

/// Convert a JSON value for a script. Integers over 63 bits become floats, as in the published tool.
pub fn from_value(value: Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(truth) => truth.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => integer.into(),
            (None, float) => float.unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(elements) => elements.into_iter().map(from_value).collect::<Array>().into(),
        Value::Object(members) => {
            members.into_iter().map(|(key, value)| (key.into(), from_value(value))).collect::<Map>().into()
        }
    }
}

/// Convert a script's value to JSON: unit and infinities become null, a char a text, a blob an array of bytes.
pub fn to_value(value: &Dynamic) -> Value {
    if value.is_unit() {
        return Value::Null;
    }
    if let Ok(truth) = value.as_bool() {
        return Value::Bool(truth);
    }
    if let Ok(integer) = value.as_int() {
        return Value::from(integer);
    }
    if let Ok(float) = value.as_float() {
        return Number::from_f64(float).map_or(Value::Null, Value::Number);
    }
    if let Some(elements) = value.read_lock::<Array>() {
        return Value::Array(elements.iter().map(to_value).collect());
    }
    if let Some(members) = value.read_lock::<Map>() {
        return Value::Object(members.iter().map(|(key, value)| (key.to_string(), to_value(value))).collect());
    }
    if let Some(bytes) = value.read_lock::<rhai::Blob>() {
        return Value::Array(bytes.iter().map(|byte| Value::from(*byte)).collect());
    }
    Value::String(value.to_string())
}

/// Return a script's value as compact JSON.
pub fn to_bytes(value: &Dynamic) -> Vec<u8> {
    to_value(value).to_string().into_bytes()
}
