//! The rhai tool: a script with `args` and variables in, a JSON value out. No Python here.
//!
//! It is a superset of the two published dialects: `http_*` return maps, `args` is a map, and its members are variables
//! too.
//! A script can neither load code (`eval`, `import`) nor outlive its deadline.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod functions;
mod http;
mod json;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rhai::{Dynamic, Engine, EvalAltResult, Scope};

/// Largest number of operations of one script: about half a minute of pure computing, so that a loop ends even
/// without a deadline.
pub const MAX_OPERATIONS: u64 = 500_000_000;
/// Largest number of bytes of one text.
pub const MAX_TEXT_BYTES: usize = 16 * 1024 * 1024;
/// Largest number of elements of an array and members of a map, including nested ones. The interpreter counts them at
/// every change, so a script could otherwise grow one for minutes.
pub const MAX_ELEMENTS: usize = 100_000;
/// Largest number of nested calls of script functions.
pub const MAX_CALLS: usize = 64;
/// Largest number of bytes that are kept of a script's output.
pub const MAX_OUTPUT_BYTES: usize = 64 * 1024;

/// The kind of a script's failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The script does not parse, or its scope is not a JSON object.
    Configuration,
    /// The script threw, called something that does not exist, or mixed types.
    Script,
    /// The script needed more operations or memory than allowed.
    Limit,
    /// The deadline passed.
    Timeout,
}

impl FailureKind {
    /// Return the word for the Python side.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Script => "script",
            Self::Limit => "limit",
            Self::Timeout => "timeout",
        }
    }
}

/// The failure of a script that gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind of failure.
    pub kind: FailureKind,
    /// The text of the engine, with line and position.
    pub message: String,
}

/// The result and the output of a script.
#[derive(Debug)]
pub struct Run {
    /// The value of the script's last expression as JSON.
    pub value: Result<Vec<u8>, Failure>,
    /// Lines of `print`, `log` and the like, cut to `MAX_OUTPUT_BYTES`.
    pub output: String,
}

/// Function that returns the reason why a script may not connect to an address and port of a host, or None if it may.
pub type Denied = dyn Fn(&str, &str, Option<u16>) -> Option<String> + Send + Sync;

/// The deadline of a script, and the check of the addresses that it connects to.
#[derive(Clone)]
pub struct Limits {
    deadline: Option<Instant>,
    denied: Arc<Denied>,
}

impl Limits {
    /// Make the limits of a script that starts now.
    pub fn new(timeout: Option<Duration>, denied: Arc<Denied>) -> Self {
        Self { deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)), denied }
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Return true if the script has to end now.
    fn are_over(&self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// The output of a script so far.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Lines>>);

#[derive(Default)]
struct Lines {
    text: String,
    /// True once a line was cut. Nothing is added after it: the tool looks for half of a secret only at the end.
    is_cut: bool,
}

impl Output {
    fn line(&self, text: &str) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.is_cut {
            return;
        }
        let room = MAX_OUTPUT_BYTES.saturating_sub(lines.text.len() + 1);
        let mut end = room.min(text.len());
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        lines.is_cut = end < text.len() || room == 0;
        if room > 0 {
            lines.text.push_str(&text[..end]);
            lines.text.push('\n');
        }
    }

    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }
}

/// Run a script. `variables` is a JSON object; its members are the script's variables, in the order of their names.
pub fn run(code: &str, variables: &[u8], limits: &Limits) -> Run {
    let output = Output::default();
    let value = evaluate(code, variables, limits, &output);
    Run { value, output: output.text() }
}

fn evaluate(code: &str, variables: &[u8], limits: &Limits, output: &Output) -> Result<Vec<u8>, Failure> {
    let mut scope = scope(variables)?;
    let engine = engine(limits, output);
    let program = engine.compile_with_scope(&scope, code).map_err(|error| Failure {
        kind: FailureKind::Configuration,
        message: format!("script does not parse: {error}"),
    })?;
    match engine.eval_ast_with_scope::<Dynamic>(&mut scope, &program) {
        Ok(value) => Ok(json::to_bytes(&value)),
        Err(error) => Err(failure(&error)),
    }
}

fn scope(variables: &[u8]) -> Result<Scope<'static>, Failure> {
    let refused = |message: String| Failure { kind: FailureKind::Configuration, message };
    let parsed: serde_json::Value = serde_json::from_slice(variables)
        .map_err(|error| refused(format!("the variables cannot be read: {error}")))?;
    let serde_json::Value::Object(members) = parsed else {
        return Err(refused("the variables are no object".to_owned()));
    };
    let mut scope = Scope::new();
    for (name, value) in members {
        scope.push_dynamic(name, json::from_value(value));
    }
    Ok(scope)
}

fn engine(limits: &Limits, output: &Output) -> Engine {
    let mut engine = Engine::new();
    engine.disable_symbol("eval");
    engine.set_max_operations(MAX_OPERATIONS);
    engine.set_max_string_size(MAX_TEXT_BYTES);
    engine.set_max_array_size(MAX_ELEMENTS);
    engine.set_max_map_size(MAX_ELEMENTS);
    engine.set_max_call_levels(MAX_CALLS);
    engine.set_max_expr_depths(64, 32);
    let ends = limits.clone();
    engine.on_progress(move |operations| {
        // Reading the clock takes longer than most operations.
        (operations % 256 == 0 && ends.are_over()).then_some(Dynamic::UNIT)
    });
    functions::register(&mut engine, limits, output);
    http::register(&mut engine, limits);
    engine
}

fn failure(error: &EvalAltResult) -> Failure {
    let message = error.to_string();
    match error.unwrap_inner() {
        EvalAltResult::ErrorTerminated(..) => {
            Failure { kind: FailureKind::Timeout, message: "the script ran past its timeout".to_owned() }
        }
        EvalAltResult::ErrorTooManyOperations(..)
        | EvalAltResult::ErrorDataTooLarge(..)
        | EvalAltResult::ErrorStackOverflow(..)
        | EvalAltResult::ErrorTooManyVariables(..) => Failure { kind: FailureKind::Limit, message },
        _ => Failure { kind: FailureKind::Script, message },
    }
}
