"""A program in its own process group, bounded in time and in output, and started by a template process
(`python_template.py`).

Guarantees, whatever the program does:
* a timeout or a cancelled task stops the process group: SIGTERM, GRACE_S later SIGKILL;
* when the program ends, processes left in its group are killed: executions share nothing;
* output is kept up to a limit (head and tail), never in unbounded memory;
* a left-over process that holds the pipe open delays the answer by DRAIN_S at most;
* no thread per process;
* when the worker itself is killed, so are the processes it started: the template notices.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.fields import drop_half_at_end, drop_half_at_start
from noetl_worker.tools.process.live_output import LiveLines

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes kept of each stream; at worst twice this for each running command."""
MEMORY_EVENTS: Final = "/sys/fs/cgroup/memory.events"
"""File in which the kernel counts memory events of the worker's cgroup, if the cgroup is of version 2."""
GRACE_S: Final = 2.0
DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_READS_AT_THE_END: Final = 8
_QUICK_S: Final = 0.02
"""Seconds until output is read while a command runs. A quicker command's output waits in the pipe (64 KiB on Linux)."""
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_KEPT_VARIABLES: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})


def base_environment(*others: str) -> dict[str, str]:
    """Return the worker's variables that a command sees: PATH HOME LANG LC_* TZ TMPDIR USER, and `others`.

    differs-from-upstream: the Rust worker hands its environment, NATS credentials included, to commands.
    """
    names = _KEPT_VARIABLES.union(others)
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return kept


def environment_text(env: Mapping[str, Any]) -> dict[str, str]:
    """Return a step's `env` as texts: nulls are left out, true is `true`, lists and objects are JSON.

    Raises:
        ConfigurationError: a name or value that no environment can hold.
    """
    texts: dict[str, str] = {}
    for name, value in env.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else dumps(value).decode()
        if not name or "=" in name or "\0" in name or "\0" in text:
            raise ConfigurationError(
                f"env: {name!r} cannot be a variable: no '=' and no NUL character may be in it", field=f"env.{name}"
            )
        texts[name] = text
    return texts


def directory(kind: str, cwd: str | None) -> str | None:
    """Return the `cwd` of a config. Raises ConfigurationError if it is not a directory."""
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigurationError(f"{kind}: 'cwd' {cwd!r} is no directory of this worker")
    return cwd


def exit_text(exit_code: int) -> str:
    """Return `exited with code 3` or `was killed by SIGKILL (out of memory?)`, for a code as `subprocess` reports
    it."""
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"was killed by {name}" + (" (out of memory?)" if exit_code == -signal.SIGKILL else "")


def oom_kills(events: str | os.PathLike[str]) -> int | None:
    """Return how many processes of the worker's cgroup the kernel killed for lack of memory, or None if unknown."""
    try:
        file = os.open(events, os.O_RDONLY)
    except OSError:  # not Linux, no cgroup v2
        return None
    try:
        found = _OOM_KILLS.search(os.read(file, 4096))
    finally:
        os.close(file)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Finished:
    """The result of a program. `exit_code` is negative for a signal, as in `subprocess`."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    duration_ms: int
    notes: tuple[str, ...] = ()
    """Changes made to the output: parts left out, or not UTF-8."""
    answer: Mapping[str, JsonValue] | None = None
    """Answer of Python code: {"result": value}, {"error": {type, message}} or {}; None: the code ended without an
    answer (os._exit, a signal)."""
    has_met_oom: bool = False
    """True if the kernel killed a process meanwhile for lack of memory. SIGKILL alone does not show who sent it."""


class Group(Protocol):
    """A supervised process group. `exited` is done when its leader has ended."""

    exited: asyncio.Future[Any]

    def signal(self, number: int) -> None: ...


async def supervise(group: Group, captures: Sequence[Capture], *, timeout_s: float | None) -> bool:
    """Wait until the group's leader has ended and its output is read. Return True if the timeout ended it.

    A cancelled task stops the group first, then the cancellation goes on; a second one kills at once.
    """
    watching = asyncio.get_running_loop().call_later(_QUICK_S, _watch, captures)
    try:
        timed_out = not await _within(group.exited, timeout_s)
        if timed_out:
            await _stop(group)
        await _drain(captures)
    except asyncio.CancelledError:
        await _stop_although_cancelled(group)
        raise
    finally:
        watching.cancel()
    return timed_out


def _watch(captures: Sequence[Capture]) -> None:
    for capture in captures:
        capture.watch()


async def _stop(group: Group) -> None:
    group.signal(signal.SIGTERM)
    if not await _within(group.exited, GRACE_S):
        group.signal(signal.SIGKILL)
        await _within(group.exited, None)
    group.signal(signal.SIGKILL)  # members that outlived their leader hold the pipes open


async def _stop_although_cancelled(group: Group) -> None:
    stopping = asyncio.ensure_future(_stop(group))
    try:
        await asyncio.shield(stopping)
    except asyncio.CancelledError:  # cancelled again: no more grace, but never leave before the group is gone
        group.signal(signal.SIGKILL)
        await stopping


async def _within(end: asyncio.Future[Any], seconds: float | None) -> bool:
    if not end.done():
        # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives at the end
        await asyncio.wait((end,), timeout=seconds)
    return end.done()


async def _drain(captures: Sequence[Capture]) -> None:
    """Read the rest, for at most DRAIN_S, as a grandchild may hold a pipe open for ever."""
    deadline = time.monotonic() + DRAIN_S
    for capture in captures:
        capture.read_what_is_there()  # usually everything, and then there is nothing to wait for
        capture.watch()
        await _within(capture.ended, max(0.0, deadline - time.monotonic()))


class Capture:
    """Reader of a pipe until its end. At most `limit` bytes are kept: half from the beginning, half from the end."""

    def __init__(self, fd: int, limit: int, live: LiveLines | None = None) -> None:
        """Prepare to read `fd`. `live` is given each chunk as it is read."""
        self._live = live
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._fd = fd
        self._half = max(limit // 2, 1)
        self._head, self._tail = bytearray(), bytearray()
        self._dropped = 0
        self._is_watched = False
        os.set_blocking(fd, False)

    def watch(self) -> None:
        """Read from now on whenever data arrives."""
        if self._fd >= 0 and not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> bool:
        """Read once. Return True if there was data."""
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # a socket whose other end was killed, which is an end too
            chunk = b""
        if chunk:
            self._keep(chunk)
        else:
            self.close()
        return bool(chunk)

    def read_what_is_there(self) -> None:
        """Read without waiting, a limited number of times, because the other end may go on writing."""
        for _ in range(_READS_AT_THE_END):
            if self._fd < 0 or not self._read():
                return

    def _keep(self, chunk: bytes) -> None:
        if self._live is not None:
            self._live.feed(chunk)
        room = max(0, self._half - len(self._head))
        self._head += chunk[:room]
        self._tail += chunk[room:]
        surplus = len(self._tail) - self._half
        if surplus > self._half // 4:  # not at each chunk: what stays may have to be moved
            del self._tail[:surplus]
            self._dropped += surplus

    @property
    def left_out(self) -> int:
        """Number of bytes between the first and the last half."""
        return self._dropped + max(0, len(self._tail) - self._half)

    def close(self) -> None:
        """Stop reading. A second call does nothing."""
        if self._fd >= 0:
            if self._is_watched:
                self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
            if self._live is not None:
                self._live.end()
            self.ended.set_result(None)

    def clear(self) -> None:
        """Forget what was read."""
        self._head.clear()
        self._tail.clear()
        self._dropped = 0

    def data(self) -> bytes:
        """Return the kept bytes: everything that was read, unless `left_out` counts bytes."""
        return bytes(self._head) + self._tail

    def text(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Return the kept output as text and notes on changes to it. At a cut, no half of a secret remains.

        The text is built in pieces, because each copy of a large output takes memory of the worker.
        """
        if left_out := self.left_out:
            head = drop_half_at_end(bytes(self._head)).decode("utf-8", "replace")
            tail = drop_half_at_start(bytes(self._tail[-self._half :])).decode("utf-8", "replace")
            note = f"{name}: {left_out} bytes left out of the middle"
            marker = f"\n[... {left_out} bytes left out ...]\n"
            return head + marker + tail, (note,)  # the cut itself may split a character
        data = self.data()
        try:
            return data.decode("utf-8"), ()
        except UnicodeDecodeError as error:
            note = f"{name}: not UTF-8 at byte {error.start}, unreadable bytes replaced"
            return data.decode("utf-8", "replace"), (note,)
