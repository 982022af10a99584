"""What repeats by cause has a line at once, one a minute with a count, and nothing is lost of the count."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import logging_guard
import virtual_time
from noetl_worker.observability.logging import configure_logging, flush_repeated

anyio_backend = virtual_time.anyio_backend


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    with logging_guard.kept():
        configure_logging(getattr(request, "param", "info"), "json")
        flush_repeated(at_once=True)
        flush_repeated(at_once=True)
        stream.truncate(stream.seek(0))
        yield stream
        flush_repeated(at_once=True)
        flush_repeated(at_once=True)


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


async def storm(event: str, seconds: float, **fields: Any) -> None:
    """Ten a second, while a worker's pulse flushes what is due."""
    log = structlog.get_logger("noetl_worker")
    for number in range(round(seconds * 10)):
        log.warning(event, command_id=number, **{name: text.format(number) for name, text in fields.items()})
        if number % 5 == 0:
            flush_repeated()
        await asyncio.sleep(0.1)


async def test_line_that_repeats_is_one_a_minute_with_their_number(written: io.StringIO) -> None:
    await storm("cancellation_unknown", 150, error="GET /api/executions/{}/cancellation-check: 500")
    flush_repeated(at_once=True)
    found = lines(written)
    counts = [line.get("repeats", 1) for line in found]
    assert (len(counts), counts[0], sum(counts)) == (4, 1, 1500)
    assert {line["event"] for line in found} == {"cancellation_unknown"}
    assert found[1]["command_id"] == str(counts[1]), "of the last one"
    assert {line["level"] for line in found} == {"warning"}


async def test_causes_are_told_apart_and_numbers_in_their_texts_are_not(written: io.StringIO) -> None:
    await asyncio.gather(
        storm("message_returned", 10, reason="retry_later"),
        storm("message_returned", 10, reason="held_by_other"),
        storm("request_retried", 10, what="a result", error="GET /api/result/{}: 500"),
    )
    assert len(lines(written)) == 3


async def test_what_storms_end_with_is_told_when_its_minute_is_over(written: io.StringIO) -> None:
    await storm("claim_unknown", 1, reason="500")
    await asyncio.sleep(60)
    flush_repeated()
    assert [line.get("repeats", 1) for line in lines(written)] == [1, 9]
    await asyncio.sleep(61)
    flush_repeated()
    await storm("claim_unknown", 0.1, reason="500")
    assert [line.get("repeats", 1) for line in lines(written)] == [1, 9, 1], "a new beginning has its line at once"


async def test_last_of_a_plane_that_comes_and_goes_is_written_last(written: io.StringIO) -> None:
    log = structlog.get_logger("noetl_worker")
    for event in ("plane_down", "plane_up") * 5 + ("plane_down",):
        log.error(event, server_url="http://plane")
        await asyncio.sleep(1)
    await asyncio.sleep(60)
    flush_repeated()
    assert [line["event"] for line in lines(written)] == ["plane_down", "plane_up", "plane_up", "plane_down"]


@pytest.mark.parametrize("written", ["debug"], indirect=True)
async def test_level_debug_has_every_line(written: io.StringIO) -> None:
    await storm("cancellation_unknown", 10, error="500")
    assert len(lines(written)) == 100


async def test_made_up_causes_take_no_memory(written: io.StringIO) -> None:
    log = structlog.get_logger("noetl_worker")
    for number in range(1000):
        log.warning("outcome_dropped", reason="x" * (number % 190) + chr(97 + number % 26))
        await asyncio.sleep(0)
    assert len(lines(written)) <= 201
    flush_repeated(at_once=True)
    assert sum(line.get("repeats", 1) for line in lines(written)) == 1000


async def test_line_that_was_held_back_has_no_secret_of_its_command(written: io.StringIO) -> None:
    for _ in range(2):
        structlog.get_logger("noetl_worker").warning("request_retried", error="no", password="s3cr3t-of-it")
    flush_repeated(at_once=True)
    assert len(lines(written)) == 2
    assert "s3cr3t" not in written.getvalue()
