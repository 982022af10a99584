"""The end of a worker: nothing that was delivered is left without an answer, and nothing holds up the end."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from noetl_worker.errors import CommandCancelled, Interrupted
from noetl_worker.models import ToolResult
from noetl_worker.models.disposition import Disposition
from noetl_worker.pipeline.command.claimed_command import WorkerServices
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.pipeline.executor import Executor
from noetl_worker.pipeline.report.emitter import Emitter
from noetl_worker.remote.plane.client import ControlPlaneClient
from noetl_worker.remote.plane.identity import Identity
from noetl_worker.tools.contract import Stop
from noetl_worker.tools.scope import CallScope
from noetl_worker.worker.worker import Worker
from unit.planes import ScriptedTransport, answer, emitter, settings


class Scene:
    """A worker at the end of its drain, with no time left."""

    def __init__(self) -> None:
        ours = settings(NOETL_WORKER_DRAIN_TIMEOUT_S="0", NOETL_CONTROL_PLANE="python")
        self.worker = Worker(ours)
        self.kept: set[str] = set()
        """Deliveries that are kept alive."""
        self.answers: dict[str, Disposition] = {}
        keepalive = SimpleNamespace(track=lambda reply, _: self.kept.add(reply), untrack=self.kept.remove)
        without_stop = emitter()
        telling = Emitter(without_stop.outcomes, without_stop.outbox, self.worker.stopping)
        services = WorkerServices(
            ours, Identity(ours), self.worker.registry, InFlight(), cast(Any, keepalive), telling, self.worker.slots
        )
        self.transport = ScriptedTransport(lambda *_: answer(404, {}))
        self.execution = Executor(ControlPlaneClient(self.transport, ours), services)

    async def _settle(self, delivery: Any, disposition: Disposition, _ids: Any) -> str:
        self.answers[delivery.reply] = disposition
        return "nak:returned"

    def deliver(self, reply: str, settle: Any = None, data: bytes | None = None) -> None:
        body = json.dumps({"execution_id": 1, "event_id": 2, "command_id": reply, "step": "start"}).encode()
        delivery = SimpleNamespace(
            reply=reply,
            received_at=0.0,
            stream_sequence=1,
            num_delivered=1,
            tries=1,
            data=data or body,
            age_s=lambda: 0.0,
        )
        self.worker.deliveries.deliver(cast(Any, delivery), self.execution, settle or self._settle)

    async def work(self, puller: Any, *, watching: Any = None, on_drain: Any = lambda: None) -> bool:
        keepalive = SimpleNamespace(is_alive=lambda: True)
        return await self.worker.deliveries.pull_until_stopped(
            puller, watching or watch(), keepalive, on_drain=on_drain
        )

    async def drain(self) -> bool:
        puller, keepalive = SimpleNamespace(pause=lambda _: None), SimpleNamespace(is_alive=lambda: True)
        return await self.worker.deliveries.drain(puller, keepalive)


@pytest.mark.parametrize(("reason", "end"), [("shutdown", Interrupted), ("cancelled", CommandCancelled)])
async def test_stop_that_meets_the_end_of_a_tool_which_heeds_it_is_a_stop(reason: str, end: type[Exception]) -> None:
    """The tool sees the reason before the one who waits for it does."""
    scope = CallScope(Stop(), 60)

    async def tool() -> ToolResult:
        scope.interrupt(reason)
        raise asyncio.CancelledError

    with pytest.raises(end):
        await scope.run(tool())


async def test_tool_that_is_done_when_the_stop_comes_has_its_result() -> None:
    scope = CallScope(Stop(), 60)

    async def tool() -> ToolResult:
        scope.interrupt("shutdown")
        return ToolResult.success(1)

    assert (await scope.run(tool())).data == 1


@pytest.mark.parametrize("is_stopping", [False, True])
async def test_message_that_comes_in_the_very_step_in_which_the_drain_ends_is_returned(is_stopping: bool) -> None:
    scene = Scene()
    if is_stopping:
        scene.worker.request_stop()
    scene.deliver("a")
    assert await scene.drain() is True
    assert {reply: disposition.reason for reply, disposition in scene.answers.items()} == {"a": "returned"}
    assert scene.kept == set()
    assert scene.transport.sent == [], "it is not claimed"


async def watch() -> None:
    await asyncio.Event().wait()


async def test_message_that_comes_while_a_cancelled_worker_ends_is_returned_unclaimed() -> None:
    scene = Scene()
    pulls = asyncio.Event()

    async def until_cancelled() -> None:
        pulls.set()
        try:
            await asyncio.Event().wait()
        finally:
            scene.deliver("late")

    working = asyncio.ensure_future(scene.work(SimpleNamespace(run=until_cancelled)))
    await pulls.wait()
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    for task in list(scene.worker.deliveries.tasks):
        await asyncio.wait({task})
    assert {reply: disposition.reason for reply, disposition in scene.answers.items()} == {"late": "returned"}


class AnsweredAtTheEnd:
    """A puller that asks nats-py, whose answer comes in the very step in which it is cancelled."""

    def __init__(self) -> None:
        self.pulls = asyncio.Event()
        self._answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause(self, _: bool) -> None:
        self._answer.set_result(None)

    async def run(self) -> None:
        self.pulls.set()
        await asyncio.wait_for(self._answer, 60)  # as Client.request does; before 3.12 it swallows the cancellation
        await asyncio.Event().wait()


async def test_cancellation_that_meets_an_answer_of_nats_does_not_hold_up_the_end() -> None:
    scene, puller, drains = Scene(), AnsweredAtTheEnd(), asyncio.Event()
    working = asyncio.ensure_future(scene.work(puller, on_drain=drains.set))
    await puller.pulls.wait()
    scene.worker.request_stop()
    assert await working is False, "nothing was cut off"
    assert drains.is_set()


@pytest.mark.parametrize("part", ["the pulling", "the watch"])
async def test_what_ends_the_pulling_or_the_watch_is_raised_after_the_drain(part: str) -> None:
    scene = Scene()

    async def broken() -> None:
        raise ConnectionError(part)

    is_puller = part == "the pulling"
    puller = SimpleNamespace(run=broken if is_puller else watch, pause=lambda _: scene.deliver("late"))
    with pytest.raises(ConnectionError, match=part):
        await scene.work(puller, watching=watch() if is_puller else broken())
    assert {reply: disposition.reason for reply, disposition in scene.answers.items()} == {"late": "returned"}


async def test_answer_that_is_on_its_way_when_the_drain_ends_is_given_to_its_end() -> None:
    """A dead letter that was stored and not terminated came again after ack_wait, and was stored a second time."""
    scene = Scene()
    stored, may_end = asyncio.Event(), asyncio.Event()

    async def settle(delivery: Any, disposition: Disposition, _ids: Any) -> str:
        stored.set()
        await may_end.wait()
        return await scene._settle(delivery, disposition, _ids)

    scene.deliver("a", settle, data=b"poison")
    await stored.wait()
    asyncio.get_running_loop().call_later(0.05, may_end.set)
    assert await scene.drain() is True
    assert set(scene.answers) == {"a"}
    assert scene.kept == set()


async def test_connection_that_is_made_in_the_step_of_the_stop_is_not_lost() -> None:
    """Before 3.12 nats-py's wait_for swallows the cancellation then: nobody had the connection, to close it."""

    async def connecting() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "connection"

    worker = Worker(settings())
    starting = asyncio.ensure_future(worker.stopping.unless_stopped(connecting()))
    await asyncio.sleep(0)
    worker.request_stop()
    assert await starting == "connection"
