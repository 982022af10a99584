"""docs/runbook.md: what an alert is for is broken here, and the commands of its section print the cause."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shlex
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from closed_port import closed_port
from faults.plug_in import KINDS, install_tools
from faults.scene import inside
from integration.desk import DURABLE, STREAM, desk
from integration.house import house, noops
from integration.page_commands import commands_of
from integration.pods import logged
from integration.processes import Gate, starting_process, typed, until, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.models import Dialect

PAGE = Path(__file__, "../../../docs/runbook.md").resolve().read_text(encoding="utf-8")


def section(alert: str) -> str:
    return PAGE.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]


def printed(alert: str, **variables: str) -> str:
    """By the commands of its section, in one line without the borders of tables; those that ask a cluster not run."""
    commands = [shlex.split(line.text)[1:] for line in commands_of(section(alert)) if line.why_not is None]
    assert commands, f"no command that can be run in {alert}"
    given = {"COLUMNS": "300", **variables}
    with ThreadPoolExecutor(1) as apart:  # a test may be on a loop, and a command has one of its own
        ended = list(apart.map(lambda words: typed(*words, **given), commands))
    return " ".join(" ".join(one.out + one.err for one in ended).split())


async def test_plane_that_is_down_or_has_an_old_outcome_is_found() -> None:
    async with house(Dialect.PYTHON, worker=False) as home:
        nowhere = f"http://127.0.0.1:{closed_port()}"
        for alert in ("NoetlWorkerPlaneDown", "NoetlWorkerOutboxOld"):
            assert nowhere in printed(alert, NATS_URL=home.nats.url, NOETL_SERVER_URL=nowhere)


async def test_nats_that_is_down_is_found() -> None:
    nowhere = f"nats://127.0.0.1:{closed_port()}"
    assert f"no NATS at {nowhere}" in printed("NoetlWorkerNatsDown", NATS_URL=nowhere)


async def test_credentials_that_the_plane_refuses_are_found() -> None:
    async with house(Dialect.PYTHON, worker=False) as home:
        home.plane.fault = lambda _: JSONResponse({"detail": "who are you?"}, 401)
        found = await asyncio.to_thread(printed, "NoetlWorkerAuthRefused", **home.addresses)
        assert "NOETL_INTERNAL_API_TOKEN" in found


async def test_worker_that_is_not_ready_or_full_is_found(tmp_path: Path) -> None:
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}", "WORKER_MAX_CONCURRENT": "1"}
    bind["NOETL_WORKER_DRAIN_TIMEOUT_S"] = "600"
    async with house(Dialect.PYTHON, worker=False) as home, worker_process(home, tmp_path, **bind) as worker:
        gate, given = Gate(tmp_path, "runs"), {**home.variables, **bind}
        await home.plane.create_commands([RawCommand("shell", {"command": gate.command()}), *noops(1)])
        await until(lambda: gate.runs == 1, "its only slot is taken")

        async def shows(alert: str, text: str) -> bool:
            return text in await asyncio.to_thread(printed, alert, **given)

        await until(lambda: shows("NoetlWorkerSlotsFull", "slots 1 used, 1 allowed now, 1 in all"), "full")
        worker.signal()
        await worker.wait_logged("draining")
        assert await shows("NoetlWorkerNotReady", "NOT READY: draining")
        gate.open()


async def test_limit_that_is_reached_a_foreign_filter_and_a_pause_are_found() -> None:
    async with desk() as there:
        await there.make_stream(max_age=3600 * 10**9)
        await there.make_durable(max_ack_pending=2, filter_subjects=None, filter_subject="noetl.commands.gpu.>")
        for alert, cause in (
            ("NoetlWorkerAckPendingFull", "max_ack_pending: 2, wanted: 1000"),
            ("NoetlWorkerForeignPool", "filters: noetl.commands.gpu.>"),
            ("NoetlWorkerLagGrows", "filters: noetl.commands.gpu.>"),
        ):
            assert cause in printed(alert, NATS_URL=there.server.url)
        assert (await there.type("nats", "pause", "--for", "10m")).code == 0
        assert f"durable {DURABLE} is paused by an operator" in printed(
            "NoetlWorkerLagGrows", NATS_URL=there.server.url
        )
        assert STREAM in printed("NoetlWorkerLagGrows", NATS_URL=there.server.url)


def test_credential_that_ends_is_found() -> None:
    def token(left_s: float) -> str:
        claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + left_s}).encode()).decode().rstrip("=")
        return f"eyJhbGciOiJub25lIn0.{claims}.c2ln"

    nowhere = f"nats://127.0.0.1:{closed_port()}"
    for left_s, said in ((7.5 * 86400, ": 7 days left"), (-60, "expired"), (90 * 86400, "ok")):
        given = {"NATS_URL": nowhere, "NOETL_INTERNAL_API_TOKEN": token(left_s)}
        found = printed("NoetlWorkerCredentialEnds", **given)
        assert "end of NOETL_INTERNAL_API_TOKEN" in found
        assert said in found.partition("end of NOETL_INTERNAL_API_TOKEN")[2]
        assert ("renew it now" in found) is (left_s < 14 * 86400)


async def test_dead_letter_is_found_with_its_reason() -> None:
    async with desk() as there:
        await there.keep(reason="unknown command: 404")
        assert "unknown command: 404" in printed("NoetlWorkerDeadLetters", NATS_URL=there.server.url)


async def test_restart_is_found_in_the_last_lines_of_the_worker_before(tmp_path: Path) -> None:
    broken = inside(BREAK="noetl_worker.pipeline.delivery.keepalive:Keepalive._registration")
    async with (
        house(Dialect.PYTHON, worker=False) as home,
        starting_process(home, tmp_path, WORKER_NATS_LAG_POLL_INTERVAL="1", **broken) as worker,
    ):
        assert await worker.exit_code() == 6
        found = logged(section("NoetlWorkerRestarts"), worker.log_path)
        assert "the keepalive thread has ended" in found
        assert "is broken on purpose" in found


async def test_kind_that_fails_is_found_with_the_error_of_each_command(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{closed_port()}"
    async with house(Dialect.PYTHON, worker=False) as home, worker_process(home, tmp_path) as worker:
        fails = RawCommand("http", {"url": f"http://{nowhere}/"})
        await home.ran(*[fails] * 2, *noops(20))
        found = [json.loads(line) for line in logged(section("NoetlWorkerKindFails"), worker.log_path).splitlines()]
        assert [(line["event"], line["kind"], nowhere in line["error"]) for line in found] == [
            ("command_failed", "http", True)
        ] * 2


async def test_loop_that_stands_still_is_found_with_what_blocks_it(tmp_path: Path) -> None:
    bind = {"WORKER_METRICS_BIND": f"127.0.0.1:{free_port()}"}
    async with (
        house(Dialect.PYTHON, plane={"extra_kinds": KINDS}, worker=False) as home,
        worker_process(home, tmp_path, **bind, **install_tools(tmp_path)),
    ):
        await home.plane.create_commands([RawCommand("block", {"seconds": 600})])
        await until((tmp_path / "blocked").exists, "the loop is blocked")
        given = {**home.variables, **bind}

        async def is_shown() -> bool:
            found = await asyncio.to_thread(printed, "NoetlWorkerLoopLag", **given)
            lag = re.search(r"loop lag ([0-9.]+) s", found)
            return lag is not None and float(lag[1]) >= 1 and " running block " in found

        await until(is_shown, "the lag, and the kind that runs")


@pytest.mark.parametrize("alert", [line[3:] for line in PAGE.splitlines() if line.startswith("## ")])
def test_each_section_has_a_command_and_a_fix(alert: str) -> None:
    assert commands_of(section(alert))
    assert "**Fix:** " in section(alert)
