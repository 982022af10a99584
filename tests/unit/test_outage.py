"""What goes is said once, once a minute while it is gone, and once when it is back."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

import virtual_time
from noetl_worker.errors import NotSent
from noetl_worker.models import Dialect
from noetl_worker.observability import metrics
from noetl_worker.observability.outage import Outage
from noetl_worker.observability.probes import Health, make_pages
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from unit.planes import URL, answer, plane, settings

anyio_backend = virtual_time.anyio_backend
BEAT_S = 15


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as found:
        yield found


async def test_outage_has_one_line_when_it_begins_and_one_a_minute() -> None:
    outage, said = Outage(), []
    for _ in range(180):
        said.append(outage.note_failure("gone"))
        await asyncio.sleep(1)
    due = [line for line in said if line is not None]
    assert [line["failures"] for line in due] == [1, 60, 60]
    assert [line["for_s"] for line in due] == [0, 60, 120]
    assert len({line["since"] for line in due}) == 1
    over = outage.note_success()
    assert over is not None
    assert over["for_s"] == 180
    assert outage.note_success() is None, "said once"


async def test_failure_that_does_not_last_is_none_where_several_are_asked_for() -> None:
    outage = Outage(after=2)
    assert (outage.note_failure("gone"), outage.is_on, outage.note_success()) == (None, False, None)
    assert outage.note_failure("gone") is None
    assert outage.note_failure("gone") is not None


class Idle:
    """A worker that does nothing but its heartbeats."""

    def __init__(self, said: Any) -> None:
        self.said = said
        metrics.PLANE_DOWN.set(0)  # the process of a test has had workers whose plane stayed down
        self.health = Health()
        self.health.set_ready(True, "pulling")
        self.plane, self.transport = plane(lambda *_: self.said, Dialect.RUST)
        watch = HeartbeatWatch(URL, self.health)
        self.registration = Registration(self.plane, settings(), "w", watch)

    async def beats(self, count: int) -> None:
        for _ in range(count):
            await self.registration.heartbeat()
            await asyncio.sleep(BEAT_S)

    async def ready(self) -> tuple[int, str]:
        self.health.pulse = asyncio.get_running_loop().time()
        await make_pages(self.health)["/metrics"]()
        status, body = await make_pages(self.health)["/readyz"]()
        assert isinstance(body, dict)
        return status, str(body["reason"])


@pytest.mark.parametrize("said", [NotSent("POST: connection refused"), answer(503, {"error": "no"}), answer(502)])
async def test_idle_worker_sees_by_its_heartbeats_that_the_plane_is_down(said: Any, lines: list[Any]) -> None:
    worker = Idle(said)
    metrics.OUTBOX_ROWS.set(3)
    await worker.beats(12)
    assert [line["event"] for line in lines] == ["heartbeat_failed", *["plane_down"] * 3]
    down = lines[1]
    assert (down["log_level"], down["server_url"], down["outcomes_on_disk"]) == ("error", URL, 3)
    assert down["error"]
    assert down["since"]
    status, reason = await worker.ready()
    assert (status, metrics.PLANE_DOWN.own.value, metrics.READY.own.value) == (503, 1, 0)
    assert URL in reason
    worker.said = answer(200, {"status": "ok"})
    sent = len(worker.transport.sent)
    await worker.beats(2)
    assert len(worker.transport.sent) == sent + 2, "no request but the heartbeats"
    assert lines[-1]["event"] == "plane_up"
    assert lines[-1]["since"] == down["since"]
    assert (await worker.ready(), metrics.PLANE_DOWN.own.value, metrics.READY.own.value) == ((200, "pulling"), 0, 1)


async def test_one_missing_heartbeat_is_no_outage_of_the_plane(lines: list[Any]) -> None:
    worker = Idle(NotSent("gone"))
    await worker.beats(1)
    worker.said = answer(200, {"status": "ok"})
    await worker.beats(3)
    assert [line["event"] for line in lines] == ["heartbeat_failed"]
    assert metrics.PLANE_DOWN.own.value == 0


async def test_plane_that_refuses_heartbeats_is_up_and_said_once_a_minute(lines: list[Any]) -> None:
    worker = Idle(answer(401, {"detail": "who are you?"}))
    await worker.beats(8)
    assert [line["event"] for line in lines] == ["heartbeat_failed", "heartbeat_failed"]
    assert "NOETL_INTERNAL_API_TOKEN" in lines[0]["error"]
    assert (await worker.ready())[0] == 200


@pytest.mark.parametrize(
    ("said", "events"),
    [
        (answer(422, {"detail": "no"}), ["heartbeat_failed"] * 3),
        (answer(503, {"error": "no"}), ["heartbeat_failed", *["plane_down"] * 3]),
    ],
)
async def test_first_registration_that_fails_is_said_once_a_minute_since_the_first_try(
    said: Any, events: list[str], lines: list[Any]
) -> None:
    worker = Idle(said)
    began = datetime.datetime.fromtimestamp(time.time(), datetime.timezone.utc).isoformat(timespec="seconds")
    registering = asyncio.ensure_future(worker.registration.run(BEAT_S))
    await asyncio.sleep(130)
    assert [line["event"] for line in lines] == events
    assert {line["since"] for line in lines} == {began}
    worker.said = answer(200, {"status": "ok"})
    await asyncio.sleep(60)
    assert "registered" in {line["event"] for line in lines}
    registering.cancel()


async def test_worker_that_drains_says_so_whatever_the_plane_does() -> None:
    worker = Idle(NotSent("gone"))
    await worker.beats(3)
    worker.health.set_ready(False, "draining")
    assert await worker.ready() == (503, "draining")


@pytest.mark.parametrize("trouble", ["the event loop has been blocked for", "the pull loop has made no progress"])
async def test_worker_that_is_stuck_is_not_ready_on_any_page(trouble: str) -> None:
    health = Health()
    health.set_ready(True, "pulling")
    pages = make_pages(health)

    async def ready() -> tuple[int, bool, bool]:
        status, page = await pages["/readyz"]()
        _, state = await pages["/debug/inflight"]()
        _, text = await pages["/metrics"]()
        assert isinstance(page, dict)
        assert isinstance(state, dict)
        assert isinstance(text, bytes)
        assert page["reason"] == state["reason"]
        assert page["reason"].startswith("pulling" if page["ready"] else trouble)
        return status, state["ready"], b"\nnoetl_worker_ready 1.0\n" in text

    now_s = time.monotonic()
    if "event" in trouble:
        health.pulse = now_s - 100
    else:
        health.puller_progress = lambda: now_s - 100
    assert await ready() == (503, False, False)
    health.pulse, health.puller_progress = now_s, None
    assert await ready() == (200, True, True)
