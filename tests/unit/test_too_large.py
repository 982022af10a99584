"""A result that no later command could be given fails its own step; one that is there already fails who reads it."""

from __future__ import annotations

import pytest

import virtual_time
from noetl_worker.errors import AnswerTooLarge, ToolError
from noetl_worker.models import Dialect, FitRules, ToolResult
from noetl_worker.models.claim import ClaimRefused
from noetl_worker.models.notification import Envelope
from noetl_worker.pipeline.claim.claim import claim_command
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.remote.plane.dialects import RULES
from noetl_worker.text.json_text import dumps
from unit.planes import URL, plane
from unit.reports import parsed, report_of

anyio_backend = virtual_time.anyio_backend

ADVICE = "let the step return less, or put it into a file, an object store or an artifact and return its address"
LARGE = AnswerTooLarge("GET /api/result/resolve: the server's answer is larger than 67108864 bytes")
DATA = {"text": "a word " * 20_000}


async def test_result_over_the_setting_fails_its_step_with_size_and_advice(dialect: Dialect) -> None:
    report = await report_of(DATA, dialect, rules=FitRules(most_bytes=140_000))
    size = len(dumps(RULES[dialect].result_body(ToolResult.success(DATA))))
    text = f"the result of step 'start' has {size} bytes, more than the 140000 bytes that a later command can be given"
    assert report.error == f"{text}: {ADVICE}"
    assert (report.error_kind, report.upload, report.status) == ("resource", None, "error")
    assert (await report_of(DATA, dialect, rules=FitRules(most_bytes=size))).error is None


async def test_result_that_is_too_large_as_it_is_stored_fails_its_step(
    dialect: Dialect, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = (await report_of(DATA, dialect)).upload
    assert stored is not None
    monkeypatch.setattr(type(RULES[dialect]), "max_stored_bytes", len(stored.data) - 1)
    report = await report_of(DATA, dialect)
    assert report.error is not None
    assert f" ({len(stored.data)} bytes stored), more than the {len(stored.data) - 1} bytes" in report.error
    assert (report.error_kind, report.upload) == ("resource", None)


async def test_failure_whose_data_are_too_large_keeps_its_text(dialect: Dialect) -> None:
    failed = ToolResult.failure("no such table", kind="sql", data=DATA)
    report = await report_of(failed, dialect, rules=FitRules(most_bytes=100_000))
    assert (report.upload, "no such table" in str(parsed(report.context))) == (None, True)
    [warning] = report.notes["warnings"]
    assert warning.endswith(ADVICE)


async def test_names_that_are_larger_than_an_answer_fail_the_command_at_once(dialect: Dialect) -> None:
    at, transport = plane(lambda *_: LARGE, dialect)
    reference = {"kind": "result_ref", "ref": "noetl://execution/7/result/look/1"}
    body = {"execution_id": 7, "node_name": "look", "action": "noop", "context": {"render_context": reference}}
    with pytest.raises(
        ToolError, match=r"render_context of step 'look'.*larger than 67108864 bytes: let the"
    ) as raised:
        await hydrate(body, Envelope(7, 8, "7:look:8", "look", URL, None, None), at)
    assert raised.value.kind == "resource"
    assert len(transport.sent) == 1


async def test_claim_whose_answer_is_too_large_is_set_aside_at_once(dialect: Dialect) -> None:
    at, transport = plane(lambda *_: LARGE, dialect)
    found = await claim_command(at, 7, "w-1")
    assert isinstance(found, ClaimRefused)
    assert found.reason.endswith(ADVICE)
    assert len(transport.sent) == 1
    assert at.client.servers.capacity_fraction() == 1.0, "the plane is not down"
