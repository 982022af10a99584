"""`noetl-worker doctor`: the checks of the control plane, with what each looks at broken on purpose."""

from __future__ import annotations

import asyncio
import email.utils
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from bridge.feed import bridging
from integration.desk import DURABLE
from integration.findings import by_check, settings
from integration.house import house, without_nats
from integration.wire import serving
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.cli.doctor import Finding, State, clock, plane
from noetl_worker.models import Dialect
from noetl_worker.remote.jetstream.api import moment


async def test_plane_without_nats_and_bridge_is_wrong_with_the_command_that_mends_it(tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home:
        home.plane.fault = without_nats("3.83.1")
        found = by_check(await plane.examine(settings(tmp_path, **home.addresses)))
        assert found["control plane version"].found.startswith("rust 3.83.1")
        assert "Rust control planes up to 3.60.1, every Python one" in found["control plane version"].wanted
        assert found["bridge"].state is State.WRONG
        assert "noetl-worker bridge --publish" in found["bridge"].fix


async def test_bridge_of_a_plane_is_shown_with_its_health_and_what_the_server_must_not_be_set_to(
    tmp_path: Path,
) -> None:
    async with house(Dialect.RUST, worker=False) as home:
        home.plane.fault = without_nats("3.83.1")
        port = free_port()
        bind, url = f"127.0.0.1:{port}", f"http://127.0.0.1:{port}"
        async with bridging(home.nats.url, WORKER_METRICS_BIND=bind, NOETL_BRIDGE_HEALTH=url):
            found = by_check(await plane.examine(settings(tmp_path, **home.addresses)))
            assert (found["bridge"].state, found["bridge is ready"].state) == (State.FINE, State.FINE)
            assert "NOETL_ORPHAN_SWEEP_ENABLED" in found["settings of the server"].wanted
        assert (
            by_check(await plane.examine(settings(tmp_path, **home.addresses)))["bridge is ready"].state is State.WRONG
        )


async def test_plane_that_is_none_is_wrong(tmp_path: Path) -> None:
    found = await plane_findings(tmp_path, lambda request: Response("<html>hello</html>"))
    assert found["control plane"].state is State.WRONG
    assert "neither the Python nor the Rust control plane" in found["control plane"].found


def of_pools(answer: Response) -> Callable[[Request], Response | None]:
    """A plane that answers so when it is asked for its workers."""
    return lambda request: answer if request.url.path == "/api/worker/pools" else None


async def test_plane_that_refuses_our_token_is_wrong(tmp_path: Path) -> None:
    found = (await plane_findings(tmp_path, of_pools(JSONResponse({}, 401))))["control plane lets us in"]
    assert found.state is State.WRONG
    assert "NOETL_INTERNAL_API_TOKEN" in found.fix


async def test_another_program_on_our_durable_is_wrong(tmp_path: Path) -> None:
    row = {"name": "worker-94abb616", "status": "ready", "labels": {"nats_consumer": DURABLE}, "runtime": "python"}
    answer = of_pools(JSONResponse({"items": [row], "count": 1}))
    found = (await plane_findings(tmp_path, answer))["registered workers"]
    assert found.state is State.WRONG
    assert "worker-94abb616" in found.found


@pytest.mark.parametrize(("off_s", "state"), [(0, State.FINE), (20, State.WARNING), (-300, State.WRONG)])
async def test_clock_of_the_plane_is_compared(off_s: float, state: State, tmp_path: Path) -> None:
    date = email.utils.formatdate(time.time() + off_s, usegmt=True)
    answer = f'HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 15\r\n\r\n{{"status":"ok"}}'.encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(answer)

    async with serving(serve) as url:
        found = by_check(await plane.examine(settings(tmp_path, NOETL_SERVER_URL=url)))
    assert found["clock against the plane"].state is state


async def test_plane_that_takes_seconds_is_a_warning_with_its_time(tmp_path: Path) -> None:
    """With 5 s an answer it was "ok", after 16 s."""
    answer = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"status":"ok"}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(1.1)
            writer.write(answer)

    async with serving(serve) as url:
        found = by_check(await plane.examine(settings(tmp_path, NOETL_SERVER_URL=url)))["control plane: time"]
    assert found.state is State.WARNING
    assert found.found.startswith("/api/health answers in 1.")


def test_clock_is_judged_by_what_is_surely_off() -> None:
    assert clock.check_skew("c", theirs=100.0, ours=107.0, uncertain_s=2.5).state is State.FINE
    assert clock.check_skew("c", theirs=100.0, ours=107.0, uncertain_s=1.0).state is State.WARNING
    assert clock.check_skew("c", theirs=100.0, ours=0.0, uncertain_s=1.0).state is State.WRONG
    assert moment("2026-11-26T20:37:20.123456789Z") == pytest.approx(1795725440.123456)


async def plane_findings(directory: Path, fault: Any) -> dict[str, Finding]:
    async with house(worker=False) as home:
        home.plane.fault = fault
        found = await plane.examine(settings(directory, NOETL_SERVER_URL=home.plane.url))
    return by_check(found)
