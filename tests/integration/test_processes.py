"""`noetl-worker run --processes`: one supervisor, several workers."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import structlog

from integration.house import House, house, without_nats
from integration.processes import Gate, Probe, WorkerProcess, starting_process, until
from integration.test_metrics import series, value
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.errors import SettingsError
from noetl_worker.models import Dialect
from noetl_worker.observability.sums import combine_metrics
from noetl_worker.settings.settings import load_settings
from noetl_worker.worker.supervisor.probes import make_common_pages
from noetl_worker.worker.supervisor.supervisor import Supervisor, start_delay_s

ONE_SLOT = {"WORKER_MAX_CONCURRENT": "1", "NOETL_WORKER_DRAIN_TIMEOUT_S": "1000"}


def children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def pulling(worker: WorkerProcess, count: int) -> None:
    await until(lambda: len(worker.logged("pulling")) >= count, f"{count} times pulling")


@asynccontextmanager
async def two_workers(home: House, directory: Path, **variables: str) -> AsyncIterator[WorkerProcess]:
    """The process of a supervisor whose two workers are pulling."""
    async with starting_process(home, directory, NOETL_WORKER_PROCESSES="2", **variables) as supervisor:
        await pulling(supervisor, 2)
        yield supervisor


async def test_workers_share_the_queue_under_ids_of_their_own_behind_one_port_and_drain_together(
    tmp_path: Path,
) -> None:
    port, gate = free_port(), Gate(tmp_path)
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"}
    async with (
        house(Dialect.RUST, worker=False) as home,
        two_workers(home, tmp_path, WORKER_ID="w", **ONE_SLOT, **bind) as worker,
    ):
        assert {line["worker_id"] for line in worker.logged("pulling")} == {"w-1", "w-2"}
        assert len({line["worker"] for line in worker.logged("pulling")}) == 2, "whose line it is"
        probe = Probe(port)
        await until(probe.is_ready, "both are ready")
        issued = await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * 2)
        await until(lambda: gate.runs == 2, "each worker has one")

        async def both_are_counted() -> bool:  # gauges are read twice a second
            return value(series(await probe.metrics()), "noetl_worker_concurrent_dispatches") == 2

        await until(both_are_counted, "both commands are counted")
        metrics = series(await probe.metrics())
        assert value(metrics, "noetl_worker_slots") == 2
        assert value(metrics, "noetl_worker_ready") == 1
        assert value(metrics, "noetl_worker_processes") == 2
        inflight = (await probe.get("/debug/inflight")).json()
        assert [len(one["commands"]) for one in inflight["processes"]] == [1, 1]
        workers = children(worker.process.pid)
        async with home.plane.outage():
            gate.open()
            await until(lambda: home.outbox_rows() == 2, "both outcomes are refused, and on disk")
            assert len(list(Path(home.outbox.name).glob("outbox-*.sqlite3"))) == 2, "each has a file of its own"
        await home.wait_terminal(*(one.event_id for one in issued))
        last = Gate(tmp_path, "last")
        issued += await home.plane.create_commands([RawCommand("shell", {"command": last.command()})] * 2)
        await until(lambda: last.runs == 2, "each worker has one again")
        worker.signal()
        await until(lambda: len(worker.logged("draining")) == 2, "both drain")
        assert (await probe.get("/readyz")).status_code == 503
        last.open()
        assert await worker.exit_code() == 0
        signals = [(line.get("processes", 1), line["signals"]) for line in worker.logged("stop_requested")]
        assert sorted(signals) == [(1, 1), (1, 1), (2, 1)], "each has one signal: a second one cancels commands"
        assert all(home.terminal_events(one.event_id) == ["command.completed"] for one in issued)
        assert all(is_gone(pid) for pid in workers)


async def test_worker_that_dies_is_started_again_and_all_end_with_a_supervisor_that_is_killed(tmp_path: Path) -> None:
    port = free_port()
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{port}"}
    async with house(worker=False) as home, two_workers(home, tmp_path, **bind) as worker:
        first, second = children(worker.process.pid)
        os.kill(first, signal.SIGKILL)
        await until(lambda: bool(worker.logged("process_died")), "the death is told")
        [died] = worker.logged("process_died")
        assert died["exit_code"] == -signal.SIGKILL
        assert "lack of memory" in died["advice"]
        assert "own log lines" not in died["advice"], "it has none about its end"
        await home.ran(RawCommand("noop"))
        await pulling(worker, 3)
        await until(Probe(port).is_ready, "both are ready")
        assert second in children(worker.process.pid)
        assert value(series(await Probe(port).metrics()), "noetl_worker_process_restarts_total") == 1
        workers = children(worker.process.pid)
        worker.process.kill()
        await until(lambda: all(map(is_gone, workers)), "no worker is left")


async def test_workers_read_the_secrets_of_files_and_flags_as_their_supervisor_does(tmp_path: Path) -> None:
    """It has the content of each file among its own variables, where tools look for it."""
    secret, login = tmp_path / "secret", tmp_path / "login"
    secret.write_text("s3cret\n")
    login.write_text("of-no-account\n")
    async with house(worker=False) as home:
        given = {"NOETL_SECRET_ABC_FILE": str(secret), "NATS_USER": "worker", "NATS_PASSWORD": "replaced by the flag"}
        words = ["run", "--processes", "2", "--nats-password-file", str(login)]
        worker = WorkerProcess(tmp_path, "worker", {**home.variables, **given}, words)
        try:
            await worker.wait_logged("pulling")
            await pulling(worker, 2)
            assert await worker.stop() == 0
        finally:
            await asyncio.to_thread(worker.end)


async def test_plane_in_front_of_which_no_worker_starts_ends_all_of_them(tmp_path: Path) -> None:
    async with house(Dialect.RUST, worker=False) as home:
        home.plane.fault = without_nats("3.60.2")
        async with starting_process(home, tmp_path, WORKER_ID="w", NOETL_WORKER_PROCESSES="2") as worker:
            assert await worker.exit_code() == 3
        assert worker.logged("process_died") == []


async def test_second_signal_cancels_all_and_the_third_ends_them_at_once(tmp_path: Path) -> None:
    """The tools ignore SIGTERM: they are still there when the third one comes."""
    gate = Gate(tmp_path)
    async with house(worker=False) as home, two_workers(home, tmp_path, **ONE_SLOT) as worker:
        stubborn = RawCommand("shell", {"command": gate.command(before="trap '' TERM;")})
        issued = await home.plane.create_commands([stubborn] * 2)
        try:
            await until(lambda: gate.runs == 2, "each worker has one")
            workers = children(worker.process.pid)
            for event in ("draining", "commands_cancelled"):
                worker.signal()
                await until(lambda event=event: len(worker.logged(event)) == 2, event)
            worker.signal()
            assert await worker.exit_code() == 130
            assert worker.logged("stopped")[-1]["codes"] == [130, 130]
            words = ["stopped_at_once", "stopped_at_once", "processes"]
            assert [line["reason"] for line in worker.logged("worker_failed")] == words
            assert all(is_gone(pid) for pid in workers)
            assert not any(home.terminal_events(one.event_id) for one in issued)
        finally:
            gate.open()  # ends the tools that are left


async def test_second_signal_ends_the_supervisor_with_the_code_for_commands_cut_off(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    async with house(worker=False) as home, two_workers(home, tmp_path, **ONE_SLOT) as worker:
        await home.plane.create_commands([RawCommand("shell", {"command": gate.command()})] * 2)
        await until(lambda: gate.runs == 2, "each worker has one")
        worker.signal()
        await until(lambda: len(worker.logged("draining")) == 2, "draining")
        worker.signal()
        assert await worker.exit_code() == 4
        assert worker.logged("stopped")[-1]["codes"] == [4, 4]


class Deaths:
    """A supervisor whose worker ends at once, each time; its clock and its waits are the test's."""

    def __init__(self, directory: Path, ends: str, lives_s: Sequence[float]) -> None:
        program = directory / "ends"
        program.write_text(f"#!/bin/sh\n{ends}\n")
        program.chmod(0o700)
        self.waits_s: list[float] = []
        self._lives_s = list(lives_s)
        now = itertools.accumulate(itertools.chain.from_iterable((0.0, life_s) for life_s in lives_s))
        self.supervisor = Supervisor(
            load_settings({"WORKER_METRICS_BIND": "", "NOETL_WORKER_PROCESSES": "1"}),
            {},
            worker=[str(program)],
            clock=lambda: next(now),
            delay_s=self._delay_s,
        )

    def _delay_s(self, deaths: int) -> float:
        self.waits_s.append(start_delay_s(deaths, draw=lambda: 1.0))
        if len(self.waits_s) == len(self._lives_s):
            self.supervisor.request_stop()
        return 0.0

    async def logged(self) -> list[dict[str, Any]]:
        """Run it to its last life; what was logged of the deaths."""
        with structlog.testing.capture_logs() as lines:
            await self.supervisor.run()
        return [dict(line) for line in lines if line["event"].startswith("process_")]


async def test_worker_that_keeps_dying_is_started_ever_later_until_one_lasts(tmp_path: Path) -> None:
    deaths = Deaths(tmp_path, "exit 7", [1.0] * 8 + [60.0, 59.0, 1.0])
    lines = await deaths.logged()
    assert deaths.waits_s == [0.5, 1, 2, 4, 8, 16, 30, 30, 0.5, 1, 2]
    assert [line["deaths"] for line in lines] == [1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3]
    keeps = [(line["event"] == "process_keeps_dying", line["log_level"]) for line in lines]
    assert keeps == [(number >= 3, "error" if number >= 3 else "warning") for number in (*range(1, 9), 1, 2, 3)]
    assert {line["exit_code"] for line in lines} == {7}
    assert "see the worker's own log lines above" in lines[2]["advice"]


@pytest.mark.parametrize("code", [2, 3])
async def test_worker_that_cannot_start_ends_all_the_first_time_only(code: int, tmp_path: Path) -> None:
    """Settings that were right when it first started are wrong by a file that changes, and another worker runs on."""
    first = Deaths(tmp_path, f"exit {code}", [1.0] * 2)
    assert await first.logged() == []
    assert first.supervisor.is_stopping
    later = Deaths(tmp_path, f"mkdir {tmp_path}/first && exit 7; exit {code}", [1.0] * 3)
    assert [line["exit_code"] for line in await later.logged()] == [7, code, code]


async def test_signal_to_a_worker_that_has_just_ended_hides_no_exit_code(tmp_path: Path) -> None:
    """The loop has not learned of its end yet when the signal is sent."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    supervisor = Deaths(tmp_path, f"read -r line < {gate}; exit 7", [1.0]).supervisor
    [worker] = supervisor.workers
    with structlog.testing.capture_logs() as lines:
        running = asyncio.create_task(supervisor.run())
        await until(lambda: worker.running is not None, "it is started")
        assert worker.running is not None
        gate.write_text("end\n")
        with suppress(ChildProcessError):  # asyncio's thread has been quicker
            os.waitid(os.P_PID, worker.running.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop stands still
        supervisor.request_stop()
        await running
    assert [line["codes"] for line in lines if line["event"] == "stopped"] == [[7]]


async def test_worker_takes_no_module_from_the_working_directory(tmp_path: Path) -> None:
    """A command may have left one there, before its worker is started again."""
    lines = await Deaths(tmp_path, 'test "$PYTHONSAFEPATH" = 1 && exit 7; exit 8', [1.0]).logged()
    assert [line["exit_code"] for line in lines] == [7]


PROBED = """
import os, socket
probes = socket.socket(fileno=int(os.environ["NOETL_WORKER_PROBES_SOCKET"]))
for answer in (b"", b"HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\n\\r\\n{}", b"", b"", b""):
    connection, _ = probes.accept()
    connection.recv(4096)
    connection.sendall(answer)
    connection.close()
"""
"""Gives no answer to the first probe, as a worker that starts; answers the second one, and none from then on."""


class Probed:
    """A supervisor of one worker that runs this program."""

    def __init__(self, program: str) -> None:
        given = {"WORKER_METRICS_BIND": "127.0.0.1:0", "NOETL_WORKER_PROCESSES": "1", "NOETL_WORKER_ISOLATION": "off"}
        words = [sys.executable, "-c", program]
        self.supervisor = Supervisor(load_settings(given), {}, worker=words, delay_s=lambda _: 0.0)
        self.pages = make_common_pages(self.supervisor)

    async def lives(self, starts: int) -> None:
        [worker] = self.supervisor.workers
        await until(lambda: worker.starts == starts and worker.running is not None, f"it is started {starts} times")

    async def lives_again(self) -> None:
        """The first one is killed, and another one started."""
        [worker] = self.supervisor.workers
        assert worker.running is not None
        worker.running.kill()
        await self.lives(2)


@asynccontextmanager
async def probed(program: str) -> AsyncIterator[Probed]:
    there = Probed(program)
    running = asyncio.create_task(there.supervisor.run())
    try:
        await there.lives(1)
        yield there
    finally:
        there.supervisor.request_stop()
        await running


async def test_worker_that_no_longer_answers_fails_the_probe_of_all_and_one_that_starts_does_not() -> None:
    async with probed(PROBED) as there:
        livez = there.pages["/livez"]
        assert [(await livez())[0] for _ in range(2)] == [200, 200]
        hung = {"status": "failing", "processes": {"1": "the worker runs, and no longer answers"}}
        assert await livez() == (503, hung)
        _, scraped = await there.pages["/metrics"]()
        assert isinstance(scraped, bytes)
        assert b"\nnoetl_worker_ready 0.0\n" in scraped, "the alerts see it, though the others answer"
        assert b"\nnoetl_worker_loop_lag_seconds " in scraped
        await there.lives_again()
        assert (await livez())[0] == 200, "another one, which has not answered yet"


COUNTED = """
import os, socket
probes = socket.socket(fileno=int(os.environ["NOETL_WORKER_PROBES_SOCKET"]))
page = "HTTP/1.1 200 OK\\r\\n\\r\\n# TYPE done_total counter\\ndone_total %.1f\\n# TYPE running gauge\\nrunning %.1f\\n"
for answer in (page % (5, 1), "", page % (6, 2)):
    connection, _ = probes.accept()
    connection.recv(4096)
    connection.sendall(answer.encode())
    connection.close()
probes.accept()
"""
"""Has counted 5 when it is asked, gives no answer when it is asked again, and has counted 6 then."""


async def test_counters_of_all_never_fall_when_a_worker_dies_or_misses_a_scrape() -> None:
    """What has fallen began anew for Prometheus: increase() would count all of it again."""

    async def scraped() -> list[str]:
        _, text = await there.pages["/metrics"]()
        assert isinstance(text, bytes)
        return [line for line in text.decode().splitlines() if line.startswith(("done", "running"))]

    async with probed(COUNTED) as there:
        first = [await scraped() for _ in range(3)]
        assert first == [["done_total 5.0", "running 1.0"], ["done_total 5.0"], ["done_total 6.0", "running 2.0"]]
        await there.lives_again()
        assert await scraped() == ["done_total 11.0", "running 1.0"]
        assert await scraped() == ["done_total 11.0"]
    assert await scraped() == ["done_total 11.0"], "none runs"


async def test_worker_for_which_there_is_no_process_is_tried_again_like_one_that_died(tmp_path: Path) -> None:
    """It ended the supervisor, and with it all other workers: after a kill for lack of memory a fork may fail."""
    deaths = Deaths(tmp_path, "exit 7", [1.0] * 3)
    (tmp_path / "ends").chmod(0o600)  # the start raises an OSError
    lines = await deaths.logged()
    assert [line["event"] for line in lines if line["log_level"] == "error"] == [
        "process_not_started",
        "process_not_started",
        "process_not_started",
        "process_keeps_dying",
    ]


def test_event_ids_of_two_processes_must_differ() -> None:
    with pytest.raises(SettingsError, match="two processes of one node would make the same event ids"):
        load_settings({"NOETL_WORKER_PROCESSES": "2", "NOETL_SNOWFLAKE_NODE_ID": "7"})
    assert load_settings({"NOETL_WORKER_PROCESSES": "auto"}).processes >= 1


def test_counters_are_added_and_what_is_the_pool_s_is_not() -> None:
    text = (
        "# HELP noetl_worker_pulls_total Pulls\n# TYPE noetl_worker_pulls_total counter\n"
        'noetl_worker_pulls_total{outcome="claimed"} 2.0\n'
        "# HELP noetl_worker_ready Ready\n# TYPE noetl_worker_ready gauge\nnoetl_worker_ready 1.0\n"
        "# HELP noetl_worker_nats_consumer_pending P\n# TYPE noetl_worker_nats_consumer_pending gauge\n"
        'noetl_worker_nats_consumer_pending{stream="a\\"b"} 7.0\n'
        "# HELP noetl_worker_x_seconds X\n# TYPE noetl_worker_x_seconds histogram\n"
        'noetl_worker_x_seconds_bucket{le="1.0"} 1.0\nnoetl_worker_x_seconds_bucket{le="+Inf"} 3.0\n'
        "noetl_worker_x_seconds_count 3.0\nnoetl_worker_x_seconds_sum 2.5\n"
    )
    other = text.replace("noetl_worker_ready 1.0", "noetl_worker_ready 0.0").replace("} 7.0", "} 6.0")
    whole = combine_metrics([text, other])
    assert combine_metrics([text]) == text
    rest = combine_metrics([], [text, text])
    assert 'claimed"} 4.0' in rest
    assert "noetl_worker_x_seconds_sum 5.0" in rest
    assert not {"noetl_worker_ready", "noetl_worker_nats_consumer_pending"} & set(rest.replace("{", " ").split())
    for line in (
        'noetl_worker_pulls_total{outcome="claimed"} 4.0',
        "noetl_worker_ready 0.0",
        'noetl_worker_nats_consumer_pending{stream="a\\"b"} 7.0',
        'noetl_worker_x_seconds_bucket{le="+Inf"} 6.0',
        "noetl_worker_x_seconds_sum 5.0",
    ):
        assert line in whole.splitlines()
