"""`noetl-worker doctor`: all of its checks at once, and those of this machine."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from closed_port import closed_port
from integration.findings import by_check, not_fine, nowhere, settings
from integration.house import house
from integration.processes import command_line, typed, until
from noetl_worker.cli.doctor import Finding, State, examine, machine, outbox, variables
from noetl_worker.cli.views.findings import print_findings
from noetl_worker.engine import chosen as engine
from noetl_worker.models import Dialect, Report
from noetl_worker.pipeline.outbox.event_set import EventSet
from noetl_worker.pipeline.outbox.outbox import Outbox
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.tools.process.machine import memory_bytes
from unit.outboxes import unsearchable

# ── all of it ──


async def test_nothing_is_wrong_in_front_of_a_plane_with_a_worker(dialect: Dialect, tmp_path: Path) -> None:
    async with house(dialect, WORKER_ID="w") as home:
        await until(lambda: b'"ready"' in home.plane.registry.pools().body, "the registration")
        findings = await examine(settings(tmp_path, **home.addresses))
        expected = {} if engine.ENGINE == "rust" else {"engine": State.WARNING}
        assert not_fine(findings) == {**expected, "NATS: without a login": State.WARNING}
        found = by_check(findings)
        assert found["control plane version"].found.startswith(dialect.value)
        assert "1 ready: w" in found["registered workers"].found
        assert await home.unsettled() == 0
        assert await home.dead_letters() == []  # trying the permission keeps no dead letter


def test_command_tells_by_its_exit_code_and_as_json(tmp_path: Path) -> None:
    away = {**nowhere(), "NATS_URL": f"nats://u:s3cr3t@127.0.0.1:{closed_port()}"}
    ended = command_line(tmp_path, "doctor", "--json", **away)
    assert (ended.code, ended.err) == (5, "")
    told = json.loads(ended.out)
    assert told["ok"] is False
    wrong = {one["check"]: one for one in told["checks"] if one["state"] == "wrong"}
    assert set(wrong) == {"NATS", "control plane"}
    assert "NATS_URL" in wrong["NATS"]["fix"]
    assert "s3cr3t" not in ended.out
    shown = typed("doctor", "--brief", **away)
    assert shown.code == 5
    assert "WRONG  control plane: start it, or set NOETL_SERVER_URL" in shown.out
    assert " descriptors " not in shown.out


@pytest.mark.parametrize(("columns", "most"), [("", 120), ("90", 90)])
def test_table_in_a_pipe_fits_a_terminal(columns: str, most: int) -> None:
    """The chart's notes say `kubectl exec`, whose output is no terminal and is read on one."""
    ended = typed("doctor", COLUMNS=columns, **nowhere())
    table = ended.out.partition("WRONG  NATS: ")[0]
    assert "outbox directory" in table
    assert max(map(len, table.splitlines())) <= most


def test_setting_that_is_wrong_is_exit_2() -> None:
    ended = typed("doctor", "--ack-wait-s", "soon")
    assert (ended.code, ended.out) == (2, "")
    assert "NOETL_WORKER_ACK_WAIT_S='soon'" in ended.err


@pytest.mark.parametrize("is_up", [True, False])
async def test_login_of_the_plane_is_not_shown(is_up: bool, tmp_path: Path) -> None:
    async with house(worker=False) as home:
        where = home.plane.url.removeprefix("http://") if is_up else f"127.0.0.1:{closed_port()}"
        ours = settings(tmp_path, NATS_URL=home.nats.url, NOETL_SERVER_URL=f"http://user:hunter2@{where}")
        findings = await examine(ours)
    assert where in by_check(findings)["control plane"].found
    assert "hunter2" not in str(findings)


# ── this machine ──


def event_set() -> EventSet:
    report = Report(status="success", context={"text": "x" * 1024})
    return EventSet(7, 1, "c-7", "start", "w", "http://p", Dialect.PYTHON, report)


def test_outbox_directory_of_another_is_wrong(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    assert outbox.check_directory(ours).state is State.FINE
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox").chmod(0o777)
    found = outbox.check_directory(ours)
    assert found.state is State.WRONG
    assert "chmod go-rwx" in found.found
    assert outbox.check_contents(ours).state is State.UNKNOWN
    (tmp_path / "file").touch()
    assert (
        outbox.check_directory(load_settings({"NOETL_WORKER_OUTBOX_DIR": str(tmp_path / "file")})).state is State.WRONG
    )
    assert outbox.check_directory(settings(tmp_path, NOETL_WORKER_OUTBOX="off")).state is State.WARNING


def test_outbox_directory_that_cannot_be_looked_at_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "parent").mkdir()
    ours = load_settings({"NOETL_WORKER_OUTBOX_DIR": str(tmp_path / "parent" / "outbox")})
    with unsearchable(tmp_path / "parent"):
        found = [outbox.check_directory(ours), outbox.check_contents(ours), outbox.check_disk(ours)]
    assert [one.state for one in found] == [State.WRONG, State.UNKNOWN, State.UNKNOWN]
    assert all("Permission denied" in one.found for one in found)


def test_outbox_with_rows_of_a_dead_process_and_a_full_one(tmp_path: Path) -> None:
    ours = settings(tmp_path)
    kept = Outbox("always", tmp_path / "outbox", max_rows=10, max_bytes=10**6)
    kept.write(event_set())
    assert outbox.check_contents(ours).found.startswith("1 event sets")
    assert "0 of dead processes" in outbox.check_contents(ours).found
    kept.close()
    found = outbox.check_contents(ours)
    assert found.state is State.WARNING
    assert "1 of dead processes" in found.found
    full = outbox.check_contents(ours, size=64)
    assert (full.state, full.found.startswith("full: ")) == (State.WRONG, True)
    again = Outbox("always", tmp_path / "outbox", max_rows=10, max_bytes=10**6)
    assert len(again.adopt()) == 1  # looking at it has taken nothing away
    again.close()
    (tmp_path / "outbox" / "outbox-1.unreadable").touch()
    assert "1 files that cannot be read" in outbox.check_contents(ours).found


def test_disk_without_the_room_that_the_outbox_may_take(tmp_path: Path) -> None:
    assert outbox.check_disk(settings(tmp_path), size=1 << 60).state is State.WARNING
    assert outbox.check_disk(settings(tmp_path)).state is State.FINE


def test_open_files_and_memory_are_held_against_the_slots(tmp_path: Path) -> None:
    def slots(number: int, **variables: str) -> Settings:
        rules = {"NOETL_WORKER_KINDS_DENY": "duckdb", **variables}
        return settings(tmp_path, WORKER_MAX_CONCURRENT=str(number), **rules)

    few, many = slots(4), slots(400)
    enough = machine.check_memory(few, 1 << 30)
    assert (enough.state, enough.found) == (
        State.FINE,
        "1074 MB; 249.7 MB are left for what the code of each slot holds",
    )
    assert machine.check_descriptors(few, 1024).state is State.FINE
    assert machine.check_memory(many, 1 << 29).fix.startswith("WORKER_MAX_CONCURRENT=188,")
    assert machine.check_descriptors(many, 1024).state is State.WRONG
    hungry = slots(4, NOETL_WORKER_PROCESS_MEMORY_MB="512")
    assert machine.check_memory(hungry, 1 << 30).wanted.startswith("2212 MB")
    several = slots(4, NOETL_WORKER_PROCESSES="8")
    assert machine.check_memory(several, 1 << 29).fix.startswith("WORKER_MAX_CONCURRENT=1,")
    in_the_worker = slots(400, NOETL_WORKER_KINDS_DENY="duckdb,python,shell")
    assert machine.check_memory(in_the_worker, 1 << 27).state is State.FINE


def test_memory_is_counted_for_duckdb_where_it_is_there_and_allowed(tmp_path: Path) -> None:
    """It takes most of all kinds."""
    pytest.importorskip("duckdb")
    found = machine.check_memory(settings(tmp_path, WORKER_MAX_CONCURRENT="64"), 512 << 20)
    assert found.wanted.startswith("654 MB: 110 and 8.5 for each of 64 slots, as duckdb takes")
    assert found.fix == (
        "WORKER_MAX_CONCURRENT=50, or a container with more memory, or NOETL_WORKER_KINDS_DENY=duckdb where nobody "
        "uses it"
    )


def test_lowest_limit_of_the_cgroups_above_a_worker_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit of systemd below a slice with less."""
    unit = tmp_path / "work.slice" / "noetl.service"
    unit.mkdir(parents=True)
    (unit / "memory.max").write_text("max\n")
    (unit.parent / "memory.max").write_text("268435456\n")
    (tmp_path / "cgroup").write_text("0::/work.slice/noetl.service\n")
    monkeypatch.setattr("noetl_worker.tools.process.machine.OWN_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr("noetl_worker.tools.process.machine.CGROUPS", tmp_path)
    assert memory_bytes() == 1 << 28


def test_packages_that_nothing_can_install_are_wrong_and_those_within_reach_a_warning(tmp_path: Path) -> None:
    assert machine.check_packages(settings(tmp_path), None, ()).state is State.FINE
    wheels = settings(tmp_path, NOETL_WORKER_PYTHON_PACKAGES="wheels")
    assert machine.check_packages(wheels, "/bin/uv", ("/p",)).found == "wheels, by /bin/uv, in /p"
    assert machine.check_packages(wheels, "/bin/uv", ()).state is State.WARNING
    assert "noetl-worker[packages]" in machine.check_packages(wheels, None, ("/p",)).fix


def test_isolation_that_is_off_or_partial_is_a_warning(tmp_path: Path) -> None:
    assert machine.check_isolation(settings(tmp_path, NOETL_WORKER_ISOLATION="off"), []).state is State.WARNING
    partial = machine.check_isolation(settings(tmp_path), ["processes that leave their session"])
    assert partial.state is State.WARNING
    assert "processes that leave their session" in partial.found
    assert machine.check_isolation(settings(tmp_path), []).state is State.FINE


def test_python_engine_says_why_it_is_not_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(engine.VARIABLE, "python")
    assert machine.check_engine("python").found == "python, because NOETL_WORKER_ENGINE=python"
    monkeypatch.setenv(engine.VARIABLE, "auto")
    monkeypatch.setitem(sys.modules, "noetl_worker._core", None)
    assert "cannot be imported" in machine.check_engine("python").found


@pytest.mark.parametrize("width", [80, 120, 150])
def test_no_subject_is_broken_inside_of_its_words(width: int) -> None:
    out, subject = io.StringIO(), "$JS.API.STREAM.CREATE.KV_NOETL_COMMAND_STARTS"
    refused = "refused, so it is to be made by an operator (noetl-worker nats ensure --apply)"
    findings = [
        Finding("may make the bucket of these notes", State.WARNING, refused, f"publish to {subject}", "a fix"),
        Finding("NATS", State.FINE, "nats://localhost:4222, version 2.15.1", "a server that takes this login"),
    ]
    print_findings(findings, brief=False, console=Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert any(subject in line for line in lines)
    assert any("NATS" in line and "version 2.15.1" in line for line in lines)


@pytest.mark.parametrize("is_there", [True, False])
def test_read_only_file_system_is_no_matter_of_modes(
    is_there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_there:
        (tmp_path / "outbox").mkdir(mode=0o700)
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = outbox.check_directory(settings(tmp_path))
    assert found.state is State.WRONG
    assert "read-only file system" in found.found
    assert "chmod" not in found.fix
    assert "NOETL_WORKER_OUTBOX_DIR" in found.fix


def test_mistyped_variable_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    given = {"NOETL_WORKER_PROCESES": "2", "NOETL_WORKER_PORT": "tcp://10.0.0.1:9090"}
    found = variables.check_names(given, tmp_path, settings(tmp_path))
    assert (found.state, found.found) == (State.WARNING, "no settings: NOETL_WORKER_PROCESES")
    assert "did you mean NOETL_WORKER_PROCESSES?" in found.fix
    unused = variables.check_names({}, tmp_path, settings(tmp_path, NATS_PASSWORD="p"))
    assert (unused.state, unused.fix) == (State.WARNING, "set NATS_USER beside it")
    shown = typed("config", NOETL_WORKER_PROCESES="2")
    assert shown.code == 0
    assert shown.err == "noetl-worker: NOETL_WORKER_PROCESES is not read: did you mean NOETL_WORKER_PROCESSES?\n"
