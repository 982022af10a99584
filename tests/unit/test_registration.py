"""What keeps the worker's row in the plane's registry fresh."""

from __future__ import annotations

import asyncio
import time

import pytest

import virtual_time
from noetl_worker.errors import MaybeProcessed
from noetl_worker.models import Dialect
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.delivery.keepalive import InProgress
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from noetl_worker.remote.transport.transport import Response
from unit.planes import After, answer, plane, settings

anyio_backend = virtual_time.anyio_backend
TAKEN = answer(200, {"status": "ok"})


@pytest.mark.parametrize(
    ("dialect", "beat"),
    [(Dialect.PYTHON, "/api/worker/pool/register"), (Dialect.RUST, "/api/worker/pool/heartbeat")],
)
async def test_beat_is_a_registration_where_the_plane_warns_of_every_heartbeat(dialect: Dialect, beat: str) -> None:
    """The Python plane logs a warning for each heartbeat; its own worker registers again
    (protocol/registry.md#heartbeat)."""
    at, transport = plane(lambda *_: TAKEN, dialect)
    registration = Registration(at, settings(), "w", HeartbeatWatch(at.url, Health()))
    assert await registration.register()
    assert await registration.heartbeat()
    first, second = [(path, body) for _, path, body, _ in transport.sent if "/worker/pool/" in path]
    assert (first[0], second[0], second[1]["name"]) == ("/api/worker/pool/register", beat, "w")
    if dialect is Dialect.PYTHON:
        assert second[1] == first[1], "the whole row"


class Asked:
    """A worker with one command, of which it asks the Python plane before its report, once `is_expired` says so."""

    def __init__(self, said: Response | After) -> None:
        self.said = said
        at, _ = plane(lambda *_: self.said, Dialect.PYTHON)
        self._deliveries = InProgress(ack_wait_s=3600)
        watch = HeartbeatWatch(at.url, Health())
        self.registration = Registration(at, settings(), "w", watch, on_heartbeat=self._deliveries.note_contact)

    def is_expired(self, reply: str = "a") -> bool:
        return self._deliveries.is_expired(reply, time.monotonic())

    def begin(self, reply: str = "a") -> None:
        self._deliveries.track(reply, time.monotonic())

    async def expired_later(self) -> list[bool]:
        """After twenty seconds, and after forty: a claim lasts thirty."""
        found = []
        for _ in range(2):
            await asyncio.sleep(20)
            found.append(self.is_expired())
        return found


@pytest.mark.parametrize(("silent_s", "is_asked"), [(15.0, False), (45.0, True)])
async def test_command_is_asked_about_once_the_plane_heard_nothing_for_a_claims_time(
    silent_s: float, is_asked: bool
) -> None:
    """After 30 s without a heartbeat the Python plane gives its claims away, and takes both ends
    (protocol/claim.md#leases, #races)."""
    worker = Asked(TAKEN)
    assert await worker.registration.register()
    worker.begin()
    worker.said = answer(503, {"error": "no"})
    await asyncio.sleep(silent_s)
    assert not await worker.registration.heartbeat()
    assert worker.is_expired() is is_asked
    worker.said = TAKEN
    assert await worker.registration.heartbeat()
    worker.begin("b")
    assert [worker.is_expired(one) for one in ("a", "b")] == [is_asked, False]


async def test_command_is_asked_about_once_registration_is_refused_for_a_claims_time() -> None:
    """After 120 s the Python plane gives the claim of a holder without a row away (protocol/claim.md#leases)."""
    worker = Asked(answer(422, {"detail": "no"}))
    worker.begin()
    registering = asyncio.ensure_future(worker.registration.run(15))
    assert await worker.expired_later() == [False, True]
    registering.cancel()


async def test_command_is_asked_about_while_a_heartbeat_hangs_for_a_claims_time() -> None:
    worker = Asked(TAKEN)
    assert await worker.registration.register()
    worker.begin()
    worker.said = After(45.0, TAKEN)
    beat = asyncio.ensure_future(worker.registration.heartbeat())
    assert await worker.expired_later() == [False, True]
    assert await beat
    assert worker.is_expired(), "it was given away meanwhile"


async def test_plane_that_hangs_is_down_within_30_s_and_one_that_takes_5_s_is_not() -> None:
    """It took 85 s: each heartbeat waited for as long as any request."""
    said: Response | After = TAKEN
    at, transport = plane(lambda *_: said, Dialect.PYTHON)
    health = Health()
    registration = Registration(at, settings(), "w", HeartbeatWatch(at.url, health))
    keeping = asyncio.ensure_future(registration.run(15))

    def is_down() -> bool:
        return health.plane_down is not None

    await asyncio.sleep(1)
    said = After(5.0, TAKEN)
    await asyncio.sleep(60)
    assert not is_down()
    said = After(max(transport.timeouts_s), MaybeProcessed("no answer"))
    await asyncio.sleep(30)
    assert is_down()
    keeping.cancel()
