"""Short texts about values, for a playbook's author: one line, a limited length, and no terminal control characters."""

from __future__ import annotations

from typing import Final

from noetl_worker.models.wire import JsonValue
from noetl_worker.observability.terminal import harmless
from noetl_worker.text.json_text import dumps

EXCERPT: Final = 96


def excerpt(value: JsonValue, limit: int = EXCERPT) -> str:
    """Return a value as one line of JSON, cut to `limit` characters; "" for None and {}."""
    if value is None or value == {}:
        return ""
    return shorten(dumps(value).decode(errors="replace"), limit)


def summary(value: JsonValue, limit: int = EXCERPT) -> str:
    """Summarise a step's result in one line of at most `limit` characters.

    For a program the line is its output, for an HTTP request the answer, for a query the rows. Any other result is
    shown as JSON.
    """
    if not isinstance(value, dict):
        return excerpt(value, limit)
    if ("exit_code" in value or "returncode" in value) and isinstance(printed := value.get("stdout"), str):
        return shorten(one_line(printed.strip() or str(value.get("stderr") or "").strip()), limit)
    if "status_code" in value:
        answer = excerpt(value["data"], limit) if value.get("data") else ""
        return shorten(f"{value['status_code']} {answer}".rstrip(), limit)
    if "row_count" in value and "rows" in value:
        count = value["row_count"] if value.get("columns") else value.get("affected_rows")
        return shorten(f"{count} rows {excerpt(value['rows'], limit) if value['rows'] else ''}".rstrip(), limit)
    if "_prev" in value and "results" in value:
        return summary(value["_prev"], limit)
    return excerpt(value, limit)


def one_line(text: str) -> str:
    """Escape line ends and control characters as JSON does, so that a tool's output cannot control the terminal."""
    return dumps(text).decode(errors="replace")[1:-1].replace('\\"', '"')


def shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def printable(line: str) -> str:
    return harmless(line).replace("\n", r"\x0a")
