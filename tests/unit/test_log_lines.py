"""A line about a command has its ids, by the same names and as text."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import logging_guard
import virtual_time
from noetl_worker.command.handover import ClaimedOnce
from noetl_worker.delivery import acknowledge
from noetl_worker.delivery.dead_letter import DeadLetters, settle_delivery
from noetl_worker.models import Dialect, Envelope
from noetl_worker.observability.logging import add_to_each_line, configure_logging
from unit.planes import URL, answer, command, plane

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


def test_every_line_of_one_of_several_workers_has_its_name(written: io.StringIO) -> None:
    add_to_each_line(worker="pod-1-a")
    structlog.get_logger("noetl_worker").info("line_written")
    [line] = lines(written)
    assert line["worker"] == "pod-1-a"


def test_command_and_notification_are_named_by_the_same_fields() -> None:
    assert notification().who() == IDS
    assert set(command().who()) == {*IDS, "kind"}


class Message:
    data, subject, headers, num_delivered, stream_sequence, message_id = b"{}", "noetl.commands", None, 2, 9, "m"

    async def ack(self) -> None: ...
    async def nak(self, delay_s: float) -> None: ...
    async def term(self, reason: str) -> None: ...


async def kept(*_: object) -> None: ...


@pytest.mark.parametrize("event", ["message_returned", "dead_letter"])
async def test_line_of_a_message_that_is_not_run_has_the_ids_of_its_command(event: str) -> None:
    outcome = acknowledge.returned() if event == "message_returned" else acknowledge.outcome_refused("400")
    outcome = acknowledge.named(outcome, notification(), acks=False)
    with structlog.testing.capture_logs() as found:
        await settle_delivery(DeadLetters(kept, "noetl.dead_letters", "w"), Message(), outcome)
    [line] = [line for line in found if line["event"] == event]
    assert IDS.items() <= line.items()
    assert (line["stream_sequence"], line["deliveries"]) == (9, 2)


async def test_line_of_a_claim_that_is_not_known_has_the_ids_of_its_command() -> None:
    at, _ = plane(lambda *_: answer(503, {"error": "no"}), Dialect.RUST)
    who = notification().who
    asked = ClaimedOnce(at, 7, "w", who=who, claimed_at=0, is_expired=lambda _: True, lease_s=1)
    with structlog.testing.capture_logs() as found, contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asked.confirm(), 60)
    line = next(line for line in found if line["event"] == "claim_unknown")
    assert IDS.items() <= line.items()
