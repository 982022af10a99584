//! Functions of the published tool that need no network.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rhai::{Array, Dynamic, Engine, EvalAltResult, ImmutableString, Position};

use crate::{json, Limits, Output};

/// Register all functions except HTTP.
pub fn register(engine: &mut Engine, limits: &Limits, output: &Output) {
    register_output(engine, output);
    register_time(engine, limits);
    engine.register_fn("parse_json", |text: &str| serde_json::from_str(text).map_or(Dynamic::UNIT, json::from_value));
    engine.register_fn("to_json", |value: Dynamic| json::to_value(&value).to_string());
    engine.register_fn("contains", |text: &str, part: &str| text.contains(part));
    // The published tool compares exactly, the CLI ignores case; every script seen was written for the CLI.
    engine.register_fn("contains_any", |text: &str, parts: Array| {
        let text = text.to_lowercase();
        parts.iter().any(|part| text.contains(&part.to_string().to_lowercase()))
    });
}

fn register_output(engine: &mut Engine, output: &Output) {
    let printed = output.clone();
    engine.on_print(move |text| printed.line(text));
    let debugged = output.clone();
    engine.on_debug(move |text, _source, _position| debugged.line(&format!("[debug] {text}")));
    let logged = output.clone();
    engine.register_fn("log", move |value: Dynamic| logged.line(&value.to_string()));
    for level in ["info", "warn", "error"] {
        let logged = output.clone();
        engine.register_fn(level, move |value: Dynamic| logged.line(&format!("[{level}] {value}")));
    }
}

fn register_time(engine: &mut Engine, limits: &Limits) {
    engine.register_fn("timestamp", || ImmutableString::from(since_epoch().as_secs().to_string()));
    engine.register_fn("timestamp_ms", || i64::try_from(since_epoch().as_millis()).unwrap_or(i64::MAX));
    let (seconds, milliseconds) = (limits.clone(), limits.clone());
    engine.register_fn("sleep", move |time: i64| {
        sleep(Duration::from_secs(u64::try_from(time).unwrap_or(0)), &seconds)
    });
    engine.register_fn("sleep_ms", move |time: i64| {
        sleep(Duration::from_millis(u64::try_from(time).unwrap_or(0)), &milliseconds)
    });
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn sleep(time: Duration, limits: &Limits) -> Result<(), Box<EvalAltResult>> {
    thread::sleep(limits.left().map_or(time, |left| time.min(left)));
    if limits.are_over() {
        return Err(terminated());
    }
    Ok(())
}

/// Make the error that ends a script; scripts cannot catch it.
pub fn terminated() -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into()
}
