"""What keeps the worker's row in the plane's registry fresh."""

from __future__ import annotations

import pytest

from noetl_worker.models import Dialect
from noetl_worker.observability.probes import Health
from noetl_worker.plane.plane_watch import HeartbeatWatch
from noetl_worker.plane.registration import Registration
from unit.planes import answer, plane, settings


@pytest.mark.parametrize(
    ("dialect", "beat"),
    [(Dialect.PYTHON, "/api/worker/pool/register"), (Dialect.RUST, "/api/worker/pool/heartbeat")],
)
async def test_beat_is_a_registration_where_the_plane_warns_of_every_heartbeat(dialect: Dialect, beat: str) -> None:
    """The Python plane logs a warning for each heartbeat; its own worker registers again
    (protocol/registry.md#heartbeat)."""
    at, transport = plane(lambda *_: answer(200, {"status": "ok"}), dialect)
    registration = Registration(at, settings(), "w", HeartbeatWatch(at.url, Health()), version="0", engine="rust")
    assert await registration.register()
    assert await registration.heartbeat()
    first, second = [(path, body) for _, path, body, _ in transport.sent if "/worker/pool/" in path]
    assert (first[0], second[0], second[1]["name"]) == ("/api/worker/pool/register", beat, "w")
    if dialect is Dialect.PYTHON:
        assert second[1] == first[1], "the whole row"
