"""Many commands of kind `duckdb`: no process, descriptor or file is left of them, and memory stays what it is."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from faults.scene import children_of
from noetl_worker.testing import tool_context
from noetl_worker.tools.process.confinement import Confinement
from noetl_worker.tools.registry import Registry
from patience import until

pytest.importorskip("duckdb")

AT_ONCE = 8
GROWTH_KB = 16 * 1024


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def memory_kb(process: int) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


async def run_many(registry: Registry, count: int, place: Path) -> None:
    """Statements in memory and in a file, one that fails, and one that is cut off."""
    configs: list[dict[str, Any]] = [
        {"query": "SELECT sum(i) AS n FROM range(1000) r(i)"},
        {"query": f"COPY (SELECT 1 AS a) TO '{place}/out.csv'; SELECT 1 AS n"},
        {"query": "CREATE OR REPLACE TABLE t AS SELECT 1 AS n; FROM t", "database": str(place / "a.duckdb")},
        {"query": "FROM nothing"},
        {"query": "SELECT count(*) FROM range(1000000000000) r(i) WHERE sin(i) > 2", "timeout": 0.05},
    ]
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            config = configs[number % len(configs)] if number % 50 == 4 else configs[number % 4]
            with_context = registry.run_tool("duckdb", config, tool_context(registry=registry))
            await asyncio.gather(with_context, return_exceptions=True)

    await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))


@pytest.mark.parametrize("count", [16, pytest.param(10_000, marks=[pytest.mark.soak, pytest.mark.timeout(7200)])])
async def test_nothing_is_left_of_many_duckdb_commands(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    (data := tmp_path / "data").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    registry = Registry(plugins=False, confinement=Confinement("basic", duckdb_bytes=256 << 20))
    me = os.getpid()
    of_other_tests = set(children_of(me))
    try:
        await run_many(registry, max(count // 10, AT_ONCE), data)  # what is kept warm is there then
        before = descriptors(), set(children_of(me)), memory_kb(me)
        await run_many(registry, count, data)
        await until(lambda: len(children_of(me)) <= len(before[1]) + AT_ONCE, "the end of the processes of commands")
        assert descriptors() <= before[0] + 3 * AT_ONCE
        assert memory_kb(me) - before[2] < GROWTH_KB
        assert sorted(one.name for one in data.iterdir()) == ["a.duckdb", "out.csv"]
    finally:
        await registry.aclose()
    await until(lambda: set(children_of(me)) <= of_other_tests, "the end of the template")
    assert list(temporary.iterdir()) == []
