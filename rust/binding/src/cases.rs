//! `CaseTable` and `NeedsTemplate` for Python. Twin: `python/noetl_worker/engine/protocol.py`.

use std::sync::Arc;

use noetl_worker_engine as engine;
use noetl_worker_engine::condition::Operand;
use noetl_worker_engine::{Outcome, Pending, Side};
use pyo3::prelude::*;
use pyo3::types::{PyNone, PyString, PyTuple};

use crate::convert;
use crate::guard::guarded;

/// Parsed cases; see `protocol.CompiledCases`.
#[pyclass(frozen, module = "noetl_worker._core")]
pub struct CaseTable {
    table: Arc<engine::CaseTable>,
}

/// A match that waits for a rendered template; see `protocol.PendingMatch`.
#[pyclass(frozen, module = "noetl_worker._core")]
pub struct NeedsTemplate {
    pending: Pending,
}

/// Parse cases; see `protocol.Engine.compile_cases`.
#[pyfunction]
pub fn compile_cases(py: Python<'_>, data: &[u8]) -> PyResult<CaseTable> {
    guarded(py, || {
        let table = convert::released(py, data.len(), || engine::CaseTable::compile(data))
            .map_err(|error| convert::error(py, error))?;
        Ok(CaseTable { table: Arc::new(table) })
    })
}

#[pymethods]
impl CaseTable {
    fn __len__(&self) -> usize {
        self.table.len()
    }

    #[getter]
    fn skipped<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let class = py.import("noetl_worker.models")?.getattr("SkippedCase")?;
        let skipped = self.table.skipped().iter().map(|one| class.call1((one.index, &one.reason)));
        PyTuple::new(py, skipped.collect::<PyResult<Vec<_>>>()?)
    }

    #[getter]
    fn variables<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.table.variables())
    }

    #[getter]
    fn reads_result(&self) -> bool {
        self.table.reads_result()
    }

    #[pyo3(name = "match", signature = (variables, data))]
    fn first_match<'py>(
        &self,
        py: Python<'py>,
        variables: &[u8],
        data: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        guarded(py, || {
            let size = variables.len() + data.map_or(0, <[u8]>::len);
            let outcome = convert::released(py, size, || self.table.first_match(variables, data))
                .map_err(|error| convert::error(py, error))?;
            reached(py, &self.table, outcome)
        })
    }
}

#[pymethods]
impl NeedsTemplate {
    #[getter]
    fn case(&self) -> usize {
        self.pending.case
    }

    #[getter]
    fn condition(&self) -> usize {
        self.pending.condition
    }

    #[getter]
    fn side(&self) -> &'static str {
        match self.pending.side {
            Side::Left => "left",
            Side::Right => "right",
        }
    }

    #[getter]
    fn template<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self.pending.template() {
            Operand::Text(text) => Ok(PyString::new(py, text).into_any()),
            Operand::Json(value) => convert::value(py, value),
        }
    }

    fn resume<'py>(&self, py: Python<'py>, rendered: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        guarded(py, || {
            let outcome = convert::released(py, rendered.len(), || self.pending.resume(rendered))
                .map_err(|error| convert::error(py, error))?;
            reached(py, self.pending.table(), outcome)
        })
    }
}

fn reached<'py>(py: Python<'py>, table: &engine::CaseTable, outcome: Outcome) -> PyResult<Bound<'py, PyAny>> {
    match outcome {
        Outcome::Nothing => Ok(PyNone::get(py).to_owned().into_any()),
        Outcome::Needs(pending) => Ok(Bound::new(py, NeedsTemplate { pending: *pending })?.into_any()),
        Outcome::Match(case) => {
            let fields = (case, convert::action(py, table, case)?).into_pyobject(py)?;
            convert::named_tuple(py, convert::CASE_MATCH.get(py, "CaseMatch")?, &fields)
        }
    }
}
