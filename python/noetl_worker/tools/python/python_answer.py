"""What is written to the process of a command and read from it: one frame there, one answer back."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from noetl_worker import json_text
from noetl_worker.errors import DocumentError
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.process import process
from noetl_worker.tools.python.python_exchange import LENGTH, PROCESS_ID

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024


class AnswerTooLong(Exception):
    """More than MAX_ANSWER_BYTES, or than the values of one may take of the memory."""


def frame_of(request: Mapping[str, JsonValue]) -> bytes:
    body = json_text.dumps(request)
    return LENGTH.pack(len(body)) + body


class PythonAnswer(process.Capture):
    """What comes out of the socket of a command."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, MAX_ANSWER_BYTES)
        self.process: int | None = None
        """Of the command; None: it has not begun."""

    def _keep(self, chunk: bytes) -> None:
        if self.process is None:
            (self.process,) = PROCESS_ID.unpack_from(chunk)
            chunk = chunk[PROCESS_ID.size :]
        super()._keep(chunk)


class Request:
    """On its way to a command; what does not go at once goes when there is room."""

    def __init__(self, channel: socket.socket, frame: bytes) -> None:
        self._channel = channel
        self._rest = memoryview(frame)
        self._loop: asyncio.AbstractEventLoop | None = None

    def send(self) -> None:
        try:
            self._rest = self._rest[self._channel.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:  # the child has ended: its exit code says why
            self._rest = self._rest[:0]
        if self._rest and self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_writer(self._channel.fileno(), self.send)
        elif not self._rest:
            self._wait_no_more()

    def end(self) -> None:
        """Nothing goes into the socket any more, from neither side: a command that has not begun never will."""
        with suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._wait_no_more()
        self._channel.close()

    def _wait_no_more(self) -> None:
        if self._loop is not None:
            self._loop.remove_writer(self._channel.fileno())
            self._loop = None


def parsed(answer: process.Capture) -> Mapping[str, JsonValue] | None:
    """What it says; None for a process that ended without one, or where it has another form. Raises AnswerTooLong."""
    if answer.left_out:
        raise AnswerTooLong(f"over {MAX_ANSWER_BYTES >> 20} MiB")
    data = answer.data()
    try:
        value = json_text.loads(data) if data else None
    except DocumentError as error:
        if error.code == "json_size":
            raise AnswerTooLong(str(error)) from error
        return None  # killed while it wrote
    return value if isinstance(value, dict) else None
