"""What keeps the worker's row in the plane's registry fresh."""

from __future__ import annotations

import asyncio
import time

import pytest

import virtual_time
from noetl_worker.delivery.keepalive import InProgress
from noetl_worker.models import Dialect
from noetl_worker.observability.probes import Health
from noetl_worker.plane.plane_watch import HeartbeatWatch
from noetl_worker.plane.registration import Registration
from noetl_worker.transport.transport import Response
from unit.planes import After, answer, plane, settings

anyio_backend = virtual_time.anyio_backend


@pytest.mark.parametrize(
    ("dialect", "beat"),
    [(Dialect.PYTHON, "/api/worker/pool/register"), (Dialect.RUST, "/api/worker/pool/heartbeat")],
)
async def test_beat_is_a_registration_where_the_plane_warns_of_every_heartbeat(dialect: Dialect, beat: str) -> None:
    """The Python plane logs a warning for each heartbeat; its own worker registers again
    (protocol/registry.md#heartbeat)."""
    at, transport = plane(lambda *_: answer(200, {"status": "ok"}), dialect)
    registration = Registration(at, settings(), "w", HeartbeatWatch(at.url, Health()))
    assert await registration.register()
    assert await registration.heartbeat()
    first, second = [(path, body) for _, path, body, _ in transport.sent if "/worker/pool/" in path]
    assert (first[0], second[0], second[1]["name"]) == ("/api/worker/pool/register", beat, "w")
    if dialect is Dialect.PYTHON:
        assert second[1] == first[1], "the whole row"


@pytest.mark.parametrize(("silent_s", "is_asked"), [(15.0, False), (45.0, True)])
async def test_command_is_asked_about_before_its_report_once_the_plane_heard_nothing_for_longer_than_a_claim_lasts(
    silent_s: float, is_asked: bool
) -> None:
    """After 30 s without a heartbeat the Python plane gives its claims away, and takes both ends
    (protocol/claim.md#leases, #races)."""
    answers = [answer(200, {"status": "ok"})]
    at, _ = plane(lambda *_: answers[-1], Dialect.PYTHON)
    deliveries = InProgress(ack_wait_s=3600)
    registration = Registration(
        at,
        settings(),
        "w",
        HeartbeatWatch(at.url, Health()),
        on_heard=deliveries.heard,
    )
    assert await registration.register()
    deliveries.track("a", time.monotonic())
    answers.append(answer(503, {"error": "no"}))
    await asyncio.sleep(silent_s)
    assert not await registration.heartbeat()
    assert deliveries.is_expired("a", time.monotonic()) is is_asked
    answers.append(answer(200, {"status": "ok"}))
    assert await registration.heartbeat()
    deliveries.track("b", time.monotonic())
    assert [deliveries.is_expired(one, time.monotonic()) for one in ("a", "b")] == [is_asked, False]


async def test_command_is_asked_about_once_the_first_registration_is_refused_for_longer_than_a_claim_lasts() -> None:
    """After 120 s the Python plane gives the claim of a holder without a row away (protocol/claim.md#leases)."""
    at, _ = plane(lambda *_: answer(422, {"detail": "no"}), Dialect.PYTHON)
    deliveries = InProgress(ack_wait_s=3600)
    watch = HeartbeatWatch(at.url, Health())
    registration = Registration(at, settings(), "w", watch, on_heard=deliveries.heard)
    deliveries.track("a", time.monotonic())
    registering = asyncio.ensure_future(registration.keep(15))
    found = []
    for _ in range(2):
        await asyncio.sleep(20)
        found.append(deliveries.is_expired("a", time.monotonic()))
    registering.cancel()
    assert found == [False, True]


async def test_command_is_asked_about_while_a_heartbeat_hangs_for_longer_than_a_claim_lasts() -> None:
    taken = answer(200, {"status": "ok"})
    answers: list[Response | After] = [taken]
    at, _ = plane(lambda *_: answers[-1], Dialect.PYTHON)
    deliveries = InProgress(ack_wait_s=3600)
    watch = HeartbeatWatch(at.url, Health())
    registration = Registration(at, settings(), "w", watch, on_heard=deliveries.heard)
    assert await registration.register()
    deliveries.track("a", time.monotonic())
    answers.append(After(45.0, taken))
    beat = asyncio.ensure_future(registration.heartbeat())
    found = []
    for _ in range(2):
        await asyncio.sleep(20)
        found.append(deliveries.is_expired("a", time.monotonic()))
    assert found == [False, True]
    assert await beat
    assert deliveries.is_expired("a", time.monotonic()), "it was given away meanwhile"
