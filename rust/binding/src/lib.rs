//! `noetl_worker._core`, the Rust engine for Python. It only converts arguments, values and errors.

mod cases;
mod convert;
mod guard;
#[cfg(feature = "rhai")]
mod rhai;

use noetl_worker_engine as engine;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use crate::guard::guarded;

/// Decode a notification; see `protocol.Engine.decode_notification`.
#[pyfunction]
fn decode_notification<'py>(py: Python<'py>, data: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    guarded(py, || {
        let (envelope, document) = engine::decode_notification(data).map_err(|error| convert::error(py, error))?;
        convert::envelope(py, &envelope, &document)
    })
}

/// Apply an operator to two values; see `protocol.Engine.decide`.
#[pyfunction]
#[pyo3(signature = (left, op, right))]
fn decide(py: Python<'_>, left: &[u8], op: &str, right: Option<&[u8]>) -> PyResult<bool> {
    guarded(py, || {
        let size = left.len() + right.map_or(0, <[u8]>::len);
        convert::released(py, size, || engine::decide(left, op, right)).map_err(|error| convert::error(py, error))
    })
}

/// Evaluate a condition; see `protocol.Engine.evaluate`.
#[pyfunction]
#[pyo3(signature = (condition, variables, data))]
fn evaluate(py: Python<'_>, condition: &[u8], variables: &[u8], data: Option<&[u8]>) -> PyResult<bool> {
    guarded(py, || {
        let size = condition.len() + variables.len() + data.map_or(0, <[u8]>::len);
        convert::released(py, size, || engine::evaluate(condition, variables, data))
            .map_err(|error| convert::error(py, error))
    })
}

/// Fit a result to an event; see `protocol.Engine.fit_result`.
#[pyfunction]
fn fit_result<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyBytes>,
    rules: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    guarded(py, || {
        let given = data.as_bytes();
        let rules = engine::Rules {
            max_bytes: rules.getattr("max_bytes")?.extract()?,
            preview_bytes: rules.getattr("preview_bytes")?.extract()?,
            preview_depth: rules.getattr("preview_depth")?.extract()?,
            secrets: convert::texts(&rules.getattr("secrets")?)?,
            secret_words: convert::texts(&rules.getattr("secret_words")?)?,
        };
        let fitted = convert::released(py, given.len(), || engine::fit_result(given, &rules))
            .map_err(|error| convert::error(py, error))?;
        let preview = fitted.preview.map(|preview| PyBytes::new(py, &preview));
        // An unchanged document of megabytes is not held twice.
        let body = if fitted.body == given { data.clone() } else { PyBytes::new(py, &fitted.body) };
        let fields = (body, fitted.body.len(), fitted.redactions, preview).into_pyobject(py)?;
        convert::named_tuple(py, convert::FITTED_RESULT.get(py, "FittedResult")?, &fields)
    })
}

/// Redact free text; see `protocol.Engine.redact_text`.
#[pyfunction]
#[pyo3(signature = (text, secrets, words = None))]
fn redact_text(
    py: Python<'_>,
    text: &Bound<'_, PyString>,
    secrets: &Bound<'_, PyAny>,
    words: Option<&Bound<'_, PyAny>>,
) -> PyResult<String> {
    guarded(py, || {
        let (text, secrets) = (convert::text(text)?, convert::texts(secrets)?);
        let words = words.map(convert::texts).transpose()?.unwrap_or_default();
        Ok(convert::released(py, text.len(), || engine::redact_text(&text, &secrets, &words)))
    })
}

/// Return marks of what a JSON text may contain; see `protocol.Engine.find_marks`.
#[pyfunction]
fn find_marks(py: Python<'_>, data: &[u8]) -> PyResult<u8> {
    guarded(py, || Ok(convert::released(py, data.len(), || engine::find_marks(data))))
}

/// Panic on purpose: the tests show that a bug in Rust becomes `EnginePanic` and the process goes on.
#[pyfunction]
fn _panic(py: Python<'_>, text: &str) -> PyResult<()> {
    guarded(py, || panic!("{text}"))
}

#[pymodule(gil_used = false)]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("SOURCE_HASH", env!("NOETL_WORKER_SOURCE_HASH"))?;
    module.add("BUILD_PROFILE", if cfg!(debug_assertions) { "dev" } else { "release" })?;
    module.add("FEATURES", PyTuple::new(py, cfg!(feature = "rhai").then_some("rhai"))?)?;
    module.add_class::<cases::CaseTable>()?;
    module.add_class::<cases::NeedsTemplate>()?;
    module.add_function(wrap_pyfunction!(decode_notification, module)?)?;
    module.add_function(wrap_pyfunction!(cases::compile_cases, module)?)?;
    module.add_function(wrap_pyfunction!(decide, module)?)?;
    module.add_function(wrap_pyfunction!(evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(fit_result, module)?)?;
    module.add_function(wrap_pyfunction!(redact_text, module)?)?;
    module.add_function(wrap_pyfunction!(find_marks, module)?)?;
    module.add_function(wrap_pyfunction!(_panic, module)?)?;
    #[cfg(feature = "rhai")]
    rhai::register(module)?;
    Ok(())
}
