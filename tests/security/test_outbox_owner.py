"""Another user puts outcomes into the outbox, or reads them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import noetl_worker
from noetl_worker.pipeline.outbox.event_set import EventSet
from patience import PATIENCE_S
from unit.outboxes import OPEN, box, event_set, left_behind, taken
from unit.planes import answer, batch_status, emitter
from unit.test_adoption import adopt

NOBODY, STRANGER = 65534, 65533
SOURCE = Path(noetl_worker.__file__).resolve().parent.parent
FORGE = """
import os, sqlite3, sys
directory, row, made = sys.argv[1], sys.argv[2].encode(), sys.argv[3]
os.umask(0o077)
if made == "made":
    os.mkdir(directory, 0o700)
open(directory + "/outbox-forged.lock", "wb").close()
database = sqlite3.connect(directory + "/outbox-forged.sqlite3")
database.execute("CREATE TABLE event_sets (key TEXT PRIMARY KEY, command_id TEXT NOT NULL, place TEXT NOT NULL,"
                 " row BLOB NOT NULL, data BLOB) WITHOUT ROWID")
database.execute("PRAGMA user_version=1")
database.execute("INSERT INTO event_sets VALUES ('a', 'c-7', 'http://plane.test', ?, NULL)", (row,))
database.commit()
"""
ADOPT = """
import sys
sys.modules["rich"] = None  # structlog would load it for traces in colours: a third of the start
from pathlib import Path
from noetl_worker.pipeline.outbox.outbox import Outbox
ours = Outbox("on_failure", Path(sys.argv[1]), max_rows=100, max_bytes=1_000_000)
rows = ours.adopt()
print("adopted", len(rows), "loaded", sum(ours.load(row.key) is not None for row in rows))
ours.close()
"""
LEAVE = """
import sys
sys.modules["rich"] = None
from pathlib import Path
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.pipeline.outbox.event_set import EventSet
ours = Outbox("on_failure", Path(sys.argv[1]), max_rows=100, max_bytes=1_000_000)
print("kept", ours.write(EventSet.unpacked(sys.argv[2].encode())))
ours.close()
"""
is_root = os.geteuid() == 0 and shutil.which("setpriv") is not None
needs_users = pytest.mark.skipif(not is_root, reason="two users are needed: run as root, with setpriv")


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while OPEN:
        OPEN.pop().close()


def loaded(directory: Path) -> list[EventSet]:
    """What a worker that starts reads of the directory."""
    ours = box(directory)
    try:
        return taken(ours)
    finally:
        ours.close()


def run_as(user: int, code: str, *arguments: str) -> str:
    ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups", "--inh-caps=-all"]
    before = ["setpriv", *ids] if user else []
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(SOURCE), *filter(None, sys.path)])}
    done = subprocess.run(
        [*before, sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env=environment,
    )
    if user and "Permission denied" in done.stderr and "noetl_worker" not in done.stdout:
        pytest.skip(f"user {user} cannot run this interpreter: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which every user may make files, as in /tmp."""
    with tempfile.TemporaryDirectory(prefix="noetl-security-") as name:
        os.chmod(name, 0o1777)  # noqa: PTH101
        yield Path(name)


# ── two users ──


@needs_users
@pytest.mark.parametrize("worker", [0, NOBODY], ids=["root", "nobody"])
@pytest.mark.parametrize("how", ["its own directory", "a directory of the worker's", "behind a link"])
def test_row_that_another_user_put_there_is_not_taken_over(how: str, worker: int, shared: Path) -> None:
    """Another user makes the directory first, opens it, or links it."""
    directory, row = shared / "outbox", event_set().packed()[0].decode()
    if how == "a directory of the worker's":
        directory.mkdir()
        os.chown(directory, worker, worker)
        directory.chmod(0o777)
        run_as(STRANGER, FORGE, str(directory), row, "there")
    elif how == "behind a link":
        run_as(STRANGER, FORGE, str(shared / "elsewhere"), row, "made")
        directory.symlink_to(shared / "elsewhere")
        os.chown(directory, worker, worker, follow_symlinks=False)
    else:
        run_as(STRANGER, FORGE, str(directory), row, "made")
    # The forger opens it, so that only its owner and mode stand in the way.
    for path in (shared / "outbox").iterdir():
        path.chmod(0o666)
    if how != "a directory of the worker's":
        directory.chmod(0o777)
    said = run_as(worker, ADOPT, str(directory))
    assert "adopted 0 loaded 0" in said
    assert "outbox_not_writable" in said
    assert sorted(path.name for path in directory.iterdir()) == ["outbox-forged.lock", "outbox-forged.sqlite3"]


@needs_users
@pytest.mark.parametrize("worker", [0, NOBODY], ids=["root", "nobody"])
def test_file_of_another_user_in_a_directory_of_ones_own_is_not_taken_over(worker: int, shared: Path) -> None:
    """A file left while the directory was open."""
    directory = shared / "outbox"
    directory.mkdir()
    directory.chmod(0o777)
    os.chown(directory, worker, worker)
    run_as(STRANGER, FORGE, str(directory), event_set().packed()[0].decode(), "there")
    directory.chmod(0o700)
    for path in directory.iterdir():
        path.chmod(0o666)
    assert "adopted 0 loaded 0" in run_as(worker, ADOPT, str(directory))


@needs_users
def test_whole_outbox_of_another_user_is_not_taken_over_by_root(shared: Path) -> None:
    """Another user makes the directory and rows in it: root could read all of them."""
    directory = shared / "outbox"
    assert "kept True" in run_as(STRANGER, LEAVE, str(directory), event_set().packed()[0].decode())
    assert "adopted 1 loaded 1" in run_as(STRANGER, ADOPT, str(directory))
    assert "adopted 0 loaded 0" in run_as(0, ADOPT, str(directory))


@needs_users
@pytest.mark.parametrize("worker", [0, NOBODY], ids=["root", "nobody"])
def test_link_of_another_user_to_a_directory_of_the_workers_is_not_followed(worker: int, shared: Path) -> None:
    """A link in the outbox's place to a worker's directory."""
    own, link = shared / "own", shared / "outbox"
    left_behind(own)
    assert list(own.glob("*.sqlite3"))
    for path in (own, *own.iterdir()):
        os.chown(path, worker, worker)
    link.symlink_to(own)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    said = run_as(worker, ADOPT, str(link))
    assert "adopted 0 loaded 0" in said
    assert "is not a directory: move it away" in said


@needs_users
@pytest.mark.parametrize("worker", [0, NOBODY], ids=["root", "nobody"])
def test_row_of_the_same_user_is_taken_over(worker: int, shared: Path) -> None:
    directory = shared / "outbox"
    left_behind(directory)
    for path in (directory, *directory.iterdir()):
        os.chown(path, worker, worker)
    assert "adopted 1 loaded 1" in run_as(worker, ADOPT, str(directory))


# ── one user ──


def test_directory_that_others_may_write_is_refused_once_with_what_to_do(tmp_path: Path) -> None:
    """A directory that others may write."""
    left_behind(tmp_path)
    tmp_path.chmod(0o770)
    ours = box(tmp_path)
    with capture_logs() as logs:
        assert [ours.adopt(), ours.adopt()] == [[], []]
        assert not ours.write(event_set())
    [line] = logs
    assert "mode 0770" in line["error"]
    assert "chmod go-rwx" in line["error"]
    tmp_path.chmod(0o700)
    assert len(loaded(tmp_path)) == 1


def test_files_are_for_their_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    """Another user reads outcomes on disk."""
    before = os.umask(0)
    try:
        ours = box(tmp_path / "new")
        assert ours.write(event_set())
    finally:
        os.umask(before)
    modes = {path.suffix: stat.S_IMODE(path.lstat().st_mode) for path in (tmp_path / "new").iterdir()}
    assert set(modes) >= {".lock", ".sqlite3", ".sqlite3-wal"}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o602])
@pytest.mark.parametrize("ending", [".lock", ".sqlite3"])
def test_file_that_others_can_get_at_is_not_taken_over_and_stays(ending: str, mode: int, tmp_path: Path) -> None:
    """A file that others may read or write."""
    left_behind(tmp_path)
    [found] = tmp_path.glob(f"*{ending}")
    found.chmod(mode)
    assert loaded(tmp_path) == []
    found.chmod(0o600)
    assert len(loaded(tmp_path)) == 1


def changed(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute(statement, values)
        database.commit()


@pytest.mark.parametrize(
    ("statement", "value"),
    [
        ("UPDATE event_sets SET data = ?", b"[1]"),
        ("UPDATE event_sets SET row = ?", event_set().packed()[0][:-1]),
        ("UPDATE event_sets SET row = ?", 7),
        ("UPDATE event_sets SET row = ?", "text"),
        ("UPDATE event_sets SET row = ?", b""),
    ],
)
def test_row_that_is_damaged_is_not_sent_and_left_beside(statement: str, value: object, tmp_path: Path) -> None:
    left_behind(tmp_path)
    [path] = tmp_path.glob("*.sqlite3")
    changed(path, statement, value)
    assert loaded(tmp_path) == []
    assert len(list(tmp_path.glob("*.unreadable"))) == 1


# ── a rescue, which no claim stands in front of ──


async def told(directory: Path, state: object) -> list[str]:
    """What is asked and sent for a row that says its batch 41 was never processed; its claim is over."""

    def script(method: str, path: str, body: Any) -> Any:
        if path.endswith("/claim"):
            return answer(409, {"detail": {"code": "already_terminal"}})
        if path.startswith("/api/events/batch/"):
            return batch_status(*state.split()) if isinstance(state, str) else state
        return answer(202, {"event_ids": []})

    rescue = event_set()
    rescue.rescue("41")
    left_behind(directory, rescue)
    transport, _ = await adopt(emitter(directory), script)
    return [path for _, path, _, _ in transport.sent]


STATE, CLAIM, EVENTS = "/api/events/batch/41/status", "/api/commands/7/claim", "/api/events/batch"
STORED = "/api/executions/1/events?event_type=command.completed&page_size=200"
"""Whether the end that the claim says is over is there; only read."""


async def test_rescue_on_disk_is_sent_when_the_plane_confirms_it(tmp_path: Path) -> None:
    assert await told(tmp_path, "failed") == [STATE, EVENTS]


@pytest.mark.parametrize(
    "state", ["completed", "processing", "accepted", "failed processing_error", answer(404, {"detail": "not found"})]
)
async def test_rescue_on_disk_that_the_plane_does_not_confirm_asks_its_claim(state: object, tmp_path: Path) -> None:
    """A row says that its claim need not be asked."""
    assert await told(tmp_path, state) == [STATE, CLAIM, STORED]


def test_row_never_says_that_the_plane_confirmed_it() -> None:
    rescue = event_set()
    rescue.rescue("41")
    row = json.loads(rescue.packed()[0])
    row["is_rescue"] = True
    read = EventSet.unpacked(json.dumps(row).encode())
    assert (read.is_rescue, read.rescues) == (False, "41")
