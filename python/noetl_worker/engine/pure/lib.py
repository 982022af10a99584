"""The functions of the Python engine: the specification for the Rust engine, and its substitute where it is missing."""

from __future__ import annotations

from noetl_worker.engine.pure.case import CaseTable, NeedsTemplate, compile_cases
from noetl_worker.engine.pure.condition import decide, evaluate
from noetl_worker.engine.pure.envelope import decode_notification
from noetl_worker.engine.pure.fit import fit_result
from noetl_worker.engine.pure.marks import find_marks
from noetl_worker.engine.pure.redact import redact_text

__all__ = [
    "CaseTable",
    "NeedsTemplate",
    "compile_cases",
    "decide",
    "decode_notification",
    "evaluate",
    "find_marks",
    "fit_result",
    "redact_text",
]
