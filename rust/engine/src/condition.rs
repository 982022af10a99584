//! The twelve operators, and conditions that apply them (protocol/conditions.md#cases).
//! Twin: `python/noetl_worker/engine/pure/condition.py`.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::Regex;

use crate::document::{write_text, Document, Kind, Segment, Value};
use crate::error::EngineError;

/// A comparison between the two sides of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Equal without coercion.
    Eq,
    /// Not `Eq`.
    Ne,
    /// Greater, as doubles.
    Gt,
    /// Less, as doubles.
    Lt,
    /// Greater or equal, as doubles.
    Gte,
    /// Less or equal, as doubles.
    Lte,
    /// Substring; a value that is not a text counts as "".
    Contains,
    /// Regular expression found anywhere; a value that is not a text counts as "".
    Matches,
    /// Neither null, false, zero nor empty.
    Truthy,
    /// Not `Truthy`.
    Falsy,
    /// Equal to an element of an array; false if the right side is not an array.
    In,
    /// Not `In`.
    NotIn,
}

/// Wire names, in the order messages list them.
pub const OPERATORS: [(&str, Operator); 12] = [
    ("eq", Operator::Eq),
    ("ne", Operator::Ne),
    ("gt", Operator::Gt),
    ("lt", Operator::Lt),
    ("gte", Operator::Gte),
    ("lte", Operator::Lte),
    ("contains", Operator::Contains),
    ("matches", Operator::Matches),
    ("truthy", Operator::Truthy),
    ("falsy", Operator::Falsy),
    ("in", Operator::In),
    ("not_in", Operator::NotIn),
];

const QUOTED_CHARS: usize = 60;

/// One side of a condition: a value of a document, or the text of a literal left side.
#[derive(Clone, Copy, Debug)]
pub enum Operand<'d> {
    /// A JSON value.
    Json(Value<'d>),
    /// A text that is not JSON.
    Text(&'d str),
}

/// A compiled literal pattern, or the error of one that does not compile.
pub type Pattern = Result<Regex, EngineError>;

/// One parsed condition. The right side is a node of the document it was parsed from.
#[derive(Debug)]
pub struct Condition {
    /// The left side as written.
    pub left: String,
    /// The operator.
    pub op: Operator,
    /// Index of the right side in the document; None if there is none.
    pub right: Option<usize>,
    /// Path into the tool's data; None if the left side does not look into the data.
    pub path: Option<Vec<Segment>>,
    /// True if the left side is a template, unless it names a variable.
    pub left_has_marks: bool,
    /// True if a text of the right side is a template.
    pub right_has_marks: bool,
    /// The compiled right side of `matches`; None for another operator or a template.
    pub pattern: Option<Pattern>,
}

impl Condition {
    /// Parse {"left", "op"?, "right"?} or the positional form [left, op?, right?].
    ///
    /// # Errors
    /// `CaseError`: `wrong_type`, `missing_field`, `unknown_operator`; the text starts with `place`.
    pub fn parse(value: Value<'_>, place: &str) -> Result<Self, EngineError> {
        let [left, op, right] = fields(value, place)?;
        let Some(left) = left else {
            return Err(EngineError::case("missing_field", format!("{place}.left is missing")));
        };
        let Some(left_text) = left.as_text() else {
            return Err(wrong_type(place, "left", left));
        };
        let op = match op {
            None => Operator::Eq,
            Some(op) => match op.as_text() {
                None => return Err(wrong_type(place, "op", op)),
                Some(name) => operator(&name, &format!("{place}.op: "))?,
            },
        };
        let right_has_marks = right.is_some_and(has_marks);
        let pattern = (op == Operator::Matches && !right_has_marks)
            .then(|| compile(&right.and_then(Value::as_text).unwrap_or_default()));
        Ok(Self {
            path: data_path(&left_text),
            left_has_marks: is_marked(&left_text),
            left: left_text.into_owned(),
            op,
            right: right.map(Value::index),
            right_has_marks,
            pattern,
        })
    }
}

fn fields<'d>(value: Value<'d>, place: &str) -> Result<[Option<Value<'d>>; 3], EngineError> {
    match value.kind() {
        Kind::Array if (1..=3).contains(&value.len()) => Ok([value.element(0), value.element(1), value.element(2)]),
        Kind::Array => Err(EngineError::case(
            "wrong_type",
            format!("{place}: a positional condition has 1 to 3 elements, found {}", value.len()),
        )),
        Kind::Object => Ok([value.get("left"), value.get("op"), value.get("right")]),
        _ => {
            let text = format!("{place}: expected an object, found {}", kind_name(value));
            Err(EngineError::case("wrong_type", text))
        }
    }
}

fn wrong_type(place: &str, name: &str, value: Value<'_>) -> EngineError {
    let text = format!("{place}.{name}: expected a text, found {}", kind_name(value));
    EngineError::case("wrong_type", text)
}

/// Look up an operator by its wire name.
///
/// # Errors
/// `CaseError` `unknown_operator`.
pub fn operator(name: &str, place: &str) -> Result<Operator, EngineError> {
    if let Some((_, found)) = OPERATORS.iter().find(|(known, _)| *known == name) {
        return Ok(*found);
    }
    let known: Vec<&str> = OPERATORS.iter().map(|(known, _)| *known).collect();
    let text = format!("{place}no operator {}; one of {}", quoted(name), known.join(", "));
    Err(EngineError::case("unknown_operator", text))
}

fn data_path(left: &str) -> Option<Vec<Segment>> {
    if left == "result" {
        return Some(Vec::new());
    }
    left.strip_prefix("result.").map(|path| path.split('.').map(Segment::new).collect())
}

/// Return true if a text has template marks.
pub fn is_marked(text: &str) -> bool {
    text.contains("{{") || text.contains("{%")
}

/// Return true if any text in a value has template marks. Keys do not count; of repeated keys the last value counts.
pub fn has_marks(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Text => is_marked(value.raw()),
        Kind::EscapedText => value.as_text().is_some_and(|text| is_marked(&text)),
        Kind::Array => value.elements().any(has_marks),
        Kind::Object => value.distinct_members().into_iter().any(|(_, child)| has_marks(child)),
        _ => false,
    }
}

impl<'d> Operand<'d> {
    fn text(self) -> Option<Cow<'d, str>> {
        match self {
            Operand::Json(value) => value.as_text(),
            Operand::Text(text) => Some(Cow::Borrowed(text)),
        }
    }

    fn is_truthy(self) -> bool {
        match self {
            Operand::Text(text) => !text.is_empty(),
            Operand::Json(value) => match value.kind() {
                Kind::Null | Kind::False => false,
                Kind::True => true,
                Kind::Integer | Kind::Float => value.as_double() != 0.0,
                Kind::Text | Kind::EscapedText => !value.raw().is_empty(),
                Kind::Array | Kind::Object => !value.is_empty(),
            },
        }
    }

    fn is_equal(self, right: Value<'_>) -> bool {
        match self {
            Operand::Json(left) => is_equal(left, right),
            Operand::Text(text) => right.is_text_equal(text),
        }
    }

    fn as_double(self) -> Result<f64, EngineError> {
        match self {
            Operand::Text(text) => parse_double(text),
            Operand::Json(value) => as_double(value),
        }
    }
}

/// Apply an operator. `pattern` is the compiled right side of `matches`, when it is a literal.
///
/// # Errors
/// `ConditionError`: `not_a_number`, `not_numeric`, `invalid_regex`. The left side is checked first.
pub fn holds(
    op: Operator,
    left: Operand<'_>,
    right: Value<'_>,
    pattern: Option<&Pattern>,
) -> Result<bool, EngineError> {
    Ok(match op {
        Operator::Eq => left.is_equal(right),
        Operator::Ne => !left.is_equal(right),
        Operator::Gt => left.as_double()? > as_double(right)?,
        Operator::Lt => left.as_double()? < as_double(right)?,
        Operator::Gte => left.as_double()? >= as_double(right)?,
        Operator::Lte => left.as_double()? <= as_double(right)?,
        Operator::Contains => {
            let needle = right.as_text().unwrap_or_default();
            left.text().unwrap_or_default().contains(&*needle)
        }
        Operator::Matches => {
            let text = left.text().unwrap_or_default();
            match pattern {
                Some(Ok(regex)) => regex.is_match(&text),
                Some(Err(error)) => return Err(error.clone()),
                None => compile(&right.as_text().unwrap_or_default())?.is_match(&text),
            }
        }
        Operator::Truthy => left.is_truthy(),
        Operator::Falsy => !left.is_truthy(),
        Operator::In => is_in(left, right),
        Operator::NotIn => !is_in(left, right),
    })
}

fn is_in(left: Operand<'_>, right: Value<'_>) -> bool {
    right.elements().any(|element| left.is_equal(element))
}

/// Compare two JSON values without coercion: 1, 1.0 and true are three different values.
pub fn is_equal(left: Value<'_>, right: Value<'_>) -> bool {
    match (left.kind(), right.kind()) {
        (Kind::Text, Kind::Text) => left.raw() == right.raw(),
        (Kind::Text | Kind::EscapedText, Kind::Text | Kind::EscapedText) => left.as_text() == right.as_text(),
        (Kind::Integer, Kind::Integer) => left.integer_text() == right.integer_text(),
        (Kind::Float, Kind::Float) => left.as_double() == right.as_double(),
        (Kind::Array, Kind::Array) => {
            left.len() == right.len()
                && left.elements().zip(right.elements()).all(|(one, other)| is_equal(one, other))
        }
        (Kind::Object, Kind::Object) => is_equal_object(left, right),
        (one, other) => one == other,
    }
}

fn is_equal_object(left: Value<'_>, right: Value<'_>) -> bool {
    let left: HashMap<_, _> = left.members().map(|(key, value)| (key.as_text(), value)).collect();
    let right: HashMap<_, _> = right.members().map(|(key, value)| (key.as_text(), value)).collect();
    left.len() == right.len()
        && left.iter().all(|(key, one)| right.get(key).is_some_and(|other| is_equal(*one, *other)))
}

/// Convert a side of an ordering to a double. Null and a missing side are 0.
fn as_double(value: Value<'_>) -> Result<f64, EngineError> {
    match value.kind() {
        Kind::Null | Kind::False => Ok(0.0),
        Kind::True => Ok(1.0),
        Kind::Integer | Kind::Float => Ok(value.as_double()),
        Kind::Text | Kind::EscapedText => parse_double(&value.as_text().unwrap_or_default()),
        Kind::Array | Kind::Object => Err(EngineError::condition(
            "not_numeric",
            format!("{} cannot be ordered: gt, lt, gte and lte compare numbers", kind_name(value)),
        )),
    }
}

fn parse_double(text: &str) -> Result<f64, EngineError> {
    text.parse().map_err(|_| {
        EngineError::condition(
            "not_a_number",
            format!("{} is not a number: gt, lt, gte and lte compare numbers", quoted(text)),
        )
    })
}

/// Compile a pattern of the `regex` crate.
///
/// # Errors
/// `ConditionError` `invalid_regex`; the text starts with `Invalid regex: `.
pub fn compile(pattern: &str) -> Pattern {
    Regex::new(pattern).map_err(|error| {
        // The crate prints a drawing of the pattern; its last line is the reason.
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default();
        EngineError::condition("invalid_regex", format!("Invalid regex: {}", reason.trim_start_matches("error: ")))
    })
}

/// Apply one operator to two JSON values.
///
/// # Errors
/// `CaseError` `unknown_operator`, `ConditionError`, `DocumentError`.
pub fn decide(left: &[u8], op: &str, right: Option<&[u8]>) -> Result<bool, EngineError> {
    let op = operator(op, "")?;
    let left = Document::parse(left)?;
    let right = right.map(Document::parse).transpose()?;
    let right = right.as_ref().map_or_else(Value::null, Document::root);
    holds(op, Operand::Json(left.root()), right, None)
}

/// Evaluate one condition without templates.
///
/// # Errors
/// `CaseError` (the condition does not parse), `ConditionError` (`template_reached` if a side has a template),
/// `DocumentError`.
pub fn evaluate(condition: &[u8], variables: &[u8], data: Option<&[u8]>) -> Result<bool, EngineError> {
    let document = Document::parse(condition)?;
    let parsed = Condition::parse(document.root(), "condition")?;
    let variables = Document::parse(variables)?;
    let data = data.map(Document::parse).transpose()?;
    let left = match &parsed.path {
        Some(path) => Some(Operand::Json(data.as_ref().map_or_else(Value::null, |data| data.root().walk(path)))),
        None => match variables.root().get(&parsed.left) {
            Some(value) => Some(Operand::Json(value)),
            None => (!parsed.left_has_marks).then_some(Operand::Text(parsed.left.as_str())),
        },
    };
    let (Some(left), false) = (left, parsed.right_has_marks) else {
        let text = "the condition has a template; match it through a case table";
        return Err(EngineError::condition("template_reached", text));
    };
    let right = parsed.right.map_or_else(Value::null, |index| document.value(index));
    holds(parsed.op, left, right, parsed.pattern.as_ref())
}

/// Name the kind of a JSON value for a message.
pub fn kind_name(value: Value<'_>) -> &'static str {
    match value.kind() {
        Kind::Null => "null",
        Kind::True | Kind::False => "a boolean",
        Kind::Integer | Kind::Float => "a number",
        Kind::Text | Kind::EscapedText => "a text",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}

/// Quote a text for a message. A long text is not quoted at all: redaction would not recognize a cut secret.
pub fn quoted(text: &str) -> String {
    let chars = text.chars().count();
    if chars > QUOTED_CHARS {
        return format!("a text of {chars} characters");
    }
    let mut out = Vec::new();
    write_text(text, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}
