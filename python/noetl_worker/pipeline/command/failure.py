"""Conversion of an exception into a failed result, so that every error after the claim is reported to the plane."""

from __future__ import annotations

from typing import Final

from noetl_worker.errors import ToolError, describe
from noetl_worker.models.tool_result import ToolResult

_REPEATED_CHARS: Final = 4
"""Smallest number of characters at which an exception's text counts as repeated if an earlier exception's text contains
it. Repeated texts are left out of a failure's message. A shorter text, such as `1`, may be in another by chance."""


def make_failure(error: BaseException) -> ToolResult:
    """Return the failed tool result that stands for an exception. Its message has the exception's text and the chain of
    causes."""
    chain: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        text = str(current)
        is_repeated = len(text) >= _REPEATED_CHARS and any(text in earlier for earlier in chain)
        if not is_repeated:  # avoids "X; caused by ValueError: X"
            chain.append(text if isinstance(current, ToolError) and text else describe(current))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    message = "; caused by ".join(dict.fromkeys(chain))
    if isinstance(error, ToolError):
        return ToolResult.failure(message, kind=error.kind, retryable=error.retryable, code=error.code)
    return ToolResult.failure(message, kind="unknown", code=type(error).__name__)
