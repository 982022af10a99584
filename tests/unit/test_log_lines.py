"""A line about a command has its ids, by the same names and as text."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

import logging_guard
import virtual_time
from noetl_worker.models import CaseDecision, Command, Dialect, Envelope, SetVar, ToolResult
from noetl_worker.observability.logging import configure_logging
from noetl_worker.pipeline.command.cancellation import wait_until_cancelled
from noetl_worker.pipeline.command.case_actions import act
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.credentials import CommandCredentials
from noetl_worker.pipeline.command.handover import ClaimOwnership
from noetl_worker.pipeline.command.referred_results import fill_referred_results
from noetl_worker.pipeline.delivery import acknowledge
from noetl_worker.pipeline.delivery.dead_letter import DeadLetters
from noetl_worker.pipeline.delivery.settle import settle_delivery
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.pipeline.report.events import CommandEvents
from noetl_worker.pipeline.stages import Progress
from noetl_worker.remote.plane.client import Plane
from noetl_worker.tools.contract import Stop
from noetl_worker.tools.scope import CallScope
from unit.planes import URL, Ours, answer, command, emitter, plane
from unit.reports import OK, tell

anyio_backend = virtual_time.anyio_backend
LARGE = 2**60 + 1
IDS = {"execution_id": LARGE, "command_id": LARGE + 1, "event_id": LARGE + 2, "step": "load"}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the log of a worker has."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with logging_guard.kept():
        configure_logging("debug", "json")
        yield stream


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def notification() -> Envelope:
    return Envelope(LARGE, LARGE + 2, LARGE + 1, "load", URL, None, None)


def test_ids_are_text_so_that_no_viewer_rounds_them(written: io.StringIO) -> None:
    structlog.get_logger("noetl_worker").info("line_written", **IDS, count=LARGE)
    [line] = lines(written)
    assert [line[name] for name in ("execution_id", "command_id", "event_id")] == [
        "1152921504606846977",
        "1152921504606846978",
        "1152921504606846979",
    ]
    assert line["count"] == LARGE, "no id"


def test_no_colours_are_written_into_a_file_and_none_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    for form, is_terminal, no_color, has_colours in (
        ("console", False, "", False),
        ("auto", False, "", False),
        ("auto", True, "", True),
        ("auto", True, "1", False),
    ):
        stream = Terminal() if is_terminal else io.StringIO()
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setenv("NO_COLOR", no_color)
        with logging_guard.kept():
            configure_logging("debug", form)
            structlog.get_logger("noetl_worker").warning("line_written")
        assert "line_written" in stream.getvalue()
        assert ("\x1b[" in stream.getvalue()) is has_colours, (form, is_terminal, no_color)


class Unwritable(io.StringIO):
    """A full disk when a line is written; where that is later, a reader that is gone."""

    def __init__(self, fails: str) -> None:
        super().__init__()
        self._fails = fails

    def write(self, text: str) -> int:
        if self._fails == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    def flush(self) -> None:
        if self._fails == "flush":
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")
        super().flush()


@pytest.fixture(params=["write", "flush", "closed"])
def unwritable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No line of a worker's log can be written."""
    stream = Unwritable(request.param)
    with monkeypatch.context() as patch, logging_guard.kept():
        patch.setattr("sys.stderr", stream)
        configure_logging("debug", "json")
        if request.param == "closed":
            stream.close()
        yield


@pytest.mark.usefixtures("unwritable")
def test_line_that_cannot_be_written_fails_nothing() -> None:
    structlog.get_logger("noetl_worker").warning("line_written")
    logging.getLogger("library").warning("a library's")


@pytest.mark.usefixtures("unwritable")
async def test_outcome_is_told_where_no_line_can_be_written(ours: Emitter) -> None:
    """Its retry has a line; the line ended the retry, and the outcome was lost."""
    answers = iter([answer(503, {})])
    transport = await tell(OK, lambda *_: next(answers, answer(202, {"event_ids": [5]})), teller=ours)
    assert len(transport.sent) == 2


class Message:
    data, subject, headers, num_delivered, stream_sequence, message_id = b"{}", "noetl.commands", None, 2, 9, "m"

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self, reason: str) -> None: ...


async def kept(*_: object) -> None: ...


@pytest.mark.parametrize("event", ["message_returned", "dead_letter"])
async def test_line_of_a_message_that_is_not_run_has_the_ids_and_kind_of_its_command(
    event: str,
) -> None:
    outcome = acknowledge.returned() if event == "message_returned" else acknowledge.outcome_refused("400")
    progress = Progress()
    progress.notification = notification()
    for known in (IDS, {**IDS, "kind": "noop"}):
        with structlog.testing.capture_logs() as found:
            await settle_delivery(DeadLetters(kept, "w"), Message(), outcome, progress.log_ids)
        [line] = [line for line in found if line["event"] == event]
        assert {name: line.get(name) for name in (*IDS, "kind")} == {"kind": None, **known}
        assert (line["stream_sequence"], line["deliveries"]) == (9, 2)
        ids = {name: value for name, value in IDS.items() if name != "step"}
        progress.command = replace(command(kind="noop"), **ids, step="load")


REF = {"kind": "result_ref", "ref": "noetl://execution/7/result/start/1", "store": "kv"}


async def fetch_context(at: Plane, ours: Command) -> None:
    envelope = Envelope(ours.execution_id, ours.event_id, ours.command_id, ours.step, at.url, None, None)
    body = {"execution_id": ours.execution_id, "node_id": ours.step, "node_name": ours.step, "action": ours.kind}
    await hydrate({**body, "context": {"tool_config": {}, "render_context": REF}}, envelope, at)


async def fetch_earlier_result(at: Plane, ours: Command) -> None:
    referred = {"earlier": {"status": "success", "context": {}, "reference": REF}}
    await fill_referred_results(referred, [{"n": "{{ earlier.data }}"}], [], ours, at, [])


async def fetch_credential(at: Plane, ours: Command) -> None:
    await CommandCredentials(ours, at).credential("pg")


async def set_variable(at: Plane, ours: Command) -> None:
    await act(CaseDecision(1, SetVar("total", 3)), ours, at)


async def ask_whether_cancelled(at: Plane, ours: Command) -> None:
    await wait_until_cancelled(at, ours, 1.0)


async def ask_whose_it_is(at: Plane, ours: Command) -> None:
    named = {"log_ids": ours.log_ids, "claimed_at": 0, "is_expired": lambda _: True, "lease_s": 1}
    await ClaimOwnership(at, 7, "w", **named).confirm()


async def tell_its_end(at: Plane, ours: Command) -> None:
    """It would be told again for ever, with no wait between."""
    await asyncio.wait_for(CommandEvents(ours, at, "w", emitter(), hold_s=5.0).finish(OK, Ours()), 0.1)


async def leave_its_tool_behind(at: Plane, ours: Command) -> None:
    async def tool() -> ToolResult:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)
        return ToolResult.success()

    await CallScope(Stop(), 1.0, log_ids=ours.log_ids).run(tool())


@pytest.mark.parametrize(
    ("event", "asks"),
    [
        ("request_retried", fetch_context),
        ("request_retried", fetch_earlier_result),
        ("request_retried", fetch_credential),
        ("request_retried", set_variable),
        ("cancellation_unknown", ask_whether_cancelled),
        ("claim_unknown", ask_whose_it_is),
        ("events_not_accepted", tell_its_end),
        ("tool_not_stoppable", leave_its_tool_behind),
    ],
)
async def test_line_about_a_command_has_all_of_its_fields(
    event: str, asks: Callable[[Plane, Command], Awaitable[None]]
) -> None:
    at, _ = plane(lambda *_: answer(425, {}), Dialect.PYTHON)
    ours = command()
    with structlog.testing.capture_logs() as found, contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asks(at, ours), 20)
    [line, *_] = [line for line in found if line["event"] == event]
    assert ours.log_ids().items() <= line.items()
    assert set(ours.log_ids()) == {*IDS, "kind"}
