//! What the engine refuses. Twin: `python/noetl_worker/errors.py`.

use std::fmt;

/// Which Python exception class carries the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `DocumentError`: bytes that are not a JSON document within the limits.
    Document,
    /// `NotificationError`: a message that is not a command notification.
    Notification,
    /// `CaseError`: a case, a condition or an action that does not parse.
    Case,
    /// `ConditionError`: a reached condition that cannot be evaluated.
    Condition,
}

/// An error with a stable code, equal in both engines, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    /// The exception class.
    pub family: Family,
    /// The stable code.
    pub code: &'static str,
    /// What failed, with which value.
    pub message: String,
    /// Case and condition, for an error of a case table.
    pub place: Option<(usize, usize)>,
}

impl EngineError {
    /// An error that belongs to no case.
    pub fn new(family: Family, code: &'static str, message: impl Into<String>) -> Self {
        Self { family, code, message: message.into(), place: None }
    }

    /// A `CaseError`.
    pub fn case(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Family::Case, code, message)
    }

    /// A `ConditionError`.
    pub fn condition(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Family::Condition, code, message)
    }

    /// The same error, naming the case and the condition it happened in.
    #[must_use]
    pub fn at(self, case: usize, condition: usize) -> Self {
        let message = format!("case {case}, condition {condition}: {}", self.message);
        Self { message, place: Some((case, condition)), ..self }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for EngineError {}
