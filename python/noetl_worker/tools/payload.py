"""Conversion of a playbook's values to the bytes of a message, an object or a file, and back."""

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
"""Maximum bytes of messages or stored values that one tool call may load into the worker's memory."""


def as_bytes(kind: str, value: JsonValue, encoding: str) -> bytes:
    """Return `value` as bytes: text in UTF-8 (or decoded from base64), null as no bytes, anything else as JSON.

    Raises:
        ConfigurationError: the text is not base64; the error names the tool `kind`.
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


def text_or_json(value: JsonValue) -> str:
    """Return text as it is, anything else as JSON."""
    return value if isinstance(value, str) else dumps(value).decode()


def as_value(data: bytes | None) -> JsonValue:
    """Return parsed JSON, other text unchanged, other bytes as {"base64": ..., "size": ...}."""
    content = data or b""
    try:
        return loads_exact(content)
    except DocumentError:  # the content is not JSON but text or bytes
        pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode(), "size": len(content)}


async def parse_payloads(payloads: Sequence[bytes | None], owner: object) -> list[JsonValue]:
    """Convert each payload with `as_value` and return the values. Large payloads are parsed outside the event loop, and
    the memory of their values is reserved for `owner`.

    Raises:
        ToolError: kind `resource`, if the worker has too little memory for the values.
    """
    size = sum(len(payload or b"") for payload in payloads)
    if size > LARGE:
        await room.take(await off_loop(size, lambda: sum(map(_weight, payloads))), owner)
    return await off_loop(size, lambda: list(map(as_value, payloads)))


def _weight(payload: bytes | None) -> int:
    """Return the approximate bytes of memory that the parsed payload needs. For a payload that is not JSON, return the
    payload's size."""
    content = payload or b""
    try:
        return memory_of(content) if content.lstrip()[:1] in (b"[", b"{") else len(content)
    except DocumentError:  # too large to parse as JSON, so the value is its text
        return len(content)


def as_text(what: str, data: bytes, encoding: str) -> str:
    """Return `data` as base64, or as text for any other encoding. Raises ToolError (parse) if the text is not UTF-8."""
    if encoding == "base64":
        return base64.b64encode(data).decode()
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{what} is not UTF-8 text: ask for it with encoding: base64", kind="parse") from error


def as_headers(headers: Mapping[str, JsonValue]) -> dict[str, str] | None:
    """Return the headers with their values as text and without nulls. Raises ConfigurationError for a line break, or
    for a colon in a name."""
    given: dict[str, str] = {}
    for name, value in headers.items():
        if value is None:
            continue
        text = text_or_json(value)
        if any(mark in f"{name}{text}" for mark in "\r\n") or not name.strip() or ":" in name:
            problem = f"header {name!r} must have a name without a colon, and no line break in name or value"
            raise ConfigurationError(problem, field="headers", tool="nats")
        given[name] = text
    return given or None
