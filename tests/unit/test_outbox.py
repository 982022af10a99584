"""Outcomes on disk: kept while they are refused, taken over from the dead, never in the way when the disk is broken."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.command import handover
from noetl_worker.delivery.in_flight import InFlight, Seen
from noetl_worker.errors import ClaimLost, DocumentError, ServerRefused
from noetl_worker.models import AlreadyFinished, Dialect, Report, Upload
from noetl_worker.outbox import file as outbox_file
from noetl_worker.outbox import outbox as outbox_module
from noetl_worker.outbox.file import OutboxFile, Row
from noetl_worker.outbox.outbox import Outbox
from noetl_worker.outbox.rows import read_row
from noetl_worker.outcome import emitter as emitter_module
from noetl_worker.outcome.adoption import AT_ONCE, Adoption
from noetl_worker.outcome.emitter import Emitter
from noetl_worker.outcome.event_set import EventSet
from noetl_worker.outcome.events import CommandEvents
from noetl_worker.plane.client import ControlPlaneClient, Plane
from noetl_worker.plane.gate import DOWN_AFTER
from noetl_worker.slots import Slots
from unit.planes import URL, Ours, ScriptedTransport, answer, command, emitter, plane, rows_on_disk, settings

OK = Report(status="success", context={"ok": True}, response={"ok": True})


def event_set(event_id: int = 7, worker_id: str = "dead-worker", **changes: Any) -> EventSet:
    report = Report(status="success", context=None)
    told: dict[str, Any] = {"server_url": URL, "dialect": Dialect.PYTHON, "report": report, **changes}
    return EventSet(event_id, 1, f"c-{event_id}", "start", worker_id, idempotency_key=f"key-{event_id}", **told)


def box(directory: Path, when: str = "on_failure", *, max_rows: int = 10, max_bytes: int = 1_000_000) -> Outbox:
    made = Outbox(when, directory, max_rows=max_rows, max_bytes=max_bytes)
    OPEN.append(made)
    return made


OPEN: list[Outbox] = []


def left(directory: Path) -> list[str]:
    """Names of what is in the directory; its key stays for ever."""
    return sorted(path.name for path in directory.iterdir() if path.name != "outbox.key")


def taken(ours: Outbox) -> list[EventSet]:
    """The sets that it takes over; those that cannot be read are left out."""
    return [one for row in ours.adopt() if (one := ours.load(row.key)) is not None]


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


@pytest.fixture(autouse=True)
def _fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Emitter, "_delay_s", staticmethod(lambda tries, answer: 0.001))


# ── the files ──


def test_set_kept_by_a_killed_process_is_adopted_with_its_ids_and_key(tmp_path: Path) -> None:
    script = (
        "import sys, signal, os; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from unit.test_outbox import box, event_set\n"
        "ours = box(Path(sys.argv[1])); assert ours.keep(event_set(7)); assert ours.keep(event_set(8))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path), *sys.path], timeout=30)
    assert died.returncode == -signal.SIGKILL
    ours = box(tmp_path)
    adopted = sorted(taken(ours), key=lambda one: one.event_id)
    assert [(one.event_id, one.command_id, one.worker_id) for one in adopted] == [
        (7, "c-7", "dead-worker"),
        (8, "c-8", "dead-worker"),
    ]
    assert adopted[0].idempotency_key == "key-7"
    assert adopted[0].was_tried, "a duplicate key would be its own event"
    assert len(list(tmp_path.glob("*.lock"))) == 1, "its rows stay where they are"
    ours.drop(adopted[0])
    ours.close()
    after = box(tmp_path)
    assert [one.event_id for one in taken(after)] == [8], "what was not told waits for the next one"
    after.drop(adopted[1])
    assert left(tmp_path) == [], "the dead one's file goes with its last row"


def test_file_of_a_living_owner_is_left_alone(tmp_path: Path) -> None:
    living = box(tmp_path)
    living.keep(event_set())
    assert box(tmp_path).adopt() == []
    living.close()


def test_outbox_without_rows_leaves_no_files(tmp_path: Path) -> None:
    ours, one = box(tmp_path), event_set()
    ours.keep(one)
    ours.drop(one)
    ours.close()
    assert left(tmp_path) == []


def test_full_outbox_says_so_until_there_is_room_and_keeps_what_it_has(tmp_path: Path) -> None:
    ours, sets = box(tmp_path, max_rows=4), [event_set(number) for number in range(5)]
    assert [ours.keep(one) for one in sets] == [True, True, True, True, False]
    assert ours.is_full
    assert ours.keep(sets[0]), "a set that is in may be written again"
    ours.drop(sets[0])
    assert not ours.is_full
    ours.close()


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    ours = box(tmp_path, max_bytes=100)
    assert ours.keep(event_set())
    assert ours.is_full
    ours.close()


def test_directory_that_cannot_be_written_is_reported_once_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    ours = box(blocked / "outbox")
    assert [ours.keep(event_set(1)), ours.keep(event_set(2))] == [False, False]
    said = capsys.readouterr().out
    assert said.count("outbox_not_writable") == 1
    assert "NOETL_WORKER_OUTBOX_DIR" in said
    ours.close()


def test_full_disk_is_reported_and_the_set_stays_in_memory(tmp_path: Path) -> None:
    ours = box(tmp_path)
    assert ours.keep(event_set(1))
    assert ours._own is not None
    ours._own._database.execute("PRAGMA max_page_count=4")  # what SQLite says of a full disk: SQLITE_FULL
    large = event_set(2)
    large.report.response = "x" * 100_000
    assert not ours.keep(large)
    assert isinstance(ours._trouble, str)
    assert "full" in ours._trouble
    ours._own._database.execute("PRAGMA max_page_count=1000000")
    assert ours.keep(large), "and it works again when there is room"
    assert ours._trouble is None


def test_row_that_does_not_decode_is_named_and_the_others_are_adopted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = box(tmp_path)
    dead.keep(event_set(7))
    assert dead._own is not None
    dead._own.put(Row("x", "c-8", URL, 16, b'{"not": "a set"}'))
    dead.close()
    ours = box(tmp_path)
    [one] = taken(ours)
    assert one.event_id == 7
    assert "outbox_row_unreadable" in capsys.readouterr().out
    ours.drop(one)
    assert ours.is_empty
    [unreadable] = tmp_path.glob("*.unreadable")
    with contextlib.closing(sqlite3.connect(unreadable)) as database:
        kept = database.execute("SELECT key FROM event_sets").fetchall()
    assert kept == [("x",)], "another version's rows are not ours to delete"
    assert left(tmp_path) == [unreadable.name]


def test_row_that_an_older_worker_could_not_read_is_told_by_the_next_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(tmp_path)

    def refuse(*_: Any) -> EventSet:
        raise DocumentError("outbox_row", "of a later version")

    with monkeypatch.context() as older:
        older.setattr(outbox_module, "read_row", refuse)
        before = box(tmp_path)
        assert taken(before) == []
        assert before.adopt() == [], "it is not looked at again and again"
        before.close()
    assert len(list(tmp_path.glob("*.unreadable"))) == 1
    ours = box(tmp_path)
    [one] = taken(ours)
    assert one.idempotency_key == "key-7"
    ours.drop(one)
    assert left(tmp_path) == [], "nothing is left beside"


def test_unreadable_file_that_another_worker_brings_back_is_left_to_it(tmp_path: Path) -> None:
    left_behind(tmp_path)
    [path] = tmp_path.glob("*.sqlite3")
    unreadable, lock = path.with_suffix(".unreadable"), path.with_suffix(".lock")
    path.rename(unreadable)
    OutboxFile.bring_back(unreadable)  # its lock is still there: it is being adopted, or the process died in between
    assert unreadable.exists()
    lock.rename(path.with_suffix(".born"))
    with path.with_suffix(".born").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        OutboxFile.bring_back(unreadable)
        assert unreadable.exists(), "somebody is at it"
    OutboxFile.bring_back(unreadable)
    assert [one.event_id for one in taken(box(tmp_path))] == [7]


def test_row_is_read_without_what_a_later_worker_adds_to_it() -> None:
    row = json.loads(event_set(7).packed()[0])
    assert read_row(json.dumps({**row, "added": 1}).encode()).event_id == 7


@pytest.mark.parametrize("version", [0, 3, "2", None])
def test_row_of_another_version_is_kept_for_who_can_read_it(version: Any) -> None:
    row = json.loads(event_set(7).packed()[0])
    with pytest.raises(DocumentError, match="version"):
        read_row(json.dumps({**row, "version": version}).encode())


def test_off_writes_nothing(tmp_path: Path) -> None:
    ours = box(tmp_path, "off")
    assert not ours.keep(event_set())
    assert ours.adopt() == []
    assert left(tmp_path) == []


# ── sending ──


def tell(ours: Emitter, script: Any, dialect: Dialect = Dialect.PYTHON, **kwargs: Any) -> ScriptedTransport:
    at, transport = plane(script, dialect)

    async def go() -> None:
        told = CommandEvents(command(dialect), at, "w-1", ours, hold_s=5.0, **kwargs)
        told.start()
        await told.finish(OK, Ours())

    asyncio.run(go())
    return transport


def accepting(refusals: int, seen: list[int] | None = None, directory: Path | None = None) -> Any:
    left = [refusals]

    def script(method: str, path: str, body: Any) -> Any:
        if seen is not None and directory is not None:
            seen.append(rows_on_disk(directory))
        if left[0] > 0:
            left[0] -= 1
            return answer(503, {})
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    return script


def test_accepted_set_never_touches_the_disk(tmp_path: Path) -> None:
    tell(emitter(tmp_path), accepting(0))
    assert left(tmp_path) == []


@pytest.mark.parametrize("dialect", Dialect)
def test_refused_set_is_on_disk_at_the_next_try_and_gone_when_accepted(tmp_path: Path, dialect: Dialect) -> None:
    seen: list[int] = []
    ours = emitter(tmp_path)
    tell(ours, accepting(2, seen, tmp_path), dialect)
    assert seen[:3] == [0, 1, 1]
    assert ours.outbox.is_empty
    assert rows_on_disk(tmp_path) == 0
    ours.outbox.close()


def test_set_that_would_wait_for_a_plane_that_is_down_is_on_disk_before_its_first_try(tmp_path: Path) -> None:
    ours = emitter(tmp_path)

    async def go() -> None:
        at, transport = plane(accepting(0))
        for _ in range(DOWN_AFTER):
            at.gate.refused(time.monotonic())
        told = CommandEvents(command(), at, "w-1", ours, hold_s=5.0)
        telling = asyncio.ensure_future(told.finish(OK, Ours()))
        while ours.outbox.is_empty:
            await asyncio.sleep(0)
        assert (transport.sent, rows_on_disk(tmp_path)) == ([], 1)
        await telling

    asyncio.run(go())
    assert ours.outbox.is_empty
    ours.outbox.close()


@pytest.mark.parametrize("dialect", Dialect)
def test_always_writes_before_the_first_try(tmp_path: Path, dialect: Dialect) -> None:
    seen: list[int] = []
    ours = emitter(tmp_path, "always")
    tell(ours, accepting(0, seen, tmp_path), dialect)
    assert set(seen) == {1}
    assert rows_on_disk(tmp_path) == 0
    ours.outbox.close()


def test_set_on_disk_leaves_its_slot_and_one_in_memory_holds_it(tmp_path: Path) -> None:
    free: dict[str, list[int]] = {"disk": [], "memory": []}
    for where, ours in (("disk", emitter(tmp_path)), ("memory", emitter())):
        slots = Slots(1)
        slots.take()
        inner = accepting(2)

        def script(*request: Any, where: str = where, slots: Slots = slots, inner: Any = inner) -> Any:
            free[where].append(slots.free())
            return inner(*request)

        tell(ours, script, outside=slots.waiting)
        assert slots.free() == 0, "it is back in its slot"
        ours.outbox.close()
    assert free == {"disk": [0, 1, 1], "memory": [0, 0, 0]}


def test_cancelled_set_is_left_on_disk(tmp_path: Path) -> None:
    at, _ = plane(lambda *_: answer(503, {}))
    ours = emitter(tmp_path)

    async def go() -> None:
        told = CommandEvents(command(), at, "w-1", ours, hold_s=5.0)
        telling = asyncio.ensure_future(told.finish(OK, Ours()))
        while ours.outbox.is_empty:
            await asyncio.sleep(0)
        telling.cancel()
        await asyncio.wait({telling})

    asyncio.run(go())
    ours.outbox.close()
    [left] = taken(box(tmp_path))
    assert left.event_id == command().event_id


def test_set_that_the_plane_refuses_for_good_leaves_the_disk(tmp_path: Path) -> None:
    answers = [answer(503, {}), answer(422, {})]
    ours = emitter(tmp_path)
    with pytest.raises(ServerRefused):
        tell(ours, lambda *_: answers.pop(0))
    assert ours.outbox.is_empty
    ours.outbox.close()


def test_long_refused_set_asks_for_its_claim_before_it_is_sent_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitter_module, "LATE_S", 0.02)
    at, transport = plane(lambda *_: answer(503, {}))
    ours = emitter(tmp_path)

    class Lost(Ours):
        async def confirm(self) -> None:
            raise ClaimLost(AlreadyFinished("somebody else did it"))

    async def go() -> None:
        told = CommandEvents(command(), at, "w-1", ours, hold_s=5.0)
        await told.finish(OK, Lost())

    with pytest.raises(ClaimLost):
        asyncio.run(go())
    assert transport.sent, "it was tried while it was not late"
    assert ours.outbox.is_empty
    ours.outbox.close()


def test_next_event_of_a_set_gets_an_id_above_those_that_the_plane_answered(tmp_path: Path) -> None:
    far = (1 << 62) + 5

    def script(method: str, path: str, body: Any) -> Any:
        return answer(202, {"event_ids": [far]}) if "batch" in path else answer(200, {"event_id": body["event_id"]})

    ours = emitter(tmp_path, "always")
    transport = tell(ours, script, Dialect.RUST)
    ours.outbox.close()
    assert transport.bodies("/api/events")[0]["event_id"] > far


# ── adoption ──


def adopt(
    directory: Path, script: Any, in_flight: InFlight | None = None, teller: Emitter | None = None
) -> tuple[ScriptedTransport, InFlight]:
    """Everything that is left in `directory`, told by a new worker to the plane of `script`."""
    transport, ours = ScriptedTransport(script), teller or emitter(directory)
    flight = InFlight() if in_flight is None else in_flight

    async def go() -> None:
        client = ControlPlaneClient(transport, settings(NOETL_CONTROL_PLANE="python"))
        adoption = Adoption(client, ours, flight)
        adoption.look()
        while not ours.outbox.is_empty:
            await asyncio.sleep(0.001)
        await adoption.stop()

    asyncio.run(go())
    ours.outbox.close()
    return transport, flight


def left_behind(directory: Path, left: EventSet | None = None) -> None:
    dead = box(directory)
    dead.keep(left or event_set())
    dead.close()


def claim_then(claim: Any, told: list[str]) -> Any:
    def script(method: str, path: str, body: Any) -> Any:
        told.append(path)
        if path.endswith("/claim"):
            assert body == {"worker_id": "dead-worker"}, "asked in the name of the dead one"
            return claim
        return answer(202, {})

    return script


@pytest.mark.parametrize(
    "claim",
    [
        answer(409, {"detail": {"code": "active_claim", "worker_status": "running"}}),
        answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"}),
    ],
    ids=["the dead one had started", "claimed again in its name"],
)
def test_adopted_outcome_that_is_still_its_own_is_told_under_its_key(tmp_path: Path, claim: Any) -> None:
    left_behind(tmp_path)
    told: list[str] = []
    transport, flight = adopt(tmp_path, claim_then(claim, told))
    assert told == ["/api/commands/7/claim", "/api/events/batch"]
    assert transport.sent[-1][3]["idempotency-key"] == "key-7"
    assert flight.look("c-7", 3) is Seen.FINISHED, "a delivery of it runs nothing any more"


@pytest.mark.parametrize(
    "claim",
    [
        answer(409, {"detail": {"code": "active_claim", "worker_id": "another"}}),
        answer(409, {"detail": {"code": "already_terminal"}}),
    ],
    ids=["another holds it", "it is over"],
)
def test_adopted_outcome_that_is_no_longer_its_own_is_dropped(tmp_path: Path, claim: Any) -> None:
    left_behind(tmp_path)
    told: list[str] = []
    _, flight = adopt(tmp_path, claim_then(claim, told))
    assert told == ["/api/commands/7/claim"]
    assert flight.look("c-7", 3) is Seen.NEW
    assert list(tmp_path.glob("*.sqlite3")) == []


def test_adopted_outcome_of_a_command_that_the_plane_has_lost_is_not_asked_about_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover.backoff, "delay_s", lambda *_, **__: 0.0)
    left_behind(tmp_path)
    told: list[str] = []
    adopt(tmp_path, claim_then(answer(404, {"detail": "Command not found"}), told))
    assert told == ["/api/commands/7/claim"] * handover.MAX_UNKNOWN_TRIES


def test_ids_that_follow_an_adopted_set_are_above_its_own(tmp_path: Path) -> None:
    far, ours = (1 << 62) + 5, emitter(tmp_path)
    left_behind(tmp_path, event_set(far))

    adopt(tmp_path, lambda *_: answer(409, {"detail": {"code": "already_terminal"}}), teller=ours)
    assert ours.ids.next_id() > far


def test_adopted_outcome_waits_for_a_plane_that_is_down_and_counts_as_in_flight(tmp_path: Path) -> None:
    left_behind(tmp_path)
    flight, answers = (
        InFlight(),
        [answer(503, {}), answer(503, {}), answer(409, {"detail": {"code": "already_terminal"}})],
    )
    looks: list[Seen] = []

    def script(method: str, path: str, body: Any) -> Any:
        looks.append(flight.look("c-7", 3))
        return answers.pop(0)

    adopt(tmp_path, script, flight)
    assert looks == [Seen.BEING_REPORTED] * 3


def test_two_workers_that_look_at_once_adopt_each_set_once(tmp_path: Path) -> None:
    for number in range(5):
        dead = box(tmp_path)
        dead.keep(event_set(number))
        dead.close()
    one, other = box(tmp_path), box(tmp_path)
    found = [*taken(one), *taken(other)]
    assert sorted(each.event_id for each in found) == [0, 1, 2, 3, 4]


def test_row_of_a_set_that_is_here_already_is_not_told_a_second_time(tmp_path: Path) -> None:
    for _ in range(2):
        left_behind(tmp_path, event_set(7))
    ours = box(tmp_path)
    assert len(taken(ours)) == 1
    assert len(list(tmp_path.glob("*.lock"))) == 1


def test_many_adopted_sets_are_read_and_told_some_at_a_time(tmp_path: Path) -> None:
    dead = box(tmp_path, max_rows=100)
    for number in range(40):
        dead.keep(event_set(number))
    dead.close()
    ours, loaded, most = emitter(tmp_path), [0], [0]
    load = ours.outbox.load

    def count(key: str) -> EventSet | None:
        loaded[0] += 1
        most[0] = max(most[0], loaded[0])
        return load(key)

    ours.outbox.load = count  # type: ignore[method-assign]

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})
        loaded[0] -= 1
        return answer(202, {})

    flight = InFlight()
    transport, _ = adopt(tmp_path, script, flight, ours)
    assert len(transport.bodies("/api/events/batch")) == 40
    assert most[0] <= AT_ONCE
    assert len(flight) == 0
    assert left(tmp_path) == []


def test_adopted_set_that_waits_for_its_turn_counts_as_in_flight(tmp_path: Path) -> None:
    for number in range(AT_ONCE + 5):
        left_behind(tmp_path, event_set(number))
    ours, flight = emitter(tmp_path), InFlight()

    async def go() -> None:
        transport = ScriptedTransport(lambda *_: answer(503, {}))
        adoption = Adoption(ControlPlaneClient(transport, settings(NOETL_CONTROL_PLANE="python")), ours, flight)
        adoption.look()
        assert len(flight) == AT_ONCE + 5
        assert {flight.look(f"c-{number}", 3) for number in range(AT_ONCE + 5)} == {Seen.BEING_REPORTED}
        await adoption.stop()

    asyncio.run(go())
    ours.outbox.close()
    assert len(taken(box(tmp_path))) == AT_ONCE + 5


def test_late_set_is_on_disk_and_out_of_its_slot_while_its_claim_is_asked(tmp_path: Path) -> None:
    ours, slots = emitter(tmp_path), Slots(1)
    slots.take()

    class Doubtful:
        def in_doubt(self) -> bool:
            return True

        async def confirm(self) -> None:
            await asyncio.Event().wait()

    async def go() -> None:
        at, transport = plane(accepting(0))
        told = CommandEvents(command(), at, "w-1", ours, hold_s=5.0, outside=slots.waiting)
        telling = asyncio.ensure_future(told.finish(OK, Doubtful()))
        while ours.outbox.is_empty:
            await asyncio.sleep(0)
        assert (slots.free(), transport.sent) == (1, [])
        telling.cancel()
        await asyncio.wait({telling})

    asyncio.run(go())
    ours.outbox.close()
    assert rows_on_disk(tmp_path) == 1


def test_set_whose_requests_are_refused_one_after_the_other_leaves_its_slot_once(tmp_path: Path) -> None:
    ours, slots = emitter(tmp_path), Slots(1)
    slots.take()
    refusals, free = {"/api/events/batch": 2, "/api/events": 2}, []

    def script(method: str, path: str, body: Any) -> Any:
        free.append(slots.free())
        refusals[path] -= 1
        if refusals[path] >= 0:
            return answer(425, {})
        return answer(202, {"event_ids": [5]}) if "batch" in path else answer(200, {"event_id": 7})

    tell(ours, script, Dialect.RUST, outside=slots.waiting)
    assert free == [0, 1, 1, 1, 1, 1]
    assert slots.free() == 0
    ours.outbox.close()


@pytest.mark.parametrize("dialect", Dialect)
def test_stop_while_the_start_is_under_way_leaves_the_outcome_on_disk(tmp_path: Path, dialect: Dialect) -> None:
    ours, reached = emitter(tmp_path), asyncio.Event()

    async def go() -> None:
        class Silent(ScriptedTransport):
            async def send(self, *request: Any) -> Any:
                reached.set()
                await asyncio.Event().wait()

        at = Plane(ControlPlaneClient(Silent(lambda *_: answer(200)), settings()), URL, dialect)
        told = CommandEvents(command(dialect), at, "w-1", ours, hold_s=0.0)
        told.start()
        await reached.wait()
        telling = asyncio.ensure_future(told.finish(OK, Ours()))
        await asyncio.sleep(0)
        telling.cancel()
        await asyncio.wait({telling})

    asyncio.run(go())
    ours.outbox.close()
    [left] = taken(box(tmp_path))
    assert b'"call.done"' in left.body()


def test_set_that_waited_at_the_gate_asks_whose_its_command_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gate may be closed for minutes: what was ours at the last look may be another worker's by then."""
    monkeypatch.setattr(emitter_module, "LATE_S", 0.05)
    said: list[str] = []

    class Asked(Ours):
        async def confirm(self) -> None:
            said.append("asked")

    def script(method: str, path: str, body: Any) -> Any:
        said.append("sent")
        return answer(202, {"event_ids": [5]})

    async def go() -> None:
        at, _ = plane(script)
        at.gate.refused(time.monotonic(), retry_after_s=0.3)
        told = CommandEvents(command(), at, "w-1", emitter(), hold_s=5.0)
        await told.finish(OK, Asked())

    asyncio.run(go())
    assert said[-2:] == ["asked", "sent"]


def test_adopted_outcome_that_is_refused_asks_again_whose_its_command_is(tmp_path: Path) -> None:
    """On the Rust plane its worker may be back under the same id, and have told its end meanwhile."""
    left_behind(tmp_path)
    told: list[str] = []

    def script(method: str, path: str, body: Any) -> Any:
        told.append(path)
        if not path.endswith("/claim"):
            return answer(425, {})
        if len(told) > 1:
            return answer(409, {"detail": {"code": "already_terminal"}})
        return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})

    adopt(tmp_path, script)
    assert told == ["/api/commands/7/claim", "/api/events/batch", "/api/commands/7/claim"]


@pytest.mark.parametrize("away", ["another plane", "the result store"])
def test_outcomes_for_a_place_that_is_away_hold_up_no_others(tmp_path: Path, away: str) -> None:
    others = event_set(900)
    for number in range(AT_ONCE + 2):
        if away == "another plane":
            left_behind(tmp_path, event_set(number, server_url="http://away.test"))
        else:
            report = Report(status="success", context={}, upload=Upload("start", b"[1]", "start", {}))
            left_behind(tmp_path, event_set(number, report=report))
    left_behind(tmp_path, others)
    ours = emitter(tmp_path)

    def script(method: str, path: str, body: Any) -> Any:
        if method == "PUT" or path.startswith("http://away.test"):
            return answer(425, {})
        if path.endswith("/claim"):
            return answer(200, {"execution_id": 1, "node_name": "start", "action": "noop"})
        return answer(202, {})

    async def go() -> None:
        transport = ScriptedTransport(script)
        trusted = settings(NOETL_CONTROL_PLANE="python", NOETL_WORKER_TRUSTED_SERVERS="http://away.test")
        adoption = Adoption(ControlPlaneClient(transport, trusted), ours, InFlight())
        adoption.look()
        while not transport.bodies("/api/events/batch"):
            await asyncio.sleep(0.001)
        await adoption.stop()

    asyncio.run(asyncio.wait_for(go(), 10))
    ours.outbox.close()


def test_row_that_is_told_by_our_own_run_meanwhile_is_no_longer_there(tmp_path: Path) -> None:
    left_behind(tmp_path)
    ours = box(tmp_path)
    [row] = ours.adopt()
    ours.drop(event_set())
    assert ours.load(row.key) is None
    assert left(tmp_path) == []


def test_row_that_cannot_be_read_just_now_is_taken_over_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_behind(tmp_path)
    ours = box(tmp_path)
    [row] = ours.adopt()

    def fails(file: OutboxFile, key: str) -> Any:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as broken:
        broken.setattr(OutboxFile, "get", fails)
        assert ours.load(row.key) is None
    assert [one.event_id for one in taken(ours)] == [7]


def test_disk_without_room_for_a_file_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sqlite3.connect

    def without_room(path: Path) -> Any:
        Path(path).touch()
        made(path).close()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(outbox_file.sqlite3, "connect", without_room)
    ours = box(tmp_path)
    assert [ours.keep(event_set(number)) for number in range(3)] == [False] * 3
    assert left(tmp_path) == []


def test_files_that_are_taken_over_at_a_time_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "_MOST_FILES", 2)
    for number in range(5):
        left_behind(tmp_path, event_set(number))
    ours, told = box(tmp_path), 0
    while rows := taken(ours):
        assert len(rows) <= 2
        for one in rows:
            ours.drop(one)
            told += 1
    assert told == 5


def test_adopted_outcome_and_our_own_of_one_claim_are_told_one_after_the_other(tmp_path: Path) -> None:
    """Rust plane: a restarted worker is let in under its id, and the outcome of its first life is on the disk."""
    asked: list[str] = []

    class Doubt:
        def __init__(self, name: str) -> None:
            self.name = name

        def in_doubt(self) -> bool:
            return False

        async def confirm(self) -> None:
            asked.append(self.name)
            raise ClaimLost(AlreadyFinished("over"))

    async def go() -> None:
        let_go = asyncio.Event()

        class Slow(ScriptedTransport):
            async def send(self, *request: Any) -> Any:
                await let_go.wait()
                return await super().send(*request)

        at = Plane(ControlPlaneClient(Slow(lambda *_: answer(202, {})), settings()), URL, Dialect.PYTHON)
        ours = emitter()
        first = asyncio.ensure_future(ours.deliver(at, event_set(), Doubt("first")))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(ours.deliver(at, event_set(), Doubt("second")))
        await asyncio.sleep(0)
        let_go.set()
        await first
        with pytest.raises(ClaimLost):
            await second

    asyncio.run(go())
    assert asked == ["second"]
