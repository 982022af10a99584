"""Outcomes on disk: kept as rows, taken over from the dead, never in the way when the disk is broken."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.pipeline.outbox.directory import make_file, outbox_directory
from noetl_worker.pipeline.outbox.file import OutboxFile
from noetl_worker.pipeline.outbox.reading import read_outboxes
from patience import PATIENCE_S
from unit.outboxes import box, event_set, left, left_behind, taken, unsearchable
from unit.planes import URL


def test_set_kept_by_a_killed_process_is_adopted_with_its_ids_and_key(tmp_path: Path) -> None:
    script = (
        "import sys, signal, os; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\n"
        "from unit.outboxes import box, event_set\n"
        "ours = box(Path(sys.argv[1])); assert ours.write(event_set(7)); assert ours.write(event_set(8))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(tmp_path), *sys.path], timeout=PATIENCE_S)
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
    living.write(event_set())
    assert box(tmp_path).adopt() == []


def test_outbox_without_rows_leaves_no_files(tmp_path: Path) -> None:
    ours, one = box(tmp_path), event_set()
    ours.write(one)
    ours.drop(one)
    ours.close()
    assert left(tmp_path) == []


def test_full_outbox_says_so_until_there_is_room_and_keeps_what_it_has(tmp_path: Path) -> None:
    ours, sets = box(tmp_path, max_rows=4), [event_set(number) for number in range(5)]
    assert [ours.write(one) for one in sets] == [True, True, True, True, False]
    assert ours.is_full
    assert ours.write(sets[0]), "a set that is in may be written again"
    ours.drop(sets[0])
    assert not ours.is_full


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    ours = box(tmp_path, max_bytes=100)
    assert ours.write(event_set())
    assert ours.is_full


def test_directory_that_cannot_be_written_is_reported_once_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    ours = box(blocked / "outbox")
    assert [ours.write(event_set(1)), ours.write(event_set(2))] == [False, False]
    said = capsys.readouterr().err
    assert said.count("outbox_not_writable") == 1
    assert "NOETL_WORKER_OUTBOX_DIR" in said


def test_directory_that_cannot_be_looked_at_is_not_used_and_the_log_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left_behind(tmp_path / "parent" / "outbox")
    ours = box(tmp_path / "parent" / "outbox")
    with unsearchable(tmp_path / "parent"):
        assert [ours.adopt(), ours.adopt()] == [[], []]
    said = capsys.readouterr().err
    assert said.count("outbox_not_writable") == 1
    assert "PermissionError" in said
    assert len(ours.adopt()) == 1, "a running worker looks again"


any_name = pytest.mark.skipif(sys.platform != "linux", reason="names of files are UTF-8")


@pytest.mark.parametrize("name", ["o#b", "o?b", "o%41b", pytest.param("o\udcff", marks=any_name)])
def test_outbox_is_looked_into_whatever_its_directory_is_called(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name / "outbox"
    left_behind(directory)
    view = read_outboxes(directory)
    assert ([kept.command_id for kept in view.outcomes], view.unreadable) == (["c-7"], ())
    assert left(tmp_path) == [name], "no file is made elsewhere"


class Database(sqlite3.Connection):
    """SQLite's own, which a test reaches into as a disk does: with a limit, and with a failure of every statement."""

    fails = False

    def execute(self, *arguments: Any) -> Any:
        if self.fails:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(*arguments)


@pytest.fixture
def databases(monkeypatch: pytest.MonkeyPatch) -> list[Database]:
    """Those that are opened, in their order."""
    connect, opened = sqlite3.connect, []

    def connected(path: Path) -> Database:
        opened.append(connect(path, factory=Database))
        return opened[-1]

    monkeypatch.setattr(sqlite3, "connect", connected)
    return opened


def test_full_disk_is_reported_and_the_set_stays_in_memory(tmp_path: Path, databases: list[Database]) -> None:
    ours = box(tmp_path)
    assert ours.write(event_set(1))
    databases[0].execute("PRAGMA max_page_count=4")  # what SQLite says of a full disk: SQLITE_FULL
    large = event_set(2)
    large.report.response = "x" * 100_000
    with capture_logs() as lines:
        assert not ours.write(large)
        assert ours.trouble == "the outbox cannot be written, and 1 outcomes are in memory only"
        databases[0].execute("PRAGMA max_page_count=1000000")
        assert ours.write(large), "and it works again when there is room"
        assert ours.trouble is None
    assert [line["event"] for line in lines] == ["outbox_not_writable", "outbox_writable"]
    assert "full" in lines[0]["error"]


def test_outbox_on_nfs_is_adopted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS gives a lock for itself alone only on a file that is open for writing (flock(2))."""
    flock = fcntl.flock

    def of_nfs(file: Any, operation: int) -> None:
        is_read_only = fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        if operation & fcntl.LOCK_EX and is_read_only:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(file, operation)

    left_behind(tmp_path)
    monkeypatch.setattr(fcntl, "flock", of_nfs)
    assert [one.event_id for one in taken(box(tmp_path))] == [7]


def executed(path: Path, statement: str) -> list[Any]:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return database.execute(statement).fetchall()


def test_row_that_does_not_decode_is_named_and_the_others_are_adopted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dead = OutboxFile.create(tmp_path)
    dead.put(event_set(7).key, "c-7", URL, *event_set(7).packed())
    dead.put("x", "c-8", URL, b'{"not": "a set"}', None)
    dead.close(is_empty=False)
    ours = box(tmp_path)
    [one] = taken(ours)
    assert one.event_id == 7
    assert "outbox_row_unreadable" in capsys.readouterr().err
    ours.drop(one)
    assert ours.is_empty
    [unreadable] = tmp_path.glob("*.unreadable")
    kept = executed(unreadable, "SELECT key FROM event_sets")
    assert kept == [("x",)], "another version's rows are not ours to delete"
    assert left(tmp_path) == [unreadable.name]


@pytest.mark.parametrize("version", [0, 3])
def test_file_of_another_version_says_what_to_do_and_waits_for_who_can_read_it(tmp_path: Path, version: int) -> None:
    left_behind(tmp_path)
    [path], before = tmp_path.glob("*.sqlite3"), left(tmp_path)
    executed(path, f"PRAGMA user_version={version}")
    ours = box(tmp_path)
    with capture_logs() as lines:
        assert [ours.adopt(), ours.adopt()] == [[], []]
    [line] = lines
    assert line["event"] == "outbox_not_adopted"
    says = f"{path} is an outbox of version {version}, and this worker reads versions 1 and 2: start a worker"
    assert says in line["error"]
    assert left(tmp_path) == before, "nothing is renamed or lost"
    assert read_outboxes(tmp_path).unreadable == (path,)
    assert ours.write(event_set(8)), "its own rows are in a file of its own"
    executed(path, "PRAGMA user_version=1")
    assert [one.event_id for one in taken(ours)] == [7]


@pytest.mark.parametrize("outcomes", [0, 1])
def test_kept_batches_of_an_earlier_version_are_dropped_and_its_outcomes_adopted(outcomes: int, tmp_path: Path) -> None:
    """It had a file for each: both are of version 2, which had room for both."""
    for number in range(outcomes):
        left_behind(tmp_path, event_set(number))
    dead = OutboxFile.create(tmp_path)
    for number in range(7, 7 + outcomes):
        dead.put(event_set(number).key, f"c-{number}", URL, *event_set(number).packed())
    dead.close(is_empty=False)
    with contextlib.closing(sqlite3.connect(dead.path)) as database:
        database.executescript(
            "CREATE TABLE accepted_batches (number INTEGER PRIMARY KEY, contents BLOB NOT NULL);"
            "INSERT INTO accepted_batches (contents) VALUES (x'5b5d'); PRAGMA user_version=2"
        )
    ours = box(tmp_path)
    adopted = taken(ours)
    assert sorted(one.event_id for one in adopted) == [0, 7][: 2 * outcomes]
    for one in adopted:
        ours.drop(one)
    assert left(tmp_path) == []


def test_outcomes_are_in_a_file_of_version_1_which_the_version_before_adopts(tmp_path: Path) -> None:
    assert box(tmp_path).write(event_set())
    [path] = tmp_path.glob("*.sqlite3")
    assert executed(path, "PRAGMA user_version") == [(1,)]
    assert executed(path, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("event_sets",)]


def test_file_of_a_process_that_died_before_its_first_row_is_taken_away(tmp_path: Path) -> None:
    for ending in ("lock", "sqlite3"):
        make_file(tmp_path / f"outbox-young.{ending}")
    assert read_outboxes(tmp_path).unreadable == ()
    assert box(tmp_path).adopt() == []
    assert left(tmp_path) == []


def test_off_writes_nothing(tmp_path: Path) -> None:
    ours = box(tmp_path, "off")
    assert not ours.write(event_set())
    assert ours.adopt() == []
    assert left(tmp_path) == []


def test_row_that_is_told_by_our_own_run_meanwhile_is_no_longer_there(tmp_path: Path) -> None:
    left_behind(tmp_path)
    ours = box(tmp_path)
    [row] = ours.adopt()
    ours.drop(event_set())
    assert ours.load(row.key) is None
    assert left(tmp_path) == []


def test_row_that_cannot_be_read_just_now_is_taken_over_again(tmp_path: Path, databases: list[Database]) -> None:
    left_behind(tmp_path)
    ours = box(tmp_path)
    [row] = ours.adopt()
    databases[-1].fails = True
    assert ours.load(row.key) is None
    databases[-1].fails = False
    assert [one.event_id for one in taken(ours)] == [7]


def test_disk_without_room_for_a_file_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sqlite3.connect

    def without_room(path: Path) -> Any:
        Path(path).touch()
        made(path).close()
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(sqlite3, "connect", without_room)
    ours = box(tmp_path)
    assert [ours.write(event_set(number)) for number in range(3)] == [False] * 3
    assert left(tmp_path) == []


def test_files_that_are_taken_over_at_a_time_are_bounded(tmp_path: Path) -> None:
    for number in range(70):
        left_behind(tmp_path, event_set(number))
    ours, told = box(tmp_path), 0
    while rows := taken(ours):
        assert len(rows) <= 32
        for one in rows:
            ours.drop(one)
            told += 1
    assert told == 70


@pytest.mark.parametrize(
    ("variables", "place"),
    [
        ({"STATE_DIRECTORY": "/var/lib/w:/var/lib/x", "XDG_STATE_HOME": "/state"}, "/var/lib/w/outbox"),
        ({"XDG_STATE_HOME": "/state"}, "/state/noetl-worker/outbox"),
        ({"HOME": "{home}"}, "{home}/.local/state/noetl-worker/outbox"),
        ({"HOME": "/does/not/exist"}, "{temporary}/noetl-worker-outbox-{user}"),
    ],
)
def test_directory_that_no_setting_names_is_in_the_state_of_the_service_or_the_user(
    variables: dict[str, str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {"home": tmp_path, "temporary": tempfile.gettempdir(), "user": os.getuid()}
    for name, value in variables.items():
        monkeypatch.setenv(name, value.format(**words))
    assert outbox_directory("") == Path(place.format(**words))
    assert outbox_directory("/named") == Path("/named")


def test_directory_is_made_for_its_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = outbox_directory("")
    left_behind(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
