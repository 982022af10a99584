"""NOETL_WORKER_EXECUTION_SHARE: one execution does not hold a worker while others wait, and nothing is lost by it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from faults.scene import beside_both_planes
from integration.house import house, noops
from integration.processes import Gate
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect
from noetl_worker.models.claim import NotFound
from noetl_worker.models.disposition import DispositionKind
from noetl_worker.pipeline.delivery.acknowledge import MAX_NOT_FOUND, answer_to_claim
from noetl_worker.pipeline.delivery.execution_share import RETURNED_PER_SLOT, ExecutionShare
from noetl_worker.remote.jetstream.client import Client
from noetl_worker.remote.jetstream.delivery import Delivery
from patience import until

LONG, SMALL = 1, 2


@beside_both_planes
async def test_small_executions_run_while_a_long_one_holds_its_share_which_grows_once_nobody_waits(
    dialect: Dialect, tmp_path: Path
) -> None:
    async with house(dialect, worker=False) as home:
        gate = Gate(tmp_path, "long")
        long = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * 12)
        small = [one for _ in range(20) for one in await home.plane.create_commands(noops(1))]
        worker = await home.start_worker(WORKER_MAX_CONCURRENT="4", NOETL_WORKER_EXECUTION_SHARE="0.5")
        await home.wait_terminal(*(one.event_id for one in small))
        assert gate.runs <= 2, "half of four slots"
        await until(lambda: gate.runs == 4, "nobody else waits: it takes the rest")
        gate.open()
        await home.wait_terminal(*(one.event_id for one in long))
        await home.wait_settled()
        assert gate.runs == 12, "each once"
        assert worker.deliveries.settled["nak:over_share"] > 0
        assert await home.dead_letters() == []


@pytest.mark.parametrize("share", ["0", "1"])
async def test_execution_takes_every_slot_where_no_share_is_set(share: str, tmp_path: Path) -> None:
    async with house(Dialect.PYTHON, worker=False) as home:
        gate = Gate(tmp_path, "long")
        issued = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * 4)
        issued += await home.plane.create_commands(noops(1))
        worker = await home.start_worker(WORKER_MAX_CONCURRENT="4", NOETL_WORKER_EXECUTION_SHARE=share)
        await until(lambda: gate.runs == 4, "all slots")
        gate.open()
        await home.wait_terminal(*(one.event_id for one in issued))
        assert worker.deliveries.settled["nak:over_share"] == 0


def delivered(sequence: int, times: int = 1, undelivered: int = 0) -> Delivery:
    reply = f"$JS.ACK.NOETL_COMMANDS.noetl_worker.{times}.{sequence}.{sequence}.1700000000000000000.{undelivered}"
    return Delivery(Client(), Msg(_client=Client(), reply=reply), 0.0, wall_offset_s=0.0)


class Held:
    """A share of half of eight slots, on a clock of its own, of which the long execution has all that it may."""

    def __init__(self) -> None:
        self.now = 0.0
        self.share = ExecutionShare(8, 0.5, clock=lambda: self.now, draw=lambda: 0.0)

    async def fill(self) -> None:
        self.ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.running = []
        for sequence in range(4):
            assert self.share.delay_s(LONG, delivered(sequence)) is None
            self.running.append(asyncio.ensure_future(self.share.counted(LONG, self.ends)))
        await asyncio.sleep(0)


async def test_command_over_the_share_is_taken_if_no_other_execution_was_seen_and_no_message_is_unseen() -> None:
    held = Held()
    await held.fill()
    assert held.share.delay_s(LONG, delivered(5)) is None
    assert held.share.delay_s(LONG, delivered(6, undelivered=1)) == 1.0, "the one behind it may be another's"
    assert held.share.delay_s(SMALL, delivered(7)) is None
    assert held.share.delay_s(LONG, delivered(6, 2)) == 1.0
    held.now = 2.0
    assert held.share.delay_s(LONG, delivered(6, 3)) is None, "no other one came for two seconds"


async def test_share_is_free_again_when_its_commands_have_ended() -> None:
    held = Held()
    await held.fill()
    held.ends.set_result(None)
    await asyncio.gather(*held.running)
    assert held.share.delay_s(LONG, delivered(5, undelivered=9)) is None


async def test_no_more_is_returned_than_leaves_room_in_max_ack_pending() -> None:
    held = Held()
    await held.fill()
    answers = [held.share.delay_s(LONG, delivered(9 + number, undelivered=500)) for number in range(100)]
    assert answers.count(1.0) == 8 * RETURNED_PER_SLOT
    held.now = 2.0
    assert held.share.delay_s(LONG, delivered(200, undelivered=500)) == 1.0


async def test_delivery_that_was_returned_for_the_share_is_no_try_and_leads_to_no_dead_letter() -> None:
    held = Held()
    await held.fill()
    held.share.delay_s(SMALL, delivered(8))
    for times in range(1, 20):
        assert held.share.delay_s(LONG, delivered(9, times)) == 1.0
    held.now = 2.0
    tries = []
    for times in range(20, 20 + MAX_NOT_FOUND):
        taken = delivered(9, times)
        assert held.share.delay_s(LONG, taken) is None
        tries.append(answer_to_claim(NotFound("nobody knows it"), taken.tries).kind)
    assert tries == [DispositionKind.NOT_FOUND] * (MAX_NOT_FOUND - 1) + [DispositionKind.UNKNOWN_COMMAND]


def test_tries_of_a_delivery_are_those_of_jetstream_where_no_share_is_set() -> None:
    assert delivered(1, 7).tries == 7
