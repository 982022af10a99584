"""The decoder of command notifications (protocol/notification.md#message).

Rust counterpart: rust/engine/src/envelope.rs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NoReturn

from noetl_worker.engine.pure.document import encode, parse
from noetl_worker.errors import DocumentError, NotificationError
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import CommandId, JsonValue

_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**64 - 1
_DIGITS: Final = re.compile(r"[0-9]+")
_EXCERPT_CHARS: Final = 60


def decode_notification(data: bytes) -> Envelope:
    """Decode the notification of a command. Unknown fields are ignored; an error names the first wrong field.

    Ids may be integers or strings of digits, and must fit into 64 bits, signed or unsigned. `command_id` may be any
    string, and keeps its type. A missing, null or empty `server_url` becomes "".

    Raises:
        NotificationError: see `protocol.Engine.decode_notification`.
    """
    try:
        body = parse(data)
    except DocumentError as error:
        raise NotificationError(error.code, f"notification is not a JSON document: {error}") from None
    if not isinstance(body, dict):
        raise NotificationError("not_an_object", f"notification: expected an object, found {_found(body)}")
    return Envelope(
        execution_id=_id(body, "execution_id"),
        event_id=_id(body, "event_id"),
        command_id=_command_id(body),
        step=_step(body),
        server_url=_optional(body, "server_url", str, "a text or null") or "",
        pool=_optional(body, "execution_pool", str, "a text or null") or None,
        trace=_optional(body, "trace", dict, "an object or null"),
    )


def _id(body: Mapping[str, JsonValue], name: str) -> int:
    value = _required(body, name)
    if type(value) is int:
        return _within_64_bits(name, value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        digits = value.lstrip("0") or "0"
        # The length is compared first, because converting a text of a million digits is slow.
        if len(digits) > 20:
            _fail("out_of_range", name, "an integer of 64 bits", value)
        return _within_64_bits(name, int(digits), value)
    return _fail("wrong_type", name, "an integer or a text of digits", value)


def _within_64_bits(name: str, value: int, written: JsonValue = None) -> int:
    if not _LOWEST <= value <= _HIGHEST:
        _fail("out_of_range", name, "an integer of 64 bits", value if written is None else written)
    return value


def _command_id(body: Mapping[str, JsonValue]) -> CommandId:
    value = _required(body, "command_id")
    if type(value) is int:
        return _within_64_bits("command_id", value)
    if isinstance(value, str):
        return value
    return _fail("wrong_type", "command_id", "an integer or a text", value)


def _step(body: Mapping[str, JsonValue]) -> str:
    value = _required(body, "step")
    if not isinstance(value, str):
        _fail("wrong_type", "step", "a text", value)
    if not value:
        _fail("empty_field", "step", "a text that is not empty", value)
    return value


def _optional(body: Mapping[str, JsonValue], name: str, kind: type, expected: str) -> JsonValue:
    value = body.get(name)
    if value is not None and not isinstance(value, kind):
        _fail("wrong_type", name, expected, value)
    return value


def _required(body: Mapping[str, JsonValue], name: str) -> JsonValue:
    if name not in body:
        raise NotificationError("missing_field", f'notification field "{name}" is missing')
    return body[name]


def _fail(code: str, name: str, expected: str, value: JsonValue) -> NoReturn:
    raise NotificationError(code, f'notification field "{name}": expected {expected}, found {_found(value)}')


def _found(value: JsonValue) -> str:
    """Describe an invalid value for an error text: size of an object or array, else the value's JSON, shortened."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys"
    if isinstance(value, list):
        return f"an array of {len(value)} elements"
    text = encode(value).decode("utf-8")
    return text if len(text) <= _EXCERPT_CHARS else text[:_EXCERPT_CHARS] + "…"
