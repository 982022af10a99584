"""A control plane without NATS: a worker takes its commands from a bridge, and without one does not look well."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.feed import Publisher, bridging, record_of
from integration.house import house, noops, without_nats
from integration.processes import one_line, refused_start, until
from noetl_worker.models import Dialect
from noetl_worker.remote.plane import plane_watch


@pytest.mark.parametrize("setting", ["auto", "rust"])
async def test_start_is_refused_with_the_versions_that_are_served(setting: str, tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home:
        home.plane.fault = without_nats("3.60.2")
        worker = await refused_start(tmp_path, **home.addresses, NOETL_CONTROL_PLANE=setting, WORKER_ID="w")
        assert worker.process.returncode == 3
        line = one_line(worker)
        assert "Rust control plane 3.60.2, which no longer sends commands over NATS" in line
        assert "Start `noetl-worker bridge --publish HOST:PORT` on this NATS" in line
        assert "Served are Rust control planes up to 3.60.1, every Python one" in line


async def test_plane_that_is_replaced_by_a_later_one_makes_the_worker_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane_watch, "ASKED_EVERY_S", 0.0)
    async with house(Dialect.RUST, WORKER_ID="w", WORKER_NATS_LAG_POLL_INTERVAL="1") as home:
        health = home.workers[0].health
        assert health.ready
        home.plane.fault = without_nats("3.60.2")
        await until(lambda: not health.ready, "not ready")
        assert "no longer sends commands over NATS" in health.reason
        home.plane.fault = None  # the release is rolled back
        await until(lambda: health.ready, "ready again")


async def test_worker_runs_what_a_bridge_brings_and_is_ready_while_the_stream_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plane_watch, "ASKED_EVERY_S", 0.0)
    async with house(Dialect.RUST, worker=False) as home, bridging(home.nats.url) as bridge:
        home.plane.fault = without_nats("3.83.1")
        worker = await home.start_worker(WORKER_ID="w", WORKER_NATS_LAG_POLL_INTERVAL="1")
        issued = await home.plane.create_commands(noops(20), publish=False)
        publisher = Publisher(lambda: bridge.port, lose_ack_of={issued[3].event_id})
        await publisher.publish(record_of(home.notification(one)) for one in issued)
        await home.wait_terminal(*(one.event_id for one in issued))
        await home.wait_settled()
        assert publisher.connects == 2
        assert [home.terminal_events(one.event_id) for one in issued] == [["command.completed"]] * 20
        assert worker.health.ready
