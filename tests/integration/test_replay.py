"""`noetl-worker replay`: a command of a plane, run here; the plane learns nothing of it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

from starlette.requests import Request

from closed_port import closed_port
from integration.house import House, house
from integration.processes import Ended, command_line, typed
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

ECHO = RawCommand("shell", {"command": "echo {{ who }}"}, render_context={"who": "ada"}, step="greet")

ONE_BATCH = {"NOETL_WORKER_STARTED_HOLD_MS": "10000"}
"""However slow the machine is, the start travels with the end."""


def variables(home: House) -> dict[str, str]:
    urls = {"NOETL_SERVER_URL": home.plane.url, "NATS_URL": f"nats://127.0.0.1:{closed_port()}", "WORKER_ID": "w"}
    return {**urls, **ONE_BATCH}


def ended(home: House, directory: Path, *arguments: str) -> Any:
    """As a process: it runs a tool, and hears signals."""
    return asyncio.to_thread(command_line, directory, "replay", *arguments, **variables(home))


def ended_before(home: House, *arguments: str) -> Any:
    """Of one that runs no tool."""
    return asyncio.to_thread(typed, "replay", *arguments, **variables(home))


async def test_command_runs_here_and_every_request_is_shown_and_none_sent(dialect: Dialect, tmp_path: Path) -> None:
    async with house(dialect, worker=False) as home:
        asked: Counter[str] = Counter()
        sent: list[Any] = []

        async def listen(request: Request) -> None:
            asked[request.method] += 1
            if request.method == "POST" and request.url.path.startswith("/api/events"):
                sent.append(json.loads(await request.body()))

        home.plane.fault = listen
        [one] = await home.plane.create_commands([ECHO])
        done: Ended = await ended(home, tmp_path, str(one.event_id), "--json")
        assert done.code == 0, done.err
        assert set(asked) == {"GET"}
        lines = [json.loads(line) for line in done.out.splitlines()]
        assert {line["method"] for line in lines} == {"POST"}
        assert "ada\\n" in done.out
        # The worker's own requests for the same command have the same events.
        await home.start_worker(WORKER_ID="w", **ONE_BATCH)
        await home.wait_terminal(one.event_id)
        shown = [names(line["body"]) for line in lines]
        assert shown == [names(body) for body in sent]


def names(body: dict[str, Any]) -> list[str]:
    return [event["name"] for event in body["events"]] if "events" in body else [body["event_type"]]


async def test_dry_shows_the_rendered_config_and_runs_nothing(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        file = tmp_path / "ran"
        config = {"command": "touch {{ file }}", "env": {"API_TOKEN": "abc-secret-123"}}
        [one] = await home.plane.create_commands([RawCommand("shell", config, render_context={"file": str(file)})])
        done: Ended = await ended_before(home, str(one.event_id), "--dry")
        assert done.code == 0, done.err
        shown = json.loads(done.out)
        assert shown["command"] == f"touch {file}"
        assert "abc-secret-123" not in done.out
        assert not file.exists()


async def test_config_that_is_wrong_is_told_as_the_worker_would(tmp_path: Path) -> None:
    async with house(worker=False) as home:
        [one] = await home.plane.create_commands([RawCommand("shell", {})])
        dry: Ended = await ended_before(home, str(one.event_id), "--dry")
        assert (dry.code, dry.out) == (1, "")
        assert "field 'command'" in dry.err
        whole: Ended = await ended(home, tmp_path, str(one.event_id))
        assert whole.code == 1
        assert "call.error" in whole.out


async def test_command_id_of_the_rust_plane_names_its_event() -> None:
    """In a loop with the item behind it."""
    async with house(Dialect.RUST, worker=False) as home:
        [one] = await home.plane.create_commands([ECHO])
        for name in (str(one.command_id), f"{one.command_id}:i3"):
            done: Ended = await ended_before(home, name, "--dry")
            assert (done.code, json.loads(done.out)["command"]) == (0, "echo ada")


async def test_command_that_is_not_there_is_said() -> None:
    async with house(Dialect.RUST, worker=False) as home:
        unknown: Ended = await ended_before(home, "4242")
        assert (unknown.code, unknown.out, len(unknown.err_lines)) == (5, "", 1)
        assert "knows no command of the event 4242" in unknown.err
