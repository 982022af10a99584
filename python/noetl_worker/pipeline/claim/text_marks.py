"""Marks of a JSON text: whether a claim or a tool's config may contain templates, references or secrets."""

from __future__ import annotations

from typing import Final

from noetl_worker.engine import chosen as engine
from noetl_worker.engine.protocol import REFERENCES, SECRETS, TEMPLATES
from noetl_worker.models.marks import Marks

_BY_SUM: Final = tuple(
    Marks(bool(found & TEMPLATES), bool(found & REFERENCES), bool(found & SECRETS)) for found in range(8)
)
"""Marks for each sum of bits that the engine returns."""


def read_marks(text: bytes) -> Marks:
    """Return the marks of a JSON text. Its keys, its values and JSON inside its texts are searched alike."""
    return _BY_SUM[engine.find_marks(text)]
