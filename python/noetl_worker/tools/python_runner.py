"""Runs user Python in forked children of a warm template process: the worker's side of `python_template.py`.

One template per interpreter, started when first needed and again when it has died. Per command: a socket for
request and answer, two pipes for the output, all three handed to the template, which forks. The answer is JSON
and only JSON: a pickled one would run the user's code in the worker.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noetl_worker import json_text
from noetl_worker.errors import DocumentError, ToolError
from noetl_worker.models import JsonValue
from noetl_worker.tools import process
from noetl_worker.tools.python_template import ANSWER, LENGTH, REQUEST

__all__ = ["MAX_ANSWER_BYTES", "PythonRun", "PythonRunner"]

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
_SCRIPT: Final = str(Path(__file__).with_name("python_template.py"))
_OPTIONS: Final = ("-I", "-X", "utf8")
_FORK_REFUSED: Final = 255


@dataclass(frozen=True, slots=True)
class PythonRun:
    """How a command's code ended. `answer` is {"result": value}, {"error": {type, message}}, {} or None.

    None: the process ended without an answer (os._exit, a signal). `exit_code` as `subprocess` has it.
    """

    answer: Mapping[str, JsonValue] | None
    exit_code: int
    stdout: str
    stderr: str
    timed_out: bool
    duration_ms: int
    notes: tuple[str, ...] = ()


class PythonRunner:
    """Warm interpreters by path; `aclose` ends them and whatever still runs in them."""

    def __init__(self, *, fork: bool = hasattr(os, "fork")) -> None:
        self._fork = fork
        self._templates: dict[str, _Template] = {}

    async def run(
        self,
        request: Mapping[str, JsonValue],
        *,
        interpreter: str = sys.executable,
        timeout_s: float | None = None,
        max_output_bytes: int = process.MAX_OUTPUT_BYTES,
    ) -> PythonRun:
        """Run one command's code to its end.

        Args:
            request: code, input, variables, context, execution_id, step, libs, env, cwd (`python_template`).
            interpreter: a CPython 3.9 or newer.
            timeout_s: seconds, then SIGTERM and 2 s later SIGKILL to the child's process group.

        Raises:
            ToolError: kind `process`; the interpreter cannot be started, or its template process died meanwhile.
            CancelledError: after the group has been stopped.
        """
        body = json_text.dumps(request)
        frame = LENGTH.pack(len(body)) + body
        started = time.monotonic()
        if not self._fork:
            run = await _run_once(frame, interpreter, timeout_s, max_output_bytes)
        else:
            run = await self._run_forked(frame, interpreter, timeout_s, max_output_bytes)
        answer, exit_code, stdout, stderr, timed_out, notes = run
        elapsed = round((time.monotonic() - started) * 1000)
        return PythonRun(_parse(answer), exit_code, stdout, stderr, timed_out, elapsed, notes)

    async def aclose(self) -> None:
        """End the template processes."""
        for template in self._templates.values():
            template.close()
        self._templates.clear()

    async def _run_forked(self, frame: bytes, interpreter: str, timeout_s: float | None, limit: int) -> _Raw:
        template = self._templates.get(interpreter)
        if template is None or template.is_dead:
            template = self._templates[interpreter] = _Template(interpreter)
        return await template.run(frame, timeout_s, limit)


_Raw = tuple["bytes | None", int, str, str, bool, tuple[str, ...]]


def _parse(answer: bytes | None) -> Mapping[str, JsonValue] | None:
    if not answer:
        return None
    try:
        parsed = json_text.loads(answer)
    except DocumentError:  # killed while it wrote
        return None
    return parsed if isinstance(parsed, dict) else None


def _whole(capture: process.Capture) -> bytes | None:
    if capture.left_out:
        raise ToolError(f"the result of the Python code is over {MAX_ANSWER_BYTES >> 20} MiB", kind="python")
    return capture.data() or None


class _Child:
    """One forked command, as a `process.Group`."""

    def __init__(self, template: _Template, number: int) -> None:
        self.exited = asyncio.Event()
        self.exit_code: int | None = None
        self._template = template
        self._number = number

    def signal(self, number: int) -> None:
        if not self.exited.is_set():
            self._template.send(REQUEST.pack(b"K", self._number, number))


class _Template:
    """A running template process and the commands that it has forked."""

    def __init__(self, interpreter: str) -> None:
        self.is_dead = False
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._children: dict[int, _Child] = {}
        self._pids: dict[int, int] = {}
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._received = bytearray()
        self._control, theirs = socket.socketpair()
        try:
            self._process = _start_template(interpreter, theirs.fileno())
        except ToolError:
            self._control.close()
            raise
        finally:
            theirs.close()
        self._control.setblocking(False)
        self._loop.add_reader(self._control.fileno(), self._read)

    async def run(self, frame: bytes, timeout_s: float | None, limit: int) -> _Raw:
        child = _Child(self, next(self._numbers))
        mine, theirs = socket.socketpair()
        mine.setblocking(False)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self._children[child._number] = child
        self.send(REQUEST.pack(b"F", child._number, 0), [theirs.detach(), out_write, err_write])
        captures = (process.Capture(out_read, limit), process.Capture(err_read, limit))
        answer = process.Capture(os.dup(mine.fileno()), MAX_ANSWER_BYTES)
        feeding = asyncio.ensure_future(self._feed(mine, frame))
        try:
            timed_out = await process.supervise(child, (*captures, answer), timeout_s=timeout_s)
        finally:
            for capture in (*captures, answer):
                capture.close()
            self._children.pop(child._number, None)
            self._pids.pop(child._number, None)
            feeding.cancel()
            try:  # last: a cancellation here must leave nothing open, nor a process id that may be another's by then
                await asyncio.gather(feeding, return_exceptions=True)
            finally:
                mine.close()
        if child.exit_code is None:
            raise ToolError("the Python template process died, and the command with it", kind="process", retryable=True)
        if child.exit_code == _FORK_REFUSED and not answer.data():
            raise ToolError("no process to be had for the Python code", kind="process", retryable=True)
        out, err = captures
        notes = (*out.notes("stdout"), *err.notes("stderr"))
        return _whole(answer), child.exit_code, out.text(), err.text(), timed_out, notes

    async def _feed(self, channel: socket.socket, frame: bytes) -> None:
        with suppress(ConnectionError):  # the child has ended: its exit code says why
            await self._loop.sock_sendall(channel, frame)

    def send(self, message: bytes, descriptors: list[int] | None = None) -> None:
        """Queue a control message; the descriptors are ours no more."""
        self._unsent.append((message, descriptors or []))
        self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, descriptors = self._unsent[0]
            try:
                if descriptors:
                    socket.send_fds(self._control, [message], descriptors)
                else:
                    self._control.send(message)
            except BlockingIOError:
                self._loop.add_writer(self._control.fileno(), self._flush)
                return
            except OSError:
                self._died()
                return
            self._unsent.pop(0)
            for descriptor in descriptors:
                os.close(descriptor)
        if not self.is_dead:
            self._loop.remove_writer(self._control.fileno())

    def _read(self) -> None:
        try:
            data = self._control.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._died()
            return
        self._received += data
        whole = len(self._received) // ANSWER.size * ANSWER.size
        for op, number, value in ANSWER.iter_unpack(bytes(self._received[:whole])):
            child = self._children.get(number)
            if child is None:
                continue
            if op == b"P":
                self._pids[number] = value
            else:
                self._pids.pop(number, None)  # the template has killed its group, and the number may be another's
                child.exit_code = value
                child.exited.set()
        del self._received[:whole]

    def _died(self) -> None:
        """The template is gone: its children have nobody to stop them but us."""
        if self.is_dead:
            return
        self.is_dead = True
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, descriptors in self._unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self._unsent.clear()
        for pid in self._pids.values():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        for child in self._children.values():
            child.exited.set()
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._died()


def _start_template(interpreter: str, control: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [interpreter, *_OPTIONS, _SCRIPT, "serve", str(control)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=process.base_environment(),
            cwd="/",
            pass_fds=[control],
            start_new_session=True,
        )
    except OSError as error:
        raise ToolError(f"cannot start the interpreter {interpreter!r}: {error}", kind="process") from error


async def _run_once(frame: bytes, interpreter: str, timeout_s: float | None, limit: int) -> _Raw:
    """Without fork: an interpreter of its own for the command."""
    mine, theirs = socket.socketpair()
    with mine:
        with theirs:
            argv = [interpreter, *_OPTIONS, _SCRIPT, "once", str(theirs.fileno())]
            running = asyncio.ensure_future(
                process.run_process(
                    argv,
                    env=process.base_environment(),
                    timeout_s=timeout_s,
                    max_output_bytes=limit,
                    pass_fds=[theirs.fileno()],
                )
            )
            try:
                await asyncio.sleep(0)  # the process is started before its end of the socket is closed here
            except asyncio.CancelledError:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                raise
        mine.setblocking(False)
        answer = process.Capture(os.dup(mine.fileno()), MAX_ANSWER_BYTES)
        feeding = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(mine, frame))
        try:
            finished = await running
        finally:
            running.cancel()
            feeding.cancel()
            await asyncio.gather(running, feeding, return_exceptions=True)
            answer.close()
    return (
        _whole(answer),
        finished.exit_code,
        finished.stdout,
        finished.stderr,
        finished.timed_out,
        finished.notes,
    )
