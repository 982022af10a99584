"""The lines of finished commands, and the level of a worker that runs, in a real process."""

from __future__ import annotations

import errno
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

from integration.house import house, noops
from integration.processes import WorkerProcess, starting_process, until, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

IDS = ("execution_id", "command_id", "event_id", "step", "kind")
SPENT = ("queued_s", "claim_s", "prepare_s", "tool_s")
LINES = ("command_finished", "message_answered", "command_failed")
FAILS = RawCommand("shell", {"command": "exit 3"})


def lines_of(worker: WorkerProcess) -> Counter[tuple[str, str]]:
    return Counter((line["event"], line["level"]) for name in LINES for line in worker.logged(name))


async def test_finished_command_has_one_line_with_its_ids_as_text_its_waits_and_its_tries(tmp_path: Path) -> None:
    async with house(worker=False) as home, worker_process(home, tmp_path, WORKER_ID="w") as worker:
        fine, failed = await home.ran(RawCommand("shell", {"command": "sleep 0.2"}), FAILS)
        assert lines_of(worker) == {("command_finished", "info"): 1, ("command_failed", "warning"): 1}
        for event, issued in (("command_finished", fine), ("command_failed", failed)):
            [line] = worker.logged(event)
            assert (line["event_id"], line["kind"]) == (str(issued.event_id), "shell")
            assert {type(line[name]) for name in IDS} == {str}
            assert (line["attempt"], line["deliveries"]) == (1, 1)
            assert all(line[name] >= 0 for name in SPENT)
        [line] = worker.logged("command_finished")
        assert line["tool_s"] >= 0.2
        assert line["report_s"] >= 0
        assert line["share"] == 1.0


async def test_setting_says_which_commands_have_a_line(tmp_path: Path) -> None:
    async with (
        house(Dialect.RUST, worker=False) as home,
        worker_process(home, tmp_path, NOETL_WORKER_LOG_COMMANDS="failed") as worker,
    ):
        await home.ran(*noops(3), FAILS)
        assert lines_of(worker) == {("command_failed", "warning"): 1}


async def test_command_whose_line_cannot_be_written_is_acknowledged_all_the_same() -> None:
    def no_space_left(_: Any, __: str, line: Any) -> Any:
        if line["event"] == "command_finished":
            raise OSError(errno.ENOSPC, "No space left on device")
        raise structlog.DropEvent  # a traceback with colours takes a quarter of a second to write

    processors = structlog.get_config()["processors"]
    kept = processors[:]
    async with house(Dialect.RUST) as home:
        processors[:] = [no_space_left]
        try:
            await home.ran(*noops(3))
        finally:
            processors[:] = kept
        assert home.workers[0].deliveries.settled == {"ack:reported": 3}


async def test_signal_changes_the_level_of_a_worker_that_runs_to_debug_and_back(tmp_path: Path) -> None:
    variables = {"NOETL_WORKER_LOG_COMMANDS": "none", "LOG_LEVEL": "warning"}
    async with house(Dialect.RUST, worker=False) as home, starting_process(home, tmp_path, **variables) as worker:
        await home.ran(*noops(1))
        assert worker.logged("message_answered") == []
        expected = {("message_answered", "debug"): 3, ("command_failed", "debug"): 1}
        for changes in (1, 2):
            worker.signal(signal.SIGUSR1)
            await until(lambda changes=changes: len(worker.logged("log_level_changed")) == changes, "it has changed")
            await home.ran(*noops(2), FAILS)
            assert lines_of(worker) == expected, "and no more later"
        assert [line["now"] for line in worker.logged("log_level_changed")] == ["debug", "warning"]
        assert await worker.stop() == 0


async def test_supervisor_passes_the_signal_on_to_each_worker(tmp_path: Path) -> None:
    variables = {"NOETL_WORKER_PROCESSES": "2", "WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}"}
    async with house(Dialect.RUST, worker=False) as home, starting_process(home, tmp_path, **variables) as worker:
        await until(lambda: len(worker.logged("pulling")) == 2, "both are pulling")
        worker.signal(signal.SIGUSR1)
        await until(lambda: len(worker.logged("log_level_changed")) == 2, "both have changed")
        assert len({line["worker"] for line in worker.logged("log_level_changed")}) == 2
        assert worker.is_running
