"""Who may run beside whom: slots, limits of kinds, the rate, and who waits outside."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from noetl_worker.models.slots import Slots


class Commands:
    """Commands that run until they are let go; `running` has the names of those inside their kind."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.running: list[str] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._go: dict[str, asyncio.Event] = {}

    async def start(self, *names: str, kind: str = "noop", alone: bool = False) -> None:
        for name in names:
            self.slots.take()
            self._go[name] = asyncio.Event()
            self._tasks[name] = asyncio.ensure_future(self._run(name, kind, alone))
            await settle()

    async def _run(self, name: str, kind: str, alone: bool) -> None:
        try:
            with ExitStack() as left:
                if alone:
                    await self.slots.start_exclusive()
                    left.callback(self.slots.end_exclusive)
                async with self.slots.kind(kind):
                    self.running.append(name)
                    try:
                        await self._go[name].wait()
                    finally:
                        self.running.remove(name)
        finally:
            self.slots.release()

    async def end(self, *names: str) -> None:
        for name in names:
            self._go[name].set()
            await self._tasks.pop(name)
            await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks.pop(name)})
        await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_command_of_a_full_kind_waits_outside_its_slot_and_others_pass() -> None:
    commands = Commands(Slots(2, limits={"postgres": 1}))
    await commands.start("p1", "p2", kind="postgres")
    assert (commands.running, commands.slots.window()) == (["p1"], 1)
    await commands.start("other")
    assert commands.running == ["p1", "other"]
    await commands.end("p1")
    assert commands.running == ["other", "p2"]
    await commands.end("p2", "other")
    assert commands.slots.used == 0


async def test_freed_slot_is_for_who_waited_for_its_kind_before_another_is_pulled() -> None:
    commands = Commands(Slots(2, limits={"postgres": 1}))
    await commands.start("p1", "p2", kind="postgres")
    await commands.start("a")
    commands.slots.take()  # pulled before p1 ended, and so above the slots
    await commands.end("p1")
    assert (commands.running, commands.slots.window()) == (["a"], 0)
    commands.slots.release()
    await settle()
    assert (commands.running, commands.slots.window()) == (["a", "p2"], 0)
    await commands.end("a", "p2")
    assert (commands.slots.used, commands.slots.window()) == (0, 2)


async def test_pulling_stops_when_as_many_wait_for_a_kind_as_there_are_slots() -> None:
    commands = Commands(Slots(2, limits={"postgres": 1}))
    for name in ("p1", "p2", "p3"):
        assert commands.slots.window() > 0
        await commands.start(name, kind="postgres")
    assert commands.slots.window() == 0
    await commands.end("p1")
    assert (commands.running, commands.slots.window()) == (["p2"], 1)
    await commands.end("p2", "p3")


@pytest.mark.parametrize("victim", ["waiting", "running"])
async def test_cancelled_command_leaves_nothing_behind(victim: str) -> None:
    commands = Commands(Slots(4, limits={"container": 1}))
    await commands.start("running", "waiting", kind="container")
    assert commands.running == ["running"]
    await commands.cancel(victim)
    [left] = [name for name in ("running", "waiting") if name != victim]
    assert commands.running == [left]
    await commands.end(left)
    assert (commands.slots.used, commands.slots.window()) == (0, 4)


def test_command_that_waits_for_others_holds_no_slot() -> None:
    slots = Slots(1)
    slots.take()
    with slots.waiting():
        assert slots.window() == 1
    assert slots.window() == 0


async def test_command_that_waits_leaves_its_place_in_its_kind_to_another() -> None:
    commands = Commands(Slots(3, limits={"playbook": 1}))
    await commands.start("parent", "child", kind="playbook")
    assert commands.running == ["parent"]
    with commands.slots.waiting("playbook"):
        await settle()
        assert commands.running == ["parent", "child"]
    await commands.start("late", kind="playbook")
    assert commands.running == ["parent", "child"], "the parent that goes on counts again"
    await commands.end("child")
    assert commands.running == ["parent"]
    await commands.end("parent")
    assert commands.running == ["late"]
    await commands.end("late")
    assert (commands.slots.used, commands.slots.window()) == (0, 3)


async def test_command_that_is_alone_begins_when_the_others_have_ended_and_lets_nobody_in() -> None:
    commands = Commands(Slots(4, limits={"postgres": 1}))
    slots = commands.slots
    await commands.start("beside", "waits", kind="postgres")
    await commands.start("alone", kind="postgres", alone=True)
    assert (commands.running, slots.window(), slots.free(), slots.is_exclusive) == (["beside"], 0, 0, True)
    await commands.end("beside")
    assert (commands.running, slots.window(), slots.free()) == (["alone"], 0, 0)
    await commands.end("alone")
    assert (commands.running, slots.is_exclusive) == (["waits"], False)
    await commands.end("waits")
    assert (slots.used, slots.parked_elsewhere, slots.window()) == (0, 0, 4)


async def test_commands_that_are_alone_run_one_after_another() -> None:
    commands = Commands(Slots(4))
    await commands.start("first", "second", "third", alone=True)
    assert commands.running == ["first"]
    await commands.cancel("second")
    await commands.end("first")
    assert (commands.running, commands.slots.window()) == (["third"], 0)
    await commands.end("third")
    assert (commands.slots.used, commands.slots.parked_elsewhere, commands.slots.window()) == (0, 0, 4)


@pytest.mark.parametrize("victim", ["beside", "alone"])
async def test_cancelled_command_keeps_nobody_from_the_slots(victim: str) -> None:
    commands = Commands(Slots(4))
    await commands.start("beside")
    await commands.start("alone", alone=True)
    await commands.cancel(victim)
    [left] = {"beside", "alone"} - {victim}
    assert commands.running == [left]
    await commands.end(left)
    assert (commands.slots.used, commands.slots.parked_elsewhere, commands.slots.window()) == (0, 0, 4)


async def test_command_that_waits_for_one_that_is_to_be_alone_does_not_hold_it_up() -> None:
    commands = Commands(Slots(1))
    await commands.start("parent")
    with commands.slots.waiting():
        await commands.start("child", alone=True)
        assert commands.running == ["parent", "child"]
        await commands.end("child")
    await commands.end("parent")
    assert (commands.slots.used, commands.slots.window()) == (0, 1)


def test_ceiling_of_the_control_plane_bounds_the_window_but_never_below_one() -> None:
    slots = Slots(8, ceiling=lambda: 0)
    assert slots.window() == 1
    slots.take()
    assert slots.window() == 0
    assert slots.free() == 7, "what is already on its way finds room"
