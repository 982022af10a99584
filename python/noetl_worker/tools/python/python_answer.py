"""What is written to the process of a command and read from it: one frame there, one answer back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from noetl_worker import json_text
from noetl_worker.errors import DocumentError
from noetl_worker.models import JsonValue
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_exchange import LENGTH

__all__ = ["MAX_ANSWER_BYTES", "AnswerTooLong", "complete", "frame_of", "parsed"]

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class AnswerTooLong(Exception):
    """More than MAX_ANSWER_BYTES."""


def frame_of(request: Mapping[str, JsonValue]) -> bytes:
    body = json_text.dumps(request)
    return LENGTH.pack(len(body)) + body


def complete(capture: process.Capture) -> bytes | None:
    """The answer's bytes; None for a process that ended without one. Raises AnswerTooLong."""
    if capture.left_out:
        raise AnswerTooLong(f"over {MAX_ANSWER_BYTES >> 20} MiB")
    return capture.data() or None


def parsed(answer: bytes | None) -> Mapping[str, JsonValue] | None:
    if not answer:
        return None
    try:
        value = json_text.loads(answer)
    except DocumentError:  # killed while it wrote
        return None
    return value if isinstance(value, dict) else None
