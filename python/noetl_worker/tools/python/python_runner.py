"""Runs Python code of playbooks, and programs, in forked children of a warm template process. This is the worker's
side; the template's side is `python_template.py`.

A runner has one template process, started at first use or by `warm_up`, and replaced after its death. A template that
does not answer for 2 s is killed: user code may have stopped its parent process. Commands that have not started then
run in the next template. Each command has a socket for request and answer, and two pipes for the output. The worker
passes these three descriptors to the template, which forks the command. The answer is only JSON: unpickling an answer
would run the user's code in the worker.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final

from noetl_worker.errors import ResourceShortage, ToolError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.process import process
from noetl_worker.tools.process.confinement import UNCONFINED, Confinement
from noetl_worker.tools.process.live_output import live_lines
from noetl_worker.tools.process.scratch import Scratch
from noetl_worker.tools.process.shortage import before_any_effect, is_shortage_text
from noetl_worker.tools.python.interpreter import TemplateProcess, started_once
from noetl_worker.tools.python.python_answer import Conversation, PythonAnswer, Request, frame_of, parsed
from noetl_worker.tools.python.python_template import ANSWER, NOT_STARTED, REQUEST

_log = logging.getLogger(__name__)
_ANSWER_S: Final = 2.0
_END_S: Final = 1.0
_START_S: Final = 30.0
"""Maximum seconds until a new template process, a warm Python process from which commands are forked, answers. The
interpreter may be on a slow file system."""
_TEMPLATES_A_COMMAND: Final = 3
_IDLE_SUPERVISORS: Final = 16
"""Maximum number of idle supervisor processes. A supervisor runs one confined command at a time, and then waits for
another command; it takes a few MB."""


class PythonRunner:
    """Runs Python code and programs in forks of a template process. `aclose` ends the template process and all its
    forks.

    Args:
        serving: module that the template loads, whose `run_command` runs the commands; empty: commands are Python code.
        interpreter: path of the Python interpreter that runs the template process.
        memory_events: file in which the kernel counts its kills for lack of memory.
        answer_s: seconds without an answer after which a template process is replaced.
        start_s: seconds for the first answer of a template process.
    """

    def __init__(
        self,
        *,
        confinement: Confinement = UNCONFINED,
        serving: str = "",
        interpreter: str = sys.executable,
        memory_events: str | os.PathLike[str] = process.MEMORY_EVENTS,
        answer_s: float = _ANSWER_S,
        start_s: float = _START_S,
    ) -> None:
        self._limits_s = (answer_s, start_s)
        self._memory_events = memory_events
        self._confinement = confinement
        self._serving = serving
        self._interpreter = interpreter
        self.scratch: Final = Scratch(confinement)
        self._template: _Template | None = None
        self._supervisors: list[_Template] = []
        """Supervisor processes that wait for a command. A supervisor runs one confined command at a time."""
        self._busy: set[_Template] = set()

    def warm_up(self) -> None:
        """Start the process from which commands will be forked, so that the first command need not wait for it."""
        with suppress(ToolError, OSError):  # the first command tries again, and reports why it does not start
            self._living_template()

    async def run(
        self,
        request: Mapping[str, JsonValue],
        *,
        once: str = "",
        timeout_s: float | None = None,
        max_output_bytes: int = process.MAX_OUTPUT_BYTES,
        conversation: Conversation | None = None,
    ) -> process.Finished:
        """Run one command's code to its end.

        Args:
            request: object with code, input, variables, context, execution_id, step, libs, env, cwd (read by
                `python_command`).
            once: path of another interpreter (CPython 3.9 or newer), started for this command alone. Empty: a
                fork of the warm template process runs the code.
            timeout_s: seconds until SIGTERM, and 2 s later SIGKILL, to the child's process group.
            conversation: object that receives what the code sends, and can send the code more requests. With it,
                `Finished.answer` is None.

        Raises:
            ToolError: kind `process`; the interpreter cannot be started, or the template process died while the code
                ran.
            AnswerTooLong: the code's result is over MAX_ANSWER_BYTES.
            CancelledError: after the group has been stopped.
        """
        op, frame = b"F", frame_of(request)
        if once:
            op, frame = b"E", frame_of(started_once(once, self._confinement)) + frame
        what = f"the interpreter {once or self._interpreter!r}"
        return await self._finished(what, op, frame, timeout_s, max_output_bytes, conversation)

    async def run_program(
        self,
        program: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str,
        timeout_s: float | None = None,
        max_output_bytes: int = process.MAX_OUTPUT_BYTES,
    ) -> process.Finished:
        """Run a program with an empty standard input. A supervisor process starts the program if commands are
        confined.

        Args:
            program: path of `argv[0]`.

        Raises:
            ToolError: kind `process`; the program cannot be started, or the template process died while the program
                ran.
            CancelledError: after the group has been stopped.
        """
        request = {"program": program, "argv": list(argv), "env": dict(env), "cwd": cwd}
        return await self._finished(repr(argv[0]), b"E", frame_of(request), timeout_s, max_output_bytes)

    @property
    def is_busy(self) -> bool:
        """True while a command runs in a process of this runner."""
        return bool(self._busy)

    def for_interpreter(self, interpreter: str) -> PythonRunner:
        """Return a runner for another interpreter, with the same confinement and time limits."""
        answer_s, start_s = self._limits_s
        return PythonRunner(
            confinement=self._confinement,
            interpreter=interpreter,
            memory_events=self._memory_events,
            answer_s=answer_s,
            start_s=start_s,
        )

    async def aclose(self) -> None:
        self.end()
        await self.scratch.aclose()

    def end(self) -> None:
        """End the processes of this runner: the idle supervisors, then the processes that run commands, and last the
        template process. The template process comes last because it kills supervisors that hang. A supervisor is a
        process that runs one confined command at a time."""
        for template in (*self._supervisors, *self._busy, *filter(None, [self._template])):
            template.close()
        self._template = None
        self._supervisors.clear()

    async def _finished(
        self,
        what: str,
        op: bytes,
        frame: bytes,
        timeout_s: float | None,
        limit: int,
        conversation: Conversation | None = None,
    ) -> process.Finished:
        """Run the process of one command to its end. Raise an error if the process cannot be started.

        Args:
            what: the interpreter or program that is started, for the text of this error.
            op: message type for the template process: `F` forks a process for Python code, `E` starts a program.
            frame: the command's request as bytes (`frame_of`).
            limit: maximum number of bytes kept of stdout, and of stderr.
            conversation: sends the process further requests after the first. None: there is only one request.
        """
        kills = process.oom_kills(self._memory_events)
        run = await self._run(op, frame, timeout_s, limit, conversation)
        if run.exit_code == NOT_STARTED:
            reason = f"cannot start {what}: {(run.answer or {}).get('error')}"
            raise ResourceShortage(reason) if is_shortage_text(reason) else ToolError(reason, kind="process")
        has_met_oom = kills is not None and process.oom_kills(self._memory_events) != kills
        return replace(run, has_met_oom=True) if has_met_oom else run

    async def _run(
        self, op: bytes, frame: bytes, timeout_s: float | None, limit: int, conversation: Conversation | None
    ) -> process.Finished:
        started = time.monotonic()
        for _ in range(_TEMPLATES_A_COMMAND):
            with before_any_effect("to start a template process"):
                template = self._supervisor() if self._confinement.is_on else self._living_template()
            self._busy.add(template)
            try:
                with suppress(_NotStarted):
                    return await template.run(op, frame, timeout_s, limit, started, conversation)
            finally:
                self._busy.discard(template)
                self._put_back(template)
        text = f"the process that starts commands ended {_TEMPLATES_A_COMMAND} times before it started this command"
        raise ResourceShortage(text)  # no command has begun

    def _living_template(self) -> _Template:
        if self._template is None or self._template.is_dead:
            self._template = _Template(self._process(), *self._limits_s)
        return self._template

    def _process(self) -> TemplateProcess:
        return TemplateProcess(self._confinement, self._serving, self._interpreter)

    def _supervisor(self) -> _Template:
        """Return an idle supervisor process, or start a supervisor. A supervisor runs one command at a time and ends
        all processes of the command."""
        while self._supervisors:
            supervisor = self._supervisors.pop()
            if not supervisor.is_dead:
                return supervisor
        return _Template(_Supervisor(self._living_template()), *self._limits_s)

    def _put_back(self, template: _Template) -> None:
        if not self._confinement.is_on or template.is_dead:
            return
        if len(self._supervisors) < _IDLE_SUPERVISORS:
            self._supervisors.append(template)
        else:
            template.close()


class _NotStarted(Exception):
    """Error: the template process ended before it forked the command, so the command's code has not begun."""


def _channels() -> tuple[socket.socket, int, socket.socket, tuple[int, int], tuple[int, int]]:
    """Open the channels of one command: a socket pair and two output pipes. The worker's socket is duplicated, for
    reading answers. After an OSError all of them are closed."""
    with ExitStack() as opened:
        mine, theirs = map(opened.enter_context, socket.socketpair())
        mine.setblocking(False)
        answering = os.dup(mine.fileno())
        opened.callback(os.close, answering)
        out = os.pipe()
        for end in out:
            opened.callback(os.close, end)
        err = os.pipe()
        opened.pop_all()
    return mine, answering, theirs, out, err


class _Supervisor:
    """A supervisor process that a template process forks. It has the methods `start` and `end` of a TemplateProcess, so
    that `_Template` can start and end either of them."""

    def __init__(self, template: _Template) -> None:
        self._template = template

    def start(self, control: int) -> None:
        self._number = self._template.fork(os.dup(control))

    def end(self, seconds: float) -> None:
        if not self._template.is_dead:  # else the closed control socket ends the fork
            self._template.send(REQUEST.pack(b"K", self._number, signal.SIGKILL))


class _Child:
    """A command in a process that a template process has forked. Has the interface of `process.Group`."""

    def __init__(self, template: _Template, number: int, request: Request, answer: PythonAnswer) -> None:
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        """Future of the command's exit code. The result is None if the template ended before it reported the exit
        code."""
        self._template = template
        self._number = number
        self._request = request
        self._answer = answer

    def abandon(self) -> None:
        """Kill the command directly from the worker, because the template process that forked the command has ended."""
        if self.exited.done():
            return
        self._request.end()
        self._answer.read_what_is_there()
        if self._answer.process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._answer.process, signal.SIGKILL)
        self.exited.set_result(None)

    def signal(self, number: int) -> None:
        if not self.exited.done():
            self._template.send(REQUEST.pack(b"K", self._number, number))


class _Template:
    """A process that starts the processes of commands, with the commands that it runs now.

    The process is a template process (a warm Python process), or a supervisor. A supervisor is a fork of the template
    process that runs one confined command at a time.
    """

    def __init__(self, process: TemplateProcess | _Supervisor, answer_s: float, start_s: float) -> None:
        self._answer_s, self._start_s = answer_s, start_s
        self.is_dead = False
        self._end = ""
        self._is_closed = False
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._children: dict[int, _Child] = {}
        self._unconfirmed: set[int] = set()
        """Numbers of the supervisor processes that this template process is to fork and has not confirmed yet. Messages
        name a supervisor by its number. A confirmed supervisor answers on a control socket of its own."""
        self._unsent: list[tuple[bytes, list[int]]] = []
        self._received = bytearray()
        self._has_answered = False
        self._asked_at: float | None = None
        """Time of the oldest unanswered request, or None. Any answer shows that the template is alive."""
        self._check: asyncio.TimerHandle | None = None
        self._process = process
        self._control, theirs = socket.socketpair()
        try:
            process.start(theirs.fileno())
        except (ToolError, OSError):
            self._control.close()
            raise
        finally:
            theirs.close()
        self._control.setblocking(False)
        self._loop.add_reader(self._control.fileno(), self._read)

    def fork(self, control: int) -> int:
        """Make the template process fork a supervisor process that serves the control socket `control`. Return the
        number that names this supervisor in later messages. The descriptor `control` is closed in this process after
        sending."""
        number = next(self._numbers)
        self._unconfirmed.add(number)
        self.send(REQUEST.pack(b"S", number, 0), [control])
        self._expect_answer()
        return number

    async def run(
        self,
        op: bytes,
        frame: bytes,
        timeout_s: float | None,
        limit: int,
        started: float,
        conversation: Conversation | None,
    ) -> process.Finished:
        """Run a command to its end. `started` is the time when the command first began to wait for a template process;
        the reported duration counts from then."""
        with before_any_effect("to run the command"):
            mine, answering, theirs, (out_read, out_write), (err_read, err_write) = _channels()
        request, answer, number = Request(mine, frame), PythonAnswer(answering), next(self._numbers)
        captures = (
            process.Capture(out_read, limit, live_lines("stdout", limit)),
            process.Capture(err_read, limit, live_lines("stderr", limit)),
        )
        child = self._children[number] = _Child(self, number, request, answer)
        if conversation is not None:
            conversation.begin(request, answer)
        request.send()  # before its reader is woken, which would otherwise sleep and be woken again
        self.send(REQUEST.pack(op, number, 0), [theirs.detach(), out_write, err_write])
        self._expect_answer()
        try:
            timed_out = await process.supervise(child, (*captures, answer), timeout_s=timeout_s)
        finally:
            for capture in (*captures, answer):
                capture.close()
            self._children.pop(number, None)
            request.close()
        exit_code = child.exited.result()
        if exit_code is None:
            if answer.process is None and not self._is_closed:
                raise _NotStarted
            text = f"the command was stopped, because the worker's process that starts commands {self._end}"
            raise ToolError(f"{text}: run the step again", kind="process", retryable=True)
        if answer.process is None and not timed_out:
            raise ResourceShortage("the worker lacks resources to start a process for the command")
        (stdout, about_out), (stderr, about_err) = captures[0].text("stdout"), captures[1].text("stderr")
        elapsed = round((time.monotonic() - started) * 1000)
        notes = (*about_out, *about_err)
        return process.Finished(exit_code, stdout, stderr, timed_out, elapsed, notes, parsed(answer))

    def send(self, message: bytes, descriptors: list[int] | None = None) -> None:
        """Queue a message for the control socket. The descriptors are sent too, and then closed in this process."""
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
        self._has_answered, self._asked_at = True, None
        self._received += data
        complete = len(self._received) // ANSWER.size * ANSWER.size
        for _, number, value in ANSWER.iter_unpack(bytes(self._received[:complete])):
            self._unconfirmed.discard(number)
            child = self._children.get(number)
            if child is not None and not child.exited.done():
                child.exited.set_result(value)
        del self._received[:complete]

    def _expect_answer(self) -> None:
        if self._asked_at is None:
            self._asked_at = self._loop.time()
        if self._check is None and not self.is_dead:
            self._check_in(self._answer_s / 2)

    def _check_in(self, seconds: float) -> None:
        self._check = self._loop.call_later(seconds, self._check_answer, self._loop.time() + seconds)

    def _check_answer(self, due: float) -> None:
        """Ask this process for a sign of life if it runs commands or still has to fork a supervisor process. Give the
        process up if it has not answered for too long: the next command then starts another.

        `due`: event loop time for which this check was scheduled. If the check is late, the process gets more time.
        """
        self._check = None
        now = self._loop.time()
        self._read()  # data that arrived while the loop was busy is an answer too
        if self.is_dead or not (self._children or self._unconfirmed):
            self._asked_at = None
            return
        if self._asked_at is None or now - due >= self._answer_s:  # this loop was held up, and the template perhaps too
            self._asked_at = now
        left_s = self._asked_at + (self._answer_s if self._has_answered else self._start_s) - now
        if left_s > 0:
            self.send(REQUEST.pack(b"A", 0, 0))  # the first bytes of a command are not an answer of the template's
            if not self.is_dead:
                self._check_in(min(left_s, self._answer_s / 2))
            return
        _log.warning(
            "the process that starts python commands does not answer and is replaced; check the load if this repeats"
        )
        self._died("did not answer and was replaced")

    def _died(self, end: str = "died", *, end_s: float = 0.0) -> None:
        """Give up the template process: it has ended, does not answer, or is closed. Kill the commands that it forked,
        because only the worker can stop them now."""
        if self.is_dead:
            return
        self.is_dead, self._end = True, end
        if self._check is not None:
            self._check.cancel()
        self._loop.remove_reader(self._control.fileno())
        self._loop.remove_writer(self._control.fileno())
        self._control.close()
        for _, descriptors in self._unsent:
            for descriptor in descriptors:
                os.close(descriptor)
        self._unsent.clear()
        for child in self._children.values():
            child.abandon()
        self._process.end(end_s)

    def close(self) -> None:
        self._is_closed = True
        self._died(end_s=_END_S)
