"""Search of a JSON text for signs of templates, references and secrets.

If a command's JSON has no such signs, the worker skips rendering templates and resolving references.
"""

from __future__ import annotations

from typing import Final

from noetl_worker.engine import chosen as engine
from noetl_worker.engine.protocol import REFERENCES, SECRETS, TEMPLATES
from noetl_worker.models.marks import Marks

_BY_SUM: Final = tuple(
    Marks(bool(found & TEMPLATES), bool(found & REFERENCES), bool(found & SECRETS)) for found in range(8)
)
"""All values of `Marks` (whether a JSON text may contain templates, references, secrets). The index is the bit mask
that the engine's search returns."""


def read_marks(text: bytes) -> Marks:
    """Return whether a JSON text may contain templates, references or secrets. The engine searches keys and values, and
    also JSON inside strings."""
    return _BY_SUM[engine.find_marks(text)]
