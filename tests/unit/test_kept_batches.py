"""What a killed worker knew of the batches that a Python plane had accepted: on disk, and followed by the next one."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import virtual_time
from noetl_worker.delivery.in_flight import InFlight
from noetl_worker.errors import NotSent
from noetl_worker.models import Dialect, LoopPosition
from noetl_worker.observability import metrics
from noetl_worker.outbox.file import OutboxFile
from noetl_worker.outbox.outbox import Outbox
from noetl_worker.outbox.reading import look_into
from noetl_worker.plane.client import ControlPlaneClient
from noetl_worker.plane.python.recent_batches import CHECK_S, KEEP_S, MAX_BYTES, OVERDUE_S, RecentBatches
from noetl_worker.recovery.adoption import Adoption
from noetl_worker.report.events import CommandEvents
from unit.outboxes import OPEN, box, event_set, left, taken
from unit.planes import URL, Ours, Script, ScriptedTransport, command, emitter, plane, settings
from unit.restarted_plane import FIRST, LOOP, OK, Restarted, checked

anyio_backend = virtual_time.anyio_backend

WHOLE = ["command.started", "step.enter", "call.done", "step.exit", "command.completed"]


async def killed(
    directory: Path,
    script: Script,
    *,
    commands: int = 1,
    loop: LoopPosition | None = None,
    most_bytes: int = MAX_BYTES,
    outbox: Outbox | None = None,
) -> list[str]:
    """A worker has its batches accepted and dies before it asks what became of them. Returns: their keys."""
    at, transport = plane(script)
    outbox = outbox or box(directory)
    telling = emitter(directory, batches=(recent := RecentBatches(outbox, most_bytes=most_bytes)))
    for _ in range(commands):
        events = CommandEvents(command(loop=loop), at, "w-1", telling, hold_s=5.0)
        events.start()
        await events.finish(OK, Ours())
    await asyncio.sleep(2 * KEEP_S)
    outbox.close()  # as the death of a process does: nothing is written from here on
    await recent.stop()
    return [headers["idempotency-key"] for _, path, _, headers in transport.sent if path == "/api/events/batch"]


async def followed(directory: Path, script: Script, *, checks: int = 1) -> ScriptedTransport:
    """The next worker on this disk."""
    transport = ScriptedTransport(script)
    client = ControlPlaneClient(transport, settings(NOETL_CONTROL_PLANE="python"))
    recent = RecentBatches(outbox := box(directory))
    telling = emitter(directory, batches=recent)
    telling.outbox = outbox
    adoption = Adoption(client, telling, InFlight(), recent)
    adoption.look()
    await asyncio.sleep(checks * (CHECK_S + 1.0))
    await adoption.stop()
    await recent.stop()
    outbox.close()
    return transport


def version(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as database:
        [found] = database.execute("PRAGMA user_version").fetchone()
    return int(found)


def versions(directory: Path) -> list[int]:
    return [version(path) for path in directory.glob("*.sqlite3")]


def kept(directory: Path) -> list[bytes]:
    """The rows of batches, of all files."""
    found: list[bytes] = []
    for path in directory.glob("*.sqlite3"):
        if version(path) == 2:
            with contextlib.closing(sqlite3.connect(path)) as database:
                found += [contents for (contents,) in database.execute("SELECT contents FROM accepted_batches")]
    return found


# ── the next worker ──


async def test_batch_of_a_killed_worker_that_is_stored_and_forgotten_is_rescued_by_the_next_one(tmp_path: Path) -> None:
    said = Restarted("batch.accepted")
    await killed(tmp_path, said)
    await followed(tmp_path, said)
    assert said.sent_again(1) == [["step.exit"]]


async def test_batch_of_which_nothing_is_stored_is_sent_again_under_its_key_in_the_name_of_the_dead_one(
    tmp_path: Path,
) -> None:
    said = Restarted()
    [key] = await killed(tmp_path, said)
    transport = await followed(tmp_path, said)
    assert said.sent_again(1) == [WHOLE]
    [claim, batch] = [one for one in transport.sent if one[0] == "POST"]
    assert claim[1].endswith("/claim")
    assert claim[2] == {"worker_id": "w-1"}
    assert (batch[3]["idempotency-key"], batch[2]["events"][2]) == (key, said.batches[0]["events"][2])


async def test_item_of_a_loop_goes_out_again_with_its_place_in_it(tmp_path: Path) -> None:
    said = Restarted()
    await killed(tmp_path, said, loop=LOOP)
    await followed(tmp_path, said)
    assert said.batches[1]["events"] == said.batches[0]["events"]


async def test_batch_that_was_worked_off_meanwhile_is_asked_about_once_and_leaves_nothing_on_disk(
    tmp_path: Path,
) -> None:
    said = Restarted("batch.accepted", "batch.processing", "batch.completed")
    await killed(tmp_path, said)
    assert left(tmp_path), "it was kept"
    await followed(tmp_path, said, checks=3)
    assert said.sent_again(1) == []
    assert left(tmp_path) == []


async def test_many_batches_of_a_killed_worker_that_are_worked_off_take_three_questions(tmp_path: Path) -> None:
    states = {str(FIRST + 10 * number): "completed" for number in range(60)}
    said = Restarted("batch.accepted", "batch.completed", states=states)
    await killed(tmp_path, said, commands=60)
    transport = await followed(tmp_path, said)
    asked = [path for method, path, _, _ in transport.sent if method == "GET" and "/batch/" in path]
    assert len(asked) == 3
    assert (said.sent_again(60), left(tmp_path)) == ([], [])


async def test_last_batches_of_a_killed_worker_that_a_restart_has_lost_are_found_among_many(tmp_path: Path) -> None:
    states = {str(FIRST + 10 * number): "accepted" if 7 <= number < 10 else "completed" for number in range(13)}
    said = Restarted("batch.accepted", states=states)
    await killed(tmp_path, said, commands=10)
    await followed(tmp_path, said, checks=ceil(OVERDUE_S / CHECK_S) + 2)
    assert said.sent_again(10) == [["step.exit"]] * 3


async def test_item_of_a_loop_that_a_killed_worker_had_told_and_a_restart_has_lost_is_named(tmp_path: Path) -> None:
    before = metrics.BATCHES_NOT_RESCUED.own.value
    said = Restarted("batch.accepted")
    await killed(tmp_path, said, loop=LOOP)
    with capture_logs() as lines:
        await followed(tmp_path, said)
    assert said.sent_again(1) == []
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["command_id"], line["batch"]) == (
        "batch_not_rescued",
        command().command_id,
        str(FIRST),
    )
    assert "items of its loop may be missing" in line["advice"]
    assert metrics.BATCHES_NOT_RESCUED.own.value - before == 1


@pytest.mark.parametrize("stored", [(), ("batch.accepted",)], ids=["nothing stored", "stored"])
async def test_batch_whose_events_had_no_room_on_disk_is_named_with_what_to_do(
    stored: tuple[str, ...], tmp_path: Path
) -> None:
    before = metrics.BATCHES_NOT_RESCUED.own.value
    said = Restarted(*stored)
    [key] = await killed(tmp_path, said, most_bytes=600)
    [row] = kept(tmp_path)
    assert b"success" not in row
    assert all(text in row for text in (key.encode(), str(FIRST).encode(), str(command().command_id).encode()))
    with capture_logs() as lines:
        await followed(tmp_path, said)
    [line] = [line for line in lines if line["log_level"] == "error"]
    assert (line["event"], line["command_id"]) == ("batch_not_rescued", command().command_id)
    assert "no room to keep its events" in line["reason"]
    assert said.sent_again(1) == []
    assert metrics.BATCHES_NOT_RESCUED.own.value - before == 1


async def test_rescue_has_the_same_key_from_each_worker_that_follows_the_batch(tmp_path: Path) -> None:
    """The first one is killed after it, and before the note that it is done: the plane takes it once."""
    said, keys = Restarted("batch.accepted"), []
    for number in range(2):
        await killed(tmp_path / str(number), said)
        said.batches.clear()
        transport = await followed(tmp_path / str(number), said)
        keys += [headers["idempotency-key"] for _, path, _, headers in transport.sent if path == "/api/events/batch"]
        said.batches.clear()
    assert len(keys) == 2
    assert len(set(keys)) == 1


async def test_rescue_that_no_plane_has_taken_is_on_disk(tmp_path: Path) -> None:
    """A follower that is killed before its rescue arrives leaves it to the next one."""
    said = Restarted("batch.accepted")
    await killed(tmp_path, said)

    def script(method: str, path: str, body: Any) -> Any:
        return NotSent("refused") if path == "/api/events/batch" else said(method, path, body)

    await followed(tmp_path, script)
    [row] = look_into(tmp_path).kept
    assert row.event_set is not None
    assert row.event_set.rescues == str(FIRST)


async def test_batch_whose_events_had_no_room_in_memory_is_named_by_its_own_worker() -> None:
    said = Restarted()
    with capture_logs() as lines:
        await checked(said, commands=2, most_bytes=6_500)
    named = [line["batch"] for line in lines if line["event"] == "batch_not_rescued"]
    assert named == [str(FIRST)]
    assert said.sent_again(2) == [WHOLE], "the second one had room"


# ── on disk ──


async def test_first_batch_is_written_at_once_and_those_that_follow_are_one_row(tmp_path: Path) -> None:
    at, transport = plane(Restarted())
    outbox = box(tmp_path)
    telling = emitter(tmp_path, batches=(recent := RecentBatches(outbox)))
    rows = []
    for number in range(50):
        await CommandEvents(command(), at, "w-1", telling, hold_s=5.0).finish(OK, Ours())
        if number in (0, 49):
            await asyncio.sleep(KEEP_S / 100 if number == 0 else 2 * KEEP_S)
            rows.append(len(kept(tmp_path)))
    assert rows == [1, 2]
    keys = [headers["idempotency-key"].encode() for _, _, _, headers in transport.sent]
    [first, others] = kept(tmp_path)
    assert [(key in first, key in others) for key in keys] == [(True, False)] + [(False, True)] * 49
    outbox.close()
    await recent.stop()


async def test_what_a_worker_that_stops_does_not_know_to_be_worked_off_is_for_the_next_one(tmp_path: Path) -> None:
    said = Restarted("batch.accepted")
    at, _ = plane(said)
    outbox = box(tmp_path)
    recent = RecentBatches(outbox)
    telling = emitter(tmp_path, batches=recent)
    await CommandEvents(command(), at, "w-1", telling, hold_s=5.0).finish(OK, Ours())
    await recent.stop()
    outbox.close()
    await followed(tmp_path, said)
    assert said.sent_again(1) == [["step.exit"]]


async def test_disk_that_takes_nothing_is_said_once_and_batches_are_followed_from_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    said = Restarted("batch.accepted")
    at, _ = plane(said)
    recent = RecentBatches(box(blocked / "outbox"))
    telling = emitter(batches=recent)
    resending = Adoption(at.client, telling, InFlight(), recent)
    with capture_logs() as lines:
        for _ in range(3):
            await CommandEvents(command(), at, "w-1", telling, hold_s=5.0).finish(OK, Ours())
            await asyncio.sleep(2 * KEEP_S)
        await asyncio.sleep(CHECK_S + 1.0)
    await recent.stop()
    await resending.stop()
    assert [line["event"] for line in lines].count("outbox_not_writable") == 1
    assert ["step.exit"] in said.sent_again(1)


async def test_batches_that_cannot_be_read_are_named_and_left_beside(tmp_path: Path) -> None:
    await killed(tmp_path, Restarted())
    [path] = tmp_path.glob("*.sqlite3")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE accepted_batches SET contents = ?", (b'[["not", "a batch"]]',))
        database.commit()
    with capture_logs() as lines:
        await followed(tmp_path, Restarted())
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["outbox_row_unreadable"]
    assert len(list(tmp_path.glob("*.unreadable"))) == 1


async def test_off_keeps_no_batch(tmp_path: Path) -> None:
    await killed(tmp_path, Restarted(), outbox=box(tmp_path, "off"))
    assert left(tmp_path) == []


async def test_outcome_on_disk_goes_only_once_its_batch_is_there(tmp_path: Path) -> None:
    """Else a worker that is killed just then has lost it."""
    said = Restarted("batch.accepted")
    at, _ = plane(said)
    telling = emitter(tmp_path, "always")
    OPEN.append(telling.outbox)
    recent = RecentBatches(telling.outbox)
    telling.ends, telling.outbox.before_drop = emitter(batches=recent).ends, recent.write
    await CommandEvents(command(), at, "w-1", telling, hold_s=5.0).finish(OK, Ours())
    assert (look_into(tmp_path).kept, len(kept(tmp_path))) == ((), 1)
    await recent.stop()


# ── the version of a file ──

VERSION_1 = """
    CREATE TABLE event_sets (key TEXT PRIMARY KEY, command_id TEXT NOT NULL, place TEXT NOT NULL,
      row BLOB NOT NULL, data BLOB) WITHOUT ROWID;
    PRAGMA user_version=1
"""
"""As the version before made it."""


def test_file_of_version_1_is_adopted_by_this_version(tmp_path: Path) -> None:
    for ending in ("lock", "sqlite3"):
        (tmp_path / f"outbox-before.{ending}").touch(mode=0o600)
    one = event_set()
    with contextlib.closing(sqlite3.connect(tmp_path / "outbox-before.sqlite3")) as database:
        database.executescript(VERSION_1)
        values = (one.key, one.command_id, one.place, one.packed()[0], None)
        database.execute("INSERT INTO event_sets VALUES (?, ?, ?, ?, ?)", values)
        database.commit()
    ours = box(tmp_path)
    assert [adopted.event_id for adopted in taken(ours)] == [one.event_id]
    assert versions(tmp_path) == [1], "it is left as it was, for a worker of either version"


async def test_batches_are_in_a_file_of_version_2_beside_the_outcomes_which_the_version_before_takes_over(
    tmp_path: Path,
) -> None:
    outbox = box(tmp_path)
    assert outbox.keep(event_set())
    await killed(tmp_path, Restarted(), outbox=outbox)
    assert sorted(versions(tmp_path)) == [1, 2]
    [row] = look_into(tmp_path).kept
    assert version(row.file) == 1
    after = box(tmp_path)
    assert [one.event_id for one in taken(after)] == [7]
    assert len(after.adopted_batches()) == 1


async def test_file_of_version_1_that_is_given_batches_is_one_of_version_2_and_keeps_its_rows(tmp_path: Path) -> None:
    file = OutboxFile.made(tmp_path)
    file.put(event_set().key, "c-7", URL, *event_set().packed())
    assert versions(tmp_path) == [1]
    file.put_batches(b"[]")
    assert versions(tmp_path) == [2]
    assert [row.command_id for row in file.rows()] == ["c-7"]
    file.close(is_empty=False)


def test_outcomes_for_the_rust_plane_stay_in_files_of_version_1(tmp_path: Path) -> None:
    assert box(tmp_path).keep(event_set(dialect=Dialect.RUST))
    assert versions(tmp_path) == [1]
