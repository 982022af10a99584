"""Every command of README, CONTRIBUTING and docs/ is run, in the page's order, in a fresh clone.

The first of each command is run by bash, and so is every line that bash does more with than to split it into words. The
others differ from one of these in their arguments alone, and are run in this process: most of a command is its start.

There is a NATS server, a control plane, a worker at work and a dead letter; a page's addresses and ids stand for these.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from integration.house import House, house
from integration.page_commands import (
    ROOT,
    Line,
    commands_of,
    files_of,
    first_of_each,
    fresh_clone,
    pages,
    shows,
)
from integration.processes import environment, program, typed, until, worker_process
from noetl_worker.authoring.dev.nats_server import free_port
from noetl_worker.authoring.dev.plane import RawCommand
from noetl_worker.process import event_loop
from patience import PATIENCE_S

pytest.importorskip("yaml", reason="noetl-worker dev reads YAML")
FILES = {"step.yaml": "{code: 'result = 1'}"}
"""Files that pages name and that are the reader's own."""
PAGES = [page for page, lines in pages().items() if any(line.why_not is None for line in lines)]
FIRST = first_of_each()
SHIM = '#!/bin/sh\necho $$ > "$PAGE_PID"\nexec "{python}" -m noetl_worker "$@"\n'


@dataclass
class Desk:
    """A fresh clone with a `noetl-worker` on the path, and what a page's names stand for."""

    directory: Path
    stands_for: Mapping[str, str]
    variables: dict[str, str] = field(default_factory=dict)

    def set_out(self, page: str) -> None:
        fresh_clone(self.directory)
        (self.directory / "bin").mkdir()
        shim = self.directory / "bin" / "noetl-worker"
        shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
        shim.chmod(0o755)
        for name, content in {**FILES, **files_of(page)}.items():
            (self.directory / name).write_text(content, encoding="utf-8")
        path = os.pathsep.join([str(shim.parent), os.environ["PATH"]])
        self.variables["XDG_STATE_HOME"] = str(Path.home() / ".local/state")  # for root it would be in /var/lib
        self.variables |= {"PATH": path, "PAGE_PID": str(self.directory / "pid"), "COLUMNS": "100", "NO_COLOR": "1"}

    def command(self, text: str) -> str:
        for shown, meant in self.stands_for.items():
            text = text.replace(shown, meant)
        return text

    def type(self, page: str, line: Line) -> None:
        """Run it to its end: exit code 0, and the output that the page shows."""
        text = self.command(line.text)
        if text.startswith("export "):
            self.variables |= dict(word.split("=", 1) for word in shlex.split(text)[1:])
            return
        words = Line(text, line.number, line.output).words
        if words is None or (page, line.number) in FIRST:
            ended = program(["bash", "-c", text], environment(**self.variables), self.directory)
        else:
            ended = typed(*words, **self.variables)
        said = f"line {line.number}: {text}\n{ended.out}\n{ended.err}"
        assert ended.code == 0, f"exit code {ended.code} of {said}"
        assert line.output is None or shows(line.output, ended.out), f"another output than the page's, {said}"

    async def run_worker(self, line: Line) -> None:
        """Start it, wait until it pulls, stop it: it drains and ends with 0."""
        log = self.directory / "worker.log"
        with log.open("wb") as out:
            started = await asyncio.create_subprocess_exec(
                *("bash", "-c", self.command(line.text)),
                env=environment(**{**self.variables, "WORKER_METRICS_BIND": ""}),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            await until(lambda: '"pulling"' in log.read_text(encoding="utf-8"), line.text)
            os.kill(int((self.directory / "pid").read_text(encoding="ascii")), signal.SIGTERM)
            code = await started.wait()
            assert code == 0, log.read_text(encoding="utf-8")
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


async def busy(home: House) -> dict[str, str]:
    """A command that has run, and two dead letters; the ids of pages, and what they stand for."""
    [issued] = await home.ran(RawCommand("shell", {"command": "echo hello"}))
    for number in range(2):
        await home.publish(b"no notification %d" % number)
    await home.wait_dead_letters(2)
    return {
        "767533785830130589": str(issued.event_id),
        "767533785830130588": str(issued.command_id),
        "383769031670239232:start:383769031682822144": str(issued.command_id),
        "767533785452643225": str(issued.execution_id),
        " 12 13 ": " 1 2 ",
        " 12 ": " 1 ",
    }


def is_lacking(line: Line) -> bool:
    """Whether it exports traces and the extra for them is not installed."""
    return "OTEL_" in line.text and importlib.util.find_spec("opentelemetry.exporter") is None


async def _serve(directory: Path, started: Future[dict[str, str]], stop: asyncio.Event) -> None:
    probes = f"127.0.0.1:{free_port()}"
    variables = {"WORKER_METRICS_BIND": probes, "NOETL_WORKER_OUTBOX_DIR": str(directory / "outbox")}
    async with house(worker=False) as home, worker_process(home, directory, **variables):
        started.set_result(
            {
                "nats://user:pw@nats:4222": home.nats.url,
                "http://noetl:8082": home.plane.url,
                "10.0.3.7:9090": probes,
                "10.0.3.8:9090": probes,
                "http://collector:4318": "http://127.0.0.1:9",
                **await busy(home),
            }
        )
        await stop.wait()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the addresses and ids of the pages stand for; what is behind them runs on a loop of its own."""
    started: Future[dict[str, str]] = Future()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def go() -> None:
        loops.append((asyncio.get_running_loop(), stop := asyncio.Event()))
        try:
            await _serve(tmp_path_factory.mktemp("house"), started, stop)
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=event_loop.run, args=(go(),))
    thread.start()
    try:
        yield started.result(timeout=PATIENCE_S)
    finally:
        for loop, stop in loops:
            loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture
def desk(names: dict[str, str], tmp_path: Path) -> Desk:
    there = {
        "WORKER_METRICS_BIND": names["10.0.3.7:9090"],
        "NATS_URL": names["nats://user:pw@nats:4222"],
        "NOETL_SERVER_URL": names["http://noetl:8082"],
    }
    return Desk(tmp_path, names, there)


@pytest.mark.pages
@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_do_what_it_says(page: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = [line for line in commands_of(text) if line.why_not is None and not is_lacking(line)]
    desk.set_out(text)
    monkeypatch.chdir(desk.directory)
    for line in lines:
        if line.stays:
            event_loop.run(desk.run_worker(line))
        else:
            desk.type(page, line)
