"""What a JSON text may have in it: of a whole claim, and of the config that a tool gets."""

from __future__ import annotations

from typing import Final

from noetl_worker import engine
from noetl_worker.engine.protocol import REFERENCES, SECRETS, TEMPLATES
from noetl_worker.models.marks import Marks

_BY_SUM: Final = tuple(
    Marks(bool(found & TEMPLATES), bool(found & REFERENCES), bool(found & SECRETS)) for found in range(8)
)
"""As the engine gives them."""


def marks_of(text: bytes) -> Marks:
    """The marks of a JSON text. Keys and texts count alike, also those of JSON inside of a text."""
    return _BY_SUM[engine.find_marks(text)]
