//! The decoder of command notifications. Twin: `python/noetl_worker/engine/pure/envelope.py`.

use std::borrow::Cow;

use crate::document::{Document, Kind, Value};
use crate::error::{EngineError, Family};

/// A command id in the form in which it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandId {
    /// An integer of 64 bits, signed or unsigned.
    Integer(i128),
    /// Any text.
    Text(String),
}

/// A decoded notification.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Id of the execution.
    pub execution_id: i128,
    /// Id of the `command.issued` event, by which the command is claimed.
    pub event_id: i128,
    /// Id of the command, which is reported in the form in which it was received.
    pub command_id: CommandId,
    /// Name of the step.
    pub step: String,
    /// URL of the control plane that has the command; empty if the notification has none.
    pub server_url: String,
    /// Pool of workers that the command is for; None if the notification names none.
    pub pool: Option<String>,
    /// Index of the trace object in the notification's document; None if there is none.
    pub trace: Option<usize>,
}

const FIELDS: [&str; 7] = ["execution_id", "event_id", "command_id", "step", "server_url", "execution_pool", "trace"];
const EXCERPT_CHARS: usize = 60;

/// Decode one notification. Unknown fields are ignored; an error names the first wrong field.
///
/// # Errors
/// `NotificationError` with a code of a document, or `not_an_object`, `missing_field`, `wrong_type`, `empty_field`,
/// `out_of_range`.
pub fn decode_notification(data: &[u8]) -> Result<(Envelope, Document<'_>), EngineError> {
    let document = Document::parse(data)
        .map_err(|error| refusal(error.code, format!("notification is not a JSON document: {}", error.message)))?;
    let envelope = decode(document.root())?;
    Ok((envelope, document))
}

fn decode(body: Value<'_>) -> Result<Envelope, EngineError> {
    if body.kind() != Kind::Object {
        return Err(refusal("not_an_object", format!("notification: expected an object, found {}", found(body))));
    }
    let mut fields: [Option<Value<'_>>; 7] = [None; 7];
    for (key, value) in body.members() {
        if let Some(position) = FIELDS.iter().position(|name| key.is_text_equal(name)) {
            fields[position] = Some(value);
        }
    }
    let [execution_id, event_id, command_id, step, server_url, pool, trace] = fields;
    Ok(Envelope {
        execution_id: id(FIELDS[0], execution_id)?,
        event_id: id(FIELDS[1], event_id)?,
        command_id: decode_command_id(command_id)?,
        step: decode_step(step)?,
        server_url: optional_text(FIELDS[4], server_url)?.unwrap_or_default(),
        pool: optional_text(FIELDS[5], pool)?.filter(|pool| !pool.is_empty()),
        trace: decode_trace(trace)?,
    })
}

fn id(name: &str, value: Option<Value<'_>>) -> Result<i128, EngineError> {
    let value = required(name, value)?;
    match value.kind() {
        Kind::Integer => within_64_bits(name, value.raw(), value),
        Kind::Text if !value.raw().is_empty() && value.raw().bytes().all(|byte| byte.is_ascii_digit()) => {
            within_64_bits(name, value.raw(), value)
        }
        Kind::EscapedText => {
            let text = value.as_text().unwrap_or_default();
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
                return wrong("wrong_type", name, "an integer or a text of digits", value);
            }
            within_64_bits(name, &text, value)
        }
        _ => wrong("wrong_type", name, "an integer or a text of digits", value),
    }
}

fn within_64_bits(name: &str, digits: &str, value: Value<'_>) -> Result<i128, EngineError> {
    match digits.parse::<i128>() {
        Ok(number) if (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&number) => Ok(number),
        _ => wrong("out_of_range", name, "an integer of 64 bits", value),
    }
}

fn decode_command_id(value: Option<Value<'_>>) -> Result<CommandId, EngineError> {
    let value = required("command_id", value)?;
    if value.kind() == Kind::Integer {
        return within_64_bits("command_id", value.raw(), value).map(CommandId::Integer);
    }
    match value.as_text() {
        Some(text) => Ok(CommandId::Text(text.into_owned())),
        None => wrong("wrong_type", "command_id", "an integer or a text", value),
    }
}

fn decode_step(value: Option<Value<'_>>) -> Result<String, EngineError> {
    let value = required("step", value)?;
    match value.as_text() {
        Some(text) if text.is_empty() => wrong("empty_field", "step", "a text that is not empty", value),
        Some(text) => Ok(text.into_owned()),
        None => wrong("wrong_type", "step", "a text", value),
    }
}

fn optional_text(name: &str, value: Option<Value<'_>>) -> Result<Option<String>, EngineError> {
    match value {
        None => Ok(None),
        Some(value) if value.kind() == Kind::Null => Ok(None),
        Some(value) => match value.as_text() {
            Some(text) => Ok(Some(text.into_owned())),
            None => wrong("wrong_type", name, "a text or null", value),
        },
    }
}

fn decode_trace(value: Option<Value<'_>>) -> Result<Option<usize>, EngineError> {
    match value {
        Some(value) if value.kind() == Kind::Object => Ok(Some(value.index())),
        Some(value) if value.kind() != Kind::Null => wrong("wrong_type", "trace", "an object or null", value),
        _ => Ok(None),
    }
}

fn required<'d>(name: &str, value: Option<Value<'d>>) -> Result<Value<'d>, EngineError> {
    value.ok_or_else(|| refusal("missing_field", format!("notification field \"{name}\" is missing")))
}

fn refusal(code: &'static str, message: String) -> EngineError {
    EngineError::new(Family::Notification, code, message)
}

#[cold]
fn wrong<T>(code: &'static str, name: &str, expected: &str, value: Value<'_>) -> Result<T, EngineError> {
    let text = format!("notification field \"{name}\": expected {expected}, found {}", found(value));
    Err(refusal(code, text))
}

/// Describe a value for a message: its size, or a bounded excerpt of its JSON.
fn found(value: Value<'_>) -> String {
    match value.kind() {
        Kind::Object => format!("an object of {} keys", value.distinct_members().len()),
        Kind::Array => format!("an array of {} elements", value.len()),
        _ => {
            let mut out = Vec::new();
            value.write(&mut out);
            let text = String::from_utf8_lossy(&out);
            match text.char_indices().nth(EXCERPT_CHARS) {
                Some((end, _)) => format!("{}…", &text[..end]),
                None => Cow::into_owned(text),
            }
        }
    }
}
