"""`make scale`: many worker processes on one durable, and what one of them costs NATS and the plane.

bench_scale.py            runs it (some three minutes), and writes scale.json and docs/scale.md
bench_scale.py page       writes that page again from scale.json

A real nats-server, the stub plane and WORKERS worker processes below one supervisor share the machine. The run fails
when a command is lost or ends twice, or when the share of one worker is more than a fifth beside the mean.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import nats

import scale_page
from bench_worker import where_and_when
from measured_process import cpu_s, rss_mb
from noetl_worker.authoring.dev.nats_server import free_port
from rig import Rig, Side, rig
from stub_plane import Answers
from unit_costs import nats_units

WORKERS: Final = 20
COMMANDS: Final = 50_000
SLOTS: Final = 16
SHARE: Final = 0.2
IDLE_S: Final = 60.0
"""Two times the longest rhythm of an idle worker: its pull request expires after 30 s."""
HELD_S: Final = 30.0
HELD_SLOTS: Final = 4
NATS_UNITS: Final = 20_000
_WAITING: Final = 1000


@dataclass(frozen=True)
class Reading:
    """What the servers have counted so far, NATS on all connections but the load's."""

    at: float
    messages: float
    message_bytes: float
    in_progress: float
    """Of those, what is said of running commands: it has a connection of its own."""
    in_progress_bytes: float
    requests: dict[str, float]
    request_bytes: dict[str, float]
    nats_cpu_s: float
    workers_cpu_s: float

    def rates_since(self, before: Reading, among: float) -> dict[str, Any]:
        """A second, and for each of `among`."""
        seconds = (self.at - before.at) * among
        return {
            "nats_messages": (self.messages - before.messages) / seconds,
            "nats_bytes": (self.message_bytes - before.message_bytes) / seconds,
            "in_progress": (self.in_progress - before.in_progress) / seconds,
            "in_progress_bytes": (self.in_progress_bytes - before.in_progress_bytes) / seconds,
            "nats_cpu_us": (self.nats_cpu_s - before.nats_cpu_s) / seconds * 1e6,
            "requests": {
                name: (number - before.requests.get(name, 0)) / seconds for name, number in self.requests.items()
            },
            "request_bytes": {
                name: (number - before.request_bytes.get(name, 0)) / seconds
                for name, number in self.request_bytes.items()
            },
            "worker_cpu_us": (self.workers_cpu_s - before.workers_cpu_s) / seconds * 1e6,
        }


class Pool:
    """The workers on one durable."""

    def __init__(self, here: Rig, side: Side, monitoring: int) -> None:
        self._here: Final = here
        self.side: Final = side
        self._monitoring: Final = monitoring

    async def reading(self) -> Reading:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = (await client.get(f"http://127.0.0.1:{self._monitoring}/connz?limit=10000")).json()
        ours = [one for one in answer["connections"] if one.get("name", "").startswith("noetl-worker")]
        keepalive = [one for one in ours if one["name"].startswith("noetl-worker keepalive")]
        stats = await self.side.load.stats()
        return Reading(
            time.monotonic(),
            sum(one["in_msgs"] + one["out_msgs"] for one in ours),
            sum(one["in_bytes"] + one["out_bytes"] for one in ours),
            sum(one["in_msgs"] for one in keepalive),
            sum(one["in_bytes"] for one in keepalive),
            stats["requests"],
            stats["bytes"],
            cpu_s(self._here.nats_pid),
            self.side.cpu_s(),
        )

    async def pulling(self, workers: int) -> None:
        """Wait until so many pull requests are open."""
        client = await nats.connect(self._here.nats_url)
        try:
            deadline = time.monotonic() + 60
            while (info := await client.jsm().consumer_info("worker", "worker")).num_waiting != workers:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{info.num_waiting} of {workers} workers pull")
                await asyncio.sleep(0.1)
        finally:
            await client.close()

    async def watched(self, seconds: float, among: int) -> dict[str, Any]:
        before = await self.reading()
        await asyncio.sleep(seconds)
        return (await self.reading()).rates_since(before, among)

    async def held(self, among: int) -> dict[str, Any]:
        """What commands cost while they run: NATS hears that they are in progress, the plane is asked for them."""
        answers = Answers(kind="shell", config={"command": f"sleep {HELD_S + 15:g}"})
        sending = asyncio.ensure_future(self.side.load.send(answers, among))
        while (await self.side.load.stats())["requests"].get("claim", 0) < among:
            self.side.check()
            await asyncio.sleep(0.2)
        found = await self.watched(HELD_S, among)
        await sending
        return found

    async def load(self, commands: int, workers: int) -> dict[str, Any]:
        """All of the commands at once: what one costs, how fast, and who got how many."""
        before = await self.reading()
        sent = await self.side.load.send(Answers(), commands, timeout_s=600)
        after = await self.reading()
        stats = await self.side.load.stats()
        given = sorted(stats["workers"].values())
        mean = commands / workers
        return {
            "commands": commands,
            "commands_per_s": commands / sent.seconds,
            "ended": stats["done"],
            "ended_twice": stats["done_twice"],
            "claims": stats["requests"]["claim"],
            "workers": len(given),
            "least": given[0],
            "most": given[-1],
            "beside_the_mean": max(mean - given[0], given[-1] - mean) / mean,
            "nats_messages": (after.messages - before.messages) / commands,
            "nats_bytes": (after.message_bytes - before.message_bytes) / commands,
            "nats_cpu_us": (after.nats_cpu_s - before.nats_cpu_s) / commands * 1e6,
            "worker_cpu_us": (after.workers_cpu_s - before.workers_cpu_s) / commands * 1e6,
            "requests": {name: number / commands for name, number in sent.requests.items()},
            "request_bytes": {name: number / commands for name, number in stats["bytes"].items()},
            "rss_mb": rss_mb(self.side.pid),
        }


async def with_pool(workers: int, slots: int, work: Callable[[Pool], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    port = free_port()
    async with rig(f'http: "127.0.0.1:{port}"') as here:
        variables = {"NOETL_WORKER_PROCESSES": str(workers)}
        async with here.worker(slots, **variables) as side:
            pool = Pool(here, side, port)
            await pool.pulling(workers)
            return await work(pool)


async def open_pulls() -> dict[str, int]:
    """How many pull requests one durable keeps open, of as many as a thousand idle workers send."""
    async with rig() as here:
        client = await nats.connect(here.nats_url)
        try:
            await client.jetstream().add_stream(name="waiting", subjects=["waiting"])
            await client.jsm().add_consumer("waiting", durable_name="waiting")
            inbox = client.new_inbox()
            answers = await client.subscribe(f"{inbox}.*")
            for number in range(_WAITING):
                await client.publish(
                    "$JS.API.CONSUMER.MSG.NEXT.waiting.waiting",
                    json.dumps({"batch": 1, "expires": int(30e9)}).encode(),
                    reply=f"{inbox}.{number}",
                )
            deadline, is_open, refused = time.monotonic() + 10, 0, 0
            while is_open + refused < _WAITING and time.monotonic() < deadline:
                is_open = (await client.jsm().consumer_info("waiting", "waiting")).num_waiting or 0
                refused = answers.pending_msgs
            return {"sent": _WAITING, "open": is_open, "refused": refused}
        finally:
            await client.close()


async def measure() -> dict[str, Any]:
    async def full(pool: Pool) -> dict[str, Any]:
        return {"idle": await pool.watched(IDLE_S, WORKERS), "load": await pool.load(COMMANDS, WORKERS)}

    async def held(pool: Pool) -> dict[str, Any]:
        return {"held": await pool.held(WORKERS * HELD_SLOTS)}

    found: dict[str, Any] = {"slots": SLOTS, "held_slots": HELD_SLOTS}
    found |= await with_pool(WORKERS, SLOTS, full)
    found |= await with_pool(WORKERS, HELD_SLOTS, held)
    found["open_pulls"] = await open_pulls()
    found["nats_units"] = await nats_units(NATS_UNITS)
    return found


def wrong(load: dict[str, Any]) -> list[str]:
    """What must not be."""
    found = []
    if load["ended"] != load["commands"] or load["ended_twice"]:
        found.append(f"{load['ended']} of {load['commands']} ended, {load['ended_twice']} twice")
    if load["workers"] != WORKERS or load["beside_the_mean"] > SHARE:
        found.append(f"{load['workers']} workers had {load['least']} to {load['most']} commands")
    return found


def main() -> None:
    if sys.argv[1:] == ["page"]:
        scale_page.keep({})
        return
    found = {**where_and_when(), **asyncio.run(measure())}
    print(json.dumps(found, indent=1))
    if problems := wrong(found["load"]):
        raise SystemExit("; ".join(problems))
    scale_page.keep(found)


if __name__ == "__main__":
    main()
