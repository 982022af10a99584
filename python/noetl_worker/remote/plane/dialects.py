"""Rules of both dialects, by dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from noetl_worker.models.wire import Dialect
from noetl_worker.remote.plane.python.rules import PythonRules
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.remote.plane.rust.rules import RustRules

RULES: Final[Mapping[Dialect, DialectRules]] = {Dialect.PYTHON: PythonRules(), Dialect.RUST: RustRules()}
