"""The answers of routes, and the bodies that each plane sends for errors."""

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
    """Exception that ends the handling of a request. The plane then sends `answer`."""

    def __init__(self, answer: HttpAnswer) -> None:
        super().__init__(answer)
        self.answer: Final = answer


def answer(value: JsonValue, status: int = 200) -> HttpAnswer:
    return HttpAnswer(status, dumps(value))


def detail(status: int, value: JsonValue, *, retry_after_s: int | None = None) -> HttpAnswer:
    """Return an error as the Python plane sends it: {"detail": value}."""
    return HttpAnswer(status, dumps({"detail": value}), JSON, retry_after_s)


def invalid(kind: str, loc: list[str | int], message: str, given: JsonValue, context: JsonValue = None) -> Refused:
    """Return the refusal for a wrong value: a 422 with one entry, as the Python plane's validator writes it.

    Args:
        kind: the validator's name of the error.
        loc: path of the value in the request.
        given: the wrong value.
        context: further facts, sent as `ctx`.
    """
    entry: dict[str, JsonValue] = {"type": kind, "loc": loc, "msg": message, "input": given}
    if context is not None:
        entry["ctx"] = context
    return Refused(detail(422, [entry]))


def missing(name: str, body: JsonValue, *, where: str = "body") -> Refused:
    """Return the refusal for a missing field: the Python plane's 422. A missing body is reported without a field."""
    loc: list[str | int] = [where] if where == "body" and body is None else [where, name]
    return invalid("missing", loc, "Field required", body)


def required(name: str, body: JsonValue) -> dict[str, JsonValue]:
    """Return `body`. Raises Refused, with the Python plane's 422 as the answer, if the body lacks the field `name`."""
    if not isinstance(body, dict) or name not in body:
        raise missing(name, body)
    return body


def rust_error(status: int, message: str) -> HttpAnswer:
    """Return an error as the Rust plane sends it: {"error": message, "status": status}."""
    return HttpAnswer(status, dumps({"error": message, "status": status}))


def rust_refused_body(reason: str, body: bytes) -> Refused:
    """Return the refusal for a body that does not fit the route: the Rust plane's 422, with plain text as the body."""
    message = f"Failed to deserialize the JSON body into the target type: {reason} at line 1 column {len(body)}"
    return Refused(HttpAnswer(422, message.encode(), TEXT))
