"""A stored result whose time is over: what the Python plane answers, and what the worker makes of it.

The first question about an entry that has expired is answered with a 404 that says so; that server forgets the entry
with it, and looks into the store itself at the next question.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest

from noetl_worker.errors import ServerRefused, ToolError
from noetl_worker.models import Command, Dialect
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.remote.plane.client import Plane
from unit.planes import ENVELOPE, ScriptedTransport, answer, plane

REF = "noetl://execution/7/result/start/403da428"
STORED_AT = "2026-11-26T15:49:59.869956Z"
FIELD = {"kind": "result_ref", "ref": REF, "store": "kv", "meta": {"bytes": 9, "created_at": STORED_AT}}
EARLIER = {
    "status": "COMPLETED",
    "context": {"count": 2},
    "reference": {"kind": "result_ref", "ref": REF, "store": "kv", "expires_at": "2026-11-26T17:49:59+00:00"},
}
EXPIRED = answer(404, {"detail": f"'TempRef expired: {REF}'"})
MISSING = answer(404, {"detail": f"'TempRef not found: {REF}'"})


def claimed(context: dict[str, Any]) -> dict[str, Any]:
    return {"node_name": "last", "action": "python", "context": context, "meta": {}}


def reading(earlier: dict[str, Any]) -> dict[str, Any]:
    config = [{"look": {"kind": "python", "code": "x", "input": {"n": "{{ start.rows | length }}"}}}]
    return claimed({"tool_config": config, "render_context": {"start": earlier}})


def asked(*answers: Any, dialect: Dialect = Dialect.PYTHON) -> tuple[Plane, ScriptedTransport]:
    """A plane whose store gives these answers for the reference, in this order."""
    left = list(answers)

    return plane(lambda *_: left.pop(0), dialect)


def times(transport: ScriptedTransport) -> int:
    return sum(REF in unquote(path) for _, path, *_ in transport.sent)


@pytest.mark.parametrize(
    ("body", "stored", "read"),
    [
        (claimed({"render_context": FIELD}), {"start": {"n": 1}}, lambda command: command.variables["start"]),
        (claimed(FIELD), {"tool_config": {"n": 1}}, lambda command: command.config),
        (reading(EARLIER), {"rows": {"n": 1}}, lambda command: command.variables["start"]["rows"]),
    ],
    ids=["a field of a command", "its whole context", "the result of an earlier step"],
)
async def test_what_has_expired_is_asked_for_once_more(
    body: dict[str, Any], stored: Any, read: Callable[[Command], Any]
) -> None:
    at, transport = asked(EXPIRED, answer(200, stored))
    assert read(await hydrate(body, ENVELOPE, at)) == {"n": 1}
    assert times(transport) == 2


@pytest.mark.parametrize(("answers", "most"), [((EXPIRED, MISSING), 2), ((EXPIRED, EXPIRED), 2), ((MISSING,), 1)])
async def test_field_that_is_gone_fails_the_command_with_what_to_do(answers: Any, most: int) -> None:
    at, transport = asked(*answers)
    with pytest.raises(ServerRefused) as caught:
        await hydrate(claimed({"tool_config": {"code": "x"}, "render_context": FIELD}), ENVELOPE, at)
    text = f"resolving {REF} (stored {STORED_AT}; no longer in the result store: start the execution again): 404"
    assert str(caught.value).startswith(text)
    assert times(transport) == most


async def test_earlier_result_that_is_gone_fails_the_command_with_its_step_and_its_time() -> None:
    at, transport = asked(EXPIRED, MISSING)
    with pytest.raises(ToolError) as caught:
        await hydrate(reading(EARLIER), ENVELOPE, at)
    text = f"{REF} (to be kept until 2026-11-26T17:49:59+00:00; no longer in the result store: start"
    assert text in str(caught.value)
    assert "the result of step 'start' cannot be fetched" in str(caught.value)
    assert not caught.value.retryable
    assert times(transport) == 2


async def test_reference_that_does_not_say_when_it_was_stored_is_named_without_it() -> None:
    at, _ = asked(MISSING)
    with pytest.raises(ServerRefused, match=rf"^resolving {REF} \(no longer in the result store: start"):
        await at.stored_result(REF)


@pytest.mark.parametrize(("dialect", "ttl"), [(Dialect.PYTHON, "2h"), (Dialect.RUST, None)])
async def test_result_is_stored_for_as_long_as_the_store_keeps_it(dialect: Dialect, ttl: str | None) -> None:
    """The Python plane deletes it after an hour otherwise, with the first question after that."""
    at, transport = plane(lambda *_: answer(200, {"ref": REF}), dialect)
    await at.store_result(7, "start", b"[1]", source_step="start")
    [(_, _, body, _)] = transport.sent
    assert (body.get("ttl"), body["scope"], body["source_step"]) == (ttl, "execution", "start")
