"""A worker that ends with another code than 0 and 4 says why in its last line, which is one JSON object."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import structlog

from faults.scene import inside
from integration.house import house
from integration.processes import command_line, last_words, refused_start, starting_process
from noetl_worker import errors
from noetl_worker.errors import NoetlWorkerError, WorkerBroken
from noetl_worker.observability.last_words import REASONS, log_errors_of_threads, log_failure, reason_for

BRIDGE_LACKS = "--publish HOST:PORT or --claim HOST:PORT"


@pytest.mark.parametrize(
    ("words", "variables", "reason", "says"),
    [
        (("run",), {"WORKER_MAX_CONCURRENT": "many"}, "setting", "WORKER_MAX_CONCURRENT"),
        (("run",), {"NOETL_WORKER_ENGINE": "fortran"}, "setting", "NOETL_WORKER_ENGINE"),
        (("run", "--slotz", "4"), {}, "setting", "--slotz"),
        (("bridge",), {}, "setting", BRIDGE_LACKS),
    ],
)
def test_command_that_does_not_begin_has_one_json_line(
    words: tuple[str, ...], variables: dict[str, str], reason: str, says: str, tmp_path: Path
) -> None:
    ended = command_line(tmp_path, *words, WORKER_METRICS_BIND="", **variables)
    [line] = map(json.loads, ended.err_lines)
    assert (ended.code, ended.out, line["event"], line["level"]) == (2, "", "worker_failed", "error")
    assert (line["exit_code"], line["reason"], line["advice"]) == (2, reason, REASONS[reason].advice)
    assert says in line["error"]


@pytest.mark.parametrize(
    "part", ["worker.worker:Worker._executor", "pipeline.delivery.keepalive:Keepalive._connection"]
)
async def test_error_that_nobody_foresaw_ends_the_start_with_its_trace_in_the_line(part: str, tmp_path: Path) -> None:
    """Of the start, and of the keepalive's thread."""
    async with (
        house(worker=False) as home,
        starting_process(home, tmp_path, **inside(BREAK=f"noetl_worker.{part}")) as worker,
    ):
        assert await worker.exit_code() == 1
        line = last_words(worker)
    assert line["reason"] == "uncaught"
    assert line["error"] == f"RuntimeError: {part.partition(':')[2]} is broken on purpose"
    assert "Traceback" in line["exception"]


async def test_supervisor_of_workers_that_cannot_start_ends_with_its_own_line(tmp_path: Path) -> None:
    variables = {"NATS_URL": "nats://127.0.0.1:9", "NOETL_WORKER_WAIT": "false", "NOETL_WORKER_PROCESSES": "2"}
    short = inside(SET="noetl_worker.remote.jetstream.connection:RETRY_S=0.05")
    worker = await refused_start(tmp_path, **variables, **short)
    assert worker.process.returncode == 3
    of_workers = [line["reason"] for line in worker.logged("worker_failed")]
    assert of_workers[-1] == "processes"
    assert set(of_workers[:-1]) == {"nats"}
    assert json.loads(worker.text.splitlines()[-1])["reason"] == "processes"


def test_every_reason_of_an_error_is_in_the_closed_set() -> None:
    found: set[str] = set()
    for name in errors.__all__:
        kind = getattr(errors, name)
        found.add(reason_for(kind.__new__(kind)) if kind is not WorkerBroken else WorkerBroken("gone").reason)
    found |= {reason_for(KeyboardInterrupt()), reason_for(RuntimeError()), WorkerBroken("", reason="keepalive").reason}
    assert found | {"processes"} == set(REASONS)
    assert issubclass(WorkerBroken, NoetlWorkerError)


def test_exit_code_of_an_error_is_that_of_its_reason() -> None:
    with structlog.testing.capture_logs() as lines:
        codes = [log_failure(error) for error in (WorkerBroken("gone"), errors.JetStreamError("other"), ValueError())]
    assert codes == [6, 3, 1]
    assert [line["exit_code"] for line in lines] == codes


def test_error_that_ends_a_thread_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    log_errors_of_threads()

    def breaks() -> None:
        raise ValueError("of a thread")

    with structlog.testing.capture_logs() as lines:
        thread = threading.Thread(target=breaks, name="somebody")
        thread.start()
        thread.join()
    [line] = lines
    assert (line["event"], line["log_level"], line["thread"]) == ("thread_failed", "error", "somebody")
    assert line["error"] == "ValueError: of a thread"
