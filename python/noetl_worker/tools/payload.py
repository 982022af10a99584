"""Values of a playbook as bytes in a message, an object or a file, and back."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Final

from noetl_worker.errors import ConfigurationError, DocumentError, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.process.room import room
from noetl_worker.process.threads import LARGE, off_loop
from noetl_worker.text.json_text import dumps, loads_exact, memory_of

MAX_RESULT_BYTES: Final = 16 * 1024 * 1024
"""What one call may bring into the worker's memory."""


def as_bytes(kind: str, value: JsonValue, encoding: str) -> bytes:
    """Text as UTF-8 (or decoded from base64), null as nothing, anything else as JSON.

    Raises:
        ConfigurationError: names the tool `kind`; text that is no base64.
    """
    if value is None:
        return b""
    if encoding == "base64":
        try:
            return base64.b64decode(value if isinstance(value, str) else "!", validate=True)
        except ValueError as error:
            problem = "with encoding base64 the data must be base64 text"
            raise ConfigurationError(problem, field="encoding", tool=kind) from error
    return value.encode() if isinstance(value, str) else dumps(value)


def as_value(data: bytes | None) -> JsonValue:
    """JSON parsed, other text as it is, other bytes as {"base64": ..., "size": ...}."""
    content = data or b""
    try:
        return loads_exact(content)
    except DocumentError:  # not JSON: text, or bytes
        pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode(), "size": len(content)}


async def values_of(payloads: Sequence[bytes | None], owner: object) -> list[JsonValue]:
    """Return `as_value` of each, off the loop and charged where they are large together.

    Raises:
        ToolError: kind `resource`, from `Room.take`.
    """
    size = sum(len(payload or b"") for payload in payloads)
    if size > LARGE:
        await room.take(await off_loop(size, lambda: sum(map(_weight, payloads))), owner)
    return await off_loop(size, lambda: list(map(as_value, payloads)))


def _weight(payload: bytes | None) -> int:
    """Return the memory of its value, about: of text that is no JSON its size."""
    content = payload or b""
    try:
        return memory_of(content) if content.lstrip()[:1] in (b"[", b"{") else len(content)
    except DocumentError:  # too large for JSON, so it is given as text
        return len(content)


def as_text(what: str, data: bytes, encoding: str) -> str:
    """Content in the encoding the playbook asked for. Raises ToolError (parse) for bytes that are not UTF-8."""
    if encoding == "base64":
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{what} is not UTF-8 text: ask for it with encoding: base64", kind="parse") from error


def as_headers(headers: Mapping[str, JsonValue]) -> dict[str, str] | None:
    """Header values as text, nulls left out. Raises ConfigurationError for one with a line break."""
    given: dict[str, str] = {}
    for name, value in headers.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else dumps(value).decode()
        if any(mark in f"{name}{text}" for mark in "\r\n") or not name.strip() or ":" in name:
            raise ConfigurationError(
                f"header {name!r} has a line break or a colon where none may be", field="headers", tool="nats"
            )
        given[name] = text
    return given or None
