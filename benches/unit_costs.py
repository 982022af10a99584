"""CPU of a server for one thing of one kind: of NATS for a pull request, a message, an ack; of a real plane for a
claim, the events of a command, a heartbeat, a question whether an execution is cancelled.

What a server takes for itself meanwhile is measured first, and taken off.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import httpx
import nats
from nats.js.api import ConsumerConfig, DeliverPolicy

from measured_process import cpu_s
from noetl_worker.authoring.dev.nats_server import NatsServer
from noetl_worker.authoring.local_run import LocalRun, Withheld, WithholdingTransport
from noetl_worker.engine import chosen as engine
from noetl_worker.models import Claimed
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.claim.claim import claim_command
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from noetl_worker.remote.transport.opening import open_transport
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.text import json_text

REST_S: Final = 3.0
_BATCH: Final = 16
"""Of a pull request: the slots of a worker."""
_VOLLEY: Final = 500
_PAUSE_S: Final = 0.0005
_WAIT_S: Final = 60.0
_STREAM: Final = "units"
_NEXT: Final = f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{_STREAM}"


class Meter:
    """CPU of some processes."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = tuple(pids)
        self.rest_us = 0.0
        """A second, for nothing."""

    async def rest(self) -> None:
        before = self._cpu_s()
        await asyncio.sleep(REST_S)
        self.rest_us = (self._cpu_s() - before) / REST_S * 1e6

    async def each(self, number: int, work: Awaitable[Any]) -> float:
        """Microseconds for one of the `number` things that are done by `work`."""
        before, since = self._cpu_s(), time.monotonic()
        await work
        spent_us = (self._cpu_s() - before) * 1e6 - (time.monotonic() - since) * self.rest_us
        return max(0.0, spent_us) / number

    def _cpu_s(self) -> float:
        return sum(map(cpu_s, self._pids))


# ── NATS ──


async def nats_units(number: int) -> dict[str, Any]:
    """One server, a stream in memory, a durable with explicit acks. What comes to a server that has nothing else to do
    costs it a wake-up besides, so each is measured together with many, and alone."""
    found: dict[str, Any] = {}
    for how, count, volley in (("together", number, _VOLLEY), ("alone", number // 5, 1)):
        async with NatsServer() as server:
            client = await nats.connect(server.url)
            try:
                await client.jetstream().add_stream(name=_STREAM, subjects=[_STREAM])
                config = ConsumerConfig(
                    durable_name=_STREAM, ack_wait=600, max_ack_pending=count + 1, max_waiting=count
                )
                await client.jsm().add_consumer(_STREAM, config)
                meter = Meter([server.pid or 0])
                await meter.rest()
                found[how] = await _nats_units(client, meter, count, volley)
            finally:
                await client.close()
    return found


async def _nats_units(client: Any, meter: Meter, number: int, volley: int) -> dict[str, float]:
    inbox = client.new_inbox()
    answers = await client.subscribe(f"{inbox}.*", pending_msgs_limit=-1, pending_bytes_limit=-1)

    async def send(messages: Iterable[tuple[str, bytes, str]]) -> None:
        for at, (subject, data, reply) in enumerate(messages, start=1):
            await client.publish(subject, data, reply=reply)
            if at % volley == 0:
                await client.flush() if volley > 1 else await asyncio.sleep(_PAUSE_S)
        await client.flush()

    async def pull(requests: int, expected: int, **wanted: Any) -> None:
        body = json.dumps(wanted).encode()
        await send((_NEXT, body, f"{inbox}.{at}") for at in range(requests))
        await until(lambda: answers.pending_msgs >= expected)

    async def publish() -> None:
        await send((_STREAM, b"x" * 200, "") for _ in range(number))
        await until_info(lambda info: (info.num_pending or 0) >= number)

    async def answered(text: bytes) -> None:
        await send((message.reply, text, "") for message in messages)
        await until_info(lambda info: not info.num_ack_pending or text != b"+ACK")

    async def until_info(holds: Callable[[Any], bool]) -> None:
        deadline = time.monotonic() + _WAIT_S
        while not holds(await client.jsm().consumer_info(_STREAM, _STREAM)):
            if time.monotonic() > deadline:
                raise TimeoutError("NATS has not done it in time")
            await asyncio.sleep(0.05)

    found = {"pull": await meter.each(number, pull(number, number, batch=1, no_wait=True))}
    while answers.pending_msgs:
        await answers.next_msg()
    found["published"] = await meter.each(number, publish())
    found["delivered"] = await meter.each(number, pull(-(-number // _BATCH), number, batch=_BATCH, expires=int(30e9)))
    messages = [one for one in [await answers.next_msg() for _ in range(answers.pending_msgs)] if one.data]
    found["in_progress"] = await meter.each(number, answered(b"+WPI"))
    found["ack"] = await meter.each(number, answered(b"+ACK"))
    return found


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError("not all answers came in time")
        await asyncio.sleep(0.01)


# ── a plane ──


async def plane_units(client: httpx.AsyncClient, nats_url: str, pids: Iterable[int], number: int) -> dict[str, Any]:
    """Of the plane at `client` with its database: executions of bench/scale are begun, and their first command is
    claimed and reported with the worker's own requests, kind by kind, one after the other."""
    meter = Meter(pids)
    await meter.rest()
    settings = load_settings(
        {"NOETL_SERVER_URL": str(client.base_url), "WORKER_ID": "units", "NOETL_WORKER_OUTBOX": "off"}
    )
    transport = open_transport(settings, max_connections=8)
    asking = ControlPlaneClient(transport, settings)
    notifications = await nats.connect(nats_url)
    try:
        reader = await notifications.jetstream().pull_subscribe(
            "noetl.commands.>", durable="units", config=ConsumerConfig(deliver_policy=DeliverPolicy.NEW)
        )
        plane = await asking.plane("")

        async def begin() -> None:
            for _ in range(number):
                answer = await client.post("/api/execute", json={"path": "bench/scale", "workload": {}})
                answer.raise_for_status()

        found: dict[str, Any] = {"rest_us_a_second": meter.rest_us, "begun": await meter.each(number, begin())}
        envelopes = [engine.decode_notification(one.data) for one in await reader.fetch(number, timeout=30)]
        claims: list[Any] = []

        async def claim() -> None:
            claims.extend([await claim_command(plane, one.event_id, "units") for one in envelopes])

        found["claim"] = await meter.each(number, claim())
        if lost := [one for one in claims if not isinstance(one, Claimed)]:
            raise RuntimeError(f"{len(lost)} of {number} claims: {lost[0]}")
        reports = await _reports(settings, zip(claims, envelopes, strict=True))
        for requests in zip(*reports, strict=True):
            found[_name(requests[0])] = await meter.each(number, _post(plane, requests))
        row = Registration(plane, settings, "units", HeartbeatWatch(plane.url, Health()))
        await row.register()
        found["heartbeat"] = await meter.each(number, _times(number, row.heartbeat))
        found["question"] = await meter.each(
            number, _times(number, lambda: plane.is_cancelled(envelopes[0].execution_id))
        )
        return found
    finally:
        await notifications.close()
        await asking.close()


async def _reports(settings: Settings, commands: Iterable[tuple[Any, Any]]) -> list[tuple[Withheld, ...]]:
    """What the worker sends of each, not sent."""
    real = open_transport(settings, max_connections=8)
    async with LocalRun(settings, WithholdingTransport(real)) as local_run:
        plane = await local_run.client.plane("")
        return [(await local_run.run(claim.body, envelope, plane)).withheld for claim, envelope in commands]


def _name(request: Withheld) -> str:
    """Of an event that is sent alone, its own; else how many there are in the batch."""
    alone = request.body.get("event_type")
    return str(alone) if alone else f"batch of {len(request.body['events'])}"


async def _post(plane: Plane, requests: Iterable[Withheld]) -> None:
    for one in requests:
        answer = await plane.post_events(one.path, json_text.dumps(one.body), {})
        if answer.status >= 300:
            raise RuntimeError(f"{_name(one)}: {answer.status} {answer.body[:300]!r}")


async def _times(number: int, ask: Callable[[], Awaitable[Any]]) -> None:
    for _ in range(number):
        await ask()
