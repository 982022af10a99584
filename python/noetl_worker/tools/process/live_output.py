"""The output of commands, line by line while they run, for a local watcher (`dev`, `exec`). A worker has no watcher."""

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
    """stdout or stderr, or `retry` for the worker's own line about another attempt."""
    text: str


Watcher: TypeAlias = Callable[[PrintedLine], None]
_WATCHER: Final[ContextVar[Watcher | None]] = ContextVar("noetl_worker_output_watcher", default=None)
_COMMAND: Final[ContextVar[Command | None]] = ContextVar("noetl_worker_output_command", default=None)


@contextmanager
def watched(watcher: Watcher | None) -> Iterator[None]:
    """Tell `watcher` every line of the commands run by this task and by tasks it starts meanwhile. None: nobody."""
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def begin(command: Command) -> None:
    """Attribute output in this task, and in tasks it starts, to this command from now on."""
    if _WATCHER.get() is not None:
        _COMMAND.set(command)


def say(stream: str, text: str) -> None:
    """Tell the watcher, if there is one, a line of the command that runs here."""
    if _WATCHER.get() is not None:
        _say_redacted(stream, redact_text(text, known_here()))


def _say_redacted(stream: str, text: str) -> None:
    watcher, command = _WATCHER.get(), _COMMAND.get()
    if watcher is not None and command is not None:
        watcher(PrintedLine(command.execution_id, str(command.command_id), command.step, stream, text))


def lines_of(stream: str, limit: int) -> LiveLines | None:
    """Return a reader for a pipe of the command that runs here, or None if nobody watches."""
    return LiveLines(stream, limit) if _WATCHER.get() is not None else None


class LiveLines:
    """A stream cut into lines. Lines that arrive together are redacted together: a secret may have several lines."""

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
            say(self._stream, "[more is printed than is kept: the rest is not shown]")

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
