"""Reading a row of the outbox, whichever version of the worker wrote it."""

from __future__ import annotations

from noetl_worker import json_text
from noetl_worker.errors import DocumentError
from noetl_worker.outbox import rows_v1 as outbox_rows_v1
from noetl_worker.outbox.event_set import VERSION, EventSet

__all__ = ["read_row"]


def read_row(row: bytes, data: bytes | None = None) -> EventSet:
    """The set of a row.

    Raises:
        DocumentError: these bytes are no row of ours, or one of a later version.
    """
    try:
        document = json_text.loads(row)
        version = document.get("version", 1)
        if version == VERSION:
            return EventSet.unpacked(document, data)
        if version == 1:
            return outbox_rows_v1.read(document, data)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DocumentError("outbox_row", f"not a row of an outbox: {type(error).__name__}: {error}") from error
    raise DocumentError("outbox_row", f"a row of version {version!r}; this worker reads those up to {VERSION}")
