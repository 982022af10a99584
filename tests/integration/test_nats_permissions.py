"""The permissions on docs/operate.md: all that a worker needs, and what `doctor` says of more."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from integration.desk import DURABLE, account_of, desk
from integration.findings import by_check, not_fine, settings
from integration.house import House
from integration.processes import PROBES, Probe, until, worker_process
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import DevControlPlane, RawCommand
from noetl_worker.authoring.dev.settings import PlaneSettings
from noetl_worker.cli.doctor import State, nats
from noetl_worker.models import Dialect
from noetl_worker.remote.jetstream.api import ask

PAGE = Path(__file__, "../../../docs/operate.md").resolve()
LOGIN, ANYBODY = "NATS: this login", "NATS: without a login"


def permissions() -> str:
    [block] = re.findall(r"^```\n(publish: \{.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def users(worker_permissions: str) -> str:
    return f"""authorization {{ users: [
        {{ user: plane, password: p }}
        {{ user: w, password: p, permissions: {{ {worker_permissions} }} }}
    ] }}"""


async def test_worker_with_the_permissions_of_the_page_does_all_and_doctor_finds_nothing(tmp_path: Path) -> None:
    async with NatsServer(config=users(permissions())) as server:
        at = f"{server.host}:{server.port}"
        async with DevControlPlane(PlaneSettings(dialect=Dialect.RUST), nats_url=f"nats://plane:p@{at}") as plane:
            home, url = House(server, plane), f"nats://w:p@{at}"
            try:
                await home.start_worker(NATS_URL=url)
                [issued] = await plane.create_commands([RawCommand("shell", {"command": "true"})])
                await home.wait_terminal(issued.event_id)
                findings = await nats.examine(settings(tmp_path, NATS_URL=url))
            finally:
                await home.close()
    found = by_check(findings)
    assert (found[LOGIN].state, found[ANYBODY].state) == (State.FINE, State.FINE)
    # it may not list the consumers
    assert not_fine(findings).keys() <= {"stream: other durables"}


async def test_login_that_may_not_acknowledge_makes_the_worker_not_ready_until_it_may(tmp_path: Path) -> None:
    """1,000 commands were reported, then the pool stood, and the log advised a higher limit."""
    lacking = users(permissions().replace('"$JS.ACK.NOETL_COMMANDS.noetl_worker.>",', ""))
    async with NatsServer(config=lacking) as server:
        at = f"{server.host}:{server.port}"
        async with DevControlPlane(PlaneSettings(dialect=Dialect.RUST), nats_url=f"nats://plane:p@{at}") as plane:
            home = House(server, plane)
            poll = {**PROBES, "WORKER_NATS_LAG_POLL_INTERVAL": "1", "NATS_URL": f"nats://w:p@{at}"}
            poll |= {"NOETL_WORKER_MAX_ACK_PENDING": "16"}
            try:
                async with worker_process(home, tmp_path, **poll) as worker:
                    probe, refused = await worker.probe(), "NATS refuses the acknowledgements of this login"
                    await plane.create_commands([RawCommand("noop")] * 20)
                    assert (await worker.wait_logged("acks_refused"))["level"] == "error"
                    await until(lambda: is_reason(probe, refused), "not ready")
                    found = re.search(r'violations_total{what="acknowledge"} (\d+)', await probe.metrics())
                    assert found is not None
                    assert int(found[1]) >= 16
                    full = await worker.wait_logged("max_ack_pending_reached")
                    assert "MAX_ACK_PENDING" not in full["advice"]
                    config = server.log_path.with_name("nats-server.conf")
                    config.write_text(config.read_text().replace(lacking, users(permissions())))
                    os.kill(server.pid or 0, signal.SIGHUP)
                    await worker.wait_logged("acks_accepted_again")
                    await until(probe.is_ready, "ready again")
            finally:
                await home.close()


async def is_reason(probe: Probe, reason: str) -> bool:
    return await probe.why_not_ready() == reason


async def test_login_that_may_do_more_is_a_warning_that_names_it(tmp_path: Path) -> None:
    more = permissions().replace('"$JS.API.STREAM.NAMES"', '"$JS.API.>"')
    async with NatsServer(config=users(more)) as server:
        url = f"nats://w:p@{server.host}:{server.port}"
        found = by_check(await nats.examine(settings(tmp_path, NATS_URL=url)))[LOGIN]
        assert found.state is State.WARNING
        assert "delete streams" in found.found
        assert "publish to any subject" not in found.found
        assert "#permissions-in-nats" in found.fix


async def test_nats_without_a_login_is_a_warning_where_who_has_none_may_do_harm(tmp_path: Path) -> None:
    async with NatsServer() as server:
        found = by_check(await nats.examine(settings(tmp_path, NATS_URL=server.url)))
        assert found[ANYBODY].state is State.WARNING
        assert "a playbook's `nats` step too, may delete streams" in found[ANYBODY].found
        assert LOGIN not in found
        ignored = settings(tmp_path, NATS_URL=server.url, NATS_USER="w", NATS_PASSWORD="p")
        assert by_check(await nats.examine(ignored))[ANYBODY].state is State.WARNING
    harmless = '{user: guest, password: p, permissions: {publish: {deny: [">"]}}}'
    config = account_of(harmless).replace("no_auth_user: admin", "no_auth_user: guest")
    async with NatsServer(config=config) as server:
        url = f"nats://admin:p@{server.host}:{server.port}"
        found = by_check(await nats.examine(settings(tmp_path, NATS_URL=url)))
        assert (found[ANYBODY].state, found[LOGIN].state) == (State.FINE, State.WARNING)


async def test_looking_at_a_login_deletes_nothing(tmp_path: Path) -> None:
    async with desk() as there:
        await there.make_stream()
        await there.make_durable()
        await there.connection.client.publish("noetl.commands", b"{}")
        await nats.examine(settings(tmp_path, NATS_URL=there.server.url))
        assert await there.messages() == 1
        assert (await there.durable())["name"] == DURABLE
        names = await ask(there.connection.client, "STREAM.NAMES")
        assert names["streams"] == ["NOETL_COMMANDS"]
