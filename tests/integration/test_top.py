"""`noetl-worker top`, and GET /debug/inflight which it reads."""

from __future__ import annotations

import asyncio
import io
import json
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from closed_port import closed_port
from integration.house import house
from integration.processes import Ended, Gate, Probe, starting_process, typed, until
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.cli.views.top import worker_view
from noetl_worker.models import Envelope
from noetl_worker.observability.probe_server import ProbeServer
from noetl_worker.observability.probes import Health, make_pages
from noetl_worker.pipeline.delivery.in_flight_view import InFlightView
from noetl_worker.pipeline.stages import Progress
from noetl_worker.testing import HttpStub


async def asked(health: Health, host: str, token: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
    """The status, and what is in the answer."""
    lines = ["GET /debug/inflight HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    answer = await ProbeServer(make_pages(health), debug_token=token).respond("\r\n".join(lines).encode(), host)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


@pytest.mark.parametrize(
    ("host", "token", "headers", "status"),
    [
        ("127.0.0.1", "", {}, 200),
        ("::1", "", {}, 200),
        ("::ffff:127.0.0.1", "", {}, 200),
        ("10.0.0.7", "", {}, 403),
        ("::ffff:10.0.0.7", "", {}, 403),
        ("10.0.0.7", "", {"authorization": "Bearer "}, 403),
        ("10.0.0.7", "", {"x-forwarded-for": "127.0.0.1"}, 403),
        ("10.0.0.7", "right", {"authorization": "Bearer wrong"}, 403),
        ("10.0.0.7", "right", {"authorization": "Bearer right"}, 200),
        ("127.0.0.1", "right", {}, 200),
        ("127.0.0.1", "", {"Host": "127.0.0.1:9090"}, 200),
        ("::1", "", {"Host": "[::1]:9090"}, 200),
        ("127.0.0.1", "", {"Host": "localhost"}, 200),
        ("127.0.0.1", "", {"Host": "OWN-NAME:9090"}, 200),
        ("127.0.0.1", "", {"Host": "rebound.example:9090"}, 403),
        ("127.0.0.1", "", {"Host": "127.0.0.1.example"}, 403),
        ("127.0.0.1", "", {"Host": ""}, 403),
        ("127.0.0.1", "right", {"Host": "top.example", "authorization": "Bearer right"}, 200),
    ],
)
async def test_inflight_is_for_this_machine_and_for_who_has_the_token(
    host: str, token: str, headers: dict[str, str], status: int
) -> None:
    health = Health(in_flight=lambda: {"commands": []})
    headers = {name: text.replace("OWN-NAME", socket.gethostname()) for name, text in headers.items()}
    answered, body = await asked(health, host, token, **headers)
    assert answered == status
    assert ("commands" in body) is (status == 200)


async def test_step_that_is_named_like_a_token_is_not_in_the_answer() -> None:
    """The name of a step is a playbook's text, as what it writes into a log line is."""
    token = "ghp_" + "a1B2c3D4e5F6" * 3
    progress = Progress()
    progress.notification = Envelope(1, 2, "1:c:2", token, "", None, None)
    view = InFlightView({"task": progress}, {"worker_id": "w-1"})
    _, body = await asked(Health(in_flight=view), "127.0.0.1")
    [command] = body["commands"]
    assert (command["command_id"], token in json.dumps(body)) == ("1:c:2", False)


async def test_running_command_is_shown_with_its_ids_phase_and_time(tmp_path: Path) -> None:
    port, gate = free_port(), Gate(tmp_path)
    address = f"127.0.0.1:{port}"
    async with (
        house(worker=False) as home,
        starting_process(
            home, tmp_path, WORKER_METRICS_BIND=address, WORKER_ID="w-1", WORKER_MAX_CONCURRENT="3"
        ) as worker,
    ):
        await worker.wait_logged("pulling")
        [one] = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()}, step="slow")])
        await until(lambda: gate.runs == 1, "the tool runs")
        look = (await Probe(port).get("/debug/inflight")).json()
        [command] = look["commands"]
        assert (command["command_id"], command["step"]) == (str(one.command_id), "slow")
        assert (command["kind"], command["stage"], command["deliveries"]) == ("shell", "running", 1)
        assert command["seconds"] > 0
        assert look["worker"]["worker_id"].startswith("w-1")
        assert look["slots"]["size"] == 3
        shown = await asyncio.to_thread(typed, "top", address, "--once")
        assert (shown.code, shown.err) == (0, "")
        assert str(one.command_id) in shown.out
        told = await asyncio.to_thread(
            typed, "top", "--json", WORKER_METRICS_BIND=address, NOETL_WORKER_OUTBOX_DIR=home.outbox.name
        )
        assert json.loads(told.out)["address"] == address
        gate.open()
        await home.wait_terminal(one.event_id)
        await until(lambda: nothing_runs(port), "nothing runs")


async def test_workers_of_this_machine_are_found_without_an_address(tmp_path: Path) -> None:
    """By what each announces beside the outbox; one that was killed and has left its file there is not shown."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    async with house(worker=False) as home, AsyncExitStack() as stack:

        def top() -> Ended:
            variables = {"WORKER_METRICS_BIND": "", "NOETL_WORKER_OUTBOX_DIR": home.outbox.name}
            return typed("top", "--json", **variables)

        def found(ended: Ended) -> set[str]:
            return {json.loads(line)["address"] for line in ended.out.splitlines()}

        workers = []
        for number, address in enumerate(addresses):
            bind = address.replace("127.0.0.1", "0.0.0.0" if number else "127.0.0.1")
            starting = starting_process(home, tmp_path, f"worker-{number}", WORKER_METRICS_BIND=bind)
            workers.append(await stack.enter_async_context(starting))
        for worker in workers:
            await worker.wait_logged("pulling")
        assert found(await asyncio.to_thread(top)) == set(addresses)
        workers[0].signal(signal.SIGKILL)
        await workers[0].exit_code()
        assert found(await asyncio.to_thread(top)) == {addresses[1]}
        assert await workers[1].stop() == 0
        assert [path.name for path in Path(home.outbox.name).glob("*.probes")] == [f"{addresses[0]}.probes"]
        nobody = await asyncio.to_thread(top)
        assert nobody.code == 3
        assert f"no worker answers ({addresses[0]})" in nobody.out


@pytest.mark.parametrize(("is_named", "sent"), [(True, ["Bearer right"]), (False, [None])])
def test_token_is_sent_to_workers_that_are_named_and_to_nobody_who_was_found(
    is_named: bool, sent: list[str | None], tmp_path: Path
) -> None:
    """Who listens where a worker was may be another program."""
    with HttpStub() as stub:
        stub.answer("GET /debug/inflight", json={"worker": {"worker_id": "w"}, "commands": []})
        place = stub.url.removeprefix("http://")
        bind = {"WORKER_METRICS_BIND": "" if is_named else place, "NOETL_WORKER_OUTBOX_DIR": str(tmp_path / "outbox")}
        ended = typed("top", "--json", *([place] if is_named else []), **bind, NOETL_WORKER_DEBUG_TOKEN="right")
        assert (ended.code, json.loads(ended.out)["address"]) == (0, place)
        assert [request.headers.get("authorization") for request in stub.requests] == sent


async def nothing_runs(port: int) -> bool:
    return bool((await Probe(port).get("/debug/inflight")).json()["commands"] == [])


def test_address_that_is_none_and_a_worker_that_is_not_there() -> None:
    for text in ("worker", "[::1:9090", "h:123456"):
        wrong = typed("top", text)
        assert (wrong.code, len(wrong.err_lines)) == (2, 1)
        assert "HOST:PORT" in wrong.err
    away = typed("top", f"127.0.0.1:{closed_port()}", "--once")
    assert away.code == 3
    assert "no answer" in away.out


def shown(look: dict[str, Any], *, height: int | None = None, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(worker_view(look, height=height))
    return file.getvalue()


def test_view_fits_80_columns_and_writes_nothing_to_the_terminal_but_text() -> None:
    commands = [
        {"stage": "running", "kind": "python", "step": "\x1b[2Jclear" * 9, "seconds": at, "command_id": f"{at}:a:b"}
        for at in range(30)
    ]
    text = shown({"address": "h:1", "ready": False, "reason": "draining", "commands": commands}, height=5)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert "NOT READY: draining" in text
    assert " 29s " in text
    assert "... and 25 more" in text
