//! Notifications, conditions, cases and results of the NoETL worker, without Python.
//!
//! Every file has a twin of the same name in `python/noetl_worker/engine/pure`, which is the specification: same
//! calls, same values, same error codes. (`reader.rs` is the class `DocumentReader` there.)

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod case;
pub mod condition;
pub mod document;
pub mod envelope;
pub mod error;
pub mod fit;
pub mod marks;
pub mod redact;
pub mod secrets;
pub mod wrapped;

mod reader;

pub use case::{Action, CaseTable, Outcome, Pending, Side, Skipped};
pub use condition::{decide, evaluate};
pub use document::{Document, Kind, Value};
pub use envelope::{decode_notification, CommandId, Envelope};
pub use error::{EngineError, Family};
pub use fit::{fit_result, Fitted, Rules};
pub use marks::find_marks;
pub use redact::redact_text;
