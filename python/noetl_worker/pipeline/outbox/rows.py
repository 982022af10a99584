"""Decoding of an outbox row."""

from __future__ import annotations

from noetl_worker.errors import DocumentError
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.text import json_text


def read_row(row: bytes, data: bytes | None = None) -> EventSet:
    """Return the set of a row.

    Raises:
        DocumentError: these bytes are not a row of an outbox.
    """
    try:
        return EventSet.unpacked(json_text.loads(row), data)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error
