"""The development plane in a process of its own: for benches, and for tests that block the worker's loop.

The parent talks to it over the child's standard input and output, one JSON object a line each way.
"""

from __future__ import annotations

import asyncio
import dataclasses
import resource
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from noetl_worker.dev.plane import WAIT_S, DevControlPlane, RawCommand
from noetl_worker.dev.settings import PlaneSettings
from noetl_worker.json_text import dumps, loads
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.process import event_loop

__all__ = ["SeparatePlane"]

MODULE: Final = "noetl_worker.dev.separate"
LINE_BYTES: Final = 64 * 1024 * 1024


class SeparatePlane:
    """`async with SeparatePlane(PlaneSettings(), nats_url=...) as plane:` starts and stops the process."""

    def __init__(self, settings: PlaneSettings | None = None, *, nats_url: str | None = None) -> None:
        self.settings: Final = settings or PlaneSettings()
        self.nats_url: Final = nats_url
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._owed = 0
        """Answers that have not come yet."""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def create_commands(self, command: RawCommand, count: int) -> list[Mapping[str, JsonValue]]:
        """Issue `count` equal commands in one execution: [{execution_id, event_id, command_id}]."""
        found = await self.ask(do="create", command=dataclasses.asdict(command), count=count)
        return list(found["commands"])

    async def wait_ended(self, execution_id: int, *, timeout_s: float = WAIT_S) -> str:
        """COMPLETED, FAILED or CANCELLED. Raises TimeoutError."""
        found = await self.ask(do="wait", execution_id=execution_id, timeout_s=timeout_s)
        if found["status"] is None:
            raise TimeoutError(f"not within {timeout_s:g} s")
        return str(found["status"])

    async def events(self, execution_id: int, *event_types: str) -> list[Mapping[str, JsonValue]]:
        """Events in id order: [{event_id, event_type, node, status, command_ref, error}]."""
        found = await self.ask(do="events", execution_id=execution_id, event_types=event_types)
        return list(found["events"])

    async def requests(self) -> Mapping[str, int]:
        """Requests so far by "METHOD path template"."""
        return dict((await self.ask(do="requests"))["requests"])

    async def cpu_s(self) -> float:
        """CPU seconds of the process so far, user and system."""
        return float((await self.ask(do="cpu"))["cpu_s"])

    async def ask(self, **request: Any) -> Mapping[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        async with self._turn:
            process.stdin.write(dumps(request) + b"\n")
            self._owed += 1
            await process.stdin.drain()
            line = b""
            while self._owed:  # that of a question whose asker was cancelled comes first
                line = await process.stdout.readline()
                self._owed -= 1
        if not line:
            raise ConnectionError("the development plane's process has ended")
        answer = loads(line)
        assert isinstance(answer, dict)
        return answer

    async def __aenter__(self) -> SeparatePlane:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
        )
        given = {key: value for key, value in dataclasses.asdict(self.settings).items() if key != "store"}
        store = str(self.settings.store) if self.settings.store is not None else None
        started = await self.ask(settings=given, store=store, nats_url=self.nats_url)
        self.url = str(started["url"])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # its end of the conversation; the child stops by itself
        try:
            await asyncio.wait_for(process.wait(), 5)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()


# ── the child ───────────────────────────────────────────────────────────────────────────────────


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    first = loads(await reader.readline())
    assert isinstance(first, dict)
    chosen = {**first["settings"], "dialect": Dialect(first["settings"]["dialect"]), "store": first["store"]}
    chosen["extra_kinds"] = tuple(chosen["extra_kinds"])
    async with DevControlPlane(PlaneSettings(**chosen), nats_url=first["nats_url"]) as plane:
        _print({"url": plane.url})
        while line := await reader.readline():
            request = loads(line)
            assert isinstance(request, dict)
            _print(await _answer(plane, request))


def _print(answer: Mapping[str, JsonValue]) -> None:
    sys.stdout.buffer.write(dumps(answer) + b"\n")
    sys.stdout.buffer.flush()


async def _answer(plane: DevControlPlane, request: Mapping[str, Any]) -> Mapping[str, JsonValue]:
    if request["do"] == "create":
        issued = await plane.create_commands([RawCommand(**request["command"])] * request["count"])
        return {
            "commands": [
                {"execution_id": command.execution_id, "event_id": command.event_id, "command_id": command.command_id}
                for command in issued
            ]
        }
    if request["do"] == "wait":
        try:
            return {"status": await plane.wait_ended(request["execution_id"], timeout_s=request["timeout_s"])}
        except TimeoutError:
            return {"status": None}
    if request["do"] == "events":
        names = ("event_id", "event_type", "node", "status", "command_ref", "error")
        found = plane.events(request["execution_id"], *request["event_types"])
        return {"events": [{name: getattr(event, name) for name in names} for event in found]}
    if request["do"] == "requests":
        return {"requests": dict(plane.requests)}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": used.ru_utime + used.ru_stime}


if __name__ == "__main__":
    event_loop.run(serve())
