"""Output lines of running commands, for the CLI commands `dev` and `exec`. Both register a callback, the watcher, which
prints each line. An ordinary worker has no watcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final, TypeAlias

from noetl_worker.models.command import Command
from noetl_worker.text.secrets.redaction import drop_half_at_end, known_here, redact_text
from noetl_worker.tools.process.own_frames import without_own_frames

_LONGEST: Final = 8_192
"""Maximum bytes of one line; the rest of the line is left out."""


@dataclass(frozen=True, slots=True)
class PrintedLine:
    """A line of a running command, redacted."""

    execution_id: int
    command_id: str
    step: str
    stream: str
    """Name of the stream: stdout, stderr, or `retry` for a line of the worker about another attempt."""
    text: str


Watcher: TypeAlias = Callable[[PrintedLine], None]
_WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("noetl_worker_output_watcher", default=None)
_COMMAND: Final[ContextVar[Command | None]] = ContextVar("noetl_worker_output_command", default=None)


@contextmanager
def watched(watcher: Watcher | None) -> Iterator[None]:
    """Call `watcher` with each output line of commands inside the block. Commands in asyncio tasks started by the block
    are included. None: nobody gets the lines."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def begin(command: Command) -> None:
    """Attribute the output lines of the current asyncio task, and of tasks started by it, to `command` from now on."""
    if _WATCHER.get() is not None:
        _COMMAND.set(command)


def say(stream: str, text: str) -> None:
    """Pass the output line `text`, redacted, to the watcher (the callback of `dev` or `exec`) if there is one. The line
    is attributed to the command of the current asyncio task."""
    if _WATCHER.get() is not None:
        _say_redacted(stream, redact_text(text, known_here()))


def _say_redacted(stream: str, text: str) -> None:
    watcher, command = _WATCHER.get(), _COMMAND.get()
    if watcher is not None and command is not None:
        watcher(PrintedLine(command.execution_id, str(command.command_id), command.step, stream, text))


def live_lines(stream: str, limit: int) -> LiveLines | None:
    """Return an object that splits a command's output into lines and passes each line to the watcher. The watcher is a
    callback that prints the lines. Return None if there is no watcher.

    `limit`: number of bytes of output after which no further lines are passed on.
    """
    return LiveLines(stream, limit) if _WATCHER.get() is not None else None


class LiveLines:
    """Splits an output stream into lines for the watcher, a callback that prints the lines. Lines that arrive together
    are redacted together, because a secret may span several lines."""

    def __init__(self, stream: str, limit: int) -> None:
        self._stream, self._left = stream, limit
        self._rest = b""

    def feed(self, chunk: bytes) -> None:
        if self._left < 0:
            return
        self._left -= len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        self._rest = self._rest[: _LONGEST + 1]
        self._tell(lines)
        if self._left < 0:
            self._rest = b""
            say(self._stream, "[the output is over its size limit: further lines are not shown]")

    def end(self) -> None:
        if self._rest:
            self._tell([self._rest])
            self._rest = b""

    def _tell(self, lines: list[bytes]) -> None:
        if lines:
            text = b"".join(_shortened(line) + b"\n" for line in lines).decode("utf-8", "replace")
            for line in redact_text(without_own_frames(text), known_here()).split("\n")[:-1]:
                _say_redacted(self._stream, line.removesuffix("\r"))


def _shortened(line: bytes) -> bytes:
    return line if len(line) <= _LONGEST else drop_half_at_end(line[:_LONGEST]) + b" [...]"
