"""What a scrape says of slots, gates, outbox, loop and keepalive, each brought about on purpose."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import virtual_time
from noetl_worker.models.slots import Slots
from noetl_worker.observability import metrics
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.delivery.keepalive import InProgress
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.remote.plane.gate import DOWN_AFTER
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from noetl_worker.remote.plane.servers import Servers
from noetl_worker.worker.readings import PULSE_S, Readings
from unit.outboxes import event_set
from unit.planes import answer, plane, settings

anyio_backend = virtual_time.anyio_backend


class Parts:
    """What a worker has."""

    def __init__(self, directory: Path, **variables: str) -> None:
        self.slots = Slots(4, limits={"postgres": 1})
        self.outbox = Outbox("always", directory, max_rows=10, max_bytes=10_000)
        self.servers = Servers(settings(**variables))
        self.readings = Readings(self.slots, self.outbox, self.servers)


@pytest.fixture
async def parts(tmp_path: Path) -> Parts:
    named = {"NOETL_SERVER_URL": "http://u:s3cr3t@a:1", "NOETL_WORKER_TRUSTED_SERVERS": "http://b:2"}
    return Parts(tmp_path, **named)


async def test_slots_in_use_and_what_waits_outside_of_them(parts: Parts) -> None:
    async def second() -> None:
        async with parts.slots.kind("postgres"):
            pass

    for _ in range(3):
        parts.slots.take()
    async with parts.slots.kind("postgres"):
        waiting = asyncio.ensure_future(second())
        await asyncio.sleep(0)
        with parts.slots.waiting():
            parts.readings.take()
            assert (metrics.SLOTS.own.value, metrics.SLOTS_LIMIT.own.value) == (4, 4)
            assert metrics.SLOTS_IN_USE.own.value == 1
            assert (metrics.PARKED_FOR_KIND.value, metrics.PARKED_ELSEWHERE.value) == (1, 1)
    await waiting
    parts.readings.take()
    assert (metrics.PARKED_FOR_KIND.value, metrics.PARKED_ELSEWHERE.value) == (0, 0)


async def test_gate_of_each_plane_that_the_settings_name_and_of_no_stranger(parts: Parts) -> None:
    stranger = parts.servers.server_at("http://miller:1")
    parts.readings.take()
    assert metrics.GATE_LIMIT.labels("http://a:1", "commands").value == parts.servers.full
    gate = parts.servers.server_at(parts.servers.configured).gate
    for attempt in range(DOWN_AFTER):
        gate.refused(1e9 + attempt)
        stranger.gate.refused(1e9 + attempt)
    gate.try_enter()
    parts.readings.take()
    shown = {one: metrics.GATE_DOWN.labels("http://a:1", one).value for one in ("commands", "results")}
    assert shown == {"commands": 1, "results": 0}
    assert metrics.GATE_LIMIT.labels("http://a:1", "commands").value == 1
    assert metrics.GATE_DOWN.labels("http://b:2", "commands").value == 0
    text = metrics.exposition().decode()
    assert "miller" not in text
    assert "s3cr3t" not in text


async def test_age_of_the_oldest_outcome_on_disk_grows_until_it_is_told(parts: Parts) -> None:
    first, second = event_set(1), event_set(2)
    parts.outbox.write(first)
    await asyncio.sleep(50)
    parts.outbox.write(second)
    parts.outbox.write(first)  # again, after one of its requests was accepted
    await asyncio.sleep(10)
    parts.readings.take()
    assert metrics.OUTBOX_OLDEST.own.value == 60
    parts.outbox.drop(first)
    parts.readings.take()
    assert metrics.OUTBOX_OLDEST.own.value == 10
    parts.outbox.drop(second)
    parts.readings.take()
    assert metrics.OUTBOX_OLDEST.own.value == 0
    parts.outbox.close()


async def test_loop_that_turns_late_is_in_the_delays(parts: Parts) -> None:
    parts.readings.take()
    before, count = metrics.LOOP_DELAY.own.sum, sum(metrics.LOOP_DELAY.own.counts)
    await asyncio.sleep(PULSE_S + 3.0)
    parts.readings.take()
    await asyncio.sleep(PULSE_S)
    parts.readings.take()
    assert metrics.LOOP_DELAY.own.sum == pytest.approx(before + 3.0)
    assert sum(metrics.LOOP_DELAY.own.counts) == count + 2


@pytest.mark.parametrize("is_connected", [False, True])
async def test_in_progress_that_does_not_get_through_is_counted_by_delivery(is_connected: bool) -> None:
    deliveries = InProgress(30.0)
    for reply in ("a", "b"):
        deliveries.track(reply, float("-inf"))

    async def fails(*_: Any, **__: Any) -> None:
        raise OSError("gone")

    client = SimpleNamespace(publish=fails, flush=fails, is_closed=False)
    connection = SimpleNamespace(is_connected=is_connected, client=client)
    before = metrics.IN_PROGRESS_FAILURES.value
    extending = asyncio.ensure_future(deliveries.extend_until(asyncio.Event(), cast(Any, connection), settings()))
    await asyncio.sleep(1.5)  # it looks once a second
    extending.cancel()
    assert metrics.IN_PROGRESS_FAILURES.value == before + 2


async def test_heartbeat_that_the_plane_refuses_is_counted() -> None:
    at, _ = plane(lambda *_: answer(503, {"error": "no"}))
    registration = Registration(at, settings(), "w", HeartbeatWatch(at.url, Health()))
    before = metrics.HEARTBEAT_FAILURES.value
    assert await registration.register() is False
    assert await registration.heartbeat() is False
    assert metrics.HEARTBEAT_FAILURES.value == before + 2
