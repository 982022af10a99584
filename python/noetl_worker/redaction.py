"""Redaction for every path out that is not an event body: exception texts, log lines, values of events.

Event bodies go through `engine.fit_result`, which applies the same rules in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from noetl_worker import engine
from noetl_worker.engine.pure.redact import MARK, Redactor
from noetl_worker.models import JsonValue

__all__ = ["MARK", "redact_text", "redact_value"]


def redact_text(text: str, secrets: Sequence[str] = ()) -> str:
    """Redact free text.

    Replaces known secrets of at least four characters, what has the shape of a credential (Bearer and Basic headers,
    JWT, PEM, `sk-`, `ghp_`, `AIza`, `ya29.`, `xox*-`, the password of a URL), and the value of `password=...`.
    """
    return engine.redact_text(text, tuple(secrets))


def redact_value(value: JsonValue, secrets: Sequence[str] = ()) -> JsonValue:
    """Return a redacted copy of a JSON value: by key words, known secrets and shapes, as `engine.fit_result` does.

    Tuples and other non-JSON objects pass through as they are; encode first if they may hold secrets.
    """
    return Redactor(secrets).value(value)
