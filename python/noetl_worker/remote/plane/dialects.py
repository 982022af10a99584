"""Rules for the differences between the Python and the Rust control plane (their dialects).

`RULES[Dialect.PYTHON]` are the rules of the Python plane.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from noetl_worker.models.wire import Dialect
from noetl_worker.remote.plane.python.rules import PythonRules
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.remote.plane.rust.rules import RustRules

_BOTH: Final[tuple[DialectRules, ...]] = (PythonRules(), RustRules())
RULES: Final[Mapping[Dialect, DialectRules]] = {rules.dialect: rules for rules in _BOTH}
