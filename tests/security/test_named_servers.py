"""Whoever publishes to NATS names the server of a command."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from structlog.testing import capture_logs

from integration.house import CLAIM, House, house
from integration.processes import until, worker_process
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.errors import AuthRefused
from noetl_worker.models import Dialect, Report
from noetl_worker.models.disposition import Answer, Disposition
from noetl_worker.observability import metrics
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.servers import MAX_SERVERS, Servers
from noetl_worker.worker.recovery.adoption import Adoption
from unit.planes import URL, ScriptedTransport, answer, emitter, settings
from unit.test_handover import Beats, delivery, execution, script_for

FORGED = (
    "http://evil.test",
    f"{URL}.evil.test",
    f"{URL}@evil.test",
    f"{URL}/../other",
    f"{URL}/elsewhere",
    "nonsense",
    "http://[bad",
)
NOOP = RawCommand("noop", {})


async def ran(dialect: Dialect, url: str, **variables: str) -> tuple[Disposition | None, ScriptedTransport]:
    """A notification that names `url`, worked on by a worker whose plane is URL."""
    transport = ScriptedTransport(script_for(dialect, {}, "noop"))
    whole = execution(transport, dialect, Beats(), **variables)
    return await whole.run(delivery(dialect, server_url=url)), transport


def contacted(transport: ScriptedTransport) -> set[str]:
    """The servers that got a request; "" is the configured one."""
    return {path.partition("/api/")[0] for _, path, _, _ in transport.sent}


# ── which server is asked ──


@pytest.mark.parametrize("url", FORGED)
async def test_command_of_a_server_that_no_setting_names_is_claimed_at_the_configured_one(
    dialect: Dialect, url: str
) -> None:
    """A notification names its own server, or a lookalike."""
    disposition, transport = await ran(dialect, url)
    assert contacted(transport) == {""}
    assert disposition is not None
    assert disposition.answer is Answer.ACK


@pytest.mark.parametrize("url", ["http://second.test", "http://second.test/", " http://second.test/api/ "])
async def test_trusted_server_is_asked_itself_and_gets_the_token(url: str) -> None:
    variables = {"NOETL_WORKER_TRUSTED_SERVERS": "http://second.test/api", "NOETL_INTERNAL_API_TOKEN": "t0ken"}
    _, transport = await ran(Dialect.PYTHON, url, **variables)
    assert contacted(transport) == {"http://second.test"}
    assert all("authorization" in headers for *_, headers in transport.sent)


async def test_outcome_on_disk_is_sent_to_no_server_that_the_settings_do_not_name(tmp_path: Path) -> None:
    """An outbox row names a stranger's server."""
    report = Report(status="success", context=None)
    dead = emitter(tmp_path)
    dead.outbox.write(EventSet(7, 1, "c-7", "start", "dead", "http://evil.test", Dialect.PYTHON, report))
    dead.outbox.close()
    transport, ours = ScriptedTransport(script_for(Dialect.PYTHON, {}, "noop")), emitter(tmp_path)
    adoption = Adoption(ControlPlaneClient(transport, settings()), ours, InFlight())
    adoption.adopt()
    while not ours.outbox.is_empty:
        await asyncio.sleep(0)
    await adoption.stop()
    ours.outbox.close()
    assert contacted(transport) == {""}
    assert transport.bodies("/api/events/batch")


# ── what is said of it ──


def test_each_server_that_is_not_named_is_logged_once_with_the_line_to_add_and_counted() -> None:
    servers = Servers(settings(NOETL_WORKER_TRUSTED_SERVERS="http://second.test"))
    before = metrics.SERVERS_NOT_NAMED.own.value
    with capture_logs() as logs:
        for _ in range(3):
            assert servers.choose_url("http://third.test/api") == URL
        assert servers.choose_url("http://user:pa55@fourth.test") == URL
    assert metrics.SERVERS_NOT_NAMED.own.value == before + 4
    third, fourth = logs
    assert (third["server_url"], third["claimed_at"]) == ("http://third.test", URL)
    assert third["advice"].endswith(" NOETL_WORKER_TRUSTED_SERVERS=http://second.test,http://third.test")
    assert "NOETL_WORKER_TRUSTED_SERVERS" in fourth["advice"]
    assert "pa55" not in str(fourth)


@pytest.mark.parametrize("url", ["nonsense", "http://a\nlevel=error", "x" * 10_000])
def test_name_that_is_no_url_is_logged_on_one_line_and_proposed_nowhere(url: str) -> None:
    """A server name with a log line of its own."""
    with capture_logs() as logs:
        Servers(settings()).choose_url(url)
    [line] = logs
    assert "\n" not in str(line["server_url"]) + line["advice"]
    assert url not in line["advice"]
    assert len(line["server_url"]) <= 300


def test_flood_of_made_up_servers_does_not_fill_the_log() -> None:
    """Hundreds of notifications, each with another server."""
    servers = Servers(settings())
    with capture_logs() as logs:
        for number in range(10 * MAX_SERVERS):
            servers.choose_url(f"http://{number}.test")
    assert len(logs) == MAX_SERVERS + 1
    assert "noetl_worker_servers_not_named_total" in logs[-1]["advice"]


# ── with real notifications ──


@asynccontextmanager
async def two_planes(dialect: Dialect = Dialect.PYTHON) -> AsyncIterator[tuple[House, DevControlPlane]]:
    """A house without a worker, and a second control plane that publishes into the same stream."""
    async with (
        house(dialect, worker=False) as home,
        DevControlPlane(PlaneSettings(dialect=dialect), nats_url=home.nats.url) as other,
    ):
        yield home, other


async def test_shell_command_of_a_stranger_does_not_run(dialect: Dialect, tmp_path: Path) -> None:
    """A publisher to NATS has a shell command run."""
    trace = tmp_path / "ran"
    async with two_planes(dialect) as (home, stranger):
        await home.start_worker()
        await stranger.create_commands([RawCommand("shell", {"command": f"touch {trace}"})])
        await until(lambda: home.plane.requests[CLAIM] >= 1, "asked for at the configured plane")
        [ours] = await home.plane.create_commands([NOOP])
        await home.wait_terminal(ours.event_id)
        assert stranger.requests.total() == 0
    assert not trace.exists()


async def test_setting_that_names_another_server(tmp_path: Path) -> None:
    async with (
        two_planes() as (home, other),
        worker_process(home, tmp_path, NOETL_WORKER_TRUSTED_SERVERS=other.url) as worker,
    ):
        [issued] = await other.create_commands([NOOP])
        await until(lambda: bool(other.events_of_command(issued.event_id, "command.completed")), "told there")
        assert await worker.stop() == 0


# ── credentials that another server refuses ──


async def test_other_server_that_refuses_the_credentials_pauses_itself_alone(dialect: Dialect) -> None:
    """A trusted server answers 401, and others wait."""
    async with two_planes(dialect) as (home, other):
        worker = await home.start_worker(NOETL_WORKER_TRUSTED_SERVERS=other.url)
        other.fault = lambda _: JSONResponse({"detail": "who are you?"}, 401)
        refused = await other.create_commands([NOOP])
        await until(lambda: worker.deliveries.settled.get("nak:auth_refused") == 1, "returned")
        asked = other.requests.total()
        with capture_logs() as logs:
            refused += await other.create_commands([NOOP] * 14)
            await until(lambda: worker.deliveries.settled.get("nak:auth_refused") == 15, "returned")
            assert other.requests.total() == asked  # it is paused: asked for none of them
            issued = await home.plane.create_commands([NOOP] * 20)
            await home.wait_terminal(*(one.event_id for one in issued))
            assert worker.health.ready
        assert not [line for line in logs if line["event"] == "auth_refused"]


@pytest.mark.parametrize("where", ["its claim", "its events"])
async def test_refusal_is_reported_to_the_plane_it_came_from(where: str, dialect: Dialect) -> None:
    """The same: which plane is paused, and for how long."""

    async def paused_by(url: str) -> tuple[list[str], float]:
        stopped: list[str] = []
        usual, refusals = script_for(dialect, {}, "noop"), iter([answer(403, {"detail": "no"})])

        def refused_once(method: str, path: str, body: Any) -> Any:
            if path.endswith("/claim") is (where == "its claim"):
                return next(refusals, usual(method, path, body))
            return usual(method, path, body)

        transport = ScriptedTransport(refused_once)
        made = execution(transport, dialect, Beats(), NOETL_WORKER_TRUSTED_SERVERS="http://second.test")
        ours = made.services.settings
        client = ControlPlaneClient(transport, ours, on_auth_refused=lambda: stopped.append(url))
        whole = dataclasses.replace(made, client=client)
        await whole.run(delivery(dialect, server_url=url))
        left_s = whole.client.servers.pause_left_s(url)
        return stopped, left_s

    assert await paused_by(URL) == ([URL], 0.0)
    stopped, left_s = await paused_by("http://second.test")
    assert (stopped, 0 < left_s <= 30) == ([], True)


async def test_paused_server_is_asked_again_when_its_time_is_over() -> None:
    trusted = settings(NOETL_CONTROL_PLANE="python", NOETL_WORKER_TRUSTED_SERVERS="http://second.test")
    client = ControlPlaneClient(ScriptedTransport(lambda *_: answer(200, {})), trusted)
    client.auth_refused("http://second.test")
    with pytest.raises(AuthRefused):
        await client.plane("http://second.test")
    assert (await client.plane("")).url == URL
    client.servers.paused.clear()
    assert (await client.plane("http://second.test")).url == "http://second.test"
