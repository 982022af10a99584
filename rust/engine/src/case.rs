//! Case tables: parsed once, then searched for the first case that holds (protocol/conditions.md#cases).
//! Twin: `python/noetl_worker/engine/pure/case.py`.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use crate::condition::{holds, kind_name, quoted, Condition, Operand};
use crate::document::{Document, Kind, Segment, Value};
use crate::error::EngineError;

const ACTIONS: [&str; 6] = ["continue", "exit", "set_var", "goto", "retry", "fail"];

/// The action of a case. A value is the index of its node in the table's document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go on with the step.
    Continue,
    /// End the step with a status.
    Exit {
        /// Status of the step.
        status: String,
        /// Index of the data; None when absent.
        data: Option<usize>,
    },
    /// Set a variable.
    SetVar {
        /// Name of the variable.
        name: String,
        /// Index of the variable's value.
        value: usize,
    },
    /// Go to a step.
    Goto {
        /// Name of the step.
        step: String,
    },
    /// Run the tool again.
    Retry {
        /// Milliseconds to wait before the next run; None if the case names none.
        delay_ms: Option<u64>,
    },
    /// Fail the command.
    Fail {
        /// Text of the failure.
        message: String,
    },
}

#[derive(Debug)]
struct Case {
    when: Vec<Condition>,
    then: Action,
}

/// A case that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Position in the list as written.
    pub index: usize,
    /// Reason why the case does not parse.
    pub reason: String,
}

/// Parsed cases, with the regular expressions of literal right sides compiled.
#[derive(Debug)]
pub struct CaseTable {
    document: Document<'static>,
    cases: Vec<Case>,
    skipped: Vec<Skipped>,
    /// All names that a left side may look up, sorted, and their slots.
    names: Vec<String>,
    slots: HashMap<String, usize>,
    /// All paths below the tool's data, each once.
    paths: Vec<Vec<Segment>>,
    /// Slot of each condition's left value, case by case.
    lookups: Vec<Vec<Lookup>>,
}

/// Slot of a left value in a `Scope`. Conditions that name the same value share a slot.
#[derive(Clone, Copy, Debug)]
enum Lookup {
    Path(usize),
    Name(usize),
}

/// A side of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The left side.
    Left,
    /// The right side.
    Right,
}

/// The outcome of matching.
#[derive(Debug)]
pub enum Outcome {
    /// All conditions of the case with this index hold.
    Match(usize),
    /// A side with a template was reached. Resume with its rendered value.
    Needs(Box<Pending>),
    /// No case holds.
    Nothing,
}

/// The place of a condition's left value, which is needed again when the right side is rendered.
#[derive(Clone, Debug)]
enum LeftPlace {
    Data(Option<usize>),
    Variable(usize),
    Literal,
    Rendered(Arc<Document<'static>>),
}

/// A match that waits for a rendered side. It owns its documents, so it can be resumed any number of times.
#[derive(Debug)]
pub struct Pending {
    table: Arc<CaseTable>,
    scope: Arc<Scope<'static>>,
    /// Index of the case, counting only those that parse.
    pub case: usize,
    /// Index of the condition inside the case.
    pub condition: usize,
    /// The side to render.
    pub side: Side,
    left: LeftPlace,
}

/// The two documents of one match, and the places of the variables that conditions name.
#[derive(Debug)]
struct Scope<'a> {
    variables: Document<'a>,
    data: Option<Document<'a>>,
    found: Vec<Option<usize>>,
    /// Place of each path in the data, found at the first use of the path: UNKNOWN, NOWHERE, or the node + FIRST_NODE.
    walked: Vec<AtomicUsize>,
}

const UNKNOWN: usize = 0;
const NOWHERE: usize = 1;
const FIRST_NODE: usize = 2;

/// The outcome of one condition or case. Unlike an `Outcome`, it borrows the documents.
enum Step {
    No,
    Match(usize),
    Needs { case: usize, condition: usize, side: Side, left: LeftPlace },
}

impl CaseTable {
    /// Parse a list of cases. Cases that do not parse go to `skipped`; the planes' own workers drop them too.
    ///
    /// # Errors
    /// `DocumentError`.
    pub fn compile(data: &[u8]) -> Result<Self, EngineError> {
        let document = Document::parse(data)?.into_owned();
        let mut cases = Vec::new();
        let mut skipped = Vec::new();
        for (index, element) in document.root().elements().enumerate() {
            match parse_case(element) {
                Ok(case) => cases.push(case),
                Err(error) => skipped.push(Skipped { index, reason: error.message }),
            }
        }
        let conditions = || cases.iter().flat_map(|case| &case.when);
        let names: BTreeSet<&String> = conditions().filter(|one| one.path.is_none()).map(|one| &one.left).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        let slots: HashMap<String, usize> =
            names.iter().enumerate().map(|(slot, name)| (name.clone(), slot)).collect();
        let mut paths = Paths::default();
        let lookups = cases
            .iter()
            .map(|case| {
                let lookup = |one: &Condition| match &one.path {
                    Some(path) => Lookup::Path(paths.slot(&one.left, path)),
                    None => Lookup::Name(slots.get(&one.left).copied().unwrap_or_default()),
                };
                case.when.iter().map(lookup).collect()
            })
            .collect();
        Ok(Self { paths: paths.paths, lookups, document, cases, skipped, names, slots })
    }

    /// Return the number of cases that parse.
    pub fn len(&self) -> usize {
        self.cases.len()
    }

    /// Return true if no case parses.
    pub fn is_empty(&self) -> bool {
        self.cases.is_empty()
    }

    /// Return the cases that do not parse.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
    }

    /// Return all names that a left side may look up, sorted.
    pub fn variables(&self) -> &[String] {
        &self.names
    }

    /// Return true if a left side starts at the tool's data.
    pub fn reads_result(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Return the action of a case.
    pub fn action(&self, case: usize) -> &Action {
        &self.cases[case].then
    }

    /// Return a value of an action.
    pub fn value(&self, index: usize) -> Value<'_> {
        self.document.value(index)
    }

    /// Find the first case that holds.
    ///
    /// # Errors
    /// `ConditionError` with its place, `DocumentError`.
    pub fn first_match(self: &Arc<Self>, variables: &[u8], data: Option<&[u8]>) -> Result<Outcome, EngineError> {
        let variables = Document::parse(variables)?;
        let data = data.map(Document::parse).transpose()?;
        let found = self.find_variables(&variables);
        let scope =
            Scope { found, variables, data, walked: self.paths.iter().map(|_| AtomicUsize::new(UNKNOWN)).collect() };
        let step = self.cases_from(&scope, 0)?;
        Ok(match step {
            Step::No => Outcome::Nothing,
            Step::Match(case) => Outcome::Match(case),
            Step::Needs { case, condition, side, left } => Outcome::Needs(Box::new(Pending {
                table: Arc::clone(self),
                scope: Arc::new(scope.into_owned()),
                case,
                condition,
                side,
                left,
            })),
        })
    }

    /// Find the variables that conditions name, in one pass over all variables.
    fn find_variables(&self, variables: &Document<'_>) -> Vec<Option<usize>> {
        let mut found = vec![None; self.names.len()];
        if !self.names.is_empty() {
            for (key, value) in variables.root().members() {
                if let Some(slot) = key.as_text().and_then(|name| self.slots.get(&*name)) {
                    found[*slot] = Some(value.index());
                }
            }
        }
        found
    }

    fn cases_from(&self, scope: &Scope<'_>, first: usize) -> Result<Step, EngineError> {
        for case in first..self.cases.len() {
            match self.conditions_from(scope, case, 0)? {
                Step::No => {}
                reached => return Ok(reached),
            }
        }
        Ok(Step::No)
    }

    /// Evaluate the conditions of one case. Return `No` if one of them does not hold.
    fn conditions_from(&self, scope: &Scope<'_>, case: usize, first: usize) -> Result<Step, EngineError> {
        for condition in first..self.cases[case].when.len() {
            let parsed = &self.cases[case].when[condition];
            let left = match self.lookups[case][condition] {
                Lookup::Path(slot) => LeftPlace::Data(scope.walk(slot, &self.paths[slot])),
                Lookup::Name(slot) => match scope.found[slot] {
                    Some(index) => LeftPlace::Variable(index),
                    None if parsed.left_has_marks => {
                        return Ok(Step::Needs { case, condition, side: Side::Left, left: LeftPlace::Literal });
                    }
                    None => LeftPlace::Literal,
                },
            };
            if parsed.right_has_marks {
                return Ok(Step::Needs { case, condition, side: Side::Right, left });
            }
            if !self.holds(scope, case, condition, &left, None)? {
                return Ok(Step::No);
            }
        }
        Ok(Step::Match(case))
    }

    fn holds(
        &self,
        scope: &Scope<'_>,
        case: usize,
        condition: usize,
        left: &LeftPlace,
        rendered_right: Option<Value<'_>>,
    ) -> Result<bool, EngineError> {
        let parsed = &self.cases[case].when[condition];
        let left = match left {
            LeftPlace::Data(index) => Operand::Json(match (index, &scope.data) {
                (Some(index), Some(data)) => data.value(*index),
                _ => Value::null(),
            }),
            LeftPlace::Variable(index) => Operand::Json(scope.variables.value(*index)),
            LeftPlace::Literal => Operand::Text(&parsed.left),
            LeftPlace::Rendered(document) => Operand::Json(document.root()),
        };
        let right = rendered_right
            .unwrap_or_else(|| parsed.right.map_or_else(Value::null, |index| self.document.value(index)));
        holds(parsed.op, left, right, parsed.pattern.as_ref()).map_err(|error| error.at(case, condition))
    }

    fn next_step(
        &self,
        scope: &Scope<'_>,
        case: usize,
        condition: usize,
        did_hold: bool,
    ) -> Result<Step, EngineError> {
        if did_hold {
            match self.conditions_from(scope, case, condition + 1)? {
                Step::No => {}
                reached => return Ok(reached),
            }
        }
        self.cases_from(scope, case + 1)
    }
}

/// Return the place of a value in a document; None for the null that `Value::walk` returns for a missing value.
fn node_index(value: Value<'_>, data: &Document<'_>) -> Option<usize> {
    let is_made_up = value.kind() == Kind::Null && data.value(value.index()).kind() != Kind::Null;
    (!is_made_up).then(|| value.index())
}

/// Distinct paths, in the order in which conditions name them.
#[derive(Default)]
struct Paths {
    paths: Vec<Vec<Segment>>,
    slots: HashMap<String, usize>,
}

impl Paths {
    fn slot(&mut self, left: &str, path: &[Segment]) -> usize {
        if let Some(slot) = self.slots.get(left) {
            return *slot;
        }
        self.paths.push(path.to_vec());
        self.slots.insert(left.to_owned(), self.paths.len() - 1);
        self.paths.len() - 1
    }
}

impl Scope<'_> {
    fn walk(&self, slot: usize, path: &[Segment]) -> Option<usize> {
        match self.walked[slot].load(Ordering::Relaxed) {
            UNKNOWN => {
                let place = self.data.as_ref().and_then(|data| node_index(data.root().walk(path), data));
                self.walked[slot].store(place.map_or(NOWHERE, |node| node + FIRST_NODE), Ordering::Relaxed);
                place
            }
            known => known.checked_sub(FIRST_NODE),
        }
    }

    fn into_owned(self) -> Scope<'static> {
        Scope {
            variables: self.variables.into_owned(),
            data: self.data.map(Document::into_owned),
            found: self.found,
            walked: self.walked,
        }
    }
}

impl Pending {
    /// Return the value to render: a left side's text, or a right side.
    pub fn template(&self) -> Operand<'_> {
        let condition = &self.table.cases[self.case].when[self.condition];
        match (self.side, condition.right) {
            (Side::Right, Some(index)) => Operand::Json(self.table.document.value(index)),
            _ => Operand::Text(&condition.left),
        }
    }

    /// Return the table of this match.
    pub fn table(&self) -> &Arc<CaseTable> {
        &self.table
    }

    /// Go on with the rendered value.
    ///
    /// # Errors
    /// See `CaseTable::first_match`.
    pub fn resume(&self, rendered: &[u8]) -> Result<Outcome, EngineError> {
        let rendered = Document::parse(rendered)?;
        let (case, condition) = (self.case, self.condition);
        let did_hold = match self.side {
            Side::Left => {
                let left = LeftPlace::Rendered(Arc::new(rendered.into_owned()));
                if self.table.cases[case].when[condition].right_has_marks {
                    return Ok(self.pending(case, condition, Side::Right, left));
                }
                self.table.holds(&self.scope, case, condition, &left, None)?
            }
            Side::Right => self.table.holds(&self.scope, case, condition, &self.left, Some(rendered.root()))?,
        };
        Ok(match self.table.next_step(&self.scope, case, condition, did_hold)? {
            Step::No => Outcome::Nothing,
            Step::Match(case) => Outcome::Match(case),
            Step::Needs { case, condition, side, left } => self.pending(case, condition, side, left),
        })
    }

    fn pending(&self, case: usize, condition: usize, side: Side, left: LeftPlace) -> Outcome {
        Outcome::Needs(Box::new(Pending {
            table: Arc::clone(&self.table),
            scope: Arc::clone(&self.scope),
            case,
            condition,
            side,
            left,
        }))
    }
}

/// Parse {"when": [...], "then": ...}, or [when, then], which the planes' own workers happen to accept too.
fn parse_case(value: Value<'_>) -> Result<Case, EngineError> {
    let (when, then) = match value.kind() {
        Kind::Array => match (value.len(), value.element(0), value.element(1)) {
            (2, Some(when), Some(then)) => (when, then),
            (count, ..) => {
                let text = format!("a positional case has 2 elements, found {count}");
                return Err(EngineError::case("wrong_type", text));
            }
        },
        Kind::Object => (required(value, "when", "when")?, required(value, "then", "then")?),
        _ => {
            let text = format!("expected an object, found {}", kind_name(value));
            return Err(EngineError::case("wrong_type", text));
        }
    };
    if when.kind() != Kind::Array {
        let text = format!("when: expected an array of conditions, found {}", kind_name(when));
        return Err(EngineError::case("wrong_type", text));
    }
    let conditions: Result<Vec<Condition>, EngineError> = when
        .elements()
        .enumerate()
        .map(|(position, element)| Condition::parse(element, &format!("when[{position}]")))
        .collect();
    Ok(Case { when: conditions?, then: parse_action(then)? })
}

fn required<'d>(value: Value<'d>, name: &str, place: &str) -> Result<Value<'d>, EngineError> {
    value.get(name).ok_or_else(|| EngineError::case("missing_field", format!("{place} is missing")))
}

/// Parse the `then` of a case.
///
/// # Errors
/// `CaseError`: `wrong_type`, `missing_field`, `unknown_action`.
pub fn parse_action(value: Value<'_>) -> Result<Action, EngineError> {
    let (name, payload) = named_payload(value)?;
    if !ACTIONS.contains(&&*name) {
        let text = format!("then: no action {}; one of {}", quoted(&name), ACTIONS.join(", "));
        return Err(EngineError::case("unknown_action", text));
    }
    if name == "continue" {
        return match payload {
            Some(payload) if payload.kind() != Kind::Null => {
                let text = format!("then.continue: expected null, found {}", kind_name(payload));
                Err(EngineError::case("wrong_type", text))
            }
            _ => Ok(Action::Continue),
        };
    }
    match payload {
        Some(payload) if payload.kind() == Kind::Object => with_payload(&name, payload),
        other => {
            let found = other.map_or("nothing", kind_name);
            Err(EngineError::case("wrong_type", format!("then.{name}: expected an object, found {found}")))
        }
    }
}

fn named_payload(value: Value<'_>) -> Result<(String, Option<Value<'_>>), EngineError> {
    if let Some(name) = value.as_text() {
        return Ok((name.into_owned(), None));
    }
    let members = value.distinct_members();
    if let [(key, payload)] = members[..] {
        return Ok((key.as_text().unwrap_or_default().into_owned(), Some(payload)));
    }
    let found = match value.kind() {
        Kind::Object => format!("an object of {} keys", members.len()),
        _ => kind_name(value).to_owned(),
    };
    let text = format!("then: expected an action's name or an object of one key, found {found}");
    Err(EngineError::case("wrong_type", text))
}

fn with_payload(name: &str, payload: Value<'_>) -> Result<Action, EngineError> {
    Ok(match name {
        "exit" => {
            Action::Exit { status: text(payload, name, "status")?, data: payload.get("data").map(Value::index) }
        }
        "goto" => Action::Goto { step: text(payload, name, "step")? },
        "fail" => Action::Fail { message: text(payload, name, "message")? },
        "set_var" => {
            let variable = text(payload, name, "name")?;
            let value = required(payload, "value", "then.set_var.value")?;
            Action::SetVar { name: variable, value: value.index() }
        }
        _ => Action::Retry { delay_ms: delay_ms(payload)? },
    })
}

fn delay_ms(payload: Value<'_>) -> Result<Option<u64>, EngineError> {
    let Some(value) = payload.get("delay_ms").filter(|value| value.kind() != Kind::Null) else { return Ok(None) };
    let parsed = if value.kind() == Kind::Integer { value.integer_text().parse().ok() } else { None };
    parsed.map(Some).ok_or_else(|| {
        let text = format!("then.retry.delay_ms: expected whole milliseconds, found {}", kind_name(value));
        EngineError::case("wrong_type", text)
    })
}

fn text(payload: Value<'_>, action: &str, name: &str) -> Result<String, EngineError> {
    let place = format!("then.{action}.{name}");
    let value = required(payload, name, &place)?;
    match value.as_text() {
        Some(text) => Ok(text.into_owned()),
        None => Err(EngineError::case("wrong_type", format!("{place}: expected a text, found {}", kind_name(value)))),
    }
}
