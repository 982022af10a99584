"""Runs of `dev` are stored for `why`, `report` and `replay`: what of them, where, and how many."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from closed_port import closed_port
from dev.shown_session import interrupted_session
from integration.processes import Ended, typed
from noetl_worker.authoring.dev.stored_runs.runs import StoredRow, StoredRuns
from noetl_worker.cli.stored_run import stored_run_plane
from noetl_worker.models import Dialect
from patience import PATIENCE_S, until
from unit.outboxes import unsearchable

FAILS = """\
metadata: {name: p, path: p}
workload: {divisors: [1, 0]}
workflow:
  - step: start
    tool: {kind: noop}
    next: {arcs: [{step: two}]}
  - step: two
    loop: {in: "{{ workload.divisors }}", iterator: n}
    tool: {kind: python, input: {n: "{{ n }}"}, code: "result = {'n': 1 / n}"}
"""


class Failed(NamedTuple):
    """A stored run of FAILS."""

    dialect: Dialect
    state: Path
    execution_id: object
    command: dict[str, object]
    """The line of the command that failed."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "noetl-worker" / "dev"


def ran(folder: Path, text: str, *flags: str) -> list[dict[str, object]]:
    """The lines that `dev --json` prints."""
    (folder / "p.yaml").write_text(text, encoding="utf-8")
    return [json.loads(line) for line in typed("dev", str(folder / "p.yaml"), "--json", *flags).out.splitlines()]


@pytest.fixture(scope="module", params=Dialect, ids=[one.value for one in Dialect])
def kept_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Failed:
    """One run for the tests that only look at it."""
    folder = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(folder / "state"))
        begin, *_, failed, _ = ran(folder, FAILS, "--dialect", request.param.value)
    return Failed(request.param, folder / "state", begin["execution_id"], failed)


@pytest.fixture
def failed_run(kept_run: Failed, state: Path, monkeypatch: pytest.MonkeyPatch) -> Failed:
    monkeypatch.setenv("XDG_STATE_HOME", str(kept_run.state))
    return kept_run


def why(name: object) -> Ended:
    return typed("why", str(name), COLUMNS="400")


def test_why_tells_how_each_command_of_a_run_of_dev_ended(failed_run: Failed) -> None:
    said = why(failed_run.execution_id)
    word = "failed" if failed_run.dialect is Dialect.PYTHON else "completed with status error"
    assert said.code == 0
    assert why("last").out == said.out
    assert f"; first two {word}: ZeroDivisionError: division by zero" in said.out.splitlines()[0]
    command_id = failed_run.command["command_id"]
    assert f"two {word}: ZeroDivisionError: division by zero (command {command_id}, event " in said.out
    for end in re.findall(r"\(command (?:\S+), event (\d+)\)", said.out):
        assert why(end).code == 0, "any id of it is known"
    assert said.out.count("two completed (command ") == 1


def test_why_knows_a_command_of_a_run_of_dev(failed_run: Failed) -> None:
    said = why(failed_run.command["command_id"])
    assert said.code == 0
    assert "the control plane has its end" in said.out
    assert re.search(rf"call\.\w+ \(\w+\), event {failed_run.command['event_id']}, ", said.out)
    assert "ZeroDivisionError: division by zero" in said.out


def test_report_writes_the_page_of_a_kept_run(failed_run: Failed) -> None:
    for name in ("last", str(failed_run.execution_id)):
        said = typed("report", name, "-o", "-")
        assert said.code == 0
        assert str(failed_run.execution_id) in said.out
        assert "ZeroDivisionError: division by zero" in said.out


def test_report_of_what_is_no_execution_says_what_it_takes(failed_run: Failed) -> None:
    for name in ("yesterday", str(failed_run.command["command_id"])):
        said = typed("report", name)
        assert said.code == 2
        assert said.err_lines == [
            f"noetl-worker report: ID='{name}' is not usable: the id of an execution, or `last` if a run of `dev` is "
            "stored"
        ]


def test_replay_takes_any_id_of_a_kept_run_or_last_and_reports_nothing(failed_run: Failed) -> None:
    failed = failed_run.command
    for name in ("last", *map(str, (failed_run.execution_id, failed["command_id"], failed["event_id"]))):
        done = typed("replay", name)
        begin = f"python of step two, execution {failed_run.execution_id}: run here"
        assert (done.code, done.err_lines) == (1, [begin])
        assert "ZeroDivisionError: division by zero" in done.out
        assert all(line.startswith("not sent: ") for line in done.out.splitlines() if "/api/" in line)


def test_stored_runs_are_their_users_alone(failed_run: Failed) -> None:
    stored = failed_run.state / "noetl-worker" / "dev"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (stored, *stored.iterdir())}
    assert modes == {"dev": 0o700, "runs.sqlite3": 0o600}


def test_replay_says_which_input_lacks_a_secret_before_it_runs(tmp_path: Path, dialect: Dialect) -> None:
    text = FAILS.replace('n: "{{ n }}"', 'pw: "{{ workload.password }}", n: "{{ n }}"')
    text = text.replace("[1, 0]", "[1, 0], password: hush-4711")
    begin, *_, failed, _ = ran(tmp_path, text, "--dialect", dialect.value)
    said = typed("replay", str(failed["event_id"])).err_lines
    place = "input.pw" if dialect is Dialect.PYTHON else "args.pw"
    assert said[:2] == [
        f"noetl-worker replay: its {place} has [REDACTED] in place of a secret, which is not stored: "
        f"use dev FILE --step 'two[1]' --run {begin['execution_id']}",
        f"python of step two, execution {begin['execution_id']}: run here",
    ]


def test_replay_of_what_is_no_id_says_what_it_takes() -> None:
    for name in ("yesterday", "last", "7:two:"):
        said = typed("replay", name)
        assert said.code == 2
        assert said.err_lines == [
            f"noetl-worker replay: ID='{name}' is not usable: give the event_id of a command.issued event, "
            "any id of a stored run of `dev`, or `last` if a run is stored"
        ]


def test_id_that_nobody_knows_is_said_to_be_in_no_kept_run_before_the_plane_is_named() -> None:
    away = f"http://127.0.0.1:{closed_port()}"
    begin = "no stored run of dev has the id 12345, and"
    for command in ("replay", "report"):
        said = typed(command, "12345", NOETL_SERVER_URL=away)
        assert (said.code, len(said.err_lines)) == (3, 1)
        assert said.err.startswith(f"noetl-worker {command}: {begin} no control plane answers (NOETL_SERVER_URL): GET ")
        assert away in said.err
    said = typed("why", "12345", NOETL_SERVER_URL=away, COLUMNS="400")
    no_answer = f"{begin} nothing is known of it: no control plane answers at {away} (NOETL_SERVER_URL)"
    assert (said.code, said.out.splitlines()[0]) == (5, no_answer)
    assert "no stored run" not in typed("report", "12345", "--server", away).err


def test_run_of_a_child_playbook_is_kept_with_its_parent(tmp_path: Path) -> None:
    (tmp_path / "child.yaml").write_text(
        'metadata: {name: c, path: c}\nworkflow: [{step: start, tool: {kind: shell, command: "exit 3"}}]\n'
    )
    tool = "{kind: playbook, path: c, return_step: start, poll_interval: 0.1}"
    parent = f"metadata: {{name: p, path: p}}\nworkflow: [{{step: start, tool: {tool}}}]\n"
    children = [line for line in ran(tmp_path, parent) if line["event"] == "failed"]
    assert "c is FAILED" in why(children[0]["execution_id"]).out


def test_nothing_that_is_secret_is_in_the_kept_file(tmp_path: Path, state: Path) -> None:
    secrets = {"data": "fizz-Buzz-93-credential", "named": "qUux-71-of-the-workload"}
    (tmp_path / "credentials.yaml").write_text(json.dumps({"db": {"type": "custom", "data": {"key": secrets["data"]}}}))
    code = "print(auth['db']['key']); result = {'got': auth['db']['key'], 'text': t}"
    text = (
        f"metadata: {{name: p, path: p}}\nworkload: {{password: {secrets['named']}}}\nworkflow:\n  - step: start\n"
        f"    tool: {{kind: python, auth: db, input: {{t: 'it is {{{{ workload.password }}}}'}}, code: {code!r}}}\n"
    )
    assert ran(tmp_path, text)[-1]["status"] == "COMPLETED"
    stored = (state / "runs.sqlite3").read_bytes()
    assert b"REDACTED" in stored
    assert [name for name, secret in secrets.items() if secret.encode() in stored] == []


def test_link_in_place_of_the_kept_runs_is_said_to_be_no_regular_file(tmp_path: Path, state: Path) -> None:
    ran(tmp_path, FAILS)
    (state / "runs.sqlite3").rename(tmp_path / "other")
    (state / "runs.sqlite3").symlink_to(tmp_path / "other")
    assert "runs.sqlite3 is not a regular file: move it away" in why("last").err


def test_run_is_shown_and_not_kept_where_others_may_write(tmp_path: Path, state: Path) -> None:
    state.mkdir(parents=True)
    state.chmod(0o777)
    (tmp_path / "p.yaml").write_text(FAILS.replace(", 0]", "]"))
    done = typed("dev", str(tmp_path / "p.yaml"))
    assert done.code == 0
    assert "is not stored for later commands: directory" in done.err
    assert "chmod go-rwx it" in done.err
    assert list(state.iterdir()) == []


async def test_place_of_kept_runs_that_cannot_be_looked_at_is_named(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state.mkdir(parents=True)
    with unsearchable(state.parent):
        async with stored_run_plane("last") as stored:
            assert stored is None
    said = "the stored runs of dev cannot be read, so the control plane is asked: [Errno 13] Permission denied"
    assert said in capsys.readouterr().err


async def test_interrupted_run_is_kept_and_said_to_be_interrupted(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        'metadata: {name: p, path: p}\nworkflow: [{step: start, tool: {kind: shell, command: "echo on; sleep 60"}}]\n'
    )
    shown = io.StringIO()
    async with interrupted_session(tmp_path / "p.yaml", shown):
        await until(lambda: "start | on" in shown.getvalue(), "the step")
    [run] = StoredRuns().newest(5)
    assert f"execution {run} " in shown.getvalue()
    said = await asyncio.to_thread(why, "last")
    assert said.out.splitlines()[0] == f"execution {run} of p was interrupted"
    page = await asyncio.to_thread(typed, "report", "last", "-o", str(tmp_path / "run.html"))
    assert "p INTERRUPTED, 1 command, " in page.err
    assert "INTERRUPTED" in (tmp_path / "run.html").read_text()


def row(size: int = 1) -> StoredRow:
    return StoredRow("events", "7", b" " * size)


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_run_whose_output_nobody_reads_ends_quietly_and_is_kept(tmp_path: Path, flags: list[str]) -> None:
    """As in `noetl-worker dev p.yaml | head -1`."""
    (tmp_path / "p.yaml").write_text(
        "apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p, path: p}\n"
        "workflow: [{step: start, tool: {kind: noop}}]\n"
    )
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "noetl_worker", "dev", str(tmp_path / "p.yaml"), *flags]
    ended = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, timeout=PATIENCE_S)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (1, b"")
    assert " of p is COMPLETED" in why("last").out


def test_oldest_run_goes_when_there_are_too_many(tmp_path: Path) -> None:
    stored = StoredRuns(tmp_path / "few", most_runs=2)
    assert all(stored.store(run, [row()]) for run in (3, 1, 2))
    assert stored.newest(5) == [2, 1]
    assert len(stored.find("7")) == 1


def test_oldest_runs_go_when_they_are_too_large(tmp_path: Path) -> None:
    stored = StoredRuns(tmp_path / "small", most_bytes=1 << 20)
    assert [stored.store(run, [row(300_000)]) for run in range(1, 6)] == [True] * 5
    assert stored.newest(9) == [5, 4, 3]
    assert (tmp_path / "small" / "runs.sqlite3").stat().st_size <= 1 << 20
    assert not stored.store(6, [row(2 << 20)])


def test_name_of_a_step_is_no_picture_in_what_is_shown(tmp_path: Path) -> None:
    """Its command's id has it between two colons."""
    (tmp_path / "p.yaml").write_text(FAILS)
    said = typed("dev", str(tmp_path / "p.yaml"), "--dialect", "rust").out
    assert ":two:" in said
