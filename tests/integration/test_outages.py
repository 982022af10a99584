"""The control plane or NATS goes away, at the start and while the worker works: nothing is lost."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from integration.house import CLAIM, house, noops
from integration.processes import ON_DISK, PROBES, starting_process, until, worker_process
from noetl_worker.authoring.dev.nats_server import NatsServer

BEAT = "POST /api/worker/pool/heartbeat"


async def test_control_plane_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        [one] = await home.plane.create_commands(noops(1))
        await home.plane.stop()
        async with starting_process(home, tmp_path, **PROBES) as worker:
            warning = await worker.wait_logged("control_plane_unreachable")
            assert warning["level"] == "warning"
            await until(lambda: any("NOETL_SERVER_URL" in str(record) for record in unreachable(worker)), "advice")
            probe = await worker.probe()
            assert (await probe.get("/livez")).status_code == 200
            assert await probe.why_not_ready() is not None
            await home.plane.start()
            await worker.wait_logged("pulling")
            await until(probe.is_ready, "ready")
            await home.wait_terminal(one.event_id)
            assert await worker.stop() == 0


async def test_nats_that_is_down_at_the_start_is_waited_for_with_probes_and_metrics(tmp_path: Path) -> None:
    """It ended with code 3, and the series that the alerts read ended with it."""
    async with house(worker=False, plane=ON_DISK) as home:
        await home.nats.stop()
        async with starting_process(home, tmp_path, **PROBES) as worker:
            probe = await worker.probe()
            await worker.wait_logged("nats_unreachable")
            assert "no NATS at nats://127.0.0.1" in (await probe.why_not_ready() or "")
            assert (await probe.get("/livez")).status_code == 200
            found = (await probe.metrics()).splitlines()
            assert {"noetl_worker_nats_connected 0.0", "noetl_worker_ready 0.0"} <= {*found}
            await home.nats.start()
            await until(probe.is_ready, "ready")
            assert "noetl_worker_nats_connected 1.0" in await probe.metrics()
            await home.ran(*noops(1))
            assert await worker.stop() == 0


async def test_login_that_nats_refuses_at_the_start_is_the_reason_of_a_worker_that_waits(tmp_path: Path) -> None:
    async with house(worker=False) as home, NatsServer(config="authorization { token: right }") as server:
        url = {"NATS_URL": f"nats://s3cr3t@{server.host}:{server.port}"}
        async with starting_process(home, tmp_path, **PROBES, **url) as worker:
            probe = await worker.probe()

            async def is_refused() -> bool:
                return "refuses the login" in (await probe.why_not_ready() or "")

            await until(is_refused, "the reason")
            assert await worker.stop() == 0
            assert "s3cr3t" not in worker.text


async def test_outcomes_that_no_disk_takes_stop_the_pull_and_are_what_plane_down_says(tmp_path: Path) -> None:
    """It said that nothing is lost, with nothing on disk."""
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    given = {**PROBES, "WORKER_HEARTBEAT_INTERVAL": "0.2", "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
    given["NOETL_WORKER_OUTBOX_DIR"] = str(blocked / "outbox")
    async with house(worker=False) as home, worker_process(home, tmp_path, **given) as worker:
        probe = await worker.probe()
        home.plane.fault = lambda request: JSONResponse({}, 503) if "/events" in request.url.path else None
        [one] = await home.plane.create_commands(noops(1))

        async def is_in_memory() -> bool:
            return "1 outcomes are in memory only" in (await probe.why_not_ready() or "")

        await until(is_in_memory, "not ready")
        assert "noetl_worker_outbox_unwritten 1.0" in await probe.metrics()
        await home.plane.stop()
        down = await worker.wait_logged("plane_down")
        assert (down["level"], down["server_url"], down["commands_in_flight"]) == ("error", home.plane.url, 1)
        assert (down["outcomes_on_disk"], down["outcomes_in_memory"]) == (0, 1)
        assert "noetl_worker_plane_down 1.0" in await probe.metrics()
        assert (await probe.get("/livez")).status_code == 200
        assert "outcomes are in its memory alone" in down["advice"]
        home.plane.fault = None
        await home.plane.start()
        await home.wait_terminal(one.event_id)
        await until(probe.is_ready, "ready again")
        assert await worker.stop() == 0


async def test_outage_of_nats_has_one_line_when_it_begins_and_one_when_it_is_over(tmp_path: Path) -> None:
    variables = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
    async with (
        house(worker=False, plane=ON_DISK) as home,
        worker_process(home, tmp_path, LOG_LEVEL="debug", **variables) as worker,
    ):
        probe = await worker.probe()
        await until(probe.is_ready, "ready")
        await home.nats.stop()
        await until(lambda: len(worker.logged("nats_error")) >= 8, "tries to connect")
        assert await probe.why_not_ready() == "NATS is not connected"
        assert (await probe.get("/livez")).status_code == 200  # a restart would not help
        await home.nats.start()
        await until(probe.is_ready, "ready again")
        await home.ran(*noops(1))
        records = map(json.loads, filter(lambda line: line.startswith("{"), worker.text.splitlines()))
        events = [record["event"] for record in records if record["level"] != "debug"]
        began, over = events.index("nats_disconnected"), events.index("nats_reconnected")
        assert over == began + 1, events
        assert {"nats_disconnected", "nats_reconnected", "nats_error", "lag_unknown"} & set(events[over + 1 :]) == set()
        assert await worker.stop() == 0


def unreachable(worker: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = worker.logged("control_plane_unreachable")
    return found


async def test_control_plane_that_never_answers_does_not_hold_a_stop(tmp_path: Path) -> None:
    """Longer than this test lasts: it ends by what the stop allows."""
    hangs = {"NOETL_WORKER_HTTP_TIMEOUT_S": "1000"}
    variables = {"NOETL_WORKER_DRAIN_TIMEOUT_S": "1", "NOETL_WORKER_ACK_WAIT_S": "2", **hangs}
    async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
        reached, over = asyncio.Event(), asyncio.Event()

        async def hang(request: Request) -> Response:
            if request.url.path.endswith("/claim"):  # a heartbeat may be the first to hang
                reached.set()
            await over.wait()
            return Response(status_code=503)

        home.plane.fault = hang
        await home.plane.create_commands(noops(3))
        await reached.wait()
        worker.signal()
        assert await worker.exit_code() == 4
        assert await home.unsettled() == 3
        over.set()


async def test_refused_credentials_stop_the_pull_and_let_in_again_it_goes_on(tmp_path: Path) -> None:
    variables = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
    async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
        probe = await worker.probe()
        await until(probe.is_ready, "ready")
        home.plane.fault = lambda _: JSONResponse({"detail": "who are you?"}, 401)
        [refused] = await home.plane.create_commands(noops(1))

        async def cut_off() -> bool:
            return "credentials" in (await probe.why_not_ready() or "")

        await until(cut_off, "not ready when refused")
        claims = home.plane.requests[CLAIM]
        later = await home.plane.create_commands(noops(20))
        await until(lambda: home.plane.requests[BEAT] >= 2, "asked whether it is accepted")
        assert home.plane.requests[CLAIM] <= claims + 16  # what an open pull still brought; then no more
        assert await probe.why_not_ready() is not None
        [line] = worker.logged("auth_refused")
        assert "NOETL_INTERNAL_API_TOKEN" in str(line)

        home.plane.fault = None
        await until(probe.is_ready, "ready again")
        await home.plane.publish_again(refused.event_id)  # its own message waits for 30 s
        fresh = await home.plane.create_commands(noops(5))
        await home.wait_terminal(refused.event_id, *(one.event_id for one in fresh))
        assert all(len(home.terminal_events(one.event_id)) <= 1 for one in (refused, *later, *fresh))
        assert await home.unsettled() >= 1  # returned, not lost
        assert await worker.stop() == 0
