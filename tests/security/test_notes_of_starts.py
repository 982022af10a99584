"""Others write to the bucket in which workers note the starts of commands."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from integration.house import House, house
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.authoring.dev.plane_rules.rules import IssuedCommand
from noetl_worker.models import Dialect
from noetl_worker.observability import metrics
from noetl_worker.remote.jetstream.start_notes import BUCKET, MOST_STARTS, ensure_bucket

FORGED = json.dumps([{"worker": "forger", "at": "2026-01-01T00:00:00+00:00"}] * MOST_STARTS).encode()
MALFORMED = {
    "no JSON": b"{",
    "no list": b'{"worker": "w", "at": "then"}',
    "no object": b"[1]",
    "no text": b'[{"worker": 1, "at": "then"}]',
    "other keys": b'[{"who": "w"}]',
    "control characters": b'[{"worker": "\\u001b]52;c;YQ==\\u0007", "at": "then"}]',
    "too long": json.dumps([{"worker": "w" * 100_000, "at": "then"}]).encode(),
    "too many": json.dumps([{"worker": "w", "at": "then"}] * 1000).encode(),
    "deep": b"[" * 100_000,
}


async def write(home: House, issued: IssuedCommand, data: bytes) -> None:
    async with home.client() as client:
        await ensure_bucket(client)
        await client.jetstream().publish(f"$KV.{BUCKET}.{issued.execution_id}.{issued.event_id}", data)


async def test_forged_notes_fail_no_command_before_its_first_start(dialect: Dialect) -> None:
    """Forged notes say that a command has ended three workers."""
    async with house(dialect, worker=False) as home:
        [issued] = await home.plane.create_commands([RawCommand("shell", {"command": "true"})])
        await write(home, issued, FORGED)
        home.refuse_first_claims()
        await home.start_worker()
        await home.wait_terminal(issued.event_id)
        assert home.terminal_events(issued.event_id) == ["command.completed"]


async def test_forged_notes_fail_no_copy_that_the_plane_publishes_of_a_command_nobody_has_claimed() -> None:
    """The same for a command that the plane publishes again, and nobody has claimed."""
    async with house(worker=False) as home:
        [issued] = await home.plane.create_commands([RawCommand("shell", {"command": "true"})])
        await write(home, issued, FORGED)
        async with home.client() as client:
            await client.jsm().purge_stream("NOETL_COMMANDS")
        await home.plane.publish_again(issued.event_id, as_text=True)
        await home.start_worker()
        await home.wait_terminal(issued.event_id)
        assert home.terminal_events(issued.event_id) == ["command.completed"]


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_note_counts_as_none_and_the_next_command_is_noted(data: bytes) -> None:
    """A malformed note turns off the notes of the next commands."""
    async with house(Dialect.RUST, worker=False) as home:
        first, second = await home.plane.create_commands([RawCommand("shell", {"command": "true"})] * 2)
        await write(home, first, data)
        said: list[str] = []
        async with home.client() as client:

            async def hear(message: Any) -> None:
                said.append(message.subject)

            await client.subscribe(f"$KV.{BUCKET}.>", cb=hear)
            await client.flush()
            home.refuse_first_claims()
            with capture_logs() as logs:
                await home.start_worker(WORKER_MAX_CONCURRENT="1")
                await home.wait_terminal(first.event_id, second.event_id)
                await home.wait_settled()
        ends = [home.terminal_events(one.event_id) for one in (first, second)]
        assert ends == [["command.completed"], ["command.completed"]]
        assert {subject.rpartition(".")[2] for subject in said} == {str(one.event_id) for one in (first, second)}
        events = [line["event"] for line in logs]
        assert "start_not_recorded" not in events
        assert events.count("start_notes_unreadable") == 1


async def fill(client: Client) -> None:
    """Leave no room for a note."""
    number, jetstream = itertools.count(), client.jetstream()
    for size in (1_000_000, 100_000, 10_000, 1000, 100, 1):
        with suppress(nats.js.errors.APIError):  # maximum bytes exceeded
            while True:
                await jetstream.publish(f"$KV.{BUCKET}.flood.{next(number)}", b"x" * size)


async def test_full_bucket_is_one_warning_and_a_gauge_and_stops_no_command() -> None:
    """The bucket is filled."""
    commands = [RawCommand("shell", {"command": "true"})] * 3
    async with house(Dialect.RUST, worker=False) as home, home.client() as client:
        await ensure_bucket(client)
        await fill(client)
        issued = await home.plane.create_commands(commands)
        home.refuse_first_claims()
        with capture_logs() as logs:
            await home.start_worker()
            await home.wait_terminal(*(one.event_id for one in issued))
        assert [home.terminal_events(one.event_id) for one in issued] == [["command.completed"]] * 3
        events = [line["event"] for line in logs]
        assert events.count("start_bucket_full") == 1
        assert "start_not_recorded" not in events
        assert "noetl_worker_start_notes_full 1.0" in metrics.exposition().decode()
        await client.jsm().purge_stream(f"KV_{BUCKET}")
        [after] = await home.plane.create_commands(commands[:1])
        await home.wait_terminal(after.event_id)
        assert "noetl_worker_start_notes_full 0.0" in metrics.exposition().decode()
