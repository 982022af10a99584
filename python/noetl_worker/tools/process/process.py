"""Run one program in its own process group, bounded in time and in output.

Used by the tools that start programs. What is promised, whatever the program does:

* a timeout or a cancelled task stops the process group: SIGTERM, `grace_s` later SIGKILL;
* when the program ends, what it left behind in its group is killed: executions share nothing;
* output is kept up to a limit (head and tail), never in unbounded memory;
* a left-over process that holds the pipe open delays the answer by `drain_s` at most;
* no thread per process: Linux pidfds, elsewhere a poll of 20 ms;
* when the worker itself is killed, so is what it started (`watchdog`).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from noetl_worker.errors import ToolError
from noetl_worker.json_text import dumps
from noetl_worker.process.threads import finished_off_loop
from noetl_worker.tools.fields import without_half_at_end, without_half_at_start
from noetl_worker.tools.process.shortage import before_any_effect, pipes
from noetl_worker.tools.process.watchdog import watchdog

__all__ = [
    "MAX_OUTPUT_BYTES",
    "MEMORY_EVENTS",
    "Capture",
    "Finished",
    "Group",
    "base_environment",
    "environment_text",
    "exit_text",
    "oom_kills",
    "run_process",
    "scratch_directory",
    "supervise",
]

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""Kept of each stream; two of these per running command at worst."""
MEMORY_EVENTS: Final = "/sys/fs/cgroup/memory.events"
"""Of the worker's cgroup, where it has one of version 2."""
GRACE_S: Final = 2.0
DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_POLL_S: Final = 0.02
_READS_AT_THE_END: Final = 8
_QUICK_S: Final = 0.02
"""Output of a command that ends sooner is read at its end: until then a pipe holds it (64 KiB on Linux)."""
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)
_KEPT_VARIABLES: Final = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME"})


def base_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a command sees of the worker's environment: PATH HOME LANG LC_* TZ TMPDIR USER, and nothing else.

    differs-from-upstream: the Rust worker hands its environment, NATS credentials included, to commands.
    """
    source = os.environ if environment is None else environment
    kept = {name: value for name, value in source.items() if name in _KEPT_VARIABLES or name.startswith("LC_")}
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
            raise ValueError(f"env: {name!r} cannot be a variable: no '=' and no NUL character may be in it")
        texts[name] = text
    return texts


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
    """How many processes of the worker's cgroup the kernel has killed for want of memory; None when it does not say.

    Looked at before and after a program: SIGKILL alone does not show who sent it.
    """
    try:
        file = os.open(events, os.O_RDONLY)
    except OSError:  # no Linux, no cgroup v2
        return None
    try:
        found = _OOM_KILLS.search(os.read(file, 4096))
    finally:
        os.close(file)
    return int(found[1]) if found else None


@asynccontextmanager
async def scratch_directory() -> AsyncIterator[str]:
    """A directory that is removed afterwards with all that is in it."""
    path = tempfile.mkdtemp(prefix="noetl-")
    try:
        yield path
    finally:
        if not _remove_empty(path):  # the usual case needs no thread
            await asyncio.shield(finished_off_loop(partial(shutil.rmtree, path, ignore_errors=True)))


def _remove_empty(path: str) -> bool:
    try:
        os.rmdir(path)  # noqa: PTH106 - for every command
    except OSError:
        return False
    return True


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


class Group(Protocol):
    """A process group being supervised: `exited` is done when its leader has ended."""

    exited: asyncio.Future[Any]

    def signal(self, number: int) -> None: ...


async def run_process(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float | None = None,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
    grace_s: float = GRACE_S,
    drain_s: float = DRAIN_S,
) -> Finished:
    """Run `argv` to its end.

    Args:
        argv: program and arguments; no shell is involved.
        env: the complete environment, see `base_environment`.
        stdin: fed to the program from a temporary file; None is /dev/null.
        timeout_s: seconds; None waits for ever.

    Returns:
        Finished; after a timeout with what was printed so far.

    Raises:
        ToolError: kind `process`, the program cannot be started.
        ResourceShortage: for want of descriptors, processes or memory.
        CancelledError: after the group has been stopped.
    """
    started = time.monotonic()
    with before_any_effect("no room for the program"):
        group, out, err = _start(argv, env, cwd, stdin, max_output_bytes)
    try:
        timed_out = await supervise(group, (out, err), timeout_s=timeout_s, grace_s=grace_s, drain_s=drain_s)
    finally:
        exit_code = group.close()
        out.close()
        err.close()
    (stdout, about_out), (stderr, about_err) = out.text("stdout"), err.text("stderr")
    return Finished(
        exit_code=exit_code,
        stdout=stdout,
        stderr=stderr,
        timed_out=timed_out,
        duration_ms=round((time.monotonic() - started) * 1000),
        notes=(*about_out, *about_err),
    )


async def supervise(
    group: Group,
    captures: Sequence[Capture],
    *,
    timeout_s: float | None,
    grace_s: float = GRACE_S,
    drain_s: float = DRAIN_S,
) -> bool:
    """Wait until the group's leader has ended and its output is read; True when the timeout ended it.

    A cancelled task stops the group first, then the cancellation goes on; a second one kills at once.
    """
    watching = asyncio.get_running_loop().call_later(_QUICK_S, _watch, captures)
    try:
        timed_out = not await _within(group.exited, timeout_s)
        if timed_out:
            await _stop(group, grace_s)
        await _drain(captures, drain_s)
    except asyncio.CancelledError:
        await _stop_although_cancelled(group, grace_s)
        raise
    finally:
        watching.cancel()
    return timed_out


def _watch(captures: Sequence[Capture]) -> None:
    for capture in captures:
        capture.watch()


async def _stop(group: Group, grace_s: float) -> None:
    group.signal(signal.SIGTERM)
    if not await _within(group.exited, grace_s):
        group.signal(signal.SIGKILL)
        await _within(group.exited, None)
    group.signal(signal.SIGKILL)  # members that outlived their leader hold the pipes open


async def _stop_although_cancelled(group: Group, grace_s: float) -> None:
    stopping = asyncio.ensure_future(_stop(group, grace_s))
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


async def _drain(captures: Sequence[Capture], seconds: float) -> None:
    """Read what is left; a grandchild may hold a pipe open for ever, so only for `seconds`."""
    deadline = time.monotonic() + seconds
    for capture in captures:
        capture.read_what_is_there()  # mostly all: then nothing is to be waited for
        capture.watch()
        await _within(capture.ended, max(0.0, deadline - time.monotonic()))


class Capture:
    """Reads a pipe to its end into bounded memory: the first and the last half of `limit` bytes."""

    def __init__(self, fd: int, limit: int) -> None:
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
            self.ended.set_result(None)

    def data(self) -> bytes:
        return bytes(self._head) + self._marker() + b"".join(self._tail)

    def _marker(self) -> bytes:
        return f"\n[... {self.left_out} bytes left out ...]\n".encode() if self.left_out else b""

    def text(self, name: str) -> tuple[str, tuple[str, ...]]:
        """(what was kept as text, what was done to it), with no half of a secret where bytes were left out.

        A piece at a time: each copy of a large output is memory that the worker has to have.
        """
        if self.left_out:
            head = without_half_at_end(bytes(self._head)).decode("utf-8", "replace")
            tail = without_half_at_start(b"".join(self._tail)).decode("utf-8", "replace")
            note = f"{name}: {self.left_out} bytes left out of the middle"
            return f"{head}{self._marker().decode()}{tail}", (note,)  # the cut itself may split a character
        data = self.data()
        try:
            return data.decode("utf-8"), ()
        except UnicodeDecodeError as error:
            note = f"{name}: not UTF-8 at byte {error.start}, unreadable bytes replaced"
            return data.decode("utf-8", "replace"), (note,)


class _ProcessGroup:
    """A started program, leader of its own session. It is reaped last, so that its id stays its own."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = self._loop.create_future()
        self._process = process
        self._pidfd = -1
        self._poll: asyncio.TimerHandle | None = None
        try:
            self._pidfd = os.pidfd_open(process.pid)
        except (AttributeError, OSError):  # not Linux, or a kernel or sandbox without pidfds
            self._poll_exit()
        else:
            self._loop.add_reader(self._pidfd, self._has_exited)

    def signal(self, number: int) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):  # gone already; macOS: only zombies are left
                os.killpg(self._process.pid, number)

    def close(self) -> int:
        """Kill what is left of the group and reap its leader; its exit code."""
        self.signal(signal.SIGKILL)
        self._forget()
        watchdog.release(self._process.pid)
        return self._process.wait()

    def _has_exited(self) -> None:
        self._forget()
        self.exited.set_result(None)

    def _forget(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _poll_exit(self) -> None:
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is not None:
            self.exited.set_result(None)
        else:
            self._poll = self._loop.call_later(_POLL_S, self._poll_exit)


def _start(
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str | os.PathLike[str] | None,
    stdin: bytes | None,
    limit: int,
) -> tuple[_ProcessGroup, Capture, Capture]:
    watchdog.prepare()
    (out_read, out_write), (err_read, err_write) = pipes(2)
    fed = subprocess.DEVNULL
    try:
        fed = _stdin_file(stdin)
        process = subprocess.Popen(
            list(argv),
            stdin=fed,
            stdout=out_write,
            stderr=err_write,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )
        watchdog.guard(process.pid)  # before anything else: until then nothing ends it when we are killed
    except (OSError, ValueError) as error:
        os.close(out_read)
        os.close(err_read)
        raise ToolError(f"cannot start {argv[0]!r}: {error}", kind="process") from error
    finally:
        for fd in (out_write, err_write, *([fed] if fed >= 0 else [])):
            os.close(fd)
    return _ProcessGroup(process), Capture(out_read, limit), Capture(err_read, limit)


def _stdin_file(data: bytes | None) -> int:
    """A file descriptor to read `data` from; a file, so that no writer has to be kept alive."""
    if data is None:
        return subprocess.DEVNULL
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return os.dup(file.fileno())
