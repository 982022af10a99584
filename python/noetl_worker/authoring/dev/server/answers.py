"""The error forms of the two planes, and the value that every route returns."""

from __future__ import annotations

from typing import Final, NamedTuple

from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps

JSON: Final = "application/json"
TEXT: Final = "text/plain; charset=utf-8"


class HttpAnswer(NamedTuple):
    """An HTTP answer, ready to send."""

    status: int
    body: bytes
    media: str = JSON
    retry_after_s: int | None = None


class Refused(Exception):
    """A refusal that becomes the request's answer."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer)
        self.answer: Final = answer


def answer(value: JsonValue, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, dumps(value))


def detail(status: int, value: JsonValue, *, retry_after_s: int | None = None) -> HttpAnswer:
    """Return an error of the Python plane: {"detail": text, object or list}."""
    return HttpAnswer(status, dumps({"detail": value}), JSON, retry_after_s)


def invalid(kind: str, loc: list[str | int], message: str, given: JsonValue, context: JsonValue = None) -> Refused:
    """Return a 422 of the Python plane in its validator's form: one entry in a list."""
    entry: dict[str, JsonValue] = {"type": kind, "loc": loc, "msg": message, "input": given}
    if context is not None:
        entry["ctx"] = context
    return Refused(detail(422, [entry]))


def missing(name: str, body: JsonValue, *, where: str = "body") -> Refused:
    """Return the 422 for a missing required field. An absent body is reported without the field's name."""
    loc: list[str | int] = [where] if where == "body" and body is None else [where, name]
    return invalid("missing", loc, "Field required", body)


def required(name: str, body: JsonValue) -> dict[str, JsonValue]:
    """Return the body if it has this field. Raises Refused otherwise."""
    if not isinstance(body, dict) or name not in body:
        raise missing(name, body)
    return body


def rust_error(status: int, message: str) -> HttpAnswer:
    """Return an error of the Rust plane: {"error", "status"}."""
    return HttpAnswer(status, dumps({"error": message, "status": status}))


def rust_refused_body(reason: str, body: bytes) -> Refused:
    """Return a text 422 as the Rust plane's JSON extractor gives it."""
    message = f"Failed to deserialize the JSON body into the target type: {reason} at line 1 column {len(body)}"
    return Refused(HttpAnswer(422, message.encode(), TEXT))
