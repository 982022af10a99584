"""Supervision of a program in its own process group, with limits for time and output. A template process
(`python_template.py`) starts the program.

Guarantees, whatever the program does:
* a timeout or a cancelled task stops the process group: SIGTERM, GRACE_S later SIGKILL;
* when the program ends, the remaining processes of its group are killed, so that executions share nothing;
* only the first and the last part of a large output stay in memory, up to a limit;
* a remaining process that holds the output pipe open delays the result by DRAIN_S at most;
* a running program needs no thread of the worker;
* when the worker itself is killed, the template process notices and kills the programs.
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
"""Maximum size in bytes of the output that is kept from one stream. A running command has two streams, so it takes at
most twice this memory."""
MEMORY_EVENTS: Final = "/sys/fs/cgroup/memory.events"
"""File in which the kernel counts its kills for lack of memory in the worker's cgroup. The file exists only with
cgroups of version 2."""
GRACE_S: Final = 2.0
DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_READS_AT_THE_END: Final = 8
_QUICK_S: Final = 0.02
"""Seconds after a command's start at which the worker begins to read the command's output. The output of a quicker
command waits in the pipe (64 KiB on Linux) until the command ends."""
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_KEPT_VARIABLES: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})


def base_environment(*others: str) -> dict[str, str]:
    """Return the environment variables of the worker that a command gets: PATH HOME LANG LC_* TZ TMPDIR USER, and
    the variables named in `others`.

    differs-from-upstream: NoETL's Rust worker gives a command all variables of the worker, with the NATS credentials.
    """
    names = _KEPT_VARIABLES.union(others)
    kept = {name: value for name, value in os.environ.items() if name in names or name.startswith("LC_")}
    kept.setdefault("PATH", os.defpath)
    return kept


def environment_text(env: Mapping[str, Any]) -> dict[str, str]:
    """Convert a step's `env` to environment variables with text values. Nulls are left out; all other values that are
    not text become JSON.

    Raises:
        ConfigurationError: a name or value is not possible in an environment, such as a name with `=`.
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
    """Return `cwd`, the working directory in a step's config. Raises ConfigurationError if there is no such directory
    on this worker."""
    if cwd is not None and not Path(cwd).is_dir():
        raise ConfigurationError(f"{kind}: 'cwd' {cwd!r} is no directory of this worker")
    return cwd


def exit_text(exit_code: int) -> str:
    """Return a text for an exit code of `subprocess`: `exited with code 3`, or `was killed by SIGKILL (out of memory?)`
    for -9."""
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
    """The result of a program. An `exit_code` of -9 means that signal 9 ended the program, as in `subprocess`."""

    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    duration_ms: int
    notes: tuple[str, ...] = ()
    """Notes on changes to the output: bytes were left out, or were not UTF-8 and were replaced."""
    answer: Mapping[str, JsonValue] | None = None
    """Answer of Python code: {"result": value}, {"error": {type, message}}, {"leaves_none": bool} if there is no
    result (true: the code has set `result` to None), or {} after `sys.exit(0)`. None: the process ended without an
    answer, by `os._exit` or a signal."""
    has_met_oom: bool = False
    """True if the kernel killed a process of the worker's cgroup for lack of memory while the program ran. An exit by
    SIGKILL alone does not show who sent the signal."""


class Group(Protocol):
    """A process group that `supervise` can wait for and signal. The future `exited` is done when the first process of
    the group has ended."""

    exited: asyncio.Future[Any]

    def signal(self, number: int) -> None: ...


async def supervise(group: Group, captures: Sequence[Capture], *, timeout_s: float | None) -> bool:
    """Wait until the first process of the group has ended, and read the output. Return True if the group was stopped
    because of the timeout.

    If the calling task is cancelled, stop the group and then raise CancelledError. If the task is cancelled a second
    time, kill the group at once.
    """
    watching = asyncio.get_running_loop().call_later(_QUICK_S, _watch, captures)
    try:
        timed_out = not await _is_done_within(group.exited, timeout_s)
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
    if not await _is_done_within(group.exited, GRACE_S):
        group.signal(signal.SIGKILL)
        await _is_done_within(group.exited, None)
    group.signal(signal.SIGKILL)  # members that outlived their leader hold the pipes open


async def _stop_although_cancelled(group: Group) -> None:
    stopping = asyncio.ensure_future(_stop(group))
    try:
        await asyncio.shield(stopping)
    except asyncio.CancelledError:  # cancelled again: no more grace, but never leave before the group is gone
        group.signal(signal.SIGKILL)
        await stopping


async def _is_done_within(end: asyncio.Future[Any], seconds: float | None) -> bool:
    if not end.done():
        # not asyncio.wait_for: up to Python 3.11 it loses a cancellation that arrives at the end
        await asyncio.wait((end,), timeout=seconds)
    return end.done()


async def _drain(captures: Sequence[Capture]) -> None:
    """Read the remaining output for at most DRAIN_S, because a grandchild process may hold a pipe open for ever."""
    deadline = time.monotonic() + DRAIN_S
    for capture in captures:
        capture.read_what_is_there()  # usually everything, and then there is nothing to wait for
        capture.watch()
        await _is_done_within(capture.ended, max(0.0, deadline - time.monotonic()))


class Capture:
    """Reads a pipe to its end, and keeps at most `limit` bytes: the first half and the last half."""

    def __init__(self, fd: int, limit: int, live: LiveLines | None = None) -> None:
        """Prepare to read the descriptor `fd`. `live`, if given, also gets each chunk."""
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
        """Read in the background: from now on the event loop reads the pipe whenever data arrives."""
        if self._fd >= 0 and not self._is_watched:
            self._is_watched = True
            self._loop.add_reader(self._fd, self._read)

    def _read(self) -> bool:
        """Read one chunk. Return False if no data has arrived, or at the end of the pipe."""
        try:
            chunk = os.read(self._fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # the process at the other end of the socket was killed: the data ends here
            chunk = b""
        if chunk:
            self._keep(chunk)
        else:
            self.close()
        return bool(chunk)

    def read_what_is_there(self) -> None:
        """Read the data that has arrived, without waiting. The number of reads is limited, because the writer may never
        stop."""
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
        if surplus > self._half // 4:  # not at each chunk, because deleting moves the remaining bytes
            del self._tail[:surplus]
            self._dropped += surplus

    @property
    def left_out(self) -> int:
        """Number of dropped bytes, between the kept beginning and the kept end; 0 if all bytes are kept."""
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
        """Forget all bytes that were read so far."""
        self._head.clear()
        self._tail.clear()
        self._dropped = 0

    def data(self) -> bytes:
        """Return the kept bytes. If `left_out` is 0, these are all bytes that were read."""
        return bytes(self._head) + self._tail

    def text(self, name: str) -> tuple[str, tuple[str, ...]]:
        """Return the kept output as text, and notes on changes to the output. If bytes were left out, a partial secret
        at the cut is removed.

        Beginning and end are decoded separately, because joining their bytes first would copy a large output.
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
