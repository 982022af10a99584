"""The functions of the Python engine, which decode notifications, evaluate cases and redact secrets.

They are the specification for the same functions in Rust, and replace them where the Rust engine is not installed.
"""

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
