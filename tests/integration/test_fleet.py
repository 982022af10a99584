"""`noetl-worker top --fleet`: the workers of a durable on any machine, over NATS or by the plane's registry."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats
import pytest

from closed_port import closed_port
from integration.house import House, house
from integration.machines import machine
from integration.processes import Ended, Gate, WorkerProcess, typed, until
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.remote.plane.registered_workers import registered_workers
from unit.planes import answer, plane

SAMPLES = Path(__file__).parents[1] / "compat" / "samples"


async def top(home: House, *words: str, **variables: str) -> Ended:
    """On the machine of an operator, which has no worker."""
    given = {**home.addresses, "NOETL_WORKER_OUTBOX_DIR": "/nowhere", "WORKER_METRICS_BIND": "", **variables}
    return await asyncio.to_thread(typed, "top", "--fleet", *words, **given)


def workers_of(ended: Ended) -> dict[str, Any]:
    looks = [json.loads(line) for line in ended.out.splitlines()]
    return {look["worker"]["worker_id"][:3]: look for look in looks if "worker" in look}


@pytest.mark.parametrize("is_apart", [True, False], ids=["networks of their own", "one network and no probes"])
async def test_workers_of_two_machines_are_seen_from_a_desk_that_reaches_none_of_them(
    is_apart: bool, tmp_path: Path
) -> None:
    """Two workers on one machine and one on another, with files of their own. Where it can be their networks are too:
    their probes are then on the same port of each one's loopback."""
    gate = Gate(tmp_path)
    async with house(worker=False) as home, AsyncExitStack() as stack:
        ports = (home.nats.port, urlsplit(home.plane.url).port or 0)
        machines = [await stack.enter_async_context(machine(*ports)) for _ in range(2 * is_apart)]
        here = f"127.0.0.1:{closed_port()}"
        for name, place, probes in (("w-1", 0, here), ("w-2", 0, ""), ("w-3", 1, here)):
            own = {"NOETL_WORKER_OUTBOX_DIR": str(tmp_path / f"machine-{place}")}
            own["WORKER_METRICS_BIND"] = probes if is_apart else ""
            given = {**home.variables, **own, "WORKER_ID": name, "NOETL_WORKER_FLEET": "nats"}
            start = partial(WorkerProcess, tmp_path, name, given, ["run"])
            worker = await machines[place].run(start) if is_apart else start()
            stack.callback(worker.end)
            await worker.wait_logged("pulling")
        waits = RawCommand("shell", {"command": gate.command()}, step="slow")
        issued = await home.plane.create_commands([waits] * 3)
        await until(lambda: gate.runs == 3, "all run")

        async def all_show_what_runs() -> bool:
            found = workers_of(await top(home, "--json", NOETL_WORKER_FLEET="nats"))
            running = {one["command_id"] for look in found.values() for one in look["commands"]}
            return set(found) == {"w-1", "w-2", "w-3"} and running == {str(one.command_id) for one in issued}

        await until(all_show_what_runs, "three workers with three commands")
        shown = await top(home, "--once", NOETL_WORKER_FLEET="nats")
        assert (shown.code, shown.err, shown.out.count("ready: pulling")) == (0, "", 3)
        print(shown.out)
        without = await asyncio.to_thread(typed, "top", here, "--once", **home.addresses)
        assert without.code == 3, without.out
        gate.open()
        await home.wait_terminal(*(one.event_id for one in issued))


async def test_worker_answers_again_after_a_restart_of_nats() -> None:
    async with house(NOETL_WORKER_FLEET="nats") as home:

        async def is_seen() -> bool:
            return (await top(home, "--json", NOETL_WORKER_FLEET="nats")).code == 0

        await until(is_seen, "it answers")
        await home.nats.restart()
        await until(is_seen, "it answers again")


async def test_nobody_answers_where_no_worker_is_asked_to() -> None:
    async with house() as home:
        ended = await top(home, "--once", NOETL_WORKER_FLEET="nats")
    assert ended.code == 3
    assert "start workers with NOETL_WORKER_FLEET=nats" in ended.out


@pytest.mark.parametrize("dialect", Dialect)
async def test_registry_tells_what_it_knows(dialect: Dialect) -> None:
    async with house(dialect, WORKER_ID="pod-0", WORKER_POOL_NAME="gpu") as home:
        await until(lambda: bool(home.plane.registry.runtimes), "it is registered")
        ended = await top(home, "--once")
        assert (ended.code, ended.err) == (0, "")
        assert "pod-0" in ended.out
        assert "last heartbeat 20" in ended.out
        assert ("pool gpu" in ended.out) is (dialect is Dialect.RUST), "the Python plane does not say it"


@pytest.mark.parametrize(
    ("dialect", "file", "case", "names"),
    [
        (Dialect.PYTHON, "python", "runtime-pools", ["rec-a", "rec-b", "rec-c", "rec-new", "rec-reg"]),
        (Dialect.RUST, "rust", "pools", ["hand-1", "hand-2", "rust-worker-1"]),
    ],
)
async def test_registry_is_read_as_it_was_recorded(dialect: Dialect, file: str, case: str, names: list[str]) -> None:
    text = (SAMPLES / f"{file}-control-plane-cases.jsonl").read_text(encoding="utf-8")
    recorded = next(row for row in map(json.loads, text.splitlines()) if row["case"] == case)
    at, _ = plane(lambda *_: answer(recorded["status"], recorded["resp"]), dialect)
    found = await registered_workers(at.client, "noetl_worker")
    assert [worker.name.removeprefix("worker-") for worker in found] == names
    assert all(worker.heartbeat and worker.status for worker in found)
    assert await registered_workers(at.client, "another") == found, "none of these says whose durable it serves"


async def test_status_of_a_worker_with_more_commands_than_a_message_takes_is_cut(tmp_path: Path) -> None:
    from noetl_worker.remote.jetstream.fleet import answer_until_cancelled, ask_all
    from noetl_worker.settings.settings import load_settings

    commands = [{"command_id": str(number), "seconds": number, "step": "s" * 200} for number in range(10_000)]

    async def state() -> tuple[int, dict[str, Any]]:
        return 200, {"commands": commands, "worker": {"worker_id": "w"}}

    async with house(worker=False) as home:
        settings = load_settings(home.addresses)
        async with await nats.connect(home.nats.url) as client:

            class Connected:
                is_connected = True

            connected: Any = Connected()
            connected.client = client
            answering = asyncio.ensure_future(answer_until_cancelled(connected, settings, state))
            await asyncio.sleep(0)
            await client.flush()
            [look] = await ask_all(client, settings)  # type: ignore[arg-type]
            answering.cancel()
    assert 100 < len(look["commands"]) < len(commands)
    assert look["commands"][0]["command_id"] == "9999", "the longest running first"
