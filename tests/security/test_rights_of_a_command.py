"""Processes of a command use rights and memory that they should not have."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from noetl_worker.cli.local_worker import local_settings
from noetl_worker.errors import ToolError
from noetl_worker.models import Dialect
from noetl_worker.observability.probes import Health
from noetl_worker.pipeline.command.tool_rules import log_what_is_not_confined
from noetl_worker.remote.plane.plane_watch import HeartbeatWatch
from noetl_worker.remote.plane.registration import Registration
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import arun_tool, tool_context
from noetl_worker.tools.process import confinement
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.process.machine import memory_bytes
from noetl_worker.tools.registry import Registry
from noetl_worker.worker.worker import Worker
from tool_settings import tool_settings
from unit.planes import answer, plane

from .commands import USERS, run_as, run_one

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux")

STATUS = "import pathlib\nresult = pathlib.Path('/proc/self/status').read_text()"
LIMITS = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE), open('/proc/self/oom_score_adj').read())"
READS_OF_OTHERS = (19, 21, 38, 39)
"""CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF."""


@cache
def outcomes(user: str, level: str) -> dict[str, list[dict[str, Any]]]:
    """By kind what came of its two commands: its status, and its limits. One worker runs all four."""
    shell = ("sh -c 'cat /proc/self/status'", "ulimit -c; ulimit -Hc; cat /proc/self/oom_score_adj")
    commands = [("shell", {"command": one}) for one in shell] + [("python", {"code": one}) for one in (STATUS, LIMITS)]
    found = run_as(user, level, commands)
    return {"shell": found[:2], "python": found[2:]}


def status_of(user: str, level: str, kind: str) -> dict[str, str]:
    outcome = outcomes(user, level)[kind][0]
    text = outcome["stdout"] if kind == "shell" else outcome["data"]
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["shell", "python"])
def test_command_has_no_capability_to_read_other_processes(user: str, kind: str) -> None:
    """Root reads memory by CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON or CAP_BPF."""
    status = status_of(user, "basic", kind)
    sets = ["CapInh", "CapPrm", "CapEff", "CapAmb", *(["CapBnd"] if user == "root" else [])]
    for name in sets:
        assert not any(int(status[name], 16) >> number & 1 for number in READS_OF_OTHERS), name


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["shell", "python"])
def test_command_gains_no_rights_by_starting_a_program(user: str, kind: str) -> None:
    """A set-user-ID program (sudo, su) restores rights."""
    assert status_of(user, "basic", kind)["NoNewPrivs"].strip() == "1"
    assert status_of(user, "off", kind)["NoNewPrivs"].strip() == "0"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["shell", "python"])
def test_command_writes_no_core_and_is_killed_first_for_memory(user: str, kind: str) -> None:
    """A core file has credentials; a memory hog has its worker killed."""
    assert outcomes(user, "basic")[kind][1]["stdout"].split() == ["0", "0", "1000"]


@pytest.mark.parametrize("user", USERS)
def test_worker_itself_is_not_killed_first_for_memory(user: str) -> None:
    """(no attack) Nor is the process that all commands come from."""
    own = Path("/proc/self/oom_score_adj").read_text()
    code = f"""import os, time
above = [line.split()[1] for line in open(f'/proc/{{os.getppid()}}/status') if line[:4] == 'PPid']
for _ in range(10_000):
    result = open(f'/proc/{{above[0]}}/oom_score_adj').read()
    if result == {own!r}:
        break
    time.sleep(0.001)  # it may be at the fork still, for which it is set
"""
    assert run_one(user, "basic", "python", {"code": code})["data"] == own


@pytest.mark.parametrize("user", USERS)
def test_file_that_grows_without_end_ends_its_program(user: str) -> None:
    """A program fills the disk."""
    outcome = run_one(
        user, "basic", "shell", {"command": "head -c 4194304 /dev/zero > f; stat -c %s f"}, file_bytes=1 << 20
    )
    assert outcome["stdout"].strip() == str(1 << 20)


@pytest.mark.parametrize("user", USERS)
def test_descriptors_and_memory_of_a_process_have_a_limit(user: str) -> None:
    """A program takes all memory or open files."""
    code = "import resource as r\nresult = [r.getrlimit(r.RLIMIT_NOFILE), r.getrlimit(r.RLIMIT_DATA)]"
    outcome = run_one(user, "basic", "python", {"code": code}, descriptors=128, memory_bytes=1 << 30)
    assert outcome["data"] == [[128, 128], [1 << 30, 1 << 30]]
    takes = {"code": "result = len(bytearray(2 << 30))"}
    assert "MemoryError" in run_one(user, "basic", "python", takes, memory_bytes=1 << 30)["stderr"]


def test_settings_reach_the_processes_of_commands() -> None:
    """(no attack) NOETL_WORKER_ISOLATION and its limits are the worker's settings."""
    worker = Worker(load_settings({"NOETL_WORKER_PROCESS_MEMORY_MB": "0"}))
    given = worker.registry.confinement
    assert (given.level, given.file_bytes, given.descriptors, given.memory_bytes) == ("basic", 64 << 30, 16_384, 0)
    machine = Worker(load_settings({})).registry.confinement.memory_bytes
    assert 0 < machine <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


async def test_registration_names_the_level() -> None:
    """(no attack) Who looks at the registry sees which workers isolate their commands."""
    settings = load_settings({"NOETL_WORKER_ISOLATION": "off"})
    at, transport = plane(lambda *_: answer(200, {"status": "ok"}))
    await Registration(at, settings, "w", HeartbeatWatch(at.url, Health())).register()
    assert transport.sent[0][2]["labels"]["isolation"] == "off"


SHARE = Confinement("basic", duckdb_bytes=100 << 20)
LIMIT = "select current_setting('memory_limit') as m"


async def limit_of_duckdb(*before: str, allowed: str = "", **config: str) -> object:
    """The limit that a query sees, after other statements."""
    pytest.importorskip("duckdb")
    settings = tool_settings(NOETL_DUCKDB_MEMORY_LIMIT=allowed)
    registry = Registry(plugins=False, confinement=SHARE, settings=settings)
    result: Any = await arun_tool("duckdb", {"query": [*before, LIMIT], **config}, registry=registry)
    return result.data["rows"][0]["m"]


async def test_duckdb_has_its_share_of_the_memory() -> None:
    """Sixteen `duckdb` commands take 80 % of the memory each."""
    assert await limit_of_duckdb() == "100.0 MiB"
    assert await limit_of_duckdb(memory_limit="50MiB") == "50.0 MiB"
    assert await limit_of_duckdb(allowed="200MiB") == "200.0 MiB"
    assert await limit_of_duckdb(allowed="200MiB", memory_limit="150MiB") == "150.0 MiB"


@pytest.mark.parametrize(
    "statement",
    [
        "SET GLOBAL max_memory = '9GiB'",
        pytest.param("RESET memory_limit", marks=pytest.mark.sweep),
        pytest.param("PRAGMA memory_limit = '9GiB'", marks=pytest.mark.sweep),
        "SET VARIABLE more = '9GiB'; SET memory_limit = getvariable('more')",
    ],
)
async def test_sql_does_not_take_more_memory_than_its_share(statement: str) -> None:
    """SQL raises DuckDB's memory limit."""
    pytest.importorskip("duckdb")
    registry = Registry(plugins=False, confinement=Confinement("basic", duckdb_bytes=30 << 20))
    context = tool_context(registry=registry)
    hog = f"{statement}; SET temp_directory = ''; SELECT count(DISTINCT i) FROM range(2000000000) r(i)"
    with pytest.raises(ToolError, match=r"Out of Memory|the process of DuckDB was killed|bad_alloc") as caught:
        await registry.run_tool("duckdb", {"query": hog}, context)
    assert caught.value.kind == "resource"
    assert (await registry.run_tool("duckdb", {"query": "SELECT 1 AS x"}, context)).data["rows"] == [{"x": 1}]
    await registry.aclose()


async def test_step_does_not_take_more_memory_than_its_share() -> None:
    """A step raises it."""
    assert await limit_of_duckdb(memory_limit="300MiB") == "100.0 MiB"
    assert await limit_of_duckdb(allowed="200MiB", memory_limit="300MiB") == "200.0 MiB"


async def test_each_end_of_a_transfer_has_half_of_a_share(tmp_path: Path) -> None:
    """A transfer has two DuckDBs."""
    pytest.importorskip("duckdb")
    config = {
        "source": {"type": "duckdb", "query": LIMIT},
        "target": {"type": "duckdb", "database": str(tmp_path / "t.db"), "table": "t"},
    }
    await arun_tool("transfer", config, registry=Registry(plugins=False, confinement=SHARE))
    read = {"query": "select m from t", "database": str(tmp_path / "t.db")}
    assert (await arun_tool("duckdb", read)).data["rows"] == [{"m": "50.0 MiB"}]


def test_share_of_duckdb_is_by_how_many_run_at_once() -> None:
    """(no attack) Slots, the kinds that have a DuckDB and their limits."""
    usable = memory_bytes() * 4 // 5

    def share(**variables: str) -> int:
        return Worker(load_settings({"WORKER_MAX_CONCURRENT": "4", **variables})).registry.confinement.duckdb_bytes

    alone = {"NOETL_WORKER_KINDS_DENY": "ducklake,transfer"}
    assert share() == usable // 4
    assert share(NOETL_WORKER_KIND_LIMITS="duckdb=2", **alone) == usable // 2
    assert share(NOETL_WORKER_KIND_LIMITS="duckdb=2") == usable // 4
    assert share(NOETL_WORKER_KIND_LIMITS="duckdb=1,ducklake=1,transfer=1") == usable // 3
    assert share(NOETL_WORKER_KIND_LIMITS="duckdb=2", NOETL_WORKER_KINDS="duckdb,http") == usable // 2
    assert share(NOETL_WORKER_KINDS="http") == usable
    assert share(NOETL_WORKER_ISOLATION="off") == 0


def test_what_the_system_lacks_is_logged() -> None:
    """(no attack) A sandbox without a list of children."""
    assert confinement.missing() == []
    without = confinement.missing("/proc/self/task/{}/no-such-file")
    assert without == ["processes that leave their session"]


def test_dev_has_no_isolation_and_a_worker_has() -> None:
    """(no attack) On one's own machine ping and sudo work; NOETL_WORKER_ISOLATION is heard there too."""
    assert load_settings({}).isolation == "basic"
    beside = ("nats://localhost:1", "http://localhost:1", Dialect.PYTHON)
    assert local_settings(*beside, machine={}).settings.isolation == "off"
    assert local_settings(*beside, machine={"NOETL_WORKER_ISOLATION": "basic"}).settings.isolation == "basic"


@pytest.mark.parametrize("level", ["basic", "off"])
def test_what_a_system_lacks_is_logged_once_at_the_start(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """(no attack) macOS has the limits alone."""
    monkeypatch.setattr(confinement, "libc", None)
    with capture_logs() as logs:
        log_what_is_not_confined(load_settings({"NOETL_WORKER_ISOLATION": level}))
    lines = [line for line in logs if line["event"] == "isolation_incomplete"]
    assert len(lines) == (1 if level == "basic" else 0)
    assert all("dropped capabilities" in line["not_on_this_system"] for line in lines)
    assert all(len(line["not_on_this_system"]) >= 3 for line in lines)
