"""Hint for the error message about an earlier step's result that is gone from the result store."""

from __future__ import annotations

from collections.abc import Mapping

from noetl_worker.models.wire import JsonValue
from noetl_worker.remote.plane.rules import DialectRules
from noetl_worker.remote.transport.transport import Response


def missing_result_note(answer: Response, said: Mapping[str, JsonValue], rules: DialectRules) -> str:
    """Return a hint to append to the error message about a stored result that is gone. The hint tells when the result
    was stored or would expire (if the claim tells), and to start the execution again.

    Return "" if `answer` does not mean that the result is gone.
    """
    if answer.status != 404 or rules.is_no_route(answer):
        return ""
    meta, until = said.get("meta"), said.get("expires_at")
    stored = meta.get("created_at") if isinstance(meta, dict) else None
    when = f"stored {stored}; " if stored else f"to be kept until {until}; " if until else ""
    return f" ({when}no longer in the result store: start the execution again)"
