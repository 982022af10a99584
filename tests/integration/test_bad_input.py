"""What a worker does with what it cannot use: one clear line and the right exit code, or a dead letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from closed_port import closed_port
from faults.scene import inside
from integration.house import house, noops
from integration.processes import one_line, refused_start, worker_process
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.dev.plane import RawCommand

# ── NATS at the start ──


NO_WAIT = {
    "NOETL_WORKER_WAIT": "false",
    **inside(SET="noetl_worker.remote.jetstream.connection:RETRY_S=0.05 noetl_worker.worker.startup:RETRY_S=0.05"),
}


async def test_nats_that_is_not_there_ends_a_start_that_does_not_wait_with_exit_3(tmp_path: Path) -> None:
    url = f"nats://user:s3cr3t@127.0.0.1:{closed_port()}"
    worker = await refused_start(tmp_path, NATS_URL=url, **NO_WAIT)
    assert worker.process.returncode == 3
    assert len(worker.logged("nats_unreachable")) == 1
    line = one_line(worker)
    assert "NATS_URL" in line
    assert url.rpartition("@")[2] in line
    assert "s3cr3t" not in worker.text


async def test_nats_without_jetstream_is_named(tmp_path: Path) -> None:
    account = 'accounts { A { users: [{user: a, password: "b"}] } }'  # no jetstream in this account
    async with NatsServer(config=account) as server:
        url = f"nats://a:b@{server.host}:{server.port}"
        worker = await refused_start(tmp_path, NATS_URL=url, **NO_WAIT)
        assert worker.process.returncode == 3
        assert "JetStream" in one_line(worker)
        assert worker.logged("jetstream_unanswered")


# ── the control plane at the start ──

PAGE = "<!DOCTYPE html>\n<html>\n<head><title>Welcome</title></head>\n" + "<p>not a control plane</p>\n" * 50


async def test_control_plane_that_answers_html_ends_the_start_and_names_the_setting(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        home.plane.fault = lambda _: HTMLResponse(PAGE)
        worker = await refused_start(tmp_path, **home.addresses)
        assert worker.process.returncode == 3
        line = one_line(worker)
        assert "NOETL_SERVER_URL" in line
        assert home.plane.url in line


# ── answers to a claim ──


async def test_claim_of_10_mb_runs(tmp_path: Path) -> None:
    async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
        big = RawCommand("python", {"code": "result = {'size': len(text)}"}, input={"text": "x" * 10_000_000})
        issued = await home.ran(big, *noops(3))
        assert home.terminal_events(issued[0].event_id) == ["command.completed"]
        [done] = home.plane.events_of_command(issued[0].event_id, "call.done")
        assert "10000000" in str(done.result)
        assert worker.memory_mb()[1] < 400
        assert await worker.stop() == 0


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
    "no action": JSONResponse({key: value for key, value in BODY.items() if key != "action"}),
    "no execution_id": JSONResponse({key: value for key, value in BODY.items() if key != "execution_id"}),
    "context is text": JSONResponse({**BODY, "context": "tool_config"}),
    "meta is a list": JSONResponse({**BODY, "meta": [1]}),
    "refused": JSONResponse({"detail": "no"}, 422),
}


async def test_claim_answers_that_make_no_sense_become_dead_letters_and_the_worker_goes_on(tmp_path: Path) -> None:
    async with house(worker=False) as home, worker_process(home, tmp_path) as worker:
        issued = await home.plane.create_commands(noops(len(BAD_CLAIMS)), publish=False)
        answers = {str(one.event_id): bad for one, bad in zip(issued, BAD_CLAIMS.values(), strict=True)}

        def fault(request: Request) -> Response | None:
            return answers.get(request.path_params.get("event_id", "")) if request.method == "POST" else None

        home.plane.fault = fault
        for one in issued:
            await home.plane.publish_again(one.event_id)
        dead_letters = await home.wait_dead_letters(len(BAD_CLAIMS))
        await home.wait_settled()
        home.plane.fault = None
        names = dict(zip(answers, BAD_CLAIMS, strict=True))
        kept = {names[str(json.loads(one["notification"])["event_id"])] for one in dead_letters}
        assert set(BAD_CLAIMS) - kept == set()
        assert all(one["reason"] for one in dead_letters)
        await home.ran(*noops(1))
        assert await worker.stop() == 0


async def test_action_of_a_wrong_type_is_told_as_failed() -> None:
    async with house() as home:
        home.plane.fault = lambda request: (
            JSONResponse({**BODY, "action": 7}) if request.url.path.endswith("/claim") else None
        )
        [one] = await home.ran(*noops(1))
        assert home.terminal_events(one.event_id) == ["command.failed"]
