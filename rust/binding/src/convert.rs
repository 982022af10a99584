//! Values and errors of the engine as Python objects. Classes are Python's; they are looked up once per process.

use noetl_worker_engine as engine;
use noetl_worker_engine::{CommandId, Document, EngineError, Envelope, Family, Kind, Value};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyList, PyNone, PyString, PyTuple, PyType};

/// Largest number of bytes of an input for which the GIL is kept. Larger inputs take long enough to let another
/// thread run.
const RELEASE_BYTES: usize = 64 * 1024;

/// Run `work` without the GIL when its input is large.
pub fn released<T: Send>(py: Python<'_>, size: usize, work: impl FnOnce() -> T + Send) -> T {
    if size > RELEASE_BYTES {
        py.detach(work)
    } else {
        work()
    }
}

/// A Python class of this package, looked up at its first use.
pub struct Class {
    module: &'static str,
    cell: PyOnceLock<Py<PyType>>,
}

impl Class {
    const fn new(module: &'static str) -> Self {
        Self { module, cell: PyOnceLock::new() }
    }

    /// Return the class.
    pub fn get<'py>(&'static self, py: Python<'py>, name: &str) -> PyResult<&'py Bound<'py, PyType>>
    where
        'static: 'py,
    {
        self.cell
            .get_or_try_init(py, || Ok(py.import(self.module)?.getattr(name)?.cast_into::<PyType>()?.unbind()))
            .map(|class| class.bind(py))
    }
}

static ENVELOPE: Class = Class::new("noetl_worker.models");
pub static FITTED_RESULT: Class = Class::new("noetl_worker.models");
pub static CASE_MATCH: Class = Class::new("noetl_worker.engine.protocol");

/// Make a NamedTuple from its fields without its `__new__`, a Python call that takes a third of the whole decode.
pub fn named_tuple<'py>(
    py: Python<'py>,
    class: &Bound<'py, PyType>,
    fields: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    static TUPLE_NEW: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let new =
        TUPLE_NEW.get_or_try_init(py, || Ok::<_, PyErr>(py.get_type::<PyTuple>().getattr("__new__")?.unbind()))?;
    new.bind(py).call1((class, fields))
}

/// Read a Python text. A lone surrogate (from a file name that is not UTF-8) becomes `?`, as in the pure engine.
pub fn text(text: &Bound<'_, PyString>) -> PyResult<String> {
    match text.to_cow() {
        Ok(whole) => Ok(whole.into_owned()),
        Err(_) => {
            let encoded: Vec<u8> = text.call_method1("encode", ("utf-8", "replace"))?.extract()?;
            Ok(String::from_utf8_lossy(&encoded).into_owned())
        }
    }
}

/// Read a sequence of texts.
pub fn texts(sequence: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    sequence.try_iter()?.map(|one| text(one?.cast::<PyString>()?)).collect()
}

/// Make an `Envelope` (models/notification.py).
pub fn envelope<'py>(py: Python<'py>, envelope: &Envelope, document: &Document<'_>) -> PyResult<Bound<'py, PyAny>> {
    let command_id = match &envelope.command_id {
        CommandId::Integer(number) => id(py, *number)?,
        CommandId::Text(text) => PyString::new(py, text).into_any(),
    };
    let trace = match envelope.trace {
        Some(index) => value(py, document.value(index))?,
        None => PyNone::get(py).to_owned().into_any(),
    };
    let fields = (
        id(py, envelope.execution_id)?,
        id(py, envelope.event_id)?,
        command_id,
        PyString::new(py, &envelope.step),
        PyString::new(py, &envelope.server_url),
        envelope.pool.as_deref(),
        trace,
    )
        .into_pyobject(py)?;
    named_tuple(py, ENVELOPE.get(py, "Envelope")?, &fields)
}

fn id(py: Python<'_>, number: i128) -> PyResult<Bound<'_, PyAny>> {
    Ok(match i64::try_from(number) {
        Ok(number) => number.into_pyobject(py)?.into_any(),
        Err(_) => u64::try_from(number).unwrap_or(u64::MAX).into_pyobject(py)?.into_any(),
    })
}

/// Make the Python object of a JSON value.
pub fn value<'py>(py: Python<'py>, value: Value<'_>) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value.kind() {
        Kind::Null => PyNone::get(py).to_owned().into_any(),
        Kind::True => PyBool::new(py, true).to_owned().into_any(),
        Kind::False => PyBool::new(py, false).to_owned().into_any(),
        Kind::Integer => integer(py, value.integer_text())?,
        Kind::Float => value.as_double().into_pyobject(py)?.into_any(),
        Kind::Text | Kind::EscapedText => PyString::new(py, &value.as_text().unwrap_or_default()).into_any(),
        Kind::Array => {
            let list = PyList::empty(py);
            for element in value.elements() {
                list.append(self::value(py, element)?)?;
            }
            list.into_any()
        }
        Kind::Object => {
            let dict = PyDict::new(py);
            for (key, child) in value.members() {
                dict.set_item(key.as_text(), self::value(py, child)?)?;
            }
            dict.into_any()
        }
    })
}

fn integer<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    match text.parse::<i64>() {
        Ok(number) => Ok(number.into_pyobject(py)?.into_any()),
        Err(_) => py.get_type::<pyo3::types::PyInt>().call1((text,)),
    }
}

/// Make the Python exception of an engine's error. All such errors pass through here.
pub fn error(py: Python<'_>, error: EngineError) -> PyErr {
    let class = match error.family {
        Family::Document => "DocumentError",
        Family::Notification => "NotificationError",
        Family::Case => "CaseError",
        Family::Condition => "ConditionError",
    };
    let keywords = PyDict::new(py);
    let placed = error.place.map_or(Ok(()), |(case, condition)| {
        keywords.set_item("case", case)?;
        keywords.set_item("condition", condition)
    });
    raise(placed.and_then(|()| errors(py, class)?.call((error.code, error.message), Some(&keywords))))
}

/// Make an `EnginePanic`.
pub fn panic(py: Python<'_>, text: &str) -> PyErr {
    let message = format!("the Rust engine panicked: {text}. The process goes on; please report this text");
    raise(errors(py, "EnginePanic").and_then(|class| class.call1((message,))))
}

/// Return a class of errors.py. It is looked up each time, because errors are rare.
fn errors<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("noetl_worker.errors")?.getattr(name)
}

fn raise(exception: PyResult<Bound<'_, PyAny>>) -> PyErr {
    exception.map_or_else(|error| error, PyErr::from_value)
}

/// Make the action of a matched case (models/case.py).
pub fn action<'py>(py: Python<'py>, table: &engine::CaseTable, case: usize) -> PyResult<Bound<'py, PyAny>> {
    let models = py.import("noetl_worker.models")?;
    let node = |index: usize| value(py, table.value(index));
    match table.action(case) {
        engine::Action::Continue => models.getattr("Continue")?.call0(),
        engine::Action::Exit { status, data } => models.getattr("Exit")?.call1((status, data.map(node).transpose()?)),
        engine::Action::SetVar { name, value } => models.getattr("SetVar")?.call1((name, node(*value)?)),
        engine::Action::Goto { step } => models.getattr("Goto")?.call1((step,)),
        engine::Action::Retry { delay_ms } => models.getattr("Retry")?.call1((*delay_ms,)),
        engine::Action::Fail { message } => models.getattr("Fail")?.call1((message,)),
    }
}
