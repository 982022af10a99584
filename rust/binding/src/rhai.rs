//! The rhai tool for `python/noetl_worker/tools/kinds/rhai/rhai.py`.

use std::sync::Arc;
use std::time::Duration;

use noetl_worker_rhai::{run, Limits};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::guard::guarded;

/// Run a script. Return (kind, value as JSON or None, message, output).
///
/// `refusal(host, address)` returns the reason why a script may not connect there, or None. If it raises, the
/// connection is refused.
#[pyfunction]
#[pyo3(signature = (code, variables, timeout_s, refusal))]
pub fn run_rhai<'py>(
    py: Python<'py>,
    code: &str,
    variables: &[u8],
    timeout_s: Option<f64>,
    refusal: Py<PyAny>,
) -> PyResult<(&'static str, Option<Bound<'py, PyBytes>>, String, String)> {
    let timeout = timeout_s.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
    let denied = move |host: &str, address: &str, port: Option<u16>| {
        Python::attach(|py| {
            let said = refusal.call1(py, (host, address, port));
            said.and_then(|said| said.extract::<Option<String>>(py)).unwrap_or_else(|error| Some(error.to_string()))
        })
    };
    let limits = Limits::new(timeout, Arc::new(denied));
    guarded(py, || {
        let ran = py.detach(|| run(code, variables, &limits));
        Ok(match ran.value {
            Ok(value) => ("success", Some(PyBytes::new(py, &value)), String::new(), ran.output),
            Err(failure) => (failure.kind.name(), None, failure.message, ran.output),
        })
    })
}

/// Add the tool to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(run_rhai, module)?)
}
