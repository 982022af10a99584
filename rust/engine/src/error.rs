//! The errors of the engine. Twin: `python/noetl_worker/errors.py`.

use std::fmt;

/// The Python exception class of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `DocumentError`: bytes that are not a JSON document within the limits.
    Document,
    /// `NotificationError`: a message that is not a command notification.
    Notification,
    /// `CaseError`: a case, a condition or an action that does not parse.
    Case,
    /// `ConditionError`: a condition that was reached and cannot be evaluated.
    Condition,
}

/// An error with a stable code, equal in both engines, and a text for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineError {
    /// The Python exception class.
    pub family: Family,
    /// The code, which is the same in both engines and in all versions.
    pub code: &'static str,
    /// The text for people: what failed, and the value.
    pub message: String,
    /// Indexes of the case and the condition that failed; None outside a case table.
    pub place: Option<(usize, usize)>,
}

impl EngineError {
    /// Make an error that belongs to no case.
    pub fn new(family: Family, code: &'static str, message: impl Into<String>) -> Self {
        Self { family, code, message: message.into(), place: None }
    }

    /// Make a `CaseError`.
    pub fn case(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Family::Case, code, message)
    }

    /// Make a `ConditionError`.
    pub fn condition(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Family::Condition, code, message)
    }

    /// Return this error with the case and condition in which it happened.
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
