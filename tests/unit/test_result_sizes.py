"""A result of any size up to 16 MiB is reported: what a batch has no room for is stored, and can be had from there."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from noetl_worker.engine.chosen import ENGINE
from noetl_worker.errors import ControlPlaneError
from noetl_worker.models import Dialect
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.remote.plane.client import Plane
from noetl_worker.remote.plane.python.store import has_long_word
from noetl_worker.remote.transport.transport import MAX_BODY_BYTES
from unit.planes import URL, Ours, answer, command, emitter, plane
from unit.reports import STORED, accept, report_of

MIB = 1024 * 1024
BATCH_BYTES = 2 * MIB
WORD, LINE = "a word ", "a word " * 600
SIZES = [1.5, 16] if ENGINE == "rust" else [1.5]
"""In MiB. The pure engine takes 0.3 s for each."""


def printed(text: str) -> dict[str, Any]:
    """As kind shell gives it on the Python plane: its output twice."""
    entry = {"cmd_preview": "run", "returncode": 0, "stdout": text, "stderr": ""}
    return {"returncode": 0, "stdout": text, "stderr": "", "commands": [entry]}


SHAPES = {
    "text": lambda size: {"text": WORD * (size // len(WORD))},
    "text without a space": lambda size: {"text": "x" * size, "count": 1},
    "rows": lambda size: {"rows": [{"id": 7, "line": LINE}] * (size // len(LINE)), "row_count": 3},
    "output": lambda size: printed(WORD * (size // len(WORD))),
    "output without a space": lambda size: printed("x" * size),
}


class Limited:
    """A plane with a limit of its own, and a result store."""

    def __init__(self, dialect: Dialect, batch_bytes: int = BATCH_BYTES, put: Any = None) -> None:
        self.batch_bytes, self.refused, self.stored = batch_bytes, 0, b""
        self._put = put or answer(200, STORED)
        self.plane, self.transport = plane(self.answer, dialect)

    def answer(self, method: str, path: str, body: Any) -> Any:
        if method == "PUT":
            self.stored = json.dumps(body["data"], separators=(",", ":")).encode()
            return self._put
        if path == "/api/events/batch":
            return self._batch(body)
        return answer(200, self.stored) if "ref=noetl" in path else accept(method, path, body)

    def _batch(self, body: Any) -> Any:
        if len(json.dumps([event["payload"] for event in body["events"]], separators=(",", ":"))) <= self.batch_bytes:
            return answer(202, {"event_ids": [5]})
        self.refused += 1  # recorded: refused-batch-payload-2mib-above
        text = f"Value error, Batch payload exceeds configured limit ({self.batch_bytes} bytes)"
        return answer(422, {"detail": [{"type": "value_error", "loc": ["body"], "msg": text, "ctx": {"error": {}}}]})


async def reported(at: Limited, data: Any, *, is_list: bool = False) -> dict[str, Any]:
    """The payload of the last `call.done`, or `call.error`, that the plane was sent."""
    named = {"kind": "task_sequence", "step": "start:task_sequence"} if is_list else {}
    one = command(at.plane.dialect, **named)
    report = await report_of(data, at.plane.dialect, **named)
    told = CommandEvents(one, at.plane, "w-1", emitter(), hold_s=5.0)
    told.start()
    await told.finish(report, Ours())
    batch = at.transport.bodies("/api/events/batch")[-1]
    called: dict[str, Any] = next(item for item in batch["events"] if item["name"] in ("call.done", "call.error"))
    assert called["name"] == "call.done", called["payload"].get("error")
    return called["payload"]


async def whole(at: Limited, payload: dict[str, Any]) -> Any:
    """The result as a later step can have it: from the event, or from the store."""
    if "reference" in payload["result"]:
        found, _ = await at.plane.stored_result(payload["result"]["reference"]["ref"])
        return found["data"] if at.plane.dialect is Dialect.RUST else found
    return payload["response"]


@pytest.mark.heavy_on_loop(reason="the plane of this test is on it, and reads 32 MiB")
@pytest.mark.parametrize(
    ("size", "shape"),
    [(size, shape) for size in SIZES for shape in SHAPES if size < 16 or shape in ("rows", "output without a space")],
)
async def test_result_of_any_size_is_reported_and_can_be_had(dialect: Dialect, size: float, shape: str) -> None:
    at, data = Limited(dialect), SHAPES[shape](int(size * MIB))
    payload = await reported(at, data)
    assert await whole(at, payload) == data
    assert at.refused == 0, "the plane's own limit is known"
    assert dialect is Dialect.RUST or not has_long_word(at.stored), "its store would look through it for minutes"


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.5, 5])
async def test_large_list_of_tasks_says_what_fits_and_where_the_rest_is(size: float, shape: str) -> None:
    at, large = Limited(Dialect.PYTHON), SHAPES[shape](int(size * MIB))
    tasks = {"first": {"rows": [1, 2, 3]}, "gen": large, "last": {"n": 5}}
    data = {"status": "ok", "_prev": {"n": 5}, "results": tasks, "ctx": {"name": "Ada"}}
    payload = await reported(at, data, is_list=True)
    response = payload["response"]
    if response != data:
        reference = {"_truncated": True, "reference": payload["result"]["reference"]}
        small = {"first": tasks["first"], "last": tasks["last"]}
        assert response == {**data, "results": small, **reference}, "no preview, which would be taken for the result"
        assert await whole(at, payload) == data
    assert at.refused == 0


async def test_limit_that_a_plane_says_is_kept_to_from_then_on() -> None:
    """For this plane alone. Also for what has room in an event of another one."""
    at, data = Limited(Dialect.PYTHON, batch_bytes=50_000), {"rows": [WORD] * 9_000}
    assert await whole(at, await reported(at, data)) == data
    assert at.refused == 1
    for _ in range(3):
        assert await whole(at, await reported(at, data)) == data
    assert at.refused == 1
    elsewhere = Plane(at.plane.client, f"{URL}:81", Dialect.PYTHON)
    assert (at.plane.server.batch_bytes, elsewhere.server.batch_bytes) == (50_000, None)


async def test_result_that_neither_the_store_nor_a_batch_takes_fails_its_command() -> None:
    at = Limited(Dialect.PYTHON, put=answer(404, {"detail": "Not Found"}))
    with pytest.raises(AssertionError, match=r"the result store of the control plane does not take it: .*404"):
        await reported(at, SHAPES["text"](5 * MIB))
    assert at.refused == 0


async def test_stored_result_that_lost_its_end_is_an_error() -> None:
    at = Limited(Dialect.PYTHON)
    payload = await reported(at, SHAPES["text without a space"](5 * MIB))
    at.stored = at.stored[: len(at.stored) // 2] + b'"}'
    with pytest.raises(ControlPlaneError, match="a packed result in the store is"):
        await whole(at, payload)


@pytest.fixture
def too_large() -> str:
    """64 MiB and more, in 85 kB. Not on the loop, and not where the file is only collected."""
    return base64.b64encode(zlib.compress(b'"' + b"0" * (MAX_BODY_BYTES + 1) + b'"')).decode()


async def test_stored_result_that_unpacks_to_more_than_an_answer_may_have_is_an_error(too_large: str) -> None:
    at = Limited(Dialect.PYTHON)
    at.stored = json.dumps({"_zlib_base64": too_large}, separators=(",", ":")).encode()
    with pytest.raises(ControlPlaneError, match="has more than 67108864 bytes"):
        await at.plane.stored_result(STORED["ref"])
