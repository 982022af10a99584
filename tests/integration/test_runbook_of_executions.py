"""docs/runbook.md: an outcome or an execution that the plane loses is found in the log by the commands of its section.

Planes that lose something are scripted from recordings, on a virtual clock: it takes minutes until a worker is sure.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import logging_guard
import virtual_time
from integration.pods import logged
from integration.test_runbook import section
from noetl_worker.observability.logging import configure_logging
from unit.planes import answer, command
from unit.restarted_plane import FIRST, LOOP, Restarted, checked
from unit.test_long_ends import STUCK, watched

anyio_backend = virtual_time.anyio_backend


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A worker's, with what it says besides."""
    path = tmp_path / "worker.log"
    with path.open("w", encoding="utf-8", buffering=1) as stream, logging_guard.kept():
        monkeypatch.setattr("sys.stderr", stream)
        configure_logging("info", "json")
        yield path


def found(alert: str, log: Path) -> list[dict[str, Any]]:
    besides = '{"event": "command_finished", "share": 1.0}\n' * 20
    log.write_text(log.read_text(encoding="utf-8") + besides, encoding="utf-8")
    return [json.loads(line) for line in logged(section(alert), log).splitlines()]


async def test_batch_that_the_plane_never_processes_is_found_with_its_execution(log: Path) -> None:
    await checked(Restarted("batch.accepted"), loop=LOOP)
    [line] = found("NoetlWorkerBatchNotRescued", log)
    assert (line["event"], line["batch"]) == ("batch_not_rescued", str(FIRST))
    assert line["execution_id"] == str(command().execution_id)
    assert "RUNNING" in line["advice"]


async def test_batches_that_are_not_watched_are_found_with_the_first_of_them(log: Path) -> None:
    await checked(Restarted(), commands=3, was_away=False, most_bytes=1)
    [line] = found("NoetlWorkerBatchNotWatched", log)
    assert (line["event"], line["execution_id"]) == ("batches_not_watched", str(command().execution_id))


async def test_execution_that_stands_still_is_found_with_what_to_do(log: Path) -> None:
    await watched([answer(200, STUCK), answer(200, STUCK)])
    [line] = found("NoetlWorkerExecutionStandsStill", log)
    assert line["step"] == "start"
    assert "start it again" in line["advice"]
