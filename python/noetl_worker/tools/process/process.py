"""A program in its own process group, bounded in time and in output; a template process starts it
(`python_template.py`).

What is promised, whatever the program does:

* a timeout or a cancelled task stops the process group: SIGTERM, GRACE_S later SIGKILL;
* when the program ends, what it left behind in its group is killed: executions share nothing;
* output is kept up to a limit (head and tail), never in unbounded memory;
* a left-over process that holds the pipe open delays the answer by DRAIN_S at most;
* no thread per process;
* when the worker itself is killed, so is what it started: the template notices.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.fields import without_half_at_end, without_half_at_start
from noetl_worker.tools.process.live_output import LiveLines

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""Kept of each stream; two of these per running command at worst."""
MEMORY_EVENTS: Final = "/sys/fs/cgroup/memory.events"
"""Of the worker's cgroup, where it has one of version 2."""
GRACE_S: Final = 2.0
DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_READS_AT_THE_END: Final = 8
_QUICK_S: Final = 0.02
"""Output of a command that ends sooner is read at its end: until then a pipe holds it (64 KiB on Linux)."""
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_KEPT_VARIABLES: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})


def base_environment() -> dict[str, str]:
    """What a command sees of the worker's environment: PATH HOME LANG LC_* TZ TMPDIR USER, and nothing else.

    differs-from-upstream: the Rust worker hands its environment, NATS credentials included, to commands.
    """
    kept = {name: value for name, value in os.environ.items() if name in _KEPT_VARIABLES or name.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return kept


def environment_text(env: Mapping[str, Any]) -> dict[str, str]:
    """A step's `env` as texts: nulls are left out, true is `true`, lists and objects are JSON.

    Raises:
        ValueError: a name or value that no environment can hold.
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
    """The `cwd` of a config. Raises ConfigurationError where it is no directory."""
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigurationError(f"{kind}: 'cwd' {cwd!r} is no directory of this worker")
    return cwd


def exit_text(exit_code: int) -> str:
    """`exited with code 3` or `was killed by SIGKILL (out of memory?)`, for a code as `subprocess` gives it."""
    if exit_code >= 0:
        return f"exited with code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"was killed by {name}" + (" (out of memory?)" if exit_code == -signal.SIGKILL else "")


def oom_kills(events: str | os.PathLike[str]) -> int | None:
    """How many processes of the worker's cgroup the kernel has killed for want of memory; None when it does not say."""
    try:
        file = os.open(events, os.O_RDONLY)
    except OSError:  # no Linux, no cgroup v2
        return None
    try:
        found = _OOM_KILLS.search(os.read(file, 4096))
    finally:
        os.close(file)
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ran; `exit_code` is negative for a signal, as `subprocess` has it."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    duration_ms: int
    notes: tuple[str, ...] = ()
    """What was done to the output: left out, not UTF-8."""
    answer: Mapping[str, JsonValue] | None = None
    """Of Python code: {"result": value}, {"error": {type, message}} or {}; None: it ended without one (os._exit, a
    signal)."""
    has_met_oom: bool = False
    """Whether the kernel has killed something meanwhile for want of memory: SIGKILL alone does not show who sent it."""


class Group(Protocol):
    """A process group being supervised: `exited` is done when its leader has ended."""

    exited: asyncio.Future[Any]

    def signal(self, number: int) -> None: ...


async def supervise(group: Group, captures: Sequence[Capture], *, timeout_s: float | None) -> bool:
    """Wait until the group's leader has ended and its output is read; True when the timeout ended it.

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
    except asyncio.CancelledError:  # asked again: no more grace, but never leave before the group is gone
        group.signal(signal.SIGKILL)
        await stopping


async def _within(end: asyncio.Future[Any], seconds: float | None) -> bool:
    if not end.done():
        # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that meets the end
        await asyncio.wait((end,), timeout=seconds)
    return end.done()


async def _drain(captures: Sequence[Capture]) -> None:
    """Read what is left; a grandchild may hold a pipe open for ever, so only for DRAIN_S."""
    deadline = time.monotonic() + DRAIN_S
    for capture in captures:
        capture.read_what_is_there()  # mostly all: then nothing is to be waited for
        capture.watch()
        await _within(capture.ended, max(0.0, deadline - time.monotonic()))


class Capture:
    """Reads a pipe to its end into bounded memory: the first and the last half of `limit` bytes."""

    def __init__(self, fd: int, limit: int, live: LiveLines | None = None) -> None:
        """`live`: told what is read, when it is read."""
        self._live = live
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.left_out = 0
        self._fd = fd
        self._half = max(limit // 2, 1)
        self._head = bytearray()
        self._tail: deque[bytearray] = deque()
        self._tail_size = 0
        self._is_watched = False
        os.set_blocking(fd, False)

    def watch(self) -> None:
        """Read from now on whenever there is something."""
        if self._fd >= 0 and not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> bool:
        """Whether there was something."""
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # a socket whose other end was killed: the same as its end
            chunk = b""
        if chunk:
            self._keep(chunk)
        else:
            self.close()
        return bool(chunk)

    def read_what_is_there(self) -> None:
        """Without waiting; a few times, since the other end may go on writing."""
        for _ in range(_READS_AT_THE_END):
            if self._fd < 0 or not self._read():
                return

    def _keep(self, chunk: bytes) -> None:
        if self._live is not None:
            self._live.feed(chunk)
        room = self._half - len(self._head)
        if room > 0:
            self._head += chunk[:room]
            chunk = chunk[room:]
        if not chunk:
            return
        if self._tail and len(self._tail[-1]) < _CHUNK:
            self._tail[-1] += chunk  # one byte at a time must not cost an object each
        else:
            self._tail.append(bytearray(chunk))
        self._tail_size += len(chunk)
        while self._tail_size > self._half:
            surplus = self._tail_size - self._half
            cut = min(len(self._tail[0]), surplus)
            del self._tail[0][:cut]
            if not self._tail[0]:
                self._tail.popleft()
            self._tail_size -= cut
            self.left_out += cut

    def close(self) -> None:
        """Stop reading; safe to call twice."""
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
        self._tail_size = self.left_out = 0

    def data(self) -> bytes:
        """All of it, where nothing is left out."""
        return bytes(self._head) + b"".join(self._tail)

    def text(self, name: str) -> tuple[str, tuple[str, ...]]:
        """(what was kept as text, what was done to it), with no half of a secret where bytes were left out.

        A piece at a time: each copy of a large output is memory that the worker has to have.
        """
        if self.left_out:
            head = without_half_at_end(bytes(self._head)).decode("utf-8", "replace")
            tail = without_half_at_start(b"".join(self._tail)).decode("utf-8", "replace")
            note = f"{name}: {self.left_out} bytes left out of the middle"
            marker = f"\n[... {self.left_out} bytes left out ...]\n"
            return head + marker + tail, (note,)  # the cut itself may split a character
        data = self.data()
        try:
            return data.decode("utf-8"), ()
        except UnicodeDecodeError as error:
            note = f"{name}: not UTF-8 at byte {error.start}, unreadable bytes replaced"
            return data.decode("utf-8", "replace"), (note,)
