"""What a worker does with a house in which something is wrong: one clear line, the right exit code, nothing lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerConfig
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from faults.scene import inside
from integration.house import CLAIM, House, house, run
from integration.processes import (
    ON_DISK,
    SHORT_LEASES,
    Gate,
    Probe,
    one_line,
    refused_start,
    starting_process,
    until,
    worker_process,
)
from integration.test_pipeline import mixed
from noetl_worker.dev.nats_server import NatsServer, free_port
from noetl_worker.dev.plane import DevControlPlane, RawCommand
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.models import Dialect

PASSWORD, TOKEN, INTERNAL = "s3cr3t/pa:ss@wörd", "t0ken-of-nats", "internal-t0ken"


BEAT = "POST /api/worker/pool/heartbeat"


def noops(count: int) -> list[RawCommand]:
    return [RawCommand("noop") for _ in range(count)]


# ── settings and NATS at the start ──


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WORKER_MAX_CONCURRENT", "many"),
        ("NATS_URL", "http://user:s3cr3t@nats:4222"),
        ("NOETL_SERVER_URL", "noetl:8082"),
        ("WORKER_METRICS_BIND", "9090"),
        ("NOETL_CONTROL_PLANE", "java"),
        ("NOETL_TLS_CA", "/nowhere/ca.pem"),
        ("NOETL_WORKER_LOOP", "trio"),
        ("NOETL_WORKER_ENGINE", "fortran"),
    ],
)
def test_setting_that_does_not_parse_is_named_in_one_line(variable: str, value: str, tmp_path: Path) -> None:
    worker = run(refused_start(tmp_path, **{variable: value}))
    assert worker.process.returncode == 2
    assert variable in one_line(worker)
    assert "s3cr3t" not in worker.text


def test_nats_that_is_not_there_ends_the_start_with_exit_3(tmp_path: Path) -> None:
    url = f"nats://user:s3cr3t@127.0.0.1:{free_port()}"
    at_once = inside(SET="noetl_worker.jetstream.connection:RETRY_S=0.05")
    worker = run(refused_start(tmp_path, NATS_URL=url, **at_once))
    assert worker.process.returncode == 3
    assert len(worker.logged("nats_unreachable")) == 4
    line = one_line(worker)
    assert "NATS_URL" in line
    assert url.rpartition("@")[2] in line
    assert "s3cr3t" not in worker.text


def test_durable_with_another_filter_is_refused_with_the_command_that_mends_it(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home:
            client = await nats.connect(home.nats.url)
            config = ConsumerConfig(durable_name="noetl_worker", filter_subject="noetl.commands.gpu")
            await client.jsm().add_consumer("NOETL_COMMANDS", config)
            await client.close()
            worker = await refused_start(tmp_path, NATS_URL=home.nats.url, NOETL_SERVER_URL=home.plane.url)
            assert worker.process.returncode == 3
            line = one_line(worker)
            assert "nats consumer edit NOETL_COMMANDS noetl_worker --filter 'noetl.commands'" in line
            assert "noetl.commands.gpu" in line

    run(go())


def test_nats_without_jetstream_is_named(tmp_path: Path) -> None:
    async def go() -> None:
        account = 'accounts { A { users: [{user: a, password: "b"}] } }'  # no jetstream in this account
        async with NatsServer(config=account) as server:
            url = f"nats://a:b@{server.host}:{server.port}"
            worker = await refused_start(tmp_path, NATS_URL=url)
            assert worker.process.returncode == 3
            assert "JetStream" in one_line(worker)

    run(go())


# ── logins ──

ACCOUNTS = f"""
accounts {{
  NOETL {{
    jetstream: enabled
    users: [
      {{user: "noetl", password: {json.dumps(PASSWORD, ensure_ascii=False)}}}
      {{user: "plane", password: "plane"}}
    ]
  }}
  OTHER {{ users: [{{user: "other", password: "other"}}] }}
}}
"""
QUOTED = "s3cr3t%2Fpa%3Ass%40w%C3%B6rd"


@asynccontextmanager
async def gated_house(config: str, login: str) -> AsyncIterator[tuple[House, str]]:
    """A house whose NATS asks for a login, the plane's being `login`; and its host:port."""
    async with NatsServer(config=config) as server:
        address = f"{server.host}:{server.port}"
        async with DevControlPlane(PlaneSettings(), nats_url=f"nats://{login}@{address}") as plane:
            home = House(server, plane)
            yield home, address
            await home.close()


WITH_ACCOUNTS = {
    "user-info of the URL": {"NATS_URL": "nats://noetl:" + QUOTED + "@{address}"},
    "NATS_USER and NATS_PASSWORD": {
        "NATS_URL": "nats://{address}",
        "NATS_USER": "noetl",
        "NATS_PASSWORD": PASSWORD,
    },
    "variables before the URL": {
        "NATS_URL": "nats://somebody:else@{address}",
        "NATS_USER": "noetl",
        "NATS_PASSWORD": PASSWORD,
    },
}


@pytest.mark.parametrize("how", WITH_ACCOUNTS)
def test_user_and_password_are_taken_and_never_shown(how: str, tmp_path: Path) -> None:
    async def go() -> None:
        async with gated_house(ACCOUNTS, "plane:plane") as (home, address):
            variables = {name: value.format(address=address) for name, value in WITH_ACCOUNTS[how].items()}
            await runs_and_keeps_secrets(home, tmp_path, **variables)

    run(go())


@pytest.mark.parametrize("url", ["nats://{address}", f"nats://{TOKEN}@{{address}}"], ids=["NATS_TOKEN", "URL"])
def test_token_is_taken_and_never_shown(url: str, tmp_path: Path) -> None:
    async def go() -> None:
        async with gated_house(f'authorization {{ token: "{TOKEN}" }}', TOKEN) as (home, address):
            variables = {"NATS_URL": url.format(address=address)}
            if TOKEN not in url:
                variables["NATS_TOKEN"] = TOKEN
            await runs_and_keeps_secrets(home, tmp_path, **variables)

    run(go())


async def runs_and_keeps_secrets(home: House, directory: Path, **variables: str) -> None:
    """The worker works; no secret is in its log at its most talkative, nor in the plane's registry."""
    tokens: set[str | None] = set()

    def look(request: Request) -> None:
        tokens.add(request.headers.get("authorization"))

    home.plane.fault = look
    everything = {"NOETL_INTERNAL_API_TOKEN": INTERNAL, "LOG_LEVEL": "debug", **variables}
    async with worker_process(home, directory, **everything) as worker:
        await worker.wait_logged("registered")
        issued = await home.plane.create_commands(noops(3))
        await home.wait_terminal(*(one.event_id for one in issued))
        rows = [tuple(row) for row in home.plane.log.db.execute("SELECT * FROM runtimes").fetchall()]
        assert await worker.stop() == 0
    assert tokens == {f"Bearer {INTERNAL}"}
    assert len(rows) == 1
    for secret in (PASSWORD, QUOTED, "s3cr3t", TOKEN, INTERNAL):
        assert secret not in worker.text
        assert secret not in str(rows)


REFUSED_LOGINS = {
    "none": {},
    "wrong password": {"NATS_USER": "noetl", "NATS_PASSWORD": "wr0ng-one"},
    "wrong token": {"NATS_TOKEN": "wr0ng-one"},
}


@pytest.mark.parametrize("how", REFUSED_LOGINS)
def test_login_that_nats_refuses_ends_the_start_with_exit_3(how: str, tmp_path: Path) -> None:
    async def go() -> None:
        async with NatsServer(config=ACCOUNTS) as server:
            worker = await refused_start(tmp_path, NATS_URL=server.url, **REFUSED_LOGINS[how])
            assert worker.process.returncode == 3
            line = one_line(worker)
            assert "NATS_USER" in line
            assert server.url in line
            assert "wr0ng-one" not in worker.text

    run(go())


# ── the control plane at the start ──

PAGE = "<!DOCTYPE html>\n<html>\n<head><title>Welcome</title></head>\n" + "<p>not a control plane</p>\n" * 50


def test_control_plane_that_answers_html_ends_the_start_and_names_the_setting(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home:
            home.plane.fault = lambda _: HTMLResponse(PAGE)
            worker = await refused_start(tmp_path, NATS_URL=home.nats.url, NOETL_SERVER_URL=home.plane.url)
            assert worker.process.returncode == 3
            line = one_line(worker)
            assert "NOETL_SERVER_URL" in line
            assert home.plane.url in line

    run(go())


def test_control_plane_that_is_down_at_the_start_is_waited_for(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home:
            port = free_port()
            [one] = await home.plane.create_commands(noops(1))
            await home.plane.stop()
            bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"}
            async with starting_process(home, tmp_path, **bind) as worker:
                warning = await worker.wait_logged("control_plane_unreachable")
                assert warning["level"] == "warning"
                await until(lambda: any("NOETL_SERVER_URL" in str(record) for record in unreachable(worker)), "advice")
                probe = Probe(port)
                assert (await probe.get("/livez")).status_code == 200
                assert await probe.why_not_ready() is not None
                await home.plane.start()
                await worker.wait_logged("pulling")
                await until(probe.is_ready, "ready")
                await home.wait_terminal(one.event_id)
                assert await worker.stop() == 0

    run(go())


def unreachable(worker: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = worker.logged("control_plane_unreachable")
    return found


# ── outages while it works ──


COUNTS = "it counts the events of hundreds of commands on its own loop; the worker is a process of its own"


async def all_end_once(home: House, event_ids: list[int], *, timeout_s: float = 20.0) -> None:
    await home.wait_terminal(*event_ids, timeout_s=timeout_s)
    await home.wait_settled(timeout_s=15)
    assert [len(home.terminal_events(one)) for one in event_ids] == [1] * len(event_ids)
    for one in event_ids:
        assert len(home.plane.events_of_command(one, "call.done", "call.error")) <= 1
    assert await home.dead_letters() == []


@pytest.mark.heavy_on_loop(reason=COUNTS)
@pytest.mark.parametrize("dialect", Dialect)
def test_control_plane_that_dies_and_comes_back_loses_nothing(dialect: Dialect, tmp_path: Path) -> None:
    async def go() -> None:
        async with house(dialect, worker=False) as home, worker_process(home, tmp_path) as worker:
            slow = [RawCommand("shell", {"command": "sleep 0.7"}) for _ in range(4)]
            issued = await home.plane.create_commands([*slow, *(mixed(number) for number in range(100))])
            await home.plane.wait_until(lambda: len(ended(home, issued)) >= 5)
            async with home.plane.outage():
                await until(lambda: "events_not_accepted" in worker.text, "events that are held back")
            await all_end_once(home, [one.event_id for one in issued])
            assert await worker.stop() == 0

    run(go())


def test_stop_while_the_control_plane_is_away_loses_nothing(tmp_path: Path) -> None:
    """The outcome is known and cannot be told: the message goes back, and the command ends once elsewhere."""

    async def go() -> None:
        gate = Gate(tmp_path)
        variables = {"WORKER_ID": "pod-0", "NOETL_WORKER_DRAIN_TIMEOUT_S": "1", "NOETL_WORKER_ACK_WAIT_S": "2"}
        async with house(worker=False, plane=SHORT_LEASES) as home:
            async with worker_process(home, tmp_path, "first", **variables) as first:
                [one] = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})])
                await home.plane.wait_until(lambda: started(home, one.event_id))
                async with home.plane.outage():
                    gate.open()
                    await first.wait_logged("events_not_accepted")
                    first.signal()
                    asked = time.monotonic()
                    assert await first.exit_code() == 4
                    assert time.monotonic() - asked < 1 + 5
                assert home.terminal_events(one.event_id) == []
                assert await home.unsettled() == 1
            async with worker_process(home, tmp_path, "second", **variables) as second:
                await home.wait_terminal(one.event_id)
                assert await second.stop() == 0
            assert len(home.terminal_events(one.event_id)) == 1

    run(go())


def started(home: House, event_id: int) -> bool:
    return bool(home.plane.events_of_command(event_id, "command.started"))


def test_control_plane_that_never_answers_does_not_hold_a_stop(tmp_path: Path) -> None:
    async def go() -> None:
        variables = {"NOETL_WORKER_DRAIN_TIMEOUT_S": "1", "NOETL_WORKER_ACK_WAIT_S": "2"}
        async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
            reached, over = asyncio.Event(), asyncio.Event()

            async def hang(request: Request) -> Response:
                if request.url.path.endswith("/claim"):  # a heartbeat may be the first to hang
                    reached.set()
                await over.wait()
                return Response(status_code=503)

            home.plane.fault = hang
            await home.plane.create_commands(noops(3))
            await asyncio.wait_for(reached.wait(), 10)
            worker.signal()
            asked = time.monotonic()
            assert await worker.exit_code() == 4
            assert time.monotonic() - asked < 1 + 5
            assert await home.unsettled() == 3
            over.set()

    run(go())


def ended(home: House, issued: Any) -> list[int]:
    return [one.event_id for one in issued if home.terminal_events(one.event_id)]


@pytest.mark.heavy_on_loop(reason=COUNTS)
@pytest.mark.parametrize("how", ["restart", "crash"])
def test_nats_that_goes_away_amid_200_commands_loses_nothing(how: str, tmp_path: Path) -> None:
    async def go() -> None:
        variables = {"NOETL_WORKER_ACK_WAIT_S": "2", "WORKER_MAX_CONCURRENT": "8"}
        disk = {**ON_DISK, "reaper_interval_s": 1.0, "pending_retry_s": 2.0}  # a crash may lose what was just published
        async with (
            house(worker=False, plane=disk) as home,
            worker_process(home, tmp_path, **variables) as worker,
        ):
            issued = await home.plane.create_commands([mixed(number) for number in range(200)])
            await home.plane.wait_until(lambda: len(ended(home, issued)) >= 40)
            await (home.nats.kill() if how == "crash" else home.nats.stop())
            await home.nats.start()
            await all_end_once(home, [one.event_id for one in issued])
            assert worker.logged("nats_reconnected")
            assert await worker.stop() == 0

    run(go())


def test_refused_credentials_stop_the_pull_and_let_in_again_it_goes_on(tmp_path: Path) -> None:
    async def go() -> None:
        port = free_port()
        variables = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}", "WORKER_NATS_LAG_POLL_INTERVAL": "1"}
        async with house(worker=False) as home, worker_process(home, tmp_path, **variables) as worker:
            probe = Probe(port)
            await until(probe.is_ready, "ready")
            home.plane.fault = lambda _: JSONResponse({"detail": "who are you?"}, 401)
            [refused] = await home.plane.create_commands(noops(1))

            async def cut_off() -> bool:
                return "credentials" in (await probe.why_not_ready() or "")

            await until(cut_off, "not ready when refused")
            claims = home.plane.requests[CLAIM]
            later = await home.plane.create_commands(noops(20))
            await until(lambda: home.plane.requests[BEAT] >= 2, "asked whether it is let in")
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
            assert await home.unsettled() >= 1  # given back, not lost
            assert await worker.stop() == 0

    run(go())


# ── answers to a claim ──


def test_claim_of_10_mb_runs(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
            big = RawCommand("python", {"code": "result = {'size': len(text)}"}, input={"text": "x" * 10_000_000})
            issued = await home.plane.create_commands([big, *noops(3)])
            await home.wait_terminal(*(one.event_id for one in issued))
            assert home.terminal_events(issued[0].event_id) == ["command.completed"]
            [done] = home.plane.events_of_command(issued[0].event_id, "call.done")
            assert "10000000" in str(done.result)
            assert worker.memory_mb()[1] < 400
            assert await worker.stop() == 0

    run(go())


BODY: dict[str, Any] = {
    "status": "ok",
    "event_id": 1,
    "execution_id": 1,
    "node_id": "start",
    "node_name": "start",
    "action": "noop",
    "context": {"tool_config": {}, "input": {}},
    "meta": {},
}
BAD_CLAIMS: dict[str, Response] = {
    "html": HTMLResponse(PAGE),
    "empty": Response(b""),
    "cut": Response(json.dumps(BODY).encode()[:40], media_type="application/json"),
    "null": JSONResponse(None),
    "list": JSONResponse([BODY]),
    "no action": JSONResponse({key: value for key, value in BODY.items() if key != "action"}),
    "no execution_id": JSONResponse({key: value for key, value in BODY.items() if key != "execution_id"}),
    "context is text": JSONResponse({**BODY, "context": "tool_config"}),
    "meta is a list": JSONResponse({**BODY, "meta": [1]}),
    "refused": JSONResponse({"detail": "no"}, 422),
}


def test_claim_answers_that_make_no_sense_become_dead_letters_and_the_worker_goes_on(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
            issued = await home.plane.create_commands(noops(len(BAD_CLAIMS)), publish=False)
            answers = {str(one.event_id): bad for one, bad in zip(issued, BAD_CLAIMS.values(), strict=True)}

            def fault(request: Request) -> Response | None:
                return answers.get(request.path_params.get("event_id", "")) if request.method == "POST" else None

            home.plane.fault = fault
            for one in issued:
                await home.plane.publish_again(one.event_id)
            await home.wait_settled()
            home.plane.fault = None
            names = dict(zip(answers, BAD_CLAIMS, strict=True))
            kept = {names[str(json.loads(letter["notification"])["event_id"])] for letter in await home.dead_letters()}
            assert set(BAD_CLAIMS) - kept == set()
            assert all(letter["reason"] for letter in await home.dead_letters())
            [good] = await home.plane.create_commands(noops(1))
            await home.wait_terminal(good.event_id)
            assert await worker.stop() == 0

    run(go())


def test_action_of_a_wrong_type_is_told_as_failed(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
            home.plane.fault = lambda request: (
                JSONResponse({**BODY, "action": 7}) if request.url.path.endswith("/claim") else None
            )
            [one] = await home.plane.create_commands(noops(1))
            await home.wait_terminal(one.event_id)
            await home.wait_settled()
            assert home.terminal_events(one.event_id) == ["command.failed"]
            assert await worker.stop() == 0

    run(go())


def test_unknown_tool_kind_is_told_as_failed_with_the_kinds_there_are(tmp_path: Path) -> None:
    async def go() -> None:
        async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
            [one] = await home.plane.create_commands([RawCommand("teleport", {})])
            await home.wait_terminal(one.event_id)
            [failed] = home.plane.events_of_command(one.event_id, "command.failed")
            told = str(failed.result) + str(failed.error) + str(failed.context)
            assert "teleport" in told
            assert "shell" in told
            assert await worker.stop() == 0

    run(go())
